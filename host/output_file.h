// A file that appears whole or not at all.
#pragma once

#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace ocelli::host {

// Writes to a temporary file beside `path`, which commit() renames; without commit() the temporary
// is removed. A file that is replaced leaves its permissions to the new one. Where `path` is a
// device or a pipe there is nothing to replace: it is written to directly. Every failure (no
// permission, a full disk) throws Error naming the path.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view bytes);
  // Waits until what was written is on the disk; else that takes as long as the system likes, and
  // the file may be empty when power is lost.
  void sync();
  void commit();

 private:
  // Creates temporary_ beside the target, a file that was not there before.
  void open_temporary();
  // Closes and removes what is not committed.
  void abandon() noexcept;
  [[noreturn]] void fail_with(int error) const;

  std::string path_;
  std::string target_;     // what is replaced: path_ without symbolic links
  std::string temporary_;  // empty: the target is written to directly, or all is done
  std::FILE* file_ = nullptr;
};

// Removes from `directory` the temporaries of processes of this machine that were killed, for files
// whose names `ours` accepts. What cannot be listed or removed stays.
void remove_abandoned(const std::filesystem::path& directory,
                      const std::function<bool(const std::string& name)>& ours);

}  // namespace ocelli::host
