// Reads the files of a BPE vocabulary: tokenizer.json, or vocab.json and merges.txt.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llm/llama_rules.h"
#include "llm/text_arena.h"

namespace ocelli::llm {

// The highest id accepted; the largest published vocabularies have 262,144 tokens.
constexpr int32_t kMaxTokenId = 10'000'000;

// The control token that Hugging Face's CodeGen class assumes when no file names one.
constexpr std::string_view kDefaultSpecial = "<|endoftext|>";

// The control tokens around a text in Llama's vocabularies, where no file names others.
constexpr std::string_view kLlamaBos = "<s>";
constexpr std::string_view kLlamaEos = "</s>";

// The largest file of a vocabulary accepted; published ones have 1 to 20 MB.
constexpr size_t kMaxVocabularyBytes = 100 << 20;

// A token that is found in the text before the regex and the merges see it.
struct AddedToken {
  std::string text;  // the text itself, not in the byte map
  int32_t id = -1;
  bool special = false;     // a control token
  bool normalized = false;  // looked for only after all tokens that are not (HF's order)
};

// What the files say. Token texts and merges of byte-level vocabularies are in GPT-2's byte map (a
// space is U+0120), those of Llama's kind are text with U+2581 for a space.
struct BpeFiles {
  struct Token {
    std::string_view text;
    int32_t id;
  };
  struct Merge {
    std::string_view left, right;
  };

  std::string where;  // the file or directory, for messages
  TextArena arena;    // holds the texts below
  std::vector<Token> tokens;
  std::vector<Merge> merges;  // the first is merged first
  std::vector<AddedToken> added;
  std::vector<std::string> specials;  // names of control tokens, wherever they are defined
  std::string bos;                    // the name of the token that begins a text, or empty
  std::string eos;                    // the name of the token that ends an answer, or empty
  std::optional<LlamaRules> llama;    // of Llama's kind only; else the vocabulary is byte-level
};

// Reads a directory or a tokenizer.json as load_tokenizer() says.
BpeFiles read_bpe_files(const std::filesystem::path& path);

// The parts of it, on text in memory; each throws host::Error that begins with `where`.
// A whole tokenizer.json: model type BPE, of one of the kinds of llm/tokenizer_json_rules.h.
void parse_tokenizer_json(std::string_view json, const std::string& where, BpeFiles& files);
// vocab.json: {"token": id, …}.
void parse_vocab_json(std::string_view json, const std::string& where, BpeFiles& files);
// merges.txt: a "#version" line that is skipped, then "left right" on each line.
void parse_merges(std::string_view text, const std::string& where, BpeFiles& files);
// added_tokens.json: {"text": id, …}; those among `specials` become control tokens.
void parse_added_tokens(const nlohmann::json& json, const std::string& where, BpeFiles& files);
// "added_tokens_decoder" of tokenizer_config.json; false when there is none.
bool parse_added_tokens_decoder(const nlohmann::json& config, const std::string& where,
                                BpeFiles& files);
// special_tokens_map.json or tokenizer_config.json: `specials`, `bos` and `eos`.
void parse_special_names(const nlohmann::json& json, const std::string& where, BpeFiles& files);

}  // namespace ocelli::llm
