// libjpeg's headers need stdio's types before them, and this order.
// clang-format off
#include <cstdio>
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <cstring>
#include <vector>

#include "vision/c_guard.h"
#include "vision/decode.h"

namespace ocelli::vision {
namespace {

// More scans than any encoder writes; each costs a pass over the whole picture.
constexpr int kMaxScans = 500;

struct Client {
  CGuard guard;
  bool ended_early = false;  // libjpeg had to make up the end of the file
};

Client& client_of(j_common_ptr info) {
  return *static_cast<Client*>(info->client_data);
}

void give_up(j_common_ptr info) {
  char message[JMSG_LENGTH_MAX];
  info->err->format_message(info, message);
  client_of(info).guard.give_up(message);
}

// Warnings after which libjpeg would go on with grey or smeared pixels are errors here; an early
// end alone is not, since a picture may lack nothing but its last marker.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
      client_of(info).ended_early = true;
      break;
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      give_up(info);
      break;
    default:
      break;
  }
}

void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMaxScans) {
    client_of(info).guard.give_up("it has too many scans");
  }
}

class JpegReader {
 public:
  explicit JpegReader(const Source& source) : source_(source) {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = &client_;
    errors_.error_exit = give_up;
    errors_.emit_message = on_message;
    progress_.progress_monitor = on_progress;
  }
  ~JpegReader() { jpeg_destroy_decompress(&info_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  Image read() {
    guarded([this] {
      jpeg_create_decompress(&info_);  // keeps err and client_data
      info_.progress = &progress_;
      jpeg_mem_src(&info_, source_.bytes.data(), source_.bytes.size());
      jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xFFFF);
      jpeg_read_header(&info_, TRUE);
    });
    check_size(source_, info_.image_width, info_.image_height);
    const bool cmyk = info_.num_components == 4;
    info_.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    guarded([this] { jpeg_start_decompress(&info_); });
    // With several scans all of the file has been read by now, and a missing one would only blur.
    if (jpeg_has_multiple_scans(&info_) != 0) require_whole();
    Image image{static_cast<int>(info_.image_width), static_cast<int>(info_.image_height), {}};
    const size_t width = info_.image_width;
    std::vector<uint8_t> row(width * (cmyk ? 4 : 3));
    // Reserved, not filled: a header that lies about the size costs address space, not memory.
    image.rgb.reserve(width * info_.image_height * 3);
    while (info_.output_scanline < info_.output_height) {
      JSAMPROW rows = row.data();
      guarded([this, &rows] { jpeg_read_scanlines(&info_, &rows, 1); });
      if (cmyk) inks_to_rgb(row, width);
      image.rgb.insert(image.rgb.end(), row.begin(),
                       row.begin() + static_cast<ptrdiff_t>(width * 3));
    }
    if (info_.arith_code != 0) require_whole();  // that decoder makes up what is missing
    return image;
  }

  int orientation() const {
    for (const jpeg_marker_struct* marker = info_.marker_list; marker != nullptr;
         marker = marker->next) {
      if (marker->data_length > 6 && std::memcmp(marker->data, "Exif\0", 6) == 0) {
        return exif_orientation({marker->data, marker->data_length});
      }
    }
    return 1;
  }

 private:
  // Runs calls into libjpeg; its errors become ours.
  template <typename Call>
  void guarded(Call call) {
    if (!client_.guard.run(call)) fail_damaged(source_, "JPEG", client_.guard.message());
  }

  void require_whole() {
    if (client_.ended_early) fail_damaged(source_, "JPEG", "the file ends early: copy it again");
  }

  // In place. Adobe's programs store CMYK inverted, and Pillow takes it that all others do too.
  static void inks_to_rgb(std::vector<uint8_t>& row, size_t width) {
    for (size_t x = 0; x < width; ++x) {
      uint8_t cmyk[4];
      for (size_t c = 0; c < 4; ++c) cmyk[c] = static_cast<uint8_t>(255 - row[x * 4 + c]);
      cmyk_to_rgb(cmyk, row.data() + x * 3);
    }
  }

  const Source& source_;
  Client client_;
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  jpeg_decompress_struct info_{};
};

}  // namespace

Decoded decode_jpeg(const Source& source) {
  JpegReader reader(source);
  Decoded decoded;
  decoded.image = reader.read();
  decoded.orientation = reader.orientation();
  return decoded;
}

}  // namespace ocelli::vision
