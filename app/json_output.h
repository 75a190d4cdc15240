// Results as JSON, one object a line.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "app/conversation.h"

namespace ocelli::app {

// {"answer", "finish", "tokens": {"prompt", "image", "generated"}, "timings_ms": {…}}
nlohmann::json to_json(const Answer& answer);

// The object and a newline; what is not UTF-8 (in a path, say) becomes U+FFFD.
std::string json_line(const nlohmann::json& object);

}  // namespace ocelli::app
