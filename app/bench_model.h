// A model's parts on a backend, run step by step without tokenizer or pictures: what a benchmark
// times.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "app/bench_meter.h"
#include "app/kept_rows.h"
#include "app/model.h"
#include "kernels/ops.h"
#include "llm/engine.h"

namespace ocelli::app {

struct BenchShape {
  int prompt_rows = 0;     // of a prefill; with a picture, its rows among them
  int context = 0;         // positions in the cache while decoding
  int most_batch = 1;      // sequences
  int caption_tokens = 0;  // that caption() generates of each picture; 0: there will be none
  kernels::DType kv_dtype = kernels::DType::kF32;

  // Positions of a sequence.
  int capacity() const;
};

class BenchModel {
 public:
  // The weights' memory must outlive this.
  BenchModel(const ModelConfig& config, const ModelWeights& weights, const BenchShape& shape,
             std::unique_ptr<kernels::Ops> ops);

  MeteredOps& ops() { return ops_; }
  // Fills every sequence's cache with random keys and values.
  void fill_cache();

  // Each waits for its results. A picture's patches through the vision tower, its features through
  // the connector, and a prompt of shape.prompt_rows tokens to its first token; the prefill leaves
  // its keys and values where fill_cache() puts its own.
  void encode();
  void connect();
  void prefill();
  // The three in a row for a prompt with a picture: text, the picture, text.
  void first_token();
  // `count` whole captions through the engine, at most `places` of them at a time: the picture
  // through the tower and the connector, its prompt, and shape.caption_tokens tokens. A finished
  // one's place is taken at once, and prompts share steps with what is being decoded. Each call
  // begins anew: no place knows a prompt of the call before.
  void caption(int count, int places);
  // A token each for sequences 0 … batch − 1, all with shape.context positions before it.
  void decode(int batch);

 private:
  // Of a prompt with a picture; there is always some behind it.
  struct QuestionText {
    std::span<const int32_t> before, behind;
  };

  QuestionText question_text() const;
  void load_vision(const VisionConfig& config, const ModelWeights& weights);
  void wait_for(const kernels::Tensor& result);
  kernels::Tensor image_rows(const kernels::Tensor& features) const;
  // Runs the decoder over rows of x_ and takes the likeliest token for each of `wanted`.
  void forward(int rows, std::span<const kernels::Segment> segments,
               std::span<const int32_t> wanted);
  void forward_prompt();
  // Encodes the picture and submits it with its question.
  void submit_picture();

  ModelConfig config_;
  BenchShape shape_;
  MeteredOps ops_;
  KeptRows kept_rows_;
  std::unique_ptr<vision::Siglip> siglip_;
  std::unique_ptr<connector::Mlp> connector_;
  std::unique_ptr<llm::Decoder> decoder_;
  std::unique_ptr<llm::Engine> engine_;  // of the last caption()
  std::vector<float> patches_;           // of one picture
  kernels::Tensor features_;             // of the last encode()
  kernels::Tensor x_;                    // [most rows, hidden]
  kernels::Tensor logits_;               // [most batch, vocab]
  std::vector<float> host_logits_;       // of a row
  std::vector<int32_t> prompt_;          // tokens
  std::vector<int32_t> tokens_;          // the last of each sequence
};

}  // namespace ocelli::app
