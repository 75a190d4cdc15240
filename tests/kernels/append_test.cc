// Ops::append and rope on every backend: what a cache holds afterwards, and how far attention over
// it is from attention over the rows themselves.
#include <gtest/gtest.h>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

class CacheOps : public EveryBackend {};

TEST_P(CacheOps, AppendWritesItsRowsAndNoOthers) {
  Random random(19);
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    for (const auto& [heads, head_dim] : {std::pair{1, 1}, {1, 7}, {3, 17}, {5, 72}, {32, 80}}) {
      const int capacity = 11;
      const std::vector<Segment> segments = {{2, 0, 4, 7}, {0, 4, 1, 0}, {1, 5, 2, 3}};
      const Matrix x = random.matrix(8, heads * head_dim, -70'000, 70'000);  // fp16: to 65,504
      const Guarded rows(*ops, x);
      const Matrix before = random.matrix(3 * heads * capacity, head_dim);
      const Guarded cache(*ops, before, dtype, Placement::kKeys);
      Matrix expected = cache.read();
      ops->append(rows.view, cache.view, capacity, segments);
      cache.check();
      for (const Segment& segment : segments) {
        for (int i = 0; i < segment.rows; ++i) {
          for (int c = 0; c < x.cols; ++c) {
            const float value = x.at(segment.first_row + i, c);
            const int first = (segment.sequence * heads + c / head_dim) * capacity;
            expected.at(first + segment.past + i, c % head_dim) =
                dtype == DType::kF16 ? f16_to_f32(f32_to_f16(value)) : value;
          }
        }
      }
      expect_same_bits(cache.read(), expected);
    }
  }
}

// A head by the rule of Ops::linear, and the bytes of its scale behind it.
void quantise_head(const float* x, int n, Matrix& stored, int row) {
  float largest = 0;
  bool finite = true;
  for (int i = 0; i < n; ++i) {
    finite = finite && std::isfinite(x[i]);
    largest = std::max(largest, std::fabs(x[i]));
  }
  const float scale = finite ? largest / 127 : kNan;
  for (int i = 0; i < n; ++i) {
    const float quotient = scale > 0 ? x[i] / scale : 0;
    stored.at(row, i) = std::round(std::clamp(quotient, -127.0F, 127.0F));
  }
  set_scale(stored, row, n, scale);
}

TEST_P(CacheOps, AppendQuantisesEveryHeadByItself) {
  Random random(26);
  const int capacity = 7;
  const std::vector<Segment> segments = {{1, 0, 5, 2}, {0, 5, 1, 0}};
  for (const int heads : {1, 3, 32}) {
    for (const int head_dim : {1, 7, 16, 20, 72, 80}) {
      Matrix x = random.matrix(8, heads * head_dim, -3, 3);
      for (int d = 0; d < head_dim; ++d) {
        x.at(0, d) = 0;
        x.at(1, d) *= 1e-43F;  // its scale is a denormal or zero
        x.at(2, d) *= 1e38F;
        x.at(3, d) = static_cast<float>(random.integer(-254, 254)) / 2;  // halves
      }
      x.at(3, 0) = 127;
      x.at(4, head_dim - 1) = head_dim % 2 == 0 ? kNan : -kInfinity;
      const Guarded rows(*ops, x);
      Matrix before(2 * heads * capacity, cache_columns(head_dim, DType::kI8));
      for (float& value : before.values) value = static_cast<float>(random.integer(-128, 127));
      const Guarded cache(*ops, before, DType::kI8, Placement::kKeys);
      ops->append(rows.view, cache.view, capacity, segments);
      cache.check();
      Matrix found = cache.read();
      Matrix expected = before;
      for (const Segment& segment : segments) {
        for (int i = 0; i < segment.rows; ++i) {
          for (int head = 0; head < heads; ++head) {
            const int row = (segment.sequence * heads + head) * capacity + segment.past + i;
            const float* source = &x.values[(segment.first_row + i) * x.cols + head * head_dim];
            quantise_head(source, head_dim, expected, row);
            // NaN has many bits.
            if (!std::isnan(scale_at(expected, row, head_dim))) continue;
            EXPECT_TRUE(std::isnan(scale_at(found, row, head_dim)));
            set_scale(found, row, head_dim, kNan);
          }
        }
      }
      expect_equal(found, expected);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(CacheOps, RopeEqualsTheReference) {
  Random random(20);
  for (int i = 0; i < 30 && !HasFatalFailure(); ++i) {
    const int head_dim = random.pick({2, 7, 20, 32, 80});
    const int half = random.integer(1, head_dim / 2);
    const int heads = random.pick({1, 2, 5, 31});
    const std::vector<Segment> segments = {{1, 0, random.integer(1, 40), 3}, {0, 41, 2, 17}};
    const Matrix x = random.matrix(45, heads * head_dim);
    const Matrix angles = random.matrix(60, 2 * half);
    const auto run = [&](Ops& on) {
      const Guarded table(on, angles);
      const Guarded rows(on, x);
      on.rope(rows.view, head_dim, table.view, segments);
      rows.check();
      return rows.read();
    };
    const Matrix found = run(*ops);
    expect_close(found, run(*reference), 2 * kEpsilon);
    // What is past the rotated dimensions, and rows of no segment, keep their bits.
    expect_same_bits(found.row_range(43, 2), x.row_range(43, 2));
    for (int c = 2 * half; c < head_dim; ++c) ASSERT_EQ(found.at(0, c), x.at(0, c));
  }
}

// Keys and values that were appended are, in int8, what they are in fp32 to 1/254 of their head's
// largest: a score, a sum of head_dim products, is off by √head_dim / 254 at most, and its weight
// by as much, twice in a quotient of weights.
TEST_P(CacheOps, Int8LosesOneInTwoHundredAndFiftyFour) {
  Random random(25);
  const AttentionShape shape = {
      .heads = 4, .kv_heads = 2, .head_dim = 16, .scale = 0.25F, .capacity = 40};
  const std::vector<Segment> segments = {{0, 0, 40, 0}};
  const Matrix q = random.matrix(40, 64);
  const Matrix k = random.matrix(40, 32);
  const Matrix v = random.matrix(40, 32);
  const auto run = [&](DType cache) {
    const int cols = cache_columns(shape.head_dim, cache);
    const Tensor keys = ops->tensor(80, cols, cache, Placement::kKeys);
    const Tensor values = ops->tensor(80, cols, cache, Placement::kValues);
    ops->append(Guarded(*ops, k).view, keys, shape.capacity, segments);
    ops->append(Guarded(*ops, v).view, values, shape.capacity, segments);
    const Guarded out(*ops, Matrix(40, 64, kNan));
    ops->attention(Guarded(*ops, q).view, keys, values, shape, segments, out.view);
    return out.read();
  };
  expect_close(run(DType::kI8), run(DType::kF32), (1 + 2 * std::sqrt(16.0)) / 254);
}

OCELLI_EVERY_BACKEND(CacheOps);

}  // namespace
}  // namespace ocelli::kernels
