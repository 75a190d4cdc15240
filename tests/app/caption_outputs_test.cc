// Where captions go: what the options mean, text and XMP beside pictures, and tables.
#include "app/caption_outputs.h"

#include "app/caption_sidecars.h"
#include "app/caption_tables.h"
#include "app/terminal.h"
#include "app/xmp.h"
#include "host/error.h"
#include "tests/app/command.h"
#include "tests/host/expect_error.h"

namespace ocelli::app {
namespace {

using enum CaptionFormat;

CaptionOutputOptions with_formats(std::vector<CaptionFormat> formats,
                                  const std::string& file = "") {
  CaptionOutputOptions options;
  options.formats = std::move(formats);
  options.file = file;
  return options;
}

std::string usage_error(const CaptionOutputOptions& options) {
  try {
    completed(options);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(CaptionOutputs, AreTextFilesUnlessATableIsNamed) {
  EXPECT_EQ(completed({}).formats, std::vector{kTxt});
  EXPECT_EQ(completed(with_formats({}, "c.jsonl")).formats, std::vector{kJsonl});
  EXPECT_EQ(completed(with_formats({}, "c.csv")).formats, std::vector{kCsv});
  EXPECT_EQ(completed(with_formats({}, "-")).formats, std::vector{kJsonl});
  EXPECT_EQ(completed(with_formats({kTxt, kCsv, kTxt})).formats, (std::vector{kCsv, kTxt}));
}

TEST(CaptionOutputs, RefuseWhatContradictsItself) {
  EXPECT_TRUE(holds(usage_error(with_formats({kTxt}, "c.jsonl")), "leave -o out"));
  EXPECT_TRUE(holds(usage_error(with_formats({kJsonl, kCsv}, "-")), "takes one --format"));
  EXPECT_TRUE(holds(usage_error(with_formats({}, "photo.JPG")), "it might be one"));
  for (const char* extension : {"jpg", ".PNG", "/x", "."}) {
    CaptionOutputOptions options;
    options.extension = extension;
    EXPECT_NE(usage_error(options), "") << extension;
  }
  CaptionOutputOptions options = with_formats({kJsonl}, "c.jsonl");
  options.extension = ".tags";
  EXPECT_TRUE(holds(usage_error(options), "--format txt"));
  options = {};
  options.extension = "tags";
  EXPECT_EQ(completed(options).extension, ".tags");
}

TEST(CaptionOutputs, KeepTheirJournalBesideThem) {
  CaptionInputs inputs;
  inputs.folder = "photos";
  EXPECT_EQ(default_journal(with_formats({}, "out/c.jsonl"), inputs), "out/c.jsonl.journal");
  EXPECT_EQ(default_journal({}, inputs), "photos/ocelli-captions.journal");
  CaptionOutputOptions options;
  options.directory = "out";
  EXPECT_EQ(default_journal(options, inputs), "out/ocelli-captions.journal");
  EXPECT_EQ(default_journal(with_formats({}, "-"), inputs), "");
  EXPECT_EQ(default_journal(with_formats({}, "/dev/null"), inputs), "");
}

// A folder with sidecars of "a.jpg".
class Sidecars : public testing::Test {
 protected:
  CaptionInput picture() const { return {(folder_ / "a.jpg").string(), "a.jpg"}; }
  fs::path text() const { return folder_ / "a.txt"; }

  // Writes `caption` as the options say, twice, as after a kill; returns what stands there then.
  std::string written(IfExists if_exists, const std::string& caption) {
    CaptionOutputOptions options = completed({});
    options.if_exists = if_exists;
    options.prefix = "<";
    options.suffix = ">";
    options.separator = "|";
    const CaptionInput input = picture();
    for (int i = 0; i < 2; ++i) CaptionSidecars(options, {&input, 1}).write(input, caption);
    return read_file(text());
  }

  TemporaryFolder folder_;
};

TEST_F(Sidecars, EndWithANewlineAndCarryPrefixAndSuffix) {
  EXPECT_EQ(written(IfExists::kSkip, "a house"), "<a house>\n");
  EXPECT_EQ(written(IfExists::kSkip, "a tree"), "<a house>\n");
  EXPECT_EQ(written(IfExists::kOverwrite, "a tree"), "<a tree>\n");
}

TEST_F(Sidecars, AreAddedToOnceHoweverOftenARunIsRepeated) {
  for (const auto& [there, appended, prepended] :
       {std::tuple("old\n", "old|<new>\n", "<new>|old\n"),
        std::tuple("two\nlines\r\n\n", "two\nlines|<new>\n", "<new>|two\nlines\n"),
        std::tuple("", "<new>\n", "<new>\n"), std::tuple("<new>\n", "<new>\n", "<new>\n")}) {
    write_file(text(), there);
    EXPECT_EQ(written(IfExists::kAppend, "new"), appended);
    write_file(text(), there);
    EXPECT_EQ(written(IfExists::kPrepend, "new"), prepended);
    fs::remove(text());
    EXPECT_EQ(written(IfExists::kAppend, "new"), "<new>\n");
    fs::remove(text());
  }
}

TEST_F(Sidecars, AreWantedWhereOneIsMissing) {
  CaptionOutputOptions options = completed(with_formats({kTxt, kCaption, kXmp}));
  const CaptionInput input = picture();
  const auto wanted = [&] { return CaptionSidecars(options, {&input, 1}).wanted(input); };
  EXPECT_TRUE(wanted());
  CaptionSidecars(options, {&input, 1}).write(input, "a house");
  EXPECT_EQ(read_file(folder_ / "a.caption"), "a house\n");
  EXPECT_EQ(xmp_description((folder_ / "a.jpg.xmp").string()), "a house");
  EXPECT_FALSE(wanted());
  options.if_exists = IfExists::kAppend;
  EXPECT_TRUE(wanted());
  options.if_exists = IfExists::kSkip;
  // A sidecar with ratings and no description is one that has no caption.
  write_xmp_description((folder_ / "a.jpg.xmp").string(), " ");
  EXPECT_TRUE(wanted());
}

TEST_F(Sidecars, LeaveAloneWhatTheyCannotRead) {
  const CaptionOutputOptions options = [] {
    CaptionOutputOptions all = completed(with_formats({kTxt, kXmp}));
    all.if_exists = IfExists::kAppend;
    return all;
  }();
  const CaptionInput input = picture();
  CaptionSidecars sidecars(options, {&input, 1});
  write_file(folder_ / "a.jpg.xmp", "<broken");
  write_file(text(), std::string(2'000'000, 'x'));
  sidecars.write(input, "a house");
  EXPECT_EQ(read_file(folder_ / "a.jpg.xmp"), "<broken");
  EXPECT_EQ(fs::file_size(text()), 2'000'000U);
  ASSERT_EQ(sidecars.notes().size(), 2U);
  EXPECT_TRUE(holds(sidecars.notes()[0], "that is no caption (left alone)"));
  EXPECT_TRUE(holds(sidecars.notes()[1], "a.jpg.xmp"));
}

TEST_F(Sidecars, OfTwoPicturesMustNotBeOneFile) {
  const std::vector<CaptionInput> pictures = {{"p/a.jpg", "a.jpg"}, {"p/a.png", "a.png"}};
  EXPECT_TRUE(holds(error_of([&] { CaptionSidecars(completed({}), pictures); }),
                    "p/a.txt: would be the caption of p/a.jpg and of p/a.png: rename one"));
  EXPECT_NO_THROW(CaptionSidecars(completed(with_formats({kXmp})), pictures));
  EXPECT_NO_THROW(CaptionSidecars(completed(with_formats({}, "c.jsonl")), pictures));
}

TEST_F(Sidecars, GoToAFolderOfTheirOwnWithItsSubfolders) {
  CaptionOutputOptions options = completed({});
  options.directory = (folder_ / "out").string();
  const std::vector<CaptionInput> pictures = {{"p/x/a.jpg", "x/a.jpg"}, {"p/b.jpg", "b.jpg"}};
  CaptionSidecars sidecars(options, pictures);
  fs::create_directories(folder_ / "out");
  write_file(folder_ / "out" / "b.txt.999999999-0.tmp", "of a run that was killed");
  sidecars.prepare(pictures);
  EXPECT_FALSE(fs::exists(folder_ / "out" / "b.txt.999999999-0.tmp"));
  for (const CaptionInput& input : pictures) sidecars.write(input, "a house");
  EXPECT_EQ(read_file(folder_ / "out" / "x" / "a.txt"), "a house\n");
  EXPECT_EQ(read_file(folder_ / "out" / "b.txt"), "a house\n");
  // A file in the place of a folder.
  options.directory = (folder_ / "out" / "b.txt").string();
  EXPECT_TRUE(
      holds(error_of([&] { CaptionSidecars(options, pictures).prepare(pictures); }), "b.txt"));
}

CaptionRecord record(const std::string& path, const std::string& caption) {
  CaptionRecord made;
  made.path = path;
  made.caption = caption;
  made.tokens = 4;
  made.confidence = 0.25;
  return made;
}

TEST_F(Sidecars, TablesHaveARowAPictureInTheirOrder) {
  CaptionRecord forbidden = record("p/b,\"c\".jpg", "a dog");
  forbidden.status = CaptionStatus::kForbidden;
  CaptionRecord failed = record("p/d\ne.jpg", "");
  failed.status = CaptionStatus::kError;
  failed.error = "is empty";
  failed.tokens = 0;
  failed.confidence = 0;
  const std::vector<CaptionRecord> records = {record("p/a.jpg", "a house, red"), forbidden, failed};
  const auto table = [&](CaptionFormat format) {
    CaptionOutputOptions options;
    options.prefix = "<";
    TableWriter writer({format, (folder_ / "t").string(), "p"}, options, 4,
                       [&](size_t i) -> std::optional<CaptionRecord> {
                         if (i == 1) return std::nullopt;  // was not done
                         return records[i > 1 ? i - 1 : i];
                       });
    writer.finish();
    return read_file(folder_ / "t");
  };
  EXPECT_EQ(table(kCsv),
            "path,caption,status,tokens,confidence,error\n"
            "p/a.jpg,\"<a house, red\",ok,4,0.2500,\n"
            "\"p/b,\"\"c\"\".jpg\",,forbidden,4,0.2500,\n"
            "\"p/d\ne.jpg\",,error,0,0.0000,is empty\n");
  EXPECT_EQ(table(kImageFolder), "{\"file_name\":\"a.jpg\",\"text\":\"<a house, red\"}\n");
  CaptionRecord decorated = records[0];
  decorated.caption = "<a house, red";
  EXPECT_EQ(table(kJsonl), to_line(decorated) + to_line(forbidden) + to_line(failed));
}

TEST(CaptionTables, HaveAPlaceEach) {
  CaptionInputs inputs;
  inputs.folder = "p";
  inputs.pictures = {{"p/a.jpg", "a.jpg"}};
  const auto places = [&](const CaptionOutputOptions& options) {
    std::string text;
    for (const CaptionTable& table : plan_tables(completed(options), inputs)) {
      text += table.path + " ";
    }
    return text;
  };
  EXPECT_EQ(places(with_formats({kJsonl, kCsv}, "o/c.csv")), "o/c.jsonl o/c.csv ");
  EXPECT_EQ(places(with_formats({kJsonl, kCsv}, "c")), "c c.csv ");
  EXPECT_EQ(places(with_formats({kImageFolder})), "p/metadata.jsonl ");
  EXPECT_EQ(places(with_formats({kImageFolder}, "p/meta.jsonl")), "p/meta.jsonl ");
  EXPECT_EQ(places(with_formats({kJsonl, kImageFolder}, "c.jsonl")), "c.jsonl p/metadata.jsonl ");
  CaptionOutputOptions below = with_formats({kJsonl, kCsv, kTxt});
  EXPECT_THROW(places(below), UsageError);
  below.directory = "o";
  EXPECT_EQ(places(below), "o/captions.jsonl o/captions.csv ");
  inputs.pictures.push_back({"q/b.jpg", "b.jpg"});
  EXPECT_TRUE(
      holds(error_of([&] { places(with_formats({kImageFolder})); }), "q/b.jpg: lies outside p"));
}

}  // namespace
}  // namespace ocelli::app
