// Keys and values of a few positions, brought from their store into float32 tiles that products run over.
#pragma once
#include <utility>

#include "elements.h"

namespace llm {
namespace LLM_VARIANT {

constexpr int kTileKeys = 32;

typedef Words Square[kLanes];

// a[0] b[0] a[1] b[1] ... of the first (kHalf 0) or second half of two vectors.
template <int kHalf, int... kLane>
LLM_INLINE Words interleave(Words a, Words b, std::integer_sequence<int, kLane...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, (kLane / 2 + kHalf * kLanes / 2 + kLane % 2 * kLanes)...);
#else
  const Ints from = {(kLane / 2 + kHalf * kLanes / 2 + kLane % 2 * kLanes)...};
  return __builtin_shuffle(a, b, from);
#endif
}

// Deals the words of the first half of the vectors and those of the second like cards, `times` times: each time the
// top bit of a word's index, vector and lane, becomes its lowest.
template <int kVectors>
LLM_INLINE void deal(Words* vectors, int times) {
  constexpr std::make_integer_sequence<int, kLanes> lanes{};
  for (; times > 0; --times) {
    Words dealt[kVectors];
    for (int i = 0; i < kVectors / 2; ++i) {
      dealt[2 * i] = interleave<0>(vectors[i], vectors[i + kVectors / 2], lanes);
      dealt[2 * i + 1] = interleave<1>(vectors[i], vectors[i + kVectors / 2], lanes);
    }
    memcpy(vectors, dealt, sizeof(dealt));
  }
}

constexpr int kLaneBits = kLanes == 16 ? 4 : kLanes == 8 ? 3 : 2;

LLM_INLINE void transpose(Square square) { deal<kLanes>(square, kLaneBits); }

// How many features a square of words holds, and how it is written as rows of floats.
LLM_INLINE int square_features(const float*) { return kLanes; }
LLM_INLINE int square_features(const uint16_t*) { return 2 * kLanes; }

LLM_INLINE void store_square(const float*, const Square square, float* to) {
  for (int i = 0; i < kLanes; ++i) store(to + i * kTileKeys, square[i]);
}
LLM_INLINE void store_square(const uint16_t*, const Square square, float* to) {
  for (int i = 0; i < kLanes; ++i) {
    store(to + 2 * i * kTileKeys, square[i] << 16);
    store(to + (2 * i + 1) * kTileKeys, square[i] & 0xffff0000u);
  }
}

LLM_INLINE float as_float(float x) { return x; }
LLM_INLINE float as_float(uint16_t x) { return from_bf16(x); }

// tile[feature][key] for the keys [first, last) of a tile; zero where there is none. `keys`: the tile's key 0, which
// need not exist; rows of `dim` features.
template <class Element>
static void transpose_keys(const Element* keys, int32_t dim, int first, int last, float* tile) {
  const int features = square_features(keys);
  if (dim < features) {
    for (int32_t d = 0; d < dim; ++d) {
      for (int k = 0; k < kTileKeys; ++k) {
        tile[d * kTileKeys + k] = k >= first && k < last ? as_float(keys[static_cast<int64_t>(k) * dim + d]) : 0.0f;
      }
    }
    return;
  }
  for (int key = 0; key < kTileKeys; key += kLanes) {
    for (int32_t feature = 0; feature < dim; feature += features) {
      // The last square overlaps the one before it where it does not fit.
      const int32_t d = feature + features <= dim ? feature : dim - features;
      Square square;
      for (int i = 0; i < kLanes; ++i) {
        const int k = key + i;
        square[i] = k >= first && k < last ? load<Words>(keys + static_cast<int64_t>(k) * dim + d) : Words{};
      }
      transpose(square);
      store_square(keys, square, tile + d * kTileKeys + key);
    }
  }
}

// tile[key][feature] for the keys [first, last) of a tile, rows filled with zeros to `stride`.
template <class Element>
static void widen_values(const Element* values, int32_t dim, int first, int last, float* tile, int64_t stride) {
  for (int k = first; k < last; ++k) {
    float* const row = tile + k * stride;
    convert_row(values + static_cast<int64_t>(k) * dim, row, dim);
    for (int64_t d = dim; d < stride; ++d) row[d] = 0.0f;
  }
}

}  // namespace LLM_VARIANT
}  // namespace llm
