// Llama models of Hugging Face compute here what they compute in transformers
// (tests/reference/make_story_goldens.py).
#include <vector>

#include "llm/engine.h"
#include "tests/app/golden_model.h"

namespace ocelli::app {
namespace {

using kernels::DType;
using kernels::Placement;
using kernels::Tensor;

class LlamaGolden : public GoldenModel {
 protected:
  LlamaGolden() : GoldenModel("stories") {}

  // The decoder with its first `layers` layers alone.
  std::unique_ptr<llm::Decoder> decoder(int layers, const llm::DecoderLimits& limits) const {
    ModelConfig config = model_.config;
    std::get<llm::Llama2Config>(config.text).num_hidden_layers = layers;
    ModelWeights weights = weights_;
    std::get<llm::Llama2Weights>(weights.text).layers.resize(layers);
    return make_decoder(*ops_, config, weights, limits);
  }
};

TEST_P(LlamaGolden, EveryBlockAndTheLogitsAgree) {
  const std::vector<int32_t> ids = integers("input_ids");
  const std::vector<int32_t> rows = integers("rows");
  const int count = static_cast<int>(ids.size());
  const int all = std::get<llm::Llama2Config>(model_.config.text).num_hidden_layers;
  const auto matrix = [&](size_t height, int width) {
    return ops_->tensor(static_cast<int>(height), width, DType::kF32, Placement::kActivation);
  };
  for (int layers = 1; layers <= all; ++layers) {
    llm::DecoderLimits limits;
    limits.capacity = count;
    limits.max_rows = count;
    limits.scored_rows = static_cast<int>(rows.size());
    const auto llama = decoder(layers, limits);
    const Tensor x = matrix(ids.size(), llama->hidden_size());
    llama->embed(ids, x);
    const kernels::Segment segment = {0, 0, count, 0};
    const Tensor chosen = llama->forward(x, {&segment, 1}, rows);
    expect_golden(chosen, "decoder.block." + std::to_string(layers - 1));
    if (layers < all) continue;
    const Tensor logits = matrix(rows.size(), llama->vocab_size());
    llama->logits(chosen, logits);
    expect_golden(logits, "logits");
  }
}

TEST_P(LlamaGolden, GreedyTokensAgreeHoweverThePromptIsCut) {
  const std::vector<int32_t> expected = integers("greedy");
  for (const int max_rows : {1, 7, 64}) {
    llm::DecoderLimits limits;
    limits.capacity = 64;
    limits.max_rows = max_rows;
    const int all = std::get<llm::Llama2Config>(model_.config.text).num_hidden_layers;
    const auto llama = decoder(all, limits);
    llm::Engine engine(*ops_, *llama);
    llm::GenerationOptions options;
    options.max_tokens = static_cast<int>(expected.size());
    engine.submit(*engine.open(), {{integers("input_ids"), {}}}, options);
    std::vector<int32_t> found;
    while (engine.busy()) {
      for (const llm::Output& output : engine.step()) found.push_back(output.token);
    }
    EXPECT_EQ(found, expected) << max_rows;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LlamaGolden,
                         testing::ValuesIn(golden_cases({"hf_grouped", "hf_tied"})),
                         golden_case_name);

}  // namespace
}  // namespace ocelli::app
