// What tests of Ops::attention share: random cases, and how close results have to be.
#pragma once

#include <gtest/gtest.h>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {

// The last rows of x that belong to no segment: they must be left alone.
inline constexpr int kSpareRows = 2;
inline constexpr Precision kPrecisions[] = {Precision::kExact, Precision::kReduced};

// One attention over caches that already hold each sequence's past.
struct AttentionCase {
  AttentionShape shape;
  std::vector<Segment> segments;
  DType cache = DType::kF32;
  Matrix q;
  // As they are stored; NaN where no segment may look.
  Matrix keys;
  Matrix values;
};

// Numbers of bf16, which Precision::kReduced does not round.
inline void make_brain(Matrix& x) {
  for (float& value : x.values) {
    value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) & 0xffff0000U);
  }
}

// To the nearest number of bf16, halves to even.
inline float nearest_brain(float value) {
  if (std::isnan(value)) return value;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fffU + (bits >> 16 & 1)) & 0xffff0000U);
}

// Fills a row of a cache with numbers in [-1, 1].
inline void fill_row(Random& random, const AttentionCase& c, Matrix& stored, int row) {
  if (c.cache != DType::kI8) {
    for (int col = 0; col < stored.cols; ++col) stored.at(row, col) = random.uniform(-1, 1);
    return;
  }
  for (int d = 0; d < c.shape.head_dim; ++d) {
    stored.at(row, d) = static_cast<float>(random.integer(-127, 127));
  }
  set_scale(stored, row, c.shape.head_dim, std::exp2(-static_cast<float>(random.integer(7, 10))));
}

// What nobody may look at.
inline Matrix unwritten(const AttentionCase& c, int rows) {
  const int cols = cache_columns(c.shape.head_dim, c.cache);
  if (c.cache != DType::kI8) return {rows, cols, kNan};
  Matrix stored(rows, cols);
  for (int row = 0; row < rows; ++row) set_scale(stored, row, c.shape.head_dim, kNan);
  return stored;
}

// Spoils element `col` of the only head of a row.
inline void spoil(const AttentionCase& c, Matrix& stored, int row, int col, float poison) {
  if (c.cache == DType::kI8) {
    set_scale(stored, row, c.shape.head_dim, kNan);  // what append makes of anything not finite
  } else {
    stored.at(row, col) = poison;
  }
}

// Rows of the caches that the segments see hold numbers of bf16 in [-1, 1], and so does q.
inline AttentionCase random_case(Random& random, AttentionShape shape,
                                 const std::vector<std::pair<int, int>>& past_and_rows,
                                 const std::vector<DType>& caches = {DType::kF32, DType::kF16,
                                                                     DType::kI8}) {
  AttentionCase c;
  c.shape = shape;
  int longest = 0;
  int row = 0;
  const int sequences = static_cast<int>(past_and_rows.size());
  for (int i = 0; i < sequences; ++i) {
    const auto [past, rows] = past_and_rows[i];
    // Sequences in another order than rows.
    c.segments.push_back({sequences - 1 - i, row, rows, past});
    row += rows;
    longest = std::max(longest, past + rows);
  }
  c.shape.capacity = longest + random.integer(0, 5);
  c.shape.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
  c.cache = caches[random.integer(0, static_cast<int>(caches.size()) - 1)];
  c.q = random.matrix(row + kSpareRows, shape.heads * shape.head_dim);
  c.keys = unwritten(c, sequences * shape.kv_heads * c.shape.capacity);
  c.values = c.keys;
  for (const Segment& segment : c.segments) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      const auto first = static_cast<int>(head_place(c.shape, segment.sequence, head).row);
      for (int r = first; r < first + segment.past + segment.rows; ++r) {
        fill_row(random, c, c.keys, r);
        fill_row(random, c, c.values, r);
      }
    }
  }
  make_brain(c.q);
  // The scales of int8 are powers of two.
  if (c.cache != DType::kI8) make_brain(c.keys);
  return c;
}

inline Matrix run_attention(Ops& ops, const AttentionCase& c) {
  const Guarded q(ops, c.q);
  const Guarded keys(ops, c.keys, c.cache, Placement::kKeys);
  const Guarded values(ops, c.values, c.cache, Placement::kValues);
  const Guarded out(ops, Matrix(c.q.rows, c.q.cols, kNan));
  ops.attention(q.view, keys.view, values.view, c.shape, c.segments, out.view);
  for (const Guarded* guarded : {&q, &keys, &values, &out}) guarded->check();
  const Matrix result = out.read();
  for (int r = c.q.rows - kSpareRows; r < c.q.rows; ++r) {
    for (int col = 0; col < c.q.cols; ++col) {
      EXPECT_TRUE(std::isnan(result.at(r, col))) << "a row of no segment was written";
    }
  }
  return result;
}

// With |q|, |k|, |v| ≤ 1 a score is at most s = scale · d, and is wrong by some ε/2 of it; the
// weights e^score are then wrong by 2s · ε/2 relative and their mean of values, in [-1, 1], by as
// much again; the sums and the exponential add a few roundings.
//
// At reduced precision, and of queries and keys in bf16, a value is wrong by 2^−8 of itself, and a
// weight by 2^−8 and, as its power is rounded to 128ths, by 2^−8.5.
inline double tolerance(const AttentionShape& shape) {
  const double score = std::fabs(shape.scale) * shape.head_dim;
  const double exact = kEpsilon * (8 + 2 * score);
  if (shape.precision == Precision::kExact) return exact;
  return exact + 2.75 * 0x1p-8;
}

class AttentionOps : public EveryBackend {
 protected:
  void compare(AttentionCase c) {
    const Matrix expected = run_attention(*reference, c);
    for (const Precision precision : kPrecisions) {
      SCOPED_TRACE(testing::Message()
                   << c.segments.size() << " segments, " << c.shape.heads << "/" << c.shape.kv_heads
                   << " heads of " << c.shape.head_dim << ", causal " << c.shape.causal << ", "
                   << name(c.cache) << ", reduced " << (precision == Precision::kReduced));
      c.shape.precision = precision;
      expect_close(run_attention(*ops, c), expected, tolerance(c.shape));
    }
  }
};

}  // namespace ocelli::kernels
