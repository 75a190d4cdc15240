#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/tiles.h"
#include "kernels/cpu/isa/vec_avx512.h"

namespace ocelli::kernels::cpu {
namespace {

using Finish = Activations<VecAvx512>;

constexpr int kPanel = 16;        // outputs of a panel: the columns of a tile
constexpr int kTileRows = 16;     // rows of activations in a tile
constexpr int kTileBytes = 1024;  // 16 rows of 64 bytes
constexpr int kTileSteps = 16;    // lines of weights in a tile: the rows of a tile of weights
constexpr int kBlockRows = 2 * kTileRows;
constexpr int kBlockOutputs = 2 * kPanel;
static_assert(kBlockRows == kQuantisedRowBlock && kTileRows == QuantisedRows::kTileRows);
static_assert(kTiledRows % kBlockRows == 0);

// Tiles of inputs that are multiplied in one go: the weights of a block stay in L2 meanwhile.
constexpr int kMostTiles = 72;
// Lines of the next block's weights that are fetched at each step: between memory and L2 they come
// in while this block is multiplied.
constexpr int kPrefetchedLines = 2;

int least(int a, int b) {
  return a < b ? a : b;
}

// Sums of 32 rows and 32 outputs.
struct alignas(64) Sums {
  int32_t at[kBlockRows][kBlockOutputs];
};

// The operands of one multiplication: M · 16 rows of x by N panels of weights, some inputs long.
struct Operands {
  const int8_t* x;  // tiles of 16 rows
  int64_t x_bytes;  // from 16 rows to the next
  const uint8_t* weights;
  int64_t panel_bytes;
  int tiles;
  const uint8_t* tail;  // a last tile of weights for each panel, kTileBytes apart, or null
};

// What is wanted next, brought into L2 line by line.
struct Prefetch {
  const uint8_t* next;
  const uint8_t* end;

  [[gnu::always_inline]] inline void some() {
    if (next >= end) return;
    for (int i = 0; i < kPrefetchedLines; ++i) _mm_prefetch(next + int64_t{64} * i, _MM_HINT_T1);
    next += int64_t{64} * kPrefetchedLines;
  }
};

// A block of sums on its way to the output. Its vectors are finished one by one between the
// multiplications of the next block, which leave the vector units idle.
class Finisher {
 public:
  explicit Finisher(const Int8Block& block) : block_(block) {}

  // Takes a block of sums in hand, of panel `panel` and, where they exist, the next one, for `rows`
  // rows from `row` on. The one before must be done.
  void begin(const Sums& sums, int panel, int row, int rows) {
    sums_ = &sums;
    first_ = panel * kPanel;
    row_ = row;
    const int count = least(block_.outputs - first_, kBlockOutputs);
    panels_ = count > kPanel ? 2 : 1;
    last_ = _cvtu32_mask16((1U << (count - (panels_ - 1) * kPanel)) - 1);
    for (int n = 0; n < panels_; ++n) {
      scales_[n] = _mm512_loadu_ps(block_.scales + (panel + n) * kPanel);
      biases_[n] = _mm512_setzero_ps();
      if (block_.bias) {
        const __mmask16 mask = n == panels_ - 1 ? last_ : 0xFFFF;
        biases_[n] = _mm512_maskz_loadu_ps(mask, block_.bias + first_ + n * kPanel);
      }
    }
    next_ = 0;
    end_ = rows * panels_;
  }

  // Vectors of the block in hand that are not finished.
  int left() const { return end_ - next_; }

  [[gnu::always_inline]] inline void some(int vectors) {
    for (const int end = least(next_ + vectors, end_); next_ < end; ++next_) one(next_);
  }

