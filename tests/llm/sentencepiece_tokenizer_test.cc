// tokenizer.model: what is refused, and that no broken file brings the program down.
#include "llm/sentencepiece_tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "llm/random.h"
#include "tests/host/expect_error.h"

namespace ocelli::llm {
namespace {

using Ids = std::vector<int32_t>;

// The fields of sentencepiece_model.proto that tests change: a field that comes again at the end of
// the file counts instead of the one before.
constexpr char kTrainer = 2 << 3 | 2;
constexpr char kNormalizer = 3 << 3 | 2;
constexpr char kDenormalizer = 5 << 3 | 2;

std::string field(char part, const std::string& content) {
  return std::string(1, part) + static_cast<char>(content.size()) + content;
}

std::string flag(int number, char value) {
  const int tag = number << 3;
  std::string bytes(1, static_cast<char>(tag < 0x80 ? tag : 0x80 | (tag & 0x7F)));
  if (tag >= 0x80) bytes += static_cast<char>(tag >> 7);
  return bytes + value;
}

SentencepieceTokenizer tokenizer_of(const std::string& file) {
  return {std::as_bytes(std::span(file)), "small.model"};
}

std::string refusal(const std::string& file) {
  return error_of([&] { tokenizer_of(file); });
}

class Sentencepiece : public testing::Test {
 protected:
  void SetUp() override {
    const auto path = std::filesystem::path(OCELLI_SOURCE_DIR) /
                      "tests/golden/tokenizer/tiny-llama/tokenizer.model";
    std::ifstream file(path, std::ios::binary);
    model_.assign(std::istreambuf_iterator<char>(file), {});
    ASSERT_GT(model_.size(), 1'000u);
  }

  std::string model_;
};

TEST_F(Sentencepiece, WhatOnlyOtherModelsHaveIsRefused) {
  const auto with = [&](char part, const std::string& content) {
    return refusal(model_ + field(part, content));
  };
  EXPECT_TRUE(holds(with(kTrainer, flag(3, 1)), "small.model: is not a BPE model"));
  EXPECT_TRUE(holds(with(kTrainer, flag(35, 0)), "no byte fallback"));
  EXPECT_TRUE(holds(with(kTrainer, flag(24, 1)), "treat_whitespace_as_suffix"));
  EXPECT_TRUE(holds(with(kNormalizer, flag(4, 1)), "remove_extra_whitespaces"));
  EXPECT_TRUE(holds(with(kNormalizer, flag(5, 0)), "escape_whitespaces"));
  const std::string table = field(2 << 3 | 2, "a table");
  EXPECT_TRUE(holds(with(kNormalizer, table), "replaces characters by a table"));
  EXPECT_TRUE(holds(with(kDenormalizer, table), "replaces characters by a table"));
  EXPECT_EQ(tokenizer_of(model_ + field(kTrainer, flag(3, 2))).size(), 600);
}

TEST_F(Sentencepiece, TheSpaceBeforeATextIsTheModelsChoice) {
  const auto tokenizer = tokenizer_of(model_ + field(kNormalizer, flag(3, 0)));
  for (const std::string text : {"a house", " a house", "  a"}) {
    const Ids ids = tokenizer.encode(text, SpecialTokens::kPlain);
    EXPECT_EQ(tokenizer.decode(ids), text);
    EXPECT_EQ(tokenizer.text_bytes(1, ids[0]), tokenizer.token_bytes(ids[0]));
  }
  const Ids other = tokenizer_of(model_).encode("a house", SpecialTokens::kPlain);
  EXPECT_NE(tokenizer.encode("a house", SpecialTokens::kPlain), other);
}

TEST_F(Sentencepiece, BrokenFilesAreRefused) {
  EXPECT_TRUE(holds(refusal("no protobuf"), "small.model: is not a sentencepiece model"));
  EXPECT_TRUE(holds(refusal(""), "small.model: is not a BPE model"));
  EXPECT_TRUE(holds(refusal(model_.substr(0, model_.size() - 1)), "it is cut off or broken"));
  // Varints without end, tags of no field, groups.
  EXPECT_TRUE(holds(refusal(model_ + std::string(20, '\xFF')), "broken"));
  EXPECT_TRUE(holds(refusal(model_ + std::string(1, '\0')), "broken"));
  EXPECT_TRUE(holds(refusal(model_ + "\x0B\x0C"), "broken"));
  // Two pieces of one text, which only the library notices.
  const std::string piece = field(1 << 3 | 2, field(1 << 3 | 2, "twice"));
  EXPECT_EQ(tokenizer_of(model_ + piece).size(), 601);
  EXPECT_TRUE(holds(refusal(model_ + piece + piece), "sentencepiece refuses it"));
}

TEST_F(Sentencepiece, ChangedFilesAreRefusedOrWork) {
  const std::string text = "A red  house.\n\xF0\x9F\x8E\x89 <s> 12";
  uint64_t state = 3;
  int worked = 0;
  for (int i = 0; i < 400; ++i) {
    std::string changed = model_;
    for (int flips = 1 + i % 3; flips > 0; --flips) {
      changed[splitmix64(state) % changed.size()] = static_cast<char>(splitmix64(state));
    }
    if (i % 4 == 0) changed.resize(splitmix64(state) % changed.size());
    try {
      const auto tokenizer = tokenizer_of(changed);
      const Ids ids = tokenizer.encode(text, SpecialTokens::kParse);
      for (const int32_t id : ids) ASSERT_TRUE(id >= 0 && id < tokenizer.size());
      worked += tokenizer.decode(ids) == text ? 1 : 0;
    } catch (const host::Error&) {  // the one way to refuse
    }
  }
  EXPECT_GT(worked, 20);  // flips in scores and letters of pieces leave most files sound
}

}  // namespace
}  // namespace ocelli::llm
