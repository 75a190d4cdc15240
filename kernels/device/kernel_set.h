// The kernels that DeviceOps launches, with their argument lists, and plain C++ bodies for the
// emulated device.
//
// A matrix is five arguments: its memory, dtype, rows, cols, stride. A segment is four: sequence,
// first_row, rows, past. After those:
//
//   embed       table, out, ids (memory of int32, one a row of out)
//   linear      x, weight [outputs, inputs], bias [1, outputs] (0 rows: none), out, epilogue
//   linear_int8 x, values [outputs, inputs], scales [outputs, groups], bias as above, out, epilogue
//   layer_norm  x, weight, bias, out, epsilon
//   rms_norm    x, weight, out, epsilon
//   rope        x, table, segment, head_dim
//   append      x, cache, segment, capacity
//   attention   q, keys, values, out, segment, heads, kv_heads, head_dim, causal, capacity, cached,
//               scale
//   add         x, out
#pragma once

#include <functional>
#include <map>
#include <string>

#include "host/emulated_device.h"

namespace ocelli::kernels {

// Bodies of the kernels above over the naive reference loops.
std::map<std::string, host::Kernel, std::less<>> emulated_kernels();

}  // namespace ocelli::kernels
