// Byte-level BPE on small vocabularies: what merges do, and what broken vocabularies get.
#include "llm/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "host/json.h"
#include "tests/host/expect_error.h"
#include "tests/llm/vocabulary_files.h"

namespace ocelli::llm {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

const std::filesystem::path kTiny =
    std::filesystem::path(OCELLI_SOURCE_DIR) / "tests/golden/tokenizer/tiny";

// The message that a changed small vocabulary gets.
template <typename Change>
std::string refusal(Change change) {
  json content = small_tokenizer_json();
  change(content);
  return error_of([&] { tokenizer_of(content); });
}

TEST(Bpe, MergesByRankAndLeftmostFirst) {
  const auto tokenizer = tokenizer_of(small_tokenizer_json());
  EXPECT_EQ(tokenizer.encode("abc", SpecialTokens::kParse), (Ids{4}));
  EXPECT_EQ(tokenizer.encode("ababcb", SpecialTokens::kParse), (Ids{3, 4, 1}));
  json overlapping = small_tokenizer_json();
  overlapping["model"]["vocab"] = {{"a", 0}, {"aa", 1}};
  overlapping["model"]["merges"] = {"a a"};
  EXPECT_EQ(tokenizer_of(overlapping).encode("aaa", SpecialTokens::kParse), (Ids{1, 0}));
}

TEST(Bpe, ALaterMergeDoesNotOvertakeAnEarlierOne) {
  json content = small_tokenizer_json();
  content["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"c", 2}, {"bc", 3}, {"ab", 4}};
  content["model"]["merges"] = {"b c", "a b"};
  EXPECT_EQ(tokenizer_of(content).encode("abc", SpecialTokens::kParse), (Ids{0, 3}));
}

TEST(Bpe, MergesMayBeWrittenAsPairs) {
  json content = small_tokenizer_json();
  content["model"]["merges"] = json::parse(R"([["a", "b"], ["ab", "c"]])");
  EXPECT_EQ(tokenizer_of(content).encode("abcab", SpecialTokens::kParse), (Ids{4, 3}));
}

TEST(Bpe, ControlTokensAreOnlyParsedWhenAsked) {
  const auto tokenizer = load_tokenizer(kTiny);
  const int32_t eos = tokenizer->eos();
  ASSERT_GE(eos, 0);
  EXPECT_TRUE(tokenizer->is_special(eos));
  EXPECT_FALSE(tokenizer->is_special(eos + 1));  // a run of spaces
  const std::string text = "ab<|endoftext|>cd";
  Ids parsed = tokenizer->encode("ab");
  parsed.push_back(eos);
  for (const int32_t id : tokenizer->encode("cd")) parsed.push_back(id);
  EXPECT_EQ(tokenizer->encode(text, SpecialTokens::kParse), parsed);
  const Ids plain = tokenizer->encode(text, SpecialTokens::kPlain);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), eos), 0);
  EXPECT_EQ(tokenizer->decode(plain), text);
}

TEST(Bpe, AddedTokensAreFoundLongestFirstInBothWays) {
  const auto tokenizer = load_tokenizer(kTiny);
  const auto added = host::read_json(kTiny / "added_tokens.json");
  const int32_t nine = added.at(std::string(9, ' '));
  const int32_t three = added.at(std::string(3, ' '));
  for (const auto special : {SpecialTokens::kParse, SpecialTokens::kPlain}) {
    EXPECT_EQ(tokenizer->encode(std::string(21, ' '), special), (Ids{nine, nine, three}));
  }
}

