#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {
namespace {

// What CPUID's leaf 7 says in EDX, or 0.
unsigned features() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
  return edx;
}

}  // namespace

bool amx_works() {
  constexpr unsigned kTile = 1U << 24;
  constexpr unsigned kInt8 = 1U << 25;
  const unsigned found = features();
  if ((found & kTile) == 0 || (found & kInt8) == 0) return false;
  // The tiles' data is large, so Linux wants to be asked before their first use.
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool amx_has_bf16() {
  constexpr unsigned kBf16 = 1U << 22;
  return (features() & kBf16) != 0;
}

}  // namespace ocelli::kernels::cpu
