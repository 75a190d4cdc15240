// `--cache`, as a user runs it: the same answers, and the encoder runs once a picture.
#include <nlohmann/json.hpp>

#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

// How often the operation `name` ran in a trace.
int count_events(const fs::path& trace, const std::string& name) {
  int count = 0;
  const json parsed = json::parse(read_file(trace));
  for (const json& event : parsed["traceEvents"]) count += event["name"] == name ? 1 : 0;
  return count;
}

std::string quoted(const std::string& text) {
  return "'" + text + "'";
}
std::string scenes() {
  return quoted(source_path("assets/scenes").string());
}

TEST(CacheOption, TheSecondQuestionSkipsTheEncoder) {
  const TemporaryFolder folder;
  const std::string trace = (folder / "trace.json").string();
  const auto ask = [&](const std::string& picture, const std::string& more) {
    const Finished run = run_ocelli("ask -q --max-tokens 1 --trace " + trace + more + " " +
                                    picture + " 'What is there?'");
    EXPECT_EQ(run.code, 0) << run.err;
    return count_events(trace, "project");
  };
  const std::string cache = " --cache " + (folder / "cache").string();
  const std::string picture = quoted(demo_picture());
  const int text_alone = ask("", "");
  const int all = ask(picture, "");
  ASSERT_GT(all, text_alone);
  EXPECT_EQ(ask(picture, cache), all);
  EXPECT_EQ(ask(picture, cache), text_alone);
  EXPECT_EQ(ask(picture + " " + picture, cache), text_alone);
  EXPECT_EQ(ask(picture, cache + " --backend reference"), all);  // it has other bits
}

TEST(CacheOption, CaptionsAndAnswersAreTheSameWithAndWithout) {
  const TemporaryFolder folder;
  const std::string cache = " --cache " + (folder / "cache").string();
  const auto captions = [&](const std::string& name, const std::string& more) {
    const fs::path table = folder / name;
    const Finished run = run_ocelli("caption -q " + scenes() + " -o " + table.string() + more);
    EXPECT_EQ(run.code, 0) << run.err;
    std::string lines;
    std::istringstream stream(read_file(table));
    for (std::string line; std::getline(stream, line);) {
      json object = json::parse(line);
      object.erase("milliseconds");
      lines += object.dump() + "\n";
    }
    return lines;
  };
  const std::string expected = captions("a.jsonl", "");
  EXPECT_EQ(captions("b.jsonl", cache), expected);
  EXPECT_EQ(captions("c.jsonl", cache), expected);
  const Finished again = run_ocelli("caption " + scenes() + " -o - --batch 2" + cache);
  EXPECT_NE(again.err.find("cache: 6 of 6 pictures"), std::string::npos) << again.err;

  std::string questions;
  for (const auto& entry : fs::directory_iterator(source_path("assets/scenes"))) {
    questions += json({{"image", entry.path()}, {"question", "How many things are there?"}}).dump();
    questions += "\n";
  }
  const auto answers = [&](const std::string& more) {
    const Finished run = run_ocelli("ask --jsonl -" + more, questions);
    std::vector<std::string> texts;
    std::istringstream stream(run.out);
    for (std::string line; std::getline(stream, line);)
      texts.push_back(json::parse(line)["answer"]);
    return std::pair(texts, run.err);
  };
  const auto [texts, notes] = answers(cache);
  EXPECT_EQ(texts, answers("").first);
  EXPECT_EQ(texts.size(), 6U);
  EXPECT_NE(notes.find("cache: 6 of 6 pictures"), std::string::npos) << notes;
}

TEST(CacheOption, TwoProcessesShareAFolderThatIsTooSmall) {
  const TemporaryFolder folder;
  const auto command = [&](const std::string& more, const std::string& name) {
    return "'" OCELLI_BINARY "' ask -q --jsonl " + (folder / "q.jsonl").string() + more + " >" +
           (folder / name).string();
  };
  std::string questions;
  for (int i = 0; i < 4; ++i) {
    for (const auto& entry : fs::directory_iterator(source_path("assets/scenes"))) {
      questions += json({{"image", entry.path()}, {"question", "What is there?"}}).dump() + "\n";
    }
  }
  write_file(folder / "q.jsonl", questions);
  // An entry of the demo is a few ten thousand bytes: four of the six pictures find room.
  const std::string cache = " --cache-size 200KB --cache " + (folder / "cache").string();
  const std::string both =
      command(cache, "a") + " & " + command(cache, "b") + "; wait $! && " + command("", "expected");
  ASSERT_EQ(std::system(both.c_str()), 0);
  const auto answers = [&](const char* name) {
    std::vector<std::string> texts;
    std::istringstream stream(read_file(folder / name));
    for (std::string line; std::getline(stream, line);)
      texts.push_back(json::parse(line)["answer"]);
    return texts;
  };
  EXPECT_EQ(answers("expected").size(), 24U);
  EXPECT_EQ(answers("a"), answers("expected"));
  EXPECT_EQ(answers("b"), answers("expected"));
}

TEST(CacheOption, AFullDiskIsANote) {
  const TemporaryFolder folder;
  const std::string ask = "ask --json --cache " + (folder / "cache").string() + " " +
                          quoted(demo_picture()) + " 'What is there?'";
  // No file may grow beyond eight blocks, 4 KB.
  const Finished run = run_ocelli(ask, "", "ulimit -f 8;");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.err.find("cannot be written"), std::string::npos) << run.err;
  EXPECT_NE(run.err.find("goes on without"), std::string::npos) << run.err;
  EXPECT_EQ(json::parse(run.out)["finish"], "stop");
}

TEST(CacheOption, WrongUseIsRefused) {
  EXPECT_EQ(run_ocelli("ask --cache-size 1GB 'What?'").code, 2);
  EXPECT_EQ(run_ocelli("ask --cache x --cache-size 0 'What?'").code, 2);
  EXPECT_EQ(run_ocelli("ask --cache x --check 'What?'").code, 2);
}

}  // namespace
}  // namespace ocelli::app
