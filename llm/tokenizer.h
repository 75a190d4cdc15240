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

  // The id that a text given to the model begins with, -1 when the vocabulary has none. encode()
  // does not put it there.
  virtual int32_t bos() const { return -1; }

  // The id that ends an answer, -1 when the vocabulary names none.
  virtual int32_t eos() const = 0;

  // Whether `id` is a control token. Under kPlain encode() yields one only where the vocabulary's
  // own merges make it of its letters, which no published vocabulary does.
  virtual bool is_special(int32_t id) const = 0;

  // The bytes that `id` adds to a text after the token `previous` (-1: it is the first). They are
  // token_bytes(id), but for vocabularies of Llama's kind, whose encode() begins every text with a
  // space that is not the text's own: the first token after the start or after bos() loses it.
  std::string_view text_bytes(int32_t previous, int32_t id) const;

  // The text of `ids`, from its start, control tokens by their names: decode(encode(text)) == text,
  // save that a vocabulary which writes spaces as U+2581 takes that character for a space. Not
  // necessarily valid UTF-8.
  std::string decode(std::span<const int32_t> ids) const;

 protected:
  // Throws host::Error when `text` is not UTF-8 or longer than encode() takes (1 GiB).
  static void require_text(std::string_view text);

 private:
  // Whether encode() begins what follows the token `previous` (-1: a text) with a space of its own.
  virtual bool adds_space_after(int32_t /*previous*/) const { return false; }
};

// Loads a vocabulary from a directory or a file:
//   tokenizer.json          byte-level BPE, or Llama's kind of BPE with byte fallback
//   vocab.json, merges.txt  byte-level BPE, with added_tokens.json
//   tokenizer.model         Llama's kind of BPE as sentencepiece wrote it
//   tokenizer.bin           the same as llama2.c writes it
// Of a directory the first of these that is there is read, and special_tokens_map.json and
// tokenizer_config.json are heeded by the first two; of a file, the ending (.json, .model, .bin)
// tells which it is. Throws host::Error, naming file and fault, when a file is missing, broken or
// of a kind that is not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

// A vocabulary as a packed model keeps it: "bpe" in the form of llm/bpe_parts.h, "sentencepiece" a
// tokenizer.model and "llama2c" a tokenizer.bin as they are.
struct PackedTokenizer {
  std::string kind;
  std::string bytes;
};

// What load_tokenizer() would load from `path`. Throws host::Error as that does.
PackedTokenizer pack_tokenizer(const std::filesystem::path& path);
// Throws host::Error that begins with `where` when `bytes` are no vocabulary of this kind.
std::unique_ptr<Tokenizer> unpack_tokenizer(const std::string& kind,
                                            std::span<const std::byte> bytes,
                                            const std::string& where);

}  // namespace ocelli::llm
