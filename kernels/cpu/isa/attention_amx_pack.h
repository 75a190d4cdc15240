// Queries, keys and values as AMX's bf16 tiles take them, for attention_amx.cc.
//
// Their dimensions go into lines of 32 bf16 in tiles of 16 lines, keys line by line as they are,
// queries turned, so that a tile of keys times a tile of queries gives scores [key][query].
//
// Included by files compiled with AVX-512 and BF16; internal linkage, as kernels.h explains.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/isa/vec_avx512.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

int least(int a, int b) {
  return a < b ? a : b;
}

constexpr int kTileRows = 16;
constexpr int kTileBytes = 1024;  // 16 rows of 64 bytes
constexpr int kLineBytes = 64;
constexpr int kLineValues = 32;
constexpr int kStepKeys = 32;  // keys that one multiplication with values takes

// Keys whose softmax is computed together.
constexpr int kBlockKeys = 256;

// Lines that hold a head's dimensions.
[[gnu::always_inline]] constexpr int lines_of(int head_dim) {
  return (head_dim + kLineValues - 1) / kLineValues;
}

// A row of a head's values.
template <typename T>
struct RowOf {
  const T* values;
  int count;
  float scale = 1;

  [[gnu::always_inline]] RowOf(const Rows& rows, int64_t row, int head_dim)
      : values(reinterpret_cast<const T*>(rows.data) + row * rows.stride), count(head_dim) {
    if constexpr (kScaled<T>) __builtin_memcpy(&scale, values + head_dim, sizeof scale);
  }
  // Those from i on, which exist.
  [[gnu::always_inline]] __m512 whole(int i) const { return scaled(VecAvx512::load(values + i)); }
  // Those from i on, and zeros behind them.
  [[gnu::always_inline]] __m512 at(int i) const {
    const int left = count - i;
    if (left <= 0) return _mm512_setzero_ps();
    return scaled(VecAvx512::load_partial(values + i, left < 16 ? left : 16));
  }
  [[gnu::always_inline]] void prefetch() const {
    const auto* line = reinterpret_cast<const char*>(values);
    const int bytes = count * static_cast<int>(sizeof(T));
    for (int at = 0; at < bytes; at += kLineBytes) _mm_prefetch(line + at, _MM_HINT_T0);
    _mm_prefetch(line + bytes - 1, _MM_HINT_T0);
  }

 private:
  [[gnu::always_inline]] __m512 scaled(__m512 x) const {
    return kScaled<T> ? x * _mm512_set1_ps(scale) : x;
  }
};

// a, then b, rounded to bf16.
[[gnu::always_inline]] inline __m512i to_bf16(__m512 a, __m512 b) {
  return (__m512i)_mm512_cvtne2ps_pbh(b, a);
}
constexpr int16_t kInfinity16 = 0x7f80;  // in bf16; above it is what is no number
// Up to here (2^56) products of a key and a query are finite.
constexpr int16_t kTame16 = 0x5b80;
[[gnu::always_inline]] inline __m512i magnitude(__m512i x) {
  return _mm512_and_si512(x, _mm512_set1_epi16(0x7fff));
}

// The largest magnitudes among bf16 values that went by.
struct Magnitudes {
  __m512i largest = _mm512_setzero_si512();

  [[gnu::always_inline]] void see(__m512i values) {
    largest = _mm512_max_epu16(largest, magnitude(values));
  }
  bool reach(int16_t limit) const {
    return _mm512_cmpge_epi16_mask(largest, _mm512_set1_epi16(limit)) != 0;
  }
};

// tiles: [line][16][64 bytes], of which row `at` becomes a key. What does not exist is zero.
template <typename T>
void pack_key(const RowOf<T>& row, int lines, int at, Magnitudes& seen, std::byte* tiles) {
  std::byte* line = tiles + at * kLineBytes;
  for (int i = 0; i < lines * kLineValues; i += kLineValues, line += kTileBytes) {
    const bool whole = i + kLineValues <= row.count;
    const __m512i values =
        whole ? to_bf16(row.whole(i), row.whole(i + 16)) : to_bf16(row.at(i), row.at(i + 16));
    seen.see(values);
    _mm512_store_si512(line, values);
  }
}

