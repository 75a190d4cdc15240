// Finds added tokens in text, leftmost first and the longest of those that begin there.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "llm/bpe_files.h"

namespace ocelli::llm {

class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  // Throws nothing; texts must be distinct and not empty (BpeTokenizer checks).
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  struct Match {
    size_t at = std::string_view::npos;  // npos: there is none
    size_t length = 0;
    int32_t id = -1;
  };
  // The first token in `text` at or after `from`; control tokens are passed over unless `specials`.
  Match find(std::string_view text, size_t from, bool specials) const;

 private:
  // The longest token that `text` starts with, as an index into tokens_, -1 when there is none.
  int longest(std::string_view text, bool specials) const;

  std::vector<AddedToken> tokens_;     // sorted by text
  std::array<bool, 256> may_begin_{};  // by first byte
};

}  // namespace ocelli::llm
