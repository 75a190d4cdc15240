// Which kinds of tokenizer.json are read: those whose ids we give exactly.
#pragma once

#include <optional>

#include "host/json.h"
#include "llm/llama_rules.h"

namespace ocelli::llm {

// `root` is the whole file without its vocabulary and merges. Nothing for a byte-level vocabulary
// (pre-tokenizer ByteLevel, no normalizer), the rules for one of Llama's kind (model.byte_fallback;
// a normalizer that prepends U+2581 or replaces spaces by it, or the pre-tokenizer Metaspace).
// Throws host::Error, naming it, when the file asks for anything that would make other ids than
// ours, rather than being silently wrong. What a post-processor puts around a text is the
// program's to add.
std::optional<LlamaRules> supported_rules(const host::JsonObject& root);

}  // namespace ocelli::llm
