// Attention of Precision::kReduced, in AMX's bf16 tiles.
//
// Scores are computed as tiles [16 keys][16 queries], so that a query is a lane all the way: no sum
// and no maximum goes across lanes. What a row gives depends on the positions of its keys alone:
//   score: products of the parts in attention_amx_pack.h, line by line, as TDPBF16PS rounds them;
//   for each kKeyBlock keys: the softmax's reference m becomes the block's largest score where that
//   exceeds m by more than kSlack, and what is summed so far is scaled by 2^(old m − m); weights
//   2^(score − m), summed apart by key mod 16, then pairwise; rounded to bf16, times the values in
//   bf16, 32 keys at a time, as TDPBF16PS rounds them.
// A key that a row does not see weighs exactly 0, which changes no sum.
#include <cpuid.h>
#include <immintrin.h>

#include <cfloat>

#include "kernels/cpu/isa/attention_amx_pack.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/tiles.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr int kQueries = 32;  // that are computed together, in two tiles
constexpr float kLog2E = 1.44269504F;
// In powers of two. Weights up to 2^8 lose nothing against those up to 1, and most blocks then need
// no rescaling.
constexpr float kSlack = 8;

int least(int a, int b) {
  return a < b ? a : b;
}

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

// Where the parts of the work stand in AttentionBlock::scores.
struct Memory {
  explicit Memory(const AttentionBlock& block) {
    const HeadLines lines(block.head_dim);
    const int width = padded_head(block.head_dim);
    auto* next = reinterpret_cast<std::byte*>(block.scores);
    const auto room = [&](int64_t bytes) {
      std::byte* here = next;
      next += bytes;
      return here;
    };
    keys = room(int64_t{kReducedKeys} / kTileRows * lines.keys() * kTileBytes);
    values = room(int64_t{kReducedKeys} / kStepKeys * width / 16 * kTileBytes);
    queries = room(2 * int64_t{lines.queries()} * kTileBytes);
    staging = room((int64_t{lines.queries()} + width / 16) * kTileBytes);
    scores = reinterpret_cast<float*>(room(int64_t{kKeyBlock} * kQueries * 4));
    weights = room(int64_t{kKeyBlock} / kStepKeys * 2 * kTileBytes);
    const int rows = (block.rows + 15) / 16 * 16;
    sums = reinterpret_cast<float*>(room(int64_t{rows} * width * 4));
    reference = reinterpret_cast<float*>(room(int64_t{rows} * 4));
    total = reinterpret_cast<float*>(room(int64_t{rows} * 4));
  }

  std::byte* keys;     // [kReducedKeys / 16][lines] tiles
  std::byte* values;   // [kReducedKeys / 32][width / 16] tiles, turned
  std::byte* queries;  // [2][lines] tiles, turned
  std::byte* staging;
  float* scores;       // [kKeyBlock][kQueries]
  std::byte* weights;  // [2][kKeyBlock / 32] tiles [16 pairs of keys][16 queries]
  // Of all queries, sixteen at a time:
  float* sums;       // [width][16], weighted values so far
  float* reference;  // [16], m
  float* total;      // [16], the sum of weights so far
};

