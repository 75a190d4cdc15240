#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int4_kernels.h"
#include "kernels/cpu/isa/ints_avx2.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {
namespace {

// VPMADDUBSW adds two products of a nibble and an input, at most 2 · 15 · 127; eight such sums, two
// for each line, fit 16 bits.
struct Int4Avx2 : NibblesAvx2 {
  static constexpr int kChunk = 4;

  static Partial dot(Partial sums, Nibbles w, Inputs x) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(w, x));
  }
  static Int widen(Partial sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
};

using Avx2 = Int4Kernels<Int4Avx2, Activations<VecAvx2>>;

}  // namespace

void linear_int4_avx2(const Int8Block& block) {
  Avx2::linear(block);
}
void expand_int4_avx2(const uint8_t* panel, int steps, int factor_lines, uint8_t* out) {
  Avx2::expand(panel, steps, factor_lines, out);
}

}  // namespace ocelli::kernels::cpu
