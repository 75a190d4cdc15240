// Where UTF-8 is well-formed: every code point, and every kind of fault.
#include "host/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace ocelli::host {
namespace {

// The definition: which sequences of two bytes may begin a character longer than one byte
// (Unicode 15, table 3-7).
bool begins_character(unsigned lead, unsigned next) {
  if (next < 0x80 || next > 0xBF) return false;
  if (lead == 0xE0) return next >= 0xA0;
  if (lead == 0xED) return next <= 0x9F;
  if (lead == 0xF0) return next >= 0x90;
  if (lead == 0xF4) return next <= 0x8F;
  return lead >= 0xC2 && lead <= 0xF4;
}

TEST(Utf8, EveryPairOfBytesIsJudgedAsInTheStandard) {
  for (unsigned lead = 0; lead < 256; ++lead) {
    const size_t length = lead < 0x80   ? 1
                          : lead < 0xC2 ? 0
                          : lead < 0xE0 ? 2
                          : lead < 0xF0 ? 3
                          : lead < 0xF5 ? 4
                                        : 0;
    for (unsigned next = 0; next < 256; ++next) {
      const std::string text = {static_cast<char>(lead), static_cast<char>(next), '\x80', '\x80'};
      const bool whole = length == 1 || (length > 1 && begins_character(lead, next));
      EXPECT_EQ(utf8_length(text), whole ? length : 0) << lead << " " << next;
      EXPECT_EQ(utf8_prefix(text), whole ? length : length > 1 ? 1u : 0u) << lead << " " << next;
      if (whole && length > 1) {
        EXPECT_EQ(utf8_length(text.substr(0, length - 1)), 0u);  // cut off
        EXPECT_EQ(utf8_prefix(text.substr(0, length - 1)), length - 1);
        EXPECT_EQ(utf8_length(text.substr(0, length - 1) + "a"), 0u);  // spoiled
        EXPECT_EQ(utf8_prefix(text.substr(0, length - 1) + "a"), length - 1);
      }
    }
  }
  EXPECT_EQ(utf8_length(""), 0u);
  EXPECT_EQ(utf8_prefix(""), 0u);
}

TEST(Utf8, TheFirstFaultIsFound) {
  EXPECT_EQ(utf8_fault(""), std::string::npos);
  EXPECT_EQ(utf8_fault("abc \u00e9 \u65e5 \U0001F389"), std::string::npos);
  EXPECT_EQ(utf8_fault("ab\x80"), 2u);
  EXPECT_EQ(utf8_fault("\u65e5\xE6\x97"), 3u);
  EXPECT_EQ(utf8_fault("\xFF\xFF"), 0u);
}

}  // namespace
}  // namespace ocelli::host