// Scores of 32 keys with N tiles of queries.
//
// Tiles 0 to 3 are the scores (2 · key tile + query tile), 4 and 5 the keys, 6 and 7 the queries.
template <int N>
void score(const HeadLines& lines, const std::byte* keys, const std::byte* queries, float* out) {
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
  const auto multiply = []() __attribute__((always_inline)) {
    _tile_dpbf16ps(0, 4, 6);
    if (N > 1) _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    if (N > 1) _tile_dpbf16ps(3, 5, 7);
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

// Sixteen queries' part in a block of keys.
struct Softmax {
  const float* scores;  // [keys][kQueries]
  int keys;             // a multiple of 32
  __m512i visible;      // keys of the block that each query sees; may be negative or too many
  std::byte* weights;   // see Memory

  // −∞ instead of the scores of keys that are not seen.
  template <bool kMasked>
  [[gnu::always_inline]] __m512 score(int key) const {
    const __m512 s = _mm512_load_ps(scores + int64_t{key} * kQueries);
    if (!kMasked) return s;
    const __mmask16 seen = _mm512_cmpgt_epi32_mask(visible, _mm512_set1_epi32(key));
    return _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), seen, s);
  }

  template <bool kMasked>
  __m512 largest() const {
    __m512 most[4];
    for (__m512& m : most) m = _mm512_set1_ps(-__builtin_inff());
    for (int key = 0; key < keys; key += 4) {
#pragma GCC unroll 4
      // The second operand comes through where the first is NaN.
      for (int i = 0; i < 4; ++i) most[i] = _mm512_max_ps(score<kMasked>(key + i), most[i]);
    }
    return _mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3]));
  }

  // Leaves the weights 2^(score − reference) and returns their sums.
  template <bool kMasked>
  __m512 weigh(__m512 reference) const {
    __m512 sums[16];
#pragma GCC unroll 16
    for (__m512& sum : sums) sum = _mm512_setzero_ps();
    auto* out = reinterpret_cast<__m512i*>(weights);
    for (int key = 0; key < keys; key += 16, out += 8) {
#pragma GCC unroll 8
      for (int i = 0; i < 16; i += 2) {
        const __m512 even = power_of_two(score<kMasked>(key + i) - reference);
        const __m512 odd = power_of_two(score<kMasked>(key + i + 1) - reference);
        sums[i] = sums[i] + even;
        sums[i + 1] = sums[i + 1] + odd;
        _mm512_store_si512(out + i / 2, pair(even, odd));
      }
    }
#pragma GCC unroll 4
    for (int half = 8; half > 0; half /= 2) {
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
    }
    return sums[0];
  }

 private:
  // Rounded to bf16; halves up, as they are not negative.
  [[gnu::always_inline]] static __m512i pair(__m512 even, __m512 odd) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even) + (__m512i)half, 16);
    const __m512i high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
    return _mm512_mask_mov_epi16(low, 0xAAAAAAAA, high);
  }
};

class ReducedAttention {
 public:
  explicit ReducedAttention(const AttentionBlock& block)
      : b_(block),
        lines_(block.head_dim),
        width_(padded_head(block.head_dim) / 16),
        memory_(block) {}

  void run() {
    configure_tiles();
    if (b_.keys.dtype == DType::kF16) {
      all<Half>();
    } else if (b_.keys.dtype == DType::kI8) {
      all<Int8>();
    } else {
      all<float>();
    }
    // Without tiles in use, the system has less to save when it switches threads.
    _tile_release();
  }

 private:
  int visible(int row) const {
    return b_.first_visible + least(row, b_.rows - 1) * b_.visible_step;
  }

  template <typename T>
  void all() {
    const int end = visible(b_.rows - 1);
    // What few queries need they need once: better from L1.
    const int span = b_.rows > kQueries ? kReducedKeys : kKeyBlock;
    for (int first = 0; first < end; first += span) {
      const int last = least(first + span, end);
      pack<T>(first, last, end);
      for (int row = 0; row < b_.rows; row += kQueries) {
        if (visible(row + kQueries - 1) > first) group<T>(row, first, last);
      }
    }
    for (int row = 0; row < b_.rows; row += 16) finish(row);
  }

  template <typename T>
  void pack(int first, int end, int fetched) {
    const int64_t key_bytes = int64_t{lines_.keys()} * kTileBytes;
    for (int step = 0; first + step * kStepKeys < end; ++step) {
      const int start = first + step * kStepKeys;
      for (int i = 0; i < kStepKeys; ++i) {
        const int key = start + i;
        const RowOf<T> row(b_.keys, key < end ? key : first, key < end ? b_.head_dim : 0);
        if (key + kStepKeys < fetched) RowOf<T>(b_.keys, key + kStepKeys, b_.head_dim).prefetch();
        pack_key(row, lines_, i % 16, memory_.keys + (2 * step + i / 16) * key_bytes);
      }
      bool& spoilt = spoilt_[step / (kKeyBlock / kStepKeys)];
      if (step % (kKeyBlock / kStepKeys) == 0) spoilt = false;
      if (pack_values<T>(b_.values, start, end, fetched, b_.head_dim,
                         reinterpret_cast<float*>(memory_.staging),
                         memory_.values + int64_t{step} * width_ * kTileBytes)) {
        spoilt = true;
      }
    }
  }

