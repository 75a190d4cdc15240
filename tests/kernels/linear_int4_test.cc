// Ops::linear with matrices of int4: the bits are those of the int8 matrices that they stand for.
#include <gtest/gtest.h>

#include "kernels/host_storage.h"
#include "kernels/packing.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

// One behind the other in one piece of memory: matrices of int4 with any nibbles and factors, laid
// out by packing.h's description; and the same as int8 in rows.
class Matrices {
 public:
  Matrices(Random& random, const std::vector<int>& heights, int inputs, int factor_group)
      : inputs_(inputs) {
    int64_t bytes = 0;
    int64_t scales = 0;
    for (const int height : heights) {
      const PanelShape shape = {height, inputs, inputs, factor_group};
      bytes += shape.value_bytes();
      scales += shape.scales();
      outputs_ += height;
    }
    values_ = std::make_unique<HostStorage>(bytes);
    scales_ = std::make_unique<HostStorage>(scales * 4);
    auto* value = reinterpret_cast<uint8_t*>(values_->data());
    auto* scale = reinterpret_cast<float*>(scales_->data());
    for (const int height : heights) {
      add(random, {height, inputs, inputs, factor_group}, value, scale);
      biases_.push_back(store_vector(random.matrix(1, height), DType::kF16));
      rows.biases.push_back(biases_.back()->tensor());
    }
    int4.biases = rows.biases;
  }

  int inputs() const { return inputs_; }
  int outputs() const { return outputs_; }

  LinearSource int4;
  LinearSource rows;

 private:
  // A panel's factors take `factor_lines` lines of 64 bytes, its nibbles what follows.
  void add(Random& random, const PanelShape& shape, uint8_t*& value, float*& scale) {
    const int group = shape.factor_group;
    const int factors = (inputs_ + group - 1) / group;
    const int factor_lines = (16 * factors + 63) / 64;
    const int lines = (inputs_ + 7) / 8;
    HostTensor tensor = {.name = "int4", .dtype = DType::kI8, .shape = {shape.outputs, inputs_}};
    tensor.data = reinterpret_cast<const std::byte*>(value);
    tensor.scales = scale;
    tensor.group = inputs_;
    tensor.layout = Layout::kPanels;
    tensor.factor_group = group;
    int4.weights.push_back(tensor);
    Int8Matrix products(shape.outputs, inputs_, inputs_);
    for (int first = 0; first < shape.outputs; first += 16) {
      std::fill_n(value, factor_lines * 64, uint8_t{0});
      std::fill_n(value + factor_lines * 64, lines * 64, uint8_t{0x88});
      for (int n = 0; n < 16; ++n) {
        const bool is_output = first + n < shape.outputs;
        scale[n] = is_output ? random.uniform(0.0F, 0.01F) : 0;
        if (!is_output) continue;
        products.scales[first + n] = scale[n];
        for (int k = 0; k < inputs_; ++k) {
          uint8_t& factor = value[k / group * 16 + n];
          if (k % group == 0) factor = static_cast<uint8_t>(random.integer(-15, 15));
          const int nibble = random.integer(0, 15);
          uint8_t& byte = value[(factor_lines + k / 8) * 64 + n * 4 + k % 4];
          byte = static_cast<uint8_t>(k / 4 % 2 == 0 ? (byte & 0xF0) | nibble
                                                     : (byte & 0x0F) | nibble << 4);
          products.value(first + n, k) =
              static_cast<int8_t>(static_cast<int8_t>(factor) * (nibble - 8));
        }
      }
      value += (factor_lines + lines) * 64;
      scale += 16;
    }
    stored_.push_back(std::make_unique<StoredInt8>(products));
    rows.weights.push_back(stored_.back()->tensor());
  }

  int inputs_;
  int outputs_ = 0;
  std::unique_ptr<HostStorage> values_;
  std::unique_ptr<HostStorage> scales_;
  std::vector<std::unique_ptr<StoredInt8>> stored_;
  std::vector<std::unique_ptr<Stored>> biases_;
};

class LinearInt4Ops : public EveryBackend {
 protected:
  Matrix run(const LinearSource& source, const Matrix& x, int outputs, Epilogue epilogue) {
    const Matrix found = run_linear(*ops, source, x, epilogue);
    EXPECT_EQ(found.cols, outputs);
    return found;
  }
};

