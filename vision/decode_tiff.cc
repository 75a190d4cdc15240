#include <tiffio.h>

#include <algorithm>
#include <cstdarg>
#include <cstring>
#include <memory>
#include <vector>

#include "vision/decode.h"

namespace ocelli::vision {
namespace {

// A read-only file in memory, as libtiff's callbacks want it, with the first complaint about it.
struct Client {
  std::span<const uint8_t> bytes;
  uint64_t at = 0;
  char error[256] = "";
};

Client& client_of(thandle_t handle) {
  return *static_cast<Client*>(handle);
}

tmsize_t on_read(thandle_t handle, void* out, tmsize_t count) {
  Client& client = client_of(handle);
  if (count <= 0 || client.at >= client.bytes.size()) return 0;
  const size_t got =
      std::min<uint64_t>(static_cast<uint64_t>(count), client.bytes.size() - client.at);
  std::memcpy(out, client.bytes.data() + client.at, got);
  client.at += got;
  return static_cast<tmsize_t>(got);
}

tmsize_t on_write(thandle_t /*handle*/, void* /*data*/, tmsize_t /*count*/) {
  return 0;
}

toff_t on_seek(thandle_t handle, toff_t offset, int whence) {
  Client& client = client_of(handle);
  if (whence == SEEK_CUR) offset += client.at;
  if (whence == SEEK_END) offset += client.bytes.size();
  return client.at = offset;
}

int on_close(thandle_t /*handle*/) {
  return 0;
}

toff_t on_size(thandle_t handle) {
  return client_of(handle).bytes.size();
}

// libtiff only reads from what it maps.
int on_map(thandle_t handle, void** base, toff_t* size) {
  *base = const_cast<uint8_t*>(client_of(handle).bytes.data());
  *size = client_of(handle).bytes.size();
  return 1;
}

void on_unmap(thandle_t /*handle*/, void* /*base*/, toff_t /*size*/) {
}

int on_error(TIFF* /*tiff*/, void* data, const char* /*module*/, const char* format, va_list args) {
  Client& client = *static_cast<Client*>(data);
  if (client.error[0] == '\0') std::vsnprintf(client.error, sizeof client.error, format, args);
  return 1;  // handled: nothing is printed
}

int on_warning(TIFF* /*tiff*/, void* /*data*/, const char* /*module*/, const char* /*format*/,
               va_list /*args*/) {
  return 1;
}

// libtiff's own conversion differs from Pillow's by rounding; the parameters are its callback's.
// NOLINTNEXTLINE(readability-function-size)
void put_cmyk(TIFFRGBAImage* image, uint32_t* out, uint32_t /*x*/, uint32_t /*y*/, uint32_t width,
              uint32_t height, int32_t from_skew, int32_t to_skew, unsigned char* in) {
  const int samples = image->samplesperpixel;
  for (uint32_t row = 0; row < height; ++row) {
    for (uint32_t column = 0; column < width; ++column, in += samples) {
      uint8_t rgb[3];
      cmyk_to_rgb(in, rgb);
      *out++ = rgb[0] | uint32_t{rgb[1]} << 8 | uint32_t{rgb[2]} << 16 | 0xFF000000U;
    }
    out += to_skew;
    in += static_cast<ptrdiff_t>(from_skew) * samples;
  }
}

class TiffReader {
 public:
  explicit TiffReader(const Source& source) : source_(source) {
    client_.bytes = source.bytes;
    const std::unique_ptr<TIFFOpenOptions, decltype(&TIFFOpenOptionsFree)> options(
        TIFFOpenOptionsAlloc(), TIFFOpenOptionsFree);
    if (options == nullptr) fail_damaged(source_, "TIFF", "there is not enough memory");
    constexpr int64_t kMaxPixelBytes = 8;
    TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(),
                                        source.max_pixels * kMaxPixelBytes + (int64_t{1} << 20));
    TIFFOpenOptionsSetErrorHandlerExtR(options.get(), on_error, &client_);
    TIFFOpenOptionsSetWarningHandlerExtR(options.get(), on_warning, &client_);
    tiff_ = TIFFClientOpenExt("TIFF", "r", &client_, on_read, on_write, on_seek, on_close, on_size,
                              on_map, on_unmap, options.get());
    if (tiff_ == nullptr) fail_damaged(source_, "TIFF", client_.error);
  }
  ~TiffReader() {
    if (begun_) TIFFRGBAImageEnd(&converter_);
    TIFFClose(tiff_);
  }
  TiffReader(const TiffReader&) = delete;
  TiffReader& operator=(const TiffReader&) = delete;

