// Vocabularies whose token ids have goldens, and what both kinds of them are tested with.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "host/json.h"
#include "llm/tokenizer.h"
#include "tests/llm/random_text.h"

namespace ocelli::llm {

inline const std::filesystem::path kSource = OCELLI_SOURCE_DIR;
inline const std::filesystem::path kGolden = kSource / "tests/golden/tokenizer";

struct Vocabulary {
  std::string name;  // of its goldens
  std::filesystem::path path;

  bool is_bin() const { return path.extension() == ".bin"; }
  bool is_json() const { return path.extension() == ".json"; }
  // Whether it may be missing, as it is not ours to ship.
  bool is_foreign() const { return name == "phi2" || name == "llama2"; }
};

inline void PrintTo(const Vocabulary& vocabulary, std::ostream* out) {
  *out << vocabulary.path;
}

class GoldenVocabulary : public testing::TestWithParam<Vocabulary> {
 protected:
  void SetUp() override {
    const std::filesystem::path& path = GetParam().path;
    if (GetParam().is_foreign() && !std::filesystem::exists(path)) {
      GTEST_SKIP() << path << " is not ours to ship";
    }
    tokenizer_ = load_tokenizer(path);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

// The texts whose ids the goldens have hashes of.
inline RandomText golden_texts() {
  constexpr uint64_t kSeed = 20'240'501;
  return {kSeed, host::read_json(kGolden / "fragments.json").get<Fragments>()};
}

// Of the file `name`.hashes: how many texts, the hash of all, and one of each text's ids.
inline std::vector<uint32_t> read_hashes(const std::string& name) {
  std::ifstream file(kGolden / (name + ".hashes"), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  std::vector<uint32_t> words(bytes.size() / 4);
  std::memcpy(words.data(), bytes.data(), words.size() * 4);
  return words;
}

inline uint32_t hash_of(const std::vector<int32_t>& ids) {
  return fnv1a({reinterpret_cast<const char*>(ids.data()), ids.size() * 4});
}

}  // namespace ocelli::llm
