// What the tests of operations share: every backend of this machine, seeded random operands between
// guards, and comparison of the results.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/ops.h"

namespace ocelli::kernels {

inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
// The spacing of floats at 1: rounding to nearest errs by half of it at most.
inline constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

// --- Backends ---

inline void PrintTo(const BackendOptions& options, std::ostream* stream) {
  *stream << options.name << " " << options.isa << " on " << options.threads << " threads";
}

// Every backend, the CPU's with each instruction set that this machine runs and 1, 2 and 3 threads.
inline std::vector<BackendOptions> all_backends() {
  std::vector<BackendOptions> all;
  for (const std::string& name : backend_names()) {
    if (name != "cpu") {
      all.push_back({name, 1, ""});
      continue;
    }
    for (const cpu::KernelTable* table : cpu::supported_tables()) {
      for (int threads = 1; threads <= 3; ++threads) all.push_back({name, threads, table->isa});
    }
  }
  return all;
}

// A test that runs once a backend; ops is that backend, reference is the oracle.
class EveryBackend : public testing::TestWithParam<BackendOptions> {
 protected:
  std::unique_ptr<Ops> ops = make_backend(GetParam());
  std::unique_ptr<Ops> reference = make_backend({"reference", 1, ""});
};

inline std::string backend_test_name(const testing::TestParamInfo<BackendOptions>& info) {
  std::string text = info.param.name;
  if (!info.param.isa.empty()) text += "_" + info.param.isa + std::to_string(info.param.threads);
  for (char& c : text) {
    if (c == '-' || c == '.') c = '_';
  }
  return text;
}

// --- Operands ---

// A matrix of fp32 in the test's own memory, row-major.
struct Matrix {
  int rows = 0;
  int cols = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(int row_count, int col_count, float fill = 0)
      : rows(row_count),
        cols(col_count),
        values(static_cast<size_t>(row_count) * col_count, fill) {}
  Matrix(int row_count, int col_count, std::vector<float> all)
      : rows(row_count), cols(col_count), values(std::move(all)) {}

  float& at(int row, int col) { return values[static_cast<size_t>(row) * cols + col]; }
  float at(int row, int col) const { return values[static_cast<size_t>(row) * cols + col]; }
  Matrix row_range(int first, int count) const {
    const auto begin = values.begin() + static_cast<ptrdiff_t>(first) * cols;
    return {count, cols, {begin, begin + static_cast<ptrdiff_t>(count) * cols}};
  }
  Matrix absolute() const {
    Matrix result = *this;
    for (float& value : result.values) value = std::fabs(value);
    return result;
  }
};

// Reproducible numbers: the same on every machine, which std's distributions do not promise.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}

  int integer(int low, int high) { return low + static_cast<int>(engine_() % (high - low + 1)); }
  float uniform(float low, float high) {
    return low + (high - low) * (static_cast<float>(engine_() >> 8) * 0x1p-24F);
  }
  int pick(const std::vector<int>& from) { return from[engine_() % from.size()]; }
  bool coin() { return (engine_() & 1) != 0; }
  Matrix matrix(int rows, int cols, float low = -1, float high = 1) {
    Matrix result(rows, cols);
    for (float& value : result.values) value = uniform(low, high);
    return result;
  }

 private:
  std::mt19937 engine_;
};

// A checkpoint's tensor with its memory, which starts at an odd address when `odd` is set: a file
// promises no alignment.
class Stored {
 public:
  Stored(const Matrix& matrix, DType dtype, bool odd = false, bool vector = false)
      : bytes_(matrix.values.size() * bytes_per_element(dtype) + 1) {
    std::byte* data = bytes_.data() + (odd ? 1 : 0);
    for (size_t i = 0; i < matrix.values.size(); ++i) {
      const auto bits = std::bit_cast<uint32_t>(matrix.values[i]);
      const auto half =
          dtype == DType::kF16 ? f32_to_f16(matrix.values[i]) : static_cast<uint16_t>(bits >> 16);
      std::byte* target = data + static_cast<int64_t>(i) * bytes_per_element(dtype);
      if (dtype == DType::kF32) {
        std::memcpy(target, &bits, sizeof bits);
      } else {
        std::memcpy(target, &half, sizeof half);
      }
    }
    tensor_ = {"stored", dtype, {matrix.rows, matrix.cols}, data, nullptr, 0};
    if (vector) tensor_.shape = {matrix.cols};
  }
  Stored(const Stored&) = delete;
  Stored& operator=(const Stored&) = delete;

  const HostTensor& tensor() const { return tensor_; }

 private:
  std::vector<std::byte> bytes_;
  HostTensor tensor_;
};

