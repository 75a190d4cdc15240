#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

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
static_assert(kBlockRows == kQuantisedRowBlock);
// Below this, AVX-512's VNNI is faster.
constexpr int kFewRows = 8;

// Weights that stay in L1 while the rows pass: this many tiles of each of two panels, 32 KB.
constexpr int kChunkTiles = 16;
// Rows that pass between two chunks of weights; their sums must not crowd out the rows.
constexpr int kMostBlocks = 8;

// Sums of 32 rows and 32 outputs: in integers those of the group in hand, in floats of all so far.
struct alignas(64) Sums {
  int32_t products[kBlockRows][kBlockOutputs];
  float totals[kBlockRows][kBlockOutputs];
};

// The operands of one multiplication: M · 16 rows of x by N panels of weights.
struct Operands {
  const int8_t* x;
  int64_t stride;
  const uint8_t* weights;
  int64_t panel_bytes;
  int tiles;
};

// products += x · weights, or = for the first of a group.
//
// Tiles 0 to 3 are the sums (2m + n), 4 and 5 the rows, 6 and 7 the weights.
template <int M, int N>
void multiply(Operands o, bool first, Sums& sums) {
  constexpr int kStride = kBlockOutputs * sizeof(int32_t);
  int32_t* corner[] = {&sums.products[0][0], &sums.products[0][kPanel],
                       &sums.products[kTileRows][0], &sums.products[kTileRows][kPanel]};
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
  for (int t = 0; t < o.tiles; ++t, o.x += 64, o.weights += kTileBytes) {
    _tile_loadd(6, o.weights, 64);
    _tile_loadd(4, o.x, o.stride);
    _tile_dpbsud(0, 4, 6);
    if (N > 1) {
      _tile_loadd(7, o.weights + o.panel_bytes, 64);
      _tile_dpbsud(1, 4, 7);
    }
    if (M > 1) {
      _tile_loadd(5, o.x + kTileRows * o.stride, o.stride);
      _tile_dpbsud(2, 5, 6);
    }
    if (M > 1 && N > 1) _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, corner[0], kStride);
  if (N > 1) _tile_stored(1, corner[1], kStride);
  if (M > 1) _tile_stored(2, corner[2], kStride);
  if (M > 1 && N > 1) _tile_stored(3, corner[3], kStride);
  // The compiler does not know that these stores write to sums.
  asm volatile("" ::: "memory");
}

// totals += float(products + correction) · ws · xs for group g; totals = … for the first.
template <int N>
void add_group(const QuantisedRows& x, int rows, const float* scales, int g, Sums& sums) {
  for (int n = 0; n < N; ++n) {
    const __m512 ws = _mm512_loadu_ps(scales + (int64_t{n} * x.groups + g) * kPanel);
    for (int r = 0; r < rows; ++r) {
      const int64_t at = int64_t{r} * x.groups + g;
      const __m512i products = _mm512_add_epi32(_mm512_load_si512(&sums.products[r][n * kPanel]),
                                                _mm512_set1_epi32(x.corrections[at]));
      const __m512 scaled = _mm512_cvtepi32_ps(products) * ws * _mm512_set1_ps(x.scales[at]);
      float* total = &sums.totals[r][n * kPanel];
      const __m512 old = g == 0 ? _mm512_setzero_ps() : _mm512_load_ps(total);
      _mm512_store_ps(total, old + scaled);
    }
  }
}

// Up to 32 rows, and the inputs of a group from `tile` on, as far as a chunk goes.
struct Chunk {
  int row;
  int rows;
  int group;
  int tile;
};

template <int N>
void add_chunk(const Int8Block& block, int panel, const Chunk& chunk, Sums& sums) {
  const QuantisedRows x = block.x.from(chunk.row);
  const int tiles = block.steps / kTileSteps;  // in a group
  const int64_t panel_bytes = int64_t{x.groups} * tiles * kTileBytes;
  const int64_t at = int64_t{chunk.group} * tiles + chunk.tile;
  const int left = tiles - chunk.tile;
  const Operands operands = {x.values + at * 64, x.stride,
                             block.values + panel * panel_bytes + at * kTileBytes, panel_bytes,
                             left < kChunkTiles ? left : kChunkTiles};
  if (chunk.rows > kTileRows) {
    multiply<2, N>(operands, chunk.tile == 0, sums);
  } else {
    multiply<1, N>(operands, chunk.tile == 0, sums);
  }
  if (left > kChunkTiles) return;
  const float* scales = block.scales + int64_t{panel} * x.groups * kPanel;
  add_group<N>(x, chunk.rows, scales, chunk.group, sums);
}

// All of a block's rows, at most kMostBlocks · 32, and N panels from `panel` on.
template <int N>
void panels_of(const Int8Block& block, int panel, Sums* sums) {
  const int groups = block.x.groups;
  const int tiles = block.steps / kTileSteps;  // in a group
  // Several short groups make a chunk, or a long one several chunks.
  const int chunk_groups = tiles < kChunkTiles ? kChunkTiles / tiles : 1;
  for (int group = 0; group < groups; group += chunk_groups) {
    const int end = groups - group < chunk_groups ? groups : group + chunk_groups;
    for (int tile = 0; tile < tiles; tile += kChunkTiles) {
      for (int row = 0; row < block.rows; row += kBlockRows) {
        const int rows = block.rows - row < kBlockRows ? block.rows - row : kBlockRows;
        for (int g = group; g < end; ++g) {
          add_chunk<N>(block, panel, {row, rows, g, tile}, sums[row / kBlockRows]);
        }
      }
    }
  }
  const int first = panel * kPanel;
  const int count = block.outputs - first < N * kPanel ? block.outputs - first : N * kPanel;
  for (int r = 0; r < block.rows; ++r) {
    Finish::finish(block.epilogue, sums[r / kBlockRows].totals[r % kBlockRows],
                   block.bias ? block.bias + first : nullptr, count, block.out.f32(r) + first);
  }
}

// All panels of a block of at most kMostBlocks · 32 rows.
void linear_of(const Int8Block& block, Sums* sums) {
  int panel = 0;
  for (; block.outputs - panel * kPanel > kPanel; panel += 2) panels_of<2>(block, panel, sums);
  if (panel * kPanel < block.outputs) panels_of<1>(block, panel, sums);
}

}  // namespace

void linear_int8_amx(const Int8Block& block) {
  // A tile takes 64 inputs, which must be of one group.
  if (block.rows < kFewRows || block.steps % kTileSteps != 0) return linear_int8_avx512(block);
  Sums sums[kMostBlocks];
  configure_tiles();
  constexpr int kMostRows = kMostBlocks * kBlockRows;
  for (int row = 0; row < block.rows; row += kMostRows) {
    Int8Block part = block;
    part.x = block.x.from(row);
    part.out.data += row * block.out.stride * static_cast<int64_t>(sizeof(float));
    part.rows = block.rows - row < kMostRows ? block.rows - row : kMostRows;
    linear_of(part, sums);
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
