// The rules of the house that a compiler does not know. Each rule is a function from a file to what
// is wrong with it, tried here on lines that break it and then on every file of the tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

constexpr size_t kMostLines = 399;

const fs::path& root() {
  static const fs::path path = OCELLI_SOURCE_DIR;
  return path;
}

// A text file: its path from the root of the tree, and its lines.
struct Source {
  std::string path;
  std::vector<std::string> lines;
};

Source read(const fs::path& path) {
  Source source{path.lexically_relative(root()).generic_string(), {}};
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) source.lines.push_back(line);
  return source;
}

// Every file below `directories` whose extension is one of `extensions`.
std::vector<Source> read_all(const std::vector<std::string>& directories,
                             const std::set<std::string>& extensions) {
  std::vector<Source> sources;
  for (const std::string& directory : directories) {
    for (const auto& entry : fs::recursive_directory_iterator(root() / directory)) {
      if (entry.is_regular_file() && extensions.contains(entry.path().extension().string())) {
        sources.push_back(read(entry.path()));
      }
    }
  }
  return sources;
}

const std::vector<std::string> kRooms = {"app", "vision", "connector", "llm", "kernels", "host"};

std::vector<Source> rooms() {
  return read_all(kRooms, {".cc", ".h"});
}
std::vector<Source> rooms_and_tests() {
  std::vector<Source> sources = rooms();
  for (Source& source : read_all({"tests"}, {".cc", ".h"})) sources.push_back(std::move(source));
  return sources;
}

std::string room_of(const std::string& path) {
  return path.substr(0, path.find('/'));
}

// Which rooms each room may include from; every room may include from itself.
const std::map<std::string, std::set<std::string>> kBelow = {
    {"app", {"vision", "connector", "llm", "kernels", "host"}},
    {"vision", {"kernels", "host"}},
    {"connector", {"kernels", "host"}},
    {"llm", {"kernels", "host"}},
    {"kernels", {"host"}},
    {"host", {}}};

// What is wrong with a line of a file in a room, or nothing.
using Verdict = std::optional<std::string>;

