#include <webp/decode.h>

#include <cstring>

#include "host/error.h"
#include "vision/decode.h"

namespace ocelli::vision {
namespace {

constexpr size_t kChunkHeader = 8;
constexpr size_t kRiffHeader = 12;

uint64_t read_u32(std::span<const uint8_t> bytes, size_t at) {
  return bytes[at] | uint64_t{bytes[at + 1]} << 8 | uint64_t{bytes[at + 2]} << 16 |
         uint64_t{bytes[at + 3]} << 24;
}

// The orientation in the EXIF chunk of a RIFF file whose length has been checked.
int find_orientation(std::span<const uint8_t> riff) {
  size_t at = kRiffHeader;
  while (riff.size() - at >= kChunkHeader) {
    const uint64_t size = read_u32(riff, at + 4);
    const uint64_t rest = riff.size() - at - kChunkHeader;
    if (size > rest) return 1;
    if (std::memcmp(riff.data() + at, "EXIF", 4) == 0) {
      return exif_orientation(riff.subspan(at + kChunkHeader, size));
    }
    if (size + size % 2 > rest) return 1;
    at += kChunkHeader + size + size % 2;
  }
  return 1;
}

const char* describe(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
      return "there is not enough memory";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "it uses an unsupported feature";
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return "the file ends early: copy it again";
    default:
      return "its data is corrupt";
  }
}

}  // namespace

Decoded decode_webp(const Source& source) {
  check_range(source, 0, kRiffHeader);
  const uint64_t riff_size = read_u32(source.bytes, 4) + kChunkHeader;
  check_range(source, 0, riff_size);
  if (riff_size < kRiffHeader) fail_damaged(source, "WebP", "its header gives an impossible size");
  const std::span<const uint8_t> riff = source.bytes.first(riff_size);

  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0) fail_damaged(source, "WebP", "libwebp is incompatible");
  VP8StatusCode status = WebPGetFeatures(riff.data(), riff.size(), &config.input);
  if (status != VP8_STATUS_OK) fail_damaged(source, "WebP", describe(status));
  if (config.input.has_animation != 0) {
    host::fail("{}: an animated WebP, where a still picture is needed: save one of its frames",
               source.name);
  }
  check_size(source, config.input.width, config.input.height);

  Decoded decoded;
  decoded.image = blank_image(config.input.width, config.input.height);
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = decoded.image.rgb.data();
  config.output.u.RGBA.stride = config.input.width * 3;
  config.output.u.RGBA.size = decoded.image.rgb.size();
  status = WebPDecode(riff.data(), riff.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) fail_damaged(source, "WebP", describe(status));
  decoded.orientation = find_orientation(riff);
  return decoded;
}

}  // namespace ocelli::vision
