// The C entry points of unpacking and of linear layers; see abi.h.
#pragma once
#include "linear.h"
#include "scratch.h"

namespace llm {
namespace LLM_VARIANT {

static void unpack(const LlmLinear* linear, float* out, int32_t threads) {
  parallel_region(threads, [&](Member& member) {
    member.each(strips_of(linear->rows), [&](int64_t strip) {
      const int64_t begin = strip * kStripRows;
      for (int64_t row = begin; row < begin + kStripRows && row < linear->rows; ++row) {
        lookup_row(*linear, static_cast<int32_t>(row), 1.0f, out + row * linear->cols);
      }
    });
  });
}

// One call of `linear`: `prepared` for the activations, then float32 copies of bf16 inputs and outputs.
struct LinearCall {
  const LlmLinear* parts;
  int32_t num_parts;
  int32_t tokens;
  bool is_bf16;

  size_t prepared_bytes() const {
    size_t most = 0;
    for (int32_t i = 0; i < num_parts; ++i) {
      const size_t bytes = activation_bytes(parts[i].kind, parts[i].cols, tokens);
      most = bytes > most ? bytes : most;
    }
    return static_cast<size_t>(parts_of(static_cast<int64_t>(most), 64)) * 64;
  }

  size_t copied_elements() const {
    if (!is_bf16) return 0;
    size_t elements = parts[0].cols;
    for (int32_t i = 0; i < num_parts; ++i) elements += parts[i].rows;
    return elements * tokens;
  }

  // The parts [first, last), all of one kind.
  void run_kind(Member& member, int32_t first, int32_t last, const float* x, float* const* outputs,
                void* prepared) const {
    const Activations a = prepare(member, parts[first].kind, x, parts[first].cols, tokens, parts[first].cols, prepared);
    for (int32_t i = first; i < last; i += kMaxProducts) {
      const LlmLinear* some[kMaxProducts];
      int64_t strides[kMaxProducts];
      const int32_t count = at_most(last - i, kMaxProducts);
      for (int32_t j = 0; j < count; ++j) {
        some[j] = parts + i + j;
        strides[j] = some[j]->rows;
      }
      linears(member, some, outputs + i, strides, count, a);
    }
  }

  // floats: the outputs as float32, the caller's own or copies.
  void run(Member& member, const void* x, void* const* outputs, float* const* floats, float* x_copy,
           void* prepared) const {
    const int32_t cols = parts[0].cols;
    if (is_bf16) {
      member.each(tokens, [&](int64_t token) {
        const uint16_t* const from = static_cast<const uint16_t*>(x) + token * cols;
        for (int32_t c = 0; c < cols; ++c) x_copy[token * cols + c] = from_bf16(from[c]);
      });
    }
    for (int32_t first = 0, last; first < num_parts; first = last) {
      for (last = first + 1; last < num_parts && parts[last].kind == parts[first].kind;) ++last;
      run_kind(member, first, last, is_bf16 ? x_copy : static_cast<const float*>(x), floats, prepared);
    }
    if (!is_bf16) return;
    member.each(static_cast<int64_t>(num_parts) * tokens, [&](int64_t task) {
      const int64_t part = task / tokens, rows = parts[part].rows, begin = task % tokens * rows;
      uint16_t* const to = static_cast<uint16_t*>(outputs[part]) + begin;
      for (int64_t r = 0; r < rows; ++r) to[r] = to_bf16(floats[part][begin + r]);
    });
  }
};

constexpr int kMaxParts = 64;

static inline bool is_part(const LlmLinear& part, int32_t cols) {
  const bool is_kind = part.kind >= LLM_F32 && part.kind <= LLM_Q4, is_empty = part.rows == 0 || cols == 0;
  return is_kind && part.rows >= 0 && cols >= 0 && part.cols == cols && (is_empty || part.weights != nullptr);
}

// See abi.h. LLM_BAD_ARGUMENT: a dtype other than float32 and bfloat16, a part without weights, parts of different
// widths, or more than 64.
static int32_t linear(const LlmLinear* parts, int32_t num_parts, const void* x, void* const* outputs, int32_t dtype,
                      int32_t tokens, int32_t threads) {
  if (num_parts < 0 || num_parts > kMaxParts || tokens < 0) return LLM_BAD_ARGUMENT;
  if (dtype != LLM_DTYPE_F32 && dtype != LLM_DTYPE_BF16) return LLM_BAD_ARGUMENT;
  if (num_parts == 0 || tokens == 0) return LLM_OK;
  for (int32_t i = 0; i < num_parts; ++i) {
    if (!is_part(parts[i], parts[0].cols)) return LLM_BAD_ARGUMENT;
  }
  const LinearCall call{parts, num_parts, tokens, dtype == LLM_DTYPE_BF16};
  static thread_local Scratch scratch;
  const size_t prepared_bytes = call.prepared_bytes();
  uint8_t* const memory = scratch.reserve(prepared_bytes + call.copied_elements() * sizeof(float) + 64);
  if (memory == nullptr) return LLM_OUT_OF_MEMORY;
  float* const x_copy = reinterpret_cast<float*>(memory + prepared_bytes);
  float* floats[kMaxParts];
  float* next = x_copy + static_cast<int64_t>(tokens) * parts[0].cols;
  for (int32_t i = 0; i < num_parts; ++i) {
    floats[i] = call.is_bf16 ? next : static_cast<float*>(outputs[i]);
    next += static_cast<int64_t>(tokens) * parts[i].rows;
  }
  parallel_region(threads, [&](Member& member) { call.run(member, x, outputs, floats, x_copy, memory); });
  return LLM_OK;
}

}  // namespace LLM_VARIANT
}  // namespace llm
