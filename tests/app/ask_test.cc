// `ocelli ask`, `eval`, `inspect` and `tokenize` on the demo model, as a user runs them.
#include <nlohmann/json.hpp>

#include "tests/app/background.h"
#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

std::string quoted(const std::string& text) {
  return "'" + text + "'";
}
std::string picture() {
  return quoted(demo_picture());
}

TEST(Ask, QuietPrintsTheAnswerAlone) {
  const Finished run = run_ocelli("ask --quiet " + picture() + " 'How many things are there?'");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.err, "");
  ASSERT_FALSE(run.out.empty());
  EXPECT_EQ(run.out.find('\n'), run.out.size() - 1);
}

TEST(Ask, TheDemoModelSaysOnStderrWhatItKnows) {
  const Finished run = run_ocelli("ask " + picture() + " 'How many things are there?'");
  EXPECT_EQ(run.code, 0);
  EXPECT_NE(run.err.find("demo model"), std::string::npos) << run.err;
}

TEST(Ask, JsonHoldsAnswerCountsAndTimings) {
  const Finished run = run_ocelli("ask -q --json " + picture() + " 'Describe the picture.'");
  ASSERT_EQ(run.code, 0) << run.err;
  const json object = json::parse(run.out);
  EXPECT_FALSE(object["answer"].get<std::string>().empty());
  EXPECT_EQ(object["finish"], "stop");
  EXPECT_EQ(object["tokens"]["image"], 63);
  EXPECT_GT(object["tokens"]["prompt"], 10);
  EXPECT_GT(object["tokens"]["generated"], 3);
  for (const char* part : {"load", "image", "encode", "connector", "prefill", "generate"}) {
    EXPECT_GT(object["timings_ms"][part].get<double>(), 0) << part;
  }
}

TEST(Ask, EveryBackendIsaAndThreadCountGivesTheSameAnswer) {
  const std::string ask = "ask -q " + picture() + " 'Describe the picture.'";
  const Finished expected = run_ocelli(ask + " --backend reference");
  ASSERT_EQ(expected.code, 0) << expected.err;
  EXPECT_EQ(run_ocelli(ask + " --backend u280-emulated").out, expected.out);
  for (const char* threads : {"1", "2", "3"}) {
    EXPECT_EQ(run_ocelli(ask + " --threads " + threads).out, expected.out) << threads;
  }
  EXPECT_EQ(run_ocelli(ask, "", "OCELLI_ISA=scalar").out, expected.out);
  EXPECT_EQ(run_ocelli(ask + " --kv-cache f16").out, expected.out);
}

TEST(Ask, CheckComparesWithTheReference) {
  const Finished run = run_ocelli("ask -q --check " + picture() + " 'What is there?'");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, run_ocelli("ask -q " + picture() + " 'What is there?'").out);
}

TEST(Ask, TraceIsAPerfettoFile) {
  const TemporaryFolder folder;
  const std::string path = (folder / "trace.json").string();
  const Finished run = run_ocelli("ask -q --trace " + path + " " + picture() + " 'What is there?'");
  ASSERT_EQ(run.code, 0) << run.err;
  size_t products = 0;
  const json trace = json::parse(read_file(path));
  for (const json& event : trace["traceEvents"]) {
    products += event["name"] == "project" && event["ph"] == "X" && event["dur"] >= 0 ? 1 : 0;
  }
  EXPECT_GT(products, 20U);
}

TEST(Ask, PicturesAndQuestionsComeFromStandardInputToo) {
  const std::string question = "How many things are there?";
  const Finished expected = run_ocelli("ask -q " + picture() + " " + quoted(question));
  EXPECT_EQ(run_ocelli("ask -q - " + quoted(question), read_file(demo_picture())).out,
            expected.out);
  EXPECT_EQ(run_ocelli("ask -q " + picture() + " -", question).out, expected.out);
  EXPECT_EQ(
      json::parse(run_ocelli("ask -q --json -", "What is there?\r\n").out)["tokens"]["prompt"],
      json::parse(run_ocelli("ask -q --json 'What is there?'").out)["tokens"]["prompt"]);
}

TEST(Ask, SeveralPicturesTakeTheirRowsEach) {
  const Finished run =
      run_ocelli("ask -q --json " + picture() + " " + picture() + " 'What is there?'");
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(json::parse(run.out)["tokens"]["image"], 126);
}

TEST(Ask, TextAloneIsAQuestionToo) {
  const Finished run = run_ocelli("ask -q --json --max-tokens 4 'What is there?'");
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(json::parse(run.out)["tokens"]["image"], 0);
}

