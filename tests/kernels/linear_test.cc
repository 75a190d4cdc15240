// Ops::linear, load_linear and mlp on every backend, against the reference backend.
#include <gtest/gtest.h>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

const std::vector<DType> kWeightTypes = {DType::kF32, DType::kF16, DType::kBF16};
const std::vector<Epilogue> kEpilogues = {Epilogue::kStore,    Epilogue::kAccumulate,
                                          Epilogue::kMultiply, Epilogue::kGeluTanh,
                                          Epilogue::kGeluErf,  Epilogue::kSilu};

// One linear operation: matrices stacked by rows, each with a bias or all without.
struct LinearCase {
  std::vector<Matrix> weights;
  std::vector<Matrix> biases;
  DType dtype = DType::kF32;
  bool odd = false;
  Matrix x;
  Matrix out;  // what stands there before
  Epilogue epilogue = Epilogue::kStore;

  int outputs() const {
    int sum = 0;
    for (const Matrix& weight : weights) sum += weight.rows;
    return sum;
  }
};

// The memory of a case's weights, and the source that points at it.
struct StoredLinear {
  std::vector<std::unique_ptr<Stored>> memory;
  LinearSource source;
};

StoredLinear store_linear(const LinearCase& c) {
  StoredLinear stored;
  for (const Matrix& weight : c.weights) {
    stored.memory.push_back(store(weight, c.dtype, c.odd));
    stored.source.weights.push_back(stored.memory.back()->tensor());
  }
  for (const Matrix& bias : c.biases) {
    stored.memory.push_back(store_vector(bias, c.dtype, c.odd));
    stored.source.biases.push_back(stored.memory.back()->tensor());
  }
  return stored;
}

Matrix run_linear(Ops& ops, const LinearCase& c) {
  const StoredLinear stored = store_linear(c);
  const Linear linear = ops.load_linear(stored.source);
  EXPECT_EQ(linear->inputs, c.x.cols);
  EXPECT_EQ(linear->outputs, c.outputs());
  const Guarded x(ops, c.x);
  const Guarded out(ops, reads_output(c.epilogue) ? c.out : Matrix(c.x.rows, c.outputs(), kNan));
  ops.linear(x.view, linear, out.view, c.epilogue);
  x.check();
  out.check();
  return out.read();
}

// How far from the exact sum a float sum may be, by element. The rounding errors of K additions are
// as good as random, so their sum grows with √K; each is at most ε/2 of a partial sum, which is at
// most Σ|x·w| + |b|. Two more roundings: the product or bias, and the result. The activations have
// slopes below 1.13 and add a few roundings of their own.
std::vector<double> tolerances(Ops& reference, LinearCase c) {
  for (Matrix& weight : c.weights) weight = weight.absolute();
  for (Matrix& bias : c.biases) bias = bias.absolute();
  c.x = c.x.absolute();
  const Matrix out = c.out.absolute();
  const Epilogue epilogue = c.epilogue;
  c.epilogue = Epilogue::kStore;
  const Matrix magnitude = run_linear(reference, c);
  const double factor = kEpsilon * (2 + std::sqrt(c.x.cols) / 4);
  std::vector<double> result;
  for (size_t i = 0; i < magnitude.values.size(); ++i) {
    double scale = magnitude.values[i];
    if (epilogue == Epilogue::kAccumulate) scale += out.values[i];
    if (epilogue == Epilogue::kMultiply) scale *= out.values[i];
    if (epilogue >= Epilogue::kGeluTanh) scale *= 2;
    result.push_back(scale * factor);
  }
  return result;
}

LinearCase random_case(Random& random, int rows, int inputs, std::vector<int> outputs) {
  LinearCase c;
  // Sums of about unit size, where the activations bend.
  const float size = 3 / std::sqrt(static_cast<float>(inputs));
  c.dtype = kWeightTypes[random.integer(0, 2)];
  c.odd = random.coin();
  const bool biased = random.coin();
  for (const int count : outputs) {
    c.weights.push_back(random.matrix(count, inputs, -size, size));
    if (biased) c.biases.push_back(random.matrix(1, count));
  }
  c.x = random.matrix(rows, inputs);
  c.out = random.matrix(rows, c.outputs());
  return c;
}

