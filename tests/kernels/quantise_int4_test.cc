// Floats to int4: within range, as close as the values allow, and what packing makes of it.
#include "kernels/quantise_int4.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/packing.h"
#include "tests/host/expect_error.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

struct Result {
  std::vector<int8_t> values;
  std::vector<int8_t> factors;
  float scale = kNan;
  int group = 0;

  double weight(size_t i) const {
    return static_cast<double>(scale) * factors[i / group] * values[i];
  }
};

Result quantise(const std::vector<float>& x, int group) {
  Result result;
  result.group = group;
  result.values.assign(x.size(), 99);
  result.factors.assign((x.size() + group - 1) / group, 99);
  const bool finite =
      quantise_int4_row(x.data(), static_cast<int>(x.size()), group,
                        {result.values.data(), result.factors.data(), &result.scale});
  EXPECT_TRUE(finite);
  for (const int8_t value : result.values) EXPECT_TRUE(value >= -8 && value <= 7) << +value;
  for (const int8_t factor : result.factors) {
    EXPECT_TRUE(factor != 0 && factor >= -15 && factor <= 15) << +factor;
  }
  return result;
}

// Of a normal distribution, roughly.
std::vector<float> bell(Random& random, size_t count, float deviation) {
  std::vector<float> x(count);
  for (float& value : x) {
    float sum = 0;
    for (int i = 0; i < 12; ++i) sum += random.uniform(-0.5F, 0.5F);
    value = sum * deviation;
  }
  return x;
}

TEST(QuantiseInt4, KeepsWhatItCanHold) {
  Random random(1);
  for (const float scale : {1.0F, 0.125F, 0x1p-60F, 0x1p+100F}) {
    for (const int count : {128, 100, 588}) {
      std::vector<float> x(count);
      for (int i = 0; i < count; ++i) {
        // Every group has its extremes, the first the largest factor.
        const int factor = i < 64 ? 15 : -5 - i / 64;
        const int value = i % 64 == 0 ? -8 : i % 64 == 1 ? 7 : random.integer(-8, 7);
        x[i] = scale * static_cast<float>(factor * value);
      }
      const Result result = quantise(x, 64);
      for (int i = 0; i < count; ++i) {
        ASSERT_NEAR(result.weight(i) / scale, x[i] / scale, 1e-4) << i << " of " << count;
      }
    }
  }
}

