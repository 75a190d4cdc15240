// The products of attention_amx.cc, queries by keys and weights by values, and what softmax runs
// between their multiplications. Included like attention_amx_pack.h, and under the same rule of
// linkage.
#pragma once

#include <immintrin.h>

#include <type_traits>

#include "kernels/cpu/isa/attention_amx_softmax.h"
#include "kernels/cpu/isa/tiles.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr int kQueries = 32;  // that are computed together, in two tiles

// Tiles a[i] times b[n] for `units` i and N n, each a sum of products of `lines` tiles.
struct Products {
  const std::byte* a;  // tile of (unit, line): unit · a_unit + line · a_line
  int64_t a_unit;      // bytes
  int64_t a_line;
  const std::byte* b;  // tiles [N][lines], of which those of n begin at n · b_next
  int64_t b_next;
  float* sums;        // tiles [N][units], of which those of n begin at n · sums_next
  int64_t sums_next;  // floats
  int ring;           // units of sums that there is room for, a power of two
  int units;
  int lines;
  bool add;  // to what is in sums
};

// between(unit, line) runs after the products of each line. The sums of a unit are stored late in
// the next one: tiles that are stored right after their last product wait for it, and the products
// after them, too. (Two at a time with one tile of a, b's loaded anew: 5.2 ns each with loads and
// stores where four at a time took 7.3.)
//
// Tiles 0 and 1, or 2 and 3, are the sums, 4 is a's, 6 and 7 are b's.
template <int N, typename Between>
[[gnu::always_inline]] inline void multiply(const Products& p, Between&& between) {
  asm volatile("" ::: "memory");
  const auto store = [&](int unit) __attribute__((always_inline)) {
    float* sums = p.sums + (unit & (p.ring - 1)) * 256;
    if (unit % 2 == 0) {
      store_tile<0>(sums, kLineBytes);
      if (N > 1) store_tile<1>(sums + p.sums_next, kLineBytes);
    } else {
      store_tile<2>(sums, kLineBytes);
      if (N > 1) store_tile<3>(sums + p.sums_next, kLineBytes);
    }
  };
  const auto one = [&](auto odd, int unit) __attribute__((always_inline)) {
    constexpr bool kOdd = decltype(odd)::value;
    const std::byte* a = p.a + unit * p.a_unit;
    const std::byte* b = p.b;
    if (p.add) {
      const float* sums = p.sums + (unit & (p.ring - 1)) * 256;
      if (kOdd) {
        load_tile<2>(sums, kLineBytes);
        if (N > 1) load_tile<3>(sums + p.sums_next, kLineBytes);
      } else {
        load_tile<0>(sums, kLineBytes);
        if (N > 1) load_tile<1>(sums + p.sums_next, kLineBytes);
      }
    } else if (kOdd) {
      zero_tile<2>();
      if (N > 1) zero_tile<3>();
    } else {
      zero_tile<0>();
      if (N > 1) zero_tile<1>();
    }
    for (int line = 0; line < p.lines; ++line, a += p.a_line, b += kTileBytes) {
      load_tile<4>(a, kLineBytes);
      load_tile<6>(b, kLineBytes);
      if (kOdd) {
        add_bf16_products<2, 4, 6>();
      } else {
        add_bf16_products<0, 4, 6>();
      }
      if (N > 1) {
        load_tile<7>(b + p.b_next, kLineBytes);
        if (kOdd) {
          add_bf16_products<3, 4, 7>();
        } else {
          add_bf16_products<1, 4, 7>();
        }
      }
      between(unit, line);
    }
    if (unit > 0) store(unit - 1);
  };
  int unit = 0;
  for (; unit + 2 <= p.units; unit += 2) {
    one(std::false_type(), unit);
    one(std::true_type(), unit + 1);
  }
  if (unit < p.units) one(std::false_type(), unit++);
  if (unit > 0) store(unit - 1);
  asm volatile("" ::: "memory");
}

// Rows that will be wanted later, brought near a row at a time: a head's rows lie pages apart,
// where the processor does not see what comes next.
struct RowsAhead {
  const std::byte* next = nullptr;
  int64_t stride = 0;  // bytes
  int bytes = 0;       // of a row
  int left = 0;

  template <bool kToWrite>
  [[gnu::always_inline]] void fetch() {
    if (left <= 0) return;
    for (int at = 0; at < bytes; at += kLineBytes) fetch_line<kToWrite>(next + at);
    fetch_line<kToWrite>(next + bytes - 1);
    next += stride;
    --left;
  }

 private:
  template <bool kToWrite>
  [[gnu::always_inline]] static void fetch_line(const std::byte* line) {
    if (kToWrite) {
      __builtin_prefetch(line, 1);
    } else {
      _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T1);
    }
  }
};

// Scores of a block of keys with N tiles of queries, and their weights, which follow some units
// behind.
template <int N, Weighing kWeighing>
void score_block(const Products& p, Block* blocks, const ScoresAndWeights& memory, float factor) {
  constexpr int kBehind = 2;
  constexpr int kPairs = 8;  // of keys, in a unit
  Weights<N, kWeighing> weights(blocks, memory, factor);
  const int each = (kPairs + p.lines - 1) / p.lines;
  int left = 0;
  multiply<N>(
      p, [&](int unit, int line) __attribute__((always_inline)) {
        if (unit < kBehind) return;
        if (line == 0) left = kPairs;
        const int some = least(each, left);
        weights.some(some);
        left -= some;
      });
  weights.some(p.units * kPairs - weights.done());
  weights.finish();
}

}  // namespace
}  // namespace ocelli::kernels::cpu