TEST_P(LinearInt4Ops, GiveTheBitsOfTheirProducts) {
  Random random(1);
  const std::vector<std::vector<int>> stacks = {{1}, {40}, {16, 16, 16}, {48, 32, 37}, {20, 13}};
  const std::vector<std::pair<int, int>> groups = {{64, 64},  {70, 32},   {588, 64},
                                                   {20, 128}, {600, 128}, {1, 32}};
  for (const auto& heights : stacks) {
    for (const auto& [inputs, group] : groups) {
      const Matrices matrices(random, heights, inputs, group);
      for (const int rows : {1, 2, 3, 7, 8, 15, 16, 34, 65}) {
        SCOPED_TRACE(testing::Message() << heights.size() << " matrices from " << heights[0] << ", "
                                        << inputs << " inputs, " << rows << " rows");
        const Epilogue epilogue =
            std::array{Epilogue::kStore, Epilogue::kAccumulate, Epilogue::kSilu}[rows % 3];
        const Matrix x = random.matrix(rows, inputs, -3, 3);
        expect_same_bits(run(matrices.int4, x, matrices.outputs(), epilogue),
                         run(matrices.rows, x, matrices.outputs(), epilogue));
      }
    }
  }
}

// Sums as large as they become: every product has one sign.
TEST_P(LinearInt4Ops, TheLargestSumsFit) {
  for (const int inputs : {4304, 8192}) {
    const PanelShape shape = {16, inputs, inputs, 128};
    const HostStorage values(shape.value_bytes());
    auto* bytes = reinterpret_cast<uint8_t*>(values.data());
    std::fill_n(bytes, shape.factor_lines() * 64, uint8_t{15});
    const std::vector<float> scales(16, 1.0F);
    HostTensor tensor = {.name = "int4", .dtype = DType::kI8, .shape = {16, inputs}};
    tensor.data = values.data();
    tensor.scales = scales.data();
    tensor.group = inputs;
    tensor.layout = Layout::kPanels;
    tensor.factor_group = 128;
    LinearSource source;
    source.weights = {tensor};
    for (const uint8_t nibbles : {uint8_t{0x00}, uint8_t{0xFF}}) {
      std::fill_n(bytes + shape.factor_lines() * 64, shape.lines() * 64, nibbles);
      for (const int rows : {1, 9, 65}) {
        const float sum = static_cast<float>(inputs) * 127 * 15 * (nibbles == 0 ? -8 : 7);
        const Matrix out = run(source, Matrix(rows, inputs, 127.0F), 16, Epilogue::kStore);
        for (const float value : out.values) ASSERT_EQ(value, sum);
      }
    }
  }
}

TEST_P(LinearInt4Ops, GatedMlpGivesTheBitsOfItsProducts) {
  Random random(2);
  const Matrices front(random, {128}, 72, 32);
  const Matrices gate(random, {128}, 72, 32);
  const Matrices coarse(random, {128}, 72, 64);
  const Matrices split(random, {60, 68}, 72, 32);
  const Matrices back(random, {72}, 128, 64);
  for (const int rows : {1, 20, 65}) {
    const Guarded x(*ops, random.matrix(rows, 72));
    const auto result_of = [&](const LinearSource& f, const LinearSource& g,
                               const LinearSource& b) {
      return run_gated_mlp(*ops, x.view, f, g, b);
    };
    for (const Matrices* other : {&gate, &coarse, &split}) {
      expect_same_bits(result_of(front.int4, other->int4, back.int4),
                       result_of(front.rows, other->rows, back.rows));
    }
    // An int8 gate beside an int4 front.
    expect_same_bits(result_of(front.int4, gate.rows, back.rows),
                     result_of(front.rows, gate.rows, back.rows));
  }
}

TEST_P(LinearInt4Ops, ATableOfInt4IsLoadedAsFloats) {
  Random random(3);
  const Matrices matrices(random, {21}, 84, 32);
  const std::vector<int32_t> rows = {20, 0, 16, 3};
  const auto embed = [&](const HostTensor& source) {
    const Guarded out(*ops, Matrix(4, 84, kNan));
    ops->embed(ops->load(source), rows, out.view);
    return out.read();
  };
  expect_same_bits(embed(matrices.int4.weights[0]), embed(matrices.rows.weights[0]));
}

OCELLI_EVERY_BACKEND(LinearInt4Ops);

}  // namespace
}  // namespace ocelli::kernels
