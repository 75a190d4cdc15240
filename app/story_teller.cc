#include "app/story_teller.h"

#include "host/error.h"

namespace ocelli::app {

using llm::FinishReason;

namespace {

// run.c prints no piece that is a single byte of no printable ASCII character.
bool hidden_by_llama2c(std::string_view bytes) {
  if (bytes.size() != 1) return false;
  const auto byte = static_cast<unsigned char>(bytes[0]);
  const bool space = byte == ' ' || (byte >= '\t' && byte <= '\r');
  return !space && (byte < 0x20 || byte >= 0x7F);
}

}  // namespace

std::vector<int32_t> story_prompt(const llm::Tokenizer& tokenizer, const std::string& prompt,
                                  int length) {
  std::vector<int32_t> ids = llm::text_from_beginning(tokenizer, prompt);
  const size_t told = ids.size() - 1;
  if (told >= static_cast<size_t>(length)) {
    host::fail("the prompt has {} tokens: of {} none are left for a story", told, length);
  }
  return ids;
}

StoryTeller::StoryTeller(Pipeline& pipeline, const std::vector<int32_t>& ids,
                         const StoryOptions& options)
    : pipeline_(pipeline), options_(options) {
  const std::optional<int> place = pipeline.engine().open();
  OCELLI_CHECK(place.has_value(), "every sequence of the engine is taken");
  sequence_ = *place;
  story_.prompt_tokens = static_cast<int>(ids.size()) - 1;
  previous_ = ids.front();
  for (size_t i = 1; i < ids.size(); ++i) tell(ids[i]);
  llm::GenerationOptions generation;
  generation.max_tokens = options.length - story_.prompt_tokens;
  generation.sampler = options.sampler;
  for (const int32_t id : {pipeline.tokenizer().bos(), pipeline.tokenizer().eos()}) {
    if (id >= 0) generation.stop_tokens.push_back(id);
  }
  pipeline.engine().submit(sequence_, {{ids, {}}}, generation);
}

StoryTeller::~StoryTeller() {
  if (!finished()) pipeline_.engine().close(sequence_);
}

void StoryTeller::accept(const llm::Output& output) {
  if (output.finish == FinishReason::kNotFinite) {
    end();
    throw host::Error(pipeline_.why_not_finite());
  }
  ++story_.tokens;
  story_.finish = output.finish;
  if (output.finish != FinishReason::kStopToken) tell(output.token);
  if (output.finish != FinishReason::kNone) end();
}

void StoryTeller::tell(int32_t token) {
  const std::string_view bytes = pipeline_.tokenizer().text_bytes(previous_, token);
  previous_ = token;
  if (options_.as_llama2c && hidden_by_llama2c(bytes)) return;
  story_.text += utf8_.push(bytes);
}

void StoryTeller::end() {
  story_.text += utf8_.flush();
  pipeline_.engine().close(sequence_);
  sequence_ = -1;
}

void StoryTeller::interrupt() {
  pipeline_.engine().stop(sequence_);
  end();
}

}  // namespace ocelli::app
