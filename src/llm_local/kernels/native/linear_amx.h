// Packed weights times many quantized tokens by AMX tiles, in the arithmetic (and so the bits) of linear_packed.h.
//
// One tile product is 16 tokens x 32 inputs by 32 inputs x 16 outputs: one group, exact in int32. The groups' products
// are then scaled and summed in order by AVX-512. Weights become signed bytes first, so no zero needs correction.
#pragma once
#include "activations.h"
#include "amx_tiles.h"

namespace llm {
namespace LLM_VARIANT {

// From here on tiles win over VNNI.
constexpr int kAmxTokens = 16;
// A strip's groups that are unpacked at once.
constexpr int kAmxGroups = 32;
// Groups whose dot products wait in the first cache to be scaled.
constexpr int kAmxLead = 8;
constexpr int kLinesPerGroup = kGroupCols / 4;

// Tiles 0 and 1: dot products, 2 and 3: tokens, 4 and 5: weights.
static void configure_int8(TileState& tiles, int tokens) {
  const TileShape dots{tokens, kLineBytes}, inputs{tokens, kGroupCols}, weights{kLinesPerGroup, kLineBytes};
  const TileShape shapes[] = {dots, dots, inputs, inputs, weights, weights};
  tiles.configure(tokens, shapes, 6);
}

// A strip's groups with signed quants and float32 scales.
struct AmxWeights {
  alignas(64) uint8_t lines[kAmxGroups][kLinesPerGroup * kLineBytes];
  alignas(64) float scales[kAmxGroups][kStripRows];
};

template <int kKind>
static void unpack_for_amx(const uint8_t* block, int groups, AmxWeights& to) {
  for (int group = 0; group < groups; group += 2, block += block_bytes(kKind)) {
    for (int g = 0; g < 2; ++g) {
      const uint8_t* const from = block + g * group_bytes(kKind);
      uint8_t* const lines = to.lines[group + g];
      for (int i = 0; i < group_bytes(kKind) / kLineBytes; ++i) {
        const __m512i line = load<__m512i>(from + i * kLineBytes);
        if (kKind == LLM_Q8) {
          store(lines + i * kLineBytes, _mm512_xor_si512(line, _mm512_set1_epi8(-128)));
        } else {
          const __m512i mask = _mm512_set1_epi8(15), zero = _mm512_set1_epi8(8);
          const __m512i low = _mm512_and_si512(line, mask);
          const __m512i high = _mm512_and_si512(_mm512_srli_epi16(line, 4), mask);
          store(lines + i * kLineBytes, _mm512_sub_epi8(low, zero));
          store(lines + (i + 4) * kLineBytes, _mm512_sub_epi8(high, zero));
        }
      }
      const uint16_t* const scales = reinterpret_cast<const uint16_t*>(block + 2 * group_bytes(kKind));
      store(to.scales[group + g], from_halves(scales + g * kStripRows));
    }
  }
}

typedef int32_t AmxDots[kTileTokens][kStripRows];

// Tile numbers are part of the instruction: a macro, for compilers that paste them into assembly.
#define LLM_AMX_GROUP(dots_tile, token_tile, weight_tile, group, to)  \
  do {                                                                \
    _tile_loadd(token_tile, x.quants + (group) * stride, kGroupCols); \
    _tile_loadd(weight_tile, weights.lines[group], kLineBytes);       \
    _tile_zero(dots_tile);                                            \
    _tile_dpbssd(dots_tile, token_tile, weight_tile);                 \
    _tile_stored(dots_tile, to, kLineBytes);                          \
  } while (false)

// The dot products of two groups.
LLM_INLINE void amx_products(const AmxWeights& weights, int group, const QuantTile& x, AmxDots* dots) {
  const int64_t stride = static_cast<int64_t>(x.tokens) * kGroupCols;
  LLM_AMX_GROUP(0, 2, 4, group, dots[0]);
  LLM_AMX_GROUP(1, 3, 5, group + 1, dots[1]);
}

// Adds them to the totals of kTokens tokens. What it sums where the tile has fewer is never read.
template <int kTokens>
LLM_INLINE void amx_add(const AmxWeights& weights, int group, const QuantTile& x, const AmxDots* dots, Floats* totals) {
  for (int g = 0; g < 2; ++g) {
    const Floats scale = load<Floats>(weights.scales[group + g]);
    const float* const input_scales = x.scales + (group + g) * static_cast<int64_t>(x.tokens);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      totals[t] = fma(to_floats(load<Ints>(dots[g][t])), scale * input_scales[t], totals[t]);
    }
  }
}

// Adds the products of `groups` groups (an even number) with a tile of up to kTokens tokens to `out`. A pair of groups
// is added while tiles work at a later one: both units are busy, and nobody waits for a store to arrive.
template <int kTokens>
static void amx_tile(const AmxWeights& weights, int groups, const QuantTile& x, AmxDots* dots, StripRow* out) {
  Floats totals[kTokens];
  for (int t = 0; t < kTokens; ++t) totals[t] = load<Floats>(out[t]);
  LLM_AMX_BARRIER();
  const int lead = groups < kAmxLead ? groups : kAmxLead;
  for (int group = 0; group < lead; group += 2) amx_products(weights, group, x, dots + group);
  for (int group = lead; group < groups; group += 2) {
    AmxDots* const pair = dots + group % kAmxLead;
    amx_add<kTokens>(weights, group - lead, x, pair, totals);
    amx_products(weights, group, x, pair);
  }
  for (int group = groups - lead; group < groups; group += 2) {
    amx_add<kTokens>(weights, group, x, dots + group % kAmxLead, totals);
  }
  for (int t = 0; t < kTokens; ++t) store(out[t], totals[t]);
}

// As packed_strip. `out` has room for whole tiles of tokens.
template <int kKind>
static void amx_strip(const LlmLinear& linear, int64_t strip, const Activations& x, int32_t first, int32_t count,
                      StripRow* out) {
  const int64_t blocks = blocks_of(linear.cols);
  const uint8_t* const packed = static_cast<const uint8_t*>(linear.weights) + strip * blocks * block_bytes(kKind);
  AmxWeights weights;
  alignas(64) AmxDots dots[kAmxLead];
  TileState tiles;
  memset(out, 0, parts_of(count, kTileTokens) * kTileTokens * sizeof(StripRow));
  for (int64_t block = 0; block < blocks; block += kAmxGroups / 2) {
    const int groups = 2 * at_most(blocks - block, kAmxGroups / 2);
    unpack_for_amx<kKind>(packed + block * block_bytes(kKind), groups, weights);
    // What is unpacked next (this strip goes on, or the next one begins) comes in while this is multiplied.
    const int64_t bytes = groups / 2 * block_bytes(kKind);
    const uint8_t* next = packed + block * block_bytes(kKind) + bytes;
    const int64_t share = bytes / parts_of(count, kTileTokens) + 64;
    for (int32_t token = 0; token < count; token += kTileTokens, next += share) {
      for (int64_t at = 0; at < share; at += 64) __builtin_prefetch(next + at, 0, 2);
      const QuantTile tile = quant_tile(x, (first + token) / kTileTokens);
      configure_int8(tiles, tile.tokens);
      const QuantTile part = tile.from(2 * block, 0);
      const auto multiply = tile.tokens <= 4 ? amx_tile<4> : tile.tokens <= 8 ? amx_tile<8> : amx_tile<16>;
      multiply(weights, groups, part, dots, out + token);
    }
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
