// Segments of tokens and the stores that keep their keys and values; see abi.h.
#pragma once
#include "attention.h"

namespace llm {
namespace LLM_VARIANT {

// Writes one token's key or value of one head to its place in a store.
template <class Element>
static void append_head(void* store, const LlmKV& kv, const AttentionShape& shape, int64_t position, int kv_head,
                        const Element* from) {
  const int64_t at = (kv_head * kv.capacity + position - kv.start) * shape.head_dim;
  if (shape.kv_dtype == LLM_DTYPE_BF16) {
    convert_row(from, static_cast<uint16_t*>(store) + at, shape.head_dim);
  } else {
    convert_row(from, static_cast<float*>(store) + at, shape.head_dim);
  }
}

template <class Element>
static void append_token(const AttentionShape& shape, const LlmKV& kv, int64_t position, int64_t row,
                         const HeadRows& key, const HeadRows& value) {
  for (int head = 0; head < shape.kv_heads; ++head) {
    append_head(kv.keys, kv, shape, position, head, key.head<Element>(row, head));
    append_head(kv.values, kv, shape, position, head, value.head<Element>(row, head));
  }
}

static inline bool is_shape(const AttentionShape& shape) {
  const bool counts = shape.heads > 0 && shape.kv_heads > 0 && shape.head_dim > 0 && shape.window >= 0;
  const bool is_stored = shape.kv_dtype == LLM_DTYPE_F32 || shape.kv_dtype == LLM_DTYPE_BF16;
  return counts && is_stored && shape.heads % shape.kv_heads == 0;
}

// Whether the store holds all that the segment's tokens see, and has room for them.
static inline bool has_room(const AttentionShape& shape, const LlmSegment& segment, int32_t layer) {
  const LlmKV& kv = segment.kv[layer];
  return kv.start <= shape.first_visible(segment.past) && segment.past + segment.length <= kv.start + kv.capacity;
}

static inline bool is_segment(const LlmSegment& segment) {
  return segment.offset >= 0 && segment.length > 0 && segment.past >= 0 && segment.kv != nullptr;
}

// The segment of the `token`-th of all segments' tokens, and the token's index within it. A walk, since tokens
// mostly grow; it goes back too.
class SegmentWalk {
 public:
  explicit SegmentWalk(const LlmSegment* segments) : segment_(segments) {}

  const LlmSegment& find(int64_t token, int32_t* index) {
    while (token < first_) first_ -= (--segment_)->length;
    for (; token - first_ >= segment_->length; ++segment_) first_ += segment_->length;
    *index = static_cast<int32_t>(token - first_);
    return *segment_;
  }

 private:
  const LlmSegment* segment_;
  int64_t first_ = 0;
};

}  // namespace LLM_VARIANT
}  // namespace llm
