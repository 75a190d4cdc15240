#include "app/shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <utility>

#include "app/terminal.h"
#include "host/error.h"
#include "host/sha256.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPart = "part-";
constexpr std::string_view kOf = "-of-";

// Takes a number of digits only from the front of `text`; nothing when there is none from 1 to
// kMaxProcesses, or when it has leading zeros, which part_path() never writes.
std::optional<int> take_number(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || text[0] < '1' || text[0] > '9' || number > kMaxProcesses) {
    return std::nullopt;
  }
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

bool take_text(std::string_view& text, std::string_view wanted) {
  if (!text.starts_with(wanted)) return false;
  text.remove_prefix(wanted.size());
  return true;
}

// "2/8" and "2-of-8": two numbers around `between`, taken from the front of `text`.
std::optional<Shard> take_shard(std::string_view& text, std::string_view between) {
  const auto index = take_number(text);
  if (!index || !take_text(text, between)) return std::nullopt;
  const auto count = take_number(text);
  if (!count || *index > *count) return std::nullopt;
  return Shard{*index, *count};
}

}  // namespace

bool Shard::holds(std::string_view path) const {
  const host::Sha256Digest digest = host::sha256(path);
  uint64_t hash = 0;
  for (size_t i = 0; i < sizeof hash; ++i) hash = hash << 8 | digest[i];
  return hash % static_cast<uint64_t>(count) == static_cast<uint64_t>(index) - 1;
}

std::string to_text(const Shard& shard) {
  return fmt::format("{}/{}", shard.index, shard.count);
}

Shard parse_shard(const std::string& text, const Environment& environment) {
  std::string_view rest = text;
  if (const auto shard = take_shard(rest, "/"); shard && rest.empty()) return *shard;
  const size_t slash = text.find('/');
  const std::string launcher = text.substr(0, slash);
  std::optional<int> stated;
  bool sound = launcher == "auto" || std::ranges::count(launcher_names(), launcher) > 0;
  if (sound && slash != std::string::npos) {
    rest = std::string_view(text).substr(slash + 1);
    stated = take_number(rest);
    sound = stated && rest.empty();
  }
  if (!sound) {
    throw UsageError(fmt::format(
        "--shard {}: wanted i/n with i from 1 to n (the first of eight is 1/8; n at most {}), "
        "auto or {}, or one of these with the number of shards: auto/8",
        host::printable(text), kMaxProcesses, fmt::join(launcher_names(), ", ")));
  }
  try {
    const LaunchedProcess process = launched_as(launcher, stated, environment);
    return {process.index + 1, process.count};
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("--shard {}: {}", text, error.what()));
  }
}

std::string part_path(const std::string& output, const Shard& shard) {
  const fs::path path = output;
  const std::string name = fmt::format("{}.{}{}{}{}{}", path.stem().string(), kPart, shard.index,
                                       kOf, shard.count, path.extension().string());
  return (path.parent_path() / name).string();
}

std::optional<PartName> parse_part_path(const std::string& path) {
  const fs::path whole = path;
  const std::string name = whole.filename().string();
  const size_t at = name.rfind(kPart);
  if (at == std::string::npos || (at > 0 && name[at - 1] != '.')) return std::nullopt;
  std::string_view rest = std::string_view(name).substr(at + kPart.size());
  const auto shard = take_shard(rest, kOf);
  const bool ends = rest.empty() || (rest[0] == '.' && rest.find('.', 1) == rest.npos);
  if (!shard || !ends) return std::nullopt;
  const std::string stem = at > 0 ? name.substr(0, at - 1) : "captions";
  return PartName{(whole.parent_path() / (stem + std::string(rest))).string(), *shard};
}

std::vector<std::string> find_parts(const std::string& output) {
  const fs::path whole = output;
  const fs::path folder = whole.parent_path();
  std::vector<std::pair<int, std::string>> parts;
  std::error_code error;
  for (fs::directory_iterator entry(folder.empty() ? "." : folder, error), end;
       !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const auto part = parse_part_path(name);
    if (!part || part->output != whole.filename()) continue;
    parts.emplace_back(part->shard.index, (folder / name).string());
  }
  std::ranges::sort(parts);
  std::vector<std::string> paths;
  for (auto& [index, path] : parts) paths.push_back(std::move(path));
  return paths;
}

void require_same_split(const std::string& output, const Shard& shard) {
  for (const std::string& path : find_parts(output)) {
    const int count = parse_part_path(path)->shard.count;
    if (count == shard.count) continue;
    throw UsageError(fmt::format(
        "--shard {}: {} belongs to a run in {} shards. With another number of them (when a few "
        "tasks of an array are submitted again, say) this would do other pictures: state the "
        "number, as in --shard auto/{}, or write elsewhere",
        to_text(shard), host::printable(path, 4096), count, count));
  }
}

}  // namespace ocelli::app
