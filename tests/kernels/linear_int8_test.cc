// Ops::linear with quantised weights: every backend gives the reference's bits, and the reference
// those of llama2.c's rule, written out here once more.
#include <gtest/gtest.h>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

// Whose results are the same on every backend, bit by bit.
const std::vector<Epilogue> kExactEpilogues = {Epilogue::kStore, Epilogue::kAccumulate,
                                               Epilogue::kMultiply};
const std::vector<Epilogue> kActivations = {Epilogue::kGeluTanh, Epilogue::kGeluErf,
                                            Epilogue::kSilu};

struct Case {
  std::vector<Int8Matrix> weights;
  std::vector<Matrix> biases;
  Matrix x;
  Matrix out;  // what stands there before
  Epilogue epilogue = Epilogue::kStore;
  bool odd = false;

  int outputs() const {
    int sum = 0;
    for (const Int8Matrix& weight : weights) sum += weight.rows;
    return sum;
  }
};

Case random_case(Random& random, int rows, int inputs, int group, const std::vector<int>& outputs) {
  Case c;
  const bool biased = random.coin();
  for (const int count : outputs) {
    c.weights.push_back(random_int8(random, count, inputs, group));
    if (biased) c.biases.push_back(random.matrix(1, count));
  }
  c.x = random.matrix(rows, inputs, -3, 3);
  c.out = random.matrix(rows, c.outputs());
  c.odd = random.coin();
  return c;
}

Matrix run(Ops& ops, const Case& c) {
  std::vector<std::unique_ptr<StoredInt8>> matrices;
  std::vector<std::unique_ptr<Stored>> biases;
  LinearSource source;
  for (const Int8Matrix& weight : c.weights) {
    matrices.push_back(std::make_unique<StoredInt8>(weight, c.odd));
    source.weights.push_back(matrices.back()->tensor());
  }
  for (const Matrix& bias : c.biases) {
    biases.push_back(store_vector(bias, DType::kF32, c.odd));
    source.biases.push_back(biases.back()->tensor());
  }
  const Linear linear = ops.load_linear(source);
  EXPECT_EQ(linear->inputs, c.x.cols);
  EXPECT_EQ(linear->outputs, c.outputs());
  const Guarded x(ops, c.x);
  const Guarded out(ops, reads_output(c.epilogue) ? c.out : Matrix(c.x.rows, c.outputs(), kNan));
  ops.linear(x.view, linear, out.view, c.epilogue);
  x.check();
  out.check();
  return out.read();
}

// One output by the rule of Ops::linear, without bias; one weight row in its groups.
float by_the_rule(const float* x, const Int8Matrix& weight, int n) {
  const int group = weight.group;
  float sum = 0;
  for (int first = 0; first < weight.cols; first += group) {
    float largest = 0;
    for (int k = 0; k < group; ++k) largest = std::max(largest, std::fabs(x[first + k]));
    const float xs = largest / 127.0F;
    int32_t products = 0;
    for (int k = 0; k < group && xs > 0; ++k) {
      const double rounded = std::round(static_cast<double>(x[first + k] / xs));
      products += static_cast<int>(rounded) * weight.value(n, first + k);
    }
    volatile float term = static_cast<float>(products) * weight.scale(n, first / group);
    term = term * xs;
    sum += term;
  }
  return sum;
}

class LinearInt8Ops : public EveryBackend {
 protected:
  void expect_reference_bits(const Case& c) {
    SCOPED_TRACE(testing::Message()
                 << c.x.rows << " rows, " << c.x.cols << " to " << c.outputs() << " in groups of "
                 << c.weights[0].group << ", epilogue " << static_cast<int>(c.epilogue));
    expect_equal(run(*ops, c), run(*reference, c));
  }
};

TEST_P(LinearInt8Ops, GivesTheBitsOfTheRule) {
  Random random(1);
  for (const int group : {1, 4, 6, 32, 64, 192}) {
    Case c = random_case(random, 3, 192, group, {21});
    c.biases.clear();
    const Matrix found = run(*ops, c);
    for (int r = 0; r < 3; ++r) {
      for (int n = 0; n < 21; ++n) {
        ASSERT_EQ(found.at(r, n), by_the_rule(&c.x.values[r * 192], c.weights[0], n))
            << "at (" << r << ", " << n << "), groups of " << group;
      }
    }
  }
}

