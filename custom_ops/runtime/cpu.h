// Loops over elements on the CPU, written once for every kernel. See kernels/all.h for what a
// kernel is.
//
// The input is cut into items, by its shape alone: who works on which item, and on how many
// threads, does not change a bit of the result. Sums over elements are taken in vectors of float
// over at most kStrip elements a lane, then in double, in a fixed order.
//
// Two ways of cutting it:
//   runs     a group has many neighbouring elements: its parameters are the same in all lanes
//   columns  neighbours belong to different groups: each lane has its own parameters, and a strip
//            goes from row to row

#ifndef KERAS_LEARNACT_RUNTIME_CPU_H_
#define KERAS_LEARNACT_RUNTIME_CPU_H_

#include <stdlib.h>

#include <atomic>
#include <type_traits>
#include <utility>

#include "runtime/call.h"
#include "runtime/half.h"
#include "runtime/pool.h"
#include "runtime/simd.h"

namespace keras_learnact::KLA_TARGET {

constexpr int64_t kItem = 16384;   // elements of an item, about
constexpr int64_t kRows = 4;        // rows of a strip in columns; divides kStrip
constexpr int64_t kAhead = 8;       // so many vectors or rows ahead, x and dy are fetched
constexpr int64_t kStrip = 256;    // vectors after which a sum in float is added to one in double
constexpr int kMaxPrepared = 72;  // of any formula
constexpr int64_t kInline = 16384;  // below this many elements other threads are not worth waking

// Uninitialised memory for `size` objects of a plain type, aligned for vectors.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : data_(static_cast<T*>(
            aligned_alloc(64, static_cast<size_t>(size * sizeof(T) / 64 + 1) * 64))) {}
  ~Buffer() { free(data_); }
  Buffer(const Buffer&) = delete;
  T* get() const { return data_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  T* data_;
};

template <typename F>
void Parallel(int64_t count, const F& f) {
  ParallelFor(count, [](void* context, int64_t i) { (*static_cast<const F*>(context))(i); },
              const_cast<F*>(&f));
}

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t Clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// f(0), f(1), … f(count - 1) for a count of at most kMost. Written out, not looped: only then does
// the compiler keep the elements of an array in registers.
template <int... kIndex, typename F>
HOST_DEVICE void WrittenOut(std::integer_sequence<int, kIndex...>, int count, const F& f) {
  ((kIndex < count ? f(kIndex) : void()), ...);
}
template <int kMost, typename F>
HOST_DEVICE void WrittenOut(int count, const F& f) {
  WrittenOut(std::make_integer_sequence<int, kMost>(), count, f);
}

// Asks for the element `distance` ones further on, which there need not be.
template <typename T>
HOST_DEVICE void Prefetch(const T* from, int64_t distance) {
  const uintptr_t bytes = static_cast<uintptr_t>(distance) * sizeof(T);
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(from) + bytes));
}

// The arithmetic of a formula, as the loops below call it: the loops are compiled once, not once
// for each formula.
template <typename T>
class Strips {
 public:
  using V = Vec<T>;
  int prepared = 0;  // numbers of each group after Prepare
  virtual void Prepare(const T* params, T* p) const = 0;
  virtual void Finish(const T* params, const double* dp, T* dparams) const = 0;
  // `tiles` neighbouring strips of `steps` vectors, `stride` elements apart. `index` is the first
  // element's, for random numbers. p: [tiles][prepared]. To dp, [tiles][prepared], the gradient of
  // p is added; to sums, [tiles][prepared][lanes], that of elements whose plain arithmetic might
  // overflow.
  virtual void Forward(const V* p, const T* x, T* y, int64_t tiles, int64_t steps, int64_t stride,
                       uint64_t index, int64_t index_stride, const uint32_t* key) const = 0;
  virtual void Backward(const V* p, const T* x, const T* dy, T* dx, int64_t tiles, int64_t steps,
                        int64_t stride, uint64_t index, int64_t index_stride, const uint32_t* key,
                        V* dp, double* sums) const = 0;

 protected:
  ~Strips() = default;
};

template <typename Formula, typename T>
class StripsOf final : public Strips<T> {
  using V = Vec<T>;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kMax = Formula::kMaxPrepared;

 public:
  explicit StripsOf(const Formula& f) : f_(f) { this->prepared = f.prepared(); }

  void Prepare(const T* params, T* p) const override { f_.Prepare(params, p); }

  void Finish(const T* params, const double* dp, T* dparams) const override {
    f_.Finish(params, dp, dparams);
  }

