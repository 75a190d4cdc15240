// tokenizer.bin: the ids of run.c's own loop, the way back to text, and what broken files get.
#include "llm/llama2c_tokenizer.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "llm/random.h"
#include "tests/host/expect_error.h"
#include "tests/llm/llama2c_vocabulary.h"
#include "tests/llm/random_text.h"

namespace ocelli::llm {
namespace {

using Ids = std::vector<int32_t>;
using Pieces = std::vector<Llama2cPiece>;

constexpr int32_t kSpace = 259;  // the last of base_pieces()
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The base and these, whose ids begin at 260.
Pieces with(const Pieces& more) {
  Pieces pieces = base_pieces();
  pieces.insert(pieces.end(), more.begin(), more.end());
  return pieces;
}

Ids encode(const Pieces& pieces, std::string_view text) {
  return llama2c_tokenizer(llama2c_file(pieces)).encode(text, SpecialTokens::kParse);
}

TEST(Llama2cTokenizer, BeginsWithASpaceAndFallsBackToBytes) {
  const Pieces pieces = with({{"a"}, {"é"}});
  EXPECT_EQ(encode(pieces, ""), Ids());
  EXPECT_EQ(encode(pieces, "a"), (Ids{kSpace, 260}));
  EXPECT_EQ(encode(pieces, "aéb"), (Ids{kSpace, 260, 261, 'b' + 3}));
  EXPECT_EQ(encode(pieces, "ü"), (Ids{kSpace, 0xC3 + 3, 0xBC + 3}));
  EXPECT_EQ(encode(pieces, std::string_view("\0", 1)), (Ids{kSpace, 3}));
}

TEST(Llama2cTokenizer, JoinsTheBestScoreAndTheLeftmostOfEquals) {
  // "abc" could become ab+c or a+bc.
  EXPECT_EQ(encode(with({{"a"}, {"b"}, {"c"}, {"ab", -3}, {"bc", -2}}), "abc"),
            (Ids{kSpace, 260, 264}));
  EXPECT_EQ(encode(with({{"a"}, {"b"}, {"c"}, {"ab", -2}, {"bc", -2}}), "abc"),
            (Ids{kSpace, 263, 262}));
  EXPECT_EQ(encode(with({{"a"}, {"aa", 5}}), "aaa"), (Ids{kSpace, 261, 260}));
  // Scores of either sign, and the two zeros, which are equal.
  EXPECT_EQ(encode(with({{"a"}, {"b"}, {"c"}, {"ab", -1e-30F}, {"bc", 1e-30F}}), "abc"),
            (Ids{kSpace, 260, 264}));
  EXPECT_EQ(encode(with({{"a"}, {"b"}, {"c"}, {"ab", -0.0F}, {"bc", 0.0F}}), "abc"),
            (Ids{kSpace, 263, 262}));
  EXPECT_EQ(encode(with({{"a"}, {"b"}, {"c"}, {"ab", 9}, {"bc", kInfinity}}), "abc"),
            (Ids{kSpace, 260, 264}));
}

TEST(Llama2cTokenizer, NeverMakesAPieceOfRunCsWorstScore) {
  EXPECT_EQ(encode(with({{"a"}, {"aa", -1e10F}}), "aa"), (Ids{kSpace, 260, 260}));
  EXPECT_EQ(encode(with({{"a"}, {"aa", -kInfinity}}), "aa"), (Ids{kSpace, 260, 260}));
  EXPECT_EQ(encode(with({{"a"}, {"aa", -0.99e10F}}), "aa"), (Ids{kSpace, 261}));
}

TEST(Llama2cTokenizer, TakesTheLowestIdOfEqualPieces) {
  const Pieces pieces = with({{"a"}, {"a", 7}, {"aa", -2}, {"aa", -1}});
  EXPECT_EQ(encode(pieces, "aa"), (Ids{kSpace, 262}));
  EXPECT_EQ(llama2c_tokenizer(llama2c_file(pieces)).token_bytes(263), "aa");
}

TEST(Llama2cTokenizer, ReadsNoControlTokensInText) {
  const auto tokenizer = llama2c_tokenizer(llama2c_file(base_pieces()));
  const Ids ids = {kSpace, '<' + 3, 's' + 3, '>' + 3};
  EXPECT_EQ(tokenizer.encode("<s>", SpecialTokens::kParse), ids);
  EXPECT_EQ(tokenizer.encode("<s>", SpecialTokens::kPlain), ids);
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 1);
  for (int32_t id = -1; id < 5; ++id) {
    EXPECT_EQ(tokenizer.is_special(id), id >= 0 && id <= 2) << id;
  }
}

TEST(Llama2cTokenizer, GivesTheBytesOfTokens) {
  const auto tokenizer =
      llama2c_tokenizer(llama2c_file(with({{"<0x41"}, {"<0x4G>"}, {"<0x-1>"}, {"<0x041>"}, {""}})));
  EXPECT_EQ(tokenizer.size(), 265);
  EXPECT_EQ(tokenizer.token_bytes(1), "\n<s>\n");
  EXPECT_EQ(tokenizer.token_bytes(3), std::string_view("\0", 1));
  EXPECT_EQ(tokenizer.token_bytes(3 + 0xFF), "\xFF");
  EXPECT_EQ(tokenizer.token_bytes(kSpace), " ");
  EXPECT_EQ(tokenizer.token_bytes(260), "<0x41");
  EXPECT_EQ(tokenizer.token_bytes(261), "<0x4G>");
  EXPECT_EQ(tokenizer.token_bytes(262), "<0x-1>");
  EXPECT_EQ(tokenizer.token_bytes(263), "<0x041>");
  EXPECT_EQ(tokenizer.token_bytes(264), "");
  EXPECT_EQ(tokenizer.token_bytes(265), "");
  EXPECT_EQ(tokenizer.token_bytes(-1), "");
}

TEST(Llama2cTokenizer, DropsOneSpaceWhereATextBegins) {
  const auto tokenizer = llama2c_tokenizer(llama2c_file(with({{" a"}, {"  ", 1}})));
  EXPECT_EQ(tokenizer.text_bytes(-1, 260), "a");
  EXPECT_EQ(tokenizer.text_bytes(1, 260), "a");  // run.c's way, behind the token that begins a text
  EXPECT_EQ(tokenizer.text_bytes(2, 260), " a");
  EXPECT_EQ(tokenizer.text_bytes(260, 260), " a");
  EXPECT_EQ(tokenizer.text_bytes(1, 261), " ");
  EXPECT_EQ(tokenizer.text_bytes(1, kSpace), "");
  for (const std::string text : {"", "x", " x", "   x", "\nx", "x ", " "}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, SpecialTokens::kPlain)), text);
  }
}

