#include "kernels/tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace ocelli::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of a half by its definition (IEEE 754: 1 sign, 5 exponent, 10 fraction bits).
double f16_by_definition(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return fraction == 0 ? sign * kInfinity : std::nan("");
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(DTypes, HaveSizesAndNames) {
  const std::vector<std::pair<DType, std::string>> names = {
      {DType::kF32, "f32"}, {DType::kF16, "f16"}, {DType::kBF16, "bf16"}, {DType::kI8, "i8"},
      {DType::kU8, "u8"},   {DType::kI32, "i32"}, {DType::kI64, "i64"}};
  const std::vector<int64_t> sizes = {4, 2, 2, 1, 1, 4, 8};
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(name(names[i].first), names[i].second);
    EXPECT_EQ(bytes_per_element(names[i].first), sizes[i]) << names[i].second;
  }
}

TEST(HostTensors, CountElementsAndBytes) {
  const HostTensor tensor{.name = "a", .dtype = DType::kF16, .shape = {2, 3, 5}};
  EXPECT_EQ(tensor.elements(), 30);
  EXPECT_EQ(tensor.bytes(), 60);
  const HostTensor scalar{.name = "s", .dtype = DType::kF32, .shape = {}};
  EXPECT_EQ(scalar.elements(), 1);
  const HostTensor empty{.name = "e", .dtype = DType::kF32, .shape = {4, 0}};
  EXPECT_EQ(empty.bytes(), 0);
  EXPECT_EQ(shape_text({2560, 10240}), "[2560, 10240]");
  EXPECT_EQ(shape_text({}), "[]");
}

TEST(HalfPrecision, ReadsEveryValue) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const double wanted = f16_by_definition(half);
    const float value = f16_to_f32(half);
    ASSERT_EQ(std::isnan(value), std::isnan(wanted)) << bits;
    ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << bits;
    if (!std::isnan(wanted)) {
      ASSERT_EQ(value, wanted) << bits;
    }
  }
}

TEST(HalfPrecision, WritesBackEveryValue) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const uint16_t back = f32_to_f16(f16_to_f32(static_cast<uint16_t>(bits)));
    const bool nan = (bits & 0x7FFF) > 0x7C00;
    ASSERT_EQ(back, nan ? bits | 0x0200 : bits);  // NaNs become quiet
  }
}

// Between each pair of neighbouring halves: the middle goes to the even one, and the floats next to
// the middle go to their own side.
TEST(HalfPrecision, RoundsToNearestEven) {
  for (uint16_t low = 0; low < 0x7C00; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    // Past the largest half stands infinity; rounding treats it as 65536.
    const double above = high == 0x7C00 ? 65536.0 : f16_by_definition(high);
    const auto middle = static_cast<float>((f16_by_definition(low) + above) / 2);
    const uint16_t even = (low & 1) == 0 ? low : high;
    ASSERT_EQ(f32_to_f16(middle), even) << low;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.0F)), low) << low;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, kInfinity)), high) << low;
    ASSERT_EQ(f32_to_f16(-middle), even | 0x8000) << low;
  }
}

TEST(HalfPrecision, WritesTheExtremes) {
  EXPECT_EQ(f32_to_f16(65519.996F), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0F), 0x7C00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::max()), 0x7C00);
  EXPECT_EQ(f32_to_f16(kInfinity), 0x7C00);
  EXPECT_EQ(f32_to_f16(-kInfinity), 0xFC00);
  EXPECT_EQ(f32_to_f16(-0.0F), 0x8000);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(f32_to_f16(0x1p-25F), 0);  // halfway to the smallest subnormal
  EXPECT_EQ(f32_to_f16(0x1.8p-24F), 2);
  // A payload that only the dropped bits hold must not turn NaN into infinity.
  EXPECT_EQ(f32_to_f16(std::bit_cast<float>(0x7F800001U)), 0x7E00);
  EXPECT_EQ(f32_to_f16(std::bit_cast<float>(0xFFC00000U)), 0xFE00);
}

TEST(BFloat16, IsTheUpperHalfOfAFloat) {
  EXPECT_EQ(bf16_to_f32(0x3F80), 1.0F);
  EXPECT_EQ(bf16_to_f32(0xC049), -3.140625F);
  EXPECT_EQ(bf16_to_f32(0x0001), std::ldexp(1.0F, -133));
  EXPECT_EQ(bf16_to_f32(0x7F80), kInfinity);
  EXPECT_TRUE(std::isnan(bf16_to_f32(0x7F81)));
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const float value = bf16_to_f32(static_cast<uint16_t>(bits));
    ASSERT_EQ(std::bit_cast<uint32_t>(value), bits << 16);
  }
}

