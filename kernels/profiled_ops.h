// A decorator that records when every operation ran, for Perfetto.
#pragma once

#include <memory>
#include <string>

#include "kernels/forwarding_ops.h"

namespace ocelli::kernels {

// Events of the Trace Event format, one an operation, with its shape and the multiply-adds of
// its matrix products (linear, project, linear_sum, attention; elsewhere 0); on a machine that
// works asynchronously an operation lasts as long as its launch, and read() as long as the work.
class ProfiledOps : public ForwardingOps {
 public:
  using ForwardingOps::ForwardingOps;

  // Writes the trace to `path`, whole or not at all; throws host::Error when that fails.
  virtual void save(const std::string& path) const = 0;
};

std::unique_ptr<ProfiledOps> make_profiled_ops(std::unique_ptr<Ops> inner);

}  // namespace ocelli::kernels
