// Sequences in, tokens out: runs prompts and decodes many sequences together, each weight read
// once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "llm/decoder.h"
#include "llm/sampler.h"

namespace ocelli::llm {

// A run of positions to add to a context: tokens to embed, or rows that are embeddings already.
struct ContextPiece {
  std::vector<int32_t> tokens;
  kernels::Tensor rows;  // [n, hidden_size]; used where tokens is empty. Kept until it is consumed.

  int size() const { return tokens.empty() ? rows.rows : static_cast<int>(tokens.size()); }
};

struct GenerationOptions {
  int max_tokens = 512;
  std::vector<int32_t> stop_tokens;  // end the answer, and are reported with kStopToken
  SamplerOptions sampler;
  bool probabilities = false;  // fill Output::probability in: a pass over the vocabulary each token
};

// kNotFinite: the logits were NaN or infinite, because a weight is or an activation overflowed.
// There is no token then, and what follows in that sequence means nothing.
enum class FinishReason { kNone, kStopToken, kMaxTokens, kNotFinite };

// One new token of one sequence.
struct Output {
  int sequence = 0;
  int32_t token = 0;
  float probability = 0;  // that the model gave the token, when asked for
  FinishReason finish = FinishReason::kNone;
};

// A sequence is opened, given a prompt, stepped until it finishes, given another prompt if the
// conversation goes on, and closed. What a sequence says does not depend on the others: not on how
// many there are, nor on when they came.
//
// A place keeps its keys and values when it is closed. Where the first prompt of the next sequence
// there begins with the tokens that the last one's began with, as every question about a picture
// does, these are not run again. A row has the same bits in whatever pieces a prompt is run, so
// nothing else changes.
class Engine {
 public:
  // Both must outlive this, and nobody else may run the decoder meanwhile: its cache is this one's.
  Engine(kernels::Ops& ops, Decoder& decoder);

  // A free place, with an empty context; none when limits().sequences are open.
  std::optional<int> open();
  void close(int sequence);

  // Positions a sequence holds already, and those it can still take.
  int past(int sequence) const;
  int room(int sequence) const;

  // Appends a prompt to the sequence's context, to be run by the next steps, and then generates. A
  // token generated earlier that the context does not hold yet goes first, unless it was a stop
  // token. Throws host::Error when prompt and max_tokens exceed room().
  void submit(int sequence, std::vector<ContextPiece> prompt, const GenerationOptions& options);

  // Stops generating. What was generated stays in the context, and a prompt that was not run to its
  // end is run with the next one.
  void stop(int sequence);

  // True while a sequence has something to do.
  bool busy() const;

  // Runs one forward pass over everything that is waiting, in at most max_rows rows: a token of
  // every sequence that generates, and as much of the prompts as fits beside them; and samples a
  // token for each sequence whose prompt is done. The result is valid until the next call.
  std::span<const Output> step();

 private:
  struct Sequence {
    bool open = false;
    bool active = false;
    int past = 0;
    std::vector<ContextPiece> prompt;
    size_t piece = 0;      // of prompt: the one in hand
    int piece_begin = 0;   // and how much of it has been consumed
    int32_t pending = -1;  // generated, not in the context yet
    int generated = 0;
    GenerationOptions options;
    std::optional<Sampler> sampler;
    std::vector<int32_t> history;  // tokens of the answer, for the penalty (as the reference)
  };

  // What a place's cache begins with: tokens of a prompt from position 0 on, up to the first row
  // that is none of these. A sampled token's row counts as none: its attention may have been more
  // exact (Segment::sampled).
  struct Beginning {
    std::vector<int32_t> tokens;
    int64_t run = 0;  // so many of them are in the cache; the others are in the step in hand
  };

  bool prompt_done(const Sequence& sequence) const;
  void skip_beginning(int index, int most);
  int fill_rows();
  int add_rows(int index, int first_row, int room);
  int add_prompt_rows(int index, int first_row, int room);
  void note_beginning(int index, std::span<const int32_t> tokens, int position);
  bool likeliest_wanted() const;
  Output sample(int index, std::span<const float> logits);
  Output accept(int index, int32_t token);

  kernels::Ops& ops_;
  Decoder& decoder_;
  std::vector<Sequence> sequences_;
  std::vector<Beginning> beginnings_;  // of each place, open or not
  int next_ = 0;                       // where the next step begins, so that no prompt starves
  kernels::Tensor x_;                  // [max_rows, hidden]
  kernels::Tensor logits_;             // [sequences, vocab]
  std::vector<float> host_logits_;
  std::vector<kernels::Segment> segments_;
  std::vector<int32_t> wanted_rows_;  // the last row of each sequence that samples now
  std::vector<int> wanted_;           // and the sequence
  std::vector<int32_t> copy_rows_;
  std::vector<int32_t> tokens_;  // of the sequences of wanted_
  std::vector<Output> outputs_;
};

}  // namespace ocelli::llm
