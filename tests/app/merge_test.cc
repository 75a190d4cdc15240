// ocelli merge: parts of a run become what one run would have written, or it is said why not.
#include <nlohmann/json.hpp>
#include <vector>

#include "app/caption_record.h"
#include "app/shard.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

CaptionRecord record(const std::string& path) {
  CaptionRecord made;
  made.path = path;
  made.caption = "A caption of " + path;
  made.tokens = 5;
  made.confidence = 0.5;
  made.model = "demo";
  made.settings = "0123456789abcdef";
  return made;
}

// As `ocelli caption` comes by the pictures of a folder: what is in "a" before "a-b" and "a.jpg".
const std::vector<std::string> kPictures = {"in/a/1.jpg", "in/a/2.jpg", "in/a-b/1.jpg", "in/a.jpg",
                                            "in/b.jpg",   "in/c.jpg",   "in/d.jpg",     "in/e.jpg"};
constexpr int kParts = 3;

// A run in three parts, in a folder of its own.
class SplitRun {
 public:
  SplitRun() {
    for (const std::string& picture : kPictures) whole_ += to_line(record(picture));
    for (int index = 1; index <= kParts; ++index) {
      std::string lines;
      for (const std::string& picture : kPictures) {
        if (Shard{index, kParts}.holds(picture)) lines += to_line(record(picture));
      }
      write_file(part(index), lines);
    }
  }

  fs::path part(int index) const {
    return part_path((folder_ / "captions.jsonl").string(), {index, kParts});
  }
  // The first part that holds at least two pictures.
  fs::path long_part() const {
    for (int index = 1; index <= kParts; ++index) {
      const std::string lines = read_file(part(index));
      if (std::count(lines.begin(), lines.end(), '\n') >= 2) return part(index);
    }
    return {};
  }
  Finished merge(const std::string& arguments, const std::string& input = "") const {
    std::string command = "merge " + arguments;
    for (int index = 1; index <= kParts; ++index) {
      if (fs::exists(part(index))) command.append(" ").append(part(index).string());
    }
    return run_ocelli(command, input);
  }
  Finished check() const { return merge("--check"); }
  json summary() const { return json::parse(merge("--check --json").out); }
  const std::string& whole() const { return whole_; }
  fs::path operator/(const std::string& name) const { return folder_ / name; }

 private:
  TemporaryFolder folder_;
  std::string whole_;
};

void expect_one_fault(const SplitRun& run, const std::string& kind, const std::string& text) {
  const Finished check = run.check();
  EXPECT_EQ(check.code, 1) << check.err;
  EXPECT_NE(check.err.find(text), std::string::npos) << check.err;
  const json summary = run.summary();
  ASSERT_EQ(summary[kind].size(), 1U) << summary;
  EXPECT_NE(summary[kind][0].get<std::string>().find(text), std::string::npos) << summary;
  for (const char* other : {"missing_parts", "repeated_parts", "missing", "duplicates", "misplaced",
                            "disagreements", "broken_lines", "torn_lines", "differences"}) {
    EXPECT_EQ(summary[other].empty(), other != kind) << summary;
  }
}

// Nothing is written, unless what there is was asked for.
void expect_refused(const SplitRun& run) {
  const std::string output = (run / "captions.jsonl").string();
  const Finished refused = run.merge("-q -o " + output);
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.err.find("nothing was written"), std::string::npos) << refused.err;
  EXPECT_FALSE(fs::exists(output));
  EXPECT_EQ(run.merge("-q --partial -o " + output).code, 0);
  EXPECT_TRUE(fs::exists(output));
}

TEST(Merge, GivesWhatOneRunWouldHaveWritten) {
  const SplitRun run;
  const std::string output = (run / "captions.jsonl").string();
  const Finished merged = run.merge("-o " + output);
  EXPECT_EQ(merged.code, 0) << merged.err;
  EXPECT_EQ(merged.out, "");
  EXPECT_EQ(read_file(output), run.whole());
  EXPECT_NE(merged.err.find("3 parts, 8 pictures: 8 ok"), std::string::npos) << merged.err;
  const Finished quiet = run.merge("-q");
  EXPECT_EQ(quiet.out, run.whole());
  EXPECT_EQ(quiet.err, "");
}

