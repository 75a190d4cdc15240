// Models made int8 or bf16: into a packed file (docs/weight-format.md), or in memory for one run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/model.h"
#include "host/thread_pool.h"

namespace ocelli::app {

// The decoder's last matrix: int8 like the others, or in 16 bits (bf16 stays what it is).
// Where the others are bf16 the first means that.
enum class HeadFormat { kInt8, kF16 };

struct PackSettings {
  int group = 0;      // values that share a scale; 0, or where it does not divide a row: the row
  bool bf16 = false;  // matrices become bf16; no group then
  HeadFormat head = HeadFormat::kInt8;
  std::optional<std::filesystem::path> tokenizer;  // none: the model's own
};

struct PackedSizes {
  int64_t source = 0;  // bytes of the weights that the model uses
  int64_t packed = 0;  // bytes of the file
};

// Where a packed file goes.
struct PackTarget {
  std::function<void(int64_t)> begin;           // called once, first, with the bytes to come
  std::function<void(std::string_view)> write;  // the next bytes
  std::function<void(int64_t)> progress;        // bytes of the file so far; may throw to end it all
};

// Quantises and packs a model that is not packed yet, one stack of matrices after another, so that
// memory holds one at a time. Matrices that are quantised already keep their values. Throws
// host::Error for a model that is packed, incomplete or holds NaN or infinity.
PackedSizes pack_model(const OpenedModel& model, const PackSettings& settings,
                       host::ThreadPool& pool, const PackTarget& target);

// Memory of packed matrices, of whatever kind.
using PackedMemory = std::vector<std::shared_ptr<const void>>;

// The same for weights in memory: those that are packed now lie in `memory`.
void pack_in_memory(ModelWeights& weights, const PackSettings& settings, host::ThreadPool& pool,
                    PackedMemory& memory);

}  // namespace ocelli::app
