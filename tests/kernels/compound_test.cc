// Ops::project, linear_sum and append_rotated on every backend: they give the bits of the
// operations that they stand for.
#include <gtest/gtest.h>

#include <array>

#include "kernels/packing.h"
#include "kernels/pair_packing.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

// How a matrix is stored.
enum class Format { kF32, kBf16Panels, kInt8Rows, kInt8Panels, kInt4 };
constexpr Format kFormats[] = {Format::kF32, Format::kBf16Panels, Format::kInt8Rows,
                               Format::kInt8Panels, Format::kInt4};
constexpr int kGroup = 64;

// A random matrix of stacked parts with biases.
class Weights {
 public:
  Weights(Random& random, Format format, const std::vector<int>& heights, int inputs) : pool_(1) {
    LinearSource rows;
    for (const int height : heights) {
      biases_.push_back(store_vector(random.matrix(1, height), DType::kF32));
      source_.biases.push_back(biases_.back()->tensor());
      if (format == Format::kInt8Rows || format == Format::kInt8Panels) {
        int8_.push_back(std::make_unique<StoredInt8>(random_int8(random, height, inputs, kGroup)));
        rows.weights.push_back(int8_.back()->tensor());
      } else {
        floats_.push_back(store(random.matrix(height, inputs), DType::kF32));
        rows.weights.push_back(floats_.back()->tensor());
      }
    }
    source_.weights = rows.weights;
    if (format == Format::kInt8Panels) {
      panels_ = std::make_unique<PackedStack>(rows, PanelFormat{}, pool_);
      source_.weights = panels_->weights();
    } else if (format == Format::kInt4) {
      panels_ = std::make_unique<PackedStack>(rows, PanelFormat{inputs, kGroup}, pool_);
      source_.weights = panels_->weights();
    } else if (format == Format::kBf16Panels) {
      pairs_ = std::make_unique<PairStack>(rows, pool_);
      source_.weights = pairs_->weights();
    }
  }

  const LinearSource& source() const { return source_; }

 private:
  host::ThreadPool pool_;
  LinearSource source_;
  std::vector<std::unique_ptr<Stored>> biases_;
  std::vector<std::unique_ptr<Stored>> floats_;
  std::vector<std::unique_ptr<StoredInt8>> int8_;
  std::unique_ptr<PackedStack> panels_;
  std::unique_ptr<PairStack> pairs_;
};

class CompoundOps : public EveryBackend {
 protected:
  // Two projections, the second gated, of x as it is, or after a norm.
  struct Projected {
    Matrix first;
    Matrix second;
  };
  enum class NormKind { kNone, kLayer, kRms };

  Norm random_norm(Random& random, int cols, NormKind kind) {
    const auto vector = [&] {
      vectors_.push_back(store_vector(random.matrix(1, cols), DType::kF32));
      return ops->load(vectors_.back()->tensor());
    };
    Norm norm = {vector(), {}, 1e-5F};
    if (kind == NormKind::kLayer) norm.bias = vector();
    return norm;
  }

  // By the backend's own operation, or by the body that Ops gives it.
  Projected project(const Matrix& x, const Norm* norm, const std::vector<Linear>& linears,
                    bool in_parts) {
    const Guarded in(*ops, x);
    const Guarded normed(*ops, Matrix(x.rows, x.cols, kNan));
    const Guarded first(*ops, Matrix(x.rows, linears[0]->outputs, 0.5F));
    const Guarded second(*ops, Matrix(x.rows, linears[1]->outputs, kNan));
    const std::vector<Projection> projections = {
        {linears[0], nullptr, first.view, Epilogue::kAccumulate},
        {linears[1], linears[2], second.view, Epilogue::kSilu}};
    if (in_parts) {
      ops->Ops::project(in.view, norm, projections, normed.view);
    } else {
      ops->project(in.view, norm, projections, normed.view);
    }
    for (const Guarded* guarded : {&in, &normed, &first, &second}) guarded->check();
    return {first.read(), second.read()};
  }

  Matrix sum(const std::vector<Matrix>& xs, const std::vector<Linear>& linears, bool in_parts) {
    std::vector<std::unique_ptr<Guarded>> ins;
    std::vector<Term> terms;
    for (size_t i = 0; i < xs.size(); ++i) {
      ins.push_back(std::make_unique<Guarded>(*ops, xs[i]));
      terms.push_back({ins.back()->view, linears[i]});
    }
    const Guarded out(*ops, Matrix(xs[0].rows, linears[0]->outputs, 0.25F));
    if (in_parts) {
      ops->Ops::linear_sum(terms, out.view);
    } else {
      ops->linear_sum(terms, out.view);
    }
    out.check();
    for (const auto& in : ins) in->check();
    return out.read();
  }

