// `ocelli caption` on the demo model, as a user runs it.
#include <sys/stat.h>

#include <set>

#include "app/xmp.h"
#include "host/sha256.h"
#include "tests/app/caption_testing.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

// A folder of pictures, and commands about it.
class Caption : public testing::Test {
 protected:
  static constexpr int kPictures = 6;

  Caption() { draw_many(pictures(), kPictures); }

  fs::path pictures() const { return folder_ / "p"; }
  fs::path operator/(const std::string& name) const { return folder_ / name; }
  Finished caption(const std::string& arguments, const std::string& input = "") const {
    return run_ocelli("caption '" + pictures().string() + "' " + arguments, input);
  }
  // The records that a quiet run prints.
  std::vector<json> records(const std::string& arguments) const {
    const Finished run = caption("-q -o - " + arguments);
    EXPECT_EQ(run.code, 0) << run.err;
    return parse_lines(run.out);
  }

  TemporaryFolder folder_;
};

TEST_F(Caption, WritesATextBesideEachPicture) {
  const Finished run = caption("");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, "");
  for (const char* text : {"6 at a time, each of up to", "6 images, 6 captioned; "}) {
    EXPECT_NE(run.err.find(text), std::string::npos) << run.err;
  }
  std::set<std::string> different;
  for (int i = 0; i < kPictures; ++i) {
    const std::string text = read_file(pictures() / fmt::format("{:03}.txt", i));
    EXPECT_EQ(text.find('\n'), text.size() - 1) << text;
    different.insert(text);
  }
  EXPECT_GT(different.size(), 2U);
  // What the model says is what it says when it is asked.
  EXPECT_EQ(
      read_file(pictures() / "000.txt"),
      run_ocelli("ask -q '" + (pictures() / "000.png").string() + "' 'Describe the picture.'").out);
  const Finished again = caption("");
  EXPECT_EQ(again.code, 0);
  EXPECT_NE(again.err.find("6 images have captions already"), std::string::npos) << again.err;
}

TEST_F(Caption, RecordsHaveEveryField) {
  const std::vector<json> all = records("");
  ASSERT_EQ(all.size(), size_t{kPictures});
  for (int i = 0; i < kPictures; ++i) {
    const json& record = all[i];
    const fs::path path = pictures() / fmt::format("{:03}.png", i);
    EXPECT_EQ(record["path"], path.string());
    EXPECT_EQ(record["sha256"], host::hex(host::sha256(std::string_view(read_file(path)))));
    EXPECT_EQ(record["status"], "ok");
    EXPECT_GT(record["tokens"], 3);
    EXPECT_GT(record["confidence"], 0.2);
    EXPECT_LE(record["confidence"], 1.0);
    EXPECT_GT(record["milliseconds"], 0);
    EXPECT_EQ(record["model"].get<std::string>().find("demo@"), 0U);
    EXPECT_EQ(record["settings"].get<std::string>().size(), 16U);
  }
}

TEST_F(Caption, QuietSaysNothingButErrors) {
  const Finished good = caption("-q");
  EXPECT_EQ(good.out + good.err, "");
  write_file(pictures() / "broken.png", "x");
  const Finished bad = caption("-q -o " + (folder_ / "c.jsonl").string());
  EXPECT_EQ(bad.code, 0);
  EXPECT_EQ(std::count(bad.err.begin(), bad.err.end(), '\n'), 1) << bad.err;
  EXPECT_NE(bad.err.find("broken.png: not a picture"), std::string::npos) << bad.err;
}

TEST_F(Caption, OneBadPhotoIsOneErrorRecord) {
  const std::vector<json> before = records("");
  write_file(pictures() / "002.png", read_file(pictures() / "002.png").substr(0, 200));
  const std::vector<json> all = records("");
  ASSERT_EQ(all.size(), size_t{kPictures});
  for (int i = 0; i < kPictures; ++i) {
    if (i == 2) continue;
    EXPECT_EQ(timeless(all[i]), timeless(before[i]));
  }
  EXPECT_EQ(all[2]["status"], "error");
  EXPECT_NE(all[2]["error"].get<std::string>().find("truncated"), std::string::npos) << all[2];
  EXPECT_FALSE(all[2].contains("caption"));
  EXPECT_TRUE(all[2].contains("settings"));
}

