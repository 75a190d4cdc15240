#include <png.h>

#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "vision/c_guard.h"
#include "vision/decode.h"

namespace ocelli::vision {
namespace {

// Deflate turns one byte into at most this many, so a header's claim can be checked beforehand.
constexpr uint64_t kMaxExpansion = 1032;

void on_error(png_structp png, png_const_charp message) {
  static_cast<CGuard*>(png_get_error_ptr(png))->give_up(message);
}

void on_warning(png_structp /*png*/, png_const_charp /*message*/) {
}

// What png_get_io_ptr points to.
struct Cursor {
  std::span<const uint8_t> rest;
};

void on_read(png_structp png, png_bytep out, size_t count) {
  Cursor& cursor = *static_cast<Cursor*>(png_get_io_ptr(png));
  if (count > cursor.rest.size()) png_error(png, "the file ends early: copy it again");
  std::memcpy(out, cursor.rest.data(), count);
  cursor.rest = cursor.rest.subspan(count);
}

// ImageMagick's older way to keep EXIF: "\nexif\n   LENGTH\nHEX DIGITS", in lines.
std::vector<uint8_t> parse_raw_profile(std::string_view text) {
  std::vector<uint8_t> bytes;
  if (!text.starts_with("\nexif\n")) return bytes;
  const size_t start = text.find('\n', 6);
  if (start == std::string_view::npos) return bytes;
  int high = -1;
  for (const char letter : text.substr(start)) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    const size_t digit = kDigits.find(letter);
    if (digit == std::string_view::npos) continue;
    if (high < 0) {
      high = static_cast<int>(digit);
    } else {
      bytes.push_back(static_cast<uint8_t>(high * 16 + static_cast<int>(digit)));
      high = -1;
    }
  }
  return bytes;
}

class PngReader {
 public:
  explicit PngReader(const Source& source) : source_(source), cursor_{source.bytes} {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &guard_, on_error, on_warning);
    info_ = png_ == nullptr ? nullptr : png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      fail_damaged(source_, "PNG", "libpng cannot start: out of memory");
    }
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  Image read() {
    guarded([this] {
      png_set_read_fn(png_, &cursor_, on_read);
      png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // check_size says it better
      png_read_info(png_, info_);
    });
    const int64_t width = png_get_image_width(png_, info_);
    const int64_t height = png_get_image_height(png_, info_);
    check_size(source_, width, height);
    if (width * height / 8 > static_cast<int64_t>(source_.bytes.size() * kMaxExpansion)) {
      fail_damaged(source_, "PNG", "it claims more pixels than its bytes can hold");
    }
    int passes = 0;
    guarded([this, &passes] { passes = ask_for_rgb(); });
    Image image = blank_image(width, height);
    const size_t stride = static_cast<size_t>(width) * 3;
    for (int pass = 0; pass < passes; ++pass) {
      uint8_t* row = image.rgb.data();
      for (int64_t y = 0; y < height; ++y, row += stride) {
        guarded([this, row] { png_read_row(png_, row, nullptr); });
      }
    }
    guarded([this] { png_read_end(png_, info_); });  // EXIF may follow the pixels
    return image;
  }

  int orientation() {
    png_bytep exif = nullptr;
    png_uint_32 size = 0;
    png_textp texts = nullptr;
    int text_count = 0;
    guarded([&, this] {
      png_get_eXIf_1(png_, info_, &size, &exif);
      png_get_text(png_, info_, &texts, &text_count);
    });
    if (exif != nullptr) return exif_orientation({exif, size});
    for (int i = 0; i < text_count; ++i) {
      if (std::string_view(texts[i].key) != "Raw profile type exif") continue;
      const size_t length = texts[i].text_length;
      return exif_orientation(parse_raw_profile({texts[i].text, length}));
    }
    return 1;
  }

 private:
  // Sets up the conversion of any PNG to 8-bit RGB; the number of passes over the rows.
  int ask_for_rgb() {
    png_set_expand(png_);    // palettes to RGB, fewer than 8 bits to 8, tRNS to alpha
    png_set_strip_16(png_);  // the high byte
    png_set_gray_to_rgb(png_);
    png_set_strip_alpha(png_);
    const int passes = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    if (png_get_rowbytes(png_, info_) != size_t{3} * png_get_image_width(png_, info_)) {
      png_error(png_, "its rows are not of the expected length");
    }
    return passes;
  }

  // Runs calls into libpng; its errors become ours.
  template <typename Call>
  void guarded(Call call) {
    if (!guard_.run(call)) fail_damaged(source_, "PNG", guard_.message());
  }

  const Source& source_;
  Cursor cursor_;
  CGuard guard_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

}  // namespace

Decoded decode_png(const Source& source) {
  PngReader reader(source);
  Decoded decoded;
  decoded.image = reader.read();
  decoded.orientation = reader.orientation();
  return decoded;
}

}  // namespace ocelli::vision
