#include "app/caption_share.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/terminal.h"

namespace ocelli::app {

std::optional<Shard> find_share(const std::string& text, const CaptionOutputOptions& outputs) {
  if (text.empty()) return std::nullopt;
  for (const CaptionFormat format : outputs.formats) {
    if (!is_table(format) || format == CaptionFormat::kJsonl) continue;
    const std::string& name = caption_format_names()[static_cast<size_t>(format)];
    throw UsageError(fmt::format(
        "--shard writes parts in JSON Lines: name the output so (-o captions.jsonl), and then "
        "make the table of all parts: ocelli merge --format {}",
        name));
  }
  return parse_shard(text, process_environment);
}

void keep_share(const Shard& shard, CaptionInputs& inputs) {
  std::erase_if(inputs.pictures,
                [&](const CaptionInput& picture) { return !shard.holds(picture.path); });
}

std::string share_path(const std::string& path, const Shard& shard) {
  if (path.empty() || is_stream(path)) return path;
  require_same_split(path, shard);
  return part_path(path, shard);
}

void name_shares(std::vector<CaptionTable>& tables, const Shard& shard) {
  for (CaptionTable& table : tables) table.path = share_path(table.path, shard);
}

std::string share_label(const std::optional<Shard>& shard) {
  return shard ? "shard " + to_text(*shard) + ": " : "";
}

}  // namespace ocelli::app