 private:
  // The arithmetic of Ops::linear.
  [[gnu::always_inline]] inline void one(int index) {
    const int r = panels_ == 2 ? index / 2 : index;
    const int n = panels_ == 2 ? index % 2 : 0;
    const QuantisedRows& x = block_.x;
    const __m512i products = _mm512_add_epi32(_mm512_load_si512(&sums_->at[r][n * kPanel]),
                                              _mm512_set1_epi32(x.corrections[row_ + r]));
    __m512 y = _mm512_cvtepi32_ps(products) * scales_[n] * _mm512_set1_ps(x.scales[row_ + r]);
    y = _mm512_setzero_ps() + y;
    if (block_.bias) y = y + biases_[n];
    float* out = block_.out.f32(row_ + r) + first_ + n * kPanel;
    const __mmask16 mask = n == panels_ - 1 ? last_ : 0xFFFF;
    const bool reads =
        block_.epilogue == Epilogue::kAccumulate || block_.epilogue == Epilogue::kMultiply;
    const __m512 old = reads ? _mm512_maskz_loadu_ps(mask, out) : _mm512_setzero_ps();
    _mm512_mask_storeu_ps(out, mask, Finish::activate(block_.epilogue, y, old));
  }

  const Int8Block& block_;
  const Sums* sums_ = nullptr;
  __m512 scales_[2] = {};
  __m512 biases_[2] = {};
  int first_ = 0;
  int row_ = 0;
  int panels_ = 0;
  int next_ = 0;
  int end_ = 0;
  __mmask16 last_ = 0;
};

// sums += x · weights, or = where they are the first. Some of `behind` is finished at each step,
// and some of `ahead` fetched.
//
// Tiles 0 to 3 are the sums (2m + n), 4 and 5 the rows, 6 and 7 the weights.
template <int M, int N>
void multiply(const Operands& o, bool first, Finisher& behind, Prefetch& ahead, Sums& sums) {
  constexpr int kStride = kBlockOutputs * sizeof(int32_t);
  int32_t* corner[] = {&sums.at[0][0], &sums.at[0][kPanel], &sums.at[kTileRows][0],
                       &sums.at[kTileRows][kPanel]};
  if (first) {
    _tile_zero(0);
    if (N > 1) _tile_zero(1);
    if (M > 1) _tile_zero(2);
    if (M > 1 && N > 1) _tile_zero(3);
  } else {
    _tile_loadd(0, corner[0], kStride);
    if (N > 1) _tile_loadd(1, corner[1], kStride);
    if (M > 1) _tile_loadd(2, corner[2], kStride);
    if (M > 1 && N > 1) _tile_loadd(3, corner[3], kStride);
  }
  const auto step = [&](const int8_t* x, const uint8_t* weights, int64_t panel_bytes)
      __attribute__((always_inline)) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(4, x, 64);
    _tile_dpbsud(0, 4, 6);
    if (N > 1) {
      _tile_loadd(7, weights + panel_bytes, 64);
      _tile_dpbsud(1, 4, 7);
    }
    if (M > 1) {
      _tile_loadd(5, x + o.x_bytes, 64);
      _tile_dpbsud(2, 5, 6);
    }
    if (M > 1 && N > 1) _tile_dpbsud(3, 5, 7);
  };
  const int vectors = behind.left() / (o.tiles + 1) + 1;
  for (int t = 0; t < o.tiles; ++t) {
    step(o.x + t * kTileBytes, o.weights + t * kTileBytes, o.panel_bytes);
    behind.some(vectors);
    ahead.some();
  }
  if (o.tail) step(o.x + o.tiles * kTileBytes, o.tail, kTileBytes);
  behind.some(behind.left());
  _tile_stored(0, corner[0], kStride);
  if (N > 1) _tile_stored(1, corner[1], kStride);
  if (M > 1) _tile_stored(2, corner[2], kStride);
  if (M > 1 && N > 1) _tile_stored(3, corner[3], kStride);
  // The compiler does not know that these stores write to sums.
  asm volatile("" ::: "memory");
}

// The product of a block whose rows are one group each.
class WholeRows {
 public:
  explicit WholeRows(const Int8Block& block) : block_(block), behind_(block) {
    if (block.next) ahead_ = {block.next, block.next + panels() * panel_bytes()};
  }

