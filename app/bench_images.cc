#include "app/bench_images.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "app/batch.h"
#include "app/json_output.h"
#include "app/terminal.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

namespace fs = std::filesystem;

constexpr const char* kQuestion = "Describe the picture.";
constexpr int kMostTokens = 32;

struct Step {
  const char* name;
  std::vector<double> milliseconds;  // one a picture
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::vector<std::string> files_in(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> paths;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;  // what cannot be looked at is no file to be read
    if (entry->is_regular_file(ignored)) paths.push_back(entry->path().string());
  }
  if (error) host::fail("{}: cannot be listed: {}", host::printable(folder), error.message());
  std::ranges::sort(paths);
  return paths;
}

Answer answer_about(Pipeline& pipeline, const Pictures& pictures) {
  AnswerOptions options;
  options.max_tokens = kMostTokens;
  Conversation conversation(pipeline);
  conversation.ask(kQuestion, pictures, options);
  while (!conversation.finished()) {
    for (const llm::Output& output : pipeline.engine().step()) conversation.accept(output);
  }
  return conversation.answer();
}

class ImageSteps {
 public:
  void add(const Answer& answer, double decode_ms) {
    const Timings& t = answer.timings;
    const double after_first = std::max(1, answer.tokens - 1);
    const double times[] = {decode_ms,   t.image - decode_ms, t.encode,
                            t.connector, t.prefill,           t.generate / after_first};
    for (size_t i = 0; i < std::size(times); ++i) steps_[i].milliseconds.push_back(times[i]);
  }

  size_t images() const { return steps_[0].milliseconds.size(); }
  const std::vector<Step>& steps() const { return steps_; }

 private:
  std::vector<Step> steps_ = {{"decode", {}},    {"resize", {}},  {"encode", {}},
                              {"connector", {}}, {"prefill", {}}, {"generate", {}}};
};

void print_json(const Pipeline& pipeline, const ImageSteps& timed) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Step& step : timed.steps()) {
    rows.push_back({{"name", step.name}, {"seconds", median(step.milliseconds) / 1e3}});
  }
  print(json_line({{"model", pipeline.config().model_type},
                   {"images", timed.images()},
                   {"rows", std::move(rows)}}));
}

void print_table(const ImageSteps& timed) {
  std::string text = fmt::format("pictures: {}; medians\n\n", timed.images());
  for (const Step& step : timed.steps()) {
    text += fmt::format("{:<12}{:>10.2f} ms\n", step.name, median(step.milliseconds));
  }
  print(text + "\nresize: to the model's square, and its patches. generate: one token.\n");
}

}  // namespace

void bench_images(Pipeline& pipeline, const std::string& folder, bool as_json, bool quiet) {
  if (!pipeline.config().vision) {
    host::fail("this model ({}) reads text only: it cannot look at pictures",
               pipeline.config().model_type);
  }
  ImageSteps timed;
  const std::vector<std::string> paths = files_in(folder);
  Progress progress("pictures", paths.size(), !quiet);
  bool warm = false;
  for (size_t i = 0; i < paths.size(); ++i) {
    try {
      const Pictures pictures = read_pictures({paths[i]}, {});
      if (!warm) answer_about(pipeline, pictures);
      warm = true;
      timed.add(answer_about(pipeline, pictures), pictures.decode_ms);
    } catch (const host::Error& error) {
      if (!quiet) note(error.what());
    }
    progress.advance(i + 1);
  }
  if (timed.images() == 0) host::fail("{}: holds no pictures", host::printable(folder));
  if (as_json) {
    print_json(pipeline, timed);
  } else {
    print_table(timed);
  }
}

}  // namespace ocelli::app
