#include "llm/added_tokens.h"

#include <algorithm>
#include <utility>

namespace ocelli::llm {

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.text < b.text; });
  const auto same = [](const AddedToken& a, const AddedToken& b) { return a.text == b.text; };
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
  for (const AddedToken& token : tokens_) {
    may_begin_[static_cast<unsigned char>(token.text[0])] = true;
  }
}

AddedTokenFinder::Match AddedTokenFinder::find(std::string_view text, size_t from,
                                               bool specials) const {
  for (size_t at = from; at < text.size() && !tokens_.empty(); ++at) {
    if (!may_begin_[static_cast<unsigned char>(text[at])]) continue;
    const int found = longest(text.substr(at), specials);
    if (found >= 0) return {at, tokens_[found].text.size(), tokens_[found].id};
  }
  return {};
}

// Sorted texts that share a prefix lie together: each further byte narrows the range of those that
// still fit, and the one that the prefix is the whole of comes first.
int AddedTokenFinder::longest(std::string_view text, bool specials) const {
  auto first = tokens_.begin();
  auto last = tokens_.end();
  int best = -1;
  for (size_t depth = 0; depth < text.size() && first != last; ++depth) {
    const auto byte = static_cast<unsigned char>(text[depth]);
    const auto byte_of = [depth](const AddedToken& token) {
      return static_cast<unsigned char>(token.text[depth]);
    };
    first = std::partition_point(first, last, [&](const auto& t) { return byte_of(t) < byte; });
    last = std::partition_point(first, last, [&](const auto& t) { return byte_of(t) <= byte; });
    if (first != last && first->text.size() == depth + 1) {
      if (specials || !first->special) best = static_cast<int>(first - tokens_.begin());
      ++first;
    }
  }
  return best;
}

}  // namespace ocelli::llm
