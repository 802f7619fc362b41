// Calls every kernel, for every instruction set of this processor, with arguments at random: hostile
// ones must be refused, others must give the same bits on any number of threads. Built with
// sanitizers, which end it at the first access out of bounds (`make sanitize`).
//
//   fuzz [SECONDS [SEED [FIRST]]]    FIRST: the number of a call, as a failure names it

#include <algorithm>
#include <map>
#include <string>

#include "fuzzing.h"
#include "kernels_of_all_targets.h"
#include "runtime/pool.h"

namespace keras_learnact {
namespace {

constexpr int64_t kMost = 1 << 17;  // elements of one array

struct Shape {
  std::vector<int64_t> sizes;
  int64_t axis;
};

Shape SomeShape(Random* random) {
  constexpr int64_t kSizes[] = {0, 1, 1, 1, 2, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 100, 257, 1000};
  constexpr int64_t kLong[] = {4099, 16384, 16385, 40000, 100003};
  Shape shape;
  int64_t size = 1;
  for (int64_t axes = random->Below(6); axes > 0; --axes) {
    int64_t next = random->OneIn(12) ? random->Of(kLong) : random->Of(kSizes);
    if (size * next > (random->OneIn(20) ? kMost : kMost / 64)) next = 1;
    size *= next;
    shape.sizes.push_back(next);
  }
  const auto rank = static_cast<int64_t>(shape.sizes.size());
  shape.axis = random->Below(rank + 1);
  if (random->OneIn(20)) {
    for (int64_t& next : shape.sizes) {
      if (random->OneIn(2)) next = random->Of(kHostile);
    }
  }
  if (random->OneIn(20)) {
    shape.axis = random->OneIn(2) ? random->Of(kHostile) : rank + random->Below(3);
  }
  return shape;
}

// A number of groups that goes with the shape, mostly.
int64_t SomeGroups(const Shape& shape, Random* random) {
  if (random->OneIn(20)) return random->OneIn(2) ? random->Of(kHostile) : random->Below(50);
  unsigned long long covered = 1;  // hostile sizes overflow
  const auto rank = static_cast<int64_t>(shape.sizes.size());
  for (int64_t i = shape.axis < 0 ? 0 : shape.axis; i < rank; ++i) {
    covered *= static_cast<unsigned long long>(shape.sizes[i]);
    if (random->OneIn(3)) break;
  }
  auto groups = static_cast<int64_t>(covered);
  if (groups < 1 || random->OneIn(3)) return groups < 1 ? 1 + random->Below(3) : 1;
  while (random->OneIn(2)) {
    for (int64_t divisor : {2, 3, 5, 7}) {
      if (groups % divisor == 0 && random->OneIn(2)) groups /= divisor;
    }
  }
  return groups;
}

Setup SomeSetup(const std::vector<Setup>& usual, Random* random) {
  Setup setup = usual[random->Below(static_cast<int64_t>(usual.size()))];
  if (random->OneIn(5)) {
    if (random->OneIn(3)) setup.settings.resize(random->Below(9), 'A');
    for (int64_t& setting : setup.settings) {
      if (random->OneIn(2)) setting = SomeSetting(random);
    }
    if (random->OneIn(2)) {
      setup.count = random->OneIn(3) ? random->Of(kHostile) : random->Below(64);
    }
  }
  return setup;
}

// Returns whether the call was carried out.
bool OneCall(const std::string& target, const CpuKernel& kernel, const std::vector<Setup>& usual,
             Random* random) {
  const Setup setup = SomeSetup(usual, random);
  Shape shape = SomeShape(random);
  const auto rank = static_cast<int64_t>(shape.sizes.size());
  const int64_t num_settings = static_cast<int64_t>(setup.settings.size());

  Exact settings(num_settings * 8, 0);
  if (num_settings > 0) memcpy(settings.get(), setup.settings.data(), num_settings * 8);
  Call call;
  constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16};
  call.dtype = random->Of(kDTypes);
  call.settings = reinterpret_cast<const int64_t*>(settings.get());
  call.num_settings = num_settings;
  call.key_words = random->OneIn(2) ? 2 : 4;
  Error error;
  int64_t pieces = 1;
  current = std::string(kernel.name) + " for " + target + ", rank " + std::to_string(rank) +
            ", axis " + std::to_string(shape.axis);
  bool taken;
  if (kernel.pools) {
    pieces = num_settings == 1 ? setup.settings[0] : 0;
    if (shape.axis >= 0 && shape.axis < rank && pieces > 0 && pieces < 100 &&
        shape.sizes[shape.axis] < kMost && shape.sizes[shape.axis] >= 0 && !random->OneIn(5)) {
      shape.sizes[shape.axis] *= pieces;
    }
    Exact sizes(rank * 8, 0);
    if (rank > 0) memcpy(sizes.get(), shape.sizes.data(), rank * 8);
    taken = SetPoolView(kernel.name, reinterpret_cast<const int64_t*>(sizes.get()), rank,
                        shape.axis, pieces, &call, &error);
  } else {
    const int64_t wrong_rank = random->OneIn(50) ? random->Below(5) : 2;
    const int64_t parameter_sizes[5] = {SomeGroups(shape, random), setup.count, 1, 1, 1};
    Exact sizes(rank * 8, 0);
    if (rank > 0) memcpy(sizes.get(), shape.sizes.data(), rank * 8);
    taken = SetView(kernel.name, reinterpret_cast<const int64_t*>(sizes.get()), rank, shape.axis,
                    parameter_sizes, wrong_rank, &call, &error);
  }
  taken = taken && kernel.check(call, &error);
  Expect(taken == error.ok(), "a refused call comes with an error, and no other does");
  if (!taken) return false;

