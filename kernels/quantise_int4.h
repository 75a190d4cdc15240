// Floats to int4: a weight is scale · factor · value, with one fp32 scale for a row and one integer
// factor for each group of it, so that factor · value is an int8.
#pragma once

#include <cstdint>

namespace ocelli::kernels {

// Factors are −15 … 15, values −8 … 7; their products are int8.
inline constexpr int kLargestFactor = 15;
inline constexpr int kLeastInt4 = -8;
inline constexpr int kLargestInt4 = 7;

// Where a row of int4 goes.
struct Int4Row {
  int8_t* values;   // as many as inputs
  int8_t* factors;  // one a group
  float* scale;
};

// Quantises the `count` values of a row in groups of `group`, a multiple of 8; the last may be
// shorter. Searches scale and factors for the least squared error, in the same order everywhere, so
// that the result depends on the values alone. Returns false when a value is NaN or infinite.
bool quantise_int4_row(const float* x, int count, int group, const Int4Row& out);

}  // namespace ocelli::kernels
