// Attention on AMX tiles, where keys and values are bfloat16: the amx variant's arithmetic for one token or many.
//
// Queries, scaled, and the weights that softmax makes of a block's scores are rounded to bfloat16 once; sums are
// float32. A score is, for each 32 features in order, what one tile product adds to it; so is a weighted sum for each
// 32 keys. Per element a tile product sums even and odd inputs in two chains, adds the two, and adds that to what was
// there, each time rounded to nearest; subnormal numbers count as zero. A row's total is that of its rounded weights,
// so that what comes out is a mean of the values. Absent keys, features and rows are zeros, which add nothing.
//
// Scores are computed as keys by queries. So the rows of a store are operands where they lie, and softmax runs over
// many queries at once. A few rows take narrower tiles, which give the same bits and cost less.
#pragma once
#include "soften_amx.h"

namespace llm {
namespace LLM_VARIANT {

constexpr int kRowsOfTile = 16;
constexpr int kStep = 32;                                // features or keys of one tile product
constexpr int kOperand = kRowsOfTile * kStep;            // bfloat16 numbers of a full operand
constexpr int kOperandBytes = kStep * sizeof(uint16_t);  // of its rows
constexpr int kScoreTile = kBlockKeys * kRowsOfTile;     // scores of a full tile of rows
constexpr int kPrefetched = 8;                           // lines asked for at once

// How many rows the narrowest operand has that `rows` fit into: 1, 2, 4, 8 or 16, so that a few rows cost less.
LLM_INLINE int tile_width(int rows) {
  int width = 1;
  while (width < rows && width < kRowsOfTile) width *= 2;
  return width;
}

// Tiles 0, 1: scores of 16 keys each, 2, 3: sums of 16 features each, 4, 5: keys or values, 6: queries, 7: weights.
static void configure_attention(TileState& tiles, int width) {
  const int bytes = width * sizeof(float);
  const TileShape scores{kRowsOfTile, bytes}, sums{width, kOperandBytes}, stored{kRowsOfTile, kOperandBytes};
  const TileShape shapes[] = {scores, scores, sums, sums, stored, stored, scores, sums};
  tiles.configure(width, shapes, 8);
}

// 32 numbers from `from`, of which those are there that `rest` counts: zeros stand for the others.
LLM_INLINE __m512i load_step(const uint16_t* from, int64_t rest) {
  if (rest >= kStep) return _mm512_loadu_si512(from);
  return _mm512_maskz_loadu_epi16((1u << rest) - 1, from);
}

// tiles[tile][step][pair of features][row] from rows of floats; kWidth rows in a tile.
template <int kWidth>
static void pack_queries(const AttentionShape& shape, int rows, const float* queries, uint16_t* tiles) {
  constexpr int kBits = kWidth == 16 ? 4 : kWidth == 8 ? 3 : kWidth == 4 ? 2 : kWidth == 2 ? 1 : 0;
  const int64_t dim = shape.head_dim;
  for (int first = 0; first < rows; first += kWidth) {
    for (int64_t d = 0; d < dim; d += kStep, tiles += kWidth * kStep) {
      const uint32_t there = dim - d >= kStep ? ~0u : (1u << (dim - d)) - 1;
      Words packed[kWidth] = {};
      for (int i = 0; i < kWidth && first + i < rows; ++i) {
        const float* const from = queries + (first + i) * dim + d;
        const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(there), from);
        const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(there >> 16), from + kLanes);
        packed[i] = (Words)_mm512_cvtne2ps_pbh(high, low);
      }
      deal<kWidth>(packed, kBits);
      memcpy(tiles, packed, sizeof(packed));
    }
  }
}

struct KeyRows {
  const uint16_t* at;
  int64_t bytes;  // between rows
  int64_t stride() const { return bytes / static_cast<int64_t>(sizeof(uint16_t)); }
};

// 32 keys of which [first, last) exist: in place, or where that cannot be a copy in `copy` [32][padded_dim].
static KeyRows key_rows(const AttentionShape& shape, const uint16_t* keys, int first, int last, uint16_t* copy) {
  const int64_t dim = shape.head_dim, padded = shape.padded_dim();
  if (dim == padded && first == 0 && last == kTileKeys) {
    return {keys, dim * static_cast<int64_t>(sizeof(uint16_t))};
  }
  for (int k = 0; k < kTileKeys; ++k) {
    for (int64_t d = 0; d < padded; d += kStep) {
      const bool exists = k >= first && k < last;
      _mm512_storeu_si512(copy + k * padded + d, exists ? load_step(keys + k * dim + d, dim - d) : __m512i{});
    }
  }
  return {copy, padded * static_cast<int64_t>(sizeof(uint16_t))};
}

