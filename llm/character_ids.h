// The tokens that text begins as in Llama's vocabularies: one a character, or one a byte for a
// character that has none.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace ocelli::llm {

// The name of a byte's token: "<0x0A>".
std::string byte_token_name(unsigned char byte);

// The byte, as one byte of text that lives for ever, when a token's text is of exactly the form
// <0xNN> (with hexadecimal digits in either case); else `text` itself.
std::string_view bytes_of_token(std::string_view text);

class CharacterIds {
 public:
  CharacterIds() = default;
  // `byte_ids`: the token of each byte.
  explicit CharacterIds(const std::array<int32_t, 256>& byte_ids) : byte_ids_(byte_ids) {}

  // A character's bytes, the first lowest, and its id.
  struct Character {
    uint32_t bytes;
    int32_t id;
  };
  // All characters, in the order of their bytes.
  std::vector<Character> characters() const;
  void add(const Character& character) { ids_.try_emplace(character.bytes, character.id); }
  const std::array<int32_t, 256>& byte_ids() const { return byte_ids_; }

  // Gives the text of a token its id, if it is one character; of several ids the first stays.
  void add(std::string_view text, int32_t id);

  // Appends the ids of the characters of `text`, which must be valid UTF-8.
  void append(std::string_view text, std::vector<int32_t>& ids) const;

 private:
  std::array<int32_t, 256> byte_ids_{};
  std::unordered_map<uint32_t, int32_t> ids_;  // by the character's bytes, the first lowest
};

}  // namespace ocelli::llm