TEST_F(Caption, NothingButBadPhotosIsAFailure) {
  fs::remove_all(pictures());
  fs::create_directories(pictures());
  write_file(pictures() / "a.png", "x");
  EXPECT_EQ(caption("-q").code, 1);
  draw(pictures() / "b.png", 1);
  EXPECT_EQ(caption("-q").code, 0);
  EXPECT_EQ(caption("-q").code, 0);  // and that the other one is done changes nothing
}

TEST_F(Caption, AreTheSameWhateverThreadsBatchAndOrder) {
  draw(pictures() / "copy.png", 1);
  const std::string arguments = "--temperature 0.8 --seed 7 --min-confidence 0.9 ";
  std::map<std::string, json> expected;
  for (const json& record : records(arguments)) expected[record["path"]] = timeless(record);
  ASSERT_EQ(expected.size(), kPictures + 1U);
  const auto expect_same = [&](const std::vector<json>& all) {
    EXPECT_EQ(all.size(), expected.size());
    for (const json& record : all) EXPECT_EQ(timeless(record), expected[record["path"]]);
  };
  for (const char* how : {"--threads 1 --batch 1", "--threads 3 --batch 2", "--batch 5"}) {
    expect_same(records(arguments + how));
  }
  std::string list;
  for (const auto& [path, record] : expected) list = path + "\n" + list;
  const Finished reversed = run_ocelli("caption -q -o - --list - " + arguments, list);
  expect_same(parse_lines(reversed.out));
  std::vector<json> shards;
  for (const char* shard : {"1/3", "2/3", "3/3"}) {
    const Finished part = caption("-q -o - " + arguments + "--shard " + shard);
    EXPECT_EQ(part.code, 0) << part.err;
    for (json& record : parse_lines(part.out)) shards.push_back(std::move(record));
  }
  expect_same(shards);
  const Finished other = caption("-q -o - --temperature 0.8 --min-confidence 0.9 --seed 8");
  EXPECT_NE(parse_lines(other.out)[0]["settings"], expected.begin()->second["settings"]);
}

TEST_F(Caption, DuplicatesByContentAreCaptionedOnce) {
  for (const char* copy : {"0.png", "copy.jpg", "sub/deep/copy.png"}) {
    fs::create_directories((pictures() / copy).parent_path());
    fs::copy(pictures() / "000.png", pictures() / copy);
  }
  const std::string output = (folder_ / "c.jsonl").string();
  EXPECT_EQ(caption("-q -r -o " + output).code, 0);
  const std::vector<json> all = records_in(output);
  ASSERT_EQ(all.size(), kPictures + 3U);
  for (json record : all) {
    if (record["sha256"] != all[0]["sha256"]) continue;
    record["path"] = all[0]["path"];
    EXPECT_EQ(record, all[0]);
  }
  const std::vector<json> journal = records_in(output + ".journal");
  EXPECT_EQ(std::ranges::count_if(journal, [](const json& line) { return line.contains("path"); }),
            kPictures);
}

TEST_F(Caption, SeveralFormatsAtOnceInAFolderOfTheirOwn) {
  draw(pictures() / "sub dir" / "ü \U0001F98A.png", 77);
  const fs::path out = folder_ / "out";
  const std::map<std::string, std::string> originals = contents_of(pictures());
  const Finished run = caption("-q -r --format jsonl,csv,txt,caption,xmp --out-dir '" +
                               out.string() + "' --prefix 'zwx, ' --suffix ' (drawn)'");
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(contents_of(pictures()), originals);
  const std::vector<json> all = records_in(out / "captions.jsonl");
  ASSERT_EQ(all.size(), kPictures + 1U);
  for (const json& record : all) {
    const std::string caption = record["caption"];
    EXPECT_TRUE(caption.starts_with("zwx, ") && caption.ends_with(" (drawn)")) << caption;
    const fs::path place = out / fs::path(record["path"]).lexically_relative(pictures());
    EXPECT_EQ(read_file(fs::path(place).replace_extension(".txt")), caption + "\n");
    EXPECT_EQ(read_file(fs::path(place).replace_extension(".caption")), caption + "\n");
    EXPECT_EQ(xmp_description(place.string() + ".xmp"), caption);
  }
  const std::string csv = read_file(out / "captions.csv");
  EXPECT_EQ(csv.find("path,caption,status,tokens,confidence,error\n"), 0U);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), kPictures + 2);
}

