// The CPU backend: fp32 arithmetic on every core, straight from the checkpoint's mapped weights, or
// integers where those are quantised.
#pragma once

#include <memory>
#include <string>

#include "kernels/ops.h"

namespace ocelli::kernels {

struct CpuOptions {
  int threads = 0;  // 0: as many as the process may run on
  std::string isa;  // empty: the fastest this machine has
};

// Throws host::Error when the machine does not have options.isa.
std::unique_ptr<Ops> make_cpu_ops(const CpuOptions& options);

}  // namespace ocelli::kernels
