// Ops::attention on every backend, against the reference backend.
#include <gtest/gtest.h>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

// The last rows of x that belong to no segment: they must be left alone.
constexpr int kSpareRows = 2;
constexpr Precision kPrecisions[] = {Precision::kExact, Precision::kReduced};

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
void make_brain(Matrix& x) {
  for (float& value : x.values) {
    value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) & 0xffff0000U);
  }
}

// To the nearest number of bf16, halves to even.
float nearest_brain(float value) {
  if (std::isnan(value)) return value;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fffU + (bits >> 16 & 1)) & 0xffff0000U);
}

// Fills a row of a cache with numbers in [-1, 1].
void fill_row(Random& random, const AttentionCase& c, Matrix& stored, int row) {
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
Matrix unwritten(const AttentionCase& c, int rows) {
  const int cols = cache_columns(c.shape.head_dim, c.cache);
  if (c.cache != DType::kI8) return {rows, cols, kNan};
  Matrix stored(rows, cols);
  for (int row = 0; row < rows; ++row) set_scale(stored, row, c.shape.head_dim, kNan);
  return stored;
}

// Spoils element `col` of the only head of a row.
void spoil(const AttentionCase& c, Matrix& stored, int row, int col, float poison) {
  if (c.cache == DType::kI8) {
    set_scale(stored, row, c.shape.head_dim, kNan);  // what append makes of anything not finite
  } else {
    stored.at(row, col) = poison;
  }
}

// Rows of the caches that the segments see hold numbers of bf16 in [-1, 1], and so does q.
AttentionCase random_case(Random& random, AttentionShape shape,
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

Matrix run_attention(Ops& ops, const AttentionCase& c) {
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
double tolerance(const AttentionShape& shape) {
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

TEST_P(AttentionOps, EqualsTheReferenceOnManyShapes) {
  Random random(11);
  for (int i = 0; i < 40 && !HasFatalFailure(); ++i) {
    const int kv_heads = random.pick({1, 2, 3});
    const AttentionShape shape = {.heads = kv_heads * random.pick({1, 1, 3, 4}),
                                  .kv_heads = kv_heads,
                                  .head_dim = random.pick({1, 7, 8, 13, 16, 20, 31, 33, 40, 48, 55,
                                                           64, 72, 80, 96, 101, 128}),
                                  .causal = random.coin()};
    std::vector<std::pair<int, int>> segments;
    for (int s = random.integer(1, 4); s > 0; --s) {
      segments.emplace_back(random.pick({0, 0, 1, 5, 31, 67}), random.pick({1, 1, 2, 3, 4, 5, 17}));
    }
    compare(random_case(random, shape, segments));
  }
}

TEST_P(AttentionOps, EqualsTheReferenceOnLongSequences) {
  Random random(12);
  compare(random_case(random, {.heads = 2, .kv_heads = 2, .head_dim = 80}, {{0, 70}}));
  compare(random_case(random, {.heads = 4, .kv_heads = 1, .head_dim = 32}, {{700, 1}, {3, 33}}));
  compare(random_case(random, {.heads = 3, .kv_heads = 3, .head_dim = 72, .causal = false},
                      {{0, 65}, {0, 1}}));
}

// On either side of where blocks of keys, and keys that are packed together, end.
TEST_P(AttentionOps, EqualsTheReferenceAtTheEdgesOfBlocks) {
  Random random(25);
  for (const int visible : {32, 33, 127, 128, 129, 256, 1023, 1024, 1025}) {
    for (const int rows : {1, 7, visible < 1024 ? 32 : 6}) {
      compare(random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 9},
                          {{visible - rows, rows}}));
    }
  }
  compare(random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 8}, {{1000, 170}}));
}

// What the weights' rounding may cost does not grow with the scores.
TEST_P(AttentionOps, ScoresOfHundredsAreAsGoodAsPromised) {
  Random random(26);
  for (const float magnitude : {32.0F, 256.0F}) {
    AttentionCase c = random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 80}, {{60, 40}});
    for (float& value : c.q.values) value *= magnitude;
    for (const Precision precision : kPrecisions) {
      c.shape.precision = precision;
      AttentionShape bound = c.shape;
      bound.scale *= magnitude;
      expect_close(run_attention(*ops, c), run_attention(*reference, c), tolerance(bound));
    }
  }
}

