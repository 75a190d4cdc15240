// The tokens of a vocabulary by text and by id, checked, while a tokenizer is built from its files.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "llm/bpe_files.h"
#include "llm/merge_table.h"

namespace ocelli::llm {

class BpeVocabulary {
 public:
  // Throws host::Error when an id or a token is given twice. `files` must outlive it, unchanged.
  explicit BpeVocabulary(const BpeFiles& files);

  // 1 + the highest id; there may be holes.
  int32_t size() const { return static_cast<int32_t>(by_id_.size()); }
  // The id of a token by its text in the files, -1 when there is none.
  int32_t id_of(std::string_view text) const;
  // The token of each byte, -1 where there is none.
  std::array<int32_t, 256> byte_ids() const;
  // The merges by pairs of ids; throws host::Error when one names a token that is not there.
  MergeTable merges() const;
  // The added tokens, each once, and those of the control tokens that are otherwise ordinary ones.
  const std::vector<AddedToken>& added() const { return added_; }
  // Appends the bytes that all tokens stand for to `bytes`, by id, and the end of each to `ends`.
  void append_bytes(std::string& bytes, std::vector<uint32_t>& ends) const;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Slot {
    uint32_t hash = 0;
    uint32_t entry = kNone;
  };

  // The slot that holds `text`, or the empty one where it belongs.
  size_t place_of(std::string_view text) const;
  // The id of a token of the vocabulary proper, as bytes and merges name them: -1 when there is
  // none, also when an added token has this text.
  int32_t mapped_id_of(std::string_view text) const;
  // Adds a token that the vocabulary does not hold, whose slot this is.
  void insert(const BpeFiles::Token& token, Slot& slot);
  void collect_added();
  // The id of what the merge makes, whose text is left in `text`; `guess` is tried first.
  int32_t joined_id(const BpeFiles::Merge& merge, int32_t guess, std::string& text) const;

  const BpeFiles& files_;
  std::vector<BpeFiles::Token> entries_;  // the vocabulary's tokens, then the added ones
  std::vector<Slot> slots_;               // text → entry: open addressing, at most half full
  std::vector<uint32_t> by_id_;           // id → entry, kNone where there is a hole
  std::vector<bool> is_own_text_;         // by id: an added token whose text is not in the byte map
  std::vector<AddedToken> added_;
};

}  // namespace ocelli::llm
