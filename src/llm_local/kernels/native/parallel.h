// One parallel region for a whole step: the members of a team share phases of numbered tasks.
//
// Tasks are handed out by an atomic counter, so that a core with a busy neighbor simply does fewer of them. A phase
// ends when all its tasks are done, not when all members have arrived: a member that was off its core for a while
// finds the phases it missed finished and runs through. Hence the one rule for who writes a region: every member makes
// the same calls of `each`, and nothing but addresses is computed between them.
#pragma once
#include <atomic>
#include <cstdint>
#include <type_traits>

// Inlined always: the variants compile these with their own instructions and must not share a copy.
#define LLM_HERE inline __attribute__((always_inline))

namespace llm {

// What the members of a region share. `next` holds the phase in its upper half and the next task in its lower one.
class Team {
 public:
  LLM_HERE explicit Team(int count) : count(count) {}

  const int count;
  alignas(64) std::atomic<uint64_t> next{0};
  alignas(64) std::atomic<int64_t> done{0};
};

// Waits a moment; from the 2,000th time on, lets other threads have the core.
void relax(int times);

// One thread's view of a running region.
class Member {
 public:
  LLM_HERE Member(Team& team, int index) : team_(team), index_(index) {}
  LLM_HERE int index() const { return index_; }
  LLM_HERE int count() const { return team_.count; }

  // Runs body(task) for every task in [0, num_tasks), shared among the members; returns when all are done.
  template <class Body>
  void each(int64_t num_tasks, Body&& body);

  // Runs body() on one member while the others wait.
  template <class Body>
  void once(Body&& body) {
    each(1, [&](int64_t) { body(); });
  }

 private:
  static constexpr int kPhaseShift = 32;

  Team& team_;
  const int index_;
  uint64_t phase_ = 0;
};

template <class Body>
void Member::each(int64_t num_tasks, Body&& body) {
  if (num_tasks <= 0) return;
  const uint64_t phase = phase_++;
  const uint64_t end = (phase << kPhaseShift) + static_cast<uint64_t>(num_tasks);
  uint64_t next = team_.next.load(std::memory_order_acquire);
  while (next < end) {  // an earlier phase cannot be: this member saw it end
    if (!team_.next.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel)) continue;
    body(static_cast<int64_t>(next - (phase << kPhaseShift)));
    if (team_.done.fetch_add(1, std::memory_order_acq_rel) + 1 == num_tasks) {
      team_.done.store(0, std::memory_order_relaxed);
      team_.next.store((phase + 1) << kPhaseShift, std::memory_order_release);
      return;
    }
    next = team_.next.load(std::memory_order_acquire);
  }
  for (int times = 0; team_.next.load(std::memory_order_acquire) == end; ++times) relax(times);
}

// Calls `run(context, member)` on up to `threads` threads at once, the calling one included; returns when all are done.
void parallel(int threads, void (*run)(void* context, Member& member), void* context);

// The same with a callable: parallel_region(threads, [&](Member& member) { ... });
template <class Body>
void parallel_region(int threads, Body&& body) {
  using Callable = std::remove_reference_t<Body>;
  parallel(
      threads, [](void* context, Member& member) { (*static_cast<Callable*>(context))(member); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace llm
