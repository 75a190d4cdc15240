#include "app/thumbnails.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "app/terminal.h"
#include "vision/resize.h"

namespace ocelli::app {
namespace {

constexpr int kSide = 320;
constexpr int kQuality = 78;
// How long a thumbnail is waited for before a signal is looked for.
constexpr int kPatienceMs = 50;

FeedOptions feed_options(const vision::DecodeOptions& decode, int threads) {
  FeedOptions options;
  options.decode = decode;
  options.threads = threads;
  options.ahead = 4 * static_cast<size_t>(threads);
  options.wanted = [](size_t, const host::Sha256Digest&) { return true; };
  options.preprocess = shrunk;
  return options;
}

}  // namespace

vision::Image shrunk(const vision::Image& picture) {
  const int longer = std::max(picture.width, picture.height);
  if (longer <= kSide) return picture;
  const auto scaled = [&](int size) {
    return std::max(1, static_cast<int>(std::lround(double{1} * size * kSide / longer)));
  };
  return vision::resize_bicubic(picture, scaled(picture.width), scaled(picture.height));
}

Thumbnail make_thumbnail(const vision::Image& shrunk) {
  return {shrunk.width, shrunk.height, vision::encode_jpeg(shrunk, kQuality)};
}

ThumbnailFeed::ThumbnailFeed(std::vector<std::string> paths, const vision::DecodeOptions& decode,
                             int threads)
    : feed_(std::move(paths), feed_options(decode, threads)) {
}

std::optional<Thumbnail> ThumbnailFeed::next(const std::string& sha256) {
  std::optional<FedPicture> picture;
  while (!picture && !interrupted()) picture = feed_.next(kPatienceMs);
  if (!picture || !picture->preprocessed || !picture->digest) return std::nullopt;
  if (host::hex(*picture->digest) != sha256) return std::nullopt;
  return make_thumbnail(*picture->preprocessed);
}

}  // namespace ocelli::app
