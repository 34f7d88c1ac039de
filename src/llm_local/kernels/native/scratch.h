// Memory that a caller keeps from one call to the next, so that no call pays for fresh pages.
//
// In an unnamed namespace: one variant's copy of a function must never serve a CPU that lacks its instructions.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <new>

namespace llm {
namespace {

// 64-byte aligned; grows, never shrinks. What it held is lost when it grows.
class Scratch {
 public:
  ~Scratch() { release(); }

  // NULL: out of memory.
  uint8_t* reserve(size_t bytes) {
    if (bytes > bytes_) {
      release();
      memory_ = static_cast<uint8_t*>(::operator new(bytes, kAlignment, std::nothrow));
      bytes_ = memory_ == nullptr ? 0 : bytes;
    }
    return memory_;
  }

 private:
  static constexpr std::align_val_t kAlignment{64};

  void release() {
    ::operator delete(memory_, kAlignment);
    memory_ = nullptr;
    bytes_ = 0;
  }

  uint8_t* memory_ = nullptr;
  size_t bytes_ = 0;
};

// Hands out 64-byte aligned arrays one behind the other. With NULL memory it only counts: run the same code twice.
class Carver {
 public:
  explicit Carver(uint8_t* memory) : memory_(memory) {}

  template <class Element>
  Element* take(int64_t count) {
    const size_t at = used_;
    used_ += (static_cast<size_t>(count) * sizeof(Element) + 63) / 64 * 64;
    return memory_ == nullptr ? nullptr : reinterpret_cast<Element*>(memory_ + at);
  }
  size_t used() const { return used_; }

 private:
  uint8_t* const memory_;
  size_t used_ = 0;
};

}  // namespace
}  // namespace llm
