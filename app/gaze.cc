#include "app/gaze.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace ocelli::app {

using kernels::AttentionRecord;

namespace {

bool in_word(char c) {
  const auto byte = static_cast<unsigned char>(c);
  const auto letter = static_cast<unsigned char>(byte | 0x20);
  return byte >= 0x80 || (letter >= 'a' && letter <= 'z') || (byte >= '0' && byte <= '9') ||
         byte == '\'' || byte == '-';
}

struct Stretch {
  size_t begin = 0;
  size_t end = 0;
};

std::vector<Stretch> find_words(std::string_view text, Stretch within) {
  std::vector<Stretch> words;
  for (size_t i = within.begin; i < within.end; ++i) {
    if (!in_word(text[i])) continue;
    if (words.empty() || words.back().end != i) words.push_back({i, i});
    words.back().end = i + 1;
  }
  return words;
}

// Scales the weights to this sum; returns what it was. Those of sum 0 stay.
double bring_to(double wanted, RowWeights& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (sum <= 0) return 0;
  for (float& weight : weights) weight = static_cast<float>(weight * wanted / sum);
  return sum;
}

// What was recorded of one picture.
struct Recorded {
  RowWeights behind;
  AttentionRecord answer;

  // How much the rows that gave the tokens of these numbers looked.
  RowWeights looks_of(const std::vector<int>& tokens) const {
    RowWeights looks(behind.size());
    for (const int token : tokens) {
      if (token >= answer.rows) continue;  // it was interrupted
      const float* row = answer.weights.data() + int64_t{token} * answer.keys;
      for (size_t i = 0; i < looks.size(); ++i) looks[i] += row[i];
    }
    return looks;
  }
};

std::vector<RowWeights> weights_of(const std::vector<int>& tokens,
                                   const std::vector<Recorded>& pictures) {
  std::vector<RowWeights> all;
  std::vector<double> shares;
  for (const Recorded& picture : pictures) {
    RowWeights weights = picture.looks_of(tokens);
    shares.push_back(bring_to(1, weights));
    for (size_t i = 0; i < weights.size(); ++i) {
      weights[i] = std::max(0.0F, weights[i] - picture.behind[i]);
    }
    all.push_back(std::move(weights));
  }
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (size_t i = 0; i < all.size() && sum > 0; ++i) bring_to(shares[i] / sum, all[i]);
  return all;
}

}  // namespace

GazeRecorder::GazeRecorder(kernels::AttentionProbe& probe, int sequence,
                           std::span<const PicturePlace> pictures, int prompt_end)
    : probe_(probe) {
  for (const PicturePlace& place : pictures) {
    kernels::AttentionWatch watch;
    watch.sequence = sequence;
    watch.first_key = place.position;
    watch.keys = place.rows;
    watch.first_row = place.position + place.rows;
    watch.rows = 1;
    const int behind = probe.begin(watch);
    watch.first_row = prompt_end - 1;
    watch.rows = std::numeric_limits<int>::max();
    watches_.push_back({behind, probe.begin(watch)});
  }
}

GazeRecorder::~GazeRecorder() {
  end_watches();
}

void GazeRecorder::end_watches() {
  for (const Watches& watches : watches_) {
    probe_.end(watches.behind);
    probe_.end(watches.answer);
  }
  watches_.clear();
}

void GazeRecorder::accept(std::string_view token_bytes) {
  const size_t begin = text_.size();
  text_ += token_bytes;
  tokens_.push_back({begin, text_.size()});
}

Gaze GazeRecorder::finish(std::string_view said) {
  Stretch answer{0, text_.size()};
  // Bytes that are no UTF-8 were said as U+FFFD: all of the text is taken then.
  if (const size_t at = text_.find(said); at != std::string::npos) answer = {at, at + said.size()};
  std::vector<Recorded> recorded;
  for (const Watches& watches : std::exchange(watches_, {})) {
    AttentionRecord behind = probe_.end(watches.behind);
    behind.weights.resize(static_cast<size_t>(behind.keys));  // the prompt may not have been run
    bring_to(1, behind.weights);
    recorded.push_back({std::move(behind.weights), probe_.end(watches.answer)});
  }
  const auto gaze_of = [&](const Stretch& stretch) {
    std::vector<int> tokens;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i].begin < stretch.end && tokens_[i].end > stretch.begin) {
        tokens.push_back(static_cast<int>(i));
      }
    }
    return weights_of(tokens, recorded);
  };
  Gaze gaze;
  gaze.answer = gaze_of(answer);
  for (const Stretch& word : find_words(text_, answer)) {
    gaze.words.push_back({text_.substr(word.begin, word.end - word.begin), gaze_of(word)});
  }
  return gaze;
}

}  // namespace ocelli::app
