// What happens to rows of numbers between the linear layers: root-mean-square norm, gated activation, rotation.
//
// All serial; a row's sums run in one order, whatever the rows beside it.
#pragma once
#include <math.h>

#include "elementary.h"
#include "elements.h"

namespace llm {
namespace LLM_VARIANT {

constexpr int kSums = 4;  // independent sums of a row, to keep the adders busy

static float sum_of_squares(const float* x, int64_t width) {
  Floats sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums * kLanes <= width; i += kSums * kLanes) {
    for (int s = 0; s < kSums; ++s) {
      const Floats v = load_floats(x + i + s * kLanes);
      sums[s] = fma(v, v, sums[s]);
    }
  }
  for (; i < width; i += kLanes) {
    const Floats v = load_rest(x + i, width - i);
    sums[0] = fma(v, v, sums[0]);
  }
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// out = x / sqrt(mean(x^2) + eps) * weight; may be in place.
static void norm_row(const LlmNorm& norm, const float* x, float* out, int64_t width) {
  const float factor = 1.0f / sqrtf(sum_of_squares(x, width) / static_cast<float>(width) + norm.eps);
  for (int64_t i = 0; i < width; i += kLanes) {
    const int64_t rest = width - i;
    store_rest(out + i, load_rest(x + i, rest) * factor * load_rest(norm.weight + i, rest), rest);
  }
}

// out = activation(gate) * up; may be in place.
static void gate_span(int32_t activation, const float* gate, const float* up, float* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t rest = count - i;
    store_rest(out + i, activate(activation, load_rest(gate + i, rest)) * load_rest(up + i, rest), rest);
  }
}

// Rotates one head in place. `cos` and `sin`, [dim], are those of its position, each beside the element it multiplies.
static void rotate(const LlmRope& rope, const float* cos, const float* sin, float* head) {
  const int32_t half = rope.dim / 2;
  if (rope.interleaved) {
    for (int32_t i = 0; i < rope.dim; i += 2) {
      const float a = head[i], b = head[i + 1];
      head[i] = a * cos[i] - b * sin[i];
      head[i + 1] = b * cos[i + 1] + a * sin[i + 1];
    }
    return;
  }
  for (int32_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i + half] + a * sin[i + half];
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
