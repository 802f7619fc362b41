// APA and AGLU (Alexandridis, Deng, Nguyen, Luo, ECCV 2024; MATH.md, section 6):
//
//   p = (1 + λ e^(−κx))^(−1/λ),   y = p or x p
//
// Settings: 0 for p, 1 for x p. Parameters: λ and κ; λ counts with its magnitude, and as 0, where p
// is exp(−e^(−κx)), it has the derivative of λ > 0. y(±∞) is y at the largest finite number.
//
// With w = λ e^(−κx), p = exp(−g), and the derivatives of −g are
//   by κx   w/(1 + w) / λ
//   by λ    (log(1 + w) − w/(1 + w)) / λ²
// Where w < 1, both and g itself are e^(−κx), to some power, times a function of w that is smooth
// at 0: no digit is lost as λ → 0. Elsewhere they are sums of positive numbers in 1/w and 1/λ.

#ifndef KERAS_LEARNACT_KERNELS_APA_H_
#define KERAS_LEARNACT_KERNELS_APA_H_

#include "runtime/call.h"
#include "runtime/math.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// (artanh(s)/s − 1) / s² as a function of s² for 0 <= s <= 1/3.
template <typename T>
struct ApaSeries;
template <>
struct ApaSeries<float> {
  template <typename R>
  static HOST_DEVICE R Of(R z) {
    return Polynomial(z, 0.33333333660263706234, 0.19999853165964858701, 0.14296178997151418861,
                      0.10853287900440186323, 0.11612164612011674416);
  }
};
template <>
struct ApaSeries<double> {
  template <typename R>
  static HOST_DEVICE R Of(R z) {
    return Polynomial(z, 0.33333333333333329281, 0.20000000000007291337, 0.14285714283554378581,
                      0.11111111358713931495, 0.090908947180664290846, 0.076927850324793115517,
                      0.066570721048274680752, 0.060005364047953562676, 0.044003692430723369411,
                      0.080820228059717661105);
  }
};

// p, and the derivatives of log p.
template <typename R>
struct ApaPoint {
  R p, by_u, by_lambda;
};

// Of λ, its logarithm and its inverse; u = κx and v = κx/λ.
template <typename R>
HOST_DEVICE ApaPoint<R> ApaAt(R lambda, R log, R inverse, R u, R v) {
  const R one(1.0), two(2.0), t = log - u;
  const auto small = t < R(0.0);
  // e^(−κx), which ends where p is 0 in every dtype; or 1/w.
  const R e = Exp(Select(small, Min(-u, R(8.0)), -t));
  const R y = Select(small, lambda * e, e);  // w or 1/w, at most 1
  // log(1 + y) = 2 artanh(s) with s = y/(2 + y), 1 − s = 2/(2 + y).
  const R both = one / ((one + y) * (two + y));
  const R over = both * (one + y), rest = both * (two + y);  // 1/(2 + y), 1/(1 + y)
  const R s = y * over, z = s * s, series = ApaSeries<typename Float<R>::Scalar>::Of(z);
  const R ratio = two * over * (one + z * series);  // log(1 + y) / y
  const R g = Select(small, e * ratio, (log + y * ratio) * inverse - v);
  // (log(1 + y) − y/(1 + y)) / y².
  const R bend = both + two * over * over * s * series;
  // Where g is beyond that, p is 0, and no product with it shall be 0 · ∞.
  const R large = inverse * (Min(g, R(0x1p20)) - inverse * rest);
  return {Exp(-g), Select(small, e, inverse) * rest, Select(small, e * e * bend, large)};
}

template <bool kTimesX>
struct ApaFormula {
  enum { kLambda, kKappa, kLog, kInverse, kBound, kMaxPrepared };
  static constexpr bool kAlwaysUsual = false;

  // λ, κ, log λ, 1/λ, and the bound of |x| up to which plain arithmetic is safe.
  HOST_DEVICE int prepared() const { return kMaxPrepared; }

