// Tiles in software against loops that say what Intel's manual says of TDPBSUD and TDPBF16PS.
#if defined(__x86_64__)
#include "kernels/cpu/isa/tiles_emulated.h"

#include <gtest/gtest.h>
#include <xmmintrin.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace ocelli::kernels::cpu::amx_emulated {
namespace {

constexpr int kRows = 16;
constexpr int kRowBytes = 64;

// What a tile holds.
template <typename T>
using Values = std::array<std::array<T, kRowBytes / sizeof(T)>, kRows>;

template <typename T>
Values<T> all(T value) {
  Values<T> values;
  for (auto& row : values) row.fill(value);
  return values;
}

// sums + rows · weights, by `multiply` of tiles.
template <typename C, typename A, typename B>
Values<C> in_tiles(void (*multiply)(int, int, int), const Values<A>& rows, const Values<B>& weights,
                   const Values<C>& sums) {
  configure();
  load(5, &sums, kRowBytes);
  load(1, &rows, kRowBytes);
  load(7, &weights, kRowBytes);
  multiply(5, 1, 7);
  Values<C> found;
  store(5, &found, kRowBytes);
  release();
  return found;
}

class EmulatedTiles : public testing::Test {
 protected:
  void SetUp() override {
    if (__builtin_cpu_supports("avx512vnni") == 0) GTEST_SKIP() << "needs AVX-512 with VNNI";
  }

  // Any bits.
  template <typename T>
  Values<T> any() {
    Values<T> values;
    for (auto& row : values) {
      for (T& value : row) value = static_cast<T>(random_());
    }
    return values;
  }
  // Any of those.
  template <typename T>
  Values<T> any_of(const std::vector<T>& choice) {
    Values<T> values;
    for (auto& row : values) {
      for (T& value : row) value = choice[random_() % choice.size()];
    }
    return values;
  }

  std::mt19937 random_{20'260'101};
};

// --- int8 ---

Values<int32_t> naive(const Values<int8_t>& rows, const Values<uint8_t>& weights,
                      Values<int32_t> sums) {
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < 16; ++n) {
      int64_t sum = sums[m][n];
      for (int j = 0; j < kRowBytes; ++j) sum += rows[m][j] * weights[j / 4][4 * n + j % 4];
      sums[m][n] = static_cast<int32_t>(sum);
    }
  }
  return sums;
}

TEST_F(EmulatedTiles, Int8Products) {
  for (int i = 0; i < 20; ++i) {
    const auto rows = any<int8_t>();
    const auto weights = any<uint8_t>();
    const auto sums = any<int32_t>();
    EXPECT_EQ(in_tiles(multiply_int8, rows, weights, sums), naive(rows, weights, sums));
  }
}

TEST_F(EmulatedTiles, Int8ExtremesWrapAround) {
  constexpr int32_t kLeast = std::numeric_limits<int32_t>::min();
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  const auto large = all<uint8_t>(255);
  EXPECT_EQ(in_tiles(multiply_int8, all<int8_t>(-128), large, all(0)), all(-64 * 128 * 255));
  EXPECT_EQ(in_tiles(multiply_int8, all<int8_t>(-128), large, all(kLeast)),
            all(kMost - 64 * 128 * 255 + 1));
  EXPECT_EQ(in_tiles(multiply_int8, all<int8_t>(127), large, all(kMost)),
            all(kLeast + 64 * 127 * 255 - 1));
  const auto rows = any_of<int8_t>({-128, -1, 0, 1, 127});
  const auto weights = any_of<uint8_t>({0, 1, 127, 128, 255});
  const auto sums = any_of<int32_t>({kLeast, -1, 0, kMost});
  EXPECT_EQ(in_tiles(multiply_int8, rows, weights, sums), naive(rows, weights, sums));
}

// --- bf16 ---

using Pairs = Values<uint16_t>;
using Sums = Values<float>;

float flushed(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0F, x) : x;
}
float of_bf16(uint16_t bits) {
  return flushed(std::bit_cast<float>(uint32_t{bits} << 16));
}
uint16_t to_bf16(float x) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
}

