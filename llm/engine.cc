#include "llm/engine.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "host/error.h"

namespace ocelli::llm {

using kernels::DType;
using kernels::Placement;
using kernels::Tensor;

Engine::Engine(kernels::Ops& ops, Decoder& decoder)
    : ops_(ops),
      decoder_(decoder),
      sequences_(decoder.limits().sequences),
      beginnings_(sequences_.size()) {
  const DecoderLimits& limits = decoder.limits();
  x_ = ops.tensor(limits.max_rows, decoder.hidden_size(), DType::kF32, Placement::kActivation);
  logits_ = ops.tensor(limits.sequences, decoder.vocab_size(), DType::kF32, Placement::kActivation);
  host_logits_.resize(static_cast<size_t>(limits.sequences) * decoder.vocab_size());
  for (auto* list : {&wanted_rows_, &wanted_}) list->reserve(limits.sequences);
  for (Beginning& beginning : beginnings_) beginning.tokens.reserve(limits.capacity);
  segments_.reserve(limits.sequences);
  outputs_.reserve(limits.sequences);
  copy_rows_.resize(limits.max_rows);
  tokens_.resize(limits.sequences);
}

std::optional<int> Engine::open() {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (sequences_[i].open) continue;
    sequences_[i] = {};
    sequences_[i].open = true;
    return static_cast<int>(i);
  }
  return std::nullopt;
}

void Engine::close(int sequence) {
  sequences_[sequence] = {};
}

int Engine::past(int sequence) const {
  return sequences_[sequence].past;
}

int Engine::room(int sequence) const {
  const Sequence& s = sequences_[sequence];
  int waiting = s.pending >= 0 ? 1 : 0;
  for (size_t i = s.piece; i < s.prompt.size(); ++i) waiting += s.prompt[i].size();
  return decoder_.limits().capacity - s.past - waiting + s.piece_begin;
}

void Engine::submit(int sequence, std::vector<ContextPiece> prompt,
                    const GenerationOptions& options) {
  Sequence& s = sequences_[sequence];
  OCELLI_CHECK(s.open && !s.active, "sequence {} is not waiting for a prompt", sequence);
  const int size =
      std::accumulate(prompt.begin(), prompt.end(), 0,
                      [](int sum, const ContextPiece& piece) { return sum + piece.size(); });
  OCELLI_CHECK(size > 0 && options.max_tokens > 0, "{} rows, {} tokens", size, options.max_tokens);
  // The last token generated is never fed back, so it needs no position.
  if (size + options.max_tokens - 1 > room(sequence)) {
    host::fail(
        "the context is too small: {} positions are taken, the prompt needs {} and the answer "
        "up to {}, of {}; ask for fewer tokens or a shorter prompt",
        decoder_.limits().capacity - room(sequence), size, options.max_tokens,
        decoder_.limits().capacity);
  }
  Sampler sampler(options.sampler, decoder_.vocab_size());  // may refuse; nothing is changed yet
  s.history.clear();
  s.history.reserve(options.max_tokens);
  // What an earlier stop() left behind goes first.
  s.prompt.erase(s.prompt.begin(), s.prompt.begin() + static_cast<int64_t>(s.piece));
  s.piece = 0;
  if (s.pending >= 0) s.prompt.push_back({{std::exchange(s.pending, -1)}, {}});
  std::ranges::move(prompt, std::back_inserter(s.prompt));
  if (s.past == 0) skip_beginning(sequence, size - 1);  // the last row's logits are wanted
  s.generated = 0;
  s.options = options;
  s.sampler = std::move(sampler);
  s.active = true;
}

// Takes the first tokens of a new sequence's prompt, at most `most`, as run where its place's cache
// begins with the same ones. All that follows in the cache is forgotten.
void Engine::skip_beginning(int index, int most) {
  Sequence& s = sequences_[index];
  Beginning& beginning = beginnings_[index];
  most = std::min(most, static_cast<int>(beginning.run));
  while (s.past < most) {
    const std::vector<int32_t>& tokens = s.prompt[s.piece].tokens;
    const auto known = std::span(beginning.tokens).subspan(s.past, most - s.past);
    const auto alike = std::ranges::mismatch(tokens, known).in1 - tokens.begin();
    s.past += static_cast<int>(alike);
    s.piece_begin = static_cast<int>(alike);
    if (tokens.empty() || alike < std::ssize(tokens)) break;
    ++s.piece;
    s.piece_begin = 0;
  }
  beginning.tokens.resize(s.past);
  beginning.run = s.past;
}

void Engine::stop(int sequence) {
  sequences_[sequence].active = false;
}

bool Engine::busy() const {
  return std::ranges::any_of(sequences_, [](const Sequence& s) { return s.active; });
}

bool Engine::prompt_done(const Sequence& sequence) const {
  return sequence.piece == sequence.prompt.size();
}

int Engine::add_prompt_rows(int index, int first_row, int room) {
  Sequence& sequence = sequences_[index];
  int rows = 0;
  while (!prompt_done(sequence) && rows < room) {
    const ContextPiece& piece = sequence.prompt[sequence.piece];
    const int count = std::min(piece.size() - sequence.piece_begin, room - rows);
    const Tensor target = x_.row_range(first_row + rows, count);
    if (!piece.tokens.empty()) {
      const auto tokens = std::span(piece.tokens).subspan(sequence.piece_begin, count);
      decoder_.embed(tokens, target);
      note_beginning(index, tokens, sequence.past + rows);
    } else {
      const auto copied = std::span(copy_rows_).first(count);
      std::iota(copied.begin(), copied.end(), sequence.piece_begin);
      ops_.embed(piece.rows, copied, target);
    }
    rows += count;
    sequence.piece_begin += count;
    if (sequence.piece_begin == piece.size()) {
      sequence.prompt[sequence.piece] = {};  // its rows are an image's megabytes
      ++sequence.piece;
      sequence.piece_begin = 0;
    }
  }
  return rows;
}

