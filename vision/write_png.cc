#include <png.h>

#include <string>

#include "host/error.h"
#include "host/output_file.h"
#include "vision/image.h"

namespace ocelli::vision {
namespace {

std::string encode_png(const Image& image, const std::string& path) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string bytes(size, '\0');
  // libpng's simplified interface keeps its longjmp to itself.
  if (png_image_write_to_memory(&png, bytes.data(), &size, 0, image.rgb.data(), 0, nullptr) == 0) {
    host::fail("{}: cannot be encoded: {}", host::printable(path, 300), png.message);
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace

void write_png(const Image& image, const std::string& path) {
  OCELLI_CHECK(image.width > 0 && image.height > 0, "{} x {}", image.width, image.height);
  OCELLI_CHECK(image.rgb.size() == size_t{3} * image.width * image.height, "{} bytes for {} x {}",
               image.rgb.size(), image.width, image.height);
  const std::string bytes = encode_png(image, path);
  host::OutputFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace ocelli::vision
