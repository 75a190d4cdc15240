#include <cstring>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/int8_kernels.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/vec_avx512.h"

namespace ocelli::kernels::cpu {
namespace {

// A line is one operand of VPDPBUSD.
struct Int8Avx512 {
  using Vec = VecAvx512;
  using Int = __m512i;
  using Weights = __m512i;
  using Inputs = __m512i;
  static constexpr int kPanels = 4;
  // 24 sums for 2 + 12 loads.
  static constexpr int kManyPanels = 2;
  static constexpr int kManyRows = 12;

  static Int set1(int32_t x) { return _mm512_set1_epi32(x); }
  static Vec::V to_float(Int x) { return _mm512_cvtepi32_ps(x); }
  static Weights load(const uint8_t* p) { return _mm512_load_si512(p); }
  static Inputs broadcast(const int8_t* p) {
    int32_t inputs;
    std::memcpy(&inputs, p, sizeof inputs);
    return _mm512_set1_epi32(inputs);
  }
  static Int dot(Int sums, Weights w, Inputs x) {
    // Not the intrinsic: around it GCC 12 copies every sum to and fro.
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(x));
    return sums;
  }
};

using Avx512 = Int8Kernels<Int8Avx512, Activations<VecAvx512>>;

}  // namespace

void quantise_row_avx512(const InputRow& x, int group, const QuantisedRows& out) {
  Avx512::quantise_row(x, group, out);
}
void linear_int8_avx512(const Int8Block& block) {
  Avx512::linear(block);
}

}  // namespace ocelli::kernels::cpu
