// `ocelli story` and `ocelli perplexity` on the bundled model, as a user runs them.
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/app/command.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

constexpr size_t kSeqLenAt =
    8 + 6 * 4;  // of a version 2 file: behind magic, version and six numbers

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// A copy of the bundled model, to be broken.
class BrokenStories {
 public:
  BrokenStories() {
    for (const char* name : {"stories.bin", "tokenizer.bin"}) {
      fs::copy(source_path("assets/stories") / name, folder_ / name);
    }
  }

  void set_int(const std::string& name, size_t offset, int32_t value) const {
    std::string bytes = read_file(folder_ / name);
    std::memcpy(bytes.data() + offset, &value, sizeof value);
    write_file(folder_ / name, bytes);
  }
  void cut(const std::string& name, size_t bytes) const {
    fs::resize_file(folder_ / name, fs::file_size(folder_ / name) - bytes);
  }
  Finished run(const std::string& arguments = "-n 4 -t 0 Once") const {
    return run_ocelli("story -q -m " + (folder_ / "stories.bin").string() + " " + arguments);
  }

 private:
  TemporaryFolder folder_;
};

TEST(Story, BeginsWithThePromptAndTellsItsSpeed) {
  const Finished run = run_ocelli("story -t 0 -n 40 'Once upon a time'");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out.rfind("Once upon a time", 0), 0U) << run.out;
  EXPECT_EQ(run.out.back(), '\n');
  EXPECT_GT(run.out.size(), 60U);
  EXPECT_NE(run.err.find("achieved tok/s: "), std::string::npos) << run.err;
  const Finished quiet = run_ocelli("story -q -t 0 -n 40 -", "Once upon a time\n");
  EXPECT_EQ(quiet.out, run.out);
  EXPECT_EQ(quiet.err, "");
}

TEST(Story, JsonCountsWhatTheTextHas) {
  const Finished run = run_ocelli("story -q --json -t 0 -n 20 'Once upon a time'");
  const json story = json::parse(run.out);
  EXPECT_EQ(story["finish"], "length");
  const int prompt = story["tokens"]["prompt"];
  const int generated = story["tokens"]["generated"];
  EXPECT_GT(prompt, 0);
  EXPECT_EQ(prompt + generated, 20);
  const Finished text = run_ocelli("story -q -t 0 -n 20 'Once upon a time'");
  EXPECT_EQ(story["text"].get<std::string>() + "\n", text.out);
}

TEST(Story, ASeedTellsTheSameStoryAndAnotherAnother) {
  const Finished first = run_ocelli("story -q --seed 3 -n 60 'One day'");
  EXPECT_EQ(run_ocelli("story -q --seed 3 -n 60 'One day'").out, first.out);
  EXPECT_NE(run_ocelli("story -q --seed 4 -n 60 'One day'").out, first.out);
}

TEST(Story, ItsModelAnswersNoQuestions) {
  const Finished run =
      run_ocelli("ask -m " + source_path("assets/stories/stories.bin").string() + " 'Who?'");
  EXPECT_EQ(run.code, 2);
  EXPECT_NE(run.err.find("ocelli story"), std::string::npos) << run.err;
}

TEST(Story, ManyAtOnceAreTheSameAsOneByOne) {
  const Finished many = run_ocelli("story -q --json --seed 5 --count 20 -n 30 'One day'");
  const std::vector<std::string> lines = lines_of(many.out);
  ASSERT_EQ(lines.size(), 20U);
  for (const int i : {0, 7, 19}) {
    const Finished one =
        run_ocelli("story -q --json -n 30 'One day' --seed " + std::to_string(5 + i));
    EXPECT_EQ(one.out, lines[i] + "\n");
  }
  const Finished text = run_ocelli("story -q --seed 5 --count 2 -n 30 'One day'");
  EXPECT_EQ(text.out, json::parse(lines[0])["text"].get<std::string>() + "\n<|endoftext|>\n" +
                          json::parse(lines[1])["text"].get<std::string>() + "\n");
}

TEST(Story, ThreadsChangeNothing) {
  const std::string arguments = "story -q -t 0 -n 80 'Once upon a time' --threads ";
  EXPECT_EQ(run_ocelli(arguments + "1").out, run_ocelli(arguments + "2").out);
  EXPECT_EQ(run_ocelli(arguments + "1 --exact").out, run_ocelli(arguments + "2 --exact").out);
}

