// Floats to int8: one fp32 scale for each group of a row, symmetric around zero.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace ocelli::kernels {

// The group that a row of `inputs` is quantised in where `wanted` is asked for: all of the row when
// that is 0 or does not divide it.
int fitting_group(int wanted, int64_t inputs);

// Quantises `count` values in groups of `group`, which divides it, by the rule of Ops::linear:
// scale = max|x| / 127, value = x / scale rounded to nearest, halves away from zero; a group of
// zeros has a scale of 0. Returns false, with nothing of use in `values` and `scales`, when a value
// is NaN or infinite.
bool quantise_row(const float* x, int64_t count, int group, int8_t* values, float* scales);

// Throws host::Error: the matrix cannot be quantised because it holds NaN or infinity.
[[noreturn]] void refuse_non_finite(const HostTensor& matrix);

}  // namespace ocelli::kernels
