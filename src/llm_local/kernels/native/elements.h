// Rows of float32 or bfloat16 (uint16_t here) read and written as vectors of float32; vectors as one number.
#pragma once
#include "simd.h"

namespace llm {
namespace LLM_VARIANT {

LLM_INLINE Floats load_floats(const float* from) { return load<Floats>(from); }
LLM_INLINE Floats load_floats(const uint16_t* from) {
  // GCC 12 widens a generic vector in halves.
#if defined(__AVX512F__)
  const Words wide = (Words)_mm512_cvtepu16_epi32(load<__m256i>(from));
#elif defined(__AVX2__)
  const Words wide = (Words)_mm256_cvtepu16_epi32(load<__m128i>(from));
#else
  const Words wide = __builtin_convertvector(load<Shorts>(from), Words);
#endif
  return (Floats)(wide << 16);
}

LLM_INLINE void store_floats(float* to, Floats x) { store(to, x); }

// As to_bf16: nearest even; NaN stays NaN.
LLM_INLINE void store_floats(uint16_t* to, Floats x) {
  const Words bits = (Words)x;
  const Words rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const Words kept = x == x ? rounded : (bits >> 16 | 0x40u);
  store(to, __builtin_convertvector(kept, Shorts));
}

// One vector of which `rest` > 0 elements are there: zeros stand for the others.
template <class Element>
LLM_INLINE Floats load_rest(const Element* from, int64_t rest) {
  if (rest >= kLanes) return load_floats(from);
  Element lanes[kLanes] = {};
  memcpy(lanes, from, rest * sizeof(Element));
  return load_floats(lanes);
}

template <class Element>
LLM_INLINE void store_rest(Element* to, Floats x, int64_t rest) {
  if (rest >= kLanes) {
    store_floats(to, x);
    return;
  }
  Element lanes[kLanes];
  store_floats(lanes, x);
  memcpy(to, lanes, rest * sizeof(Element));
}

// Lanes halved until one is left: the upper half is added to the lower.
LLM_INLINE float sum_lanes(Floats x) {
#if defined(__AVX512F__)
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
#elif defined(__AVX2__)
  const __m256 eight = x;
#endif
#if defined(__AVX2__)
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  float lanes[kLanes];
  store(lanes, x);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
#endif
}

LLM_INLINE float largest_lane(Floats x) {
  float lanes[kLanes];
  store(lanes, x);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  }
  return lanes[0];
}

// Copies a row from one type to another.
template <class From, class To>
static void convert_row(const From* from, To* to, int64_t width) {
  for (int64_t i = 0; i < width; i += kLanes) store_rest(to + i, load_rest(from + i, width - i), width - i);
}

}  // namespace LLM_VARIANT
}  // namespace llm
