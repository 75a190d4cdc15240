#include "host/json.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"

namespace ocelli::host {
namespace {

using nlohmann::json;

std::string error_in(const std::string& text) {
  return error_of([&] { parse_json(text, "x.json"); });
}

std::string nested(size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

TEST(ParseJson, BuildsTheSameDocumentAsTheLibrary) {
  for (const std::string text :
       {R"({"a": [1, -2, 3.5, true, false, null, "s\u00e9", {}, []], "b": {"a": {"a": 1}}})",
        "[[], [[1], 2], {\"x\": [{\"y\": []}]}]", "7", "\"text\"", "null", "-0.0",
        "18446744073709551615", "  {}  \n"}) {
    EXPECT_EQ(parse_json(text, "x.json"), json::parse(text)) << text;
  }
}

TEST(ParseJson, NamesLineAndColumnOfASyntaxError) {
  EXPECT_TRUE(holds(error_in("{\n  \"a\": 1,\n  \"b\": nul }"),
                    "x.json: line 3, column 11: is not valid JSON: "));
  EXPECT_TRUE(holds(error_in(""), "x.json: line 1, column 1: is not valid JSON: "));
  EXPECT_TRUE(holds(error_in("{} {}"), "line 1, column 4: "));
  EXPECT_TRUE(holds(error_in("{\"a\": \"\xFF\"}"), "line 1, column 8: "));
}

TEST(ParseJson, RefusesWhatJsonDoesNotHave) {
  for (const char* text :
       {"NaN", "Infinity", "[1,]", "{\"a\":1,}", "{a: 1}", "'a'", "// x\n1", "01", "+1", "[1", "{",
        "{\"a\"", "\"\\ud800\"", "\"\n\"", "\xEF\xBB\xBF", "1 2", "{\"a\":}", "]", "\"abc"}) {
    EXPECT_TRUE(holds(error_in(text), "is not valid JSON")) << text;
  }
  EXPECT_EQ(error_in(std::string("{}\n\0{}", 6)),
            "x.json: line 2, column 1: is not valid JSON: a zero byte");
  EXPECT_TRUE(holds(error_in("[1, 1e400]"), "number overflow"));
}

TEST(ParseJson, KeepsMessagesShort) {
  EXPECT_LT(error_in("\"" + std::string(100'000, 'x')).size(), 300U);
  EXPECT_LT(error_in("{\"" + std::string(100'000, 'x') + "\" 1}").size(), 300U);
}

TEST(ParseJson, RefusesAKeyThatAppearsTwice) {
  EXPECT_EQ(error_in(R"({"a": 1, "b": {"a": 2, "c": 3, "a": 4}})"),
            "x.json: the key \"a\" appears twice in one object");
  EXPECT_TRUE(holds(error_in(R"({"a": 1, "\u0061": 1})"), "\"a\" appears twice"));
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": {"a": 1}}])", "x.json"));
}

TEST(ParseJson, RefusesDeepNestingAndOnlyThat) {
  EXPECT_NO_THROW(parse_json(nested(kMaxJsonDepth), "x.json"));
  EXPECT_TRUE(holds(error_in(nested(kMaxJsonDepth + 1)), "nested deeper than 100 levels"));
  EXPECT_TRUE(holds(error_in(nested(5'000'000)), "nested deeper"));
  std::string objects;
  for (int i = 0; i < 200; ++i) objects += "{\"a\":";
  EXPECT_TRUE(holds(error_in(objects), "nested deeper"));
}

TEST(ReadJson, ReadsAFileAndNamesIt) {
  const TemporaryDirectory directory;
  const auto good = directory.write("good.json", "{\"a\": 1}");
  EXPECT_EQ(read_json(good), json::parse("{\"a\": 1}"));
  const auto bad = directory.write("bad.json", "{\"a\": 1");
  EXPECT_TRUE(holds(error_of([&] { read_json(bad); }), bad.string() + ": line 1, column 8: "));
  EXPECT_EQ(error_of([&] { read_json(good, 7); }),
            good.string() + ": has 8 bytes, more than the 7 that such a file may have");
  EXPECT_NO_THROW(read_json(good, 8));
  EXPECT_TRUE(holds(error_of([&] { read_json(directory.path() / "none"); }), "cannot be opened"));
}

class JsonObjectTest : public testing::Test {
 protected:
  // The message with which an integer from 1 to 10 is refused.
  std::string integer_error(const std::string& key) const {
    return error_of([&] { config_.integer(key, 5, 1, 10); });
  }

  const JsonObject config_{
      json::parse(R"({"zero": 0, "one": 1, "ten": 10, "eleven": 11, "negative": -1, "float": 3.0,
                      "huge": 18446744073709551615, "wrapping": 18446744073709551617,
                      "text": "3", "yes": true, "none": null, "list": [1, 2], "half": 0.5,
                      "inner": {"a": 7}, "control": "\u001b[31m"})"),
      "config.json"};
};

TEST_F(JsonObjectTest, IntegersWithinTheirRange) {
  EXPECT_EQ(config_.integer("one", 5, 1, 10), 1);
  EXPECT_EQ(config_.integer("ten", std::nullopt, 1, 10), 10);
  EXPECT_EQ(config_.integer("negative", 5, -1, 10), -1);
  EXPECT_EQ(config_.integer("absent", 5, 1, 10), 5);
  EXPECT_EQ(config_.integer("none", 5, 1, 10), 5);
}

TEST_F(JsonObjectTest, IntegersThatAreNone) {
  EXPECT_EQ(integer_error("zero"), "config.json: zero is 0, wanted an integer from 1 to 10");
  EXPECT_EQ(integer_error("eleven"), "config.json: eleven is 11, wanted an integer from 1 to 10");
  EXPECT_TRUE(holds(integer_error("negative"), "negative is -1, "));
  EXPECT_TRUE(holds(integer_error("float"), "float is 3.0, "));
  EXPECT_TRUE(holds(integer_error("huge"), "huge is 18446744073709551615, "));
  EXPECT_TRUE(holds(integer_error("wrapping"), "wrapping is 1.8446744073709552e+19, "));
  EXPECT_TRUE(holds(integer_error("text"), "text is \"3\", "));
  EXPECT_TRUE(holds(integer_error("yes"), "yes is true, "));
  EXPECT_TRUE(holds(integer_error("list"), "list is an array, "));
  EXPECT_TRUE(holds(integer_error("inner"), "inner is an object, "));
  EXPECT_EQ(error_of([&] { config_.integer("absent", std::nullopt, 1, 10); }),
            "config.json: absent is missing");
  EXPECT_EQ(error_of([&] { config_.integer("none", std::nullopt, 1, 10); }),
            "config.json: none is missing");
}

TEST_F(JsonObjectTest, Numbers) {
  EXPECT_EQ(config_.number("half", std::nullopt), 0.5);
  EXPECT_EQ(config_.number("ten", std::nullopt), 10.0);
  EXPECT_EQ(config_.number("negative", std::nullopt), -1.0);
  EXPECT_EQ(config_.number("absent", 0.25), 0.25);
  EXPECT_EQ(error_of([&] { config_.number("half", 1.0, 1, 2.5); }),
            "config.json: half is 0.5, wanted a number from 1 to 2.5");
  EXPECT_TRUE(holds(error_of([&] { config_.number("text", 1.0); }), "wanted a number"));
  EXPECT_TRUE(holds(error_of([&] { config_.number("absent", {}); }), "absent is missing"));
}

TEST_F(JsonObjectTest, BooleansAndStrings) {
  EXPECT_TRUE(config_.boolean("yes", false));
  EXPECT_TRUE(config_.boolean("absent", true));
  EXPECT_TRUE(holds(error_of([&] { config_.boolean("one", {}); }), "one is 1, wanted true or"));
  EXPECT_EQ(config_.string("text", "x"), "3");
  EXPECT_EQ(config_.string("absent", "x"), "x");
  EXPECT_TRUE(holds(error_of([&] { config_.string("one", "x"); }), "one is 1, wanted a string"));
  EXPECT_TRUE(holds(error_of([&] { config_.string("absent", {}); }), "absent is missing"));
}

TEST_F(JsonObjectTest, ObjectsKnowWhereTheyStand) {
  const JsonObject inner = config_.object("inner");
  EXPECT_EQ(inner.integer("a", {}, 0, 10), 7);
  EXPECT_EQ(error_of([&] { inner.integer("b", {}, 0, 10); }), "config.json: inner: b is missing");
  EXPECT_TRUE(config_.object("absent").value().empty());
  EXPECT_TRUE(config_.object("none").value().empty());
  EXPECT_EQ(error_of([&] { config_.object("list"); }),
            "config.json: list: is an array, wanted an object");
  EXPECT_EQ(error_of([] { JsonObject(json::parse("3"), "x.json"); }),
            "x.json: is 3, wanted an object");
}

TEST_F(JsonObjectTest, ContainsWhatIsNotNull) {
  EXPECT_TRUE(config_.contains("one"));
  EXPECT_FALSE(config_.contains("none"));
  EXPECT_FALSE(config_.contains("absent"));
}

TEST_F(JsonObjectTest, MessagesEscapeUntrustedText) {
  const std::string error = error_of([&] { config_.integer("control", {}, 0, 1); });
  EXPECT_EQ(error.find('\x1B'), std::string::npos) << error;
  EXPECT_TRUE(holds(error, "[31m"));
}

}  // namespace
}  // namespace ocelli::host
