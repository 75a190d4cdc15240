// Queries, keys and values as AMX's bf16 tiles take them, for attention_amx.cc.
//
// A score is to be exact to about 2^−16 of |q|·|k|: a query and a key are each split into a high
// part, rounded to bf16, and a low one, what is then missing, rounded likewise, and
//   q·k ≈ high·high + high·low + low·high.
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

// Which lines hold a head's dimensions: for each 32 a line of high parts and one of low parts; and
// where at most 16 are left, they share one: pairs of high and low for the keys. The queries they
// are multiplied with are (high, high), and in another line, or, where there are at most 8, in the
// second half of the same one, (low, 0).
struct HeadLines {
  explicit HeadLines(int head_dim) {
    const int left = head_dim % kLineValues;
    rest = left <= kTileRows ? left : 0;
    pairs = head_dim / kLineValues + (left > rest ? 1 : 0);
  }
  int keys() const { return 2 * pairs + (rest > 0 ? 1 : 0); }
  int queries() const { return keys() + (two_of_rest() ? 1 : 0); }
  bool two_of_rest() const { return rest > kTileRows / 2; }

  int pairs;
  int rest;  // dimensions in the shared line
};

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
[[gnu::always_inline]] inline __m512 from_bf16(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

// 32 values in two lines.
struct SplitLine {
  __m512i high;
  __m512i low;
};
[[gnu::always_inline]] inline SplitLine split(__m512 a, __m512 b) {
  const __m512i high = to_bf16(a, b);
  const __m512 a_low = a - from_bf16(_mm512_castsi512_si256(high));
  const __m512 b_low = b - from_bf16(_mm512_extracti64x4_epi64(high, 1));
  return {high, to_bf16(a_low, b_low)};
}

// Sixteen values as pairs of bf16.
struct SplitRest {
  __m512i high;  // (high, 0)
  __m512i low;   // (low, 0)
};
[[gnu::always_inline]] inline SplitRest split_rest(__m512 x) {
  const SplitLine line = split(x, _mm512_setzero_ps());
  return {_mm512_cvtepu16_epi32(_mm512_castsi512_si256(line.high)),
          _mm512_cvtepu16_epi32(_mm512_castsi512_si256(line.low))};
}
// The first eight pairs of a, then those of b.
[[gnu::always_inline]] inline __m512i halves(__m512i a, __m512i b) {
  return _mm512_inserti64x4(a, _mm512_castsi512_si256(b), 1);
}

// tiles: [line][16][64 bytes], of which row `at` becomes a key. What does not exist is zero.
template <typename T>
void pack_key(const RowOf<T>& row, const HeadLines& lines, int at, std::byte* tiles) {
  std::byte* line = tiles + at * kLineBytes;
  for (int i = 0; i < lines.pairs * kLineValues; i += kLineValues, line += 2 * kTileBytes) {
    const bool whole = i + kLineValues <= row.count;
    const SplitLine both =
        whole ? split(row.whole(i), row.whole(i + 16)) : split(row.at(i), row.at(i + 16));
    _mm512_store_si512(line, both.high);
    _mm512_store_si512(line + kTileBytes, both.low);
  }
  if (lines.rest == 0) return;
  const SplitRest both = split_rest(row.at(lines.pairs * kLineValues));
  const __m512i pairs = _mm512_or_si512(both.high, _mm512_slli_epi32(both.low, 16));
  _mm512_store_si512(line, lines.two_of_rest() ? pairs : halves(pairs, both.high));
}

// rows: [line][16][64 bytes], of which row `at` becomes q · factor.
void pack_query(const float* q, const HeadLines& lines, int head_dim, float factor,
                std::byte* line) {
  const __m512 factors = _mm512_set1_ps(factor);
  const auto part = [&](int i) {
    const int left = head_dim - i;
    if (left <= 0) return _mm512_setzero_ps();
    return factors * VecAvx512::load_partial(q + i, left < 16 ? left : 16);
  };
  for (int p = 0; p < lines.pairs; ++p, line += 2 * kTileBytes) {
    const SplitLine both = split(part(p * kLineValues), part(p * kLineValues + 16));
    _mm512_store_si512(line, both.high);
    _mm512_store_si512(line + kTileBytes, both.low);
  }
  if (lines.rest == 0) return;
  const SplitRest both = split_rest(part(lines.pairs * kLineValues));
  const __m512i pairs = _mm512_or_si512(both.high, _mm512_slli_epi32(both.high, 16));
  if (lines.two_of_rest()) {
    _mm512_store_si512(line, pairs);
    _mm512_store_si512(line + kTileBytes, both.low);
  } else {
    _mm512_store_si512(line, halves(pairs, both.low));
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
void pack_queries(const Rows& q, int64_t first, int count, int head_dim, float factor,
                  std::byte* staging, std::byte* tiles) {
  const HeadLines lines(head_dim);
  for (int i = 0; i < count; ++i) RowOf<float>(q, first + i, head_dim).prefetch();
  for (int i = 0; i < 16; ++i) {
    if (i < count) {
      pack_query(q.f32(first + i), lines, head_dim, factor, staging + i * kLineBytes);
    } else {
      for (int line = 0; line < lines.queries(); ++line) {
        _mm512_store_si512(staging + line * kTileBytes + i * kLineBytes, _mm512_setzero_si512());
      }
    }
  }
  for (int line = 0; line < lines.queries(); ++line) {
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

constexpr int16_t kInfinity16 = 0x7f80;  // in bf16; above it is what is no number
[[gnu::always_inline]] inline __m512i magnitude(__m512i x) {
  return _mm512_and_si512(x, _mm512_set1_epi16(0x7fff));
}

// The values of 32 keys from `first` on, those from `end` on being zero: tiles [16 dimensions][32
// keys]. Returns whether one of them is not finite in bf16, in whose place there is 0. `staging`
// has room for 16 rows of padded_head(head_dim) floats. Fetches 32 keys further on that are before
// `fetched`.
template <typename T>
bool pack_values(const Rows& values, int first, int end, int fetched, int head_dim, float* staging,
                 std::byte* tiles) {
  const int width = padded_head(head_dim);
  __m512i largest = _mm512_setzero_si512();
  for (int pair = 0; pair < 16; ++pair) {
    const int key = first + 2 * pair;
    const RowOf<T> even(values, key < end ? key : first, key < end ? head_dim : 0);
    const RowOf<T> odd(values, key + 1 < end ? key + 1 : first, key + 1 < end ? head_dim : 0);
    for (int i = key + kStepKeys; i < key + kStepKeys + 2 && i < fetched; ++i) {
      RowOf<T>(values, i, head_dim).prefetch();
    }
    for (int d = 0; d < width; d += 16) {
      const bool whole = d + 16 <= odd.count;
      const __m512i pairs =
          whole ? pairs_of(even.whole(d), odd.whole(d)) : pairs_of(even.at(d), odd.at(d));
      largest = _mm512_max_epu16(largest, magnitude(pairs));
      _mm512_store_si512(staging + pair * width + d, pairs);
    }
  }
  const bool spoilt = _mm512_cmpge_epi16_mask(largest, _mm512_set1_epi16(kInfinity16)) != 0;
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
