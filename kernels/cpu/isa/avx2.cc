#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vec_avx2.h"

namespace ocelli::kernels::cpu {

constinit const KernelTable kAvx2Table =
    Kernels<VecAvx2>::table({quantise_row_avx2,
                             linear_int8_avx2,
                             false,
                             {linear_int4_avx2, expand_int4_avx2, kNeverExpand}});

}  // namespace ocelli::kernels::cpu