  void Forward(const V* p, const T* x, T* y, int64_t tiles, int64_t steps, int64_t stride,
               uint64_t index, int64_t index_stride, const uint32_t* key) const override {
    const Formula f = f_;
    const uint32_t words[] = {key ? key[0] : 0, key ? key[1] : 0};  // a copy, as of p below
    for (; tiles > 0; --tiles) {
      V q[kMax];  // a copy: no store into y can change it, so it stays in registers
      WrittenOut<kMax>(f.prepared(), [&](int k) { q[k] = p[k]; });
      for (int64_t i = 0; i < steps; ++i) {
        for (; i < steps; ++i) {
          Prefetch(x, (i + kAhead) * stride);
          const V x_ = V::Load(x + i * stride);
          if (!AllUsual(f, q, x_)) break;
          f.template Forward<V>(q, x_, At(i, index, index_stride, words)).Store(y + i * stride);
        }
        // Outside of the loop: no call in it takes its registers away.
        if (i < steps) {
          CarefulForward(p, x + i * stride, y + i * stride, At(i, index, index_stride, key));
        }
      }
      p += f.prepared();
      x += kLanes, y += kLanes, index += kLanes;
    }
  }

  void Backward(const V* p, const T* x, const T* dy, T* dx, int64_t tiles, int64_t steps,
                int64_t stride, uint64_t index, int64_t index_stride, const uint32_t* key, V* dp,
                double* sums) const override {
    const Formula f = f_;
    const uint32_t words[] = {key ? key[0] : 0, key ? key[1] : 0};
    for (; tiles > 0; --tiles) {
      V q[kMax], dq[kMax];
      WrittenOut<kMax>(f.prepared(), [&](int k) { q[k] = p[k], dq[k] = dp[k]; });
      for (int64_t i = 0; i < steps; ++i) {
        for (; i < steps; ++i) {
          Prefetch(x, (i + kAhead) * stride);
          Prefetch(dy, (i + kAhead) * stride);
          const V x_ = V::Load(x + i * stride), dy_ = V::Load(dy + i * stride);
          if (!AllUsual(f, q, x_)) break;
          f.template Backward<V>(q, x_, dy_, dq, At(i, index, index_stride, words))
              .Store(dx + i * stride);
        }
        if (i < steps) {
          CarefulBackward(p, x + i * stride, dy + i * stride, dx + i * stride,
                          At(i, index, index_stride, key), sums);
        }
      }
      WrittenOut<kMax>(f.prepared(), [&](int k) { dp[k] = dq[k]; });
      p += f.prepared(), dp += f.prepared(), sums += f.prepared() * kLanes;
      x += kLanes, dy += kLanes, dx += kLanes, index += kLanes;
    }
  }

 private:
  static HOST_DEVICE Place At(int64_t i, uint64_t index, int64_t index_stride,
                              const uint32_t* key) {
    return Place{index + static_cast<uint64_t>(i * index_stride), key};
  }

  static HOST_DEVICE bool AllUsual(const Formula& f, const V* q, V x) {
    if constexpr (Formula::kAlwaysUsual) {
      return true;
    } else {
      return None(~f.template Usual<V>(q, x));
    }
  }

  // One vector, some of whose lanes' plain arithmetic might overflow, lane by lane.
  __attribute__((noinline, cold)) void CarefulForward(const V* p, const T* x, T* y,
                                                      Place place) const {
    if constexpr (!Formula::kAlwaysUsual) {
      for (int l = 0; l < kLanes; ++l) {
        T lane[kMax];
        for (int k = 0; k < f_.prepared(); ++k) lane[k] = p[k].v[l];
        y[l] = f_.template CarefulForward<T>(lane, x[l], Place{place.index + l, place.key});
      }
    }
  }

  __attribute__((noinline, cold)) void CarefulBackward(const V* p, const T* x, const T* dy, T* dx,
                                                       Place place, double* sums) const {
    if constexpr (!Formula::kAlwaysUsual) {
      for (int l = 0; l < kLanes; ++l) {
        T lane[kMax];
        double dp[kMax];
        for (int k = 0; k < f_.prepared(); ++k) {
          lane[k] = p[k].v[l];
          dp[k] = 0;
        }
        const T dy_ = dy[l];  // dx may be in its place
        dx[l] = f_.template CarefulBackward<T>(lane, x[l], dy_, dp,
                                               Place{place.index + l, place.key});
        for (int k = 0; k < f_.prepared(); ++k) sums[k * kLanes + l] += Bounded<T>(dp[k], dy_);
      }
    }
  }

