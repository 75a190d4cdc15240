#include "app/pipeline.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "app/row_key.h"
#include "host/error.h"
#include "kernels/checked_ops.h"
#include "vision/patches.h"
#include "vision/resize.h"

namespace ocelli::app {

using kernels::Tensor;
using vision::Image;

namespace {

// As large as a picture itself may be (vision::DecodeOptions).
constexpr int64_t kMostPixels = 2 * int64_t{89'478'485};
// fp32 backends agree to about 1e-6 of a row's largest value; ten times that is a fault.
constexpr float kCheckTolerance = 2e-5F;

std::unique_ptr<kernels::Ops> make_ops(const PipelineOptions& options) {
  std::unique_ptr<kernels::Ops> ops = kernels::make_backend(options.backend);
  if (!options.check) return ops;
  kernels::BackendOptions reference;
  reference.name = "reference";
  return kernels::make_checked_ops(kernels::make_backend(reference), std::move(ops),
                                   kCheckTolerance);
}

// Rows of a step: a whole prompt, and a token of every other sequence. A row costs as much among
// more, which would leave more tokens to steps of their own; and more among fewer.
int step_rows(int capacity, int sequences) {
  constexpr int64_t kFewest = 512;
  constexpr int64_t kMost = 1024;  // a prompt with one picture of 729 patches is one piece
  const int64_t all = int64_t{capacity} * sequences;
  const int64_t rows = std::clamp(int64_t{capacity} + sequences - 1, kFewest, kMost);
  return static_cast<int>(std::min(all, rows));
}

}  // namespace

llm::DecoderLimits decoder_limits(const ModelConfig& config, const PipelineOptions& options) {
  llm::DecoderLimits limits;
  limits.sequences = options.sequences;
  limits.capacity = config.context;
  if (options.context > 0) limits.capacity = std::min(limits.capacity, options.context);
  limits.max_rows = step_rows(limits.capacity, options.sequences);
  limits.kv_dtype = options.kv_dtype;
  limits.scored_rows = options.scored_rows;
  limits.every_row = options.probe;
  return limits;
}

Pipeline::Pipeline(const std::filesystem::path& path, const PipelineOptions& options)
    : Pipeline(open_model(path), options) {
}

Pipeline::Pipeline(OpenedModel model, const PipelineOptions& options)
    : model_(std::move(model)),
      tokenizer_(options.tokenizer ? load_vocabulary(*options.tokenizer) : model_.load_tokenizer()),
      prompts_(*tokenizer_, options.system) {
  load(options);
  load_ms_ = model_.opening_ms + watch_.elapsed_ms();
}

void Pipeline::load(const PipelineOptions& options) {
  const ModelConfig& config = model_.config;
  // A decoder may have rows to spare; llama2.c's know exactly the tokens of their vocabulary.
  const bool exact = config.model_type == kLlama2c;
  if (tokenizer_->size() > config.vocab_size() ||
      (exact && tokenizer_->size() != config.vocab_size())) {
    host::fail("{}: the tokenizer has {} tokens, the model rows for {}", model_.path.string(),
               tokenizer_->size(), config.vocab_size());
  }
  kernels::TensorReader reader(model_.checkpoint);
  ModelWeights weights = read_weights(reader, config);
  reader.finish();
  used_tensors_ = reader.used();

  if (options.pack && model_.checkpoint.packed() == nullptr) {
    const int threads = options.backend.threads;
    host::ThreadPool pool(threads > 0 ? threads : host::available_processors());
    pack_in_memory(weights, *options.pack, pool, packed_);
  }
  ops_ = make_ops(options);
  if (options.trace) {
    auto profiled = kernels::make_profiled_ops(std::move(ops_));
    profiler_ = profiled.get();
    ops_ = std::move(profiled);
  }
  if (options.probe) {
    auto probe = kernels::make_attention_probe(std::move(ops_));
    probe_ = probe.get();
    ops_ = std::move(probe);
  }
  if (config.vision) {
    const VisionConfig& vision = *config.vision;
    siglip_ = std::make_unique<vision::Siglip>(*ops_, vision.siglip, *weights.siglip, 1);
    connector_ = std::make_unique<connector::Mlp>(*ops_, vision.connector, *weights.connector,
                                                  vision.image_rows());
    kept_rows_ = std::make_unique<KeptRows>(*ops_);
    if (options.row_cache) {
      row_cache_ = std::make_unique<RowCache>(*options.row_cache);
      tower_hash_ = tower_hash(model_, options);
      cached_features_ = ops_->tensor(vision.image_rows(), vision.siglip.hidden_size,
                                      kernels::DType::kF32, kernels::Placement::kActivation);
      feature_values_.resize(static_cast<size_t>(cached_features_.rows) * cached_features_.cols);
    }
  }
  decoder_ = make_decoder(*ops_, config, weights, decoder_limits(config, options));
  engine_ = std::make_unique<llm::Engine>(*ops_, *decoder_);
}

Image Pipeline::preprocess(const Image& image) const {
  const VisionConfig& vision = *model_.config.vision;
  const int size = vision.siglip.image_size;
  // Resizing passes through size x height pixels, padding through the square of the longer side.
  const int64_t longer = std::max(image.width, image.height);
  const int64_t needed =
      vision.aspect == AspectRatio::kPad ? longer * longer : int64_t{size} * image.height;
  if (needed > kMostPixels) {
    host::fail("a picture of {} x {} is too narrow to be brought to a square: crop it first",
               image.width, image.height);
  }
  if (vision.aspect == AspectRatio::kSquare) return vision::resize_bicubic(image, size, size);
  // The reference's background: int(255 · mean), and SigLIP's means are 0.5.
  constexpr std::array<uint8_t, 3> kBackground = {127, 127, 127};
  return vision::resize_bicubic(vision::expand_to_square(image, kBackground), size, size);
}

Tensor Pipeline::encode(const Image& preprocessed, Timings& timings) {
  const Tensor seen = features(preprocessed, timings);
  Stopwatch watch;
  const Tensor rows = connector_->forward(seen);
  // The connector's buffers serve the next picture: these rows stay.
  Tensor kept = kept_rows_->keep(rows);
  timings.connector += watch.lap_ms();
  return kept;
}

Tensor Pipeline::features(const Image& preprocessed, Timings& timings) {
  if (!row_cache_) return compute_features(preprocessed, timings);
  Stopwatch watch;
  const RowKey key = row_key(tower_hash_, preprocessed);
  if (row_cache_->find(key, feature_values_)) {
    ops_->write(feature_values_, cached_features_);
    timings.encode += watch.elapsed_ms();
    return cached_features_;
  }
  const Tensor computed = compute_features(preprocessed, timings);
  ops_->read(computed, feature_values_);
  // What is not finite is told where it surfaces, and not kept.
  const auto finite = [](float value) { return std::isfinite(value); };
  if (std::ranges::all_of(feature_values_, finite)) row_cache_->store(key, feature_values_);
  return computed;
}

Tensor Pipeline::compute_features(const Image& preprocessed, Timings& timings) {
  const VisionConfig& vision = *model_.config.vision;
  Stopwatch watch;
  const std::vector<float> patches = vision::make_patches(preprocessed, vision.siglip.patch_size);
  timings.image += watch.lap_ms();
  const Tensor rows = siglip_->encode(patches).row_range(vision.first_row, vision.image_rows());
  timings.encode += watch.lap_ms();
  return rows;
}

const std::string& Pipeline::why_not_finite() {
  if (!why_not_finite_.empty()) return why_not_finite_;
  why_not_finite_ = "the model computed NaN or infinity, though its weights are finite";
  try {
    model_.checkpoint.require_finite(used_tensors_);
  } catch (const host::Error& error) {
    why_not_finite_ = error.what();
  }
  return why_not_finite_;
}

void Pipeline::save_trace(const std::string& path) const {
  OCELLI_CHECK(profiler_ != nullptr, "a trace of {} was not recorded", model_.path.string());
  profiler_->save(path);
}

}  // namespace ocelli::app
