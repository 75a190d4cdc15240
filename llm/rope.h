// The table of rotary position embeddings that Ops::rope reads.
#pragma once

#include "kernels/ops.h"

namespace ocelli::llm {

// [positions, dims]: cos(p · θ^(−2i/dims)) for i < dims/2, then the sines, computed in fp32 as the
// reference implementation does.
kernels::Tensor make_rope_table(kernels::Ops& ops, int positions, int dims, float theta);

}  // namespace ocelli::llm
