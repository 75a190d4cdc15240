// Which captions are not passed off as good.
#include "app/caption_gates.h"

#include "host/error.h"
#include "tests/app/command.h"
#include "tests/host/expect_error.h"

namespace ocelli::app {
namespace {

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(CaptionGates, FindTextsThatRunInCircles) {
  const std::string long_phrase = "the man is standing in front of a large blue house ";
  for (const std::string& text :
       {repeated("very ", 5), repeated("red car, ", 4), "A dog. " + repeated("It is a dog. ", 3),
        repeated(long_phrase, 2), "At first " + repeated(long_phrase, 2) + "and then the end",
        repeated("a b c d e f g ", 3), repeated("红色", 5), "一只" + repeated("猫", 6),
        repeated("Yes! yes, ", 3), repeated("ha\n", 8)}) {
    EXPECT_TRUE(is_looping(text)) << text;
  }
}

TEST(CaptionGates, LetOrdinaryRepetitionPass) {
  for (const std::string& text :
       {std::string(), std::string("a"), std::string("very very very very good"),
        std::string("A red car, a red bus, a red van and a red bicycle."),
        std::string("A house to the left of a tree and a tree to the left of a house."),
        std::string("One cat sits, one cat stands, one cat sleeps."),
        std::string("红色的房子和红色的树"), repeated("red car ", 3),
        std::string("the the the the end")}) {
    EXPECT_FALSE(is_looping(text)) << text;
  }
}

TEST(CaptionGates, KnowHowModelsDecline) {
  for (const char* text :
       {"I cannot describe this picture.", "I can't help with that.", "I’m sorry, but I can't.",
        "  I am unable to see images", "Sorry, I can't do that", "Unfortunately, I have no eyes",
        "As an AI language model, I have no eyes.", "Well, as an AI assistant, I see nothing."}) {
    EXPECT_TRUE(is_refusal(text)) << text;
  }
  for (const char* text :
       {"", "A sign that reads \"I cannot stop\".", "A man who is unable to walk.",
        "A sorry sight: an old car.", "I see a house.", "An AI assistant on a poster"}) {
    EXPECT_FALSE(is_refusal(text)) << text;
  }
}

TEST(ForbiddenWordsList, FindsWordsThatStandByThemselves) {
  const ForbiddenWords words({"cat, Sun glasses ,,", "naïve,c++,ёж"});
  EXPECT_EQ(words.words(), (std::vector<std::string>{"cat", "Sun glasses", "naïve", "c++", "ёж"}));
  for (const char* text :
       {"a cat", "CAT!", "\"cat\"", "the (cat)", "sun glasses", "SUN\n  glasses.", "how NAÏVE",
        "in C++.", "это Ёж", "bad \xFF bytes and a cat"}) {
    EXPECT_TRUE(words.found_in(text)) << text;
  }
  for (const char* text : {"", "a catalogue", "bobcat", "cats", "cat_1", "sunglasses",
                           "sun and glasses", "c", "ёжик", "ca\xFFt"}) {
    EXPECT_FALSE(words.found_in(text)) << text;
  }
}

TEST(ForbiddenWordsList, MayBeEmpty) {
  EXPECT_FALSE(ForbiddenWords().found_in("anything"));
  EXPECT_TRUE(ForbiddenWords({" , ,"}).empty());
}

TEST(ForbiddenWordsList, TakesWhateverCharactersWordsHave) {
  const std::string odd = R"(a.b [x] \d (y) ^$ {2} | ? * E\Q)";
  const ForbiddenWords words({odd});
  EXPECT_TRUE(words.found_in("so " + odd + " it is"));
  EXPECT_FALSE(words.found_in("axb"));
  EXPECT_TRUE(holds(error_of([] { ForbiddenWords({"caf\xE9"}); }), "is not UTF-8"));
  std::string many;
  for (int i = 0; i < 3000; ++i) many += "word" + std::to_string(i) + ",";
  const ForbiddenWords thousands({many});
  EXPECT_TRUE(thousands.found_in("it has word2999 in it"));
  EXPECT_FALSE(thousands.found_in("it has word3000 in it"));
}

TEST(CaptionGates, NameTheFirstFaultThereIs) {
  CaptionGates gates;
  gates.min_confidence = 0.5;
  gates.forbidden = ForbiddenWords({"house"});
  EXPECT_EQ(gates.judge("A tree.", 0.5), CaptionStatus::kOk);
  EXPECT_EQ(gates.judge("", 1), CaptionStatus::kEmpty);
  EXPECT_EQ(gates.judge(" \n.,!", 1), CaptionStatus::kEmpty);
  EXPECT_EQ(gates.judge("I cannot say house", 0), CaptionStatus::kRefused);
  EXPECT_EQ(gates.judge("house house house house house", 0), CaptionStatus::kLooping);
  EXPECT_EQ(gates.judge("A house.", 0), CaptionStatus::kForbidden);
  EXPECT_EQ(gates.judge("A tree.", 0.49), CaptionStatus::kLowConfidence);
}

}  // namespace
}  // namespace ocelli::app
