// The tokenizer.model of Llama's vocabularies, through the sentencepiece library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llm/added_tokens.h"
#include "llm/token_bytes.h"
#include "llm/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace ocelli::llm {

class SentencepieceTokenizer final : public Tokenizer {
 public:
  // Reads the bytes of a whole file. Throws host::Error that begins with `where` when the library
  // refuses it, or when it is not BPE with byte fallback and text left as it is, as Llama's are.
  SentencepieceTokenizer(std::span<const std::byte> file, const std::string& where);
  ~SentencepieceTokenizer() override;

  // The library's ids. Under kParse the names of control tokens are those tokens, and each stretch
  // of text between them is encoded by itself, as Hugging Face's Llama tokenizer does.
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special) const override;
  std::string_view token_bytes(int32_t id) const override { return tokens_[id]; }
  int size() const override { return tokens_.size(); }
  int32_t bos() const override { return bos_; }
  int32_t eos() const override { return eos_; }
  // The unknown token and the model's control tokens.
  bool is_special(int32_t id) const override;

 private:
  bool adds_space_after(int32_t previous) const override;
  void append_ids(std::string_view text, std::vector<int32_t>& ids) const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  TokenBytes tokens_;
  AddedTokenFinder specials_;
  std::vector<bool> is_special_;  // by id
  bool adds_space_ = false;
  int32_t bos_ = -1;
  int32_t eos_ = -1;
};

}  // namespace ocelli::llm
