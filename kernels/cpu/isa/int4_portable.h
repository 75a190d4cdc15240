// Products of nibbles in the compiler's own vector type; little-endian.
#pragma once

#include "kernels/cpu/isa/int4_kernels.h"
#include "kernels/cpu/isa/vec_portable.h"

namespace ocelli::kernels::cpu {
namespace {

struct Int4Portable {
  using Vec = VecPortable;
  // Unsigned, because sums may pass through numbers that do not fit, and come back.
  typedef uint32_t Int __attribute__((vector_size(16)));
  typedef int32_t Signed __attribute__((vector_size(16)));
  using Nibbles = Int;
  using Partial = Int;
  struct Inputs {
    uint32_t k[4];
  };
  static constexpr int kPanels = 1;
  static constexpr int kRows = 1;

  static Int load(const uint8_t* p) {
    Int words;
    std::memcpy(&words, p, sizeof words);
    return words;
  }
  static Nibbles low(const uint8_t* p) { return load(p) & 0x0F0F0F0FU; }
  static Nibbles high(const uint8_t* p) { return (load(p) >> 4) & 0x0F0F0F0FU; }
  static Inputs broadcast(const int8_t* p) {
    Inputs inputs;
    for (int i = 0; i < 4; ++i) inputs.k[i] = static_cast<uint32_t>(int32_t{p[i]});
    return inputs;
  }
  static Partial dot(Partial sums, Nibbles w, const Inputs& x) {
    return sums + (w & 255U) * x.k[0] + ((w >> 8) & 255U) * x.k[1] + ((w >> 16) & 255U) * x.k[2] +
           (w >> 24) * x.k[3];
  }
  static Int factors(const uint8_t* p) {
    Int result;
    for (int i = 0; i < 4; ++i) {
      result[i] = static_cast<uint32_t>(int32_t{static_cast<int8_t>(p[i])});
    }
    return result;
  }
  static Int set1(int32_t x) { return Int{} + static_cast<uint32_t>(x); }
  static Int add(Int a, Int b) { return a + b; }
  static Int multiply(Int a, Int b) { return a * b; }
  static Vec::V to_float(Int x) { return __builtin_convertvector((Signed)x, Vec::V); }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
