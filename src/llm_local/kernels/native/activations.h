// The inputs of linear layers in the form that a kind of weights multiplies with.
//
// Q8 and Q4: int8 per token and group of 32 inputs, x = quant * scale with scale = max/127. In tiles of 16 tokens (the
// last has fewer), a tile's groups one after the other: quants [group][token][32], scales [group][token], and starts
// [group][token] = -zero * (sum of the quants), where a dot product with unsigned weights begins. An input that is not
// finite makes its group's scale NaN, and with it every output of that token.
// BF16: [tokens, cols] rounded to bf16, as RowBf16 (below). F32: the same in float32. Rows end in zeros up to a
// multiple of kRowPad.
#pragma once
#include "elements.h"
#include "packing.h"

namespace llm {
namespace LLM_VARIANT {

constexpr int kTileTokens = 16;
constexpr int kRowPad = 32;
// How far ahead weights are asked for: about memory's latency times one core's bandwidth.
constexpr int kPrefetchBytes = 1536;

typedef float StripRow[kStripRows];  // one token's outputs of a strip

// Inputs of a linear; made by prepare (linear.h), read by linears and gated.
struct Activations {
  int32_t kind;
  int32_t tokens;
  int32_t cols;
  const void* storage;
};

LLM_INLINE int64_t parts_of(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
LLM_INLINE int32_t at_most(int64_t n, int32_t limit) { return n < limit ? static_cast<int32_t>(n) : limit; }
LLM_INLINE bool is_packed(int32_t kind) { return kind == LLM_Q8 || kind == LLM_Q4; }

// Where the quants of a tile are, from some group and token on.
struct QuantTile {
  int8_t* quants;
  float* scales;
  int32_t* starts;
  int32_t tokens;  // of the whole tile: a group's stride

  QuantTile from(int64_t group, int64_t token) const {
    const int64_t at = group * tokens + token;
    return {quants + at * kGroupCols, scales + at, starts + at, tokens};
  }
};

LLM_INLINE QuantTile quant_tile(const Activations& x, int64_t tile) {
  const int64_t groups = 2 * blocks_of(x.cols), tokens = x.tokens, first = tile * kTileTokens * groups;
  int8_t* const quants = static_cast<int8_t*>(const_cast<void*>(x.storage));
  float* const scales = reinterpret_cast<float*>(quants + tokens * groups * kGroupCols);
  int32_t* const starts = reinterpret_cast<int32_t*>(scales + tokens * groups);
  const int32_t in_tile = at_most(tokens - tile * kTileTokens, kTileTokens);
  return {quants + first * kGroupCols, scales + first, starts + first, in_tile};
}

// A row-major kind's inputs as they are multiplied with: bf16 where the hardware multiplies bf16.
#if defined(__AVX512BF16__)
typedef uint16_t RowBf16;
LLM_INLINE void put_bf16(RowBf16* to, Floats x) { store_floats(to, x); }
#else
typedef float RowBf16;
LLM_INLINE void put_bf16(RowBf16* to, Floats x) {
  uint16_t rounded[kLanes];
  store_floats(rounded, x);
  store(to, load_floats(rounded));
}
#endif

LLM_INLINE int64_t row_stride(int32_t cols) { return parts_of(cols, kRowPad) * kRowPad; }

static inline size_t activation_bytes(int32_t kind, int32_t cols, int32_t tokens) {
  if (kind == LLM_F32) return static_cast<size_t>(tokens) * row_stride(cols) * sizeof(float);
  if (kind == LLM_BF16) return static_cast<size_t>(tokens) * row_stride(cols) * sizeof(RowBf16);
  const size_t groups = static_cast<size_t>(tokens) * 2 * blocks_of(cols);
  return groups * (kGroupCols + sizeof(float) + sizeof(int32_t)) + kTileTokens * sizeof(float);  // AMX reads past
}

#if defined(__AVX512F__)
LLM_INLINE int32_t largest_of(Ints v) { return _mm512_reduce_max_epi32((__m512i)v); }
LLM_INLINE int32_t sum_of(Ints v) { return _mm512_reduce_add_epi32((__m512i)v); }
#else
LLM_INLINE int32_t largest_of(Ints v) {
  int32_t largest = v[0];
  for (int i = 1; i < kLanes; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

LLM_INLINE int32_t sum_of(Ints v) {
  int32_t sum = v[0];
  for (int i = 1; i < kLanes; ++i) sum += v[i];
  return sum;
}
#endif

typedef int8_t Bytes __attribute__((vector_size(kLanes)));

// Quantizes one group of one token.
LLM_INLINE void quantize(const float* x, int32_t zero, const QuantTile& to) {
  Ints bits = splat_int(0);
  for (int c = 0; c < kGroupCols; c += kLanes) bits = max(bits, load<Ints>(x + c) & 0x7fffffff);
  const int32_t largest_bits = largest_of(bits);
  const float largest = float_of_bits(largest_bits);
  const bool finite = largest_bits < 0x7f800000;
  // Below this a group is zero: 127 / largest stays finite.
  const bool nothing = !finite || largest < 1e-30f;
  const Floats inverse = splat(nothing ? 0.0f : 127.0f / largest);
  Ints sum = splat_int(0);
  for (int c = 0; c < kGroupCols; c += kLanes) {
    const Ints quant = round_to_ints(nothing ? splat(0.0f) : load<Floats>(x + c) * inverse);
    store(to.quants + c, __builtin_convertvector(quant, Bytes));
    sum += quant;
  }
  *to.scales = !finite ? float_of_bits(0x7fc00000) : nothing ? 0.0f : largest / 127.0f;
  *to.starts = -zero * sum_of(sum);
}

static void prepare_quants(Member& member, const float* x, int64_t x_stride, const Activations& to) {
  constexpr int64_t kSlice = 64;  // groups in one task
  const int64_t groups = 2 * blocks_of(to.cols), slices = parts_of(groups, kSlice);
  member.each(slices * parts_of(to.tokens, kTileTokens), [&](int64_t task) {
    const int64_t first = task % slices * kSlice, tile_index = task / slices;
    const int64_t last = first + kSlice < groups ? first + kSlice : groups;
    const QuantTile tile = quant_tile(to, tile_index);
    const int32_t zero = zero_point(to.kind);
    for (int32_t token = 0; token < tile.tokens; ++token) {
      const float* const row = x + (tile_index * kTileTokens + token) * x_stride;
      for (int64_t group = first; group < last; ++group) {
        const int64_t col = group * kGroupCols, rest = to.cols - col;
        if (rest >= kGroupCols) {
          quantize(row + col, zero, tile.from(group, token));
        } else {
          float padded[kGroupCols] = {};
          if (rest > 0) memcpy(padded, row + col, rest * sizeof(float));
          quantize(padded, zero, tile.from(group, token));
        }
      }
    }
  });
}

template <class Element, class Put>
static void prepare_rows(Member& member, const float* x, int64_t x_stride, const Activations& to, Put put) {
  Element* const rows = static_cast<Element*>(const_cast<void*>(to.storage));
  const int64_t stride = row_stride(to.cols);
  member.each(to.tokens, [&](int64_t token) {
    const float* const from = x + token * x_stride;
    Element* const row = rows + token * stride;
    for (int64_t c = 0; c < stride; c += kLanes) {
      put(row + c, c < to.cols ? load_rest(from + c, to.cols - c) : splat(0.0f));
    }
  });
}

}  // namespace LLM_VARIANT
}  // namespace llm
