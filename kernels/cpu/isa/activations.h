// What a linear operation does with its sums: the bias, and the epilogues with their exponential,
// written once over a vector type. Included like kernels.h, and under the same rule of linkage.
#pragma once

#include <cmath>

#include "kernels/ops.h"

namespace ocelli::kernels::cpu {
namespace {

template <typename Vec>
struct Activations {
  using V = typename Vec::V;
  static constexpr int kLanes = Vec::kLanes;

  // e^x to about 1 ulp: 2^n · p(x − n ln 2), the polynomial being Cephes' expf. From n = 128 on the
  // result may be infinity, so that a closed gate is 0 however large its operand.
  static V exp(V x) {
    x = Vec::at_most(Vec::at_least(x, -87.33654F), 89.0F);
    const V n = Vec::round(x * Vec::set1(1.44269504F));
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

  // y / (1 + e^(−slope))
  static V gated(V y, V slope) { return y / (Vec::set1(1.0F) + exp(Vec::zero() - slope)); }

  // 0.5y(1 + tanh(u)) = y / (1 + e^(−2u))
  static V gelu_tanh(V y) {
    const V cubic = Vec::fma(y * y * y, Vec::set1(0.044715F), y);
    return gated(y, cubic * Vec::set1(2 * 0.7978845608F));
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
        return gated(y, y);
      case Epilogue::kStore:
      case Epilogue::kGeluErf:
        break;
    }
    return y;
  }

  // out[i] ← epilogue(sums[i] + bias[i])
  static void finish(Epilogue epilogue, const float* sums, const float* bias, int n, float* out) {
    const bool reads = epilogue == Epilogue::kAccumulate || epilogue == Epilogue::kMultiply;
    for (int i = 0; i < n; i += kLanes) {
      const int count = n - i < kLanes ? n - i : kLanes;
      V y = Vec::load_partial(sums + i, count);
      if (bias) y = y + Vec::load_partial(bias + i, count);
      const V old = reads ? Vec::load_partial(out + i, count) : Vec::zero();
      Vec::store_partial(out + i, activate(epilogue, y, old), count);
    }
    if (epilogue == Epilogue::kGeluErf) {
      for (int i = 0; i < n; ++i) out[i] = 0.5F * out[i] * (1 + ::erff(out[i] * 0.70710678F));
    }
  }
};

}  // namespace
}  // namespace ocelli::kernels::cpu