// A text of `length` of these, at random.
std::string random_of(const std::vector<std::string>& parts, uint64_t length, uint64_t& state) {
  std::string text;
  for (uint64_t i = 0; i < length; ++i) text += parts[splitmix64(state) % parts.size()];
  return text;
}

TEST(Llama2cTokenizer, GivesTheIdsOfTheNaiveLoop) {
  // Few letters and few scores: many merges, and many of them equal.
  const std::vector<std::string> letters = {"a", "b", "c", " ", "é", "\n", "🎉"};
  const std::vector<float> scores = {-1, -2, -3, 0, -0.0F, 2, -1e10F, -kInfinity, kInfinity};
  uint64_t state = 7;
  for (int vocabulary = 0; vocabulary < 60; ++vocabulary) {
    Pieces pieces = with({{"a"}, {"b"}, {"é"}});
    for (int i = 0; i < 60; ++i) {
      pieces.push_back({random_of(letters, 1 + splitmix64(state) % 4, state),
                        scores[splitmix64(state) % scores.size()]});
    }
    const auto tokenizer = llama2c_tokenizer(llama2c_file(pieces));
    for (uint64_t length = 0; length < 40; ++length) {
      const std::string text = random_of(letters, length, state);
      const Ids ids = tokenizer.encode(text, SpecialTokens::kPlain);
      ASSERT_EQ(ids, naive_llama2c_ids(pieces, text)) << testing::PrintToString(text);
      ASSERT_EQ(tokenizer.decode(ids), text);
    }
  }
}

