// Pictures for the encoder: read, hashed, decoded and brought to size in threads, ahead of it.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "host/sha256.h"
#include "vision/image.h"

namespace ocelli::app {

// A picture that has been looked at.
struct FedPicture {
  size_t index = 0;                           // in the list that was given
  std::optional<host::Sha256Digest> digest;   // of the file's bytes; none where there are none
  std::optional<vision::Image> preprocessed;  // of pictures that are wanted
  std::optional<vision::Image> copy;          // of these, where FeedOptions::copy is given
  std::string error;                          // why it cannot be seen, without its path
  double milliseconds = 0;
};

struct FeedOptions {
  vision::DecodeOptions decode;
  int threads = 1;
  size_t ahead = 2;  // pictures that may be ready or in hand
  // Whether the picture of this number and content is wanted; else nothing is decoded. Called by
  // many threads at once.
  std::function<bool(size_t index, const host::Sha256Digest& digest)> wanted;
  // What the model sees of a picture. Called by many threads at once; may throw host::Error.
  std::function<vision::Image(const vision::Image& image)> preprocess;
  // Whatever else is to be kept of a picture; as preprocess.
  std::function<vision::Image(const vision::Image& image)> copy;
};

// Gives the pictures in the order of the list. What they take in memory does not depend on how many
// there are: `ahead` small ones, what the threads have in hand, and one large picture at a time.
class PictureFeed {
 public:
  // `paths` and what the options refer to must outlive the feed.
  PictureFeed(std::vector<std::string> paths, FeedOptions options);
  // Waits for the pictures in hand; those that have not been begun are left out.
  ~PictureFeed();
  PictureFeed(const PictureFeed&) = delete;
  PictureFeed& operator=(const PictureFeed&) = delete;

  // The next picture when it is ready within `milliseconds`.
  std::optional<FedPicture> next(int milliseconds);
  // Whether next() has given all.
  bool finished() const { return given_ == paths_.size(); }

 private:
  void work();
  FedPicture look_at(size_t index);
  // Fills in what there is to know of the file.
  void read(const std::string& path, FedPicture& picture);
  // The picture as the model sees it, and its copy; neither when it has more than `pixels` on the
  // way.
  void see(std::span<const std::byte> bytes, int64_t pixels, FedPicture& picture) const;

  const std::vector<std::string> paths_;
  const FeedOptions options_;
  std::mutex mutex_;
  std::condition_variable room_;   // there may be a picture to begin
  std::condition_variable ready_;  // there may be one to give
  std::map<size_t, FedPicture> pictures_;
  size_t begun_ = 0;
  size_t given_ = 0;
  bool stopping_ = false;
  std::mutex large_;  // held by the thread that has a large picture in hand
  std::vector<std::thread> threads_;
};

}  // namespace ocelli::app
