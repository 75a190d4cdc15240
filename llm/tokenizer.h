// Text to token ids and back: the interface that every vocabulary stands behind.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ocelli::llm {

// What encode() makes of a control token's name ("<|endoftext|>") that stands in the text.
enum class SpecialTokens {
  kParse,  // the control token, as Hugging Face's tokenizers do by default
  kPlain,  // text like any other: for what a user wrote, who must not steer the model by it
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The ids of `text`. Throws host::Error, naming the byte offset, when `text` is not UTF-8, and
  // when the vocabulary has no token for one of its bytes.
  virtual std::vector<int32_t> encode(std::string_view text,
                                      SpecialTokens special = SpecialTokens::kParse) const = 0;

  // The raw bytes of a token, which need not be whole characters; empty for an id that the
  // vocabulary does not use (models have rows for more ids than their tokenizers). Valid as long as
  // the tokenizer lives.
  virtual std::string_view token_bytes(int32_t id) const = 0;

  // 1 + the highest id.
  virtual int size() const = 0;

  // The id that ends an answer, -1 when the vocabulary names none.
  virtual int32_t eos() const = 0;

  // Whether `id` is a control token. Under kPlain encode() yields one only where the vocabulary's
  // own merges make it of its letters, which no published vocabulary does.
  virtual bool is_special(int32_t id) const = 0;

  // The bytes of all `ids` in a row, control tokens by their names. Not necessarily valid UTF-8.
  std::string decode(std::span<const int32_t> ids) const;
};

// Loads a vocabulary of byte-level BPE from a directory (tokenizer.json, else vocab.json and
// merges.txt with added_tokens.json; special_tokens_map.json and tokenizer_config.json are heeded
// when they are there) or from a tokenizer.json file alone. Throws host::Error, naming file and
// fault, when a file is missing, broken or of a kind that is not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

}  // namespace ocelli::llm
