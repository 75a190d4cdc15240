// The reference backend against values worked out by hand, so that the oracle is not its own.
#include <gtest/gtest.h>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

class ReferenceOps : public testing::Test {
 protected:
  std::unique_ptr<Ops> ops = make_backend({"reference", 1, ""});

  Tensor tensor(const Matrix& values) {
    Tensor result = ops->tensor(values.rows, values.cols, DType::kF32, Placement::kActivation);
    ops->write(values.values, result);
    return result;
  }
  Matrix read(const Tensor& tensor) {
    Matrix result(tensor.rows, tensor.cols);
    ops->read(tensor, result.values);
    return result;
  }
  void expect(const Tensor& found, const std::vector<float>& values) {
    expect_close(read(found), Matrix(found.rows, found.cols, values), 1e-6);
  }
};

TEST_F(ReferenceOps, Embed) {
  const Tensor table = tensor({3, 2, {1, 2, 3, 4, 5, 6}});
  const Tensor out = tensor(Matrix(2, 2));
  ops->embed(table, std::vector<int32_t>{2, 0}, out);
  expect(out, {5, 6, 1, 2});
}

TEST_F(ReferenceOps, LinearWithEveryEpilogue) {
  // Rows of W: (1, 2) with bias 1, and, in a second matrix, (−1, 0.5) with bias −1.
  const auto first = store({1, 2, {1, 2}}, DType::kF32);
  const auto second = store({1, 2, {-1, 0.5F}}, DType::kF32);
  const auto bias = store_vector({1, 1, {1}}, DType::kF32);
  const auto other_bias = store_vector({1, 1, {-1}}, DType::kF32);
  const Linear linear = ops->load_linear(
      {{first->tensor(), second->tensor()}, {bias->tensor(), other_bias->tensor()}});
  const Tensor x = tensor({2, 2, {1, 0, 3, -2}});  // x·Wᵀ + b = (2, −2), (0, −5)
  const auto run = [&](Epilogue epilogue) {
    const Tensor out = tensor(Matrix(2, 2, 10.0F));
    ops->linear(x, linear, out, epilogue);
    return out;
  };
  expect(run(Epilogue::kStore), {2, -2, 0, -5});
  expect(run(Epilogue::kAccumulate), {12, 8, 10, 5});
  expect(run(Epilogue::kMultiply), {20, -20, 0, -50});
  // gelu(2) = 2Φ(2) = 2 · 0.9772499; gelu(−y) = gelu(y) − y.
  expect(run(Epilogue::kGeluErf), {1.9544997F, -0.0455003F, 0, -1.4332579e-6F});
  // The tanh form at 2: u = √(2/π)(2 + 0.35772) = 1.8811884, tanh(u) = 0.9545977.
  expect(run(Epilogue::kGeluTanh), {1.9545977F, -0.0454023F, 0, -2.2917962e-7F});
  // silu(2) = 2/(1 + e^−2) = 2 · 0.8807971; silu(−5) = −5/(1 + e^5).
  expect(run(Epilogue::kSilu), {1.7615942F, -0.2384058F, 0, -0.0334643F});
}

TEST_F(ReferenceOps, LayerNorm) {
  // Mean 3 and variance 4 make (−1, 1) of (1, 5); times weight, plus bias.
  const auto weight = store_vector({1, 2, {2, 3}}, DType::kF32);
  const auto bias = store_vector({1, 2, {0.5F, -1}}, DType::kF32);
  const Norm norm = {ops->load(weight->tensor()), ops->load(bias->tensor()), 0};
  const Tensor x = tensor({1, 2, {1, 5}});
  ops->layer_norm(x, norm, x);
  expect(x, {-1.5F, 2});
  // With ε = 5: (x − mean)/√(4 + 5) = ±2/3.
  const Tensor y = tensor({1, 2, {1, 5}});
  ops->layer_norm(y, {norm.weight, norm.bias, 5}, y);
  expect(y, {0.5F - 4.0F / 3, 1});
}

TEST_F(ReferenceOps, RmsNorm) {
  // The mean of the squares of (3, 4, 0, 0) is 25/4, so x / 2.5.
  const auto weight = store_vector({1, 4, {1, 10, 1, 1}}, DType::kF32);
  const Tensor x = tensor({1, 4, {3, 4, 0, 0}});
  ops->rms_norm(x, {ops->load(weight->tensor()), {}, 0}, x);
  expect(x, {1.2F, 16, 0, 0});
  // With ε = 9.75 it is 16, so x / 4.
  const Tensor y = tensor({1, 4, {3, 4, 0, 0}});
  ops->rms_norm(y, {ops->load(weight->tensor()), {}, 9.75F}, y);
  expect(y, {0.75F, 10, 0, 0});
}

