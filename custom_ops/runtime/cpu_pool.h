// Loops of pooling kernels on the CPU: k pieces, neighbours on one axis, become one element. x is
// [outer, groups, k, inner], y is [outer, groups, inner]. See kernels/all.h.
//
// A pooling kernel is written for one piece after the other. Few pieces, the usual case, are taken
// together.

#ifndef KERAS_LEARNACT_RUNTIME_CPU_POOL_H_
#define KERAS_LEARNACT_RUNTIME_CPU_POOL_H_

#include <utility>

#include "runtime/cpu.h"

namespace keras_learnact::KLA_TARGET {

HOST_DEVICE float ToFloat(float x) { return x; }
HOST_DEVICE double ToFloat(double x) { return x; }
HOST_DEVICE void FromFloat(float x, float* to) { *to = x; }
HOST_DEVICE void FromFloat(double x, double* to) { *to = x; }
HOST_DEVICE void FromFloat(float x, Half* to) { *to = ToHalf(x); }
HOST_DEVICE void FromFloat(float x, BFloat16* to) { *to = ToBFloat16(x); }

// Lanes of two vectors, those of b counted after those of a.
template <int... kLane, typename T>
HOST_DEVICE Vec<T> Shuffle(Vec<T> a, Vec<T> b) {
#ifdef __clang__
  return Vec<T>(__builtin_shufflevector(a.v, b.v, kLane...));
#else
  return Vec<T>(__builtin_shuffle(a.v, b.v, typename Vec<T>::Mask{kLane...}));
#endif
}

// What lane l of a vector is, as a lane of one of some vectors: of the j-th pieces of neighbours
// that were loaded as kCount vectors, and of the j-th of those vectors.
template <int kCount, int kLanes, int j>
struct Apart {
  static constexpr int Vector(int l) { return (l * kCount + j) / kLanes; }
  static constexpr int Lane(int l) { return (l * kCount + j) % kLanes; }
};
template <int kCount, int kLanes, int j>
struct Together {
  static constexpr int Vector(int l) { return (j * kLanes + l) % kCount; }
  static constexpr int Lane(int l) { return (j * kLanes + l) / kCount; }
};

// The vector that From describes: from the first two vectors, then with one after the other.
template <typename From, int kVector, typename T, int... l>
HOST_DEVICE Vec<T> Collect(Vec<T> so_far, Vec<T> next, std::integer_sequence<int, l...>) {
  return Shuffle<(From::Vector(l) == kVector              ? From::Lane(l) + Vec<T>::kLanes
                  : From::Vector(l) == 0 && kVector == 1 ? From::Lane(l)
                                                         : l)...>(so_far, next);
}
template <typename From, int kCount, int kVector = 1, typename T>
HOST_DEVICE Vec<T> Collect(Vec<T> so_far, const Vec<T>* vectors) {
  if constexpr (kVector == kCount) {
    return so_far;
  } else {
    so_far = Collect<From, kVector>(so_far, vectors[kVector],
                                    std::make_integer_sequence<int, Vec<T>::kLanes>{});
    return Collect<From, kCount, kVector + 1>(so_far, vectors);
  }
}

template <template <int, int, int> class From, int kCount, typename T, int... j>
HOST_DEVICE void Rearrange(const Vec<T>* from, Vec<T>* to, std::integer_sequence<int, j...>) {
  ((to[j] = Collect<From<kCount, Vec<T>::kLanes, j>, kCount>(from[0], from)), ...);
}

// T: float or double. S: how x, y, dy, dx are stored.
template <typename Kernel, typename T, typename S>
class CpuPool {
  using V = Vec<T>;

 public:
  explicit CpuPool(const Call& call)
      : pieces_(call.settings[0]), inner_(call.inner), rows_(call.outer * call.groups) {}

  void Forward(const S* x, S* y) const {
    Run([=](auto loops, const Part& part) {
      loops.Forward(part, x + part.x, y + part.y);
    });
  }

  void Backward(const S* x, const S* dy, S* dx) const {
    Run([=](auto loops, const Part& part) {
      loops.Backward(part, x + part.x, dy + part.y, dx + part.x);
    });
  }

 private:
  // `count` neighbours of y from y on. Their pieces in x, from x on, are `distance` elements apart,
  // and `step` elements from those of the next.
  struct Part {
    int64_t x, y;
    int count;
    int64_t pieces, step, distance;
  };
  static constexpr int kBlock = 512;  // the most of a part

  // A few pieces of neighbours as vectors, or of one as numbers.
  template <int kPieces, bool kLast>
  struct Few {
    void Forward(const Part& part, const S* x, S* y) {
      ForVectors(part.count, [&](int i, auto r) {
        using R = decltype(r);
        R x_[kPieces];
        LoadPieces(x, part.distance, i, x_);
        Store(Join(x_), y + i);
      });
    }

