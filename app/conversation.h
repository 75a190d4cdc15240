// Questions about pictures, and the answers as they come.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/pipeline.h"
#include "app/stopwatch.h"
#include "llm/stop_matcher.h"
#include "llm/utf8_stream.h"

namespace ocelli::app {

// The pictures of a question, and how long they took to decode.
struct Pictures {
  std::vector<vision::Image> images;
  double decode_ms = 0;
};

struct AnswerOptions {
  std::optional<int> max_tokens;  // none: 512, or what the context leaves
  llm::SamplerOptions sampler;
  std::vector<std::string> stop_strings;
};

struct Answer {
  std::string text;  // without the space that comes before it
  int prompt_tokens = 0;
  int image_rows = 0;
  int tokens = 0;  // generated, the one that ended the answer included
  llm::FinishReason finish = llm::FinishReason::kNone;
  Timings timings;
};

// "stop", "length" or "interrupted", as JSON output has it.
const char* name(llm::FinishReason reason);

// One sequence of the engine. ask() submits a question; the caller steps the pipeline and hands
// over the outputs that are this conversation's until finished(). Further questions continue the
// context.
class Conversation {
 public:
  // Takes a place in the pipeline's engine, which must have one free.
  explicit Conversation(Pipeline& pipeline);
  ~Conversation();
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  int sequence() const { return sequence_; }

  // Submits a question with its pictures, if any. Throws host::Error, before anything is encoded,
  // when the question is empty or not UTF-8, when the model cannot see, or when the context would
  // overflow.
  void ask(std::string_view question, const Pictures& pictures, const AnswerOptions& options);

  // Takes a token; returns the text that can be shown now, whole characters. Throws host::Error
  // when the model computed NaN, and is finished then.
  std::string accept(const llm::Output& output);
  // The end of an answer: the text that was held back.
  std::string finish();
  // Stops the answer in hand; finish() follows.
  void interrupt();

  bool finished() const { return finished_; }
  const Answer& answer() const { return answer_; }

 private:
  int choose_max_tokens(int prompt_rows, const AnswerOptions& options) const;
  std::string show(std::string text);

  Pipeline& pipeline_;
  int sequence_ = -1;
  bool first_turn_ = true;
  bool finished_ = true;
  bool begun_ = false;  // the answer's first visible character has come
  Answer answer_;
  llm::Utf8Stream utf8_;
  std::optional<llm::StopMatcher> stops_;
  Stopwatch watch_;
};

}  // namespace ocelli::app
