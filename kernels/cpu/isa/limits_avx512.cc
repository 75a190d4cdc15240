#include <immintrin.h>

#include "kernels/cpu/isa/limits.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr int kChains = 12;  // two a cycle, four to six cycles each

// Irregular bytes: products of zeros and ones would be cheaper for the machine.
__m512i irregular(uint64_t seed) {
  const uint64_t a = seed * 0x1e3779b97f4a7c15;
  const uint64_t b = seed * 0x2545f4914f6cdd1d;
  const uint64_t words[8] = {a, b, a ^ b, a + b, a - b, a * b, a * a, b * b};
  return _mm512_loadu_si512(words);
}

}  // namespace

int64_t avx512_f32_loop(int64_t rounds) {
  const __m512 a = _mm512_set_ps(1e-3F, -2e-3F, 3e-3F, 4e-3F, -5e-3F, 6e-3F, 7e-3F, -8e-3F, 9e-3F,
                                 1e-4F, 2e-4F, -3e-4F, 4e-4F, 5e-4F, -6e-4F, 7e-4F);
  const __m512 b = _mm512_sqrt_ps(_mm512_abs_ps(a));
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = a;
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(a, b, sum);
  }
  for (__m512& sum : sums) asm volatile("" : : "v"(sum));
  return rounds * kChains * 16 * 2;
}

int64_t avx512_int8_loop(int64_t rounds) {
  const __m512i a = irregular(3);
  const __m512i b = irregular(7);
  __m512i sums[kChains];
  for (__m512i& sum : sums) sum = a;
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (__m512i& sum : sums) {
      // Not the intrinsic: around it GCC 12 copies every sum to and fro.
      asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    }
  }
  for (__m512i& sum : sums) asm volatile("" : : "v"(sum));
  return rounds * kChains * 64 * 2;
}

int64_t avx512_bf16_loop(int64_t rounds) {
  const __m512i a = _mm512_set1_epi32(0x3F813C7B);
  const __m512i b = _mm512_set1_epi32(0x3A9DBE45);
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) {
      asm volatile("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    }
  }
  for (__m512& sum : sums) asm volatile("" : : "v"(sum));
  return rounds * kChains * 32 * 2;
}

}  // namespace ocelli::kernels::cpu
