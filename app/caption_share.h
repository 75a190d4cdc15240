// What --shard makes of a caption run: which of the pictures are captioned, and into which files.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/caption_inputs.h"
#include "app/caption_outputs.h"
#include "app/caption_tables.h"
#include "app/shard.h"

namespace ocelli::app {

// The shard that `text` names (none where it is empty). Throws UsageError when it names none, and
// when the outputs are of formats of which there are no parts: those are made of the parts.
std::optional<Shard> find_share(const std::string& text, const CaptionOutputOptions& outputs);

// Keeps the pictures that the shard holds.
void keep_share(const Shard& shard, CaptionInputs& inputs);

// Where the shard writes what a whole run would write to `path`; standard output, devices and pipes
// stay what they are, and so does an empty path. Throws UsageError when parts of another split are
// there.
std::string share_path(const std::string& path, const Shard& shard);
void name_shares(std::vector<CaptionTable>& tables, const Shard& shard);

// "shard 3/8: "; empty where there is none.
std::string share_label(const std::optional<Shard>& shard);

}  // namespace ocelli::app
