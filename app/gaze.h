// Where in its pictures a model looked for each word of an answer.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/attention_probe.h"

namespace ocelli::app {

// A weight for each of a picture's rows in the context, not negative. Those of all pictures of a
// question are 1 together (or 0 everywhere).
using RowWeights = std::vector<float>;

struct WordGaze {
  std::string word;  // letters and digits; what is not ASCII counts as letters
  std::vector<RowWeights> pictures;
};

// How the weights come about. Of a token the row that gave it is taken, of a word and of the whole
// answer the mean over their tokens' rows: how much each looked at the picture's rows, the mean
// over every head of every layer. Brought to a sum of 1, that is subtracted which the row right
// behind the picture looks at, likewise brought to 1; what remains above 0 is brought to 1 once
// more. That row has seen the picture but no question yet: patches that draw attention whatever is
// asked ("attention sinks") draw its as well. Of several pictures each has the share of the weights
// that it had of the looks.
struct Gaze {
  std::vector<RowWeights> answer;  // one a picture
  std::vector<WordGaze> words;     // as they come in the answer
};

// A picture's rows in the context of a sequence.
struct PicturePlace {
  int position = 0;
  int rows = 0;
};

// Records one answer.
class GazeRecorder {
 public:
  // `prompt_end` is the position behind the prompt's last row, which gives the answer's first
  // token. The prompt has not been run yet; `probe` must outlive this.
  GazeRecorder(kernels::AttentionProbe& probe, int sequence, std::span<const PicturePlace> pictures,
               int prompt_end);
  ~GazeRecorder();
  GazeRecorder(const GazeRecorder&) = delete;
  GazeRecorder& operator=(const GazeRecorder&) = delete;

  // The bytes of the answer's next token.
  void accept(std::string_view token_bytes);
  // Ends the recording. `said` is what of the tokens' bytes is the answer: white space before it
  // and what a stop string cut off are not.
  Gaze finish(std::string_view said);

 private:
  struct Token {
    size_t begin;  // in text_
    size_t end;
  };
  struct Watches {
    int behind;  // the row right behind the picture
    int answer;  // the rows that give tokens
  };
  void end_watches();

  kernels::AttentionProbe& probe_;
  std::vector<Watches> watches_;
  std::string text_;
  std::vector<Token> tokens_;
};

}  // namespace ocelli::app
