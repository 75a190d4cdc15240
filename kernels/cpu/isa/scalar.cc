#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vec_portable.h"

namespace ocelli::kernels::cpu {

constinit const KernelTable kScalarTable = Kernels<VecPortable>::table(
    {quantise_row_scalar, linear_int8_scalar, false, {linear_int4_scalar, expand_int4_scalar}});

}  // namespace ocelli::kernels::cpu
