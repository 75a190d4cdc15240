// Which of Llama's vocabulary files load_tokenizer() reads, and what it refuses in a
// tokenizer.json.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "host/json.h"
#include "llm/character_ids.h"
#include "llm/tokenizer.h"
#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"

namespace ocelli::llm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Ids = std::vector<int32_t>;
using Pointer = json::json_pointer;

const fs::path kTiny = fs::path(OCELLI_SOURCE_DIR) / "tests/golden/tokenizer/tiny-llama";

class LlamaFiles : public testing::Test {
 protected:
  void put(const std::string& name) const { fs::copy(kTiny / name, directory_.path() / name); }
  std::unique_ptr<Tokenizer> load() const { return load_tokenizer(directory_.path()); }
  std::string refusal() const {
    return error_of([&] { load(); });
  }
  // The message for a tokenizer.json with one place changed.
  std::string with(const std::string& pointer, const json& value) const {
    json content = host::read_json(kTiny / "tokenizer.json");
    content[Pointer(pointer)] = value;
    directory_.write("tokenizer.json", content.dump());
    return refusal();
  }

  TemporaryDirectory directory_;
};

// The forms are told apart by what ends a text and by the name of what begins it.
TEST_F(LlamaFiles, TheFirstKindThatIsThereIsRead) {
  EXPECT_TRUE(holds(refusal(), "neither tokenizer.json nor vocab.json, nor a tokenizer.model"));
  put("tokenizer.bin");
  EXPECT_EQ(load()->token_bytes(1), "\n<s>\n");
  directory_.write("tokenizer.model", "broken");
  EXPECT_TRUE(holds(refusal(), "tokenizer.model: "));
  directory_.write("vocab.json", "{}");  // alone it is no vocabulary
  EXPECT_TRUE(holds(refusal(), "tokenizer.model: "));
  directory_.write("merges.txt", "#version: 0.2\n");
  EXPECT_TRUE(holds(refusal(), "the vocabulary has no tokens"));
  put("tokenizer.json");
  EXPECT_EQ(load()->token_bytes(1), "<s>");
  EXPECT_EQ(load()->size(), 600);
}

TEST_F(LlamaFiles, AFilesEndingTellsWhatItIs) {
  EXPECT_EQ(load_tokenizer(kTiny / "tokenizer.bin")->eos(), 1);
  EXPECT_EQ(load_tokenizer(kTiny / "tokenizer.model")->eos(), 2);
  EXPECT_EQ(load_tokenizer(kTiny / "tokenizer.json")->eos(), 2);
  const fs::path other = directory_.write("tokenizer.txt", "{}");
  EXPECT_TRUE(holds(error_of([&] { load_tokenizer(other); }),
                    "tokenizer.txt: is not a kind of vocabulary that is known by its name"));
  EXPECT_TRUE(holds(error_of([&] { load_tokenizer(directory_.path() / "none.bin"); }),
                    "none.bin: there is no such file"));
  const fs::path empty = directory_.write("empty.model", "");
  EXPECT_TRUE(holds(error_of([&] { load_tokenizer(empty); }), "empty.model"));
}

TEST_F(LlamaFiles, ConfigsNameTheTokensAroundAText) {
  put("tokenizer.json");
  directory_.write("tokenizer_config.json", R"({"bos_token": "</s>", "eos_token": "<s>"})");
  EXPECT_EQ(load()->bos(), 2);
  EXPECT_EQ(load()->eos(), 1);
  directory_.write("tokenizer_config.json", R"({"bos_token": "<begin>"})");
  EXPECT_TRUE(holds(refusal(), "begins a text, \"<begin>\", is not in the vocabulary"));
}

