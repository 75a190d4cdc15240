// One set of inner kernels per instruction set, behind one table of function pointers.
//
// A kernel works on a rectangle of one operation in one thread; which rectangles there are, and who
// computes them, is decided above. For a given instruction set every output depends on its own
// inputs alone, never on the rectangle it was computed in: a row gives the same bits in any batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace ocelli::kernels::cpu {

// A matrix of fp32 in memory, or, where it says so, of fp16 or bf16.
struct Rows {
  std::byte* data = nullptr;
  int64_t stride = 0;  // elements from one row to the next
  DType dtype = DType::kF32;

  // Always inlined, as files compiled for different instruction sets share it.
  [[gnu::always_inline]] float* f32(int64_t row) const {
    return reinterpret_cast<float*>(data) + row * stride;
  }
};

// out[r][n] ← epilogue(Σ_k x[r][k] · weight[n][k] + bias[n]) for `rows` rows and `outputs` outputs.
struct LinearBlock {
  Rows x;
  Rows weight;                  // fp32, fp16 or bf16
  const float* bias = nullptr;  // null: none
  Rows out;
  int rows = 0;
  int inputs = 0;
  int outputs = 0;
  Epilogue epilogue = Epilogue::kStore;
};

// One head of attention for `rows` consecutive queries of one sequence.
struct AttentionBlock {
  Rows q;                   // [rows, head_dim]
  Rows keys;                // [visible, head_dim], fp32 or fp16
  Rows values;              // likewise
  Rows out;                 // [rows, head_dim]
  float* scores = nullptr;  // scratch, rows · (last query's visible) floats
  int rows = 0;
  int head_dim = 0;
  int first_visible = 0;  // keys that query 0 sees
  int visible_step = 0;   // how many more each later query sees: 1 when causal, else 0
  float scale = 0;
};

struct KernelTable {
  const char* isa;
  void (*linear)(const LinearBlock& block);
  void (*attention)(const AttentionBlock& block);
  // One row: out = (x − mean)/√(variance + ε)·weight + bias.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float epsilon, int n,
                     float* out);
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int n, float* out);
  // One head: pairs (i, i + half) of x by the cosines and sines of `angles`.
  void (*rope)(float* x, const float* angles, int half);
  // out += x
  void (*add)(const float* x, int n, float* out);
  // Between fp32 and fp16 (rounded to nearest, even) or bf16 (to fp32 only).
  void (*to_f32)(DType dtype, const std::byte* x, int n, float* out);
  void (*to_f16)(const float* x, int n, uint16_t* out);
};

// At most this many queries may share an AttentionBlock.
inline constexpr int kAttentionRows = 4;

// The instruction sets compiled in that this machine can run, slowest first.
const std::vector<const KernelTable*>& supported_tables();

// The table called `isa`, or the fastest when it is empty. Throws host::Error naming those there
// are.
const KernelTable& select_table(const std::string& isa);

}  // namespace ocelli::kernels::cpu
