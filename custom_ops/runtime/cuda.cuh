// Loops over elements on a GPU, written once for every kernel. See kernels/all.h for what a kernel
// is.
//
// The input is cut into blocks of threads, by its shape and by whether its arrays are aligned to
// 16 bytes, never by the device. A thread works on elements of one group, and what a block needs of
// its groups' parameters is prepared in its shared memory: the forward pass is one launch.
//
// For a gradient, a thread sums in float over at most kMostPacks packs of elements, a block adds
// its threads' sums in pairs, and a second launch adds the blocks' sums in double and finishes. The
// order is fixed, so the bits are the same every time; nothing is atomic.
//
// Without nvcc this file compiles with tests/native/cuda_emulation.h in front.

#ifndef KERAS_LEARNACT_RUNTIME_CUDA_CUH_
#define KERAS_LEARNACT_RUNTIME_CUDA_CUH_

#include <limits.h>

#include <type_traits>

#include "runtime/call.h"
#include "runtime/cuda.h"
#include "runtime/half.h"
#include "runtime/portable.h"

#ifdef __CUDACC__
#define KLA_SHARED(name) extern __shared__ double name[]
#define NOINLINE_DEVICE __device__ __noinline__
#else
#define KLA_SHARED(name) double* const name = emulation::Shared()
#define NOINLINE_DEVICE __attribute__((noinline))
#endif

#ifdef __CUDA_ARCH__
#define KLA_PRAGMA(text) _Pragma(#text)
#define KLA_UNROLL KLA_PRAGMA(unroll)
#define KLA_REPEAT(times) KLA_PRAGMA(unroll times)
#else
#define KLA_UNROLL
#define KLA_REPEAT(times)
#endif

namespace keras_learnact::KLA_TARGET {

constexpr int kThreads = 256;        // of a block, at most
constexpr int kWarp = 32;
constexpr int64_t kBlocks = 512;     // enough of them to keep a large GPU busy
constexpr int64_t kMostPacks = 16;   // of a thread; at most the bits of a word
constexpr int64_t kFewRows = 16;     // fewer than these are taken one by one
constexpr int kBatch = 8;            // sums that a block adds up at a time
constexpr int kMostUnrolled = 24;    // parameters of a formula whose loops are unrolled
constexpr int64_t kMostShared = 40 * 1024;  // bytes for parameters; a block may have 48 KB

HOST_DEVICE int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
HOST_DEVICE int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }
HOST_DEVICE int64_t Most(int64_t a, int64_t b) { return a > b ? a : b; }

// Elements that a thread takes at a time, side by side in registers.
template <typename T>
constexpr int kPack = sizeof(T) == sizeof(double) ? 2 : 8;

constexpr int kWordBytes = 16;  // what is loaded at once

// Elements as they lie in memory, neighbours several at once.
template <int kCount, typename S>
HOST_DEVICE void LoadRaw(const S* x, int64_t spread, bool wide, S* to) {
  constexpr int kWords = kCount * sizeof(S) / kWordBytes;
  if (kWords > 0 && wide) {
    uint4 words[kWords + 1];
    KLA_UNROLL
    for (int i = 0; i < kWords; ++i) words[i] = reinterpret_cast<const uint4*>(x)[i];
    memcpy(to, words, kWords * sizeof(uint4));
  } else {
    KLA_UNROLL
    for (int j = 0; j < kCount; ++j) to[j] = x[j * spread];
  }
}

template <int kCount, typename S>
HOST_DEVICE void StoreRaw(const S* from, S* y, int64_t spread, bool wide) {
  constexpr int kWords = kCount * sizeof(S) / kWordBytes;
  if (kWords > 0 && wide) {
    uint4 words[kWords + 1];
    memcpy(words, from, kWords * sizeof(uint4));
    KLA_UNROLL
    for (int i = 0; i < kWords; ++i) reinterpret_cast<uint4*>(y)[i] = words[i];
  } else {
    KLA_UNROLL
    for (int j = 0; j < kCount; ++j) y[j * spread] = from[j];
  }
}

HOST_DEVICE void Widen(DType dtype, const uint16_t* from, float* to, int count) {
  if (dtype == DType::kBFloat16) {
    KLA_UNROLL
    for (int j = 0; j < count; ++j) to[j] = ToFloat(BFloat16{from[j]});
  } else {
    KLA_UNROLL
    for (int j = 0; j < count; ++j) {
#ifdef __CUDA_ARCH__
      asm("cvt.f32.f16 %0, %1;" : "=f"(to[j]) : "h"(from[j]));
#else
      to[j] = ToFloat(Half{from[j]});
#endif
    }
  }
}

