// The loops for a GPU, run on the CPU (cuda_emulation.h), against the loops for the CPU: every
// kernel, dtype, cut of the shape, alignment. Without arguments it takes some minutes, and under
// sanitizers half an hour; it prints what it compared, and ends with 1 at the first difference.
//
//   cuda_emulation_test [ROUNDS [SEED]]      ROUNDS: of shapes at random, 20 by default
//
// It is linked from, with F = -std=c++17 -O1 -g1 -Icustom_ops -Itests/native, sanitizers as wanted,
//   g++ $F -include tests/native/cuda_emulation.h -c tests/native/cuda_emulation_test.cc
//   g++ $F -c custom_ops/runtime/pool.cc
// and for every kernel
//   K = -DKLA_KERNEL=Rational -DKLA_HEADER='"kernels/rational.h"'
//   g++ $F $K -DKLA_TARGET=baseline -c custom_ops/cpu.cc
//   g++ $F $K -DKLA_TARGET=cuda -include tests/native/cuda_emulation.h -x c++ -c custom_ops/cuda.cu

#include <math.h>

#include <algorithm>
#include <limits>
#include <string>

#include "calls.h"
#include "kernels/all.h"
#include "runtime/cuda.cuh"

namespace keras_learnact {

namespace baseline {
#define KLA_DECLARE(Kernel) extern const CpuKernel k##Kernel;
KERAS_LEARNACT_KERNELS(KLA_DECLARE)
}  // namespace baseline

namespace {

#define KLA_CPU(Kernel) &baseline::k##Kernel,
const CpuKernel* const kCpu[] = {KERAS_LEARNACT_KERNELS(KLA_CPU)};

using KLA_TARGET::Layout;
using KLA_TARGET::Walk;

int64_t compared = 0;
char current[400];

#define EXPECT(condition, ...)                          \
  do {                                                  \
    if (!(condition)) {                                 \
      fprintf(stderr, "Wrong: " __VA_ARGS__);           \
      fprintf(stderr, "\nIn: %s\n", current);           \
      exit(1);                                          \
    }                                                   \
  } while (0)

struct Shape {
  int64_t outer, groups, inner;
};

double Read(const char* array, DType dtype, int64_t i) {
  if (dtype == DType::kFloat64) {
    double x;
    memcpy(&x, array + 8 * i, 8);
    return x;
  }
  if (dtype == DType::kFloat32) {
    float x;
    memcpy(&x, array + 4 * i, 4);
    return x;
  }
  uint16_t bits;
  memcpy(&bits, array + 2 * i, 2);
  return dtype == DType::kFloat16 ? KLA_TARGET::ToFloat(KLA_TARGET::Half{bits})
                                  : KLA_TARGET::ToFloat(KLA_TARGET::BFloat16{bits});
}

void Write(double x, char* array, DType dtype, int64_t i) {
  const auto single = static_cast<float>(x);
  if (dtype == DType::kFloat64) memcpy(array + 8 * i, &x, 8);
  if (dtype == DType::kFloat32) memcpy(array + 4 * i, &single, 4);
  if (dtype == DType::kFloat16) {
    const uint16_t bits = KLA_TARGET::ToHalf(single).bits;
    memcpy(array + 2 * i, &bits, 2);
  }
  if (dtype == DType::kBFloat16) {
    const uint16_t bits = KLA_TARGET::ToBFloat16(single).bits;
    memcpy(array + 2 * i, &bits, 2);
  }
}

// Numbers between -3 and 3; of `special` ones, if that is not 0, one is an edge.
void Fill(Exact* array, DType dtype, int64_t count, int64_t special, bool edges, Random* random) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr double kEdges[] = {0.0,        -0.0,  1.0,  -1.0, 1e30, -1e30, kInfinity,
                               -kInfinity, 1e-42, 1e9,  -1e9, 3e38, 60000, -60000,
                               std::numeric_limits<double>::quiet_NaN()};
  // They need care, and neither they nor their powers are as large as numbers can be: where those
  // cancel, a sum's order decides all.
  constexpr double kLarge[] = {200, -200}, kLargest[] = {1e19, -1e19};
  for (int64_t i = 0; i < count; ++i) {
    double x = static_cast<double>(random->Below(6000001) - 3000000) / 1e6;
    if (special > 0 && random->OneIn(special)) {
      x = edges ? random->Of(kEdges) : random->Of(dtype == DType::kFloat64 ? kLargest : kLarge);
    }
    Write(x, array->get(), dtype, i);
  }
}

double Epsilon(DType dtype) {
  return dtype == DType::kFloat64   ? 0x1p-52
         : dtype == DType::kFloat32 ? 0x1p-23
         : dtype == DType::kFloat16 ? 0x1p-10
                                    : 0x1p-7;
}

// Small differences of larger terms are as good as those.
bool Same(double a, double b, DType dtype) {
  return a == b || (isnan(a) && isnan(b)) ||
         fabs(a - b) <= 16 * Epsilon(dtype) * (fmin(fabs(a), fabs(b)) + 4);
}

// What a call has.
struct Arguments {
  const CpuKernel& kernel;
  const Call& call;
  const char *x, *params;
  const uint32_t* key;
  const char* dy;
};

// y or dx of one element alone. On the CPU an element whose neighbour needs care is computed with
// the same care, and differs a little.
double Alone(const Arguments& all, bool gradient, int64_t i) {
  const DType dtype = all.call.dtype;
  const bool wide = dtype == DType::kFloat64;
  const int64_t size = SizeOf(dtype), row = all.call.count * (wide ? 8 : 4);
  Call call = all.call;
  call.outer = call.groups = call.inner = 1;
  call.key_words = 4;
  const bool offset = all.call.key_words == 4;
  const uint64_t index =
      static_cast<uint64_t>(i) + (offset ? uint64_t{all.key[3]} << 32 | all.key[2] : 0);
  const uint32_t key[4] = {all.key[0], all.key[1], static_cast<uint32_t>(index),
                           static_cast<uint32_t>(index >> 32)};
  const char* params = all.params + i / all.call.inner % all.call.groups * row;
  alignas(16) char out[8] = {};
  std::vector<char> dparams(static_cast<size_t>(row));
  if (gradient) {
    all.kernel.backward(call, all.x + i * size, params, key, all.dy + i * size, out,
                        dparams.data());
  } else {
    all.kernel.forward(call, all.x + i * size, params, key, out);
  }
  return Read(out, dtype, 0);
}

// y, or dx: the same formula with the same roundings, but for exp and the like.
void CompareElements(const Arguments& all, bool gradient, const Exact& cpu, const Exact& gpu,
                     int64_t count) {
  const DType dtype = all.call.dtype;
  for (int64_t i = 0; i < count; ++i) {
    const double a = Read(cpu.get(), dtype, i), b = Read(gpu.get(), dtype, i);
    EXPECT(Same(a, b, dtype) ||
           (!all.kernel.pools && Same(Alone(all, gradient, i), b, dtype)),
           "%s[%lld] is %.9g on the CPU, %.9g here", gradient ? "dx" : "y",
           static_cast<long long>(i), a, b);
  }
  compared += count;
}

// Sums of the same terms in another order: all groups' share one scale, so that a small sum of
// large terms is not judged by its size. One term more or less shows in float64. Where a sum of huge
// terms overflows, to infinity or to nan as the order has it, is not compared.
void CompareSums(const Exact& cpu, const Exact& gpu, DType dtype, int64_t count) {
  const double huge = (dtype == DType::kFloat64 ? std::numeric_limits<double>::max()
                                                : std::numeric_limits<float>::max()) / 64;
  double scale = 1;
  for (int64_t i = 0; i < count; ++i) {
    const double a = fmax(fabs(Read(cpu.get(), dtype, i)), fabs(Read(gpu.get(), dtype, i)));
    if (a > scale) scale = a;
  }
  for (int64_t i = 0; i < count; ++i) {
    const double a = Read(cpu.get(), dtype, i), b = Read(gpu.get(), dtype, i);
    const bool overflows = fmax(fabs(a), fabs(b)) > huge || (scale > huge && isnan(a + b));
    const bool same = a == b || (isnan(a) && isnan(b)) || overflows ||
                      fabs(a - b) <= 2000 * Epsilon(dtype) * fmin(scale, huge);
    EXPECT(same, "dparams[%lld] is %.9g on the CPU, %.9g here, of at most %.3g",
           static_cast<long long>(i), a, b, scale);
  }
  compared += count;
}

void Poison(Exact* array, int64_t bytes) {
  if (bytes > 0) memset(array->get(), 0xff, static_cast<size_t>(bytes));
}

void Compare(const CpuKernel& cpu, const CudaKernel& gpu, const Setup& setup, Shape shape,
             DType dtype, int64_t special, bool aligned, Random* random) {
  const bool edges = random->OneIn(2);
  Call call;
  call.dtype = dtype;
  call.outer = shape.outer;
  call.groups = shape.groups;
  call.inner = shape.inner;
  call.count = setup.count;
  call.settings = setup.settings.data();
  call.num_settings = static_cast<int64_t>(setup.settings.size());
  const DType math = dtype == DType::kFloat64 ? dtype : DType::kFloat32;
  const int64_t pieces = gpu.pools ? setup.settings[0] : 1;
  const int64_t y_bytes = call.size() * SizeOf(dtype), x_bytes = y_bytes * pieces;
  const int64_t p_count = call.groups * call.count, p_bytes = p_count * SizeOf(math);
  // malloc gives addresses that are aligned to 16.
  const int64_t shift = aligned ? 0 : SizeOf(dtype);
  std::string settings;
  for (const int64_t setting : setup.settings) settings += " " + std::to_string(setting);
  snprintf(current, sizeof(current),
           "%s, settings%s, [%lld, %lld, %lld], %lld parameters, dtype %d, one in %lld special, %s%s",
           gpu.name, settings.c_str(), static_cast<long long>(shape.outer),
           static_cast<long long>(shape.groups), static_cast<long long>(shape.inner),
           static_cast<long long>(setup.count), static_cast<int>(dtype),
           static_cast<long long>(special), edges ? "edges, " : "", aligned ? "aligned" : "not aligned");

  Exact x(x_bytes, shift), dy(y_bytes, shift), params(p_bytes, 0);
  Fill(&x, dtype, call.size() * pieces, special, edges, random);
  Fill(&dy, dtype, call.size(), 0, false, random);
  Fill(&params, math, p_count, 0, false, random);
  uint32_t key[4];
  for (uint32_t& word : key) word = static_cast<uint32_t>(random->Bits());
  if (gpu.random && random->OneIn(2)) call.key_words = 4;
  const Arguments all{cpu, call, x.get(), params.get(), key, dy.get()};
  Error error;

  Exact y(y_bytes, 0), y_gpu(y_bytes, shift);
  Poison(&y_gpu, y_bytes);
  EXPECT(cpu.forward(call, x.get(), params.get(), key, y.get()), "no memory");
  EXPECT(gpu.forward(call, x.get(), params.get(), key, y_gpu.get(), nullptr, &error), "%s",
         error.text);
  CompareElements(all, false, y, y_gpu, call.size());

  const int64_t bytes = gpu.scratch_bytes(call);
  Exact dx(x_bytes, 0), dx_gpu(x_bytes, shift), dp(p_bytes, 0), dp_gpu(p_bytes, 0);
  Exact scratch(bytes, 0);
  Poison(&dx_gpu, x_bytes);
  Poison(&dp_gpu, p_bytes);
  Poison(&scratch, bytes);
  EXPECT(cpu.backward(call, x.get(), params.get(), key, dy.get(), dx.get(), dp.get()),
         "no memory");
  EXPECT(gpu.backward(call, x.get(), params.get(), key, dy.get(), dx_gpu.get(), dp_gpu.get(),
                      scratch.get(), nullptr, &error), "%s", error.text);
  CompareElements(all, true, dx, dx_gpu, call.size() * pieces);
  if (call.size() > 0 && !(special > 0 && edges)) CompareSums(dp, dp_gpu, math, p_count);
  for (int64_t i = 0; i < p_count && call.size() == 0; ++i) {
    EXPECT(Read(dp_gpu.get(), math, i) == 0, "dparams of no elements are not 0");
  }
  if (gpu.pools) return;

  // Threads in another order, and results in the place of arguments: the same bits.
  emulation::seed = random->Bits();
  Exact x_again(x), dy_again(dy), dp_again(p_bytes, 0);
  EXPECT(gpu.forward(call, x_again.get(), params.get(), key, x_again.get(), nullptr, &error),
         "%s", error.text);
  EXPECT(x_again == y_gpu, "y differs in place");
  Poison(&scratch, bytes);
  EXPECT(gpu.backward(call, x.get(), params.get(), key, dy_again.get(), dy_again.get(),
                      dp_again.get(), scratch.get(), nullptr, &error), "%s", error.text);
  EXPECT(dy_again == dx_gpu, "dx differs in place");
  EXPECT(dp_again == dp_gpu, "dparams differ when threads run in another order");
}

// Every element is some thread's, and in its group, also where numbers do not fit in 32 bits.
void Cover(Shape shape, DType dtype, bool aligned) {
  Call call;
  call.dtype = dtype;
  call.outer = shape.outer;
  call.groups = shape.groups;
  call.inner = shape.inner;
  const Layout l(call, aligned, 11 * 8);
  const int pack =
      dtype == DType::kFloat64 ? KLA_TARGET::kPack<double> : KLA_TARGET::kPack<float>;
  snprintf(current, sizeof(current), "the cut of [%lld, %lld, %lld], dtype %d, %s",
           static_cast<long long>(shape.outer), static_cast<long long>(shape.groups),
           static_cast<long long>(shape.inner), static_cast<int>(dtype),
           aligned ? "aligned" : "not aligned");
  EXPECT(l.Fits(), "too many blocks");
  EXPECT(l.threads() <= 256, "%d threads", l.threads());
  const auto size = static_cast<uint64_t>(call.size());
  uint64_t count = 0, sum = 0;
  for (int64_t block = 0; block < l.blocks(); ++block) {
    for (int thread = 0; thread < l.threads(); ++thread) {
      const Walk w(l, pack, static_cast<unsigned>(block), thread);
      const int64_t packs = w.step > 0 ? (w.end - w.start) / w.step : 0;
      const int64_t elements = packs * pack + w.tail;
      if (elements == 0) continue;
      EXPECT(w.summed && packs <= 16 && w.tail < pack && w.slot < l.slots(), "a thread's numbers");
      const int64_t last =
          w.tail > 0 ? w.end + (w.tail - 1) * w.spread : w.end - w.step + (pack - 1) * w.spread;
      for (const int64_t at : {w.start, last}) {
        EXPECT(at >= 0 && at < call.size() &&
               at / l.inner % shape.groups == w.group + w.local,
               "element %lld of another group", static_cast<long long>(at));
      }
      if (l.wide) EXPECT(w.start % pack == 0, "%lld is not aligned", static_cast<long long>(w.start));
      count += static_cast<uint64_t>(elements);
      const auto u = [](int64_t n) { return static_cast<uint64_t>(n); };
      sum += u(pack) * (u(packs) * u(w.start) + u(w.step) * u(packs * (packs - 1) / 2)) +
             u(packs) * u(w.spread) * u(pack * (pack - 1) / 2) + u(w.tail) * u(w.end) +
             u(w.spread) * u(w.tail * (w.tail - 1) / 2);
    }
  }
  EXPECT(count == size, "%llu elements of %llu", static_cast<unsigned long long>(count),
         static_cast<unsigned long long>(size));
  const uint64_t half = size % 2 == 0 ? size / 2 * (size - 1) : (size - 1) / 2 * size;
  EXPECT(sum == half, "the wrong elements");
}

// Whether a real number among the settings is so small that only a damaged file has it: then the
// kernels are only asked not to crash.
bool IsAbsurd(const CpuKernel& kernel, const Setup& setup) {
  for (size_t i = 0; i < setup.settings.size(); ++i) {
    if (setup.settings[i] <= 0 || setup.settings[i] >> 52 != 0) continue;
    Setup other = setup;
    const double one = 1;
    memcpy(&other.settings[i], &one, sizeof(one));
    Error error;
    if (Takes(kernel, other, &error)) return true;  // a real number may stand there
  }
  return false;
}

int Main(int64_t rounds, uint64_t seed) {
  Random random(seed);
  constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16,
                               DType::kBFloat16};
  // One group; few and many channels, with and without whole packs; long runs; nothing.
  constexpr Shape kShapes[] = {
      {1, 1, 1},    {1, 1, 7},    {1, 1, 8},     {1, 1, 2049}, {3, 1, 9000}, {1, 1, 40001},
      {64, 3, 1},   {900, 3, 1},  {17, 32, 1},   {50, 33, 1},  {40, 100, 1}, {20, 5, 49},
      {20, 6, 64},  {20, 2, 200}, {16, 2, 256},  {18, 2, 300}, {18, 2, 2056}, {2, 3, 8192},
      {15, 2, 4099}, {33, 8, 96}, {7, 300, 1},   {300, 2, 8},  {4000, 2, 8}, {1, 40, 1},
      {20, 2, 2047}, {0, 4, 1},   {5, 4, 0},     {16, 70, 8}};

