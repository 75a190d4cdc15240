// Attention for many queries: their products with a block of keys, packed once, in register tiles.
// The order of roundings is that of attention_kernels.h. Included like kernels.h, and under the
// same rule of linkage.
#pragma once

#include "kernels/cpu/isa/attention_kernels.h"

namespace ocelli::kernels::cpu {
namespace {

template <typename Vec>
class AttentionTiles {
 public:
  static void run(const AttentionBlock& block) {
    AttentionTiles tiles(block);
    if (block.keys.dtype == DType::kF16) {
      tiles.all<Half>();
    } else if (block.keys.dtype == DType::kI8) {
      tiles.all<Int8>();
    } else {
      tiles.all<float>();
    }
  }

 private:
  using V = typename Vec::V;
  using Kernels = AttentionKernels<Vec>;
  static constexpr int kLanes = Vec::kLanes;
  // Queries go through the tiles in groups; a last group is filled up with queries of zero.
  static constexpr int kGroup = kAttentionPadding;
  static constexpr int kScoreRows = 4;
  static constexpr int kPanel = 2 * kLanes;  // keys that a tile of scores is wide
  static constexpr int kValueRows = Vec::kValueRows;
  static constexpr int kStrip = Vec::kValueVectors * kLanes;
  static_assert(kGroup % kScoreRows == 0 && kGroup % kValueRows == 0 && kLanes <= kGroup);

  explicit AttentionTiles(const AttentionBlock& block)
      : b_(block),
        depth_((block.head_dim + 7) / 8 * 8),
        width_(padded_head(block.head_dim)),
        visible_(block.first_visible + (block.rows - 1) * block.visible_step) {
    float* next = block.scores;
    const auto room = [&](int64_t floats) {
      float* here = next;
      next += floats;
      return here;
    };
    const int rows = block.rows + kGroup;
    q_ = room(int64_t{rows} * width_);
    sums_ = room(int64_t{rows} * width_);
    scores_ = room(int64_t{rows} * kKeyBlock);
    keys_ = room(int64_t{kKeyBlock} * width_);
    values_ = room(int64_t{kKeyBlock} * width_);
    staging_ = room(int64_t{kLanes} * width_);
  }

  static int least(int a, int b) { return a < b ? a : b; }

  // to[0, width) ← the n elements at `from`, and zeros.
  template <typename T>
  static void widen(const T* from, int n, int width, float* to) {
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) Vec::store(to + i, Vec::load(from + i));
    if (i < n) {
      Vec::store(to + i, Vec::load_partial(from + i, n - i));
      i += kLanes;
    }
    for (; i < width; i += kLanes) Vec::store(to + i, Vec::zero());
  }

  template <typename T>
  static const T* row_of(const Rows& rows, int64_t row) {
    return reinterpret_cast<const T*>(rows.data) + row * rows.stride;
  }

  // keys_ ← panels [depth][kPanel] of the transposed keys; those that do not exist are zero.
  template <typename T>
  void pack_keys(int first, int count) {
    for (int key = 0; key < count; key += kPanel) {
      for (int half = 0; half < kPanel; half += kLanes) {
        for (int i = 0; i < kLanes; ++i) {
          const int j = key + half + i;
          widen(row_of<T>(b_.keys, first + least(j, count - 1)), j < count ? b_.head_dim : 0,
                width_, staging_ + i * width_);
        }
        float* panel = keys_ + int64_t{key} * depth_ + half;
        for (int d = 0; d < depth_; d += 4) {
          V columns[4];
          Vec::load_columns(staging_ + d, width_, columns);
          for (int c = 0; c < 4; ++c) Vec::store(panel + (d + c) * kPanel, columns[c]);
        }
      }
    }
  }

  template <int R, int N>
  struct Tile {
    V v[R][N];
  };

  template <int R, int N>
  [[gnu::always_inline]] static Tile<R, N> plus(const Tile<R, N>& a, const Tile<R, N>& b) {
    Tile<R, N> sum;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum.v[r][n] = a.v[r][n] + b.v[r][n];
    }
    return sum;
  }

  // Two row-major matrices whose product is wanted.
  struct Operands {
    const float* a;
    int64_t a_stride;
    const float* b;
    int64_t b_stride;
  };

