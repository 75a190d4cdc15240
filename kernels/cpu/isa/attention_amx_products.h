// The products of attention_amx.cc, queries by keys and weights by values, and the softmax that
// runs between their multiplications. Included like attention_amx_pack.h, and under the same rule
// of linkage.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/isa/attention_amx_pack.h"
#include "kernels/cpu/isa/tiles.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr int kQueries = 32;  // that are computed together, in two tiles

// 2^x to 1.0e-4, exact at integers. p fitted to 2^f on [0, 1) for the least relative error, with
// p(0) = 1 and p(1) = 2.
[[gnu::always_inline]] inline __m512 power_of_two(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(0.07826797F);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22630769F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69542434F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(p, x);  // takes floor(x)
}

// The softmax of sixteen queries over a block of keys, in steps that fit between multiplications,
// which leave the vector units idle.
class Softmax {
 public:
  static constexpr int kStep = 8;  // keys

  // `visible`: keys of the block that each query sees; may be negative or too many.
  void begin(const float* scores, int keys, __m512i visible, bool masked, std::byte* weights) {
    scores_ = scores;
    keys_ = keys;
    visible_ = visible;
    masked_ = masked;
    weights_ = reinterpret_cast<__m512i*>(weights);
    next_ = 0;
#pragma GCC unroll 16
    for (__m512& sum : sums_) sum = _mm512_setzero_ps();
  }
  void set_reference(__m512 reference) {
    reference_ = reference;
  }
  __m512 largest() const {
    return masked_ ? largest_of<true>() : largest_of<false>();
  }
  bool done() const {
    return next_ == keys_;
  }

  // Leaves the weights 2^(score − reference) of some more keys.
  [[gnu::always_inline]] void step() {
    if (masked_) {
      weigh<true>();
    } else {
      weigh<false>();
    }
    next_ += kStep;
  }
  // The sum of all weights.
  __m512 total() {
#pragma GCC unroll 4
    for (int half = 8; half > 0; half /= 2) {
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) sums_[i] = sums_[i] + sums_[i + half];
    }
    return sums_[0];
  }

 private:
  // −∞ instead of the scores of keys that are not seen.
  template <bool kMasked>
  [[gnu::always_inline]] __m512 score(int key) const {
    const __m512 s = _mm512_load_ps(scores_ + int64_t{key} * kQueries);
    if (!kMasked) return s;
    const __mmask16 seen = _mm512_cmpgt_epi32_mask(visible_, _mm512_set1_epi32(key));
    return _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), seen, s);
  }

  template <bool kMasked>
  __m512 largest_of() const {
    __m512 most[4];
    for (__m512& m : most) m = _mm512_set1_ps(-__builtin_inff());
    for (int key = 0; key < keys_; key += 4) {
#pragma GCC unroll 4
      // The second operand comes through where the first is NaN.
      for (int i = 0; i < 4; ++i) most[i] = _mm512_max_ps(score<kMasked>(key + i), most[i]);
    }
    return _mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3]));
  }

  template <bool kMasked>
  [[gnu::always_inline]] void weigh() {
    __m512* sums = sums_ + next_ % 16;
    __m512i* out = weights_ + next_ / 2;
#pragma GCC unroll 4
    for (int i = 0; i < kStep; i += 2) {
      const __m512 even = power_of_two(score<kMasked>(next_ + i) - reference_);
      const __m512 odd = power_of_two(score<kMasked>(next_ + i + 1) - reference_);
      sums[i] = sums[i] + even;
      sums[i + 1] = sums[i + 1] + odd;
      _mm512_store_si512(out + i / 2, pair(even, odd));
    }
  }

  // Rounded to bf16; halves up, as they are not negative.
  [[gnu::always_inline]] static __m512i pair(__m512 even, __m512 odd) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    const __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(even), half), 16);
    const __m512i high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
    return _mm512_mask_mov_epi16(low, 0xAAAAAAAA, high);
  }

  __m512 sums_[16];
  __m512 reference_;
  __m512i visible_;
  const float* scores_ = nullptr;  // [keys][kQueries]
  __m512i* weights_ = nullptr;     // see Memory
  int keys_ = 0;                   // a multiple of 32
  int next_ = 0;
  bool masked_ = false;
};

// The softmaxes of a group's tiles of queries, on their way.
struct Softmaxes {
  Softmax tile[2];
  int tiles = 0;
  int in_hand = 0;

  [[gnu::always_inline]] void some(int steps) {
    for (; steps > 0 && in_hand < tiles; --steps) {
      tile[in_hand].step();
      if (tile[in_hand].done()) ++in_hand;
    }
  }
};

