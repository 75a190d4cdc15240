// A device made of host memory that behaves like the worst of boards: banks are small, fresh memory
// is NaN, and nothing runs before somebody waits for it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "host/device.h"

namespace ocelli::host {

// An argument as an emulated kernel sees it: the memory from the argument's offset to the buffer's
// end.
using KernelArgument = std::variant<std::span<std::byte>, int64_t, double>;
using Kernel = std::function<void(std::span<const KernelArgument>)>;

struct EmulatedDeviceConfig {
  std::string name;
  int banks = 1;
  int64_t bank_bytes = 0;
};

// The memory of an Alveo U280: 8 GiB of HBM2 in 32 pseudo-channels.
EmulatedDeviceConfig u280_config();

// Kernels are plain functions registered by name.
std::unique_ptr<Device> make_emulated_device(EmulatedDeviceConfig config,
                                             std::map<std::string, Kernel, std::less<>> kernels);

}  // namespace ocelli::host
