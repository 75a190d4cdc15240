#include "app/batch.h"

#include <algorithm>
#include <map>
#include <memory>
#include <sstream>

#include "app/terminal.h"
#include "host/error.h"
#include "host/mapped_file.h"

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
      for (const llm::Output& output : pipeline_.step()) accept(output);
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
    while (next_ < questions_.size() && running_.size() < places) {
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
      }
    }
  }

  void accept(const llm::Output& output) {
    const auto found = std::ranges::find_if(running_, [&](const Running& running) {
      return running.conversation->sequence() == output.sequence;
    });
    OCELLI_CHECK(found != running_.end(), "sequence {} is nobody's", output.sequence);
    Conversation& conversation = *found->conversation;
    conversation.accept(output);
    if (!conversation.finished()) return;
    conversation.finish();
    results_[found->index].answer = conversation.answer();
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

std::vector<std::string> read_lines(const std::string& path) {
  std::string text;
  if (path == "-") {
    text = read_stdin();
  } else {
    const host::MappedFile file(path);
    text.assign(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  }
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) lines.push_back(line);
  }
  return lines;
}

std::string resolve_image(const std::string& image, const std::string& list) {
  if (list == "-" || image == "-") return image;
  return (std::filesystem::path(list).parent_path() / image).string();
}

}  // namespace ocelli::app