class LinearOps : public EveryBackend {
 protected:
  void compare(const LinearCase& c) {
    SCOPED_TRACE(testing::Message()
                 << c.x.rows << " rows, " << c.x.cols << " to " << c.outputs() << ", "
                 << name(c.dtype) << ", epilogue " << static_cast<int>(c.epilogue));
    const Matrix expected = run_linear(*reference, c);
    expect_close(run_linear(*ops, c), expected, tolerances(*reference, c));
  }
};

TEST_P(LinearOps, EqualsTheReferenceOnManyShapes) {
  Random random(1);
  const std::vector<int> sizes = {1, 2, 3, 7, 13, 16, 17, 31, 32, 47, 48, 49, 63, 72, 80, 129};
  for (int i = 0; i < 120 && !HasFatalFailure(); ++i) {
    LinearCase c =
        random_case(random, random.integer(1, 9), random.pick(sizes), {random.pick(sizes)});
    c.epilogue = kEpilogues[i % kEpilogues.size()];
    compare(c);
  }
}

TEST_P(LinearOps, EqualsTheReferenceOnManyRows) {
  Random random(2);
  for (const int rows : {16, 33, 63, 64, 65, 70}) {
    LinearCase c = random_case(random, rows, random.pick({31, 72, 130}), {random.pick({17, 96})});
    c.epilogue = kEpilogues[rows % kEpilogues.size()];
    compare(c);
  }
}