TEST(Llama2cTokenizer, TakesAMegabyteAtOnce) {
  Pieces more;
  for (size_t length = 1; length <= 16; length *= 2) {
    more.push_back({std::string(length, 'a'), -static_cast<float>(length)});
  }
  const auto tokenizer = llama2c_tokenizer(llama2c_file(with(more)));
  EXPECT_EQ(tokenizer.encode(std::string(1 << 20, 'a'), SpecialTokens::kPlain).size(),
            1 + (size_t{1} << 20) / 16);
}

TEST(Llama2cTokenizer, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = llama2c_tokenizer(llama2c_file(base_pieces()));
  EXPECT_TRUE(holds(error_of([&] { tokenizer.encode("ab\xFF", SpecialTokens::kPlain); }),
                    "not valid UTF-8: byte 2 (0xff)"));
}

std::string refusal(std::string_view file) {
  return error_of([&] { llama2c_tokenizer(file); });
}

TEST(Llama2cTokenizer, RefusesFilesThatAreCutOff) {
  const std::string file = llama2c_file(with({{"abc"}}));
  EXPECT_TRUE(holds(refusal(""), "small: has 0 bytes, too few"));
  EXPECT_TRUE(holds(refusal(file.substr(0, 3)), "small: has 3 bytes, too few"));
  EXPECT_TRUE(holds(refusal(file.substr(0, 4)), "has no pieces"));
  EXPECT_TRUE(holds(refusal(file.substr(0, 11)), "ends within the head of piece 0"));
  EXPECT_TRUE(holds(refusal(file.substr(0, 12)), "piece 0 has 5 bytes, but only 0 are left"));
  EXPECT_TRUE(holds(refusal(file.substr(0, file.size() - 1)),
                    "piece 260 has 3 bytes, but only 2 are left in the file"));
  // Every cut is refused, save the one after the last piece that is needed, the space.
  for (size_t size = 0; size < file.size(); ++size) {
    if (size != file.size() - 11) refusal(file.substr(0, size));
  }
}

TEST(Llama2cTokenizer, RefusesLengthsAndScoresThatMakeNoSense) {
  const Pieces pieces = with({{"abc"}});
  for (const int32_t limit : {0, -1, std::numeric_limits<int32_t>::min()}) {
    EXPECT_TRUE(holds(refusal(llama2c_file(pieces, limit)), "max_token_length is"));
  }
  EXPECT_TRUE(holds(refusal(llama2c_file(pieces, 5)), "piece 2 has a length of 6 bytes"));
  EXPECT_EQ(llama2c_tokenizer(llama2c_file(pieces, 6)).size(), 261);
  for (const int32_t length : {-1, 28, std::numeric_limits<int32_t>::max()}) {
    std::string file = llama2c_file(pieces);
    std::memcpy(file.data() + 8, &length, sizeof length);
    EXPECT_TRUE(holds(refusal(file), "piece 0 has a length of " + std::to_string(length)));
  }
  EXPECT_TRUE(holds(refusal(llama2c_file(with({{"a", std::numeric_limits<float>::quiet_NaN()}}))),
                    "the score of piece 260 is not a number"));
}

TEST(Llama2cTokenizer, RefusesFilesWithoutTheBytesOrTheSpace) {
  Pieces pieces = base_pieces();
  pieces[3 + 'A'].text = "\x1B[2J";
  EXPECT_TRUE(holds(refusal(llama2c_file(pieces)), "piece 68 is \"\\x1b[2J\", wanted <0x41>"));
  std::swap(pieces[3 + 'B'], pieces[3 + 'C']);
  pieces[3 + 'A'].text = "<0x41>";
  EXPECT_TRUE(holds(refusal(llama2c_file(pieces)), "piece 69 is \"<0x43>\", wanted <0x42>"));
  pieces = base_pieces();
  pieces.pop_back();
  EXPECT_TRUE(holds(refusal(llama2c_file(pieces)), "no piece for the space"));
  pieces.pop_back();
  EXPECT_TRUE(holds(refusal(llama2c_file(pieces)), "ends before the piece 258, <0xFF>"));
}

}  // namespace
}  // namespace ocelli::llm
