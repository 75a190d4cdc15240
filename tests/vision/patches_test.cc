#include "vision/patches.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/vision/test_pictures.h"

namespace ocelli::vision {
namespace {

TEST(Patches, EqualNumpyInEveryBit) {
  std::ifstream goldens(golden_path("patches.txt"));
  Normalization normalization;
  normalization.mean = {0.5F, 0.25F, 0.75F};
  normalization.deviation = {0.5F, 0.3F, 0.7F};
  int width = 0;
  int height = 0;
  int patch = 0;
  std::string hash;
  int count = 0;
  while (goldens >> width >> height >> patch >> hash) {
    SCOPED_TRACE(fmt::format("{} x {} in {}", width, height, patch));
    const std::vector<float> rows = make_patches(test_picture(width, height), patch, normalization);
    EXPECT_EQ(rows.size(), size_t{3} * patch * patch * (width / patch) * (height / patch));
    EXPECT_EQ(hash_of(std::as_bytes(std::span(rows))), hash);
    ++count;
  }
  EXPECT_EQ(count, 6);
}

// Pixel values that name their place: the layout, spelled out.
TEST(Patches, AreRowsOfChannelThenYThenX) {
  Image image{5, 4, {}};  // a column is left over
  for (int y = 0; y < 4; ++y) {
    for (int x = 0; x < 5; ++x) {
      for (int c = 0; c < 3; ++c) {
        image.rgb.push_back(static_cast<uint8_t>(c * 100 + y * 10 + x));
      }
    }
  }
  Normalization plain;
  plain.rescale = 1.0;
  plain.mean = {0, 0, 0};
  plain.deviation = {1, 1, 1};
  ASSERT_EQ(patch_count(image, 2), 4);
  const std::vector<float> rows = make_patches(image, 2, plain);
  const std::vector<float> second = {2, 3, 12, 13, 102, 103, 112, 113, 202, 203, 212, 213};
  EXPECT_EQ(std::vector<float>(rows.begin() + 12, rows.begin() + 24), second);
  EXPECT_EQ(rows[24], 20);  // the third begins the second row of patches
}

TEST(Patches, DefaultSpansMinusOneToOne) {
  const Image image{2, 1, {0, 0, 0, 255, 255, 255}};
  EXPECT_EQ(make_patches(image, 1), (std::vector<float>{-1, -1, -1, 1, 1, 1}));
}

TEST(Patches, AnImageSmallerThanAPatchHasNone) {
  EXPECT_TRUE(make_patches(test_picture(13, 20), 14).empty());
}

TEST(PatchesDeathTest, AWrongSizeIsABug) {
  std::vector<float> out(11);
  EXPECT_DEATH(write_patches(test_picture(2, 2), 2, {}, out), "11 floats for 12");
}

TEST(ExpandToSquare, CentresOnTheBackground) {
  const Image wide{3, 2, {1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6}};
  const Image square = expand_to_square(wide, {7, 8, 9});
  EXPECT_EQ(square.rgb, (std::vector<uint8_t>{1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5,
                                              5, 6, 6, 6, 7, 8, 9, 7, 8, 9, 7, 8, 9}));
  const Image tall{1, 3, {1, 1, 1, 2, 2, 2, 3, 3, 3}};
  EXPECT_EQ(expand_to_square(tall, {0, 0, 9}).rgb,
            (std::vector<uint8_t>{0, 0, 9, 1, 1, 1, 0, 0, 9, 0, 0, 9, 2, 2,
                                  2, 0, 0, 9, 0, 0, 9, 3, 3, 3, 0, 0, 9}));
  EXPECT_EQ(expand_to_square(test_picture(4, 4), {}), test_picture(4, 4));
}

}  // namespace
}  // namespace ocelli::vision