TEST_P(LinearOps, EqualsTheReferenceOnLongSums) {
  Random random(3);
  for (const int inputs : {777, 2560, 10'241}) compare(random_case(random, 2, inputs, {5}));
}

TEST_P(LinearOps, StacksMatricesOfDifferentHeights) {
  Random random(4);
  for (int i = 0; i < 12; ++i) {
    LinearCase c = random_case(random, random.integer(1, 6), 39, {72, 13, 1 + i});
    c.epilogue = kEpilogues[i % kEpilogues.size()];
    compare(c);
  }
}

TEST_P(LinearOps, ARowAloneHasTheBitsItHasInABatch) {
  Random random(5);
  for (const Epilogue epilogue : kEpilogues) {
    LinearCase c = random_case(random, 70, 77, {31, 22});
    c.epilogue = epilogue;
    const Matrix together = run_linear(*ops, c);
    for (const int rows : {1, 2, 3, 5}) {
      LinearCase part = c;
      const int first = 70 - rows - random.integer(0, 60);
      part.x = c.x.row_range(first, rows);
      part.out = c.out.row_range(first, rows);
      expect_same_bits(run_linear(*ops, part), together.row_range(first, rows));
    }
  }
}

TEST_P(LinearOps, AnyNumberOfThreadsGivesTheSameBits) {
  if (GetParam().name != "cpu") GTEST_SKIP() << "only the CPU backend has threads";
  Random random(6);
  const std::unique_ptr<Ops> single = make_backend({"cpu", 1, GetParam().isa});
  for (int i = 0; i < 6; ++i) {
    LinearCase c = random_case(random, 70, 129, {200});
    c.epilogue = kEpilogues[i];
    expect_same_bits(run_linear(*ops, c), run_linear(*single, c));
  }
}

// A weight of 1 lets chosen numbers through to the activation.
Matrix activated(Ops& ops, Epilogue epilogue, const std::vector<float>& inputs) {
  LinearCase c;
  c.weights = {Matrix(1, 1, 1.0F)};
  c.x = {static_cast<int>(inputs.size()), 1, inputs};
  c.epilogue = epilogue;
  return run_linear(ops, c);
}

double exact(Epilogue epilogue, double y) {
  if (epilogue == Epilogue::kSilu) return y / (1 + std::exp(-y));
  if (epilogue == Epilogue::kGeluErf) return 0.5 * y * std::erfc(-y * std::sqrt(0.5));
  const double u = std::sqrt(2 / std::acos(-1.0)) * (y + 0.044715 * y * y * y);
  return y / (1 + std::exp(-2 * u));  // = 0.5y(1 + tanh(u)), without cancellation
}

TEST_P(LinearOps, ActivationsAreAccurateEverywhere) {
  for (const Epilogue epilogue : {Epilogue::kGeluTanh, Epilogue::kGeluErf, Epilogue::kSilu}) {
    std::vector<float> inputs;
    for (float y = -110; y < 110; y += 0.0117F) inputs.push_back(y);
    for (float y = 1e-40F; y < 1e38F; y *= 17) inputs.insert(inputs.end(), {y, -y});
    inputs.insert(inputs.end(), {0.0F, -0.0F, std::numeric_limits<float>::max(),
                                 std::numeric_limits<float>::lowest()});
    const Matrix found = activated(*ops, epilogue, inputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      // Where the result is not small: six roundings. Where the activation closes (y < 0), what
      // matters is the error against y itself: 1 + erf(u) cannot be closer than ε/2.
      const double wanted = exact(epilogue, inputs[i]);
      const double allowed = std::max(6 * std::fabs(wanted), 2.0 * std::fabs(inputs[i])) * kEpsilon;
      // A result below e^-87 may be flushed.
      ASSERT_NEAR(found.values[i], wanted, std::max(allowed, 1e-36))
          << "epilogue " << static_cast<int>(epilogue) << " of " << inputs[i];
      // For huge |y| the bound above says nothing about a closed gate: it must be closed.
      if (inputs[i] < -100) {
        ASSERT_NEAR(found.values[i], 0, 1e-36) << inputs[i];
      }
    }
  }
}

TEST_P(LinearOps, NanAndInfinityReachTheOutput) {
  for (const Epilogue epilogue : kEpilogues) {
    if (reads_output(epilogue)) continue;
    const Matrix found = activated(*ops, epilogue, {kNan, kInfinity, -kInfinity, 1.0F});
    EXPECT_TRUE(std::isnan(found.values[0])) << static_cast<int>(epilogue);
    EXPECT_EQ(found.values[1], kInfinity) << static_cast<int>(epilogue);
    // −∞·0 in the activations: NaN, as their definitions give. It must not pass for a number.
    EXPECT_FALSE(std::isfinite(found.values[2])) << static_cast<int>(epilogue);
    EXPECT_TRUE(std::isfinite(found.values[3])) << static_cast<int>(epilogue);
  }
}

TEST_P(LinearOps, ANanSpoilsItsOwnRowAlone) {
  Random random(7);
  LinearCase c = random_case(random, 9, 40, {50});
  const Matrix clean = run_linear(*ops, c);
  c.x.at(4, 39) = kNan;
  const Matrix spoilt = run_linear(*ops, c);
  expect_same_bits(spoilt.row_range(0, 4), clean.row_range(0, 4));
  expect_same_bits(spoilt.row_range(5, 4), clean.row_range(5, 4));
  for (int n = 0; n < 50; ++n) EXPECT_TRUE(std::isnan(spoilt.at(4, n)));
}

// out += fc2(act(fc1 x) · gate x), put together from the other operations' own results.
TEST_P(LinearOps, MlpIsItsParts) {
  Random random(8);
  for (const bool gated : {false, true}) {
    const LinearCase fc1 = random_case(random, 5, 17, {31});
    const LinearCase gate = random_case(random, 5, 17, {31});
    const LinearCase fc2 = random_case(random, 5, 31, {17});
    const auto run = [&](Ops& on) {
      const StoredLinear stored[] = {store_linear(fc1), store_linear(gate), store_linear(fc2)};
      Mlp mlp = {on.load_linear(stored[0].source), nullptr, on.load_linear(stored[2].source),
                 gated ? Epilogue::kSilu : Epilogue::kGeluTanh};
      if (gated) mlp.gate = on.load_linear(stored[1].source);
      const Guarded x(on, fc1.x);
      const Guarded hidden(on, Matrix(5, 31, kNan));
      const Guarded out(on, fc2.out);
      run_mlp(on, x.view, mlp, hidden.view, out.view);
      for (const Guarded* guarded : {&x, &hidden, &out}) guarded->check();
      return out.read();
    };
    // Two chained sums of some thirty terms of size below 1 each.
    expect_close(run(*ops), run(*reference), 40 * kEpsilon);
  }
}

OCELLI_EVERY_BACKEND(LinearOps);

}  // namespace
}  // namespace ocelli::kernels
