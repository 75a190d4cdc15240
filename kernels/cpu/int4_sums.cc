#include "kernels/cpu/int4_sums.h"

#include <algorithm>

namespace ocelli::kernels::cpu {

void add_sums(const QuantisedRows& x, const PanelShape& shape) {
  const int end = shape.lines() * kInt4LineInputs;
  const int used = shape.steps() * kStepInputs;
  std::fill_n(x.values + used, end - used, int8_t{0});
  for (int g = 0; g < x.sum_groups; ++g) {
    const int first = g * shape.factor_group;
    int32_t sum = 0;
    for (int i = first; i < std::min(end, first + shape.factor_group); ++i) sum += x.values[i];
    x.sums[g] = sum;
  }
}

}  // namespace ocelli::kernels::cpu