TEST_F(Caption, AnImageFolderHasItsMetadataInIt) {
  write_file(pictures() / "broken.png", "x");
  ASSERT_EQ(caption("-q --format imagefolder").code, 0);
  const std::vector<json> lines = records_in(pictures() / "metadata.jsonl");
  ASSERT_EQ(lines.size(), size_t{kPictures});  // good captions alone
  EXPECT_EQ(lines[0]["file_name"], "000.png");
  EXPECT_FALSE(lines[0]["text"].get<std::string>().empty());
}

TEST_F(Caption, BeginsAsItIsTold) {
  for (const json& record : records("--begin-with ' A photo of '")) {
    EXPECT_EQ(record["caption"].get<std::string>().find("A photo of"), 0U) << record;
  }
  EXPECT_EQ(records("--prompt 'How many things are there?'")[0]["caption"],
            records("--prompt ' How many things are there?\n'")[0]["caption"]);
  EXPECT_EQ(caption("--prompt ' '").code, 2);
}

TEST_F(Caption, AddsToWhatIsThere) {
  write_file(pictures() / "000.txt", "mine\n");
  ASSERT_EQ(caption("-q").code, 0);
  EXPECT_EQ(read_file(pictures() / "000.txt"), "mine\n");
  const std::string whole = records("")[0]["caption"];
  ASSERT_EQ(caption("-q --if-exists prepend --separator ' | '").code, 0);
  EXPECT_EQ(read_file(pictures() / "000.txt"), whole + " | mine\n");
  ASSERT_EQ(caption("-q --if-exists overwrite --caption-extension tags").code, 0);
  EXPECT_EQ(read_file(pictures() / "000.tags"), whole + "\n");
}

TEST_F(Caption, WhatIsNotGoodIsTriedOnceMoreAndMarked) {
  const std::vector<json> all = records("");
  // Words without which the demo makes no sentence.
  const std::string forbidden = "a,an,the,there,two,three";
  for (const json& record : records("--format jsonl --forbid " + forbidden)) {
    EXPECT_EQ(record["status"], "forbidden") << record;
    EXPECT_FALSE(record.contains("retried"));
  }
  std::vector<json> unsure = records("--min-confidence 1");
  for (int i = 0; i < kPictures; ++i) {
    if (unsure[i]["status"] == "ok") continue;
    EXPECT_EQ(unsure[i]["status"], "low_confidence");
    // Of two that are not good the one that was asked for.
    EXPECT_EQ(unsure[i]["caption"], all[i]["caption"]);
  }
  // Marked ones are in no sidecar, and in CSV without their text.
  ASSERT_EQ(caption("-q --format txt,csv --out-dir '" + (folder_ / "out").string() + "' --forbid " +
                    forbidden)
                .code,
            0);
  EXPECT_FALSE(fs::exists(folder_ / "out" / "000.txt"));
  EXPECT_NE(read_file(folder_ / "out" / "captions.csv").find("000.png,,forbidden,"),
            std::string::npos);
}

TEST_F(Caption, ASecondAttemptWithOtherSettingsCanBeGood) {
  draw_many(pictures(), 40);
  // Hot enough that a second draw finds other words.
  int retried = 0;
  for (const json& record : records("--temperature 4 --top-k 0 --min-confidence 0 --forbid left")) {
    if (record["status"] == "ok") {
      EXPECT_EQ(record["caption"].get<std::string>().find(" left "), std::string::npos) << record;
    }
    if (!record.contains("retried")) continue;
    EXPECT_EQ(record["status"], "ok") << record;
    ++retried;
  }
  EXPECT_GT(retried, 0);
}

