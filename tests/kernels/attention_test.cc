// Ops::attention on every backend, against the reference backend.
#include <gtest/gtest.h>

#include "tests/kernels/attention_testing.h"

namespace ocelli::kernels {
namespace {

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

OCELLI_EVERY_BACKEND(AttentionOps);

}  // namespace
}  // namespace ocelli::kernels