TEST(Merge, ChecksWithoutWriting) {
  const SplitRun run;
  const Finished check = run.check();
  EXPECT_EQ(check.code, 0) << check.err;
  EXPECT_EQ(check.out, "3 parts, 8 pictures: 8 ok\n");
  EXPECT_EQ(check.err, "");
  const json summary = run.summary();
  EXPECT_EQ(summary["parts"], 3);
  EXPECT_EQ(summary["pictures"], 8);
  EXPECT_EQ(summary["status"], json({{"ok", 8}}));
}

TEST(Merge, AShardWithoutPicturesIsAnEmptyPart) {
  const SplitRun run;
  CaptionRecord one = record("in/b.jpg");
  for (int index = 1; index <= kParts; ++index) {
    write_file(run.part(index), Shard{index, kParts}.holds(one.path) ? to_line(one) : "");
  }
  EXPECT_EQ(run.check().out, "3 parts, 1 pictures: 1 ok\n");
}

TEST(Merge, FollowsTheOrderOfTheInputs) {
  const SplitRun run;
  std::string list;
  std::string expected;
  for (auto picture = kPictures.rbegin(); picture != kPictures.rend(); ++picture) {
    list += *picture + "\n";
    expected += to_line(record(*picture));
  }
  EXPECT_EQ(run.merge("-q --list -", list).out, expected);
}

TEST(Merge, KnowsAMissingPictureByTheInputs) {
  const SplitRun run;
  fs::create_directories(run / "in");
  for (const char* name : {"x.jpg", "y.jpg"}) write_file(run / "in" / name, "no picture yet");
  const std::string x = (run / "in" / "x.jpg").string();
  write_file(run / "single.jsonl", to_line(record(x)));
  const std::string inputs = (run / "single.jsonl").string() + " --inputs " + (run / "in").string();
  const Finished check = run_ocelli("merge --check " + inputs);
  EXPECT_EQ(check.code, 1);
  EXPECT_NE(check.err.find("missing picture: " + (run / "in" / "y.jpg").string()),
            std::string::npos)
      << check.err;
  fs::remove(run / "in" / "y.jpg");
  EXPECT_EQ(run_ocelli("merge --check " + inputs).code, 0);
  EXPECT_EQ(json::parse(run_ocelli("merge --check --json " + inputs).out)["unlisted"], 0);
}

TEST(Merge, NamesAMissingPart) {
  const SplitRun run;
  fs::remove(run.part(2));
  expect_one_fault(run, "missing_parts", run.part(2).string());
  expect_refused(run);
}

TEST(Merge, SaysThatAMissingPartWasBegun) {
  const SplitRun run;
  write_file(part_path((run / "captions.jsonl.journal").string(), {2, kParts}), "");
  fs::remove(run.part(2));
  expect_one_fault(run, "missing_parts", run.part(2).string() + ": its journal is there");
}

TEST(Merge, FindsThePartsOfItsOutput) {
  const SplitRun run;
  const std::string output = (run / "captions.jsonl").string();
  write_file(run / "others.part-1-of-3.jsonl", "nonsense");
  EXPECT_EQ(run_ocelli("merge -q -o " + output).code, 0);
  EXPECT_EQ(read_file(output), run.whole());
  EXPECT_EQ(run_ocelli("merge -q -o " + output).code, 0);  // the output itself is no part
  expect_failure(run_ocelli("merge -q -o " + (run / "no.jsonl").string()), "no part of it");
}

TEST(Merge, WritesTheOtherTables) {
  const SplitRun run;
  const std::string csv = run.merge("-q --format csv").out;
  EXPECT_EQ(csv.find("path,caption,status,tokens,confidence,error\n"
                     "in/a/1.jpg,A caption of in/a/1.jpg,ok,5,0.5000,\n"),
            0U)
      << csv;
  EXPECT_EQ(run.merge("-q -o " + (run / "captions.csv").string()).code, 0);
  EXPECT_EQ(read_file(run / "captions.csv"), csv);
  const std::string folder = run.merge("-q --format imagefolder").out;
  EXPECT_EQ(folder.find(R"({"file_name":"in/a/1.jpg","text":"A caption of in/a/1.jpg"})"), 0U)
      << folder;
  expect_failure(run.merge("-q --format imagefolder -o " + (run / "metadata.jsonl").string()),
                 "lies outside");
}