  const Formula f_;
};

// T: float or double. S: how x, y, dy, dx are stored.
template <typename T, typename S>
class Cpu {
  using V = Vec<T>;
  static constexpr int kLanes = V::kLanes;
  static constexpr bool kConvert = sizeof(S) != sizeof(T);

 public:
  Cpu(const Strips<T>& f, const Call& call, const uint32_t* key)
      : f_(f), c_(call), key_(key), prepared_(f.prepared) {
    if (key != nullptr && call.key_words == 4) {
      first_ = uint64_t{key[3]} << 32 | key[2];
    }
    if (call.size() == 0) {  // no items; the sizes beside the zero may be of any size
      columns_ = rows_ = chunks_ = blocks_ = partials_ = 0;
      runs_ = true;
      return;
    }
    columns_ = call.groups * call.inner;
    runs_ = call.groups == 1 || call.inner >= 4 * kLanes;
    if (runs_) {
      // One group: one run.
      rows_ = call.groups == 1 ? 1 : call.outer;
      run_ = call.groups == 1 ? call.size() : call.inner;
      chunks_ = CeilDiv(run_, kItem);
      blocks_ = Blocks(call.groups * chunks_, rows_, run_ < kItem ? run_ : kItem);
      partials_ = blocks_ * chunks_;
    } else {
      // Short rows are taken several at a time, so that vectors are full.
      int64_t repeats = 1;
      if (columns_ < 16 * kLanes) {
        while (repeats * columns_ % kLanes != 0) ++repeats;
        while (repeats * columns_ < 4 * kLanes) repeats *= 2;
      }
      stride_ = columns_ * repeats;
      rows_ = call.size() / stride_;
      // Whole groups, so that no two items share one.
      width_ = repeats > 1 ? stride_ : call.inner * CeilDiv(32 * kLanes, call.inner);
      if (width_ > stride_) width_ = stride_;
      chunks_ = CeilDiv(stride_, width_);
      blocks_ = Blocks(chunks_, rows_, width_);
      partials_ = blocks_;
    }
  }

  bool Forward(const S* x, const T* params, S* y) const {
    Buffer<T> prepared(c_.groups * prepared_);
    if (!prepared) return false;
    Prepare(params, prepared.get());
    return Run<false>(prepared.get(), x, nullptr, y, nullptr);
  }

  bool Backward(const S* x, const T* params, const S* dy, S* dx, T* dparams) const {
    Buffer<T> prepared(c_.groups * prepared_);
    Buffer<double> partial(partials_ * c_.groups * prepared_);
    if (!prepared || !partial) return false;
    Prepare(params, prepared.get());
    if (!Run<true>(prepared.get(), x, dy, dx, partial.get())) return false;
    ForGroups([&](int64_t g) {
      double total[kMaxPrepared];
      for (int k = 0; k < prepared_; ++k) {
        total[k] = 0;
        for (int64_t i = 0; i < partials_ && c_.size() > 0; ++i) {
          total[k] += partial.get()[(i * c_.groups + g) * prepared_ + k];
        }
      }
      f_.Finish(params + g * c_.count, total, dparams + g * c_.count);
    });
    return true;
  }

 private:
  // Into how many blocks of rows: enough items for the threads, each not too small.
  static int64_t Blocks(int64_t items, int64_t rows, int64_t width) {
    const int64_t most = Clamp(CeilDiv(rows * width, kItem), 1, rows < 1 ? 1 : rows);
    return Clamp(CeilDiv(64, items < 1 ? 1 : items), 1, most);
  }

  template <typename F>
  void ForGroups(const F& f) const {
    const int64_t step = 256;
    const auto some = [&](int64_t i) {
      const int64_t end = (i + 1) * step < c_.groups ? (i + 1) * step : c_.groups;
      for (int64_t g = i * step; g < end; ++g) f(g);
    };
    Parallel(CeilDiv(c_.groups, step), some);
  }

  void Prepare(const T* params, T* prepared) const {
    ForGroups([&](int64_t g) { f_.Prepare(params + g * c_.count, prepared + g * prepared_); });
  }