TEST_F(ReferenceOps, RopeTurnsPairsByTheirPosition) {
  // Angles: position 0 by 0°, position 1 by 90°, position 2 by 180°. Two heads of three dimensions,
  // of which the first two turn.
  const Tensor table = tensor({3, 2, {1, 0, 0, 1, -1, 0}});
  const Tensor x = tensor({2, 6, {1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6}});
  ops->rope(x, 3, table, std::vector<Segment>{{0, 0, 2, 1}});
  expect(x, {-2, 1, 3, -5, 4, 6, -1, -2, 3, -4, -5, 6});
}

TEST_F(ReferenceOps, AppendPlacesRowsBySequenceAndPast) {
  const Tensor cache = tensor(Matrix(6, 2, 9.0F));
  const Tensor x = tensor({3, 2, {1, 2, 3, 4, 5, 6}});
  ops->append(x, cache, 3, std::vector<Segment>{{1, 0, 1, 2}, {0, 1, 2, 0}});
  expect(cache, {3, 4, 5, 6, 9, 9, 9, 9, 9, 9, 1, 2});
}

TEST_F(ReferenceOps, AttentionIsCausalOrNot) {
  // One head of one dimension, scale 1: scores are q·k. With k = (0, ln 3) and q = 1 the weights of
  // two keys are 1/4 and 3/4.
  const Tensor q = tensor({2, 1, {1, 1}});
  const Tensor keys = tensor({2, 1, {0, std::log(3.0F)}});
  const Tensor values = tensor({2, 1, {8, 4}});
  const Tensor out = tensor(Matrix(2, 1));
  AttentionShape shape = {
      .heads = 1, .kv_heads = 1, .head_dim = 1, .scale = 1, .causal = true, .capacity = 2};
  ops->attention(q, keys, values, shape, std::vector<Segment>{{0, 0, 2, 0}}, out);
  expect(out, {8, 5});
  shape.causal = false;
  ops->attention(q, keys, values, shape, std::vector<Segment>{{0, 0, 2, 0}}, out);
  expect(out, {5, 5});
  // A past of one: the single row sees both keys. Scale 2 makes the weights 1/10 and 9/10.
  shape.causal = true;
  shape.scale = 2;
  const Tensor last = out.row_range(1, 1);
  ops->attention(q.row_range(1, 1), keys, values, shape, std::vector<Segment>{{0, 0, 1, 1}}, last);
  expect(last, {4.4F});
}

TEST_F(ReferenceOps, AttentionSharesKeyHeads) {
  // Four query heads over two key-value heads; one key, so each head copies its value head.
  const Tensor q = tensor(Matrix(1, 4, 1.0F));
  const Tensor keys = tensor(Matrix(8, 1, 1.0F));
  const Tensor values = tensor({8, 1, {0, 0, 0, 0, 7, 0, 11, 0}});
  const Tensor out = tensor(Matrix(1, 4));
  const AttentionShape shape = {
      .heads = 4, .kv_heads = 2, .head_dim = 1, .scale = 1, .causal = true, .capacity = 2};
  ops->attention(q, keys, values, shape, std::vector<Segment>{{1, 0, 1, 0}}, out);
  expect(out, {7, 7, 11, 11});
}

TEST_F(ReferenceOps, AddRepeats) {
  const Tensor out = tensor({4, 1, {1, 2, 3, 4}});
  ops->add(tensor({2, 1, {10, 20}}), out);
  expect(out, {11, 22, 13, 24});
}

TEST_F(ReferenceOps, MlpWithAGate) {
  // silu(2x) · (3x) at x = 1, times 5, onto 100: silu(2) = 1.7615942.
  const auto two = store({1, 1, {2}}, DType::kF32);
  const auto three = store({1, 1, {3}}, DType::kF32);
  const auto five = store({1, 1, {5}}, DType::kF32);
  const Mlp mlp = {ops->load_linear({{two->tensor()}, {}}),
                   ops->load_linear({{three->tensor()}, {}}),
                   ops->load_linear({{five->tensor()}, {}}), Epilogue::kSilu};
  const Tensor out = tensor(Matrix(1, 1, 100.0F));
  run_mlp(*ops, tensor(Matrix(1, 1, 1.0F)), mlp, tensor(Matrix(1, 1)), out);
  expect_close(read(out), Matrix(1, 1, 126.423913F), 1e-5);
}

}  // namespace
}  // namespace ocelli::kernels