TEST_F(Caption, GoesToAPipeAsItIsMade) {
  draw_many(pictures(), 40);
  const std::string command =
      fmt::format("'{}' caption -q '{}' -o - --batch 1 | head -n 1 >'{}'", OCELLI_BINARY,
                  pictures().string(), (folder_ / "first").string());
  const std::string with_code = fmt::format("bash -c \"{} ; exit \\${{PIPESTATUS[0]}}\" 2>'{}'",
                                            command, (folder_ / "err").string());
  const int status = std::system(with_code.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_EQ(records_in(folder_ / "first")[0]["path"], (pictures() / "000.png").string());
  EXPECT_NE(read_file(folder_ / "err").find("standard output: cannot be written: Broken pipe"),
            std::string::npos);
}

TEST_F(Caption, SaysWhereItCannotWrite) {
  expect_failure(caption("-q -o /dev/full"), "/dev/full: cannot be written: No space left");
  expect_failure(caption("-q -o '" + pictures().string() + "/000.png/c.jsonl'"), "000.png");
  expect_failure(caption("-q -o /proc/nobody/c.jsonl"), "/proc/nobody: cannot be made");
  const std::string full = fmt::format("'{}' caption -q -o - '{}' >/dev/full 2>'{}'", OCELLI_BINARY,
                                       pictures().string(), (folder_ / "err").string());
  EXPECT_EQ(WEXITSTATUS(std::system(full.c_str())), 1);
  EXPECT_EQ(read_file(folder_ / "err"),
            "ocelli: standard output: cannot be written: No space left on device\n");
  // A table that no run of ours has written is not replaced.
  write_file(folder_ / "mine.jsonl", "mine");
  expect_failure(caption("-q -o '" + (folder_ / "mine.jsonl").string() + "'"), "is there already");
  EXPECT_EQ(read_file(folder_ / "mine.jsonl"), "mine");
  EXPECT_EQ(caption("-q --if-exists overwrite -o '" + (folder_ / "mine.jsonl").string() + "'").code,
            0);
  EXPECT_EQ(records_in(folder_ / "mine.jsonl").size(), size_t{kPictures});
}

TEST_F(Caption, MemoryIsForetoldAndLimited) {
  const std::string output = " -o '" + (folder_ / "c.jsonl").string() + "'";
  const Finished little = caption("--max-memory 60MB" + output);
  EXPECT_EQ(little.code, 1);
  EXPECT_NE(little.err.find("1 at a time"), std::string::npos) << little.err;
  EXPECT_NE(little.err.find("--max-memory allows 0.06 GB"), std::string::npos) << little.err;
  EXPECT_FALSE(fs::exists(folder_ / "c.jsonl.journal"));
  const Finished many = caption("-q --batch 200 --max-memory 250MB" + output);
  EXPECT_EQ(many.code, 1);
  EXPECT_NE(many.err.find("take fewer at once"), std::string::npos) << many.err;
  const Finished fits = caption("--max-memory 200GB --batch 2" + output);
  EXPECT_EQ(fits.code, 0) << fits.err;
  EXPECT_LT(fits.err.find("2 at a time, each of up to"), fits.err.find("The demo model"));
}

TEST_F(Caption, DryRunsDoNothing) {
  const Finished run =
      caption("--dry-run --format txt,jsonl -o '" + (folder_ / "c.jsonl").string() + "'");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.out.find("000.png -> "), std::string::npos) << run.out;
  EXPECT_NE(run.out.find("6 captions -> "), std::string::npos) << run.out;
  EXPECT_FALSE(fs::exists(pictures() / "000.txt"));
  EXPECT_FALSE(fs::exists(folder_ / "c.jsonl.journal"));
}

TEST(CaptionUsage, IsSaidWhenItIsWrong) {
  for (const char* arguments :
       {"", "--format png p", "--if-exists maybe p", "--batch 0 p", "--min-confidence 2 p",
        "-o x.jpg p", "--format txt -o c.jsonl p", "--max-memory much p", "--max-tokens 0 p",
        "--temperature -1 p", "--caption-extension jpg p"}) {
    const Finished run = run_ocelli(std::string("caption ") + arguments);
    EXPECT_NE(run.code, 0) << arguments;
    EXPECT_EQ(run.out, "") << arguments;
    EXPECT_FALSE(run.err.empty()) << arguments;
  }
  EXPECT_EQ(run_ocelli("caption").code, 2);
  expect_failure(run_ocelli("caption /nowhere/at/all"), "there is no such file");
  const Finished text = run_ocelli("caption -q -o - -m " + source_path("assets/stories").string() +
                                   " '" + demo_picture() + "'");
  EXPECT_NE(text.code, 0);
  EXPECT_FALSE(text.err.empty());
}

}  // namespace
}  // namespace ocelli::app
