// Which files a tokenizer is loaded from, and what broken ones get.
#include "llm/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"
#include "tests/llm/vocabulary_files.h"

namespace ocelli::llm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Ids = std::vector<int32_t>;

constexpr const char* kVocab = R"({"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "\u0120": 5})";
constexpr const char* kMerges = "#version: 0.2\na b\nab c\n";

// A directory with a small vocabulary: a b c ab abc and the space.
class TokenizerFiles : public testing::Test {
 protected:
  void SetUp() override {
    write("vocab.json", kVocab);
    write("merges.txt", kMerges);
  }

  void write(const std::string& name, std::string_view text) const { directory_.write(name, text); }
  std::unique_ptr<Tokenizer> load() const { return load_tokenizer(directory_.path()); }
  // The message when the file `name` holds `text`.
  std::string refusal(const std::string& name, std::string_view text) const {
    write(name, text);
    return error_of([&] { load(); });
  }

  TemporaryDirectory directory_;
};

TEST_F(TokenizerFiles, VocabAndMergesAreEnough) {
  EXPECT_EQ(load()->encode("abc ab"), (Ids{4, 5, 3}));
  EXPECT_EQ(load()->size(), 6);
  EXPECT_EQ(load()->eos(), -1);
}

TEST_F(TokenizerFiles, AddedTokensComeFromTheirFile) {
  write("added_tokens.json", R"({"  ": 8, "<end>": 7})");
  EXPECT_EQ(load()->encode("a  b<end>"), (Ids{0, 8, 1, 7}));
  EXPECT_FALSE(load()->is_special(7));
  EXPECT_EQ(load()->size(), 9);
}

TEST_F(TokenizerFiles, SpecialTokensAreNamedByEitherConfig) {
  write("added_tokens.json", R"({"  ": 8, "<end>": 7})");
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    const fs::path path = directory_.write(name, R"({"eos_token": {"content": "<end>"}})");
    EXPECT_EQ(load()->eos(), 7) << name;
    EXPECT_TRUE(load()->is_special(7)) << name;
    EXPECT_FALSE(load()->is_special(8)) << name;
    fs::remove(path);
  }
  write("special_tokens_map.json", R"({"additional_special_tokens": ["  ", "abc"]})");
  EXPECT_TRUE(load()->is_special(8));
  EXPECT_TRUE(
      load()->is_special(4));  // an ordinary token of the vocabulary, found before the regex
  EXPECT_EQ(load()->encode("aabc"), (Ids{0, 4}));
}

TEST_F(TokenizerFiles, TheConfigsAddedTokensReplaceTheirFile) {
  write("added_tokens.json", R"({"<old>": 7})");
  write("tokenizer_config.json",
        R"({"eos_token": "<end>", "added_tokens_decoder":
            {"6": {"content": "<end>", "special": true}, "7": {"content": "   "}}})");
  EXPECT_EQ(load()->encode("a   b<end>"), (Ids{0, 7, 1, 6}));
  EXPECT_EQ(load()->eos(), 6);
  EXPECT_TRUE(load()->is_special(6));
  EXPECT_FALSE(load()->is_special(7));
}

TEST_F(TokenizerFiles, TokenizerJsonComesFirstAndStandsAlone) {
  json content = small_tokenizer_json();
  content["model"]["vocab"]["abc"] = 40;
  write("tokenizer.json", content.dump());
  EXPECT_EQ(load()->encode("abc"), (Ids{40}));
  EXPECT_EQ(load()->eos(), 5);
  EXPECT_EQ(load_tokenizer(directory_.path() / "tokenizer.json")->encode("abc"), (Ids{40}));
}

TEST_F(TokenizerFiles, MergesMayHaveWindowsLinesAndNoVersion) {
  write("merges.txt", "a b\r\nab c\r\n\r\n");
  EXPECT_EQ(load()->encode("abc"), (Ids{4}));
  write("merges.txt", "#version: 0.2\na b\nab c");
  EXPECT_EQ(load()->encode("abc"), (Ids{4}));
}

TEST_F(TokenizerFiles, WhatIsMissingIsNamed) {
  const auto message = [](const fs::path& path) { return error_of([&] { load_tokenizer(path); }); };
  EXPECT_TRUE(holds(message(directory_.path() / "nowhere"), "nowhere: there is no such file"));
  fs::remove(directory_.path() / "merges.txt");
  EXPECT_TRUE(holds(message(directory_.path()), "neither tokenizer.json nor merges.txt"));
  fs::remove(directory_.path() / "vocab.json");
  EXPECT_TRUE(holds(message(directory_.path()), "neither tokenizer.json nor vocab.json"));
  write("tokenizer.json", "");
  EXPECT_TRUE(holds(message(directory_.path()), "tokenizer.json"));
}

