#include "app/picture_feed.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <new>
#include <system_error>
#include <utility>

#include "app/stopwatch.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

// Larger ones are looked at one at a time: 96 MB of pixels, and a file of as much.
constexpr int64_t kSmallPixels = 32'000'000;
constexpr uintmax_t kSmallBytes = 32'000'000;

bool is_large(const std::string& path) {
  std::error_code unknown;
  const uintmax_t size = std::filesystem::file_size(path, unknown);
  return !unknown && size > kSmallBytes;
}

// A message without the path it begins with.
std::string reason(const std::string& message, const std::string& path) {
  const std::string begin = host::printable(path, 300) + ": ";
  return message.starts_with(begin) ? message.substr(begin.size()) : message;
}

}  // namespace

PictureFeed::PictureFeed(std::vector<std::string> paths, FeedOptions options)
    : paths_(std::move(paths)), options_(std::move(options)) {
  OCELLI_CHECK(options_.threads > 0 && options_.ahead > 0, "{} threads, {} ahead", options_.threads,
               options_.ahead);
  try {
    while (threads_.size() < static_cast<size_t>(options_.threads)) {
      threads_.emplace_back([this] { work(); });
    }
  } catch (const std::system_error& error) {  // fewer do as well, only slower
    if (threads_.empty()) host::fail("no thread can be started: {}", error.what());
  }
}

PictureFeed::~PictureFeed() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  room_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::optional<FedPicture> PictureFeed::next(int milliseconds) {
  std::unique_lock lock(mutex_);
  const auto is_ready = [this] { return pictures_.contains(given_); };
  if (!ready_.wait_for(lock, std::chrono::milliseconds(milliseconds), is_ready)) {
    return std::nullopt;
  }
  FedPicture picture = std::move(pictures_.extract(given_).mapped());
  ++given_;
  room_.notify_all();
  return picture;
}

void PictureFeed::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    room_.wait(lock, [this] {
      return stopping_ || begun_ == paths_.size() || begun_ < given_ + options_.ahead;
    });
    if (stopping_ || begun_ == paths_.size()) return;
    const size_t index = begun_++;
    lock.unlock();
    FedPicture picture = look_at(index);
    lock.lock();
    pictures_.emplace(index, std::move(picture));
    ready_.notify_one();
  }
}

FedPicture PictureFeed::look_at(size_t index) {
  const Stopwatch watch;
  const std::string& path = paths_[index];
  FedPicture picture;
  picture.index = index;
  try {
    read(path, picture);
  } catch (const host::Error& error) {
    picture.error = reason(error.what(), path);
  } catch (const std::bad_alloc&) {
    picture.error = "out of memory";
  }
  picture.milliseconds = watch.elapsed_ms();
  return picture;
}

void PictureFeed::read(const std::string& path, FedPicture& picture) {
  std::unique_lock alone(large_, std::defer_lock);
  if (is_large(path)) alone.lock();
  const std::vector<std::byte> bytes = vision::read_image_file(path, options_.decode);
  picture.digest = host::sha256(bytes);
  if (!options_.wanted(picture.index, *picture.digest)) return;
  if (!alone.owns_lock()) {
    try {
      see(bytes, kSmallPixels, picture);
    } catch (const host::Error&) {
      // Too many pixels, or a fault that will be found again.
    }
    if (picture.preprocessed) return;
    alone.lock();
  }
  see(bytes, options_.decode.max_pixels, picture);
}

void PictureFeed::see(std::span<const std::byte> bytes, int64_t pixels, FedPicture& picture) const {
  vision::DecodeOptions decode = options_.decode;
  decode.max_pixels = std::min(decode.max_pixels, pixels);
  const vision::Image image = vision::decode_image(bytes, paths_[picture.index], decode);
  // Padded to a square, a narrow picture is a large one.
  const int64_t longer = std::max(image.width, image.height);
  if (longer * longer > pixels && pixels < options_.decode.max_pixels) return;
  picture.preprocessed = options_.preprocess(image);
  if (options_.copy) picture.copy = options_.copy(image);
}

}  // namespace ocelli::app
