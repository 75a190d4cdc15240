// The softmax of attention_amx.cc, in steps that run between the multiplications of tiles. Included
// like attention_amx_pack.h, and under the same rule of linkage.
//
// A weight 2^x is made as the bf16 that it is going to be, two at a time: x in 128ths, rounded, and
// the exponent's bias form sixteen bits whose upper nine are sign and exponent, and whose lower
// seven, i, become the mantissa of 2^(i/128), by a table. It is wrong by up to 2^−8.5 (x), then
// 2^−8 (the mantissa) of itself; a power below 2^−126 is 0. While tiles multiply, the vector unit
// that they share multiplies, adds and converts nothing: one of each in a cycle is all.
#pragma once

#include <immintrin.h>

#include <cfloat>

#include "kernels/cpu/isa/attention_amx_pack.h"

namespace ocelli::kernels::cpu {
namespace {

constexpr int kParts = 128;  // of a power of two
constexpr float kBias = 127 * kParts;
// Above this, references are no longer exact integers.
constexpr float kFar = 0x1p24F;

struct Mantissas {
  alignas(64) uint8_t of[kParts];

  constexpr Mantissas() : of() {
    double power = 1;
    for (uint8_t& mantissa : of) {
      mantissa = static_cast<uint8_t>(static_cast<int>((power - 1) * kParts * 2 + 1) / 2);
      power *= 1.0054299011128028214;  // 2^(1/128)
    }
  }
};
constexpr Mantissas kMantissas;

// 2^x to 1.0e-4, exact at integers. p fitted to 2^f on [0, 1) for the least relative error, with
// p(0) = 1 and p(1) = 2.
__m512 power_of_two(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(0.07826797F);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22630769F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69542434F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(p, x);  // takes floor(x)
}

// What turns scores of a block of keys into weights.
enum class Weighing {
  kPlain,   // all queries see all keys, and scores are finite
  kMasked,  // some do not
  kWild,    // and scores may be infinite, no number, or very large
};

// Scores wait for their softmax in a ring of as many keys.
constexpr int kScoreRing = 64;

// Sixteen queries and a block of keys.
struct Block {
  __m512i visible;   // keys of the block that each query sees; may be negative or too many
  __m512 reference;  // of the softmax, in 128ths of a power of two
  __m512 largest;    // score
};

struct ScoresAndWeights {
  const float* scores;  // [N][kScoreRing][16]
  __m512i* weights;     // [N][kBlockKeys / 2][16 pairs]
};

// The weights 2^((score · factor − reference) / kParts) of N blocks, and their largest scores, a
// few pairs of keys at a time.
template <int N, Weighing kWeighing>
class Weights {
 public:
  [[gnu::always_inline]] Weights(Block* blocks, const ScoresAndWeights& memory, float factor)
      : blocks_(blocks),
        scores_(reinterpret_cast<const std::byte*>(memory.scores)),
        weights_(memory.weights),
        factor_(_mm512_set1_ps(factor)),
        low_mantissas_(_mm512_load_si512(kMantissas.of)),
        high_mantissas_(_mm512_load_si512(kMantissas.of + 64)) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      offset_[n] = _mm512_set1_ps(kBias) - blocks[n].reference;
      largest_[n] = _mm512_set1_ps(-__builtin_inff());
    }
  }

  [[gnu::always_inline]] void some(int pairs) {
    for (; pairs > 0; --pairs) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) pair(n);
      next_ += 2 * kLineBytes;
      ++weights_;
    }
  }
  int done() const {
    return static_cast<int>(next_) / (2 * kLineBytes);
  }
  [[gnu::always_inline]] void finish() {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) blocks_[n].largest = largest_[n];
  }

 private:
  // The bits of the weight of the next key, or the one after it.
  [[gnu::always_inline]] __m512i bits(int n, int after) {
    const __m512 score = _mm512_load_ps(scores_ + n * kScoreRing * kLineBytes + after * kLineBytes +
                                        next_ % (kScoreRing * kLineBytes));
    // The second operand comes through where the first is NaN.
    if constexpr (kWeighing == Weighing::kPlain) largest_[n] = _mm512_max_ps(score, largest_[n]);
    __m512 sum = _mm512_fmadd_ps(score, factor_, offset_[n]);
    if constexpr (kWeighing == Weighing::kPlain) return _mm512_cvtps_epi32(sum);
    const int key = static_cast<int>(next_) / kLineBytes + after;
    const __mmask16 seen = _mm512_cmpgt_epi32_mask(blocks_[n].visible, _mm512_set1_epi32(key));
    largest_[n] = _mm512_mask_max_ps(largest_[n], seen, score, largest_[n]);
    if constexpr (kWeighing == Weighing::kMasked) return _mm512_maskz_cvtps_epi32(seen, sum);
    // Rounded before it is subtracted: the largest score leaves 0.
    const __m512 scaled = _mm512_mul_round_ps(score, factor_, kNearest);
    const __m512 above = _mm512_sub_round_ps(scaled, blocks_[n].reference, kNearest);
    const __mmask16 far =
        _mm512_cmp_ps_mask(_mm512_abs_ps(blocks_[n].reference), _mm512_set1_ps(kFar), _CMP_NLT_UQ);
    sum = _mm512_mask_add_round_ps(sum, far, above, _mm512_set1_ps(kBias), kNearest);
    const __mmask16 none = _mm512_cmp_ps_mask(above, above, _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32(_mm512_maskz_cvtps_epi32(seen, sum), none & seen,
                                 _mm512_set1_epi32(kNotANumber16));
  }

  [[gnu::always_inline]] void pair(int n) {
    // What is not positive, or too far below to be converted, becomes 0 where halves are packed.
    const __m512i halves = _mm512_packus_epi32(bits(n, 0), bits(n, 1));
    const __m512i both =
        _mm512_shuffle_epi8(halves, _mm512_broadcast_i32x4(_mm_setr_epi8(
                                        0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)));
    // In odd bytes, and in the uppermost bit of even ones, `both` stays.
    const __m512i mantissas =
        _mm512_mask2_permutex2var_epi8(low_mantissas_, both, 0x5555555555555555, high_mantissas_);
    const __m512i keep = _mm512_set1_epi16(0x80);
    __m512i weights = _mm512_ternarylogic_epi32(mantissas, keep, both, 0xF8);
    if constexpr (kWeighing == Weighing::kWild) {
      const __mmask32 none = _mm512_cmpeq_epi16_mask(both, _mm512_set1_epi16(kNotANumber16));
      weights = _mm512_mask_mov_epi16(weights, none, both);
    }
    _mm512_store_si512(weights_ + n * kBlockKeys / 2, weights);
  }

  static constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  static constexpr int kNotANumber16 = 0x7fc0;

  Block* blocks_;
  const std::byte* scores_;
  __m512i* weights_;
  __m512 factor_;
  __m512i low_mantissas_;
  __m512i high_mantissas_;
  __m512 offset_[N];
  __m512 largest_[N];
  unsigned next_ = 0;  // bytes of scores behind
};

}  // namespace
}  // namespace ocelli::kernels::cpu
