#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "kernels/cpu/isa/int8_tiles.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/tiles.h"

namespace ocelli::kernels::cpu {
namespace {

// From so many blocks of rows on, rows pass L1 by, and L1 keeps weights for the next block: so many
// tiles of two panels, or of one.
constexpr int kBlocksToPass = 4;
constexpr int kKeptTiles = 36;
constexpr int kKeptOfOnePanel = 32;
// What of the rows stays in L2 while weights pass, in bytes: all of them where the sums of a block
// are finished at once, and otherwise beside everyone's sums.
constexpr int64_t kWholeRowBytes = 1'400'000;
constexpr int64_t kRowBytes = 1'050'000;

struct Range {
  int begin;
  int end;
};

// Part `i` of `count` even parts of n.
Range part_of(int n, int count, int i) {
  return {n * i / count, n * (i + 1) / count};
}

int parts(int n, int most) {
  return (n + most - 1) / most;
}

// The product of a block whose rows are one group each.
//
// All of its inputs, or as many as fit L2 for all rows; of those two panels of weights; and with
// these all rows, 32 at a time.
template <Epilogue kEpilogue>
class WholeRows {
 public:
  explicit WholeRows(const Int8Block& block) : block_(block) {}

  void run() {
    const int64_t line_bytes = int64_t{row_blocks()} * kBlockRows * 64;
    const int fitting = static_cast<int>(kRowBytes / line_bytes) + 1;
    const int count = all_tiles() * line_bytes <= kWholeRowBytes ? 1 : parts(all_tiles(), fitting);
    for (int i = 0; i < count; ++i) {
      const Range inputs = part_of(all_tiles(), count, i);
      for (int panel = 0; panel < panels(); panel += 2) multiply_panels(panel, inputs);
    }
    bring_back();
    meanwhile_.finish_all();
    _mm_sfence();  // after stores past the caches
  }

 private:
  int panels() const { return parts(block_.outputs, kPanel); }
  int row_blocks() const { return parts(block_.rows, kBlockRows); }
  bool rows_pass() const { return row_blocks() >= kBlocksToPass; }
  int tail_steps() const { return block_.steps % kTileSteps; }
  int all_tiles() const { return parts(block_.steps, kTileSteps); }
  int64_t panel_bytes() const { return int64_t{block_.steps} * 64; }
  bool is_last(Range inputs) const { return inputs.end == all_tiles(); }

  // `inputs` count tiles.
  void multiply_panels(int panel, Range inputs) {
    fetch_after(panel, inputs);
    if (is_last(inputs)) {
      copy_tail(panel);
      finisher(panel) = Finisher(block_, panel);
    }
    for (int row = 0; row < block_.rows; row += kBlockRows) one(panel, row, inputs);
  }

  // What comes after these panels is fetched meanwhile.
  void fetch_after(int panel, Range inputs) {
    const uint8_t* next = block_.values + (int64_t{panel} + 2) * panel_bytes();
    if (panel + 2 >= panels()) next = is_last(inputs) ? block_.next : block_.values;
    if (!next) return;
    next += int64_t{inputs.begin} * kTileBytes;
    Prefetch& ahead = meanwhile_.ahead;
    ahead.next = next;
    ahead.end = next + int64_t{inputs.end - inputs.begin} * kTileBytes;
    ahead.panel_bytes = panel_bytes();
    ahead.lines = parts(kTileSteps, row_blocks());
  }

  // Where a panel does not end on a whole tile, what follows it is not its own, nor perhaps there.
  void copy_tail(int panel) {
    if (tail_steps() == 0) return;
    const int count = least(2, panels() - panel);
    for (int n = 0; n < count; ++n) {
      const uint8_t* end = block_.values + (int64_t{panel} + n + 1) * panel_bytes();
      std::memcpy(tail_ + n * kTileBytes, end - tail_steps() * 64, tail_steps() * 64);
    }
    // The compiler does not know that tiles are loaded from memory.
    asm volatile("" ::: "memory");
  }

  // That of this pair of panels, or of the one before.
  Finisher& finisher(int panel) { return finishers_[panel / 2 % 2]; }

  // Where the sums of a block stand: all of them wait for the rest of their inputs, or two take
  // turns, one being multiplied while the other is finished.
  Sums& sums(int panel, int row, Range inputs) {
    const int number = panel / 2 * row_blocks() + row / kBlockRows;
    const bool alone = inputs.begin == 0 && is_last(inputs);
    return reinterpret_cast<Sums*>(block_.scratch)[alone ? number % 2 : number];
  }

