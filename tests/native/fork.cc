// A process that has used the threads of the pool forks, again and again, also in the middle of
// other threads' calls, as the workers of Python's multiprocessing do: each child must be able to
// use the pool, and so must its own child.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "runtime/pool.h"

namespace {

constexpr int64_t kItems = 200;

// Whether every item was done once.
bool PoolWorks() {
  std::vector<std::atomic<int>> done(kItems);
  keras_learnact::ParallelFor(
      kItems,
      [](void* context, int64_t i) {
        for (volatile int spin = 0; spin < 2000;) spin = spin + 1;
        ++(*static_cast<std::vector<std::atomic<int>>*>(context))[static_cast<size_t>(i)];
      },
      &done);
  for (const auto& times : done) {
    if (times != 1) return false;
  }
  return true;
}

bool Succeeded(pid_t child) {
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace

int main() {
  alarm(120);  // ends a child or a parent that waits for ever: alarms are not inherited
  keras_learnact::SetNumThreads(4);
  if (!PoolWorks()) return 1;
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  std::vector<std::thread> busy;
  for (int t = 0; t < 2; ++t) {
    busy.emplace_back([&] {
      while (!stop) failures += !PoolWorks();
    });
  }
  int children = 0;
  for (; children < 200; ++children) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      bool works = PoolWorks();
      const pid_t grandchild = fork();
      if (grandchild == 0) {
        alarm(60);
        _exit(PoolWorks() ? 0 : 1);
      }
      works = works && Succeeded(grandchild) && PoolWorks();
      _exit(works ? 0 : 1);
    }
    failures += !Succeeded(child);
  }
  stop = true;
  for (std::thread& thread : busy) thread.join();
  failures += !PoolWorks();
  printf("%d forks in the middle of calls: %d failures\n", children, failures.load());
  return failures != 0;
}
