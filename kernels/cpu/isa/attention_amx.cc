// Attention of Precision::kReduced, in tiles of bf16.
//
// Scores are computed as tiles [16 keys][16 queries], so that a query is a lane all the way: no sum
// and no maximum goes across lanes. What a row gives depends on the positions of its keys alone:
//   score: products of queries and keys in bf16, 32 dimensions at a time, as TDPBF16PS rounds them;
//   the softmax's reference m is the largest of the first 16 scores, and for each kBlockKeys keys
//   becomes their largest score where that exceeds m by more than kSlack, whereupon what is summed
//   so far is scaled by 2^(old m − m);
//   weights 2^(score − m) in bf16 (attention_amx_softmax.h), times the values in bf16, and times 1
//   for their own sum, 32 keys at a time, as TDPBF16PS rounds them.
// A key that a row does not see weighs exactly 0, which changes no sum.
#include <immintrin.h>

#include <cfloat>

#include "kernels/cpu/isa/attention_amx_products.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr float kLog2E = 1.44269504F;
// Weights up to 2^40 lose nothing against those up to 1, and hardly a block has to be done again.
constexpr float kSlack = 40 * kParts;

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
    queries = room(int64_t{2} * lines * kTileBytes);
    staging = room((lines + width / 16) * int64_t{kTileBytes});
    scores = reinterpret_cast<float*>(room(int64_t{kScoreRing} * kQueries * 4));
    weights = room(int64_t{kBlockKeys} / kStepKeys * 2 * kTileBytes);
    const int rows = (block.rows + kQueries - 1) / kQueries * kQueries;
    sums = reinterpret_cast<float*>(room(int64_t{rows} * width * 4));
    reference = reinterpret_cast<float*>(room(int64_t{rows} * 4));
  }

  std::byte* keys;     // [kReducedKeys / 16][lines] tiles
  std::byte* values;   // [kReducedKeys / 32][width / 16] tiles, turned
  std::byte* queries;  // [2][lines] tiles, turned
  std::byte* staging;
  float* scores;       // [2][kScoreRing][16]
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
    release_tiles();
  }

 private:
  int visible(int row) const {
    return b_.first_visible + least(row, b_.rows - 1) * b_.visible_step;
  }

  // Where the queries from `row` on, sixteen, have their sums: in one place where they are finished
  // before those of the next are begun.
  float* sums_of(int row) const {
    const bool passing = visible(b_.rows - 1) <= kReducedKeys;
    return memory_.sums + int64_t{passing ? row % kQueries : row} * width_ * 16;
  }

  template <typename T>
  void all() {
    const int end = visible(b_.rows - 1);
    // What few queries need they need once: better from L1.
    const int span = b_.rows > kQueries ? kReducedKeys : kBlockKeys;
    for (int first = 0; first < end; first += span) {
      const int last = least(first + span, end);
      pack<T>(first, last, end);
      for (int row = 0; row < b_.rows; row += kQueries) {
        if (visible(row + kQueries - 1) > first) group<T>(row, first, last);
      }
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
    int first;          // key
    int packed;         // where among the packed ones
    int keys;           // filled up to whole steps
    bool wild_queries;  // that may make scores infinite
    Block blocks[2];
  };

  // The queries from `row` on with the packed keys, which are those from `start` to `end`.
  template <typename T>
  void group(int row, int start, int end) {
    Item item;
    item.row = row;
    item.tiles = b_.rows - row > 16 ? 2 : 1;
    Magnitudes seen;
    for (int t = 0; t < item.tiles; ++t) {
      pack_queries(b_.q, row + t * 16, least(b_.rows - row - t * 16, 16), b_.head_dim, seen,
                   memory_.staging, memory_.queries + int64_t{t} * lines_ * kTileBytes);
    }
    item.wild_queries = seen.reach(kTame16);
    out_ahead_ = rows_of(b_.out, row);
    queries_ahead_ = rows_of(b_.q, row + kQueries);
    const int seen_end = least(end, visible(row + kQueries - 1));
    for (int first = start; first < seen_end; first += kBlockKeys) {
      set_block(item, first, start, seen_end);
      if (first == 0) begin(item);
      while (score(item), grow(item)) {
      }
      weigh(item);
      if (spoilt_[item.packed / kBlockKeys]) {
        for (int t = 0; t < item.tiles; ++t) add_spoilt<T>(row + t * 16, t, item);
      }
    }
    if (visible(row + kQueries - 1) > end) return;
    for (int t = 0; t < item.tiles; ++t) finish(row + t * 16);
  }

  // Those of the queries from `first` on that are computed together.
  RowsAhead rows_of(const Rows& rows, int first) const {
    constexpr int kSize = sizeof(float);
    return {reinterpret_cast<const std::byte*>(rows.f32(first)), rows.stride * kSize,
            b_.head_dim * kSize, least(b_.rows - first, kQueries)};
  }

  // The keys from `first` on of those before `end`.
  void set_block(Item& item, int first, int start, int end) const {
    item.first = first;
    item.packed = first - start;
    item.keys = (least(end - first, kBlockKeys) + kStepKeys - 1) / kStepKeys * kStepKeys;
    for (int t = 0; t < item.tiles; ++t) {
      Block& block = item.blocks[t];
      block.visible = visible_keys(item.row + t * 16, first);
      if (first > 0) block.reference = _mm512_load_ps(memory_.reference + item.row + t * 16);
    }
  }

  // The reference of the first keys, from some of their scores.
  void begin(Item& item) {
    Item some = item;
    some.keys = 16;
    for (int t = 0; t < item.tiles; ++t) some.blocks[t].reference = _mm512_setzero_ps();
    score(some);
    for (int t = 0; t < item.tiles; ++t) {
      item.blocks[t].reference =
          _mm512_max_ps(reference_of(some.blocks[t]), _mm512_set1_ps(-FLT_MAX));
      _mm512_store_ps(memory_.reference + item.row + t * 16, item.blocks[t].reference);
    }
  }
  // What the largest score would have for a reference.
  __m512 reference_of(const Block& block) const {
    return _mm512_roundscale_ps(block.largest * _mm512_set1_ps(factor_),
                                _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }

  // Brings references that have been left too far behind to the block's largest scores, and what is
  // summed so far to them. Returns whether there were any: then the weights are to be made again.
  bool grow(Item& item) {
    bool any = false;
    for (int t = 0; t < item.tiles; ++t) {
      Block& block = item.blocks[t];
      const int row = item.row + t * 16;
      const __m512 old = block.reference;
      const __m512 largest = reference_of(block);
      const __mmask16 grown = _mm512_cmp_ps_mask(largest, old + _mm512_set1_ps(kSlack), _CMP_GT_OQ);
      if (grown == 0) continue;
      any = true;
      block.reference = _mm512_mask_mov_ps(old, grown, largest);
      _mm512_store_ps(memory_.reference + row, block.reference);
      if (item.first == 0) continue;
      const __m512 less = (old - block.reference) * _mm512_set1_ps(1.0F / kParts);
      const __m512 keep = _mm512_mask_mov_ps(_mm512_set1_ps(1), grown, power_of_two(less));
      float* sums = sums_of(row);
      for (int d = 0; d < width_ * 16; ++d) {
        _mm512_store_ps(sums + d * 16, _mm512_load_ps(sums + d * 16) * keep);
      }
    }
    return any;
  }

  // How the weights of a block are to be made.
  Weighing weighing_of(const Item& item) const {
    __mmask16 far = 0;
    for (int t = 0; t < item.tiles; ++t) {
      far |= _mm512_cmp_ps_mask(_mm512_abs_ps(item.blocks[t].reference), _mm512_set1_ps(kFar),
                                _CMP_NLT_UQ);
    }
    if (far != 0 || wild_[item.packed / kBlockKeys] || item.wild_queries) return Weighing::kWild;
    return visible(item.row) - item.first < item.keys ? Weighing::kMasked : Weighing::kPlain;
  }

  // The weights of a block, and its largest scores.
  void score(Item& item) {
    const int64_t tile_lines = int64_t{lines_} * kTileBytes;
    const Products products = {.a = memory_.keys + item.packed / 16 * tile_lines,
                               .a_unit = tile_lines,
                               .a_line = kTileBytes,
                               .b = memory_.queries,
                               .b_next = tile_lines,
                               .sums = memory_.scores,
                               .sums_next = kScoreRing * 16,
                               .ring = kScoreRing / 16,
                               .units = item.keys / 16,
                               .lines = lines_,
                               .add = false};
    const Weighing weighing = weighing_of(item);
    if (item.tiles == 2) {
      score_tiles<2>(products, item.blocks, weighing);
    } else {
      score_tiles<1>(products, item.blocks, weighing);
    }
  }
  template <int N>
  void score_tiles(const Products& products, Block* blocks, Weighing weighing) const {
    const ScoresAndWeights memory = {memory_.scores, reinterpret_cast<__m512i*>(memory_.weights)};
    switch (weighing) {
      case Weighing::kPlain:
        return score_block<N, Weighing::kPlain>(products, blocks, memory, factor_);
      case Weighing::kMasked:
        return score_block<N, Weighing::kMasked>(products, blocks, memory, factor_);
      case Weighing::kWild:
        return score_block<N, Weighing::kWild>(products, blocks, memory, factor_);
    }
  }

  // Adds a block's weighted values to the sums.
  void weigh(const Item& item) {
    constexpr int kAny = 1 << 30;
    const int64_t step = int64_t{width_} * kTileBytes;
    const Products products = {.a = memory_.values + item.packed / kStepKeys * step,
                               .a_unit = kTileBytes,
                               .a_line = step,
                               .b = memory_.weights,
                               .b_next = kBlockKeys / kStepKeys * kTileBytes,
                               .sums = sums_of(item.row),
                               .sums_next = int64_t{width_} * 256,
                               .ring = kAny,
                               .units = width_,
                               .lines = item.keys / kStepKeys,
                               .add = item.first != 0};
    const auto fetch = [&](int, int) __attribute__((always_inline)) {
      out_ahead_.fetch<true>();
      queries_ahead_.fetch<false>();
    };
    if (item.tiles == 2) {
      multiply<2>(products, fetch);
    } else {
      multiply<1>(products, fetch);
    }
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
        float* sum = sums_of(row) + d * 16;
        const __m512 old = _mm512_load_ps(sum);
        _mm512_store_ps(sum, _mm512_mask3_fmadd_ps(weight, v, old, sees));
      }
    }
  }

  void finish(int row) {
    float* sums = sums_of(row);
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
  // Of the queries in hand, and of the next ones.
  RowsAhead out_ahead_;
  RowsAhead queries_ahead_;
};

}  // namespace

void tile_kernels::attention(const AttentionBlock& block) {
  ReducedAttention(block).run();
}

}  // namespace ocelli::kernels::cpu
