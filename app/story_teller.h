// One text that a model goes on with, as it is told.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/pipeline.h"
#include "llm/utf8_stream.h"

namespace ocelli::app {

struct StoryOptions {
  int length = 0;  // tokens of prompt and story together, as llama2.c counts them
  llm::SamplerOptions sampler;
  bool as_llama2c = false;  // show what run.c shows, which leaves out lone unprintable bytes
};

struct Story {
  std::string text;  // the prompt's included
  int prompt_tokens = 0;
  int tokens = 0;  // generated, the one that ended the story included
  llm::FinishReason finish = llm::FinishReason::kNone;
};

// llm::text_from_beginning() of a prompt. Throws host::Error also when that leaves nothing to tell
// of `length` tokens.
std::vector<int32_t> story_prompt(const llm::Tokenizer& tokenizer, const std::string& prompt,
                                  int length);

// One sequence of the engine. The caller steps the pipeline and hands over the outputs that are
// this story's until it is finished().
class StoryTeller {
 public:
  // Takes a place in the pipeline's engine, which must have one free, and submits `ids`, of which
  // the first is the beginning of a text.
  StoryTeller(Pipeline& pipeline, const std::vector<int32_t>& ids, const StoryOptions& options);
  ~StoryTeller();
  StoryTeller(const StoryTeller&) = delete;
  StoryTeller& operator=(const StoryTeller&) = delete;

  // Its place in the engine, which it gives back when it is finished: -1 then.
  int sequence() const { return sequence_; }
  bool finished() const { return sequence_ < 0; }
  const Story& story() const { return story_; }

  // Takes a token, which adds to the story's text. Throws host::Error when the model computed NaN.
  void accept(const llm::Output& output);
  // Ends the story where it is.
  void interrupt();

 private:
  void tell(int32_t token);
  void end();

  Pipeline& pipeline_;
  StoryOptions options_;
  int sequence_ = -1;
  int32_t previous_ = -1;  // the token before, which decides on the space between
  Story story_;
  llm::Utf8Stream utf8_;
};

}  // namespace ocelli::app
