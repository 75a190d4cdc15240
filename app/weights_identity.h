// The weights of a model by their content.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "app/model.h"

namespace ocelli::app {

// A checksum of every tensor whose name begins with `prefix`, by name, with dtype and shape. Reads
// them all, once, on `threads` (0: every core), except of a packed model, whose file has their
// checksums.
nlohmann::json weights_identity(const OpenedModel& model, const std::string& prefix, int threads);

}  // namespace ocelli::app
