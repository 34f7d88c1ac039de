// Row-major weights (BF16, F32) times inputs, a strip of 16 outputs at a time, in place: no packed copy.
//
// Per token and output: each lane sums every kLanes-th product (for BF16 products of pairs) by fused multiply-adds in
// order of the inputs, then the lanes are summed pairwise. Every tile of rows and tokens keeps this.
#pragma once
#include "activations.h"
#include "elements.h"

namespace llm {
namespace LLM_VARIANT {

constexpr int kRowPrefetchBytes = 2048;

// Rows and tokens whose sums stay in registers.
constexpr int kTileRows = 4;
#if defined(__AVX512F__)
constexpr int kRowTokens = 6;
#else
constexpr int kRowTokens = 3;
#endif

struct RowsF32 {
  typedef float Weight;
  typedef float Input;
  typedef Floats Vector;
  static constexpr int kStep = kLanes;  // inputs in a vector
  LLM_INLINE Vector weights(const Weight* from) { return load<Floats>(from); }
  LLM_INLINE Vector inputs(const Input* from) { return load<Floats>(from); }
  LLM_INLINE Floats add(Floats sum, Vector w, Vector x) { return fma(w, x, sum); }
};

#if defined(__AVX512BF16__)
struct RowsBf16 {
  typedef uint16_t Weight;
  typedef uint16_t Input;
  typedef __m512i Vector;
  static constexpr int kStep = 32;
  LLM_INLINE Vector weights(const Weight* from) { return load<__m512i>(from); }
  LLM_INLINE Vector inputs(const Input* from) { return load<__m512i>(from); }
  LLM_INLINE Floats add(Floats sum, Vector w, Vector x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
  }
};
#else
struct RowsBf16 {
  typedef uint16_t Weight;
  typedef float Input;
  typedef Floats Vector;
  static constexpr int kStep = kLanes;
  LLM_INLINE Vector weights(const Weight* from) { return load_floats(from); }
  LLM_INLINE Vector inputs(const Input* from) { return load<Floats>(from); }
  LLM_INLINE Floats add(Floats sum, Vector w, Vector x) { return fma(w, x, sum); }
};
#endif

// Multiplies kTokens tokens with kRows rows of weights; a missing row is given as another one's copy.
template <class Rows, int kRows, int kTokens>
static void multiply_rows(const typename Rows::Weight* const* rows, int32_t cols, const typename Rows::Input* x,
                          int64_t x_stride, StripRow* out) {
  Floats sums[kRows][kTokens];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) sums[r][t] = splat(0.0f);
  }
  const auto step = [&](const auto& weights, int32_t col) {
    typename Rows::Vector inputs[kTokens];
    for (int t = 0; t < kTokens; ++t) inputs[t] = Rows::inputs(x + t * x_stride + col);
    for (int r = 0; r < kRows; ++r) {
      const typename Rows::Vector w = weights(r);
      for (int t = 0; t < kTokens; ++t) sums[r][t] = Rows::add(sums[r][t], w, inputs[t]);
    }
  };
  int32_t col = 0;
  for (; col + Rows::kStep <= cols; col += Rows::kStep) {
    const auto whole = [&](int r) {
      __builtin_prefetch(rows[r] + col + kRowPrefetchBytes / sizeof(typename Rows::Weight));
      return Rows::weights(rows[r] + col);
    };
    step(whole, col);
  }
  if (col < cols) {
    const auto rest = [&](int r) {
      typename Rows::Weight padded[Rows::kStep] = {};
      memcpy(padded, rows[r] + col, (cols - col) * sizeof(typename Rows::Weight));
      return Rows::weights(padded);
    };
    step(rest, col);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) out[t][r] = sum_lanes(sums[r][t]);
  }
}

template <class Rows, int kTokens = kRowTokens>
static void multiply_some_rows(int32_t tokens, const typename Rows::Weight* const* rows, int32_t cols,
                               const typename Rows::Input* x, int64_t x_stride, StripRow* out) {
  if constexpr (kTokens > 1) {
    if (tokens < kTokens) return multiply_some_rows<Rows, kTokens - 1>(tokens, rows, cols, x, x_stride, out);
  }
  for (int r = 0; r < kStripRows; r += kTileRows) {
    multiply_rows<Rows, kTileRows, kTokens>(rows + r, cols, x, x_stride, reinterpret_cast<StripRow*>(&out[0][r]));
  }
}

// The 16 outputs from row 16 * strip on, of the tokens [first, first + count). out: [count].
template <class Rows>
static void row_strip(const LlmLinear& linear, int64_t strip, const Activations& x, int32_t first, int32_t count,
                      StripRow* out) {
  const typename Rows::Weight* rows[kStripRows];
  for (int r = 0; r < kStripRows; ++r) {
    const int64_t row = at_most(strip * kStripRows + r, linear.rows - 1);  // past the end: the last one again
    rows[r] = static_cast<const typename Rows::Weight*>(linear.weights) + row * linear.cols;
  }
  const int64_t stride = row_stride(x.cols);
  const typename Rows::Input* const inputs = static_cast<const typename Rows::Input*>(x.storage);
  for (int32_t token = 0; token < count; token += kRowTokens) {
    multiply_some_rows<Rows>(at_most(count - token, kRowTokens), rows, linear.cols, inputs + (first + token) * stride,
                             stride, out + token);
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
