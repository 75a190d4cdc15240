// Attention of Precision::kReduced, in AMX's bf16 tiles.
//
// Scores are computed as tiles [16 keys][16 queries], so that a query is a lane all the way: no sum
// and no maximum goes across lanes. What a row gives depends on the positions of its keys alone:
//   score: products of queries and keys in bf16, 32 dimensions at a time, as TDPBF16PS rounds them;
//   for each kBlockKeys keys: the softmax's reference m becomes the block's largest score where that
//   exceeds m by more than kSlack, and what is summed so far is scaled by 2^(old m − m); weights
//   2^(score − m) in bf16 (attention_amx_softmax.h), times the values in bf16, and times 1 for their
//   own sum, 32 keys at a time, as TDPBF16PS rounds them.
// A key that a row does not see weighs exactly 0, which changes no sum.
#include <cpuid.h>
#include <immintrin.h>

#include <cfloat>

#include "kernels/cpu/isa/attention_amx_products.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr float kLog2E = 1.44269504F;
// Weights up to 2^8 lose nothing against those up to 1, and most blocks then need no rescaling.
constexpr float kSlack = 8 * kParts;

// 2^x to 1.0e-4, exact at integers. p fitted to 2^f on [0, 1) for the least relative error, with
// p(0) = 1 and p(1) = 2.
__m512 power_of_two(__m512 x) {
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
    const int lines = lines_of(block.head_dim);
    const int width = reduced_width(block.head_dim);
    auto* next = reinterpret_cast<std::byte*>(block.scores);
    const auto room = [&](int64_t bytes) {
      std::byte* here = next;
      next += bytes;
      return here;
    };
    keys = room(int64_t{kReducedKeys} / kTileRows * lines * kTileBytes);
    values = room(int64_t{kReducedKeys} / kStepKeys * width / 16 * kTileBytes);
    for (std::byte*& one : queries) one = room(int64_t{2} * lines * kTileBytes);
    staging = room((lines + width / 16) * int64_t{kTileBytes});
    for (float*& one : scores) {
      one = reinterpret_cast<float*>(room(int64_t{kBlockKeys} * kQueries * 4));
    }
    weights = room(int64_t{kBlockKeys} / kStepKeys * 2 * kTileBytes);
    const int rows = (block.rows + kQueries - 1) / kQueries * kQueries;
    sums = reinterpret_cast<float*>(room(int64_t{rows} * width * 4));
    reference = reinterpret_cast<float*>(room(int64_t{rows} * 4));
  }

  std::byte* keys;        // [kReducedKeys / 16][lines] tiles
  std::byte* values;      // [kReducedKeys / 32][width / 16] tiles, turned
  std::byte* queries[2];  // [2][lines] tiles, turned; by turns
  std::byte* staging;
  float* scores[2];    // [2][kBlockKeys][16], by turns
  std::byte* weights;  // [2][kBlockKeys / 32] tiles [16 pairs of keys][16 queries]
  // Of all queries, sixteen at a time:
  float* sums;       // [width][16], weighted values so far, then the sum of the weights
  float* reference;  // [16], m in 128ths
};

