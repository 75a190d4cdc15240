// Token ids against Hugging Face's, on goldens of tests/reference/make_tokenizer_goldens.py.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "llm/pre_tokenizer.h"
#include "tests/llm/golden_vocabulary.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace ocelli::llm {
namespace {

// Whether PCRE2 knows just the Unicode that the goldens were made with; a newer one may call code
// points letters that had no meaning then.
bool same_unicode() {
  char version[64] = {};
  pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
  return std::string(version) == "14.0.0";
}

using TokenizerGolden = GoldenVocabulary;

TEST_P(TokenizerGolden, CasesGiveTheIdsOfHuggingFace) {
  const auto cases = host::read_json(kGolden / (GetParam().name + ".cases.json"));
  ASSERT_GE(cases.size(), 100u);
  for (const auto& item : cases) {
    const auto text = item.at("text").get<std::string>();
    const auto ids = item.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_->encode(text), ids) << "for " << item.at("text");
    EXPECT_EQ(tokenizer_->decode(ids), text);
  }
}

TEST_P(TokenizerGolden, TwentyThousandRandomStringsGiveTheIdsOfHuggingFace) {
  const auto words = read_hashes(GetParam().name);
  ASSERT_GT(words.size(), 2u);
  const size_t count = words[0];
  ASSERT_EQ(count, 20'000u);
  ASSERT_EQ(words.size(), 2 + count + (count + 31) / 32);
  const bool all = same_unicode();
  RandomText random = golden_texts();
  uint32_t all_texts = kFnvStart;
  size_t compared = 0;
  size_t wrong = 0;
  for (size_t i = 0; i < count; ++i) {
    const std::string text = random.next();
    all_texts = fnv1a("\xFF", fnv1a(text, all_texts));
    const bool newer = (words[2 + count + i / 32] >> i % 32 & 1) != 0;
    const auto ids = tokenizer_->encode(text);
    EXPECT_EQ(tokenizer_->decode(ids), text) << "string " << i;
    if (newer && !all) continue;
    ++compared;
    if (hash_of(ids) == words[2 + i]) continue;
    if (++wrong <= 5)
      ADD_FAILURE() << "other ids for string " << i << ": " << testing::PrintToString(text);
  }
  EXPECT_EQ(all_texts, words[1]) << "the generator no longer makes the strings of the goldens";
  EXPECT_EQ(wrong, 0u) << "of " << compared;
  EXPECT_GE(compared, count / 2);
}

INSTANTIATE_TEST_SUITE_P(
    Vocabularies, TokenizerGolden,
    testing::Values(Vocabulary{"tiny", kGolden / "tiny"},
                    Vocabulary{"tiny", kGolden / "tiny.tokenizer.json"},
                    Vocabulary{"demo", kSource / "assets/demo"},
                    Vocabulary{"phi2", kSource / "../shared/data/phi2-tokenizer.json"}),
    [](const auto& test) { return test.param.name + (test.param.is_json() ? "Json" : ""); });

// A letter joins "a", a number "1", what is neither nor a space "#".
TEST(PreTokenizerGolden, EveryCodePointHasTheClassThatHuggingFaceGivesIt) {
  const auto golden = host::read_json(kGolden / "classes.json");
  if (!same_unicode()) GTEST_SKIP() << "PCRE2 knows another Unicode than " << golden["unicode"];
  const PreTokenizer pre_tokenizer;
  std::vector<std::string_view> words;
  std::string classes;
  for (uint32_t point = 0; point < 0x110000; ++point) {
    if (point >= 0xD800 && point < 0xE000) continue;
    char found = 'S';
    for (const char before : std::string_view("a#1")) {
      std::string text(1, before);
      append_utf8(point, text);
      pre_tokenizer.split(text, words);
      if (words.size() == 1) found = before == 'a' ? 'L' : before == '1' ? 'N' : 'O';
    }
    classes += found;
  }
  EXPECT_EQ(fnv1a(classes), golden["hash"].get<uint32_t>());
  for (const auto& [kind, count] : golden["counts"].items()) {
    EXPECT_EQ(std::count(classes.begin(), classes.end(), kind[0]), count.get<ptrdiff_t>()) << kind;
  }
}

}  // namespace
}  // namespace ocelli::llm
