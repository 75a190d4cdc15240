// Sixteen-bit floats as types of their own, so that loads can be overloaded on what they widen.
#pragma once

#include <cstdint>

namespace ocelli::kernels::cpu {

struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};

}  // namespace ocelli::kernels::cpu
