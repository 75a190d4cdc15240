#include <cpuid.h>
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/isa/activations.h"
#include "kernels/cpu/isa/flush.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/tiles.h"
#include "kernels/cpu/isa/vec_avx512.h"

namespace ocelli::kernels::cpu {
namespace {

using Finish = Activations<VecAvx512>;

constexpr int kPanel = 16;        // outputs of a panel: the columns of a tile
constexpr int kTileRows = 16;     // rows of activations in a tile
constexpr int kTileBytes = 1024;  // 16 rows of 64 bytes
constexpr int kTileSteps = 16;    // lines of weights in a tile
constexpr int kLine = 32;         // values of a line
constexpr int kBlockRows = 2 * kTileRows;
constexpr int kBlockOutputs = 2 * kPanel;
static_assert(kBf16TiledRows % kBlockRows == 0);

// Tiles of inputs that are multiplied in one go: the weights of a block stay in L2 meanwhile.
constexpr int kMostTiles = 80;

int least(int a, int b) {
  return a < b ? a : b;
}

// Sums of 32 rows and 32 outputs.
struct alignas(64) Sums {
  float at[kBlockRows][kBlockOutputs];
};

// A block of sums on its way to the output. Its vectors are finished one by one between the
// multiplications of the next block, which leave the vector units idle.
class Finisher {
 public:
  explicit Finisher(const Bf16Block& block) : block_(block) {}

  // Takes a block of sums in hand, of panel `panel` and, where they exist, the next one, for `rows`
  // rows from `row` on. The one before must be done.
  void begin(const Sums& sums, int panel, int row, int rows) {
    sums_ = &sums;
    first_ = panel * kPanel;
    row_ = row;
    panels_ = block_.outputs - first_ > kPanel ? 2 : 1;
    next_ = 0;
    end_ = rows * panels_;
  }

  // Vectors of the block in hand that are not finished.
  int left() const { return end_ - next_; }

  [[gnu::always_inline]] inline void some(int vectors) {
    for (const int end = least(next_ + vectors, end_); next_ < end; ++next_) {
      const int r = next_ / panels_;
      const int n = next_ % panels_ * kPanel;
      Finish::finish(
          block_.epilogue, &sums_->at[r][n], block_.bias ? block_.bias + first_ + n : nullptr,
          least(block_.outputs - first_ - n, kPanel), block_.out.f32(row_ + r) + first_ + n);
    }
  }

