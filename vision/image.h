// A picture in memory, and its way from a file's bytes to RGB and back to a PNG.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ocelli::vision {

// 8-bit RGB pixels, row by row from the top: rgb[(y * width + x) * 3 + channel].
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;

  bool operator==(const Image&) const = default;
};

struct DecodeOptions {
  // Turn the picture as its EXIF orientation says. Off gives what the reference implementation
  // sees. (A TIFF's orientation is part of the format: it is always obeyed, there as here.)
  bool honour_exif = true;
  // Larger pictures are refused before their pixels are allocated. The default is where Pillow
  // stops: a quarter of a gigabyte of RGB, twice over (512 MiB).
  int64_t max_pixels = 2 * int64_t{89'478'485};
};

// Decodes the first picture in `bytes`: JPEG, PNG, WebP, BMP, TIFF or PPM/PGM/PBM, told apart by
// content. `name` is only for messages. RGB as Pillow's convert("RGB"): alpha is dropped, palettes
// looked up, grey replicated, CMYK multiplied out, and 16-bit channels keep their high byte.
// (Pillow does that for colour and clips 16-bit grey at 255, which turns a picture white; here grey
// is treated as colour is.) Throws Error, naming the file, when the bytes are empty, no picture,
// truncated, damaged, or larger than max_pixels: never part of a picture.
Image decode_image(std::span<const std::byte> bytes, const std::string& name,
                   const DecodeOptions& options = {});

// The bytes of `path`, for decode_image; "-" reads standard input to its end. Throws Error when the
// file is missing, a directory, unreadable, empty, by its first bytes no picture, or larger than
// any picture of max_pixels.
std::vector<std::byte> read_image_file(const std::string& path, const DecodeOptions& options = {});

// decode_image on read_image_file.
Image read_image(const std::string& path, const DecodeOptions& options = {});

// Writes an 8-bit RGB PNG: into a temporary file beside `path`, renamed when it is whole (straight
// into a pipe or a device). Throws Error when any of it fails (a full disk, say), leaving the file
// that was at `path` as it was.
void write_png(const Image& image, const std::string& path);

// The bytes of a JPEG, `quality` in [1, 100] as libjpeg counts.
std::string encode_jpeg(const Image& image, int quality);

}  // namespace ocelli::vision