// tiles[step][even or odd features][pair of keys k, k + 16][16 features] for 32 keys of which [first, last) exist.
// As many numbers from `ahead` on are asked for.
static void pack_values(const AttentionShape& shape, const uint16_t* values, int first, int last, uint16_t* tiles,
                        const uint16_t* ahead) {
  const int64_t dim = shape.head_dim;
  for (int64_t d = 0; d < dim; d += kStep, tiles += 2 * kOperand) {
    for (int k = 0; k < kRowsOfTile; ++k, ahead += 2 * kStep) {
      __builtin_prefetch(ahead);
      __builtin_prefetch(ahead + kStep);
      const auto row = [&](int key) {
        return (Words)(key >= first && key < last ? load_step(values + key * dim + d, dim - d) : __m512i{});
      };
      const Words low = row(k), high = row(k + kRowsOfTile);
      store(tiles + k * kStep, (low & 0xffffu) | high << 16);
      store(tiles + kOperand + k * kStep, low >> 16 | (high & 0xffff0000u));
    }
  }
}

// Asks for a part of 32 keys and steps over it. All of them at once would stall the products.
LLM_INLINE void prefetch_some(const uint16_t*& from) {
  for (int i = 0; i < kPrefetched; ++i, from += kStep) __builtin_prefetch(from);
}

// scores[key][row] of one tile of rows for 32 keys. As many numbers from `ahead` on are asked for.
static void score(const KeyRows& keys, const uint16_t* queries, int width, int64_t steps, float* scores,
                  const uint16_t* ahead) {
  const int64_t bytes = width * sizeof(float);
  LLM_AMX_BARRIER();
  _tile_zero(0);
  _tile_zero(1);
  for (int64_t step = 0; step < steps; ++step, queries += width * kStep) {
    prefetch_some(ahead);
    _tile_loadd(6, queries, bytes);
    _tile_loadd(4, keys.at + step * kStep, keys.bytes);
    prefetch_some(ahead);
    _tile_dpbf16ps(0, 4, 6);
    prefetch_some(ahead);
    _tile_loadd(5, keys.at + step * kStep + kRowsOfTile * keys.stride(), keys.bytes);
    prefetch_some(ahead);
    _tile_dpbf16ps(1, 5, 6);
  }
  _tile_stored(0, scores, bytes);
  _tile_stored(1, scores + kRowsOfTile * width, bytes);
}

// The same of two full tiles of rows at once, kScoreTile apart.
static void score_two(const KeyRows& keys, const uint16_t* queries, int64_t steps, float* scores) {
  LLM_AMX_BARRIER();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t step = 0; step < steps; ++step, queries += kOperand) {
    _tile_loadd(4, keys.at + step * kStep, keys.bytes);
    _tile_loadd(6, queries, kOperandBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, keys.at + step * kStep + kRowsOfTile * keys.stride(), keys.bytes);
    _tile_dpbf16ps(1, 5, 6);
    _tile_loadd(7, queries + steps * kOperand, kOperandBytes);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, scores, kOperandBytes);
  _tile_stored(1, scores + kRowsOfTile * kRowsOfTile, kOperandBytes);
  _tile_stored(2, scores + kScoreTile, kOperandBytes);
  _tile_stored(3, scores + kScoreTile + kRowsOfTile * kRowsOfTile, kOperandBytes);
}

// sums[row][a step's even, then odd features] of a tile of rows: weights times values, for `count` times 32 keys.
static void weigh(const float* weights, const uint16_t* values, int width, int64_t steps, int count, float* sums,
                  int64_t stride) {
  LLM_AMX_BARRIER();
  for (int64_t step = 0; step < steps; ++step, values += 2 * kOperand, sums += kStep) {
    _tile_zero(2);
    _tile_zero(3);
    for (int i = 0; i < count; ++i) {
      _tile_loadd(7, weights + i * kTileKeys * width, kOperandBytes);
      _tile_loadd(4, values + i * steps * 2 * kOperand, kOperandBytes);
      _tile_dpbf16ps(2, 7, 4);
      _tile_loadd(5, values + i * steps * 2 * kOperand + kOperand, kOperandBytes);
      _tile_dpbf16ps(3, 7, 5);
    }
    _tile_stored(2, sums, stride * sizeof(float));
    _tile_stored(3, sums + kRowsOfTile, stride * sizeof(float));
  }
}

