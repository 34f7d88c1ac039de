// Low-bit weights: the packed layout, and how a matrix becomes one.
//
// A matrix is a row of strips of 16 outputs, a strip a row of blocks of 64 inputs, a block two groups of 32 inputs:
//
//   Q8 block, 1,088 bytes:  512 bytes of group 0, 512 of group 1, then 16 half scales of group 0, 16 of group 1
//   Q4 block,   576 bytes:  256 bytes of group 0, 256 of group 1, then the same scales
//
// A group's quants are 64-byte lines of 16 outputs x 4 bytes. Q8: line i holds inputs 4i .. 4i + 3. Q4: line i holds
// inputs 4i .. in the low nibbles and 16 + 4i .. in the high ones. Quants are unsigned, their zero is 128 or 8; a
// weight is (quant - zero) * scale. What pads a matrix to whole strips and blocks is zero.
//
// Q8 rounds to the nearest of 255 steps of max/127. Q4 tries several scales that put the largest weight of a group
// near -8, improves each by least squares, and keeps the one with the least squared error.
#pragma once
#include <stddef.h>

#include <atomic>

#include "block_layout.h"
#include "parallel.h"
#include "simd.h"

namespace llm {
namespace LLM_VARIANT {

// One strip's columns of one block as float32, transposed; what the matrix does not have is zero.
typedef float BlockTile[kBlockCols][kStripRows];

struct PackSource {
  const void* weights;
  int32_t dtype;
  int64_t row_stride;
  int32_t rows, cols;
};

LLM_INLINE float read(const float* from) { return *from; }
struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};
LLM_INLINE float read(const Bf16* from) { return from_bf16(from->bits); }
LLM_INLINE float read(const Half* from) { return from_half(from->bits); }

template <class Element>
static void read_block(const PackSource& source, int64_t strip, int64_t block, BlockTile tile) {
  const int64_t row = strip * kStripRows, col = block * kBlockCols;
  const int num_rows = static_cast<int>(source.rows - row < kStripRows ? source.rows - row : kStripRows);
  const int num_cols = static_cast<int>(source.cols - col < kBlockCols ? source.cols - col : kBlockCols);
  if (num_rows < kStripRows || num_cols < kBlockCols) memset(tile, 0, sizeof(BlockTile));
  const Element* from = static_cast<const Element*>(source.weights) + row * source.row_stride + col;
  for (int r = 0; r < num_rows; ++r, from += source.row_stride) {
    for (int c = 0; c < num_cols; ++c) tile[c][r] = read(from + c);
  }
}

// Where the largest weight of a group may lie on the 4-bit scale. With these five the relative error on gaussian
// weights is 0.0812; fourteen reach 0.0809, the plain rule (only -8, no least squares) 0.0860.
constexpr float kFourBitTrials[] = {-7.0f, -7.5f, -8.0f, -8.5f, -9.0f};

LLM_INLINE Ints four_bits(Floats x) { return max(splat_int(-8), min(splat_int(7), round_to_ints(x))); }

// The scale of one group of each lane. `group`: 32 inputs of kLanes outputs, kStripRows apart; `extreme`: the input
// of the largest magnitude, or 1 where all are zero.
static Floats four_bit_scale(const float* group, Floats extreme) {
  Floats best_gain = splat(-1.0f), best_scale = splat(0.0f);
  const Floats one_over_extreme = 1.0f / extreme;
  for (const float trial : kFourBitTrials) {
    const Floats inverse = one_over_extreme * trial;
    Floats x_dot_q = splat(0.0f), q_dot_q = splat(0.0f);
    for (int c = 0; c < kGroupCols; ++c) {
      const Floats x = load<Floats>(group + c * kStripRows) * inverse;  // in steps, so that no square overflows
      const Floats q = to_floats(four_bits(x));
      x_dot_q += x * q;  // not fma: every variant packs the same bytes
      q_dot_q += q * q;
    }
    // The best scale for these quants is x.q / q.q; it leaves x.x - (x.q)^2 / q.q of the squares. In one unit for
    // all trials, that is a gain of:
    const Floats steps = x_dot_q / q_dot_q;
    const Floats gain = x_dot_q * steps / (trial * trial);
    const auto better = gain > best_gain;
    best_gain = better ? gain : best_gain;
    best_scale = better ? steps * (extreme / trial) : best_scale;
  }
  return best_scale;
}

// Packs kLanes outputs of one group. False: a weight is not finite; `too_large` is set where a scale is.
template <int kKind>
static bool pack_group(const float* group, uint8_t* lines, uint16_t* scales, bool& too_large) {
  Floats largest = splat(0.0f), extreme = splat(0.0f);
  Ints largest_bits = splat_int(0);
  for (int c = 0; c < kGroupCols; ++c) {
    const Floats x = load<Floats>(group + c * kStripRows);
    const Ints bits = (Ints)x & 0x7fffffff;
    const auto larger = bits > largest_bits;
    largest_bits = larger ? bits : largest_bits;
    extreme = larger ? x : extreme;
  }
  largest = (Floats)largest_bits;
  for (int r = 0; r < kLanes; ++r) {
    if (largest_bits[r] >= 0x7f800000) return false;
    // Past this, no half can be the scale.
    if (largest[r] > 65504.0f * (kKind == LLM_Q4 ? 7 : 127)) too_large = true;
  }
  if (too_large) return true;
  // Half of the smallest half, 2^-25: such a group is zero, and a division by its extreme could overflow.
  const auto nothing = largest < splat(2.9802322e-8f);
  extreme = nothing ? splat(1.0f) : extreme;
  const Floats scale = kKind == LLM_Q4 ? four_bit_scale(group, extreme) : largest / 127.0f;
  // Least squares can want a little more than the largest half.
  const Floats limit = splat(65504.0f);
  Words half = to_halves(scale > limit ? limit : scale < -limit ? -limit : scale);
  half = nothing ? Words{} : half;
  for (int r = 0; r < kLanes; ++r) scales[r] = static_cast<uint16_t>(half[r]);
  // Quants for the scale that will be multiplied with, not for the one before rounding.
  const Floats inverse = nothing ? splat(0.0f) : 1.0f / from_halves(scales);
  const auto quant = [&](int c) {
    const Floats x = load<Floats>(group + c * kStripRows) * inverse;
    const Ints q = kKind == LLM_Q4 ? four_bits(x) : max(splat_int(-127), min(splat_int(127), round_to_ints(x)));
    return q + zero_point(kKind);
  };
  for (int i = 0; i < group_bytes(kKind) / kLineBytes; ++i) {
    Ints line = splat_int(0);
    for (int k = 0; k < 4; ++k) {
      Ints byte = quant(4 * i + k);
      if (kKind == LLM_Q4) byte |= quant(16 + 4 * i + k) << 4;
      line |= byte << 8 * k;
    }
    store(lines + i * kLineBytes, line);
  }
  return true;
}

template <int kKind>
static bool pack_block(const BlockTile tile, uint8_t* block, bool& too_large) {
  uint16_t* const scales = reinterpret_cast<uint16_t*>(block + 2 * group_bytes(kKind));
  bool finite = true;
  for (int g = 0; g < 2; ++g) {
    for (int lane = 0; lane < kStripRows; lane += kLanes) {
      finite &= pack_group<kKind>(&tile[g * kGroupCols][lane], block + g * group_bytes(kKind) + 4 * lane,
                                  scales + g * kStripRows + lane, too_large);
    }
  }
  return finite;
}

template <int kKind, class Element>
static int32_t pack_matrix(const PackSource& source, uint8_t* packed, int32_t threads) {
  const int64_t strips = strips_of(source.rows), blocks = blocks_of(source.cols);
  std::atomic<int32_t> status{LLM_OK};
  parallel_region(threads, [&](Member& member) {
    member.each(strips, [&](int64_t strip) {
      alignas(64) BlockTile tile;
      bool finite = true, too_large = false;
      for (int64_t block = 0; block < blocks && finite && !too_large; ++block) {
        read_block<Element>(source, strip, block, tile);
        finite = pack_block<kKind>(tile, packed + (strip * blocks + block) * block_bytes(kKind), too_large);
      }
      if (!finite) status.store(LLM_NOT_FINITE);
      if (finite && too_large) {
        int32_t fine = LLM_OK;
        status.compare_exchange_strong(fine, LLM_BAD_ARGUMENT);
      }
    });
  });
  return status.load();
}

template <int kKind>
static int32_t pack_kind(const PackSource& source, uint8_t* packed, int32_t threads) {
  switch (source.dtype) {
    case LLM_DTYPE_F32: return pack_matrix<kKind, float>(source, packed, threads);
    case LLM_DTYPE_BF16: return pack_matrix<kKind, Bf16>(source, packed, threads);
    case LLM_DTYPE_F16: return pack_matrix<kKind, Half>(source, packed, threads);
    default: return LLM_BAD_ARGUMENT;
  }
}

// See abi.h. LLM_NOT_FINITE: some weight is infinite or not a number. LLM_BAD_ARGUMENT: an unknown kind or dtype, or
// weights so large (beyond 4e5 at 4 bits, 8e6 at 8) that no half can scale them. `packed` is then half written.
static int32_t pack(int32_t kind, const void* source, int32_t dtype, int64_t row_stride, int32_t rows, int32_t cols,
                    void* packed, int32_t threads) {
  const PackSource matrix{source, dtype, row_stride, rows, cols};
  uint8_t* const to = static_cast<uint8_t*>(packed);
  if (kind == LLM_Q4) return pack_kind<LLM_Q4>(matrix, to, threads);
  if (kind == LLM_Q8) return pack_kind<LLM_Q8>(matrix, to, threads);
  return LLM_BAD_ARGUMENT;
}

// One row of a packed matrix as the numbers that linear layers multiply with, times `factor`; out: [cols].
template <int kKind>
static void unpack_row(const uint8_t* packed, int32_t row, int32_t cols, float factor, float* out) {
  const uint8_t* block = packed + row / kStripRows * blocks_of(cols) * block_bytes(kKind);
  const int r = row % kStripRows;
  for (int32_t col = 0; col < cols; ++col) {
    const int32_t at = col % kBlockCols, g = at / kGroupCols, c = at % kGroupCols;
    if (at == 0 && col > 0) block += block_bytes(kKind);
    const uint8_t* const lines = block + g * group_bytes(kKind) + 4 * r;
    const int quant = kKind == LLM_Q8 ? lines[c / 4 * kLineBytes + c % 4]
                                      : lines[c % 16 / 4 * kLineBytes + c % 4] >> (c / 16 * 4) & 15;
    uint16_t scale;
    memcpy(&scale, block + 2 * group_bytes(kKind) + 2 * (g * kStripRows + r), 2);
    out[col] = static_cast<float>(quant - zero_point(kKind)) * from_half(scale) * factor;
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
