// CheckedOps names the first operation that goes wrong; ProfiledOps writes a trace that parses.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "kernels/checked_ops.h"
#include "kernels/forwarding_ops.h"
#include "kernels/profiled_ops.h"
#include "tests/host/expect_error.h"
#include "tests/host/temporary_directory.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

constexpr float kTolerance = 1e-5F;

// The reference backend with one element of one operation's output made wrong.
class WrongOps : public ForwardingOps {
 public:
  // What to do to the result of the `operation`: element (row, col) becomes change(old value).
  struct Fault {
    std::string operation;
    int row = 0;
    int col = 0;
    std::function<float(float)> change;
    bool of_cache = false;  // of append_rotated: a value in the cache, not a query
  };
  explicit WrongOps(Fault fault)
      : ForwardingOps(make_backend({"reference", 1, ""})), fault_(std::move(fault)) {}

  const char* name() const override { return "wrong"; }
  void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) override {
    inner().embed(table, rows, out);
    spoil("embed", out);
  }
  void linear(const Tensor& x, const Linear& weights, const Tensor& out,
              Epilogue epilogue) override {
    inner().linear(x, weights, out, epilogue);
    spoil("linear", out);
  }
  void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    inner().layer_norm(x, norm, out);
    spoil("layer_norm", out);
  }
  void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    inner().rms_norm(x, norm, out);
    spoil("rms_norm", out);
  }
  void rope(const Tensor& x, int head_dim, const Tensor& table,
            std::span<const Segment> segments) override {
    inner().rope(x, head_dim, table, segments);
    spoil("rope", x);
  }
  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments) override {
    inner().append(x, cache, capacity, segments);
    spoil("append", cache);
  }
  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    inner().attention(q, keys, values, shape, segments, out);
    spoil("attention", out);
  }
  void add(const Tensor& x, const Tensor& out) override {
    inner().add(x, out);
    spoil("add", out);
  }
  void project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
               const Tensor& normed) override {
    inner().project(x, norm, projections, normed);
    spoil("project", projections.back().out);
  }
  void linear_sum(std::span<const Term> terms, const Tensor& out) override {
    inner().linear_sum(terms, out);
    spoil("linear_sum", out);
  }
  void append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                      std::span<const Segment> segments) override {
    inner().append_rotated(qkv, angles, cache, segments);
    spoil("append_rotated", fault_.of_cache ? cache.values : qkv);
  }

 private:
  void spoil(const std::string& operation, const Tensor& out) {
    if (operation != fault_.operation) return;
    const Tensor element = out.row_range(fault_.row, 1).column_range(fault_.col, 1);
    float value = 0;
    inner().read(element, {&value, 1});
    value = fault_.change(value);
    inner().write({&value, 1}, element);
  }

  Fault fault_;
};

// A decoder's layer in small: every operation once, in this order.
const std::vector<std::string> kProgram = {"embed",   "add",        "layer_norm",    "rms_norm",
                                           "linear",  "rope",       "append",        "attention",
                                           "project", "linear_sum", "append_rotated"};
constexpr int kRows = 4;
constexpr int kCols = 6;

Matrix run_program(Ops& ops) {
  Random random(51);
  const auto table = store(random.matrix(10, kCols), DType::kF16);
  const auto vector = store_vector(random.matrix(1, kCols), DType::kF32);
  const auto square = store(random.matrix(kCols, kCols), DType::kBF16);
  const auto make = [&](int rows, Placement placement) {
    return ops.tensor(rows, kCols, DType::kF32, placement);
  };
  const Tensor x = make(kRows, Placement::kActivation);
  const Tensor h = make(kRows, Placement::kActivation);
  const Tensor cache = ops.tensor(40, 3, DType::kF32, Placement::kKeys);
  const Tensor angles = ops.tensor(9, 2, DType::kF32, Placement::kActivation);
  ops.write(random.matrix(9, 2).values, angles);
  ops.write(Matrix(40, 3, 0.5F).values, cache);
  const Tensor weight = ops.load(vector->tensor());
  const Norm norm = {weight, weight, 1e-5F};
  const Linear linear = ops.load_linear({{square->tensor()}, {vector->tensor()}});
  const std::vector<Segment> segments = {{1, 0, 3, 2}, {0, 3, 1, 8}};
  ops.embed(ops.load(table->tensor()), std::vector<int32_t>{1, 9, 0, 4}, x);
  ops.add(weight, x);
  ops.layer_norm(x, norm, x);
  ops.rms_norm(x, norm, h);
  ops.linear(h, linear, x, Epilogue::kAccumulate);
  ops.rope(x, 3, angles, segments);
  ops.append(x, cache, 10, segments);
  const AttentionShape shape = {
      .heads = 2, .kv_heads = 2, .head_dim = 3, .scale = 1, .causal = true, .capacity = 10};
  ops.attention(x, cache, cache, shape, segments, h);
  const Tensor y = make(kRows, Placement::kActivation);
  const std::vector<Projection> projections = {{linear, nullptr, h},
                                               {linear, linear, y, Epilogue::kSilu}};
  ops.project(x, &norm, projections, make(kRows, Placement::kActivation));
  ops.linear_sum(std::vector<Term>{{h, linear}, {y, linear}}, x);
  // Queries as wide as x, and half of that for keys and for values.
  const Tensor qkv = ops.tensor(kRows, 2 * kCols, DType::kF32, Placement::kActivation);
  ops.write(random.matrix(kRows, 2 * kCols).values, qkv);
  const Tensor values = ops.tensor(20, 3, DType::kF32, Placement::kValues);
  ops.append_rotated(qkv, angles, {cache.row_range(0, 20), values, 1, 3, 10}, segments);
  const Tensor queries = qkv.column_range(0, kCols);
  Matrix result(kRows, kCols);
  Matrix rotated(kRows, kCols);
  ops.read(x, result.values);
  ops.read(queries, rotated.values);
  for (size_t i = 0; i < rotated.values.size(); ++i) result.values[i] += rotated.values[i];
  return result;
}

