// Four fp32 lanes in the compiler's own vector type: runs anywhere, and is what "scalar" means
// here.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/cpu/isa/half.h"
#include "kernels/tensor.h"

namespace ocelli::kernels::cpu {
namespace {

struct VecPortable {
  typedef float V __attribute__((vector_size(16)));
  static constexpr const char* kName = "scalar";
  static constexpr int kLanes = 4;
  static constexpr int kTileRows = 2;
  static constexpr int kTileOutputs = 4;

  static V zero() { return V{0, 0, 0, 0}; }
  static V set1(float x) { return V{x, x, x, x}; }
  static float widen(float x) { return x; }
  static float widen(Half x) { return f16_to_f32(x.bits); }
  static float widen(Brain x) { return bf16_to_f32(x.bits); }

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

  static void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
  static void store_partial(float* p, V v, int n) {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }
  static void store_half(uint16_t* p, V v, int n) {
    for (int i = 0; i < n; ++i) p[i] = f32_to_f16(v[i]);
  }

  static V fma(V a, V b, V c) { return a * b + c; }
  // NaN in x comes through.
  static V at_least(V x, float low) { return x < low ? set1(low) : x; }
  static V at_most(V x, float high) { return x > high ? set1(high) : x; }
  static V maximum(V a, V b) { return a > b ? a : b; }
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
  // Integral values in [-127, 127].
  static void store_int8(int8_t* p, V v, int n) {
    for (int i = 0; i < n; ++i) p[i] = static_cast<int8_t>(v[i]);
  }
  // x · 2^n for integral n in [-126, 128].
  static V scale_by_power_of_two(V x, V n) {
    for (int i = 0; i < kLanes; ++i) x[i] = std::ldexp(x[i], static_cast<int>(n[i]));
    return x;
  }
  static float reduce_add(V v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static float reduce_max(V v) {
    const float a = v[0] > v[1] ? v[0] : v[1];
    const float b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
