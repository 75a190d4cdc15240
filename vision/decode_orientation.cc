#include <algorithm>
#include <array>
#include <exiv2/exiv2.hpp>
#include <utility>

#include "vision/decode.h"

namespace ocelli::vision {

int exif_orientation(std::span<const uint8_t> exif) {
  constexpr std::array<uint8_t, 6> kPrefix = {'E', 'x', 'i', 'f', 0, 0};
  constexpr size_t kMaxBytes = size_t{1} << 20;  // a JPEG holds 64 KiB; the rest is no EXIF
  if (exif.size() >= kPrefix.size() && std::equal(kPrefix.begin(), kPrefix.end(), exif.begin())) {
    exif = exif.subspan(kPrefix.size());
  }
  if (exif.empty() || exif.size() > kMaxBytes) return 1;
  static const bool quiet = [] {
    Exiv2::LogMsg::setLevel(Exiv2::LogMsg::mute);
    return true;
  }();
  static_cast<void>(quiet);
  try {
    Exiv2::ExifData data;
    Exiv2::ExifParser::decode(data, exif.data(), static_cast<uint32_t>(exif.size()));
    const auto tag = data.findKey(Exiv2::ExifKey("Exif.Image.Orientation"));
    if (tag == data.end() || tag->count() == 0) return 1;
    const auto value = tag->toLong();
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  } catch (const std::exception&) {
    return 1;
  }
}

Image apply_orientation(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const bool transposed = orientation >= 5;
  const bool from_right =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image turned =
      transposed ? blank_image(image.height, image.width) : blank_image(image.width, image.height);
  uint8_t* out = turned.rgb.data();
  for (int y = 0; y < turned.height; ++y) {
    for (int x = 0; x < turned.width; ++x, out += 3) {
      const int along = transposed ? y : x;
      const int down = transposed ? x : y;
      const int column = from_right ? image.width - 1 - along : along;
      const int row = from_bottom ? image.height - 1 - down : down;
      const size_t at = (static_cast<size_t>(row) * image.width + column) * 3;
      std::copy_n(image.rgb.data() + at, 3, out);
    }
  }
  return turned;
}

}  // namespace ocelli::vision
