// The connector: which types there are, how their tensors are named, what they compute.
#include "connector/mlp.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"
#include "tests/kernels/safetensors_builder.h"

namespace ocelli::connector {
namespace {

using kernels::bytes_of;
using kernels::Checkpoint;
using kernels::DType;
using kernels::SafetensorsBuilder;
using kernels::Tensor;
using kernels::TensorReader;

constexpr const char* kPrefix = "connector._connector.";

TEST(MlpConfigs, ReadTheDepthFromTheType) {
  for (const auto& [type, depth] : std::map<std::string, int>{
           {"mlp1x_gelu", 1}, {"mlp2x_gelu", 2}, {"mlp3x_gelu", 3}, {"linear", 1}}) {
    const MlpConfig config = MlpConfig::parse(type, 768, 2560);
    EXPECT_EQ(config.depth, depth) << type;
    EXPECT_EQ(config.vision_size, 768);
    EXPECT_EQ(config.text_size, 2560);
  }
}

TEST(MlpConfigs, AnIdentityKeepsTheWidth) {
  EXPECT_EQ(MlpConfig::parse("identity", 64, 64).depth, 0);
  EXPECT_EQ(error_of([] { MlpConfig::parse("identity", 64, 65); }),
            "an identity connector cannot map 64 vision features to 65 of the text model");
}

TEST(MlpConfigs, NameATypeThatIsNotSupported) {
  for (const std::string type :
       {"qformer", "resampler", "mlp0x_gelu", "mlpx_gelu", "mlp2x_relu", "mlp65x_gelu",
        "mlp-1x_gelu", "mlp99999999999x_gelu", "mlp2 x_gelu", "mlp2x_gelu ", "mlpx_gel", ""}) {
    EXPECT_EQ(error_of([&] { MlpConfig::parse(type, 8, 8); }),
              "connector_type '" + type + "' is not supported: use mlpNx_gelu, linear or identity");
  }
}

class MlpTest : public testing::Test {
 protected:
  Checkpoint open(const SafetensorsBuilder& builder) const {
    return Checkpoint::open(directory_.write("model.safetensors", builder.build()));
  }
  // Names that reading a connector of this type asks for.
  static std::set<std::string> names(const Checkpoint& checkpoint, const std::string& type) {
    TensorReader reader(checkpoint);
    MlpWeights::read(reader, kPrefix, MlpConfig::parse(type, 2, 1));
    return reader.used();
  }

