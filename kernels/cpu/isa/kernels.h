// The CPU kernels, written once over a vector type; each instruction set's file instantiates them.
//
// The files that include this are compiled with different flags, and the linker must not keep one's
// code for another. So everything here has internal linkage, and the inline functions from
// elsewhere that it calls are always inlined (Rows::f32); it calls none of the standard library's.
#pragma once

#include <cfloat>
#include <cmath>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/attention_tiles.h"
#include "kernels/cpu/isa/bf16_kernels.h"
#include "kernels/cpu/isa/half.h"
#include "kernels/cpu/isa/quantise.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

template <typename Vec>
struct Kernels {
  using V = typename Vec::V;
  static constexpr int kLanes = Vec::kLanes;
  static constexpr int kTileRows = Vec::kTileRows;
  static constexpr int kTileOutputs = Vec::kTileOutputs;
  // Outputs that are finished together: their weights stay in L2 while the rows pass.
  static constexpr int kStrip = 48;
  static_assert(kStrip % kTileOutputs == 0);

  // --- Linear ---

  // A product of some rows of x and some rows of w, all `inputs` long:
  // sums[r * sum_stride + n] = Σ_k x[r][k] · w[n][k].
  template <typename T>
  struct Product {
    const float* x;
    int64_t x_stride;
    const T* w;
    int64_t w_stride;
    int inputs;
    float* sums;
    int64_t sum_stride;
  };

  // R rows and the N outputs from `first` on. One accumulator an output, whatever R and N are: a
  // row's bits do not depend on its company.
  template <int R, int N, typename T>
  static void tile(const Product<T>& p, int first) {
    const T* w = p.w + first * p.w_stride;
    V acc[R][N];
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < N; ++n) acc[r][n] = Vec::zero();
    }
    int k = 0;
    for (; k + kLanes <= p.inputs; k += kLanes) {
      V xs[R];
      for (int r = 0; r < R; ++r) xs[r] = Vec::load(p.x + r * p.x_stride + k);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const V ws = Vec::load(w + n * p.w_stride + k);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[r][n] = Vec::fma(xs[r], ws, acc[r][n]);
      }
    }
    if (const int left = p.inputs - k; left > 0) {
      for (int n = 0; n < N; ++n) {
        const V ws = Vec::load_partial(w + n * p.w_stride + k, left);
        for (int r = 0; r < R; ++r) {
          acc[r][n] = Vec::fma(Vec::load_partial(p.x + r * p.x_stride + k, left), ws, acc[r][n]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < N; ++n) {
        p.sums[r * p.sum_stride + first + n] = Vec::reduce_add(acc[r][n]);
      }
    }
  }

  template <int R, typename T>
  static void tiles(const Product<T>& p, int outputs) {
    int n = 0;
    for (; n + kTileOutputs <= outputs; n += kTileOutputs) tile<R, kTileOutputs>(p, n);
    for (; n < outputs; ++n) tile<R, 1>(p, n);
  }

  // All of a product with 1 to kTileRows rows.
  template <typename T>
  static void multiply(const Product<T>& p, int rows, int outputs) {
    if (rows == 1) {
      tiles<1>(p, outputs);
    } else if (rows == 2) {
      tiles<2>(p, outputs);
    } else if (rows == kTileRows) {
      tiles<kTileRows>(p, outputs);
    } else {
      tiles<(kTileRows < 3 ? kTileRows : 3)>(p, outputs);
    }
  }

  template <typename T>
  static void linear_of(const LinearBlock& block) {
    alignas(64) float sums[kTileRows * kStrip];
    const T* weight = reinterpret_cast<const T*>(block.weight.data);
    for (int first = 0; first < block.outputs; first += kStrip) {
      const int count = block.outputs - first < kStrip ? block.outputs - first : kStrip;
      for (int row = 0; row < block.rows; row += kTileRows) {
        const int rows = block.rows - row < kTileRows ? block.rows - row : kTileRows;
        multiply<T>({block.x.f32(row), block.x.stride, weight + first * block.weight.stride,
                     block.weight.stride, block.inputs, sums, kStrip},
                    rows, count);
        for (int r = 0; r < rows; ++r) {
          Activations<Vec>::finish(block.epilogue, sums + r * kStrip,
                                   block.bias ? block.bias + first : nullptr, count,
                                   block.out.from(row + r, first));
        }
      }
    }
  }

  static void linear(const LinearBlock& block) {
    if (block.weight.dtype == DType::kF16) {
      linear_of<Half>(block);
    } else if (block.weight.dtype == DType::kBF16) {
      linear_of<Brain>(block);
    } else {
      linear_of<float>(block);
    }
  }

  // --- Rows ---

  // Calls body(i, lanes) for i = 0, kLanes, … over n elements.
  template <typename Body>
  static void each(int n, const Body& body) {
    for (int i = 0; i < n; i += kLanes) body(i, n - i < kLanes ? n - i : kLanes);
  }

  // Σ of n elements, to which term(elements, sums) adds, in four sums at a time.
  template <typename Term>
  static float sum(const float* x, int n, const Term& term) {
    V sums[4] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};
    int i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
      for (int k = 0; k < 4; ++k) sums[k] = term(Vec::load(x + i + k * kLanes), sums[k]);
    }
    for (; i + kLanes <= n; i += kLanes) sums[0] = term(Vec::load(x + i), sums[0]);
    if (i < n) sums[1] = Vec::first(term(Vec::load_partial(x + i, n - i), sums[1]), n - i, sums[1]);
    return Vec::reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }

  // Σ (x − mean)².
  static float sum_of_squares(const float* x, float mean, int n) {
    return sum(x, n, [&](V v, V sums) {
      const V delta = v - Vec::set1(mean);
      return Vec::fma(delta, delta, sums);
    });
  }

  static void layer_norm(const float* x, const float* weight, const float* bias, float epsilon,
                         int n, float* out) {
    const float mean = sum(x, n, [](V v, V sums) { return sums + v; }) / static_cast<float>(n);
    const float variance = sum_of_squares(x, mean, n) / static_cast<float>(n);
    const V scale = Vec::set1(1.0F / __builtin_sqrtf(variance + epsilon));
    const auto norm = [&](V v, V w, V b) { return Vec::fma((v - Vec::set1(mean)) * scale, w, b); };
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      Vec::store(out + i, norm(Vec::load(x + i), Vec::load(weight + i), Vec::load(bias + i)));
    }
    if (i == n) return;
    const int count = n - i;
    const V last = norm(Vec::load_partial(x + i, count), Vec::load_partial(weight + i, count),
                        Vec::load_partial(bias + i, count));
    Vec::store_partial(out + i, last, count);
  }

  static void rms_norm(const float* x, const float* weight, float epsilon, int n, float* out) {
    const float mean_square = sum_of_squares(x, 0, n) / static_cast<float>(n);
    const V scale = Vec::set1(1.0F / __builtin_sqrtf(mean_square + epsilon));
    each(n, [&](int i, int count) {
      const V y = Vec::load_partial(x + i, count) * scale * Vec::load_partial(weight + i, count);
      Vec::store_partial(out + i, y, count);
    });
  }

  static void rope(float* x, const float* angles, int half) {
    each(half, [&](int i, int count) {
      const V cosine = Vec::load_partial(angles + i, count);
      const V sine = Vec::load_partial(angles + half + i, count);
      const V a = Vec::load_partial(x + i, count);
      const V b = Vec::load_partial(x + half + i, count);
      Vec::store_partial(x + i, a * cosine - b * sine, count);
      Vec::store_partial(x + half + i, b * cosine + a * sine, count);
    });
  }

  static void add(const float* x, int n, float* out) {
    each(n, [&](int i, int count) {
      const V sum = Vec::load_partial(out + i, count) + Vec::load_partial(x + i, count);
      Vec::store_partial(out + i, sum, count);
    });
  }

  template <typename T>
  static void widen(const std::byte* x, int n, float* out) {
    const T* typed = reinterpret_cast<const T*>(x);
    each(n, [&](int i, int count) {
      Vec::store_partial(out + i, Vec::load_partial(typed + i, count), count);
    });
  }

  static void to_f32(DType dtype, const std::byte* x, int n, float* out) {
    if (dtype == DType::kF16) {
      widen<Half>(x, n, out);
    } else if (dtype == DType::kBF16) {
      widen<Brain>(x, n, out);
    } else {
      widen<float>(x, n, out);
    }
  }

  static void to_f16(const float* x, int n, uint16_t* out) {
    each(n, [&](int i, int count) {
      Vec::store_half(out + i, Vec::load_partial(x + i, count), count);
    });
  }

  // The largest of n values, or NaN where one is NaN or +infinity.
  static float largest_of(const float* x, int n) {
    constexpr int kChains = 4;
    const V lowest = Vec::set1(-INFINITY);
    V highest[kChains] = {lowest, lowest, lowest, lowest};
    V poison[kChains] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};  // ±0, or NaN
    int i = 0;
    for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
