#include "vision/resize.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/vision/test_pictures.h"

namespace ocelli::vision {
namespace {

TEST(Resize, EqualsPillowInEveryByte) {
  std::ifstream goldens(golden_path("resize.txt"));
  int in_width = 0;
  int in_height = 0;
  int width = 0;
  int height = 0;
  std::string hash;
  int count = 0;
  while (goldens >> in_width >> in_height >> width >> height >> hash) {
    SCOPED_TRACE(fmt::format("{} x {} to {} x {}", in_width, in_height, width, height));
    const Image image = resize_bicubic(test_picture(in_width, in_height), width, height);
    EXPECT_EQ(image.width, width);
    EXPECT_EQ(image.height, height);
    EXPECT_EQ(hash_of(image), hash);
    ++count;
  }
  EXPECT_GE(count, 40);
}

TEST(Resize, EqualsASmallPictureInFull) {
  EXPECT_EQ(resize_bicubic(test_picture(37, 29), 16, 20), read_image(golden_path("resized.ppm")));
}

TEST(Resize, SameSizeChangesNothing) {
  const Image image = test_picture(384, 384);
  EXPECT_EQ(resize_bicubic(image, 384, 384), image);
}

TEST(Resize, OneColourStaysItself) {
  Image image{1200, 7, {}};
  for (int i = 0; i < 1200 * 7; ++i) image.rgb.insert(image.rgb.end(), {0, 255, 97});
  const Image out = resize_bicubic(image, 31, 50);
  for (size_t i = 0; i < out.rgb.size(); i += 3) {
    ASSERT_EQ(out.rgb[i], 0);
    ASSERT_EQ(out.rgb[i + 1], 255);
    ASSERT_EQ(out.rgb[i + 2], 97);
  }
}

// 20,000 pixels into one: more taps than are added up at once.
TEST(Resize, ManyTapsAreExact) {
  Image image{20000, 1, {}};
  image.rgb.assign(60000, 255);
  EXPECT_EQ(resize_bicubic(image, 1, 1).rgb, (std::vector<uint8_t>{255, 255, 255}));
}

TEST(ResizeDeathTest, NoPixelsIsABug) {
  EXPECT_DEATH(resize_bicubic(test_picture(2, 2), 0, 5), "0 x 5");
}

}  // namespace
}  // namespace ocelli::vision