TEST(Ask, AConversationKeepsThePicture) {
  const Finished run = run_ocelli("ask -i -q " + picture() + " 'How many things are there?'",
                                  "What is there?\n\nDescribe the picture.\n");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(std::count(run.out.begin(), run.out.end(), '\n'), 3) << run.out;
  const Finished as_json = run_ocelli("ask -i -q --json " + picture(), "What is it?\nHow many?\n");
  const size_t second = as_json.out.find('\n') + 1;
  EXPECT_EQ(json::parse(as_json.out.substr(0, second))["tokens"]["image"], 63);
  EXPECT_EQ(json::parse(as_json.out.substr(second))["tokens"]["image"], 0);
}

TEST(Ask, JsonlAnswersInOrderAndRecordsFailures) {
  const TemporaryFolder folder;
  fs::copy(demo_picture(), folder / "a.png");
  write_file(folder / "q.jsonl",
             "{\"image\": \"a.png\", \"question\": \"How many things are there?\", \"id\": 7}\n"
             "{\"image\": \"missing.png\", \"question\": \"What is there?\", \"answer\": \"x\"}\n"
             "\n"
             "not json\n"
             "{\"image\": [\"a.png\"], \"question\": \"Describe the picture.\"}\n");
  const std::string arguments = "ask -q --jsonl " + (folder / "q.jsonl").string();
  const Finished run = run_ocelli(arguments);
  EXPECT_EQ(run.code, 1);
  EXPECT_NE(run.err.find("2 of 4 questions failed"), std::string::npos) << run.err;
  std::vector<json> lines;
  std::istringstream stream(run.out);
  for (std::string line; std::getline(stream, line);) lines.push_back(json::parse(line));
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0]["id"], 7);
  EXPECT_EQ(lines[0]["answer"].get<std::string>() + "\n",
            run_ocelli("ask -q " + picture() + " 'How many things are there?'").out);
  EXPECT_NE(lines[1]["error"].get<std::string>().find("missing.png"), std::string::npos);
  EXPECT_NE(lines[2]["error"].get<std::string>().find("q.jsonl:4"), std::string::npos);
  EXPECT_FALSE(lines[1].contains("answer"));  // what was expected is not what was said
  EXPECT_TRUE(lines[3].contains("answer"));
  // The answers do not depend on how many are in the engine.
  const Finished alone = run_ocelli(arguments + " --batch 1");
  std::istringstream alone_stream(alone.out);
  for (const json& line : lines) {
    std::string text;
    std::getline(alone_stream, text);
    EXPECT_EQ(json::parse(text).value("answer", ""), line.value("answer", ""));
  }
}

TEST(Ask, DumpInputIsWhatTheModelSees) {
  const TemporaryFolder folder;
  const std::string path = (folder / "seen.png").string();
  const Finished run =
      run_ocelli("ask --dump-input " + path + " " + picture() + " 'What is there?'");
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.err.find("stretched to 96x96"), std::string::npos) << run.err;
  // Asking about what was dumped changes nothing: it needs no resizing any more.
  const std::string question = " 'Describe the picture.'";
  EXPECT_EQ(run_ocelli("ask -q " + path + question).out,
            run_ocelli("ask -q " + picture() + question).out);
}

TEST(Ask, SamplingRepeatsWithItsSeed) {
  const std::string ask =
      "ask -q --temperature 1.5 --top-k 0 " + picture() + " 'Describe the picture.' --seed ";
  EXPECT_EQ(run_ocelli(ask + "3").out, run_ocelli(ask + "3").out);
  bool differs = false;
  for (int seed = 4; seed < 12 && !differs; ++seed) {
    differs = run_ocelli(ask + std::to_string(seed)).out != run_ocelli(ask + "3").out;
  }
  EXPECT_TRUE(differs);
}

TEST(Ask, MaxTokensAndStopStringsEndTheAnswer) {
  const std::string ask = "ask -q --json " + picture() + " 'Describe the picture.'";
  const json cut = json::parse(run_ocelli(ask + " --max-tokens 2").out);
  EXPECT_EQ(cut["tokens"]["generated"], 2);
  EXPECT_EQ(cut["finish"], "length");
  const json stopped = json::parse(run_ocelli(ask + " --stop ' '").out);
  EXPECT_EQ(stopped["finish"], "stop");
  const std::string first_word = stopped["answer"];
  EXPECT_FALSE(first_word.empty());
  EXPECT_EQ(run_ocelli(ask).out.find("{\"answer\":\"" + first_word + " "), 0U);
}

// A temperature at which nothing makes sense, and so goes on for a second and more.
constexpr const char* kEndless =
    " --backend reference --temperature 90 --top-k 0 --max-tokens 400 --seed 1 ";

// The tokens of every answer that `err` tells of: "[…, first token after 584 ms, 3 tokens".
std::vector<int> token_counts(const std::string& err) {
  std::vector<int> counts;
  for (size_t at = 0; (at = err.find("first token after", at)) != err.npos;) {
    at = err.find("ms, ", at);
    if (at == err.npos) break;
    counts.push_back(std::atoi(err.c_str() + at + 4));
  }
  return counts;
}

