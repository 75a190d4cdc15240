// Ops::linear with matrices that come in panels, as packed files hold them: the bits are those of
// the same matrices in rows.
#include <gtest/gtest.h>

#include "kernels/packing.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

// Stacked matrices in rows, with biases, and the same in panels: one behind the other, or each in
// memory of its own.
class Matrices {
 public:
  Matrices(Random& random, const std::vector<int>& heights, int inputs, int group)
      : inputs_(inputs) {
    for (const int height : heights) {
      outputs_ += height;
      stored_.push_back(std::make_unique<StoredInt8>(random_int8(random, height, inputs, group)));
      biases_.push_back(store_vector(random.matrix(1, height), DType::kF16));
      rows.weights.push_back(stored_.back()->tensor());
      rows.biases.push_back(biases_.back()->tensor());
    }
    host::ThreadPool pool(1);
    together_ = std::make_unique<PackedStack>(rows, PanelFormat{}, pool);
    together = {together_->weights(), rows.biases};
    apart.biases = rows.biases;
    for (const HostTensor& weight : rows.weights) {
      LinearSource one;
      one.weights = {weight};
      apart_.push_back(std::make_unique<PackedStack>(one, PanelFormat{}, pool));
      apart.weights.push_back(apart_.back()->weights()[0]);
    }
  }

  int inputs() const { return inputs_; }
  int outputs() const { return outputs_; }

  LinearSource rows;
  LinearSource together;
  LinearSource apart;

 private:
  int inputs_;
  int outputs_ = 0;
  std::vector<std::unique_ptr<StoredInt8>> stored_;
  std::vector<std::unique_ptr<Stored>> biases_;
  std::unique_ptr<PackedStack> together_;
  std::vector<std::unique_ptr<PackedStack>> apart_;
};

class LinearPanelsOps : public EveryBackend {
 protected:
  Matrix run(const LinearSource& source, const Matrix& x, int outputs, Epilogue epilogue) {
    const Matrix found = run_linear(*ops, source, x, epilogue);
    EXPECT_EQ(found.cols, outputs);
    return found;
  }
};

TEST_P(LinearPanelsOps, GiveTheBitsOfRows) {
  Random random(1);
  const std::vector<std::vector<int>> stacks = {{1},          {40},         {16, 16, 16},
                                                {48, 32, 37}, {20, 13, 30}, {16, 7, 32}};
  for (const auto& heights : stacks) {
    for (const auto& [inputs, group] : {std::pair{96, 32}, {70, 70}, {588, 588}}) {
      const Matrices matrices(random, heights, inputs, group);
      for (const int rows : {1, 5, 34}) {
        for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAccumulate, Epilogue::kSilu}) {
          SCOPED_TRACE(testing::Message() << heights.size() << " matrices, " << inputs
                                          << " inputs, " << rows << " rows");
          const Matrix x = random.matrix(rows, inputs, -3, 3);
          const Matrix expected = run(matrices.rows, x, matrices.outputs(), epilogue);
          expect_same_bits(run(matrices.together, x, matrices.outputs(), epilogue), expected);
          expect_same_bits(run(matrices.apart, x, matrices.outputs(), epilogue), expected);
        }
      }
    }
  }
}

TEST_P(LinearPanelsOps, GatedMlpGivesTheBitsOfRows) {
  Random random(2);
  const Matrices front(random, {128}, 64, 64);
  const Matrices gate(random, {128}, 64, 64);
  const Matrices split_gate(random, {60, 68}, 64, 64);
  const Matrices back(random, {64}, 128, 128);
  for (const int rows : {1, 20}) {
    const Guarded x(*ops, random.matrix(rows, 64));
    const auto result_of = [&](const LinearSource& f, const LinearSource& g,
                               const LinearSource& b) {
      return run_gated_mlp(*ops, x.view, f, g, b);
    };
    expect_same_bits(result_of(front.together, gate.together, back.together),
                     result_of(front.rows, gate.rows, back.rows));
    expect_same_bits(result_of(front.together, split_gate.together, back.together),
                     result_of(front.rows, split_gate.rows, back.rows));
  }
}

TEST_P(LinearPanelsOps, ATableInPanelsIsLoadedAsFloats) {
  Random random(3);
  const Matrices matrices(random, {21}, 48, 16);
  const std::vector<int32_t> rows = {20, 0, 16, 3};
  const auto embed = [&](const HostTensor& source) {
    const Guarded out(*ops, Matrix(4, 48, kNan));
    ops->embed(ops->load(source), rows, out.view);
    return out.read();
  };
  expect_same_bits(embed(matrices.together.weights[0]), embed(matrices.rows.weights[0]));
}

OCELLI_EVERY_BACKEND(LinearPanelsOps);

}  // namespace
}  // namespace ocelli::kernels
