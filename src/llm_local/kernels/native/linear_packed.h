// Packed weights times quantized inputs, one strip of 16 outputs at a time.
//
// Per token and output: for each group in order, the exact int32 dot product, then sum = fma(dot, weight_scale *
// input_scale, sum). Every kernel keeps this, so all give the same bits.
#pragma once
#include "activations.h"
#include "dot.h"
#if defined(__AMX_INT8__)
#include "linear_amx.h"
#endif

namespace llm {
namespace LLM_VARIANT {

// Tokens whose sums stay in registers.
#if defined(__AVX512F__)
constexpr int kRegisterTokens = 8;
#else
constexpr int kRegisterTokens = 2;
#endif
// A strip's blocks that are unpacked at once for many tokens; with a few tokens' inputs they stay in the first cache.
constexpr int kChunkBlocks = 16;
LLM_INLINE Ints inputs_at(const int8_t* quants) {
  int32_t four;
  memcpy(&four, quants, 4);
  return splat_int(four);
}

// Multiplies kTokens tokens with consecutive blocks of one strip; `resume`: on top of what `out` holds. kWide: the
// quants of Q4 weights, unpacked into blocks that look like Q8's.
template <int kKind, bool kWide, int kTokens>
static void multiply(const uint8_t* block, int64_t blocks, QuantTile x, bool resume, StripRow* out) {
  typedef Dot<kKind> D;
  constexpr int kVectors = kStripRows / kLanes, kStored = kWide ? LLM_Q8 : kKind;
  Floats sums[kTokens][kVectors];
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kVectors; ++v) sums[t][v] = resume ? load<Floats>(&out[t][v * kLanes]) : splat(0.0f);
  }
  for (; blocks > 0; --blocks, block += block_bytes(kStored)) {
    if (!kWide) {
      for (int at = 0; at < block_bytes(kStored); at += 64) __builtin_prefetch(block + kPrefetchBytes + at);
    }
    for (int g = 0; g < 2; ++g, x = x.from(1, 0)) {
      typename D::Sum dots[kTokens][kVectors];
      for (int t = 0; t < kTokens; ++t) {
        for (int v = 0; v < kVectors; ++v) dots[t][v] = D::begin(x.starts[t]);
      }
      const uint8_t* const lines = block + g * group_bytes(kStored);
      for (int i = 0; i < group_bytes(kStored) / kLineBytes; ++i) {
        for (int v = 0; v < kVectors; ++v) {
          const Ints line = load<Ints>(lines + i * kLineBytes + v * kLanes * 4);
          const auto low = D::weights(kStored == LLM_Q4 ? line & 0x0f0f0f0f : line);
          for (int t = 0; t < kTokens; ++t) {
            dots[t][v] = D::add(dots[t][v], low, inputs_at(x.quants + t * kGroupCols + 4 * i));
          }
          if (kStored == LLM_Q8) continue;
          const auto high = D::weights((Ints)((Words)line >> 4) & 0x0f0f0f0f);
          for (int t = 0; t < kTokens; ++t) {
            dots[t][v] = D::add(dots[t][v], high, inputs_at(x.quants + t * kGroupCols + 16 + 4 * i));
          }
        }
      }
      const uint16_t* const scales =
          reinterpret_cast<const uint16_t*>(block + 2 * group_bytes(kStored)) + g * kStripRows;
      for (int v = 0; v < kVectors; ++v) {
        const Floats scale = from_halves(scales + v * kLanes);
        for (int t = 0; t < kTokens; ++t) {
          sums[t][v] = fma(to_floats(D::end(dots[t][v], x.starts[t])), scale * x.scales[t], sums[t][v]);
        }
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kVectors; ++v) store(&out[t][v * kLanes], sums[t][v]);
  }
}

// multiply for a number of tokens known only at run time, at most kTokens.
template <int kKind, bool kWide, int kTokens = kRegisterTokens>
static void multiply_some(int32_t tokens, const uint8_t* block, int64_t blocks, QuantTile x, bool resume,
                          StripRow* out) {
  if constexpr (kTokens > 1) {
    if (tokens < kTokens) return multiply_some<kKind, kWide, kTokens - 1>(tokens, block, blocks, x, resume, out);
  }
  multiply<kKind, kWide, kTokens>(block, blocks, x, resume, out);
}

// Q4 blocks as blocks that look like Q8's; the zero stays 8.
static void widen(const uint8_t* block, int64_t blocks, uint8_t* wide) {
  for (; blocks > 0; --blocks, block += block_bytes(LLM_Q4), wide += block_bytes(LLM_Q8)) {
    for (int at = 0; at < block_bytes(LLM_Q4); at += 64) __builtin_prefetch(block + kPrefetchBytes + at);
    for (int line = 0; line < 8; ++line) {
      const int low_line = line / 4 * 8 + line % 4;
      for (int at = 0; at < kLineBytes; at += kLanes * 4) {
        const Words pairs = load<Words>(block + line * kLineBytes + at);
        store(wide + low_line * kLineBytes + at, pairs & 0x0f0f0f0f);
        store(wide + (low_line + 4) * kLineBytes + at, pairs >> 4 & 0x0f0f0f0f);
      }
    }
    memcpy(wide + 2 * group_bytes(LLM_Q8), block + 2 * group_bytes(LLM_Q4), 2 * kStripRows * sizeof(uint16_t));
  }
}

// One strip of outputs of the tokens [first, first + count); `first` is a multiple of kTileTokens. out: [count].
template <int kKind>
static void packed_strip(const LlmLinear& linear, int64_t strip, const Activations& x, int32_t first, int32_t count,
                         StripRow* out) {
#if defined(__AMX_INT8__)
  if (count >= kAmxTokens) return amx_strip<kKind>(linear, strip, x, first, count, out);
#endif
  const int64_t blocks = blocks_of(linear.cols);
  const uint8_t* const packed = static_cast<const uint8_t*>(linear.weights) + strip * blocks * block_bytes(kKind);
  if (count <= kRegisterTokens) {
    return multiply_some<kKind, false>(count, packed, blocks, quant_tile(x, first / kTileTokens), false, out);
  }
  alignas(64) uint8_t wide[kChunkBlocks * block_bytes(LLM_Q8)];
  int64_t block = 0;
  do {  // once even without inputs: the sums are zeros then
    const int32_t chunk = at_most(blocks - block, kChunkBlocks);
    const uint8_t* const from = packed + block * block_bytes(kKind);
    if (kKind == LLM_Q4) widen(from, chunk, wide);
    for (int32_t token = 0; token < count; token += kRegisterTokens) {
      const QuantTile tile = quant_tile(x, (first + token) / kTileTokens).from(2 * block, token % kTileTokens);
      multiply_some<kKind, kKind == LLM_Q4>(at_most(count - token, kRegisterTokens), kKind == LLM_Q4 ? wide : from,
                                            chunk, tile, block > 0, out + token);
    }
    block += kChunkBlocks;
  } while (block < blocks);
}

}  // namespace LLM_VARIANT
}  // namespace llm
