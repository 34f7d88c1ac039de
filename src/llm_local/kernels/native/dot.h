// Exact int32 dot products of unsigned weight quants with int8 inputs, four inputs to a lane: what differs between
// instruction sets in the packed kernels.
//
// Dot<kind>::Sum collects the lines of one group; begin, add once per line, end. `inputs` are the same four int8 in
// every lane. Weight quants are 0 .. 15 for Q4, and 1 .. 255 with zero 128 for Q8; inputs are -127 .. 127.
#pragma once
#include "packing.h"

namespace llm {
namespace LLM_VARIANT {

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

template <int kKind>
struct Dot {
  typedef Ints Weights;
  typedef Ints Sum;
  LLM_INLINE Weights weights(Ints line) { return line; }
  LLM_INLINE Sum begin(int32_t start) { return splat_int(start); }
  LLM_INLINE Sum add(Sum sum, Weights w, Ints inputs) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)inputs);
#else
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)inputs);
#endif
  }
  LLM_INLINE Ints end(Sum sum, int32_t) { return sum; }
};

#elif defined(__AVX2__)

template <int kKind>
struct Dot;

// maddubs adds two products of 8 bits in 16: safe as |weight| x sign(weight) input, at most 2 * 127 * 127.
template <>
struct Dot<LLM_Q8> {
  struct Weights {
    __m256i value, magnitude;
  };
  typedef Ints Sum;
  LLM_INLINE Weights weights(Ints line) {
    const __m256i value = _mm256_xor_si256((__m256i)line, _mm256_set1_epi8(-128));
    return {value, _mm256_abs_epi8(value)};
  }
  LLM_INLINE Sum begin(int32_t) { return splat_int(0); }
  LLM_INLINE Sum add(Sum sum, Weights w, Ints inputs) {
    const __m256i pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8((__m256i)inputs, w.value));
    return sum + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  LLM_INLINE Ints end(Sum sum, int32_t) { return sum; }
};

// Eight lines of 4-bit pairs still fit in 16 bits: 8 * 2 * 15 * 127 = 30,480.
template <>
struct Dot<LLM_Q4> {
  typedef Ints Weights;
  typedef __m256i Sum;
  LLM_INLINE Weights weights(Ints line) { return line; }
  LLM_INLINE Sum begin(int32_t) { return _mm256_setzero_si256(); }
  LLM_INLINE Sum add(Sum sum, Weights w, Ints inputs) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16((__m256i)w, (__m256i)inputs));
  }
  LLM_INLINE Ints end(Sum sum, int32_t start) {
    return (Ints)_mm256_madd_epi16(sum, _mm256_set1_epi16(1)) + start;
  }
};

#else

template <int kKind>
struct Dot {
#if defined(__SSE2__)
  struct Weights {
    __m128i even, odd;  // 16-bit: inputs 0 and 2 of a lane; 1 and 3
  };
  LLM_INLINE Weights weights(Ints line) {
    return {(__m128i)(line & 0x00ff00ff), _mm_srli_epi16((__m128i)line, 8)};
  }
#else
  typedef Ints Weights;
  LLM_INLINE Weights weights(Ints line) { return line; }
#endif
  typedef Ints Sum;
  LLM_INLINE Sum begin(int32_t start) { return splat_int(start); }
  LLM_INLINE Sum add(Sum sum, Weights w, Ints inputs) {
#if defined(__SSE2__)
    const __m128i even = _mm_srai_epi16(_mm_slli_epi16((__m128i)inputs, 8), 8);
    const __m128i odd = _mm_srai_epi16((__m128i)inputs, 8);
    return sum + (Ints)_mm_madd_epi16(w.even, even) + (Ints)_mm_madd_epi16(w.odd, odd);
#else
    for (int k = 0; k < 4; ++k) {
      const Ints input = (Ints)((Words)inputs << (24 - 8 * k)) >> 24;
      sum += (w >> 8 * k & 255) * input;
    }
    return sum;
#endif
  }
  LLM_INLINE Ints end(Sum sum, int32_t) { return sum; }
};

#endif

}  // namespace LLM_VARIANT
}  // namespace llm
