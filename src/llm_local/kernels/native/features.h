// What this CPU can do and this operating system lets a program use.
#pragma once

namespace llm {

struct Features {
  bool avx2;    // AVX2, FMA, F16C
  bool avx512;  // F, BW, DQ, VL, VNNI, BF16
  bool amx;     // avx512, and tiles of 8-bit and bf16 numbers, granted to this process
};

const Features& features();  // found out once per process

}  // namespace llm
