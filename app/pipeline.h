// Image → patches → SigLIP → connector → fused embeddings → decoder → text.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "app/kept_rows.h"
#include "app/model.h"
#include "app/pack_model.h"
#include "app/row_cache.h"
#include "app/stopwatch.h"
#include "kernels/attention_probe.h"
#include "kernels/backend.h"
#include "kernels/profiled_ops.h"
#include "llm/engine.h"
#include "llm/prompt.h"
#include "llm/tokenizer.h"
#include "vision/image.h"

namespace ocelli::app {

struct PipelineOptions {
  kernels::BackendOptions backend;
  bool check = false;  // compare every operation with the reference backend
  bool trace = false;  // record every operation
  bool probe = false;  // be able to record where the decoder looks
  std::optional<std::filesystem::path> tokenizer;  // none: the model's own
  std::optional<PackSettings> pack;                // make a model int8 that is not packed
  std::optional<RowCacheOptions> row_cache;        // where pictures' rows are kept, if anywhere
  int sequences = 1;                               // answered at once
  int context = 0;      // positions each may take; 0, or more than the model has: the model's
  int scored_rows = 0;  // rows whose logits are wanted at once, where that is more
  kernels::DType kv_dtype = kernels::DType::kF16;
  std::string system = std::string(llm::PromptTemplate::kSystem);
};

// What a decoder of this configuration is made for.
llm::DecoderLimits decoder_limits(const ModelConfig& config, const PipelineOptions& options);

// Milliseconds of wall-clock time.
struct Timings {
  double load = 0;    // of the model, once
  double image = 0;   // decode, resize, patches
  double encode = 0;  // the vision tower
  double connector = 0;
  double prefill = 0;   // from the prompt's submission to the first token
  double generate = 0;  // the tokens after it
};

// One loaded model on one backend.
class Pipeline {
 public:
  // Throws host::Error for a model that cannot be loaded.
  Pipeline(const std::filesystem::path& path, const PipelineOptions& options);
  Pipeline(OpenedModel model, const PipelineOptions& options);

  const ModelConfig& config() const { return model_.config; }
  const llm::Tokenizer& tokenizer() const { return *tokenizer_; }
  const llm::PromptTemplate& prompts() const { return prompts_; }
  llm::Engine& engine() { return *engine_; }
  llm::Decoder& decoder() { return *decoder_; }
  kernels::Ops& ops() { return *ops_; }
  // What records where the decoder looks; none unless options.probe.
  kernels::AttentionProbe* probe() { return probe_; }
  // Where pictures' rows are kept; none unless options.row_cache.
  const RowCache* row_cache() const { return row_cache_.get(); }
  int sequences() const { return decoder_->limits().sequences; }
  int context() const { return decoder_->limits().capacity; }
  double load_ms() const { return load_ms_; }

  // The picture as the model will see it: a square of image_size pixels. Throws host::Error for one
  // so narrow that the steps on the way do not fit a sensible memory.
  vision::Image preprocess(const vision::Image& image) const;
  // A preprocessed picture as image_rows() rows [rows, hidden] of the decoder's embedding space, in
  // memory of their own. Adds its time to `timings`.
  kernels::Tensor encode(const vision::Image& preprocessed, Timings& timings);

  // Why the model computed NaN or infinity: the weights that are, when some are. Reads every
  // weight, once.
  const std::string& why_not_finite();

  // Writes what was recorded under options.trace to `path`.
  void save_trace(const std::string& path) const;

 private:
  void load(const PipelineOptions& options);
  // The tower's rows that reach the connector, computed or from the cache.
  kernels::Tensor features(const vision::Image& preprocessed, Timings& timings);
  kernels::Tensor compute_features(const vision::Image& preprocessed, Timings& timings);

  Stopwatch watch_;  // first, so that everything below is timed
  OpenedModel model_;
  PackedMemory packed_;  // under options.pack: the weights
  std::unique_ptr<llm::Tokenizer> tokenizer_;
  llm::PromptTemplate prompts_;
  std::unique_ptr<kernels::Ops> ops_;
  kernels::ProfiledOps* profiler_ = nullptr;  // in ops_, when it records
  kernels::AttentionProbe* probe_ = nullptr;  // ops_, when it may be asked to record
  std::unique_ptr<vision::Siglip> siglip_;
  std::unique_ptr<RowCache> row_cache_;
  host::Sha256Digest tower_hash_{};    // of row_cache_'s keys
  kernels::Tensor cached_features_;    // [image_rows, tower's hidden], where there is a cache
  std::vector<float> feature_values_;  // the same, on the host
  std::unique_ptr<connector::Mlp> connector_;
  std::unique_ptr<KeptRows> kept_rows_;
  std::unique_ptr<llm::Decoder> decoder_;
  std::unique_ptr<llm::Engine> engine_;
  double load_ms_ = 0;
  std::string why_not_finite_;
  std::set<std::string> used_tensors_;
};

}  // namespace ocelli::app
