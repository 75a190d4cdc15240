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

  // out[i] ← x[i] / scale, rounded; zeros where the scale is none.
  static void values(const float* x, int n, float scale, int8_t* out) {
    if (!(scale > 0)) {
      std::memset(out, 0, n);
      return;
    }
    const V divisor = Vec::set1(scale);
    for (int i = 0; i < n; i += kLanes) {
      const int count = n - i < kLanes ? n - i : kLanes;
      const V quotient = Vec::load_partial(x + i, count) / divisor;
      Vec::store_int8(out + i, Vec::round_away(Vec::at_most(Vec::at_least(quotient, -127), 127)),
                      count);
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
