// One parallel region for a whole step: the members of a team share phases of numbered tasks.
//
// Tasks are handed out by an atomic counter, so that a core with a busy neighbor simply does fewer of them. Each
// phase ends in a barrier that spins for a short while and then yields.
#pragma once
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace llm {

class Team;

// One thread's view of a running region.
class Member {
 public:
  Member(Team& team, int index) : team_(team), index_(index) {}
  int index() const { return index_; }
  int count() const;

  // Runs body(task) for every task in [0, num_tasks), shared among the members; returns when all are done.
  template <class Body>
  void each(int64_t num_tasks, Body&& body);

  // Runs body() on one member while the others wait.
  template <class Body>
  void once(Body&& body) {
    each(1, [&](int64_t) { body(); });
  }

 private:
  Team& team_;
  int index_;
};

class Team {
 public:
  explicit Team(int count) : count_(count) {}
  int count() const { return count_; }
  int64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }
  void finish_phase();

 private:
  const int count_;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

inline int Member::count() const { return team_.count(); }

template <class Body>
void Member::each(int64_t num_tasks, Body&& body) {
  for (int64_t task = team_.take(); task < num_tasks; task = team_.take()) body(task);
  team_.finish_phase();
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
