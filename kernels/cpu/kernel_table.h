// One set of inner kernels per instruction set, behind one table of function pointers.
//
// A kernel works on a rectangle of one operation in one thread; which rectangles there are, and who
// computes them, is decided above. For a given instruction set every output depends on its own
// inputs alone, never on the rectangle it was computed in: a row gives the same bits in any batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace ocelli::kernels::cpu {

// A matrix of fp32 in memory, or, where it says so, of fp16, bf16 or int8.
struct Rows {
  std::byte* data = nullptr;
  int64_t stride = 0;  // elements from one row to the next
  DType dtype = DType::kF32;

  // Always inlined, as files compiled for different instruction sets share them.
  [[gnu::always_inline]] float* f32(int64_t row) const {
    return reinterpret_cast<float*>(data) + row * stride;
  }
  [[gnu::always_inline]] Rows from(int64_t row, int64_t col) const {
    const int bytes = dtype == DType::kF32 ? 4 : dtype == DType::kI8 ? 1 : 2;
    return {data + (row * stride + col) * bytes, stride, dtype};
  }
};

// out[r][n] ← epilogue(Σ_k x[r][k] · weight[n][k] + bias[n]) for `rows` rows and `outputs` outputs.
struct LinearBlock {
  Rows x;
  Rows weight;                  // fp32, fp16 or bf16
  const float* bias = nullptr;  // null: none
  Rows out;                     // fp32, or bf16 where the epilogue does not read it
  int rows = 0;
  int inputs = 0;
  int outputs = 0;
  Epilogue epilogue = Epilogue::kStore;
};

// Rows of activations in int8, each group filled up with zeros to whole steps of 4 (packing.h).
//
// Either row after row, or in tiles: 16 rows at a time, line by line of 64 inputs, as AMX takes
// them: [16 rows of stride bytes each: [stride / 64][16][64]]. Groups fill whole lines then.
struct QuantisedRows {
  int8_t* values = nullptr;
  float* scales = nullptr;         // [rows][groups]
  int32_t* corrections = nullptr;  // [rows][groups], −128 · the sum of the group's values
  int64_t stride = 0;              // bytes of a row
  int groups = 0;
  bool tiles = false;
  // For a product with int4: [rows][sum_groups], the sums of the values that share a factor.
  int32_t* sums = nullptr;
  int sum_groups = 0;

  // These rows from `row` on: in tiles, a multiple of 16, or one row alone.
  [[gnu::always_inline]] QuantisedRows from(int64_t row) const {
    int8_t* start = values + (tiles ? row / kTileRows * kTileRows * stride + row % kTileRows * kLine
                                    : row * stride);
    return {start,
            scales + row * groups,
            corrections + row * groups,
            stride,
            groups,
            tiles,
            sums + row * sum_groups,
            sum_groups};
  }
  // Value `i` of the first row, i counting what groups are filled up with.
  [[gnu::always_inline]] int8_t* at(int64_t i) const {
    return values + (tiles ? i / kLine * kLine * kTileRows + i % kLine : i);
  }

  static constexpr int kTileRows = 16;
  static constexpr int kLine = 64;
};

// `values` may be read up to a multiple of this many rows: what stands there is not used.
inline constexpr int kQuantisedRowBlock = 32;

// In tiles: bytes of scratch for a block of so many rows and outputs.
inline constexpr int64_t tiled_scratch(int rows, int outputs) {
  constexpr int64_t kSums = int64_t{32} * 32 * int64_t{sizeof(int32_t)};
  return int64_t{(rows + 31) / 32} * ((outputs + 31) / 32) * kSums;
}

// The lines of a panel of int4, for whoever does not include packing.h.
struct Int4Lines {
  int steps = 0;
  int factor_lines = 0;  // lines of nibbles that share factors

  [[gnu::always_inline]] int of_nibbles() const { return (steps + 1) / 2; }
  // 16 bytes for each group.
  [[gnu::always_inline]] int of_factors() const {
    return ((of_nibbles() + factor_lines - 1) / factor_lines + 3) / 4;
  }
  [[gnu::always_inline]] int64_t panel_bytes() const {
    return int64_t{64} * (of_factors() + of_nibbles());
  }
};

// out[r][n] ← epilogue(x·W + bias) for `rows` quantised rows and `outputs` outputs of a packed
// matrix, from an output on that is a multiple of 16. Gives the same bits on every instruction set,
// as Ops::linear describes them, but for the activations.
struct Int8Block {
  QuantisedRows x;
  const uint8_t* values = nullptr;  // of the first panel; see packing.h
  const float* scales = nullptr;    // likewise
  const float* bias = nullptr;      // null: none
  Rows out;
  int rows = 0;
  int outputs = 0;
  int steps = 0;  // in a group
  Epilogue epilogue = Epilogue::kStore;
  std::byte* scratch = nullptr;   // of a block in tiles: tiled_scratch(), on a cache line
  const uint8_t* next = nullptr;  // values that this thread may want next, as many as here
  int factor_lines = 0;           // of int4: lines of nibbles that share factors
  // The output is too large to be in a cache when it is read: it may be written past them.
  bool past_caches = false;
};

