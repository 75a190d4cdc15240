// Descriptions in XMP sidecars: what other programs wrote into them must survive.
#include "app/xmp.h"

#include <thread>
#include <vector>

#include "tests/app/command.h"
#include "tests/host/expect_error.h"

namespace ocelli::app {
namespace {

constexpr const char* kOpen =
    "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF "
    "xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\"><rdf:Description rdf:about=\"\"";
constexpr const char* kClose = "</rdf:Description></rdf:RDF></x:xmpmeta>";

// A sidecar with these attributes and elements.
std::string packet(const std::string& attributes, const std::string& elements) {
  return kOpen + attributes + ">" + elements + kClose;
}

constexpr const char* kDc = " xmlns:dc=\"http://purl.org/dc/elements/1.1/\"";

std::string alternatives(const std::string& items) {
  return "<dc:description><rdf:Alt>" + items + "</rdf:Alt></dc:description>";
}

// What darktable, digiKam and Lightroom leave: ratings, tags, a history of structures, a namespace
// that nobody knows, qualifiers, descriptions in two languages.
std::string crowded() {
  return packet(
      std::string(kDc) +
          " xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\" "
          "xmlns:darktable=\"http://darktable.sf.net/\" "
          "xmlns:my=\"http://example.org/my/\" xmp:Rating=\"4\" my:thing=\"7\"",
      alternatives("<rdf:li xml:lang=\"x-default\">old words</rdf:li>"
                   "<rdf:li xml:lang=\"de-DE\">Ein Haus</rdf:li>") +
          "<dc:subject><rdf:Bag><rdf:li>house</rdf:li><rdf:li>sun, moon</rdf:li></rdf:Bag>"
          "</dc:subject>"
          "<darktable:history><rdf:Seq><rdf:li darktable:num=\"0\" "
          "darktable:operation=\"exposure\"/><rdf:li darktable:num=\"1\"/></rdf:Seq>"
          "</darktable:history>"
          "<my:speech xml:lang=\"fr\">bonjour</my:speech>");
}

// The sidecar of a picture that is not there: the picture is never looked at.
class Sidecar {
 public:
  Sidecar() : path_(xmp_sidecar((folder_ / "photo.jpg").string())) {}
  explicit Sidecar(const std::string& bytes) : Sidecar() { write_file(path_, bytes); }

  const std::string& path() const { return path_; }
  std::string bytes() const { return read_file(path_); }
  std::ptrdiff_t files() const {
    return std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator());
  }

