// Questions about pictures, and the answers as they come.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/gaze.h"
#include "app/pipeline.h"
#include "app/stopwatch.h"
#include "llm/stop_matcher.h"
#include "llm/utf8_stream.h"

namespace ocelli::app {

// The pictures of a question, and how long they took to decode.
struct Pictures {
  std::vector<vision::Image> images;
  double decode_ms = 0;
  bool preprocessed = false;  // they are as the model sees them already (Pipeline::preprocess)
};

struct AnswerOptions {
  std::optional<int> max_tokens;  // none: 512, or what the context leaves
  llm::SamplerOptions sampler;
  std::vector<std::string> stop_strings;
  std::string begin_with;   // the answer's first words; no white space around them
  bool confidence = false;  // measure Answer::confidence, which takes a pass over the vocabulary
};

struct Answer {
  std::string text;  // without the space that comes before it; begins as begin_with says
  int prompt_tokens = 0;
  int image_rows = 0;
  int tokens = 0;         // generated, the one that ended the answer included
  double confidence = 0;  // the mean probability of these, where it was asked for
  llm::FinishReason finish = llm::FinishReason::kNone;
  Timings timings;
  Gaze gaze;  // where it looked, of a pipeline with a probe
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

  // Takes a token; returns the text that can be shown now, whole characters, begin_with left out.
  // Throws host::Error when the model computed NaN, and is finished then.
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
  // Records where the answer to the prompt in `pieces` looks, if the pipeline has a probe.
  void watch_gaze(std::span<const llm::ContextPiece> pieces);

  Pipeline& pipeline_;
  int sequence_ = -1;
  bool first_turn_ = true;
  bool finished_ = true;
  bool begun_ = false;  // the answer's first visible character has come
  Answer answer_;
  llm::Utf8Stream utf8_;
  std::optional<llm::StopMatcher> stops_;
  std::unique_ptr<GazeRecorder> gaze_;
  size_t begin_with_ = 0;  // bytes of answer_.text that the model did not say
  Stopwatch watch_;
};

}  // namespace ocelli::app
