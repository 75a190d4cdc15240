#include "host/output_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"

namespace ocelli::host {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::ptrdiff_t entries(const fs::path& directory) {
  return std::distance(fs::directory_iterator(directory), fs::directory_iterator());
}

TEST(OutputFiles, AppearWholeWhenCommitted) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "out.bin";
  OutputFile file(path.string());
  file.write(std::string_view("a\0b", 3));
  file.write(std::string(100'000, 'x'));
  EXPECT_FALSE(fs::exists(path));
  file.commit();
  EXPECT_EQ(contents(path), std::string("a\0b", 3) + std::string(100'000, 'x'));
  EXPECT_EQ(entries(directory.path()), 1);
}

TEST(OutputFiles, LeaveNothingWhenAbandoned) {
  const TemporaryDirectory directory;
  { OutputFile(directory.path() / "out").write("half of a"); }
  EXPECT_EQ(entries(directory.path()), 0);
}

TEST(OutputFiles, KeepTheOldFileUntilTheyAreCommitted) {
  const TemporaryDirectory directory;
  const fs::path path = directory.write("out", "old");
  { OutputFile(path.string()).write("new"); }
  EXPECT_EQ(contents(path), "old");
  OutputFile file(path.string());
  file.write("new");
  file.commit();
  EXPECT_EQ(contents(path), "new");
  EXPECT_EQ(entries(directory.path()), 1);
}

TEST(OutputFiles, ReplaceWhatALinkPointsTo) {
  const TemporaryDirectory directory;
  const fs::path target = directory.write("target", "old");
  fs::create_symlink(target, directory.path() / "link");
  OutputFile file((directory.path() / "link").string());
  file.write("new");
  file.commit();
  EXPECT_TRUE(fs::is_symlink(directory.path() / "link"));
  EXPECT_EQ(contents(target), "new");
}

TEST(OutputFiles, KeepThePermissionsOfTheFileTheyReplace) {
  const TemporaryDirectory directory;
  const fs::path path = directory.write("out", "old");
  for (const fs::perms wanted : {fs::perms::owner_read | fs::perms::owner_write,
                                 fs::perms::owner_all | fs::perms::group_read,
                                 fs::perms::owner_read | fs::perms::others_write}) {
    fs::permissions(path, wanted);
    OutputFile file(path.string());
    file.write("new");
    file.commit();
    EXPECT_EQ(fs::status(path).permissions(), wanted);
    EXPECT_EQ(contents(path), "new");
  }
}

// Whoever may write beside the file must not choose what is written to.
TEST(OutputFiles, FollowNoLinkAtTheirTemporaryName) {
  const TemporaryDirectory directory;
  const fs::path victim = directory.write("victim", "untouched");
  const fs::path path = directory.path() / "out";
  std::string temporary;
  {
    const OutputFile file(path.string());
    for (const auto& entry : fs::directory_iterator(directory.path())) {
      if (entry.path() != victim) temporary = entry.path().string();
    }
  }
  ASSERT_FALSE(temporary.empty());
  fs::create_symlink(victim, temporary);  // the name that the next file would take
  OutputFile file(path.string());
  file.write("new");
  file.commit();
  EXPECT_EQ(contents(victim), "untouched");
  EXPECT_EQ(contents(path), "new");
  EXPECT_TRUE(fs::is_symlink(temporary)) << "what others put there stays";
  EXPECT_EQ(entries(directory.path()), 3);
}

TEST(OutputFiles, NameThePlaceThatCannotBeWritten) {
  const TemporaryDirectory directory;
  const std::string missing = (directory.path() / "no" / "such" / "place").string();
  EXPECT_TRUE(holds(error_of([&] { OutputFile file(missing); }), missing));
  const std::string message = error_of([&] {
    OutputFile file(directory.path().string());  // a directory
    file.write("x");
    file.commit();
  });
  EXPECT_TRUE(holds(message, directory.path().string()));
  EXPECT_EQ(entries(directory.path()), 0);
  EXPECT_EQ(entries(directory.path().parent_path() / directory.path().filename()), 0);
}

TEST(OutputFiles, RefuseADirectoryWithoutPermission) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write anywhere";
  const TemporaryDirectory directory;
  fs::permissions(directory.path(), fs::perms::owner_read | fs::perms::owner_exec);
  const std::string path = (directory.path() / "out").string();
  EXPECT_TRUE(holds(error_of([&] { OutputFile file(path); }), "Permission denied"));
  fs::permissions(directory.path(), fs::perms::owner_all);
}

// /dev/full is a disk without room.
TEST(OutputFiles, ReportAFullDisk) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  const TemporaryDirectory directory;
  fs::create_symlink("/dev/full", directory.path() / "full");
  const std::string path = (directory.path() / "full").string();
  const std::string few = error_of([&] {
    OutputFile file(path);
    file.write("a few bytes that a buffer holds");
    file.commit();
  });
  EXPECT_TRUE(holds(few, path + ": cannot be written: No space left on device"));
  const std::string many = error_of([&] {
    OutputFile file(path);
    for (int i = 0; i < 100; ++i) file.write(std::string(100'000, 'x'));
    file.commit();
  });
  EXPECT_TRUE(holds(many, path + ": cannot be written: No space left on device"));
  EXPECT_TRUE(fs::is_character_file("/dev/full")) << "the device itself is still there";
  EXPECT_EQ(entries(directory.path()), 1);
}

// A device or a pipe cannot be replaced by a file: it is written to, and stays what it is.
TEST(OutputFiles, WriteIntoDevicesAndPipes) {
  OutputFile file("/dev/null");
  file.write("x");
  file.commit();
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

}  // namespace
}  // namespace ocelli::host
