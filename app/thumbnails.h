// Small pictures for a page of many.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "app/picture_feed.h"

namespace ocelli::app {

struct Thumbnail {
  int width = 0;
  int height = 0;
  std::string jpeg;
};

// The picture with its longer side brought to 320 pixels; smaller ones stay.
vision::Image shrunk(const vision::Image& picture);
Thumbnail make_thumbnail(const vision::Image& shrunk);

// Thumbnails of many files, in their order, decoded in threads ahead of who takes them. Memory does
// not depend on how many there are.
class ThumbnailFeed {
 public:
  ThumbnailFeed(std::vector<std::string> paths, const vision::DecodeOptions& decode, int threads);

  // Of the next file; nothing when it cannot be shown, its content is no longer that of `sha256`,
  // or Ctrl-C says that it is not worth the time.
  std::optional<Thumbnail> next(const std::string& sha256);

 private:
  PictureFeed feed_;
};

}  // namespace ocelli::app
