// Memory of the CPU backend's operations.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/host_storage.h"

namespace ocelli::kernels::cpu {

// It grows to the largest call so far, so that the token loop allocates nothing.
class Scratch {
 public:
  // `bytes` bytes on a cache line, with undefined contents; null where none were ever wanted.
  std::byte* room_for(int64_t bytes) {
    if (bytes > bytes_) {
      memory_ = std::make_unique<HostStorage>(bytes);
      bytes_ = bytes;
    }
    return memory_ ? memory_->data() : nullptr;
  }

 private:
  std::unique_ptr<HostStorage> memory_;
  int64_t bytes_ = 0;
};

}  // namespace ocelli::kernels::cpu
