// Tiny random models, stage by stage, against what Hugging Face transformers computed (made by
// tests/reference/make_model_goldens.py), on every backend and instruction set.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "app/model.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "llm/engine.h"
#include "vision/image.h"
#include "vision/patches.h"
#include "vision/resize.h"

namespace ocelli::app {
namespace {

using kernels::Checkpoint;
using kernels::DType;
using kernels::HostTensor;
using kernels::Placement;
using kernels::Tensor;

// Of a stage's largest magnitude. fp32 against fp64 differs by 1.5e-6 at most; the least mistake in
// the mathematics that we know of (one GELU for the other) by 1e-4.
constexpr float kTolerance = 2e-5F;

struct Case {
  std::string model;
  kernels::BackendOptions backend;
};

// Each of the models on every backend and instruction set.
std::vector<Case> cases_of(const std::vector<std::string>& models) {
  std::vector<Case> cases;
  for (const std::string& model : models) {
    for (const std::string& name : kernels::backend_names()) {
      if (name != "cpu") cases.push_back({model, {name, 0, ""}});
    }
    for (const kernels::cpu::KernelTable* table : kernels::cpu::supported_tables()) {
      cases.push_back({model, {"cpu", 2, table->isa}});
    }
  }
  return cases;
}

class ModelGolden : public testing::TestWithParam<Case> {
 protected:
  ModelGolden()
      : directory_(std::filesystem::path(OCELLI_SOURCE_DIR) / "tests/golden/models" /
                   GetParam().model),
        golden_(Checkpoint::open(directory_ / "golden.safetensors")),
        model_(open_model(directory_)),
        ops_(kernels::make_backend(GetParam().backend)) {
    kernels::TensorReader reader(model_.checkpoint);
    weights_ = read_weights(reader, model_.config);
    reader.finish();
  }

  const llm::Phi2Config& phi_config() const {
    return std::get<llm::Phi2Config>(model_.config.text);
  }

  const HostTensor* find(const std::string& name) const {
    const auto found = golden_.tensors().find(name);
    return found == golden_.tensors().end() ? nullptr : &found->second;
  }
  const HostTensor& golden(const std::string& name) const {
    const HostTensor* tensor = find(name);
    EXPECT_NE(tensor, nullptr) << name;
    return *tensor;
  }
  std::vector<int32_t> integers(const std::string& name) const {
    const HostTensor& tensor = golden(name);
    std::vector<int32_t> values(tensor.elements());
    std::memcpy(values.data(), tensor.data, tensor.bytes());
    return values;
  }
  std::vector<float> floats(const std::string& name) const {
    const HostTensor& tensor = golden(name);
    std::vector<float> values(tensor.elements());
    kernels::convert_to_f32(tensor.dtype, tensor.data, tensor.elements(), values.data());
    return values;
  }
  // [rows, cols] of the golden `name` in the backend's memory.
  Tensor upload(const std::string& name) {
    const HostTensor& source = golden(name);
    const Tensor tensor =
        ops_->tensor(static_cast<int>(source.shape[0]), static_cast<int>(source.shape[1]),
                     DType::kF32, Placement::kActivation);
    ops_->write(floats(name), tensor);
    return tensor;
  }