// Tokens of a prompt are in the step in hand, to stand at `position` and on.
void Engine::note_beginning(int index, std::span<const int32_t> tokens, int position) {
  std::vector<int32_t>& known = beginnings_[index].tokens;
  if (std::ssize(known) == position) known.insert(known.end(), tokens.begin(), tokens.end());
}

// Puts the next rows of a sequence into x, at most `room` of them, and returns how many.
int Engine::add_rows(int index, int first_row, int room) {
  Sequence& s = sequences_[index];
  int rows = 1;
  const bool sampled = prompt_done(s);
  if (!sampled) {
    rows = add_prompt_rows(index, first_row, room);
  } else {
    decoder_.embed({&s.pending, 1}, x_.row_range(first_row, 1));
    s.pending = -1;
  }
  segments_.push_back({index, first_row, rows, s.past, sampled});
  s.past += rows;
  if (prompt_done(s)) {
    wanted_.push_back(index);
    wanted_rows_.push_back(first_row + rows - 1);
  }
  return rows;
}

// Puts what the step computes into x and returns how many rows that is. Tokens go first, a row
// each: prompts take what is left, so that no long one holds up the others, and weights that are
// read for it serve their tokens too.
int Engine::fill_rows() {
  const int count = static_cast<int>(sequences_.size());
  const bool waiting = std::ranges::any_of(
      sequences_, [&](const Sequence& s) { return s.active && !prompt_done(s); });
  int rows = 0;
  for (const bool prompts : {false, true}) {
    // A row is kept for a prompt, or it might never have its turn.
    const int limit = waiting && !prompts ? x_.rows - 1 : x_.rows;
    for (int i = 0; i < count && rows < limit; ++i) {
      const int index = (next_ + i) % count;
      const Sequence& s = sequences_[index];
      if (s.active && prompt_done(s) != prompts) rows += add_rows(index, rows, limit - rows);
    }
  }
  next_ = count > 0 ? (next_ + 1) % count : 0;
  return rows;
}

std::span<const Output> Engine::step() {
  segments_.clear();
  wanted_.clear();
  wanted_rows_.clear();
  outputs_.clear();
  // Of a step that threw nothing counts.
  for (Beginning& beginning : beginnings_) beginning.tokens.resize(beginning.run);
  const int rows = fill_rows();
  if (rows == 0) return outputs_;
  const Tensor x = x_.row_range(0, rows);
  const Tensor last = decoder_.forward(x, segments_, wanted_rows_);
  for (Beginning& beginning : beginnings_) beginning.run = std::ssize(beginning.tokens);
  if (wanted_.empty()) return outputs_;

  const int vocab = decoder_.vocab_size();
  const Tensor logits = logits_.row_range(0, static_cast<int>(wanted_.size()));
  decoder_.logits(last, logits);
  if (likeliest_wanted()) {  // found where the logits are
    const auto tokens = std::span(tokens_).first(wanted_.size());
    ops_.argmax(logits, host_logits_, tokens);
    for (size_t i = 0; i < wanted_.size(); ++i) outputs_.push_back(accept(wanted_[i], tokens[i]));
    return outputs_;
  }
  const auto values = std::span(host_logits_).first(wanted_.size() * vocab);
  ops_.read(logits, values);
  for (size_t i = 0; i < wanted_.size(); ++i) {
    outputs_.push_back(sample(wanted_[i], values.subspan(i * vocab, vocab)));
  }
  return outputs_;
}

bool Engine::likeliest_wanted() const {
  return std::ranges::all_of(wanted_, [&](int index) {
    const Sequence& s = sequences_[index];
    return s.sampler->takes_likeliest() && !s.options.probabilities;
  });
}

Output Engine::sample(int index, std::span<const float> logits) {
  Sequence& s = sequences_[index];
  const int32_t token = s.sampler->sample(logits, s.history);
  Output output = accept(index, token);
  if (s.options.probabilities && output.finish != FinishReason::kNotFinite) {
    output.probability = static_cast<float>(token_probability(logits, token));
  }
  return output;
}

// Takes a sequence's next token, or Sampler::kNotFinite.
Output Engine::accept(int index, int32_t token) {
  Sequence& s = sequences_[index];
  if (token == Sampler::kNotFinite) {
    s.active = false;
    beginnings_[index].tokens.clear();
    beginnings_[index].run = 0;
    return {index, -1, 0, FinishReason::kNotFinite};
  }
  Output output{index, token, 0, FinishReason::kNone};
  s.history.push_back(token);
  ++s.generated;
  if (std::ranges::find(s.options.stop_tokens, token) != s.options.stop_tokens.end()) {
    output.finish = FinishReason::kStopToken;
  } else {
    s.pending = token;
    if (s.generated == s.options.max_tokens) output.finish = FinishReason::kMaxTokens;
  }
  if (output.finish != FinishReason::kNone) s.active = false;
  return output;
}

}  // namespace ocelli::llm