// Where `pairwise` is false: every product into one sum, as AMX does not.
Sums naive(const Pairs& rows, const Pairs& weights, Sums sums, bool pairwise = true) {
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < 16; ++n) {
      float parts[2] = {};
      for (int j = 0; j < 32; ++j) {
        float& part = parts[pairwise ? j % 2 : 0];
        part = flushed(std::fma(of_bf16(rows[m][j]), of_bf16(weights[j / 2][2 * n + j % 2]), part));
      }
      sums[m][n] = flushed(flushed(sums[m][n]) + flushed(parts[0] + parts[1]));
    }
  }
  return sums;
}

// Bits, with one for all that is no number.
Values<uint32_t> bits_of(const Sums& sums) {
  Values<uint32_t> bits;
  for (int m = 0; m < kRows; ++m) {
    for (int n = 0; n < 16; ++n) {
      bits[m][n] = std::isnan(sums[m][n]) ? 0x7fc00000 : std::bit_cast<uint32_t>(sums[m][n]);
    }
  }
  return bits;
}

class EmulatedBf16Tiles : public EmulatedTiles {
 protected:
  // Of either sign and magnitudes around 2^exponent.
  Pairs pairs(int exponent = 0, int spread = 4) {
    Pairs values;
    for (auto& row : values) {
      for (uint16_t& value : row) value = to_bf16(number(exponent, spread));
    }
    return values;
  }
  Sums sums(int exponent = 0, int spread = 4) {
    Sums values;
    for (auto& row : values) {
      for (float& value : row) value = number(exponent, spread);
    }
    return values;
  }
  float number(int exponent, int spread) {
    const int shift = exponent + static_cast<int>(random_() % (2 * spread + 1)) - spread;
    const float mantissa = 1 + static_cast<float>(random_() % (1 << 23)) * 0x1p-23F;
    return std::ldexp(random_() % 2 == 0 ? mantissa : -mantissa, shift);
  }

  static Sums found(const Pairs& rows, const Pairs& weights, const Sums& sums) {
    return in_tiles(multiply_bf16, rows, weights, sums);
  }
};

TEST_F(EmulatedBf16Tiles, RoundInOneOrder) {
  for (int i = 0; i < 20; ++i) {
    const Pairs rows = pairs();
    const Pairs weights = pairs();
    const Sums before = sums();
    const auto expected = bits_of(naive(rows, weights, before));
    EXPECT_EQ(bits_of(found(rows, weights, before)), expected);
    EXPECT_NE(bits_of(naive(rows, weights, before, false)), expected);
  }
}

TEST_F(EmulatedBf16Tiles, TakeAndGiveDenormalsAsZeros) {
  const Sums none = all(0.0F);
  const Pairs ones = all(to_bf16(1));
  const Pairs tiny = all(to_bf16(0x1p-127F));
  EXPECT_EQ(found(tiny, ones, none), none);
  EXPECT_EQ(found(ones, tiny, none), none);
  EXPECT_EQ(found(all<uint16_t>(0), ones, all(0x1p-127F)), none);
  EXPECT_EQ(bits_of(found(all<uint16_t>(0), ones, all(-0x1p-127F))), bits_of(none));
  // Each product would be one, and all of them together would not.
  const Pairs small = all(to_bf16(0x1p-64F));
  EXPECT_EQ(found(small, small, none), none);
  // Sums that would leave one.
  EXPECT_EQ(found(all<uint16_t>(0), ones, all(0x1p-126F)), all(0x1p-126F));
  Pairs one = all<uint16_t>(0);
  for (auto& row : one) row[3] = to_bf16(-0x1.8p-126F);
  EXPECT_EQ(found(one, ones, all(0x1p-126F)), none);
  for (int i = 0; i < 20; ++i) {
    const Pairs rows = pairs(-63, 3);
    const Pairs weights = pairs(-63, 3);
    const Sums before = sums(-126, 3);
    EXPECT_EQ(bits_of(found(rows, weights, before)), bits_of(naive(rows, weights, before)));
  }
}