// The elements at `at`, at + spread, ... of x and, if kTwo, of dy. The dtype is looked at as the
// kernel runs, by all threads alike: that takes no time, and kernels are compiled for two types of
// arithmetic instead of four dtypes. Both arrays are asked for before either is waited for.
template <int kCount, bool kTwo>
HOST_DEVICE void Load(DType, const double* x, const double* dy, int64_t at, int64_t spread,
                      bool wide, double* to, double* dy_to) {
  LoadRaw<kCount>(x + at, spread, wide, to);
  if constexpr (kTwo) LoadRaw<kCount>(dy + at, spread, wide, dy_to);
}
template <int kCount, bool kTwo>
HOST_DEVICE void Load(DType dtype, const float* x, const float* dy, int64_t at, int64_t spread,
                      bool wide, float* to, float* dy_to) {
  if (dtype == DType::kFloat32) {
    LoadRaw<kCount>(x + at, spread, wide, to);
    if constexpr (kTwo) LoadRaw<kCount>(dy + at, spread, wide, dy_to);
  } else {
    uint16_t bits[kCount], dy_bits[kCount];
    LoadRaw<kCount>(reinterpret_cast<const uint16_t*>(x) + at, spread, wide, bits);
    if constexpr (kTwo) {
      LoadRaw<kCount>(reinterpret_cast<const uint16_t*>(dy) + at, spread, wide, dy_bits);
    }
    Widen(dtype, bits, to, kCount);
    if constexpr (kTwo) Widen(dtype, dy_bits, dy_to, kCount);
  }
}

template <int kCount>
HOST_DEVICE void Store(DType, const double* from, double* y, int64_t at, int64_t spread,
                       bool wide) {
  StoreRaw<kCount>(from, y + at, spread, wide);
}
template <int kCount>
HOST_DEVICE void Store(DType dtype, const float* from, float* y, int64_t at, int64_t spread,
                       bool wide) {
  if (dtype == DType::kFloat32) {
    StoreRaw<kCount>(from, y + at, spread, wide);
    return;
  }
  uint16_t bits[kCount];
  if (dtype == DType::kBFloat16) {
    KLA_UNROLL
    for (int j = 0; j < kCount; ++j) {
#ifdef __CUDA_ARCH__
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits[j]) : "f"(from[j]));
#else
      bits[j] = ToBFloat16(from[j]).bits;
#endif
    }
  } else {
    KLA_UNROLL
    for (int j = 0; j < kCount; ++j) {
#ifdef __CUDA_ARCH__
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits[j]) : "f"(from[j]));
#else
      bits[j] = ToHalf(from[j]).bits;
#endif
    }
  }
  StoreRaw<kCount>(bits, reinterpret_cast<uint16_t*>(y) + at, spread, wide);
}

// How a call is cut into blocks. It is seen as spans of rows of units; a unit is a pack of
// neighbours of one group if all arrays are aligned to it (`wide`), else one element. A block takes
// `width` neighbouring units of whole groups, or of a part of one, and of these some rows.
//
//   columns  the rows are those of [outer, groups * inner], all of them one span
//   runs     a group's run of neighbours is a span, cut into rows
struct Layout {
  DType dtype;
  bool wide;
  int unit;                 // elements
  int64_t groups, inner;
  int64_t span_stride, rows, row_stride;  // in elements
  int64_t limit;            // elements of a span; where a unit may reach beyond the last
  int64_t group_units;      // units of a group in a row
  int block_groups;         // groups of a block
  int width;                // units of a block in a row
  int lanes;                // rows that a block takes at a time
  int64_t part_rows;        // rows of a block
  unsigned chunks, bundles, parts, spans;  // blocks are numbered [span, part, bundle, chunk]

  // Of what is summed over: [slots, prepared, groups].
  int64_t slots() const { return int64_t{1} * spans * parts * chunks; }
  int64_t blocks() const { return slots() * bundles; }
  int threads() const { return static_cast<int>(CeilDiv(width * lanes, kWarp)) * kWarp; }