TEST_P(LinearInt8Ops, EqualsTheReferenceOnManyShapes) {
  Random random(2);
  const std::vector<int> outputs = {1, 2, 15, 16, 17, 31, 33, 48, 63, 65, 100};
  for (int i = 0; i < 100 && !HasFatalFailure(); ++i) {
    const int group = random.pick({1, 2, 3, 4, 5, 8, 12, 16, 31, 32, 64, 128});
    Case c = random_case(random, random.integer(1, 9), group * random.integer(1, 5), group,
                         {random.pick(outputs)});
    c.epilogue = kExactEpilogues[i % 3];
    expect_reference_bits(c);
  }
}

TEST_P(LinearInt8Ops, EqualsTheReferenceOnManyRows) {
  Random random(3);
  for (const int rows : {5, 6, 7, 8, 11, 12, 13, 16, 17, 31, 32, 33, 48, 49, 70, 133}) {
    const int group = random.pick({32, 64, 128, 192});
    Case c = random_case(random, rows, 384, group, {random.pick({16, 17, 40, 65})});
    c.epilogue = kExactEpilogues[rows % 3];
    expect_reference_bits(c);
  }
}

TEST_P(LinearInt8Ops, EqualsTheReferenceOnLongSums) {
  Random random(4);
  for (const int rows : {1, 9}) {
    for (const int group : {64, 512, 5632}) {
      expect_reference_bits(random_case(random, rows, 5632, group, {19}));
    }
  }
}

// Rows of one group, several tiles of inputs long, with and without a last one that is not full.
TEST_P(LinearInt8Ops, EqualsTheReferenceOnWholeRows) {
  Random random(14);
  for (const int rows : {8, 17, 33, 70, 131}) {
    for (const int inputs : {48, 588, 1100, 2600, 9217}) {
      Case c = random_case(random, rows, inputs, inputs, {67 + rows % 3 * 15});
      c.epilogue = kExactEpilogues[rows % 3];
      expect_reference_bits(c);
    }
  }
}

// More rows than one task takes, more outputs than one, and more of both with their inputs than
// caches hold.
TEST_P(LinearInt8Ops, EqualsTheReferenceOverManyTasks) {
  Random random(5);
  expect_reference_bits(random_case(random, 300, 64, 64, {70}));
  expect_reference_bits(random_case(random, 290, 5000, 5000, {50}));
  expect_reference_bits(random_case(random, 2, 64, 16, {2000}));
}

// Whole lines of outputs that are larger than caches may be written past them.
TEST_P(LinearInt8Ops, EqualsTheReferenceInALargeOutputOfWholeLines) {
  constexpr int kLine = 16;
  constexpr int kRows = 1040;
  constexpr int kOutputs = 4000;
  Random random(15);
  const Case c = random_case(random, kRows, 16, 16, {kOutputs});
  Case expected = c;
  expected.biases.clear();
  const StoredInt8 matrix(c.weights[0], false);
  LinearSource source;
  source.weights.push_back(matrix.tensor());
  const Linear linear = ops->load_linear(source);
  const Tensor whole =
      ops->tensor(kRows, kOutputs + 2 * kLine, DType::kF32, Placement::kActivation);
  ops->write(Matrix(whole.rows, whole.cols, kNan).values, whole);
  const Guarded x(*ops, c.x);
  ops->linear(x.view, linear, whole.column_range(kLine, kOutputs), Epilogue::kStore);
  Matrix found(whole.rows, whole.cols);
  ops->read(whole, found.values);
  Matrix inside(kRows, kOutputs);
  for (int r = 0; r < whole.rows; ++r) {
    for (int i = 0; i < kLine; ++i) {
      EXPECT_TRUE(std::isnan(found.at(r, i)) && std::isnan(found.at(r, whole.cols - 1 - i)));
    }
    for (int n = 0; n < kOutputs; ++n) inside.at(r, n) = found.at(r, kLine + n);
  }
  expect_equal(inside, run(*reference, expected));
}

TEST_P(LinearInt8Ops, StacksMatricesOfDifferentHeights) {
  Random random(6);
  for (int i = 0; i < 6; ++i) {
    Case c = random_case(random, 1 + i * 4, 96, 32, {20, 13, 1 + i});
    c.epilogue = kExactEpilogues[i % 3];
    expect_reference_bits(c);
  }
}

