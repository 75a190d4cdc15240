#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int4_kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vnni_avx512.h"

namespace ocelli::kernels::cpu {
namespace {

// Each half of a line is one operand of VPDPBUSD.
struct Int4Avx512 : VnniAvx512 {
  using Nibbles = __m512i;
  using Partial = __m512i;
  static constexpr int kPanels = 4;
  static constexpr int kRows = 4;

  static Nibbles low(const uint8_t* p) { return _mm512_and_si512(load(p), _mm512_set1_epi8(15)); }
  static Nibbles high(const uint8_t* p) {
    return _mm512_and_si512(_mm512_srli_epi16(load(p), 4), _mm512_set1_epi8(15));
  }
  static Int factors(const uint8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
  }
  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int multiply(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
};

using Avx512 = Int4Kernels<Int4Avx512, Activations<VecAvx512>>;

}  // namespace

void linear_int4_avx512(const Int8Block& block) {
  Avx512::linear(block);
}
void expand_int4_avx512(const uint8_t* panel, int steps, int factor_lines, uint8_t* out) {
  Avx512::expand(panel, steps, factor_lines, out);
}

}  // namespace ocelli::kernels::cpu
