// The int8 and int4 products of AVX-VNNI: those of AVX-512's VNNI in vectors of 256 bits, which
// desktop and laptop processors have that lack AVX-512 (Intel's since Alder Lake).
//
// The file that includes this says in OCELLI_VNNI_PREFIX which of two encodings is meant; internal
// linkage, as kernels.h explains.
#pragma once

#include <cstring>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int4_kernels.h"
#include "kernels/cpu/isa/int8_kernels.h"
#include "kernels/cpu/isa/vec_avx2.h"

namespace ocelli::kernels::cpu {
namespace {

// What the products of int8 and of int4 have in common: sums of four products of bytes.
struct VnniVectors {
  using Vec = VecAvx2;
  using Int = __m256i;
  using Inputs = __m256i;

  static Int set1(int32_t x) { return _mm256_set1_epi32(x); }
  static Vec::V to_float(Int x) { return _mm256_cvtepi32_ps(x); }
  static Inputs broadcast(const int8_t* p) {
    int32_t inputs;
    std::memcpy(&inputs, p, sizeof inputs);
    return _mm256_set1_epi32(inputs);
  }
  static __m256i load(const uint8_t* p) { return _mm256_load_si256((const __m256i*)p); }
  static Int dot(Int sums, __m256i w, Inputs x) {
    // Not the intrinsic: around it GCC 12 copies every sum to and fro.
    asm(OCELLI_VNNI_PREFIX "vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(w), "x"(x));
    return sums;
  }
};

struct Int8AvxVnni : VnniVectors {
  using Weights = __m256i;
  static constexpr int kPanels = 1;
  // 12 sums for 2 + 6 loads.
  static constexpr int kManyPanels = 1;
  static constexpr int kManyRows = 6;
};

struct Int4AvxVnni : VnniVectors {
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
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int multiply(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
};

using Int8Vnni = Int8Kernels<Int8AvxVnni, Activations<VecAvx2>>;
using Int4Vnni = Int4Kernels<Int4AvxVnni, Activations<VecAvx2>>;

// A PeakLoop (limits.h).
int64_t vnni_loop(int64_t rounds) {
  constexpr int kChains = 12;  // two a cycle, four to six cycles each
  // Irregular bytes: products of zeros and ones would be cheaper for the machine.
  const __m256i a = _mm256_set1_epi64x(0x1e3779b97f4a7c15);
  const __m256i b = _mm256_set1_epi64x(0x2545f4914f6cdd1d);
  __m256i sums[kChains];
  for (__m256i& sum : sums) sum = a;
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (__m256i& sum : sums) sum = VnniVectors::dot(sum, a, b);
  }
  for (__m256i& sum : sums) asm volatile("" : : "x"(sum));
  return rounds * kChains * 32 * 2;
}

}  // namespace
}  // namespace ocelli::kernels::cpu