TEST_P(LinearInt8Ops, ActivationsAreClose) {
  Random random(7);
  for (const Epilogue epilogue : kActivations) {
    for (const int rows : {1, 5, 40}) {
      for (const int group : {64, 128}) {  // in groups, and whole rows: two kernels
        Case c = random_case(random, rows, 128, group, {37});
        c.epilogue = epilogue;
        const Matrix expected = run(*reference, c);
        c.epilogue = Epilogue::kStore;
        std::vector<double> tolerance;
        for (const float y : run(*reference, c).values) {
          tolerance.push_back(3 * kEpsilon * std::fabs(y));
        }
        c.epilogue = epilogue;
        expect_close(run(*ops, c), expected, tolerance);
      }
    }
  }
}

// The extremes of both operands, in a group so long that their sum nearly fills 32 bits.
TEST_P(LinearInt8Ops, ExtremesDoNotOverflow) {
  for (const int rows : {1, 20}) {
    for (const int cols : {4, 64, 8192, kLargestGroup}) {
      if (cols == kLargestGroup && rows > 1) continue;
      Case c;
      c.weights = {Int8Matrix(3, cols, cols)};
      for (int k = 0; k < cols; ++k) {
        c.weights[0].value(0, k) = -128;
        c.weights[0].value(1, k) = 127;
        c.weights[0].value(2, k) = k % 2 == 0 ? -128 : 127;
      }
      c.weights[0].scales = {1.0F, 0.5F, -1.0F};
      c.x = Matrix(rows, cols, 127.0F);
      if (rows > 1) c.x.at(1, 0) = -127;
      const Matrix found = run(*ops, c);
      EXPECT_EQ(found.at(0, 0), static_cast<float>(-127LL * 128 * cols));
      EXPECT_EQ(found.at(0, 1), static_cast<float>(127LL * 127 * cols) * 0.5F);
      expect_reference_bits(c);
    }
  }
}

// With a weight of one and its scale of one, y = xq · xs; a largest |x| of 127 makes xs one.
Matrix quantised(Ops& ops, std::vector<float> x) {
  Matrix found(1, static_cast<int>(x.size()));
  for (int k = 0; k < found.cols; ++k) {
    Case c;
    c.weights = {Int8Matrix(1, found.cols, found.cols)};
    c.weights[0].value(0, k) = 1;
    c.weights[0].scales = {1.0F};
    c.x = {1, found.cols, x};
    found.values[k] = run(ops, c).values[0];
  }
  return found;
}

TEST_P(LinearInt8Ops, HalvesAreRoundedAwayFromZero) {
  const float below = std::nextafter(0.5F, 0.0F);
  const Matrix found =
      quantised(*ops, {127, 0.5F, -0.5F, 1.5F, -1.5F, 2.5F, -2.5F, 126.5F, -126.5F, below, -below,
                       std::nextafter(2.5F, 0.0F), std::nextafter(-126.5F, 0.0F), 0.0F, -127});
  const std::vector<float> expected = {127, 1, -1, 2, -2, 3, -3, 127, -127, 0, 0, 2, -126, 0, -127};
  EXPECT_EQ(found.values, expected);
}

TEST_P(LinearInt8Ops, GroupsOfZerosAndOfDenormalsAreFinite) {
  EXPECT_EQ(quantised(*ops, {0.0F, -0.0F, 0.0F}).values, std::vector<float>(3, 0.0F));
  // xs = 2^-149: the quotient, 150, ends at 127.
  const float unit = 0x1p-149F;
  EXPECT_EQ(quantised(*ops, {150 * unit, -unit}).values, (std::vector<float>{127 * unit, -unit}));
  // xs = 0
  EXPECT_EQ(quantised(*ops, {unit, -unit}).values, (std::vector<float>{0, 0}));
  Random random(8);
  for (const int rows : {1, 12}) {
    Case c = random_case(random, rows, 256, 64, {20});
    for (int r = 0; r < rows; ++r) {
      for (int k = 64; k < 128; ++k) c.x.at(r, k) = 0;
    }
    expect_reference_bits(c);
    c.x = Matrix(rows, 256);
    c.biases.clear();
    expect_equal(run(*ops, c), Matrix(rows, 20));
  }
}