  for (const Shape& shape : kShapes) {
    for (const DType dtype : kDTypes) {
      for (const bool aligned : {true, false}) {
        if (shape.outer * shape.inner > 0) Cover(shape, dtype, aligned);
      }
    }
  }
  const int64_t beyond = (int64_t{1} << 31) + 7;
  Cover({1, 1, beyond}, DType::kBFloat16, true);
  Cover({1, 1, beyond}, DType::kFloat32, false);
  Cover({3, 4, beyond / 12 + 5}, DType::kFloat32, false);
  Cover({(int64_t{1} << 21) + 1, 8, 128}, DType::kBFloat16, true);
  printf("Cuts of shapes, up to 2^31 + 7 elements: every element is some thread's.\n");
  fflush(stdout);

  int count;
  const CudaKernel* const* gpu = CudaKernels(&count);
  for (int i = 0; i < count; ++i) {
    compared = 0;
    const std::vector<Setup> setups = UsualSetups(*kCpu[i], &random);
    const auto some_setup = [&] {
      for (;;) {
        const Setup& setup = setups[static_cast<size_t>(random.Below(static_cast<int64_t>(setups.size())))];
        if (gpu[i]->pools ? setup.settings[0] <= 20 : !IsAbsurd(*kCpu[i], setup)) return setup;
      }
    };
    for (const Shape& shape : kShapes) {
      for (const DType dtype : kDTypes) {
        Compare(*kCpu[i], *gpu[i], some_setup(), shape, dtype, random.OneIn(2) ? 0 : 100,
                random.OneIn(2), &random);
      }
    }
    for (int64_t round = 0; round < rounds; ++round) {
      Shape shape{1 + random.Below(40), 1 + random.Below(random.OneIn(3) ? 200 : 8),
                  1 + random.Below(random.OneIn(3) ? 900 : 20)};
      if (random.OneIn(2)) shape.inner *= 8;
      if (shape.outer * shape.groups * shape.inner > 30000) shape.outer = 1;
      if (shape.groups * shape.inner > 30000) shape.groups = 3;
      const int64_t special[] = {0, 0, 3, 500};
      Compare(*kCpu[i], *gpu[i], some_setup(), shape, random.Of(kDTypes), random.Of(special),
              !random.OneIn(3), &random);
    }
    printf("%s: %lld numbers agree with the CPU's.\n", gpu[i]->name,
           static_cast<long long>(compared));
    fflush(stdout);
  }
  printf("%lld launches.\n", static_cast<long long>(emulation::launches));
  return 0;
}

}  // namespace
}  // namespace keras_learnact

int main(int argc, char** argv) {
  return keras_learnact::Main(argc > 1 ? atoll(argv[1]) : 20,
                              argc > 2 ? static_cast<uint64_t>(atoll(argv[2])) : 1);
}
