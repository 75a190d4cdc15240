#include <immintrin.h>

#include "kernels/cpu/isa/tiles_emulated.h"

namespace ocelli::kernels::cpu::amx_emulated {
namespace {

// MXCSR as TDPBF16PS computes whatever it is: exceptions masked, rounding to nearest, even,
// denormals flushed to zero and taken as zeros.
class TileArithmetic {
 public:
  TileArithmetic() : before_(_mm_getcsr()) { _mm_setcsr(0x9fc0); }
  ~TileArithmetic() { _mm_setcsr(before_); }
  TileArithmetic(const TileArithmetic&) = delete;
  TileArithmetic& operator=(const TileArithmetic&) = delete;

 private:
  unsigned before_;
};

// The even and the odd ones of a line of bf16, as fp32.
__m512 even_of(__m512i line) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(line, 16));
}
__m512 odd_of(__m512i line) {
  return _mm512_castsi512_ps(_mm512_and_si512(line, _mm512_set1_epi32(-65536)));
}

// Rows of a tile as fp32.
struct Halves {
  alignas(64) float even[16][16];
  alignas(64) float odd[16][16];
};

// R rows from `first` on.
template <int R>
void add_rows(const Halves& rows, const Tile& weights, int first, Tile& sums) {
  __m512 even[R];
  __m512 odd[R];
  for (int r = 0; r < R; ++r) even[r] = odd[r] = _mm512_setzero_ps();
  for (int k = 0; k < 16; ++k) {
    const __m512i line = _mm512_load_si512(weights.rows[k]);
    const __m512 even_weights = even_of(line);
    const __m512 odd_weights = odd_of(line);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      even[r] = _mm512_fmadd_ps(_mm512_set1_ps(rows.even[first + r][k]), even_weights, even[r]);
      odd[r] = _mm512_fmadd_ps(_mm512_set1_ps(rows.odd[first + r][k]), odd_weights, odd[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    auto* row = reinterpret_cast<float*>(sums.rows[first + r]);
    _mm512_store_ps(row, _mm512_add_ps(_mm512_load_ps(row), _mm512_add_ps(even[r], odd[r])));
  }
}

}  // namespace

void add_int8_products(const Tile& rows, const Tile& weights, Tile& sums) {
  __m512i totals[16];
  for (int m = 0; m < 16; ++m) totals[m] = _mm512_load_si512(sums.rows[m]);
  for (int k = 0; k < 16; ++k) {
    const __m512i line = _mm512_load_si512(weights.rows[k]);
#pragma GCC unroll 16
    for (int m = 0; m < 16; ++m) {
      int32_t four;
      __builtin_memcpy(&four, rows.rows[m] + k * sizeof four, sizeof four);
      totals[m] = _mm512_dpbusd_epi32(totals[m], line, _mm512_set1_epi32(four));
    }
  }
  for (int m = 0; m < 16; ++m) _mm512_store_si512(sums.rows[m], totals[m]);
}

void add_bf16_products(const Tile& rows, const Tile& weights, Tile& sums) {
  const TileArithmetic arithmetic;
  Halves halves;
  for (int m = 0; m < 16; ++m) {
    const __m512i line = _mm512_load_si512(rows.rows[m]);
    _mm512_store_ps(halves.even[m], even_of(line));
    _mm512_store_ps(halves.odd[m], odd_of(line));
  }
  add_rows<8>(halves, weights, 0, sums);
  add_rows<8>(halves, weights, 8, sums);
}

}  // namespace ocelli::kernels::cpu::amx_emulated
