#include "llm/character_ids.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "host/error.h"
#include "host/utf8.h"

namespace ocelli::llm {
namespace {

constexpr std::array<char, 256> kAllBytes = [] {
  std::array<char, 256> bytes{};
  for (int byte = 0; byte < 256; ++byte) bytes[byte] = static_cast<char>(byte);
  return bytes;
}();

uint32_t packed(std::string_view character) {
  uint32_t bytes = 0;
  for (size_t i = 0; i < character.size(); ++i) {
    bytes |= uint32_t{static_cast<unsigned char>(character[i])} << 8 * i;
  }
  return bytes;
}

}  // namespace

std::string byte_token_name(unsigned char byte) {
  return fmt::format("<0x{:02X}>", byte);
}

std::string_view bytes_of_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return text;
  unsigned byte = 0;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
  if (error != std::errc() || end != text.data() + 5) return text;
  return {&kAllBytes[byte], 1};
}

void CharacterIds::add(std::string_view text, int32_t id) {
  if (!text.empty() && host::utf8_length(text) == text.size()) ids_.try_emplace(packed(text), id);
}

std::vector<CharacterIds::Character> CharacterIds::characters() const {
  std::vector<Character> all;
  all.reserve(ids_.size());
  for (const auto& [bytes, id] : ids_) all.push_back({bytes, id});
  std::ranges::sort(all, {}, &Character::bytes);
  return all;
}

void CharacterIds::append(std::string_view text, std::vector<int32_t>& ids) const {
  while (!text.empty()) {
    const size_t length = host::utf8_length(text);
    OCELLI_CHECK(length > 0, "\"{}\" is not UTF-8", host::printable(text));
    const std::string_view character = text.substr(0, length);
    text.remove_prefix(length);
    const auto found = ids_.find(packed(character));
    if (found != ids_.end()) {
      ids.push_back(found->second);
      continue;
    }
    for (const char byte : character) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
  }
}

}  // namespace ocelli::llm
