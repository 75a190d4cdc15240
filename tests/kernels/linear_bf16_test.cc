// Ops::linear with matrices of bf16 in panels.
#include <gtest/gtest.h>

#include "host/error.h"
#include "host/thread_pool.h"
#include "kernels/pair_packing.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

// Stacked matrices with biases, in panels: one behind the other, or each in memory of its own.
class Panels {
 public:
  Panels(const std::vector<Matrix>& matrices, const std::vector<Matrix>& biases) {
    host::ThreadPool pool(2);
    LinearSource rows;
    for (const Matrix& matrix : matrices) {
      outputs += matrix.rows;
      stored_.push_back(store(matrix, DType::kF32));
      rows.weights.push_back(stored_.back()->tensor());
      apart_.push_back(std::make_unique<PairStack>(LinearSource{{rows.weights.back()}, {}}, pool));
      apart.weights.push_back(apart_.back()->weights()[0]);
    }
    for (const Matrix& bias : biases) {
      stored_.push_back(store_vector(bias, DType::kF16));
      together.biases.push_back(stored_.back()->tensor());
    }
    apart.biases = together.biases;
    together_ = std::make_unique<PairStack>(rows, pool);
    together.weights = together_->weights();
  }

  int outputs = 0;
  LinearSource together;
  LinearSource apart;

 private:
  std::vector<std::unique_ptr<Stored>> stored_;
  std::vector<std::unique_ptr<PairStack>> apart_;
  std::unique_ptr<PairStack> together_;
};

Panels random_panels(Random& random, const std::vector<int>& heights, int inputs,
                     bool with_bias = true) {
  std::vector<Matrix> matrices;
  std::vector<Matrix> biases;
  for (const int height : heights) {
    matrices.push_back(random.matrix(height, inputs));
    if (with_bias) biases.push_back(random.matrix(1, height));
  }
  return Panels(matrices, biases);
}

Matrix run(Ops& ops, const LinearSource& source, const Matrix& x, int outputs,
           Epilogue epilogue = Epilogue::kStore) {
  const Matrix found = run_linear(ops, source, x, epilogue);
  EXPECT_EQ(found.cols, outputs);
  return found;
}

class LinearBf16Ops : public EveryBackend {
 protected:
  // A device takes x as it is.
  bool is_exact() const { return GetParam().name == "cpu" || GetParam().name == "reference"; }

  void expect_reference(const LinearSource& source, const Matrix& x, int outputs,
                        Epilogue epilogue = Epilogue::kStore) {
    const Matrix expected = run(*reference, source, x, outputs, epilogue);
    const Matrix found = run(*ops, source, x, outputs, epilogue);
    if (is_exact()) return expect_same_bits(found, expected);
    // |x| and |w| are at most 3 and 1: each product errs by 2^-9 of that.
    for (size_t i = 0; i < found.values.size(); ++i) {
      ASSERT_NEAR(found.values[i], expected.values[i], 3.1 * x.cols / 512);
    }
  }
};

// The rule of Ops::linear, computed here once more.
TEST_P(LinearBf16Ops, FollowsTheRule) {
  if (!is_exact()) GTEST_SKIP() << "a device takes x as it is";
  Random random(1);
  const int inputs = 75;
  const Matrix w = random.matrix(5, inputs);
  const Matrix x = random.matrix(2, inputs, -3, 3);
  const Panels panels({w}, {});
  const Matrix found = run(*ops, panels.together, x, 5);
  for (int r = 0; r < 2; ++r) {
    for (int n = 0; n < 5; ++n) {
      float y = 0;
      for (int block = 0; block < inputs; block += 32) {
        float sums[2] = {0, 0};
        for (int k = block; k < std::min(block + 32, inputs); ++k) {
          sums[k % 2] +=
              bf16_to_f32(f32_to_bf16(x.at(r, k))) * bf16_to_f32(f32_to_bf16(w.at(n, k)));
        }
        y += sums[0] + sums[1];
      }
      EXPECT_EQ(found.at(r, n), y) << r << ", " << n;
    }
  }
}