TEST(Bpe, AMegabyteWithoutABreakTakesNoQuadraticTime) {
  const auto tokenizer = load_tokenizer(kTiny);
  for (const std::string part : {"a", "houset", "\n", "\u65e5"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += part;
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  // A quadratic algorithm takes hours; this one under a second, some 20 with sanitizers.
}

TEST(Bpe, InvalidUtf8IsRefusedWithItsOffset) {
  const auto tokenizer = tokenizer_of(small_tokenizer_json());
  const auto message = [&](std::string_view text) {
    return error_of([&] { tokenizer.encode(text, SpecialTokens::kPlain); });
  };
  EXPECT_TRUE(holds(message("ab\xFF"), "byte 2 (0xff)"));
  EXPECT_TRUE(holds(message("a\xC3"), "byte 1 (0xc3)"));
  EXPECT_TRUE(holds(message("\xED\xA0\x80"), "byte 0 (0xed)"));  // a surrogate
}

TEST(Bpe, AByteWithoutATokenIsRefusedOnlyWhenItIsNeeded) {
  const auto tokenizer = tokenizer_of(small_tokenizer_json());
  EXPECT_EQ(tokenizer.encode("abc", SpecialTokens::kPlain), (Ids{4}));
  const std::string message = error_of([&] { tokenizer.encode("abd", SpecialTokens::kPlain); });
  EXPECT_TRUE(holds(message, "no token for the byte 0x64 in \"abd\""));
}

TEST(Bpe, HolesInTheIdsAreTokensWithoutBytes) {
  json content = small_tokenizer_json();
  content["model"]["vocab"]["abc"] = 9;
  const auto tokenizer = tokenizer_of(content);
  EXPECT_EQ(tokenizer.size(), 10);
  EXPECT_EQ(tokenizer.encode("abc", SpecialTokens::kParse), (Ids{9}));
  EXPECT_EQ(tokenizer.token_bytes(9), "abc");
  EXPECT_EQ(tokenizer.token_bytes(5), "<|endoftext|>");
  for (const int32_t id : {-200, -1, 4, 8, 10, std::numeric_limits<int32_t>::max()}) {
    EXPECT_EQ(tokenizer.token_bytes(id), "") << id;
  }
}

TEST(Bpe, TokensStandForBytesAndOutsideTheByteMapForThemselves) {
  json content = small_tokenizer_json();
  content["model"]["vocab"]["\u0120\u00c3\u00a9"] = 6;  // " é"
  content["model"]["vocab"]["\u65e5\u0120"] = 7;        // no byte looks like this
  content["model"]["vocab"]["a b"] = 8;                 // nor like a space
  const auto tokenizer = tokenizer_of(content);
  EXPECT_EQ(tokenizer.token_bytes(6), " \u00e9");
  EXPECT_EQ(tokenizer.token_bytes(7), "\u65e5\u0120");
  EXPECT_EQ(tokenizer.token_bytes(8), "a b");
}

TEST(Bpe, AddedTokensStandForThemselves) {
  json content = small_tokenizer_json();
  const json accented = {{"id", 6}, {"content", "\u00e9"}};  // in the byte map this is byte 0xE9
  content["added_tokens"].push_back(accented);
  const auto tokenizer = tokenizer_of(content);
  EXPECT_EQ(tokenizer.token_bytes(6), "\u00e9");
  EXPECT_EQ(tokenizer.encode("a\u00e9", SpecialTokens::kPlain), (Ids{0, 6}));
  // It is not the token of that byte, which "\u9999" begins with.
  EXPECT_TRUE(holds(error_of([&] { tokenizer.encode("\u9999", SpecialTokens::kPlain); }),
                    "no token for the byte 0xe9"));
  content["model"]["vocab"]["\u00e9"] = 6;
  EXPECT_TRUE(holds(error_of([&] { tokenizer_of(content); }), "is both an added one"));
}

TEST(Bpe, WithoutATokenThatEndsAnAnswerThereIsNone) {
  json content = small_tokenizer_json();
  content["added_tokens"] = json::array();
  EXPECT_EQ(tokenizer_of(content).eos(), -1);
}

TEST(Bpe, BrokenIdsAreRefused) {
  const auto with_id = [](const json& id) {
    return refusal([&](json& content) { content["model"]["vocab"]["abc"] = id; });
  };
  EXPECT_TRUE(holds(with_id(3), "the id 3 is given to both"));
  for (const json& id : {json(-1), json(10'000'001), json(1.5), json("4"), json(nullptr),
                         json(18'446'744'073'709'551'615u)}) {
    EXPECT_TRUE(holds(with_id(id), "wanted an integer from 0 to 10000000")) << id;
    EXPECT_TRUE(holds(with_id(id), "\"abc\"")) << id;
  }
  EXPECT_TRUE(holds(with_id(json::array()), "\"abc\""));
  EXPECT_TRUE(holds(with_id(json::object()), "\"abc\""));
}

TEST(Bpe, TokensGivenTwiceAreRefused) {
  std::string text = small_tokenizer_json().dump();
  text.replace(text.find("\"b\":1"), 5, "\"a\":1");
  EXPECT_TRUE(holds(error_of([&] { tokenizer_of_text(text); }), "the token \"a\" appears twice"));
  EXPECT_TRUE(holds(refusal([](json& content) { content["added_tokens"][0]["id"] = 4; }),
                    "the id 4 is given to both \"abc\" and \"<|endoftext|>\""));
  EXPECT_TRUE(holds(refusal([](json& content) { content["model"]["vocab"]["<|endoftext|>"] = 7; }),
                    "the token \"<|endoftext|>\" has two ids, 7 and 5"));
  EXPECT_TRUE(holds(refusal([](json& content) { content["model"]["vocab"] = json::object(); }),
                    "no tokens"));
}

TEST(Bpe, BrokenMergesAreRefused) {
  const auto with_merge = [](const json& merge) {
    return refusal([&](json& content) { content["model"]["merges"].push_back(merge); });
  };
  EXPECT_TRUE(holds(with_merge("a z"), "merge 3 (\"a\" + \"z\") names \"z\""));
  EXPECT_TRUE(holds(with_merge("a c"), "names \"ac\", which is not in the vocabulary"));
  for (const json& merge :
       {json("ab"), json("a b c"), json({"a"}), json({"a", "b", "c"}), json(json::array()), json(7),
        json(nullptr), json::object(), json({"a", 1}), json({"a", {"b"}})}) {
    EXPECT_TRUE(holds(with_merge(merge), "is not two tokens")) << merge;
  }
}

TEST(Bpe, VocabularyAndMergesAreNeededOnceInTheirOwnForm) {
  for (const char* part : {"vocab", "merges"}) {
    const std::string message = refusal([&](json& content) { content["model"].erase(part); });
    EXPECT_TRUE(holds(message, std::string("model.") + part + " is missing"));
    EXPECT_TRUE(
        holds(refusal([&](json& content) { content["model"][part] = 7; }), "is missing or"));
  }
  EXPECT_TRUE(holds(refusal([](json& content) {
                      content["model"]["merges"] = {{"a", "b"}};
                    }),
                    "model.merges is missing or not an array"));
  EXPECT_TRUE(holds(refusal([](json& content) { content.erase("model"); }), "vocab is missing"));
  std::string twice = small_tokenizer_json().dump();
  twice.replace(twice.find("\"merges\":"), 9, "\"merges\":[],\"merges\":");
  EXPECT_TRUE(holds(error_of([&] { tokenizer_of_text(twice); }), "\"merges\" appears twice"));
}

TEST(Bpe, UnsupportedTokenizersAreNamed) {
  const auto with = [](const char* pointer, const json& value) {
    return refusal([&](json& content) { content[json::json_pointer(pointer)] = value; });
  };
  EXPECT_TRUE(holds(with("/model/type", "Unigram"), "model of type Unigram"));
  EXPECT_TRUE(holds(with("/model/type", "WordPiece"), "model of type WordPiece"));
  EXPECT_TRUE(holds(with("/model/byte_fallback", true), "byte_fallback"));
  EXPECT_TRUE(holds(with("/model/ignore_merges", true), "ignore_merges"));
  EXPECT_TRUE(holds(with("/model/dropout", 0.1), "dropout"));
  EXPECT_TRUE(holds(with("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix"));
  EXPECT_TRUE(holds(with("/normalizer", {{"type", "NFC"}}), "normalizer NFC"));
  EXPECT_TRUE(holds(with("/pre_tokenizer", {{"type", "Whitespace"}}), "pre-tokenizer Whitespace"));
  EXPECT_TRUE(holds(with("/pre_tokenizer", nullptr), "pre-tokenizer null"));
  EXPECT_TRUE(holds(with("/pre_tokenizer/add_prefix_space", true), "prefix space"));
  EXPECT_TRUE(holds(with("/pre_tokenizer/use_regex", false), "regex"));
  EXPECT_TRUE(holds(with("/post_processor", {{"type", "TemplateProcessing"}}),
                    "post_processor TemplateProcessing"));
  EXPECT_TRUE(holds(with("/decoder", {{"type", "Metaspace"}}), "decoder Metaspace"));
  EXPECT_TRUE(holds(with("/added_tokens/0/lstrip", true), "has lstrip"));
  EXPECT_TRUE(holds(with("/added_tokens/0/single_word", true), "has single_word"));
}

}  // namespace
}  // namespace ocelli::llm
