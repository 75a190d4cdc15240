// Attention for few queries at once, a vector of keys at a time, straight from the caches; for many
// queries see attention_tiles.h. Included like kernels.h, and under the same rule of linkage.
//
// Both compute a query's row by one and the same sequence of roundings, which depends on the keys'
// positions alone; so a row's bits are the same however a prompt is cut up:
//   score: eight sums over d, d + 8, …, added as ((0 + 2) + (1 + 3)) + ((4 + 6) + (5 + 7)), times
//   the key's scale where it has one;
//   for each kKeyBlock keys: their largest score, the e^(scale · (score − largest)), the sum of
//   those, and the values weighted by them (times the value's scale), the even keys and the odd
//   ones summed apart;
//   blocks are merged in ascending order, each side scaled by e^(scale · (its largest − larger)).
#pragma once

#include <cfloat>
#include <cstring>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/fetch.h"
#include "kernels/cpu/isa/half.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

template <typename Vec>
struct AttentionKernels {
  using V = typename Vec::V;
  static constexpr int kLanes = Vec::kLanes;
  static_assert(kLanes <= kPartHeader && kKeyBlock % (2 * kLanes) == 0);

  static int least(int a, int b) { return a < b ? a : b; }

  // How many of the keys from `first` on, at most a block, query `row` sees; may be negative.
  static int seen(const AttentionBlock& block, int row, int first) {
    return least(block.first_visible + row * block.visible_step - first, kKeyBlock);
  }

  // What is done meanwhile, a step at a time; here nothing.
  struct Nothing {
    void operator()(int) const {}
  };

  // out ← the scales of n rows of int8 keys or values from `first` on, and zeros up to a whole
  // vector. Meanwhile steps 0 … n / kScalesAStep − 1.
  static constexpr int kScalesAStep = 4;
  template <typename Meanwhile = Nothing>
  static void load_scales(const Rows& rows, int head_dim, int first, int n, float* out,
                          const Meanwhile& meanwhile = {}) {
    const std::byte* scale = rows.data + first * rows.stride + head_dim;
    int i = 0;
    for (; i + kScalesAStep <= n; i += kScalesAStep) {
      meanwhile(i / kScalesAStep);
#pragma GCC unroll 4
      for (int k = i; k < i + kScalesAStep; ++k, scale += rows.stride) {
        std::memcpy(out + k, scale, sizeof *out);
      }
    }
    for (; i < n; ++i, scale += rows.stride) std::memcpy(out + i, scale, sizeof *out);
    for (; i % kLanes != 0; ++i) out[i] = 0;
  }

  // x[i] ← x[i] · scales[i]; both have room for whole vectors.
  static void multiply(float* x, const float* scales, int n) {
    for (int i = 0; i < n; i += kLanes) {
      Vec::store(x + i, Vec::load(x + i) * Vec::load(scales + i));
    }
  }

  struct Peak {
    float largest;
    float sum;
  };

  // scores[i] ← e^(scale · (score − largest)) for the n of a block; the largest becomes exactly 1.
  // What stands behind them, up to whole vectors, is overwritten. Meanwhile a step a vector.
  template <typename Meanwhile = Nothing>
  static Peak softmax_numerators(float* scores, int n, float scale,
                                 const Meanwhile& meanwhile = {}) {
    // Not −∞: a block of nothing but −∞ weighs next to nothing, and makes no NaN.
    const V lowest = Vec::set1(-FLT_MAX);
    const int whole = n / kLanes * kLanes;
    V largest = lowest;
    for (int i = 0; i < whole; i += kLanes) largest = Vec::maximum(largest, Vec::load(scores + i));
    if (whole < n) {
      largest = Vec::maximum(largest, Vec::first(Vec::load(scores + whole), n - whole, lowest));
    }
    const float top = Vec::reduce_max(largest);
    const V tops = Vec::set1(top);
    const V scales = Vec::set1(scale);
    V sums = Vec::zero();
    for (int i = 0; i < n; i += kLanes) {
      meanwhile(i / kLanes);
      V weights = Activations<Vec>::exp((Vec::load(scores + i) - tops) * scales);
      if (i == whole) weights = Vec::first(weights, n - whole, Vec::zero());
      Vec::store(scores + i, weights);
      sums = sums + weights;
    }
    return {top, Vec::reduce_add(sums)};
  }

  // Merging of blocks, a query a lane: the largest scores and sums so far take in the block's;
  // values are to become values · keep + the block's · take.
  struct Merge {
    V largest;
    V sum;
    V keep;
    V take;
  };
  static Merge merge(V largest, V sum, V block_largest, V block_sum, V scale) {
    Merge m;
    m.largest = Vec::maximum(largest, block_largest);
    m.keep = Activations<Vec>::exp((largest - m.largest) * scale);
    m.take = Activations<Vec>::exp((block_largest - m.largest) * scale);
    m.sum = Vec::fma(block_sum, m.take, sum * m.keep);
    return m;
  }

