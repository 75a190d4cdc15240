#include <cstring>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int8_kernels.h"
#include "kernels/cpu/isa/int8_words.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vec_avx2.h"

namespace ocelli::kernels::cpu {
namespace {

// Even and odd inputs apart, as words: VPMADDWD multiplies any byte exactly, where the byte
// multiplication, VPMADDUBSW, would saturate.
struct Int8Avx2 {
  using Vec = VecAvx2;
  using Int = __m256i;
  struct Words {
    __m256i even;
    __m256i odd;
  };
  using Weights = Words;
  using Inputs = Words;
  static constexpr int kPanels = 2;
  static constexpr int kManyPanels = 2;
  static constexpr int kManyRows = 4;

  static Int set1(int32_t x) { return _mm256_set1_epi32(x); }
  static Vec::V to_float(Int x) { return _mm256_cvtepi32_ps(x); }
  static Words load(const uint8_t* p) {
    const __m256i bytes = _mm256_loadu_si256((const __m256i*)p);
    return {_mm256_and_si256(bytes, _mm256_set1_epi16(255)), _mm256_srli_epi16(bytes, 8)};
  }
  static Words broadcast(const int8_t* p) {
    int32_t inputs;
    std::memcpy(&inputs, p, sizeof inputs);
    const __m256i bytes = _mm256_set1_epi32(inputs);
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
  }
  static Int dot(Int sums, const Words& w, const Words& x) {
    const __m256i even = _mm256_madd_epi16(w.even, x.even);
    const __m256i odd = _mm256_madd_epi16(w.odd, x.odd);
    return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
  }
};

using Avx2 = Int8Kernels<Int8Avx2, Activations<VecAvx2>>;
using ManyRows = WordProducts<Activations<VecAvx2>>;

}  // namespace

void quantise_row_avx2(const InputRow& x, int group, const QuantisedRows& out) {
  Avx2::quantise_row(x, group, out);
}
void linear_int8_avx2(const Int8Block& block) {
  if (block.rows >= ManyRows::kFewestRows) {
    ManyRows(block).run();
  } else {
    Avx2::linear(block);
  }
}

}  // namespace ocelli::kernels::cpu
