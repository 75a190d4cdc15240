// Runs a fuzz target over its seeds without libFuzzer, so that every compiler keeps it building:
// each file as it is, cut short, and with single bytes changed.
//
//   smoke_NAME DIRECTORY…
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

// Larger seeds are run as they are, but not changed: that is what the fuzzer has its time for.
constexpr size_t kLargestToChange = 64 << 10;
constexpr int kChanges = 200;

void run(const Bytes& bytes) {
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

void run_with_changes(const Bytes& seed) {
  run(seed);
  if (seed.empty() || seed.size() > kLargestToChange) return;
  std::mt19937 random(1);
  for (int i = 0; i < kChanges; ++i) {
    run({seed.begin(), seed.begin() + static_cast<ptrdiff_t>(random() % seed.size())});
    Bytes changed = seed;
    for (int flips = 1 + i % 3; flips > 0; --flips) {
      changed[random() % changed.size()] = static_cast<uint8_t>(random());
    }
    run(changed);
  }
}

}  // namespace

int main(int count, char** arguments) {
  int files = 0;
  for (int i = 1; i < count; ++i) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(arguments[i])) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      run_with_changes({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
      ++files;
    }
  }
  run({});
  std::printf("%d seeds\n", files);
  return files > 0 ? 0 : 1;
}
