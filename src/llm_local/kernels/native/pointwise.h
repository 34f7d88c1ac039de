// What happens to rows of numbers between the linear layers: root-mean-square norm, gated activation, rotation.
//
// The *_row and *_span functions are serial; a row's sums run in one order, whatever the rows beside it.
#pragma once
#include <math.h>

#include "elementary.h"
#include "elements.h"
#include "parallel.h"

namespace llm {
namespace LLM_VARIANT {

constexpr int kSums = 4;  // independent sums of a row, to keep the adders busy

template <class Element>
static float sum_of_squares(const Element* x, int64_t width) {
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
template <class Element>
static void norm_row(const LlmNorm& norm, const Element* x, Element* out, int64_t width) {
  const float factor = 1.0f / sqrtf(sum_of_squares(x, width) / static_cast<float>(width) + norm.eps);
  for (int64_t i = 0; i < width; i += kLanes) {
    const int64_t rest = width - i;
    store_rest(out + i, load_rest(x + i, rest) * factor * load_rest(norm.weight + i, rest), rest);
  }
}

// out = activation(gate) * up; may be in place.
template <class Element>
static void gate_span(int32_t activation, const Element* gate, const Element* up, Element* out, int64_t count) {
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

template <class Element>
static void norm_rows(const LlmNorm& norm, const void* x, void* out, int64_t tokens, int64_t width, int32_t threads) {
  const Element* const from = static_cast<const Element*>(x);
  Element* const to = static_cast<Element*>(out);
  parallel_region(threads, [&](Member& member) {
    member.each(tokens, [&](int64_t token) { norm_row(norm, from + token * width, to + token * width, width); });
  });
}

// See abi.h.
static void rms_norm(const LlmNorm* norm, const void* x, void* out, int32_t dtype, int32_t tokens, int32_t width,
                     int32_t threads) {
  const bool is_bf16 = dtype == LLM_DTYPE_BF16;
  (is_bf16 ? norm_rows<uint16_t> : norm_rows<float>)(*norm, x, out, tokens, width, threads);
}

template <class Element>
static void gate_all(int32_t activation, const void* gate, const void* up, void* out, int64_t count, int32_t threads) {
  constexpr int64_t kSpan = 4096;
  const Element *const gates = static_cast<const Element*>(gate), *const ups = static_cast<const Element*>(up);
  Element* const to = static_cast<Element*>(out);
  parallel_region(threads, [&](Member& member) {
    member.each((count + kSpan - 1) / kSpan, [&](int64_t task) {
      const int64_t at = task * kSpan, size = count - at < kSpan ? count - at : kSpan;
      gate_span(activation, gates + at, ups + at, to + at, size);
    });
  });
}

// See llm_gated in abi.h.
static void gated_rows(int32_t activation, const void* gate, const void* up, void* out, int32_t dtype, int32_t tokens,
                       int32_t width, int32_t threads) {
  const bool is_bf16 = dtype == LLM_DTYPE_BF16;
  const int64_t count = static_cast<int64_t>(tokens) * width;
  (is_bf16 ? gate_all<uint16_t> : gate_all<float>)(activation, gate, up, out, count, threads);
}

}  // namespace LLM_VARIANT
}  // namespace llm