class ReducedAttention {
 public:
  explicit ReducedAttention(const AttentionBlock& block)
      : b_(block),
        lines_(lines_of(block.head_dim)),
        width_(reduced_width(block.head_dim) / 16),
        factor_(block.scale * kLog2E * kParts),
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
      pass<T>(first, last);
    }
  }

  template <typename T>
  void pack(int first, int end, int fetched) {
    constexpr int kSteps = kBlockKeys / kStepKeys;
    const int64_t tile_lines = int64_t{lines_} * kTileBytes;
    Magnitudes seen;
    for (int step = 0; first + step * kStepKeys < end; ++step) {
      const int start = first + step * kStepKeys;
      if (step % kSteps == 0) seen = {};
      for (int i = 0; i < kStepKeys; ++i) {
        const int key = start + i;
        const RowOf<T> row(b_.keys, key < end ? key : first, key < end ? b_.head_dim : 0);
        if (key + kStepKeys < fetched) RowOf<T>(b_.keys, key + kStepKeys, b_.head_dim).prefetch();
        pack_key(row, lines_, i % 16, seen, memory_.keys + (2 * step + i / 16) * tile_lines);
      }
      wild_[step / kSteps] = seen.reach(kTame16);
      bool& spoilt = spoilt_[step / kSteps];
      if (step % kSteps == 0) spoilt = false;
      if (pack_values<T>(b_.values, start, end, fetched, b_.head_dim,
                         reinterpret_cast<float*>(memory_.staging),
                         memory_.values + int64_t{step} * width_ * kTileBytes)) {
        spoilt = true;
      }
    }
  }

  // Some queries, and a block of the keys that they see.
  struct Item {
    int row;
    int tiles;
    int first;   // key
    int packed;  // where among the packed ones
    int keys;    // filled up to whole steps
    bool last;   // of the queries' blocks among the packed keys
    bool turn;       // which of two places scores have
    bool group_turn;  // and queries
    Block blocks[2];
  };

  // The keys from `first` on of those before `end`.
  void set_block(Item& item, int first, int start, int end) const {
    const int seen = least(end, visible(item.row + item.tiles * 16 - 1));
    item.first = first;
    item.packed = first - start;
    item.keys = (least(seen - first, kBlockKeys) + kStepKeys - 1) / kStepKeys * kStepKeys;
    item.last = first + kBlockKeys >= seen;
    for (int t = 0; t < item.tiles; ++t) {
      Block& block = item.blocks[t];
      block.scores = memory_.scores[item.turn] + t * kBlockKeys * 16;
      block.weights = reinterpret_cast<__m512i*>(memory_.weights) + t * kBlockKeys / 2;
      block.visible = visible_keys(item.row + t * 16, first);
    }
  }
  // The queries from `row` on.
  void set_group(Item& item, int row, bool turn) {
    item.row = row;
    item.tiles = b_.rows - row > 16 ? 2 : 1;
    item.group_turn = turn;
    Magnitudes seen;
    for (int t = 0; t < item.tiles; ++t) {
      pack_queries(b_.q, row + t * 16, least(b_.rows - row - t * 16, 16), b_.head_dim, seen,
                   memory_.staging, memory_.queries[turn] + int64_t{t} * lines_ * kTileBytes);
    }
    wild_queries_[turn] = seen.reach(kTame16);
    for (int i = row + kQueries; i < least(row + 2 * kQueries, b_.rows); ++i) {
      RowOf<float>(b_.q, i, b_.head_dim).prefetch();
    }
  }
  // The item after `item` among those with keys of [start, end); false: there is none.
  bool follow(const Item& item, int start, int end, Item& next) {
    next = item;
    next.turn = !item.turn;
    if (!item.last) {
      set_block(next, item.first + kBlockKeys, start, end);
      return true;
    }
    if (item.row + kQueries >= b_.rows) return false;
    set_group(next, item.row + kQueries, !item.group_turn);
    set_block(next, start, start, end);
    return true;
  }

  // All queries with the packed keys, which are those from `start` to `end`. While an item's
  // weights are made, tiles multiply the next one's scores, and while they weigh the values, its
  // largest scores are looked for.
  template <typename T>
  void pass(int start, int end) {
    Item items[2];
    Item* now = &items[0];
    Item* next = &items[1];
    int row = 0;
    while (visible(row + kQueries - 1) <= start) row += kQueries;
    now->turn = false;
    set_group(*now, row, false);
    set_block(*now, start, start, end);
    bool more = true;
    bool begun = false;
    while (more) {
      if (!begun) {
        score(*now, *now, Weighing::kNone);
        find_largest(*now);
      }
      const Weighing weighing = begin_softmax(*now);
      more = follow(*now, start, end, *next);
      begun = more && next->tiles == now->tiles;
      Item none = *now;
      none.keys = 0;
      Item& coming = begun ? *next : none;
      score(coming, *now, weighing);
      weigh(*now, coming);
      if (spoilt_[now->packed / kBlockKeys]) {
        for (int t = 0; t < now->tiles; ++t) add_spoilt<T>(now->row + t * 16, t, *now);
      }
      if (now->last && visible(now->row + kQueries - 1) <= end) {
        for (int t = 0; t < now->tiles; ++t) finish(now->row + t * 16);
      }
      Item* other = now;
      now = next;
      next = other;
    }
  }

  // The scores of `item`, and the weights of `behind`.
  void score(const Item& item, Item& behind, Weighing weighing) {
    const int64_t tile_lines = int64_t{lines_} * kTileBytes;
    const Products block = {.a = memory_.keys + item.packed / 16 * tile_lines,
                            .a_unit = tile_lines,
                            .a_line = kTileBytes,
                            .b = memory_.queries[item.group_turn],
                            .b_next = tile_lines,
                            .sums = memory_.scores[item.turn],
                            .sums_next = kBlockKeys * 16,
                            .units = item.keys / 16,
                            .lines = lines_,
                            .add = false};
    if (item.tiles == 2) {
      score_tiles<2>(block, behind, weighing);
    } else {
      score_tiles<1>(block, behind, weighing);
    }
  }
  template <int N>
  void score_tiles(const Products& block, Item& behind, Weighing weighing) {
    switch (weighing) {
      case Weighing::kNone:
        return score_block<N, Weighing::kNone>(block, behind.blocks, 0, factor_);
      case Weighing::kPlain:
        return score_block<N, Weighing::kPlain>(block, behind.blocks, behind.keys, factor_);
      case Weighing::kMasked:
        return score_block<N, Weighing::kMasked>(block, behind.blocks, behind.keys, factor_);
      case Weighing::kWild:
        return score_block<N, Weighing::kWild>(block, behind.blocks, behind.keys, factor_);
    }
  }

  bool masked(const Item& item) const { return visible(item.row) - item.first < item.keys; }

  // The values of `item` weighed, and the largest scores of `next`.
  void weigh(const Item& item, Item& next) {
    const int64_t step = int64_t{width_} * kTileBytes;
    const Products block = {.a = memory_.values + item.packed / kStepKeys * step,
                            .a_unit = kTileBytes,
                            .a_line = step,
                            .b = memory_.weights,
                            .b_next = kBlockKeys / kStepKeys * kTileBytes,
                            .sums = memory_.sums + int64_t{item.row} * width_ * 16,
                            .sums_next = int64_t{width_} * 256,
                            .units = width_,
                            .lines = item.keys / kStepKeys,
                            .add = item.first != 0};
    if (item.tiles == 2) {
      weigh_tiles<2>(block, next);
    } else {
      weigh_tiles<1>(block, next);
    }
  }
  template <int N>
  void weigh_tiles(const Products& block, Item& next) {
    if (masked(next)) {
      weigh_block<N, true>(block, next.blocks, next.keys);
    } else {
      weigh_block<N, false>(block, next.blocks, next.keys);
    }
  }
  void find_largest(Item& item) const {
    if (item.tiles == 2) {
      largest_of<2>(item);
    } else {
      largest_of<1>(item);
    }
  }
  template <int N>
  void largest_of(Item& item) const {
    Largest<N, true> largest(item.blocks);
    largest.until(item.keys);
    largest.finish();
  }

  // Keys from `first` on that the sixteen queries from `row` on see.
  __m512i visible_keys(int row, int first) const {
    const __m512i rows =
        _mm512_add_epi32(_mm512_set1_epi32(row),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m512i real = _mm512_min_epi32(rows, _mm512_set1_epi32(b_.rows - 1));
    return _mm512_add_epi32(_mm512_mullo_epi32(real, _mm512_set1_epi32(b_.visible_step)),
                            _mm512_set1_epi32(b_.first_visible - first));
  }

  // Finds the references of a block's softmaxes, brings what is summed so far to them, and says how
  // the weights are to be made.
  Weighing begin_softmax(Item& item) {
    __mmask16 far = 0;
    for (int t = 0; t < item.tiles; ++t) {
      Block& block = item.blocks[t];
      const int row = item.row + t * 16;
      const bool none = item.first == 0;
      const __m512 old = none ? _mm512_set1_ps(-FLT_MAX) : _mm512_load_ps(memory_.reference + row);
      const __m512 largest = _mm512_roundscale_ps(block.largest * _mm512_set1_ps(factor_),
                                                  _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __mmask16 grown = _mm512_cmp_ps_mask(largest, old + _mm512_set1_ps(kSlack), _CMP_GT_OQ);
      block.reference = _mm512_mask_mov_ps(old, grown, largest);
      const __m512 less = (old - block.reference) * _mm512_set1_ps(1.0F / kParts);
      const __m512 keep = _mm512_mask_mov_ps(_mm512_set1_ps(1), grown, power_of_two(less));
      far |= _mm512_cmp_ps_mask(_mm512_abs_ps(block.reference), _mm512_set1_ps(kFar), _CMP_NLT_UQ);
      _mm512_store_ps(memory_.reference + row, block.reference);
      if (none || grown == 0) continue;
      float* sums = memory_.sums + int64_t{row} * width_ * 16;
      for (int d = 0; d < width_ * 16; ++d) {
        _mm512_store_ps(sums + d * 16, _mm512_load_ps(sums + d * 16) * keep);
      }
    }
    if (far != 0 || wild_[item.packed / kBlockKeys] || wild_queries_[item.group_turn]) {
      return Weighing::kWild;
    }
    return masked(item) ? Weighing::kMasked : Weighing::kPlain;
  }

  // Adds the block's values that are not finite in bf16, for the queries that see them.
  template <typename T>
  void add_spoilt(int row, int tile, const Item& item) {
    const std::byte* weights =
        memory_.weights + int64_t{tile} * (kBlockKeys / kStepKeys) * kTileBytes;
    const __m512i seen_keys = visible_keys(row, item.first);
    alignas(64) float value[16];
    for (int key = 0; key < item.keys; ++key) {
      const __mmask16 sees = _mm512_cmpgt_epi32_mask(seen_keys, _mm512_set1_epi32(key));
      if (sees == 0) continue;
      const RowOf<T> values(b_.values, item.first + key, b_.head_dim);
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
    const __m512 share = _mm512_set1_ps(1) / _mm512_load_ps(sums + b_.head_dim * 16);
    const int count = least(b_.rows - row, 16);
    for (int d = 0; d < b_.head_dim; ++d) {
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
  const int lines_;
  const int width_;  // tiles of dimensions
  const float factor_;
  const Memory memory_;
  // Of each block of packed keys: values that are not finite, and keys that may make scores so.
  bool spoilt_[kReducedKeys / kBlockKeys];
  bool wild_[kReducedKeys / kBlockKeys];
  bool wild_queries_[2];
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