  void one(int panel, int row, Range inputs) {
    const bool tail = is_last(inputs) && tail_steps() > 0;
    const int tiles = inputs.end - inputs.begin - (tail ? 1 : 0);
    Operands operands = {block_.x.from(row).values + int64_t{inputs.begin} * kTileBytes,
                         block_.x.stride * kTileRows,
                         block_.values + panel * panel_bytes() + inputs.begin * kTileBytes,
                         panel_bytes(),
                         tiles,
                         tail ? tail_ : nullptr};
    operands.kept[0] = rows_pass() ? least(tiles, kKeptOfOnePanel) : tiles;
    operands.kept[1] = rows_pass() ? least(tiles, kKeptTiles - operands.kept[0]) : tiles;
    const int rows = least(block_.rows - row, kBlockRows);
    Sums& to = sums(panel, row, inputs);
    const bool first = inputs.begin == 0;
    if (rows_pass()) {
      multiply_block<false>(operands, rows, panels() - panel, first, to);
    } else {
      multiply_block<true>(operands, rows, panels() - panel, first, to);
    }
    if (!is_last(inputs)) return;
    const Finisher& own = finisher(panel);
    meanwhile_.finish_behind(own, own.row(block_, to, row), rows, most(1, tiles - 1));
  }

  template <bool kKeepsRows>
  void multiply_block(const Operands& operands, int rows, int panels, bool first, Sums& to) {
    if (rows > kTileRows && panels > 1) {
      multiply<2, 2, kKeepsRows>(operands, before_, &to, first, meanwhile_);
      before_ = &to;
      return;
    }
    bring_back();
    if (rows > kTileRows) {
      multiply<2, 1, kKeepsRows>(operands, nullptr, &to, first, meanwhile_);
      end_sums<2, 1>(in_memory(&to));
    } else if (panels > 1) {
      multiply<1, 2, kKeepsRows>(operands, nullptr, &to, first, meanwhile_);
      end_sums<1, 2>(in_memory(&to));
    } else {
      multiply<1, 1, kKeepsRows>(operands, nullptr, &to, first, meanwhile_);
      end_sums<1, 1>(in_memory(&to));
    }
  }

  // The sums that are still in the tiles.
  void bring_back() {
    if (before_) end_sums<2, 2>(in_memory(before_));
    before_ = nullptr;
  }

  const Int8Block& block_;
  Meanwhile<kEpilogue> meanwhile_;
  Finisher finishers_[2] = {Finisher(block_, 0), Finisher(block_, 0)};
  Sums* before_ = nullptr;  // those of the block before, which are still in the tiles
  alignas(64) uint8_t tail_[2 * kTileBytes] = {};
};

void whole_rows(const Int8Block& block) {
  switch (block.epilogue) {
    case Epilogue::kStore:
      return WholeRows<Epilogue::kStore>(block).run();
    case Epilogue::kAccumulate:
      return WholeRows<Epilogue::kAccumulate>(block).run();
    case Epilogue::kMultiply:
      return WholeRows<Epilogue::kMultiply>(block).run();
    case Epilogue::kGeluTanh:
      return WholeRows<Epilogue::kGeluTanh>(block).run();
    case Epilogue::kGeluErf:
      return WholeRows<Epilogue::kGeluErf>(block).run();
    case Epilogue::kSilu:
      return WholeRows<Epilogue::kSilu>(block).run();
  }
}

// The product of a block in groups, whose sums are floats from group to group.
class Groups {
 public:
  explicit Groups(const Int8Block& block) : block_(block) {}

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
                                 nullptr,
                                 {tiles, tiles}};
      if (rows > kTileRows) {
        multiply<2, N, true>(operands, nullptr, &sums_, true, none_);
        end_sums<2, N>(in_memory(&sums_));
      } else {
        multiply<1, N, true>(operands, nullptr, &sums_, true, none_);
        end_sums<1, N>(in_memory(&sums_));
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
  Nothing none_;
  Sums sums_;
  alignas(64) float totals_[kBlockRows][kBlockOutputs];
};

}  // namespace

void linear_int8_amx(const Int8Block& block) {
  if (!block.x.tiles) return linear_int8_avx512(block);
  configure_tiles();
  if (block.x.groups == 1) {
    whole_rows(block);
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
