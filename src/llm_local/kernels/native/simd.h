// Vectors of the variant's natural width, so that one source serves every instruction set.
//
// Everything here is exact or correctly rounded, so that variants differ only where a kernel's order of sums differs.
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace llm {
namespace LLM_VARIANT {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Shorts __attribute__((vector_size(kLanes * 2)));


#define LLM_INLINE static inline __attribute__((always_inline))

template <class Vector>
LLM_INLINE Vector load(const void* from) {
  Vector v;
  memcpy(&v, from, sizeof(v));
  return v;
}

template <class Vector>
LLM_INLINE void store(void* to, Vector v) {
  memcpy(to, &v, sizeof(v));
}

// x - 0 is x to the compiler, as 0 + x is not (it would turn -0 into 0).
LLM_INLINE Floats splat(float x) { return x - Floats{}; }
LLM_INLINE Ints splat_int(int32_t x) { return Ints{} + x; }

// a * b + c, rounded once where the hardware can.
LLM_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

LLM_INLINE Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

// Nearest integer, ties to even, for |x| < 2^22.
LLM_INLINE Ints round_to_ints(Floats x) {
  const Floats magic = splat(12582912.0f);  // 1.5 * 2^23: its last bit is worth one
  return (Ints)(x + magic) - (Ints)magic;
}

LLM_INLINE Ints max(Ints a, Ints b) { return a > b ? a : b; }
LLM_INLINE Ints min(Ints a, Ints b) { return a < b ? a : b; }

LLM_INLINE float float_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

LLM_INLINE uint32_t bits_of_float(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

LLM_INLINE float from_bf16(uint16_t x) { return float_of_bits(static_cast<uint32_t>(x) << 16); }

// Nearest even; NaN stays NaN.
LLM_INLINE uint16_t to_bf16(float x) {
  const uint32_t bits = bits_of_float(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16 | 0x40) : rounded);
}

// IEEE half, subnormals, infinity and NaN included.
LLM_INLINE float from_half(uint16_t h) {
  const uint32_t magnitude = (h & 0x7fffu) << 13;
  const float tiny = float_of_bits(magnitude + (113u << 23)) - float_of_bits(113u << 23);  // subnormal
  const float usual = float_of_bits(magnitude + (112u << 23));
  const float special = float_of_bits(magnitude + (224u << 23));  // exponent 31 becomes 255
  const float x = magnitude < (1u << 23) ? tiny : magnitude >= (31u << 23) ? special : usual;
  return (h & 0x8000) ? -x : x;
}

// kLanes halves, none of them infinite or NaN.
LLM_INLINE Floats from_halves(const uint16_t* from) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  const Words h = __builtin_convertvector(load<Shorts>(from), Words);
  const Words magnitude = (h & 0x7fff) << 13;
  const Words first_normal = Words{} + (113u << 23);
  const Floats tiny = (Floats)(magnitude + first_normal) - (Floats)first_normal;
  const Floats usual = (Floats)(magnitude + (112u << 23));
  const Words x = magnitude < (1u << 23) ? (Words)tiny : (Words)usual;
  return (Floats)(x | (h & 0x8000) << 16);
#endif
}

// The halves nearest to |x| <= 65504, rounded away from zero where they are subnormal; in the low 16 bits of each lane.
LLM_INLINE Words to_halves(Floats x) {
  const Words bits = (Words)x;
  const Words magnitude = bits & 0x7fffffffu;
  const Words usual = ((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10);
  // 2^-24 is one unit of a subnormal half: count the units, and one more where some are cut off.
  const Floats units = (Floats)magnitude * 16777216.0f;
  const Ints whole = round_to_ints(units);
  const Words tiny = (Words)(whole - (to_floats(whole) < units));  // a true comparison is -1
  return (magnitude < (113u << 23) ? tiny : usual) | (bits >> 16 & 0x8000u);
}

}  // namespace LLM_VARIANT
}  // namespace llm