  TemporaryDirectory directory_;
};

TEST_F(MlpTest, LayersAreNumberedByTwos) {
  const Checkpoint checkpoint = open(SafetensorsBuilder().add("x", "U8", {1}, "x"));
  EXPECT_EQ(
      names(checkpoint, "mlp3x_gelu"),
      (std::set<std::string>{"connector._connector.0.weight", "connector._connector.0.bias",
                             "connector._connector.2.weight", "connector._connector.2.bias",
                             "connector._connector.4.weight", "connector._connector.4.bias"}));
  EXPECT_TRUE(names(checkpoint, "linear").contains("connector._connector.weight"));
  EXPECT_TRUE(names(checkpoint, "linear").contains("connector._connector.bias"));
}

TEST_F(MlpTest, ALoneLayerMayHaveANumber) {
  const Checkpoint checkpoint = open(SafetensorsBuilder().add(
      "connector._connector.0.weight", "F32", {1, 2}, bytes_of<float>({1, 2})));
  EXPECT_EQ(
      names(checkpoint, "mlp1x_gelu"),
      (std::set<std::string>{"connector._connector.0.weight", "connector._connector.0.bias"}));
}

TEST_F(MlpTest, OnlyTheFirstLayerIsAsWideAsTheFeatures) {
  const Checkpoint checkpoint = open(SafetensorsBuilder().add("x", "U8", {1}, "x"));
  TensorReader reader(checkpoint);
  MlpWeights::read(reader, kPrefix, MlpConfig::parse("mlp2x_gelu", 5, 3));
  const std::string message = error_of([&] { reader.finish(); });
  EXPECT_TRUE(holds(message, "0.weight\" is missing, wanted [3, 5]"));
  EXPECT_TRUE(holds(message, "2.weight\" is missing, wanted [3, 3]"));
  EXPECT_TRUE(holds(message, "2.bias\" is missing, wanted [3]"));
}

// What a connector makes of x, on every backend.
void expect_forward(const Checkpoint& checkpoint, const MlpConfig& config,
                    const std::vector<float>& x, const std::vector<float>& expected) {
  TensorReader reader(checkpoint);
  const MlpWeights weights = MlpWeights::read(reader, kPrefix, config);
  reader.finish();
  const int rows = static_cast<int>(x.size()) / config.vision_size;
  for (const std::string& backend : kernels::backend_names()) {
    SCOPED_TRACE(backend);
    const auto ops = kernels::make_backend({backend, 1, ""});
    Mlp mlp(*ops, config, weights, rows + 1);
    const Tensor features =
        ops->tensor(rows, config.vision_size, DType::kF32, kernels::Placement::kActivation);
    ops->write(x, features);
    const Tensor out = mlp.forward(features);
    ASSERT_EQ(out.rows, rows);
    ASSERT_EQ(out.cols, config.text_size);
    std::vector<float> found(expected.size());
    ops->read(out, found);
    for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5) << i;
  }
}

// gelu(2) = 2Φ(2) = 1.9544997 and gelu(−2) = gelu(2) − 2 = −0.0455003; the tanh form would give
// 1.9545977. The last layer has no GELU.
TEST_F(MlpTest, TwoLayersWithAnExactGeluBetween) {
  const Checkpoint checkpoint =
      open(SafetensorsBuilder()
               .add("connector._connector.0.weight", "F32", {1, 2}, bytes_of<float>({1, 2}))
               .add("connector._connector.0.bias", "F32", {1}, bytes_of<float>({-1}))
               .add("connector._connector.2.weight", "F32", {1, 1}, bytes_of<float>({-10}))
               .add("connector._connector.2.bias", "F32", {1}, bytes_of<float>({3})));
  // First layer: 1 + 2 − 1 = 2, and 1 − 2 − 1 = −2.
  expect_forward(checkpoint, MlpConfig::parse("mlp2x_gelu", 2, 1), {1, 1, 1, -1},
                 {3 - 19.544997F, 3 + 0.455003F});
}

TEST_F(MlpTest, ThreeLayersUseTheirBuffersInTurn) {
  const Checkpoint checkpoint =
      open(SafetensorsBuilder()
               .add("connector._connector.0.weight", "F32", {1, 2}, bytes_of<float>({1, 1}))
               .add("connector._connector.0.bias", "F32", {1}, bytes_of<float>({0}))
               .add("connector._connector.2.weight", "F32", {1, 1}, bytes_of<float>({0}))
               .add("connector._connector.2.bias", "F32", {1}, bytes_of<float>({2}))
               .add("connector._connector.4.weight", "F32", {1, 1}, bytes_of<float>({100}))
               .add("connector._connector.4.bias", "F32", {1}, bytes_of<float>({0.5F})));
  expect_forward(checkpoint, MlpConfig::parse("mlp3x_gelu", 2, 1), {4, 5}, {195.94997F});
}

TEST_F(MlpTest, ALinearConnectorHasNoGelu) {
  const Checkpoint checkpoint =
      open(SafetensorsBuilder()
               .add("connector._connector.weight", "F32", {1, 2}, bytes_of<float>({3, -4}))
               .add("connector._connector.bias", "F32", {1}, bytes_of<float>({0.5F})));
  expect_forward(checkpoint, MlpConfig::parse("linear", 2, 1), {1, 2, 0, 0}, {-4.5F, 0.5F});
}

TEST_F(MlpTest, AnIdentityPassesTheFeaturesOn) {
  const Checkpoint checkpoint = open(SafetensorsBuilder().add("x", "U8", {1}, "x"));
  expect_forward(checkpoint, MlpConfig::parse("identity", 2, 2), {1, -2}, {1, -2});
}

}  // namespace
}  // namespace ocelli::connector
