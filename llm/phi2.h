// Phi-2: a decoder whose attention and MLP read the same norm and add to the same residual.
//
// Source: PhiModel and PhiForCausalLM of Hugging Face transformers; buffers carry its names.
#pragma once

#include <string>
#include <vector>

#include "kernels/checkpoint.h"
#include "llm/decoder_config.h"
#include "llm/layered_decoder.h"

namespace ocelli::llm {

// With PhiConfig's defaults.
struct Phi2Config : DecoderConfig {
  Phi2Config() : DecoderConfig{2048, 8192, 24, 32, 32, 51200} {}

  int rotary_dims = 32;  // of each head: int(partial_rotary_factor · head_dim)
  float layer_norm_eps = 1e-5F;
  bool lm_head_bias = true;  // checkpoints with the older LLaVA names have none

  // From a `text_config` or a Phi config.json. Throws host::Error for values that contradict one
  // another or that are not supported.
  static Phi2Config parse(const host::JsonObject& json);
};

struct Phi2Weights {
  struct Layer {
    kernels::HostTensor norm_weight, norm_bias;  // [hidden]
    kernels::LinearSource qkv;                   // [hidden + 2 · kv_width, hidden]
    kernels::LinearSource dense;                 // [hidden, hidden]
    kernels::LinearSource fc1;                   // [intermediate, hidden]
    kernels::LinearSource fc2;                   // [hidden, intermediate]
  };
  kernels::HostTensor embed_tokens;  // [vocab, hidden]
  std::vector<Layer> layers;
  kernels::HostTensor final_norm_weight, final_norm_bias;  // [hidden]
  kernels::LinearSource lm_head;                           // [vocab, hidden]

  // Asks `reader` for every tensor under `prefix` ("language_model." or nothing).
  static Phi2Weights read(kernels::TensorReader& reader, const std::string& prefix,
                          const Phi2Config& config);
};

class Phi2 : public LayeredDecoder {
 public:
  // Loads the weights and allocates caches and activations; `ops` and the weights' memory must
  // outlive this.
  Phi2(kernels::Ops& ops, const Phi2Config& config, const Phi2Weights& weights,
       const DecoderLimits& limits);

  void embed(std::span<const int32_t> ids, const kernels::Tensor& out) override;
  void logits(const kernels::Tensor& rows, const kernels::Tensor& out) override;

 private:
  struct Layer {
    kernels::Norm norm;
    kernels::Linear qkv;
    kernels::Linear dense;
    kernels::Linear fc1;
    kernels::Linear fc2;
  };

  void run_layer(int index, const kernels::Tensor& x, const kernels::Tensor& h,
                 std::span<const kernels::Segment> segments) override;
  const kernels::Norm& last_norm() const override { return layers_.back().norm; }

  kernels::Ops& ops_;
  kernels::Tensor embed_tokens_;  // [vocab, hidden]
  std::vector<Layer> layers_;
  kernels::Norm final_norm_;
  kernels::Linear lm_head_;
  kernels::Tensor hidden_;  // [max_rows, intermediate]
};

}  // namespace ocelli::llm