  // The queries from `row` on with the packed keys, which are those from `first` to `end`.
  template <typename T>
  void group(int row, int first, int end) {
    const int rows = least(b_.rows - row, kQueries);
    const int tiles = rows > 16 ? 2 : 1;
    const int64_t query_bytes = int64_t{lines_.queries()} * kTileBytes;
    for (int t = 0; t < tiles; ++t) {
      pack_queries(b_.q, row + t * 16, least(rows - t * 16, 16), b_.head_dim, b_.scale * kLog2E,
                   memory_.staging, memory_.queries + t * query_bytes);
    }
    end = least(end, visible(row + rows - 1));
    for (int block = first; block < end; block += kKeyBlock) {
      const int keys = (least(end - block, kKeyBlock) + kStepKeys - 1) / kStepKeys * kStepKeys;
      const int packed = block - first;
      asm volatile("" ::: "memory");
      for (int key = 0; key < keys; key += kStepKeys) {
        const std::byte* tile =
            memory_.keys + int64_t{packed + key} / 16 * lines_.keys() * kTileBytes;
        float* out = memory_.scores + int64_t{key} * kQueries;
        if (tiles == 2) {
          score<2>(lines_, tile, memory_.queries, out);
        } else {
          score<1>(lines_, tile, memory_.queries, out);
        }
      }
      asm volatile("" ::: "memory");
      for (int t = 0; t < tiles; ++t) {
        weights_of(row + t * 16, t, block, keys);
        weigh_all(row + t * 16, t, block, packed, keys);
        if (spoilt_[packed / kKeyBlock]) add_spoilt<T>(row + t * 16, t, block, keys);
      }
    }
  }

