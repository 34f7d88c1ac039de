// The AMX tile registers: their shapes, and giving them back.
#pragma once
#include "simd.h"

namespace llm {
namespace LLM_VARIANT {

// GCC's tile intrinsics do not say that they read memory: what was written there must be in it by now.
#define LLM_AMX_BARRIER() asm volatile("" ::: "memory")

struct TileShape {
  int rows, row_bytes;
};

// The tiles of one thread while it computes; afterwards they are free, so that no thread switch has to save them.
class TileState {
 public:
  TileState() = default;
  TileState(const TileState&) = delete;
  TileState& operator=(const TileState&) = delete;
  ~TileState() {
    if (key_ != 0) _tile_release();
  }

  // `key` names the shapes, not 0: nothing happens if they are those of the last call. Clears all tiles otherwise.
  void configure(int key, const TileShape* shapes, int count) {
    if (key == key_) return;
    key_ = key;
    // Intel SDM, volume 1, section 18.3.1: the memory that LDTILECFG reads.
    alignas(64) uint8_t config[64] = {1};  // palette 1
    for (int tile = 0; tile < count; ++tile) {
      config[16 + 2 * tile] = static_cast<uint8_t>(shapes[tile].row_bytes);
      config[48 + tile] = static_cast<uint8_t>(shapes[tile].rows);
    }
    LLM_AMX_BARRIER();
    asm volatile("ldtilecfg %0" ::"m"(config));
  }

 private:
  int key_ = 0;
};

}  // namespace LLM_VARIANT
}  // namespace llm
