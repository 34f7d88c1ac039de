// The functions of abi.h: each calls the chosen variant's.
#include <atomic>
#include <cstring>
#include <new>
#include <string>

#include "abi.h"
#include "block_layout.h"
#include "features.h"
#include "scratch.h"
#include "variant.h"

namespace llm {

extern const Variant llm_variant_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const Variant llm_variant_avx2, llm_variant_avx512, llm_variant_amx;
#endif

namespace {

struct Choice {
  const Variant* variant;
  bool usable;
};

// Best first.
const Choice* choices(int* count) {
  static const Choice all[] = {
#if defined(__x86_64__) || defined(_M_X64)
      {&llm_variant_amx, features().amx},
      {&llm_variant_avx512, features().avx512},
      {&llm_variant_avx2, features().avx2},
#endif
      {&llm_variant_portable, true},
  };
  *count = sizeof(all) / sizeof(all[0]);
  return all;
}

const Variant* best() {
  int count;
  const Choice* const all = choices(&count);
  for (int i = 0; i < count; ++i) {
    if (all[i].usable) return all[i].variant;
  }
  return nullptr;
}

std::atomic<const Variant*>& chosen() {
  static std::atomic<const Variant*> one{best()};
  return one;
}

const Variant& variant() { return *chosen().load(std::memory_order_acquire); }

}  // namespace
}  // namespace llm

extern "C" {

int32_t llm_abi_version(void) { return LLM_ABI_VERSION; }

size_t llm_struct_bytes(int32_t which) {
  static const size_t bytes[] = {sizeof(LlmLinear), sizeof(LlmNorm),    sizeof(LlmRope),
                                 sizeof(LlmLayer),  sizeof(LlmModel),   sizeof(LlmKV),
                                 sizeof(LlmSegment), sizeof(LlmBatch),  sizeof(LlmAttention)};
  const size_t count = sizeof(bytes) / sizeof(bytes[0]);
  return which >= 0 && static_cast<size_t>(which) < count ? bytes[which] : 0;
}

const char* llm_variants(void) {
  static const std::string names = [] {
    std::string text;
    int count;
    const llm::Choice* const all = llm::choices(&count);
    for (int i = 0; i < count; ++i) {
      if (all[i].usable) text += (text.empty() ? "" : ",") + std::string(all[i].variant->name);
    }
    return text;
  }();
  return names.c_str();
}

const char* llm_variant(void) { return llm::variant().name; }

int32_t llm_use_variant(const char* name) {
  int count;
  const llm::Choice* const all = llm::choices(&count);
  for (int i = 0; i < count; ++i) {
    if (all[i].usable && std::strcmp(all[i].variant->name, name) == 0) {
      llm::chosen().store(all[i].variant, std::memory_order_release);
      return LLM_OK;
    }
  }
  return LLM_BAD_ARGUMENT;
}

size_t llm_packed_bytes(int32_t kind, int32_t rows, int32_t cols) { return llm::packed_bytes(kind, rows, cols); }

int32_t llm_pack(int32_t kind, const void* source, int32_t dtype, int64_t row_stride, int32_t rows, int32_t cols,
                 void* packed, int32_t threads) {
  return llm::variant().pack(kind, source, dtype, row_stride, rows, cols, packed, threads);
}

void llm_unpack(const LlmLinear* linear, float* out, int32_t threads) { llm::variant().unpack(linear, out, threads); }

int32_t llm_linear(const LlmLinear* parts, int32_t num_parts, const void* x, void* const* outputs, int32_t dtype,
                   int32_t tokens, int32_t threads) {
  return llm::variant().linear(parts, num_parts, x, outputs, dtype, tokens, threads);
}

int32_t llm_attention(const LlmAttention* attention, const LlmSegment* segments, int32_t num_segments, int32_t layer,
                      int32_t threads) {
  return llm::variant().attention(attention, segments, num_segments, layer, threads);
}

void* llm_scratch_new(void) { return new (std::nothrow) llm::Scratch; }

void llm_scratch_free(void* scratch) { delete static_cast<llm::Scratch*>(scratch); }

int32_t llm_step(const LlmModel* model, const LlmBatch* batch, void* scratch, int32_t threads) {
  return llm::variant().step(model, batch, scratch, threads);
}

}  // extern "C"
