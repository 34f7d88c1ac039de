// BF16 weights by AMX tiles: 16 outputs x 32 inputs of row-major weights, read in place, by 32 inputs x 16 tokens.
//
// Per token and output: for each 32 inputs in order, what one tile product adds to the sum. One token or many, it is
// the same instruction, so the same bits. Subnormal numbers count as zero.
#pragma once
#include "activations.h"
#include "amx_tiles.h"

namespace llm {
namespace LLM_VARIANT {

constexpr int kTileCols = 32;       // inputs of one tile product
constexpr int kSharingTiles = 4;    // tiles of tokens that share one load of weights
constexpr int kTilePairBytes = 4;   // two inputs of one token
constexpr int kBf16AheadTiles = 8;  // how far ahead weights are asked for

// Inputs are in tiles of 16 tokens (the last has fewer); in each, per 32 inputs, [16 pairs][token][2].
LLM_INLINE uint8_t* bf16_tile(const Activations& x, int64_t token) {
  return static_cast<uint8_t*>(const_cast<void*>(x.storage)) + token * row_stride(x.cols) * sizeof(uint16_t);
}

static void prepare_bf16_tiles(Member& member, const float* x, int64_t x_stride, const Activations& to) {
  constexpr int64_t kSlice = 64;  // tile products in one task
  const int64_t steps = parts_of(to.cols, kTileCols), slices = parts_of(steps, kSlice);
  member.each(slices * parts_of(to.tokens, kTileTokens), [&](int64_t task) {
    const int64_t token = task / slices * kTileTokens, begin = task % slices * kSlice;
    const int32_t tokens = at_most(to.tokens - token, kTileTokens);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(tokens));
    for (int64_t step = begin; step < begin + kSlice && step < steps; ++step) {
      uint8_t* const tile = bf16_tile(to, token) + step * kTileCols * tokens * sizeof(uint16_t);
      const int64_t col = step * kTileCols;
      const uint32_t there = to.cols - col >= kTileCols ? ~0u : (1u << (to.cols - col)) - 1;
      for (int32_t t = 0; t < tokens; ++t) {
        const float* const from = x + (token + t) * x_stride + col;
        const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(there), from);
        const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(there >> 16), from + 16);
        const __m512i pairs = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        _mm512_i32scatter_epi32(tile + t * kTilePairBytes, places, pairs, kTilePairBytes);
      }
    }
  });
}

// Tiles 0 .. 3: sums, 4: weights, 5: inputs.
static void configure_bf16(TileState& tiles, int rows, int tokens) {
  const TileShape sums{rows, tokens * kTilePairBytes}, weights{rows, 64}, inputs{16, tokens * kTilePairBytes};
  const TileShape shapes[] = {sums, sums, sums, sums, weights, inputs};
  tiles.configure(rows * 32 + tokens, shapes, 6);
}

struct Bf16Strip {
  const uint16_t* weights;  // the first row of the strip
  int64_t bytes;            // of a row
  int32_t rows, cols;
};

// The weights of one tile product: in place, or where the row ends within it a copy that ends in zeros.
struct Bf16Weights {
  alignas(64) uint16_t padded[kStripRows][kTileCols];
  const uint16_t* at;
  int64_t stride;

  void find(const Bf16Strip& strip, int64_t col) {
    const int64_t rest = strip.cols - col;
    at = strip.weights + col;
    stride = strip.bytes;
    if (rest >= kTileCols) return;
    memset(padded, 0, sizeof(padded));
    for (int r = 0; r < strip.rows; ++r) memcpy(padded[r], at + r * strip.cols, rest * sizeof(uint16_t));
    at = padded[0];
    stride = sizeof(padded[0]);
    LLM_AMX_BARRIER();
  }
};

