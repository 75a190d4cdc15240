#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vec_avx512.h"

namespace ocelli::kernels::cpu {

constinit const KernelTable kAvx512Table =
    Kernels<VecAvx512>::table({quantise_row_avx512,
                               linear_int8_avx512,
                               false,
                               {linear_int4_avx512, expand_int4_avx512, kNeverExpand}});

}  // namespace ocelli::kernels::cpu
