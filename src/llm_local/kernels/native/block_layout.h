// Sizes of the packed weight layout, which every variant shares (what lies in a block: packing.h).
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "abi.h"

namespace llm {

constexpr int kStripRows = 16;
constexpr int kBlockCols = 64;
constexpr int kGroupCols = 32;
constexpr int kLineBytes = 64;  // 16 outputs x 4 inputs

static inline int64_t strips_of(int32_t rows) { return (static_cast<int64_t>(rows) + kStripRows - 1) / kStripRows; }
static inline int64_t blocks_of(int32_t cols) { return (static_cast<int64_t>(cols) + kBlockCols - 1) / kBlockCols; }
static constexpr int group_bytes(int32_t kind) { return kGroupCols * kStripRows / (kind == LLM_Q4 ? 2 : 1); }
static constexpr int block_bytes(int32_t kind) { return 2 * group_bytes(kind) + 2 * kStripRows * 2; }
static constexpr int zero_point(int32_t kind) { return kind == LLM_Q4 ? 8 : 128; }

static inline size_t packed_bytes(int32_t kind, int32_t rows, int32_t cols) {
  if ((kind != LLM_Q8 && kind != LLM_Q4) || rows < 0 || cols < 0) return 0;
  return static_cast<size_t>(strips_of(rows)) * blocks_of(cols) * block_bytes(kind);
}

}  // namespace llm
