// What the decoders, one a format, take and give; only for decode_*.cc and image.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "vision/image.h"

namespace ocelli::vision {

struct Source {
  std::span<const uint8_t> bytes;
  std::string name;  // printable, for messages
  int64_t max_pixels = 0;
};

struct Decoded {
  Image image;
  int orientation = 1;  // EXIF's 1..8, still to be applied
};

// Each takes a source whose first bytes are those of its format, and throws Error, naming the
// source, when the picture is damaged, truncated, unsupported or too large.
Decoded decode_jpeg(const Source& source);
Decoded decode_png(const Source& source);
Decoded decode_webp(const Source& source);
Decoded decode_bmp(const Source& source);
Decoded decode_tiff(const Source& source);
Decoded decode_pnm(const Source& source);

// Throws Error when there are no pixels or more than the source's limit: to be called before
// anything is allocated. On return, 3 * width * height fits comfortably in 64 bits.
void check_size(const Source& source, int64_t width, int64_t height);

// Throws Error when `needed` bytes from `offset` on reach past the end of the source.
void check_range(const Source& source, uint64_t offset, uint64_t needed);

[[noreturn]] void fail_damaged(const Source& source, const char* format, const std::string& why);

// An image of this size, black; check_size has been called.
Image blank_image(int64_t width, int64_t height);

// The orientation (1..8) in an EXIF block, with or without its "Exif\0\0"; 1 when it has none or
// cannot be read, since broken metadata is no reason to lose the picture.
int exif_orientation(std::span<const uint8_t> exif);

// The image as EXIF orientation 1..8 says it is to be seen; 5..8 swap width and height.
Image apply_orientation(Image image, int orientation);

// One CMYK pixel (0 = no ink) to RGB, with Pillow's rounding.
void cmyk_to_rgb(const uint8_t* cmyk, uint8_t* rgb);

}  // namespace ocelli::vision