// Scores of 32 keys with N tiles of queries; with every four products one step of what is `behind`:
// more at a time took longer.
//
// Tiles 0 to 3 are the scores (2 · key tile + query tile), 4 and 5 the keys, 6 and 7 the queries.
template <int N>
void score(const HeadLines& lines, const std::byte* keys, const std::byte* queries,
           Softmaxes& behind, float* out) {
  const int64_t next_keys = int64_t{lines.keys()} * kTileBytes;
  const int64_t next_queries = int64_t{lines.queries()} * kTileBytes;
  const auto load_keys = [&](int line) __attribute__((always_inline)) {
    _tile_loadd(4, keys + int64_t{line} * kTileBytes, kLineBytes);
    _tile_loadd(5, keys + next_keys + int64_t{line} * kTileBytes, kLineBytes);
  };
  const auto load_queries = [&](int line) __attribute__((always_inline)) {
    _tile_loadd(6, queries + int64_t{line} * kTileBytes, kLineBytes);
    if (N > 1) _tile_loadd(7, queries + next_queries + int64_t{line} * kTileBytes, kLineBytes);
  };
  const auto multiply = [&]() __attribute__((always_inline)) {
    _tile_dpbf16ps(0, 4, 6);
    if (N > 1) _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    if (N > 1) _tile_dpbf16ps(3, 5, 7);
    behind.some(1);
  };
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int p = 0; p < lines.pairs; ++p) {
    load_queries(2 * p);
    load_keys(2 * p + 1);
    multiply();
    load_keys(2 * p);
    multiply();
    load_queries(2 * p + 1);
    multiply();
  }
  if (lines.rest > 0) {
    load_keys(2 * lines.pairs);
    load_queries(2 * lines.pairs);
    multiply();
    if (lines.two_of_rest()) {
      load_queries(2 * lines.pairs + 1);
      multiply();
    }
  }
  constexpr int kStride = kQueries * sizeof(float);
  _tile_stored(0, out, kStride);
  if (N > 1) _tile_stored(1, out + 16, kStride);
  _tile_stored(2, out + 16 * kQueries, kStride);
  if (N > 1) _tile_stored(3, out + 16 * kQueries + 16, kStride);
}

// sums[16 · n + d][query] += Σ values[key][d] · weights[key][query] for N tiles of dimensions and
// `steps` · 32 keys; or = for the first keys. `width` tiles of values make a step.
template <int N>
void weigh(const std::byte* values, int width, const std::byte* weights, int steps, bool first,
           float* sums) {
  if (first) {
    _tile_zero(0);
    if (N > 1) _tile_zero(1);
    if (N > 2) _tile_zero(2);
    if (N > 3) _tile_zero(3);
    if (N > 4) _tile_zero(4);
  } else {
    _tile_loadd(0, sums, kLineBytes);
    if (N > 1) _tile_loadd(1, sums + 256, kLineBytes);
    if (N > 2) _tile_loadd(2, sums + 512, kLineBytes);
    if (N > 3) _tile_loadd(3, sums + 768, kLineBytes);
    if (N > 4) _tile_loadd(4, sums + 1024, kLineBytes);
  }
  for (int step = 0; step < steps; ++step) {
    const std::byte* tile = values + int64_t{step} * width * kTileBytes;
    _tile_loadd(7, weights + int64_t{step} * kTileBytes, kLineBytes);
    _tile_loadd(5, tile, kLineBytes);
    _tile_dpbf16ps(0, 5, 7);
    if (N > 1) {
      _tile_loadd(6, tile + kTileBytes, kLineBytes);
      _tile_dpbf16ps(1, 6, 7);
    }
    if (N > 2) {
      _tile_loadd(5, tile + 2 * kTileBytes, kLineBytes);
      _tile_dpbf16ps(2, 5, 7);
    }
    if (N > 3) {
      _tile_loadd(6, tile + 3 * kTileBytes, kLineBytes);
      _tile_dpbf16ps(3, 6, 7);
    }
    if (N > 4) {
      _tile_loadd(5, tile + 4 * kTileBytes, kLineBytes);
      _tile_dpbf16ps(4, 5, 7);
    }
  }
  _tile_stored(0, sums, kLineBytes);
  if (N > 1) _tile_stored(1, sums + 256, kLineBytes);
  if (N > 2) _tile_stored(2, sums + 512, kLineBytes);
  if (N > 3) _tile_stored(3, sums + 768, kLineBytes);
  if (N > 4) _tile_stored(4, sums + 1024, kLineBytes);
}

}  // namespace
}  // namespace ocelli::kernels::cpu
