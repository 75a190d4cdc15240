#include "host/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "host/error.h"

namespace ocelli::host {

OutputFile::OutputFile(std::string path)
    : path_(std::move(path)), temporary_(fmt::format("{}.{}.tmp", path_, getpid())) {
  file_ = std::fopen(temporary_.c_str(), "wbe");
  if (!file_) fail_with_errno();
}

OutputFile::~OutputFile() {
  if (!file_) return;
  std::fclose(file_);
  std::remove(temporary_.c_str());
}

void OutputFile::write(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail_with_errno();
}

void OutputFile::commit() {
  if (std::fflush(file_) != 0 || std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail_with_errno();
  }
  std::fclose(std::exchange(file_, nullptr));
}

void OutputFile::fail_with_errno() const {
  fail("{}: cannot be written: {}", path_, std::strerror(errno));
}

}  // namespace ocelli::host
