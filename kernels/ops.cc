#include "kernels/ops.h"

namespace ocelli::kernels {

void Ops::mlp(const Tensor& x, const Mlp& mlp, const Tensor& hidden, const Tensor& out) {
  linear(x, mlp.fc1, hidden, mlp.activation);
  if (mlp.gate) linear(x, mlp.gate, hidden, Epilogue::kMultiply);
  linear(hidden, mlp.fc2, out, Epilogue::kAccumulate);
}

}  // namespace ocelli::kernels