 private:
  std::vector<std::unique_ptr<Stored>> vectors_;
};

TEST_P(CompoundOps, ProjectGivesTheBitsOfItsParts) {
  Random random(1);
  for (const Format format : kFormats) {
    const Weights qkv(random, format, {48, 21}, 128);
    const Weights up(random, format, {75}, 128);
    const Weights gate(random, format, {75}, 128);
    const std::vector<Linear> linears = {ops->load_linear(qkv.source()),
                                         ops->load_linear(up.source()),
                                         ops->load_linear(gate.source())};
    for (const int rows : {1, 3, 9, 70}) {
      const Matrix x = random.matrix(rows, 128);
      for (const NormKind kind : {NormKind::kNone, NormKind::kLayer, NormKind::kRms}) {
        const Norm norm = random_norm(random, 128, kind);
        const Norm* given = kind == NormKind::kNone ? nullptr : &norm;
        const Projected whole = project(x, given, linears, false);
        const Projected parts = project(x, given, linears, true);
        expect_same_bits(whole.first, parts.first);
        expect_same_bits(whole.second, parts.second);
      }
    }
  }
}

// Formats side by side, gates cut otherwise than their weights.
TEST_P(CompoundOps, ProjectTakesWhatDoesNotFitTogether) {
  Random random(2);
  const Weights floats(random, Format::kF32, {64}, 128);
  const Weights rows_of_int8(random, Format::kInt8Rows, {64}, 128);
  const Weights panels(random, Format::kInt8Panels, {40, 24}, 128);
  const Weights int4(random, Format::kInt4, {64}, 128);
  const Weights* mixtures[][3] = {{&floats, &rows_of_int8, &rows_of_int8},
                                  {&rows_of_int8, &rows_of_int8, &panels},
                                  {&int4, &rows_of_int8, &int4},
                                  {&panels, &panels, &floats}};
  for (const auto& mixture : mixtures) {
    std::vector<Linear> linears;
    for (const Weights* weights : mixture) linears.push_back(ops->load_linear(weights->source()));
    for (const int rows : {1, 20}) {
      const Matrix x = random.matrix(rows, 128);
      const Norm norm = random_norm(random, 128, NormKind::kLayer);
      const Projected whole = project(x, &norm, linears, false);
      const Projected parts = project(x, &norm, linears, true);
      expect_same_bits(whole.first, parts.first);
      expect_same_bits(whole.second, parts.second);
    }
  }
}

TEST_P(CompoundOps, TheNormMayUseItsOwnInput) {
  Random random(3);
  for (const Format format : {Format::kF32, Format::kInt8Rows}) {
    const Weights weights(random, format, {40}, 64);
    const Linear linear = ops->load_linear(weights.source());
    const Norm norm = random_norm(random, 64, NormKind::kRms);
    const Matrix x = random.matrix(5, 64);
    const auto run = [&](bool in_place) {
      const Guarded in(*ops, x);
      const Guarded normed(*ops, Matrix(5, 64, kNan));
      const Guarded out(*ops, Matrix(5, 40, kNan));
      const Projection projection = {linear, nullptr, out.view};
      ops->project(in.view, &norm, {&projection, 1}, in_place ? in.view : normed.view);
      out.check();
      in.check();
      return out.read();
    };
    expect_same_bits(run(true), run(false));
  }
}

TEST_P(CompoundOps, LinearSumGivesTheBitsOfItsProducts) {
  Random random(4);
  for (const Format format : kFormats) {
    const Weights dense(random, format, {90}, 128);
    const Weights fc2(random, format, {90}, 320);
    const Weights third(random, Format::kF32, {90}, 24);
    const std::vector<Linear> linears = {ops->load_linear(dense.source()),
                                         ops->load_linear(fc2.source()),
                                         ops->load_linear(third.source())};
    for (const int rows : {1, 3, 9, 70}) {
      std::vector<Matrix> xs = {random.matrix(rows, 128), random.matrix(rows, 320)};
      expect_same_bits(sum(xs, linears, false), sum(xs, linears, true));
      xs.push_back(random.matrix(rows, 24));
      expect_same_bits(sum(xs, linears, false), sum(xs, linears, true));
    }
  }
}

// A decoder's q, k and v, and its caches of two sequences, which are all but the appended rows
// poison.
struct Appended {
  Matrix qkv;
  Matrix keys;
  Matrix values;
};

struct AppendCase {
  int heads = 1;
  int kv_heads = 1;
  int head_dim = 2;
  int half = 0;  // pairs of a head that are rotated
  DType dtype = DType::kF32;
  int capacity = 0;
  std::vector<Segment> segments;

