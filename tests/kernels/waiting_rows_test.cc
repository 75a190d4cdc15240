// Products whose rows wait for the next one in bf16: what is written is the rounded fp32, and what
// is read counts as the fp32 it stands for.
#include <gtest/gtest.h>

#include "host/error.h"
#include "host/thread_pool.h"
#include "kernels/pair_packing.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

Matrix rounded(Matrix values) {
  for (float& value : values.values) value = bf16_to_f32(f32_to_bf16(value));
  return values;
}

// A matrix in one of the ways it is loaded, with a bias.
class Source {
 public:
  enum Kind { kInt8, kInt8Groups, kBf16Panels, kFloats };

  Source(Random& random, Kind kind, int outputs, int inputs)
      : bias_(store_vector(random.matrix(1, outputs), DType::kF32)) {
    if (kind == kInt8 || kind == kInt8Groups) {
      const int group = kind == kInt8 ? inputs : inputs / 2;
      int8_ = std::make_unique<StoredInt8>(random_int8(random, outputs, inputs, group));
      source.weights.push_back(int8_->tensor());
    } else {
      floats_ = store(random.matrix(outputs, inputs), DType::kF32);
      source.weights.push_back(floats_->tensor());
    }
    if (kind == kBf16Panels) {
      host::ThreadPool pool(1);
      panels_ = std::make_unique<PairStack>(source, pool);
      source.weights = panels_->weights();
    }
    source.biases.push_back(bias_->tensor());
  }

  LinearSource source;

 private:
  std::unique_ptr<Stored> bias_;
  std::unique_ptr<Stored> floats_;
  std::unique_ptr<StoredInt8> int8_;
  std::unique_ptr<PairStack> panels_;
};

Matrix run(Ops& ops, const Linear& linear, const Matrix& x, DType x_dtype, DType out_dtype,
           Epilogue epilogue) {
  const Guarded in(ops, x, x_dtype);
  const Guarded out(ops, Matrix(x.rows, linear->outputs, kNan), out_dtype);
  ops.linear(in.view, linear, out.view, epilogue);
  in.check();
  out.check();
  return out.read();
}

class WaitingRowsOps : public EveryBackend {
 protected:
  void SetUp() override {
    if (GetParam().name != "cpu") GTEST_SKIP() << "rows of a device wait in fp32";
  }
  bool follows_llama2c() const { return GetParam().isa == "llama2c"; }
};

const std::vector<int> kRows = {1, 3, 8, 17, 33, 70};
constexpr int kInputs = 192;

TEST_P(WaitingRowsOps, OutputsAreTheRoundedOnes) {
  Random random(1);
  for (const auto kind :
       {Source::kInt8, Source::kInt8Groups, Source::kBf16Panels, Source::kFloats}) {
    for (const int rows : kRows) {
      const Source matrix(random, kind, random.pick({16, 31, 32, 37, 64, 83}), kInputs);
      const Linear linear = ops->load_linear(matrix.source);
      const Matrix x = random.matrix(rows, kInputs, -3, 3);
      for (const Epilogue epilogue :
           {Epilogue::kStore, Epilogue::kGeluTanh, Epilogue::kGeluErf, Epilogue::kSilu}) {
        SCOPED_TRACE(testing::Message()
                     << "kind " << kind << ", " << rows << " rows to " << linear->outputs
                     << ", epilogue " << static_cast<int>(epilogue));
        const Matrix wide = run(*ops, linear, x, DType::kF32, DType::kF32, epilogue);
        expect_equal(run(*ops, linear, x, DType::kF32, DType::kBF16, epilogue), rounded(wide));
      }
    }
  }
}

TEST_P(WaitingRowsOps, InputsCountAsWhatTheyStandFor) {
  Random random(2);
  for (const auto kind : {Source::kInt8, Source::kInt8Groups, Source::kBf16Panels}) {
    for (const int rows : kRows) {
      const Source matrix(random, kind, 35, kInputs);
      const Linear linear = ops->load_linear(matrix.source);
      EXPECT_EQ(ops->input_dtype(linear), follows_llama2c() ? DType::kF32 : DType::kBF16);
      Matrix x = rounded(random.matrix(rows, kInputs, -3, 3));
      if (rows == 17) x.at(5, 7) = kInfinity;
      if (rows == 33) x.at(32, 191) = kNan;
      const Matrix expected = run(*ops, linear, x, DType::kF32, DType::kF32, Epilogue::kStore);
      expect_equal(run(*ops, linear, x, DType::kBF16, DType::kF32, Epilogue::kStore), expected);
    }
  }
}

