// CubicReLU, a reconstruction of Yevick's nonlinearity-enhanced ReLU (2024; MATH.md, section 7):
//
//   y = H(x) (α x + γ β x³)
//
// Settings: γ, as bits of a double. Parameters: α and β. At x = 0 the derivative is 0. y(±∞) is y
// at the largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_CUBIC_RELU_H_
#define KERAS_LEARNACT_KERNELS_CUBIC_RELU_H_

#include "runtime/call.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

struct CubicReluFormula {
  enum { kLine, kCube, kBound, kMaxPrepared };
  static constexpr bool kAlwaysUsual = false;

  double gamma;

  // α, γβ, and the bound of |x| up to which plain arithmetic is safe.
  HOST_DEVICE int prepared() const { return kMaxPrepared; }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    p[kLine] = params[kLine];
    p[kCube] = Finite(static_cast<T>(gamma) * params[kCube]);
    p[kBound] = BoundFor(p, 2, 0x1p30);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[kBound]);  // nan is usual: it stays nan
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R u = Max(x, R(0.0));
    return u * (p[kLine] + p[kCube] * (u * u));
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R zero(0.0), u = Max(x, zero), square = u * u;
    dp[kLine] += dy * u;
    dp[kCube] += dy * (u * square);
    return Select(x > zero, dy * (p[kLine] + R(3.0) * p[kCube] * square), zero);
  }

  template <typename T>
  HOST_DEVICE void Finish(const T*, const double* dp, T* dparams) const {
    dparams[kLine] = static_cast<T>(dp[kLine]);
    dparams[kCube] = static_cast<T>(gamma * dp[kCube]);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place place) const {
    const Wide wide[] = {Wide(p[kLine]), Wide(p[kCube])};
    return static_cast<T>(Forward(wide, Wide(Finite(x)), place));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place place) const {
    const Wide wide[] = {Wide(p[kLine]), Wide(p[kCube])};
    Wide dwide[] = {Wide(0.0), Wide(0.0)};
    const Wide dx = Backward(wide, Wide(Finite(x)), Wide(dy), dwide, place);
    for (int k = 0; k < kBound; ++k) dp[k] += static_cast<double>(dwide[k]);
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(dx);
  }
};

struct CubicRelu {
  static constexpr char kName[] = "CubicRelu";
  static constexpr bool kRandom = false;

  struct Settings {
    double gamma;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    if (call.num_settings != 1 || call.count != 2) {
      return error->Say("%s: there must be 2 parameters, alpha and beta, and 1 setting, gamma. "
                        "Received: %lld and %lld", kName, static_cast<long long>(call.count),
                        static_cast<long long>(call.num_settings));
    }
    memcpy(&settings->gamma, call.settings, sizeof(double));
    if (!(fabs(settings->gamma) <= 1e30)) {
      return error->Say("%s: gamma must be a number between -1e30 and 1e30. Received: %g", kName,
                        settings->gamma);
    }
    return true;
  }

  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    f(CubicReluFormula{s.gamma});
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_CUBIC_RELU_H_
