#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "tests/vision/test_pictures.h"

namespace ocelli::vision {
namespace {

namespace fs = std::filesystem;

class WritePng : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / fmt::format("ocelli_write_png_{}", ::getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const char* name) const { return (folder_ / name).string(); }

  // How many files the folder holds.
  ptrdiff_t count() const {
    return std::distance(fs::directory_iterator(folder_), fs::directory_iterator());
  }

  fs::path folder_;
};

TEST_F(WritePng, ReadsBackTheSame) {
  for (const auto& [width, height] : {std::pair(1, 1), {384, 384}, {3, 500}, {257, 2}}) {
    const Image image = test_picture(width, height);
    write_png(image, path("a.png"));
    EXPECT_EQ(read_image(path("a.png")), image);
  }
  EXPECT_EQ(count(), 1);  // nothing temporary stays
}

TEST_F(WritePng, AFullDiskIsAnErrorAndTheOldFileStays) {
  const Image before = test_picture(4, 4);
  write_png(before, path("a.png"));
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit small{10000, old.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of([&] { write_png(test_picture(300, 300), path("a.png")); });
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(error, path("a.png") + ": cannot be written: File too large");
  EXPECT_EQ(read_image(path("a.png")), before);
  EXPECT_EQ(count(), 1);
}

TEST_F(WritePng, ADeviceIsWrittenNotReplaced) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  EXPECT_EQ(error_of([] { write_png(test_picture(2, 2), "/dev/full"); }),
            "/dev/full: cannot be written: No space left on device");
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

TEST_F(WritePng, AMissingFolderIsAnError) {
  EXPECT_EQ(error_of([&] { write_png(test_picture(2, 2), path("no/a.png")); }),
            path("no/a.png") + ": cannot be written: No such file or directory");
  EXPECT_EQ(count(), 0);
}

}  // namespace
}  // namespace ocelli::vision
