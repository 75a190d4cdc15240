// The tokens of a vocabulary by text and by id, checked, while a tokenizer is built from its files.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "llm/bpe_files.h"
#include "llm/character_ids.h"
#include "llm/merge_table.h"
#include "llm/text_index.h"
#include "llm/token_bytes.h"

namespace ocelli::llm {

class BpeVocabulary {
 public:
  // Throws host::Error when an id or a token is given twice. `files` must outlive it, unchanged.
  explicit BpeVocabulary(const BpeFiles& files);

  // 1 + the highest id; there may be holes.
  int32_t size() const { return static_cast<int32_t>(by_id_.size()); }
  // The id of a token by its text in the files, -1 when there is none.
  int32_t id_of(std::string_view text) const;
  // Of a byte-level vocabulary: the token of each byte, -1 where there is none.
  std::array<int32_t, 256> byte_ids() const;
  // Of one of Llama's kind: the tokens of characters, and of bytes for those that have none; throws
  // host::Error when a byte has none.
  CharacterIds characters() const;
  // The merges by pairs of ids; throws host::Error when one names a token that is not there.
  MergeTable merges() const;
  // The added tokens, each once, and those of the control tokens that are otherwise ordinary ones.
  const std::vector<AddedToken>& added() const { return added_; }
  // The bytes that the tokens stand for.
  TokenBytes token_bytes() const;

 private:
  static constexpr uint32_t kNone = TextIndex::kNone;

  // The slot that holds `text`, or the empty one where it belongs.
  TextIndex::Slot& slot_of(std::string_view text);
  // The place in entries_ of the token with this text, kNone when there is none.
  uint32_t entry_of(std::string_view text) const;
  // The id of a token of the vocabulary proper, as bytes and merges name them: -1 when there is
  // none, also when an added token has this text.
  int32_t mapped_id_of(std::string_view text) const;
  // Adds a token that the vocabulary does not hold, whose slot this is.
  void insert(const BpeFiles::Token& token, TextIndex::Slot& slot);
  void collect_added();
  // The id of what the merge makes, whose text is left in `text`; `guess` is tried first.
  int32_t joined_id(const BpeFiles::Merge& merge, int32_t guess, std::string& text) const;

  const BpeFiles& files_;
  std::vector<BpeFiles::Token> entries_;  // the vocabulary's tokens, then the added ones
  TextIndex index_;                       // text → entry
  std::vector<uint32_t> by_id_;           // id → entry, kNone where there is a hole
  std::vector<bool> is_own_text_;         // by id: an added token whose text is not in the byte map
  std::vector<AddedToken> added_;
};

}  // namespace ocelli::llm
