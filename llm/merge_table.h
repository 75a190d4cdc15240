// The merges of a byte-pair vocabulary, hashed by the pair of ids that they join.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace ocelli::llm {

class MergeTable {
 public:
  struct Merge {
    uint32_t rank;   // the lower, the earlier it is applied
    int32_t result;  // the id of the joined token
  };

  explicit MergeTable(size_t merges)
      : slots_(std::bit_ceil(2 * merges + 1)), shift_(64 - std::countr_zero(slots_.size())) {}

  // Adds a merge, in place of an earlier one of the same pair. At most as many as announced.
  void insert(int32_t left, int32_t right, Merge merge) {
    slots_[place(key_of(left, right))] = {key_of(left, right), merge};
  }

  // The merge of the pair, null when there is none.
  const Merge* find(int32_t left, int32_t right) const {
    const Slot& slot = slots_[place(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.merge;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // no pair of ids has this key
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }

  // The slot that holds `key`, or the empty one where it belongs: open addressing, at most half full.
  size_t place(uint64_t key) const {
    uint64_t mixed = (key ^ key >> 29) * 0xBF58476D1CE4E5B9;
    mixed = (mixed ^ mixed >> 32) * 0x9E3779B97F4A7C15;
    size_t at = shift_ < 64 ? mixed >> shift_ : 0;
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace ocelli::llm
