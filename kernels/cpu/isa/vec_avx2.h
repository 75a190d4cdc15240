// Eight fp32 lanes: AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cfloat>
#include <cstring>

#include "kernels/cpu/isa/flush.h"
#include "kernels/cpu/isa/half.h"

namespace ocelli::kernels::cpu {
namespace {

struct VecAvx2 {
  using FlushDenormals = FlushDenormalsX86;
  using V = __m256;
  using Ints = __m256i;
  static constexpr const char* kName = "avx2";
  static constexpr int kLanes = 8;
  static constexpr int kTileRows = 3;
  static constexpr int kTileOutputs = 4;
  static constexpr int kPairRows = 6;
  static constexpr int kFewPairRows = 2;
  static constexpr int kValueRows = 4;
  static constexpr int kValueVectors = 3;

  static V zero() { return _mm256_setzero_ps(); }
  static V set1(float x) { return _mm256_set1_ps(x); }

  static V load(const float* p) { return _mm256_loadu_ps(p); }
  static V load(const Half* p) { return widen_half(_mm_loadu_si128((const __m128i*)p)); }
  static V load(const Brain* p) { return widen_brain(_mm_loadu_si128((const __m128i*)p)); }
  static V load(const Int8* p) { return widen_int8(_mm_loadl_epi64((const __m128i*)p)); }
  // Lanes that stand side by side in pairs of bf16.
  static void load_pairs(const uint16_t* p, V& even, V& odd) {
    const __m256i both = _mm256_loadu_si256((const __m256i*)p);
    even = (V)_mm256_slli_epi32(both, 16);
    odd = (V)_mm256_and_si256(both, _mm256_set1_epi32(INT32_MIN >> 15));
  }
  static V load_partial(const float* p, int n) { return _mm256_maskload_ps(p, mask(n)); }
  static V load_partial(const Half* p, int n) { return widen_half(partial_16(p, n)); }
  static V load_partial(const Brain* p, int n) { return widen_brain(partial_16(p, n)); }
  static V load_partial(const Int8* p, int n) { return widen_int8(partial_16(p, n)); }

