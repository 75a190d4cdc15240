// SigLIP's vision transformer: normalised patches in, one feature row a patch out.
//
// Source: SiglipVisionTransformer of Hugging Face transformers; buffers carry its names. Pre-norm
// blocks, learned positions, no class token, no mask. Only the blocks below the chosen feature
// layer run; the last norm and the pooling head never do.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "host/json.h"
#include "kernels/checkpoint.h"
#include "kernels/ops.h"

namespace ocelli::vision {

struct SiglipConfig {
  int hidden_size = 768;
  int intermediate_size = 3072;
  int num_attention_heads = 12;
  int image_size = 224;
  int patch_size = 16;
  float layer_norm_eps = 1e-6F;
  int blocks = 12;  // how many of num_hidden_layers run

  int patches_per_side() const { return image_size / patch_size; }
  int patches() const { return patches_per_side() * patches_per_side(); }
  int patch_values() const { return 3 * patch_size * patch_size; }

  // From a `vision_config`, with SiglipVisionConfig's defaults. `feature_layer` indexes the hidden
  // states as the reference does: 0 is the embeddings, −1 the last block's output. Throws
  // host::Error for values that contradict one another or that are not supported.
  static SiglipConfig parse(const host::JsonObject& json, int feature_layer);
};

struct SiglipWeights {
  struct Layer {
    kernels::HostTensor norm1_weight, norm1_bias;  // [hidden]
    kernels::HostTensor norm2_weight, norm2_bias;
    kernels::LinearSource qkv;  // 3 × [hidden, hidden]
    kernels::LinearSource out;  // [hidden, hidden]
    kernels::LinearSource fc1;  // [intermediate, hidden]
    kernels::LinearSource fc2;  // [hidden, intermediate]
  };
  kernels::LinearSource patch_embedding;   // [hidden, 3 · patch · patch]
  kernels::HostTensor position_embedding;  // [patches, hidden]
  std::vector<Layer> layers;               // as many as blocks run

  // Asks `reader` for every tensor under `prefix` ("….vision_model."); reader.finish() then tells
  // what is missing.
  static SiglipWeights read(kernels::TensorReader& reader, const std::string& prefix,
                            const SiglipConfig& config);
};

class Siglip {
 public:
  // Loads the weights into `ops` and allocates activations for `max_images` at once. Both `ops` and
  // the weights' memory must outlive this.
  Siglip(kernels::Ops& ops, const SiglipConfig& config, const SiglipWeights& weights,
         int max_images);

  const SiglipConfig& config() const { return config_; }

  // patches: [images · patches(), patch_values()], as write_patches() makes them, for at most
  // max_images. Returns the features [images · patches(), hidden_size], valid until the next call.
  kernels::Tensor encode(std::span<const float> patches);

 private:
  struct Layer {
    kernels::Norm norm1;
    kernels::Norm norm2;
    kernels::Linear qkv;
    kernels::Linear out;
    kernels::Linear fc1;
    kernels::Linear fc2;
  };
  void encode_block(const Layer& layer, int rows);

  kernels::Ops& ops_;
  SiglipConfig config_;
  kernels::Linear patch_embedding_;
  kernels::Tensor position_embedding_;  // fp32 [patches, hidden]
  std::vector<Layer> layers_;
  kernels::Precision precision_ = kernels::Precision::kExact;  // of attention
  std::vector<kernels::Segment> segments_;                     // one an image
  // Activations for max_images · patches rows.
  kernels::Tensor patches_;  // [rows, patch_values]
  kernels::Tensor x_;        // [rows, hidden]: the residual stream
  kernels::Tensor h_;        // [rows, hidden]: normed
  kernels::Tensor qkv_;      // [rows, 3 · hidden]
  kernels::Tensor context_;  // [rows, hidden]
  kernels::Tensor hidden_;   // [rows, intermediate]
};

}  // namespace ocelli::vision