inline std::unique_ptr<Stored> store(const Matrix& matrix, DType dtype, bool odd = false) {
  return std::make_unique<Stored>(matrix, dtype, odd);
}
// A norm's weight or a bias: one dimension.
inline std::unique_ptr<Stored> store_vector(const Matrix& matrix, DType dtype, bool odd = false) {
  return std::make_unique<Stored>(matrix, dtype, odd, true);
}

// A quantised matrix in the test's own memory: int8 values with one scale for every `group`.
struct Int8Matrix {
  int rows = 0;
  int cols = 0;
  int group = 0;
  std::vector<int8_t> values;
  std::vector<float> scales;

  Int8Matrix(int row_count, int col_count, int group_size)
      : rows(row_count),
        cols(col_count),
        group(group_size),
        values(static_cast<size_t>(row_count) * col_count),
        scales(values.size() / group_size) {}

  int8_t& value(int row, int col) { return values[static_cast<size_t>(row) * cols + col]; }
  int value(int row, int col) const { return values[static_cast<size_t>(row) * cols + col]; }
  float scale(int row, int index) const {
    return scales[static_cast<size_t>(row) * (cols / group) + index];
  }
};

// The whole range of int8, −128 included; some groups are all zero.
inline Int8Matrix random_int8(Random& random, int rows, int cols, int group) {
  Int8Matrix result(rows, cols, group);
  for (int8_t& value : result.values) value = static_cast<int8_t>(random.integer(-128, 127));
  for (float& scale : result.scales) scale = random.uniform(0.0F, 0.01F);
  for (size_t i = 0; i < result.scales.size(); i += 5) {
    std::fill_n(result.values.begin() + static_cast<ptrdiff_t>(i) * group, group, int8_t{0});
  }
  return result;
}

// A checkpoint's quantised tensor with its memory; like Stored, at odd addresses if asked.
class StoredInt8 {
 public:
  explicit StoredInt8(const Int8Matrix& matrix, bool odd = false)
      : values_(matrix.values.size() + 1), scales_(matrix.scales.size() * sizeof(float) + 1) {
    const size_t shift = odd ? 1 : 0;
    std::memcpy(values_.data() + shift, matrix.values.data(), matrix.values.size());
    std::memcpy(scales_.data() + shift, matrix.scales.data(), scales_.size() - 1);
    tensor_ = {"stored",
               DType::kI8,
               {matrix.rows, matrix.cols},
               values_.data() + shift,
               reinterpret_cast<const float*>(scales_.data() + shift),
               matrix.group};
  }
  StoredInt8(const StoredInt8&) = delete;
  StoredInt8& operator=(const StoredInt8&) = delete;

  const HostTensor& tensor() const { return tensor_; }

 private:
  std::vector<std::byte> values_;
  std::vector<std::byte> scales_;
  HostTensor tensor_;
};

// A matrix in a backend's memory that stands inside a larger one, as the columns of q do in qkv.
// What surrounds it is NaN: reading it spoils the result, and check() fails when it was written.
// Around one of kI8, whose contents are integers, stands a number of no meaning.
class Guarded {
 public:
  Guarded(Ops& ops, const Matrix& contents, DType dtype = DType::kF32,
          Placement placement = Placement::kActivation)
      : ops_(ops),
        whole_(ops.tensor(contents.rows + 2 * kRows, contents.cols + 2 * kCols, dtype, placement)),
        view(whole_.row_range(kRows, contents.rows).column_range(kCols, contents.cols)) {
    const Matrix poison(whole_.rows, whole_.cols, dtype == DType::kI8 ? kInt8Guard : kNan);
    ops.write(poison.values, whole_);
    ops.write(contents.values, view);
  }

  Matrix read() const {
    Matrix result(view.rows, view.cols);
    ops_.read(view, result.values);
    return result;
  }

  void check() const {
    Matrix all(whole_.rows, whole_.cols);
    ops_.read(whole_, all.values);
    for (int r = 0; r < all.rows; ++r) {
      for (int c = 0; c < all.cols; ++c) {
        const bool inside =
            r >= kRows && r < all.rows - kRows && c >= kCols && c < all.cols - kCols;
        if (inside || is_guard(all.at(r, c))) continue;
        FAIL() << "the guard at (" << r - kRows << ", " << c - kCols << ") of [" << view.rows
               << ", " << view.cols << "] became " << all.at(r, c);
      }
    }
  }

 private:
  static constexpr int kRows = 2;
  // More than the widest vector's lanes, so that a store of a full vector shows.
  static constexpr int kCols = 17;
  static constexpr float kInt8Guard = -77;

  bool is_guard(float value) const {
    return whole_.dtype == DType::kI8 ? value == kInt8Guard : std::isnan(value);
  }

  Ops& ops_;
  Tensor whole_;

 public:
  const Tensor view;
};

