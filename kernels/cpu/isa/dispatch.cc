#include <fmt/ranges.h>

#include "host/error.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {

const std::vector<const KernelTable*>& supported_tables() {
  static const std::vector<const KernelTable*> tables = [] {
    std::vector<const KernelTable*> found = {&kLlama2cTable, &kScalarTable};
#if defined(__x86_64__)
    // Every processor with AVX2 has F16C.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      found.push_back(&kAvx2Table);
    }
    // All servers since Cascade Lake and all clients since Ice Lake have VNNI with the rest; what
    // has AVX-512 without it is served by AVX2.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
      found.push_back(&kAvx512Table);
      // AVX-512 with tiles for the int8 products of many rows.
      static const KernelTable amx = [] {
        KernelTable table = kAvx512Table;
        table.isa = "amx";
        table.int8.linear = linear_int8_amx;
        table.int8.tiles = true;
        if (bf16_works()) table.attention_reduced = attention_amx;
        if (amx_has_bf16()) {
          table.bf16.linear = linear_bf16_amx;
          table.bf16.tiles = true;
        }
        return table;
      }();
      // Every processor with AMX has AVX-512's bf16.
      if (__builtin_cpu_supports("avx512bf16") && amx_works()) found.push_back(&amx);
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
