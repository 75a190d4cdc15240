// The seam: everything a model asks of a machine, one virtual call per weight matrix.
//
// A backend implements Ops; vision, connector and llm are written against it and never know which
// machine runs them. Operations run in order and may be asynchronous: only read() waits.
// Activations are fp32 matrices [rows, features]; one row is one image patch or one token.
//
// Shapes, dtypes and bounds are the caller's promise: every backend checks them with
// kernels/op_checks.h, which aborts, never with an exception.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/tensor.h"

namespace ocelli::kernels {

// A run of rows of an activation that belong to one sequence: x[first_row, first_row + rows)
// continue `sequence`, which already holds `past` positions in the cache. Row i stands at position
// past + i.
struct Segment {
  int sequence = 0;
  int first_row = 0;
  int rows = 0;
  int past = 0;
  // Its rows are tokens that were sampled, one a step: their attention, which takes as long as
  // reading the cache does, is exact at any Precision. Rows of a prompt may come in any pieces.
  bool sampled = false;
};

// Where a tensor is wanted, on machines whose memory has banks.
enum class Placement { kActivation, kWeight, kKeys, kValues };

// What a linear operation does with y = x·Wᵀ + b before it reaches `out`.
enum class Epilogue {
  kStore,       // out = y
  kAccumulate,  // out += y
  kMultiply,    // out *= y
  kGeluTanh,    // out = gelu(y), the tanh form: 0.5y(1 + tanh(√(2/π)(y + 0.044715y³)))
  kGeluErf,     // out = gelu(y), the exact form: 0.5y(1 + erf(y/√2))
  kSilu,        // out = y / (1 + e^−y)
};
// Whether what `out` holds before counts. Inlined wherever it is called, for kernels/cpu/isa's sake
// (kernels.h there).
[[gnu::always_inline]] constexpr bool reads_output(Epilogue epilogue) {
  return epilogue == Epilogue::kAccumulate || epilogue == Epilogue::kMultiply;
}

// A weight matrix and its bias, placed and laid out as the backend that loaded it likes.
class LinearWeights {
 public:
  LinearWeights(int input_features, int output_features)
      : inputs(input_features), outputs(output_features) {}
  virtual ~LinearWeights() = default;
  const int inputs;
  const int outputs;
};
using Linear = std::shared_ptr<const LinearWeights>;

// What a Linear is loaded from: matrices [outputs_i, inputs] stacked by rows, with a bias
// [outputs_i] each, or no biases at all. Stacking makes q, k and v one product. The matrices are of
// fp32, fp16 or bf16, or all of them of bf16 in panels, or all of them quantised, with the same
// layout and the same group of at most kLargestGroup.
struct LinearSource {
  std::vector<HostTensor> weights;
  std::vector<HostTensor> biases;