TEST(Ask, CtrlCEndsASingleAnswerWith130) {
  RunningOcelli run("ask -q " + picture() + " 'What is there?'" + kEndless);
  ASSERT_TRUE(wait_until([&] { return run.answers(); }));
  run.send(SIGINT);
  EXPECT_EQ(run.wait().code, 128 + SIGINT);
}

TEST(Ask, CtrlCEndsTheAnswerNotTheConversation) {
  RunningOcelli run("ask -i " + picture() + kEndless, "What is there?\nHow many?\n");
  ASSERT_TRUE(wait_until([&] { return run.answers(); }));
  run.send(SIGINT);
  const Finished finished = run.wait();
  EXPECT_EQ(finished.code, 0) << finished.err;
  // Left alone, the first answer has 400 tokens, as the second may, whose chances are others.
  const std::vector<int> counts = token_counts(finished.err);
  ASSERT_EQ(counts.size(), 2U) << finished.err;
  EXPECT_LT(counts[0], 400) << finished.err;
}

TEST(Eval, ScoresInAllAndByType) {
  const TemporaryFolder folder;
  fs::copy(demo_picture(), folder / "a.png");
  const std::string answer = json::parse(
      run_ocelli("ask -q --json " + picture() + " 'How many things are there?'").out)["answer"];
  const json right = {{"image", "a.png"},
                      {"question", "How many things are there?"},
                      {"answer", " " + answer + " "},
                      {"type", "count"}};
  json wrong = right;
  wrong["answer"] = "seven";
  wrong["type"] = "other";
  wrong["mentions"] = {answer, "seven"};
  write_file(folder / "q.jsonl", right.dump() + "\n" + wrong.dump() + "\n");
  const Finished run = run_ocelli("eval -q --json " + (folder / "q.jsonl").string() +
                                  " --answers " + (folder / "answers.jsonl").string());
  ASSERT_EQ(run.code, 0) << run.err;
  const json scores = json::parse(run.out);
  EXPECT_EQ(scores["accuracy"], 0.5);
  EXPECT_EQ(scores["count"], 2);
  EXPECT_EQ(scores["by_type"]["count"]["accuracy"], 1.0);
  EXPECT_EQ(scores["by_type"]["other"]["accuracy"], 0.0);
  EXPECT_EQ(scores["mentions"]["accuracy"], 0.0);
  const std::string answers = read_file(folder / "answers.jsonl");
  EXPECT_EQ(json::parse(answers.substr(0, answers.find('\n')))["correct"], true);
}

TEST(Inspect, TellsWhatTheDemoIs) {
  const Finished run = run_ocelli("inspect --json --verify");
  ASSERT_EQ(run.code, 0) << run.err;
  const json object = json::parse(run.out);
  EXPECT_EQ(object["model_type"], "tinyllava");
  EXPECT_LE(object["bytes"], 8'000'000);
  EXPECT_EQ(object["vision"]["rows_per_image"], 63);
  const Finished text = run_ocelli("inspect tests/golden/models/none");
  expect_failure(text, "there is no such model");
}

TEST(Inspect, ShowsAModelThatCannotBeLoadedAndSaysWhy) {
  const TemporaryFolder folder;
  fs::copy(source_path("assets/demo"), folder / "m");
  json config = json::parse(read_file(folder / "m" / "config.json"));
  config["vision_config"]["intermediate_size"] = 77;
  write_file(folder / "m" / "config.json", config.dump());
  const Finished run = run_ocelli("inspect " + (folder / "m").string());
  EXPECT_EQ(run.code, 1);
  EXPECT_NE(run.out.find("language_model.lm_head.weight"), std::string::npos);
  EXPECT_NE(run.err.find("encoder.layers.0.mlp.fc1.weight"), std::string::npos) << run.err;
}

TEST(Inspect, NamesTheTensorsThatAreNotUsed) {
  const TemporaryFolder folder;
  // The golden model has no tokenizer of its own; the demo's is small enough for it.
  fs::copy(source_path("tests/golden/models/square_patch"), folder / "m");
  for (const char* name : {"vocab.json", "merges.txt"}) {
    fs::copy(source_path("assets/demo") / name, folder / "m" / name);
  }
  const Finished run = run_ocelli("inspect " + (folder / "m").string());
  EXPECT_NE(run.out.find("post_layernorm.weight  (unused)"), std::string::npos) << run.out;
}

TEST(Tokenize, PrintsIdsAndTurnsThemBack) {
  const Finished ids = run_ocelli("tokenize 'What is this?'");
  ASSERT_EQ(ids.code, 0) << ids.err;
  const Finished text =
      run_ocelli("tokenize --decode " + quoted(ids.out.substr(0, ids.out.size() - 1)));
  EXPECT_EQ(text.out, "What is this?\n");
  expect_failure(run_ocelli("tokenize --decode '5,999999'"), "there is no token 999999");
  expect_failure(run_ocelli("tokenize --decode 'five'"), "no list of token ids");
}

}  // namespace
}  // namespace ocelli::app
