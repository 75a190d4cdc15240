#include <png.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "host/error.h"
#include "vision/image.h"

namespace ocelli::vision {
namespace {

// Empty when the picture is in the file, down to the disk; else why not.
std::string write_all(const Image& image, std::FILE* file) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  errno = 0;
  // libpng's simplified interface keeps its longjmp to itself.
  const int good = png_image_write_to_stdio(&png, file, 0, image.rgb.data(), 0, nullptr);
  if (good == 0) return errno != 0 ? std::strerror(errno) : png.message;
  if (std::fflush(file) != 0 || ::fsync(::fileno(file)) != 0) return std::strerror(errno);
  return "";
}

}  // namespace

void write_png(const Image& image, const std::string& path) {
  OCELLI_CHECK(image.width > 0 && image.height > 0, "{} x {}", image.width, image.height);
  OCELLI_CHECK(image.rgb.size() == size_t{3} * image.width * image.height, "{} bytes for {} x {}",
               image.rgb.size(), image.width, image.height);
  const std::string shown = host::printable(path, 300);
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wbxe");
  if (file == nullptr) host::fail("{}: cannot be created: {}", shown, std::strerror(errno));
  std::string why = write_all(image, file);
  if (std::fclose(file) != 0 && why.empty()) why = std::strerror(errno);
  if (why.empty() && std::rename(temporary.c_str(), path.c_str()) != 0) why = std::strerror(errno);
  if (why.empty()) return;
  std::remove(temporary.c_str());
  host::fail("{}: cannot be written: {}", shown, why);
}

}  // namespace ocelli::vision
