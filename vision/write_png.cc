#include <png.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "host/error.h"
#include "vision/image.h"

namespace ocelli::vision {
namespace {

// A pipe or a device is written as it is: nothing may be renamed onto it.
bool is_special(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
}

// Empty when the picture is in the file, down to the disk if asked; else why not.
std::string write_all(const Image& image, std::FILE* file, bool to_disk) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  errno = 0;
  // libpng's simplified interface keeps its longjmp to itself.
  const int good = png_image_write_to_stdio(&png, file, 0, image.rgb.data(), 0, nullptr);
  if (good == 0) return errno != 0 ? std::strerror(errno) : png.message;
  if (std::fflush(file) != 0) return std::strerror(errno);
  if (to_disk && ::fsync(::fileno(file)) != 0) return std::strerror(errno);
  return "";
}

}  // namespace

void write_png(const Image& image, const std::string& path) {
  OCELLI_CHECK(image.width > 0 && image.height > 0, "{} x {}", image.width, image.height);
  OCELLI_CHECK(image.rgb.size() == size_t{3} * image.width * image.height, "{} bytes for {} x {}",
               image.rgb.size(), image.width, image.height);
  const std::string shown = host::printable(path, 300);
  const bool direct = is_special(path);
  const std::string target = direct ? path : fmt::format("{}.{}.tmp", path, ::getpid());
  std::FILE* file = std::fopen(target.c_str(), direct ? "wbe" : "wbxe");
  if (file == nullptr) host::fail("{}: cannot be created: {}", shown, std::strerror(errno));
  std::string why = write_all(image, file, !direct);
  if (std::fclose(file) != 0 && why.empty()) why = std::strerror(errno);
  if (why.empty() && !direct && std::rename(target.c_str(), path.c_str()) != 0)
    why = std::strerror(errno);
  if (why.empty()) return;
  if (!direct) std::remove(target.c_str());
  host::fail("{}: cannot be written: {}", shown, why);
}

}  // namespace ocelli::vision
