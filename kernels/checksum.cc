#include "kernels/checksum.h"

#include <cstddef>
#include <cstring>

namespace ocelli::kernels {

uint64_t checksum_of(std::span<const std::byte> bytes) {
  constexpr size_t kLanes = 4;  // so that the multiplications need not wait for one another
  constexpr uint64_t kFactor = 0x9E3779B97F4A7C15;
  uint64_t lanes[kLanes] = {1, 2, 3, 4};
  const auto mix = [](uint64_t& lane, uint64_t word) {
    lane = (lane ^ word) * kFactor;
    lane ^= lane >> 32;
  };
  size_t at = 0;
  for (; bytes.size() - at >= sizeof lanes; at += sizeof lanes) {
    uint64_t words[kLanes];
    std::memcpy(words, bytes.data() + at, sizeof words);
    for (size_t i = 0; i < kLanes; ++i) mix(lanes[i], words[i]);
  }
  // The last bytes, filled up with zeros; the length tells these from others.
  uint64_t last[kLanes] = {};
  if (at < bytes.size()) std::memcpy(last, bytes.data() + at, bytes.size() - at);
  for (size_t i = 0; i < kLanes; ++i) mix(lanes[i], last[i]);
  uint64_t sum = bytes.size();
  for (const uint64_t lane : lanes) mix(sum, lane);
  return sum;
}

}  // namespace ocelli::kernels
