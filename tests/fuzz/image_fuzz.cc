// Any bytes as a picture: decoded and resized, or refused with a host::Error; never anything else.
#include <cstdint>

#include "host/error.h"
#include "vision/image.h"
#include "vision/resize.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ocelli::vision::DecodeOptions options;
  options.max_pixels = 1 << 20;
  try {
    const auto bytes = std::as_bytes(std::span(data, size));
    const ocelli::vision::Image image = ocelli::vision::decode_image(bytes, "fuzz", options);
    OCELLI_CHECK(image.rgb.size() == size_t{3} * image.width * image.height, "{} x {}: {}",
                 image.width, image.height, image.rgb.size());
    ocelli::vision::resize_bicubic(image, 16, 16);
  } catch (const ocelli::host::Error&) {
    return 0;
  }
  return 0;
}