// Queries and keys that are not of bf16 count as they are, or rounded to it.
TEST_P(AttentionOps, QueriesAndKeysAreRoundedAtMost) {
  Random random(28);
  AttentionCase c =
      random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 72}, {{0, 90}}, {DType::kF32});
  for (Matrix* x : {&c.q, &c.keys}) {
    for (float& value : x->values) {
      if (!std::isnan(value)) value = random.uniform(-6, 6);
    }
  }
  AttentionCase rounded = c;
  for (Matrix* x : {&rounded.q, &rounded.keys}) {
    for (float& value : x->values) {
      value = nearest_brain(value);
    }
  }
  const Matrix exact = run_attention(*reference, c);
  const Matrix of_rounded = run_attention(*reference, rounded);
  c.shape.precision = Precision::kReduced;
  AttentionShape bound = c.shape;
  bound.scale *= 36;
  const Matrix found = run_attention(*ops, c);
  const auto farthest = [&](const Matrix& from) {
    double most = 0;
    for (size_t i = 0; i < found.values.size(); ++i) {
      const double off = std::fabs(static_cast<double>(found.values[i]) - from.values[i]);
      if (!std::isnan(from.values[i])) most = std::max(most, off);
    }
    return most;
  };
  EXPECT_LE(std::min(farthest(exact), farthest(of_rounded)), tolerance(bound));
}

// q, k and v as column ranges of one activation, as the vision tower has them.
TEST_P(AttentionOps, ReadsKeysAndValuesFromAnActivation) {
  Random random(13);
  const AttentionShape shape = {.heads = 3,
                                .kv_heads = 3,
                                .head_dim = 17,
                                .scale = 0.25F,
                                .causal = false,
                                .capacity = 19,
                                .cached = false};
  Matrix qkv = random.matrix(38, 3 * 51);
  make_brain(qkv);
  const std::vector<Segment> images = {{0, 0, 19, 0}, {1, 19, 19, 0}};
  const auto run = [&](Ops& on) {
    const Guarded x(on, qkv);
    const Guarded out(on, Matrix(38, 51, kNan));
    on.attention(x.view.column_range(0, 51), x.view.column_range(51, 51),
                 x.view.column_range(102, 51), shape, images, out.view);
    x.check();
    out.check();
    return out.read();
  };
  expect_close(run(*ops), run(*reference), tolerance(shape));
}

TEST_P(AttentionOps, ASegmentAloneHasTheBitsItHasInABatch) {
  Random random(14);
  const auto check = [&](DType cache, Precision precision) {
    AttentionCase c = random_case(random, {.heads = 4, .kv_heads = 2, .head_dim = 20},
                                  {{9, 1}, {0, 6}, {31, 3}, {2, 33}}, {cache});
    c.shape.precision = precision;
    const Matrix together = run_attention(*ops, c);
    for (const Segment& segment : c.segments) {
      AttentionCase alone = c;
      alone.q = c.q.row_range(segment.first_row, segment.rows + kSpareRows);
      alone.segments = {segment};
      alone.segments[0].first_row = 0;
      expect_same_bits(run_attention(*ops, alone).row_range(0, segment.rows),
                       together.row_range(segment.first_row, segment.rows));
    }
  };
  for (const Precision precision : kPrecisions) {
    for (const DType cache : {DType::kF32, DType::kF16, DType::kI8}) check(cache, precision);
  }
}

TEST_P(AttentionOps, ASegmentMayBeEmpty) {
  Random random(24);
  const AttentionCase c = random_case(random, {.heads = 2, .kv_heads = 2, .head_dim = 16},
                                      {{9, 0}, {3, 2}, {0, 0}, {2, 9}});
  expect_close(run_attention(*ops, c), run_attention(*reference, c), tolerance(c.shape));
  AttentionCase none = c;
  none.segments.clear();
  for (const float value : run_attention(*ops, none).values) EXPECT_TRUE(std::isnan(value));
}

