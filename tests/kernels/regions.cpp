// Runs parallel regions and counts what happens in them, for test_parallel.py.
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "parallel.h"

namespace {

struct Counts {
  int64_t wrong;    // tasks that ran not once, too early, or under an index that is no member's
  int32_t members;  // of the last region's team
};

void run_region(int threads, int phases, int64_t tasks, Counts* counts) {
  std::vector<std::atomic<int>> runs(static_cast<size_t>(phases * tasks));
  std::atomic<int64_t> wrong{0}, members{0};
  llm::parallel_region(threads, [&](llm::Member& member) {
    members = member.count();
    if (member.index() < 0 || member.index() >= member.count()) ++wrong;
    for (int phase = 0; phase < phases; ++phase) {
      member.each(tasks, [&](int64_t task) {
        // all of the phase before is done, and was done once, whoever did it
        if (phase > 0 && runs[(phase - 1) * tasks + (task * 7 + 3) % tasks].load(std::memory_order_relaxed) != 1) ++wrong;
        if (task % 5 == 0) std::this_thread::yield();
        runs[phase * tasks + task].fetch_add(1, std::memory_order_relaxed);
      });
    }
  });
  for (const auto& one : runs) wrong += one != 1;
  counts->wrong += wrong;
  counts->members = static_cast<int32_t>(members);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void run_regions(int32_t regions, int32_t threads, int32_t phases,
                                                                   int64_t tasks, Counts* counts) {
  for (int32_t i = 0; i < regions; ++i) run_region(threads, phases, tasks, counts);
}
