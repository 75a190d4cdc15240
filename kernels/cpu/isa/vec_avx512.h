// Sixteen fp32 lanes: AVX-512 F, BW and VL (int8_avx512.h adds VNNI).
#pragma once

#include <immintrin.h>

#include "kernels/cpu/isa/half.h"

namespace ocelli::kernels::cpu {
namespace {

struct VecAvx512 {
  using V = __m512;
  static constexpr const char* kName = "avx512";
  static constexpr int kLanes = 16;
  static constexpr int kTileRows = 4;
  static constexpr int kTileOutputs = 6;

  static V zero() { return _mm512_setzero_ps(); }
  static V set1(float x) { return _mm512_set1_ps(x); }

  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static V load(const Half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
  static V load(const Brain* p) { return widen_brain(_mm256_loadu_si256((const __m256i*)p)); }
  static V load_partial(const float* p, int n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  static V load_partial(const Half* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static V load_partial(const Brain* p, int n) {
    return widen_brain(_mm256_maskz_loadu_epi16(mask(n), p));
  }

  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static void store_partial(float* p, V v, int n) { _mm512_mask_storeu_ps(p, mask(n), v); }
  static void store_half(uint16_t* p, V v, int n) {
    _mm256_mask_storeu_epi16(p, mask(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }

  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  // The second operand comes through when either is NaN.
  static V at_least(V x, float low) { return _mm512_max_ps(set1(low), x); }
  static V at_most(V x, float high) { return _mm512_min_ps(set1(high), x); }
  static V maximum(V a, V b) { return _mm512_max_ps(a, b); }
  static V round(V x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // To the nearest integer, halves away from zero; |x| ≤ 127. Adds the float below a half: with it,
  // what is less than a half away never reaches the next one.
  static V round_away(V x) {
    const __m512i sign = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MIN));
    const __m512i half = _mm512_or_si512(sign, _mm512_castps_si512(_mm512_set1_ps(0x1.fffffep-2F)));
    return _mm512_roundscale_ps(x + _mm512_castsi512_ps(half),
                                _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
  }
  // Integral values in [-127, 127].
  static void store_int8(int8_t* p, V v, int n) {
    _mm512_mask_cvtepi32_storeu_epi8(p, mask(n), _mm512_cvtps_epi32(v));
  }
  // x · 2^n for integral n.
  static V scale_by_power_of_two(V x, V n) { return _mm512_scalef_ps(x, n); }
  static float reduce_add(V v) { return _mm512_reduce_add_ps(v); }
  static float reduce_max(V v) { return _mm512_reduce_max_ps(v); }

 private:
  static __mmask16 mask(int n) { return static_cast<__mmask16>((1U << n) - 1); }
  static V widen_brain(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
