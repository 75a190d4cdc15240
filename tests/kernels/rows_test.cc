// Operations that pass over rows (embed, norms, add) and memory (load, write, read), on every
// backend against the reference backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/first_maximum.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

const std::vector<DType> kStoredTypes = {DType::kF32, DType::kF16, DType::kBF16};
const std::vector<int> kWidths = {1, 2, 3, 4, 7, 8, 13, 16, 17, 31, 33, 72, 80, 129, 2500};

class RowOps : public EveryBackend {};

TEST_P(RowOps, WriteAndReadKeepEveryValue) {
  Random random(31);
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    for (const int cols : kWidths) {
      const Matrix values = random.matrix(5, cols);
      const Guarded tensor(*ops, values, dtype);
      tensor.check();
      Matrix expected = values;
      if (dtype == DType::kF16) {
        for (float& value : expected.values) value = f16_to_f32(f32_to_f16(value));
      }
      expect_same_bits(tensor.read(), expected);
      ops->write(values.row_range(1, 2).values, tensor.view.row_range(3, 2));
      expect_same_bits(tensor.read().row_range(0, 3), expected.row_range(0, 3));
      expect_same_bits(tensor.read().row_range(3, 2), expected.row_range(1, 2));
    }
  }
}

TEST_P(RowOps, LoadKeepsVectorsAndTables) {
  Random random(32);
  for (const DType dtype : kStoredTypes) {
    for (const bool odd : {false, true}) {
      const Matrix values = random.matrix(6, 23);
      const auto stored = store(values, dtype, odd);
      const auto vector = store_vector(values.row_range(2, 1), dtype, odd);
      const Tensor table = ops->load(stored->tensor());
      const Tensor row = ops->load(vector->tensor());
      ASSERT_EQ(table.rows, 6);
      ASSERT_EQ(row.rows, 1);
      ASSERT_EQ(row.cols, 23);
      Matrix expected(6, 23);
      convert_to_f32(dtype, stored->tensor().data, 6 * 23, expected.values.data());
      Matrix found(6, 23);
      ops->read(table, found.values);
      expect_same_bits(found, expected);
      Matrix found_row(1, 23);
      ops->read(row, found_row.values);
      expect_same_bits(found_row, expected.row_range(2, 1));
    }
  }
}

TEST_P(RowOps, EmbedPicksRows) {
  Random random(33);
  for (const DType dtype : kStoredTypes) {
    for (const int cols : kWidths) {
      const Matrix values = random.matrix(9, cols);
      const auto stored = store(values, dtype, random.coin());
      const Tensor table = ops->load(stored->tensor());
      const std::vector<int32_t> ids = {8, 0, 3, 3, 8, 1, 0};
      const Guarded out(*ops, Matrix(7, cols, kNan));
      ops->embed(table, ids, out.view);
      out.check();
      Matrix all(9, cols);
      convert_to_f32(dtype, stored->tensor().data, 9 * cols, all.values.data());
      const Matrix found = out.read();
      for (int i = 0; i < 7; ++i) expect_same_bits(found.row_range(i, 1), all.row_range(ids[i], 1));
    }
  }
}

// Many calls in a row with growing numbers of ids and no read between them.
TEST_P(RowOps, EmbedKeepsTheIdsOfEachCallApart) {
  Random random(34);
  const Matrix values = random.matrix(50, 5);
  const auto stored = store(values, DType::kF32);
  const Tensor table = ops->load(stored->tensor());
  const Guarded out(*ops, Matrix(55, 5, kNan));
  for (int count = 1, row = 0; count <= 10; row += count, ++count) {
    std::vector<int32_t> ids(count);
    std::iota(ids.begin(), ids.end(), 4 * count);
    ops->embed(table, ids, out.view.row_range(row, count));
  }
  const Matrix found = out.read();
  for (int count = 1, row = 0; count <= 10; row += count, ++count) {
    expect_same_bits(found.row_range(row, count), values.row_range(4 * count, count));
  }
}

