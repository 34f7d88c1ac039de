// Attention of a few queries, exactly: scores, softmax and weighted sum in blocks of keys that lie at fixed positions.
//
// Each block gives a partial result for each query; partial results are merged in the order of the blocks. So a query's
// bits depend on its position and on the keys it sees, not on the queries beside it or on who did which block.
#pragma once
#include <math.h>

#include "abi.h"
#if defined(__AMX_BF16__)
#include "amx_tiles.h"
#endif
#include "elementary.h"
#include "key_tile.h"
#include "product.h"
#include "scratch.h"

namespace llm {
namespace LLM_VARIANT {

constexpr int kBlockKeys = 256;
constexpr int kQueryRows = 48;  // query rows of a tile, where a group of heads is not larger
constexpr int kQueryRowsOnTiles = 128;  // the same where AMX multiplies, which takes 16 rows at a time

// What is the same for all sequences of a layer.
struct AttentionShape {
  int32_t heads, kv_heads, head_dim, window, kv_dtype;
  float scale, softcap;
  const float* sinks;

  // Whether AMX multiplies; see attend_amx.h.
  bool on_tiles() const {
#if defined(__AMX_BF16__)
    return kv_dtype == LLM_DTYPE_BF16;
#else
    return false;
#endif
  }
  int query_rows() const { return on_tiles() ? kQueryRowsOnTiles : kQueryRows; }
  int64_t stored_rows(int64_t rows) const { return on_tiles() ? (rows + 15) / 16 * 16 : rows; }
  int group() const { return heads / kv_heads; }
  int tile_tokens() const { return group() < query_rows() ? query_rows() / group() : 1; }
  int tile_rows() const { return tile_tokens() * group(); }
  int64_t padded_dim() const { return (head_dim + kProductCols - 1) / kProductCols * kProductCols; }
  int64_t first_visible(int64_t position) const {
    return window > 0 && position >= window ? position + 1 - window : 0;
  }
};

// Unfinished attention of rows over some blocks: total = sum of exp(score - largest), sums = the same times values.
struct Partial {
  float* sums;  // [rows, padded_dim]
  float* largest;
  float* total;  // 0: the row has seen no key yet
};

static inline Partial take_partial(Carver& carver, const AttentionShape& shape, int64_t rows) {
  Partial partial;
  partial.sums = carver.take<float>(shape.stored_rows(rows) * shape.padded_dim());
  partial.largest = carver.take<float>(rows);
  partial.total = carver.take<float>(rows);
  return partial;
}

// One thread's memory.
struct AttentionBuffers {
  float* queries;  // [rows, head_dim], scaled
  float* scores;   // [rows, kBlockKeys]; on tiles as attend_amx.h says, as all that follows
  float* keys;     // [head_dim, kTileKeys]
  float* values;   // [kTileKeys, padded_dim]
  uint16_t *tile_queries, *tile_keys, *tile_values;
  Partial block, all;
#if defined(__AMX_BF16__)
  mutable TileState registers;
#endif

  AttentionBuffers(Carver& carver, const AttentionShape& shape) {
    const int64_t rows = shape.tile_rows(), padded = shape.padded_dim();
    queries = carver.take<float>(rows * shape.head_dim);
    block = take_partial(carver, shape, rows);
    all = take_partial(carver, shape, rows);
    if (shape.on_tiles()) {
      scores = carver.take<float>(2 * 16 * kBlockKeys);
      tile_queries = carver.take<uint16_t>(shape.stored_rows(rows) * padded);
      tile_keys = carver.take<uint16_t>(kTileKeys * padded);
      tile_values = carver.take<uint16_t>(kBlockKeys * padded);
      return;
    }
    scores = carver.take<float>(rows * kBlockKeys);
    keys = carver.take<float>(static_cast<int64_t>(shape.head_dim) * kTileKeys);
    values = carver.take<float>(kTileKeys * padded);
  }
};

// Queries of one group of heads at consecutive positions; row = token * group + head of the group.
struct QueryTile {
  LlmKV kv;
  int64_t position;
  int tokens;
  int kv_head;