std::unique_ptr<Ops> checked(std::unique_ptr<Ops> candidate) {
  return make_checked_ops(make_backend({"reference", 1, ""}), std::move(candidate), kTolerance);
}

TEST(CheckedOps, PassesEveryBackend) {
  for (const BackendOptions& options : all_backends()) {
    const std::unique_ptr<Ops> ops = checked(make_backend(options));
    EXPECT_EQ(ops->name(), options.name + ", checked");
    // What is read is the candidate's own result.
    expect_same_bits(run_program(*ops), run_program(*make_backend(options)));
  }
}

TEST(CheckedOps, NamesTheOperationAndTheElement) {
  for (size_t i = 0; i < kProgram.size(); ++i) {
    // The cache's row 32 is the first that append() writes for the second head: sequence 1 of
    // capacity 10, past 2.
    const bool append = kProgram[i] == "append";
    const std::unique_ptr<Ops> ops = checked(std::make_unique<WrongOps>(WrongOps::Fault{
        kProgram[i], append ? 32 : 2, append ? 1 : 4, [](float x) { return x + 0.5F; }}));
    const std::string message = error_of([&] { run_program(*ops); });
    const std::string where = append ? "(0, 1)" : "(2, 4)";
    EXPECT_TRUE(holds(message, "operation " + std::to_string(i + 1) + " (" + kProgram[i]));
    EXPECT_TRUE(holds(message, "diverges at " + where + ": wrong computes"));
  }
}

// Sequence 1 of capacity 10 is continued from position 2: row 12 of a cache with one head.
TEST(CheckedOps, LooksAtWhatACompoundOperationCaches) {
  const std::unique_ptr<Ops> ops = checked(std::make_unique<WrongOps>(
      WrongOps::Fault{"append_rotated", 13, 2, [](float x) { return x + 0.5F; }, true}));
  EXPECT_TRUE(holds(error_of([&] { run_program(*ops); }),
                    "(append_rotated into [3, 3]) diverges at (1, 2): wrong computes"));
}

TEST(CheckedOps, TellsNumbersFromNanAndInfinity) {
  for (const float wrong : {kNan, kInfinity, -kInfinity}) {
    const std::unique_ptr<Ops> ops = checked(std::make_unique<WrongOps>(
        WrongOps::Fault{"linear", 1, 0, [wrong](float) { return wrong; }}));
    EXPECT_TRUE(
        holds(error_of([&] { run_program(*ops); }), "(linear into [4, 6]) diverges at (1, 0)"));
  }
}

TEST(CheckedOps, JudgesRowsThatHoldInfinities) {
  const auto add = [](std::unique_ptr<Ops> candidate) {
    const std::unique_ptr<Ops> ops = checked(std::move(candidate));
    const Tensor x = ops->tensor(1, 3, DType::kF32, Placement::kActivation);
    const Tensor out = ops->tensor(1, 3, DType::kF32, Placement::kActivation);
    ops->write(std::vector<float>{1, kInfinity, kNan}, x);
    ops->write(std::vector<float>{1, 1, 1}, out);
    ops->add(x, out);
  };
  add(make_backend({"reference", 1, ""}));  // equal infinities and NaNs are no divergence
  const std::string message = error_of([&] {
    add(std::make_unique<WrongOps>(WrongOps::Fault{"add", 0, 0, [](float) { return 3.0F; }}));
  });
  EXPECT_TRUE(holds(message, "diverges at (0, 0): wrong computes 3"));
}

// The error of one operation is not counted again in the next: a candidate that is wrong by less
// than the tolerance in each of many steps passes, though the sum of the errors is past it.
TEST(CheckedOps, JudgesEachOperationOnItsOwn) {
  const std::unique_ptr<Ops> ops = checked(std::make_unique<WrongOps>(
      WrongOps::Fault{"add", 0, 0, [](float x) { return x * (1 + 0.7F * kTolerance); }}));
  const Tensor x = ops->tensor(1, 1, DType::kF32, Placement::kActivation);
  ops->write(std::vector<float>{1}, x);
  const Tensor zero = ops->tensor(1, 1, DType::kF32, Placement::kActivation);
  ops->write(std::vector<float>{0}, zero);
  for (int i = 0; i < 50; ++i) ops->add(zero, x);
  float sum = 0;
  ops->read(x, {&sum, 1});
  EXPECT_GT(sum, 1 + 30 * kTolerance);
}

