#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vec_portable.h"

namespace ocelli::kernels::cpu {

const KernelTable kScalarTable = Kernels<VecPortable>::kTable;

}  // namespace ocelli::kernels::cpu
