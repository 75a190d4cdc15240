// Llama2: a decoder of RMSNorm, rotary embeddings over whole heads and a SwiGLU MLP, without
// biases.
//
// Source: LlamaModel and LlamaForCausalLM of Hugging Face transformers; buffers carry its names.
// llama2.c's models are the same mathematics with the rotary pairs interleaved.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/checkpoint.h"
#include "kernels/llama2c.h"
#include "llm/decoder_config.h"
#include "llm/layered_decoder.h"

namespace ocelli::llm {

// Which dimensions of a head of d turn together: (i, i + d/2), or the neighbours (2i, 2i + 1).
enum class RotaryPairs { kHalved, kInterleaved };

// With LlamaConfig's defaults.
struct Llama2Config : DecoderConfig {
  Llama2Config() : DecoderConfig{4096, 11008, 32, 32, 32, 32000} {}

  float rms_norm_eps = 1e-6F;
  bool tie_word_embeddings = false;
  RotaryPairs pairs = RotaryPairs::kHalved;

  // From a Llama config.json. Throws host::Error for values that contradict one another or that are
  // not supported.
  static Llama2Config parse(const host::JsonObject& json);
  // From the header of a llama2.c file, which opening has checked.
  static Llama2Config from_llama2c(const kernels::Llama2cHeader& header);
};

struct Llama2Weights {
  struct Layer {
    kernels::HostTensor input_layernorm;           // [hidden]
    kernels::LinearSource qkv;                     // [hidden + 2 · kv_width, hidden]
    kernels::LinearSource o_proj;                  // [hidden, hidden]
    kernels::HostTensor post_attention_layernorm;  // [hidden]
    kernels::LinearSource gate_proj;               // [intermediate, hidden]
    kernels::LinearSource up_proj;                 // [intermediate, hidden]
    kernels::LinearSource down_proj;               // [hidden, intermediate]
  };
  kernels::HostTensor embed_tokens;  // [vocab, hidden]
  std::vector<Layer> layers;
  kernels::HostTensor norm;       // [hidden]
  kernels::LinearSource lm_head;  // [vocab, hidden]: embed_tokens itself where they are tied
  // Where interleaved pairs were turned into halves: the rows of q and k in their new order.
  std::vector<std::shared_ptr<const std::byte[]>> permuted;

  // Asks `reader` for every tensor under Hugging Face's names.
  static Llama2Weights read(kernels::TensorReader& reader, const Llama2Config& config);
};

class Llama2 : public LayeredDecoder {
 public:
  // Loads the weights and allocates caches and activations; `ops` and the checkpoint behind the
  // weights must outlive this.
  Llama2(kernels::Ops& ops, const Llama2Config& config, const Llama2Weights& weights,
         const DecoderLimits& limits);

  void embed(std::span<const int32_t> ids, const kernels::Tensor& out) override;
  void logits(const kernels::Tensor& rows, const kernels::Tensor& out) override;

 private:
  struct Layer {
    kernels::Norm input_layernorm;
    kernels::Linear qkv;
    kernels::Linear o_proj;
    kernels::Norm post_attention_layernorm;
    kernels::Linear gate_proj;
    kernels::Linear up_proj;
    kernels::Linear down_proj;
  };

  kernels::Norm load_norm(const kernels::HostTensor& weight) const;
  void run_layer(int index, const kernels::Tensor& x, const kernels::Tensor& h,
                 std::span<const kernels::Segment> segments) override;
  const kernels::Norm& last_norm() const override { return layers_.back().input_layernorm; }

  kernels::Ops& ops_;
  float rms_norm_eps_;
  std::vector<std::shared_ptr<const std::byte[]>> permuted_;  // of the weights: read in place
  kernels::Tensor embed_tokens_;                              // [vocab, hidden]
  std::vector<Layer> layers_;
  kernels::Norm norm_;
  kernels::Linear lm_head_;
  kernels::Tensor hidden_;  // [max_rows, intermediate]
};

}  // namespace ocelli::llm
