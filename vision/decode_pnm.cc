// The portable any-map: PBM, PGM and PPM, in plain text (P1 P2 P3) and raw (P4 P5 P6).
#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "vision/decode.h"

namespace ocelli::vision {
namespace {

bool is_space(uint8_t byte) {
  return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

bool is_digit(uint8_t byte) {
  return byte >= '0' && byte <= '9';
}

class PnmReader {
 public:
  explicit PnmReader(const Source& source) : source_(source), kind_(source.bytes[1] - '0') {}

  Image read() {
    width_ = number("width", INT32_MAX);
    height_ = number("height", INT32_MAX);
    const bool bits = kind_ == 1 || kind_ == 4;
    if (!bits) maximum_ = number("maximum value", 65535);
    if (maximum_ == 0) fail_damaged(source_, "PNM", "its maximum value is 0");
    check_size(source_, width_, height_);
    if (!is_space(source_.bytes[at_])) {
      fail_damaged(source_, "PNM", "its header does not end in white space");
    }
    ++at_;
    channels_ = kind_ == 3 || kind_ == 6 ? 3 : 1;
    fill_levels();
    check_range(source_, at_, least_bytes());
    Image image = blank_image(width_, height_);
    uint8_t* rgb = image.rgb.data();
    for (int64_t y = 0; y < height_; ++y) {
      for (int64_t x = 0; x < width_; ++x, rgb += 3) read_pixel(x, rgb);
      if (kind_ == 4) at_ += static_cast<size_t>((width_ + 7) / 8);
    }
    return image;
  }

 private:
  uint64_t samples() const { return static_cast<uint64_t>(width_ * height_) * channels_; }

  // The fewest bytes that the pixels can take, to be compared with the file before allocating.
  uint64_t least_bytes() const {
    switch (kind_) {
      case 1:
        return samples();
      case 2:
      case 3:
        return samples() * 2;  // a digit, white space, a digit, ...
      case 4:
        return static_cast<uint64_t>((width_ + 7) / 8 * height_);
      default:
        return samples() * (maximum_ > 255 ? 2 : 1);
    }
  }

  // What each value becomes: round(value * 255 / maximum), as Pillow computes it.
  void fill_levels() {
    levels_.resize(static_cast<size_t>(maximum_) + 1);
    for (size_t i = 0; i < levels_.size(); ++i) {
      const double part = static_cast<double>(i) / static_cast<double>(maximum_);
      levels_[i] = static_cast<uint8_t>(std::nearbyint(part * 255.0));
    }
  }

  void read_pixel(int64_t x, uint8_t* rgb) {
    if (channels_ == 1) {
      rgb[0] = rgb[1] = rgb[2] = read_sample(x);
    } else {
      for (int c = 0; c < 3; ++c) rgb[c] = read_sample(x);
    }
  }

  // The next sample, in 0..255; `x` is its column, for packed bits.
  uint8_t read_sample(int64_t x) {
    if (kind_ == 1) return plain_bit();
    if (kind_ == 4) {  // in bitmaps 1 is black
      return (source_.bytes[at_ + static_cast<size_t>(x / 8)] >> (7 - x % 8) & 1) != 0 ? 0 : 255;
    }
    if (kind_ <= 3) return level(number("sample", 65535));
    int64_t value = source_.bytes[at_++];
    if (maximum_ > 255) value = value * 256 + source_.bytes[at_++];
    return level(value);
  }

  uint8_t level(int64_t value) const {
    if (value > maximum_) {
      fail_damaged(source_, "PNM", fmt::format("a sample is {}, above {}", value, maximum_));
    }
    return levels_[static_cast<size_t>(value)];
  }

  uint8_t plain_bit() {
    skip_space();
    if (at_ >= source_.bytes.size()) fail_damaged(source_, "PNM", "the file ends early");
    const uint8_t digit = source_.bytes[at_++];
    if (digit != '0' && digit != '1') fail_damaged(source_, "PNM", "a sample is not 0 or 1");
    return digit == '1' ? 0 : 255;
  }

  // A decimal number with white space or comments on either side, as the format has it: at the
  // very end of the file it might have lost digits.
  int64_t number(const char* what, int64_t limit) {
    skip_space();
    int64_t value = 0;
    const size_t start = at_;
    while (at_ < source_.bytes.size() && is_digit(source_.bytes[at_])) {
      value = value * 10 + (source_.bytes[at_++] - '0');
      if (value > limit)
        fail_damaged(source_, "PNM", fmt::format("its {} is over {}", what, limit));
    }
    if (at_ == start) fail_damaged(source_, "PNM", fmt::format("its {} is no number", what));
    if (at_ >= source_.bytes.size()) fail_damaged(source_, "PNM", "the file ends early");
    return value;
  }

  void skip_space() {
    while (at_ < source_.bytes.size()) {
      if (source_.bytes[at_] == '#') {
        while (at_ < source_.bytes.size() && source_.bytes[at_] != '\n') ++at_;
      } else if (is_space(source_.bytes[at_])) {
        ++at_;
      } else {
        return;
      }
    }
  }

  const Source& source_;
  int kind_;
  size_t at_ = 2;
  int64_t width_ = 0;
  int64_t height_ = 0;
  int64_t maximum_ = 1;
  uint32_t channels_ = 1;
  std::vector<uint8_t> levels_;
};

}  // namespace

Decoded decode_pnm(const Source& source) {
  Decoded decoded;
  decoded.image = PnmReader(source).read();
  return decoded;
}

}  // namespace ocelli::vision
