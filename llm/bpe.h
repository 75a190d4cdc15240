// Byte-level BPE as GPT-2, CodeGen and Phi-2 use it (MODEL.md §7).
//
// Text is split at added tokens, then into words by a regex; in each word the bytes become tokens
// and the pair with the lowest rank is joined, the leftmost first, until no merge applies.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "llm/added_tokens.h"
#include "llm/bpe_files.h"
#include "llm/merge_table.h"
#include "llm/pre_tokenizer.h"
#include "llm/tokenizer.h"

namespace ocelli::llm {

class BpeVocabulary;

class BpeTokenizer final : public Tokenizer {
 public:
  // Throws host::Error, naming `files.where`, when ids or tokens are given twice, a merge names a
  // token that the vocabulary lacks, or the end-of-answer token is missing.
  explicit BpeTokenizer(const BpeFiles& files);

  std::vector<int32_t> encode(std::string_view text, SpecialTokens special) const override;
  std::string_view token_bytes(int32_t id) const override;
  int size() const override { return static_cast<int>(ends_.size()); }
  int32_t eos() const override { return eos_; }
  bool is_special(int32_t id) const override;

 private:
  struct Workspace;

  BpeTokenizer(const BpeFiles& files, const BpeVocabulary& vocabulary);

  // Appends the ids of `text`: added tokens as they are found, the rest as `encode_between` does.
  template <typename Encode>
  static void split_at(const AddedTokenFinder& finder, std::string_view text, bool specials,
                       Workspace& work, const Encode& encode_between);
  void encode_words(std::string_view text, Workspace& work) const;
  void encode_word(std::string_view word, Workspace& work) const;
  void start_word(std::string_view word, Workspace& work) const;
  // Adds the pair that begins at `left` to the back of the heap's array, if it can be joined.
  bool push_pair(int32_t left, Workspace& work) const;

  std::string bytes_;           // the bytes of all tokens, by id
  std::vector<uint32_t> ends_;  // where each token's bytes end; they begin at the one before's
  std::array<int32_t, 256> byte_ids_;  // the token of each byte, -1 when there is none
  MergeTable merges_;
  PreTokenizer pre_tokenizer_;
  AddedTokenFinder first_added_;   // those that Hugging Face looks for in the raw text,
  AddedTokenFinder then_added_;    // and in what is left between them
  std::vector<int32_t> specials_;  // sorted
  int32_t eos_ = -1;
};

}  // namespace ocelli::llm
