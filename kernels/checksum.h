// The checksum of packed files; docs/weight-format.md says how it is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ocelli::kernels {

// 64 bits that change with any change of the bytes, but for one chance in 2^64: no protection
// against intent.
uint64_t checksum_of(std::span<const std::byte> bytes);

}  // namespace ocelli::kernels
