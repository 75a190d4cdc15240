// What a packed model says of its matrices of bf16 in panels; docs/weight-format.md describes it.
#pragma once

#include <string>

#include "kernels/safetensors.h"

namespace ocelli::kernels {

// Turns the tensors that "ocelli.bf16" names, if there is such an entry, into matrices in panels.
// Throws host::Error that begins with `where` when one is missing, of another shape, or not at a
// cache line.
void take_pairs(SafetensorsContents& contents, const std::string& where);

}  // namespace ocelli::kernels