TEST_F(LlamaFiles, WhatWouldMakeOtherIdsIsRefusedByName) {
  const json replace_tab = {
      {"type", "Replace"}, {"pattern", {{"String", "\t"}}}, {"content", "\u2581"}};
  const json replace_regex = {
      {"type", "Replace"}, {"pattern", {{"Regex", " "}}}, {"content", "\u2581"}};
  const json prepend = {{"type", "Prepend"}, {"prepend", "\u2581"}};
  EXPECT_TRUE(holds(with("/normalizer", {{"type", "NFKC"}}), "normalizer NFKC"));
  EXPECT_TRUE(holds(with("/normalizer", replace_tab), "normalizer Replace"));
  EXPECT_TRUE(holds(with("/normalizer", replace_regex), "normalizer Replace"));
  EXPECT_TRUE(holds(with("/normalizer/normalizers/0/prepend", "_"), "normalizer Prepend"));
  EXPECT_TRUE(holds(with("/normalizer/normalizers/1", prepend), "normalizer Prepend"));
  EXPECT_TRUE(holds(with("/normalizer/normalizers", 1), "normalizers is missing or not an array"));
  EXPECT_TRUE(holds(with("/pre_tokenizer", {{"type", "ByteLevel"}}), "pre-tokenizer ByteLevel"));
  json metaspace = {{"type", "Metaspace"}, {"replacement", "_"}};
  EXPECT_TRUE(holds(with("/pre_tokenizer", metaspace), "pre-tokenizer Metaspace"));
  metaspace["replacement"] = "\u2581";
  metaspace["prepend_scheme"] = "last";
  EXPECT_TRUE(holds(with("/pre_tokenizer", metaspace), "prepend_scheme last"));
  EXPECT_TRUE(holds(with("/decoder", nullptr), "no ByteFallback"));
  EXPECT_TRUE(holds(with("/decoder", {{"type", "WordPiece"}}), "decoder WordPiece"));
  EXPECT_TRUE(holds(with("/post_processor", {{"type", "BertProcessing"}}), "BertProcessing"));
  EXPECT_TRUE(holds(with("/model/dropout", 0.1), "model.dropout"));
  EXPECT_TRUE(holds(with("/model/ignore_merges", true), "model.ignore_merges"));
  EXPECT_TRUE(holds(with("/model/type", "Unigram"), "type Unigram"));
  EXPECT_TRUE(holds(with("/model/byte_fallback", false), "normalizer Sequence"));
  EXPECT_TRUE(holds(with("/added_tokens/1/rstrip", true), "rstrip"));
}

TEST_F(LlamaFiles, EveryByteNeedsAToken) {
  json content = host::read_json(kTiny / "tokenizer.json");
  content["model"]["vocab"].erase("<0x7F>");
  directory_.write("tokenizer.json", content.dump());
  EXPECT_TRUE(holds(refusal(), "no token <0x7F>"));
}

TEST_F(LlamaFiles, OlderFilesHaveAFlagForThePrependedSpace) {
  json content = host::read_json(kTiny / "tokenizer.json");
  content["normalizer"] = nullptr;
  content["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "\u2581"}, {"add_prefix_space", false}};
  directory_.write("tokenizer.json", content.dump());
  const auto tokenizer = load();
  for (const std::string text : {"a house", " a", "<s>a", "a <s> b"}) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

// Added tokens that the normalizer makes equal: the first counts, and none of them is lost.
TEST_F(LlamaFiles, AddedTokensMayBecomeEqual) {
  json content = host::read_json(kTiny / "tokenizer.json");
  for (const auto& [text, id] : {std::pair{"two words", 600}, {"two\u2581words", 601}}) {
    content["added_tokens"].push_back({{"id", id}, {"content", text}, {"normalized", true}});
  }
  directory_.write("tokenizer.json", content.dump());
  EXPECT_EQ(load()->encode("two words"), (Ids{600}));
  EXPECT_EQ(load()->encode("two\u2581words"), (Ids{600}));
  EXPECT_EQ(load()->size(), 602);
}

TEST(CharacterIds, TakesOneCharacterATokenAndBytesForTheRest) {
  std::array<int32_t, 256> bytes{};
  for (int byte = 0; byte < 256; ++byte) bytes[byte] = 1'000 + byte;
  CharacterIds characters(bytes);
  characters.add("a", 1);
  characters.add("ab", 2);
  characters.add("é", 3);
  characters.add("\xC3", 4);
  characters.add("", 5);
  characters.add("a", 6);
  Ids ids;
  characters.append("abé\u00C4", ids);
  EXPECT_EQ(ids, (Ids{1, 1'000 + 'b', 3, 1'000 + 0xC3, 1'000 + 0x84}));
}

}  // namespace
}  // namespace ocelli::llm