TEST_P(LinearInt8Ops, WhatIsNotFiniteSpoilsItsOwnRowAlone) {
  Random random(9);
  for (const int group : {16, 64}) {
    Case c = random_case(random, 35, 192, group, {33});
    const Matrix clean = run(*ops, c);
    for (const float bad : {kNan, kInfinity, -kInfinity}) {
      for (const int at : {0, 100, 191}) {
        Case spoilt = c;
        spoilt.x.at(17, at) = bad;
        const Matrix found = run(*ops, spoilt);
        expect_same_bits(found.row_range(0, 17), clean.row_range(0, 17));
        expect_same_bits(found.row_range(18, 17), clean.row_range(18, 17));
        for (int n = 0; n < 33; ++n) ASSERT_TRUE(std::isnan(found.at(17, n))) << bad;
      }
    }
  }
}

TEST_P(LinearInt8Ops, ARowAloneHasTheBitsItHasInABatch) {
  Random random(10);
  for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kGeluTanh, Epilogue::kSilu}) {
    Case c = random_case(random, 70, 128, 64, {31, 22});
    c.epilogue = epilogue;
    const Matrix together = run(*ops, c);
    for (const int rows : {1, 2, 3, 5, 20}) {
      Case part = c;
      const int first = 70 - rows - random.integer(0, 50);
      part.x = c.x.row_range(first, rows);
      part.out = c.out.row_range(first, rows);
      expect_same_bits(run(*ops, part), together.row_range(first, rows));
    }
  }
}

TEST_P(LinearInt8Ops, AnyNumberOfThreadsGivesTheSameBits) {
  if (GetParam().name != "cpu") GTEST_SKIP() << "only the CPU backend has threads";
  Random random(11);
  const std::unique_ptr<Ops> single = make_backend({"cpu", 1, GetParam().isa});
  for (const Epilogue epilogue : kActivations) {
    for (const int rows : {1, 70}) {
      Case c = random_case(random, rows, 256, 64, {600});
      c.epilogue = epilogue;
      expect_same_bits(run(*ops, c), run(*single, c));
    }
  }
}

// out += fc2(silu(fc1 x) · gate x), whose front may be one fused pass.
TEST_P(LinearInt8Ops, MlpIsItsParts) {
  Random random(12);
  for (const int rows : {1, 6, 40}) {
    for (const int gate_group : {0, 32, 64}) {  // 0: fp32
      const StoredInt8 fc1(random_int8(random, 128, 64, 32));
      const StoredInt8 gate(random_int8(random, 128, 64, gate_group == 0 ? 64 : gate_group));
      const auto gate_floats = store(random.matrix(128, 64), DType::kF32);
      const StoredInt8 fc2(random_int8(random, 64, 128, 64));
      const Matrix before = random.matrix(rows, 64);
      const Guarded x(*ops, random.matrix(rows, 64));
      const HostTensor& gate_tensor = gate_group == 0 ? gate_floats->tensor() : gate.tensor();
      const Mlp mlp = {ops->load_linear({{fc1.tensor()}, {}}),
                       ops->load_linear({{gate_tensor}, {}}),
                       ops->load_linear({{fc2.tensor()}, {}}), Epilogue::kSilu};
      const Guarded hidden(*ops, Matrix(rows, 128, kNan));
      const Guarded out(*ops, before);
      run_mlp(*ops, x.view, mlp, hidden.view, out.view);
      const Guarded hidden_of_parts(*ops, Matrix(rows, 128, kNan));
      const Guarded out_of_parts(*ops, before);
      run_mlp_in_parts(*ops, x.view, mlp, hidden_of_parts.view, out_of_parts.view);
      for (const Guarded* guarded : {&x, &hidden, &out}) guarded->check();
      expect_same_bits(out.read(), out_of_parts.read());
      expect_same_bits(hidden.read(), hidden_of_parts.read());
    }
  }
}

// An embedding table.
TEST_P(LinearInt8Ops, AQuantisedTableIsReadAsFloats) {
  Random random(13);
  const Int8Matrix matrix = random_int8(random, 7, 48, 16);
  const StoredInt8 stored(matrix, true);
  const Tensor table = ops->load(stored.tensor());
  const Guarded out(*ops, Matrix(3, 48, kNan));
  const std::vector<int32_t> rows = {6, 0, 3};
  ops->embed(table, rows, out.view);
  out.check();
  const Matrix found = out.read();
  for (int i = 0; i < 3; ++i) {
    for (int k = 0; k < 48; ++k) {
      const float value = static_cast<float>(matrix.value(rows[i], k));
      ASSERT_EQ(found.at(i, k), value * matrix.scale(rows[i], k / 16));
    }
  }
}

OCELLI_EVERY_BACKEND(LinearInt8Ops);

}  // namespace
}  // namespace ocelli::kernels
