#include "kernels/ops.h"

#include <algorithm>

#include "kernels/first_maximum.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels {

Precision attention_precision(const LinearSource& qkv) {
  return std::ranges::all_of(qkv.weights, &HostTensor::quantised) ? Precision::kReduced
                                                                  : Precision::kExact;
}

void Ops::argmax(const Tensor& x, std::span<float> scratch, std::span<int32_t> columns) {
  check_argmax(x, scratch.size(), columns.size());
  const auto row = scratch.first(x.cols);
  for (int r = 0; r < x.rows; ++r) {
    read(x.row_range(r, 1), row);
    columns[r] = first_maximum(row);
  }
}

void Ops::mlp(const Tensor& x, const Mlp& mlp, const Tensor& hidden, const Tensor& out) {
  linear(x, mlp.fc1, hidden, mlp.activation);
  if (mlp.gate) linear(x, mlp.gate, hidden, Epilogue::kMultiply);
  linear(hidden, mlp.fc2, out, Epilogue::kAccumulate);
}

}  // namespace ocelli::kernels
