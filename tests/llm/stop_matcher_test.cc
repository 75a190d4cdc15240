// Stop strings, cut up in every way.
#include "llm/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "llm/random.h"
#include "tests/host/expect_error.h"

namespace ocelli::llm {
namespace {

using Stops = std::vector<std::string>;

// What is printed when `text` comes `step` bytes at a time; "|" is appended when it was stopped.
std::string printed(const Stops& stops, std::string_view text, size_t step) {
  StopMatcher matcher(stops);
  std::string out;
  for (size_t at = 0; at < text.size(); at += step) out += matcher.push(text.substr(at, step));
  out += matcher.flush();
  return matcher.stopped() ? out + "|" : out;
}

// The first stop string to be completed, by looking everywhere.
std::string expected(const Stops& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest) + "|";
  }
  return text;
}

TEST(StopMatcher, PrintsWhatComesBefore) {
  EXPECT_EQ(printed({"USER:"}, "A cat. USER: more", 3), "A cat. |");
  EXPECT_EQ(printed({"\n\n", "END"}, "a\nb\n\nc", 1), "a\nb|");
  EXPECT_EQ(printed({"END"}, "no stop EN", 2), "no stop EN");
  EXPECT_EQ(printed({}, "anything", 2), "anything");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.push("xa"), "x");
  EXPECT_EQ(matcher.push("a"), "");
  EXPECT_EQ(matcher.push("a"), "a");  // "aa" may still become "aab"
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.push("by"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, TheFirstToBeCompletedStops) {
  EXPECT_EQ(printed({"abcd", "bc"}, "xabcd", 5), "xa|");
  EXPECT_EQ(printed({"abc", "bc"}, "xabcd", 5), "x|");  // both end at c: the longer one
}

TEST(StopMatcher, AgreesWithASearchHoweverTheTextIsCut) {
  Random random(5);
  const auto letters = [&](uint64_t limit) {
    std::string text;
    for (uint64_t i = 1 + random.next() % limit; i > 0; --i) {
      text += static_cast<char>('a' + random.next() % 2);
    }
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    Stops stops;
    for (uint64_t i = random.next() % 4; i > 0; --i) stops.push_back(letters(7));
    const std::string text = letters(30);
    for (const size_t step : {1u, 2u, 5u, 40u}) {
      ASSERT_EQ(printed(stops, text, step), expected(stops, text)) << text;
    }
  }
}

TEST(StopMatcher, StopsWithoutSenseAreRefused) {
  EXPECT_TRUE(holds(error_of([] { StopMatcher({"a", ""}); }), "stop string is empty"));
  EXPECT_TRUE(holds(error_of([] { StopMatcher({"a\xFF"}); }), "\"a\\xff\" is not valid UTF-8"));
}

}  // namespace
}  // namespace ocelli::llm
