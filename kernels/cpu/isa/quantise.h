// Groups of values to int8, as Ops::linear says, written once over a vector type. Included like
// kernels.h, and under the same rule of linkage.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/isa/half.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

template <typename Vec>
struct Quantiser {
  using V = typename Vec::V;
  using Ints = typename Vec::Ints;
  static constexpr int kLanes = Vec::kLanes;

  // A group's scale: the largest magnitude / 127, or NaN where a value is not finite.
  static float scale(const float* x, int n) {
    V largest[2] = {Vec::zero(), Vec::zero()};
    int i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
      largest[0] = Vec::larger_magnitude(Vec::load(x + i), largest[0]);
      largest[1] = Vec::larger_magnitude(Vec::load(x + i + kLanes), largest[1]);
    }
    for (; i < n; i += kLanes) {
      const V v = Vec::load_partial(x + i, n - i < kLanes ? n - i : kLanes);
      largest[0] = Vec::larger_magnitude(v, largest[0]);
    }
    largest[0] = Vec::larger_magnitude(largest[0], largest[1]);
    if (Vec::any_above(largest[0], FLT_MAX)) return NAN;
    return Vec::reduce_max(largest[0]) / 127.0F;
  }

  static float scale(const Brain* x, int n) {
    uint16_t largest = 0;  // magnitudes order as their bits do
    for (int i = 0; i < n; ++i) {
      const auto magnitude = static_cast<uint16_t>(x[i].bits & 0x7FFF);
      largest = magnitude > largest ? magnitude : largest;
    }
    constexpr uint16_t kInfinityBits = 0x7F80;
    if (largest >= kInfinityBits) return NAN;
    const uint32_t bits = uint32_t{largest} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value / 127.0F;
  }

  // A scale that values are divided by; where it is so small that its inverse would be large or
  // infinite, the inverse is NaN.
  struct Divisor {
    explicit Divisor(float by)
        : scale(Vec::set1(by)), inverse(Vec::set1(by > 1e-30F ? 1.0F / by : NAN)) {}
    V scale;
    V inverse;
  };

  // out ← x / scale rounded to nearest, halves away from zero. A product with the inverse is off by
  // less than 2^-15, which matters only near halves: there, seldom, it is divided.
  template <int N>
  [[gnu::always_inline]] static inline void round_quotients(const Divisor& by, const V (&x)[N],
                                                            Ints (&out)[N]) {
    // Numbers between 512 and 1,024 have 14 bits behind the point: all of a half more than the
    // product are zero where it is that near one. An inverse that is NaN has no others.
    constexpr int kBehindPoint = (1 << 14) - 1;
    V shifted[N];
    for (int i = 0; i < N; ++i) {
      shifted[i] = Vec::fma(x[i], by.inverse, Vec::set1(768.5F));
      out[i] = Vec::to_ints(x[i] * by.inverse);
    }
    if (!Vec::any_without(shifted, kBehindPoint)) return;
    for (int i = 0; i < N; ++i) out[i] = exact_quotient(x[i], by.scale);
  }
  static Ints exact_quotient(V x, V scale) {
    return Vec::to_ints(Vec::round_away(Vec::at_most(Vec::at_least(x / scale, -127), 127)));
  }

  // out(i) ← x[i] / scale, rounded, for a scale that is not 0 or NaN; returns their sum.
  // meanwhile(i) is called for every vector i that is read.
  template <typename T, typename Out, typename Meanwhile>
  static int32_t values(const T* x, int n, float scale, const Out& out,
                        const Meanwhile& meanwhile) {
    const Divisor by(scale);
    constexpr int kAtOnce = 4;
    Ints sums = Vec::to_ints(Vec::zero());
    int i = 0;
    for (; i + kAtOnce * kLanes <= n; i += kAtOnce * kLanes) {
      V v[kAtOnce];
      Ints rounded[kAtOnce];
      for (int k = 0; k < kAtOnce; ++k) {
        v[k] = Vec::load(x + i + k * kLanes);
        meanwhile(i + k * kLanes);
      }
      round_quotients(by, v, rounded);
      Vec::store_int8(out(i), rounded);
      for (int k = 0; k < kAtOnce; ++k) sums = Vec::add(sums, rounded[k]);
    }
    for (; i < n; i += kLanes) {
      const int count = n - i < kLanes ? n - i : kLanes;
      const V v[1] = {Vec::load_partial(x + i, count)};
      Ints rounded[1];
      round_quotients(by, v, rounded);
      Vec::store_int8(out(i), rounded[0], count);
      sums = Vec::add(sums, rounded[0]);
    }
    return Vec::reduce_add(sums);
  }

  // A head for a cache of kI8: n values, and behind them their scale.
  static void head(const float* x, int n, int8_t* out) {
    const float s = scale(x, n);
    if (s > 0) {
      values(
          x, n, s, [&](int i) { return out + i; }, [](int) {});
    } else {
      std::memset(out, 0, n);
    }
    std::memcpy(out + n, &s, kScaleColumns);
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
