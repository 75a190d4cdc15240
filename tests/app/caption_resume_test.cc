// What of `ocelli caption` is left after signals, kills, full disks, and by runs side by side.
#include <sys/resource.h>

#include "tests/app/background.h"
#include "tests/app/caption_testing.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

// Records of the journal at `path`, torn lines aside; how often each content stands there.
std::map<std::string, int> journal_contents(const fs::path& path) {
  std::map<std::string, int> contents;
  std::istringstream stream(read_file(path));
  for (std::string line; std::getline(stream, line);) {
    const json object = json::parse(line, nullptr, false);
    if (object.is_object() && object.contains("sha256")) ++contents[object["sha256"]];
  }
  return contents;
}

// What stands in whole lines.
std::string whole_lines(const fs::path& path) {
  const std::string text = read_file(path);
  return text.substr(0, text.rfind('\n') + 1);
}

// Pictures, one of them twice and one that is broken, with texts beside two.
class Album {
 public:
  static constexpr int kPictures = 24;

  Album() {
    draw_many(pictures(), kPictures);
    fs::copy(pictures() / "003.png", pictures() / "again.png");
    write_file(pictures() / "broken.png", read_file(pictures() / "004.png").substr(0, 90));
  }

  fs::path pictures() const { return folder_ / "pictures"; }
  fs::path operator/(const std::string& name) const { return folder_ / name; }

  // The command that writes all kinds of files to the folder `name`, adding to what is there.
  std::string command(const std::string& name) const {
    const fs::path out = folder_ / name;
    fs::create_directories(out);
    if (!fs::exists(out / "c.jsonl.journal")) {
      write_file(out / "001.txt", "it was here");
      write_file(out / "002.txt", "so was this\n");
    }
    return fmt::format(
        "caption -q '{}' -o '{}' --out-dir '{}' --format jsonl,csv,txt,xmp --if-exists append",
        pictures().string(), (out / "c.jsonl").string(), out.string());
  }

 private:
  TemporaryFolder folder_;
};

