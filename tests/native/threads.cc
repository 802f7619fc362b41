// Many threads call kernels at once while the number of threads changes: every result must have the
// bits of a call that was alone. Built with ThreadSanitizer (`make sanitize`).

#include <algorithm>
#include <atomic>
#include <thread>

#include "calls.h"
#include "kernels_of_all_targets.h"
#include "runtime/pool.h"

namespace keras_learnact {
namespace {

constexpr int64_t kElements = 3 * 20011;

struct Task {
  const CpuKernel* kernel;
  Setup setup;
  Call call;
  int64_t pieces;
  Exact x, dy, params;
  Exact y, dx, dparams;  // when the call was alone

  Task(const CpuKernel* kernel, const Setup& setup, Random* random)
      : kernel(kernel), setup(setup), pieces(kernel->pools ? setup.settings[0] : 1),
        x(kElements * pieces * 4, 0), dy(kElements * 4, 0), params(3 * setup.count * 4, 0),
        y(kElements * 4, 0), dx(kElements * pieces * 4, 0), dparams(3 * setup.count * 4, 0) {
    x.Fill(DType::kFloat32, random);
    dy.Fill(DType::kFloat32, random);
    params.Fill(DType::kFloat32, random);
    call.outer = kElements / 3;
    call.groups = 3;
    call.inner = 1;
    call.count = setup.count;
    call.settings = this->setup.settings.data();
    call.num_settings = static_cast<int64_t>(setup.settings.size());
    Run(y, dx, dparams);
  }
  Task(const Task&) = delete;

  void Run(const Exact& to_y, const Exact& to_dx, const Exact& to_dparams) const {
    const uint32_t key[2] = {1, 2};
    if (!kernel->forward(call, x.get(), params.get(), key, to_y.get()) ||
        !kernel->backward(call, x.get(), params.get(), key, dy.get(), to_dx.get(),
                          to_dparams.get())) {
      fprintf(stderr, "%s: not enough memory\n", kernel->name);
      exit(1);
    }
  }
};

int Main(int repeats) {
  Random random(3);
  std::vector<const Task*> tasks;
  SetNumThreads(1);
  for (const Target& target : AllTargets()) {
    for (const CpuKernel* kernel : target.kernels) {
      // A pooling kernel takes any number of pieces, and memory is not endless.
      const std::vector<Setup> setups = UsualSetups(*kernel, &random);
      const auto setup = std::find_if(setups.begin(), setups.end(), [&](const Setup& s) {
        return !kernel->pools || s.settings[0] <= 16;
      });
      if (setup == setups.end()) {
        fprintf(stderr, "%s: every setup has more than 16 pieces\n", kernel->name);
        return 1;
      }
      tasks.push_back(new Task(kernel, *setup, &random));
    }
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < repeats; ++i) {
        SetNumThreads(1 + (i + t) % 5);
        const Task& task = *tasks[(i + 7 * t) % tasks.size()];
        const Exact y(kElements * 4, 0), dx(kElements * task.pieces * 4, 0);
        const Exact dparams(3 * task.setup.count * 4, 0);
        task.Run(y, dx, dparams);
        if (!(y == task.y && dx == task.dx && dparams == task.dparams)) {
          fprintf(stderr, "%s: other bits beside other threads\n", task.kernel->name);
          ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  printf("%zu kernels from 6 threads, %d calls each: %d wrong\n", tasks.size(), repeats,
         wrong.load());
  return wrong != 0;
}

}  // namespace
}  // namespace keras_learnact

int main(int count, char** arguments) {
  return keras_learnact::Main(count > 1 ? atoi(arguments[1]) : 30);
}