  // Without the first `count` matrices.
  LinearSource from(size_t count) const;
};

// weight and bias are [1, features]; an RMSNorm has no bias.
struct Norm {
  Tensor weight;
  Tensor bias;
  float epsilon = 1e-5F;
};

// One of several products of the same rows x: out ← epilogue(x·Wᵀ + b), and where a gate is present
// (SwiGLU) then out ← out · gate(x).
struct Projection {
  Linear weights;
  Linear gate;
  Tensor out;
  Epilogue epilogue = Epilogue::kStore;
};

// A product that is summed with others.
struct Term {
  Tensor x;
  Linear weights;
};

// How closely attention is computed for segments that are not `sampled`. A backend may always be
// exact.
enum class Precision {
  kExact,  // as fp32 has it
  // As of queries, keys and values rounded to bf16, their softmax's weights to 2^−7: what comes out
  // is wrong by up to 2^−6.5 of the largest value, and by what rounding queries and keys costs.
  // That is a seventh of what they are wrong by as products of 8-bit activations.
  kReduced,
};

// softmax(scale · q·kᵀ)·v for each head. A query head h reads key-value head h / (heads /
// kv_heads).
struct AttentionShape {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 0;     // not negative
  bool causal = true;  // row i sees the past and rows 0…i; otherwise it sees the past and every row
  int capacity = 0;    // positions that each sequence has room for in `keys` and `values`
  Precision precision = Precision::kExact;
  // Whether `keys` and `values` are caches. Otherwise they are activations, with heads side by side
  // and sequences one under the other: [sequences · capacity, kv_heads · head_dim].
  bool cached = true;
};

// What suits queries, keys and values that are products with these matrices: with quantised ones
// they are themselves only as good as 8-bit activations, with bf16 in panels as bf16.
Precision attention_precision(const LinearSource& qkv);

// A cache of keys or values holds a head's positions one under the other, so that attention reads
// memory from one end to the other: [sequences · kv_heads · capacity, columns of a head]. It is of
// kF32, of kF16, or of kI8: then a row is head_dim values and, in the next kScaleColumns columns,
// the bytes of their scale, an fp32; a value stands for itself times the scale.
inline constexpr int kScaleColumns = sizeof(float);
constexpr int scale_columns(DType dtype) {
  return dtype == DType::kI8 ? kScaleColumns : 0;
}
// Columns of a cache with heads of `head_dim`.
constexpr int cache_columns(int head_dim, DType dtype) {
  return head_dim + scale_columns(dtype);
}
// The row of a cache where position 0 of a sequence's head is.
constexpr int64_t cache_row(int kv_heads, int capacity, int sequence, int kv_head) {
  return (int64_t{sequence} * kv_heads + kv_head) * capacity;
}

// Where position 0 of a sequence's head is in `keys` and `values`; the next ones are below it.
struct HeadPlace {
  int64_t row;
  int col;
};
constexpr HeadPlace head_place(const AttentionShape& shape, int sequence, int kv_head) {
  if (shape.cached) return {cache_row(shape.kv_heads, shape.capacity, sequence, kv_head), 0};
  return {int64_t{sequence} * shape.capacity, kv_head * shape.head_dim};
}

// A decoder layer's keys and values: caches of one shape and dtype.
struct LayerCache {
  Tensor keys;
  Tensor values;
  int kv_heads = 0;
  int head_dim = 0;
  int capacity = 0;  // positions that each sequence has room for
};

// Up to here the sum of a group's products, each at most 127 · 128, fits 32 bits.
inline constexpr int kLargestGroup = 1 << 17;

class Ops {
 public:
  virtual ~Ops() = default;
  virtual const char* name() const = 0;

  // --- Memory ---

  // Places a weight matrix. The source's memory must stay valid for the life of the result: a
  // backend may read it in place. Throws host::Error when the machine's memory does not hold it.
  virtual Linear load_linear(const LinearSource& source) = 0;
  // Places a tensor of one or two dimensions that is read row by row (a norm's weight as [1, n], an
  // embedding table). Same promise about the source's memory; the dtype may change to fp32. That of
  // a quantised matrix may stay kI8: only embed() knows its scales then.
  virtual Tensor load(const HostTensor& source) = 0;
  // What x of products with these matrices had best be of where it is a product itself: kF32, or
  // kBF16, which is half as much to pass through memory, where rounding to it loses nothing beside
  // what the product does to x.
  virtual DType input_dtype(const Linear& weights) const;
  // A new matrix with undefined contents. Throws host::Error when the memory does not hold it.
  virtual Tensor tensor(int rows, int cols, DType dtype, Placement placement) = 0;
  // Copies rows · cols values, row-major, into or out of a tensor, converting to and from its
  // dtype; to kI8 go integers that fit.
  virtual void write(std::span<const float> source, const Tensor& target) = 0;
  virtual void read(const Tensor& source, std::span<float> target) = 0;

  // --- Operations; `out` never overlaps an input unless its comment says so ---