  template <bool kBackward>
  bool Run(const T* prepared, const S* x, const S* dy, S* out, double* partial) const {
    if (c_.size() == 0) return true;
    const int64_t items = runs_ ? blocks_ * c_.groups * chunks_ : blocks_ * chunks_;
    std::atomic<bool> enough{true};
    const auto item = [&](int64_t i) {
      if (!(runs_ ? RunItem<kBackward>(i, prepared, x, dy, out, partial)
                  : ColumnItem<kBackward>(i, prepared, x, dy, out, partial))) {
        enough = false;
      }
    };
    if (c_.size() < kInline) {
      struct {
        const decltype(item)* f;
        int64_t count;
      } all{&item, items};
      ParallelFor(
          1,
          [](void* context, int64_t) {
            const auto* all_items = static_cast<decltype(all)*>(context);
            for (int64_t i = 0; i < all_items->count; ++i) (*all_items->f)(i);
          },
          &all);
    } else {
      Parallel(items, item);
    }
    return enough;
  }

  // Sums in float become part of those in double, [prepared][lanes], and 0 again.
  void Flush(V* dp, double* sums) const {
    for (int k = 0; k < prepared_; ++k) {
      for (int l = 0; l < kLanes; ++l) sums[k * kLanes + l] += dp[k].v[l];
      dp[k] = V(0.0);
    }
  }

  // One vector of which only the first `lanes` are elements.
  template <bool kBackward>
  void Part(const V* p, const T* x, const T* dy, T* out, int lanes, int64_t index,
            double* sums) const {
    T x_[kLanes] = {}, out_[kLanes];
    memcpy(x_, x, lanes * sizeof(T));
    if constexpr (!kBackward) {
      f_.Forward(p, x_, out_, 1, 1, kLanes, first_ + index, 0, key_);
    } else {
      T dy_[kLanes] = {};
      memcpy(dy_, dy, lanes * sizeof(T));
      V dp[kMaxPrepared];
      double all[kMaxPrepared * kLanes];
      for (int k = 0; k < prepared_; ++k) dp[k] = V(0.0);
      for (int i = 0; i < prepared_ * kLanes; ++i) all[i] = 0;
      f_.Backward(p, x_, dy_, out_, 1, 1, kLanes, first_ + index, 0, key_, dp, all);
      Flush(dp, all);
      for (int k = 0; k < prepared_; ++k) {
        for (int l = 0; l < lanes; ++l) sums[k * kLanes + l] += all[k * kLanes + l];
      }
    }
    memcpy(out, out_, lanes * sizeof(T));
  }

  // A run of neighbours of one group, or a part of it.
  template <bool kBackward>
  bool RunItem(int64_t item, const T* prepared, const S* x, const S* dy, S* out,
               double* partial) const {
    const int64_t chunk = item % chunks_, g = item / chunks_ % c_.groups,
                  block = item / chunks_ / c_.groups;
    const int64_t begin = chunk * kItem, end = begin + kItem < run_ ? begin + kItem : run_;
    const int64_t first = rows_ * block / blocks_, last = rows_ * (block + 1) / blocks_;
    V p[kMaxPrepared], dp[kMaxPrepared];
    for (int k = 0; k < prepared_; ++k) {
      p[k] = V(prepared[g * prepared_ + k]);
      dp[k] = V(0.0);
    }
    double sums[kBackward ? kMaxPrepared * kLanes : 1];
    if constexpr (kBackward) {
      for (int i = 0; i < prepared_ * kLanes; ++i) sums[i] = 0;
    }
    constexpr int64_t kPiece = kStrip * kLanes;
    T x_piece[kConvert ? kPiece : 1], dy_piece[kConvert && kBackward ? kPiece : 1];
    int64_t held = 0;  // vectors whose sums are in dp
    for (int64_t row = first; row < last; ++row) {
      for (int64_t i = begin; i < end; i += kPiece) {
        const int64_t count = end - i < kPiece ? end - i : kPiece;
        const int64_t at = (row * c_.groups + g) * run_ + i;
        const int64_t full = count / kLanes;
        const int rest = static_cast<int>(count % kLanes);
        const T *from = nullptr, *dy_from = nullptr;
        T* to = nullptr;
        if constexpr (kConvert) {
          ToFloat(x + at, x_piece, count);
          if constexpr (kBackward) ToFloat(dy + at, dy_piece, count);
          from = to = x_piece;
          dy_from = dy_piece;
        } else {
          from = x + at;
          dy_from = kBackward ? dy + at : nullptr;
          to = out + at;
        }
        if constexpr (kBackward) {
          if (held + full > kStrip) {
            Flush(dp, sums);
            held = 0;
          }
          held += full;
          f_.Backward(p, from, dy_from, to, 1, full, kLanes, first_ + at, kLanes, key_, dp, sums);
        } else {
          f_.Forward(p, from, to, 1, full, kLanes, first_ + at, kLanes, key_);
        }
        if (rest > 0) {
          const int64_t done = full * kLanes;
          Part<kBackward>(p, from + done, kBackward ? dy_from + done : nullptr, to + done, rest,
                          at + done, sums);
        }
        if constexpr (kConvert) FromFloat(to, out + at, count);
      }
    }
    if constexpr (kBackward) {
      Flush(dp, sums);
      double* result = partial + ((block * chunks_ + chunk) * c_.groups + g) * prepared_;
      for (int k = 0; k < prepared_; ++k) {
        double total = 0;
        for (int l = 0; l < kLanes; ++l) total += sums[k * kLanes + l];
        result[k] = total;
      }
    }
    return true;
  }

