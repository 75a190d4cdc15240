// Backends by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace ocelli::kernels {

struct BackendOptions {
  std::string name = "cpu";
  int threads = 0;  // 0: as many as the process may run on
  std::string isa;  // cpu only; empty: the fastest there is
};

// "cpu", "reference", "u280-emulated"
const std::vector<std::string>& backend_names();

// Throws host::Error for a name that is not one of backend_names(), or an isa this machine lacks.
std::unique_ptr<Ops> make_backend(const BackendOptions& options);

}  // namespace ocelli::kernels
