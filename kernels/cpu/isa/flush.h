// Denormals as AMX takes them in products of bf16: as zeros, in what is read and what comes out.
//
// Internal linkage, as kernels.h explains.
#pragma once

#include <immintrin.h>

namespace ocelli::kernels::cpu {
namespace {

class FlushDenormalsX86 {
 public:
  FlushDenormalsX86() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlush); }
  ~FlushDenormalsX86() { _mm_setcsr(before_); }
  FlushDenormalsX86(const FlushDenormalsX86&) = delete;
  FlushDenormalsX86& operator=(const FlushDenormalsX86&) = delete;

 private:
  static constexpr unsigned kFlush = 0x8040;  // MXCSR: flush to zero, denormals are zeros
  unsigned before_;
};

}  // namespace
}  // namespace ocelli::kernels::cpu
