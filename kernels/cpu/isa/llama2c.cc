// llama2.c's own arithmetic: every sum of floats in ascending order, every operation rounded for
// itself, libm's functions. Slow; for those who want the very text that run.c or runq.c writes.
//
// Where our layout differs from run.c's file, sums follow run.c: a head here holds the pairs of the
// rotation as halves, i and i + head_dim / 2 being run.c's 2i and 2i + 1. Operations that llama2.c
// does not have are computed in the same plain way.
#include <cmath>
#include <cstring>

#include "kernels/cpu/isa/bf16_kernels.h"
#include "kernels/cpu/isa/int4_portable.h"
#include "kernels/cpu/isa/int8_portable.h"
#include "kernels/cpu/isa/quantise.h"
#include "kernels/cpu/isa/tables.h"

namespace ocelli::kernels::cpu {
namespace {

// Element i of a row of any float dtype or int8, at any address.
float element(DType dtype, const std::byte* row, int64_t i) {
  if (dtype == DType::kI8) return static_cast<float>(std::to_integer<int8_t>(row[i]));
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, row + i * 4, sizeof value);
    return value;
  }
  uint16_t value;
  std::memcpy(&value, row + i * 2, sizeof value);
  return dtype == DType::kF16 ? f16_to_f32(value) : bf16_to_f32(value);
}

const std::byte* row_of(const Rows& rows, int64_t row) {
  return rows.data + row * rows.stride * bytes_per_element(rows.dtype);
}

float activate(Epilogue epilogue, float y, float out) {
  switch (epilogue) {
    case Epilogue::kStore:
      return y;
    case Epilogue::kAccumulate:
      return out + y;
    case Epilogue::kMultiply:
      return out * y;
    case Epilogue::kGeluTanh:
      return 0.5F * y * (1.0F + tanhf(0.7978845608F * (y + 0.044715F * y * y * y)));
    case Epilogue::kGeluErf:
      return 0.5F * y * (1.0F + erff(y * 0.70710678F));
    case Epilogue::kSilu:
      return y * (1.0F / (1.0F + expf(-y)));
  }
  return y;
}

struct Finish {
  static void finish(Epilogue epilogue, const float* sums, const float* bias, int n,
                     const Rows& row) {
    const bool reads = reads_output(epilogue);
    for (int i = 0; i < n; ++i) {
      const float y = bias ? sums[i] + bias[i] : sums[i];
      if (row.dtype == DType::kBF16) {
        reinterpret_cast<uint16_t*>(row.data)[i] = f32_to_bf16(activate(epilogue, y, 0));
      } else {
        float& out = row.f32(0)[i];
        out = activate(epilogue, y, reads ? out : 0);
      }
    }
  }
};

// Several outputs at once, each with a sum of its own: the chains of additions overlap.
constexpr int kOutputs = 8;

template <int N>
void outputs_of(const LinearBlock& block, int row, int first) {
  const float* x = block.x.f32(row);
  float sums[N] = {};
  for (int k = 0; k < block.inputs; ++k) {
    for (int n = 0; n < N; ++n) {
      sums[n] += element(block.weight.dtype, row_of(block.weight, first + n), k) * x[k];
    }
  }
  Finish::finish(block.epilogue, sums, block.bias ? block.bias + first : nullptr, N,
                 block.out.from(row, first));
}

void linear(const LinearBlock& block) {
  for (int r = 0; r < block.rows; ++r) {
    int n = 0;
    for (; n + kOutputs <= block.outputs; n += kOutputs) {
      outputs_of<kOutputs>(block, r, n);
    }
    for (; n < block.outputs; ++n) outputs_of<1>(block, r, n);
  }
}

// What the elements of a head in a cache are to be multiplied with.
float scale_of(const Rows& cache, int64_t row, int head_dim) {
  float scale = 1;
  if (cache.dtype == DType::kI8) {
    std::memcpy(&scale, row_of(cache, row) + head_dim, sizeof scale);
  }
  return scale;
}

