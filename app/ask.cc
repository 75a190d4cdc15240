// ocelli ask: questions about pictures, one, a conversation, or a file of them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "app/batch.h"
#include "app/commands.h"
#include "app/heatmap.h"
#include "app/json_output.h"
#include "app/options.h"
#include "app/question_line.h"
#include "app/terminal.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

using nlohmann::json;

struct AskOptions {
  ModelOptions model;
  SamplingOptions sampling;
  InputOptions input;
  std::vector<std::string> arguments;  // pictures, then the question
  std::string jsonl;
  std::string dump_input;
  HeatmapFiles heatmap;  // an empty path: none
  bool interactive = false;
  bool as_json = false;
};

// What became of an answer, for people.
std::string summary(const Answer& answer) {
  const Timings& t = answer.timings;
  const double first = t.image + t.encode + t.connector + t.prefill;
  const double rate =
      answer.tokens > 1 && t.generate > 0 ? (answer.tokens - 1) / t.generate * 1e3 : 0;
  return fmt::format("[{} positions, first token after {:.0f} ms, {} tokens, {:.1f} tokens/s{}]",
                     answer.prompt_tokens + answer.image_rows, first, answer.tokens, rate,
                     answer.finish == llm::FinishReason::kMaxTokens ? ", cut at --max-tokens" : "");
}

// Steps until the answer is there, handing text on as it comes. Ctrl-C stops the answer.
template <typename Show>
void run_to_end(Pipeline& pipeline, Conversation& conversation, const Show& show) {
  while (!conversation.finished()) {
    if (interrupted()) {
      conversation.interrupt();
      break;
    }
    for (const llm::Output& output : pipeline.engine().step()) show(conversation.accept(output));
  }
  show(conversation.finish());
}

// "in.png" of one picture is written as it is; of several, as in-1.png, in-2.png, …
void dump_inputs(const AskOptions& options, const Pipeline& pipeline, const Pictures& pictures) {
  if (options.dump_input.empty()) return;
  if (!pipeline.config().vision) host::fail("--dump-input: this model reads text only");
  const size_t count = pictures.images.size();
  if (count == 0) throw UsageError("--dump-input needs a picture");
  for (size_t i = 0; i < count; ++i) {
    const std::filesystem::path target = numbered_path(options.dump_input, i + 1, count);
    const vision::Image seen = pipeline.preprocess(pictures.images[i]);
    vision::write_png(seen, target.string());
    if (!options.model.quiet) {
      const vision::Image& image = pictures.images[i];
      const bool padded = pipeline.config().vision->aspect == AspectRatio::kPad;
      note(fmt::format(
          "{}: {}x{} picture{}, {} to {}x{} (bicubic)", target.string(), image.width, image.height,
          options.input.decode.honour_exif ? " (upright by its EXIF)" : " as stored",
          padded ? "padded to a square and scaled" : "stretched", seen.width, seen.height));
    }
  }
}

// Refuses what has no pictures to look at.
void require_pictures(const AskOptions& options, const Pipeline& pipeline,
                      const Pictures& pictures) {
  if (options.heatmap.path.empty()) return;
  if (!pipeline.config().vision) host::fail("--heatmap: this model reads text only");
  if (pictures.images.empty()) throw UsageError("--heatmap needs a picture");
}

void save_heatmaps(const AskOptions& options, const Pipeline& pipeline, const Pictures& pictures,
                   const Gaze& gaze) {
  if (options.heatmap.path.empty()) return;
  for (const std::string& file :
       write_heatmaps(gaze, pictures.images, *pipeline.config().vision, options.heatmap)) {
    if (!options.model.quiet) note(fmt::format("{}: where the model looked", file));
  }
}

// The line end that comes with a line is no part of the question.
void strip_line_end(std::string& text) {
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
}

std::string question_text(const std::string& argument) {
  if (argument != "-") return argument;
  std::string text = read_stdin();
  strip_line_end(text);
  return text;
}

bool is_file(const std::string& path) {
  std::error_code ignored;  // a question may be anything, too long a name for one thing
  return std::filesystem::exists(path, ignored);
}

void ask_once(AskOptions& options) {
  std::vector<std::string> paths = options.arguments;
  const std::string last = paths.back();
  paths.pop_back();
  if (std::ranges::count(options.arguments, "-") > 1) {
    throw UsageError("standard input can be one picture or the question, not more");
  }
  if (paths.empty() && is_file(last)) {
    throw UsageError(fmt::format("ask what about {}? The question comes last", last));
  }
  const AnswerOptions answer_options = options.sampling.get();
  const std::string question = question_text(last);
  const Pictures pictures = read_pictures(paths, options.input.decode);
  options.model.pipeline.probe = !options.heatmap.path.empty();
  Pipeline pipeline = options.model.open(1);
  require_pictures(options, pipeline, pictures);
  dump_inputs(options, pipeline, pictures);
  Conversation conversation(pipeline);
  catch_interrupts();
  conversation.ask(question, pictures, answer_options);
  run_to_end(pipeline, conversation, [&](const std::string& text) {
    if (!options.as_json && !text.empty()) print(text);
  });
  const Answer& answer = conversation.answer();
  if (options.as_json) {
    print(json_line(to_json(answer)));
  } else {
    print("\n");
    if (!options.model.quiet) note(summary(answer));
  }
  save_heatmaps(options, pipeline, pictures, answer.gaze);
  options.model.finish(pipeline);
  if (answer.finish == llm::FinishReason::kNone && interrupted()) throw Exit{kInterruptedExit};
}

