// Llama models of Hugging Face compute here what they compute in transformers
// (tests/reference/make_story_goldens.py).
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "app/model.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "llm/engine.h"
#include "llm/tokenizer.h"

namespace ocelli::app {
namespace {

using kernels::DType;
using kernels::HostTensor;
using kernels::Placement;
using kernels::Tensor;

// Of a stage's largest value.
constexpr float kTolerance = 2e-5F;

struct Case {
  std::string model;
  kernels::BackendOptions backend;
};

std::vector<Case> every_case() {
  std::vector<Case> cases;
  for (const char* model : {"hf_grouped", "hf_tied"}) {
    for (const std::string& name : kernels::backend_names()) {
      if (name != "cpu") cases.push_back({model, {name, 0, ""}});
    }
    for (const kernels::cpu::KernelTable* table : kernels::cpu::supported_tables()) {
      cases.push_back({model, {"cpu", 2, table->isa}});
    }
  }
  return cases;
}

class LlamaGolden : public testing::TestWithParam<Case> {
 protected:
  LlamaGolden()
      : directory_(std::filesystem::path(OCELLI_SOURCE_DIR) / "tests/golden/stories" /
                   GetParam().model),
        golden_(kernels::Checkpoint::open(directory_ / "golden.safetensors")),
        model_(open_model(directory_)),
        ops_(kernels::make_backend(GetParam().backend)) {
    kernels::TensorReader reader(model_.checkpoint);
    weights_ = read_weights(reader, model_.config);
    reader.finish();
  }

  const HostTensor& golden(const std::string& name) const { return golden_.tensors().at(name); }
  std::vector<int32_t> integers(const std::string& name) const {
    const HostTensor& tensor = golden(name);
    std::vector<int32_t> values(tensor.elements());
    std::memcpy(values.data(), tensor.data, tensor.bytes());
    return values;
  }

  // The decoder with its first `layers` layers alone.
  std::unique_ptr<llm::Decoder> decoder(int layers, const llm::DecoderLimits& limits) const {
    ModelConfig config = model_.config;
    std::get<llm::Llama2Config>(config.text).num_hidden_layers = layers;
    ModelWeights weights = weights_;
    std::get<llm::Llama2Weights>(weights.text).layers.resize(layers);
    return make_decoder(*ops_, config, weights, limits);
  }

  void expect_golden(const Tensor& found, const std::string& name) const {
    SCOPED_TRACE(name);
    const HostTensor& expected = golden(name);
    std::vector<float> values(expected.elements());
    ASSERT_EQ(static_cast<size_t>(found.rows) * found.cols, values.size());
    ops_->read(found, values);
    std::vector<float> wanted(values.size());
    kernels::convert_to_f32(expected.dtype, expected.data, expected.elements(), wanted.data());
    float largest = 0;
    for (const float value : wanted) largest = std::max(largest, std::fabs(value));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], wanted[i], kTolerance * largest) << "element " << i;
    }
  }

  std::filesystem::path directory_;
  kernels::Checkpoint golden_;
  OpenedModel model_;
  std::unique_ptr<kernels::Ops> ops_;
  ModelWeights weights_;
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

std::string case_name(const testing::TestParamInfo<Case>& test) {
  std::string name = test.param.model + "_" + test.param.backend.name + test.param.backend.isa;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Models, LlamaGolden, testing::ValuesIn(every_case()), case_name);

}  // namespace
}  // namespace ocelli::app
