// What the merges of a BPE vocabulary begin with: text cut into words, and words into tokens that
// stand for single bytes (GPT-2's kind) or characters (Llama's kind).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "llm/character_ids.h"
#include "llm/llama_rules.h"
#include "llm/pre_tokenizer.h"

namespace ocelli::llm {

class BpeAlphabet {
 public:
  virtual ~BpeAlphabet() = default;

  // A stretch of text between added tokens as it is to be searched for the normalized ones among
  // them (AddedToken); the result may lie in `buffer`.
  virtual std::string_view normalize(std::string_view text, std::string& buffer) const = 0;

  // Replaces `words` by the words of a normalized stretch, which may lie in `buffer`; no merge
  // reaches from one into the next. `begins_text`: the stretch is the first thing in the text.
  virtual void split(std::string_view text, bool begins_text, std::string& buffer,
                     std::vector<std::string_view>& words) const = 0;

  // Replaces `tokens` by those that `word` begins as; throws host::Error when a byte has none.
  virtual void start(std::string_view word, std::vector<int32_t>& tokens) const = 0;

  // Whether a stretch gets a space that is not its own: every one, or that which begins the text.
  virtual Prepend adds_space() const { return Prepend::kNever; }
};

// Words by GPT-2's regex, a token a byte.
class ByteAlphabet final : public BpeAlphabet {
 public:
  // `byte_ids`: the token of each byte, -1 when there is none.
  explicit ByteAlphabet(const std::array<int32_t, 256>& byte_ids) : byte_ids_(byte_ids) {}

  std::string_view normalize(std::string_view text, std::string& /*buffer*/) const override {
    return text;
  }
  void split(std::string_view text, bool begins_text, std::string& buffer,
             std::vector<std::string_view>& words) const override;
  void start(std::string_view word, std::vector<int32_t>& tokens) const override;

 private:
  std::array<int32_t, 256> byte_ids_;
  PreTokenizer pre_tokenizer_;
};

// Spaces as U+2581, a token a character.
class LlamaAlphabet final : public BpeAlphabet {
 public:
  LlamaAlphabet(const LlamaRules& rules, CharacterIds characters);

  std::string_view normalize(std::string_view text, std::string& buffer) const override;
  void split(std::string_view text, bool begins_text, std::string& buffer,
             std::vector<std::string_view>& words) const override;
  void start(std::string_view word, std::vector<int32_t>& tokens) const override;
  Prepend adds_space() const override;

 private:
  LlamaRules rules_;
  CharacterIds characters_;
};

}  // namespace ocelli::llm