  // Calls f(column - begin, its group) for columns [begin, end), which begin a group.
  template <typename F>
  void ForColumns(int64_t begin, int64_t end, const F& f) const {
    int64_t g = begin % columns_ / c_.inner, left = c_.inner;
    for (int64_t column = 0; column < end - begin; ++column) {
      f(column, g);
      if (--left == 0) {
        left = c_.inner;
        if (++g == c_.groups) g = 0;
      }
    }
  }

  // Columns of whole groups, over a block of rows.
  template <bool kBackward>
  bool ColumnItem(int64_t item, const T* prepared, const S* x, const S* dy, S* out,
                  double* partial) const {
    const int64_t chunk = item % chunks_, block = item / chunks_;
    const int64_t begin = chunk * width_, end = begin + width_ < stride_ ? begin + width_ : stride_;
    const int64_t first = rows_ * block / blocks_, last = rows_ * (block + 1) / blocks_;
    // What is left after the last full row is a shorter row of the last block.
    const int64_t rest = block == blocks_ - 1 ? c_.size() - rows_ * stride_ : 0;
    const int64_t width = end - begin, tiles = CeilDiv(width, kLanes);

    Buffer<V> p(tiles * prepared_), dp(kBackward ? tiles * prepared_ : 0);
    Buffer<double> sums(kBackward ? tiles * kLanes * prepared_ : 0);
    Buffer<T> x_rows(kConvert ? kRows * width : 0);
    Buffer<T> dy_rows(kConvert && kBackward ? kRows * width : 0);
    if (!p || !dp || !sums || !x_rows || !dy_rows) return false;
    ForColumns(begin, end, [&](int64_t column, int64_t g) {
      const int64_t tile = column / kLanes, lane = column % kLanes;
      T* to = reinterpret_cast<T*>(p.get() + tile * prepared_) + lane;
      for (int k = 0; k < prepared_; ++k) to[k * kLanes] = prepared[g * prepared_ + k];
    });
    for (int64_t column = width; column < tiles * kLanes; ++column) {  // no elements are there
      T* to = reinterpret_cast<T*>(p.get() + column / kLanes * prepared_) + column % kLanes;
      for (int k = 0; k < prepared_; ++k) to[k * kLanes] = prepared[k];
    }
    if constexpr (kBackward) {
      for (int64_t i = 0; i < tiles * prepared_; ++i) dp.get()[i] = V(0.0);
      for (int64_t i = 0; i < tiles * kLanes * prepared_; ++i) sums.get()[i] = 0;
    }
    const auto flush = [&] {
      for (int64_t tile = 0; tile < tiles && kBackward; ++tile) {
        Flush(dp.get() + tile * prepared_, sums.get() + tile * kLanes * prepared_);
      }
    };

    const auto some_rows = [&](int64_t row, int64_t count, int64_t used) {
      const int64_t at = row * stride_ + begin;
      const T *from = nullptr, *dy_from = nullptr;
      T* to = nullptr;
      int64_t stride = stride_;
      if constexpr (kConvert) {
        for (int64_t i = 0; i < count; ++i) {
          ToFloat(x + at + i * stride_, x_rows.get() + i * width, used);
          if constexpr (kBackward) ToFloat(dy + at + i * stride_, dy_rows.get() + i * width, used);
        }
        from = to = x_rows.get();
        dy_from = dy_rows.get();
        stride = width;
      } else {
        from = x + at;
        dy_from = kBackward ? dy + at : nullptr;
        to = out + at;
      }
      const int64_t full = used / kLanes, column = full * kLanes;
      if constexpr (kBackward) {
        f_.Backward(p.get(), from, dy_from, to, full, count, stride, first_ + at, stride_, key_,
                    dp.get(), sums.get());
      } else {
        f_.Forward(p.get(), from, to, full, count, stride, first_ + at, stride_, key_);
      }
      for (int64_t i = 0; i < count && column < used; ++i) {
        const int64_t there = column + i * stride;
        Part<kBackward>(p.get() + full * prepared_, from + there,
                        kBackward ? dy_from + there : nullptr, to + there,
                        static_cast<int>(used - column), at + column + i * stride_,
                        kBackward ? sums.get() + column * prepared_ : nullptr);
      }
      if constexpr (kConvert) {
        for (int64_t i = 0; i < count; ++i) {
          FromFloat(to + i * width, out + at + i * stride_, used);
        }
      }
    };
    for (int64_t row = first; row < last; row += kRows) {
      some_rows(row, last - row < kRows ? last - row : kRows, width);
      if ((row - first) % kStrip == kStrip - kRows) flush();
    }
    if (rest > 0) some_rows(rows_, 1, Clamp(rest - begin, 0, width));
    flush();

    if constexpr (kBackward) {
      double* result = partial + block * c_.groups * prepared_;
      ForColumns(begin, end, [&](int64_t, int64_t g) {
        for (int k = 0; k < prepared_; ++k) result[g * prepared_ + k] = 0;
      });
      ForColumns(begin, end, [&](int64_t column, int64_t g) {
        const double* from = sums.get() + column / kLanes * kLanes * prepared_ + column % kLanes;
        for (int k = 0; k < prepared_; ++k) result[g * prepared_ + k] += from[k * kLanes];
      });
    }
    return true;
  }