  // prepared: bytes of a group's prepared parameters. The call is not empty.
  Layout(const Call& call, bool aligned, int64_t prepared) {
    dtype = call.dtype;
    const int pack = dtype == DType::kFloat64 ? kPack<double> : kPack<float>;
    groups = call.groups;
    int64_t outer = call.outer;
    inner = call.inner;
    if (groups == 1) {
      inner *= outer;
      outer = 1;
    }
    wide = aligned && (groups == 1 || inner % pack == 0);
    unit = wide ? pack : 1;
    group_units = CeilDiv(inner, unit);
    block_groups = lanes = 1;
    chunks = bundles = parts = spans = 1;
    int64_t parallel;  // blocks before rows are shared out
    if (groups == 1 || (outer < kFewRows && inner >= 2 * kThreads * pack)) {
      width = static_cast<int>(Least(group_units, kThreads));
      spans = static_cast<unsigned>(outer);
      span_stride = groups * inner;
      row_stride = int64_t{1} * width * unit;
      rows = CeilDiv(inner, row_stride);
      limit = inner;
      bundles = static_cast<unsigned>(groups);
      parallel = outer * groups;
    } else {
      rows = outer;
      row_stride = groups * inner;
      span_stride = 0;
      limit = INT64_MAX;
      if (group_units > kThreads) {
        chunks = static_cast<unsigned>(CeilDiv(group_units, kThreads));
        width = static_cast<int>(CeilDiv(group_units, chunks));
        bundles = static_cast<unsigned>(groups);
      } else {
        // Rows of 128 bytes or of a warp's elements: the longer they are, the fewer threads of a
        // block share a group, and the more sums leave it.
        int64_t some = Least(CeilDiv(wide ? 8 : kWarp, group_units), kThreads / group_units);
        some = Least(Least(some, groups), Most(1, kMostShared / Most(1, prepared)));
        block_groups = static_cast<int>(some);
        bundles = static_cast<unsigned>(CeilDiv(groups, some));
        width = static_cast<int>(some * group_units);
        lanes = kThreads / width;
      }
      parallel = int64_t{1} * chunks * bundles;
    }
    const int64_t each = CeilDiv(rows, lanes);  // rows of a thread
    int64_t take = CeilDiv(each * parallel, kBlocks);
    if (!wide) take = CeilDiv(take, pack) * pack;
    take = Least(take, kMostPacks * (wide ? 1 : pack));
    part_rows = take * lanes;
    parts = static_cast<unsigned>(CeilDiv(rows, part_rows));
  }

  // Whether there are as many blocks as CUDA can count, and the numbers above are right.
  bool Fits() const {
    const double all = static_cast<double>(CeilDiv(rows, part_rows)) *
                       static_cast<double>(CeilDiv(groups, block_groups)) * chunks * spans;
    return all <= INT_MAX;
  }
};

// Dividing by 1 is common and free.
HOST_DEVICE void Divide(unsigned a, unsigned b, unsigned* quotient, unsigned* rest) {
  *quotient = b == 1 ? a : a < b ? 0 : a / b;
  *rest = a - *quotient * b;
}

// A thread's elements: packs, `step` apart, then a few single ones. Elements of a pack, and the
// single ones, are `spread` apart.
struct Walk {
  int64_t start, step, spread, end;  // `end`: of the packs
  int tail;
  // In the block: the thread's group, how many groups there are, which member of its group this is.
  int local, here, member, members;
  bool summed;  // whether it has a group there
  int64_t group;  // the block's first
  int64_t slot;

  HOST_DEVICE Walk(const Layout& l, int pack, unsigned block, int thread) {
    unsigned chunk, bundle, part, span;
    Divide(block, l.chunks, &block, &chunk);
    Divide(block, l.bundles, &block, &bundle);
    Divide(block, l.spans == 1 ? block + 1 : l.parts, &span, &part);
    slot = (int64_t{1} * span * l.parts + part) * l.chunks + chunk;

    group = int64_t{1} * bundle * l.block_groups;
    here = static_cast<int>(Least(l.block_groups, l.groups - group));
    unsigned lane, column, of_block, in_group;
    const auto width = static_cast<unsigned>(l.width);
    const auto group_units = static_cast<unsigned>(Least(l.group_units, width));
    Divide(static_cast<unsigned>(thread), width, &lane, &column);
    Divide(column, group_units, &of_block, &in_group);
    local = static_cast<int>(of_block);
    member = static_cast<int>(lane * group_units + in_group);
    members = l.lanes * static_cast<int>(group_units);
    const bool has_row = static_cast<int>(lane) < l.lanes;
    summed = has_row && local < here;

    // A row of a run is `width` units long, whatever the run's length; the limit ends it.
    const int64_t units = l.limit < INT64_MAX ? l.width : l.group_units * here;
    const int64_t unit = int64_t{1} * chunk * l.width + column;
    const int64_t row = part * l.part_rows + lane;
    const int64_t last = Least(l.rows, (part + 1) * l.part_rows);
    int count = 0, rest = 0;
    if (has_row && unit < units && row < last) {
      unsigned more, unused;
      Divide(static_cast<unsigned>(last - row - 1), static_cast<unsigned>(l.lanes), &more,
             &unused);
      count = static_cast<int>(more) + 1;
    }
    const int64_t in_span = unit * l.unit + row * l.row_stride;
    const int64_t next = l.lanes * l.row_stride;
    start = span * l.span_stride + group * l.inner + in_span;
    if (count > 0) {
      // Only a run's last row may end within a thread's unit, or before it.
      const int64_t left = l.limit - (in_span + (count - 1) * next);
      if (left < l.unit) {
        --count;
        rest = left > 0 ? static_cast<int>(left) : 0;
      }
    }
    if (l.wide) {
      spread = 1;
      step = next;
      end = start + count * step;
      tail = rest;
    } else {
      spread = next;
      step = pack * next;
      end = start + count / pack * step;
      tail = count % pack;
    }
  }
};

