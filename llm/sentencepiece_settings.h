// The few settings of a tokenizer.model that decide whether it can be used, which the sentencepiece
// library does not tell.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace ocelli::llm {

// Fields of sentencepiece_model.proto, with its defaults.
struct SentencepieceSettings {
  static constexpr int32_t kBpe = 2;

  int32_t model_type = 1;        // trainer_spec.model_type
  bool byte_fallback = false;    // trainer_spec.byte_fallback
  bool space_as_suffix = false;  // trainer_spec.treat_whitespace_as_suffix
  bool adds_space = true;        // normalizer_spec.add_dummy_prefix
  bool removes_spaces = true;    // normalizer_spec.remove_extra_whitespaces
  bool marks_spaces = true;      // normalizer_spec.escape_whitespaces
  bool maps_characters = false;  // normalizer_spec or denormalizer_spec has a table
};

// Reads them from the bytes of a tokenizer.model, a ModelProto in protobuf's wire format. Throws
// host::Error that begins with `where` when the bytes are not in that format.
SentencepieceSettings read_sentencepiece_settings(std::span<const std::byte> file,
                                                  const std::string& where);

}  // namespace ocelli::llm