// Selection of rows of an activation, which is a strided view.
TEST_P(RowOps, EmbedSelectsRowsOfAnActivation) {
  Random random(35);
  const Matrix values = random.matrix(20, 33);
  const Guarded x(*ops, values);
  const Guarded out(*ops, Matrix(2, 33, kNan));
  ops->embed(x.view, std::vector<int32_t>{19, 4}, out.view);
  out.check();
  expect_same_bits(out.read().row_range(0, 1), values.row_range(19, 1));
  expect_same_bits(out.read().row_range(1, 1), values.row_range(4, 1));
}

// A norm of [rows, cols] on one backend; with `in_place`, x is also the output.
Matrix run_norm(Ops& ops, const Matrix& x, const Matrix& weight, const Matrix* bias, DType dtype,
                bool in_place) {
  const auto stored_weight = store_vector(weight, dtype, true);
  Norm norm{ops.load(stored_weight->tensor()), {}, 1e-5F};
  std::unique_ptr<Stored> stored_bias;
  if (bias) {
    stored_bias = store_vector(*bias, dtype, true);
    norm.bias = ops.load(stored_bias->tensor());
  }
  const Guarded rows(ops, x);
  const Guarded other(ops, Matrix(x.rows, x.cols, kNan));
  const Guarded& out = in_place ? rows : other;
  if (bias) {
    ops.layer_norm(rows.view, norm, out.view);
  } else {
    ops.rms_norm(rows.view, norm, out.view);
  }
  rows.check();
  other.check();
  return out.read();
}

// The mean and the variance are sums of n terms: their relative errors are ε/2·√n/4 at most, and
// act on values of at most `largest`; the scaling and the bias add a few roundings.
double norm_tolerance(int cols, const Matrix& expected) {
  float largest = 1;
  for (const float value : expected.values) largest = std::max(largest, std::fabs(value));
  return kEpsilon * (4 + std::sqrt(cols) / 4) * largest;
}

TEST_P(RowOps, NormsEqualTheReference) {
  Random random(36);
  for (const bool layer : {true, false}) {
    for (const int cols : kWidths) {
      // Rows whose mean is not zero and whose spread is not one.
      const Matrix x = random.matrix(random.pick({1, 2, 7, 70}), cols, -3, 5);
      const Matrix weight = random.matrix(1, cols, 0.5F, 2);
      const Matrix bias = random.matrix(1, cols);
      const DType dtype = kStoredTypes[random.integer(0, 2)];
      const bool in_place = random.coin();
      const Matrix* b = layer ? &bias : nullptr;
      const Matrix expected = run_norm(*reference, x, weight, b, dtype, false);
      SCOPED_TRACE(testing::Message() << cols << " columns, layer norm " << layer);
      expect_close(run_norm(*ops, x, weight, b, dtype, in_place), expected,
                   norm_tolerance(cols, expected));
    }
  }
}

TEST_P(RowOps, NormsOfConstantRowsAreFinite) {
  const Matrix weight(1, 40, 2.0F);
  const Matrix bias(1, 40, 0.5F);
  const Matrix zeros(3, 40);
  expect_close(run_norm(*ops, zeros, weight, &bias, DType::kF32, false), Matrix(3, 40, 0.5F), 0.0);
  expect_close(run_norm(*ops, zeros, weight, nullptr, DType::kF32, false), Matrix(3, 40), 0.0);
  const Matrix tens(3, 40, 10.0F);
  expect_close(run_norm(*ops, tens, weight, &bias, DType::kF32, false), Matrix(3, 40, 0.5F), 0.0);
}

TEST_P(RowOps, NormsPassNanOnInItsRowAlone) {
  Random random(37);
  const Matrix weight(1, 33, 1.0F);
  for (const bool layer : {true, false}) {
    Matrix x = random.matrix(5, 33);
    const Matrix* bias = layer ? &weight : nullptr;
    const Matrix clean = run_norm(*ops, x, weight, bias, DType::kF32, false);
    x.at(2, 32) = kNan;
    const Matrix found = run_norm(*ops, x, weight, bias, DType::kF32, false);
    for (const int row : {0, 1, 3, 4})
      expect_same_bits(found.row_range(row, 1), clean.row_range(row, 1));
    for (int c = 0; c < 33; ++c) EXPECT_TRUE(std::isnan(found.at(2, c)));
  }
}

