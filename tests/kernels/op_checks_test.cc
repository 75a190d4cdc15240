// A broken promise of ops.h aborts with its values, on every kind of backend.
#include "kernels/op_checks.h"

#include <gtest/gtest.h>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

constexpr int kLargest = std::numeric_limits<int>::max();

// One backend of each kind: the checks do not depend on threads or instruction sets.
class OpChecksDeathTest : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Ops> ops = make_backend({GetParam(), 1, ""});

  Tensor tensor(int rows, int cols, DType dtype = DType::kF32) {
    return ops->tensor(rows, cols, dtype, Placement::kActivation);
  }
};

using Segments = std::vector<Segment>;

TEST_P(OpChecksDeathTest, Linear) {
  const auto weight = store(Matrix(4, 3), DType::kF32);
  const Linear linear = ops->load_linear({{weight->tensor()}, {}});
  const Tensor x = tensor(2, 3);
  EXPECT_DEATH(ops->linear(x, linear, tensor(2, 3), Epilogue::kStore),
               "\\[2, 3\\] by \\[4, 3\\] into \\[2, 3\\]");
  EXPECT_DEATH(ops->linear(x, linear, tensor(3, 4), Epilogue::kStore), "into \\[3, 4\\]");
  EXPECT_DEATH(ops->linear(tensor(2, 3, DType::kF16), linear, tensor(2, 4), Epilogue::kStore),
               "activation \\[2, 3\\] of f16");
  const auto bias = store_vector(Matrix(1, 5), DType::kF32);
  EXPECT_DEATH(ops->load_linear({{weight->tensor()}, {bias->tensor()}}), "stored is \\[5\\]");
  EXPECT_DEATH(ops->load_linear({}), "needs a weight");
}

TEST_P(OpChecksDeathTest, QuantisedLinear) {
  const StoredInt8 eights(Int8Matrix(2, 16, 8));
  const StoredInt8 fours(Int8Matrix(2, 16, 4));
  const auto floats = store(Matrix(2, 16), DType::kF32);
  EXPECT_DEATH(ops->load_linear({{eights.tensor(), fours.tensor()}, {}}),
               "in groups of 8, .* of 4");
  EXPECT_DEATH(ops->load_linear({{eights.tensor(), floats->tensor()}, {}}), "in groups of 8");
  EXPECT_DEATH(ops->load_linear({{floats->tensor(), eights.tensor()}, {}}), "in groups of 0");
  HostTensor crossing = eights.tensor();
  crossing.group = 7;
  EXPECT_DEATH(ops->load_linear({{crossing}, {}}), "groups of 7 in rows of 16");
  HostTensor plain = eights.tensor();
  plain.scales = nullptr;
  EXPECT_DEATH(ops->load_linear({{plain}, {}}), "stored is of i8");
}

TEST_P(OpChecksDeathTest, Embed) {
  const Tensor table = tensor(3, 2);
  EXPECT_DEATH(ops->embed(table, std::vector<int32_t>{3}, tensor(1, 2)), "row 3 of 3");
  EXPECT_DEATH(ops->embed(table, std::vector<int32_t>{-1}, tensor(1, 2)), "row -1 of 3");
  EXPECT_DEATH(ops->embed(table, std::vector<int32_t>{0}, tensor(2, 2)), "1 rows of");
  EXPECT_DEATH(ops->embed(table, std::vector<int32_t>{0}, tensor(1, 3)), "into \\[1, 3\\]");
}

TEST_P(OpChecksDeathTest, Norms) {
  const Tensor row = tensor(1, 4);
  const Norm norm = {row, row, 1e-5F};
  EXPECT_DEATH(ops->layer_norm(tensor(2, 4), norm, tensor(3, 4)), "\\[2, 4\\] into \\[3, 4\\]");
  EXPECT_DEATH(ops->rms_norm(tensor(2, 5), norm, tensor(2, 5)), "\\[1, 4\\] for \\[2, 5\\]");
  EXPECT_DEATH(ops->layer_norm(tensor(2, 4), {row, tensor(1, 3), 0}, tensor(2, 4)),
               "\\[1, 3\\] for \\[2, 4\\]");
}