  int64_t first_key(const AttentionShape& shape) const { return shape.first_visible(position); }
  int64_t end_key() const { return position + tokens; }
};

// The keys and values of a block that some row of a tile sees; counted from the block's first, which need not exist.
template <class Element>
struct BlockKeys {
  int first, last;  // [first, last) exist
  int begin, end;   // the same in whole tiles
  const Element *keys, *values;
  int64_t ahead;  // elements to what is probably read next: the next block, or the first one of the next head

  BlockKeys(const AttentionShape& shape, const QueryTile& tile, int64_t block) {
    const int64_t start = block * kBlockKeys;
    const auto within = [&](int64_t key) {
      return static_cast<int>(key < start ? 0 : key > start + kBlockKeys ? kBlockKeys : key - start);
    };
    first = within(tile.first_key(shape));
    last = within(tile.end_key());
    begin = first / kTileKeys * kTileKeys;
    end = (last + kTileKeys - 1) / kTileKeys * kTileKeys;
    const int64_t at = (tile.kv_head * tile.kv.capacity + start - tile.kv.start) * shape.head_dim;
    keys = static_cast<const Element*>(tile.kv.keys) + at;
    values = static_cast<const Element*>(tile.kv.values) + at;
    const int64_t blocks_before = block - tile.first_key(shape) / kBlockKeys;
    const bool is_last = start + kBlockKeys >= tile.end_key();
    ahead = (is_last ? tile.kv.capacity - blocks_before * kBlockKeys : kBlockKeys) * shape.head_dim;
  }

