// The reference backend: naive loops with double accumulation, on one thread.
#pragma once

#include <memory>

#include "kernels/host_storage.h"

namespace ocelli::kernels {

std::unique_ptr<Ops> make_reference_ops();

}  // namespace ocelli::kernels
