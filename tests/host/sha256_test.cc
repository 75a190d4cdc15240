// SHA-256 against the examples of FIPS 180-4, and its digits there and back.
#include "host/sha256.h"

#include <gtest/gtest.h>

namespace ocelli::host {
namespace {

TEST(Sha256, OfTheStandardsExamples) {
  EXPECT_EQ(hex(sha256(std::string_view())),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, OfPiecesIsThatOfTheWhole) {
  const std::string text(1000, 'x');
  const auto bytes = std::as_bytes(std::span(text));
  Sha256 hash;
  for (size_t at = 0; at < bytes.size(); at += 37) {
    hash.add(bytes.subspan(at, std::min<size_t>(37, bytes.size() - at)));
  }
  EXPECT_EQ(hash.digest(), sha256(text));
  hash.add(bytes);
  EXPECT_EQ(hash.digest(), sha256(text)) << "it begins anew";
}

TEST(Sha256, HexDigitsComeBack) {
  const Sha256Digest digest = sha256("abc");
  Sha256Digest parsed{};
  ASSERT_TRUE(parse_hex(hex(digest), parsed));
  EXPECT_EQ(parsed, digest);
  EXPECT_FALSE(parse_hex(hex(digest).substr(1), parsed));
  std::string other = hex(digest);
  other[0] = 'G';
  EXPECT_FALSE(parse_hex(other, parsed));
}

}  // namespace
}  // namespace ocelli::host