// One element, whatever it is.
template <typename Formula, typename T>
NOINLINE_HOST_DEVICE T AnyForward(const Formula f, const T* p, T x, Place place) {
  if constexpr (!Formula::kAlwaysUsual) {
    if (!f.template Usual<T>(p, x)) return f.template CarefulForward<T>(p, x, place);
  }
  return f.template Forward<T>(p, x, place);
}

// Adds the gradient of p to `sums`.
template <typename Formula, typename T>
NOINLINE_HOST_DEVICE T AnyBackward(const Formula f, const T* p, T x, T dy, Place place,
                                   double* sums) {
  if constexpr (!Formula::kAlwaysUsual) {
    if (!f.template Usual<T>(p, x)) {
      double dp[Formula::kMaxPrepared];
      for (int k = 0; k < f.prepared(); ++k) dp[k] = 0;
      const T dx = f.template CarefulBackward<T>(p, x, dy, dp, place);
      for (int k = 0; k < f.prepared(); ++k) sums[k] += Bounded<T>(dp[k], dy);
      return dx;
    }
  }
  T dp[Formula::kMaxPrepared];
  for (int k = 0; k < f.prepared(); ++k) dp[k] = T(0);
  const T dx = f.template Backward<T>(p, x, dy, dp, place);
  for (int k = 0; k < f.prepared(); ++k) sums[k] += static_cast<double>(dp[k]);
  return dx;
}

template <typename Formula, typename T>
NOINLINE_HOST_DEVICE void PrepareGroup(const Formula f, const T* params, T* p) {
  f.Prepare(params, p);
}

// Adds up values[member] of every group in the block, in pairs; then values[0] of each group is its
// sum. Called by all threads, with `count` rows of kThreads values.
template <typename T>
__device__ void AddMembers(T* values, int count, const Walk& w) {
  int half = 1;
  while (2 * half < w.members) half *= 2;
  for (; half > 0; half /= 2) {
    __syncthreads();
    if (w.summed && w.member < half && w.member + half < w.members) {
      T* mine = values + w.local * w.members + w.member;
      for (int k = 0; k < count; ++k) mine[k * kThreads] += mine[k * kThreads + half];
    }
  }
  __syncthreads();
}

// Writes the sums of the block's groups to `to`, [prepared, groups]. dp: those of this thread.
template <int kMax, typename T>
__device__ void ReduceBlock(const T* dp, int prepared, const Walk& w, int64_t groups, T* shared,
                            double* to) {
  [[maybe_unused]] constexpr int kRepeat = kMax <= kMostUnrolled ? kMax : 1;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  if (w.here == 1) {
    const int warps = threads / kWarp;
    KLA_REPEAT(kRepeat)
    for (int k = 0; k < kMax; ++k) {
      if (k >= prepared) break;
      T sum = dp[k];
      KLA_UNROLL
      for (int down = kWarp / 2; down > 0; down /= 2) {
        sum += __shfl_down_sync(0xffffffffu, sum, down);
      }
      if (thread % kWarp == 0) shared[thread / kWarp * prepared + k] = sum;
    }
    __syncthreads();
    for (int k = thread; k < prepared; k += threads) {
      double sum = 0;
      for (int i = 0; i < warps; ++i) sum += static_cast<double>(shared[i * prepared + k]);
      to[k * groups] = sum;
    }
    return;
  }
  KLA_REPEAT(kRepeat)
  for (int first = 0; first < kMax; first += kBatch) {
    if (first >= prepared) break;
    const int count = prepared - first < kBatch ? prepared - first : kBatch;
    KLA_REPEAT(kRepeat)
    for (int k = 0; k < kBatch; ++k) {
      if (k < count && first + k < kMax && w.summed) {
        shared[k * kThreads + w.local * w.members + w.member] = dp[first + k];
      }
    }
    AddMembers(shared, count, w);
    for (int i = thread; i < w.here * count; i += threads) {
      const int local = i % w.here, k = i / w.here;
      to[(first + k) * groups + local] =
          static_cast<double>(shared[k * kThreads + local * w.members]);
    }
    __syncthreads();
  }
}

