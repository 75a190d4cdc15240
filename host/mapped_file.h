// A file mapped read-only into memory, shared between processes and paged in on demand.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace ocelli::host {

class MappedFile {
 public:
  // Maps the whole of `path`. Throws Error, naming the path, when it cannot be opened, is not a
  // regular file, or is empty.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ocelli::host
