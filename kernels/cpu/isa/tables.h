// The tables that are compiled in, and the int8 functions that go into them; what this machine can
// run is dispatch.cc's business. Those named after instruction
// sets are for x86-64 only.
#pragma once

#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {

extern const KernelTable kLlama2cTable;
extern const KernelTable kScalarTable;
extern const KernelTable kAvx2Table;
extern const KernelTable kAvx512Table;

void quantise_row_scalar(const InputRow& x, int group, const QuantisedRows& out);
void linear_int8_scalar(const Int8Block& block);
void quantise_row_avx2(const InputRow& x, int group, const QuantisedRows& out);
void linear_int8_avx2(const Int8Block& block);
void quantise_row_avx512(const InputRow& x, int group, const QuantisedRows& out);
void linear_int8_avx512(const Int8Block& block);
void linear_int4_scalar(const Int8Block& block);
void expand_int4_scalar(const uint8_t* panel, int steps, int factor_lines, uint8_t* out);
void linear_int4_avx2(const Int8Block& block);
void expand_int4_avx2(const uint8_t* panel, int steps, int factor_lines, uint8_t* out);
// For a processor that has_avxvnni(), and for one with AVX-512's VNNI.
void linear_int8_avxvnni(const Int8Block& block);
void linear_int4_avxvnni(const Int8Block& block);
void linear_int8_avxvnni_evex(const Int8Block& block);
void linear_int4_avxvnni_evex(const Int8Block& block);
void linear_int4_avx512(const Int8Block& block);
void expand_int4_avx512(const uint8_t* panel, int steps, int factor_lines, uint8_t* out);

// What is multiplied in tiles, from one source: in AMX's tiles, where amx_works(), all but int8
// also amx_has_bf16(); and in tiles in software, which need AVX-512 with VNNI. All need AVX-512
// with bf16, and attention its DQ and VBMI.
namespace amx {
void linear_int8(const Int8Block& block);
void linear_bf16(const Bf16Block& block);
void attention(const AttentionBlock& block);
}  // namespace amx
namespace amx_emulated {
void linear_int8(const Int8Block& block);
void linear_bf16(const Bf16Block& block);
void attention(const AttentionBlock& block);
}  // namespace amx_emulated

// Whether the processor has AVX-VNNI: VNNI without AVX-512.
bool has_avxvnni();
// Whether there is AMX with int8, and the system lets this process use it: asks it to.
bool amx_works();
// Whether AMX, where there is one, multiplies bf16.
bool amx_has_bf16();

}  // namespace ocelli::kernels::cpu