  // --- Few queries ---

  // The scores of kLanes keys, of which those after `last` count as the last one. Meanwhile fetches
  // as many bytes as the keys take, from `ahead` on.
  template <typename T>
  static V dots(const float* q, const T* keys, int64_t stride, int last, int head_dim,
                const T* ahead) {
    constexpr int kFetched = (kLanes * 8 * static_cast<int>(sizeof(T)) + 63) / kFetchedLine;
    const auto fetch_at = [&](int d) {
      fetch<kFetched>(reinterpret_cast<const char*>(ahead + d * kLanes));
    };
    open_next_page<4>(reinterpret_cast<const char*>(ahead));
    V sums[8];
    for (V& sum : sums) sum = Vec::zero();
    int d = 0;
    for (; d + 8 <= head_dim; d += 8) {
      fetch_at(d);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        sums[i] =
            Vec::fma(Vec::load_query(q + d, i), Vec::load_keys(keys + d, stride, i, last), sums[i]);
      }
    }
    if (const int left = head_dim - d; left > 0) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        sums[i] = Vec::fma(Vec::load_query(q + d, i, left),
                           Vec::load_keys(keys + d, stride, i, last, left), sums[i]);
      }
    }
    if (d < stride) fetch_at(d);
    return Vec::reduce_keys(sums);
  }

  // Values of a block that are weighted, and what is fetched meanwhile, `step` bytes a row.
  template <typename T>
  struct Weighted {
    const T* values;
    int64_t stride;
    int n;
    int head_dim;
    const char* next;  // may be anywhere
    int64_t step;
  };

  // weights[j], times the scale of the value where it has one.
  template <typename T>
  static V weight_of(const float* weights, const Weighted<T>& w, int j) {
    const V weight = Vec::set1(weights[j]);
    if constexpr (kScaled<T>) {
      float scale;
      std::memcpy(&scale, w.values + j * w.stride + w.head_dim, sizeof scale);
      return weight * Vec::set1(scale);
    } else {
      return weight;
    }
  }

  // out ← Σ_j weights[j] · values[j] for N vectors of columns from d on, of the last of which
  // `count` exist.
  template <int N, bool kPartial, typename T>
  static void weigh(const float* weights, const Weighted<T>& w, int d, int count, float* out) {
    constexpr int kFetched =
        (N * kLanes * static_cast<int>(sizeof(T)) + kFetchedLine / 2) / kFetchedLine;
    constexpr int kAtLeastOne = kFetched > 0 ? kFetched : 1;
    const T* values = w.values + d;
    const char* next = w.next + d * int64_t{sizeof(T)};
    const int64_t stride = w.stride;
    const int n = w.n;
    V sums[2][N];
    for (int i = 0; i < N; ++i) sums[0][i] = sums[1][i] = Vec::zero();
    const auto take = [&](int j, V(&into)[N]) __attribute__((always_inline)) {
      const V weight = weight_of(weights, w, j);
      const T* row = values + j * stride;
      fetch<kAtLeastOne>(next + j * w.step);
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        const V v = kPartial && i == N - 1 ? Vec::load_partial(row + i * kLanes, count)
                                           : Vec::load(row + i * kLanes);
        into[i] = Vec::fma(weight, v, into[i]);
      }
    };
    int j = 0;
    for (; j + 2 <= n; j += 2) {
      open_next_page<1>(next + j * w.step, j / 2);
      take(j, sums[0]);
      take(j + 1, sums[1]);
    }
    if (j < n) take(j, sums[0]);
    for (int i = 0; i < N; ++i) Vec::store(out + i * kLanes, sums[0][i] + sums[1][i]);
  }

  template <int N, typename T>
  static void weigh_strip(const float* weights, const Weighted<T>& w, int d, int cols, float* out) {
    const int count = cols - (N - 1) * kLanes;
    if (count >= kLanes) {
      weigh<N, false>(weights, w, d, count, out + d);
    } else {
      weigh<N, true>(weights, w, d, count, out + d);
    }
  }

  // Strips of up to 5 vectors, each with two chains of sums.
  template <typename T>
  static void weighted_values(const float* weights, const Weighted<T>& w, float* out) {
    constexpr int kStrip = kLanes == 16 ? 5 : 4;
    for (int d = 0; d < w.head_dim; d += kStrip * kLanes) {
      const int cols = least(w.head_dim - d, kStrip * kLanes);
      switch ((cols + kLanes - 1) / kLanes) {
        case 1:
          weigh_strip<1>(weights, w, d, cols, out);
          break;
        case 2:
          weigh_strip<2>(weights, w, d, cols, out);
          break;
        case 3:
          weigh_strip<3>(weights, w, d, cols, out);
          break;
        case 4:
          weigh_strip<4>(weights, w, d, cols, out);
          break;
        default:
          weigh_strip<kStrip>(weights, w, d, cols, out);
      }
    }
  }

  static float* part_of(const AttentionBlock& block, int index, int row) {
    return block.parts + (int64_t{index} * block.rows + row) * part_floats(block.head_dim);
  }

  // The scores of query `row` with n keys of a block, while the first n of its values are fetched.
  template <typename T>
  static void score(const AttentionBlock& block, int row, const T* keys, const T* values, int n,
                    float* scores) {
    const float* q = block.q.f32(row);
    const int64_t stride = block.keys.stride;
    int j = 0;
    for (; j + kLanes <= n; j += kLanes) {
      Vec::store(scores + j, dots(q, keys + j * stride, stride, kLanes - 1, block.head_dim,
                                  values + j * block.values.stride));
    }
    if (j < n) {
      Vec::store(scores + j, dots(q, keys + j * stride, stride, n - j - 1, block.head_dim,
                                  values + j * block.values.stride));
    }
  }

  template <typename T>
  static void part_as(const AttentionBlock& block, int index) {
    const int first = index * kKeyBlock;
    const T* keys = reinterpret_cast<const T*>(block.keys.data) + first * block.keys.stride;
    const T* values = reinterpret_cast<const T*>(block.values.data) + first * block.values.stride;
    alignas(64) float scores[kKeyBlock];
    alignas(64) float scales[kKeyBlock];
    for (int row = 0; row < block.rows; ++row) {
      const int n = seen(block, row, first);
      if (n <= 0) continue;
      score(block, row, keys, values, n, scores);
      // The next keys, or, where there are none, nothing new: a line for each step of what stands
      // between scores and weights, and the others of them while values are weighed.
      const bool more = row == 0 && seen(block, block.rows - 1, first + kKeyBlock) > 0;
      const T* after = more ? keys + kKeyBlock * block.keys.stride : values;
      const auto* next = reinterpret_cast<const char*>(after);
      if constexpr (kScaled<T>) {
        load_scales(block.keys, block.head_dim, first, n, scales,
                    [next](int i) { fetch<1>(next + i * kFetchedLine); });
        multiply(scores, scales, n);
        next += n / kScalesAStep * kFetchedLine;
      }
      const Peak peak = softmax_numerators(scores, n, block.scale,
                                           [next](int i) { fetch<1>(next + i * kFetchedLine); });
      next += (n + kLanes - 1) / kLanes * kFetchedLine;
      float* part = part_of(block, index, row);
      part[0] = peak.largest;
      part[1] = peak.sum;
      // Of every row so many bytes are fetched by then.
      constexpr int kFetched =
          kFetchedLine / kLanes + (kScaled<T> ? kFetchedLine / kScalesAStep : 0);
      const int64_t step = block.keys.stride * int64_t{sizeof(T)} - kFetched;
      const Weighted<T> weighted = {values, block.values.stride, n, block.head_dim,
                                    next,   step > 0 ? step : 0};
      weighted_values(scores, weighted, part + kPartHeader);
    }
  }

  // Block `index` of the keys for every query, into block.parts.
  static void part(const AttentionBlock& block, int index) {
    if (block.keys.dtype == DType::kF16) {
      part_as<Half>(block, index);
    } else if (block.keys.dtype == DType::kI8) {
      part_as<Int8>(block, index);
    } else {
      part_as<float>(block, index);
    }
  }

  // block.out from all the parts, which it spoils.
  static void finish_parts(const AttentionBlock& block) {
    for (int row = 0; row < block.rows; ++row) {
      float* all = part_of(block, 0, row);
      V largest = Vec::set1(all[0]);
      V sum = Vec::set1(all[1]);
      for (int index = 1; seen(block, row, index * kKeyBlock) > 0; ++index) {
        const float* other = part_of(block, index, row);
        const Merge m =
            merge(largest, sum, Vec::set1(other[0]), Vec::set1(other[1]), Vec::set1(block.scale));
        largest = m.largest;
        sum = m.sum;
        for (int d = kPartHeader; d < kPartHeader + block.head_dim; d += kLanes) {
          const V kept = Vec::load(all + d) * m.keep;
          Vec::store(all + d, Vec::fma(Vec::load(other + d), m.take, kept));
        }
      }
      for (int d = 0; d < block.head_dim; d += kLanes) {
        Vec::store_partial(block.out.f32(row) + d, Vec::load(all + kPartHeader + d) / sum,
                           least(block.head_dim - d, kLanes));
      }
    }
  }

  static void few(AttentionBlock block) {
    block.parts = block.scores;
    for (int index = 0; seen(block, block.rows - 1, index * kKeyBlock) > 0; ++index) {
      part(block, index);
    }
    finish_parts(block);
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
