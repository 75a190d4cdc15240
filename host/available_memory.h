// How much memory a process can still get, and who says so.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>

namespace ocelli::host {

// Bytes.
struct AvailableMemory {
  static constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

  int64_t bytes = kUnlimited;  // of memory of its own
  std::string limit;           // who says so: "this machine has"; before the number in messages
  int64_t ram = kUnlimited;  // what of that, and of files' pages, need not be swapped or read anew
};

// By /proc/meminfo (swap included), the control groups (v1 and v2) that this process is in,
// RLIMIT_AS and RLIMIT_DATA; what cannot be read limits nothing. `root` stands for "/" in tests.
AvailableMemory available_memory(const std::filesystem::path& root = "/");

// The same with no more than `bytes` in all, which is what `limit` says.
AvailableMemory limited_to(AvailableMemory available, int64_t bytes, const std::string& limit);

}  // namespace ocelli::host