TEST(Story, GoesOnWithTheTextOfAModelWithEyes) {
  const Finished run = run_ocelli("story -q -t 0 -n 20 -m " + source_path("assets/demo").string() +
                                  " 'USER: What is there?'");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out.rfind("USER: What is there?", 0), 0U) << run.out;
}

TEST(Story, WrongUsage) {
  for (const char* arguments :
       {"-n 0 a", "-t -1 a", "-p 2 a", "-p 0 a", "--count 0 a", "--sampler none a",
        "--sampler llama2c --top-k 3 a", "--exact --backend reference a", "--no-such a"}) {
    EXPECT_EQ(run_ocelli(std::string("story ") + arguments).code, 2) << arguments;
  }
}

TEST(BadStory, PromptsAndLengths) {
  expect_failure(run_ocelli("story -q -n 5000 Once"), "-n 5000: the model's context is 512 tokens");
  expect_failure(run_ocelli("story -q -n 2 'Once upon a time there was a little girl'"),
                 "none are left for a story");
  std::string long_prompt;
  for (int i = 0; i < 600; ++i) long_prompt += "day and night ";
  expect_failure(run_ocelli("story -q -n 512 -", long_prompt), "none are left for a story");
  expect_failure(run_ocelli("story -q -", "caf\xC3"), "UTF-8");
  expect_failure(run_ocelli("story -q --exact a -m " + source_path("assets/demo").string()),
                 "--exact is for the files of llama2.c");
}

TEST(BadStory, Models) {
  const TemporaryFolder folder;
  expect_failure(run_ocelli("story -q -m " + (folder / "none.bin").string() + " a"), "none.bin");
  write_file(folder / "text.bin", "this is a text and no model, however long it goes on to be");
  expect_failure(run_ocelli("story -q -m " + (folder / "text.bin").string() + " a"), "text.bin");
  expect_failure(run_ocelli("story -q -m " + folder.path().string() + " a"), "config.json");

  const BrokenStories cut;
  cut.cut("stories.bin", 1);
  expect_failure(cut.run(), "truncated");
  const BrokenStories no_context;
  no_context.set_int("stories.bin", kSeqLenAt, 0);
  expect_failure(no_context.run(), "seq_len");
  const BrokenStories dims;
  dims.set_int("stories.bin", 8, 252);
  expect_failure(dims.run(), "stories.bin");
  const BrokenStories vocabulary;
  vocabulary.cut("tokenizer.bin", 12);
  expect_failure(vocabulary.run(), "token");
  expect_failure(run_ocelli("story -q a --tokenizer " + source_path("assets/demo").string()),
                 "the tokenizer has");
}

TEST(Perplexity, CountsAndIsTheSameInAnyForm) {
  const std::string text =
      "Once upon a time, there was a little girl.\nShe was happy.\n<|endoftext|>\nTom had a dog.\n";
  const Finished run = run_ocelli("perplexity -q --json -", text);
  ASSERT_EQ(run.code, 0) << run.err;
  const json found = json::parse(run.out);
  // The line ends around the documents are not theirs.
  EXPECT_EQ(found["bytes"], 57 + 14);
  const double nats = std::log(found["perplexity"].get<double>()) * found["tokens"].get<int>();
  EXPECT_NEAR(found["nll_per_byte"].get<double>() * 71, nats, 1e-6 * nats);
  EXPECT_LT(found["nll_per_byte"], 1.5);
  const Finished words = run_ocelli("perplexity -q -", text);
  EXPECT_EQ(words.out.rfind("perplexity ", 0), 0U) << words.out;
  const json again = json::parse(run_ocelli("perplexity -q --json --threads 1 -", text).out);
  EXPECT_EQ(again, found);
}

TEST(Perplexity, BadInput) {
  expect_failure(run_ocelli("perplexity -q -", "\n<|endoftext|>\n"), "no text");
  expect_failure(run_ocelli("perplexity -q none.txt"), "none.txt");
  expect_failure(run_ocelli("perplexity -q --context 600 -", "a b"), "--context 600");
  expect_failure(run_ocelli("perplexity -q -", "caf\xC3"), "UTF-8");
  EXPECT_EQ(run_ocelli("perplexity --context 1 -", "a").code, 2);
}

}  // namespace
}  // namespace ocelli::app
