#include "host/mapped_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"

namespace ocelli::host {
namespace {

TEST(MappedFile, HoldsTheFilesBytes) {
  const TemporaryDirectory directory;
  std::string bytes(10'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  const auto path = directory.write("data", bytes);
  const MappedFile file(path);
  EXPECT_EQ(file.path(), path);
  ASSERT_EQ(file.bytes().size(), bytes.size());
  EXPECT_EQ(std::memcmp(file.bytes().data(), bytes.data(), bytes.size()), 0);
}

TEST(MappedFile, OutlivesTheNameOfItsFile) {
  const TemporaryDirectory directory;
  const auto path = directory.write("data", "abc");
  const MappedFile file(path);
  std::filesystem::remove(path);
  EXPECT_EQ(file.bytes()[2], std::byte{'c'});
}

TEST(MappedFile, NamesWhatCannotBeMapped) {
  const TemporaryDirectory directory;
  const auto error = [](const std::filesystem::path& path) {
    return error_of([&] { const MappedFile file(path); });
  };
  const auto missing = directory.path() / "missing";
  EXPECT_EQ(error(missing), missing.string() + ": cannot be opened: No such file or directory");
  EXPECT_EQ(error(directory.path()), directory.path().string() + ": is not a regular file");
  EXPECT_EQ(error("/dev/null"), "/dev/null: is not a regular file");
  const auto empty = directory.write("empty", "");
  EXPECT_EQ(error(empty), empty.string() + ": is empty");
}

TEST(MappedFile, NamesAFileThatMayNotBeRead) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TemporaryDirectory directory;
  const auto path = directory.write("secret", "abc");
  std::filesystem::permissions(path, std::filesystem::perms::none);
  EXPECT_TRUE(holds(error_of([&] { const MappedFile file(path); }), "Permission denied"));
}

}  // namespace
}  // namespace ocelli::host