TEST_F(EmulatedBf16Tiles, TakeWhatIsNoNumberAndTheInfinities) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<uint16_t> choice = {
      to_bf16(kInfinity), to_bf16(-kInfinity), to_bf16(kNan), to_bf16(0x1p-127F), 0,
      to_bf16(-1),        to_bf16(0x1.8p127F), to_bf16(1)};
  for (int i = 0; i < 20; ++i) {
    // A few among numbers: else everything is NaN.
    Pairs rows = pairs();
    Pairs weights = pairs();
    Sums before = sums();
    for (int k = 0; k < 6; ++k) {
      rows[random_() % kRows][random_() % 32] = choice[random_() % choice.size()];
      weights[random_() % kRows][random_() % 32] = choice[random_() % choice.size()];
    }
    before[3] = {kNan, kInfinity, -kInfinity};
    EXPECT_EQ(bits_of(found(rows, weights, before)), bits_of(naive(rows, weights, before)));
  }
  // A denormal is a zero, whose product with infinity is no number.
  const Sums product = found(all(to_bf16(kInfinity)), all(to_bf16(0x1p-127F)), all(0.0F));
  EXPECT_EQ(bits_of(product), bits_of(all(kNan)));
}

TEST_F(EmulatedBf16Tiles, DoNotHeedMxcsrNorChangeIt) {
  const Pairs rows = pairs(-31, 32);
  const Pairs weights = pairs(-95, 32);
  const Sums before = sums(-126, 8);
  const auto expected = bits_of(naive(rows, weights, before));
  const unsigned own = _mm_getcsr();
  // Rounding upwards, downwards and towards zero, the last with denormals flushed.
  for (const unsigned other : {0x5f80U, 0x3f80U, 0xffc0U}) {
    _mm_setcsr(other);
    const Sums sums = found(rows, weights, before);
    const unsigned after = _mm_getcsr();
    _mm_setcsr(own);
    EXPECT_EQ(bits_of(sums), expected);
    EXPECT_EQ(after, other);
  }
}

// --- Memory ---

TEST_F(EmulatedTiles, RowsAreLoadedAndStoredAtAnyStride) {
  constexpr int kFrom = 67;
  constexpr int kTo = 131;
  std::vector<uint8_t> from(15 * kFrom + kRowBytes);
  for (uint8_t& byte : from) byte = static_cast<uint8_t>(random_());
  std::vector<uint8_t> to(15 * kTo + kRowBytes, 7);
  configure();
  load(6, from.data(), kFrom);
  store(6, to.data(), kTo);
  release();
  for (int i = 0; i < static_cast<int>(to.size()); ++i) {
    const int at = i % kTo;
    EXPECT_EQ(to[i], at < kRowBytes ? from[i / kTo * kFrom + at] : 7) << i;
  }
}

TEST_F(EmulatedTiles, ZeroIsZero) {
  const auto ones = all(1);
  Values<int32_t> found = ones;
  configure();
  load(2, &ones, kRowBytes);
  zero(2);
  store(2, &found, kRowBytes);
  release();
  EXPECT_EQ(found, all(0));
}

TEST(EmulatedTilesDeath, WhatIsNotConfiguredAborts) {
  Values<int32_t> memory = {};
  EXPECT_DEATH(zero(0), "tile 0");
  EXPECT_DEATH(load(1, &memory, kRowBytes), "tile 1");
  EXPECT_DEATH(store(2, &memory, kRowBytes), "tile 2");
  EXPECT_DEATH(multiply_int8(0, 4, 6), "configured");
  EXPECT_DEATH(multiply_bf16(0, 4, 6), "configured");
  EXPECT_DEATH(release(), "released twice");
  configure();
  EXPECT_DEATH(configure(), "not released");
  EXPECT_DEATH(zero(8), "tile 8");
  release();
  EXPECT_DEATH(zero(0), "configured");
}

}  // namespace
}  // namespace ocelli::kernels::cpu::amx_emulated
#endif
