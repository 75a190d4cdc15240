#include "host/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "host/error.h"

namespace ocelli::host {

namespace fs = std::filesystem;

OutputFile::OutputFile(std::string path) : path_(std::move(path)) {
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  if (fs::is_directory(status)) fail_with(EISDIR);
  const fs::path resolved = fs::weakly_canonical(path_, error);
  target_ = error ? path_ : resolved.string();
  const bool replaced = !fs::exists(status) || fs::is_regular_file(status);
  if (replaced) temporary_ = fmt::format("{}.{}.tmp", target_, getpid());
  file_ = std::fopen(replaced ? temporary_.c_str() : target_.c_str(), "wbe");
  if (!file_) {
    temporary_.clear();
    fail_with(errno);
  }
}

OutputFile::~OutputFile() {
  if (file_) std::fclose(file_);
  if (!temporary_.empty()) std::remove(temporary_.c_str());
}

void OutputFile::write(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail_with(errno);
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

}  // namespace ocelli::host