  void expect_golden(const Tensor& found, const std::string& name) {
    SCOPED_TRACE(name);
    const std::vector<float> expected = floats(name);
    ASSERT_EQ(static_cast<size_t>(found.rows) * found.cols, expected.size());
    std::vector<float> values(expected.size());
    ops_->read(found, values);
    float largest = 0;
    for (const float value : expected) largest = std::max(largest, std::fabs(value));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], expected[i], kTolerance * largest) << "element " << i;
    }
  }

  vision::Image image(int index) const {
    const HostTensor& tensor = golden("image." + std::to_string(index));
    const auto* bytes = reinterpret_cast<const uint8_t*>(tensor.data);
    return {static_cast<int>(tensor.shape[1]),
            static_cast<int>(tensor.shape[0]),
            {bytes, bytes + tensor.elements()}};
  }
  int images() const {
    int count = 0;
    while (find("image." + std::to_string(count))) ++count;
    return count;
  }
  vision::Image preprocessed(int index) const {
    const int size = model_.config.vision->siglip.image_size;
    vision::Image picture = image(index);
    if (model_.config.vision->aspect == AspectRatio::kPad) {
      picture = vision::expand_to_square(picture, {127, 127, 127});
    }
    return vision::resize_bicubic(picture, size, size);
  }
  llm::Phi2 decoder(int layers, int sequences, int capacity) {
    llm::Phi2Config config = phi_config();
    config.num_hidden_layers = layers;
    llm::Phi2Weights weights = std::get<llm::Phi2Weights>(weights_.text);
    weights.layers.resize(layers);
    llm::DecoderLimits limits;
    limits.sequences = sequences;
    limits.capacity = capacity;
    limits.max_rows = capacity;
    return {*ops_, config, weights, limits};
  }

  std::filesystem::path directory_;
  Checkpoint golden_;
  OpenedModel model_;
  ModelWeights weights_;
  std::unique_ptr<kernels::Ops> ops_;
};

TEST_P(ModelGolden, PixelsAreTheReferences) {
  for (int n = 0; n < images(); ++n) {
    const std::string name = "pixels." + std::to_string(n);
    const vision::Image seen = preprocessed(n);
    const std::vector<float> expected = floats(name);  // [3, size, size]
    // One patch that is the whole picture has the order (channel, y, x).
    EXPECT_EQ(vision::make_patches(seen, seen.width), expected) << name;
  }
}

TEST_P(ModelGolden, EveryVisionBlockAgrees) {
  for (int n = 0; n < images(); ++n) {
    vision::SiglipConfig config = model_.config.vision->siglip;
    const int last = config.blocks;
    const std::vector<float> patches = vision::make_patches(preprocessed(n), config.patch_size);
    for (config.blocks = 0; config.blocks <= last; ++config.blocks) {
      vision::SiglipWeights weights = *weights_.siglip;
      weights.layers.resize(config.blocks);
      vision::Siglip siglip(*ops_, config, weights, 1);
      const std::string name = config.blocks == 0
                                   ? fmt::format("vision.embeddings.{}", n)
                                   : fmt::format("vision.block.{}.{}", config.blocks - 1, n);
      expect_golden(siglip.encode(patches), name);
    }
  }
}

using SeveralPictures = ModelGolden;

TEST_P(SeveralPictures, EncodeTogetherAsTheyDoAlone) {
  ASSERT_GE(images(), 2);
  const vision::SiglipConfig& config = model_.config.vision->siglip;
  std::vector<float> patches;
  for (int n = 0; n < images(); ++n) {
    const auto one = vision::make_patches(preprocessed(n), config.patch_size);
    patches.insert(patches.end(), one.begin(), one.end());
  }
  vision::Siglip siglip(*ops_, config, *weights_.siglip, images());
  const Tensor features = siglip.encode(patches);
  for (int n = 0; n < images(); ++n) {
    expect_golden(features.row_range(n * config.patches(), config.patches()),
                  fmt::format("vision.block.{}.{}", config.blocks - 1, n));
  }
}

TEST_P(ModelGolden, TheConnectorAgrees) {
  for (int n = 0; n < images(); ++n) {
    const VisionConfig& vision = *model_.config.vision;
    connector::Mlp mlp(*ops_, vision.connector, *weights_.connector, vision.image_rows());
    const Tensor features = upload(fmt::format("vision.block.{}.{}", vision.siglip.blocks - 1, n));
    expect_golden(mlp.forward(features.row_range(vision.first_row, vision.image_rows())),
                  fmt::format("connector.{}", n));
  }
}