struct Int4Functions {
  // `linear` of Int8Functions for values of int4 and rows with sums.
  void (*linear)(const Int8Block& block);
  // One panel of int4, on a cache line, to `steps` lines of int8.
  void (*expand)(const uint8_t* panel, int steps, int factor_lines, uint8_t* out);
  // From so many rows on `expand` and the `linear` of int8 are faster.
  int expand_from = kExpandFrom;
  static constexpr int kExpandFrom = 16;  // where nothing else was found
};
// For expand_from: they never are.
inline constexpr int kNeverExpand = std::numeric_limits<int>::max();

// A row of activations of fp32 or bf16, and one of as many that is wanted after it.
struct InputRow {
  const std::byte* values = nullptr;
  const std::byte* next = nullptr;  // fetched meanwhile; a row without one is its own
  DType dtype = DType::kF32;
  int count = 0;
};

struct Int8Functions {
  // One row, of a multiple of `group` values, by the rule of Ops::linear.
  void (*quantise_row)(const InputRow& x, int group, const QuantisedRows& out);
  void (*linear)(const Int8Block& block);
  // Whether `linear` takes rows in tiles too.
  bool tiles = false;
  Int4Functions int4;
};

// Rows of activations rounded to bf16 and filled up with zeros to whole cache lines: either as
// fp32, row after row, or as bf16 in tiles like those of QuantisedRows.
struct Bf16Rows {
  std::byte* data = nullptr;
  int64_t stride = 0;  // bytes of a row
  bool tiles = false;

  // Values of a row, counting what it is filled up with.
  [[gnu::always_inline]] int64_t padded() const { return stride / (tiles ? 2 : 4); }
  // These rows from `row` on: in tiles, a multiple of 16, or one row alone.
  [[gnu::always_inline]] Bf16Rows from(int64_t row) const {
    constexpr int kRows = QuantisedRows::kTileRows;
    const int64_t in_tiles = row / kRows * kRows * stride + row % kRows * QuantisedRows::kLine;
    return {data + (tiles ? in_tiles : row * stride), stride, tiles};
  }
  // In tiles: value `i` of the first row.
  [[gnu::always_inline]] std::byte* tile_at(int64_t i) const {
    constexpr int kValues = QuantisedRows::kLine / 2;
    return data + i / kValues * QuantisedRows::kLine * QuantisedRows::kTileRows + i % kValues * 2;
  }
};

// out[r][n] ← epilogue(x·W + bias) for `rows` rounded rows and `outputs` outputs of a bf16 matrix
// in panels, from an output on that is a multiple of 16. Gives the same bits on every instruction
// set, as Ops::linear describes them, but for the activations.
struct Bf16Block {
  Bf16Rows x;
  const uint16_t* weights = nullptr;  // of the first panel; see pair_packing.h
  const float* bias = nullptr;        // null: none
  Rows out;
  int rows = 0;
  int outputs = 0;
  int steps = 0;  // pairs of inputs
  Epilogue epilogue = Epilogue::kStore;
  std::byte* scratch = nullptr;    // of a block in tiles: tiled_scratch()
  const uint16_t* next = nullptr;  // weights that this thread may want next, as many as here
  bool past_caches = false;        // as in Int8Block
};

struct Bf16Functions {
  // One row of n values.
  void (*round_row)(const InputRow& x, const Bf16Rows& out);
  void (*linear)(const Bf16Block& block);
  // Whether `linear` takes rows in tiles too.
  bool tiles = false;
};

// Attention merges the softmaxes of as many keys at a time, counted from position 0 on.
inline constexpr int kKeyBlock = 128;
// At most this many queries may share an AttentionBlock.
inline constexpr int kAttentionRows = 128;
// Up to here queries are computed one by one: packing the keys would cost more than it brings.
inline constexpr int kFewQueries = 6;
// So many queries more than there are may be computed to fill up tiles.
inline constexpr int kAttentionPadding = 16;

// Attention of Precision::kReduced packs so many keys at a time, and at most so many queries may
// share an AttentionBlock.
inline constexpr int kReducedKeys = 1024;
inline constexpr int kReducedRows = 1024;

