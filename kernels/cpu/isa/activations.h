// What a linear operation does with its sums: the bias, and the epilogues with their exponential,
// written once over a vector type. Included like kernels.h, and under the same rule of linkage.
#pragma once

#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {
namespace {

template <typename Vec>
struct Activations {
  using V = typename Vec::V;
  static constexpr int kLanes = Vec::kLanes;
  static constexpr float kLog2E = 1.44269504F;
  // 2^f for f in [−1/2, 1/2], to 2e-9: fitted by least squares on Chebyshev's points.
  static constexpr float kPower[7] = {1.000000000e+00F, 6.931471825e-01F, 2.402265072e-01F,
                                      5.550327152e-02F, 9.618025273e-03F, 1.340043265e-03F,
                                      1.546973217e-04F};
  // P of gelu_erf, to 7e-10 of erfc: fitted the same way, reweighted until its errors were even.
  static constexpr float kTail[7] = {1.801476242e-01F, 3.050616874e-01F,  -2.860436966e-01F,
                                     1.211198674e+00F, -1.250996955e+00F, 1.087616500e+00F,
                                     -2.469838360e-01F};

  // e^x to about 1 ulp: 2^n · p(x − n ln 2), the polynomial being Cephes' expf. From n = 128 on the
  // result may be infinity, so that a closed gate is 0 however large its operand.
  static V exp(V x) {
    x = Vec::at_most(Vec::at_least(x, -87.33654F), 89.0F);
    const V n = Vec::round(x * Vec::set1(kLog2E));
    V r = Vec::fma(n, Vec::set1(-0.693359375F), x);
    r = Vec::fma(n, Vec::set1(2.12194440e-4F), r);
    V p = Vec::set1(1.9875691500e-4F);
    p = Vec::fma(p, r, Vec::set1(1.3981999507e-3F));
    p = Vec::fma(p, r, Vec::set1(8.3334519073e-3F));
    p = Vec::fma(p, r, Vec::set1(4.1665795894e-2F));
    p = Vec::fma(p, r, Vec::set1(1.6666665459e-1F));
    p = Vec::fma(p, r, Vec::set1(5.0000001201e-1F));
    p = Vec::fma(p, r * r, r) + Vec::set1(1.0F);
    return Vec::scale_by_power_of_two(p, n);
  }

  // 2^t for t in [−126, 126].
  static V power_of_two(V t) {
    const V n = Vec::round(t);
    const V f = t - n;
    V p = Vec::set1(kPower[6]);
#pragma GCC unroll 6
    for (int i = 5; i >= 0; --i) p = Vec::fma(p, f, Vec::set1(kPower[i]));
    return Vec::scale_by_power_of_two(p, n);
  }

  // y / (1 + 2^t). Where 2^t matters beside 1, |t| is small and loses nothing by not being reduced
  // with care. Past ±kEnd the result is y · 0 or y: a closed gate is 0 however large its operand.
  static V gated(V y, V t) {
    constexpr float kEnd = 126;
    const V power = power_of_two(Vec::at_most(Vec::at_least(t, -kEnd), kEnd));
    return y * Vec::zero_where_above(t, kEnd, Vec::reciprocal(Vec::set1(1.0F) + power));
  }

  // 0.5y(1 + tanh(u)) = y / (1 + e^(−2u)), u = √(2/π)(y + 0.044715y³)
  static V gelu_tanh(V y) {
    constexpr float kLinear = -2 * 0.7978845608F * kLog2E;
    return gated(y, y * Vec::fma(y * y, Vec::set1(0.044715F * kLinear), Vec::set1(kLinear)));
  }

  // y(1 + erf(z))/2, z = y/√2. For z ≥ 0, erfc(z) = e^(−z²) s·P(s) with s = 1/(1 + 0.34z).
  static V gelu_erf(V y) {
    constexpr float kEnd = 9.3F;  // erfc(z) < 2^−126 beyond it
    const V magnitude = Vec::magnitude(y) * Vec::set1(0.70710678F);
    const V z = Vec::at_most(magnitude, kEnd);
    const V s = Vec::reciprocal(Vec::fma(z, Vec::set1(0.34F), Vec::set1(1.0F)));
    V p = Vec::set1(kTail[6]);
#pragma GCC unroll 6
    for (int i = 5; i >= 0; --i) p = Vec::fma(p, s, Vec::set1(kTail[i]));
    const V half = s * p * power_of_two(z * z * Vec::set1(-kLog2E)) * Vec::set1(0.5F);
    const V tail = Vec::zero_where_above(magnitude, kEnd, half);
    const V other = Vec::zero_where_above(y, 0, Vec::set1(1.0F) - tail - tail);  // where y <= 0
    return y * (Vec::set1(1.0F) - tail - other);
  }

  static V silu(V y) {
    return gated(y, y * Vec::set1(-kLog2E));
  }

  static V activate(Epilogue epilogue, V y, V out) {
    switch (epilogue) {
      case Epilogue::kAccumulate:
        return out + y;
      case Epilogue::kMultiply:
        return out * y;
      case Epilogue::kGeluTanh:
        return gelu_tanh(y);
      case Epilogue::kSilu:
        return silu(y);
      case Epilogue::kGeluErf:
        return gelu_erf(y);
      case Epilogue::kStore:
        break;
    }
    return y;
  }

  // out[i] ← epilogue(sums[i] + bias[i]) for n outputs of a row.
  static void finish(Epilogue epilogue, const float* sums, const float* bias, int n,
                     const Rows& row) {
    if (row.dtype == DType::kBF16) return finish_to_bf16(epilogue, sums, bias, n, row);
    float* out = row.f32(0);
    const bool reads = reads_output(epilogue);
    for (int i = 0; i < n; i += kLanes) {
      const int count = n - i < kLanes ? n - i : kLanes;
      V y = Vec::load_partial(sums + i, count);
      if (bias) y = y + Vec::load_partial(bias + i, count);
      const V old = reads ? Vec::load_partial(out + i, count) : Vec::zero();
      Vec::store_partial(out + i, activate(epilogue, y, old), count);
    }
  }

  // The same of an epilogue that does not read the outputs.
  static void finish_to_bf16(Epilogue epilogue, const float* sums, const float* bias, int n,
                             const Rows& row) {
    auto* out = reinterpret_cast<uint16_t*>(row.data);
    for (int i = 0; i < n; i += kLanes) {
      const int count = n - i < kLanes ? n - i : kLanes;
      V y = Vec::load_partial(sums + i, count);
      if (bias) y = y + Vec::load_partial(bias + i, count);
      Vec::store_brain(out + i, activate(epilogue, y, Vec::zero()), count);
    }
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
