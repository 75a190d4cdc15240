// Tiny random models, stage by stage, against what Hugging Face transformers computed (made by
// tests/reference/make_model_goldens.py), on every backend and instruction set.
#include <fmt/format.h>

#include <numeric>

#include "llm/engine.h"
#include "tests/app/golden_model.h"
#include "vision/image.h"
#include "vision/patches.h"
#include "vision/resize.h"

namespace ocelli::app {
namespace {

using kernels::DType;
using kernels::HostTensor;
using kernels::Placement;
using kernels::Tensor;

class ModelGolden : public GoldenModel {
 protected:
  ModelGolden() : GoldenModel("models") {}

  const llm::Phi2Config& phi_config() const {
    return std::get<llm::Phi2Config>(model_.config.text);
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

  vision::Image image(int index) const {
    const HostTensor& tensor = golden("image." + std::to_string(index));
    const auto* bytes = reinterpret_cast<const uint8_t*>(tensor.data);
    return {static_cast<int>(tensor.shape[1]),
            static_cast<int>(tensor.shape[0]),
            {bytes, bytes + tensor.elements()}};
  }
  int images() const {
    int count = 0;
    while (golden_.tensors().contains("image." + std::to_string(count))) ++count;
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

INSTANTIATE_TEST_SUITE_P(All, ModelGolden,
                         testing::ValuesIn(golden_cases({"square_patch", "two_images",
                                                         "older_names", "text_only", "defaults"})),
                         golden_case_name);
INSTANTIATE_TEST_SUITE_P(All, SeveralPictures, testing::ValuesIn(golden_cases({"two_images"})),
                         golden_case_name);

}  // namespace
}  // namespace ocelli::app
