#include "kernels/reference/naive.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "host/error.h"

namespace ocelli::kernels::reference {
namespace {

double apply(Epilogue epilogue, double y, double out) {
  constexpr double kSqrtTwoOverPi = 0.79788456080286535588;
  constexpr double kSqrtHalf = 0.70710678118654752440;
  switch (epilogue) {
    case Epilogue::kStore:
      return y;
    case Epilogue::kAccumulate:
      return out + y;
    case Epilogue::kMultiply:
      return out * y;
    case Epilogue::kGeluTanh:
      return 0.5 * y * (1 + std::tanh(kSqrtTwoOverPi * (y + 0.044715 * y * y * y)));
    case Epilogue::kGeluErf:
      return 0.5 * y * (1 + std::erf(y * kSqrtHalf));
    case Epilogue::kSilu:
      return y / (1 + std::exp(-y));
  }
  return y;
}

// The rows of a view as fp32: in place where they are that, else in a copy.
class F32Rows {
 public:
  explicit F32Rows(const View& view) : stride_(view.stride) {
    const bool aligned = reinterpret_cast<uintptr_t>(view.data) % alignof(float) == 0;
    if (view.dtype == DType::kF32 && aligned) {
      data_ = reinterpret_cast<const float*>(view.data);
      return;
    }
    copy_.resize(int64_t{view.rows} * view.cols);
    for (int r = 0; r < view.rows; ++r) {
      convert_to_f32(view.dtype, view.data + r * view.stride * bytes_per_element(view.dtype),
                     view.cols, copy_.data() + int64_t{r} * view.cols);
    }
    data_ = copy_.data();
    stride_ = view.cols;
  }
  F32Rows(const F32Rows&) = delete;
  F32Rows& operator=(const F32Rows&) = delete;

  const float* row(int index) const { return data_ + index * stride_; }

 private:
  std::vector<float> copy_;
  const float* data_ = nullptr;
  int64_t stride_;
};

// A row in int8 with one scale a group, by the rule of Ops::linear.
struct QuantisedRow {
  std::vector<int> values;
  std::vector<float> scales;

  QuantisedRow(const float* x, int n, int group) : values(n), scales(n / group) {
    for (int first = 0; first < n; first += group) {
      float largest = 0;
      bool finite = true;
      for (int k = first; k < first + group; ++k) {
        finite = finite && std::isfinite(x[k]);
        largest = std::max(largest, std::fabs(x[k]));
      }
      const float scale = finite ? largest / 127.0F : NAN;
      scales[first / group] = scale;
      for (int k = first; k < first + group; ++k) {
        if (!(scale > 0)) continue;
        values[k] = static_cast<int>(std::round(std::clamp(x[k] / scale, -127.0F, 127.0F)));
      }
    }
  }
};

// A key or value of one head: as it is stored, and what that is to be multiplied with.
struct HeadRow {
  const View& all;
  int64_t row;
  int first_col;
  double scale = 1;

