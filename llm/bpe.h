// BPE with ranked merges: byte-level as GPT-2, CodeGen and Phi-2 use it (MODEL.md §7), and Llama's
// kind, of characters with byte fallback, as a tokenizer.json holds it.
//
// Text is split at added tokens, then into words; in each word the bytes or characters become
// tokens and the pair with the lowest rank is joined, the leftmost first, until no merge applies.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "llm/added_tokens.h"
#include "llm/bpe_alphabet.h"
#include "llm/bpe_files.h"
#include "llm/bpe_parts.h"
#include "llm/merge_table.h"
#include "llm/token_bytes.h"
#include "llm/tokenizer.h"

namespace ocelli::llm {

class BpeTokenizer final : public Tokenizer {
 public:
  // Throws host::Error, naming `files.where`, when ids or tokens are given twice, a merge names a
  // token that the vocabulary lacks, one of Llama's kind lacks a byte's, or the token that begins
  // or ends a text is named and missing.
  explicit BpeTokenizer(const BpeFiles& files) : BpeTokenizer(make_bpe_parts(files)) {}
  explicit BpeTokenizer(BpeParts parts);

  std::vector<int32_t> encode(std::string_view text, SpecialTokens special) const override;
  std::string_view token_bytes(int32_t id) const override { return tokens_[id]; }
  int size() const override { return tokens_.size(); }
  // Of Llama's kind: what the configs name, else <s> and </s>. Byte-level texts begin with none.
  int32_t bos() const override { return bos_; }
  int32_t eos() const override { return eos_; }
  bool is_special(int32_t id) const override;

 private:
  struct Workspace;

  bool adds_space_after(int32_t previous) const override;

  void collect_added(const std::vector<AddedToken>& added);
  // Appends the ids of a normalized stretch of text without added tokens.
  void encode_words(std::string_view text, bool begins_text, Workspace& work) const;

  TokenBytes tokens_;
  MergeTable merges_;
  std::unique_ptr<const BpeAlphabet> alphabet_;
  AddedTokenFinder first_added_;   // those that Hugging Face looks for in the raw text,
  AddedTokenFinder then_added_;    // and in what is left between them, normalized
  std::vector<int32_t> added_;     // sorted
  std::vector<int32_t> specials_;  // sorted
  int32_t bos_ = -1;
  int32_t eos_ = -1;
};

}  // namespace ocelli::llm
