// C = A B or C += A B for small float32 matrices in the caches: the inner part of attention.
//
// Each element of C is one chain of fused multiply-adds over the depth, in order, whatever the rows beside it.
#pragma once
#include "simd.h"

namespace llm {
namespace LLM_VARIANT {

constexpr int kProductCols = 2 * kLanes;  // columns come in multiples of this
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kProductRows = 12;  // with two vectors each, what 32 registers hold
#else
constexpr int kProductRows = 5;
#endif

struct Matrix {
  float* data;
  int64_t stride;  // elements between rows
};

// Memory that will be read after a product. It is asked for line by line while the product runs: all at once would
// stall it, and the order in which it will be read is too wild for the hardware to guess.
struct Ahead {
  const char* from;
  int64_t bytes;
};

template <int kRows, bool kAdd>
static void product_panel(Matrix a, Matrix b, Matrix c, int64_t depth, const char* ahead, int64_t ahead_step) {
  Floats left[kRows], right[kRows];
  for (int r = 0; r < kRows; ++r) {
    left[r] = kAdd ? load<Floats>(c.data + r * c.stride) : splat(0.0f);
    right[r] = kAdd ? load<Floats>(c.data + r * c.stride + kLanes) : splat(0.0f);
  }
  const float* row = b.data;
  for (int64_t i = 0; i < depth; ++i, row += b.stride) {
    __builtin_prefetch(ahead + i * ahead_step);
    const Floats b_left = load<Floats>(row), b_right = load<Floats>(row + kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Floats x = splat(a.data[r * a.stride + i]);
      left[r] = fma(x, b_left, left[r]);
      right[r] = fma(x, b_right, right[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    store(c.data + r * c.stride, left[r]);
    store(c.data + r * c.stride + kLanes, right[r]);
  }
}

template <bool kAdd, int kRows = kProductRows>
static void product_of_rows(int rows, Matrix a, Matrix b, Matrix c, int64_t depth, int64_t cols, Ahead ahead) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return product_of_rows<kAdd, kRows - 1>(rows, a, b, c, depth, cols, ahead);
  }
  const int64_t step = ahead.bytes * kProductCols / (depth * cols);
  for (int64_t col = 0; col < cols; col += kProductCols) {
    product_panel<kRows, kAdd>(a, {b.data + col, b.stride}, {c.data + col, c.stride}, depth, ahead.from, step);
    ahead.from += depth * step;
  }
}

// A [rows, depth], B [depth, cols], C [rows, cols].
template <bool kAdd>
static void product(int rows, Matrix a, Matrix b, Matrix c, int64_t depth, int64_t cols, Ahead ahead) {
  const int passes = (rows + kProductRows - 1) / kProductRows;
  for (int pass = 0, row = 0; pass < passes; ++pass) {
    const int count = (rows - row + passes - pass - 1) / (passes - pass);  // nearly equal parts
    product_of_rows<kAdd>(count, {a.data + row * a.stride, a.stride}, b, {c.data + row * c.stride, c.stride}, depth,
                          cols, ahead);
    row += count;
    ahead.bytes = 0;  // once is enough
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
