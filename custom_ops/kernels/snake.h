// Snake (Ziyin, Hartwig, Ueda, NeurIPS 2020):
//
//   y = x + sin²(v)/a,   v = ax
//
// Settings: none. Parameter: a. It is computed as y = x + x sin(v) s with s = sin(v)/v, which is
// smooth at a = 0; the derivatives by x and a are 1 + 2 sin(v) cos(v) and x² s (2 cos(v) − s).
// Where |v| > 2/epsilon the wave is below the last digit of x: y = x. y(±∞) is y at
// the largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_SNAKE_H_
#define KERAS_LEARNACT_KERNELS_SNAKE_H_

#include "runtime/call.h"
#include "runtime/math.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

struct SnakeFormula {
  enum { kA, kBound, kMaxPrepared };
  static constexpr bool kAlwaysUsual = false;

  HOST_DEVICE int prepared() const { return kMaxPrepared; }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    p[kA] = params[kA];
    p[kBound] = BoundFor(params, 1, 0x1p60);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[kBound]);  // nan is usual: it stays nan
  }

  // Of sin(v) and cos(v): 0 and 1 where v is beyond 2/epsilon.
  template <typename R>
  struct Wave {
    R sine, cosine, ratio;  // ratio: sin(v)/v

    explicit HOST_DEVICE Wave(R v) {
      SinCos(v, &sine, &cosine);
      ratio = Select(v == R(0.0), R(1.0), sine / v);
    }
  };

  template <typename R>
  static HOST_DEVICE auto IsFar(R v) {
    return Abs(v) > R(PowerOfTwo(Float<R>::kMantissa + 1));
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R v = p[kA] * x;
    const Wave<R> wave(Select(IsFar(v), R(0.0), v));
    return x + x * (wave.sine * wave.ratio);
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R v = p[kA] * x, zero(0.0);
    const auto far = IsFar(v);
    const Wave<R> wave(Select(far, zero, v));
    const R by_a = x * (x * (wave.ratio * (R(2.0) * wave.cosine - wave.ratio)));
    dp[kA] += dy * Select(far, zero, by_a);
    return dy + dy * (R(2.0) * wave.sine * wave.cosine);
  }

  template <typename T>
  HOST_DEVICE void Finish(const T*, const double* dp, T* dparams) const {
    dparams[kA] = static_cast<T>(dp[kA]);
  }

  // v, or 0 where it is beyond 2/epsilon of T.
  template <typename T>
  static HOST_DEVICE bool CarefulPhase(T a, T x, double* v) {
    *v = static_cast<double>(Wide(a) * Wide(x));
    const bool far = fabs(*v) > PowerOfTwo(Float<T>::kMantissa + 1);
    if (far) *v = 0;
    return far;
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place) const {
    x = Finite(x);
    double v;
    CarefulPhase(p[kA], x, &v);
    const Wave<double> wave(v);
    return static_cast<T>(x + x * (wave.sine * wave.ratio));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place) const {
    double v;
    const bool far = CarefulPhase(p[kA], Finite(x), &v);
    const Wave<double> wave(v);
    const Wide number(Finite(x)), bend(wave.ratio * (2 * wave.cosine - wave.ratio));
    if (!far) dp[kA] += static_cast<double>(Wide(dy) * number * number * bend);
    if (Abs(x) > Float<T>::kMax) return T(0);
    return static_cast<T>(dy + dy * (2 * wave.sine * wave.cosine));
  }
};

struct Snake {
  static constexpr char kName[] = "Snake";
  static constexpr bool kRandom = false;

  struct Settings {};

  static bool Parse(const Call& call, Settings*, Error* error) {
    if (call.num_settings != 0 || call.count != 1) {
      return error->Say("%s: there must be 1 parameter, a, and no settings. Received: %lld and "
                        "%lld", kName, static_cast<long long>(call.count),
                        static_cast<long long>(call.num_settings));
    }
    return true;
  }

  template <typename F>
  static void Specialize(const Settings&, const F& f) {
    f(SnakeFormula{});
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_SNAKE_H_
