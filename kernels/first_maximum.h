// The likeliest token's place among its logits.
#pragma once

#include <cstdint>
#include <span>

namespace ocelli::kernels {

// What stands for a place where there is none.
inline constexpr int32_t kNoMaximum = -1;

// The index of the first of the largest of `values`; kNoMaximum when one is NaN or +infinity, or
// the largest is -infinity.
int32_t first_maximum(std::span<const float> values);

}  // namespace ocelli::kernels
