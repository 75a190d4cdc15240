#include "app/batch.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <new>
#include <sstream>

#include "app/terminal.h"
#include "host/error.h"

namespace ocelli::app {
namespace {

// The questions in the engine, and the results that wait for earlier ones.
class Batch {
 public:
  Batch(Pipeline& pipeline, const std::vector<Question>& questions, const AnswerOptions& options,
        const vision::DecodeOptions& decode)
      : pipeline_(pipeline), questions_(questions), options_(options), decode_(decode) {}

  bool run(const std::function<void(size_t, const Result&)>& done) {
    while (reported_ < questions_.size()) {
      if (interrupted()) return false;
      admit();
      for (const llm::Output& output : pipeline_.engine().step()) accept(output);
      while (!results_.empty() && results_.begin()->first == reported_) {
        done(reported_++, results_.begin()->second);
        results_.erase(results_.begin());
      }
    }
    return true;
  }

 private:
  struct Running {
    size_t index;
    std::unique_ptr<Conversation> conversation;
  };

  // Fills the free places of the engine with the next questions.
  void admit() {
    const size_t places = pipeline_.sequences();
    while (next_ < questions_.size() && running_.size() < places && !interrupted()) {
      const size_t index = next_++;
      const Question& question = questions_[index];
      if (!question.error.empty()) {
        results_[index].error = question.error;
        continue;
      }
      try {
        auto conversation = std::make_unique<Conversation>(pipeline_);
        conversation->ask(question.text, read_pictures(question.images, decode_), options_);
        running_.push_back({index, std::move(conversation)});
      } catch (const host::Error& error) {
        results_[index].error = error.what();
      } catch (const std::bad_alloc&) {
        results_[index].error = "out of memory";
      }
    }
  }

  void accept(const llm::Output& output) {
    const auto found = std::ranges::find_if(running_, [&](const Running& running) {
      return running.conversation->sequence() == output.sequence;
    });
    OCELLI_CHECK(found != running_.end(), "sequence {} is nobody's", output.sequence);
    Conversation& conversation = *found->conversation;
    Result result;
    try {
      conversation.accept(output);
      if (!conversation.finished()) return;
      conversation.finish();
      result.answer = conversation.answer();
    } catch (const host::Error& error) {
      result.error = error.what();
    }
    results_[found->index] = std::move(result);
    running_.erase(found);
  }

  Pipeline& pipeline_;
  const std::vector<Question>& questions_;
  const AnswerOptions& options_;
  const vision::DecodeOptions& decode_;
  std::vector<Running> running_;
  std::map<size_t, Result> results_;
  size_t next_ = 0;
  size_t reported_ = 0;
};

}  // namespace

bool answer_all(Pipeline& pipeline, const std::vector<Question>& questions,
                const AnswerOptions& options, const vision::DecodeOptions& decode,
                const std::function<void(size_t index, const Result& result)>& done) {
  return Batch(pipeline, questions, options, decode).run(done);
}

Pictures read_pictures(const std::vector<std::string>& paths, const vision::DecodeOptions& decode) {
  const Stopwatch watch;
  Pictures pictures;
  for (const std::string& path : paths) pictures.images.push_back(vision::read_image(path, decode));
  pictures.decode_ms = watch.elapsed_ms();
  return pictures;
}

std::vector<Line> read_lines(const std::string& path, std::string_view expected) {
  std::istringstream text;
  std::ifstream file;
  if (path == "-") {
    text.str(read_stdin());
  } else {
    file.open(path, std::ios::binary);
    if (!file || std::filesystem::is_directory(path)) host::fail("{}: cannot be read", path);
  }
  std::istream& stream = path == "-" ? static_cast<std::istream&>(text) : file;
  std::vector<Line> lines;
  size_t number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string::npos) lines.push_back({number, line});
  }
  if (lines.empty()) {
    host::fail("{}: holds no {}", path == "-" ? "standard input" : path, expected);
  }
  return lines;
}

std::string resolve_image(const std::string& image, const std::string& list) {
  if (list == "-" || image == "-") return image;
  return (std::filesystem::path(list).parent_path() / image).string();
}

}  // namespace ocelli::app
