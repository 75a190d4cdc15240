// SHA-256: what names contents, where two that differ must never share a name.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct sha256_ctx;  // nettle's

namespace ocelli::host {

using Sha256Digest = std::array<uint8_t, 32>;

Sha256Digest sha256(std::span<const std::byte> bytes);
Sha256Digest sha256(std::string_view text);

// The digest of bytes that come in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void add(std::span<const std::byte> bytes);
  // Of all bytes since the last digest, or since it was made.
  Sha256Digest digest();

 private:
  std::unique_ptr<sha256_ctx> context_;
};

// 64 hex digits, in lower case.
std::string hex(const Sha256Digest& digest);

// The digest that hex() wrote into `text`; false where `text` is none.
bool parse_hex(std::string_view text, Sha256Digest& digest);

}  // namespace ocelli::host