// Prefill in one go, or token by token: the same bits.
TEST_P(AttentionOps, ARowAloneHasTheBitsItHasInItsSegment) {
  Random random(15);
  AttentionCase c = random_case(random, {.heads = 2, .kv_heads = 2, .head_dim = 13}, {{3, 14}});
  for (const Precision precision : kPrecisions) {
    c.shape.precision = precision;
    const Matrix together = run_attention(*ops, c);
    for (int row = 0; row < 14; ++row) {
      AttentionCase alone = c;
      alone.q = c.q.row_range(row, 1 + kSpareRows);
      alone.segments = {{0, 0, 1, 3 + row}};
      expect_same_bits(run_attention(*ops, alone).row_range(0, 1), together.row_range(row, 1));
    }
  }
}

// Pieces that a backend computes in one way, and others that it computes in another.
TEST_P(AttentionOps, PrefillInPiecesOfAnySizeGivesTheSameBits) {
  Random random(21);
  const auto cut = [&](int head_dim, DType cache, Precision precision) {
    AttentionCase c =
        random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = head_dim}, {{0, 300}}, {cache});
    c.shape.precision = precision;
    const Matrix whole = run_attention(*ops, c);
    for (const int piece : {1, 6, 7, 129}) {
      // Of pieces of one row a few will do: those at the edges of what is computed together.
      for (int row = 0; row < 300; row += piece == 1 ? 31 : piece) {
        const int rows = std::min(piece, 300 - row);
        AttentionCase part = c;
        part.q = c.q.row_range(row, rows + kSpareRows);
        part.segments = {{0, 0, rows, row}};
        expect_same_bits(run_attention(*ops, part).row_range(0, rows), whole.row_range(row, rows));
        if (HasFatalFailure()) return;
      }
    }
  };
  for (const Precision precision : kPrecisions) {
    for (const int head_dim : {5, 72}) cut(head_dim, DType::kF32, precision);
    for (const int head_dim : {48, 80}) cut(head_dim, DType::kF16, precision);
    for (const int head_dim : {5, 80}) cut(head_dim, DType::kI8, precision);
  }
}

TEST_P(AttentionOps, SampledTokensAreExactAtAnyPrecision) {
  Random random(27);
  AttentionCase c =
      random_case(random, {.heads = 2, .kv_heads = 2, .head_dim = 40}, {{200, 1}, {0, 40}, {9, 1}});
  const Matrix exact = run_attention(*ops, c);
  c.shape.precision = Precision::kReduced;
  for (const int which : {0, 2}) c.segments[which].sampled = true;
  const Matrix found = run_attention(*ops, c);
  for (const int row : {0, 41}) expect_same_bits(found.row_range(row, 1), exact.row_range(row, 1));
  expect_close(found, run_attention(*reference, c), tolerance(c.shape));
}

// Many rows, one row, and one row of few heads, whose keys threads may share.
TEST_P(AttentionOps, AnyNumberOfThreadsGivesTheSameBits) {
  if (GetParam().name != "cpu") GTEST_SKIP() << "only the CPU backend has threads";
  Random random(16);
  const std::unique_ptr<Ops> single = make_backend({"cpu", 1, GetParam().isa});
  for (AttentionCase c :
       {random_case(random, {.heads = 5, .kv_heads = 5, .head_dim = 31}, {{40, 30}, {7, 22}}),
        random_case(random, {.heads = 6, .kv_heads = 3, .head_dim = 80}, {{400, 1}, {200, 1}}),
        random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 72}, {{900, 1}}),
        random_case(random, {.heads = 2, .kv_heads = 1, .head_dim = 20}, {{1000, 3}, {384, 1}}),
        random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 72, .causal = false},
                    {{0, 200}})}) {
    for (const Precision precision : kPrecisions) {
      c.shape.precision = precision;
      expect_same_bits(run_attention(*ops, c), run_attention(*single, c));
    }
    compare(c);
  }
}

