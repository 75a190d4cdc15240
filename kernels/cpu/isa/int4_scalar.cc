#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int4_portable.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {

using Portable = Int4Kernels<Int4Portable, Activations<VecPortable>>;

void linear_int4_scalar(const Int8Block& block) {
  Portable::linear(block);
}
void expand_int4_scalar(const uint8_t* panel, int steps, int factor_lines, uint8_t* out) {
  Portable::expand(panel, steps, factor_lines, out);
}

}  // namespace ocelli::kernels::cpu
