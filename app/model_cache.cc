#include "app/model_cache.h"

#include <algorithm>
#include <cstdlib>
#include <span>
#include <system_error>
#include <vector>

#include "app/terminal.h"
#include "host/error.h"
#include "host/output_file.h"
#include "kernels/packed_file.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMegabyte = 1'000'000;

// $XDG_CACHE_HOME/ocelli; empty when the environment names no place.
fs::path cache_directory() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache == '/') return fs::path(cache) / "ocelli";  // relative ones do not count
  const char* home = std::getenv("HOME");
  if (home && *home == '/') return fs::path(home) / ".cache" / "ocelli";
  return {};
}

// The files that a model at `path` may be made of: all of a directory, or a file and tokenizer.bin
// beside it.
std::vector<fs::path> files_of(const fs::path& path) {
  std::vector<fs::path> files;
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::ranges::sort(files);
    return files;
  }
  files.push_back(path);
  files.push_back(path.parent_path() / "tokenizer.bin");
  return files;
}

// What the packed form depends on.
std::string key_of(const fs::path& path, const PackSettings& settings) {
  std::string key = fmt::format("format {}, {}, group {}, {}, head {}\n", kernels::kPackedFormat,
                                weights_name(settings), settings.group, settings.factor_group,
                                head_name(settings.head));
  std::vector<fs::path> files = files_of(path);
  if (settings.tokenizer) files.push_back(fs::canonical(*settings.tokenizer));
  for (const fs::path& file : files) {
    std::error_code missing;
    const auto size = fs::file_size(file, missing);
    if (missing) continue;
    key += fmt::format("{}\n{} bytes, {}\n", file.string(), size,
                       fs::last_write_time(file).time_since_epoch().count());
  }
  return key;
}

// A name for people to recognise, and 64 bits of the key.
std::string file_name(const fs::path& path, const std::string& key) {
  std::string name = path.filename().stem().string().substr(0, 60);
  for (char& c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!plain && c != '-' && c != '.' && c != '_') c = '_';
  }
  return fmt::format("{}-{:016x}.ocelli", name,
                     kernels::checksum_of(std::as_bytes(std::span(key))));
}

bool is_sound(const fs::path& cached) {
  std::error_code ignored;
  if (!fs::exists(cached, ignored)) return false;
  try {
    open_model(cached);
    return true;
  } catch (const host::Error&) {
    return false;  // an older format, or cut off: it is made again
  }
}

// Throws Error unless `directory` has room for `bytes`.
void require_space(const fs::path& directory, int64_t bytes) {
  std::error_code unknown;
  const fs::space_info space = fs::space(directory, unknown);
  if (unknown || space.available >= static_cast<uintmax_t>(bytes)) return;
  host::fail("{}: the packed model takes {} MB, but only {} MB are free there", directory.string(),
             bytes / kMegabyte + 1, space.available / kMegabyte);
}

}  // namespace

PackedSizes pack_into_file(const OpenedModel& model, const PackSettings& settings, int threads,
                           const fs::path& target, bool quiet) {
  host::ThreadPool pool(threads > 0 ? threads : host::available_processors());
  host::OutputFile file(target.string());
  std::unique_ptr<Progress> progress;
  catch_interrupts();
  const auto begin = [&](int64_t bytes) {
    const fs::path parent = target.parent_path();
    require_space(parent.empty() ? "." : parent, bytes);
    progress = std::make_unique<Progress>("MB", bytes / kMegabyte, !quiet);
  };
  const auto write = [&](std::string_view bytes) { file.write(bytes); };
  const auto advance = [&](int64_t bytes) {
    if (interrupted()) throw Exit{kInterruptedExit};
    progress->advance(bytes / kMegabyte);
  };
  const PackedSizes sizes = pack_model(model, settings, pool, {begin, write, advance});
  file.commit();
  return sizes;
}

std::optional<fs::path> cached_model(const fs::path& path, const CacheOptions& options) {
  const fs::path directory = cache_directory();
  if (directory.empty()) {
    if (!options.quiet) note("neither XDG_CACHE_HOME nor HOME names a place for the packed model");
    return std::nullopt;
  }
  const fs::path whole = fs::canonical(path);
  const fs::path cached = directory / file_name(whole, key_of(whole, options.settings));
  if (is_sound(cached)) return cached;
  const OpenedModel model = open_model(path);
  if (!options.quiet) {
    note(fmt::format("packing {} to {}, once, into {} (--no-cache: into memory)",
                     host::printable(path.string(), 200), weights_name(options.settings),
                     cached.string()));
  }
  try {
    fs::create_directories(directory);
    pack_into_file(model, options.settings, options.threads, cached, options.quiet);
  } catch (const fs::filesystem_error& error) {
    note(fmt::format("{}: {}; packing into memory", directory.string(), error.code().message()));
    return std::nullopt;
  } catch (const host::Error& error) {
    note(fmt::format("{}; packing into memory", error.what()));
    return std::nullopt;
  }
  return cached;
}

}  // namespace ocelli::app
