#include "llm/rope.h"

#include <cmath>
#include <vector>

namespace ocelli::llm {

kernels::Tensor make_rope_table(kernels::Ops& ops, int positions, int dims, float theta) {
  const int half = dims / 2;
  std::vector<float> table(static_cast<size_t>(positions) * dims);
  for (int i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dims);
    const float frequency = 1.0F / std::pow(theta, exponent);
    for (int p = 0; p < positions; ++p) {
      const float angle = static_cast<float>(p) * frequency;
      float* row = table.data() + static_cast<size_t>(p) * dims;
      row[i] = std::cos(angle);
      row[half + i] = std::sin(angle);
    }
  }
  kernels::Tensor tensor =
      ops.tensor(positions, dims, kernels::DType::kF32, kernels::Placement::kWeight);
  ops.write(table, tensor);
  return tensor;
}

}  // namespace ocelli::llm
