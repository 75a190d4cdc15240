// Joins the tokens of a text pair by pair, as every kind of byte-pair encoding does: the pair of
// the lowest rank first, the leftmost of equals, until no pair can be joined.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace ocelli::llm {

// What a vocabulary makes of two tokens side by side.
struct Join {
  static constexpr uint32_t kNone = ~uint32_t{0};
  uint32_t rank = kNone;  // kNone: they cannot be joined
  int32_t result = -1;
};

// O(n log n) in the number of tokens: a pair is found in a heap and joined in a linked list. It
// keeps its memory from text to text.
class PairMerger {
 public:
  // Appends to `ids` what becomes of `tokens`, at most 2³¹−1 of them; `join(left, right)` is the
  // vocabulary's Join of two ids.
  template <typename Vocabulary>
  void merge(std::span<const int32_t> tokens, const Vocabulary& join, std::vector<int32_t>& ids) {
    start(tokens, join);
    while (!pairs_.empty()) {
      std::pop_heap(pairs_.begin(), pairs_.end(), std::greater<>());
      const auto rank = static_cast<uint32_t>(pairs_.back() >> 32);
      const auto place = static_cast<int32_t>(pairs_.back() & 0xFFFFFFFF);
      pairs_.pop_back();
      Symbol& left = symbols_[place];
      if (left.join.rank != rank) continue;
      Symbol& right = symbols_[left.next];
      left.id = left.join.result;
      right.join = {};
      left.next = right.next;
      if (left.next >= 0) symbols_[left.next].previous = place;
      for (const int32_t changed : {left.previous, place}) {
        if (changed >= 0 && push_pair(changed, join)) {
          std::push_heap(pairs_.begin(), pairs_.end(), std::greater<>());
        }
      }
    }
    for (int32_t place = symbols_.empty() ? -1 : 0; place >= 0; place = symbols_[place].next) {
      ids.push_back(symbols_[place].id);
    }
  }

 private:
  // A token of the text so far; joining two leaves the left one.
  struct Symbol {
    int32_t id;
    int32_t previous;  // places in symbols_, -1 at the ends
    int32_t next;
    Join join;  // with the next one
  };

  template <typename Vocabulary>
  void start(std::span<const int32_t> tokens, const Vocabulary& join) {
    symbols_.clear();
    pairs_.clear();
    const auto count = static_cast<int32_t>(tokens.size());
    for (int32_t i = 0; i < count; ++i) {
      symbols_.push_back({tokens[i], i - 1, i + 1 < count ? i + 1 : -1, {}});
    }
    for (int32_t i = 0; i < count; ++i) push_pair(i, join);
    std::make_heap(pairs_.begin(), pairs_.end(), std::greater<>());
  }

  // Adds the pair that begins at `place` to the back of the heap's array, if it can be joined.
  template <typename Vocabulary>
  bool push_pair(int32_t place, const Vocabulary& join) {
    Symbol& symbol = symbols_[place];
    symbol.join = symbol.next < 0 ? Join{} : join(symbol.id, symbols_[symbol.next].id);
    if (symbol.join.rank == Join::kNone) return false;
    pairs_.push_back(uint64_t{symbol.join.rank} << 32 | static_cast<uint32_t>(place));
    return true;
  }

  std::vector<Symbol> symbols_;
  // Pairs that can be joined, rank << 32 | place of the left one, as a heap with the lowest on top.
  // An entry whose pair has changed since is left in it and passed over.
  std::vector<uint64_t> pairs_;
};

}  // namespace ocelli::llm
