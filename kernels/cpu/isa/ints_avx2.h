// What the products of int8 and of int4 by AVX2 and by AVX-VNNI have in common.
// Included like int8_kernels.h, under the same rules.
#pragma once

#include <cstring>

#include "kernels/cpu/isa/vec_avx2.h"

namespace ocelli::kernels::cpu {
namespace {

struct IntsAvx2 {
  using Vec = VecAvx2;
  using Int = __m256i;
  using Inputs = __m256i;

  static __m256i load(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
  static Inputs broadcast(const int8_t* p) {
    int32_t inputs;
    std::memcpy(&inputs, p, sizeof inputs);
    return _mm256_set1_epi32(inputs);
  }
  static Int set1(int32_t x) { return _mm256_set1_epi32(x); }
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int multiply(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  static Vec::V to_float(Int x) { return _mm256_cvtepi32_ps(x); }
};

// All that int4_kernels.h asks for, but the products of bytes.
struct NibblesAvx2 : IntsAvx2 {
  using Nibbles = __m256i;
  using Partial = __m256i;
  static constexpr int kPanels = 2;
  static constexpr int kRows = 2;

  static Nibbles low(const uint8_t* p) { return _mm256_and_si256(load(p), _mm256_set1_epi8(15)); }
  static Nibbles high(const uint8_t* p) {
    return _mm256_and_si256(_mm256_srli_epi16(load(p), 4), _mm256_set1_epi8(15));
  }
  static Int factors(const uint8_t* p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p));
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
