// AttentionProbe records the softmax that a naive one finds, and changes no result.
#include "kernels/attention_probe.h"

#include <gtest/gtest.h>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

constexpr float kTolerance = 2e-5F;

// A decoder's attention in small: queries and keys of every position of some sequences.
struct Context {
  AttentionShape shape;
  DType cache = DType::kF32;
  std::vector<Matrix> layers_q;  // a layer: [sequences · capacity, heads · head_dim]
  std::vector<Matrix> layers_k;  // a layer: [sequences · capacity, kv_heads · head_dim]
  int sequences = 0;
};

Context random_context(Random& random, DType cache) {
  Context c;
  c.cache = cache;
  c.sequences = random.integer(1, 3);
  const int kv_heads = random.pick({1, 2, 3});
  c.shape = {.heads = kv_heads * random.pick({1, 2}),
             .kv_heads = kv_heads,
             .head_dim = random.pick({2, 6, 8, 19}),
             .scale = random.uniform(0.2F, 2),
             .causal = true,
             .capacity = random.integer(20, 40)};
  const int rows = c.sequences * c.shape.capacity;
  for (int layer = random.integer(1, 3); layer > 0; --layer) {
    c.layers_q.push_back(random.matrix(rows, c.shape.heads * c.shape.head_dim));
    c.layers_k.push_back(random.matrix(rows, kv_heads * c.shape.head_dim));
  }
  return c;
}

// What a cache keeps of a head's values.
std::vector<double> kept(const float* values, int count, DType dtype) {
  float largest = 0;
  for (int i = 0; i < count; ++i) largest = std::max(largest, std::fabs(values[i]));
  std::vector<double> all(values, values + count);
  for (double& value : all) {
    const auto single = static_cast<float>(value);
    if (dtype == DType::kF16) value = f16_to_f32(f32_to_f16(single));
    if (dtype == DType::kI8) value = std::round(single / (largest / 127)) * (largest / 127);
  }
  return all;
}

// The mean over layers and heads of the softmax of a row, for the positions that it sees.
std::vector<double> naive_weights(const Context& c, int sequence, int position) {
  const AttentionShape& shape = c.shape;
  std::vector<double> mean(static_cast<size_t>(position) + 1);
  for (size_t layer = 0; layer < c.layers_q.size(); ++layer) {
    const int first = sequence * shape.capacity;
    for (int head = 0; head < shape.heads; ++head) {
      const int kv_head = head / (shape.heads / shape.kv_heads);
      std::vector<double> weights;
      double sum = 0;
      for (int k = 0; k <= position; ++k) {
        const Matrix& all = c.layers_k[layer];
        const std::vector<double> key =
            kept(&all.values[(static_cast<size_t>(first + k) * shape.kv_heads + kv_head) *
                             shape.head_dim],
                 shape.head_dim, c.cache);
        double score = 0;
        for (int d = 0; d < shape.head_dim; ++d) {
          score += key[d] * c.layers_q[layer].at(first + position, head * shape.head_dim + d);
        }
        weights.push_back(std::exp(shape.scale * score));
        sum += weights.back();
      }
      const double share = 1 / (sum * shape.heads * static_cast<double>(c.layers_q.size()));
      for (size_t k = 0; k < mean.size(); ++k) mean[k] += weights[k] * share;
    }
  }
  return mean;
}

// A backend with the context's caches, which steps append to.
class Machine {
 public:
  Machine(Ops& ops, const Context& context) : ops_(ops), c_(context) {
    const AttentionShape& shape = c_.shape;
    const int rows = c_.sequences * shape.kv_heads * shape.capacity;
    const int cols = cache_columns(shape.head_dim, c_.cache);
    for (size_t i = 0; i < c_.layers_q.size(); ++i) {
      for (auto* caches : {&keys_, &values_}) {
        caches->push_back(ops.tensor(rows, cols, c_.cache, Placement::kKeys));
      }
    }
  }

  // Every layer's attention of these segments; returns the last one's result.
  Matrix step(const std::vector<Segment>& segments) {
    const int rows = segments.back().first_row + segments.back().rows;
    const AttentionShape& shape = c_.shape;
    Matrix result(rows, shape.heads * shape.head_dim);
    for (size_t i = 0; i < c_.layers_q.size(); ++i) {
      const Tensor q = rows_of(c_.layers_q[i], segments, rows);
      const Tensor k = rows_of(c_.layers_k[i], segments, rows);
      const Tensor out = ops_.tensor(rows, result.cols, DType::kF32, Placement::kActivation);
      ops_.append(k, keys_[i], shape.capacity, segments);
      ops_.append(k, values_[i], shape.capacity, segments);
      ops_.attention(q, keys_[i], values_[i], shape, segments, out);
      ops_.read(out, result.values);
    }
    return result;
  }

