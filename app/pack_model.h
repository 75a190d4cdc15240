// Models made int8, int4 or bf16: into a packed file (docs/weight-format.md), or in memory for one
// run.
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

// The decoder's last matrix: int8, int4, or in 16 bits (bf16 stays what it is). kBf16 goes with
// PackSettings::bf16 and packs it as the others.
enum class HeadFormat { kInt8, kF16, kInt4, kBf16 };

// The decoder's embeddings: as they are, of 16 bits, or int8.
enum class EmbeddingFormat { kSource, kF16, kInt8 };

// Values that share a factor of int4 where nobody says how many.
inline constexpr int kUsualFactorGroup = 64;

struct PackSettings {
  // int8: values that share a scale; 0, or where it does not divide a row: the row.
  int group = 0;
  // The decoder's matrices are int4 whose factors are shared by so many values; 0: int8 too.
  int factor_group = 0;
  bool bf16 = false;  // all matrices become bf16; neither group then
  HeadFormat head = HeadFormat::kInt8;
  EmbeddingFormat embedding = EmbeddingFormat::kSource;
  std::optional<std::filesystem::path> tokenizer;  // none: the model's own
};

// "int8", "int4", "bf16"
const char* weights_name(const PackSettings& settings);
// "int8", "f16", "int4", "bf16"
const char* head_name(HeadFormat head);
// "source", "f16", "int8"
const char* embedding_name(EmbeddingFormat embedding);

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