  void run() {
    const int chunks = (all_tiles() + kMostTiles - 1) / kMostTiles;
    const int tiles = (all_tiles() + chunks - 1) / chunks;
    // Between two chunks the sums of these rows wait.
    const int rows = chunks == 1 ? block_.rows : kTiledRows;
    for (int row = 0; row < block_.rows; row += rows) {
      first_row_ = row;
      for (int chunk = 0; chunk < chunks; ++chunk) {
        chunk_ = {chunk * tiles, least(tiles, all_tiles() - chunk * tiles), chunk == 0,
                  chunk == chunks - 1};
        multiply_chunk(least(block_.rows, row + rows));
      }
    }
    behind_.some(behind_.left());
  }

 private:
  // The inputs in hand.
  struct Chunk {
    int tile;
    int tiles;
    bool first;
    bool last;
  };

  int panels() const { return (block_.outputs + kPanel - 1) / kPanel; }
  int tail_steps() const { return block_.steps % kTileSteps; }
  int all_tiles() const { return block_.steps / kTileSteps + (tail_steps() > 0 ? 1 : 0); }
  int64_t panel_bytes() const { return int64_t{block_.steps} * 64; }

  // The chunk of the rows from first_row_ to `end`. A block of rows meets all of the weights, which
  // stay in L2, before the next one.
  void multiply_chunk(int end) {
    for (int row = first_row_; row < end; row += kBlockRows) {
      for (int panel = 0; panel < panels(); panel += 2) {
        copy_tail(panel);
        one(panel, row);
      }
    }
  }

  // Where a panel does not end on a whole tile, what follows it is not its own, nor perhaps there.
  void copy_tail(int panel) {
    if (!chunk_.last || tail_steps() == 0) return;
    const int count = least(2, panels() - panel);
    for (int n = 0; n < count; ++n) {
      const uint8_t* end = block_.values + (int64_t{panel} + n + 1) * panel_bytes();
      std::memcpy(tail_ + n * kTileBytes, end - tail_steps() * 64, tail_steps() * 64);
    }
  }

  // Where the sums of a block stand: between two chunks all of them wait, otherwise two are enough,
  // one in hand and one behind.
  Sums& sums_of(int panel, int row) {
    auto* all = reinterpret_cast<Sums*>(block_.scratch);
    if (chunk_.first && chunk_.last) return all[turn_++ % 2];
    return all[panel / 2 * (kTiledRows / kBlockRows) + (row - first_row_) / kBlockRows];
  }

  void one(int panel, int row) {
    const bool tail = chunk_.last && tail_steps() > 0;
    const int rows = least(block_.rows - row, kBlockRows);
    const Operands operands = {block_.x.from(row).values + int64_t{chunk_.tile} * kTileBytes,
                               block_.x.stride * kTileRows,
                               block_.values + panel * panel_bytes() + chunk_.tile * kTileBytes,
                               panel_bytes(),
                               chunk_.tiles - (tail ? 1 : 0),
                               tail ? tail_ : nullptr};
    Sums& sums = sums_of(panel, row);
    const bool two = panel + 1 < panels();
    if (rows > kTileRows && two) {
      multiply<2, 2>(operands, chunk_.first, behind_, ahead_, sums);
    } else if (rows > kTileRows) {
      multiply<2, 1>(operands, chunk_.first, behind_, ahead_, sums);
    } else if (two) {
      multiply<1, 2>(operands, chunk_.first, behind_, ahead_, sums);
    } else {
      multiply<1, 1>(operands, chunk_.first, behind_, ahead_, sums);
    }
    if (chunk_.last) behind_.begin(sums, panel, row, rows);
  }

