// Loops that do nothing but one thing, to measure how fast a core does it.
//
// Included by files compiled for different instruction sets: it declares, and defines nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ocelli::kernels::cpu {

// Runs so many rounds of independent multiply-adds in registers and returns how many operations
// that was, two a multiply-add.
using PeakLoop = int64_t (*)(int64_t rounds);

struct LimitLoops {
  PeakLoop f32;
  PeakLoop int8;  // null: this instruction set has none worth the name
  PeakLoop bf16;
};

// The loops for what the table of the instruction set `isa` computes with, as far as this machine
// has them.
LimitLoops limit_loops(const std::string& isa);

// The sum of `bytes`, taken eight at a time; a multiple of kReadUnit, from a multiple of 16 on.
inline constexpr int64_t kReadUnit = 4096;
uint64_t sum_bytes(const std::byte* data, int64_t bytes);

int64_t portable_f32_loop(int64_t rounds);
int64_t avx2_f32_loop(int64_t rounds);
int64_t avx2_int8_loop(int64_t rounds);
int64_t avxvnni_int8_loop(int64_t rounds);       // where tables.h's has_avxvnni()
int64_t avxvnni_evex_int8_loop(int64_t rounds);  // where there is AVX-512's VNNI
int64_t avx512_f32_loop(int64_t rounds);
int64_t avx512_int8_loop(int64_t rounds);  // VNNI
int64_t avx512_bf16_loop(int64_t rounds);  // VDPBF16PS, where there is one
int64_t amx_int8_loop(int64_t rounds);     // once amx_works()
int64_t amx_bf16_loop(int64_t rounds);

}  // namespace ocelli::kernels::cpu