    void Backward(const Part& part, const S* x, const S* dy, S* dx) {
      ForVectors(part.count, [&](int i, auto r) {
        using R = decltype(r);
        R x_[kPieces];
        LoadPieces(x, part.distance, i, x_);
        const R y = Join(x_);
        R shares = Kernel::Shares(y, x_[0]);
        for (int j = 1; j < kPieces; ++j) shares += Kernel::Shares(y, x_[j]);
        const R share = Load<R>(dy + i) / shares;
        for (int j = 0; j < kPieces; ++j) x_[j] = Kernel::Backward(y, x_[j], share);
        StorePieces(x_, dx, part.distance, i);
      });
    }

    template <typename R>
    static HOST_DEVICE R Join(const R* x) {
      R y = x[0];
      for (int j = 1; j < kPieces; ++j) y = Kernel::Join(y, x[j]);
      return y;
    }

    template <typename R>
    static HOST_DEVICE void LoadPieces(const S* x, int64_t distance, int i, R* to) {
      if constexpr (kLast && std::is_same<R, V>::value) {
        V loaded[kPieces];
        for (int j = 0; j < kPieces; ++j) loaded[j] = Load<V>(x + i * kPieces + j * V::kLanes);
        Rearrange<Apart, kPieces>(loaded, to, std::make_integer_sequence<int, kPieces>{});
      } else {
        for (int j = 0; j < kPieces; ++j) {
          to[j] = Load<R>(kLast ? x + i * kPieces + j : x + i + j * distance);
        }
      }
    }

    template <typename R>
    static HOST_DEVICE void StorePieces(const R* from, S* dx, int64_t distance, int i) {
      if constexpr (kLast && std::is_same<R, V>::value) {
        V stored[kPieces];
        Rearrange<Together, kPieces>(from, stored, std::make_integer_sequence<int, kPieces>{});
        for (int j = 0; j < kPieces; ++j) Store(stored[j], dx + i * kPieces + j * V::kLanes);
      } else {
        for (int j = 0; j < kPieces; ++j) {
          Store(from[j], kLast ? dx + i * kPieces + j : dx + i + j * distance);
        }
      }
    }
  };

  // Any number of pieces, one after the other.
  struct Many {
    T x[kBlock], y[kBlock], share[kBlock];

    void Forward(const Part& part, const S* x_, S* y_) {
      Join(part, x_);
      for (int i = 0; i < part.count; ++i) FromFloat(y[i], y_ + i);
    }

    void Backward(const Part& part, const S* x_, const S* dy, S* dx) {
      Join(part, x_);
      for (int i = 0; i < part.count; ++i) share[i] = 0;
      for (int64_t j = 0; j < part.pieces; ++j) {
        Get(part, x_, j);
        ForVectors(part.count, [&](int i, auto r) {
          using R = decltype(r);
          const R sum = Load<R>(share + i) + Kernel::Shares(Load<R>(y + i), Load<R>(x + i));
          Store(sum, share + i);
        });
      }
      for (int i = 0; i < part.count; ++i) share[i] = T(ToFloat(dy[i])) / share[i];
      for (int64_t j = 0; j < part.pieces; ++j) {
        Get(part, x_, j);
        ForVectors(part.count, [&](int i, auto r) {
          using R = decltype(r);
          Store(Kernel::Backward(Load<R>(y + i), Load<R>(x + i), Load<R>(share + i)), x + i);
        });
        S* to = dx + j * part.distance;
        for (int i = 0; i < part.count; ++i) FromFloat(x[i], to + i * part.step);
      }
    }

    HOST_DEVICE void Get(const Part& part, const S* from, int64_t j) {
      from += j * part.distance;
      if (part.step == 1) {
        for (int i = 0; i < part.count; ++i) x[i] = ToFloat(from[i]);
      } else {
        for (int i = 0; i < part.count; ++i) x[i] = ToFloat(from[i * part.step]);
      }
    }

    HOST_DEVICE void Join(const Part& part, const S* from) {
      Get(part, from, 0);
      memcpy(y, x, part.count * sizeof(T));
      for (int64_t j = 1; j < part.pieces; ++j) {
        Get(part, from, j);
        ForVectors(part.count, [&](int i, auto r) {
          using R = decltype(r);
          Store(Kernel::Join(Load<R>(y + i), Load<R>(x + i)), y + i);
        });
      }
    }
  };

  // Calls f(i, R) for vectors of elements, R = V, and for those that do not fill one, R = T.
  template <typename F>
  static HOST_DEVICE void ForVectors(int count, const F& f) {
    int i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) f(i, V());
    for (; i < count; ++i) f(i, T());
  }