float score_of(const AttentionBlock& block, int row, int key) {
  const float* q = block.q.f32(row);
  const std::byte* k = row_of(block.keys, key);
  const int half = block.head_dim / 2;
  float score = 0;
  const auto add = [&](int d) { score += q[d] * element(block.keys.dtype, k, d); };
  for (int d = 0; d < half; ++d) {
    add(d);
    add(d + half);
  }
  if (block.head_dim % 2 != 0) add(block.head_dim - 1);
  score *= scale_of(block.keys, key, block.head_dim);
  // The usual scale is 1/√head_dim, and run.c divides by that root.
  const float root = sqrtf(static_cast<float>(block.head_dim));
  return fabsf(block.scale * root - 1) < 1e-6F ? score / root : score * block.scale;
}

void softmax(float* x, int n) {
  float largest = x[0];
  for (int i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  float sum = 0;
  for (int i = 0; i < n; ++i) {
    x[i] = expf(x[i] - largest);
    sum += x[i];
  }
  for (int i = 0; i < n; ++i) x[i] /= sum;
}

void attention(const AttentionBlock& block) {
  for (int r = 0; r < block.rows; ++r) {
    const int seen = block.first_visible + r * block.visible_step;
    float* scores = block.scores;
    for (int t = 0; t < seen; ++t) scores[t] = score_of(block, r, t);
    softmax(scores, seen);
    float* out = block.out.f32(r);
    for (int d = 0; d < block.head_dim; ++d) out[d] = 0;
    for (int t = 0; t < seen; ++t) {
      const std::byte* v = row_of(block.values, t);
      const float weight = scores[t] * scale_of(block.values, t, block.head_dim);
      for (int d = 0; d < block.head_dim; ++d) {
        out[d] += weight * element(block.values.dtype, v, d);
      }
    }
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float epsilon, int n,
                float* out) {
  float mean = 0;
  for (int i = 0; i < n; ++i) mean += x[i];
  mean /= static_cast<float>(n);
  float variance = 0;
  for (int i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
  variance /= static_cast<float>(n);
  const float scale = 1.0F / sqrtf(variance + epsilon);
  for (int i = 0; i < n; ++i) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

void rms_norm(const float* x, const float* weight, float epsilon, int n, float* out) {
  float scale = 0;
  for (int i = 0; i < n; ++i) scale += x[i] * x[i];
  scale /= static_cast<float>(n);
  scale += epsilon;
  scale = 1.0F / sqrtf(scale);
  for (int i = 0; i < n; ++i) out[i] = weight[i] * (scale * x[i]);
}

void rope(float* x, const float* angles, int half) {
  for (int i = 0; i < half; ++i) {
    const float cosine = angles[i];
    const float sine = angles[half + i];
    const float a = x[i];
    const float b = x[half + i];
    x[i] = a * cosine - b * sine;
    x[half + i] = a * sine + b * cosine;
  }
}

void add(const float* x, int n, float* out) {
  for (int i = 0; i < n; ++i) out[i] += x[i];
}

void to_f32(DType dtype, const std::byte* x, int n, float* out) {
  for (int i = 0; i < n; ++i) out[i] = element(dtype, x, i);
}

void to_f16(const float* x, int n, uint16_t* out) {
  for (int i = 0; i < n; ++i) out[i] = f32_to_f16(x[i]);
}

using Bf16Products = Bf16Kernels<VecPortable>;
using Int8Products = Int8Kernels<Int8Portable, Finish>;
using Int4Products = Int4Kernels<Int4Portable, Finish>;

}  // namespace

constinit const KernelTable kLlama2cTable = {"llama2c",
                                             linear,
                                             attention,
                                             layer_norm,
                                             rms_norm,
                                             rope,
                                             add,
                                             to_f32,
                                             to_f16,
                                             Quantiser<VecPortable>::head,
                                             {Int8Products::quantise_row,
                                              Int8Products::linear,
                                              false,
                                              {Int4Products::linear, Int4Products::expand}},
                                             {Bf16Products::round_row, Bf16Products::linear}};

}  // namespace ocelli::kernels::cpu