// Adds to that the sums of elements that were taken one by one, if this thread had any.
NOINLINE_DEVICE inline void AddSingles(const double* sums, bool any, int prepared, const Walk& w,
                                       int64_t groups, double* shared, double* to) {
  for (int k = 0; k < prepared; ++k) {
    __syncthreads();
    if (w.summed) shared[w.local * w.members + w.member] = any ? sums[k] : 0;
    AddMembers(shared, 1, w);
    const int local = static_cast<int>(threadIdx.x);
    if (local < w.here) to[k * groups + local] += shared[local * w.members];
  }
}

// The arrays of a call.
template <typename T>
struct Arrays {
  const T* x;  // and dy, out: of 16-bit elements if the dtype says so
  const T* params;
  const uint32_t* key;
  int key_words;
  const T* dy;
  T* out;
  double* partial;
};

template <bool kBackward, typename Formula, typename T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : kBackward ? 3 : 5)
    Elements(const Formula f, const Layout l, int64_t count, const Arrays<T> arrays) {
  constexpr int kMax = Formula::kMaxPrepared, kSize = kPack<T>;
  // Loops over a number of parameters that is known only when it runs are not worth repeating.
  [[maybe_unused]] constexpr int kRepeat = kMax <= kMostUnrolled ? kSize : 1;
  KLA_SHARED(shared);
  const Walk w(l, kSize, blockIdx.x, static_cast<int>(threadIdx.x));
  const int prepared = f.prepared();
  T* const all = reinterpret_cast<T*>(shared);
  for (int g = static_cast<int>(threadIdx.x); g < w.here; g += static_cast<int>(blockDim.x)) {
    PrepareGroup(f, arrays.params + (w.group + g) * count, all + g * prepared);
  }
  __syncthreads();
  const T* const p = all + (w.summed ? w.local : 0) * prepared;
  // A copy: no store can change it, so it stays in registers.
  T q[kMax], dp[kBackward ? kMax : 1];
  for (int k = 0; k < prepared; ++k) q[k] = p[k];
  if constexpr (kBackward) {
    for (int k = 0; k < prepared; ++k) dp[k] = T(0);
  }
  uint32_t words[2] = {0, 0};
  uint64_t origin = 0;
  if (arrays.key != nullptr) {
    words[0] = arrays.key[0];
    words[1] = arrays.key[1];
    if (arrays.key_words == 4) origin = uint64_t{arrays.key[3]} << 32 | arrays.key[2];
  }

  // Packs with an element whose plain arithmetic might overflow are left for later, one bit for
  // each, so that this loop calls no function.
  uint32_t later = 0, bit = 1;
  KLA_REPEAT(1)
  for (int64_t at = w.start; at != w.end; at += w.step, bit <<= 1) {
    T x[kSize], dy[kBackward ? kSize : 1], out[kSize];
    Load<kSize, kBackward>(l.dtype, arrays.x, arrays.dy, at, w.spread, l.wide, x, dy);
    if constexpr (!Formula::kAlwaysUsual) {
      bool usual = true;
      KLA_REPEAT(kRepeat)
      for (int j = 0; j < kSize; ++j) usual = usual & bool(f.template Usual<T>(q, x[j]));
      if (!usual) {
        later |= bit;
        continue;
      }
    }
    KLA_REPEAT(kRepeat)
    for (int j = 0; j < kSize; ++j) {
      const Place place{origin + static_cast<uint64_t>(at + j * w.spread), words};
      if constexpr (kBackward) {
        out[j] = f.template Backward<T>(q, x[j], dy[j], dp, place);
      } else {
        out[j] = f.template Forward<T>(q, x[j], place);
      }
    }
    Store<kSize>(l.dtype, out, arrays.out, at, w.spread, l.wide);
  }

  // Those packs, and what is left after the last, element by element.
  if (w.tail > 0) later |= bit;
  double singles[kBackward ? kMax : 1];
  const bool any_single = later != 0;
  for (int k = 0; kBackward && k < prepared && any_single; ++k) singles[k] = 0;
  KLA_REPEAT(1)
  for (int64_t at = w.start; later != 0; at += w.step, later >>= 1) {
    const int elements = later % 2 == 0 ? 0 : at == w.end ? w.tail : kSize;
    KLA_REPEAT(1)
    for (int j = 0; j < elements; ++j) {
      const int64_t i = at + j * w.spread;
      const Place place{origin + static_cast<uint64_t>(i), arrays.key};
      T x, dy, out;
      Load<1, kBackward>(l.dtype, arrays.x, arrays.dy, i, 0, false, &x, &dy);
      if constexpr (kBackward) {
        out = AnyBackward(f, p, x, dy, place, singles);
      } else {
        out = AnyForward(f, p, x, place);
      }
      Store<1>(l.dtype, &out, arrays.out, i, 0, false);
    }
  }

  if constexpr (kBackward) {
    const bool singles_in_block = __syncthreads_or(any_single);
    double* const to = arrays.partial + w.slot * prepared * l.groups + w.group;
    ReduceBlock<kMax>(dp, prepared, w, l.groups, reinterpret_cast<T*>(shared), to);
    if (singles_in_block) {
      AddSingles(singles, any_single, prepared, w, l.groups, shared, to);
    }
  }
}

