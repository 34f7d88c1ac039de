// What each instruction-set variant offers. variant.cpp is compiled once per variant with its own flags and defines
// the table of that variant; dispatch.cpp picks one at run time.
//
// Arithmetic is part of the contract: within one variant a token's result never depends on the other tokens of a call
// (sums over inputs, keys and features run in one fixed order), so batching never changes what a sequence says.
#pragma once
#include "abi.h"

namespace llm {

struct Variant {
  const char* name;
  decltype(&::llm_pack) pack;
  decltype(&::llm_unpack) unpack;
  decltype(&::llm_linear) linear;
  decltype(&::llm_attention) attention;
  decltype(&::llm_step) step;
};

}  // namespace llm