  template <int R, int N>
  [[gnu::always_inline]] static void clear(Tile<R, N>& t) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) t.v[r][n] = Vec::zero();
    }
  }

  // t[r][n] += a[r][k] · b[k][n]
  template <int R, int N>
  [[gnu::always_inline]] static void accumulate(const Operands& o, int k, Tile<R, N>& t) {
    V b[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) b[n] = Vec::load(o.b + k * o.b_stride + n * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V a = Vec::set1(o.a[r * o.a_stride + k]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) t.v[r][n] = Vec::fma(a, b[n], t.v[r][n]);
    }
  }

  // scores_ of the kScoreRows queries from `row` on with one panel.
  void score(int row, int key) {
    const Operands o = {q_ + int64_t{row} * width_, width_, keys_ + int64_t{key} * depth_, kPanel};
    using Scores = Tile<kScoreRows, 2>;
    // The sums from d and from d + 2 on.
    const auto two = [&](int d) __attribute__((always_inline))->Scores {
      Scores a;
      Scores b;
      clear(a);
      clear(b);
      int k = d;
      do {  // at least once, which keeps the sums in registers
        accumulate(o, k, a);
        accumulate(o, k + 2, b);
        k += 8;
      } while (k < depth_);
      return plus(a, b);
    };
    const auto four = [&](int d) __attribute__((always_inline))->Scores {
      const Scores even = two(d);
      return plus(even, two(d + 1));
    };
    const Scores low = four(0);
    const Scores all = plus(low, four(4));
#pragma GCC unroll 8
    for (int r = 0; r < kScoreRows; ++r) {
      float* out = scores_ + int64_t{row + r} * kKeyBlock + key;
#pragma GCC unroll 4
      for (int n = 0; n < 2; ++n) Vec::store(out + n * kLanes, all.v[r][n]);
    }
  }

  // The scores of the queries from first_row on with the `count` keys from `first` on.
  void score_all(int first_row, int first, int count) {
    for (int key = 0; key < count; key += kPanel) {
      for (int row = first_row; row < b_.rows; row += kGroup) {
        // Nobody in the group sees the panel, and nobody will look at its scores.
        if (Kernels::seen(b_, least(row + kGroup, b_.rows) - 1, first) <= key) continue;
        for (int r = 0; r < kGroup; r += kScoreRows) score(row + r, key);
      }
    }
  }

  // Merges the block's softmaxes into the queries' own, and leaves how values are to be merged.
  template <typename T>
  void softmax_all(int first_row, int first) {
    for (int row = first_row; row < b_.rows; ++row) {
      float* scores = scores_ + int64_t{row} * kKeyBlock;
      const int n = Kernels::seen(b_, row, first);
      if constexpr (kScaled<T>) Kernels::multiply(scores, key_scales_, n);
      const auto peak = Kernels::softmax_numerators(scores, n, b_.scale);
      if constexpr (kScaled<T>) Kernels::multiply(scores, value_scales_, n);
      block_largest_[row] = peak.largest;
      block_sum_[row] = peak.sum;
    }
    // What is computed past the last query is not used.
    for (int row = first_row; row < b_.rows; row += kLanes) {
      const V largest = Vec::load(block_largest_ + row);
      const V sum = Vec::load(block_sum_ + row);
      if (first == 0) {
        Vec::store(largest_ + row, largest);
        Vec::store(sum_ + row, sum);
        continue;
      }
      const auto merged = Kernels::merge(Vec::load(largest_ + row), Vec::load(sum_ + row), largest,
                                         sum, Vec::set1(b_.scale));
      Vec::store(largest_ + row, merged.largest);
      Vec::store(sum_ + row, merged.sum);
      Vec::store(keep_ + row, merged.keep);
      Vec::store(take_ + row, merged.take);
    }
  }

  // Merges N vectors of weighted values, from column d on, into sums_ of the kValueRows queries
  // from `row` on.
  template <int N>
  void weigh(int row, int d, int first) {
    const Operands o = {scores_ + int64_t{row} * kKeyBlock, kKeyBlock, values_ + d, width_};
    // Later queries of the group may see more keys: one by one, an infinite value being no business
    // of those that do not.
    const int common = Kernels::seen(b_, row, first);
    Tile<kValueRows, N> sums[2];
    for (int odd = 0; odd < 2; ++odd) {
      Tile<kValueRows, N> t;
      clear(t);
      for (int k = odd; k < common; k += 2) accumulate(o, k, t);
      sums[odd] = t;
    }
    const int rows = least(kValueRows, b_.rows - row);
    for (int r = 0; r < rows; ++r) {
      const int seen = Kernels::seen(b_, row + r, first);
      for (int k = common; k < seen; ++k) {
        const V weight = Vec::set1(o.a[r * kKeyBlock + k]);
        for (int n = 0; n < N; ++n) {
          V& sum = sums[k % 2].v[r][n];
          sum = Vec::fma(weight, Vec::load(o.b + k * o.b_stride + n * kLanes), sum);
        }
      }
      float* out = sums_ + int64_t{row + r} * width_ + d;
      const V keep = Vec::set1(keep_[row + r]);
      const V take = Vec::set1(take_[row + r]);
      for (int n = 0; n < N; ++n, out += kLanes) {
        const V sum = sums[0].v[r][n] + sums[1].v[r][n];
        Vec::store(out, first == 0 ? sum : Vec::fma(sum, take, Vec::load(out) * keep));
      }
    }
  }

  void weigh_all(int first_row, int first) {
    for (int d = 0; d < b_.head_dim; d += kStrip) {
      const int vectors = (least(b_.head_dim - d, kStrip) + kLanes - 1) / kLanes;
      for (int row = first_row; row < b_.rows; row += kValueRows) {
        if (vectors == 1) {
          weigh<1>(row, d, first);
        } else if (vectors == 2) {
          weigh<2>(row, d, first);
        } else {
          weigh<Vec::kValueVectors>(row, d, first);
        }
      }
    }
  }

  template <typename T>
  void all() {
    for (int row = 0; row < b_.rows + kGroup; ++row) {
      const bool exists = row < b_.rows;
      widen(b_.q.f32(exists ? row : 0), exists ? b_.head_dim : 0, width_,
            q_ + int64_t{row} * width_);
    }
    int first_row = 0;
    for (int first = 0; first < visible_; first += kKeyBlock) {
      while (Kernels::seen(b_, first_row, first) <= 0) ++first_row;
      const int count = least(visible_ - first, kKeyBlock);
      pack_keys<T>(first, count);
      for (int key = 0; key < count; ++key) {
        widen(row_of<T>(b_.values, first + key), b_.head_dim, width_,
              values_ + int64_t{key} * width_);
      }
      if constexpr (kScaled<T>) {
        Kernels::load_scales(b_.keys, b_.head_dim, first, count, key_scales_);
        Kernels::load_scales(b_.values, b_.head_dim, first, count, value_scales_);
      }
      score_all(first_row, first, count);
      softmax_all<T>(first_row, first);
      weigh_all(first_row, first);
    }
    for (int row = 0; row < b_.rows; ++row) {
      const V sum = Vec::set1(sum_[row]);
      for (int d = 0; d < b_.head_dim; d += kLanes) {
        Vec::store_partial(b_.out.f32(row) + d, Vec::load(sums_ + int64_t{row} * width_ + d) / sum,
                           least(b_.head_dim - d, kLanes));
      }
    }
  }

  const AttentionBlock& b_;
  const int depth_;    // head_dim in whole eights
  const int width_;    // floats of a row of q_, sums_, values_ and staging_
  const int visible_;  // keys that the last query sees
  float* q_;
  float* sums_;    // weighted values, up to a factor of 1 / sum_
  float* scores_;  // [queries][kKeyBlock], then the softmax's numerators
  float* keys_;    // panels of a block, see pack_keys
  float* values_;  // a block's
  float* staging_;
  // A block's, where keys and values have scales.
  alignas(64) float key_scales_[kKeyBlock];
  alignas(64) float value_scales_[kKeyBlock];
  // For each query: its largest score and sum of numerators so far, and in the block in hand.
  alignas(64) float largest_[kAttentionRows + kGroup];
  alignas(64) float sum_[kAttentionRows + kGroup];
  alignas(64) float block_largest_[kAttentionRows + kGroup] = {};
  alignas(64) float block_sum_[kAttentionRows + kGroup] = {};
  // How the values so far and those of the block are to be merged.
  alignas(64) float keep_[kAttentionRows + kGroup] = {};
  alignas(64) float take_[kAttentionRows + kGroup] = {};
};

// What goes into the table of this instruction set.
template <typename Vec>
void attention(const AttentionBlock& block) {
  if (block.rows <= kFewQueries) {
    AttentionKernels<Vec>::few(block);
  } else {
    AttentionTiles<Vec>::run(block);
  }
}

}  // namespace
}  // namespace ocelli::kernels::cpu
