// What a BPE tokenizer is made of once its files have been read and checked, and the compact form
// in which a packed model keeps it: ready without parsing or searching.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "llm/bpe_files.h"
#include "llm/character_ids.h"
#include "llm/llama_rules.h"
#include "llm/merge_table.h"
#include "llm/token_bytes.h"

namespace ocelli::llm {

struct BpeParts {
  TokenBytes tokens;
  MergeTable merges{0};
  std::array<int32_t, 256> byte_ids{};  // of byte-level vocabularies; -1: the byte has no token
  std::optional<LlamaRules> llama;      // of Llama's kind only
  CharacterIds characters;              // likewise
  std::vector<AddedToken> added;        // with the control tokens that are otherwise ordinary
  int32_t bos = -1;
  int32_t eos = -1;
};

// Throws host::Error as BpeTokenizer's constructor says.
BpeParts make_bpe_parts(const BpeFiles& files);

// The bytes of docs/weight-format.md, "The vocabulary"; the same for the same parts.
std::string pack_bpe(const BpeParts& parts);

// Throws host::Error that begins with `where` when the bytes are not those of a sound vocabulary.
BpeParts unpack_bpe(std::span<const std::byte> bytes, const std::string& where);

}  // namespace ocelli::llm
