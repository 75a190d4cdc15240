// How likely tokens are beside the likeliest: the numerators of a softmax.
#pragma once

#include <span>

namespace ocelli::llm {

// weights[i] ← e^((logits[i] − highest) / temperature), to some parts in a million and the same on
// every machine, and returns their sum. 0 where it is less than e^−48: all of a vocabulary's such
// tokens together have not one chance in 10^15. Logits are not NaN and at most `highest`, which is
// finite; temperature > 0.
double likelihoods(std::span<const float> logits, float highest, float temperature,
                   std::span<float> weights);

}  // namespace ocelli::llm