TEST(CheckedOps, SeesThroughViews) {
  const std::unique_ptr<Ops> ops = checked(make_backend({"cpu", 2, ""}));
  Random random(52);
  const Matrix values = random.matrix(12, 9);
  const Guarded guarded(*ops, values);
  Matrix found(3, 2);
  ops->read(guarded.view.row_range(4, 3).column_range(5, 2), found.values);
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 2; ++c) EXPECT_EQ(found.at(r, c), values.at(4 + r, 5 + c));
  }
  // Stride 0 repeats a row.
  Tensor repeated = guarded.view.row_range(2, 1);
  repeated.rows = 5;
  repeated.stride = 0;
  const Guarded sums(*ops, Matrix(5, 9));
  ops->add(repeated, sums.view);
  for (int r = 0; r < 5; ++r) expect_same_bits(sums.read().row_range(r, 1), values.row_range(2, 1));
}

// --- ProfiledOps ---

nlohmann::json trace_of(const ProfiledOps& ops) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "trace.json";
  ops.save(path.string());
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

TEST(ProfiledOps, ChangesNoResult) {
  for (const std::string& name : backend_names()) {
    const auto ops = make_profiled_ops(make_backend({name, 1, ""}));
    EXPECT_EQ(ops->name(), name);
    expect_same_bits(run_program(*ops), run_program(*make_backend({name, 1, ""})));
  }
}

TEST(ProfiledOps, RecordsEveryOperationInOrder) {
  const auto ops = make_profiled_ops(make_backend({"reference", 1, ""}));
  run_program(*ops);
  const nlohmann::json events = trace_of(*ops).at("traceEvents");
  std::vector<std::string> names;
  double end_of_last = 0;
  for (const nlohmann::json& event : events) {
    if (event.at("ph") == "M") {
      EXPECT_EQ(event.at("args").at("name"), "reference");
      continue;
    }
    EXPECT_EQ(event.at("ph"), "X");
    EXPECT_EQ(event.at("pid"), 1);
    EXPECT_EQ(event.at("tid"), 1);
    // One after the other, in microseconds of which three decimals are kept.
    EXPECT_GE(event.at("ts").get<double>(), end_of_last - 0.002);
    EXPECT_GE(event.at("dur").get<double>(), 0);
    end_of_last = event.at("ts").get<double>() + event.at("dur").get<double>();
    const std::string name = event.at("name");
    if (std::find(kProgram.begin(), kProgram.end(), name) != kProgram.end()) names.push_back(name);
    if (name == "linear") {
      EXPECT_EQ(event.at("args"),
                nlohmann::json({{"rows", 4}, {"inputs", 6}, {"outputs", 6}, {"macs", 4 * 6 * 6}}));
    } else if (name == "attention") {
      // Two heads of 3, causal: rows that see 3, 4, 5 and 9 keys, once for scores, once for values.
      EXPECT_EQ(event.at("args").at("macs"), 2 * (3 + 4 + 5 + 9) * 2 * 3);
    } else if (name == "project") {
      EXPECT_EQ(event.at("args").at("macs"), 3 * 4 * 6 * 6);  // two, and the gate of one
    } else if (name == "linear_sum") {
      EXPECT_EQ(event.at("args").at("macs"), 2 * 4 * 6 * 6);
    } else if (event.contains("args")) {
      EXPECT_EQ(event.at("args").at("macs"), 0) << name;
    }
  }
  EXPECT_EQ(names, kProgram);
}

TEST(ProfiledOps, RecordsAnOperationThatThrows) {
  const auto ops = make_profiled_ops(checked(std::make_unique<WrongOps>(
      WrongOps::Fault{"layer_norm", 0, 0, [](float x) { return x + 1; }})));
  error_of([&] { run_program(*ops); });
  EXPECT_EQ(trace_of(*ops).at("traceEvents").back().at("name"), "layer_norm");
}

TEST(ProfiledOps, AnUnwritablePlaceIsAnErrorAndLeavesNothing) {
  const auto ops = make_profiled_ops(make_backend({"reference", 1, ""}));
  const TemporaryDirectory directory;
  const std::string missing = (directory.path() / "missing" / "trace.json").string();
  EXPECT_TRUE(holds(error_of([&] { ops->save(missing); }), missing));
  std::filesystem::create_directory(directory.path() / "taken");
  const std::string taken = (directory.path() / "taken").string();
  EXPECT_TRUE(holds(error_of([&] { ops->save(taken); }), taken));
  const std::filesystem::directory_iterator entries(directory.path());
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 1) << "only the directory 'taken'";
}

}  // namespace
}  // namespace ocelli::kernels