  template <typename R, typename From>
  static HOST_DEVICE R Load(const From* from) {
    constexpr int kCount = sizeof(R) / sizeof(T);
    T numbers[kCount];
    for (int l = 0; l < kCount; ++l) numbers[l] = ToFloat(from[l]);
    R x;
    memcpy(&x, numbers, sizeof(x));
    return x;
  }

  template <typename R, typename To>
  static HOST_DEVICE void Store(R x, To* to) {
    constexpr int kCount = sizeof(R) / sizeof(T);
    T numbers[kCount];
    memcpy(numbers, &x, sizeof(x));
    for (int l = 0; l < kCount; ++l) FromFloat(numbers[l], to + l);
  }

  template <typename F>
  void Run(const F& f) const {
    if (inner_ == 1) {
      RunWith<true>(f);
    } else {
      RunWith<false>(f);
    }
  }

  template <bool kLast, typename F>
  void RunWith(const F& f) const {
    if (pieces_ == 2) {
      ForParts([&](const Part& part) { f(Few<2, kLast>(), part); });
    } else if (pieces_ == 3) {
      ForParts([&](const Part& part) { f(Few<3, kLast>(), part); });
    } else if (pieces_ == 4) {
      ForParts([&](const Part& part) { f(Few<4, kLast>(), part); });
    } else if (pieces_ == 5) {
      ForParts([&](const Part& part) { f(Few<5, kLast>(), part); });
    } else {
      ForParts([&](const Part& part) { f(Many(), part); });
    }
  }

  // Calls f for every part.
  template <typename F>
  void ForParts(const F& f) const {
    // Along y: the row of one group is as long as an axis of x behind that of the pieces; where
    // there is none, all rows are one.
    const int64_t rows = inner_ == 1 ? 1 : rows_, width = inner_ == 1 ? rows_ : inner_;
    const int64_t step = inner_ == 1 ? pieces_ : 1, distance = inner_ == 1 ? 1 : inner_;
    const int64_t block = inner_ == 1 ? Clamp(4096 / pieces_, 16, kBlock) : kBlock;
    const int64_t chunks = CeilDiv(width, block), parts = rows * chunks;
    const int64_t size = rows_ * inner_ * pieces_;
    const int64_t items = size < kInline ? 1 : Clamp(size / kItem, 1, parts < 4096 ? parts : 4096);
    Parallel(items, [&](int64_t item) {
      for (int64_t i = parts * item / items; i < parts * (item + 1) / items; ++i) {
        const int64_t row = i / chunks, begin = i % chunks * block, left = width - begin;
        f(Part{row * pieces_ * width + begin * step, row * width + begin,
               static_cast<int>(left < block ? left : block), pieces_, step, distance});
      }
    });
  }

  int64_t pieces_, inner_, rows_;
};

template <typename Kernel>
struct CpuPoolEntry {
  static bool Check(const Call& call, Error* error) {
    return CheckPool(Kernel::kName, call, error);
  }

  // Calls f(T, S) with the dtype's types.
  template <typename F>
  static void Dispatch(const Call& call, const F& f) {
    if (call.dtype == DType::kFloat32) f(float{}, float{});
    if (call.dtype == DType::kFloat64) f(double{}, double{});
    if (call.dtype == DType::kFloat16) f(float{}, Half{});
    if (call.dtype == DType::kBFloat16) f(float{}, BFloat16{});
  }

  static bool Forward(const Call& call, const void* x, const void*, const uint32_t*, void* y) {
    Dispatch(call, [&](auto t, auto s) {
      using S = decltype(s);
      CpuPool<Kernel, decltype(t), S>(call).Forward(static_cast<const S*>(x), static_cast<S*>(y));
    });
    return true;
  }

  static bool Backward(const Call& call, const void* x, const void*, const uint32_t*,
                       const void* dy, void* dx, void*) {
    Dispatch(call, [&](auto t, auto s) {
      using S = decltype(s);
      CpuPool<Kernel, decltype(t), S>(call).Backward(
          static_cast<const S*>(x), static_cast<const S*>(dy), static_cast<S*>(dx));
    });
    return true;
  }

  static constexpr CpuKernel Entry() {
    return {Kernel::kName, Kernel::kRandom, true, Check, Forward, Backward};
  }
};

template <typename Kernel>
constexpr CpuKernel EntryOf() {
  if constexpr (Pools<Kernel>(0)) {
    return CpuPoolEntry<Kernel>::Entry();
  } else {
    return CpuEntry<Kernel>::Entry();
  }
}

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_CPU_POOL_H_