// to[c][r] ← from[r][c] for 16 × 16 of 32 bits; from_stride in floats.
void turn(const float* from, int64_t from_stride, float* to) {
  for (int c = 0; c < 16; c += 4) {
    __m512 columns[4];
    VecAvx512::load_columns(from + c, from_stride, columns);
    for (int i = 0; i < 4; ++i) _mm512_store_ps(to + (c + i) * 16, columns[i]);
  }
}

// Sixteen queries, `count` of them there: tiles [line][16 pairs of dimensions][16 queries].
// `staging` has room for as many.
void pack_queries(const Rows& q, int64_t first, int count, int head_dim, Magnitudes& seen,
                  std::byte* staging, std::byte* tiles) {
  const int lines = lines_of(head_dim);
  for (int i = 0; i < 16; ++i) {
    const RowOf<float> row(q, i < count ? first + i : first, i < count ? head_dim : 0);
    pack_key(row, lines, i, seen, staging);
  }
  for (int line = 0; line < lines; ++line) {
    turn(reinterpret_cast<const float*>(staging + line * kTileBytes), 16,
         reinterpret_cast<float*>(tiles + line * kTileBytes));
  }
}

// Pairs of a's and b's values, as TDPBF16PS takes them, in bf16.
[[gnu::always_inline]] inline __m512i pairs_of(__m512 a, __m512 b) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, to_bf16(a, b));
}

// The values of 32 keys from `first` on, those from `end` on being zero, and behind each key's
// values a 1: tiles [16 dimensions][32 keys]. Returns whether a value is not finite in bf16, in
// whose place there is 0. `staging` has room for 16 rows of reduced_width(head_dim) floats. Fetches
// 32 keys further on that are before `fetched`.
template <typename T>
bool pack_values(const Rows& values, int first, int end, int fetched, int head_dim, float* staging,
                 std::byte* tiles) {
  constexpr int kOnes = 0x3f803f80;
  const int width = reduced_width(head_dim);
  Magnitudes seen;
  for (int pair = 0; pair < 16; ++pair) {
    const int key = first + 2 * pair;
    const RowOf<T> even(values, key < end ? key : first, key < end ? head_dim : 0);
    const RowOf<T> odd(values, key + 1 < end ? key + 1 : first, key + 1 < end ? head_dim : 0);
    for (int i = key + kStepKeys; i < key + kStepKeys + 2 && i < fetched; ++i) {
      RowOf<T>(values, i, head_dim).prefetch();
    }
    float* row = staging + pair * width;
    for (int d = 0; d < width; d += 16) {
      const bool whole = d + 16 <= odd.count;
      const __m512i pairs =
          whole ? pairs_of(even.whole(d), odd.whole(d)) : pairs_of(even.at(d), odd.at(d));
      seen.see(pairs);
      _mm512_store_si512(row + d, pairs);
    }
    __builtin_memcpy(row + head_dim, &kOnes, sizeof kOnes);
  }
  const bool spoilt = seen.reach(kInfinity16);
  for (int i = 0; spoilt && i < 16 * width; i += 16) {
    const __m512i x = _mm512_load_si512(staging + i);
    const __mmask32 finite = _mm512_cmplt_epi16_mask(magnitude(x), _mm512_set1_epi16(kInfinity16));
    _mm512_store_si512(staging + i, _mm512_maskz_mov_epi16(finite, x));
  }
  for (int d = 0; d < width; d += 16) {
    turn(staging + d, width, reinterpret_cast<float*>(tiles + d / 16 * kTileBytes));
  }
  return spoilt;
}

}  // namespace
}  // namespace ocelli::kernels::cpu
