// The memory of a step, and its C entry point; see abi.h.
#pragma once
#include "forward.h"

namespace llm {
namespace LLM_VARIANT {

// Calls body(run) for the longest runs of kept rows.
template <class Body>
inline void Forward::each_kept_run(Body&& body) const {
  for (int32_t i = 0, end; i < batch_.num_kept; i = end) {
    const int32_t row = batch_.kept[i];
    const LlmSegment* s = batch_.segments;
    while (row >= s->offset + s->length) ++s;
    for (end = i + 1; end < batch_.num_kept && batch_.kept[end] == row + end - i;) {
      if (batch_.kept[end] >= s->offset + s->length) break;
      ++end;
    }
    body(QueryRun{s->kv, s->past + row - s->offset, row, i, end - i});
  }
}

inline size_t Forward::prepared_bytes() const {
  size_t most = activation_bytes(model_.head.kind, model_.hidden, batch_.num_kept);
  const auto count = [&](const LlmLinear& linear) {
    const size_t bytes = activation_bytes(linear.kind, linear.cols, batch_.num_tokens);
    most = bytes > most ? bytes : most;
  };
  for (int32_t i = 0; i < model_.num_layers; ++i) {
    const LlmLayer& layer = model_.layers[i];
    for (const LlmLinear* linear : {&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.down}) {
      count(*linear);
    }
  }
  return most;
}

inline size_t Forward::partial_bytes() const {
  size_t most = 0;
  for (int32_t i = 0; i < model_.num_layers; ++i) {
    const AttentionShape shape = shape_of(model_, model_.layers[i]);
    size_t all = 0, kept = 0;
    for (int32_t s = 0; s < batch_.num_segments; ++s) {
      all += LLM_VARIANT::partial_bytes(shape, batch_.segments[s].past, batch_.segments[s].length);
    }
    if (i == model_.num_layers - 1) {
      each_kept_run([&](const QueryRun& r) { kept += LLM_VARIANT::partial_bytes(shape, r.position, r.length); });
    }
    most = all > most ? all : most;
    most = kept > most ? kept : most;
  }
  return most;
}

inline size_t Forward::lay_out(uint8_t* memory) {
  Carver carver(memory);
  const int64_t tokens = batch_.num_tokens;
  b_.residual = carver.take<float>(tokens * model_.hidden);
  b_.normed = carver.take<float>(tokens * model_.hidden);
  b_.query = carver.take<float>(tokens * query_width());
  b_.key = carver.take<float>(tokens * key_width());
  b_.value = carver.take<float>(tokens * key_width());
  b_.attended = carver.take<float>(tokens * query_width());
  b_.gated = carver.take<float>(tokens * model_.intermediate);
  b_.branch = carver.take<float>(tokens * model_.hidden);
  b_.kept_residual = carver.take<float>(static_cast<int64_t>(batch_.num_kept) * model_.hidden);
  b_.prepared = carver.take<uint8_t>(static_cast<int64_t>(prepared_bytes()));
  b_.runs = carver.take<QueryRun>(batch_.num_segments);
  b_.kept_runs = carver.take<QueryRun>(batch_.num_kept);
  attention_.shape = shape_of(model_, model_.layers[0]);
  attention_.num_runs = batch_.num_segments > batch_.num_kept ? batch_.num_segments : batch_.num_kept;
  take_buffers(carver, attention_, threads_, partial_bytes());
  return carver.used();
}

inline void Forward::begin() {
  clear_finished(attention_);
  attention_.query = {b_.query, LLM_DTYPE_F32, query_width(), model_.head_dim};
  attention_.output = {b_.attended, LLM_DTYPE_F32, query_width(), model_.head_dim};
  for (int32_t i = 0; i < batch_.num_segments; ++i) {
    const LlmSegment& s = batch_.segments[i];
    b_.runs[i] = {s.kv, s.past, s.offset, s.offset, s.length};
  }
  num_kept_runs_ = 0;
  each_kept_run([&](const QueryRun& run) { b_.kept_runs[num_kept_runs_++] = run; });
}

// See abi.h. LLM_BAD_ARGUMENT: a token id outside the vocabulary, shapes that do not fit, segments that do not cover
// the packed row one behind the other or whose stores lack room or what their tokens see. LLM_OUT_OF_MEMORY: the
// scratch cannot grow. In both cases nothing was written. A call that goes on in the middle finds in the scratch what the
// one before it left there.
static int32_t step(const LlmModel* model, const LlmBatch* batch, void* scratch, int32_t threads) {
  if (scratch == nullptr || !is_model(*model) || !is_batch(*model, *batch)) return LLM_BAD_ARGUMENT;
  if (batch->num_tokens == 0) return LLM_OK;
  Forward forward(*model, *batch, threads < 1 ? 1 : threads);
  uint8_t* const memory = static_cast<Scratch*>(scratch)->reserve(forward.lay_out(nullptr));
  if (memory == nullptr) return LLM_OUT_OF_MEMORY;
  forward.lay_out(memory);
  forward.begin();
  parallel_region(threads, [&](Member& member) { forward.run(member); });
  return LLM_OK;
}

}  // namespace LLM_VARIANT
}  // namespace llm
