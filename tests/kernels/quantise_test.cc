// The rule of quantise_row, written out here once more, and what it does at the edges.
#include "kernels/quantise.h"

#include <gtest/gtest.h>

#include <bit>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

struct Quantised {
  std::vector<int8_t> values;
  std::vector<float> scales;
  bool finite = false;
};

Quantised quantise(const std::vector<float>& x, int group) {
  Quantised result;
  result.values.resize(x.size(), 99);
  result.scales.resize(x.size() / group, kNan);
  result.finite = quantise_row(x.data(), static_cast<int64_t>(x.size()), group,
                               result.values.data(), result.scales.data());
  return result;
}

TEST(QuantiseRow, FollowsTheRule) {
  Random random(1);
  for (const int group : {1, 3, 64, 588}) {
    for (const float range : {1e-30F, 0.02F, 3.0F, 1e30F}) {
      const Matrix x = random.matrix(1, group * 4, -range, range);
      const Quantised found = quantise(x.values, group);
      ASSERT_TRUE(found.finite);
      for (size_t i = 0; i < x.values.size(); ++i) {
        const auto first = x.values.begin() + static_cast<ptrdiff_t>(i) / group * group;
        float largest = 0;
        std::for_each(first, first + group,
                      [&](float v) { largest = std::max(largest, std::fabs(v)); });
        const float scale = largest / 127.0F;
        ASSERT_EQ(found.scales[i / group], scale);
        ASSERT_EQ(found.values[i], std::round(static_cast<double>(x.values[i] / scale)));
      }
    }
  }
}

TEST(QuantiseRow, RoundsHalvesAwayFromZero) {
  // A largest magnitude of 127 makes the scale one.
  const float below_half = std::nextafter(0.5F, 0.0F);
  const Quantised found =
      quantise({127, 0.5F, -0.5F, below_half, -below_half, 1.5F, 2.5F, -126.5F, -0.0F}, 9);
  EXPECT_EQ(found.scales[0], 1.0F);
  EXPECT_EQ(found.values, (std::vector<int8_t>{127, 1, -1, 0, 0, 2, 3, -127, 0}));
}

TEST(QuantiseRow, GivesZerosAScaleOfZero) {
  const Quantised found = quantise({0, -0.0F, 0, 0, 1, -2, 0, 0}, 4);
  EXPECT_TRUE(found.finite);
  EXPECT_EQ(found.scales[0], 0.0F);
  EXPECT_EQ(found.values, (std::vector<int8_t>{0, 0, 0, 0, 64, -127, 0, 0}));
}

// 127 does not divide the smallest numbers: the scale is a denormal or nothing, the quotient may be
// more than 127.
TEST(QuantiseRow, StaysInItsRangeAmongTheSmallestNumbers) {
  constexpr float kSmallest = std::numeric_limits<float>::denorm_min();
  for (int steps = 1; steps < 1000; ++steps) {
    const float x = static_cast<float>(steps) * kSmallest;
    const Quantised found = quantise({x, -x}, 2);
    EXPECT_TRUE(found.finite);
    EXPECT_EQ(found.values[0], -found.values[1]);
    EXPECT_EQ(found.values[0] > 0, found.scales[0] > 0);
    EXPECT_GE(found.values[0], 0);
  }
}

TEST(QuantiseRow, ReportsNanAndInfinityWhereverTheyStand) {
  for (const float wrong :
       {kNan, -kNan, kInfinity, -kInfinity, std::bit_cast<float>(0x7F800001U)}) {
    for (const size_t at : {0, 5, 7}) {
      std::vector<float> x(8, 1.0F);
      x[at] = wrong;
      EXPECT_FALSE(quantise(x, 4).finite) << wrong << " at " << at;
    }
  }
}

TEST(FittingGroup, DividesTheRowOrIsIt) {
  EXPECT_EQ(fitting_group(0, 588), 588);
  EXPECT_EQ(fitting_group(64, 588), 588);
  EXPECT_EQ(fitting_group(64, 4304), 4304);
  EXPECT_EQ(fitting_group(64, 2560), 64);
  EXPECT_EQ(fitting_group(128, 64), 64);
}

}  // namespace
}  // namespace ocelli::kernels