  HeadRow(const View& from, const HeadPlace& head, int position, int head_dim)
      : all(from), row(head.row + position), first_col(head.col) {
    if (from.dtype != DType::kI8) return;
    float stored;
    std::memcpy(&stored, from.data + row * from.stride + first_col + head_dim, sizeof stored);
    scale = stored;
  }
  double get(int d) const { return scale * all.get(row, first_col + d); }
};

// The attention of one query row and head over `visible` keys of a sequence.
void attend(const AttentionViews& views, const AttentionShape& shape, int row, int head,
            int sequence, int visible) {
  const int q_col = head * shape.head_dim;
  const HeadPlace kv = head_place(shape, sequence, head / (shape.heads / shape.kv_heads));
  std::vector<double> weights(visible);
  double largest = -INFINITY;
  for (int j = 0; j < visible; ++j) {
    const HeadRow key(views.keys, kv, j, shape.head_dim);
    double dot = 0;
    for (int d = 0; d < shape.head_dim; ++d) {
      dot += static_cast<double>(views.q.get(row, q_col + d)) * key.get(d);
    }
    weights[j] = dot * shape.scale;
    largest = std::max(largest, weights[j]);
  }
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  std::vector<double> totals(shape.head_dim);
  for (int j = 0; j < visible; ++j) {
    const HeadRow value(views.values, kv, j, shape.head_dim);
    for (int d = 0; d < shape.head_dim; ++d) totals[d] += weights[j] * value.get(d);
  }
  for (int d = 0; d < shape.head_dim; ++d) {
    views.out.set(row, q_col + d, static_cast<float>(totals[d] / sum));
  }
}

}  // namespace

float View::get(int64_t row, int col) const {
  const std::byte* element = data + (row * stride + col) * bytes_per_element(dtype);
  float value = 0;
  convert_to_f32(dtype, element, 1, &value);
  return value;
}

void View::set(int64_t row, int col, float value) const {
  std::byte* element = data + (row * stride + col) * bytes_per_element(dtype);
  if (dtype == DType::kF32) {
    std::memcpy(element, &value, sizeof value);
    return;
  }
  OCELLI_CHECK(dtype == DType::kF16 || dtype == DType::kBF16, "cannot write {}", name(dtype));
  const uint16_t half = dtype == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
  std::memcpy(element, &half, sizeof half);
}

void embed(const View& table, std::span<const int32_t> rows, const View& out) {
  for (int i = 0; i < out.rows; ++i) {
    for (int c = 0; c < out.cols; ++c) out.set(i, c, table.get(rows[i], c));
  }
}

void linear(const View& x, const View& weight, const View& bias, Epilogue epilogue,
            const View& out) {
  // What the epilogue does not read may be uninitialised, on purpose.
  const bool reads = reads_output(epilogue);
  const F32Rows inputs(x);
  const F32Rows weights(weight);
  for (int r = 0; r < x.rows; ++r) {
    const float* input = inputs.row(r);
    for (int n = 0; n < weight.rows; ++n) {
      const float* factors = weights.row(n);
      double sum = bias.data ? bias.get(0, n) : 0;
      for (int k = 0; k < x.cols; ++k) sum += static_cast<double>(input[k]) * factors[k];
      out.set(r, n, static_cast<float>(apply(epilogue, sum, reads ? out.get(r, n) : 0)));
    }
  }
}

void linear(const View& x, const QuantisedViews& weight, const View& bias, Epilogue epilogue,
            const View& out) {
  const bool reads = reads_output(epilogue);
  const F32Rows inputs(x);
  const auto* values = reinterpret_cast<const int8_t*>(weight.values.data);
  const int groups = weight.scales.cols;
  const int group = x.cols / groups;
  for (int r = 0; r < x.rows; ++r) {
    const QuantisedRow row(inputs.row(r), x.cols, group);
    for (int n = 0; n < weight.values.rows; ++n) {
      float y = 0;
      for (int g = 0; g < groups; ++g) {
        int sum = 0;
        for (int k = g * group; k < (g + 1) * group; ++k) {
          sum += row.values[k] * values[n * weight.values.stride + k];
        }
        y += static_cast<float>(sum) * weight.scales.get(n, g) * row.scales[g];
      }
      if (bias.data) y += bias.get(0, n);
      out.set(r, n, static_cast<float>(apply(epilogue, y, reads ? out.get(r, n) : 0)));
    }
  }
}

void linear_bf16(const View& x, const View& weight, const View& bias, Epilogue epilogue,
                 const View& out) {
  constexpr int kBlock = 32;
  const bool reads = reads_output(epilogue);
  const F32Rows weights(weight);
  std::vector<float> input(x.cols);
  for (int r = 0; r < x.rows; ++r) {
    for (int k = 0; k < x.cols; ++k) input[k] = bf16_to_f32(f32_to_bf16(x.get(r, k)));
    for (int n = 0; n < weight.rows; ++n) {
      const float* factors = weights.row(n);
      float y = 0;
      for (int first = 0; first < x.cols; first += kBlock) {
        const int end = std::min(first + kBlock, x.cols);
        float sums[2] = {0, 0};
        for (int k = first; k < end; ++k) sums[k % 2] += input[k] * factors[k];
        y += sums[0] + sums[1];
      }
      if (bias.data) y += bias.get(0, n);
      out.set(r, n, static_cast<float>(apply(epilogue, y, reads ? out.get(r, n) : 0)));
    }
  }
}

void layer_norm(const View& x, const View& weight, const View& bias, float epsilon,
                const View& out) {
  for (int r = 0; r < x.rows; ++r) {
    double mean = 0;
    for (int c = 0; c < x.cols; ++c) mean += x.get(r, c);
    mean /= x.cols;
    double variance = 0;
    for (int c = 0; c < x.cols; ++c) variance += (x.get(r, c) - mean) * (x.get(r, c) - mean);
    const double scale = 1 / std::sqrt(variance / x.cols + epsilon);
    for (int c = 0; c < x.cols; ++c) {
      const double value = (x.get(r, c) - mean) * scale * weight.get(0, c) + bias.get(0, c);
      out.set(r, c, static_cast<float>(value));
    }
  }
}

void rms_norm(const View& x, const View& weight, float epsilon, const View& out) {
  for (int r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (int c = 0; c < x.cols; ++c) squares += static_cast<double>(x.get(r, c)) * x.get(r, c);
    const double scale = 1 / std::sqrt(squares / x.cols + epsilon);
    for (int c = 0; c < x.cols; ++c) {
      out.set(r, c, static_cast<float>(x.get(r, c) * scale * weight.get(0, c)));
    }
  }
}

void rope(const View& x, int head_dim, const View& table, std::span<const Segment> segments) {
  const int half = table.cols / 2;
  for (const Segment& segment : segments) {
    for (int i = 0; i < segment.rows; ++i) {
      const int row = segment.first_row + i;
      const int position = segment.past + i;
      for (int head = 0; head < x.cols; head += head_dim) {
        for (int d = 0; d < half; ++d) {
          const double cosine = table.get(position, d);
          const double sine = table.get(position, half + d);
          const double a = x.get(row, head + d);
          const double b = x.get(row, head + half + d);
          x.set(row, head + d, static_cast<float>(a * cosine - b * sine));
          x.set(row, head + half + d, static_cast<float>(b * cosine + a * sine));
        }
      }
    }
  }
}

namespace {

// The values of one head to row `target` of a cache.
void append_head(std::span<const float> values, const View& cache, int64_t target) {
  const int head_dim = static_cast<int>(values.size());
  if (cache.dtype != DType::kI8) {
    for (int d = 0; d < head_dim; ++d) cache.set(target, d, values[d]);
    return;
  }
  const QuantisedRow quantised(values.data(), head_dim, head_dim);
  std::byte* to = cache.data + target * cache.stride;
  for (const int value : quantised.values) *to++ = static_cast<std::byte>(value);
  std::memcpy(to, quantised.scales.data(), sizeof(float));
}

}  // namespace

void append(const View& x, const View& cache, int capacity, std::span<const Segment> segments) {
  const int head_dim = cache.cols - scale_columns(cache.dtype);
  const int heads = x.cols / head_dim;
  const F32Rows rows(x);
  for (const Segment& segment : segments) {
    for (int i = 0; i < segment.rows; ++i) {
      const float* row = rows.row(segment.first_row + i);
      for (int head = 0; head < heads; ++head) {
        const int64_t first = cache_row(heads, capacity, segment.sequence, head);
        append_head({row + head * head_dim, static_cast<size_t>(head_dim)}, cache,
                    first + segment.past + i);
      }
    }
  }
}

void attention(const AttentionViews& views, const AttentionShape& shape,
               std::span<const Segment> segments) {
  for (const Segment& segment : segments) {
    for (int i = 0; i < segment.rows; ++i) {
      const int visible = segment.past + (shape.causal ? i + 1 : segment.rows);
      for (int head = 0; head < shape.heads; ++head) {
        attend(views, shape, segment.first_row + i, head, segment.sequence, visible);
      }
    }
  }
}

void add(const View& x, const View& out) {
  for (int r = 0; r < out.rows; ++r) {
    for (int c = 0; c < out.cols; ++c) {
      out.set(r, c, static_cast<float>(static_cast<double>(out.get(r, c)) + x.get(r % x.rows, c)));
    }
  }
}

}  // namespace ocelli::kernels::reference