// Sums of up to kCount tiles of `tokens` tokens each; sums: [kCount][16 outputs][tokens].
template <int kCount>
static void bf16_products(const Bf16Strip& strip, const uint8_t* inputs, int64_t tile_bytes, int tokens, float* sums) {
  Bf16Weights weights;
  const int64_t row_bytes = tokens * kTilePairBytes;
  LLM_AMX_BARRIER();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t col = 0; col < strip.cols; col += kTileCols, inputs += 16 * row_bytes) {
    weights.find(strip, col);
    for (int r = 0; r < kStripRows; ++r) {
      __builtin_prefetch(strip.weights + r * strip.cols + col + kBf16AheadTiles * kTileCols);
    }
    _tile_loadd(4, weights.at, weights.stride);
    _tile_loadd(5, inputs, row_bytes);
    _tile_dpbf16ps(0, 4, 5);
    if (kCount < 2) continue;
    _tile_loadd(5, inputs + tile_bytes, row_bytes);
    _tile_dpbf16ps(1, 4, 5);
    if (kCount < 3) continue;
    _tile_loadd(5, inputs + 2 * tile_bytes, row_bytes);
    _tile_dpbf16ps(2, 4, 5);
    if (kCount < 4) continue;
    _tile_loadd(5, inputs + 3 * tile_bytes, row_bytes);
    _tile_dpbf16ps(3, 4, 5);
  }
  const int64_t size = kStripRows * tokens;
  _tile_stored(0, sums, row_bytes);
  if (kCount > 1) _tile_stored(1, sums + size, row_bytes);
  if (kCount > 2) _tile_stored(2, sums + 2 * size, row_bytes);
  if (kCount > 3) _tile_stored(3, sums + 3 * size, row_bytes);
}

// sums: [16 outputs][16 tokens]; out: [16 tokens][16 outputs]. Swaps blocks of 1, 2, 4, then 8.
static void transpose(const float* sums, StripRow* out) {
  Floats v[kStripRows];
  for (int i = 0; i < kStripRows; ++i) v[i] = load<Floats>(sums + i * kStripRows);
#pragma GCC unroll 4
  for (int block = 1; block < kStripRows; block *= 2) {
    Ints lower, upper;
    for (int j = 0; j < kStripRows; ++j) {
      lower[j] = j & block ? 16 + (j ^ block) : j;
      upper[j] = j & block ? 16 + j : j ^ block;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kStripRows; ++i) {
      if (i & block) continue;
      const __m512 a = v[i], b = v[i + block];
      v[i] = _mm512_permutex2var_ps(a, (__m512i)lower, b);
      v[i + block] = _mm512_permutex2var_ps(a, (__m512i)upper, b);
    }
  }
  for (int i = 0; i < kStripRows; ++i) store(out[i], v[i]);
}

// As row_strip.
static void amx_bf16_strip(const LlmLinear& linear, int64_t index, const Activations& x, int32_t first, int32_t count,
                           StripRow* out) {
  const int64_t row = index * kStripRows;
  const Bf16Strip strip{static_cast<const uint16_t*>(linear.weights) + row * linear.cols,
                        linear.cols * static_cast<int64_t>(sizeof(uint16_t)), at_most(linear.rows - row, kStripRows),
                        linear.cols};
  const int64_t tile_bytes = kTileTokens * row_stride(x.cols) * sizeof(uint16_t);
  alignas(64) float sums[kSharingTiles][kStripRows * kTileTokens];
  TileState tiles;
  int32_t token = 0;
  while (token + kTileTokens <= count) {
    const int32_t some = at_most((count - token) / kTileTokens, kSharingTiles);
    configure_bf16(tiles, strip.rows, kTileTokens);
    const auto products = some == 4   ? bf16_products<4>
                          : some == 3 ? bf16_products<3>
                          : some == 2 ? bf16_products<2>
                                      : bf16_products<1>;
    products(strip, bf16_tile(x, first + token), tile_bytes, kTileTokens, sums[0]);
    for (int32_t i = 0; i < some; ++i, token += kTileTokens) transpose(sums[i], out + token);
  }
  const int32_t rest = count - token;
  if (rest == 0) return;
  configure_bf16(tiles, strip.rows, rest);
  bf16_products<1>(strip, bf16_tile(x, first + token), 0, rest, sums[0]);
  for (int32_t t = 0; t < rest; ++t) {
    for (int r = 0; r < strip.rows; ++r) out[token + t][r] = sums[0][r * rest + t];
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
