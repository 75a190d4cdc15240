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

#include "kernels/cpu/isa/attention_amx_products.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr float kLog2E = 1.44269504F;
// In powers of two. Weights up to 2^8 lose nothing against those up to 1, and most blocks then need
// no rescaling.
constexpr float kSlack = 8;

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
    for (float*& one : scores) {
      one = reinterpret_cast<float*>(room(int64_t{kKeyBlock} * kQueries * 4));
    }
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
  float* scores[2];    // [kKeyBlock][kQueries], by turns
  std::byte* weights;  // [2][kKeyBlock / 32] tiles [16 pairs of keys][16 queries]
  // Of all queries, sixteen at a time:
  float* sums;       // [width][16], weighted values so far
  float* reference;  // [16], m
  float* total;      // [16], the sum of weights so far
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
    Softmaxes none;
    Softmaxes behind;
    score_block({first, 0, keys_of(first, end)}, tiles, none);
    for (int block = first; block < end; block += kKeyBlock) {
      const Span span = {block, block - first, keys_of(block, end)};
      begin_softmaxes(row, tiles, span, behind);
      if (const int next = block + kKeyBlock; next < end) {
        score_block({next, next - first, keys_of(next, end)}, tiles, behind);
      }
      behind.some(kKeyBlock);
      for (int t = 0; t < tiles; ++t) {
        float* total = memory_.total + row + t * 16;
        _mm512_store_ps(total, _mm512_load_ps(total) + behind.tile[t].total());
        weigh_all(row + t * 16, t, span);
        if (spoilt_[span.packed / kKeyBlock]) add_spoilt<T>(row + t * 16, t, span);
      }
    }
  }

  // A block of keys.
  struct Span {
    int first;
    int packed;  // where among the packed ones
    int keys;    // filled up to whole steps
  };
  static int keys_of(int block, int end) {
    return (least(end - block, kKeyBlock) + kStepKeys - 1) / kStepKeys * kStepKeys;
  }
  float* scores_of(const Span& span) const { return memory_.scores[span.packed / kKeyBlock % 2]; }
  std::byte* weights_of(int tile) const {
    return memory_.weights + int64_t{tile} * (kKeyBlock / kStepKeys) * kTileBytes;
  }

  void score_block(const Span& span, int tiles, Softmaxes& behind) {
    asm volatile("" ::: "memory");
    for (int key = 0; key < span.keys; key += kStepKeys) {
      const std::byte* tile =
          memory_.keys + int64_t{span.packed + key} / 16 * lines_.keys() * kTileBytes;
      float* out = scores_of(span) + int64_t{key} * kQueries;
      if (tiles == 2) {
        score<2>(lines_, tile, memory_.queries, behind, out);
      } else {
        score<1>(lines_, tile, memory_.queries, behind, out);
      }
    }
    asm volatile("" ::: "memory");
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

  // Gets the softmaxes of a block on their way: finds their references, and brings what is summed
  // so far to them.
  void begin_softmaxes(int first_row, int tiles, const Span& span, Softmaxes& all) {
    all.tiles = tiles;
    all.in_hand = 0;
    for (int t = 0; t < tiles; ++t) {
      const int row = first_row + t * 16;
      all.tile[t].begin(scores_of(span) + t * 16, span.keys, seen(row, span.first),
                        visible(row) - span.first < span.keys, weights_of(t));
      const bool none = span.first == 0;
      const __m512 old = none ? _mm512_set1_ps(-FLT_MAX) : _mm512_load_ps(memory_.reference + row);
      const __m512 total = none ? _mm512_setzero_ps() : _mm512_load_ps(memory_.total + row);
      const __m512 largest = all.tile[t].largest();
      const __mmask16 grown = _mm512_cmp_ps_mask(largest, old + _mm512_set1_ps(kSlack), _CMP_GT_OQ);
      const __m512 reference = _mm512_mask_mov_ps(old, grown, largest);
      const __m512 keep =
          _mm512_mask_mov_ps(_mm512_set1_ps(1), grown, power_of_two(old - reference));
      all.tile[t].set_reference(reference);
      _mm512_store_ps(memory_.reference + row, reference);
      _mm512_store_ps(memory_.total + row, total * keep);
      if (none || grown == 0) continue;
      float* sums = memory_.sums + int64_t{row} * width_ * 16;
      for (int d = 0; d < width_ * 16; ++d) {
        _mm512_store_ps(sums + d * 16, _mm512_load_ps(sums + d * 16) * keep);
      }
    }
  }

  void weigh_all(int row, int tile, const Span& span) {
    asm volatile("" ::: "memory");
    const std::byte* weights = weights_of(tile);
    const int steps = span.keys / kStepKeys;
    const int passes = (width_ + 4) / 5;
    const int each = (width_ + passes - 1) / passes;
    for (int d = 0; d < width_; d += each) {
      const std::byte* values =
          memory_.values + (int64_t{span.packed} / kStepKeys * width_ + d) * kTileBytes;
      float* sums = memory_.sums + (int64_t{row} * width_ + d * 16) * 16;
      const bool first = span.first == 0;
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
  void add_spoilt(int row, int tile, const Span& span) {
    const std::byte* weights = weights_of(tile);
    const __m512i visible_keys = seen(row, span.first);
    alignas(64) float value[16];
    for (int key = 0; key < span.keys; ++key) {
      const __mmask16 sees = _mm512_cmpgt_epi32_mask(visible_keys, _mm512_set1_epi32(key));
      if (sees == 0) continue;
      const RowOf<T> values(b_.values, span.first + key, b_.head_dim);
      const __m512i pair = _mm512_load_si512(weights + key / 2 * kLineBytes);
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
  constexpr unsigned kVectors = 1U << 5;  // leaf 7.1, eax
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return amx_has_bf16() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
         (eax & kVectors) != 0 && __builtin_cpu_supports("avx512dq") != 0;
}

}  // namespace ocelli::kernels::cpu
