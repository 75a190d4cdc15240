#include "app/conversation.h"

#include <algorithm>
#include <utility>

#include "host/error.h"

namespace ocelli::app {

using llm::FinishReason;
using vision::Image;

namespace {

constexpr int kDefaultMaxTokens = 512;  // as the reference

bool blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

}  // namespace

const char* name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken:
      return "stop";
    case FinishReason::kMaxTokens:
      return "length";
    case FinishReason::kNotFinite:
    case FinishReason::kNone:
      break;
  }
  return "interrupted";
}

Conversation::Conversation(Pipeline& pipeline) : pipeline_(pipeline) {
  const std::optional<int> place = pipeline.engine().open();
  OCELLI_CHECK(place.has_value(), "every sequence of the engine is taken");
  sequence_ = *place;
}

Conversation::~Conversation() {
  pipeline_.engine().close(sequence_);
}

void Conversation::ask(std::string_view question, const Pictures& pictures,
                       const AnswerOptions& options) {
  const std::vector<Image>& images = pictures.images;
  if (blank(question)) host::fail("the question is empty");
  const auto& vision = pipeline_.config().vision;
  if (!images.empty() && !vision) {
    host::fail("this model ({}) reads text only: it cannot look at pictures",
               pipeline_.config().model_type);
  }
  const int image_count = static_cast<int>(images.size());
  const llm::PromptTemplate& prompts = pipeline_.prompts();
  const llm::Prompt prompt = first_turn_
                                 ? prompts.first_turn(question, image_count, options.begin_with)
                                 : prompts.next_turn(question, image_count, options.begin_with);
  answer_ = {};
  answer_.timings.load = pipeline_.load_ms();
  answer_.timings.image = pictures.decode_ms;
  answer_.prompt_tokens = static_cast<int>(llm::text_tokens(prompt));
  answer_.image_rows = vision ? image_count * vision->image_rows() : 0;
  stops_.emplace(options.stop_strings);
  utf8_ = {};
  answer_.text = options.begin_with;
  begun_ = !options.begin_with.empty();
  begin_with_ = options.begin_with.size();
  llm::GenerationOptions generation;
  generation.max_tokens = choose_max_tokens(answer_.prompt_tokens + answer_.image_rows, options);
  generation.sampler = options.sampler;
  generation.stop_tokens = {pipeline_.tokenizer().eos()};
  generation.probabilities = options.confidence;

  std::vector<llm::ContextPiece> pieces;
  for (const llm::PromptPiece& piece : prompt) {
    if (piece.image < 0) {
      pieces.push_back({piece.ids, {}});
      continue;
    }
    Stopwatch watch;
    const Image& image = images[piece.image];
    const Image seen = pictures.preprocessed ? image : pipeline_.preprocess(image);
    answer_.timings.image += watch.elapsed_ms();
    pieces.push_back({{}, pipeline_.encode(seen, answer_.timings)});
  }
  watch_gaze(pieces);
  pipeline_.engine().submit(sequence_, std::move(pieces), generation);
  first_turn_ = false;
  finished_ = false;
  watch_ = {};
}

// Refuses, with the numbers, what cannot fit; the engine would too, but after the encoder has run.
int Conversation::choose_max_tokens(int prompt_rows, const AnswerOptions& options) const {
  const int context = pipeline_.context();
  const int room = pipeline_.engine().room(sequence_);
  const int most = room - prompt_rows + 1;  // the last token needs no position
  const int wanted = options.max_tokens.value_or(std::min(kDefaultMaxTokens, std::max(1, most)));
  if (wanted > most) {
    host::fail(
        "the context is too small: of {} positions {} are taken, the question needs {} ({} of them "
        "pictures) and the answer up to {}",
        context, context - room, prompt_rows, answer_.image_rows, wanted);
  }
  return wanted;
}

void Conversation::watch_gaze(std::span<const llm::ContextPiece> pieces) {
  kernels::AttentionProbe* probe = pipeline_.probe();
  if (probe == nullptr) return;
  // A token that waits for its position goes before the prompt: room() counts it as there.
  int position = pipeline_.context() - pipeline_.engine().room(sequence_);
  std::vector<PicturePlace> pictures;
  for (const llm::ContextPiece& piece : pieces) {
    if (piece.tokens.empty()) pictures.push_back({position, piece.size()});
    position += piece.size();
  }
  gaze_ = std::make_unique<GazeRecorder>(*probe, sequence_, pictures, position);
}

std::string Conversation::accept(const llm::Output& output) {
  if (output.finish == FinishReason::kNotFinite) {
    finished_ = true;
    throw host::Error(pipeline_.why_not_finite());
  }
  ++answer_.tokens;
  answer_.confidence += (output.probability - answer_.confidence) / answer_.tokens;
  if (answer_.tokens == 1) answer_.timings.prefill = watch_.lap_ms();
  answer_.timings.generate = answer_.tokens == 1 ? 0 : watch_.elapsed_ms();
  answer_.finish = output.finish;
  if (output.finish != FinishReason::kNone) finished_ = true;
  if (output.finish == FinishReason::kStopToken) return {};
  const std::string_view bytes = pipeline_.tokenizer().token_bytes(output.token);
  if (gaze_) gaze_->accept(bytes);
  std::string text = show(utf8_.push(bytes));
  if (stops_->stopped()) {
    if (!finished_) pipeline_.engine().stop(sequence_);
    answer_.finish = FinishReason::kStopToken;
    finished_ = true;
  }
  return text;
}

std::string Conversation::finish() {
  std::string text = show(utf8_.flush());
  const std::string held = stops_->flush();
  answer_.text += held;
  if (gaze_) {
    answer_.gaze = gaze_->finish(std::string_view(answer_.text).substr(begin_with_));
    gaze_.reset();
  }
  return text + held;
}

void Conversation::interrupt() {
  pipeline_.engine().stop(sequence_);
  finished_ = true;
}

// What of the characters can be shown. The model answers after "ASSISTANT:" with a space first,
// which is no part of the answer.
std::string Conversation::show(std::string text) {
  if (!begun_) text.erase(0, text.find_first_not_of(" \t\r\n"));
  begun_ = begun_ || !text.empty();
  std::string shown = stops_->push(text);
  answer_.text += shown;
  return shown;
}

}  // namespace ocelli::app
