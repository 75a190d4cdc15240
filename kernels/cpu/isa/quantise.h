// Groups of values to int8, as Ops::linear says, written once over a vector type. Included like
// kernels.h, and under the same rule of linkage.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

template <typename Vec>
struct Quantiser {
  using V = typename Vec::V;
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

  // A scale that values are divided by; where it is so small that its inverse would be large or
  // infinite, the inverse is NaN.
  struct Divisor {
    explicit Divisor(float by)
        : scale(Vec::set1(by)), inverse(Vec::set1(by > 1e-30F ? 1.0F / by : NAN)) {}
    V scale;
    V inverse;
  };

  // x ← x / scale rounded to nearest, halves away from zero. A product with the inverse is off by
  // less than 1e-4, which matters only near halves: there, seldom, it is divided.
  template <int N>
  [[gnu::always_inline]] static inline void round_quotients(const Divisor& by, V (&x)[N]) {
    V nearest[N];
    V furthest = Vec::zero();
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const V product = x[i] * by.inverse;
      nearest[i] = Vec::round(product);
      furthest = Vec::larger_magnitude(product - nearest[i], furthest);
    }
    const bool near_half = Vec::any_above(furthest, 0.4999F);
    for (int i = 0; i < N; ++i) {
      x[i] = near_half ? exact_quotient(x[i], by.scale) : nearest[i];
    }
  }
  static V exact_quotient(V x, V scale) {
    return Vec::round_away(Vec::at_most(Vec::at_least(x / scale, -127), 127));
  }

  // out[i] ← x[i] / scale, rounded; zeros where the scale is none.
  static void values(const float* x, int n, float scale, int8_t* out) {
    if (!(scale > 0)) {
      std::memset(out, 0, n);
      return;
    }
    const Divisor by(scale);
    constexpr int kAtOnce = 4;
    int i = 0;
    for (; i + kAtOnce * kLanes <= n; i += kAtOnce * kLanes) {
      V v[kAtOnce];
      for (int k = 0; k < kAtOnce; ++k) v[k] = Vec::load(x + i + k * kLanes);
      round_quotients(by, v);
      for (int k = 0; k < kAtOnce; ++k) Vec::store_int8(out + i + k * kLanes, v[k]);
    }
    for (; i + kLanes <= n; i += kLanes) {
      V v[1] = {Vec::load(x + i)};
      round_quotients(by, v);
      Vec::store_int8(out + i, v[0]);
    }
    if (i < n) {
      V v[1] = {Vec::load_partial(x + i, n - i)};
      round_quotients(by, v);
      Vec::store_int8(out + i, v[0], n - i);
    }
  }

  // A head for a cache of kI8: n values, and behind them their scale.
  static void head(const float* x, int n, int8_t* out) {
    const float s = scale(x, n);
    values(x, n, s, out);
    std::memcpy(out + n, &s, kScaleColumns);
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