  // The keys [from, to) exist of the tile that begins at `key`.
  int from(int key) const { return first > key ? first - key : 0; }
  int to(int key) const { return last - key < kTileKeys ? last - key : kTileKeys; }
};

// Turns one row's scores of `count` keys into weights exp(score - largest) and their total. The row sees the keys
// [begin, end), which may lie outside; count: whole tiles.
static void soften(const AttentionShape& shape, float* scores, int count, int64_t begin, int64_t end, float* largest,
                   float* total) {
  if (shape.softcap > 0.0f) {
    for (int k = 0; k < count; k += kLanes) {
      store(scores + k, tanh(load<Floats>(scores + k) / shape.softcap) * shape.softcap);
    }
  }
  for (int64_t k = 0; k < begin && k < count; ++k) scores[k] = -INFINITY;
  for (int64_t k = end > 0 ? end : 0; k < count; ++k) scores[k] = -INFINITY;
  *largest = -INFINITY;
  *total = 0.0f;
  if (begin >= count || end <= 0) {
    memset(scores, 0, count * sizeof(float));
    return;
  }
  // Two chains each, so that one's latency hides the other's; which is whose does not depend on where the row begins.
  Floats most[2] = {splat(-INFINITY), splat(-INFINITY)}, sums[2] = {};
  for (int k = 0; k < count; k += 2 * kLanes) {
    for (int c = 0; c < 2; ++c) {
      const Floats x = load<Floats>(scores + k + c * kLanes);
      most[c] = x > most[c] ? x : most[c];
    }
  }
  *largest = largest_lane(most[0] > most[1] ? most[0] : most[1]);
  for (int k = 0; k < count; k += 2 * kLanes) {
    for (int c = 0; c < 2; ++c) {
      const Floats weight = exp(load<Floats>(scores + k + c * kLanes) - splat(*largest));
      store(scores + k + c * kLanes, weight);
      sums[c] += weight;
    }
  }
  *total = sum_lanes(sums[0] + sums[1]);
}

// The partial result of all rows for the keys of one block. Some key of the block is visible to some row.
template <class Element>
static void attend_block(const AttentionShape& shape, const QueryTile& tile, int64_t block,
                         const AttentionBuffers& buffers, const Partial& out) {
  const int rows = tile.tokens * shape.group();
  const int64_t dim = shape.head_dim, padded = shape.padded_dim();
  const BlockKeys<Element> there(shape, tile, block);
  const Element *const keys = there.keys, *const values = there.values;
  const int begin = there.begin, end = there.end;
  const auto ahead = [&](const Element* from) {
    return Ahead{reinterpret_cast<const char*>(from), kTileKeys * dim * static_cast<int64_t>(sizeof(Element))};
  };
  for (int key = begin; key < end; key += kTileKeys) {
    const int from = there.from(key), to = there.to(key);
    const int next = key + kTileKeys;
    transpose_keys(keys + key * dim, shape.head_dim, from, to, buffers.keys);
    product<false>(rows, {buffers.queries, dim}, {buffers.keys, kTileKeys}, {buffers.scores + key, kBlockKeys}, dim,
                   kTileKeys, ahead(next < end ? keys + next * dim : values + begin * dim));
  }
  for (int row = 0; row < rows; ++row) {
    const int64_t position = tile.position + row / shape.group(), zero = block * kBlockKeys + begin;
    soften(shape, buffers.scores + row * kBlockKeys + begin, end - begin, shape.first_visible(position) - zero,
           position + 1 - zero, out.largest + row, out.total + row);
  }
  for (int key = begin; key < end; key += kTileKeys) {
    const int from = there.from(key), to = there.to(key);
    widen_values(values + key * dim, shape.head_dim, from, to, buffers.values, padded);
    (key == begin ? product<false> : product<true>)(
        rows, {buffers.scores + key + from, kBlockKeys}, {buffers.values + from * padded, padded}, {out.sums, padded},
        to - from, padded, ahead(values + (key + kTileKeys) * dim));
  }
}

// exp of one number with the bits that it has in a vector.
LLM_INLINE float exp_of(float x) { return exp(splat(x))[0]; }

// Adds a later block's partial result of one row: sums = sums * kept + more * added.
static void merge_row(const Partial& all, const Partial& block, int64_t row, int64_t padded, float kept, float added) {
  float* const sums = all.sums + row * padded;
  const float* const more = block.sums + row * padded;
  if (block.total[row] == 0.0f) return;
  if (all.total[row] == 0.0f) {
    memcpy(sums, more, padded * sizeof(float));
    all.largest[row] = block.largest[row];
    all.total[row] = block.total[row];
    return;
  }
  for (int64_t d = 0; d < padded; d += kLanes) {
    store(sums + d, fma(load<Floats>(more + d), splat(added), load<Floats>(sums + d) * kept));
  }
  all.total[row] = all.total[row] * kept + block.total[row] * added;
  if (!(all.largest[row] > block.largest[row])) all.largest[row] = block.largest[row];
}

static void merge(const AttentionShape& shape, int rows, const Partial& all, const Partial& block) {
  for (int first = 0; first < rows; first += kLanes) {
    const Floats before = load<Floats>(all.largest + first), now = load<Floats>(block.largest + first);
    const Floats largest = before > now ? before : now;
    const Floats kept = exp(before - largest), added = exp(now - largest);
    for (int i = 0; i < kLanes && first + i < rows; ++i) {
      merge_row(all, block, first + i, shape.padded_dim(), kept[i], added[i]);
    }
  }
}

static void clear(const Partial& partial, int rows) {
  for (int row = 0; row < rows; ++row) partial.total[row] = 0.0f;
}

// Divides a row by its total, to which the head's sink adds, a score without a value.
static void finish_row(const AttentionShape& shape, const Partial& all, int64_t row, int head) {
  float factor = 1.0f / all.total[row];
  if (shape.sinks != nullptr) {
    const float sink = shape.sinks[head], largest = all.largest[row] > sink ? all.largest[row] : sink;
    const float kept = exp_of(all.largest[row] - largest);
    factor = kept / (all.total[row] * kept + exp_of(sink - largest));
  }
  float* const sums = all.sums + row * shape.padded_dim();
  for (int64_t d = 0; d < shape.padded_dim(); d += kLanes) store(sums + d, load<Floats>(sums + d) * factor);
}

}  // namespace LLM_VARIANT
}  // namespace llm