TEST(Merge, ComparesWithAnotherRun) {
  const SplitRun run;
  const fs::path whole = run / "whole.jsonl";
  std::string other;
  for (auto picture = kPictures.rbegin(); picture != kPictures.rend(); ++picture) {
    CaptionRecord slower = record(*picture);
    slower.milliseconds = 1234.5;
    other += to_line(slower);
  }
  write_file(whole, other);
  EXPECT_EQ(run.merge("--check --compare " + whole.string()).code, 0);
  CaptionRecord changed = record("in/b.jpg");
  changed.caption = "Another one";
  changed.retried = true;
  std::string lines = to_line(changed);
  lines += other.substr(0, other.find("\n{\"path\":\"in/b.jpg") + 1);
  lines += to_line(record("in/z.jpg"));
  write_file(whole, lines);
  const Finished check = run.merge("--check --json --compare " + whole.string());
  EXPECT_EQ(check.code, 1);
  const json found = json::parse(check.out)["differences"];
  ASSERT_EQ(found.size(), 6U) << found;  // b changed, z only there, four of a and b only here
  const std::string all = found.dump();
  EXPECT_NE(all.find(R"(caption \"A caption of in/b.jpg\", not \"Another one\")"), all.npos) << all;
  EXPECT_NE(all.find("retried missing, not true"), all.npos) << all;
  EXPECT_NE(all.find("whole.jsonl:5: in/z.jpg is in no part"), all.npos) << all;
  EXPECT_NE(all.find("in/a.jpg is not in "), all.npos) << all;
  // And a table that is none.
  write_file(whole, "nonsense\n");
  expect_failure(run.merge("-q --compare " + whole.string()), "whole.jsonl:1");
}

TEST(Merge, NoticesAPartThatIsGivenTwice) {
  const SplitRun run;
  const Finished check = run.merge("--check --json " + run.part(1).string());
  EXPECT_EQ(check.code, 1);
  const json summary = json::parse(check.out);
  EXPECT_EQ(summary["repeated_parts"].size(), 1U) << summary;
  EXPECT_EQ(summary["pictures"], 8);
}

// What kill -9 leaves: everything before the cut is sound.
TEST(Merge, LeavesATornLastLineOutAndSaysSo) {
  const SplitRun run;
  const fs::path part = run.long_part();
  const std::string lines = read_file(part);
  const std::string torn = lines.substr(0, lines.size() - 20);
  for (const std::string& left : {torn, torn + std::string(10, '\0')}) {
    write_file(part, left);
    expect_one_fault(run, "torn_lines", part.string() + ":");
    const Finished merged = run.merge("");
    EXPECT_EQ(merged.code, 0) << merged.err;
    EXPECT_EQ(std::count(merged.out.begin(), merged.out.end(), '\n'), 7);
    EXPECT_NE(merged.err.find("torn line: " + part.string()), std::string::npos) << merged.err;
  }
  // Only the newline is missing: the line is whole.
  write_file(part, lines.substr(0, lines.size() - 1));
  EXPECT_EQ(run.check().code, 0);
  EXPECT_EQ(run.merge("-q").out, run.whole());
}

TEST(Merge, NamesTheFileAndTheLineOfWhatIsNoRecord) {
  for (const std::string& line :
       {std::string("nonsense"), std::string("[1]"), std::string("{\"path\": 7}"),
        std::string("{\"path\": \"a.jpg\", \"status\": \"fine\", \"caption\": \"\"}"),
        std::string("{\"path\": \"a\", \"path\": \"b\"}"), std::string("\0\0", 2),
        std::string("{\"path\": \"\xFF\"}"), std::string(5000, '[')}) {
    const SplitRun run;
    write_file(run.part(1), line + "\n" + read_file(run.part(1)));
    expect_one_fault(run, "broken_lines", run.part(1).string() + ":1: ");
    expect_refused(run);
  }
}

TEST(Merge, NoticesAPictureThatIsThereTwice) {
  const SplitRun run;
  const fs::path part = run.long_part();
  const std::string lines = read_file(part);
  write_file(part, lines + lines.substr(0, lines.find('\n') + 1));
  expect_one_fault(run, "duplicates", part.string() + ":1 already");
  expect_refused(run);
  EXPECT_EQ(run.merge("-q --partial").out, run.whole());
}

