// Pictures drawn by formula, the hash their goldens are kept as, and the way to the golden files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "host/error.h"
#include "vision/image.h"

namespace ocelli::vision {

// The picture that test_picture() in tests/reference/make_image_goldens.py draws: blocks of smooth
// colour and of noise.
inline Image test_picture(int width, int height) {
  Image image{width, height, {}};
  image.rgb.reserve(size_t{3} * width * height);
  uint32_t index = 0;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c, ++index) {
        uint32_t noise = index * 2654435761U;
        noise = (noise ^ (noise >> 15)) * 2246822519U;
        noise ^= noise >> 13;
        const int smooth = x * 3 + y * 2 + c * 85;
        const bool noisy = (x / 8 + y / 8) % 2 == 0;
        image.rgb.push_back(static_cast<uint8_t>(noisy ? noise : static_cast<uint32_t>(smooth)));
      }
    }
  }
  return image;
}

// FNV-1a, 64 bits, in hexadecimal.
inline std::string hash_of(std::span<const std::byte> bytes) {
  uint64_t value = 0xCBF29CE484222325U;
  for (const std::byte byte : bytes) {
    value = (value ^ std::to_integer<uint64_t>(byte)) * 0x100000001B3U;
  }
  return fmt::format("{:016x}", value);
}

inline std::string hash_of(const Image& image) {
  return hash_of(std::as_bytes(std::span(image.rgb)));
}

inline std::string golden_path(const std::string& name) {
  return std::string(OCELLI_SOURCE_DIR) + "/tests/golden/images/" + name;
}

inline std::vector<std::byte> file_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// What `call` throws as host::Error, "nothing" when it does not.
template <typename Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const host::Error& error) {
    return error.what();
  }
  return "nothing";
}

}  // namespace ocelli::vision
