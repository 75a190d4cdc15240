// Sixteen fp32 lanes: AVX-512 F, BW and VL (int8_avx512.h adds VNNI).
#pragma once

#include <immintrin.h>

#include <cfloat>

#include "kernels/cpu/isa/flush.h"
#include "kernels/cpu/isa/half.h"

namespace ocelli::kernels::cpu {
namespace {

struct VecAvx512 {
  using FlushDenormals = FlushDenormalsX86;
  using V = __m512;
  using Ints = __m512i;
  static constexpr const char* kName = "avx512";
  static constexpr int kLanes = 16;
  static constexpr int kTileRows = 4;
  static constexpr int kTileOutputs = 6;
  static constexpr int kPairRows = 12;
  static constexpr int kFewPairRows = 4;
  static constexpr int kValueRows = 8;
  static constexpr int kValueVectors = 3;

  static V zero() { return _mm512_setzero_ps(); }
  static V set1(float x) { return _mm512_set1_ps(x); }

  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static V load(const Half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
  static V load(const Brain* p) { return widen_brain(_mm256_loadu_si256((const __m256i*)p)); }
  static V load(const Int8* p) { return widen_int8(_mm_loadu_si128((const __m128i*)p)); }
  // Lanes that stand side by side in pairs of bf16.
  static void load_pairs(const uint16_t* p, V& even, V& odd) {
    const __m512i both = _mm512_loadu_si512(p);
    even = (V)_mm512_slli_epi32(both, 16);
    odd = (V)_mm512_and_si512(both, _mm512_set1_epi32(INT32_MIN >> 15));
  }
  static V load_partial(const float* p, int n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  static V load_partial(const Half* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static V load_partial(const Brain* p, int n) {
    return widen_brain(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static V load_partial(const Int8* p, int n) {
    return widen_int8(_mm_maskz_loadu_epi8(mask(n), p));
  }

  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static void store_partial(float* p, V v, int n) { _mm512_mask_storeu_ps(p, mask(n), v); }
  static void store_half(uint16_t* p, V v, int n) {
    _mm256_mask_storeu_epi16(p, mask(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  // To the nearest, even; denormals become 0, as they do for AVX-512's own conversion.
  static void store_brain(uint16_t* p, V v, int n) {
    const __mmask16 normal = _mm512_cmp_ps_mask(magnitude(v), set1(FLT_MIN), _CMP_NLT_UQ);
    const __m512i bits = _mm512_maskz_mov_epi32(normal, (__m512i)v);
    const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i nearest =
        _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), even);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_mask_mov_epi32(nearest, nan, _mm512_set1_epi32(0x7FC00000));
    _mm256_mask_storeu_epi16(p, mask(n), _mm512_cvtepi32_epi16(_mm512_srli_epi32(quiet, 16)));
  }

  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  // The second operand comes through when either is NaN.
  static V at_least(V x, float low) { return _mm512_max_ps(set1(low), x); }
  static V at_most(V x, float high) { return _mm512_min_ps(set1(high), x); }
  static V maximum(V a, V b) { return _mm512_max_ps(a, b); }
  static V magnitude(V x) { return _mm512_abs_ps(x); }
  // The larger of |x| and y, which is not negative; NaN counts as larger than all.
  static V larger_magnitude(V x, V y) {
    return (V)_mm512_max_epi32((__m512i)magnitude(x), (__m512i)y);
  }
  // Whether a lane is above the limit, or NaN.
  static bool any_above(V x, float limit) {
    return _mm512_cmp_ps_mask(x, set1(limit), _CMP_NLE_UQ) != 0;
  }
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
  // To the nearest, even.
  static Ints to_ints(V v) { return _mm512_cvtps_epi32(v); }
  static Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static int32_t reduce_add(Ints v) { return _mm512_reduce_add_epi32(v); }
  // Whether a lane has none of these bits.
  template <int N>
  static bool any_without(const V (&v)[N], int bits) {
    __mmask16 found = 0;
    for (const V& each : v)
      found |= _mm512_testn_epi32_mask((__m512i)each, _mm512_set1_epi32(bits));
    return found != 0;
  }
  // Integers in [-127, 127].
  static void store_int8(int8_t* p, const Ints (&v)[4]) {
    // Packed within each 128 bits, which leaves fours of bytes in the order of a matrix turned
    // over.
    const __m512i packed =
        _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
    const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, packed));
  }
  static void store_int8(int8_t* p, Ints v, int n) {
    _mm512_mask_cvtepi32_storeu_epi8(p, mask(n), v);
  }
  // x · 2^n for integral n.
  static V scale_by_power_of_two(V x, V n) { return _mm512_scalef_ps(x, n); }
  // 1 / x to about an ulp, x positive and finite.
  static V reciprocal(V x) {
    const V guess = _mm512_rcp14_ps(x);  // to 2^−14; Newton's step doubles the bits
    return _mm512_fmadd_ps(guess, _mm512_fnmadd_ps(x, guess, set1(1.0F)), guess);
  }
  // x, but 0 in the lanes where t is above the limit.
  static V zero_where_above(V t, float limit, V x) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(t, set1(limit), _CMP_NGT_UQ), x);
  }
  static float reduce_add(V v) { return _mm512_reduce_add_ps(v); }
  static float reduce_max(V v) { return _mm512_reduce_max_ps(v); }
  // Lanes below n of v, the others of `other`.
  static V first(V v, int n, V other) { return _mm512_mask_mov_ps(other, mask(n), v); }

  // Dots of kLanes keys in eight partial sums each, by d mod 8 (attention_kernels.h). Vector i of 8
  // holds those of two keys: i and i + 4, or from i = 4 on i + 4 and i + 8.
  static V load_query(const float* q, int) { return twice(_mm256_loadu_ps(q)); }
  static V load_query(const float* q, int, int n) {
    return twice(_mm256_maskz_loadu_ps(half(n), q));
  }
  template <typename T>
  static V load_keys(const T* keys, int64_t stride, int i, int last) {
    const int at = i + (i & 4);
    return both(eight(keys + least(at, last) * stride), eight(keys + least(at + 4, last) * stride));
  }
  template <typename T>
  static V load_keys(const T* keys, int64_t stride, int i, int last, int n) {
    const int at = i + (i & 4);
    return both(eight(keys + least(at, last) * stride, n),
                eight(keys + least(at + 4, last) * stride, n));
  }
  // Lane i: ((0 + 2) + (1 + 3)) + ((4 + 6) + (5 + 7)) of key i's partial sums.
  static V reduce_keys(const V (&v)[8]) {
    const V a = quads(pairs(v[0], v[1]), pairs(v[2], v[3]));
    const V b = quads(pairs(v[4], v[5]), pairs(v[6], v[7]));
    return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xDD);
  }
  // out[c] lane i = p[i * stride + c]
  static void load_columns(const float* p, int64_t stride, V (&out)[4]) {
    V rows[4];
    for (int i = 0; i < 4; ++i) {
      const V a = _mm512_castps128_ps512(_mm_loadu_ps(p + i * stride));
      const V b = _mm512_insertf32x4(a, _mm_loadu_ps(p + (i + 4) * stride), 1);
      const V c = _mm512_insertf32x4(b, _mm_loadu_ps(p + (i + 8) * stride), 2);
      rows[i] = _mm512_insertf32x4(c, _mm_loadu_ps(p + (i + 12) * stride), 3);
    }
    const __m512d a = (__m512d)_mm512_unpacklo_ps(rows[0], rows[1]);
    const __m512d b = (__m512d)_mm512_unpacklo_ps(rows[2], rows[3]);
    const __m512d c = (__m512d)_mm512_unpackhi_ps(rows[0], rows[1]);
    const __m512d d = (__m512d)_mm512_unpackhi_ps(rows[2], rows[3]);
    out[0] = (V)_mm512_unpacklo_pd(a, b);
    out[1] = (V)_mm512_unpackhi_pd(a, b);
    out[2] = (V)_mm512_unpacklo_pd(c, d);
    out[3] = (V)_mm512_unpackhi_pd(c, d);
  }

 private:
  static __mmask8 half(int n) { return static_cast<__mmask8>((1U << n) - 1); }
  static int64_t least(int a, int b) { return a < b ? a : b; }
  static V twice(__m256 x) { return (V)_mm512_broadcast_f64x4((__m256d)x); }
  static V both(__m256 a, __m256 b) {
    return (V)_mm512_insertf64x4(_mm512_castpd256_pd512((__m256d)a), (__m256d)b, 1);
  }
  static V both(__m128i a, __m128i b) {
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1));
  }
  struct EightInt8 {
    __m128i low;  // in its first half
  };
  static V both(EightInt8 a, EightInt8 b) { return widen_int8(_mm_unpacklo_epi64(a.low, b.low)); }
  static __m256 eight(const float* p) { return _mm256_loadu_ps(p); }
  static __m256 eight(const float* p, int n) { return _mm256_maskz_loadu_ps(half(n), p); }
  static __m128i eight(const Half* p) { return _mm_loadu_si128((const __m128i*)p); }
  static __m128i eight(const Half* p, int n) { return _mm_maskz_loadu_epi16(half(n), p); }
  static EightInt8 eight(const Int8* p) { return {_mm_loadl_epi64((const __m128i*)p)}; }
  static EightInt8 eight(const Int8* p, int n) { return {_mm_maskz_loadu_epi8(half(n), p)}; }
  static V pairs(V a, V b) { return _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b); }
  static V quads(V a, V b) {
    const __m512d c = (__m512d)a;
    const __m512d d = (__m512d)b;
    return (V)_mm512_unpacklo_pd(c, d) + (V)_mm512_unpackhi_pd(c, d);
  }
  static __mmask16 mask(int n) { return static_cast<__mmask16>((1U << n) - 1); }
  static V widen_int8(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)); }
  static V widen_brain(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
