#include "features.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#include <stdint.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace llm {

namespace {

#if defined(__x86_64__) || defined(_M_X64)

struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf leaf(unsigned number, unsigned sub) {
  Leaf l;
  if (!__get_cpuid_count(number, sub, &l.eax, &l.ebx, &l.ecx, &l.edx)) return Leaf{};
  return l;
}

bool bit(unsigned word, int index) { return (word >> index & 1) != 0; }

// The register sets that the operating system saves when it switches threads.
uint64_t saved_registers() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux hands out the tile registers only to a process that asked (Documentation/arch/x86/xstate.rst).
bool tiles_granted() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Features find() {
  Features f{};
  const Leaf one = leaf(1, 0), seven = leaf(7, 0), seven_one = leaf(7, 1);
  if (!bit(one.ecx, 27)) return f;  // the system does not use xgetbv
  const uint64_t saved = saved_registers();
  constexpr uint64_t kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000;
  f.avx2 = (saved & kYmm) == kYmm && bit(one.ecx, 12) && bit(one.ecx, 29) && bit(seven.ebx, 5);
  f.avx512 = f.avx2 && (saved & kZmm) == kZmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) &&
             bit(seven.ebx, 31) && bit(seven.ecx, 11) && bit(seven_one.eax, 5);
  f.amx = f.avx512 && (saved & kTiles) == kTiles && bit(seven.edx, 22) && bit(seven.edx, 24) && bit(seven.edx, 25) &&
          tiles_granted();
  return f;
}

#else

Features find() { return Features{}; }

#endif

}  // namespace

const Features& features() {
  static const Features found = find();
  return found;
}

}  // namespace llm
