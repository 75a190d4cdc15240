// What AVX-512's products of int8 and of int4 have in common: VNNI's sums of four products of
// bytes. Included like int8_kernels.h, under the same rules.
#pragma once

#include <cstring>

#include "kernels/cpu/isa/vec_avx512.h"

namespace ocelli::kernels::cpu {
namespace {

struct VnniAvx512 {
  using Vec = VecAvx512;
  using Int = __m512i;
  using Inputs = __m512i;

  static Int set1(int32_t x) { return _mm512_set1_epi32(x); }
  static Vec::V to_float(Int x) { return _mm512_cvtepi32_ps(x); }
  static Inputs broadcast(const int8_t* p) {
    int32_t inputs;
    std::memcpy(&inputs, p, sizeof inputs);
    return _mm512_set1_epi32(inputs);
  }
  static __m512i load(const uint8_t* p) { return _mm512_load_si512(p); }
  static Int dot(Int sums, __m512i w, Inputs x) {
    // Not the intrinsic: around it GCC 12 copies every sum to and fro.
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(x));
    return sums;
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
