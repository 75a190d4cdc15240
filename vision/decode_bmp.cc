// Windows and OS/2 bitmaps: 1, 4, 8, 16, 24 and 32 bits a pixel, with a palette, with bit masks or
// run-length encoded; rows from the bottom or from the top.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "host/error.h"
#include "vision/decode.h"

namespace ocelli::vision {
namespace {

constexpr uint32_t kFileHeader = 14;
constexpr uint32_t kCoreHeader = 12;   // OS/2
constexpr uint32_t kInfoHeader = 40;   // Windows 3
constexpr uint32_t kMaxHeader = 1024;  // the longest in use has 124 bytes

enum Compression : uint32_t { kNone = 0, kRle8 = 1, kRle4 = 2, kMasks = 3, kAlphaMasks = 6 };

struct Header {
  uint32_t pixels_at = 0;
  uint32_t size = 0;
  int64_t width = 0;
  int64_t height = 0;
  bool top_down = false;
  uint32_t bits = 0;
  uint32_t compression = kNone;
  uint32_t colours = 0;                // palette entries
  std::array<uint32_t, 3> masks = {};  // red, green, blue
};

uint32_t u16(const Source& source, uint64_t at) {
  return source.bytes[at] | uint32_t{source.bytes[at + 1]} << 8;
}

uint32_t u32(const Source& source, uint64_t at) {
  return u16(source, at) | u16(source, at + 2) << 16;
}

// The size, bits, compression and number of colours, of either kind of header.
void read_geometry(const Source& source, Header& header) {
  if (header.size == kCoreHeader) {
    header.width = u16(source, 18);
    header.height = u16(source, 20);
    header.bits = u16(source, 24);
  } else {
    header.width = static_cast<int32_t>(u32(source, 18));
    header.height = static_cast<int32_t>(u32(source, 22));
    header.top_down = header.height < 0;
    header.height = header.top_down ? -header.height : header.height;
    header.bits = u16(source, 28);
    header.compression = u32(source, 30);
    header.colours = u32(source, 46);
  }
  if (header.bits > 8) {
    header.colours = 0;
  } else if (header.colours == 0 || header.colours > 1U << header.bits) {
    header.colours = 1U << header.bits;
  }
}

void check_kind(const Source& source, const Header& header) {
  constexpr std::array<uint32_t, 6> kDepths = {1, 4, 8, 16, 24, 32};
  const uint32_t bits = header.bits;
  const bool known = std::find(kDepths.begin(), kDepths.end(), bits) != kDepths.end();
  bool fits = false;
  if (header.compression == kNone) fits = true;
  if (header.compression == kRle8) fits = bits == 8 && !header.top_down;
  if (header.compression == kRle4) fits = bits == 4 && !header.top_down;
  if (header.compression == kMasks || header.compression == kAlphaMasks) {
    fits = bits == 16 || bits == 32;
  }
  if (known && fits) return;
  host::fail("{}: a BMP of {} bits a pixel with compression {} is not supported: save it as PNG",
             source.name, bits, header.compression);
}

// Where the colours' bits are in a pixel of 16 or 32 bits.
void read_masks(const Source& source, Header& header) {
  if (header.compression == kNone) {
    header.masks = header.bits == 16 ? std::array<uint32_t, 3>{0x7C00, 0x3E0, 0x1F}
                                     : std::array<uint32_t, 3>{0xFF0000, 0xFF00, 0xFF};
    return;
  }
  // Inside the longer headers, right behind the short one: at the same place in the file.
  check_range(source, kFileHeader + kInfoHeader, 12);
  for (size_t i = 0; i < 3; ++i) {
    const uint32_t mask = u32(source, kFileHeader + kInfoHeader + i * 4);
    const uint32_t run = mask == 0 ? 0 : mask >> std::countr_zero(mask);
    if (mask == 0 || (run & (run + 1)) != 0 || (header.bits == 16 && mask > 0xFFFF)) {
      fail_damaged(source, "BMP", "a colour's bit mask is not one run of bits");
    }
    header.masks[i] = mask;
  }
}

Header read_header(const Source& source) {
  Header header;
  check_range(source, 0, kFileHeader + kCoreHeader);
  header.pixels_at = u32(source, 10);
  header.size = u32(source, 14);
  if (header.size != kCoreHeader && (header.size < kInfoHeader || header.size > kMaxHeader)) {
    fail_damaged(source, "BMP", fmt::format("its header claims {} bytes", header.size));
  }
  check_range(source, kFileHeader, header.size);
  read_geometry(source, header);
  check_kind(source, header);
  check_size(source, header.width, header.height);
  if (header.bits == 16 || header.bits == 32) read_masks(source, header);
  return header;
}

// The palette as RGB. The entries lie between the header and the pixels.
std::vector<std::array<uint8_t, 3>> read_palette(const Source& source, const Header& header) {
  const uint32_t entry = header.size == kCoreHeader ? 3 : 4;
  const uint64_t start = uint64_t{kFileHeader} + header.size;
  check_range(source, start, uint64_t{entry} * header.colours);
  std::vector<std::array<uint8_t, 3>> palette(header.colours);
  for (size_t i = 0; i < palette.size(); ++i) {
    const uint8_t* bgr = source.bytes.data() + start + i * entry;
    palette[i] = {bgr[2], bgr[1], bgr[0]};
  }
  return palette;
}

uint8_t masked(uint32_t pixel, uint32_t mask) {
  const int shift = std::countr_zero(mask);
  return static_cast<uint8_t>(uint64_t{(pixel & mask) >> shift} * 255 / (mask >> shift));
}

// One uncompressed row of indices, unpacked to a byte each.
void unpack_indices(const uint8_t* packed, uint32_t bits, std::span<uint8_t> indices) {
  for (size_t x = 0; x < indices.size(); ++x) {
    const size_t bit = x * bits;
    indices[x] =
        static_cast<uint8_t>((packed[bit / 8] >> (8 - bits - bit % 8)) & ((1U << bits) - 1));
  }
}

void colour_row(const Source& source, const Header& header, uint64_t at, uint8_t* rgb) {
  const uint32_t bytes = header.bits / 8;
  for (int64_t x = 0; x < header.width; ++x, at += bytes, rgb += 3) {
    if (bytes == 3) {
      for (uint64_t c = 0; c < 3; ++c) rgb[c] = source.bytes[at + 2 - c];
    } else {
      const uint32_t pixel = bytes == 2 ? u16(source, at) : u32(source, at);
      for (size_t c = 0; c < 3; ++c) rgb[c] = masked(pixel, header.masks[c]);
    }
  }
}

// Decodes the run-length codes into one index a pixel, rows from the bottom; pixels that no run
// covers stay 0, as the format has it.
class RunDecoder {
 public:
  RunDecoder(const Source& source, const Header& header)
      : source_(source),
        header_(header),
        at_(header.pixels_at),
        indices_(static_cast<size_t>(header.width * header.height)) {}