TEST_P(ModelGolden, FusedEmbeddingsAgree) {
  const std::vector<int32_t> ids = integers("input_ids");
  llm::Phi2 phi = decoder(1, 1, 64);
  int row = 0;
  int next_image = 0;
  const Tensor fused = upload("fused");
  const std::vector<float> expected = floats("fused");
  for (const int32_t id : ids) {
    if (id < 0) {
      const std::vector<float> rows = floats(fmt::format("connector.{}", next_image++));
      EXPECT_TRUE(std::equal(rows.begin(), rows.end(), expected.begin() + row * fused.cols));
      row += static_cast<int>(rows.size()) / fused.cols;
      continue;
    }
    const Tensor one = ops_->tensor(1, fused.cols, DType::kF32, Placement::kActivation);
    phi.embed({&id, 1}, one);
    std::vector<float> values(fused.cols);
    ops_->read(one, values);
    EXPECT_TRUE(std::equal(values.begin(), values.end(), expected.begin() + row * fused.cols));
    ++row;
  }
  EXPECT_EQ(row, fused.rows);
}

TEST_P(ModelGolden, EveryDecoderBlockAndTheLogitsAgree) {
  const int rows = static_cast<int>(golden("fused").shape[0]);
  for (int layers = 1; layers <= phi_config().num_hidden_layers; ++layers) {
    llm::Phi2 phi = decoder(layers, rows, rows);
    const Tensor x = upload("fused");
    const kernels::Segment segment = {0, 0, rows, 0};
    std::vector<int32_t> all(rows);
    std::iota(all.begin(), all.end(), 0);
    const Tensor made = phi.forward(x, {&segment, 1}, all);
    expect_golden(made, fmt::format("decoder.block.{}", layers - 1));
    if (layers < phi_config().num_hidden_layers) continue;
    const Tensor logits =
        ops_->tensor(rows, model_.config.vocab_size(), DType::kF32, Placement::kActivation);
    phi.logits(made, logits);
    expect_golden(logits, "logits");
  }
}

// Prefill in pieces of every size, other sequences running beside it: the greedy tokens stay.
TEST_P(ModelGolden, GreedyTokensAgree) {
  const std::vector<int32_t> expected = integers("greedy");
  const int rows = static_cast<int>(golden("fused").shape[0]);
  const int capacity = rows + static_cast<int>(expected.size());
  for (const int max_rows : {1, 5, capacity}) {
    llm::DecoderLimits limits;
    limits.sequences = 3;
    limits.capacity = capacity;
    limits.max_rows = max_rows;
    llm::Phi2 phi(*ops_, phi_config(), std::get<llm::Phi2Weights>(weights_.text), limits);
    llm::Engine engine(*ops_, phi);
    llm::GenerationOptions options;
    options.max_tokens = static_cast<int>(expected.size());
    std::vector<std::vector<int32_t>> found(limits.sequences);
    const Tensor fused = upload("fused");
    for (int i = 0; i < limits.sequences; ++i) {
      engine.submit(*engine.open(),
                    {{{}, fused.row_range(0, 2)}, {{}, fused.row_range(2, rows - 2)}}, options);
    }
    while (engine.busy()) {
      for (const llm::Output& output : engine.step())
        found[output.sequence].push_back(output.token);
    }
    for (const auto& tokens : found) EXPECT_EQ(tokens, expected) << max_rows << " rows a step";
  }
}

std::string case_name(const testing::TestParamInfo<Case>& tested) {
  std::string name =
      tested.param.model + "_" + tested.param.backend.name + tested.param.backend.isa;
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, ModelGolden,
                         testing::ValuesIn(cases_of({"square_patch", "two_images", "older_names",
                                                     "text_only", "defaults"})),
                         case_name);
INSTANTIATE_TEST_SUITE_P(All, SeveralPictures, testing::ValuesIn(cases_of({"two_images"})),
                         case_name);

}  // namespace
}  // namespace ocelli::app