  const Strips<T>& f_;
  const Call& c_;
  const uint32_t* key_;
  uint64_t first_ = 0;  // index of x's first element, for random numbers
  bool runs_;
  int prepared_;        // numbers of each group after Prepare
  int64_t columns_;     // groups * inner
  int64_t stride_ = 0;  // columns: elements of a row
  int64_t width_ = 0;   // columns: those of an item
  int64_t run_ = 0;     // runs: elements of a run
  int64_t rows_, chunks_, blocks_, partials_;
};

// Kernel: see kernels/all.h.
template <typename Kernel>
struct CpuEntry {
  static bool Check(const Call& call, Error* error) {
    typename Kernel::Settings settings{};
    return Kernel::Parse(call, &settings, error);
  }

  // Calls f(strips, T, S) for the formula with its settings and the dtype's types.
  template <typename F>
  static bool Dispatch(const Call& call, const F& f) {
    Error error;
    typename Kernel::Settings settings{};
    if (!Kernel::Parse(call, &settings, &error)) return false;
    bool done = false;
    Kernel::Specialize(settings, [&](const auto& formula) {
      using Formula = typename std::decay<decltype(formula)>::type;
      static_assert(Formula::kMaxPrepared <= kMaxPrepared, "");
      if (call.dtype == DType::kFloat64) {
        done = f(StripsOf<Formula, double>(formula), double{}, double{});
        return;
      }
      const StripsOf<Formula, float> strips(formula);
      const Strips<float>& any = strips;
      if (call.dtype == DType::kFloat32) done = f(any, float{}, float{});
      if (call.dtype == DType::kFloat16) done = f(any, float{}, Half{});
      if (call.dtype == DType::kBFloat16) done = f(any, float{}, BFloat16{});
    });
    return done;
  }

  static bool Forward(const Call& call, const void* x, const void* params, const uint32_t* key,
                      void* y) {
    return Dispatch(call, [&](const auto& strips, auto t, auto s) {
      using T = decltype(t);
      using S = decltype(s);
      return Cpu<T, S>(strips, call, key)
          .Forward(static_cast<const S*>(x), static_cast<const T*>(params), static_cast<S*>(y));
    });
  }

  static bool Backward(const Call& call, const void* x, const void* params, const uint32_t* key,
                       const void* dy, void* dx, void* dparams) {
    return Dispatch(call, [&](const auto& strips, auto t, auto s) {
      using T = decltype(t);
      using S = decltype(s);
      return Cpu<T, S>(strips, call, key)
          .Backward(static_cast<const S*>(x), static_cast<const T*>(params),
                    static_cast<const S*>(dy), static_cast<S*>(dx), static_cast<T*>(dparams));
    });
  }

  static constexpr CpuKernel Entry() {
    return {Kernel::kName, Kernel::kRandom, false, Check, Forward, Backward};
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_CPU_H_
