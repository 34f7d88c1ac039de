// One instruction-set variant: every kernel, compiled with the flags of that variant into its own namespace.
//
// Everything in the headers is static: two variants never share a copy of a function, or the linker could keep the
// one that this CPU cannot run.
#ifndef LLM_VARIANT
#error "compile with -DLLM_VARIANT=name"
#endif

// GCC's names; clang writes __AMXBF16__, and without these lines its amx variant would have no tiles in it.
#if defined(__AMXINT8__) && !defined(__AMX_INT8__)
#define __AMX_INT8__ 1
#endif
#if defined(__AMXBF16__) && !defined(__AMX_BF16__)
#define __AMX_BF16__ 1
#endif

#include "variant.h"

#include "parallel.h"
#include "pointwise.h"
#include "packing.h"
#include "linear.h"
#include "linear_entry.h"
#include "attention_entry.h"
#include "step.h"

#define LLM_TEXT_(name) #name
#define LLM_TEXT(name) LLM_TEXT_(name)
#define LLM_TABLE_(name) llm_variant_##name
#define LLM_TABLE(name) LLM_TABLE_(name)

namespace llm {

extern const Variant LLM_TABLE(LLM_VARIANT);
const Variant LLM_TABLE(LLM_VARIANT) = {
    LLM_TEXT(LLM_VARIANT), LLM_VARIANT::pack,      LLM_VARIANT::unpack,
    LLM_VARIANT::linear,   LLM_VARIANT::attention, LLM_VARIANT::step,
};

}  // namespace llm