// The same of two full tiles of rows at once.
static void weigh_two(const float* weights, const uint16_t* values, int64_t steps, int count, float* sums,
                      int64_t stride) {
  LLM_AMX_BARRIER();
  for (int64_t step = 0; step < steps; ++step, values += 2 * kOperand, sums += kStep) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int i = 0; i < count; ++i) {
      _tile_loadd(6, weights + i * kOperand, kOperandBytes);
      _tile_loadd(4, values + i * steps * 2 * kOperand, kOperandBytes);
      _tile_dpbf16ps(0, 6, 4);
      _tile_loadd(5, values + i * steps * 2 * kOperand + kOperand, kOperandBytes);
      _tile_dpbf16ps(1, 6, 5);
      _tile_loadd(7, weights + i * kOperand + kScoreTile, kOperandBytes);
      _tile_dpbf16ps(2, 7, 4);
      _tile_dpbf16ps(3, 7, 5);
    }
    float* const below = sums + kRowsOfTile * stride;
    _tile_stored(0, sums, stride * sizeof(float));
    _tile_stored(1, sums + kRowsOfTile, stride * sizeof(float));
    _tile_stored(2, below, stride * sizeof(float));
    _tile_stored(3, below + kRowsOfTile, stride * sizeof(float));
  }
}

// As attend_block, for tiles of kWidth rows.
template <int kWidth>
static void attend_block_on_tiles(const AttentionShape& shape, const QueryTile& tile, int64_t block,
                                  const AttentionBuffers& buffers, const Partial& out) {
  const BlockKeys<uint16_t> there(shape, tile, block);
  const int rows = tile.tokens * shape.group(), count = (there.end - there.begin) / kTileKeys;
  const int64_t padded = shape.padded_dim(), steps = padded / kStep, dim = shape.head_dim;
  const uint16_t* const values = buffers.tile_values + there.begin * padded;
  int some = 1;
  for (int row = 0; row < rows; row += some * kWidth) {
    some = row + kWidth < rows ? 2 : 1;
    const uint16_t* const queries = buffers.tile_queries + row * padded;
    for (int key = there.begin; key < there.end; key += kTileKeys) {
      const int from = there.from(key), to = there.to(key);
      const int64_t at = key * dim, next = key + kTileKeys < there.end ? at + kTileKeys * dim : there.ahead;
      const KeyRows keys = key_rows(shape, there.keys + at, from, to, buffers.tile_keys);
      float* const scores = buffers.scores + key * kWidth;
      some == 2 ? score_two(keys, queries, steps, scores)
                : score(keys, queries, kWidth, steps, scores, there.keys + next);
      // Beside the scores, so that memory is never idle.
      if (row == 0) {
        pack_values(shape, there.values + at, from, to, buffers.tile_values + key * padded, there.values + next);
      }
    }
    for (int first = row; first < row + some * kWidth; first += kWidth) {
      soften_tile<kWidth>(shape, Sight(shape, tile, block, first, kWidth), there.begin, there.end,
                          buffers.scores + (first - row) * kBlockKeys, out.largest + first, out.total + first);
    }
    const float* const weights = buffers.scores + there.begin * kWidth;
    float* const sums = out.sums + row * padded;
    some == 2 ? weigh_two(weights, values, steps, count, sums, padded)
              : weigh(weights, values, kWidth, steps, count, sums, padded);
  }
}

// Calls `run` with the width of tiles of `rows`, a constant.
template <class Run>
static void with_tile_width(int rows, Run&& run) {
  switch (tile_width(rows)) {
    case 1: return run(std::integral_constant<int, 1>());
    case 2: return run(std::integral_constant<int, 2>());
    case 4: return run(std::integral_constant<int, 4>());
    case 8: return run(std::integral_constant<int, 8>());
    default: return run(std::integral_constant<int, 16>());
  }
}

// Brings the sums of a row from tiles into the order of features.
static void put_in_order(const AttentionShape& shape, float* sums) {
  constexpr std::make_integer_sequence<int, kLanes> lanes{};
  for (int64_t d = 0; d < shape.padded_dim(); d += kStep) {
    const Words even = load<Words>(sums + d), odd = load<Words>(sums + d + kLanes);
    store(sums + d, interleave<0>(even, odd, lanes));
    store(sums + d + kLanes, interleave<1>(even, odd, lanes));
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