TEST(CaptionResume, AfterFiftyKillsAtRandomMomentsNothingIsRepeatedLostOrDifferent) {
  const Album album;
  const Finished undisturbed = run_ocelli(album.command("whole"));
  ASSERT_EQ(undisturbed.code, 0) << undisturbed.err;
  const auto expected = contents_of(album / "whole");
  ASSERT_EQ(expected.size(), 2U + 2 * (Album::kPictures + 1));

  std::mt19937 random(std::random_device{}());
  int kills = 0;
  for (int round = 0; kills < 50; ++round) {
    const std::string name = fmt::format("killed{}", round);
    const fs::path journal = album / name / "c.jsonl.journal";
    const std::string command = album.command(name);
    std::string kept;
    int code = 128 + SIGKILL;
    while (code == 128 + SIGKILL) {
      RunningOcelli run(command);
      usleep(static_cast<useconds_t>(random() % 250'000));
      if (kills < 50) run.send(SIGKILL);
      const Finished finished = run.wait();
      code = finished.code;
      kills += code == 128 + SIGKILL ? 1 : 0;
      // What was done stays done, whatever came after it.
      const std::string lines = fs::exists(journal) ? whole_lines(journal) : "";
      ASSERT_TRUE(lines.starts_with(kept)) << lines << "\nbut before\n" << kept;
      kept = lines;
      ASSERT_TRUE(code == 0 || code == 128 + SIGKILL) << finished.err;
    }
    EXPECT_EQ(contents_of(album / name), expected);
    for (const auto& [content, count] : journal_contents(journal)) EXPECT_EQ(count, 1) << content;
    EXPECT_EQ(journal_contents(journal).size(), Album::kPictures + 1U);
  }
}

// Sends `signal` when some captions are done, and sees that the rest is done by the same command.
void stop_and_go_on(int signal) {
  const Album album;
  ASSERT_EQ(run_ocelli(album.command("whole")).code, 0);
  const std::string command = album.command("stopped") + " --batch 2 --threads 1";
  const fs::path journal = album / "stopped" / "c.jsonl.journal";
  RunningOcelli run(command);
  ASSERT_TRUE(wait_until([&] { return journal_contents(journal).size() >= 2; }));
  run.send(signal);
  run.send(signal);  // as timeout(1) and mpirun do, to the process and to its group
  const Finished stopped = run.wait();
  ASSERT_EQ(stopped.code, 75) << stopped.err;
  EXPECT_EQ(stopped.out + stopped.err, "");
  // Every caption in hand was finished and stands in the table.
  const size_t done = journal_contents(journal).size();
  EXPECT_LT(done, Album::kPictures + 1U);
  std::map<std::string, int> in_table;
  for (const json& record : records_in(album / "stopped" / "c.jsonl")) {
    if (record.contains("sha256")) ++in_table[record["sha256"]];
  }
  EXPECT_EQ(in_table.size(), done);

  const Finished rest = run_ocelli(command);
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_EQ(contents_of(album / "stopped"), contents_of(album / "whole"));
  for (const auto& [content, count] : journal_contents(journal)) EXPECT_EQ(count, 1) << content;
}

TEST(CaptionResume, SigintFinishesWhatIsInHand) {
  stop_and_go_on(SIGINT);
}
TEST(CaptionResume, SigtermFinishesWhatIsInHand) {
  stop_and_go_on(SIGTERM);
}
TEST(CaptionResume, Sigusr1FinishesWhatIsInHand) {
  stop_and_go_on(SIGUSR1);
}

// Nonsense, which finds no end: sixteen captions in hand take seconds.
constexpr const char* kEndless =
    " --backend reference --batch 16 --temperature 90 --top-k 0 --max-tokens 300";

TEST(CaptionResume, ASecondCtrlCEndsAtOnce) {
  const TemporaryFolder folder;
  draw_many(folder / "p", 16);
  write_file(folder / "p" / "012.png", "broken");
  const fs::path journal = folder / "c.jsonl.journal";
  RunningOcelli run(fmt::format("caption -q '{}' -o '{}'", (folder / "p").string(),
                                (folder / "c.jsonl").string()) +
                    kEndless);
  // When the broken one has its turn, those before it are in hand.
  ASSERT_TRUE(wait_until([&] { return read_file(journal).find("012.png") != std::string::npos; }));
  run.send(SIGINT);
  usleep(200'000);
  run.send(SIGINT);
  EXPECT_EQ(run.wait().code, 128 + SIGINT);
  EXPECT_FALSE(fs::exists(folder / "c.jsonl"));
}

TEST(CaptionResume, ErrorsAreTriedAgainWhenAskedFor) {
  const TemporaryFolder folder;
  draw_many(folder / "p", 3);
  const std::string whole = read_file(folder / "p" / "001.png");
  write_file(folder / "p" / "001.png", whole.substr(0, 100));
  const std::string command =
      fmt::format("caption '{}' -o '{}'", (folder / "p").string(), (folder / "c.jsonl").string());
  EXPECT_EQ(run_ocelli(command).code, 0);
  const fs::path journal = folder / "c.jsonl.journal";
  const std::string before = read_file(journal);
  // The same failure is not looked for a second time,
  const Finished same = run_ocelli(command);
  EXPECT_EQ(read_file(journal), before);
  EXPECT_NE(same.err.find("3 were done before"), std::string::npos) << same.err;
  // but on request,
  const Finished again = run_ocelli(command + " --retry-errors");
  EXPECT_NE(again.err.find("2 were done before"), std::string::npos) << again.err;
  EXPECT_GT(fs::file_size(journal), before.size());
  EXPECT_EQ(records_in(folder / "c.jsonl")[1]["status"], "error");
  // and a picture that was put right is another picture.
  write_file(folder / "p" / "001.png", whole);
  EXPECT_EQ(run_ocelli(command).code, 0);
  EXPECT_EQ(records_in(folder / "c.jsonl")[1]["status"], "ok");
}

TEST(CaptionResume, AnotherPromptIsAnotherRunInTheSameJournal) {
  const TemporaryFolder folder;
  draw_many(folder / "p", 2);
  const std::string command =
      fmt::format("caption '{}' -o '{}'", (folder / "p").string(), (folder / "c.jsonl").string());
  EXPECT_EQ(run_ocelli(command).code, 0);
  const std::string first = read_file(folder / "c.jsonl");
  const Finished other = run_ocelli(command + " --prompt 'What is there?'");
  EXPECT_EQ(other.code, 0) << other.err;
  EXPECT_NE(other.err.find("2 captions are of another"), std::string::npos) << other.err;
  EXPECT_NE(records_in(folder / "c.jsonl")[0]["settings"], parse_lines(first)[0]["settings"]);
  // The first prompt's captions are still there.
  const Finished back = run_ocelli(command);
  EXPECT_NE(back.err.find("2 were done before"), std::string::npos) << back.err;
  EXPECT_EQ(read_file(folder / "c.jsonl"), first);
}

TEST(CaptionResume, OfTwoRunsOnOneJournalTheSecondIsRefused) {
  const TemporaryFolder folder;
  draw_many(folder / "p", 16);
  const std::string command = fmt::format("caption -q '{}' -o '{}'", (folder / "p").string(),
                                          (folder / "c.jsonl").string());
  RunningOcelli first(command + kEndless);
  ASSERT_TRUE(wait_until([&] {
    return fs::exists(folder / "c.jsonl.journal") && fs::file_size(folder / "c.jsonl.journal") > 0;
  }));
  expect_failure(run_ocelli(command), "another run is writing this journal");
  first.send(SIGKILL);
  first.wait();
  EXPECT_EQ(run_ocelli(command).code, 0);
}

// As full as a disk: no file may grow beyond `kilobytes`.
Finished run_on_a_small_disk(const std::string& arguments, int kilobytes) {
  rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = static_cast<rlim_t>(kilobytes) << 10;
  setrlimit(RLIMIT_FSIZE, &small);
  Finished run = run_ocelli(arguments);
  setrlimit(RLIMIT_FSIZE, &before);
  return run;
}

TEST(CaptionResume, AFullDiskIsSaidAndTheRunGoesOnWhenThereIsRoom) {
  const Album album;
  ASSERT_EQ(run_ocelli(album.command("whole")).code, 0);
  const std::string command = album.command("full");
  const Finished full = run_on_a_small_disk(command, 3);
  EXPECT_EQ(full.code, 1);
  EXPECT_NE(full.err.find("c.jsonl.journal: cannot be written: File too large"), std::string::npos)
      << full.err;
  EXPECT_FALSE(fs::exists(album / "full" / "c.jsonl"));
  const auto kept = journal_contents(album / "full" / "c.jsonl.journal");
  EXPECT_GT(kept.size(), 3U);
  // Here the journal has room, the table has not; an old table stays.
  EXPECT_EQ(run_ocelli(command).code, 0);
  EXPECT_EQ(contents_of(album / "full"), contents_of(album / "whole"));
  const Finished table = run_on_a_small_disk(command, 4);
  EXPECT_EQ(table.code, 1);
  EXPECT_NE(table.err.find("c.jsonl: cannot be written: File too large"), std::string::npos)
      << table.err;
  EXPECT_EQ(contents_of(album / "full"), contents_of(album / "whole"));
}

TEST(CaptionResume, AFolderThatChangesMeanwhileGivesErrorsOfItsOwn) {
  const TemporaryFolder folder;
  draw_many(folder / "p", 30);
  const std::string command = fmt::format("caption -q '{}' -o '{}' --batch 1 --threads 1",
                                          (folder / "p").string(), (folder / "c.jsonl").string());
  RunningOcelli run(command);
  ASSERT_TRUE(wait_until([&] { return fs::exists(folder / "c.jsonl.journal"); }));
  fs::remove(folder / "p" / "029.png");
  write_file(folder / "p" / "028.png", "");
  draw(folder / "p" / "new.png", 99);
  const Finished finished = run.wait();
  EXPECT_EQ(finished.code, 0) << finished.err;
  const std::vector<json> records = records_in(folder / "c.jsonl");
  ASSERT_EQ(records.size(), 30U);  // those that were there when it began
  for (int i = 0; i < 28; ++i) EXPECT_EQ(records[i]["status"], "ok") << records[i];
  EXPECT_EQ(records[28]["error"], "is empty");
  EXPECT_NE(records[29]["error"].get<std::string>().find("No such file"), std::string::npos);
  EXPECT_EQ(run_ocelli(command).code, 0);
  EXPECT_EQ(records_in(folder / "c.jsonl").size(), 30U);  // one is gone, one is new
}

}  // namespace
}  // namespace ocelli::app
