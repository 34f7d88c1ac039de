// Memory that a caller keeps from one step to the next, so that no step pays for fresh pages.
//
// Everything is static inline: a variant's copy of a function must never serve another instruction set.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <new>

namespace llm {

constexpr size_t kLine = 64;

// 64-byte aligned; grows, never shrinks. What it held is lost when it grows.
struct Scratch {
  void* memory;
  size_t bytes;
};

static inline Scratch* new_scratch() { return new (std::nothrow) Scratch{nullptr, 0}; }

static inline void release(Scratch& scratch) {
  ::operator delete(scratch.memory, std::align_val_t(kLine));
  scratch = {nullptr, 0};
}

static inline void free_scratch(Scratch* scratch) {
  if (scratch == nullptr) return;
  release(*scratch);
  delete scratch;
}

// NULL: out of memory.
static inline uint8_t* reserve(Scratch& scratch, size_t bytes) {
  if (bytes > scratch.bytes) {
    release(scratch);
    scratch.memory = ::operator new(bytes, std::align_val_t(kLine), std::nothrow);
    if (scratch.memory != nullptr) scratch.bytes = bytes;
  }
  return static_cast<uint8_t*>(scratch.memory);
}

// Hands out arrays one behind the other. With NULL memory it only counts: run the same code twice.
class Carver {
 public:
  explicit Carver(uint8_t* memory) : memory_(memory) {}

  template <class Element>
  Element* take(int64_t count) {
    const size_t at = used_;
    used_ += (static_cast<size_t>(count) * sizeof(Element) + kLine - 1) / kLine * kLine;
    return memory_ == nullptr ? nullptr : reinterpret_cast<Element*>(memory_ + at);
  }
  size_t used() const { return used_; }

 private:
  uint8_t* const memory_;
  size_t used_ = 0;
};

}  // namespace llm
