// The bytes of a vocabulary's tokens, one after the other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ocelli::llm {

class TokenBytes {
 public:
  TokenBytes() = default;
  // All bytes, and where each token's end; they ascend, and the last is the number of bytes.
  TokenBytes(std::string bytes, std::vector<uint32_t> ends)
      : bytes_(std::move(bytes)), ends_(std::move(ends)) {}

  void reserve(size_t tokens, size_t bytes) {
    ends_.reserve(tokens);
    bytes_.reserve(bytes);
  }

  // Gives the next id these bytes; together they must stay under 4 GiB.
  void add(std::string_view bytes) {
    bytes_ += bytes;
    ends_.push_back(static_cast<uint32_t>(bytes_.size()));
  }

  // Empty for an id that is not there.
  std::string_view operator[](int32_t id) const {
    if (id < 0 || id >= size()) return {};
    const uint32_t begin = id == 0 ? 0 : ends_[id - 1];
    return std::string_view(bytes_).substr(begin, ends_[id] - begin);
  }

  const std::string& bytes() const { return bytes_; }
  const std::vector<uint32_t>& ends() const { return ends_; }

  int size() const { return static_cast<int>(ends_.size()); }

 private:
  std::string bytes_;
  std::vector<uint32_t> ends_;  // they begin at the end of the one before
};

}  // namespace ocelli::llm
