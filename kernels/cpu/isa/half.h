// Narrow numbers as types of their own, so that loads can be overloaded on what they widen.
#pragma once

#include <cstdint>

namespace ocelli::kernels::cpu {

struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};
struct Int8 {
  int8_t value;
};

// Whether keys and values of this type have scales behind them (ops.h).
template <typename T>
inline constexpr bool kScaled = false;
template <>
inline constexpr bool kScaled<Int8> = true;

}  // namespace ocelli::kernels::cpu
