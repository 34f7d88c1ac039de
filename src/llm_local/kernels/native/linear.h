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
// `x`, `outputs` and `storage` must not overlap. Strides are elements between tokens. All parts of one call share
// kind and cols with the Activations; call again, with another prepare, for another kind. Q8 and Q4 take the same
// Activations (quantized = true for both), so one prepare serves a layer whose parts mix them, in separate calls.
//
// Arithmetic: an output's bits depend on its weights and its token only, never on tokens, parts, chunks or threads.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "parallel.h"

namespace llm {
namespace LLM_VARIANT {

// Inputs of a linear in the form that its weights' kind multiplies with; made by prepare, read by linears and gated.
struct Activations {
  int32_t kind;
  int32_t tokens;
  int32_t cols;
  const void* storage;
};

size_t activation_bytes(int32_t kind, int32_t cols, int32_t tokens);
// x: [tokens, cols] float32 with `x_stride` elements between tokens.
Activations prepare(Member& member, int32_t kind, const float* x, int64_t x_stride, int32_t tokens, int32_t cols,
                    void* storage);
// outputs[i]: [tokens, rows_i], output_strides[i] elements between tokens.
void linears(Member& member, const LlmLinear* const* parts, float* const* outputs, const int64_t* output_strides,
             int32_t num_parts, const Activations& x);
// output: [tokens, rows] = activation(gate x) * (up x); gate and up have the same kind and shape.
void gated(Member& member, const LlmLinear& gate, const LlmLinear& up, int32_t activation, float* output,
           int64_t output_stride, const Activations& x);
// One dequantized row of a weight matrix of any kind, times `scale`; out: [cols].
void lookup_row(const LlmLinear& embedding, int32_t row, float scale, float* out);

}  // namespace LLM_VARIANT
}  // namespace llm