  const Int8Block& block_;
  Finisher behind_;
  Prefetch ahead_ = {};
  int first_row_ = 0;
  Chunk chunk_ = {};
  int turn_ = 0;
  alignas(64) uint8_t tail_[2 * kTileBytes] = {};
};

// The product of a block in groups, whose sums are floats from group to group.
class Groups {
 public:
  explicit Groups(const Int8Block& block) : block_(block), nothing_(block) {}

  void run() {
    for (int first = 0; first < block_.outputs; first += kBlockOutputs) {
      const int panel = first / kPanel;
      for (int row = 0; row < block_.rows; row += kBlockRows) {
        if (block_.outputs - first > kPanel) {
          one<2>(panel, row);
        } else {
          one<1>(panel, row);
        }
      }
    }
  }

 private:
  template <int N>
  void one(int panel, int row) {
    const QuantisedRows x = block_.x.from(row);
    const int rows = least(block_.rows - row, kBlockRows);
    const int tiles = block_.steps / kTileSteps;  // of a group
    const int64_t panel_bytes = int64_t{x.groups} * tiles * kTileBytes;
    for (int g = 0; g < x.groups; ++g) {
      const int64_t at = int64_t{g} * tiles * kTileBytes;
      const Operands operands = {x.values + at,
                                 x.stride * kTileRows,
                                 block_.values + panel * panel_bytes + at,
                                 panel_bytes,
                                 tiles,
                                 nullptr};
      if (rows > kTileRows) {
        multiply<2, N>(operands, true, nothing_, none_, sums_);
      } else {
        multiply<1, N>(operands, true, nothing_, none_, sums_);
      }
      add_group<N>(x, rows, block_.scales + int64_t{panel} * x.groups * kPanel, g);
    }
    const int first = panel * kPanel;
    for (int r = 0; r < rows; ++r) {
      Finish::finish(block_.epilogue, totals_[r], block_.bias ? block_.bias + first : nullptr,
                     least(block_.outputs - first, N * kPanel), block_.out.f32(row + r) + first);
    }
  }

  // totals += float(sums + correction) · ws · xs for group g; totals = … for the first.
  template <int N>
  void add_group(const QuantisedRows& x, int rows, const float* scales, int g) {
    for (int n = 0; n < N; ++n) {
      const __m512 ws = _mm512_loadu_ps(scales + (int64_t{n} * x.groups + g) * kPanel);
      for (int r = 0; r < rows; ++r) {
        const int64_t at = int64_t{r} * x.groups + g;
        const __m512i products = _mm512_add_epi32(_mm512_load_si512(&sums_.at[r][n * kPanel]),
                                                  _mm512_set1_epi32(x.corrections[at]));
        const __m512 scaled = _mm512_cvtepi32_ps(products) * ws * _mm512_set1_ps(x.scales[at]);
        float* total = &totals_[r][n * kPanel];
        const __m512 old = g == 0 ? _mm512_setzero_ps() : _mm512_load_ps(total);
        _mm512_store_ps(total, old + scaled);
      }
    }
  }

  const Int8Block& block_;
  Finisher nothing_;
  Prefetch none_ = {};
  Sums sums_;
  alignas(64) float totals_[kBlockRows][kBlockOutputs];
};

}  // namespace

void linear_int8_amx(const Int8Block& block) {
  if (!block.x.tiles) return linear_int8_avx512(block);
  configure_tiles();
  if (block.x.groups == 1) {
    WholeRows(block).run();
  } else {
    Groups(block).run();
  }
  // Without tiles in use, the system has less to save when it switches threads.
  _tile_release();
}

bool amx_works() {
  constexpr unsigned kTile = 1U << 24;
  constexpr unsigned kInt8 = 1U << 25;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kTile) == 0 || (edx & kInt8) == 0) return false;
  // The tiles' data is large, so Linux wants to be asked before their first use.
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace ocelli::kernels::cpu
