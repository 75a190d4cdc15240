#include "app/bench_model.h"

#include <algorithm>
#include <utility>

#include "app/pipeline.h"
#include "host/error.h"
#include "kernels/first_maximum.h"
#include "llm/random.h"

namespace ocelli::app {

using kernels::DType;
using kernels::Placement;
using kernels::Segment;
using kernels::Tensor;

namespace {

// Tokens of "{system} USER: ", which TinyLLaVA's prompts begin with before the picture, in Phi-2's
// vocabulary (llm/prompt.h; RealPrompt of tests/llm/prompt_test.cc has their ids).
constexpr int kTextBeforePicture = 32;

std::vector<float> random_floats(size_t count, uint64_t seed) {
  llm::Random random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = 2 * static_cast<float>(random.uniform()) - 1;
  return values;
}

[[noreturn]] void fail_not_finite() {
  host::fail("the model computed NaN or infinity");
}

}  // namespace

int BenchShape::capacity() const {
  return std::max(prompt_rows + caption_tokens, context + 1);
}

BenchModel::BenchModel(const ModelConfig& config, const ModelWeights& weights,
                       const BenchShape& shape, std::unique_ptr<kernels::Ops> ops)
    : config_(config),
      shape_(shape),
      ops_(std::move(ops)),
      kept_rows_(ops_),
      prompt_(shape.prompt_rows),
      tokens_(shape.most_batch) {
  if (config.vision) load_vision(*config.vision, weights);
  llm::DecoderLimits limits;
  limits.sequences = shape.most_batch;
  limits.capacity = shape.capacity();
  limits.max_rows = std::max(shape.prompt_rows, shape.most_batch);
  if (shape.caption_tokens > 0) {  // as `ocelli caption` has it
    PipelineOptions usual;
    usual.sequences = shape.most_batch;
    usual.context = limits.capacity;
    limits.max_rows = std::max(limits.max_rows, decoder_limits(config, usual).max_rows);
  }
  limits.kv_dtype = shape.kv_dtype;
  decoder_ = make_decoder(ops_, config, weights, limits);
  x_ = ops_.tensor(limits.max_rows, decoder_->hidden_size(), DType::kF32, Placement::kActivation);
  logits_ =
      ops_.tensor(shape.most_batch, decoder_->vocab_size(), DType::kF32, Placement::kActivation);
  host_logits_.resize(decoder_->vocab_size());
  llm::Random random(1);
  for (auto* ids : {&prompt_, &tokens_}) {
    for (int32_t& id : *ids) id = static_cast<int32_t>(random.next() % decoder_->vocab_size());
  }
}

void BenchModel::load_vision(const VisionConfig& config, const ModelWeights& weights) {
  siglip_ = std::make_unique<vision::Siglip>(ops_, config.siglip, *weights.siglip, 1);
  connector_ = std::make_unique<connector::Mlp>(ops_, config.connector, *weights.connector,
                                                config.image_rows());
  patches_ = random_floats(int64_t{config.siglip.patches()} * config.siglip.patch_values(), 2);
}

void BenchModel::fill_cache() {
  // Two rows of every sequence and layer are alike; only the time to read them matters. All of the
  // cache is written, so that no later step pays for memory that is touched first.
  const int width = std::visit([](const auto& text) { return text.kv_width(); }, config_.text);
  const int count = shape_.capacity();
  const Tensor rows = ops_.tensor(count, width, DType::kF32, Placement::kActivation);
  ops_.write(random_floats(int64_t{count} * width, 3), rows);
  std::vector<Segment> segments;
  segments.reserve(shape_.most_batch);
  for (int i = 0; i < shape_.most_batch; ++i) segments.push_back({i, 0, count, 0});
  for (const Tensor& cache : ops_.caches()) ops_.append(rows, cache, shape_.capacity(), segments);
}

void BenchModel::encode() {
  features_ = siglip_->encode(patches_);
  wait_for(features_);
}

void BenchModel::connect() {
  if (features_.rows == 0) encode();
  wait_for(connector_->forward(image_rows(features_)));
}

void BenchModel::prefill() {
  decoder_->embed(prompt_, x_.row_range(0, shape_.prompt_rows));
  forward_prompt();
}

void BenchModel::first_token() {
  features_ = siglip_->encode(patches_);
  const Tensor rows = connector_->forward(image_rows(features_));
  int row = 0;
  const auto add_text = [&](std::span<const int32_t> tokens) {
    const int count = static_cast<int>(tokens.size());
    if (count > 0) decoder_->embed(tokens, x_.row_range(row, count));
    row += count;
  };
  const QuestionText text = question_text();
  add_text(text.before);
  kept_rows_.copy(rows, x_.row_range(row, rows.rows));
  row += rows.rows;
  add_text(text.behind);
  forward_prompt();
}

BenchModel::QuestionText BenchModel::question_text() const {
  const auto picture = static_cast<size_t>(config_.vision->image_rows());
  const size_t before =
      std::min(static_cast<size_t>(kTextBeforePicture), prompt_.size() - picture - 1);
  const std::span prompt(prompt_);
  return {prompt.first(before), prompt.subspan(before + picture)};
}

void BenchModel::decode(int batch) {
  std::vector<Segment> segments;
  std::vector<int32_t> rows;
  for (int i = 0; i < batch; ++i) {
    segments.push_back({i, i, 1, shape_.context, true});
    rows.push_back(i);
  }
  decoder_->embed(std::span(tokens_).first(batch), x_.row_range(0, batch));
  forward(batch, segments, rows);
}

void BenchModel::caption(int count, int places) {
  engine_ = std::make_unique<llm::Engine>(ops_, *decoder_);
  int begun = 0;
  for (int done = 0; done < count;) {
    for (; begun < count && begun - done < places; ++begun) submit_picture();
    for (const llm::Output& output : engine_->step()) {
      if (output.finish == llm::FinishReason::kNotFinite) fail_not_finite();
      if (output.finish == llm::FinishReason::kNone) continue;
      engine_->close(output.sequence);
      ++done;
    }
  }
}

void BenchModel::submit_picture() {
  const std::optional<int> place = engine_->open();
  OCELLI_CHECK(place.has_value(), "every sequence of {} is taken", shape_.most_batch);
  const Tensor rows = connector_->forward(image_rows(siglip_->encode(patches_)));
  // The connector's buffers serve the next picture: these rows stay.
  const Tensor kept = kept_rows_.keep(rows);
  llm::GenerationOptions options;
  options.max_tokens = shape_.caption_tokens;
  const QuestionText text = question_text();
  std::vector<llm::ContextPiece> prompt;
  if (!text.before.empty()) prompt.push_back({{text.before.begin(), text.before.end()}, {}});
  prompt.push_back({{}, kept});
  prompt.push_back({{text.behind.begin(), text.behind.end()}, {}});
  engine_->submit(*place, std::move(prompt), options);
}

void BenchModel::wait_for(const Tensor& result) {
  std::vector<float> row(result.cols);
  ops_.read(result.row_range(result.rows - 1, 1), row);
}

Tensor BenchModel::image_rows(const Tensor& features) const {
  return features.row_range(config_.vision->first_row, config_.vision->image_rows());
}

void BenchModel::forward_prompt() {
  const Segment segment = {0, 0, shape_.prompt_rows, 0};
  const int32_t last = shape_.prompt_rows - 1;
  forward(shape_.prompt_rows, {&segment, 1}, {&last, 1});
}

void BenchModel::forward(int rows, std::span<const Segment> segments,
                         std::span<const int32_t> wanted) {
  const Tensor x = x_.row_range(0, rows);
  const Tensor last = decoder_->forward(x, segments, wanted);
  const Tensor logits = logits_.row_range(0, static_cast<int>(wanted.size()));
  decoder_->logits(last, logits);
  const auto tokens = std::span(tokens_).first(wanted.size());
  ops_.argmax(logits, host_logits_, tokens);
  if (std::ranges::count(tokens, kernels::kNoMaximum) > 0) fail_not_finite();
}

}  // namespace ocelli::app