  // out[i] = table[rows[i]], as fp32: token embeddings, or the selection of rows of an activation.
  virtual void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) = 0;
  // out ← epilogue(x·Wᵀ + b); x is [rows, inputs], out is [rows, outputs]. Both are of fp32; x may
  // be of kBF16 where input_dtype() says so. A backend that ever does takes an `out` of kBF16, too,
  // where the epilogue does not read it: values are rounded to nearest, even, and those below
  // 2^−126 may become 0.
  //
  // Where W is quantised, x is quantised too, row by row in W's groups, as llama2.c's runq.c does:
  //   xs = max|x| / 127 over the group;  xq = x / xs, rounded to nearest, halves away from zero
  // (xq = 0 where xs = 0). Then, with the products of a group summed in integers, and the
  // groups in ascending order in fp32, every operation rounded for itself,
  //   y[r][n] = Σ_g float(Σ_{k∈g} xq[r][k] · wq[n][k]) · ws[n][g] · xs[r][g];  y += b.
  // These bits are the same on every backend; only the activations' may differ. NaN or infinity in
  // x makes its group's xs NaN and thereby all of its row's outputs. Where max|x| is so small
  // that xs is a denormal and x / xs leaves the range, xq ends at ±127.
  //
  // Where W is of bf16 in panels, x is rounded to bf16, to nearest, even, and products, which are
  // exact, are summed in fp32, for blocks b of 32 inputs apart, even and odd inputs apart, in
  // ascending order, every sum rounded for itself:
  //   y[r][n] = Σ_b (Σ_{even k∈b} x[r][k] · w[n][k] + Σ_{odd k∈b} x[r][k] · w[n][k]);  y += b.
  // These bits, too, are the same on every instruction set and the reference, while no product or
  // sum but 0 is smaller than 1e-30; a device may take x as it is and sum in another order.
  virtual void linear(const Tensor& x, const Linear& weights, const Tensor& out,
                      Epilogue epilogue) = 0;
  // (x − mean)/√(variance + ε)·weight + bias over each row. x and out may be the same.
  virtual void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) = 0;
  // x/√(mean(x²) + ε)·weight over each row. x and out may be the same.
  virtual void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) = 0;
  // Rotates, in place, the first d dimensions of every head (of head_dim columns) of x: pairs
  // (i, i + d/2) by the angle of their row's position. `table` is [positions, d]: d/2 cosines, then
  // d/2 sines.
  virtual void rope(const Tensor& x, int head_dim, const Tensor& table,
                    std::span<const Segment> segments) = 0;
  // Copies the rows of each segment, head by head, to positions past … of its sequence in `cache`,
  // in its dtype; a row of x is [kv_heads · head_dim], as the columns of both say. For a cache of
  // kI8 every head is quantised by the rule that linear() has for a group of x, to the same bits on
  // every backend.
  virtual void append(const Tensor& x, const Tensor& cache, int capacity,
                      std::span<const Segment> segments) = 0;
  // out[r] = attention of row r of q over its sequence's keys and values, of which there are
  // past + rows, this segment's own included.
  virtual void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                         const AttentionShape& shape, std::span<const Segment> segments,
                         const Tensor& out) = 0;
  // out += x; when x has fewer rows than out it repeats (out.rows is a multiple of x.rows).
  virtual void add(const Tensor& x, const Tensor& out) = 0;

  // --- Compound operations, with a body in terms of the others ---

  // columns[r] = first_maximum() of row r of x (kernels/first_maximum.h), which is of fp32. Waits,
  // as read() does. `scratch` has room for a row.
  virtual void argmax(const Tensor& x, std::span<float> scratch, std::span<int32_t> columns);
  // Computes every projection of norm(x), or of x itself where `norm` is null: what norm and linear
  // operations give, with x quantised once. A norm without a bias is an RMSNorm. `normed` is
  // scratch [rows, inputs] for it, and may be x, whose values are lost then. No `out` overlaps
  // another.
  virtual void project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
                       const Tensor& normed);
  // out += the terms' products and biases, one after the other.
  virtual void linear_sum(std::span<const Term> terms, const Tensor& out);
  // What rope() of q and k gives, and then append() of k and of v; where `angles`, rope's table, is
  // null, nothing is rotated. qkv is [rows, (heads + 2 · kv_heads) · head_dim]: queries, keys and
  // values side by side; there may be no queries. They are rotated in place; in the segments' rows
  // of k anything may be left. v is as it was.
  virtual void append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                              std::span<const Segment> segments);

 protected:
  // layer_norm, or rms_norm where the norm has no bias.
  void normalise(const Tensor& x, const Norm& norm, const Tensor& out);
};

// What rows that wait for a product with each layer's `weights` had best be of: kBF16 where
// Ops::input_dtype says so of all of them, else kF32.
template <typename Layer>
DType input_dtype(const Ops& ops, const std::vector<Layer>& layers, Linear Layer::*weights) {
  const bool in_bf16 = std::ranges::all_of(
      layers, [&](const Layer& layer) { return ops.input_dtype(layer.*weights) == DType::kBF16; });
  return in_bf16 ? DType::kBF16 : DType::kF32;
}

}  // namespace ocelli::kernels