TEST_P(RowOps, AddRepeatsAShorterOperand) {
  Random random(38);
  for (const int cols : kWidths) {
    for (const auto& [x_rows, out_rows] : {std::pair{1, 1}, {1, 7}, {4, 4}, {3, 12}, {35, 70}}) {
      const Matrix x = random.matrix(x_rows, cols);
      Matrix expected = random.matrix(out_rows, cols);
      const Guarded from(*ops, x);
      const Guarded out(*ops, expected);
      ops->add(from.view, out.view);
      from.check();
      out.check();
      for (int r = 0; r < out_rows; ++r) {
        for (int c = 0; c < cols; ++c) expected.at(r, c) += x.at(r % x_rows, c);
      }
      expect_same_bits(out.read(), expected);  // one rounding: there is one right answer
    }
  }
}

std::vector<int32_t> likeliest(Ops& ops, const Matrix& x) {
  const Guarded from(ops, x);
  std::vector<float> scratch(x.cols);
  std::vector<int32_t> columns(x.rows, -77);
  ops.argmax(from.view, scratch, columns);
  from.check();
  return columns;
}

TEST_P(RowOps, ArgmaxFindsTheFirstOfTheLargest) {
  Random random(40);
  for (const int cols : {1, 2, 15, 16, 17, 1023, 1024, 1025, 4000, 9001, 32'000}) {
    Matrix x = random.matrix(3, cols, -1, 1);
    for (float& value : x.values) value = std::round(value * 50) / 50;  // many are equal
    std::vector<int32_t> expected;
    for (int r = 0; r < x.rows; ++r) {
      const float* row = &x.at(r, 0);
      expected.push_back(static_cast<int32_t>(std::max_element(row, row + cols) - row));
    }
    EXPECT_EQ(likeliest(*ops, x), expected) << cols;
    const int place = random.integer(0, cols - 1);
    x.at(1, place) = 2;
    expected[1] = place;
    EXPECT_EQ(likeliest(*ops, x), expected) << cols;
  }
}

TEST_P(RowOps, ArgmaxFindsNothingWhereALogitIsNoNumber) {
  Random random(41);
  for (const int cols : {1, 16, 1500, 20'000}) {
    for (const float fault : {kNan, kInfinity}) {
      for (const int place : {0, cols / 2, cols - 1}) {
        Matrix x = random.matrix(3, cols);
        x.at(1, place) = fault;
        const std::vector<int32_t> found = likeliest(*ops, x);
        EXPECT_EQ(found[1], kNoMaximum) << place << " of " << cols;
        EXPECT_GE(found[0], 0);
        EXPECT_GE(found[2], 0);
      }
    }
    Matrix x(2, cols, -kInfinity);
    x.at(1, cols - 1) = -3e38F;
    EXPECT_EQ(likeliest(*ops, x), (std::vector<int32_t>{kNoMaximum, cols - 1}));
  }
}

TEST_P(RowOps, AnyNumberOfThreadsGivesTheSameBits) {
  if (GetParam().name != "cpu") GTEST_SKIP() << "only the CPU backend has threads";
  Random random(39);
  const std::unique_ptr<Ops> single = make_backend({"cpu", 1, GetParam().isa});
  const Matrix x = random.matrix(70, 333, -3, 3);
  const Matrix weight = random.matrix(1, 333);
  for (const Matrix* bias : {&weight, static_cast<const Matrix*>(nullptr)}) {
    expect_same_bits(run_norm(*ops, x, weight, bias, DType::kF16, false),
                     run_norm(*single, x, weight, bias, DType::kF16, false));
  }
}

OCELLI_EVERY_BACKEND(RowOps);

// --- Which backends there are ---

TEST(Backends, AreMadeByName) {
  for (const std::string& name : backend_names()) {
    EXPECT_EQ(make_backend({name, 1, ""})->name(), name);
  }
  // These two run anywhere; llama2.c's arithmetic is never what is chosen unasked.
  for (const std::string isa : {"llama2c", "scalar"}) EXPECT_EQ(cpu::select_table(isa).isa, isa);
  EXPECT_NE(cpu::select_table("").isa, std::string("llama2c"));
  EXPECT_EQ(&cpu::select_table(""), cpu::supported_tables().back());
}

}  // namespace
}  // namespace ocelli::kernels
