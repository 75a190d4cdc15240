// Four fp32 lanes in the compiler's own vector type: runs anywhere, and is what "scalar" means
// here.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstring>

#include "kernels/cpu/isa/half.h"
#include "kernels/tensor.h"

namespace ocelli::kernels::cpu {
namespace {

struct VecPortable {
  typedef float V __attribute__((vector_size(16)));
  typedef int32_t Ints __attribute__((vector_size(16)));
  struct FlushDenormals {};  // not offered by C++
  static constexpr const char* kName = "scalar";
  static constexpr int kLanes = 4;
  static constexpr int kTileRows = 2;
  static constexpr int kTileOutputs = 4;
  static constexpr int kPairRows = 4;
  static constexpr int kFewPairRows = 1;
  static constexpr int kValueRows = 4;
  static constexpr int kValueVectors = 2;

  static V zero() { return V{0, 0, 0, 0}; }
  static V set1(float x) { return V{x, x, x, x}; }
  static float widen(float x) { return x; }
  static float widen(Half x) { return f16_to_f32(x.bits); }
  static float widen(Brain x) { return bf16_to_f32(x.bits); }
  static float widen(Int8 x) { return x.value; }

  template <typename T>
  static V load_partial(const T* p, int n) {
    V v = zero();
    for (int i = 0; i < n; ++i) {
      T value;  // copied out: weights stand where the file has them, at any address
      std::memcpy(&value, p + i, sizeof value);
      v[i] = widen(value);
    }
    return v;
  }
  static V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  template <typename T>
  static V load(const T* p) {
    return load_partial(p, kLanes);
  }

  // Lanes that stand side by side in pairs of bf16.
  static void load_pairs(const uint16_t* p, V& even, V& odd) {
    typedef uint32_t Bits __attribute__((vector_size(16)));
    Bits both;
    std::memcpy(&both, p, sizeof both);
    even = (V)(both << 16);
    odd = (V)(both & 0xFFFF0000U);
  }
  static void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
  static void store_partial(float* p, V v, int n) {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }
  static void store_half(uint16_t* p, V v, int n) {
    for (int i = 0; i < n; ++i) p[i] = f32_to_f16(v[i]);
  }
  // To the nearest, even; denormals become 0.
  static void store_brain(uint16_t* p, V v, int n) {
    for (int i = 0; i < n; ++i) {
      const bool denormal = v[i] > -FLT_MIN && v[i] < FLT_MIN;
      p[i] = f32_to_bf16(denormal ? 0 : v[i]);
    }
  }

  static V fma(V a, V b, V c) { return a * b + c; }
  // NaN in x comes through.
  static V at_least(V x, float low) { return x < low ? set1(low) : x; }
  static V at_most(V x, float high) { return x > high ? set1(high) : x; }
  static V maximum(V a, V b) { return a > b ? a : b; }
  static V magnitude(V x) { return x < 0 ? zero() - x : x; }
  // The larger of |x| and y, which is not negative; NaN counts as larger than all.
  static V larger_magnitude(V x, V y) {
    typedef int32_t Bits __attribute__((vector_size(16)));
    const Bits a = (Bits)x & 0x7FFFFFFF;
    return (V)(a > (Bits)y ? a : (Bits)y);
  }
  // Whether a lane is above the limit, or NaN.
  static bool any_above(V x, float limit) {
    for (int i = 0; i < kLanes; ++i) {
      if (!(x[i] <= limit)) return true;
    }
    return false;
  }
  static V round(V x) {
    for (int i = 0; i < kLanes; ++i) x[i] = std::nearbyint(x[i]);
    return x;
  }
  // To the nearest integer, halves away from zero; |x| ≤ 127.
  static V round_away(V x) {
    // The float below a half: with it, what is less than a half away never reaches the next one.
    for (int i = 0; i < kLanes; ++i) {
      x[i] = static_cast<float>(
          static_cast<int>(x[i] + (x[i] < 0 ? -0x1.fffffep-2F : 0x1.fffffep-2F)));
    }
    return x;
  }
  // To the nearest, even.
  static Ints to_ints(V v) {
    Ints ints;
    for (int i = 0; i < kLanes; ++i) ints[i] = static_cast<int32_t>(std::nearbyint(v[i]));
    return ints;
  }
  static Ints add(Ints a, Ints b) { return a + b; }
  static int32_t reduce_add(Ints v) { return v[0] + v[1] + v[2] + v[3]; }
  // Whether a lane has none of these bits.
  template <int N>
  static bool any_without(const V (&v)[N], int bits) {
    for (const V& each : v) {
      for (int i = 0; i < kLanes; ++i) {
        if ((((Ints)each)[i] & bits) == 0) return true;
      }
    }
    return false;
  }
  // Integers in [-127, 127].
  static void store_int8(int8_t* p, const Ints (&v)[4]) {
    for (int i = 0; i < 4; ++i) store_int8(p + i * kLanes, v[i], kLanes);
  }
  static void store_int8(int8_t* p, Ints v, int n) {
    for (int i = 0; i < n; ++i) p[i] = static_cast<int8_t>(v[i]);
  }
  // x · 2^n for integral n in [-126, 128].
  static V scale_by_power_of_two(V x, V n) {
    for (int i = 0; i < kLanes; ++i) x[i] = std::ldexp(x[i], static_cast<int>(n[i]));
    return x;
  }
  // 1 / x, x positive and finite.
  static V reciprocal(V x) { return set1(1.0F) / x; }
  // x, but 0 in the lanes where t is above the limit.
  static V zero_where_above(V t, float limit, V x) { return t > limit ? zero() : x; }
  static float reduce_add(V v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static float reduce_max(V v) {
    const float a = v[0] > v[1] ? v[0] : v[1];
    const float b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
  }
  // Lanes below n of v, the others of `other`.
  static V first(V v, int n, V other) {
    for (int i = n; i < kLanes; ++i) v[i] = other[i];
    return v;
  }

  // Dots of kLanes keys in eight partial sums each, by d mod 8 (attention_kernels.h). Vectors 2i
  // and 2i + 1 of 8 hold those of key i.
  static V load_query(const float* q, int i) { return load(q + i % 2 * kLanes); }
  static V load_query(const float* q, int i, int n) { return half_of_eight(q, i, n); }
  template <typename T>
  static V load_keys(const T* keys, int64_t stride, int i, int last) {
    return load(keys + (i / 2 < last ? i / 2 : last) * stride + i % 2 * kLanes);
  }
  template <typename T>
  static V load_keys(const T* keys, int64_t stride, int i, int last, int n) {
    return half_of_eight(keys + (i / 2 < last ? i / 2 : last) * stride, i, n);
  }
  // Lane i: ((0 + 2) + (1 + 3)) + ((4 + 6) + (5 + 7)) of key i's partial sums.
  static V reduce_keys(const V (&v)[8]) {
    V sums = zero();
    for (int i = 0; i < kLanes; ++i) sums[i] = reduce_add(v[2 * i]) + reduce_add(v[2 * i + 1]);
    return sums;
  }
  // out[c] lane i = p[i * stride + c]
  static void load_columns(const float* p, int64_t stride, V (&out)[4]) {
    for (int c = 0; c < 4; ++c) {
      out[c] = V{p[c], p[stride + c], p[2 * stride + c], p[3 * stride + c]};
    }
  }

 private:
  // Half i % 2 of the n < 8 elements at p and zeros behind them.
  template <typename T>
  static V half_of_eight(const T* p, int i, int n) {
    const int left = n - i % 2 * kLanes;
    return left <= 0 ? zero() : load_partial(p + i % 2 * kLanes, left < kLanes ? left : kLanes);
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
