// CUDA's words for a C++ compiler: runs what is written for a GPU on the CPU, for tests. To be
// included before runtime/cuda.cuh:  g++ -include tests/native/cuda_emulation.h …
//
// Every thread of a block is a fiber. A fiber runs until it comes to a barrier or a shuffle; when all
// have, they go on, in an order that changes from one barrier to the next: a result that depends on
// the order, for want of a barrier, comes out otherwise in another run with another seed. Fibers
// that wait for different things, or end while others wait, are an error. Shared memory is full of
// nan at first and ends where the launch says.

#ifndef KERAS_LEARNACT_TESTS_NATIVE_CUDA_EMULATION_H_
#define KERAS_LEARNACT_TESTS_NATIVE_CUDA_EMULATION_H_

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __launch_bounds__(...)

struct __attribute__((may_alias, aligned(16))) uint4 {
  uint32_t x, y, z, w;
};

struct Dim3 {
  unsigned x = 0;
};

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
typedef void* cudaStream_t;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "invalid configuration argument"; }
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  if (bytes > 0) memset(to, value, bytes);
  return cudaSuccess;
}

inline Dim3 blockIdx, blockDim, threadIdx;

namespace emulation {

constexpr int kWarp = 32;
constexpr size_t kStack = 256 * 1024;
constexpr int64_t kMostShared = 48 * 1024;  // of a launch that does not ask for more

inline uint64_t seed = 1;       // of the order in which threads run
inline int64_t launches = 0;
inline int64_t most_blocks = 0;  // if not 0: a launch runs only its first and last blocks, this many

[[noreturn]] inline void Fail(const char* text) {
  fprintf(stderr, "cuda_emulation: block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, text);
  abort();
}

// What a fiber waits for.
enum Wait { kRunning, kBarrier, kVote, kShuffle, kDone };

// Where to go on. swapcontext would ask the kernel at every switch, and so would what
// AddressSanitizer does before a function that does not return.
struct Point {
  void* buffer[5];
};
__attribute__((noinline, no_sanitize_address, noreturn)) inline void GoTo(Point* point) {
  __builtin_longjmp(point->buffer, 1);
}
__attribute__((noinline, no_sanitize_address)) inline void Switch(Point* from, Point* to) {
  if (__builtin_setjmp(from->buffer) == 0) GoTo(to);
}

struct Fiber {
  ucontext_t context;  // to begin with
  bool begun = false;
  Point point;
  char* stack = nullptr;
  void* fake_stack = nullptr;
  Wait wait = kRunning;
  unsigned mask = 0;
  double value = 0;  // given to a shuffle
  int from = 0;      // of the warp: whose value is taken
  bool flag = false;
};

struct Machine {
  Point scheduler;
  void* fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_size = 0;
  std::vector<Fiber> fibers;
  std::function<void()> kernel;
  void* shared = nullptr;
  int running = 0;
  bool any = false;  // of the last vote

  static Machine& Get() {
    static Machine machine;
    return machine;
  }
};

inline double* Shared() { return static_cast<double*>(Machine::Get().shared); }

inline void SwitchToScheduler(bool last) {
  Machine& m = Machine::Get();
  Fiber& fiber = m.fibers[m.running];
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &fiber.fake_stack, m.scheduler_stack,
                                 m.scheduler_size);
#else
  (void)last;
#endif
  Switch(&fiber.point, &m.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &m.scheduler_stack, &m.scheduler_size);
#endif
}

inline void Body() {
  Machine& m = Machine::Get();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_stack, &m.scheduler_size);
#endif
  m.kernel();
  m.fibers[m.running].wait = kDone;
  SwitchToScheduler(true);
}

__attribute__((noinline, no_sanitize_address)) inline void Begin(Point* from, const ucontext_t* to) {
  if (__builtin_setjmp(from->buffer) == 0) setcontext(to);
}

inline void Resume(int thread) {
  Machine& m = Machine::Get();
  Fiber& fiber = m.fibers[thread];
  m.running = thread;
  threadIdx.x = static_cast<unsigned>(thread);
  fiber.wait = kRunning;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&m.fake_stack, fiber.stack, kStack);
#endif
  if (fiber.begun) {
    Switch(&m.scheduler, &fiber.point);
  } else {
    fiber.begun = true;
    Begin(&m.scheduler, &fiber.context);
  }
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(m.fake_stack, nullptr, nullptr);
#endif
}

