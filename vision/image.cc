#include "vision/image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "host/error.h"
#include "vision/decode.h"

namespace ocelli::vision {
namespace {

using Decoder = Decoded (*)(const Source&);

constexpr const char* kSupported = "JPEG, PNG, WebP, BMP, TIFF and PPM/PGM/PBM";

// Enough of a file to know its format.
constexpr size_t kHeadBytes = 16;

bool has(std::string_view bytes, size_t offset, std::string_view what) {
  return bytes.size() >= offset && bytes.substr(offset).starts_with(what);
}

bool is_pnm(std::string_view bytes) {
  constexpr std::string_view kAfterMagic = " \t\r\n\v\f#";
  return bytes.size() >= 3 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6' &&
         kAfterMagic.find(bytes[2]) != std::string_view::npos;
}

bool is_tiff(std::string_view bytes) {
  using std::string_view_literals::operator""sv;
  return has(bytes, 0, "II*\0"sv) || has(bytes, 0, "MM\0*"sv) || has(bytes, 0, "II+\0"sv) ||
         has(bytes, 0, "MM\0+"sv);
}

// The decoder for a file that begins with `bytes`, null when there is none.
Decoder find_decoder(std::string_view bytes) {
  if (has(bytes, 0, "\xFF\xD8\xFF")) return decode_jpeg;
  if (has(bytes, 0, "\x89PNG\r\n\x1A\n")) return decode_png;
  if (has(bytes, 0, "RIFF") && has(bytes, 8, "WEBP")) return decode_webp;
  if (has(bytes, 0, "BM")) return decode_bmp;
  if (is_tiff(bytes)) return decode_tiff;
  if (is_pnm(bytes)) return decode_pnm;
  return nullptr;
}

// The name of a common format that we know but do not read, empty for any other.
const char* unsupported_format(std::string_view bytes) {
  if (has(bytes, 0, "GIF8")) return "GIF";
  if (has(bytes, 4, "ftypavif") || has(bytes, 4, "ftypavis")) return "AVIF";
  if (has(bytes, 4, "ftyphe") || has(bytes, 4, "ftypmif1")) return "HEIC";
  if (has(bytes, 0, "\xFF\x0A") || has(bytes, 4, "JXL ")) return "JPEG XL";
  if (has(bytes, 4, "jP  ")) return "JPEG 2000";
  if (has(bytes, 0, "%PDF")) return "PDF";
  return "";
}

Decoder require_decoder(std::string_view bytes, const std::string& name) {
  if (const Decoder decoder = find_decoder(bytes)) return decoder;
  if (const char* format = unsupported_format(bytes); *format != '\0') {
    host::fail("{}: {} is not supported: convert it to one of {}", name, format, kSupported);
  }
  host::fail("{}: not a picture, or of a format that is not supported: {} are", name, kSupported);
}

std::string name_of(const std::string& path) {
  return path == "-" ? "standard input" : path;
}

std::string_view head_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), kHeadBytes)};
}

// Standard input or a file of ours to close.
class Input {
 public:
  Input(const std::string& path, std::string name) : name_(std::move(name)) {
    if (path == "-") return;
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) host::fail("{}: cannot be opened: {}", name_, std::strerror(errno));
    struct stat status {};
    if (::fstat(descriptor_, &status) == 0 && S_ISDIR(status.st_mode)) {
      ::close(descriptor_);
      host::fail("{}: is a directory, where a picture is needed", name_);
    }
  }
  ~Input() {
    if (descriptor_ != STDIN_FILENO) ::close(descriptor_);
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  // Appends up to `count` bytes; false at the end.
  bool read_more(std::vector<std::byte>& bytes, size_t count) {
    const size_t size = bytes.size();
    bytes.resize(size + count);
    ssize_t got = 0;
    do {
      got = ::read(descriptor_, bytes.data() + size, count);
    } while (got < 0 && errno == EINTR);
    if (got < 0) host::fail("{}: cannot be read: {}", name_, std::strerror(errno));
    bytes.resize(size + static_cast<size_t>(got));
    return got > 0;
  }

 private:
  std::string name_;
  int descriptor_ = STDIN_FILENO;
};

}  // namespace

void check_size(const Source& source, int64_t width, int64_t height) {
  constexpr int64_t kMaxSide = INT32_MAX;
  if (width <= 0 || height <= 0) {
    host::fail("{}: {} x {} pixels: there is nothing to see", source.name, width, height);
  }
  const bool long_side = width > kMaxSide || height > kMaxSide;
  if (long_side || width > source.max_pixels / height) {
    host::fail("{}: {} x {} pixels are more than the limit of {} in all: scale it down first",
               source.name, width, height, source.max_pixels);
  }
}

void check_range(const Source& source, uint64_t offset, uint64_t needed) {
  const uint64_t size = source.bytes.size();
  if (offset <= size && needed <= size - offset) return;
  host::fail("{}: truncated: {} bytes are needed from byte {} on, the file has {}: copy it again",
             source.name, needed, offset, size);
}

void fail_damaged(const Source& source, const char* format, const std::string& why) {
  host::fail("{}: damaged or truncated {}: {}", source.name, format, host::printable(why, 200));
}

Image blank_image(int64_t width, int64_t height) {
  Image image{static_cast<int>(width), static_cast<int>(height), {}};
  image.rgb.resize(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  return image;
}

void cmyk_to_rgb(const uint8_t* cmyk, uint8_t* rgb) {
  const int white = 255 - cmyk[3];
  for (int c = 0; c < 3; ++c) {
    const int product = cmyk[c] * white + 128;  // divided by 255, rounded
    rgb[c] = static_cast<uint8_t>(white - ((product + (product >> 8)) >> 8));
  }
}

Image decode_image(std::span<const std::byte> bytes, const std::string& name,
                   const DecodeOptions& options) {
  Source source;
  source.name = host::printable(name, 300);
  source.bytes = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  source.max_pixels = options.max_pixels;
  if (bytes.empty()) host::fail("{}: is empty", source.name);
  Decoded decoded = require_decoder(head_of(bytes), source.name)(source);
  if (!options.honour_exif) return std::move(decoded.image);
  return apply_orientation(std::move(decoded.image), decoded.orientation);
}

std::vector<std::byte> read_image_file(const std::string& path, const DecodeOptions& options) {
  constexpr size_t kChunk = size_t{1} << 20;
  const std::string shown = host::printable(name_of(path), 300);
  // The bulkiest format, PPM in plain text, takes about 20 bytes a pixel.
  const uint64_t limit = static_cast<uint64_t>(options.max_pixels) * 20 + kChunk;
  Input input(path, shown);
  std::vector<std::byte> bytes;
  while (bytes.size() < kHeadBytes && input.read_more(bytes, kHeadBytes - bytes.size())) {
  }
  if (bytes.empty()) host::fail("{}: is empty", shown);
  require_decoder(head_of(bytes), shown);  // before gigabytes of something else are read
  while (input.read_more(bytes, kChunk)) {
    if (bytes.size() > limit) {
      host::fail("{}: over {} bytes, which a picture of at most {} pixels never needs", shown,
                 limit, options.max_pixels);
    }
  }
  return bytes;
}

Image read_image(const std::string& path, const DecodeOptions& options) {
  return decode_image(read_image_file(path, options), name_of(path), options);
}

}  // namespace ocelli::vision
