#include <immintrin.h>

#include "kernels/cpu/isa/limits.h"

namespace ocelli::kernels::cpu {
namespace {

// Irregular bytes: products of zeros and ones would be cheaper for the machine.
__m256i irregular(uint64_t seed) {
  const auto times = [&](uint64_t factor) { return static_cast<int64_t>(seed * factor); };
  return _mm256_set_epi64x(times(0x1e3779b97f4a7c15), times(0x2545f4914f6cdd1d),
                           times(0x3f58476d1ce4e5b9), times(0x14d049bb133111eb));
}

}  // namespace

int64_t avx2_f32_loop(int64_t rounds) {
  constexpr int kChains = 10;  // two a cycle, four cycles each, and some to spare
  const __m256 a = _mm256_setr_ps(1.7e-3F, -2.3e-3F, 0.9e-3F, 3.1e-3F, 1e-3F, -4e-3F, 2e-3F, 5e-3F);
  const __m256 b = _mm256_setr_ps(-1.1e-3F, 2.9e-3F, 1.3e-3F, 7e-4F, 3e-3F, 1e-3F, -1e-3F, 2e-3F);
  __m256 sums[kChains];
  for (__m256& sum : sums) sum = a;
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(a, b, sum);
  }
  for (__m256& sum : sums) asm volatile("" : : "x"(sum));
  return rounds * kChains * 8 * 2;
}

// Unsigned by signed to 16 bits, pairs to 32 bits, and the sum: AVX2's way without VNNI.
int64_t avx2_int8_loop(int64_t rounds) {
  constexpr int kChains = 8;
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i b = irregular(3);
  __m256i a = irregular(7);
  __m256i sums[kChains];
  for (__m256i& sum : sums) sum = b;
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(a));  // else the products would be taken out of the loop
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  for (__m256i& sum : sums) asm volatile("" : : "x"(sum));
  return rounds * kChains * 32 * 2;
}

}  // namespace ocelli::kernels::cpu
