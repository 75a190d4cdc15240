#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int8_portable.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {

using Portable = Int8Kernels<Int8Portable, Activations<VecPortable>>;

void quantise_row_scalar(const InputRow& x, int group, const QuantisedRows& out) {
  Portable::quantise_row(x, group, out);
}
void linear_int8_scalar(const Int8Block& block) {
  Portable::linear(block);
}

}  // namespace ocelli::kernels::cpu
