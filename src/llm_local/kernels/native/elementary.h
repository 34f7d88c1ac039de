// Elementary functions of vectors, to a few units in the last place. An element's bits do not depend on its lane.
//
// Polynomials are our own minimax fits (iteratively reweighted least squares against exact values) for the reductions
// in their comments.
#pragma once
#include "abi.h"
#include "simd.h"

namespace llm {
namespace LLM_VARIANT {

// c[0] + c[1] x + c[2] x^2 ...
template <int kCount>
LLM_INLINE Floats polynomial(const float (&c)[kCount], Floats x) {
  Floats sum = splat(c[kCount - 1]);
  for (int i = kCount - 2; i >= 0; --i) sum = fma(sum, x, splat(c[i]));
  return sum;
}

// e^x for x <= 88, e^88 beyond; 0 below -87.3, where floats lose their precision. NaN stays NaN.
LLM_INLINE Floats exp(Floats x) {
  constexpr float kTerms[] = {1.0f,           1.0f,           0.49999994f,    0.16666520f,
                              0.041668393f,   0.0083687808f,  0.0013814467f};
  const float lowest = -87.3f, highest = 88.0f;
  const Floats bounded = x > splat(highest) ? splat(highest) : x;
  // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, the first short enough for n times it to be exact
  const Ints n = round_to_ints(bounded * 1.44269504f);
  const Floats whole = to_floats(n);
  const Floats r = fma(whole, splat(-1.42860682e-6f), fma(whole, splat(-0.693145752f), bounded));
  const Floats power = (Floats)((n + 127) << 23);
  return x < splat(lowest) ? splat(0.0f) : polynomial(kTerms, r) * power;
}

// Near zero x + x^3 P(x^2), elsewhere by the exponential.
LLM_INLINE Floats tanh(Floats x) {
  constexpr float kTerms[] = {-0.33333281f, 0.13331442f, -0.053739712f, 0.020639079f, -0.0057049766f};
  const Floats magnitude = (Floats)((Ints)x & 0x7fffffff), square = x * x;
  const Floats small = fma(x * square, polynomial(kTerms, square), x);
  const Floats large = 1.0f - 2.0f / (exp(magnitude * 2.0f) + 1.0f);
  const Floats with_sign = (Floats)((Ints)large | ((Ints)x & INT32_MIN));
  return magnitude < splat(0.625f) ? small : with_sign;
}

// 1 / (1 + e^-x)
LLM_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exp(-x)); }

// The share of a standard normal distribution that lies below x. With z = |x| / sqrt 2 and w = 1 / (1 + 0.3 z) the
// tail is e^(-z^2) w P(w).
LLM_INLINE Floats normal_share(Floats x) {
  constexpr float kTerms[] = {0.0845940033f,  0.0853576007f, 0.0741696778f,  0.107462661f, -0.0473244825f,
                              0.273858718f,   -0.256137892f, 0.242781038f,   -0.0647613338f};
  const Floats z = (Floats)((Ints)x & 0x7fffffff) * 0.707106781f;
  const Floats w = 1.0f / fma(z, splat(0.3f), splat(1.0f));
  const Floats tail = exp(-(z * z)) * w * polynomial(kTerms, w);
  return x > splat(0.0f) ? 1.0f - tail : tail;
}

LLM_INLINE Floats activate(int32_t activation, Floats x) {
  switch (activation) {
    case LLM_SILU: return x * sigmoid(x);
    // x/2 (1 + tanh u) = x sigmoid(2u), without its cancellation
    case LLM_GELU_TANH: return x * sigmoid(x * fma(x * x, splat(2.0f * 0.044715f * 0.797884561f), splat(1.59576912f)));
    case LLM_GELU: return x * normal_share(x);
    default: return x < splat(0.0f) ? splat(0.0f) : x;  // LLM_RELU
  }
}

LLM_INLINE bool is_activation(int32_t activation) { return activation >= LLM_SILU && activation <= LLM_RELU; }

}  // namespace LLM_VARIANT
}  // namespace llm
