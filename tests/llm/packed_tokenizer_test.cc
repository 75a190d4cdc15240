// A vocabulary in the form that packed models keep is the vocabulary of its files.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "host/json.h"
#include "llm/bpe_parts.h"
#include "llm/tokenizer.h"
#include "tests/host/expect_error.h"
#include "tests/llm/random_text.h"
#include "tests/llm/vocabulary_files.h"

namespace ocelli::llm {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = OCELLI_SOURCE_DIR;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

class PackedTokenizerTest : public testing::TestWithParam<fs::path> {};

TEST_P(PackedTokenizerTest, IsTheVocabularyOfItsFiles) {
  const fs::path path = kSource / GetParam();
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not ours to ship";
  const auto loaded = load_tokenizer(path);
  const PackedTokenizer packed = pack_tokenizer(path);
  const auto unpacked = unpack_tokenizer(packed.kind, bytes_of(packed.bytes), "packed");

  ASSERT_EQ(unpacked->size(), loaded->size());
  EXPECT_EQ(unpacked->bos(), loaded->bos());
  EXPECT_EQ(unpacked->eos(), loaded->eos());
  for (int32_t id = 0; id < loaded->size(); ++id) {
    ASSERT_EQ(unpacked->token_bytes(id), loaded->token_bytes(id)) << id;
    ASSERT_EQ(unpacked->is_special(id), loaded->is_special(id)) << id;
  }
  const auto fragments = host::read_json(kSource / "tests/golden/tokenizer/fragments.json");
  RandomText texts(1, fragments.get<Fragments>());
  for (int i = 0; i < 300; ++i) {
    const std::string text = texts.next();
    for (const auto special : {SpecialTokens::kParse, SpecialTokens::kPlain}) {
      std::vector<int32_t> expected;
      try {
        expected = loaded->encode(text, special);
      } catch (const host::Error&) {  // a byte without a token
        EXPECT_THROW(unpacked->encode(text, special), host::Error) << text;
        continue;
      }
      ASSERT_EQ(unpacked->encode(text, special), expected) << text;
      EXPECT_EQ(unpacked->decode(expected), loaded->decode(expected));
    }
  }
  EXPECT_EQ(pack_tokenizer(path).bytes, packed.bytes);
}

INSTANTIATE_TEST_SUITE_P(, PackedTokenizerTest,
                         testing::Values("assets/demo", "assets/stories/tokenizer.bin",
                                         "tests/golden/tokenizer/tiny",
                                         "tests/golden/tokenizer/tiny.tokenizer.json",
                                         "tests/golden/tokenizer/tiny-llama/tokenizer.json",
                                         "tests/golden/tokenizer/tiny-llama/tokenizer.model",
                                         "tests/golden/stories/hf_tied",
                                         "../shared/data/phi2-tokenizer.json",
                                         "../shared/data/llama2-tokenizer.model"));

// --- What is damaged ---

// Where the numbers of the head stand.
constexpr size_t kTokensAt = 0;
constexpr size_t kMergesAt = 8;
constexpr size_t kCharactersAt = 12;
constexpr size_t kAddedAt = 16;
constexpr size_t kFlagsAt = 20;
constexpr size_t kBosAt = 24;
constexpr size_t kEosAt = 28;
constexpr size_t kHeadBytes = 32;
constexpr size_t kMergesBegin = kHeadBytes + 256 * sizeof(int32_t);

class DamagedVocabulary : public testing::Test {
 protected:
  static std::string small() {
    BpeFiles files;
    files.where = "small";
    parse_tokenizer_json(small_tokenizer_json().dump(), "small", files);
    files.specials.emplace_back(kDefaultSpecial);
    return pack_bpe(make_bpe_parts(files));
  }
  // Refused once the number at `at` is `value`.
  void expect_refused(size_t at, int32_t value, const std::string& message) {
    std::string bytes = packed_;
    std::memcpy(bytes.data() + at, &value, sizeof value);
    const std::string error = error_of([&] { unpack_bpe(bytes_of(bytes), "packed"); });
    EXPECT_TRUE(holds(error, "packed: the vocabulary")) << at;
    EXPECT_TRUE(holds(error, message)) << at;
  }

  const std::string packed_ = small();
};

TEST_F(DamagedVocabulary, IsRefused) {
  ASSERT_NO_THROW(unpack_bpe(bytes_of(packed_), "packed"));
  expect_refused(kTokensAt, 0, "number of tokens");
  expect_refused(kTokensAt, -1, "number of tokens");
  expect_refused(kMergesAt, -1, "cut off");
  expect_refused(kCharactersAt, 1, "characters of Llama's kind");
  expect_refused(kAddedAt, 2, "cut off");
  expect_refused(kAddedAt, 0, "bytes after its end");
  expect_refused(kFlagsAt, 2, "rules of Llama's kind");
  expect_refused(kFlagsAt, 1 << 10, "unknown flags");
  expect_refused(kFlagsAt, 1 | 3 << 5, "unknown rule");
  expect_refused(kFlagsAt, 1, "the token of a byte");  // most of which have none
  expect_refused(kBosAt, 6, "the ends of its texts");
  expect_refused(kEosAt, -2, "the ends of its texts");
  expect_refused(kHeadBytes, 6, "the token of a byte");
  for (size_t i = 0; i < 3; ++i) expect_refused(kMergesBegin + 4 * i, 6, "a merge");
  const size_t ends = kMergesBegin + 2 * 12;
  expect_refused(ends, 100, "its tokens' ends");
  expect_refused(packed_.size() - 13 - 12, 6, "an added token");  // its id
  expect_refused(packed_.size() - 13 - 8, 4, "an added token");   // its flags
  std::string cut_character = packed_;
  cut_character.back() = '\xC3';
  EXPECT_TRUE(
      holds(error_of([&] { unpack_bpe(bytes_of(cut_character), "packed"); }), "an added token"));
}

TEST_F(DamagedVocabulary, CutOffAnywhereIsRefused) {
  for (size_t size = 0; size < packed_.size(); ++size) {
    EXPECT_THROW(unpack_bpe(bytes_of(packed_).first(size), "packed"), host::Error) << size;
  }
  EXPECT_TRUE(holds(error_of([&] { unpack_bpe(bytes_of(packed_ + "x"), "packed"); }),
                    "bytes after its end"));
}

TEST(UnpackTokenizer, NamesAnUnknownKind) {
  EXPECT_TRUE(holds(error_of([] { unpack_tokenizer("wordpiece", {}, "packed"); }),
                    "unknown kind \"wordpiece\""));
}

}  // namespace
}  // namespace ocelli::llm