TEST_P(LinearBf16Ops, EqualsTheReferenceOnManyShapes) {
  Random random(2);
  for (int i = 0; i < 60 && !HasFatalFailure(); ++i) {
    const int rows = random.pick({1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 31, 33});
    const int inputs = random.integer(1, 140);
    const int outputs = random.pick({1, 7, 8, 15, 16, 17, 24, 33, 48, 65, 100});
    const Panels panels = random_panels(random, {outputs}, inputs, random.coin());
    constexpr Epilogue kExact[] = {Epilogue::kStore, Epilogue::kAccumulate, Epilogue::kMultiply};
    SCOPED_TRACE(testing::Message() << rows << " rows, " << inputs << " inputs");
    expect_reference(panels.together, random.matrix(rows, inputs, -3, 3), outputs, kExact[i % 3]);
  }
}

// Sums that are taken in several stretches, and more rows and outputs than one task has.
TEST_P(LinearBf16Ops, EqualsTheReferenceOnLargeShapes) {
  Random random(3);
  const auto check = [&](int rows, int inputs, int outputs) {
    const Panels panels = random_panels(random, {outputs}, inputs);
    expect_reference(panels.together, random.matrix(rows, inputs, -3, 3), outputs);
  };
  check(1, 5632, 40);
  check(37, 5201, 70);
  check(131, 1100, 70);
  check(150, 5201, 70);
  check(300, 64, 70);
  check(600, 35, 16);
  check(3, 64, 1000);
}

TEST_P(LinearBf16Ops, StacksMatricesOfDifferentHeights) {
  Random random(4);
  const std::vector<std::vector<int>> stacks = {{16, 16, 16}, {48, 32, 37}, {20, 13, 30}};
  for (const auto& heights : stacks) {
    for (const int rows : {1, 6, 34}) {
      const Panels panels = random_panels(random, heights, 70);
      const Matrix x = random.matrix(rows, 70, -3, 3);
      expect_reference(panels.together, x, panels.outputs);
      expect_same_bits(run(*ops, panels.apart, x, panels.outputs),
                       run(*ops, panels.together, x, panels.outputs));
    }
  }
}

TEST_P(LinearBf16Ops, ActivationsAreClose) {
  Random random(5);
  for (const Epilogue epilogue : {Epilogue::kGeluTanh, Epilogue::kGeluErf, Epilogue::kSilu}) {
    for (const int rows : {1, 5, 40}) {
      const Panels panels = random_panels(random, {37}, 96);
      const Matrix x = random.matrix(rows, 96, -3, 3);
      const Matrix expected = run(*reference, panels.together, x, 37, epilogue);
      const Matrix found = run(*ops, panels.together, x, 37, epilogue);
      const double bound = is_exact() ? 4 * kEpsilon : 3.1 * 96 / 512;
      for (size_t i = 0; i < found.values.size(); ++i) {
        ASSERT_NEAR(found.values[i], expected.values[i],
                    bound * std::max(1.0F, std::fabs(expected.values[i])));
      }
    }
  }
}

TEST_P(LinearBf16Ops, ARowAloneHasTheBitsItHasInABatch) {
  Random random(6);
  const Panels panels = random_panels(random, {31, 22}, 167);
  const Matrix x = random.matrix(70, 167, -3, 3);
  for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kGeluTanh, Epilogue::kGeluErf}) {
    const Matrix together = run(*ops, panels.together, x, 53, epilogue);
    for (const int rows : {1, 2, 3, 5, 8, 20}) {
      const int first = random.integer(0, 70 - rows);
      expect_same_bits(run(*ops, panels.together, x.row_range(first, rows), 53, epilogue),
                       together.row_range(first, rows));
    }
  }
}

TEST_P(LinearBf16Ops, AnyNumberOfThreadsGivesTheSameBits) {
  if (GetParam().name != "cpu") GTEST_SKIP() << "only the CPU backend has threads";
  Random random(7);
  const std::unique_ptr<Ops> single = make_backend({"cpu", 1, GetParam().isa});
  const Panels panels = random_panels(random, {600}, 256);
  for (const int rows : {1, 70}) {
    const Matrix x = random.matrix(rows, 256, -3, 3);
    expect_same_bits(run(*ops, panels.together, x, 600, Epilogue::kSilu),
                     run(*single, panels.together, x, 600, Epilogue::kSilu));
  }
}

