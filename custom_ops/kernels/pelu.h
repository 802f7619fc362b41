// PELU (Trottier, Giguère, Chaib-draa, ICMLA 2017):
//
//   y = (a/b) x            for x >= 0
//       a (e^(x/b) − 1)    for x < 0
//
// Settings: none. Parameters: the weights of a and b. Each stands for its magnitude w, and below
// 0.1 for (w² + 0.01) / 0.2. y(±∞) is y at the largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_PELU_H_
#define KERAS_LEARNACT_KERNELS_PELU_H_

#include "runtime/call.h"
#include "runtime/math.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

struct PeluFormula {
  enum { kA, kB, kInverse, kSlope, kBound, kMaxPrepared };
  static constexpr bool kAlwaysUsual = false;
  static constexpr double kLeast = 0.1;

  // a, b, 1/b, a/b, and the bound of |x| up to which plain arithmetic is safe.
  HOST_DEVICE int prepared() const { return kMaxPrepared; }

  static HOST_DEVICE double Positive(double weight) {
    const double size = fabs(weight);
    return size < kLeast ? size * size * (0.5 / kLeast) + 0.5 * kLeast : size;
  }
  static HOST_DEVICE double SlopeOfPositive(double weight) {
    return fabs(weight) < kLeast ? weight / kLeast : weight < 0 ? -1 : 1;
  }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    const double a = Positive(params[kA]), b = Positive(params[kB]);
    p[kA] = static_cast<T>(a);
    p[kB] = static_cast<T>(b);
    p[kInverse] = static_cast<T>(1 / b);
    p[kSlope] = static_cast<T>(a / b);
    p[kBound] = BoundFor(params, 2, 0x1p50);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[kBound]);  // nan is usual: it stays nan
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R zero(0.0), below = Expm1(Min(x, zero) * p[kInverse]);
    return Select(x > zero, p[kSlope] * x, p[kA] * below);
  }

  // The sum for b lacks its factor, −a/b², which is the same for all elements.
  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R zero(0.0), t = Min(x, zero) * p[kInverse], below = Expm1(t);
    const R share = dy * Exp(t);  // dy for x >= 0; below + 1 would lose digits
    dp[kA] += dy * Select(x > zero, x * p[kInverse], below);
    dp[kB] += share * x;
    return share * p[kSlope];
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    const double b = Positive(params[kB]), slope = Positive(params[kA]) / b;
    const double by_b = -slope * (dp[kB] / b);
    dparams[kA] = static_cast<T>(dp[kA] * SlopeOfPositive(params[kA]));
    dparams[kB] = static_cast<T>(by_b * SlopeOfPositive(params[kB]));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place) const {
    const Wide a(p[kA]), ratio = Wide(Finite(x)) / Wide(p[kB]);
    return static_cast<T>(a * (x > 0 ? ratio : Wide(Expm1(static_cast<double>(ratio)))));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place) const {
    const Wide a(p[kA]), b(p[kB]), ratio = Wide(Finite(x)) / b;
    const double below = x > 0 ? 0 : Expm1(static_cast<double>(ratio));
    const Wide share = Wide(dy) * Wide(x > 0 ? 1 : Exp(static_cast<double>(ratio)));
    dp[kA] += static_cast<double>(Wide(dy) * (x > 0 ? ratio : Wide(below)));
    dp[kB] += static_cast<double>(share * Wide(Finite(x)));
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(share * a / b);
  }
};

struct Pelu {
  static constexpr char kName[] = "Pelu";
  static constexpr bool kRandom = false;

  struct Settings {};

  static bool Parse(const Call& call, Settings*, Error* error) {
    if (call.num_settings != 0 || call.count != 2) {
      return error->Say("%s: there must be 2 parameters, a and b, and no settings. Received: %lld "
                        "and %lld", kName, static_cast<long long>(call.count),
                        static_cast<long long>(call.num_settings));
    }
    return true;
  }

  template <typename F>
  static void Specialize(const Settings&, const F& f) {
    f(PeluFormula{});
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_PELU_H_