 private:
  TemporaryFolder folder_;
  std::string path_;
};

TEST(Xmp, StandsBesideThePicture) {
  EXPECT_EQ(xmp_sidecar("a/photo.jpg"), "a/photo.jpg.xmp");
}

TEST(Xmp, ANewSidecarHoldsTheDescriptionAlone) {
  const Sidecar sidecar;
  EXPECT_EQ(xmp_description(sidecar.path()), std::nullopt);
  write_xmp_description(sidecar.path(), "A red house & a \"tree\" <at night>.\nTwo moons.");
  EXPECT_EQ(xmp_description(sidecar.path()), "A red house & a \"tree\" <at night>.\nTwo moons.");
  const std::string bytes = sidecar.bytes();
  EXPECT_TRUE(bytes.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<x:xmpmeta "))
      << bytes;
  EXPECT_TRUE(holds(bytes, "<rdf:li xml:lang=\"x-default\">A red house &amp; a"));
  EXPECT_EQ(sidecar.files(), 1) << "no temporary file stays";
}

TEST(Xmp, ADryRunWritesNothingAndTellsAllThatWouldBeWritten) {
  const Sidecar sidecar;
  const std::string would_be = xmp_with_description(sidecar.path(), "A house.");
  EXPECT_EQ(sidecar.files(), 0);
  write_xmp_description(sidecar.path(), "A house.");
  EXPECT_EQ(sidecar.bytes(), would_be);
}

TEST(Xmp, EverythingElseInASidecarIsKept) {
  const Sidecar sidecar(crowded());
  write_xmp_description(sidecar.path(), "A house.");
  EXPECT_EQ(xmp_description(sidecar.path()), "A house.");
  const std::string bytes = sidecar.bytes();
  for (const char* kept :
       {"xmp:Rating=\"4\"", "my:thing=\"7\"", "xmlns:my=\"http://example.org/my/\"",
        "<rdf:li xml:lang=\"de-DE\">Ein Haus</rdf:li>", "<rdf:li>house</rdf:li>",
        "<rdf:li>sun, moon</rdf:li>", "darktable:operation=\"exposure\"", "darktable:num=\"1\"",
        "<my:speech xml:lang=\"fr\">bonjour</my:speech>"}) {
    EXPECT_TRUE(holds(bytes, kept));
  }
  EXPECT_FALSE(holds(bytes, "old words"));
}

TEST(Xmp, WritingTheSameAgainChangesNoByte) {
  const Sidecar sidecar(crowded());
  write_xmp_description(sidecar.path(), "A house.");
  const std::string once = sidecar.bytes();
  write_xmp_description(sidecar.path(), "A house.");
  EXPECT_EQ(sidecar.bytes(), once);
}

TEST(Xmp, ReadsTheDescriptionAsOthersWriteIt) {
  const auto read = [](const std::string& bytes) {
    const Sidecar sidecar(bytes);
    return xmp_description(sidecar.path());
  };
  EXPECT_EQ(read(crowded()), "old words");
  EXPECT_EQ(read(packet(kDc, "<dc:description>plain</dc:description>")), "plain");
  EXPECT_EQ(read(packet(kDc, alternatives("<rdf:li xml:lang=\"de\">nur deutsch</rdf:li>"))),
            "nur deutsch");
  EXPECT_EQ(read(packet(kDc, alternatives("<rdf:li xml:lang=\"x-default\"> </rdf:li>"))),
            std::nullopt);
  EXPECT_EQ(read(packet(kDc, "")), std::nullopt);
  EXPECT_EQ(read(""), std::nullopt) << "an empty file holds nothing to lose";
  EXPECT_EQ(read("<?xpacket begin=\"\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>" + crowded() +
                 "<?xpacket end=\"w\"?>"),
            "old words");
}

TEST(Xmp, WhatXmlCannotHoldIsReplaced) {
  const Sidecar sidecar;
  write_xmp_description(sidecar.path(), "a\x01z \xFF \xEF\xBF\xBF \xC3\xA9 \xF0\x9F\x8C\x99");
  EXPECT_EQ(xmp_description(sidecar.path()),
            "a z \xEF\xBF\xBD \xEF\xBF\xBD \xC3\xA9 \xF0\x9F\x8C\x99");
}

// A file with errors, and one that calls another thing "dc", which would take our text.
TEST(Xmp, ABrokenSidecarIsAnErrorAndStaysAsItIs) {
  const std::string whole = crowded();
  for (const std::string& broken :
       {std::string("no XMP at all"), whole.substr(0, whole.size() / 2), whole + "and more",
        std::string("<a/>"), std::string(100, '\0'), std::string("\xFF\xFE<\0x\0", 6),
        std::string("<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]>") +
            packet(kDc, "<dc:format>&b;</dc:format>"),
        packet(" xmlns:dc=\"http://example.org/other/\" dc:a=\"1\"", "")}) {
    const Sidecar sidecar(broken);
    const auto expect_named = [&](const std::string& message) {
      EXPECT_TRUE(message.starts_with(sidecar.path() + ": is not an XMP file")) << message;
    };
    expect_named(error_of([&] { static_cast<void>(xmp_description(sidecar.path())); }));
    expect_named(error_of([&] { write_xmp_description(sidecar.path(), "A house."); }));
    EXPECT_EQ(sidecar.bytes(), broken);
    EXPECT_EQ(sidecar.files(), 1);
  }
}

TEST(Xmp, WhatIsNoFileIsAnError) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "a.jpg.xmp");
  const std::string path = (folder / "a.jpg.xmp").string();
  EXPECT_TRUE(holds(error_of([&] { static_cast<void>(xmp_description(path)); }), path));
  const std::string nowhere = (folder / "no" / "such.xmp").string();
  EXPECT_TRUE(holds(error_of([&] { write_xmp_description(nowhere, "x"); }), nowhere));
}

TEST(Xmp, ASidecarTooLargeToBeOneIsRefusedWithTheNumbers) {
  const Sidecar sidecar(std::string((16 << 20) + 1, ' '));
  EXPECT_TRUE(holds(error_of([&] { static_cast<void>(xmp_description(sidecar.path())); }),
                    "16777217 bytes"));
}

// The library remembers the prefixes of every file; none may find its way into another's.
TEST(Xmp, AFileDoesNotDependOnThoseBeforeIt) {
  const Sidecar plain;
  const std::string alone = xmp_with_description(plain.path(), "A house.");
  const Sidecar renamed(
      packet(" xmlns:d=\"http://purl.org/dc/elements/1.1/\" xmlns:my=\"http://a/\" my:x=\"1\"",
             "<d:format>image/png</d:format>"));
  const Sidecar same_prefix(packet(" xmlns:my=\"http://b/\" my:x=\"2\"", ""));
  const Sidecar hostile(packet(" xmlns:dc=\"http://example.org/other/\" dc:a=\"1\"", ""));
  const std::string second = xmp_with_description(same_prefix.path(), "A house.");
  EXPECT_TRUE(holds(xmp_with_description(renamed.path(), "A house."), "http://a/"));
  EXPECT_TRUE(holds(error_of([&] { write_xmp_description(hostile.path(), "x"); }), "not an XMP"));
  EXPECT_EQ(xmp_with_description(same_prefix.path(), "A house."), second);
  EXPECT_TRUE(holds(second, "http://b/"));
  EXPECT_EQ(xmp_with_description(plain.path(), "A house."), alone);
}

TEST(Xmp, ThreadsMayWriteAtOnce) {
  const TemporaryFolder folder;
  const auto path = [&](int i) { return (folder / (std::to_string(i) + ".xmp")).string(); };
  constexpr int kThreads = 4;
  constexpr int kEach = 10;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        write_xmp_description(path(t * kEach + i), "Picture " + std::to_string(t * kEach + i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kThreads * kEach; ++i) {
    EXPECT_EQ(xmp_description(path(i)), "Picture " + std::to_string(i));
  }
}

}  // namespace
}  // namespace ocelli::app