  static void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static void store_partial(float* p, V v, int n) { _mm256_maskstore_ps(p, mask(n), v); }
  static void store_half(uint16_t* p, V v, int n) {
    alignas(16) uint16_t halves[kLanes];
    _mm_store_si128((__m128i*)halves, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    std::memcpy(p, halves, n * sizeof *p);
  }
  // To the nearest, even; denormals become 0.
  static void store_brain(uint16_t* p, V v, int n) {
    const __m256 denormal = _mm256_cmp_ps(magnitude(v), set1(FLT_MIN), _CMP_LT_OQ);
    const __m256i bits = (__m256i)_mm256_andnot_ps(denormal, v);
    const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i nearest =
        _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), even);
    const __m256 quiet = _mm256_blendv_ps((__m256)nearest, (__m256)_mm256_set1_epi32(0x7FC00000),
                                          _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i words = _mm256_srli_epi32((__m256i)quiet, 16);
    alignas(16) uint16_t brains[kLanes];
    _mm_store_si128((__m128i*)brains, _mm_packus_epi32(_mm256_castsi256_si128(words),
                                                       _mm256_extracti128_si256(words, 1)));
    std::memcpy(p, brains, n * sizeof *p);
  }

  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  // The second operand comes through when either is NaN.
  static V at_least(V x, float low) { return _mm256_max_ps(set1(low), x); }
  static V at_most(V x, float high) { return _mm256_min_ps(set1(high), x); }
  static V maximum(V a, V b) { return _mm256_max_ps(a, b); }
  static V magnitude(V x) { return _mm256_andnot_ps(set1(-0.0F), x); }
  // The larger of |x| and y, which is not negative; NaN counts as larger than all.
  static V larger_magnitude(V x, V y) {
    return (V)_mm256_max_epi32((__m256i)magnitude(x), (__m256i)y);
  }
  // Whether a lane is above the limit, or NaN.
  static bool any_above(V x, float limit) {
    return _mm256_movemask_ps(_mm256_cmp_ps(x, set1(limit), _CMP_NLE_UQ)) != 0;
  }
  static V round(V x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // To the nearest integer, halves away from zero; |x| ≤ 127. Adds the float below a half: with it,
  // what is less than a half away never reaches the next one.
  static V round_away(V x) {
    const V half = _mm256_or_ps(_mm256_and_ps(x, set1(-0.0F)), set1(0x1.fffffep-2F));
    return _mm256_round_ps(x + half, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
  }
  // To the nearest, even.
  static Ints to_ints(V v) { return _mm256_cvtps_epi32(v); }
  static Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static int32_t reduce_add(Ints v) {
    const __m128i quad = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i pair = _mm_add_epi32(quad, _mm_unpackhi_epi64(quad, quad));
    return _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32(pair, 1)));
  }
  // Whether a lane has none of these bits.
  template <int N>
  static bool any_without(const V (&v)[N], int bits) {
    __m256i found = _mm256_setzero_si256();
    for (const V& each : v) {
      const __m256i left = _mm256_and_si256((__m256i)each, _mm256_set1_epi32(bits));
      found = _mm256_or_si256(found, _mm256_cmpeq_epi32(left, _mm256_setzero_si256()));
    }
    return _mm256_movemask_epi8(found) != 0;
  }
  // Integers in [-127, 127].
  static void store_int8(int8_t* p, const Ints (&v)[4]) {
    // Packed within each 128 bits, which leaves fours of bytes in the order of a matrix turned
    // over.
    const __m256i packed =
        _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    const __m256i order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
    _mm256_storeu_si256((__m256i*)p, _mm256_permutevar8x32_epi32(packed, order));
  }
  static void store_int8(int8_t* p, Ints v, int n) {
    alignas(16) int8_t bytes[16];
    _mm_store_si128((__m128i*)bytes, eight_bytes(v));
    std::memcpy(p, bytes, n);
  }
  // x · 2^n for integral n in [-126, 127]; infinity for n = 128.
  static V scale_by_power_of_two(V x, V n) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_mul_ps(
        x, _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23))));
  }
  // 1 / x, x positive and finite.
  static V reciprocal(V x) { return set1(1.0F) / x; }
  // x, but 0 in the lanes where t is above the limit.
  static V zero_where_above(V t, float limit, V x) {
    return _mm256_andnot_ps(_mm256_cmp_ps(t, set1(limit), _CMP_GT_OQ), x);
  }
  static float reduce_add(V v) {
    const __m128 quad = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 pair = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
  }
  static float reduce_max(V v) {
    const __m128 quad = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 pair = _mm_max_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_max_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
  }
  // Lanes below n of v, the others of `other`.
  static V first(V v, int n, V other) {
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(mask(n)));
  }

  // Dots of kLanes keys in eight partial sums each, by d mod 8 (attention_kernels.h). Vector i of 8
  // holds those of key i.
  static V load_query(const float* q, int) { return load(q); }
  static V load_query(const float* q, int, int n) { return load_partial(q, n); }
  template <typename T>
  static V load_keys(const T* keys, int64_t stride, int i, int last) {
    return load(keys + least(i, last) * stride);
  }
  template <typename T>
  static V load_keys(const T* keys, int64_t stride, int i, int last, int n) {
    return load_partial(keys + least(i, last) * stride, n);
  }
  // Lane i: ((0 + 2) + (1 + 3)) + ((4 + 6) + (5 + 7)) of key i's partial sums.
  static V reduce_keys(const V (&v)[8]) {
    const V a = quads(pairs(v[0], v[1]), pairs(v[2], v[3]));
    const V b = quads(pairs(v[4], v[5]), pairs(v[6], v[7]));
    return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
  }
  // out[c] lane i = p[i * stride + c]
  static void load_columns(const float* p, int64_t stride, V (&out)[4]) {
    V rows[4];
    for (int i = 0; i < 4; ++i) {
      const V a = _mm256_castps128_ps256(_mm_loadu_ps(p + i * stride));
      rows[i] = _mm256_insertf128_ps(a, _mm_loadu_ps(p + (i + 4) * stride), 1);
    }
    const __m256d a = (__m256d)_mm256_unpacklo_ps(rows[0], rows[1]);
    const __m256d b = (__m256d)_mm256_unpacklo_ps(rows[2], rows[3]);
    const __m256d c = (__m256d)_mm256_unpackhi_ps(rows[0], rows[1]);
    const __m256d d = (__m256d)_mm256_unpackhi_ps(rows[2], rows[3]);
    out[0] = (V)_mm256_unpacklo_pd(a, b);
    out[1] = (V)_mm256_unpackhi_pd(a, b);
    out[2] = (V)_mm256_unpacklo_pd(c, d);
    out[3] = (V)_mm256_unpackhi_pd(c, d);
  }

 private:
  static __m128i eight_bytes(Ints wide) {
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    return _mm_packs_epi16(words, words);
  }
  static int64_t least(int a, int b) { return a < b ? a : b; }
  static V pairs(V a, V b) { return _mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b); }
  static V quads(V a, V b) {
    const __m256d c = (__m256d)a;
    const __m256d d = (__m256d)b;
    return (V)_mm256_unpacklo_pd(c, d) + (V)_mm256_unpackhi_pd(c, d);
  }
  static __m256i mask(int n) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes);
  }
  // n elements of at most 16 bits, and zeros.
  template <typename T>
  static __m128i partial_16(const T* p, int n) {
    alignas(16) uint16_t values[kLanes] = {};
    std::memcpy(values, p, n * sizeof *p);
    return _mm_load_si128((const __m128i*)values);
  }
  static V widen_half(__m128i x) { return _mm256_cvtph_ps(x); }
  static V widen_int8(__m128i x) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)); }
  static V widen_brain(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
