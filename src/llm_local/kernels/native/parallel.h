// One parallel region for a whole step: the members of a team share phases of numbered tasks.
//
// Each member takes tasks from a range of its own, in order, because a core reads memory fastest straight ahead; then
// from the others', so that a core with a busy neighbor simply does fewer of them. A phase ends when all its tasks are
// done, not when all members have arrived: a member that was off its core for a while finds the phases it missed
// finished and runs through. Hence the one rule for who writes a region: every member makes the same calls of `each`,
// and nothing but addresses is computed between them.
#pragma once
#include <atomic>
#include <cstdint>
#include <type_traits>

// Inlined always: the variants compile these with their own instructions and must not share a copy.
#define LLM_HERE inline __attribute__((always_inline))

namespace llm {

constexpr int kMaxRanges = 64;

// What the members of a region share. Each range's counter holds the phase in its upper half and the next task in its
// lower one.
class Team {
 public:
  LLM_HERE explicit Team(int count) : count(count), ranges(count < kMaxRanges ? count : kMaxRanges) {}

  struct alignas(64) Counter {
    std::atomic<uint64_t> next{0};
  };

  const int count, ranges;
  Counter counters[kMaxRanges];
  alignas(64) std::atomic<int64_t> done{0};
  alignas(64) std::atomic<uint64_t> phase{0};
};

// Waits a moment; from the 2,000th time on, lets other threads have the core.
void relax(int times);

// One thread's view of a running region.
class Member {
 public:
  LLM_HERE Member(Team& team, int index) : team_(team), index_(index) {}
  LLM_HERE int index() const { return index_; }
  LLM_HERE int count() const { return team_.count; }

  // Runs body(task) for every task in [0, num_tasks), shared among the members, each in no certain order; returns when
  // all are done.
  template <class Body>
  void each(int64_t num_tasks, Body&& body);

 private:
  static constexpr int kPhaseShift = 32;
  static constexpr uint64_t kTaskMask = 0xffffffff;

  Team& team_;
  const int index_;
  uint64_t phase_ = 0;
};

template <class Body>
void Member::each(int64_t num_tasks, Body&& body) {
  if (num_tasks <= 0) return;
  const uint64_t phase = phase_++;
  const int ranges = team_.ranges;
  for (int i = 0; i < ranges; ++i) {
    const int range = (index_ + i) % ranges;
    const int64_t begin = num_tasks * range / ranges, size = num_tasks * (range + 1) / ranges - begin;
    std::atomic<uint64_t>& counter = team_.counters[range].next;
    uint64_t next = counter.load(std::memory_order_acquire);
    while (next >> kPhaseShift == phase && static_cast<int64_t>(next & kTaskMask) < size) {
      if (!counter.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel)) continue;
      body(begin + static_cast<int64_t>(next & kTaskMask));
      if (team_.done.fetch_add(1, std::memory_order_acq_rel) + 1 == num_tasks) {
        team_.done.store(0, std::memory_order_relaxed);
        for (int r = 0; r < ranges; ++r) {
          team_.counters[r].next.store((phase + 1) << kPhaseShift, std::memory_order_relaxed);
        }
        team_.phase.store(phase + 1, std::memory_order_release);
        return;
      }
      next = counter.load(std::memory_order_acquire);
    }
  }
  for (int times = 0; team_.phase.load(std::memory_order_acquire) == phase; ++times) relax(times);
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
