// The strings of the tokenizer goldens: the generator of tests/reference/make_tokenizer_goldens.py,
// step for step, so that only hashes need to be kept.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llm/random.h"

namespace ocelli::llm {

using Fragments = std::vector<std::vector<std::string>>;

inline void append_utf8(uint32_t point, std::string& text) {
  const auto trail = [point](int shift) {
    return static_cast<char>(0x80 | (point >> shift & 0x3F));
  };
  if (point < 0x80) {
    text += static_cast<char>(point);
  } else if (point < 0x800) {
    text += {static_cast<char>(0xC0 | point >> 6), trail(0)};
  } else if (point < 0x10000) {
    text += {static_cast<char>(0xE0 | point >> 12), trail(6), trail(0)};
  } else {
    text += {static_cast<char>(0xF0 | point >> 18), trail(12), trail(6), trail(0)};
  }
}

class RandomText {
 public:
  RandomText(uint64_t seed, Fragments fragments) : state_(seed), fragments_(std::move(fragments)) {}

  std::string next() {
    std::string text;
    for (uint64_t parts = 1 + below(4); parts > 0; --parts) append_part(text);
    return text;
  }

 private:
  uint64_t below(uint64_t bound) { return splitmix64(state_) % bound; }

  // One of the code points under `limit` that are not surrogates.
  void append_point(uint32_t limit, std::string& text) {
    const auto point = static_cast<uint32_t>(below(limit > 0xD800 ? limit - 0x800 : limit));
    append_utf8(point >= 0xD800 ? point + 0x800 : point, text);
  }

  const std::string& fragment() {
    const auto& kind = fragments_[below(fragments_.size())];
    return kind[below(kind.size())];
  }

  void append_part(std::string& text) {
    const uint64_t kind = below(10);
    const uint64_t length = 1 + below(16);
    if (kind < 4) {
      const uint32_t limit = kind < 2 ? 0x110000 : kind == 2 ? 0x10000 : 0x600;
      for (uint64_t i = 0; i < length; ++i) append_point(limit, text);
    } else if (kind == 4) {
      for (uint64_t i = 0; i < 2 * length; ++i) text += static_cast<char>(32 + below(95));
    } else if (kind < 9) {
      for (uint64_t i = 0; i < length; ++i) text += fragment();
    } else {
      std::string repeated;
      if (below(2) != 0) {
        repeated = fragment();
      } else {
        append_point(0x110000, repeated);
      }
      for (uint64_t i = 0; i < length * length; ++i) text += repeated;
    }
  }

  uint64_t state_;
  Fragments fragments_;
};

constexpr uint32_t kFnvStart = 0x811C9DC5;

// FNV-1a, 32 bits.
inline uint32_t fnv1a(std::string_view bytes, uint32_t state = kFnvStart) {
  for (const char byte : bytes) state = (state ^ static_cast<unsigned char>(byte)) * 0x01000193;
  return state;
}

}  // namespace ocelli::llm
