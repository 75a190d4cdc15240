// Every operation as its definition reads, in double precision (but where ops.h says in which order
// fp32 is rounded): the oracle that fast code answers
// to, and the body of the emulated device's kernels. Callers have checked the operands
// (kernels/op_checks.h).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace ocelli::kernels::reference {

// A matrix in plain memory, of any dtype; element (r, c) stands at data[r * stride + c].
struct View {
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  int rows = 0;
  int cols = 0;
  int64_t stride = 0;

  float get(int64_t row, int col) const;
  void set(int64_t row, int col, float value) const;
};

void embed(const View& table, std::span<const int32_t> rows, const View& out);
// weight is [outputs, inputs]; bias is [1, outputs], or has no data.
void linear(const View& x, const View& weight, const View& bias, Epilogue epilogue,
            const View& out);
// Quantised weights: int8 values [outputs, inputs] and scales [outputs, groups].
struct QuantisedViews {
  View values;
  View scales;
};
void linear(const View& x, const QuantisedViews& weight, const View& bias, Epilogue epilogue,
            const View& out);
// A weight of bf16 in panels, here in rows of fp32.
void linear_bf16(const View& x, const View& weight, const View& bias, Epilogue epilogue,
                 const View& out);
void layer_norm(const View& x, const View& weight, const View& bias, float epsilon,
                const View& out);
void rms_norm(const View& x, const View& weight, float epsilon, const View& out);
void rope(const View& x, int head_dim, const View& table, std::span<const Segment> segments);
void append(const View& x, const View& cache, int capacity, std::span<const Segment> segments);
// The operands of attention, as Ops::attention describes them.
struct AttentionViews {
  View q;
  View keys;
  View values;
  View out;
};
void attention(const AttentionViews& views, const AttentionShape& shape,
               std::span<const Segment> segments);
void add(const View& x, const View& out);

}  // namespace ocelli::kernels::reference
