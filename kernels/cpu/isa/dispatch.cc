#include <fmt/ranges.h>

#include "host/error.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {

const std::vector<const KernelTable*>& supported_tables() {
  static const std::vector<const KernelTable*> tables = [] {
    std::vector<const KernelTable*> found = {&kScalarTable};
#if defined(__x86_64__)
    // Every processor with AVX2 has F16C.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      found.push_back(&kAvx2Table);
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
      found.push_back(&kAvx512Table);
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