// `lanes` threads for each group: 1, a warp, or the block.
template <typename Formula, typename T>
__global__ void __launch_bounds__(kThreads)
    FinishGroups(const Formula f, int64_t groups, int64_t count, int64_t slots, int lanes,
                 const double* partial, const T* params, T* dparams) {
  KLA_SHARED(shared);
  const int prepared = f.prepared(), thread = static_cast<int>(threadIdx.x);
  const int64_t g = int64_t{1} * blockIdx.x * (kThreads / lanes) + thread / lanes;
  double sums[Formula::kMaxPrepared];
  for (int k = 0; k < prepared; ++k) sums[k] = 0;
  if (g < groups) {
    for (int64_t slot = thread % lanes; slot < slots; slot += lanes) {
      for (int k = 0; k < prepared; ++k) sums[k] += partial[(slot * prepared + k) * groups + g];
    }
  }
  const double* total = sums;
  if (lanes > 1) {
    for (int k = 0; k < prepared; ++k) {
      for (int down = kWarp / 2; down > 0; down /= 2) {
        sums[k] += __shfl_down_sync(0xffffffffu, sums[k], down);
      }
    }
  }
  if (lanes > kWarp) {
    constexpr int kWarps = kThreads / kWarp;
    for (int k = 0; k < prepared && thread % kWarp == 0; ++k) {
      shared[thread / kWarp * prepared + k] = sums[k];
    }
    __syncthreads();
    for (int k = thread; k < prepared; k += kThreads) {
      double sum = 0;
      for (int i = 0; i < kWarps; ++i) sum += shared[i * prepared + k];
      shared[kWarps * prepared + k] = sum;
    }
    __syncthreads();
    total = shared + kWarps * prepared;
  }
  if (thread % lanes == 0 && g < groups) {
    f.Finish(params + g * count, total, dparams + g * count);
  }
}

// Puts a kernel into the stream.
template <typename... P, typename... A>
bool Launch(const char* name, void (*kernel)(P...), int64_t blocks, int threads, int64_t shared,
            void* stream, Error* error, A... arguments) {
  const auto launch = [&](P... p) {
#ifdef __CUDACC__
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&p))...};
    const cudaError_t code = cudaLaunchKernel(
        reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned>(blocks)),
        dim3(static_cast<unsigned>(threads)), pointers, static_cast<size_t>(shared),
        static_cast<cudaStream_t>(stream));
#else
    const cudaError_t code = emulation::Launch(blocks, threads, shared, [&] { kernel(p...); });
    (void)stream;
#endif
    return code;
  };
  const cudaError_t code = launch(arguments...);
  if (code == cudaSuccess) return true;
  cudaGetLastError();  // or the framework would take it for an error of its own
  return error->Say("%s: CUDA does not start %lld blocks of %d threads: %s", name,
                    static_cast<long long>(blocks), threads, cudaGetErrorString(code));
}

inline bool Aligned(const void* array) {
  return reinterpret_cast<uintptr_t>(array) % kWordBytes == 0;
}

// Kernel: see kernels/all.h.
template <typename Kernel>
struct CudaEntry {
  static bool Check(const Call& call, Error* error) {
    typename Kernel::Settings settings{};
    return Kernel::Parse(call, &settings, error);
  }

  // Calls f(formula, T) with the formula of the settings and the type of the arithmetic.
  template <typename F>
  static bool Dispatch(const Call& call, Error* error, const F& f) {
    typename Kernel::Settings settings{};
    if (!Kernel::Parse(call, &settings, error)) return false;
    bool done = false;
    Kernel::Specialize(settings, [&](const auto& formula) {
      done = call.dtype == DType::kFloat64 ? f(formula, double{}) : f(formula, float{});
    });
    return done;
  }