 private:
  Tensor rows_of(const Matrix& all, const std::vector<Segment>& segments, int rows) {
    Matrix matrix(rows, all.cols);
    for (const Segment& s : segments) {
      for (int i = 0; i < s.rows; ++i) {
        const Matrix row = all.row_range(s.sequence * c_.shape.capacity + s.past + i, 1);
        std::ranges::copy(row.values,
                          matrix.values.begin() + ptrdiff_t{s.first_row + i} * all.cols);
      }
    }
    const Tensor tensor = ops_.tensor(rows, all.cols, DType::kF32, Placement::kActivation);
    ops_.write(matrix.values, tensor);
    return tensor;
  }

  Ops& ops_;
  const Context& c_;
  std::vector<Tensor> keys_;
  std::vector<Tensor> values_;
};

// Steps in which all sequences go on by a few rows each until they hold `length` positions.
std::vector<std::vector<Segment>> random_steps(Random& random, int sequences, int length) {
  std::vector<int> past(static_cast<size_t>(sequences));
  std::vector<std::vector<Segment>> steps;
  while (std::ranges::min(past) < length) {
    std::vector<Segment> segments;
    int row = 0;
    for (int s = 0; s < sequences; ++s) {
      const int rows = std::min(random.pick({1, 1, 2, 9}), length - past[s]);
      if (rows == 0) continue;
      segments.push_back({s, row, rows, past[s]});
      past[s] += rows;
      row += rows;
    }
    steps.push_back(segments);
  }
  return steps;
}

void expect_record(const AttentionRecord& record, const Context& c, const AttentionWatch& watch,
                   int rows) {
  ASSERT_EQ(record.rows, rows);
  ASSERT_EQ(record.keys, watch.keys);
  for (int r = 0; r < record.rows; ++r) {
    const auto expected = naive_weights(c, watch.sequence, watch.first_row + r);
    for (int k = 0; k < watch.keys; ++k) {
      EXPECT_NEAR(record.weights[static_cast<size_t>(r) * record.keys + k],
                  expected[watch.first_key + k], kTolerance)
          << "row " << r << ", key " << k;
    }
  }
}

class AttentionProbeTest : public EveryBackend {};

TEST_P(AttentionProbeTest, RecordsWhatANaiveSoftmaxFindsAndChangesNothing) {
  Random random(91);
  for (const DType cache : {DType::kF32, DType::kF16, DType::kI8}) {
    for (int round = 0; round < 4; ++round) {
      const Context c = random_context(random, cache);
      const int length = random.integer(14, c.shape.capacity);
      const int sequence = random.integer(0, c.sequences - 1);
      const AttentionWatch one_row = {sequence, 2, 5, 7, 1};
      const AttentionWatch to_the_end = {sequence, 3, 6, 10, 1000};
      const AttentionWatch never = {sequence, 0, 1, length, 5};
      auto probe = make_attention_probe(make_backend(GetParam()));
      Machine watched(*probe, c);
      Machine plain(*ops, c);
      std::vector<int> watches;
      for (const AttentionWatch& watch : {one_row, to_the_end, never}) {
        watches.push_back(probe->begin(watch));
      }
      for (const auto& segments : random_steps(random, c.sequences, length)) {
        EXPECT_EQ(watched.step(segments).values, plain.step(segments).values);
      }
      expect_record(probe->end(watches[0]), c, one_row, 1);
      expect_record(probe->end(watches[1]), c, to_the_end, length - 10);
      expect_record(probe->end(watches[2]), c, never, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, AttentionProbeTest, testing::ValuesIn(all_backends()),
                         backend_test_name);

TEST(AttentionProbe, AnAttentionThatIsNotCausalIsNoDecoders) {
  Random random(92);
  Context c = random_context(random, DType::kF32);
  c.shape.causal = false;
  const auto probe = make_attention_probe(make_backend({"reference", 1, ""}));
  const int watch = probe->begin({0, 0, 2, 2, 10});
  Machine(*probe, c).step({{0, 0, 8, 0}});
  EXPECT_EQ(probe->end(watch).rows, 0);
}

TEST(AttentionProbeDeathTest, ARowSeesNothingBehindIt) {
  const auto probe = make_attention_probe(make_backend({"reference", 1, ""}));
  EXPECT_DEATH(probe->begin({0, 4, 3, 6, 1}), "3 keys from 4 on for 1 rows from 6 on");
  EXPECT_DEATH(probe->end(0), "watch 0 is not there");
}

}  // namespace
}  // namespace ocelli::kernels