TEST_P(LinearBf16Ops, HalvesAreRoundedToEven) {
  if (!is_exact()) GTEST_SKIP() << "a device takes x as it is";
  const Panels panels({Matrix(1, 1, 1.0F)}, {});
  // bf16 has steps of 2^-7 from 1 on.
  const Matrix x(5, 1, {1 + 0x1p-8F, 1 + 3 * 0x1p-8F, -1 - 0x1p-8F, 1 + 0x1.01p-8F, 0x1.FFp127F});
  const Matrix found = run(*ops, panels.together, x, 1);
  EXPECT_EQ(found.values, (std::vector<float>{1, 1 + 0x1p-6F, -1, 1 + 0x1p-7F, kInfinity}));
}

TEST_P(LinearBf16Ops, WhatIsNotFiniteSpoilsItsOwnRowAlone) {
  Random random(8);
  const Panels panels = random_panels(random, {33}, 75);
  const Matrix x = random.matrix(35, 75);
  const Matrix clean = run(*ops, panels.together, x, 33);
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    for (const int at : {0, 33, 74}) {
      Matrix spoilt = x;
      spoilt.at(17, at) = bad;
      const Matrix found = run(*ops, panels.together, spoilt, 33);
      expect_same_bits(found.row_range(0, 17), clean.row_range(0, 17));
      expect_same_bits(found.row_range(18, 17), clean.row_range(18, 17));
      for (int n = 0; n < 33; ++n) ASSERT_FALSE(std::isfinite(found.at(17, n))) << bad;
    }
  }
}

TEST_P(LinearBf16Ops, GatedMlpIsItsParts) {
  Random random(9);
  const Panels fc1 = random_panels(random, {64}, 48);
  const Panels gate = random_panels(random, {64}, 48);
  const auto floats = store(random.matrix(64, 48), DType::kF32);
  const Panels fc2 = random_panels(random, {48}, 64);
  for (const int rows : {1, 20}) {
    for (const bool mixed : {false, true}) {
      const LinearSource gate_source = mixed ? LinearSource{{floats->tensor()}, {}} : gate.together;
      const Mlp mlp = {ops->load_linear(fc1.together), ops->load_linear(gate_source),
                       ops->load_linear(fc2.together), Epilogue::kSilu};
      const Guarded x(*ops, random.matrix(rows, 48));
      const Guarded hidden(*ops, Matrix(rows, 64, kNan));
      const Guarded out(*ops, Matrix(rows, 48, 0.5F));
      run_mlp(*ops, x.view, mlp, hidden.view, out.view);
      const Guarded hidden_of_parts(*ops, Matrix(rows, 64, kNan));
      const Guarded out_of_parts(*ops, Matrix(rows, 48, 0.5F));
      run_mlp_in_parts(*ops, x.view, mlp, hidden_of_parts.view, out_of_parts.view);
      expect_same_bits(out.read(), out_of_parts.read());
    }
  }
}

OCELLI_EVERY_BACKEND(LinearBf16Ops);

TEST(PairStack, UnpacksToWhatWasPacked) {
  Random random(10);
  host::ThreadPool pool(2);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const auto stored = store(random.matrix(21, 13), dtype, true);
    const PairStack stack({{stored->tensor()}, {}}, pool);
    const HostTensor& packed = stack.weights()[0];
    EXPECT_EQ(packed.bytes(), 2 * 7 * 64);
    const UnpackedPairs rows(packed);
    std::vector<float> expected(21 * 13);
    std::vector<float> found(21 * 13);
    std::vector<float> converted(21 * 13);
    convert_to_f32(stored->tensor(), expected.data());
    for (float& value : expected) value = bf16_to_f32(f32_to_bf16(value));
    convert_to_f32(rows.tensor(), found.data());
    convert_to_f32(packed, converted.data());
    EXPECT_EQ(found, expected);
    EXPECT_EQ(converted, expected);
  }
}

TEST(PairStack, RefusesWhatBf16DoesNotHold) {
  host::ThreadPool pool(1);
  for (const float bad : {kNan, kInfinity, 0x1.FFFp127F}) {
    Matrix matrix(3, 5, 1.0F);
    matrix.at(2, 4) = bad;
    const auto stored = store(matrix, DType::kF32);
    EXPECT_THROW(PairStack({{stored->tensor()}, {}}, pool), host::Error) << bad;
  }
}

}  // namespace
}  // namespace ocelli::kernels