  // Keys of a block that the sixteen queries from `row` on see.
  __m512i seen(int row, int block) const {
    const __m512i rows =
        _mm512_add_epi32(_mm512_set1_epi32(row),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m512i real = _mm512_min_epi32(rows, _mm512_set1_epi32(b_.rows - 1));
    const __m512i all =
        _mm512_add_epi32(_mm512_mullo_epi32(real, _mm512_set1_epi32(b_.visible_step)),
                         _mm512_set1_epi32(b_.first_visible - block));
    return all;
  }

  // The softmax of a block for tile `tile` of the group, whose first query is `row`.
  void weights_of(int row, int tile, int block, int keys) {
    const Softmax softmax = {
        memory_.scores + tile * 16, keys, seen(row, block),
        memory_.weights + int64_t{tile} * (kKeyBlock / kStepKeys) * kTileBytes};
    const bool masked = visible(row) - block < keys;
    const __m512 largest = masked ? softmax.largest<true>() : softmax.largest<false>();
    float* reference = memory_.reference + row;
    float* total = memory_.total + row;
    const __m512 old = block == 0 ? _mm512_set1_ps(-FLT_MAX) : _mm512_load_ps(reference);
    const __m512 sum = block == 0 ? _mm512_setzero_ps() : _mm512_load_ps(total);
    const __mmask16 grown = _mm512_cmp_ps_mask(largest, old + _mm512_set1_ps(kSlack), _CMP_GT_OQ);
    const __m512 m = _mm512_mask_mov_ps(old, grown, largest);
    const __m512 keep = _mm512_mask_mov_ps(_mm512_set1_ps(1), grown, power_of_two(old - m));
    if (block > 0 && grown != 0) {
      float* sums = memory_.sums + int64_t{row} * width_ * 16;
      for (int d = 0; d < width_ * 16; ++d) {
        _mm512_store_ps(sums + d * 16, _mm512_load_ps(sums + d * 16) * keep);
      }
    }
    const __m512 more = masked ? softmax.weigh<true>(m) : softmax.weigh<false>(m);
    _mm512_store_ps(reference, m);
    _mm512_store_ps(total, sum * keep + more);
  }

  void weigh_all(int row, int tile, int block, int packed, int keys) {
    asm volatile("" ::: "memory");
    const std::byte* weights =
        memory_.weights + int64_t{tile} * (kKeyBlock / kStepKeys) * kTileBytes;
    const int steps = keys / kStepKeys;
    const int passes = (width_ + 4) / 5;
    const int each = (width_ + passes - 1) / passes;
    for (int d = 0; d < width_; d += each) {
      const std::byte* values =
          memory_.values + (int64_t{packed} / kStepKeys * width_ + d) * kTileBytes;
      float* sums = memory_.sums + (int64_t{row} * width_ + d * 16) * 16;
      const bool first = block == 0;
      switch (least(each, width_ - d)) {
        case 1:
          weigh<1>(values, width_, weights, steps, first, sums);
          break;
        case 2:
          weigh<2>(values, width_, weights, steps, first, sums);
          break;
        case 3:
          weigh<3>(values, width_, weights, steps, first, sums);
          break;
        case 4:
          weigh<4>(values, width_, weights, steps, first, sums);
          break;
        default:
          weigh<5>(values, width_, weights, steps, first, sums);
      }
    }
    asm volatile("" ::: "memory");
  }

  // Adds the block's values that are not finite in bf16, for the queries that see them.
  template <typename T>
  void add_spoilt(int row, int tile, int block, int keys) {
    const auto* weights = reinterpret_cast<const uint32_t*>(
        memory_.weights + int64_t{tile} * (kKeyBlock / kStepKeys) * kTileBytes);
    const __m512i visible_keys = seen(row, block);
    alignas(64) float value[16];
    for (int key = 0; key < keys; ++key) {
      const __mmask16 sees = _mm512_cmpgt_epi32_mask(visible_keys, _mm512_set1_epi32(key));
      if (sees == 0) continue;
      const RowOf<T> values(b_.values, block + key, b_.head_dim);
      const __m512i pair = _mm512_load_si512(weights + key / 2 * 16);
      const __m512 weight =
          _mm512_castsi512_ps(key % 2 == 0 ? _mm512_slli_epi32(pair, 16)
                                           : _mm512_and_si512(pair, _mm512_set1_epi32(-65536)));
      for (int d = 0; d < b_.head_dim; ++d) {
        if (d % 16 == 0) _mm512_store_ps(value, values.at(d));
        const __m512 v = _mm512_set1_ps(value[d % 16]);
        const __m512i bits = magnitude(pairs_of(v, v));
        if (_mm512_cmplt_epi16_mask(bits, _mm512_set1_epi16(kInfinity16)) != 0) continue;
        float* sum = memory_.sums + (int64_t{row} * width_ + d) * 16;
        const __m512 old = _mm512_load_ps(sum);
        _mm512_store_ps(sum, _mm512_mask3_fmadd_ps(weight, v, old, sees));
      }
    }
  }

  void finish(int row) {
    float* sums = memory_.sums + int64_t{row} * width_ * 16;
    const __m512 share = _mm512_set1_ps(1) / _mm512_load_ps(memory_.total + row);
    const int count = least(b_.rows - row, 16);
    for (int d = 0; d < width_ * 16; ++d) {
      _mm512_store_ps(sums + d * 16, _mm512_load_ps(sums + d * 16) * share);
    }
    for (int i = 0; i < count; i += 4) {
      for (int d = 0; d < b_.head_dim; d += 16) {
        __m512 rows[4];
        VecAvx512::load_columns(sums + d * 16 + i, 16, rows);
        for (int r = 0; r < least(count - i, 4); ++r) {
          VecAvx512::store_partial(b_.out.f32(row + i + r) + d, rows[r],
                                   least(b_.head_dim - d, 16));
        }
      }
    }
  }

  const AttentionBlock& b_;
  const HeadLines lines_;
  const int width_;  // tiles of dimensions
  const Memory memory_;
  bool spoilt_[kReducedKeys / kKeyBlock];
};

}  // namespace

void attention_amx(const AttentionBlock& block) {
  ReducedAttention(block).run();
}

bool bf16_works() {
  constexpr unsigned kTiles = 1U << 22;   // leaf 7, edx
  constexpr unsigned kVectors = 1U << 5;  // leaf 7.1, eax
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kTiles) == 0) return false;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kVectors) != 0 &&
         __builtin_cpu_supports("avx512dq") != 0;
}

}  // namespace ocelli::kernels::cpu
