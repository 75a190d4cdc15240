// Reads a whole tokenizer.json as events: the vocabulary and the merges, which make up nearly all
// of it, never become a JSON document.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "llm/bpe_files.h"

namespace ocelli::llm {

// The id of token `text`; throws host::Error unless `id` is an integer in [0, kMaxTokenId].
int32_t checked_token_id(const nlohmann::json& id, const std::string& where, std::string_view text);

// An entry of "added_tokens": {"id", "content", "special", "normalized", …}; throws host::Error
// when it asks for what is not supported (lstrip, rstrip, single_word).
AddedToken parse_added_token(const nlohmann::json& token, const std::string& where);

}  // namespace ocelli::llm
