#include <fmt/ranges.h>

#include "host/error.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {
namespace {

#if defined(__x86_64__)
// All servers since Cascade Lake and all clients since Ice Lake have VNNI with the rest; what has
// AVX-512 without it is served by AVX2.
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

// AVX2 with VNNI for the products of int8 and int4.
const KernelTable& avxvnni_table() {
  static const KernelTable vnni = [] {
    const bool vex = has_avxvnni();
    KernelTable table = kAvx2Table;
    table.isa = "avxvnni";
    table.int8.linear = vex ? linear_int8_avxvnni : linear_int8_avxvnni_evex;
    table.int8.int4.linear = vex ? linear_int4_avxvnni : linear_int4_avxvnni_evex;
    table.int8.int4.expand_from = 64;
    return table;
  }();
  return vnni;
}

// What is multiplied in tiles; null: nothing of the kind.
struct TileFunctions {
  void (*linear_int8)(const Int8Block& block);
  void (*linear_bf16)(const Bf16Block& block);
  void (*attention)(const AttentionBlock& block);
};

// AVX-512 with tiles for the products of many rows.
KernelTable with_tiles(const char* isa, const TileFunctions& functions) {
  KernelTable table = kAvx512Table;
  table.isa = isa;
  table.int8.linear = functions.linear_int8;
  table.int8.tiles = true;
  table.int8.int4.expand_from = Int4Functions::kExpandFrom;
  if (functions.linear_bf16) {
    table.bf16.linear = functions.linear_bf16;
    table.bf16.tiles = true;
  }
  table.attention_reduced = functions.attention;
  return table;
}

// Adds the table with tiles that this machine, which has AVX-512, can run: AMX's, as the fastest,
// or else the one in software, which is for tests and never the last.
void add_tiles(std::vector<const KernelTable*>& tables) {
  // Every processor with AMX has AVX-512's bf16.
  if (!__builtin_cpu_supports("avx512bf16")) return;
  const bool attends =
      __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vbmi") != 0;
  if (amx_works()) {
    const bool bf16 = amx_has_bf16();
    static const KernelTable amx =
        with_tiles("amx", {amx::linear_int8, bf16 ? amx::linear_bf16 : nullptr,
                           bf16 && attends ? amx::attention : nullptr});
    tables.push_back(&amx);
  } else if (attends) {
    static const KernelTable emulated =
        with_tiles("amx-emulated",
                   {amx_emulated::linear_int8, amx_emulated::linear_bf16, amx_emulated::attention});
    tables.insert(tables.begin(), &emulated);
  }
}
#endif

}  // namespace

const std::vector<const KernelTable*>& supported_tables() {
  static const std::vector<const KernelTable*> tables = [] {
    std::vector<const KernelTable*> found = {&kLlama2cTable, &kScalarTable};
#if defined(__x86_64__)
    // Every processor with AVX2 has F16C.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      found.push_back(&kAvx2Table);
      if (has_avxvnni() || has_avx512()) found.push_back(&avxvnni_table());
    }
    if (has_avx512()) {
      found.push_back(&kAvx512Table);
      add_tiles(found);
    }
#endif
    return found;
  }();
  return tables;
}

const KernelTable& select_table(const std::string& isa) {
  if (isa.empty()) return *supported_tables().back();
  std::vector<std::string> names;
  for (const KernelTable* table : supported_tables()) {
    if (isa == table->isa) return *table;
    names.emplace_back(table->isa);
  }
  host::fail("OCELLI_ISA={}: this machine offers {}", host::printable(isa), fmt::join(names, ", "));
}

}  // namespace ocelli::kernels::cpu
