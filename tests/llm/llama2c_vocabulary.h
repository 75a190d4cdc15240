// Small tokenizer.bin files for tests, and llama2.c's way to encode with them, word for word.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "host/utf8.h"
#include "llm/character_ids.h"
#include "llm/llama2c_tokenizer.h"

namespace ocelli::llm {

struct Llama2cPiece {
  std::string text;
  float score = 0;
};

// The control tokens, the bytes, and the space.
inline std::vector<Llama2cPiece> base_pieces() {
  std::vector<Llama2cPiece> pieces = {{"<unk>"}, {"\n<s>\n"}, {"\n</s>\n"}};
  for (int byte = 0; byte < 256; ++byte) {
    pieces.push_back({byte_token_name(static_cast<unsigned char>(byte))});
  }
  pieces.push_back({" ", -1});
  return pieces;
}

template <typename T>
void append_value(T value, std::string& bytes) {
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  bytes.append(raw, sizeof value);
}

inline std::string llama2c_file(std::span<const Llama2cPiece> pieces, int32_t max_length = 27) {
  std::string file;
  append_value(max_length, file);
  for (const auto& [text, score] : pieces) {
    append_value(score, file);
    append_value(static_cast<int32_t>(text.size()), file);
    file += text;
  }
  return file;
}

inline Llama2cTokenizer llama2c_tokenizer(std::string_view file) {
  return Llama2cTokenizer(std::as_bytes(std::span(file)), "small");
}

// The loop of run.c's encode(): every step looks at all neighbours again. `text` is valid UTF-8.
inline std::vector<int32_t> naive_llama2c_ids(std::span<const Llama2cPiece> pieces,
                                              std::string_view text) {
  std::unordered_map<std::string, int32_t> id_of;  // the lowest of each text
  for (const Llama2cPiece& piece : pieces) id_of.try_emplace(piece.text, &piece - pieces.data());
  const auto find = [&](const std::string& wanted) {
    const auto found = id_of.find(wanted);
    return found == id_of.end() ? -1 : found->second;
  };
  if (text.empty()) return {};
  std::vector<int32_t> ids = {find(" ")};
  while (!text.empty()) {
    const std::string_view character = text.substr(0, host::utf8_length(text));
    text.remove_prefix(character.size());
    if (const int32_t id = find(std::string(character)); id >= 0) {
      ids.push_back(id);
      continue;
    }
    for (const char byte : character) ids.push_back(static_cast<unsigned char>(byte) + 3);
  }
  while (true) {
    float best_score = -1e10F;
    int32_t best_id = -1;
    size_t best_at = 0;
    for (size_t at = 0; at + 1 < ids.size(); ++at) {
      const int32_t id = find(pieces[ids[at]].text + pieces[ids[at + 1]].text);
      if (id < 0 || !(pieces[id].score > best_score)) continue;
      best_score = pieces[id].score;
      best_id = id;
      best_at = at;
    }
    if (best_id < 0) return ids;
    ids[best_at] = best_id;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best_at) + 1);
  }
}

}  // namespace ocelli::llm