TEST(Merge, NoticesAPictureOfAnotherShard) {
  const SplitRun run;
  const std::string path = "in/z.jpg";
  for (int index = 1; index <= kParts; ++index) {
    if (Shard{index, kParts}.holds(path)) continue;
    write_file(run.part(index), read_file(run.part(index)) + to_line(record(path)));
    break;
  }
  expect_one_fault(run, "misplaced", "in/z.jpg does not belong to shard ");
  expect_refused(run);
}

TEST(Merge, NoticesOtherModelsOrSettings) {
  for (const bool model : {true, false}) {
    const SplitRun run;
    const fs::path part = run.long_part();
    std::string lines = read_file(part);
    const std::string from = model ? "\"demo\"" : "0123456789abcdef";
    const std::string to = model ? "\"other\"" : "fedcba9876543210";
    lines.replace(lines.find(from), from.size(), to);
    write_file(part, lines);
    const json summary = run.summary();
    EXPECT_EQ(summary["disagreements"].size(), 2U) << summary;
    EXPECT_NE(summary["disagreements"].dump().find(model ? "other" : "fedcba"), std::string::npos);
    EXPECT_EQ(run.check().code, 1);
    expect_refused(run);
  }
}

TEST(Merge, NoticesPartsOfAnotherSplit) {
  const SplitRun run;
  const std::string other = (run / "captions.part-4-of-4.jsonl").string();
  write_file(other, "");
  const Finished check = run.merge("--check --json " + run.part(1).string() + " " + other);
  EXPECT_EQ(check.code, 1);
  const json summary = json::parse(check.out);
  EXPECT_EQ(summary["disagreements"].size(), 1U) << summary;
}

TEST(Merge, TakesPicturesThatFailedForWhatTheyAre) {
  const SplitRun run;
  CaptionRecord failed;
  failed.path = "in/b.jpg";
  failed.status = CaptionStatus::kError;
  failed.error = "in/b.jpg: is empty";
  failed.model = "demo";
  failed.settings = "0123456789abcdef";
  for (int index = 1; index <= kParts; ++index) {
    std::string lines = read_file(run.part(index));
    const std::string line = to_line(record("in/b.jpg"));
    if (lines.find(line) == std::string::npos) continue;
    write_file(run.part(index), lines.replace(lines.find(line), line.size(), to_line(failed)));
  }
  EXPECT_EQ(run.check().code, 0);
  EXPECT_EQ(run.summary()["status"], json({{"ok", 7}, {"error", 1}}));
}

// Bytes of a name that are not UTF-8 are replaced in the record; the input is the same picture.
TEST(Merge, MatchesPathsThatAreNotUtf8) {
  const TemporaryFolder folder;
  const std::string path = "in/caf\xE9.jpg";
  const int index = Shard{1, 2}.holds(path) ? 1 : 2;
  const std::string output = (folder / "captions.jsonl").string();
  write_file(part_path(output, {index, 2}), to_line(record(path)));
  write_file(part_path(output, {3 - index, 2}), "");
  const Finished check = run_ocelli("merge --check --json " + part_path(output, {1, 2}) + " " +
                                        part_path(output, {2, 2}) + " --list -",
                                    path + "\n");
  EXPECT_EQ(check.code, 0) << check.out << check.err;
}

TEST(Merge, UsageAndFilesThatAreNotThere) {
  const SplitRun run;
  EXPECT_EQ(run_ocelli("merge").code, 2);
  EXPECT_EQ(run.merge("--check -o x").code, 2);
  EXPECT_EQ(run.merge("--check --partial").code, 2);
  EXPECT_EQ(run.merge("--json").code, 2);
  EXPECT_EQ(run.merge("--format txt").code, 2);
  expect_failure(run_ocelli("merge -q " + (run / "nowhere.jsonl").string()), "nowhere.jsonl");
  expect_failure(run.merge("-q -o /nonexistent/folder/out.jsonl"), "/nonexistent/folder/out.jsonl");
}

}  // namespace
}  // namespace ocelli::app
