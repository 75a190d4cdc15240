#include "app/row_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string_view>
#include <system_error>

#include "app/terminal.h"
#include "host/error.h"
#include "host/output_file.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuffix = ".rows";
constexpr const char* kLock = "lock";
constexpr size_t kFolderDigits = 2;
// What of the size may be stored before others' entries are counted again.
constexpr int64_t kListings = 20;
// What of it is freed when it is full.
constexpr int64_t kFreed = 10;
// A temporary of this age is nobody's any more.
constexpr auto kAbandoned = std::chrono::hours(1);

// A descriptor that closes itself.
class File {
 public:
  File(const fs::path& path, int flags) : descriptor_(::open(path.c_str(), flags, 0666)) {}
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  explicit operator bool() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

// Reads all of `bytes`, which must be the whole file.
bool read_all(const File& file, std::span<std::byte> bytes) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
  if (status.st_size != static_cast<off_t>(bytes.size())) return false;
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t got = ::read(file.get(), bytes.data() + done, bytes.size() - done);
    if (got == 0 || (got < 0 && errno != EINTR)) return false;
    if (got > 0) done += static_cast<size_t>(got);
  }
  return true;
}

bool all_hex(std::string_view text, size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == text.npos;
}

}  // namespace

RowCache::RowCache(const RowCacheOptions& options) : options_(options) {
}

fs::path RowCache::path_of(const RowKey& key) const {
  const std::string name = host::hex(key);
  return options_.directory / name.substr(0, kFolderDigits) /
         (name.substr(kFolderDigits) + kSuffix);
}

bool RowCache::find(const RowKey& key, std::span<float> rows) {
  ++asked_;
  const File file(path_of(key), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (!file) return false;
  buffer_.resize(kRowEntryHeader + rows.size_bytes());
  if (!read_all(file, buffer_)) return false;
  const auto values = row_entry_values(buffer_, key, rows.size());
  if (!values) return false;
  std::memcpy(rows.data(), values->data(), values->size());
  // Where that may not be noted it goes sooner, that is all.
  ::futimens(file.get(), nullptr);
  ++found_;
  return true;
}

void RowCache::store(const RowKey& key, std::span<const float> rows) {
  const auto bytes = static_cast<int64_t>(kRowEntryHeader + rows.size_bytes());
  if (!writable_) return;
  if (bytes > options_.bytes)
    return give_up(fmt::format("its size is less than the {} bytes of a picture", bytes));
  try {
    const fs::path path = path_of(key);
    fs::create_directories(path.parent_path());
    if (until_listed_ < bytes) make_room(bytes);
    until_listed_ -= bytes;
    host::OutputFile file(path.string());
    const RowEntryHeader header = make_row_entry_header(key, rows);
    file.write({reinterpret_cast<const char*>(header.data()), header.size()});
    file.write({reinterpret_cast<const char*>(rows.data()), rows.size_bytes()});
    file.commit();
  } catch (const fs::filesystem_error& error) {
    give_up(fmt::format("{}: {}", host::printable(error.path1().string(), 300),
                        error.code().message()));
  } catch (const host::Error& error) {
    give_up(error.what());
  }
}

void RowCache::give_up(const std::string& reason) {
  writable_ = false;
  if (!options_.quiet) note(fmt::format("cache: {}: goes on without keeping more", reason));
}

std::vector<RowCache::Entry> RowCache::list() const {
  std::vector<Entry> entries;
  const auto now = fs::file_time_type::clock::now();
  std::error_code error;
  // Only what is named as entries are is touched: the folder may hold other things.
  for (fs::directory_iterator folder(options_.directory, error), end; !error && folder != end;
       folder.increment(error)) {
    if (!all_hex(folder->path().filename().string(), kFolderDigits)) continue;
    std::error_code gone;  // others may be removing the same
    for (fs::directory_iterator file(folder->path(), gone); !gone && file != end;
         file.increment(gone)) {
      const std::string name = file->path().filename().string();
      const size_t digits = 2 * RowKey().size() - kFolderDigits;
      if (name.find(kSuffix) != digits || !all_hex(name.substr(0, digits), digits)) continue;
      std::error_code unknown;
      Entry entry = {file->path(), static_cast<int64_t>(file->file_size(unknown)), {}};
      if (!unknown) entry.used = file->last_write_time(unknown);
      if (unknown) continue;
      if (name.ends_with(kSuffix)) {
        entries.push_back(std::move(entry));
      } else if (name.ends_with(".tmp") && now - entry.used > kAbandoned) {
        fs::remove(entry.path, unknown);
      }
    }
  }
  return entries;
}

void RowCache::make_room(int64_t bytes) {
  const File lock(options_.directory / kLock, O_RDWR | O_CREAT | O_CLOEXEC);
  const bool alone = lock && ::flock(lock.get(), LOCK_EX | LOCK_NB) == 0;
  std::vector<Entry> entries = list();
  int64_t total = 0;
  for (const Entry& entry : entries) total += entry.bytes;
  const int64_t step = std::max(bytes, options_.bytes / kListings);
  if (alone && total + step > options_.bytes) {
    std::ranges::sort(entries, {},
                      [](const Entry& entry) { return std::pair(entry.used, entry.path); });
    const int64_t most = options_.bytes - std::max(step, options_.bytes / kFreed);
    for (const Entry& entry : entries) {
      if (total <= most) break;
      std::error_code ignored;
      if (fs::remove(entry.path, ignored)) total -= entry.bytes;
    }
  }
  until_listed_ = step;
}

std::string RowCache::summary() const {
  return fmt::format("cache: {} of {} pictures were in {}", found_, asked_,
                     host::printable(options_.directory.string(), 300));
}

}  // namespace ocelli::app
