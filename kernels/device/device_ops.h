// Ops over any host::Device: operations become launches of kernels by name.
#pragma once

#include <memory>

#include "host/device.h"
#include "kernels/ops.h"

namespace ocelli::kernels {

// Weights are spread over the banks, each where most room is left, in pieces when one bank does not
// hold them; keys and values go to different banks. kernels/device/kernel_set.h lists the kernels
// and their arguments.
std::unique_ptr<Ops> make_device_ops(std::unique_ptr<host::Device> device);

}  // namespace ocelli::kernels
