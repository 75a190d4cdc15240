// One machine's share of a run: `--shard 2/8`, and the names of the files that shares are kept in.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/launcher.h"

namespace ocelli::app {

// Share `index` of `count`; shares count from 1, so that the last of eight is 8/8.
struct Shard {
  int index = 1;
  int count = 1;

  // Whether this shard does the picture `path`, spelled as the inputs name it. Every path belongs
  // to exactly one shard of a count: number 1 + h % count, where h are the first 8 bytes of the
  // SHA-256 of the path's bytes as a big-endian number. That hash is part of the format: it depends
  // on no other path, on no machine and on no version of this program, so that no work moves
  // between shards when pictures come or go.
  bool holds(std::string_view path) const;

  bool operator==(const Shard&) const = default;
};

// "2/8"
std::string to_text(const Shard& shard);

// What `--shard TEXT` means:
//   2/8              the second of eight
//   auto             what the launcher's environment says (launcher.h)
//   auto/8           the same, with the number of shards stated
//   slurm, slurm/8   the same, of one launcher among several
// Throws UsageError when it means nothing, or when the environment is silent or ambiguous.
Shard parse_shard(const std::string& text, const Environment& environment);

// Where a shard of the run whose whole output is `output` writes: "a/captions.jsonl" becomes
// "a/captions.part-2-of-8.jsonl".
std::string part_path(const std::string& output, const Shard& shard);

// What the name of a part says.
struct PartName {
  std::string output;  // of the whole run
  Shard shard;
};

// The reverse of part_path(); nothing for the name of any other file. A name may also begin with
// "part-": the run's output is then "captions" with the part's extension.
std::optional<PartName> parse_part_path(const std::string& path);

// The parts of a run whose whole output is `output`, of whatever split: those that are there.
std::vector<std::string> find_parts(const std::string& output);

// Throws UsageError when beside `output` there are parts of a run split into another number of
// shards: an array that was submitted again for a few of its tasks would do other pictures than
// those that are missing.
void require_same_split(const std::string& output, const Shard& shard);

}  // namespace ocelli::app
