#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vec_avx2.h"

namespace ocelli::kernels::cpu {

const KernelTable kAvx2Table = Kernels<VecAvx2>::kTable;

}  // namespace ocelli::kernels::cpu
