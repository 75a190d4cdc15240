// Pictures come in the order of their list, each looked at once, no more ahead than asked for.
#include "app/picture_feed.h"

#include <atomic>

#include "host/error.h"
#include "tests/app/background.h"
#include "tests/app/caption_testing.h"

namespace ocelli::app {
namespace {

class Feed : public testing::Test {
 protected:
  static constexpr int kPictures = 40;

  Feed() {
    draw_many(folder_.path(), kPictures);
    for (int i = 0; i < kPictures; ++i) {
      paths_.push_back((folder_ / fmt::format("{:03}.png", i)).string());
    }
    options_.threads = 3;
    options_.ahead = 5;
    options_.wanted = [](size_t, const host::Sha256Digest&) { return true; };
    options_.preprocess = [this](const vision::Image& image) {
      ++preprocessed_;
      return image;
    };
  }

  TemporaryFolder folder_;
  std::vector<std::string> paths_;
  FeedOptions options_;
  std::atomic<int> preprocessed_{0};
};

// The next picture, waited for.
FedPicture take(PictureFeed& feed) {
  std::optional<FedPicture> picture;
  for (int i = 0; i < 100 && !picture; ++i) picture = feed.next(1000);
  EXPECT_TRUE(picture);
  return picture.value_or(FedPicture());
}

TEST_F(Feed, GivesEveryPictureInOrder) {
  PictureFeed feed(paths_, options_);
  for (size_t i = 0; i < kPictures; ++i) {
    EXPECT_FALSE(feed.finished());
    const FedPicture picture = take(feed);
    EXPECT_EQ(picture.index, i);
    EXPECT_EQ(picture.error, "");
    EXPECT_EQ(picture.preprocessed, scene(static_cast<uint32_t>(i + 1)));
    EXPECT_EQ(picture.digest, host::sha256(read_file(paths_[i])));
    // What has been looked at is what was given and at most `ahead` more.
    EXPECT_LE(preprocessed_, static_cast<int>(i + 1 + options_.ahead));
  }
  EXPECT_TRUE(feed.finished());
  EXPECT_EQ(preprocessed_, kPictures);
}

TEST_F(Feed, DecodesNothingThatIsNotWanted) {
  const auto unwanted = host::sha256(read_file(paths_[7]));
  options_.wanted = [&](size_t, const host::Sha256Digest& digest) { return digest != unwanted; };
  PictureFeed feed(paths_, options_);
  for (size_t i = 0; i < kPictures; ++i) {
    const FedPicture picture = take(feed);
    EXPECT_EQ(picture.preprocessed.has_value(), i != 7);
    EXPECT_TRUE(picture.digest);
  }
  EXPECT_EQ(preprocessed_, kPictures - 1);
}

TEST_F(Feed, MakesAReasonOfWhatCannotBeSeen) {
  const std::string whole = read_file(paths_[2]);
  fs::remove(paths_[0]);
  write_file(paths_[1], "");
  write_file(paths_[2], whole.substr(0, whole.size() - 30));
  write_file(paths_[3], "no picture");
  options_.preprocess = [](const vision::Image& image) -> vision::Image {
    if (image == scene(5)) host::fail("too narrow");
    if (image == scene(6)) throw std::bad_alloc();
    return image;
  };
  PictureFeed feed(paths_, options_);
  const auto expect_error = [&](const std::string& reason, bool readable) {
    const FedPicture picture = take(feed);
    EXPECT_NE(picture.error.find(reason), std::string::npos) << picture.error;
    EXPECT_EQ(picture.error.find(folder_.path().string()), std::string::npos) << picture.error;
    EXPECT_EQ(picture.digest.has_value(), readable) << picture.error;
    EXPECT_FALSE(picture.preprocessed);
  };
  expect_error("No such file", false);
  expect_error("is empty", false);
  expect_error("truncated", true);
  expect_error("not a picture", false);
  expect_error("too narrow", true);
  expect_error("out of memory", true);
  EXPECT_EQ(take(feed).error, "");
}

TEST_F(Feed, MayBeLeftBeforeItsEnd) {
  PictureFeed feed(paths_, options_);
  take(feed);
  EXPECT_FALSE(feed.finished());
}

TEST_F(Feed, DoesNotWaitLongerThanItIsTold) {
  std::atomic<bool> open = false;
  options_.wanted = [&](size_t, const host::Sha256Digest&) {
    wait_until([&] { return open.load(); });
    return true;
  };
  PictureFeed feed(paths_, options_);
  EXPECT_FALSE(feed.next(0));
  EXPECT_FALSE(feed.next(5));
  open = true;
  EXPECT_EQ(take(feed).index, 0U);
}

}  // namespace
}  // namespace ocelli::app