  template <bool kBackward, typename Formula, typename T>
  static bool Run(const Formula& f, const Layout& l, const Call& call, const Arrays<T>& arrays,
                  void* stream, Error* error) {
    if (!l.Fits()) return error->Say("%s: x is too large for CUDA", Kernel::kName);
    const int64_t size = sizeof(T), row = f.prepared() * size;
    int64_t shared = l.block_groups * row;
    if (kBackward) {
      shared = Most(shared, kThreads / kWarp * row);
      shared = Most(shared, kThreads * Most(kBatch * size, sizeof(double)));
    }
    return Launch(Kernel::kName, Elements<kBackward, Formula, T>, l.blocks(), l.threads(), shared,
                  stream, error, f, l, call.count, arrays);
  }

  static bool Forward(const Call& call, const void* x, const void* params, const uint32_t* key,
                      void* y, void* stream, Error* error) {
    return Dispatch(call, error, [&](const auto& f, auto t) {
      using T = decltype(t);
      if (call.size() == 0) return true;
      const Layout l(call, Aligned(x) && Aligned(y), f.prepared() * int64_t{sizeof(T)});
      const Arrays<T> arrays{static_cast<const T*>(x), static_cast<const T*>(params),
                             Kernel::kRandom ? key : nullptr, call.key_words, nullptr,
                             static_cast<T*>(y), nullptr};
      return Run<false>(f, l, call, arrays, stream, error);
    });
  }

  static int64_t ScratchBytes(const Call& call) {
    Error error;
    int64_t bytes = 0;
    Dispatch(call, &error, [&](const auto& f, auto t) {
      for (const bool aligned : {false, true}) {
        if (call.size() == 0) continue;
        const Layout l(call, aligned, f.prepared() * int64_t{sizeof(t)});
        bytes = Most(bytes, l.slots() * f.prepared() * l.groups * int64_t{sizeof(double)});
      }
      return true;
    });
    return bytes;
  }

  static bool Backward(const Call& call, const void* x, const void* params, const uint32_t* key,
                       const void* dy, void* dx, void* dparams, void* scratch, void* stream,
                       Error* error) {
    return Dispatch(call, error, [&](const auto& f, auto t) {
      using T = decltype(t);
      using Formula = typename std::decay<decltype(f)>::type;
      if (call.size() == 0) {
        const cudaError_t code = cudaMemsetAsync(
            dparams, 0, static_cast<size_t>(call.groups * call.count) * sizeof(T),
            static_cast<cudaStream_t>(stream));
        return code == cudaSuccess ||
               error->Say("%s: CUDA does not write zeros: %s", Kernel::kName,
                          cudaGetErrorString(code));
      }
      const Layout l(call, Aligned(x) && Aligned(dy) && Aligned(dx),
                     f.prepared() * int64_t{sizeof(T)});
      auto* const partial = static_cast<double*>(scratch);
      const Arrays<T> arrays{static_cast<const T*>(x), static_cast<const T*>(params),
                             Kernel::kRandom ? key : nullptr, call.key_words,
                             static_cast<const T*>(dy), static_cast<T*>(dx), partial};
      const int lanes = l.slots() <= 4 ? 1 : l.slots() <= 2 * kWarp ? kWarp : kThreads;
      const int64_t shared =
          lanes > kWarp ? (kThreads / kWarp + 1) * f.prepared() * int64_t{sizeof(double)} : 0;
      return Run<true>(f, l, call, arrays, stream, error) &&
             Launch(Kernel::kName, FinishGroups<Formula, T>, CeilDiv(l.groups, kThreads / lanes),
                    kThreads, shared, stream, error, f, l.groups, call.count, l.slots(), lanes,
                    partial, arrays.params, static_cast<T*>(dparams));
    });
  }

  static constexpr CudaKernel Entry() {
    return {Kernel::kName, Kernel::kRandom, false, Check, Forward, ScratchBytes, Backward};
  }
};

