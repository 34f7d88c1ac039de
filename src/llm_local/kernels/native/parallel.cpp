#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "abi.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define LLM_PAUSE() _mm_pause()
#elif defined(__aarch64__)
#define LLM_PAUSE() asm volatile("yield")
#else
#define LLM_PAUSE() ((void)0)
#endif

namespace llm {

namespace {

// About 20 us: longer than a balanced phase's tail, shorter than a time slice that a neighbor took from us.
constexpr int kSpins = 2000;

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
using IntFunction = int (*)();

GompParallel gomp_parallel = nullptr;
IntFunction gomp_num_threads = nullptr;
IntFunction gomp_thread_num = nullptr;

struct Region {
  void (*run)(void*, Member&);
  void* context;
  std::atomic<Team*> team{nullptr};
  alignas(Team) unsigned char storage[sizeof(Team)];
};

void gomp_member(void* data) {
  Region& region = *static_cast<Region*>(data);
  // The runtime may give fewer threads than asked for; only inside the region is the number known.
  const int index = gomp_thread_num();
  if (index == 0) region.team.store(new (region.storage) Team(gomp_num_threads()), std::memory_order_release);
  Team* team;
  while ((team = region.team.load(std::memory_order_acquire)) == nullptr) LLM_PAUSE();
  Member member(*team, index);
  region.run(region.context, member);
}

// The library's own threads, for a process without an OpenMP runtime that we know. They sleep between regions.
class Pool {
 public:
  void run(int threads, void (*body)(void*, Member&), void* context) {
    std::lock_guard<std::mutex> one_region(region_);
    Team team(1 + grow(threads - 1));
    {
      std::lock_guard<std::mutex> lock(mutex_);
      team_ = &team;
      body_ = body;
      context_ = context;
      wanted_ = running_ = team.count - 1;
      ++generation_;
    }
    wake_.notify_all();
    Member member(team, 0);
    body(context, member);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  // How many workers there are for `wanted`: fewer where the system gives no more threads.
  int grow(int wanted) {
    try {
      while (workers_ < wanted) {
        std::thread([this, index = workers_ + 1, seen = generation_] { work(index, seen); }).detach();
        ++workers_;  // it lives as long as the process
      }
    } catch (const std::system_error&) {
    }
    return std::min(wanted, workers_);
  }

  void work(int index, uint64_t seen) {
    for (;;) {
      Team* team;
      void (*body)(void*, Member&);
      void* context;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_ != seen; });
        seen = generation_;
        if (index > wanted_) continue;
        team = team_;
        body = body_;
        context = context_;
      }
      Member member(*team, index);
      body(context, member);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex region_, mutex_;
  std::condition_variable wake_, done_;
  uint64_t generation_ = 0;
  int workers_ = 0, wanted_ = 0, running_ = 0;
  Team* team_ = nullptr;
  void (*body_)(void*, Member&) = nullptr;
  void* context_ = nullptr;
};

// Never destroyed: its threads may outlive main.
std::atomic<Pool*> pool{new Pool};

// A fork has one thread: neither the pool's nor the OpenMP runtime's others are there any more, and whoever waited for
// them would wait forever. It starts again with a pool of its own.
void after_fork() {
  gomp_parallel = nullptr;
  pool.store(new Pool, std::memory_order_release);
}

[[maybe_unused]] const int watched = pthread_atfork(nullptr, nullptr, after_fork);

}  // namespace

void relax(int times) {
  if (times < kSpins) {
    LLM_PAUSE();
  } else {
    std::this_thread::yield();
  }
}

void parallel(int threads, void (*run)(void*, Member&), void* context) {
  if (threads <= 1) {
    Team team(1);
    Member member(team, 0);
    run(context, member);
  } else if (gomp_parallel != nullptr) {
    Region region{run, context, {}, {}};
    gomp_parallel(gomp_member, &region, static_cast<unsigned>(threads), 0);
  } else {
    pool.load(std::memory_order_acquire)->run(threads, run, context);
  }
}

}  // namespace llm

extern "C" void llm_use_openmp(void* gomp_parallel, void* num_threads, void* thread_num) {
  const bool complete = gomp_parallel && num_threads && thread_num;
  llm::gomp_num_threads = complete ? reinterpret_cast<llm::IntFunction>(num_threads) : nullptr;
  llm::gomp_thread_num = complete ? reinterpret_cast<llm::IntFunction>(thread_num) : nullptr;
  llm::gomp_parallel = complete ? reinterpret_cast<llm::GompParallel>(gomp_parallel) : nullptr;
}
