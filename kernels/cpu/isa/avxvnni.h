// The int8 and int4 products of AVX-VNNI: those of AVX-512's VNNI in vectors of 256 bits, which
// desktop and laptop processors have that lack AVX-512 (Intel's since Alder Lake).
//
// The file that includes this says in OCELLI_VNNI_PREFIX which of two encodings is meant; internal
// linkage, as kernels.h explains.
#pragma once

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int4_kernels.h"
#include "kernels/cpu/isa/int8_kernels.h"
#include "kernels/cpu/isa/ints_avx2.h"

namespace ocelli::kernels::cpu {
namespace {

// sums + products of four bytes each.
inline __m256i add_products(__m256i sums, __m256i w, __m256i x) {
  // Not the intrinsic: around it GCC 12 copies every sum to and fro.
  asm(OCELLI_VNNI_PREFIX "vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(w), "x"(x));
  return sums;
}

struct Int8AvxVnni : IntsAvx2 {
  using Weights = __m256i;
  static constexpr int kPanels = 1;
  // 12 sums for 2 + 6 loads.
  static constexpr int kManyPanels = 1;
  static constexpr int kManyRows = 6;

  static Int dot(Int sums, Weights w, Inputs x) { return add_products(sums, w, x); }
};

struct Int4AvxVnni : NibblesAvx2 {
  static Partial dot(Partial sums, Nibbles w, Inputs x) { return add_products(sums, w, x); }
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
    for (__m256i& sum : sums) sum = add_products(sum, a, b);
  }
  for (__m256i& sum : sums) asm volatile("" : : "x"(sum));
  return rounds * kChains * 32 * 2;
}

}  // namespace
}  // namespace ocelli::kernels::cpu