// Elements of y at `at`, neighbours of one row, and the pieces that they come from.
template <bool kBackward, int kCount, typename Kernel, typename T>
__device__ void PoolPack(DType dtype, bool wide, int64_t at, int64_t pieces, int64_t inner,
                         const T* x, const T* dy, T* out) {
  const int64_t first = inner == 1 ? at * pieces : (at / inner * pieces) * inner + at % inner;
  T y[kCount], piece[kCount], sum[kCount], share[kCount], unused[1];
  Load<kCount, false>(dtype, x, nullptr, first, 1, wide, y, unused);
  for (int64_t j = 1; j < pieces; ++j) {
    Load<kCount, false>(dtype, x, nullptr, first + j * inner, 1, wide, piece, unused);
    for (int k = 0; k < kCount; ++k) y[k] = Kernel::Join(y[k], piece[k]);
  }
  if constexpr (kBackward) {
    for (int k = 0; k < kCount; ++k) sum[k] = T(0);
    for (int64_t j = 0; j < pieces; ++j) {
      Load<kCount, false>(dtype, x, nullptr, first + j * inner, 1, wide, piece, unused);
      for (int k = 0; k < kCount; ++k) sum[k] += Kernel::Shares(y[k], piece[k]);
    }
    Load<kCount, false>(dtype, dy, nullptr, at, 1, wide, share, unused);
    for (int k = 0; k < kCount; ++k) share[k] = share[k] / sum[k];
    for (int64_t j = 0; j < pieces; ++j) {
      Load<kCount, false>(dtype, x, nullptr, first + j * inner, 1, wide, piece, unused);
      for (int k = 0; k < kCount; ++k) piece[k] = Kernel::Backward(y[k], piece[k], share[k]);
      Store<kCount>(dtype, piece, out, first + j * inner, 1, wide);
    }
  } else {
    Store<kCount>(dtype, y, out, at, 1, wide);
  }
}

// y has `size` elements, [size / inner, inner]. If `wide`, no pack lies in two rows.
template <bool kBackward, typename Kernel, typename T>
__global__ void __launch_bounds__(kThreads)
    Pool(DType dtype, bool wide, int64_t size, int64_t pieces, int64_t inner, const T* x,
         const T* dy, T* out) {
  constexpr int64_t kSize = kPack<T>;
  const int64_t begin = int64_t{1} * blockIdx.x * kThreads * kSize, thread = threadIdx.x;
  if (wide) {
    const int64_t at = begin + thread * kSize;
    if (at < size) {
      PoolPack<kBackward, kSize, Kernel>(dtype, true, at, pieces, inner, x, dy, out);
    }
  } else {
    for (int64_t k = 0; k < kSize; ++k) {
      const int64_t at = begin + k * kThreads + thread;
      if (at < size) {
        PoolPack<kBackward, 1, Kernel>(dtype, false, at, pieces, inner, x, dy, out);
      }
    }
  }
}

template <typename Kernel>
struct CudaPoolEntry {
  static bool Check(const Call& call, Error* error) {
    return CheckPool(Kernel::kName, call, error);
  }

  template <bool kBackward, typename T>
  static bool Run(const Call& call, bool aligned, const void* x, const void* dy, void* out,
                  void* stream, Error* error) {
    if (!Check(call, error)) return false;
    if (call.size() == 0) return true;
    constexpr int64_t kSize = kPack<T>;
    const bool wide = aligned && call.inner % kSize == 0;
    const int64_t blocks = CeilDiv(call.size(), kThreads * kSize);
    if (blocks > INT_MAX) return error->Say("%s: x is too large for CUDA", Kernel::kName);
    return Launch(Kernel::kName, Pool<kBackward, Kernel, T>, blocks, kThreads, 0, stream, error,
                  call.dtype, wide, call.size(), call.settings[0], call.inner,
                  static_cast<const T*>(x), static_cast<const T*>(dy), static_cast<T*>(out));
  }

  template <bool kBackward>
  static bool Run(const Call& call, bool aligned, const void* x, const void* dy, void* out,
                  void* stream, Error* error) {
    return call.dtype == DType::kFloat64
               ? Run<kBackward, double>(call, aligned, x, dy, out, stream, error)
               : Run<kBackward, float>(call, aligned, x, dy, out, stream, error);
  }

  static bool Forward(const Call& call, const void* x, const void*, const uint32_t*, void* y,
                      void* stream, Error* error) {
    return Run<false>(call, Aligned(x) && Aligned(y), x, nullptr, y, stream, error);
  }

  static int64_t ScratchBytes(const Call&) { return 0; }

  static bool Backward(const Call& call, const void* x, const void*, const uint32_t*,
                       const void* dy, void* dx, void*, void*, void* stream, Error* error) {
    return Run<true>(call, Aligned(x) && Aligned(dy) && Aligned(dx), x, dy, dx, stream, error);
  }

  static constexpr CudaKernel Entry() {
    return {Kernel::kName, Kernel::kRandom, true, Check, Forward, ScratchBytes, Backward};
  }
};

template <typename Kernel>
constexpr CudaKernel CudaEntryOf() {
  if constexpr (Pools<Kernel>(0)) {
    return CudaPoolEntry<Kernel>::Entry();
  } else {
    return CudaEntry<Kernel>::Entry();
  }
}

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_CUDA_CUH_
