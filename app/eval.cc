// ocelli eval: how many questions of a file a model answers exactly as the file says.
#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "app/batch.h"
#include "app/commands.h"
#include "app/json_output.h"
#include "app/options.h"
#include "app/question_line.h"
#include "app/terminal.h"
#include "app/text.h"
#include "host/error.h"
#include "host/output_file.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

struct EvalOptions {
  ModelOptions model;
  SamplingOptions sampling;
  InputOptions input;
  std::string file;
  std::string answers;
  bool as_json = false;
};

struct Score {
  size_t count = 0;
  size_t correct = 0;

  void add(bool is_correct) {
    ++count;
    correct += is_correct ? 1 : 0;
  }
  double accuracy() const { return count > 0 ? static_cast<double>(correct) / count : 0; }
  json to_json() const { return {{"accuracy", accuracy()}, {"count", count}}; }
};

// A line with what is right about it.
struct Expected {
  std::string answer;
  std::string type;
  std::vector<std::string> mentions;  // texts that a complete answer holds, where the file has them
};

Expected parse_expected(const json& object, const std::string& where) {
  const auto text = [&](const char* key, const char* fallback) -> std::string {
    const auto found = object.find(key);
    if (found == object.end() && fallback) return fallback;
    if (found == object.end() || !found->is_string()) {
      host::fail("{}: \"{}\" is missing or no text", where, key);
    }
    return found->get<std::string>();
  };
  Expected expected{trimmed(text("answer", nullptr)), text("type", ""), {}};
  for (const json& mention : object.value("mentions", json::array())) {
    if (!mention.is_string()) host::fail("{}: \"mentions\" must be texts", where);
    expected.mentions.push_back(mention.get<std::string>());
  }
  return expected;
}

// Answers scored so far, in all and by type.
class Scores {
 public:
  // Returns whether the answer is exactly the expected one.
  bool add(const Expected& expected, const std::string& answer) {
    const bool correct = trimmed(answer) == expected.answer;
    total_.add(correct);
    if (!expected.type.empty()) by_type_[expected.type].add(correct);
    if (!expected.mentions.empty()) {
      mentions_.add(std::ranges::all_of(expected.mentions, [&](const std::string& mention) {
        return answer.find(mention) != std::string::npos;
      }));
    }
    return correct;
  }

  json to_json() const {
    json object = total_.to_json();
    object["by_type"] = json::object();
    for (const auto& [type, score] : by_type_) object["by_type"][type] = score.to_json();
    if (mentions_.count > 0) object["mentions"] = mentions_.to_json();
    return object;
  }

  std::string table() const {
    std::string text = row("all", total_);
    for (const auto& [type, score] : by_type_) text += row(type, score);
    if (mentions_.count > 0) text += row("names everything", mentions_);
    return text;
  }

 private:
  static std::string row(const std::string& name, const Score& score) {
    return fmt::format("{:<18}{:>7.2f} %  of {:>6}\n", name, 100 * score.accuracy(), score.count);
  }

  Score total_;
  Score mentions_;
  std::map<std::string, Score> by_type_;
};

void run_eval(EvalOptions& options) {
  const std::vector<Line> lines = read_lines(options.file);
  std::vector<Question> questions;
  std::vector<Expected> expected;
  std::vector<json> objects;
  // A benchmark with a broken line would score something else than its author meant.
  for (const Line& text : lines) {
    QuestionLine line = parse_question_line(text, options.file);
    if (!line.question.error.empty()) throw host::Error(line.question.error);
    expected.push_back(
        parse_expected(line.object, fmt::format("{}:{}", options.file, text.number)));
    questions.push_back(std::move(line.question));
    objects.push_back(std::move(line.object));
  }

  Pipeline pipeline = options.model.open(options.input.batch);
  std::optional<host::OutputFile> answers;
  if (!options.answers.empty()) answers.emplace(options.answers);
  catch_interrupts();
  Scores scores;
  bool whole = false;
  {
    Progress progress("questions", questions.size(), !options.model.quiet);
    const auto done = [&](size_t index, const Result& result) {
      if (!result.error.empty()) throw host::Error(result.error);
      const bool correct = scores.add(expected[index], result.answer.text);
      if (answers) {
        json object = objects[index];
        object["expected"] = object["answer"];
        object["answer"] = result.answer.text;
        object["correct"] = correct;
        answers->write(json_line(object));
      }
      progress.advance(index + 1);
    };
    whole = answer_all(pipeline, questions, options.sampling.get(), options.input.decode, done);
  }
  options.model.finish(pipeline);
  if (!whole) throw Exit{kInterruptedExit};
  if (answers) answers->commit();
  print(options.as_json ? json_line(scores.to_json()) : scores.table());
}

}  // namespace

void add_eval(CLI::App& program) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command =
      program.add_subcommand("eval", "Score a model on a file of questions and answers");
  command
      ->add_option("questions", options->file,
                   "JSON Lines with image (relative to the file), question, answer and, if "
                   "wanted, type and mentions; \"-\": stdin")
      ->required();
  command->add_flag("--json", options->as_json,
                    "Print {\"accuracy\", \"count\", \"by_type\": {...}}");
  command->add_option("--answers", options->answers,
                      "Write each line with the model's answer here");
  options->model.add_to(*command);
  options->model.add_system_to(*command);
  options->sampling.add_to(*command);
  options->input.add_to(*command);
  command->footer(
      "An answer is right when it equals the expected text, white space around it aside.\n"
      "Example:\n"
      "  python3 assets/train/scenes.py --seed 7 --count 100 --out /tmp/scenes\n"
      "  ocelli eval /tmp/scenes/questions.jsonl");
  command->callback([options] { run_eval(*options); });
}

}  // namespace ocelli::app