// The next question of a conversation; false at its end.
bool read_question(const AskOptions& options, std::string& question) {
  while (true) {
    const bool prompt = stdin_is_terminal() && !options.model.quiet;
    if (prompt) prompt_for_line("> ");
    clear_interrupt();
    if (!std::getline(std::cin, question)) {
      if (prompt) prompt_for_line("\n");
      return false;
    }
    strip_line_end(question);
    if (question.find_first_not_of(" \t\r") != std::string::npos) return true;
  }
}

// Under -i the last argument is the first question when it cannot be a picture: it is no file, and
// has a space in it, as names seldom and questions mostly have.
void converse(AskOptions& options) {
  const AnswerOptions answer_options = options.sampling.get();
  std::vector<std::string> paths = options.arguments;
  std::string question;
  if (!paths.empty() && paths.back().find(' ') != std::string::npos && !is_file(paths.back())) {
    question = paths.back();
    paths.pop_back();
  }
  if (std::ranges::count(paths, "-") > 0) {
    throw UsageError("in a conversation standard input is for the questions");
  }
  Pictures pictures = read_pictures(paths, options.input.decode);
  Pipeline pipeline = options.model.open(1);
  dump_inputs(options, pipeline, pictures);
  Conversation conversation(pipeline);
  catch_interrupts();
  while (!question.empty() || read_question(options, question)) {
    // To a person, one bad question does not end the conversation; to a script it is a failure.
    try {
      conversation.ask(question, pictures, answer_options);
    } catch (const host::Error& error) {
      if (!stdin_is_terminal()) throw;
      note(fmt::format("ocelli: {}", error.what()));
      question.clear();
      continue;
    }
    pictures = {};
    question.clear();
    run_to_end(pipeline, conversation, [&](const std::string& text) {
      if (!options.as_json && !text.empty()) print(text);
    });
    print(options.as_json ? json_line(to_json(conversation.answer())) : "\n");
    if (!options.as_json && !options.model.quiet) note(summary(conversation.answer()));
  }
  options.model.finish(pipeline);
}

void ask_many(AskOptions& options) {
  if (!options.arguments.empty()) throw UsageError("--jsonl takes its questions from the file");
  const AnswerOptions answer_options = options.sampling.get();
  std::vector<Question> questions;
  std::vector<json> objects;
  for (const Line& text : read_lines(options.jsonl)) {
    QuestionLine line = parse_question_line(text, options.jsonl);
    questions.push_back(std::move(line.question));
    objects.push_back(std::move(line.object));
  }
  Pipeline pipeline = options.model.open(options.input.batch);
  catch_interrupts();
  size_t failed = 0;
  const auto done = [&](size_t index, const Result& result) {
    // The line comes back with its answer. What else stood in it stays, but what the file expected
    // is not what the model said.
    json object = objects[index].is_object() ? objects[index] : json::object();
    for (const char* key : {"answer", "finish", "tokens", "timings_ms", "error"}) object.erase(key);
    if (result.error.empty()) {
      object.update(to_json(result.answer));
    } else {
      object["error"] = result.error;
      ++failed;
    }
    print(json_line(object));
  };
  const bool whole = answer_all(pipeline, questions, answer_options, options.input.decode, done);
  options.model.finish(pipeline);
  if (!whole) throw Exit{kInterruptedExit};
  if (failed > 0) host::fail("{} of {} questions failed", failed, questions.size());
}

void run_ask(AskOptions& options) {
  if (!options.jsonl.empty()) {
    if (options.interactive) throw UsageError("--jsonl and -i exclude each other");
    if (options.as_json) throw UsageError("--jsonl prints JSON lines anyway: leave --json out");
    if (!options.dump_input.empty())
      throw UsageError("--jsonl and --dump-input exclude each other");
    if (!options.heatmap.path.empty()) throw UsageError("--jsonl and --heatmap exclude each other");
    return ask_many(options);
  }
  if (options.interactive) {
    if (!options.heatmap.path.empty()) throw UsageError("-i and --heatmap exclude each other");
    return converse(options);
  }
  if (options.arguments.empty()) {
    throw UsageError("ask what? For example: ocelli ask photo.jpg \"What is this?\"");
  }
  ask_once(options);
}

}  // namespace

void add_ask(CLI::App& program) {
  auto options = std::make_shared<AskOptions>();
  CLI::App* command = program.add_subcommand("ask", "Answer questions about pictures");
  command
      ->add_option("arguments", options->arguments,
                   "Pictures, then the question; \"-\" reads standard input")
      ->type_name("[IMAGE]... QUESTION");
  command->add_flag("-i,--interactive", options->interactive,
                    "A conversation: more questions about the same pictures");
  command->add_option("--jsonl", options->jsonl,
                      "Answer every {\"image\", \"question\"} line of this file (\"-\": stdin)");
  command->add_flag("--json", options->as_json, "Print one JSON object an answer");
  command->add_option("--dump-input", options->dump_input,
                      "Write the picture as the model sees it (PNG)");
  CLI::Option* heatmap = command->add_option(
      "--heatmap", options->heatmap.path, "Write where the model looked, over the picture (PNG)");
  command->add_flag("--heatmap-words", options->heatmap.words, "And for each word of the answer")
      ->needs(heatmap);
  options->model.add_to(*command);
  options->model.add_system_to(*command);
  options->model.add_row_cache_to(*command);
  options->sampling.add_to(*command);
  options->input.add_to(*command);
  command->footer(
      "Examples:\n"
      "  ocelli ask photo.jpg \"What is in the picture?\"\n"
      "  ocelli ask -i photo.jpg\n"
      "  cat photo.png | ocelli ask --quiet - \"How many?\"\n"
      "  ocelli ask --jsonl questions.jsonl > answers.jsonl\n"
      "Picture formats: JPEG, PNG, WebP, BMP, TIFF, PPM.");
  command->callback([options] { run_ask(*options); });
}

}  // namespace ocelli::app
