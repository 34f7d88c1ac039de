// Whether a model's description and a batch fit together: a step runs only what it can run to the end.
#pragma once
#include "activations.h"
#include "elementary.h"
#include "kv_store.h"

namespace llm {
namespace LLM_VARIANT {

static inline AttentionShape shape_of(const LlmModel& model, const LlmLayer& layer) {
  return {model.heads,    model.kv_heads,        model.head_dim, layer.window,
          model.kv_dtype, layer.attention_scale, layer.softcap,  layer.sinks};
}

static inline bool is_linear(const LlmLinear& linear, int64_t rows, int64_t cols) {
  const bool is_kind = linear.kind >= LLM_F32 && linear.kind <= LLM_Q4;
  return linear.weights != nullptr && is_kind && linear.rows == rows && linear.cols == cols;
}

static inline bool is_rope(const LlmRope& rope, int32_t head_dim) {
  return rope.cos != nullptr && rope.sin != nullptr && rope.dim >= 0 && rope.dim <= head_dim && rope.dim % 2 == 0;
}

static inline bool is_layer(const LlmModel& model, const LlmLayer& layer) {
  const int64_t query_width = static_cast<int64_t>(model.heads) * model.head_dim;
  const int64_t key_width = static_cast<int64_t>(model.kv_heads) * model.head_dim;
  return is_shape(shape_of(model, layer)) && layer.rope >= -1 && layer.rope < model.num_ropes &&
         is_linear(layer.query, query_width, model.hidden) && is_linear(layer.key, key_width, model.hidden) &&
         is_linear(layer.value, key_width, model.hidden) && is_linear(layer.output, model.hidden, query_width) &&
         is_linear(layer.gate, model.intermediate, model.hidden) &&
         is_linear(layer.up, model.intermediate, model.hidden) && layer.gate.kind == layer.up.kind &&
         is_linear(layer.down, model.hidden, model.intermediate);
}

static inline bool is_model(const LlmModel& model) {
  if (model.num_layers < 1 || model.hidden < 1 || model.intermediate < 1 || model.vocab < 1) return false;
  if (!is_activation(model.activation) || model.final_norm.weight == nullptr) return false;
  if (!is_linear(model.embedding, model.embedding.rows, model.hidden)) return false;
  if (!is_linear(model.head, model.vocab, model.hidden)) return false;
  for (int32_t i = 0; i < model.num_ropes; ++i) {
    if (!is_rope(model.ropes[i], model.head_dim)) return false;
  }
  for (int32_t i = 0; i < model.num_layers; ++i) {
    if (!is_layer(model, model.layers[i])) return false;
  }
  return true;
}

// Whether the segments cover the packed row one behind the other, with room for their tokens in every layer.
static inline bool are_segments(const LlmModel& model, const LlmBatch& batch) {
  int64_t end = 0;
  for (int32_t i = 0; i < batch.num_segments; ++i) {
    const LlmSegment& segment = batch.segments[i];
    if (!is_segment(segment) || segment.offset != end) return false;
    end += segment.length;
    for (int32_t layer = 0; layer < model.num_layers; ++layer) {
      if (!has_room(shape_of(model, model.layers[layer]), segment, layer)) return false;
    }
  }
  return end == batch.num_tokens;
}

static inline bool is_batch(const LlmModel& model, const LlmBatch& batch) {
  for (int32_t i = 0; i < batch.num_tokens; ++i) {
    const int32_t id = batch.token_ids[i];
    if (id < 0 || id >= model.embedding.rows) return false;
  }
  if (batch.first_layer < 0 || batch.first_layer >= model.num_layers) return false;
  if (batch.num_layers < 0 || batch.num_layers > model.num_layers - batch.first_layer) return false;
  // what is kept lies in memory for all tokens
  if (batch.num_kept < 0 || batch.num_kept > batch.num_tokens) return false;
  for (int32_t i = 0; i < batch.num_kept; ++i) {
    if (batch.kept[i] < 0 || batch.kept[i] >= batch.num_tokens) return false;
  }
  return are_segments(model, batch);
}

}  // namespace LLM_VARIANT
}  // namespace llm
