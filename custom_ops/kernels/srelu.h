// SReLU (Jin, Xu, Feng, Wei, Xiong, Yan, AAAI 2016; MATH.md, section 4):
//
//   y = t_right + a_right (x − t_right)   for x >= t_right
//       x                                 between
//       t_left + a_left (x − t_left)      for x <= t_left
//
// Settings: none. Parameters: t_left, a_left, t_right, a_right. If t_left > t_right, the two change
// places. At a threshold the derivative is that of the line; where the thresholds are equal, that
// of the right line. y(±∞) is y at the largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_SRELU_H_
#define KERAS_LEARNACT_KERNELS_SRELU_H_

#include "runtime/call.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

struct SreluFormula {
  enum { kLow, kLeft, kHigh, kRight, kBound, kMaxPrepared };
  enum { kTLeft, kALeft, kTRight, kARight };  // in params
  static constexpr bool kAlwaysUsual = false;

  // The thresholds in order, each with the slope beyond it, and the bound of |x| up to which plain
  // arithmetic is safe.
  HOST_DEVICE int prepared() const { return kMaxPrepared; }

  template <typename T>
  static HOST_DEVICE bool Crossed(const T* params) {
    return params[kTLeft] > params[kTRight];
  }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    p[kLow] = params[Crossed(params) ? kTRight : kTLeft];
    p[kHigh] = params[Crossed(params) ? kTLeft : kTRight];
    p[kLeft] = params[kALeft];
    p[kRight] = params[kARight];
    p[kBound] = BoundFor(params, 4, 0x1p60);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[kBound]);  // nan is usual: it stays nan
  }

  // yes where x is right, else on_left where it is left, else neither.
  template <typename R>
  static HOST_DEVICE R OfSide(const R* p, R x, R on_right, R on_left, R neither) {
    return Select(x >= p[kHigh], on_right, Select(x <= p[kLow], on_left, neither));
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R right = p[kHigh] + p[kRight] * (x - p[kHigh]);
    const R left = p[kLow] + p[kLeft] * (x - p[kLow]);
    return OfSide(p, x, right, left, x);
  }

  // The sum for a threshold lacks its factor, 1 − slope, which is the same for all elements.
  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R zero(0.0);
    const R right = OfSide(p, x, dy, zero, zero), left = OfSide(p, x, zero, dy, zero);
    const R distance = OfSide(p, x, x - p[kHigh], x - p[kLow], zero);
    dp[kHigh] += right;
    dp[kRight] += right * distance;
    dp[kLow] += left;
    dp[kLeft] += left * distance;
    return dy * OfSide(p, x, p[kRight], p[kLeft], R(1.0));
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    dparams[kALeft] = static_cast<T>(dp[kLeft]);
    dparams[kARight] = static_cast<T>(dp[kRight]);
    const double low = dp[kLow] - params[kALeft] * dp[kLow];
    const double high = dp[kHigh] - params[kARight] * dp[kHigh];
    dparams[kTLeft] = static_cast<T>(Crossed(params) ? high : low);
    dparams[kTRight] = static_cast<T>(Crossed(params) ? low : high);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place place) const {
    Wide wide[kMaxPrepared];
    for (int k = 0; k < kBound; ++k) wide[k] = Wide(p[k]);
    return static_cast<T>(Forward(wide, Wide(Finite(x)), place));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place place) const {
    Wide wide[kMaxPrepared], dwide[kMaxPrepared];
    for (int k = 0; k < kBound; ++k) {
      wide[k] = Wide(p[k]);
      dwide[k] = Wide(0.0);
    }
    const Wide dx = Backward(wide, Wide(Finite(x)), Wide(dy), dwide, place);
    for (int k = 0; k < kBound; ++k) dp[k] += static_cast<double>(dwide[k]);
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(dx);
  }
};

struct Srelu {
  static constexpr char kName[] = "Srelu";
  static constexpr bool kRandom = false;

  struct Settings {};

  static bool Parse(const Call& call, Settings*, Error* error) {
    if (call.num_settings != 0 || call.count != 4) {
      return error->Say("%s: there must be 4 parameters, t_left, a_left, t_right, a_right, and no "
                        "settings. Received: %lld and %lld", kName,
                        static_cast<long long>(call.count),
                        static_cast<long long>(call.num_settings));
    }
    return true;
  }

  template <typename F>
  static void Specialize(const Settings&, const F& f) {
    f(SreluFormula{});
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_SRELU_H_