// The scale of a head in a cache of kI8, as it is read and written: in columns [first, first + 4)
// of a row.
inline void set_scale(Matrix& stored, int row, int first, float scale) {
  int8_t bytes[kScaleColumns];
  std::memcpy(bytes, &scale, sizeof scale);
  for (int i = 0; i < kScaleColumns; ++i) stored.at(row, first + i) = bytes[i];
}
inline float scale_at(const Matrix& stored, int row, int first) {
  int8_t bytes[kScaleColumns];
  for (int i = 0; i < kScaleColumns; ++i) {
    bytes[i] = static_cast<int8_t>(stored.at(row, first + i));
  }
  float scale;
  std::memcpy(&scale, bytes, sizeof scale);
  return scale;
}

// --- Results ---

// Every element within its own tolerance; NaN and infinities must be equal.
inline void expect_close(const Matrix& found, const Matrix& expected,
                         const std::vector<double>& tolerance) {
  ASSERT_EQ(found.values.size(), expected.values.size());
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const float e = expected.values[i];
    const float f = found.values[i];
    if (e == f || (std::isnan(e) && std::isnan(f))) continue;
    const double error = std::fabs(static_cast<double>(e) - f);
    ASSERT_TRUE(std::isfinite(e) && error <= tolerance[i])
        << "at (" << i / expected.cols << ", " << i % expected.cols << ") of [" << expected.rows
        << ", " << expected.cols << "]: " << f << " for " << e << ", off by " << error
        << ", allowed " << tolerance[i];
  }
}

// The same tolerance for all elements.
inline void expect_close(const Matrix& found, const Matrix& expected, double tolerance) {
  expect_close(found, expected, std::vector<double>(expected.values.size(), tolerance));
}

inline void expect_same_bits(const Matrix& found, const Matrix& expected) {
  ASSERT_EQ(found.values.size(), expected.values.size());
  for (size_t i = 0; i < expected.values.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(found.values[i]), std::bit_cast<uint32_t>(expected.values[i]))
        << "at (" << i / expected.cols << ", " << i % expected.cols << "): " << found.values[i]
        << " for " << expected.values[i];
  }
}

// The same numbers; NaN equals NaN, whatever its bits.
inline void expect_equal(const Matrix& found, const Matrix& expected) {
  expect_close(found, expected, 0.0);
}

// Makes the backends' tests of a fixture run once for each of them.
#define OCELLI_EVERY_BACKEND(fixture) \
  INSTANTIATE_TEST_SUITE_P(, fixture, testing::ValuesIn(all_backends()), backend_test_name)

// --- Several operations ---

// fc2(activation(fc1 x)), or with a gate fc2(activation(fc1 x) · gate x).
struct Mlp {
  Linear fc1;
  Linear gate;
  Linear fc2;
  Epilogue activation;
};

// out += mlp(x), as decoders ask for it.
inline void run_mlp(Ops& ops, const Tensor& x, const Mlp& mlp, const Tensor& hidden,
                    const Tensor& out) {
  const Projection front = {mlp.fc1, mlp.gate, hidden, mlp.activation};
  ops.project(x, nullptr, {&front, 1}, {});
  ops.linear(hidden, mlp.fc2, out, Epilogue::kAccumulate);
}
// The same, one product at a time.
inline void run_mlp_in_parts(Ops& ops, const Tensor& x, const Mlp& mlp, const Tensor& hidden,
                             const Tensor& out) {
  const Projection front = {mlp.fc1, mlp.gate, hidden, mlp.activation};
  ops.Ops::project(x, nullptr, {&front, 1}, {});
  ops.linear(hidden, mlp.fc2, out, Epilogue::kAccumulate);
}

// What `epilogue` makes of x's product with a matrix.
inline Matrix run_linear(Ops& ops, const LinearSource& source, const Matrix& x, Epilogue epilogue) {
  const Linear linear = ops.load_linear(source);
  EXPECT_EQ(linear->inputs, x.cols);
  const Guarded in(ops, x);
  const Guarded out(ops, Matrix(x.rows, linear->outputs, reads_output(epilogue) ? 0.5F : kNan));
  ops.linear(in.view, linear, out.view, epilogue);
  in.check();
  out.check();
  return out.read();
}

// 1/4 + fc2(silu(fc1 x) · gate x).
inline Matrix run_gated_mlp(Ops& ops, const Tensor& x, const LinearSource& fc1,
                            const LinearSource& gate, const LinearSource& fc2) {
  const Mlp mlp = {ops.load_linear(fc1), ops.load_linear(gate), ops.load_linear(fc2),
                   Epilogue::kSilu};
  const Guarded hidden(ops, Matrix(x.rows, mlp.fc1->outputs, kNan));
  const Guarded out(ops, Matrix(x.rows, mlp.fc2->outputs, 0.25F));
  run_mlp(ops, x, mlp, hidden.view, out.view);
  hidden.check();
  out.check();
  return out.read();
}

}  // namespace ocelli::kernels
