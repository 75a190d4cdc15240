#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int8_portable.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {

using Portable = Int8Kernels<Int8Portable, Activations<VecPortable>>;

void quantise_row_scalar(const float* x, int n, int group, const QuantisedRows& out,
                         const float* next) {
  Portable::quantise_row(x, n, group, out, next);
}
void linear_int8_scalar(const Int8Block& block) {
  Portable::linear(block);
}

}  // namespace ocelli::kernels::cpu
