// y = x W^T + b for weights of every kind, one token or many, in one arithmetic.
//
// For the rest of a variant (step.h, attention.h, pointwise.h), all inside namespace llm::LLM_VARIANT. Functions that
// take a Member are called by every member of a team at the same time and end in a barrier (Member::each):
//
//   storage = activation_bytes(kind, cols, tokens) bytes, 64-byte aligned, shared by the team
//   const Activations a = prepare(member, kind, x, x_stride, tokens, cols, storage);   // one phase
//   linears(member, parts, outputs, output_strides, num_parts, a);                     // one phase, adds the bias
//   gated(member, gate, up, activation, output, output_stride, a);                     // one phase
//
// `x`, `outputs` and `storage` must not overlap. Strides are elements between
// tokens. All parts of one call share kind and cols with the Activations.
//
// Arithmetic: an output's bits depend on its weights and its token only, never on tokens, parts, chunks or threads.
#pragma once
#if defined(__AMX_BF16__)
#include "linear_amx_bf16.h"
#endif
#include "linear_packed.h"
#include "linear_rows.h"
#include "pointwise.h"

namespace llm {
namespace LLM_VARIANT {

// Tokens that one task multiplies its strips with, and of those the ones whose inputs stay in the second cache while
// the task goes through its strips. Packed inputs are small: all of them.
constexpr int kBlockTokens = 128;
#if defined(__AMX_BF16__)
constexpr int kSliceTokens = kSharingTiles * kTileTokens;
#else
constexpr int kSliceTokens = 4 * kRowTokens;
#endif
// Weights in one task of a few tokens: long enough to pay for the counter, short enough to balance.
constexpr int64_t kTaskBytes = 65536;
// Row-major weights in one task of many tokens: they stay in the second cache from slice to slice.
constexpr int64_t kSliceBytes = 524288;

// x: [tokens, cols] float32 with `x_stride` elements between tokens. One phase of the team.
static Activations prepare(Member& member, int32_t kind, const float* x, int64_t x_stride, int32_t tokens, int32_t cols,
                           void* storage) {
  const Activations to{kind, tokens, cols, storage};
  if (kind == LLM_F32) {
    prepare_rows<float>(member, x, x_stride, to, [](float* out, Floats value) { store(out, value); });
  } else if (kind == LLM_BF16) {
#if defined(__AMX_BF16__)
    prepare_bf16_tiles(member, x, x_stride, to);
#else
    prepare_rows<RowBf16>(member, x, x_stride, to, put_bf16);
#endif
  } else {
    prepare_quants(member, x, x_stride, to);
  }
  return to;
}

// One phase's matrix and where its outputs go; `up` not NULL: activation(linear x) * (up x).
struct Product {
  const LlmLinear* linear;
  const LlmLinear* up;
  int32_t activation;
  float* output;
  int64_t stride;
};

static inline void strip(const LlmLinear& linear, int64_t index, const Activations& x, int32_t first, int32_t count,
                         StripRow* out) {
  switch (linear.kind) {
    case LLM_Q4: packed_strip<LLM_Q4>(linear, index, x, first, count, out); break;
    case LLM_Q8: packed_strip<LLM_Q8>(linear, index, x, first, count, out); break;
#if defined(__AMX_BF16__)
    case LLM_BF16: amx_bf16_strip(linear, index, x, first, count, out); break;
#else
    case LLM_BF16: row_strip<RowsBf16>(linear, index, x, first, count, out); break;
#endif
    default: row_strip<RowsF32>(linear, index, x, first, count, out); break;
  }
  if (linear.bias == nullptr) return;
  const int64_t row = index * kStripRows;
  const int32_t rows = at_most(linear.rows - row, kStripRows);
  for (int32_t t = 0; t < count; ++t) {
    for (int32_t r = 0; r < rows; ++r) out[t][r] += linear.bias[row + r];
  }
}

static inline void product_strip(const Product& product, int64_t index, const Activations& x, int32_t first,
                                 int32_t count) {
  alignas(64) StripRow sums[kBlockTokens], ups[kBlockTokens];
  strip(*product.linear, index, x, first, count, sums);
  if (product.up != nullptr) strip(*product.up, index, x, first, count, ups);
  const int64_t row = index * kStripRows;
  const int32_t rows = at_most(product.linear->rows - row, kStripRows);
  for (int32_t t = 0; t < count; ++t) {
    float* const out = product.output + (first + t) * product.stride + row;
    if (product.up != nullptr) {
      gate_span(product.activation, sums[t], ups[t], out, rows);
    } else {
      memcpy(out, sums[t], rows * sizeof(float));
    }
  }
}

// How a product is cut into tasks: strips by blocks of tokens.
struct Cut {
  int64_t strips, strips_per_task, tasks_per_block, tasks;
};

static inline Cut cut(const Product& product, int32_t tokens, int members) {
  const LlmLinear& linear = *product.linear;
  const int64_t bits = linear.kind == LLM_F32 ? 32 : linear.kind == LLM_BF16 ? 16 : linear.kind == LLM_Q8 ? 8 : 4;
  const int64_t strip_bytes = bits * linear.cols * kStripRows / 8 * (product.up != nullptr ? 2 : 1) + 1;
  const bool slices = !is_packed(linear.kind) && tokens > kSliceTokens;
  // More than a few tokens cost time in proportion, as if there were more bytes.
  const int64_t wanted = slices ? kSliceBytes / strip_bytes : kTaskBytes / (strip_bytes * parts_of(tokens, 8));
  Cut c;
  c.strips = strips_of(linear.rows);
  const int64_t fair = parts_of(c.strips, 4 * members), longest = wanted < fair ? wanted : fair;
  c.strips_per_task = longest < 1 ? 1 : longest;  // a matrix without rows has no tasks
  c.tasks_per_block = parts_of(c.strips, c.strips_per_task);
  c.tasks = c.tasks_per_block * parts_of(tokens, kBlockTokens);
  return c;
}

// All products in one phase. At most kMaxProducts.
constexpr int kMaxProducts = 8;

static void multiply_all(Member& member, const Product* products, int32_t num_products, const Activations& x) {
  Cut cuts[kMaxProducts];
  int64_t tasks = 0;
  for (int32_t i = 0; i < num_products; ++i) {
    cuts[i] = cut(products[i], x.tokens, member.count());
    tasks += cuts[i].tasks;
  }
  member.each(tasks, [&](int64_t task) {
    int32_t i = 0;
    for (; task >= cuts[i].tasks; ++i) task -= cuts[i].tasks;
    const int64_t begin = task % cuts[i].tasks_per_block * cuts[i].strips_per_task;
    const int64_t end = at_most(begin + cuts[i].strips_per_task, static_cast<int32_t>(cuts[i].strips));
    const int32_t first = static_cast<int32_t>(task / cuts[i].tasks_per_block * kBlockTokens);
    const int32_t last = at_most(first + kBlockTokens, x.tokens);
    const int32_t slice = is_packed(x.kind) ? kBlockTokens : kSliceTokens;
    for (int32_t token = first; token < last; token += slice) {
      for (int64_t s = begin; s < end; ++s) product_strip(products[i], s, x, token, at_most(last - token, slice));
    }
  });
}

// outputs[i]: [tokens, rows_i], output_strides[i] elements between tokens.
static inline void linears(Member& member, const LlmLinear* const* parts, float* const* outputs,
                           const int64_t* output_strides, int32_t num_parts, const Activations& x) {
  for (int32_t first = 0; first < num_parts; first += kMaxProducts) {
    Product products[kMaxProducts];
    const int32_t count = at_most(num_parts - first, kMaxProducts);
    for (int32_t i = 0; i < count; ++i) {
      products[i] = {parts[first + i], nullptr, 0, outputs[first + i], output_strides[first + i]};
    }
    multiply_all(member, products, count, x);
  }
}

// output: [tokens, rows] = activation(gate x) * (up x); gate and up have the same kind and shape.
static inline void gated(Member& member, const LlmLinear& gate, const LlmLinear& up, int32_t activation, float* output,
                         int64_t output_stride, const Activations& x) {
  const Product product{&gate, &up, activation, output, output_stride};
  multiply_all(member, &product, 1, x);
}

// One dequantized row of a weight matrix of any kind, times `factor`; out: [cols].
static inline void lookup_row(const LlmLinear& matrix, int32_t row, float factor, float* out) {
  const int64_t begin = static_cast<int64_t>(row) * matrix.cols;
  switch (matrix.kind) {
    case LLM_Q4: return unpack_row<LLM_Q4>(static_cast<const uint8_t*>(matrix.weights), row, matrix.cols, factor, out);
    case LLM_Q8: return unpack_row<LLM_Q8>(static_cast<const uint8_t*>(matrix.weights), row, matrix.cols, factor, out);
    case LLM_BF16: {
      const uint16_t* const from = static_cast<const uint16_t*>(matrix.weights) + begin;
      for (int32_t c = 0; c < matrix.cols; ++c) out[c] = from_bf16(from[c]) * factor;
      return;
    }
    default: {
      const float* const from = static_cast<const float*>(matrix.weights) + begin;
      for (int32_t c = 0; c < matrix.cols; ++c) out[c] = from[c] * factor;
    }
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
