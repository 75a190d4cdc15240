#include "host/error.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/host/expect_error.h"

namespace ocelli::host {
namespace {

TEST(Error, CarriesTheFormattedMessage) {
  EXPECT_EQ(error_of([] { fail("{}: {} of {}", "a.bin", 3, 7); }), "a.bin: 3 of 7");
}

TEST(Check, AbortsWithConditionPlaceAndValues) {
  const int rows = 3;
  OCELLI_CHECK(rows == 3, "never formatted: {}", rows);
  EXPECT_DEATH(OCELLI_CHECK(rows == 4, "rows {}", rows),
               "internal error at .*error_test.cc:[0-9]+: rows == 4 is false: rows 3");
}

TEST(Printable, LeavesTextAloneAndEscapesTheRest) {
  EXPECT_EQ(printable(""), "");
  EXPECT_EQ(printable("a word, \xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\x9F"),
            "a word, \xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\x9F");
  EXPECT_EQ(printable("\xC2\x9B"
                      "31m"),
            "\\xc2\\x9b31m");  // C1
  EXPECT_EQ(printable(std::string_view("\0\n\x1B[31m\x7F", 8)), "\\x00\\x0a\\x1b[31m\\x7f");
}

TEST(Printable, EscapesInvalidUtf8ByteByByte) {
  EXPECT_EQ(printable("\x80"), "\\x80");                             // a stray continuation
  EXPECT_EQ(printable("\xC0\xAF"), "\\xc0\\xaf");                    // overlong
  EXPECT_EQ(printable("\xE0\x80\xAF"), "\\xe0\\x80\\xaf");           // overlong
  EXPECT_EQ(printable("\xED\xA0\x80"), "\\xed\\xa0\\x80");           // a surrogate
  EXPECT_EQ(printable("\xF4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // past U+10FFFF
  EXPECT_EQ(printable("\xE2\x82"), "\\xe2\\x82");                    // cut off
  EXPECT_EQ(printable("\xE2\x82z"), "\\xe2\\x82z");
  EXPECT_EQ(printable("\xFF"), "\\xff");
}

TEST(Printable, StopsAtTheLimitWithoutCuttingACharacter) {
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("abcdefg", 6), "abcdef...");
  EXPECT_EQ(printable("abcde\xC3\xA9", 6), "abcde...");
  EXPECT_EQ(printable("abc\n", 6), "abc...");
}

}  // namespace
}  // namespace ocelli::host
