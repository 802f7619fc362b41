#include "runtime/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace keras_learnact {
namespace {

// Frameworks flush denormal numbers to zero on their threads, but not on ours: without this the
// bits of a result would depend on who computed it.
class KeepDenormals {
 public:
#if defined(__x86_64__)
  KeepDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ & ~0x8040u); }
  ~KeepDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  KeepDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(saved_ & ~(uint64_t{1} << 24)));
  }
  ~KeepDenormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

struct Job {
  int64_t count;
  void (*function)(void*, int64_t);
  void* context;
  std::atomic<int64_t> next{0};
  int helpers = 0;  // threads of the pool that hold a pointer to this job

  void Work() {
    KeepDenormals keep;
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      function(context, i);
    }
  }
  bool started_all() const { return next.load(std::memory_order_relaxed) >= count; }
};

int DefaultNumThreads() {
  if (const char* text = getenv("KERAS_LEARNACT_NUM_THREADS")) {
    const int count = atoi(text);
    if (count >= 1) return count < 1024 ? count : 1024;
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  const int count = static_cast<int>(std::thread::hardware_concurrency());
  return count > 0 ? count : 1;
}

std::atomic<int> num_threads{0};

class Pool {
 public:
  void Run(Job* job, int helpers) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      try {
        for (; threads_ < helpers; ++threads_) std::thread([this] { Loop(); }).detach();
      } catch (const std::system_error&) {
        // The system gives no more threads: those that are there do the work.
      }
      jobs_.push_back(job);
    }
    if (helpers == 1) {
      wake_.notify_one();
    } else {
      wake_.notify_all();
    }
    job->Work();
    std::unique_lock<std::mutex> lock(mutex_);
    for (auto it = jobs_.begin(); it != jobs_.end(); ++it) {
      if (*it == job) {
        jobs_.erase(it);
        break;
      }
    }
    done_.wait(lock, [&] { return job->helpers == 0; });
  }

 private:
  void Loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      while (!jobs_.empty() && jobs_.front()->started_all()) jobs_.pop_front();
      if (jobs_.empty()) {
        wake_.wait(lock);
        continue;
      }
      Job* job = jobs_.front();
      ++job->helpers;
      lock.unlock();
      job->Work();
      lock.lock();
      if (--job->helpers == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<Job*> jobs_;
  int threads_ = 0;
};

// Never destroyed: its threads may outlive main(). A child process starts with a new one, since
// fork() leaves the threads behind, and the mutex in whatever state it was.
std::atomic<Pool*> pool{nullptr};

Pool* ThePool() {
  static const bool registered = [] {
    pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
    return true;
  }();
  (void)registered;
  Pool* current = pool.load(std::memory_order_acquire);
  if (current == nullptr) {
    Pool* fresh = new Pool;
    if (pool.compare_exchange_strong(current, fresh)) return fresh;
    delete fresh;  // another thread was faster; this one has not started any
  }
  return current;
}

}  // namespace

int NumThreads() {
  int count = num_threads.load(std::memory_order_relaxed);
  if (count == 0) num_threads.store(count = DefaultNumThreads(), std::memory_order_relaxed);
  return count;
}

void SetNumThreads(int count) { num_threads.store(count < 1 ? 1 : count); }

void ParallelFor(int64_t count, void (*function)(void*, int64_t), void* context) {
  Job job{count, function, context};
  int64_t helpers = NumThreads() - 1;
  if (helpers > count - 1) helpers = count - 1;
  if (helpers < 1) {
    job.Work();
  } else {
    ThePool()->Run(&job, static_cast<int>(helpers));
  }
}

}  // namespace keras_learnact