  // Below 2^-60 there is no 1/λ: where it would be needed, p is 0.
  static HOST_DEVICE double Log(double lambda) {
    return lambda < 0x1p-60 ? -Infinity() : log(lambda);
  }
  static HOST_DEVICE double Inverse(double lambda) {
    return lambda < 0x1p-60 ? 0.0 : 1.0 / lambda;
  }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    p[kLambda] = Abs(params[kLambda]);
    p[kKappa] = params[kKappa];
    p[kLog] = static_cast<T>(Log(p[kLambda]));
    p[kInverse] = static_cast<T>(Inverse(p[kLambda]));
    p[kBound] = BoundFor(params, 2, 0x1p60);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[kBound]);  // nan is usual: it stays nan
  }

  template <typename R>
  static HOST_DEVICE ApaPoint<R> At(const R* p, R u) {
    return ApaAt(p[kLambda], p[kLog], p[kInverse], u, u * p[kInverse]);
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R gate = At(p, p[kKappa] * x).p;
    return kTimesX ? x * gate : gate;
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R u = p[kKappa] * x;
    const ApaPoint<R> at = At(p, u);
    const R share = (kTimesX ? x : R(1.0)) * at.p;
    const R by_u = dy * (share * at.by_u);
    dp[kLambda] += dy * (share * at.by_lambda);
    dp[kKappa] += by_u * x;
    const R dx = by_u * p[kKappa];
    return kTimesX ? dx + dy * at.p : dx;
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    dparams[kLambda] = static_cast<T>(params[kLambda] < 0 ? -dp[kLambda] : dp[kLambda]);
    dparams[kKappa] = static_cast<T>(dp[kKappa]);
  }

  // In double, and the products that might overflow in Wide.
  template <typename T>
  static HOST_DEVICE ApaPoint<double> CarefulAt(const T* p, T x) {
    const Wide u = Wide(p[kKappa]) * Wide(x);
    const double lambda = p[kLambda], most = Float<double>::kMax;
    // No infinity: log λ may be one.
    const double number = Max(Min(static_cast<double>(u), most), -most);
    return ApaAt(lambda, Log(lambda), Inverse(lambda), number,
               static_cast<double>(u / Wide(lambda)));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place) const {
    x = Finite(x);
    const double gate = CarefulAt(p, x).p;
    return static_cast<T>(kTimesX ? x * gate : gate);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place) const {
    const Wide number(Finite(x));
    const ApaPoint<double> at = CarefulAt(p, Finite(x));
    const Wide share = Wide(dy) * (kTimesX ? number : Wide(1.0)) * Wide(at.p);
    const Wide by_u = share * Wide(at.by_u);
    dp[kLambda] += static_cast<double>(share * Wide(at.by_lambda));
    dp[kKappa] += static_cast<double>(by_u * number);
    const Wide dx = by_u * Wide(p[kKappa]) + (kTimesX ? Wide(dy) * Wide(at.p) : Wide(0.0));
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(dx);
  }
};

struct Apa {
  static constexpr char kName[] = "Apa";
  static constexpr bool kRandom = false;

  struct Settings {
    bool times_x;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    if (call.num_settings != 1 || call.count != 2) {
      return error->Say("%s: there must be 2 parameters, lambda and kappa, and 1 setting. "
                        "Received: %lld and %lld", kName, static_cast<long long>(call.count),
                        static_cast<long long>(call.num_settings));
    }
    if (call.settings[0] != 0 && call.settings[0] != 1) {
      return error->Say("%s: the setting must be 0, or 1 for the function times x. Received: %lld",
                        kName, static_cast<long long>(call.settings[0]));
    }
    *settings = {call.settings[0] == 1};
    return true;
  }

  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    if (s.times_x) {
      f(ApaFormula<true>{});
    } else {
      f(ApaFormula<false>{});
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_APA_H_
