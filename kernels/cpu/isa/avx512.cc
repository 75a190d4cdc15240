#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vec_avx512.h"

namespace ocelli::kernels::cpu {

const KernelTable kAvx512Table = Kernels<VecAvx512>::kTable;

}  // namespace ocelli::kernels::cpu
