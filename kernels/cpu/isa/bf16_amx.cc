#include <immintrin.h>

#include "kernels/cpu/isa/flush.h"
#include "kernels/cpu/isa/tables.h"
#include "kernels/cpu/isa/tiles.h"
#include "kernels/cpu/isa/whole_rows.h"

namespace ocelli::kernels::cpu {
namespace {

// Sums to outputs by the arithmetic of Ops::linear for weights of bf16 in panels.
class Bf16Finisher {
 public:
  // For panel `panel` and, where it exists, the next one.
  Bf16Finisher(const Bf16Block& block, int panel) : outputs_(block, panel) {}

  // A row of sums, and of outputs.
  struct Row {
    const float* sums = nullptr;
    OutputRow out;

    [[gnu::always_inline]] inline void advance() {
      sums += kBlockOutputs;
      out.advance();
    }
  };
  // Row `row` of the block, whose sums are these.
  Row row(const Bf16Block& block, const Sums<float>& sums, int row) const {
    return {sums.at[0], outputs_.row(block, row)};
  }

  // Panel N of a row.
  template <Epilogue kEpilogue, int N>
  [[gnu::always_inline]] inline void finish(Row& row) const {
    outputs_.put<kEpilogue, N>(_mm512_load_ps(row.sums + N * kPanel), row.out);
  }

 private:
  Outputs outputs_;
};

struct Bf16Products {
  using Block = Bf16Block;
  using Sum = float;
  using Finisher = Bf16Finisher;

  template <int C, int A, int B>
  [[gnu::always_inline]] static inline void multiply() {
    add_bf16_products<C, A, B>();
  }
  static const std::byte* rows(const Bf16Block& block, int row) { return block.x.from(row).data; }
  static const uint16_t* weights(const Bf16Block& block) { return block.weights; }
};

}  // namespace

void tile_kernels::linear_bf16(const Bf16Block& block) {
  if (!block.x.tiles) return kAvx512Table.bf16.linear(block);
  const FlushDenormalsX86 flush;
  configure_tiles();
  multiply_whole_rows<Bf16Products>(block);
  release_tiles();
}

}  // namespace ocelli::kernels::cpu