  Image read() {
    uint32_t width = 0;
    uint32_t height = 0;
    TIFFGetField(tiff_, TIFFTAG_IMAGEWIDTH, &width);
    TIFFGetField(tiff_, TIFFTAG_IMAGELENGTH, &height);
    check_size(source_, width, height);
    keep_alpha_apart();
    round_palette_down();
    begin();
    const size_t pixels = size_t{width} * height;
    // Not touched before libtiff has decoded something to put there.
    const auto raster = std::make_unique_for_overwrite<uint32_t[]>(pixels);
    client_.error[0] = '\0';
    const int good = TIFFRGBAImageGet(&converter_, raster.get(), width, height);
    if (good == 0 || client_.error[0] != '\0') fail_damaged(source_, "TIFF", client_.error);
    Image image = blank_image(width, height);
    for (size_t i = 0; i < pixels; ++i) store(raster[i], image.rgb.data() + i * 3);
    return apply_orientation(std::move(image), converter_.orientation);
  }

 private:
  // Finds out whether the colours come multiplied by alpha, then has libtiff leave them alone.
  void keep_alpha_apart() {
    uint16_t count = 0;
    uint16_t* kinds = nullptr;
    TIFFGetFieldDefaulted(tiff_, TIFFTAG_EXTRASAMPLES, &count, &kinds);
    if (count == 0) return;
    multiplied_ = kinds[0] == EXTRASAMPLE_ASSOCALPHA;
    std::vector<uint16_t> all(kinds, kinds + count);
    all[0] = EXTRASAMPLE_ASSOCALPHA;
    TIFFSetField(tiff_, TIFFTAG_EXTRASAMPLES, count, all.data());
  }

  // A palette has 16-bit colours; by the rule for all 16-bit channels the high byte counts, which
  // libtiff's scaling then gives. A palette of 8-bit values, as old writers left them, stays.
  void round_palette_down() {
    uint16_t bits = 0;
    uint16_t* channels[3] = {};
    TIFFGetFieldDefaulted(tiff_, TIFFTAG_BITSPERSAMPLE, &bits);
    if (bits > 8) return;
    if (TIFFGetField(tiff_, TIFFTAG_COLORMAP, &channels[0], &channels[1], &channels[2]) == 0)
      return;
    const size_t colours = size_t{1} << bits;
    std::vector<uint16_t> rounded[3];
    bool wide = false;
    for (int c = 0; c < 3; ++c) {
      rounded[c].assign(channels[c], channels[c] + colours);
      for (uint16_t& value : rounded[c]) {
        wide = wide || value > 255;
        value = static_cast<uint16_t>((value >> 8) * 257);
      }
    }
    if (!wide) return;
    TIFFSetField(tiff_, TIFFTAG_COLORMAP, rounded[0].data(), rounded[1].data(), rounded[2].data());
  }

  void begin() {
    char why[1024] = "";
    constexpr int kStopOnError = 1;
    if (TIFFRGBAImageOK(tiff_, why) == 0 ||
        TIFFRGBAImageBegin(&converter_, tiff_, kStopOnError, why) == 0) {
      fail_damaged(source_, "TIFF", why[0] != '\0' ? why : client_.error);
    }
    begun_ = true;
    converter_.req_orientation = converter_.orientation;  // rows as stored; we turn them
    if (converter_.Bitdepth16To8 != nullptr) {
      for (size_t i = 0; i < 65536; ++i) converter_.Bitdepth16To8[i] = static_cast<uint8_t>(i >> 8);
    }
    if (converter_.photometric == PHOTOMETRIC_SEPARATED && converter_.bitspersample == 8 &&
        converter_.isContig != 0) {
      converter_.put.contig = put_cmyk;
    }
  }

  // One ABGR pixel of libtiff's to RGB, divided by alpha where it comes multiplied.
  void store(uint32_t abgr, uint8_t* rgb) const {
    const uint32_t alpha = TIFFGetA(abgr);
    for (int c = 0; c < 3; ++c) {
      const uint32_t value = abgr >> (8 * c) & 0xFF;
      const bool divide = multiplied_ && alpha != 255;
      const uint32_t straight = alpha == 0 ? 0 : std::min<uint32_t>(value * 255 / alpha, 255);
      rgb[c] = static_cast<uint8_t>(divide ? straight : value);
    }
  }

  const Source& source_;
  Client client_;
  TIFF* tiff_ = nullptr;
  TIFFRGBAImage converter_{};
  bool begun_ = false;
  bool multiplied_ = false;
};

}  // namespace

Decoded decode_tiff(const Source& source) {
  Decoded decoded;
  decoded.image = TiffReader(source).read();
  return decoded;
}

}  // namespace ocelli::vision