// The squared error of a group with the best of many fp16 scales of its own.
double best_alone(const float* x, int count) {
  float extreme = 0;
  for (int i = 0; i < count; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  double best = kInfinity;
  for (float levels = 5.8F; levels < 9.2F; levels += 0.05F) {
    const double step = f16_to_f32(f32_to_f16(-extreme / levels));
    double off = 0;
    for (int i = 0; i < count; ++i) {
      off += std::pow(x[i] - step * std::clamp(std::nearbyint(x[i] / step), -8.0, 7.0), 2);
    }
    best = std::min(best, off);
  }
  return best;
}

TEST(QuantiseInt4, IsNearlyAsGoodAsAFloatForEveryGroup) {
  Random random(2);
  for (const int group : {32, 64, 128}) {
    double off = 0;
    double alone = 0;
    for (int row = 0; row < 20; ++row) {
      const std::vector<float> x = bell(random, 1024, 0.02F);
      const Result result = quantise(x, group);
      for (size_t i = 0; i < x.size(); ++i) off += std::pow(x[i] - result.weight(i), 2);
      for (size_t i = 0; i < x.size(); i += group) alone += best_alone(&x[i], group);
    }
    EXPECT_LT(std::sqrt(off / alone), 1.05) << group;
    EXPECT_GT(std::sqrt(off / alone), 1.0) << group;
  }
}

TEST(QuantiseInt4, GroupsOfDifferentSizeHaveStepsOfTheirOwn) {
  Random random(3);
  std::vector<float> x = bell(random, 512, 0.02F);
  for (size_t i = 128; i < 256; ++i) x[i] *= 0.2F;
  const Result result = quantise(x, 64);
  EXPECT_LT(std::abs(result.factors[2]), std::abs(result.factors[0]) / 2);
  const std::vector<float> small(x.begin() + 128, x.begin() + 256);
  double off = 0;
  double all = 0;
  for (size_t i = 128; i < 256; ++i) {
    off += std::pow(x[i] - result.weight(i), 2);
    all += std::pow(x[i], 2);
  }
  EXPECT_LT(std::sqrt(off / all), 0.15);
}

TEST(QuantiseInt4, ZerosAndTheSmallestAreZero) {
  for (const float value : {0.0F, -0.0F, 1e-38F, -1e-44F}) {
    const Result result = quantise(std::vector<float>(70, value), 32);
    EXPECT_EQ(result.scale, 0.0F);
    for (const int8_t stored : result.values) EXPECT_EQ(stored, 0);
  }
  // A group of zeros among others.
  Random random(4);
  std::vector<float> x = bell(random, 192, 1.0F);
  std::fill_n(x.begin() + 64, 64, 0.0F);
  const Result result = quantise(x, 64);
  for (int i = 64; i < 128; ++i) EXPECT_EQ(result.values[i], 0);
}

TEST(QuantiseInt4, TheLargestFloatsAreKept) {
  const std::vector<float> x = {3e38F, -3e38F, 1e38F, 0, 2e38F, 1, -1, 2};
  const Result result = quantise(x, 32);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(result.weight(i), x[i], 2.5e37);
}

TEST(QuantiseInt4, NanAndInfinityAreRefused) {
  for (const float wrong : {kNan, kInfinity, -kInfinity}) {
    std::vector<float> x(65, 1.0F);
    x[64] = wrong;
    Result result;
    result.values.resize(65);
    result.factors.resize(2);
    EXPECT_FALSE(quantise_int4_row(x.data(), 65, 64,
                                   {result.values.data(), result.factors.data(), &result.scale}));
  }
}

// A matrix becomes what its rows become, for any number of threads, and goes back to int8 rows.
TEST(PackedInt4, HoldsWhatItsRowsBecome) {
  Random random(5);
  const Matrix matrix = random.matrix(37, 172, -2, 2);
  const auto stored = store(matrix, DType::kF32, true);
  LinearSource source;
  source.weights = {stored->tensor(), stored->tensor()};
  const PanelFormat format = {.factor_group = 64};
  std::vector<std::byte> first;
  for (const int threads : {1, 3}) {
    host::ThreadPool pool(threads);
    const PackedStack stack(source, format, pool);
    const HostTensor& packed = stack.weights()[1];
    EXPECT_EQ(packed.factor_group, 64);
    EXPECT_EQ(packed.group, 172);
    EXPECT_EQ(packed.data, stack.weights()[0].data + packed.bytes());
    std::vector<std::byte> bytes(packed.data, packed.data + packed.bytes());
    if (threads == 1) first = bytes;
    EXPECT_EQ(bytes, first);
    const UnpackedInt8 unpacked(packed);
    EXPECT_EQ(unpacked.tensor().layout, Layout::kRows);
    EXPECT_EQ(unpacked.tensor().factor_group, 0);
    std::vector<float> floats(matrix.values.size());
    convert_to_f32(packed, floats.data());
    for (int r = 0; r < matrix.rows; ++r) {
      const auto row = matrix.values.begin() + int64_t{r} * matrix.cols;
      const Result expected = quantise({row, row + matrix.cols}, 64);
      EXPECT_EQ(unpacked.tensor().scales[r], expected.scale);
      for (int k = 0; k < matrix.cols; ++k) {
        const int product = expected.factors[k / 64] * expected.values[k];
        const size_t at = static_cast<size_t>(r) * matrix.cols + k;
        ASSERT_EQ(std::to_integer<int8_t>(unpacked.tensor().data[at]), product);
        ASSERT_EQ(floats[at], static_cast<float>(product) * expected.scale);
      }
    }
  }
}

TEST(PackedInt4, RefusesNanAndKeepsWhatIsInt8) {
  Random random(6);
  host::ThreadPool pool(2);
  Matrix matrix = random.matrix(40, 64);
  matrix.at(39, 63) = kNan;
  const auto stored = store(matrix, DType::kF16);
  LinearSource source;
  source.weights = {stored->tensor()};
  const PanelFormat format = {.factor_group = 32};
  EXPECT_TRUE(holds(error_of([&] { PackedStack(source, format, pool); }), "\"stored\""));
  const Int8Matrix int8 = random_int8(random, 21, 96, 32);
  const StoredInt8 quantised(int8);
  source.weights = {quantised.tensor()};
  const PackedStack stack(source, format, pool);
  EXPECT_EQ(stack.weights()[0].factor_group, 0);
  EXPECT_EQ(stack.weights()[0].group, 32);
}

}  // namespace
}  // namespace ocelli::kernels