#pragma GCC unroll 4
      for (int c = 0; c < kChains; ++c) {
        const V v = Vec::load(x + i + c * kLanes);
        highest[c] = Vec::maximum(v, highest[c]);
        poison[c] = Vec::fma(v, Vec::zero(), poison[c]);
      }
    }
    for (; i < n; i += kLanes) {
      const int count = n - i < kLanes ? n - i : kLanes;
      const V v = Vec::load_partial(x + i, count);
      highest[0] = Vec::maximum(Vec::first(v, count, lowest), highest[0]);
      poison[0] = Vec::fma(v, Vec::zero(), poison[0]);
    }
    const V all =
        Vec::maximum(Vec::maximum(highest[0], highest[1]), Vec::maximum(highest[2], highest[3]));
    if (Vec::any_above((poison[0] + poison[1]) + (poison[2] + poison[3]), 0)) {
      for (i = 0; i < n; ++i) {  // −infinity is no fault
        if (!(x[i] <= FLT_MAX)) return NAN;
      }
    }
    return Vec::reduce_max(all);
  }

  static int first_largest(const float* x, int n, float* largest) {
    // The largest is looked for in the first block that has it, not from the beginning.
    constexpr int kBlock = 1024;
    int block = 0;
    *largest = -INFINITY;
    for (int first = 0; first < n; first += kBlock) {
      const float here = largest_of(x + first, n - first < kBlock ? n - first : kBlock);
      if (here <= *largest) continue;
      *largest = here;
      block = first;
      if (__builtin_isnan(here)) return block;
    }
    while (x[block] != *largest) ++block;
    return block;
  }

  // The table of this instruction set; its int8 kernels are compiled apart (int8_kernels.h).
  static constexpr KernelTable table(const Int8Functions& int8) {
    using Attention = AttentionKernels<Vec>;
    using Bf16 = Bf16Kernels<Vec>;
    return {Vec::kName,
            linear,
            attention<Vec>,
            layer_norm,
            rms_norm,
            rope,
            add,
            to_f32,
            to_f16,
            Quantiser<Vec>::head,
            int8,
            {Bf16::round_row, Bf16::linear},
            Attention::part,
            Attention::finish_parts,
            true,
            first_largest};
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