TEST_F(TokenizerFiles, BrokenVocabulariesAreRefused) {
  EXPECT_TRUE(holds(refusal("vocab.json", R"({"a": 0, "b")"), "vocab.json: line 1, column "));
  EXPECT_TRUE(holds(refusal("vocab.json", "[]"), "wanted an object of tokens and ids"));
  EXPECT_TRUE(holds(refusal("vocab.json", "7"), "wanted an object of tokens and ids"));
  EXPECT_TRUE(holds(refusal("vocab.json", R"({"a": 0, "b": {}})"), "for the token \"b\""));
  EXPECT_TRUE(holds(refusal("vocab.json", R"({"a": 0, "b": [1]})"), "for the token \"b\""));
  EXPECT_TRUE(holds(refusal("vocab.json", R"({"a": 0, "b": true})"), "\"b\" has the id true"));
  EXPECT_TRUE(holds(refusal("vocab.json", R"({"a": 0, "a": 1})"), "\"a\" appears twice"));
  EXPECT_TRUE(holds(refusal("vocab.json", R"({"a": 0})"), "names \"b\""));
}

TEST_F(TokenizerFiles, BrokenMergesAreRefusedWithTheirLine) {
  EXPECT_TRUE(holds(refusal("merges.txt", "#version: 0.2\na b\nabc\n"), "line 3 is \"abc\""));
  EXPECT_TRUE(holds(refusal("merges.txt", "a b c\n"), "line 1 is \"a b c\""));
  EXPECT_TRUE(holds(refusal("merges.txt", " a\n"), "line 1"));
  EXPECT_TRUE(holds(refusal("merges.txt", "a \n"), "line 1"));
  EXPECT_TRUE(holds(refusal("merges.txt", "a b\na\x1B[2J z\n"), "merge 2 (\"a\\x1b[2J\""));
}

TEST_F(TokenizerFiles, BrokenConfigsAreRefused) {
  EXPECT_TRUE(holds(refusal("added_tokens.json", R"({"x": -1})"), "\"x\" has the id -1"));
  EXPECT_TRUE(holds(refusal("added_tokens.json", "[1]"), "added_tokens.json: wanted an object"));
  fs::remove(directory_.path() / "added_tokens.json");
  const auto config = [&](const char* text) { return refusal("tokenizer_config.json", text); };
  EXPECT_TRUE(holds(config(R"({"eos_token": 7})"), "eos_token is neither"));
  EXPECT_TRUE(holds(config(R"({"eos_token": "<end>"})"), "\"<end>\", is not in the vocabulary"));
  EXPECT_TRUE(holds(config(R"({"added_tokens_decoder": []})"), "is not an object"));
  EXPECT_TRUE(holds(config(R"({"added_tokens_decoder": {"x": {}}})"), "\"x\" is not a token id"));
  EXPECT_TRUE(holds(config(R"({"added_tokens_decoder": {"6": {}}})"), "content is missing"));
  EXPECT_TRUE(holds(config(R"({"added_tokens_decoder": {"6": 7}})"), "wanted an object"));
}

TEST_F(TokenizerFiles, NestingHasALimit) {
  const std::string deep(100'000, '[');
  EXPECT_TRUE(holds(refusal("tokenizer.json", "{\"x\":" + deep), "nested deeper than 100"));
}

// The examples of MODEL.md §7, where the real vocabulary is at hand.
TEST(RealTokenizer, GivesTheIdsOfTheModelPage) {
  const fs::path path = fs::path(OCELLI_SOURCE_DIR) / "../shared/data/phi2-tokenizer.json";
  if (!fs::exists(path)) GTEST_SKIP() << "the vocabulary of Phi-2 is not ours to ship";
  const auto tokenizer = load_tokenizer(path);
  EXPECT_EQ(tokenizer->encode("def f():\n    return  1\n\n\n\tx"),
            (Ids{4299, 277, 33529, 198, 50284, 7783, 50286, 16, 628, 198, 197, 87}));
  EXPECT_EQ(tokenizer->size(), 50295);
  EXPECT_EQ(tokenizer->eos(), 50256);
  EXPECT_EQ(tokenizer->encode("<|endoftext|>"), (Ids{50256}));
  EXPECT_EQ(tokenizer->token_bytes(50256), "<|endoftext|>");
  EXPECT_EQ(tokenizer->token_bytes(50257), std::string(31, ' '));
  EXPECT_EQ(tokenizer->token_bytes(50295), "");
}

}  // namespace
}  // namespace ocelli::llm
