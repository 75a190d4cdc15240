// libjpeg's headers need stdio's types before them.
// clang-format off
#include <cstdio>
#include <jpeglib.h>
// clang-format on

#include <cstdlib>
#include <string>

#include "host/error.h"
#include "vision/c_guard.h"
#include "vision/image.h"

namespace ocelli::vision {
namespace {

void give_up(j_common_ptr info) {
  char message[JMSG_LENGTH_MAX];
  info->err->format_message(info, message);
  static_cast<CGuard*>(info->client_data)->give_up(message);
}

class JpegWriter {
 public:
  JpegWriter() {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = &guard_;
    errors_.error_exit = give_up;
  }
  ~JpegWriter() {
    jpeg_destroy_compress(&info_);
    std::free(bytes_);  // libjpeg's, by malloc
  }
  JpegWriter(const JpegWriter&) = delete;
  JpegWriter& operator=(const JpegWriter&) = delete;

  std::string write(const Image& image, int quality) {
    const bool done = guard_.run([this, &image, quality] {
      jpeg_create_compress(&info_);  // keeps err and client_data
      jpeg_mem_dest(&info_, &bytes_, &size_);
      info_.image_width = static_cast<JDIMENSION>(image.width);
      info_.image_height = static_cast<JDIMENSION>(image.height);
      info_.input_components = 3;
      info_.in_color_space = JCS_RGB;
      jpeg_set_defaults(&info_);
      jpeg_set_quality(&info_, quality, TRUE);
      info_.optimize_coding = TRUE;
      jpeg_start_compress(&info_, TRUE);
      while (info_.next_scanline < info_.image_height) {
        const size_t at = size_t{3} * info_.image_width * info_.next_scanline;
        auto* row = const_cast<JSAMPROW>(image.rgb.data() + at);  // libjpeg does not write to it
        jpeg_write_scanlines(&info_, &row, 1);
      }
      jpeg_finish_compress(&info_);
    });
    if (!done) host::fail("a picture cannot be encoded as JPEG: {}", guard_.message());
    return {reinterpret_cast<const char*>(bytes_), size_};
  }

 private:
  CGuard guard_;
  jpeg_error_mgr errors_{};
  jpeg_compress_struct info_{};
  unsigned char* bytes_ = nullptr;
  unsigned long size_ = 0;  // NOLINT(google-runtime-int): libjpeg's type
};

}  // namespace

std::string encode_jpeg(const Image& image, int quality) {
  OCELLI_CHECK(image.width > 0 && image.height > 0, "{} x {}", image.width, image.height);
  OCELLI_CHECK(image.rgb.size() == size_t{3} * image.width * image.height, "{} bytes for {} x {}",
               image.rgb.size(), image.width, image.height);
  return JpegWriter().write(image, quality);
}

}  // namespace ocelli::vision
