// Products of int8 in the compiler's own vector type; little-endian.
#pragma once

#include <cstring>

#include "kernels/cpu/isa/int8_kernels.h"
#include "kernels/cpu/isa/vec_portable.h"

namespace ocelli::kernels::cpu {
namespace {

struct Int8Portable {
  using Vec = VecPortable;
  typedef int32_t Int __attribute__((vector_size(16)));
  typedef uint32_t Weights __attribute__((vector_size(16)));
  struct Inputs {
    int32_t k[4];
  };
  static constexpr int kPanels = 1;
  static constexpr int kManyPanels = 1;
  static constexpr int kManyRows = 4;

  static Int set1(int32_t x) { return Int{x, x, x, x}; }
  static Vec::V to_float(Int x) { return __builtin_convertvector(x, Vec::V); }
  static Weights load(const uint8_t* p) {
    Weights w;
    std::memcpy(&w, p, sizeof w);
    return w;
  }
  static Inputs broadcast(const int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
  // Sums may pass through numbers that do not fit; unsigned arithmetic wraps back.
  static Int dot(Int sums, Weights w, const Inputs& x) {
    const Weights products = (w & 255U) * static_cast<uint32_t>(x.k[0]) +
                             ((w >> 8) & 255U) * static_cast<uint32_t>(x.k[1]) +
                             ((w >> 16) & 255U) * static_cast<uint32_t>(x.k[2]) +
                             (w >> 24) * static_cast<uint32_t>(x.k[3]);
    return (Int)((Weights)sums + products);
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
