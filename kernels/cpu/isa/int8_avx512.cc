#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int8_kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vnni_avx512.h"

namespace ocelli::kernels::cpu {
namespace {

// A line is one operand of VPDPBUSD.
struct Int8Avx512 : VnniAvx512 {
  using Weights = __m512i;
  static constexpr int kPanels = 4;
  // 24 sums for 2 + 12 loads.
  static constexpr int kManyPanels = 2;
  static constexpr int kManyRows = 12;
};

using Avx512 = Int8Kernels<Int8Avx512, Activations<VecAvx512>>;

}  // namespace

void quantise_row_avx512(const InputRow& x, int group, const QuantisedRows& out) {
  Avx512::quantise_row(x, group, out);
}
void linear_int8_avx512(const Int8Block& block) {
  Avx512::linear(block);
}

}  // namespace ocelli::kernels::cpu