TEST_P(OpChecksDeathTest, Rope) {
  const Tensor table = tensor(5, 4);
  const Tensor x = tensor(3, 12);
  EXPECT_DEATH(ops->rope(x, 5, table, Segments{{0, 0, 1, 0}}), "12 columns, heads of 5");
  EXPECT_DEATH(ops->rope(x, 3, table, Segments{{0, 0, 1, 0}}), "\\[5, 4\\] of f32 for heads of 3");
  EXPECT_DEATH(ops->rope(x, 4, table, Segments{{0, 2, 2, 0}}), "rows 2 \\+ 2 of 3");
  EXPECT_DEATH(ops->rope(x, 4, table, Segments{{0, 0, 3, 3}}), "position 5 of 5");
  EXPECT_DEATH(ops->rope(x, 4, table, Segments{{0, 0, 3, kLargest}}), "position 2147483649 of 5");
  EXPECT_DEATH(ops->rope(x, 4, table, Segments{{0, 0, 1, -1}}), "past -1");
}

TEST_P(OpChecksDeathTest, Append) {
  const Tensor cache = tensor(20, 4);
  const Tensor x = tensor(3, 4);
  EXPECT_DEATH(ops->append(tensor(3, 5), cache, 10, Segments{{0, 0, 1, 0}}), "\\[3, 5\\] into");
  EXPECT_DEATH(ops->append(x, cache, 10, Segments{{0, 1, 3, 0}}), "rows 1 \\+ 3 of 3");
  EXPECT_DEATH(ops->append(x, cache, 10, Segments{{0, 0, 3, 8}}), "position 10 of 10");
  EXPECT_DEATH(ops->append(x, cache, 10, Segments{{2, 0, 1, 0}}), "row 20 of 20");
  // 2^20 · 2^12 is 0 in 32 bits.
  EXPECT_DEATH(ops->append(x, cache.row_range(0, 0), 1 << 12, Segments{{1 << 20, 0, 1, 0}}),
               "row 4294967296 of");
  EXPECT_DEATH(ops->append(tensor(3, 8), cache, 20, Segments{{0, 0, 1, 0}}),
               "a cache of 20 rows for 2 heads of 20 positions");
  EXPECT_DEATH(ops->append(x, cache, 10, Segments{{-1, 0, 1, 0}}), "sequence -1");
}

TEST_P(OpChecksDeathTest, AppendRotated) {
  const Tensor qkv = tensor(3, 16);  // two heads of 4, one of k and one of v
  const Tensor angles = tensor(5, 4);
  const Tensor rows = tensor(20, 4);
  const LayerCache cache = {rows, rows, 1, 4, 10};
  const auto run = [&](const Tensor& x, const LayerCache& to, const Segment& segment) {
    ops->append_rotated(x, angles, to, Segments{segment});
  };
  run(qkv, cache, {1, 0, 3, 2});  // the last positions that have angles
  EXPECT_DEATH(run(qkv, cache, {0, 0, 3, 3}), "position 5 of 5");
  EXPECT_DEATH(ops->append_rotated(qkv, {}, cache, Segments{{0, 0, 3, 8}}), "position 10 of 10");
  EXPECT_DEATH(run(qkv, cache, {2, 0, 1, 0}), "row 20 of 20");
  EXPECT_DEATH(run(qkv, cache, {0, 1, 3, 0}), "rows 1 \\+ 3 of 3");
  run(tensor(3, 8), cache, {0, 0, 1, 0});  // without queries
  EXPECT_DEATH(run(tensor(3, 4), cache, {0, 0, 1, 0}), "q, k and v \\[3, 4\\], 1 heads of 4");
  EXPECT_DEATH(run(tensor(3, 15), cache, {0, 0, 1, 0}), "q, k and v \\[3, 15\\]");
  EXPECT_DEATH(run(qkv, {rows, rows, 0, 4, 10}, {0, 0, 1, 0}), "0 heads of 4");
  EXPECT_DEATH(run(qkv, {rows, rows, 1, 4, 15}, {0, 0, 1, 0}), "20 rows for 1 heads of 15");
}