// One head of attention for `rows` consecutive queries of one sequence, or for as many query heads
// of one token that share their keys.
struct AttentionBlock {
  Rows q;                   // [rows, head_dim]
  Rows keys;                // [visible, head_dim], fp32, fp16, or int8 with scales (ops.h)
  Rows values;              // likewise
  Rows out;                 // [rows, head_dim]
  float* scores = nullptr;  // scratch, 64-byte aligned: attention_scratch() floats
  float* parts = nullptr;   // [blocks of visible keys][rows][part_floats()], where split into parts
  int rows = 0;
  int head_dim = 0;
  int first_visible = 0;  // keys that query 0 sees
  int visible_step = 0;   // how many more each later query sees: 1 when causal, else 0
  float scale = 0;
  // What this thread is likely to be given next, to be fetched meanwhile: of as many rows.
  const std::byte* next_keys = nullptr;  // null: nothing
  const std::byte* next_values = nullptr;
};

// head_dim in whole vectors of any instruction set.
[[gnu::always_inline]] constexpr int padded_head(int head_dim) {
  return (head_dim + 15) / 16 * 16;
}

// Of a part of attention for one query, a block of keys: the largest score, the sum of the
// softmax's numerators, and from here on the values weighted with those.
inline constexpr int kPartHeader = 16;
[[gnu::always_inline]] constexpr int64_t part_floats(int head_dim) {
  return kPartHeader + padded_head(head_dim);
}

// The floats that AttentionBlock::scores has to have for any block over `capacity` keys: scores of
// one query with all keys, parts for few queries, or rows of q, out and scores with a packed block.
[[gnu::always_inline]] constexpr int64_t attention_scratch(int head_dim, int capacity) {
  const int64_t parts = (int64_t{capacity} / kKeyBlock + 1) * kFewQueries * part_floats(head_dim);
  const int64_t rows = kAttentionRows + kAttentionPadding;
  const int64_t tiles = rows * (2 * int64_t{padded_head(head_dim)} + kKeyBlock) +
                        (2 * kKeyBlock + 16) * int64_t{padded_head(head_dim)};
  const int64_t most = parts > tiles ? parts : tiles;
  return most > capacity ? most : capacity;
}

// A head's values in whole vectors, with a 1 behind them.
[[gnu::always_inline]] constexpr int reduced_width(int head_dim) {
  return padded_head(head_dim + 1);
}

// Likewise for attention of Precision::kReduced, whatever the capacity: packed keys and values,
// queries, scores, weights, and what is summed for each query.
[[gnu::always_inline]] constexpr int64_t reduced_scratch(int head_dim) {
  const int64_t lines = (padded_head(head_dim) + 31) / 32;
  const int64_t width = reduced_width(head_dim);
  const int64_t tiles =
      lines * kReducedKeys / 16 + width / 16 * kReducedKeys / 32 + 5 * lines + width / 16;
  return tiles * 256 + int64_t{kKeyBlock} * 80 + kReducedRows * (width + 2);
}

struct KernelTable {
  const char* isa;
  void (*linear)(const LinearBlock& block);
  void (*attention)(const AttentionBlock& block);
  // One row: out = (x − mean)/√(variance + ε)·weight + bias.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float epsilon, int n,
                     float* out);
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int n, float* out);
  // One head: pairs (i, i + half) of x by the cosines and sines of `angles`.
  void (*rope)(float* x, const float* angles, int half);
  // out += x
  void (*add)(const float* x, int n, float* out);
  // Between fp32 and fp16 (rounded to nearest, even) or bf16 (to fp32 only).
  void (*to_f32)(DType dtype, const std::byte* x, int n, float* out);
  void (*to_f16)(const float* x, int n, uint16_t* out);
  // A head of n values for a cache of kI8 (ops.h): n int8, and their scale behind them.
  void (*to_i8)(const float* x, int n, int8_t* out);
  Int8Functions int8;
  Bf16Functions bf16;
  // `attention` for at most kFewQueries queries in two steps: one block of keys into block.parts,
  // in any order, by any thread; and all of the parts into block.out. Null: there is no such split.
  void (*attention_part)(const AttentionBlock& block, int index) = nullptr;
  void (*attention_finish)(const AttentionBlock& block) = nullptr;
  // Whether rows that wait for a quantised or rounding product had best do so in bf16.
  bool waits_in_bf16 = false;
  // The index of the first of the largest of n values, n at least 1, and in `largest` itself; NaN
  // there when one is NaN or +infinity. Null: there is no such kernel.
  int (*first_largest)(const float* x, int n, float* largest) = nullptr;
  // `attention` of Precision::kReduced, for up to kReducedRows queries and with reduced_scratch()
  // floats of scratch. Null: what is exact serves.
  void (*attention_reduced)(const AttentionBlock& block) = nullptr;
};

// The instruction sets compiled in that this machine can run, slowest first; before them, what is
// there for tests.
const std::vector<const KernelTable*>& supported_tables();

// The table called `isa`, or the fastest when it is empty. Throws host::Error naming those there
// are.
const KernelTable& select_table(const std::string& isa);

}  // namespace ocelli::kernels::cpu