// A token whose key or value has overflowed spoils the rows that see it, and no earlier one.
TEST_P(AttentionOps, ALaterTokenNeverReachesAnEarlierRow) {
  Random random(17);
  AttentionCase c = random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 16}, {{2, 9}});
  const auto check = [&](float poison, bool key) {
    const Matrix clean = run_attention(*ops, c);
    AttentionCase spoilt = c;
    spoil(c, key ? spoilt.keys : spoilt.values, 2 + 5, 3, poison);  // what row 5 adds
    const Matrix found = run_attention(*ops, spoilt);
    expect_same_bits(found.row_range(0, 5), clean.row_range(0, 5));
    for (int row = 5; row < 9; ++row) {
      // An infinite key may be a key that is not looked at, when q points away from it.
      const bool spoils = !key || std::isnan(poison);
      EXPECT_TRUE(!spoils || !std::isfinite(found.at(row, 3))) << row;
      // A value spoils its own column.
      EXPECT_TRUE(key || std::isfinite(found.at(row, 4)) == (c.cache != DType::kI8)) << row;
    }
  };
  for (const Precision precision : kPrecisions) {
    c.shape.precision = precision;
    for (const float poison : {kNan, kInfinity}) {
      for (const bool key : {false, true}) check(poison, key);
    }
  }
}

// The same among so many rows that a backend packs their keys.
TEST_P(AttentionOps, ALaterTokenNeverReachesAnEarlierRowOfALongPrompt) {
  Random random(22);
  AttentionCase c = random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 24}, {{100, 90}});
  for (const Precision precision : kPrecisions) {
    c.shape.precision = precision;
    const Matrix clean = run_attention(*ops, c);
    for (const int row : {1, 27, 28, 45, 89}) {
      for (const bool both : {false, true}) {
        AttentionCase spoilt = c;
        if (both) spoil(c, spoilt.keys, 100 + row, 9, kNan);
        spoil(c, spoilt.values, 100 + row, 9, kNan);
        const Matrix found = run_attention(*ops, spoilt);
        expect_same_bits(found.row_range(0, row), clean.row_range(0, row));
        for (int later = row; later < 90; ++later) EXPECT_TRUE(std::isnan(found.at(later, 9)));
      }
    }
  }
}

// A key that is infinitely far from being looked at stands alone behind many others.
TEST_P(AttentionOps, AnInfinitelyUnlikelyKeyCountsForNothing) {
  Random random(23);
  for (const int past : {127, 128, 256}) {
    AttentionCase c = random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 8}, {{past, 1}},
                                  {DType::kF32, DType::kF16});
    c.q.at(0, 0) = -1;
    c.keys.at(past, 0) = kInfinity;
    expect_close(run_attention(*ops, c), run_attention(*reference, c), tolerance(c.shape));
  }
}

// Scores far apart: everything but the largest vanishes, and nothing overflows.
TEST_P(AttentionOps, SurvivesExtremeScores) {
  Random random(18);
  AttentionCase c = random_case(random, {.heads = 1, .kv_heads = 1, .head_dim = 8}, {{20, 4}});
  const auto check = [&](float scale, Precision precision) {
    c.shape.scale = scale;
    c.shape.precision = precision;
    const Matrix found = run_attention(*ops, c);
    for (int row = 0; row < 4; ++row) {
      for (int d = 0; d < 8; ++d) EXPECT_LE(std::fabs(found.at(row, d)), 1.0F) << scale;
    }
    // Where scores are so large that their own rounding decides, only the bound above is to be had.
    if (scale < 100) expect_close(found, run_attention(*reference, c), tolerance(c.shape));
  };
  for (const Precision precision : kPrecisions) {
    for (const float scale : {1e4F, 1e30F, 0.0F, 50.0F}) check(scale, precision);
  }
}

OCELLI_EVERY_BACKEND(AttentionOps);

}  // namespace
}  // namespace ocelli::kernels