inline Fiber& WaitFor(Wait wait) {
  Machine& m = Machine::Get();
  Fiber& fiber = m.fibers[m.running];
  fiber.wait = wait;
  SwitchToScheduler(false);
  return fiber;
}

// All threads of [begin, end) wait for the same.
inline bool AllWait(int begin, int end, Wait wait) {
  for (int i = begin; i < end; ++i) {
    if (Machine::Get().fibers[i].wait != wait) return false;
  }
  return true;
}

inline void RunBlock(int threads) {
  Machine& m = Machine::Get();
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = m.fibers[i];
    getcontext(&fiber.context);
    if (fiber.stack == nullptr) fiber.stack = static_cast<char*>(malloc(kStack));
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    fiber.fake_stack = nullptr;
    fiber.wait = kRunning;
    fiber.begun = false;
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(Body), 0);
  }
  std::vector<int> order;
  for (int i = 0; i < threads; ++i) order.push_back(i);
  static uint64_t random = 0;
  random += seed;
  for (;;) {
    for (int i = threads - 1; i > 0; --i) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      std::swap(order[i], order[static_cast<int>((random >> 33) % (i + 1))]);
    }
    for (int i : order) {
      if (m.fibers[i].wait == kRunning) Resume(i);
    }
    if (AllWait(0, threads, kDone)) return;
    if (AllWait(0, threads, kBarrier) || AllWait(0, threads, kVote)) {
      m.any = false;
      for (int i = 0; i < threads; ++i) {
        m.any = m.any || m.fibers[i].flag;
        m.fibers[i].wait = kRunning;
      }
      continue;
    }
    bool shuffled = false;
    for (int warp = 0; warp < threads; warp += kWarp) {
      if (!AllWait(warp, warp + kWarp, kShuffle)) continue;
      double values[kWarp];
      for (int i = 0; i < kWarp; ++i) values[i] = m.fibers[warp + i].value;
      for (int i = 0; i < kWarp; ++i) {
        Fiber& fiber = m.fibers[warp + i];
        fiber.value = values[fiber.from];
        fiber.wait = kRunning;
      }
      shuffled = true;
    }
    if (!shuffled) Fail("threads wait for different things, or have ended while others wait");
  }
}

template <typename Kernel>
cudaError_t Launch(int64_t blocks, int threads, int64_t shared, const Kernel& kernel) {
  if (blocks < 1 || blocks > INT32_MAX || threads < 1 || threads > 1024 || shared > kMostShared) {
    return cudaErrorInvalidConfiguration;
  }
  if (threads % kWarp != 0) Fail("blocks must be whole warps");
  ++launches;
  Machine& m = Machine::Get();
  if (m.fibers.empty()) m.fibers.resize(1024);
  m.kernel = [&] { kernel(); };
  blockDim.x = static_cast<unsigned>(threads);
  for (int64_t block = 0; block < blocks; ++block) {
    if (most_blocks > 0 && block == most_blocks / 2 && blocks > most_blocks) {
      block = blocks - most_blocks / 2;
    }
    blockIdx.x = static_cast<unsigned>(block);
    // Its end is where the sanitizer looks.
    m.shared = malloc(static_cast<size_t>(shared));
    if (shared > 0) memset(m.shared, 0xff, static_cast<size_t>(shared));
    RunBlock(threads);
    free(m.shared);
  }
  return cudaSuccess;
}

}  // namespace emulation

inline void __syncthreads() { emulation::WaitFor(emulation::kBarrier); }

inline int __syncthreads_or(int flag) {
  emulation::Machine& m = emulation::Machine::Get();
  m.fibers[m.running].flag = flag != 0;
  emulation::WaitFor(emulation::kVote);
  return m.any;
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, int down) {
  emulation::Machine& m = emulation::Machine::Get();
  if (mask != 0xffffffffu) emulation::Fail("a shuffle must be of the whole warp");
  emulation::Fiber& fiber = m.fibers[m.running];
  const int lane = m.running % emulation::kWarp;
  fiber.value = static_cast<double>(value);
  fiber.from = lane + down < emulation::kWarp ? lane + down : lane;
  return static_cast<T>(emulation::WaitFor(emulation::kShuffle).value);
}

#endif  // KERAS_LEARNACT_TESTS_NATIVE_CUDA_EMULATION_H_
