// Ops::attention where numbers are infinite, none, or very large.
#include <gtest/gtest.h>

#include "tests/kernels/attention_testing.h"

namespace ocelli::kernels {
namespace {

class AttentionLimits : public AttentionOps {};

// A token whose key or value has overflowed spoils the rows that see it, and no earlier one.
TEST_P(AttentionLimits, ALaterTokenNeverReachesAnEarlierRow) {
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
TEST_P(AttentionLimits, ALaterTokenNeverReachesAnEarlierRowOfALongPrompt) {
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
TEST_P(AttentionLimits, AnInfinitelyUnlikelyKeyCountsForNothing) {
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
TEST_P(AttentionLimits, SurvivesExtremeScores) {
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

OCELLI_EVERY_BACKEND(AttentionLimits);

}  // namespace
}  // namespace ocelli::kernels