 private:
  const Bf16Block& block_;
  const Sums* sums_ = nullptr;
  int first_ = 0;
  int row_ = 0;
  int panels_ = 1;
  int next_ = 0;
  int end_ = 0;
};

// The operands of one multiplication: M · 16 rows of x by N panels of weights, some inputs long.
struct Operands {
  const std::byte* x;  // tiles of 16 rows
  int64_t x_bytes;     // from 16 rows to the next
  const uint16_t* weights;
  int64_t panel_bytes;
  int tiles;
  const std::byte* tail;  // a last tile of weights for each panel, kTileBytes apart, or null
};

// sums += x · weights, or = where they are the first. Some of `behind` is finished at each step.
//
// Tiles 0 to 3 are the sums (2m + n), 4 and 5 the rows, 6 and 7 the weights.
template <int M, int N>
void multiply(const Operands& o, bool first, Finisher& behind, Sums& sums) {
  const TileSums all = {reinterpret_cast<std::byte*>(&sums), kBlockOutputs * sizeof(float)};
  begin_sums<M, N>(all, first);
  const auto step = [&](const std::byte* x, const std::byte* weights, int64_t panel_bytes)
      __attribute__((always_inline)) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(4, x, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (N > 1) {
      _tile_loadd(7, weights + panel_bytes, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (M > 1) {
      _tile_loadd(5, x + o.x_bytes, 64);
      _tile_dpbf16ps(2, 5, 6);
    }
    if (M > 1 && N > 1) _tile_dpbf16ps(3, 5, 7);
  };
  const int vectors = behind.left() / (o.tiles + 1) + 1;
  const auto* weights = reinterpret_cast<const std::byte*>(o.weights);
  for (int t = 0; t < o.tiles; ++t) {
    step(o.x + t * kTileBytes, weights + t * kTileBytes, o.panel_bytes);
    behind.some(vectors);
  }
  if (o.tail) step(o.x + o.tiles * kTileBytes, o.tail, kTileBytes);
  behind.some(behind.left());
  end_sums<M, N>(all);
}

class Product {
 public:
  explicit Product(const Bf16Block& block) : block_(block), behind_(block) {}

  void run() {
    const int chunks = (all_tiles() + kMostTiles - 1) / kMostTiles;
    const int tiles = (all_tiles() + chunks - 1) / chunks;
    // Between two chunks the sums of these rows wait.
    const int rows = chunks == 1 ? block_.rows : kBf16TiledRows;
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
  const uint16_t* panel_at(int panel) const {
    return block_.weights + int64_t{panel} * block_.steps * kLine;
  }

  // The chunk of the rows from first_row_ to `end`. A block of rows meets all of the weights, which
  // stay in L2, before the next one.
  void multiply_chunk(int end) {
    for (int row = first_row_; row < end; row += kBlockRows) {
      for (int panel = 0; panel < panels(); panel += 2) one(panel, row);
    }
  }

  // Where a panel does not end on a whole tile, what follows it is not its own, nor perhaps there.
  bool copy_tail(int panel) {
    if (!chunk_.last || tail_steps() == 0) return false;
    const int64_t bytes = int64_t{tail_steps()} * 64;
    for (int n = 0; n < least(2, panels() - panel); ++n) {
      const auto* end = reinterpret_cast<const std::byte*>(panel_at(panel + n + 1));
      std::memcpy(tail_ + n * kTileBytes, end - bytes, bytes);
    }
    return true;
  }

  // Where the sums of a block stand: between two chunks all of them wait, otherwise two are enough,
  // one in hand and one behind.
  Sums& sums_of(int panel, int row) {
    auto* all = reinterpret_cast<Sums*>(block_.scratch);
    if (chunk_.first && chunk_.last) return all[turn_++ % 2];
    return all[panel / 2 * (kBf16TiledRows / kBlockRows) + (row - first_row_) / kBlockRows];
  }

  void one(int panel, int row) {
    const bool tail = copy_tail(panel);
    const int rows = least(block_.rows - row, kBlockRows);
    const Operands operands = {block_.x.from(row).data + int64_t{chunk_.tile} * kTileBytes,
                               block_.x.stride * kTileRows,
                               panel_at(panel) + int64_t{chunk_.tile} * kTileSteps * kLine,
                               int64_t{block_.steps} * 64,
                               chunk_.tiles - (tail ? 1 : 0),
                               tail ? tail_ : nullptr};
    Sums& sums = sums_of(panel, row);
    const bool two = panel + 1 < panels();
    if (rows > kTileRows && two) {
      multiply<2, 2>(operands, chunk_.first, behind_, sums);
    } else if (rows > kTileRows) {
      multiply<2, 1>(operands, chunk_.first, behind_, sums);
    } else if (two) {
      multiply<1, 2>(operands, chunk_.first, behind_, sums);
    } else {
      multiply<1, 1>(operands, chunk_.first, behind_, sums);
    }
    if (chunk_.last) behind_.begin(sums, panel, row, rows);
  }

  const Bf16Block& block_;
  Finisher behind_;
  int first_row_ = 0;
  Chunk chunk_ = {};
  int turn_ = 0;
  alignas(64) std::byte tail_[2 * kTileBytes] = {};
};

}  // namespace

void linear_bf16_amx(const Bf16Block& block) {
  if (!block.x.tiles) return kAvx512Table.bf16.linear(block);
  const FlushDenormalsX86 flush;
  configure_tiles();
  Product(block).run();
  _tile_release();
}

bool amx_has_bf16() {
  constexpr unsigned kBf16 = 1U << 22;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kBf16) != 0;
}

}  // namespace ocelli::kernels::cpu