  // What was taken fits in memory as it is described.
  Expect(call.outer >= 0 && call.groups >= 0 && call.inner >= 0 && call.count >= 0 && pieces >= 1,
         "a view has no negative sizes");
  // Beside a 0 the others may be of any size.
  int64_t elements = std::count(shape.sizes.begin(), shape.sizes.end(), 0) > 0 ? 0 : 1;
  for (int64_t size : shape.sizes) {
    Expect(size >= 0 && !__builtin_mul_overflow(elements, size, &elements),
           "an impossible size is refused");
  }
  Expect(elements == call.size() * pieces, "the view has all elements");
  int64_t parameters;
  Expect(!__builtin_mul_overflow(call.groups, call.count, &parameters), "parameters are countable");
  if (elements > kMost || parameters > kMost) return false;
  // Groups without any parameters could not be there in such numbers.
  if (call.groups > kMost) return false;

  const int64_t width = SizeOf(call.dtype);
  const DType parameter_type = call.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const int64_t parameter_bytes = parameters * SizeOf(parameter_type);
  const auto shift = [&] { return random->OneIn(2) ? 0 : width * random->Below(8); };
  Exact x(elements * width, shift()), dy(call.size() * width, shift());
  Exact params(parameter_bytes, random->OneIn(2) ? 0 : SizeOf(parameter_type));
  Exact key(kernel.random ? call.key_words * 4 : 0, 0);
  x.Fill(call.dtype, random);
  dy.Fill(call.dtype, random);
  params.Fill(parameter_type, random);
  key.Fill(DType::kFloat32, random);
  const auto* key_words = reinterpret_cast<const uint32_t*>(key.get());

  const Exact x_before = x, dy_before = dy, params_before = params;
  Exact y(call.size() * width, shift()), y_again(call.size() * width, shift());
  SetNumThreads(1);
  Expect(kernel.forward(call, x.get(), params.get(), key_words, y.get()), "there is memory");
  SetNumThreads(2 + static_cast<int>(random->Below(3)));
  if (!kernel.pools && random->OneIn(3)) {
    Exact same = x;  // y may be x
    kernel.forward(call, same.get(), params.get(), key_words, same.get());
    Expect(same == y, "y in the place of x, on more threads, has the same bits");
  } else {
    kernel.forward(call, x.get(), params.get(), key_words, y_again.get());
    Expect(y == y_again, "y has the same bits on more threads");
  }

  Exact dx(elements * width, shift()), dparams(parameter_bytes, 0), dparams_again(parameter_bytes, 0);
  Expect(kernel.backward(call, x.get(), params.get(), key_words, dy.get(), dx.get(), dparams.get()),
         "there is memory");
  SetNumThreads(1);
  if (!kernel.pools && random->OneIn(3)) {
    Exact same = dy;  // dx may be dy
    kernel.backward(call, x.get(), params.get(), key_words, same.get(), same.get(),
                    dparams_again.get());
    Expect(same == dx, "dx in the place of dy, on one thread, has the same bits");
  } else {
    Exact dx_again(elements * width, 0);
    kernel.backward(call, x.get(), params.get(), key_words, dy.get(), dx_again.get(),
                    dparams_again.get());
    Expect(dx == dx_again, "dx has the same bits on one thread");
  }
  Expect(dparams == dparams_again, "dparams has the same bits on one thread");
  Expect(x == x_before && dy == dy_before && params == params_before, "inputs are left as they are");
  return true;
}

int Fuzz(double seconds, int64_t first) {
  const std::vector<Target> targets = AllTargets();
  Random search(7);
  std::vector<std::vector<Setup>> usual;
  for (const CpuKernel* kernel : targets[0].kernels) usual.push_back(UsualSetups(*kernel, &search));

  std::map<std::string, int64_t> carried_out;
  MakeCalls(seconds, first, [&](Random* random) {
    const Target& target = targets[random->Below(static_cast<int64_t>(targets.size()))];
    const int64_t k = random->Below(static_cast<int64_t>(target.kernels.size()));
    const std::string name = std::string(target.kernels[k]->name) + ", " + target.name;
    carried_out[name] += OneCall(target.name, *target.kernels[k], usual[k], random);
  });
  printf("%lld calls, seed %lld. Carried out:\n", static_cast<long long>(number - first),
         static_cast<long long>(seed));
  bool all = true;
  for (const Target& target : targets) {
    for (const CpuKernel* kernel : target.kernels) {
      const std::string name = std::string(kernel->name) + ", " + target.name;
      printf("  %-32s %lld\n", name.c_str(), static_cast<long long>(carried_out[name]));
      all = all && carried_out[name] > 0;
    }
  }
  if (!all) fprintf(stderr, "A kernel was never called: give more seconds.\n");
  return all ? 0 : 1;
}

}  // namespace
}  // namespace keras_learnact

int main(int count, char** arguments) {
  return keras_learnact::FuzzerMain("fuzz", keras_learnact::Fuzz, count, arguments);
}