// Zeros, the smallest numbers, infinity and NaN by an identity of bf16 in panels, whose products
// are exact.
TEST_P(WaitingRowsOps, KeepsWhatIsNoOrdinaryNumber) {
  constexpr int kSize = 32;
  Matrix identity(kSize, kSize);
  for (int i = 0; i < kSize; ++i) identity.at(i, i) = 1;
  const std::unique_ptr<Stored> stored = store(identity, DType::kF32);
  host::ThreadPool pool(1);
  const PairStack panels(LinearSource{{stored->tensor()}, {}}, pool);
  const Linear linear = ops->load_linear({panels.weights(), {}});
  for (const int rows : {1, 40}) {
    Matrix x(rows, kSize);
    x.at(0, 0) = 0x1.FEp+127F;  // the largest of bf16
    x.at(0, 1) = -0x1p-126F;
    x.at(0, 2) = 3.0F;
    const Matrix found = run(*ops, linear, x, DType::kBF16, DType::kBF16, Epilogue::kStore);
    EXPECT_EQ(found.at(0, 0), 0x1.FEp+127F);
    EXPECT_EQ(found.at(0, 1), -0x1p-126F);
    EXPECT_EQ(found.at(0, 2), 3.0F);
    EXPECT_EQ(found.at(0, 3), 0.0F);
    x.at(0, 4) = kNan;
    EXPECT_TRUE(
        std::isnan(run(*ops, linear, x, DType::kBF16, DType::kBF16, Epilogue::kStore).at(0, 5)));
  }
}

// A row gives the same bits alone and in company, which other kernels compute.
TEST_P(WaitingRowsOps, DoNotDependOnTheirCompany) {
  Random random(4);
  const Source first(random, Source::kInt8, 300, 128);
  const Source second(random, Source::kInt8, 45, 300);
  const Mlp mlp = {ops->load_linear(first.source), nullptr, ops->load_linear(second.source),
                   Epilogue::kGeluTanh};
  const Matrix x = random.matrix(70, 128, -3, 3);
  const auto outputs = [&](const Matrix& rows) {
    const Guarded in(*ops, rows);
    const Guarded hidden(*ops, Matrix(rows.rows, 300, kNan), DType::kBF16);
    const Guarded out(*ops, Matrix(rows.rows, 45, 0.25F));
    run_mlp(*ops, in.view, mlp, hidden.view, out.view);
    hidden.check();
    out.check();
    return out.read();
  };
  const Matrix together = outputs(x);
  for (const int row : {0, 5, 31, 69}) {
    expect_same_bits(outputs(x.row_range(row, 1)), together.row_range(row, 1));
  }
}

// Outputs larger than caches may be written past them, if their lines are whole.
TEST_P(WaitingRowsOps, FillALargeOutput) {
  Random random(5);
  const Source matrix(random, Source::kInt8, 8000, 16);
  const Linear linear = ops->load_linear(matrix.source);
  const Matrix x = random.matrix(1000, 16);
  const Matrix wide = run(*ops, linear, x, DType::kF32, DType::kF32, Epilogue::kStore);
  const Tensor in = ops->tensor(x.rows, x.cols, DType::kF32, Placement::kActivation);
  const Tensor out = ops->tensor(x.rows, 8000, DType::kBF16, Placement::kActivation);
  ops->write(x.values, in);
  ops->linear(in, linear, out, Epilogue::kStore);
  Matrix found(x.rows, 8000);
  ops->read(out, found.values);
  expect_equal(found, rounded(wide));
}

OCELLI_EVERY_BACKEND(WaitingRowsOps);

TEST(WaitingRowsDeathTest, AreNeitherAddedToNorReadByFloats) {
  const std::unique_ptr<Ops> ops = make_backend({"cpu", 1, ""});
  Random random(6);
  const Source quantised(random, Source::kInt8, 16, 64);
  const Source floats(random, Source::kFloats, 16, 64);
  const Linear linear = ops->load_linear(quantised.source);
  const Linear of_floats = ops->load_linear(floats.source);
  EXPECT_EQ(ops->input_dtype(of_floats), DType::kF32);
  const Guarded wide(*ops, random.matrix(2, 64));
  const Guarded narrow(*ops, random.matrix(2, 64), DType::kBF16);
  const Guarded out(*ops, Matrix(2, 16));
  const Guarded narrow_out(*ops, Matrix(2, 16), DType::kBF16);
  EXPECT_DEATH(ops->linear(wide.view, linear, narrow_out.view, Epilogue::kAccumulate), "of bf16");
  EXPECT_DEATH(ops->linear(narrow.view, of_floats, out.view, Epilogue::kStore), "rows of bf16");
}

}  // namespace
}  // namespace ocelli::kernels
