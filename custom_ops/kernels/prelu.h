// PReLU (He, Zhang, Ren, Sun, ICCV 2015):
//
//   y = x         for x > 0
//       alpha x   for x <= 0
//
// Settings: none. Parameter: alpha. At 0 the derivative is alpha. y(±∞) is y at the largest finite
// number.

#ifndef KERAS_LEARNACT_KERNELS_PRELU_H_
#define KERAS_LEARNACT_KERNELS_PRELU_H_

#include "runtime/call.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

struct PreluFormula {
  static constexpr int kMaxPrepared = 1;
  static constexpr bool kAlwaysUsual = false;

  HOST_DEVICE int prepared() const { return 1; }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    p[0] = params[0];
  }

  // alpha x overflows where y does; what must not is a sum of many dy x.
  template <typename R>
  HOST_DEVICE auto Usual(const R*, R x) const {
    return !(Abs(x) > R(0x1p60));  // nan is usual: it stays nan
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    return Select(x > R(0.0), x, p[0] * x);
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const auto above = x > R(0.0);
    dp[0] += Select(above, R(0.0), dy * x);
    return Select(above, dy, p[0] * dy);
  }

  template <typename T>
  HOST_DEVICE void Finish(const T*, const double* dp, T* dparams) const {
    dparams[0] = static_cast<T>(dp[0]);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place place) const {
    return Forward(p, Finite(x), place);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place) const {
    const bool above = x > 0;
    dp[0] += above ? 0 : static_cast<double>(dy) * static_cast<double>(Finite(x));
    return Abs(x) > Float<T>::kMax ? T(0) : above ? dy : p[0] * dy;
  }
};

struct Prelu {
  static constexpr char kName[] = "Prelu";
  static constexpr bool kRandom = false;

  struct Settings {};

  static bool Parse(const Call& call, Settings*, Error* error) {
    if (call.num_settings != 0 || call.count != 1) {
      return error->Say("%s: there must be 1 parameter, alpha, and no settings. Received: %lld and "
                        "%lld", kName, static_cast<long long>(call.count),
                        static_cast<long long>(call.num_settings));
    }
    return true;
  }

  template <typename F>
  static void Specialize(const Settings&, const F& f) {
    f(PreluFormula{});
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_PRELU_H_
