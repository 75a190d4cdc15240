// Packed forms of models that are not packed, kept in the user's cache directory from first use on.
#pragma once

#include <filesystem>
#include <optional>

#include "app/pack_model.h"

namespace ocelli::app {

struct CacheOptions {
  PackSettings settings;
  int threads = 0;  // 0: as many as the process may run on
  bool quiet = false;
};

// The packed form of the model at `path`, in $XDG_CACHE_HOME/ocelli (~/.cache/ocelli): made now,
// which is said on standard error, where none is there for this path and these settings or a file
// of the model has another size or time than it had. Nothing, which is said as well, when no cache
// can be written. Throws host::Error for a model that cannot be packed.
std::optional<std::filesystem::path> cached_model(const std::filesystem::path& path,
                                                  const CacheOptions& options);

// Packs `model` into the file `target`, which appears whole or not at all, with a progress bar.
// Throws host::Error also when the disk has too little space, and Exit after Ctrl-C.
PackedSizes pack_into_file(const OpenedModel& model, const PackSettings& settings, int threads,
                           const std::filesystem::path& target, bool quiet);

}  // namespace ocelli::app
