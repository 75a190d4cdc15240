#include <cpuid.h>
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
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
  static const std::byte* rows(const Bf16Block& block, int row) { return block.x.from(row).data; }
  static const uint16_t* weights(const Bf16Block& block) { return block.weights; }
};

}  // namespace

void linear_bf16_amx(const Bf16Block& block) {
  if (!block.x.tiles) return kAvx512Table.bf16.linear(block);
  const FlushDenormalsX86 flush;
  configure_tiles();
  multiply_whole_rows<Bf16Products>(block);
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