  std::vector<uint8_t> decode() {
    while (true) {
      check_range(source_, at_, 2);
      const uint32_t count = source_.bytes[at_];
      const uint32_t value = source_.bytes[at_ + 1];
      at_ += 2;
      if (count > 0) {
        for (uint32_t i = 0; i < count; ++i) put(nibble(value, i));
      } else if (value == 1) {  // end of the picture
        return std::move(indices_);
      } else if (value == 0) {  // end of the row
        x_ = 0;
        ++y_;
      } else if (value == 2) {  // move on
        check_range(source_, at_, 2);
        x_ += source_.bytes[at_];
        y_ += source_.bytes[at_ + 1];
        at_ += 2;
      } else {
        put_literals(value);
      }
    }
  }

 private:
  // Of a byte with two pixels the first is the high half; with one a byte, it is the byte.
  uint32_t nibble(uint32_t value, uint32_t i) const {
    if (header_.bits == 8) return value;
    return i % 2 == 0 ? value >> 4 : value & 15;
  }

  void put_literals(uint32_t count) {
    const uint32_t bytes = header_.bits == 8 ? count : (count + 1) / 2;
    check_range(source_, at_, bytes);
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t byte = header_.bits == 8 ? i : i / 2;
      put(nibble(source_.bytes[at_ + byte], i));
    }
    at_ += bytes + bytes % 2;  // padded to 16 bits
  }

  void put(uint32_t index) {
    // Some encoders fill an odd row up to an even count: what lies right of the edge is dropped.
    if (y_ >= header_.height) fail_damaged(source_, "BMP", "its runs leave the picture");
    if (x_ < header_.width) {
      indices_[static_cast<size_t>(y_ * header_.width + x_)] = static_cast<uint8_t>(index);
    }
    ++x_;
  }

  const Source& source_;
  const Header& header_;
  uint64_t at_;
  std::vector<uint8_t> indices_;
  int64_t x_ = 0;
  int64_t y_ = 0;
};

void look_up(const Source& source, const std::vector<std::array<uint8_t, 3>>& palette,
             std::span<const uint8_t> indices, uint8_t* rgb) {
  for (const uint8_t index : indices) {
    if (index >= palette.size()) fail_damaged(source, "BMP", "a colour is not in its palette");
    rgb = std::copy(palette[index].begin(), palette[index].end(), rgb);
  }
}

Image decode_runs(const Source& source, const Header& header) {
  const auto palette = read_palette(source, header);
  const std::vector<uint8_t> indices = RunDecoder(source, header).decode();
  Image image = blank_image(header.width, header.height);
  const auto width = static_cast<size_t>(header.width);
  for (size_t y = 0; y < static_cast<size_t>(header.height); ++y) {
    const size_t from_top = static_cast<size_t>(header.height) - 1 - y;
    look_up(source, palette, std::span(indices).subspan(y * width, width),
            image.rgb.data() + from_top * width * 3);
  }
  return image;
}

Image decode_rows(const Source& source, const Header& header) {
  const auto width = static_cast<size_t>(header.width);
  const auto height = static_cast<size_t>(header.height);
  const uint64_t row_bytes = (width * header.bits + 7) / 8;
  const uint64_t stride = (row_bytes + 3) / 4 * 4;
  check_range(source, header.pixels_at, stride * (height - 1) + row_bytes);
  std::vector<std::array<uint8_t, 3>> palette;
  if (header.bits <= 8) palette = read_palette(source, header);
  Image image = blank_image(header.width, header.height);
  std::vector<uint8_t> indices(header.bits <= 8 ? width : 0);
  for (size_t y = 0; y < height; ++y) {
    const uint64_t at = header.pixels_at + stride * (header.top_down ? y : height - 1 - y);
    uint8_t* rgb = image.rgb.data() + y * width * 3;
    if (header.bits > 8) {
      colour_row(source, header, at, rgb);
    } else {
      unpack_indices(source.bytes.data() + at, header.bits, indices);
      look_up(source, palette, indices, rgb);
    }
  }
  return image;
}

}  // namespace

Decoded decode_bmp(const Source& source) {
  const Header header = read_header(source);
  const bool runs = header.compression == kRle8 || header.compression == kRle4;
  Decoded decoded;
  decoded.image = runs ? decode_runs(source, header) : decode_rows(source, header);
  return decoded;
}

}  // namespace ocelli::vision
