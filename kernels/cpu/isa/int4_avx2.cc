#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int4_kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vec_avx2.h"

namespace ocelli::kernels::cpu {
namespace {

// VPMADDUBSW adds two products of a nibble and an input, at most 2 · 15 · 127; eight such sums, two
// for each line, fit 16 bits.
struct Int4Avx2 {
  using Vec = VecAvx2;
  using Int = __m256i;
  using Nibbles = __m256i;
  using Inputs = __m256i;
  using Partial = __m256i;
  static constexpr int kPanels = 2;
  static constexpr int kRows = 2;
  static constexpr int kChunk = 4;

  static __m256i load(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
  static Nibbles low(const uint8_t* p) { return _mm256_and_si256(load(p), _mm256_set1_epi8(15)); }
  static Nibbles high(const uint8_t* p) {
    return _mm256_and_si256(_mm256_srli_epi16(load(p), 4), _mm256_set1_epi8(15));
  }
  static Inputs broadcast(const int8_t* p) {
    int32_t inputs;
    std::memcpy(&inputs, p, sizeof inputs);
    return _mm256_set1_epi32(inputs);
  }
  static Partial dot(Partial sums, Nibbles w, Inputs x) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(w, x));
  }
  static Int widen(Partial sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
  static Int factors(const uint8_t* p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p));
  }
  static Int set1(int32_t x) { return _mm256_set1_epi32(x); }
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int multiply(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  static Vec::V to_float(Int x) { return _mm256_cvtepi32_ps(x); }
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
