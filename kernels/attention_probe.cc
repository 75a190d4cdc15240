#include "kernels/attention_probe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <utility>

#include "host/error.h"

namespace ocelli::kernels {
namespace {

// In sums that vectors can hold.
float dot(const float* a, const float* b, int count) {
  constexpr int kLanes = 8;
  std::array<float, kLanes> sums{};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < count; ++i) sums[0] += a[i] * b[i];
  float sum = 0;
  for (const float lane : sums) sum += lane;
  return sum;
}

// Rows of a kI8 cache as read() gives them, to the values that they stand for, which take the front
// of `rows`.
void dequantise(std::vector<float>& rows, int head_dim) {
  float* out = rows.data();
  const size_t width = static_cast<size_t>(head_dim) + kScaleColumns;
  for (size_t at = 0; at < rows.size(); at += width) {
    std::array<int8_t, kScaleColumns> bytes{};
    for (size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<int8_t>(rows[at + static_cast<size_t>(head_dim) + i]);
    }
    const auto scale = std::bit_cast<float>(bytes);
    for (int i = 0; i < head_dim; ++i) *out++ = rows[at + static_cast<size_t>(i)] * scale;
  }
}

// What has been recorded of one watch: sums over layers.
struct Recording {
  AttentionWatch watch;
  std::vector<float> sums;  // [rows so far, keys]
  std::vector<int> summed;  // layers in each row's sums

  bool holds(int position) const {
    return position >= watch.first_row && position - watch.first_row < watch.rows;
  }
  // `weights` are a row's, from position 0 on.
  void add(int position, const std::vector<float>& weights) {
    const auto row = static_cast<size_t>(position - watch.first_row);
    const auto keys = static_cast<size_t>(watch.keys);
    if (summed.size() <= row) {
      summed.resize(row + 1);
      sums.resize((row + 1) * keys);
    }
    ++summed[row];
    for (size_t k = 0; k < keys; ++k) {
      sums[row * keys + k] += weights[static_cast<size_t>(watch.first_key) + k];
    }
  }
};

class AttentionProbeImpl : public AttentionProbe {
 public:
  using AttentionProbe::AttentionProbe;

  int begin(const AttentionWatch& watch) override {
    OCELLI_CHECK(watch.first_key >= 0 && watch.keys > 0 && watch.rows > 0 &&
                     watch.first_row >= watch.first_key + watch.keys,
                 "{} keys from {} on for {} rows from {} on", watch.keys, watch.first_key,
                 watch.rows, watch.first_row);
    recordings_[next_].watch = watch;
    return next_++;
  }

  AttentionRecord end(int watch) override {
    const auto found = recordings_.find(watch);
    OCELLI_CHECK(found != recordings_.end(), "watch {} is not there", watch);
    Recording& recording = found->second;
    AttentionRecord record;
    record.rows = static_cast<int>(recording.summed.size());
    record.keys = recording.watch.keys;
    record.weights = std::move(recording.sums);
    for (size_t i = 0; i < record.weights.size(); ++i) {
      const int layers = recording.summed[i / static_cast<size_t>(record.keys)];
      record.weights[i] /= static_cast<float>(std::max(1, layers));
    }
    recordings_.erase(found);
    return record;
  }

  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    inner().attention(q, keys, values, shape, segments, out);
    if (recordings_.empty() || !shape.causal || !shape.cached) return;
    for (const Segment& segment : segments) record(q, keys, shape, segment);
  }

 private:
  bool watched(int sequence, int position) const {
    return std::ranges::any_of(recordings_, [&](const auto& entry) {
      return entry.second.watch.sequence == sequence && entry.second.holds(position);
    });
  }

  void record(const Tensor& q, const Tensor& keys, const AttentionShape& shape,
              const Segment& segment) {
    bool read = false;
    for (int i = 0; i < segment.rows; ++i) {
      const int position = segment.past + i;
      if (!watched(segment.sequence, position)) continue;
      if (!std::exchange(read, true)) read_keys(keys, shape, segment);
      query_.resize(static_cast<size_t>(q.cols));
      inner().read(q.row_range(segment.first_row + i, 1), query_);
      weigh(position + 1, shape);
      for (auto& [id, recording] : recordings_) {
        if (recording.watch.sequence == segment.sequence && recording.holds(position)) {
          recording.add(position, weights_);
        }
      }
    }
  }

  void read_keys(const Tensor& keys, const AttentionShape& shape, const Segment& segment) {
    keys_of_head_ = segment.past + segment.rows;
    const size_t size = static_cast<size_t>(keys_of_head_) * static_cast<size_t>(keys.cols);
    keys_.resize(static_cast<size_t>(shape.kv_heads) * size);
    for (int head = 0; head < shape.kv_heads; ++head) {
      // It fits an int, as it lies inside the cache.
      const auto first = static_cast<int>(head_place(shape, segment.sequence, head).row);
      inner().read(keys.row_range(first, keys_of_head_),
                   std::span(keys_).subspan(static_cast<size_t>(head) * size, size));
    }
    if (keys.dtype == DType::kI8) dequantise(keys_, shape.head_dim);
  }

  // weights_[k], for the first `seen` of keys_: the softmax of query_, its mean over the heads.
  void weigh(int seen, const AttentionShape& shape) {
    const int heads_of_a_key = shape.heads / shape.kv_heads;
    weights_.assign(static_cast<size_t>(seen), 0);
    scores_.resize(static_cast<size_t>(seen));
    for (int h = 0; h < shape.heads; ++h) {
      const float* query = query_.data() + int64_t{h} * shape.head_dim;
      const float* key =
          keys_.data() + int64_t{h / heads_of_a_key} * keys_of_head_ * shape.head_dim;
      for (float& score : scores_) {
        score = shape.scale * dot(query, key, shape.head_dim);
        key += shape.head_dim;
      }
      const float largest = *std::ranges::max_element(scores_);
      double sum = 0;
      for (float& score : scores_) sum += score = std::exp(score - largest);
      const auto share = static_cast<float>(1 / (sum * shape.heads));
      for (size_t k = 0; k < scores_.size(); ++k) weights_[k] += scores_[k] * share;
    }
  }

  std::map<int, Recording> recordings_;
  int next_ = 0;
  // Scratch: of the row in hand [heads · head_dim], of its sequence [kv_heads][keys_of_head_,
  // head_dim], and a value a position.
  std::vector<float> query_;
  std::vector<float> keys_;
  int keys_of_head_ = 0;
  std::vector<float> scores_;
  std::vector<float> weights_;
};

}  // namespace

std::unique_ptr<AttentionProbe> make_attention_probe(std::unique_ptr<Ops> inner) {
  return std::make_unique<AttentionProbeImpl>(std::move(inner));
}

}  // namespace ocelli::kernels
