// Models of known shapes with random weights in memory: what a benchmark needs of a model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "app/model.h"
#include "host/thread_pool.h"
#include "kernels/host_storage.h"

namespace ocelli::app {

// "tinyllava-3.1b", "phi-2", "stories15m", "stories110m"
const std::vector<std::string>& preset_names();
// The configuration of one of preset_names().
ModelConfig preset_config(const std::string& name);

// Quantised formats store int8 with one scale a row (kInt8), or for every 64 values (kQ8; for 32
// or for a row where it cannot be divided so). kInt4 is int4 in panels for the decoder's layers and
// int8 for the rest, as `quantize --weights int4` makes it. Norms, biases and positions are fp32 in
// any format.
enum class WeightFormat { kF32, kF16, kBF16, kInt8, kQ8, kInt4 };

// "f32", "f16", "bf16", "int8", "q8_0", "int4", in the order of the enumeration.
const std::vector<std::string>& weight_format_names();

// Weights of no meaning whose activations stay finite. Random, because zeros are multiplied faster
// than data.
class RandomWeights {
 public:
  // Decides where everything will stand; allocates nothing yet. Of int4, so many values share a
  // factor.
  RandomWeights(const ModelConfig& config, WeightFormat format, int factor_group);

  int64_t bytes() const { return bytes_; }

  // Allocates and fills the memory, calling done(bytes so far) now and then, and returns the
  // weights. They refer to this object.
  ModelWeights fill(host::ThreadPool& pool, const std::function<void(int64_t)>& done);

 private:
  // What a stretch of memory is filled with.
  enum class Content { kMatrix, kScales, kNorm, kSmall, kNibbles, kInt4Scales };
  static constexpr int kContents = 6;
  struct Stretch {
    std::byte* data;
    int64_t bytes;
    Content content;
  };

  std::byte* take(int64_t bytes, Content content);
  kernels::HostTensor floats(std::vector<int64_t> shape, Content content);
  kernels::HostTensor matrix(int64_t outputs, int64_t inputs);
  // The same of a matrix that is multiplied: bf16 is in panels then, as packed files have it.
  kernels::HostTensor multiplied(int64_t outputs, int64_t inputs);
  // Stacked matrices [outputs_i, inputs], with biases or without.
  kernels::LinearSource linear(const std::vector<int64_t>& outputs, int64_t inputs, bool biases);
  // The same for a layer of the decoder.
  kernels::LinearSource layer(const std::vector<int64_t>& outputs, int64_t inputs, bool biases);

  ModelWeights make();
  vision::SiglipWeights make_siglip(const vision::SiglipConfig& config);
  connector::MlpWeights make_connector(const connector::MlpConfig& config);
  llm::Phi2Weights make_phi2(const llm::Phi2Config& config);
  llm::Llama2Weights make_llama2(const llm::Llama2Config& config);

  std::vector<std::byte> pattern(Content content) const;

  ModelConfig config_;
  WeightFormat format_;
  int factor_group_;
  int64_t bytes_ = 0;
  std::unique_ptr<kernels::HostStorage> memory_;  // null while sizes are added up
  int64_t taken_ = 0;
  std::vector<Stretch> stretches_;
  std::vector<kernels::HostTensor> int4_;
};

}  // namespace ocelli::app
