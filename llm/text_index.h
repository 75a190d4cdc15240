// Finds short texts by hash, where they are kept by whoever asks.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace ocelli::llm {

class TextIndex {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Slot {
    uint32_t hash = 0;
    uint32_t number = kNone;  // of the text, kNone in an empty slot
  };

  // For at most this many texts.
  explicit TextIndex(size_t texts) : slots_(std::bit_ceil(2 * texts + 1)) {}

  // The slot that holds `text`, or the empty one where it belongs; `text_of(number)` gives the text
  // of a number that was put in.
  template <typename TextOf>
  Slot& slot_of(std::string_view text, const TextOf& text_of) {
    return slots_[place_of(text, hash_of(text), text_of)];
  }

  // The number of `text`, kNone when it was not put in.
  template <typename TextOf>
  uint32_t find(std::string_view text, const TextOf& text_of) const {
    return slots_[place_of(text, hash_of(text), text_of)].number;
  }

  // Puts `text` into its empty slot.
  static void fill(Slot& slot, std::string_view text, uint32_t number) {
    slot = {hash_of(text), number};
  }

 private:
  // Texts of a few bytes, hashed eight at a time: the library's hash takes as long as all the rest
  // of a look-up.
  static uint32_t hash_of(std::string_view text) {
    uint64_t hash = text.size();
    while (!text.empty()) {
      uint64_t word = 0;
      const size_t taken = std::min(text.size(), sizeof word);
      std::memcpy(&word, text.data(), taken);
      hash = (hash ^ word) * 0x9E3779B97F4A7C15;
      hash ^= hash >> 32;
      text.remove_prefix(taken);
    }
    return static_cast<uint32_t>(hash);
  }

  template <typename TextOf>
  size_t place_of(std::string_view text, uint32_t hash, const TextOf& text_of) const {
    size_t at = hash & (slots_.size() - 1);
    while (slots_[at].number != kNone &&
           (slots_[at].hash != hash || text_of(slots_[at].number) != text)) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }

  std::vector<Slot> slots_;  // open addressing, at most half full
};

}  // namespace ocelli::llm
