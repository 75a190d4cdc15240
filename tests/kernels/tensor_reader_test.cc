#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "host/mapped_file.h"
#include "kernels/checkpoint.h"
#include "kernels/ops.h"
#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"
#include "tests/kernels/safetensors_builder.h"

namespace ocelli::kernels {
namespace {

namespace fs = std::filesystem;

class TensorReaderTest : public testing::Test {
 protected:
  Checkpoint sample() const {
    directory_.write("model.safetensors", SafetensorsBuilder()
                                              .add("w", "F16", {2, 3}, std::string(12, '\0'))
                                              .add("b", "F32", {2}, std::string(8, '\0'))
                                              .add("ids", "I64", {1}, std::string(8, '\0'))
                                              .add("spare", "U8", {1}, "x")
                                              .build());
    return Checkpoint::open(directory_.path());
  }

  TemporaryDirectory directory_;
};

TEST_F(TensorReaderTest, GivesWhatIsAskedFor) {
  const Checkpoint checkpoint = sample();
  TensorReader reader(checkpoint);
  EXPECT_EQ(reader.require("w", {2, 3}).data, checkpoint.tensors().at("w").data);
  EXPECT_EQ(reader.require("b", {2}).dtype, DType::kF32);
  EXPECT_NO_THROW(reader.finish());
  EXPECT_TRUE(reader.contains("w"));
  EXPECT_FALSE(reader.contains("v"));
  EXPECT_EQ(reader.unused(), (std::vector<std::string>{"ids", "spare"}));
}

TEST_F(TensorReaderTest, AddsAWeightAndItsBias) {
  directory_.write("model.safetensors", SafetensorsBuilder()
                                            .add("q.weight", "F32", {2, 3}, std::string(24, '\0'))
                                            .add("q.bias", "F16", {2}, std::string(4, '\0'))
                                            .build());
  const Checkpoint checkpoint = Checkpoint::open(directory_.path());
  TensorReader reader(checkpoint);
  LinearSource source;
  reader.require_linear("q", 2, 3, source);
  reader.require_linear("k", 4, 3, source);
  ASSERT_EQ(source.weights.size(), 2U);
  ASSERT_EQ(source.biases.size(), 2U);
  EXPECT_EQ(source.weights[0].data, checkpoint.tensors().at("q.weight").data);
  EXPECT_EQ(source.biases[0].data, checkpoint.tensors().at("q.bias").data);
  EXPECT_EQ(reader.used(), (std::set<std::string>{"k.bias", "k.weight", "q.bias", "q.weight"}));
  const std::string message = error_of([&] { reader.finish(); });
  EXPECT_TRUE(holds(message, "\"k.weight\" is missing, wanted [4, 3]"));
  EXPECT_TRUE(holds(message, "\"k.bias\" is missing, wanted [4]"));
}

TEST_F(TensorReaderTest, AddsAMatrixWithoutABias) {
  const Checkpoint checkpoint = sample();
  TensorReader reader(checkpoint);
  LinearSource source;
  reader.require_matrix("w", 2, 3, source);
  reader.require_matrix("gone", 4, 3, source);
  ASSERT_EQ(source.weights.size(), 2U);
  EXPECT_TRUE(source.biases.empty());
  EXPECT_EQ(source.weights[0].data, checkpoint.tensors().at("w").data);
  EXPECT_EQ(source.weights[1].data, nullptr);
  EXPECT_EQ(reader.used(), (std::set<std::string>{"gone", "w"}));
  EXPECT_TRUE(holds(error_of([&] { reader.finish(); }), "\"gone\" is missing, wanted [4, 3]"));
}

// int8 values mean nothing without scales, and only a linear or a table knows what to do with them.
TEST_F(TensorReaderTest, TakesIntegersOnlyAsQuantisedMatrices) {
  auto file = std::make_unique<host::MappedFile>(directory_.write("other.bin", "12345678abcd"));
  HostTensor matrix = {.name = "quantised", .dtype = DType::kI8, .shape = {2, 2}};
  matrix.data = file->bytes().data() + 8;
  HostTensor bare = matrix;
  bare.name = "bare";
  matrix.scales = reinterpret_cast<const float*>(file->bytes().data());
  matrix.group = 2;
  HostTensor vector = matrix;
  vector.name = "vector";
  vector.shape = {4};
  const Checkpoint checkpoint(std::move(file), {matrix, bare, vector});
  TensorReader reader(checkpoint);
  LinearSource source;
  reader.require_matrix("quantised", 2, 2, source);
  EXPECT_NO_THROW(reader.finish());
  EXPECT_TRUE(source.weights[0].quantised());
  EXPECT_EQ(reader.require("bare", {2, 2}).data, nullptr);
  EXPECT_EQ(reader.require("vector", {4}).data, nullptr);
  const std::string message = error_of([&] { reader.finish(); });
  EXPECT_TRUE(holds(message, "\"bare\" is i8, wanted f32, f16 or bf16"));
  EXPECT_TRUE(holds(message, "\"vector\" is i8, wanted f32, f16 or bf16"));
}

TEST_F(TensorReaderTest, NamesEveryProblem) {
  const Checkpoint checkpoint = sample();
  TensorReader reader(checkpoint);
  EXPECT_EQ(reader.require("w", {3, 2}).data, nullptr);
  EXPECT_EQ(reader.require("gone", {7}).data, nullptr);
  EXPECT_EQ(reader.require("ids", {1}).data, nullptr);
  EXPECT_NE(reader.require("b", {2}).data, nullptr);
  EXPECT_EQ(error_of([&] { reader.finish(); }),
            directory_.path().string() +
                ": 3 of the model's tensors are missing or do not fit:\n"
                "  \"w\" is [2, 3], wanted [3, 2]\n"
                "  \"gone\" is missing, wanted [7]\n"
                "  \"ids\" is i64, wanted f32, f16 or bf16");
}

TEST_F(TensorReaderTest, NamesTheFirstTwentyProblemsAndCountsTheRest) {
  const Checkpoint checkpoint = sample();
  TensorReader reader(checkpoint);
  for (int i = 0; i < 25; ++i) reader.require("layer" + std::to_string(i), {1});
  const std::string error = error_of([&] { reader.finish(); });
  EXPECT_TRUE(holds(error, ": 25 of the model's tensors are missing"));
  EXPECT_TRUE(holds(error, "\"layer19\" is missing, wanted [1]\n  and 5 more"));
  EXPECT_EQ(error.find("layer20"), std::string::npos);
}
}  // namespace
}  // namespace ocelli::kernels
