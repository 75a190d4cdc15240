// Llama's vocabularies in their three forms against sentencepiece and Hugging Face, on goldens of
// tests/reference/make_llama_tokenizer_goldens.py.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "host/error.h"
#include "tests/host/temporary_directory.h"
#include "tests/llm/golden_vocabulary.h"

namespace ocelli::llm {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581

// What comes back of a text: all forms but tokenizer.bin take the mark for a space.
std::string as_decoded(std::string text, const Vocabulary& vocabulary) {
  if (vocabulary.is_bin()) return text;
  for (size_t at = text.find(kMark); at != text.npos; at = text.find(kMark, at)) {
    text[at] = ' ';
    text.erase(at + 1, kMark.size() - 1);
  }
  return text;
}

using LlamaTokenizer = GoldenVocabulary;

TEST_P(LlamaTokenizer, CasesGiveTheIdsOfTheReference) {
  const auto cases = host::read_json(kGolden / (GetParam().name + ".cases.json"));
  ASSERT_GE(cases.size(), 150u);
  for (const json& item : cases) {
    const auto text = item.at("text").get<std::string>();
    const auto ids = item.at("ids").get<Ids>();
    const Ids found = tokenizer_->encode(text, SpecialTokens::kPlain);
    EXPECT_EQ(tokenizer_->decode(found), as_decoded(text, GetParam())) << item.at("text");
    if (GetParam().is_bin()) {
      // To llama2.c the mark is a character like any other, and names of control tokens are text.
      if (text.find(kMark) == text.npos) {
        EXPECT_EQ(found, ids) << item.at("text");
      }
      EXPECT_EQ(tokenizer_->encode(text), found) << item.at("text");
      continue;
    }
    EXPECT_EQ(found, ids) << item.at("text");
    const Ids parsed = item.value("fast", ids);
    EXPECT_EQ(tokenizer_->encode(text), parsed) << item.at("text");
    EXPECT_EQ(tokenizer_->decode(parsed), as_decoded(text, GetParam())) << item.at("text");
  }
}

TEST_P(LlamaTokenizer, FiveThousandRandomStringsGiveTheIdsOfSentencepiece) {
  const auto words = read_hashes(GetParam().name);
  ASSERT_EQ(words.size(), 5'002u);
  ASSERT_EQ(words[0], 5'000u);
  RandomText random = golden_texts();
  uint32_t all_texts = kFnvStart;
  size_t compared = 0;
  size_t wrong = 0;
  for (size_t i = 0; i < words[0]; ++i) {
    const std::string text = random.next();
    all_texts = fnv1a("\xFF", fnv1a(text, all_texts));
    const Ids ids = tokenizer_->encode(text, SpecialTokens::kPlain);
    EXPECT_EQ(tokenizer_->decode(ids), as_decoded(text, GetParam())) << "string " << i;
    if (GetParam().is_bin() && text.find(kMark) != text.npos) continue;
    ++compared;
    if (hash_of(ids) == words[2 + i]) continue;
    if (++wrong <= 5)
      ADD_FAILURE() << "other ids for string " << i << ": " << testing::PrintToString(text);
  }
  EXPECT_EQ(all_texts, words[1]) << "the generator no longer makes the strings of the goldens";
  EXPECT_EQ(wrong, 0u) << "of " << compared;
  EXPECT_GE(compared, 4'900u);
}

TEST_P(LlamaTokenizer, KnowsItsControlTokens) {
  const bool bin = GetParam().is_bin();
  EXPECT_EQ(tokenizer_->size(), GetParam().name == "llama2" ? 32'000 : 600);
  EXPECT_EQ(tokenizer_->bos(), 1);
  EXPECT_EQ(tokenizer_->eos(), bin ? 1 : 2);
  EXPECT_EQ(tokenizer_->token_bytes(0), "<unk>");
  EXPECT_EQ(tokenizer_->token_bytes(1), bin ? "\n<s>\n" : "<s>");
  EXPECT_EQ(tokenizer_->token_bytes(2), bin ? "\n</s>\n" : "</s>");
  for (int32_t id = 0; id < 300; ++id) EXPECT_EQ(tokenizer_->is_special(id), id < 3) << id;
  EXPECT_FALSE(tokenizer_->is_special(-1));
  EXPECT_FALSE(tokenizer_->is_special(tokenizer_->size()));
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(tokenizer_->token_bytes(3 + byte), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(tokenizer_->token_bytes(tokenizer_->size()), "");
  EXPECT_EQ(tokenizer_->token_bytes(-1), "");
}

TEST_P(LlamaTokenizer, DropsTheSpaceThatEncodeAdded) {
  const Ids once = tokenizer_->encode("Once  upon");
  const Ids more = tokenizer_->encode("\n");
  ASSERT_FALSE(once.empty());
  EXPECT_EQ(tokenizer_->text_bytes(-1, once[0]), tokenizer_->text_bytes(1, once[0]));
  EXPECT_EQ(tokenizer_->token_bytes(once[0]),
            " " + std::string(tokenizer_->text_bytes(1, once[0])));
  EXPECT_EQ(tokenizer_->text_bytes(once[0], once[0]), tokenizer_->token_bytes(once[0]));
  EXPECT_EQ(tokenizer_->decode(more), "\n");
  Ids whole = {1};
  whole.insert(whole.end(), once.begin(), once.end());
  EXPECT_EQ(tokenizer_->decode(whole), std::string(tokenizer_->token_bytes(1)) + "Once  upon");
}

TEST_P(LlamaTokenizer, RefusesTextThatIsNotUtf8) {
  EXPECT_THROW(tokenizer_->encode("a\xC3"), host::Error);
}

TEST_P(LlamaTokenizer, TakesLongTextsWithoutEnd) {
  std::string text;
  while (text.size() < 200'000) text += "Once upon a time, there was a big, red house. ";
  for (const std::string& each : {text, std::string(200'000, 'a'), std::string(200'000, ' ')}) {
    EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(each)), each);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Vocabularies, LlamaTokenizer,
    testing::Values(Vocabulary{"tiny-llama", kGolden / "tiny-llama/tokenizer.json"},
                    Vocabulary{"tiny-llama", kGolden / "tiny-llama/tokenizer.model"},
                    Vocabulary{"tiny-llama", kGolden / "tiny-llama/tokenizer.bin"},
                    Vocabulary{"llama2", kSource / "../shared/data/llama2-tokenizer.model"},
                    Vocabulary{"llama2", kSource / "../shared/data/llama2-tokenizer.bin"}),
    [](const auto& test) {
      return (test.param.name == "llama2" ? "Llama2" : "Tiny") +
             test.param.path.extension().string().substr(1);
    });

// tokenizer.json as other versions of Hugging Face's library write it: the variants of the script.
class LlamaJson : public testing::TestWithParam<std::string> {};

json changed_json(const std::string& variant) {
  json content = host::read_json(kGolden / "tiny-llama/tokenizer.json");
  if (variant == "normalized") {
    for (json& token : content["added_tokens"]) token["normalized"] = true;
    return content;
  }
  content["normalizer"] = nullptr;
  content["pre_tokenizer"] = {{"type", "Metaspace"},
                              {"replacement", kMark},
                              {"prepend_scheme", variant == "words" ? "always" : variant},
                              {"split", variant == "words"}};
  return content;
}

TEST_P(LlamaJson, VariantsGiveTheIdsOfHuggingFace) {
  const TemporaryDirectory directory;
  directory.write("tokenizer.json", changed_json(GetParam()).dump());
  const auto tokenizer = load_tokenizer(directory.path());
  size_t others = 0;
  for (const json& item : host::read_json(kGolden / "tiny-llama.cases.json")) {
    const Ids ids = item.value(GetParam(), item.at("ids").get<Ids>());
    EXPECT_EQ(tokenizer->encode(item.at("text").get<std::string>()), ids) << item.at("text");
    others += item.contains(GetParam()) ? 1 : 0;
  }
  EXPECT_GE(others, 5u);
}

INSTANTIATE_TEST_SUITE_P(Variants, LlamaJson,
                         testing::Values("first", "words", "never", "normalized"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace ocelli::llm
