#include "vision/patches.h"

#include <algorithm>

#include "host/error.h"

namespace ocelli::vision {
namespace {

// What each of the 256 values of a channel becomes.
using Levels = std::array<float, 256>;

Levels make_levels(const Normalization& normalization, size_t channel) {
  Levels levels;
  for (size_t i = 0; i < levels.size(); ++i) {
    const auto rescaled = static_cast<float>(static_cast<double>(i) * normalization.rescale);
    levels[i] = (rescaled - normalization.mean[channel]) / normalization.deviation[channel];
  }
  return levels;
}

}  // namespace

int patch_count(const Image& image, int patch) {
  OCELLI_CHECK(patch > 0, "patch {}", patch);
  return (image.width / patch) * (image.height / patch);
}

void write_patches(const Image& image, int patch, const Normalization& normalization,
                   std::span<float> out) {
  const size_t row_size = size_t{3} * patch * patch;
  const size_t wanted = row_size * patch_count(image, patch);
  OCELLI_CHECK(out.size() == wanted, "{} floats for {}", out.size(), wanted);
  const std::array<Levels, 3> levels = {
      make_levels(normalization, 0), make_levels(normalization, 1), make_levels(normalization, 2)};
  float* value = out.data();
  for (int top = 0; top + patch <= image.height; top += patch) {
    for (int left = 0; left + patch <= image.width; left += patch) {
      for (size_t channel = 0; channel < 3; ++channel) {
        for (int y = top; y < top + patch; ++y) {
          const size_t at = (static_cast<size_t>(y) * image.width + left) * 3 + channel;
          const uint8_t* pixel = image.rgb.data() + at;
          for (int x = 0; x < patch; ++x, pixel += 3) *value++ = levels[channel][*pixel];
        }
      }
    }
  }
}

std::vector<float> make_patches(const Image& image, int patch, const Normalization& normalization) {
  std::vector<float> patches(size_t{3} * patch * patch * patch_count(image, patch));
  write_patches(image, patch, normalization, patches);
  return patches;
}

Image expand_to_square(const Image& image, const std::array<uint8_t, 3>& background) {
  if (image.width == image.height) return image;
  const int side = std::max(image.width, image.height);
  Image square{side, side, {}};
  square.rgb.resize(size_t{3} * side * side);
  for (size_t i = 0; i < square.rgb.size(); ++i) square.rgb[i] = background[i % 3];
  const int left = (side - image.width) / 2;
  const int top = (side - image.height) / 2;
  const auto row_bytes = static_cast<ptrdiff_t>(image.width) * 3;
  for (int y = 0; y < image.height; ++y) {
    const size_t to = (static_cast<size_t>(top + y) * side + left) * 3;
    std::copy_n(image.rgb.begin() + row_bytes * y, row_bytes,
                square.rgb.begin() + static_cast<ptrdiff_t>(to));
  }
  return square;
}

}  // namespace ocelli::vision
