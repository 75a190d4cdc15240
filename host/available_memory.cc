#include "host/available_memory.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <vector>

namespace ocelli::host {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kKilobyte = 1024;

std::optional<int64_t> parse_number(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;  // "max" is no number
  return static_cast<int64_t>(
      std::min<uint64_t>(number, static_cast<uint64_t>(AvailableMemory::kUnlimited)));
}

// The number a file of one number holds.
std::optional<int64_t> read_number(const fs::path& path) {
  std::ifstream file(path);
  std::string word;
  if (!(file >> word)) return std::nullopt;
  return parse_number(word);
}

// The number behind `key` in a file of lines "key number", or "key: number kB".
std::optional<int64_t> read_entry(const fs::path& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::string number;
    if (words >> name >> number && name == key) return parse_number(number);
  }
  return std::nullopt;
}

// The names of a version of control groups' files.
struct GroupFiles {
  std::vector<const char*> limits;
  const char* usage;
  // Pages of files, which are given up before anything is refused.
  std::vector<const char*> reclaimable;
};

// What the group in `folder` leaves.
int64_t left_in(const fs::path& folder, const GroupFiles& files) {
  int64_t limit = AvailableMemory::kUnlimited;
  for (const char* name : files.limits) {
    limit = std::min(limit, read_number(folder / name).value_or(limit));
  }
  const std::optional<int64_t> usage = read_number(folder / files.usage);
  if (limit == AvailableMemory::kUnlimited || !usage) return AvailableMemory::kUnlimited;
  int64_t used = *usage;
  for (const char* key : files.reclaimable) {
    used -= read_entry(folder / "memory.stat", key).value_or(0);
  }
  return std::max<int64_t>(0, limit - std::max<int64_t>(0, used));
}

// The least that the group `name` of the hierarchy at `mount` and those above it leave. In a
// container the name may be the host's, under which there is nothing: the mount is its own group.
int64_t left_in_groups(const fs::path& mount, const std::string& name, const GroupFiles& files) {
  int64_t least = left_in(mount, files);
  fs::path folder = mount;
  for (const fs::path& part : fs::path(name).relative_path()) {
    folder /= part;
    least = std::min(least, left_in(folder, files));
  }
  return least;
}

int64_t left_by_control_groups(const fs::path& root) {
  static const GroupFiles kVersion1 = {{"memory.limit_in_bytes"},
                                       "memory.usage_in_bytes",
                                       {"total_inactive_file", "total_active_file"}};
  static const GroupFiles kVersion2 = {
      {"memory.max", "memory.high"}, "memory.current", {"inactive_file", "active_file"}};
  const fs::path mounts = root / "sys/fs/cgroup";
  int64_t least = AvailableMemory::kUnlimited;
  std::ifstream file(root / "proc/self/cgroup");
  // ID:CONTROLLERS:PATH, without controllers in version 2
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const std::string name = line.substr(second + 1);
    if (controllers == ",,") {
      least = std::min(least, left_in_groups(mounts, name, kVersion2));
    } else if (controllers.find(",memory,") != std::string::npos) {
      least = std::min(least, left_in_groups(mounts / "memory", name, kVersion1));
    }
  }
  return least;
}

// What a limit of the shell's leaves, of which `used` pages are taken.
int64_t left_by_ulimit(__rlimit_resource resource, int64_t used_pages) {
  rlimit limit = {};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return AvailableMemory::kUnlimited;
  }
  const auto most = static_cast<int64_t>(
      std::min<rlim_t>(limit.rlim_cur, static_cast<rlim_t>(AvailableMemory::kUnlimited)));
  return std::max<int64_t>(0, most - used_pages * sysconf(_SC_PAGESIZE));
}

}  // namespace

AvailableMemory available_memory(const fs::path& root) {
  AvailableMemory available;
  const auto limit_to = [&](int64_t bytes, const char* limit) {
    available = limited_to(available, bytes, limit);
  };
  const fs::path meminfo = root / "proc/meminfo";
  if (const auto free = read_entry(meminfo, "MemAvailable:")) {
    available.ram = *free * kKilobyte;
    const int64_t swap = read_entry(meminfo, "SwapFree:").value_or(0) * kKilobyte;
    limit_to(available.ram + swap, "this machine has");
  }
  const int64_t groups = left_by_control_groups(root);
  available.ram = std::min(available.ram, groups);
  limit_to(groups, "the control group of this process leaves");

  // Pages: of all addresses, resident, shared, code, 0, of data and stacks.
  std::ifstream statm(root / "proc/self/statm");
  int64_t pages[6] = {};
  for (int64_t& number : pages) statm >> number;
  if (statm) {
    limit_to(left_by_ulimit(RLIMIT_AS, pages[0]), "ulimit -v leaves");
    limit_to(left_by_ulimit(RLIMIT_DATA, pages[5]), "ulimit -d leaves");
  }
  return available;
}

AvailableMemory limited_to(AvailableMemory available, int64_t bytes, const std::string& limit) {
  if (bytes < available.bytes) {
    available.bytes = bytes;
    available.limit = limit;
  }
  return available;
}

}  // namespace ocelli::host