// Converts `values` from an odd address and expects `wanted`, with nothing written past the end.
template <typename T>
void expect_converted(DType dtype, const std::vector<T>& values, const std::vector<float>& wanted) {
  std::vector<std::byte> bytes(values.size() * sizeof(T) + 1);
  std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(T));
  std::vector<float> out(values.size() + 1, 7777.0F);
  convert_to_f32(dtype, bytes.data() + 1, static_cast<int64_t>(values.size()), out.data());
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(out[i], wanted[i]) << name(dtype) << i;
  EXPECT_EQ(out.back(), 7777.0F) << name(dtype);
}

TEST(ConvertToF32, ReadsEveryDTypeAtAnyAddress) {
  expect_converted<float>(DType::kF32, {1.5F, -kInfinity, 1e-40F}, {1.5F, -kInfinity, 1e-40F});
  expect_converted<uint16_t>(DType::kF16, {0x3C00, 0x0001, 0xFC00}, {1.0F, 0x1p-24F, -kInfinity});
  expect_converted<uint16_t>(DType::kBF16, {0x3F80, 0xC000, 0x7F80}, {1.0F, -2.0F, kInfinity});
  expect_converted<int8_t>(DType::kI8, {-128, -1, 127}, {-128.0F, -1.0F, 127.0F});
  expect_converted<uint8_t>(DType::kU8, {0, 128, 255}, {0.0F, 128.0F, 255.0F});
  expect_converted<int32_t>(DType::kI32, {-5, 1 << 30}, {-5.0F, 1073741824.0F});
  expect_converted<int64_t>(DType::kI64, {-5, int64_t{1} << 40}, {-5.0F, 1099511627776.0F});
}

TEST(ConvertToF32, VectorisedLoopsEqualTheScalarFunction) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> out(halves.size());
  const auto* source = reinterpret_cast<const std::byte*>(halves.data());
  convert_to_f32(DType::kF16, source, 65536, out.data());
  for (size_t i = 0; i < halves.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(f16_to_f32(halves[i])));
  }
  convert_to_f32(DType::kF32, nullptr, 0, nullptr);  // an empty tensor has no data
}

TEST(TensorViews, SliceRowsAndColumns) {
  const Tensor tensor{.storage = std::make_shared<Storage>(),
                      .dtype = DType::kF32,
                      .rows = 10,
                      .cols = 6,
                      .stride = 8,
                      .offset = 100};
  const Tensor rows = tensor.row_range(3, 4);
  EXPECT_EQ(rows.rows, 4);
  EXPECT_EQ(rows.cols, 6);
  EXPECT_EQ(rows.offset, 124);
  EXPECT_EQ(rows.stride, 8);
  EXPECT_EQ(rows.storage, tensor.storage);
  const Tensor block = rows.column_range(2, 3);
  EXPECT_EQ(block.rows, 4);
  EXPECT_EQ(block.cols, 3);
  EXPECT_EQ(block.offset, 126);
  EXPECT_EQ(block.stride, 8);
  EXPECT_EQ(tensor.row_range(10, 0).rows, 0);
  EXPECT_EQ(tensor.column_range(6, 0).cols, 0);
}

TEST(TensorViews, OfARepeatedRowStayOnIt) {
  const Tensor tensor{
      .storage = {}, .dtype = DType::kF32, .rows = 10, .cols = 6, .stride = 0, .offset = 5};
  EXPECT_EQ(tensor.row_range(7, 2).offset, 5);
}

TEST(TensorViews, CountOffsetsPastThirtyTwoBits) {
  const Tensor tensor{.storage = {},
                      .dtype = DType::kF16,
                      .rows = 1 << 20,
                      .cols = 1 << 14,
                      .stride = 1 << 14,
                      .offset = 0};
  EXPECT_EQ(tensor.row_range((1 << 20) - 1, 1).offset, ((int64_t{1} << 20) - 1) << 14);
}

TEST(TensorViewsDeathTest, OutsideTheTensorAbort) {
  const Tensor tensor{
      .storage = {}, .dtype = DType::kF32, .rows = 10, .cols = 6, .stride = 6, .offset = 0};
  constexpr int kMax = std::numeric_limits<int>::max();
  EXPECT_DEATH((void)tensor.row_range(9, 2), "rows 9 \\+ 2 of 10");
  EXPECT_DEATH((void)tensor.row_range(-1, 2), "of 10");
  EXPECT_DEATH((void)tensor.row_range(1, -1), "of 10");
  EXPECT_DEATH((void)tensor.row_range(5, kMax), "of 10");
  EXPECT_DEATH((void)tensor.column_range(6, 1), "columns 6 \\+ 1 of 6");
  EXPECT_DEATH((void)tensor.column_range(kMax, 1), "of 6");
}

}  // namespace
}  // namespace ocelli::kernels
