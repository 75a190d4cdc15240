// Runs the built `ocelli` as a user would, and makes broken models for it to refuse.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace ocelli::app {

namespace fs = std::filesystem;

inline std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_file(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A folder that goes with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "ocelli-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

struct Finished {
  int code = 0;  // exit code; 128 + n when signal n ended it
  std::string out;
  std::string err;
};

// Runs `ocelli ARGUMENTS` through the shell, with `input` on standard input; `environment` stands
// before the program ("OCELLI_ISA=scalar").
inline Finished run_ocelli(const std::string& arguments, const std::string& input = "",
                           const std::string& environment = "") {
  const TemporaryFolder folder;
  write_file(folder / "in", input);
  const std::string command = environment + " '" OCELLI_BINARY "' " + arguments + " <" +
                              (folder / "in").string() + " >" + (folder / "out").string() + " 2>" +
                              (folder / "err").string();
  const int status = std::system(command.c_str());
  Finished finished;
  finished.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  finished.out = read_file(folder / "out");
  finished.err = read_file(folder / "err");
  return finished;
}

// One line on standard error that begins "ocelli: ", nothing on standard output, exit code 1.
inline void expect_failure(const Finished& run, const std::string& message) {
  EXPECT_EQ(run.code, 1) << run.err;
  EXPECT_EQ(run.out, "");
  EXPECT_NE(run.err.find("ocelli: "), std::string::npos) << run.err;
  EXPECT_NE(run.err.find(message), std::string::npos) << run.err;
}

inline fs::path source_path(const std::string& relative) {
  return fs::path(OCELLI_SOURCE_DIR) / relative;
}
inline std::string demo_picture() {
  for (const auto& entry : fs::directory_iterator(source_path("assets/scenes"))) {
    if (entry.path().extension() == ".png") return entry.path().string();
  }
  return "";
}

}  // namespace ocelli::app
