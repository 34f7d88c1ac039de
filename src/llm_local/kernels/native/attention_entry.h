// The C entry point of attention; see abi.h.
#pragma once
#include "attention.h"
#include "kv_store.h"

namespace llm {
namespace LLM_VARIANT {

static void append(Member& member, const Attention& work, const LlmSegment* segments, int64_t num_tokens,
                   const HeadRows& key, const HeadRows& value) {
  SegmentWalk walk(segments);
  member.each(num_tokens, [&](int64_t token) {
    int32_t index;
    const LlmSegment& segment = walk.find(token, &index);
    const bool is_bf16 = key.dtype == LLM_DTYPE_BF16;
    (is_bf16 ? append_token<uint16_t> : append_token<float>)(work.shape, segment.kv[work.layer], segment.past + index,
                                                             segment.offset + index, key, value);
  });
}

static inline bool is_row_dtype(int32_t dtype) { return dtype == LLM_DTYPE_F32 || dtype == LLM_DTYPE_BF16; }

static inline bool is_call(const LlmAttention& call, const AttentionShape& shape, const LlmSegment* segments,
                           int32_t num_segments, int32_t layer) {
  if (!is_shape(shape) || !is_row_dtype(call.dtype) || num_segments < 0 || layer < 0) return false;
  for (int32_t i = 0; i < num_segments; ++i) {
    if (!is_segment(segments[i]) || !has_room(shape, segments[i], layer)) return false;
  }
  return true;
}

// See abi.h. LLM_BAD_ARGUMENT: a shape that is none, a dtype other than float32 and bfloat16, a segment whose store
// lacks room or what its tokens see.
static int32_t attention(const LlmAttention* call, const LlmSegment* segments, int32_t num_segments, int32_t layer,
                         int32_t threads) {
  const AttentionShape shape{call->heads,    call->kv_heads, call->head_dim, call->window,
                             call->kv_dtype, call->scale,    call->softcap,  call->sinks};
  if (!is_call(*call, shape, segments, num_segments, layer)) return LLM_BAD_ARGUMENT;
  int64_t num_tokens = 0;
  size_t partials = 0;
  for (int32_t i = 0; i < num_segments; ++i) {
    num_tokens += segments[i].length;
    partials += partial_bytes(shape, segments[i].past, segments[i].length);
  }
  const auto rows = [&](const void* data, int64_t token_stride, int64_t head_stride) {
    return HeadRows{const_cast<void*>(data), call->dtype, token_stride, head_stride};
  };
  const HeadRows query = rows(call->query, call->query_token_stride, call->query_head_stride);
  const HeadRows key = rows(call->key, call->key_token_stride, call->key_head_stride);
  const HeadRows value = rows(call->value, call->value_token_stride, call->value_head_stride);
  const int64_t width = static_cast<int64_t>(shape.heads) * shape.head_dim;
  Attention work{shape, nullptr, num_segments, layer, query, rows(call->output, width, shape.head_dim), {}, {}, {}};
  QueryRun* runs = nullptr;
  const auto lay_out = [&](uint8_t* memory) {
    Carver carver(memory);
    work.runs = runs = carver.take<QueryRun>(num_segments);
    take_buffers(carver, work, threads < 1 ? 1 : threads, partials);
    return carver.used();
  };
  static thread_local Scratch scratch;
  uint8_t* const memory = scratch.reserve(lay_out(nullptr));
  if (memory == nullptr) return LLM_OUT_OF_MEMORY;
  lay_out(memory);
  clear_finished(work);
  for (int32_t i = 0; i < num_segments; ++i) {
    const LlmSegment& s = segments[i];
    runs[i] = {s.kv, s.past, s.offset, s.offset, s.length};
  }
  parallel_region(threads, [&](Member& member) {
    append(member, work, segments, num_tokens, key, value);
    attend(member, work);
  });
  return LLM_OK;
}

}  // namespace LLM_VARIANT
}  // namespace llm
