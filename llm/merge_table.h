// The merges of a byte-pair vocabulary, hashed by the pair of ids that they join.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace ocelli::llm {

class MergeTable {
 public:
  struct Merge {
    int32_t left, right;
    int32_t result;  // the id of the joined token
  };

  // For at most this many merges.
  explicit MergeTable(size_t merges)
      : slots_(std::bit_ceil(2 * merges + 1), kNone), shift_(64 - std::countr_zero(slots_.size())) {
    merges_.reserve(merges);
  }

  // Adds the merge that comes after all those added before. The same pair again is found with its
  // last rank, as in Hugging Face's tokenizers.
  void add(const Merge& merge) {
    slots_[place(merge.left, merge.right)] = static_cast<uint32_t>(merges_.size());
    merges_.push_back(merge);
  }

  // The rank of the pair's merge, which counts those that come before it; kNone when there is none.
  uint32_t rank(int32_t left, int32_t right) const { return slots_[place(left, right)]; }
  int32_t result(uint32_t rank) const { return merges_[rank].result; }

  // All, by rank.
  const std::vector<Merge>& merges() const { return merges_; }

  static constexpr uint32_t kNone = ~uint32_t{0};

 private:
  // The slot of the pair, or the empty one where it belongs: open addressing, at most half full.
  size_t place(int32_t left, int32_t right) const {
    uint64_t mixed = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
    mixed = (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9;
    mixed = (mixed ^ mixed >> 32) * 0x9E3779B97F4A7C15;
    size_t at = shift_ < 64 ? mixed >> shift_ : 0;
    while (slots_[at] != kNone &&
           (merges_[slots_[at]].left != left || merges_[slots_[at]].right != right)) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }

  std::vector<Merge> merges_;    // by rank
  std::vector<uint32_t> slots_;  // ranks, by hash of the pair
  int shift_;
};

}  // namespace ocelli::llm