TEST_P(OpChecksDeathTest, Attention) {
  const Tensor q = tensor(3, 8);
  const Tensor keys = tensor(40, 2);
  const AttentionShape shape = {
      .heads = 4, .kv_heads = 2, .head_dim = 2, .scale = 1, .causal = true, .capacity = 10};
  const auto run = [&](const AttentionShape& with, const Segment& segment) {
    ops->attention(q, keys, keys, with, Segments{segment}, tensor(3, 8));
  };
  run(shape, {1, 0, 3, 7});  // the last positions that fit
  EXPECT_DEATH(run(shape, {1, 0, 3, 8}), "position 10 of 10");
  EXPECT_DEATH(run(shape, {2, 0, 3, 0}), "sequence 2 of capacity 10: row 52 of 40");
  EXPECT_DEATH(run(shape, {0, 1, 3, 0}), "rows 1 \\+ 3 of 3");
  AttentionShape other = shape;
  other.head_dim = 3;
  EXPECT_DEATH(run(other, {0, 0, 1, 0}), "4 heads of 3, 2 of keys: q \\[3, 8\\]");
  other = shape;
  other.kv_heads = 3;
  EXPECT_DEATH(run(other, {0, 0, 1, 0}), "4 heads, 3 of keys");
  other = shape;
  other.scale = kNan;
  EXPECT_DEATH(run(other, {0, 0, 1, 0}), "scale nan");
  const Segments one = {{0, 0, 1, 0}};
  EXPECT_DEATH(ops->attention(q, keys, tensor(40, 2, DType::kF16), shape, one, tensor(3, 8)),
               "values \\[40, 2\\] of f16");
  // Made for other heads, or for another capacity.
  EXPECT_DEATH(ops->attention(q, tensor(30, 2), tensor(30, 2), shape, one, tensor(3, 8)),
               "a cache of 30 rows for 2 heads of 10 positions");
  // Heads side by side are an activation's, and in no cache's dtype but fp32.
  EXPECT_DEATH(ops->attention(q, tensor(20, 4), tensor(20, 4), shape, one, tensor(3, 8)),
               "4 heads of 2, 2 of keys: q \\[3, 8\\], keys \\[20, 4\\]");
  other = shape;
  other.cached = false;
  EXPECT_DEATH(run(other, {0, 0, 1, 0}), "4 heads of 2, 2 of keys: q \\[3, 8\\], keys \\[40, 2\\]");
  const Tensor halves = tensor(20, 4, DType::kF16);
  EXPECT_DEATH(ops->attention(q, halves, halves, other, one, tensor(3, 8)),
               "an activation \\[20, 4\\] of f16");
  EXPECT_DEATH(ops->attention(q, keys, keys, shape, one, tensor(2, 8)), "into \\[2, 8\\]");
}

TEST_P(OpChecksDeathTest, Add) {
  EXPECT_DEATH(ops->add(tensor(1, 3), tensor(2, 4)), "\\[1, 3\\] onto \\[2, 4\\]");
  EXPECT_DEATH(ops->add(tensor(2, 4), tensor(3, 4)), "\\[2, 4\\] onto \\[3, 4\\]");
  EXPECT_DEATH(ops->add(tensor(0, 4), tensor(3, 4)), "\\[0, 4\\] onto \\[3, 4\\]");
}

std::string test_name(const testing::TestParamInfo<std::string>& backend) {
  std::string text = backend.param;
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

INSTANTIATE_TEST_SUITE_P(, OpChecksDeathTest, testing::ValuesIn(backend_names()), test_name);

// Sums over a model's size in 64 bits: nothing is computed, only shapes are looked at.
TEST(OpChecks, TakeTheLargestCaches) {
  Tensor cache;
  cache.rows = 1 << 30;  // 256 sequences of 4 heads of 2^20
  cache.cols = cache.stride = 64;
  Tensor x;
  x.rows = 4;
  x.cols = x.stride = 256;
  check_append(x, cache, 1 << 20, Segments{{255, 0, 4, (1 << 20) - 4}});
  const AttentionShape shape = {
      .heads = 4, .kv_heads = 4, .head_dim = 64, .scale = 1, .causal = true, .capacity = 1 << 20};
  check_attention({x, cache, cache, x}, shape, Segments{{255, 0, 4, (1 << 20) - 4}});
}

}  // namespace
}  // namespace ocelli::kernels
