// Whole characters only, however the bytes are cut up.
#include "llm/utf8_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "host/utf8.h"
#include "llm/random.h"
#include "tests/llm/random_text.h"

namespace ocelli::llm {
namespace {

// What comes out when `bytes` go in `step` at a time.
std::string streamed(std::string_view bytes, size_t step) {
  Utf8Stream stream;
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += step) {
    const std::string part = stream.push(bytes.substr(at, step));
    EXPECT_EQ(host::utf8_fault(part), std::string::npos);
    text += part;
  }
  return text + stream.flush();
}

TEST(Utf8Stream, HoldsBackWhatIsNotWhole) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0"), "a");
  EXPECT_EQ(stream.push("\x9F\x8E"), "");
  EXPECT_EQ(stream.push("\x89z\xC3"), "\U0001F389z");
  EXPECT_EQ(stream.push(""), "");
  EXPECT_EQ(stream.push("\xA9"), "\u00e9");
  EXPECT_EQ(stream.flush(), "");
}

TEST(Utf8Stream, AnUnfinishedCharacterIsReplacedAtTheEnd) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("ok\xE6\x97"), "ok");
  EXPECT_EQ(stream.flush(), "\uFFFD");
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(stream.push("\xA5z"), "\uFFFDz");  // a new text: the rest of that character is no start
}

// The texts on the right are Python's bytes.decode("utf-8", "replace").
TEST(Utf8Stream, ReplacesWhatPythonReplaces) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\x80", "\uFFFD"},
      {"\xC0\xAF", "\uFFFD\uFFFD"},                      // an overlong form
      {"\xE0\x80\x80", "\uFFFD\uFFFD\uFFFD"},            // another
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},            // a surrogate
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // over U+10FFFF
      {"\xF5\x80", "\uFFFD\uFFFD"},                      // leads nothing
      {"\xE6\x97z", "\uFFFDz"},                          // two bytes of three, one U+FFFD
      {"\xF0\x9F\x8Ez", "\uFFFDz"},                      // three of four
      {"\xE6\xE6\x97\xA5", "\uFFFD\u65e5"},
      {"\xF0\x9F\xF0\x9F\x8E\x89", "\uFFFD\U0001F389"},
      {"a\xFF\xFE\x62", "a\uFFFD\uFFFD\x62"},
  };
  for (const auto& [bytes, text] : cases) {
    for (const size_t step : {1u, 2u, 3u, 9u}) EXPECT_EQ(streamed(bytes, step), text) << step;
  }
}

TEST(Utf8Stream, CutsDoNotMatter) {
  Random random(7);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (int i = 0; i < 40; ++i) {
      if (random.next() % 2 == 0) append_utf8(random.next() % 0xD800, bytes);
      if (random.next() % 3 == 0) bytes += static_cast<char>(random.next());
    }
    const std::string whole = streamed(bytes, bytes.size() + 1);
    EXPECT_EQ(streamed(bytes, 1), whole);
    EXPECT_EQ(streamed(bytes, 1 + round % 7), whole);
    const bool valid = host::utf8_fault(bytes) == std::string::npos;
    EXPECT_EQ(whole == bytes, valid);
  }
}

}  // namespace
}  // namespace ocelli::llm
