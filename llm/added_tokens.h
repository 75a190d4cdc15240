// Finds added tokens in text, leftmost first and the longest of those that begin there.
#pragma once

#include <algorithm>
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
  // No text may be empty; of several tokens with one text the first counts.
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  struct Match {
    size_t at = std::string_view::npos;  // npos: there is none
    size_t length = 0;
    int32_t id = -1;
  };
  // The first token in `text` at or after `from`; control tokens are passed over unless `specials`.
  Match find(std::string_view text, size_t from, bool specials) const;

  // Cuts `text` at all tokens so found, and calls `token(id)` for each and `between(stretch)` for
  // the text, if any, before each and after the last.
  template <typename Between, typename Token>
  void split(std::string_view text, bool specials, const Between& between,
             const Token& token) const {
    for (size_t from = 0; from < text.size();) {
      const auto [at, length, id] = find(text, from, specials);
      const std::string_view stretch = text.substr(from, std::min(at, text.size()) - from);
      if (!stretch.empty()) between(stretch);
      if (id < 0) return;
      token(id);
      from = at + length;
    }
  }

 private:
  // The longest token that `text` starts with, as an index into tokens_, -1 when there is none.
  int longest(std::string_view text, bool specials) const;

  std::vector<AddedToken> tokens_;     // sorted by text
  std::array<bool, 256> may_begin_{};  // by first byte
};

}  // namespace ocelli::llm
