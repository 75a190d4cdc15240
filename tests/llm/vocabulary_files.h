// Small vocabularies for tests: files written with one thing or another wrong.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "llm/bpe.h"
#include "llm/bpe_files.h"

namespace ocelli::llm {

// A tokenizer.json with the letters a, b, c (0, 1, 2), the merges ab (3) and abc (4), and
// <|endoftext|> (5), to be changed.
inline nlohmann::json small_tokenizer_json() {
  return nlohmann::json::parse(R"({
    "added_tokens": [{"id": 5, "content": "<|endoftext|>", "special": true, "normalized": false,
                      "lstrip": false, "rstrip": false, "single_word": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4},
              "merges": ["a b", "ab c"]}})");
}

inline BpeTokenizer tokenizer_of_text(std::string_view text) {
  BpeFiles files;
  files.where = "small";
  parse_tokenizer_json(text, "small", files);
  files.specials.emplace_back(kDefaultSpecial);
  return BpeTokenizer(files);
}

inline BpeTokenizer tokenizer_of(const nlohmann::json& json) {
  return tokenizer_of_text(json.dump());
}

}  // namespace ocelli::llm
