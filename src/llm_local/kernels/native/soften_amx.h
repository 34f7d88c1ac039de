// Softmax over scores that lie [key][row], many rows at once, into weights as AMX multiplies them; see attend_amx.h.
#pragma once
#include "attend.h"

namespace llm {
namespace LLM_VARIANT {

// 2^x for x <= 0 to 3 parts in a million; 0 below 2^-126. NaN stays NaN.
LLM_INLINE __m512 weight_of(__m512 x) {
  constexpr float kTerms[] = {1.0000026f, 0.69300383f, 0.24144275f, 0.052011464f, 0.013534168f};
  const __m512 part = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const __mmask16 counts = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(counts, polynomial(kTerms, part), x);
}

// x with its lanes `kApart` apart exchanged.
template <int kApart, int... kLane>
LLM_INLINE Floats exchange(Floats x, std::integer_sequence<int, kLane...>) {
  const Ints from = {(kLane ^ kApart)...};
  return _mm512_permutexvar_ps((__m512i)from, x);
}

// Combines the lanes whose index differs above kWidth, the upper half first: every lane gets what its row has.
template <int kWidth, class Combine>
LLM_INLINE Floats over_keys(Floats x, Combine&& combine) {
  constexpr std::make_integer_sequence<int, kLanes> lanes{};
  if (kWidth < 16) x = combine(x, exchange<8>(x, lanes));
  if (kWidth < 8) x = combine(x, exchange<4>(x, lanes));
  if (kWidth < 4) x = combine(x, exchange<2>(x, lanes));
  if (kWidth < 2) x = combine(x, exchange<1>(x, lanes));
  return x;
}

// Which keys of a block the rows of a tile see, a row in each lane: [from, to).
struct Sight {
  Ints from, to;

  Sight(const AttentionShape& shape, const QueryTile& tile, int64_t block, int first_row, int width) {
    const int64_t zero = block * kBlockKeys;
    const auto position_of = [&](int row) { return tile.position + (first_row + row) / shape.group(); };
    from = splat_int(0);
    to = splat_int(kBlockKeys);
    if (position_of(0) >= zero + kBlockKeys - 1 && shape.first_visible(position_of(width - 1)) <= zero) return;
    for (int i = 0; i < kLanes; ++i) {
      const int64_t position = position_of(i % width);
      const int64_t begin = shape.first_visible(position) - zero, end = position + 1 - zero;
      from[i] = static_cast<int32_t>(begin < 0 ? 0 : begin > kBlockKeys ? kBlockKeys : begin);
      to[i] = static_cast<int32_t>(end < 0 ? 0 : end > kBlockKeys ? kBlockKeys : end);
    }
  }
};

// Vectors of scores [key][kWidth rows] of the keys [begin, end): limits them and hides what a row does not see.
template <int kWidth>
static void limit_scores(const AttentionShape& shape, const Sight& sight, int begin, int end, float* scores) {
  constexpr int kKeys = kLanes / kWidth;  // in a vector
  if (shape.softcap > 0.0f) {
    for (int k = begin; k < end; k += kKeys) {
      float* const at = scores + k * kWidth;
      store(at, tanh(load<Floats>(at) / shape.softcap) * shape.softcap);
    }
  }
  Ints key_of_lane;
  for (int i = 0; i < kLanes; ++i) key_of_lane[i] = i / kWidth;
  const auto hide = [&](int key) {
    const Ints keys = key_of_lane + splat_int(key), sees = (sight.from <= keys) & (keys < sight.to);
    store(scores + key * kWidth, sees ? load<Floats>(scores + key * kWidth) : splat(-INFINITY));
  };
  const int seen_by_all = _mm512_reduce_max_epi32((__m512i)sight.from);
  const int not_by_all = _mm512_reduce_min_epi32((__m512i)sight.to) / kKeys * kKeys;
  for (int k = begin; k < end && k < seen_by_all; k += kKeys) hide(k);
  for (int k = not_by_all > begin ? not_by_all : begin; k < end; k += kKeys) hide(k);
}

template <int kWidth>
LLM_INLINE Floats largest_scores(const float* scores, int begin, int end) {
  const auto larger = [](Floats x, Floats most) { return (Floats)_mm512_max_ps(x, most); };  // `most` if x is NaN
  Floats most[2] = {splat(-INFINITY), splat(-INFINITY)};
  for (int at = begin * kWidth; at < end * kWidth; at += 2 * kLanes) {
    most[0] = larger(load<Floats>(scores + at), most[0]);
    most[1] = larger(load<Floats>(scores + at + kLanes), most[1]);
  }
  return over_keys<kWidth>(larger(most[0], most[1]), larger);
}

// As soften, for the keys [begin, end) of a block and a tile of kWidth rows. Scores [key][row] become weights
// [32 keys][row][pair of keys k, k + 16] in bfloat16, at the same place.
template <int kWidth>
static void soften_tile(const AttentionShape& shape, const Sight& sight, int begin, int end, float* scores,
                        float* largest, float* total) {
  limit_scores<kWidth>(shape, sight, begin, end, scores);
  const Floats most = largest_scores<kWidth>(scores, begin, end), log2e = splat(1.44269504f);
  const Floats base = most == splat(-INFINITY) ? splat(0.0f) : most * log2e;
  const __m512bh ones = (__m512bh)(Words{} + 0x3f803f80u);
  const Words pairs = {0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007,
                       0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f};
  Floats totals[kWidth] = {};  // each pair of keys has its own, here or in a lane
  for (int key = begin; key < end; key += kTileKeys) {
    float* const at = scores + key * kWidth;
    Words weights[kWidth];
    for (int i = 0; i < kWidth; ++i) {
      const auto weight = [&](int vector) {
        return weight_of(_mm512_fmsub_ps(load<Floats>(at + vector * kLanes), log2e, base));
      };
      const __m512bh both = _mm512_cvtne2ps_pbh(weight(i + kWidth), weight(i));
      weights[i] = (Words)_mm512_permutexvar_epi16((__m512i)pairs, (__m512i)both);
      totals[i] = _mm512_dpbf16_ps(totals[i], (__m512bh)weights[i], ones);
    }
    if (kWidth > 1) deal<kWidth>(weights, kLaneBits);
    memcpy(at, weights, sizeof(weights));
  }
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) totals[i] += totals[i + half];
  }
  store(largest, most);
  store(total, over_keys<kWidth>(totals[0], [](Floats x, Floats more) { return x + more; }));
}

}  // namespace LLM_VARIANT
}  // namespace llm
