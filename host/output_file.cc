#include "host/output_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <utility>

#include "host/error.h"

namespace ocelli::host {

namespace fs = std::filesystem;

namespace {

constexpr int kMaxAttempts = 100;
// Who may read, write and run; not set-user-id and its like.
constexpr fs::perms kAccess = fs::perms::all;

// What a temporary's name says.
struct Temporary {
  std::string target;
  pid_t process = 0;
};

std::string temporary_name(const std::string& target, int attempt) {
  return fmt::format("{}.{}-{}.tmp", target, getpid(), attempt);
}

// The reverse of temporary_name(); no process for other names.
Temporary parse_temporary(const std::string& name) {
  constexpr std::string_view kEnd = ".tmp";
  if (!name.ends_with(kEnd)) return {};
  const size_t dash = name.rfind('-');
  const size_t dot = name.rfind('.', dash);
  if (dash == name.npos || dot == name.npos || dot == 0) return {};
  Temporary parsed = {name.substr(0, dot), 0};
  const char* const end = name.data() + dash;
  const auto [last, error] = std::from_chars(name.data() + dot + 1, end, parsed.process);
  if (error != std::errc() || last != end) parsed.process = 0;
  return parsed;
}

}  // namespace

OutputFile::OutputFile(std::string path) : path_(std::move(path)) {
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  if (fs::is_directory(status)) fail_with(EISDIR);
  const fs::path resolved = fs::weakly_canonical(path_, error);
  target_ = error ? path_ : resolved.string();
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    file_ = std::fopen(target_.c_str(), "wbe");
    if (!file_) fail_with(errno);
    return;
  }
  open_temporary();
  const auto permissions = static_cast<mode_t>(status.permissions() & kAccess);
  if (fs::exists(status) && fchmod(fileno(file_), permissions) != 0) {
    const int reason = errno;
    abandon();
    fail_with(reason);
  }
}

OutputFile::~OutputFile() {
  abandon();
}

void OutputFile::open_temporary() {
  // "x" follows no link and opens no file that someone else put there; another name is tried then.
  for (int attempt = 0; attempt < kMaxAttempts && !file_; ++attempt) {
    temporary_ = temporary_name(target_, attempt);
    file_ = std::fopen(temporary_.c_str(), "wbxe");
    if (!file_ && errno != EEXIST) break;
  }
  if (file_) return;
  const int reason = errno;
  temporary_.clear();
  fail_with(reason);
}

void OutputFile::abandon() noexcept {
  if (file_) std::fclose(std::exchange(file_, nullptr));
  if (!temporary_.empty()) std::remove(temporary_.c_str());
  temporary_.clear();
}

void OutputFile::write(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail_with(errno);
}

void OutputFile::sync() {
  if (std::fflush(file_) != 0) fail_with(errno);
  // Devices and pipes need none.
  if (fdatasync(fileno(file_)) != 0 && errno != EINVAL && errno != EROFS) fail_with(errno);
}

void OutputFile::commit() {
  // Closing is where some file systems first say that the bytes were not kept.
  if (std::fclose(std::exchange(file_, nullptr)) != 0) fail_with(errno);
  if (temporary_.empty()) return;
  if (std::rename(temporary_.c_str(), target_.c_str()) != 0) fail_with(errno);
  temporary_.clear();
}

void OutputFile::fail_with(int error) const {
  fail("{}: cannot be written: {}", printable(path_, 4096), std::strerror(error));
}

void remove_abandoned(const fs::path& directory,
                      const std::function<bool(const std::string& name)>& ours) {
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const Temporary temporary = parse_temporary(entry->path().filename().string());
    if (temporary.process <= 0 || !ours(temporary.target)) continue;
    const bool gone = kill(temporary.process, 0) != 0 && errno == ESRCH;
    std::error_code ignored;
    if (gone) fs::remove(entry->path(), ignored);
  }
}

}  // namespace ocelli::host