  int cols() const { return (heads + 2 * kv_heads) * head_dim; }
};

Appended append_rotated(Ops& ops, const AppendCase& c, const Matrix& qkv, const Matrix& angles,
                        bool in_parts) {
  const Guarded x(ops, qkv);
  const Guarded table(ops, angles);
  const Matrix poison(2 * c.kv_heads * c.capacity, cache_columns(c.head_dim, c.dtype),
                      c.dtype == DType::kI8 ? 99 : kNan);
  const Guarded keys(ops, poison, c.dtype, Placement::kKeys);
  const Guarded values(ops, poison, c.dtype, Placement::kValues);
  const LayerCache cache = {keys.view, values.view, c.kv_heads, c.head_dim, c.capacity};
  const Tensor turns = c.half > 0 ? table.view : Tensor{};
  if (in_parts) {
    ops.Ops::append_rotated(x.view, turns, cache, c.segments);
  } else {
    ops.append_rotated(x.view, turns, cache, c.segments);
  }
  for (const Guarded* guarded : {&x, &table, &keys, &values}) guarded->check();
  return {x.read(), keys.read(), values.read()};
}

TEST_P(CompoundOps, AppendRotatedGivesTheBitsOfItsParts) {
  Random random(7);
  for (int i = 0; i < 24 && !HasFatalFailure(); ++i) {
    AppendCase c;
    c.kv_heads = random.pick({1, 2, 5});
    c.heads = c.kv_heads * random.pick({0, 1, 3});
    c.head_dim = random.pick({2, 7, 20, 48, 80});
    c.half = random.coin() ? c.head_dim / 2 : random.integer(0, c.head_dim / 2);
    c.dtype = std::array{DType::kF32, DType::kF16, DType::kI8}[i % 3];
    // One row, a few, or several blocks of them; a row between the segments belongs to none.
    const int rows = random.pick({1, 3, 19, 75});
    c.segments = {{1, 0, rows, random.integer(0, 4)}, {0, rows + 1, random.integer(1, 20), 2}};
    if (random.coin()) c.segments.pop_back();
    c.capacity = rows + 25;
    const Matrix qkv = random.matrix(rows + 25, c.cols(), -3, 3);
    const Matrix angles = random.matrix(c.capacity, std::max(2, 2 * c.half));
    const Appended whole = append_rotated(*ops, c, qkv, angles, false);
    const Appended parts = append_rotated(*ops, c, qkv, angles, true);
    expect_same_bits(whole.keys, parts.keys);
    expect_same_bits(whole.values, parts.values);
    std::vector<bool> taken(qkv.rows);
    for (const Segment& s : c.segments) {
      std::fill_n(taken.begin() + s.first_row, s.rows, true);
    }
    const int k = c.heads * c.head_dim;
    const int v = k + c.kv_heads * c.head_dim;
    for (int r = 0; r < qkv.rows && !HasFatalFailure(); ++r) {
      for (int col = 0; col < qkv.cols; ++col) {
        const bool key = col >= k && col < v;
        if (key && taken[r]) continue;  // anything may be left there
        const float expected = taken[r] && col < k ? parts.qkv.at(r, col) : qkv.at(r, col);
        ASSERT_EQ(whole.qkv.at(r, col), expected) << "at (" << r << ", " << col << ")";
      }
    }
  }
}

TEST_P(CompoundOps, AnyNumberOfThreadsGivesTheSameBits) {
  if (GetParam().name != "cpu") GTEST_SKIP() << "only the CPU backend has threads";
  Random random(5);
  const Weights qkv(random, Format::kInt8Rows, {200}, 512);
  const Weights fc1(random, Format::kInt8Rows, {400}, 512);
  const Weights gate(random, Format::kInt8Rows, {400}, 512);
  const std::unique_ptr<Ops> several = std::move(ops);
  for (const int rows : {1, 40}) {
    const Matrix x = random.matrix(rows, 512);
    const auto run = [&](int threads) {
      ops = make_backend({"cpu", threads, GetParam().isa});
      const std::vector<Linear> linears = {ops->load_linear(qkv.source()),
                                           ops->load_linear(fc1.source()),
                                           ops->load_linear(gate.source())};
      Random again(6);
      const Norm norm = random_norm(again, 512, NormKind::kLayer);
      return project(x, &norm, linears, false);
    };
    const Projected one = run(1);
    const Projected four = run(4);
    expect_same_bits(one.first, four.first);
    expect_same_bits(one.second, four.second);
  }
}

OCELLI_EVERY_BACKEND(CompoundOps);

}  // namespace
}  // namespace ocelli::kernels