Verdict ladder_verdict(const std::string& path, const std::string& line) {
  static const std::regex include(R"re(^\s*#\s*include\s*"([^"]*)")re");
  std::smatch match;
  if (!std::regex_search(line, match, include)) return std::nullopt;
  const std::string from = room_of(path);
  const std::string to = room_of(match[1]);
  if (!kBelow.contains(to)) return "not the path of a header from the root of the tree";
  if (from == to || kBelow.at(from).contains(to)) return std::nullopt;
  return from + " may not know " + to;
}

// Where a machine or an instruction set is chosen, and so #if may stand.
Verdict condition_verdict(const std::string& path, const std::string& line) {
  static const std::regex condition(R"(^\s*#\s*(if|ifdef|ifndef|elif)\b)");
  static const std::regex allowed(
      R"(kernels/backend\.cc|kernels/cpu/isa/.*|host/\w+_device\.cc|host/pause\.h)");
  if (!std::regex_search(line, condition) || std::regex_match(path, allowed)) return std::nullopt;
  return "#if outside the places where a machine is chosen";
}

// Absolute paths of somebody's machine. Written in halves, or this file would break its own rule.
Verdict machine_verdict(const std::string&, const std::string& line) {
  for (const std::string place : {"work", "opt", "root", "home"}) {
    const size_t at = line.find("/" + place + "/");
    const bool starts = at != std::string::npos && (at == 0 || !std::isalnum(line[at - 1]));
    if (starts && (at == 0 || (line[at - 1] != '.' && line[at - 1] != '}'))) {
      return "a path of one machine";
    }
  }
  return std::nullopt;
}

void expect_clean(const std::vector<Source>& sources,
                  Verdict (*rule)(const std::string& path, const std::string& line)) {
  EXPECT_GT(sources.size(), 20U) << "the tree was not found";
  for (const Source& source : sources) {
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const Verdict verdict = rule(source.path, source.lines[i]);
      if (verdict) ADD_FAILURE() << source.path << ":" << i + 1 << ": " << *verdict;
    }
  }
}

TEST(Lint, IncludesRunDownTheLadder) {
  EXPECT_FALSE(ladder_verdict("app/ask.cc", "#include \"vision/image.h\""));
  EXPECT_FALSE(ladder_verdict("llm/phi2.cc", "#include \"llm/rope.h\""));
  EXPECT_FALSE(ladder_verdict("llm/phi2.cc", "#include <vector>"));
  EXPECT_TRUE(ladder_verdict("llm/phi2.cc", "#include \"vision/image.h\""));
  EXPECT_TRUE(ladder_verdict("kernels/ops.cc", "  # include \"llm/phi2.h\""));
  EXPECT_TRUE(ladder_verdict("host/error.cc", "#include \"kernels/ops.h\""));
  EXPECT_TRUE(ladder_verdict("host/error.cc", "#include \"error.h\""));
  EXPECT_TRUE(ladder_verdict("vision/image.cc", "#include \"tests/host/expect_error.h\""));
  expect_clean(rooms(), ladder_verdict);
}

TEST(Lint, ConditionsStandWhereMachinesAreChosen) {
  EXPECT_FALSE(condition_verdict("kernels/cpu/isa/dispatch.cc", "#if defined(__x86_64__)"));
  EXPECT_FALSE(condition_verdict("host/xrt_device.cc", "#ifdef OCELLI_XRT"));
  EXPECT_FALSE(condition_verdict("llm/phi2.cc", "#include <iffy>"));
  EXPECT_TRUE(condition_verdict("kernels/ops.cc", "#if 0"));
  EXPECT_TRUE(condition_verdict("app/main.cc", "# ifndef X"));
  expect_clean(rooms(), condition_verdict);
}

TEST(Lint, NoFileNamesSomebodysMachine) {
  const std::string slash = "/";
  EXPECT_TRUE(machine_verdict("", "see " + slash + "home/me/x"));
  EXPECT_TRUE(machine_verdict("", slash + "opt/x"));
  EXPECT_FALSE(machine_verdict("", "tests" + slash + "work/x"));
  std::vector<Source> sources = rooms_and_tests();
  for (Source& source :
       read_all({"assets", "docs", "tests", "kernels"}, {".md", ".py", ".txt", ".cmake", ".sh"})) {
    sources.push_back(std::move(source));
  }
  for (const char* name : {"README.md", "Makefile", "CMakeLists.txt", "CMakePresets.json",
                           ".clang-tidy", ".gitignore", ".ci/run"}) {
    if (fs::exists(root() / name)) sources.push_back(read(root() / name));
  }
  expect_clean(sources, machine_verdict);
}

TEST(Lint, FilesAreShort) {
  for (const Source& source : rooms_and_tests()) {
    EXPECT_LE(source.lines.size(), kMostLines) << source.path << " hides a second idea";
  }
}

TEST(Lint, HeadersOpenWithTheirPurpose) {
  for (const Source& source : rooms_and_tests()) {
    if (!source.path.ends_with(".h")) continue;
    ASSERT_FALSE(source.lines.empty()) << source.path;
    EXPECT_TRUE(source.lines[0].starts_with("// ")) << source.path;
    EXPECT_EQ(std::count(source.lines.begin(), source.lines.end(), "#pragma once"), 1)
        << source.path;
  }
}

// The output of a shell command and its exit status.
std::pair<std::string, int> run(const std::string& command) {
  std::string output;
  std::FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return {"popen failed", -1};
  std::array<char, 4096> buffer;
  for (size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    output.append(buffer.data(), n);
  }
  return {output, pclose(pipe)};
}

TEST(Lint, IsFormatted) {
  if (run("clang-format --version").second != 0) GTEST_SKIP() << "clang-format is not installed";
  std::string files;
  for (const Source& source : rooms_and_tests()) {
    files += " '" + (root() / source.path).string() + "'";
  }
  const auto [output, status] = run("clang-format --dry-run -Werror" + files);
  EXPECT_EQ(status, 0) << output.substr(0, 2000) << "\nrun clang-format -i on them";
}

}  // namespace
