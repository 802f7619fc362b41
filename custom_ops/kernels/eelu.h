// EELU, a family around −x erf(e^(−x)) (a reconstruction; MATH.md, section 7):
//
//   y = α x erf(β e^(−γx))
//
// Settings: none. Parameters: α, β, γ. y(±∞) is y at the largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_EELU_H_
#define KERAS_LEARNACT_KERNELS_EELU_H_

#include "runtime/call.h"
#include "runtime/math.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// erf(z) for z >= 0, from exp(-z²); small values keep all their digits.
HOST_DEVICE float EeluErf(float z, float) { return erff(z); }
HOST_DEVICE double EeluErf(double z, double) { return erf(z); }
#ifndef __CUDACC__
HOST_DEVICE Vec<float> EeluErf(Vec<float> z, Vec<float> density) {
  using R = Vec<float>;
  const R one(1.0), tail = NormalTail(z * R(1.41421356237309504880), density);
  const R small = Polynomial(z * z, 1.1283791658484, -0.3761262666672, 0.1128359471516,
                             -0.026854212010626, 0.005189087423434, -0.00080168642871659,
                             7.8758750626855e-5);
  return Select(z < one, z * small, one - R(2.0) * tail);
}
HOST_DEVICE Vec<double> EeluErf(Vec<double> z, Vec<double>) {
  return OfLanes(z, [](double lane) { return erf(lane); });
}
#endif

struct EeluFormula {
  // β = sign · size, and sign is multiplied into α.
  enum { kLine, kSize, kGamma, kBound, kMaxPrepared };
  enum { kAlpha, kBeta };  // in params
  static constexpr bool kAlwaysUsual = false;
  static constexpr double kHighest = 40;  // of −γx where plain arithmetic is safe
  static constexpr double kSlope = 1.12837916709551257390;  // 2 / √π

  HOST_DEVICE int prepared() const { return kMaxPrepared; }

  template <typename T>
  static HOST_DEVICE T Sign(const T* params) {
    return params[kBeta] < 0 ? T(-1) : T(1);
  }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    p[kLine] = params[kAlpha] * Sign(params);
    p[kSize] = Abs(params[kBeta]);
    p[kGamma] = params[kGamma];
    p[kBound] = BoundFor(params, 3, 0x1p30);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !((Abs(x) > p[kBound]) | (-(p[kGamma] * x) > R(kHighest)));  // nan is usual
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R z = Min(p[kSize] * Exp(-(p[kGamma] * x)), R(30.0));
    return p[kLine] * (x * EeluErf(z, Exp(-(z * z))));
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R e = Exp(-(p[kGamma] * x));
    const R z = Min(p[kSize] * e, R(30.0)), density = Exp(-(z * z));
    const R error = EeluErf(z, density);
    const R share = dy * p[kLine] * x * (density * R(kSlope));  // by z
    const R by_u = share * z;                                    // by −γx
    dp[kLine] += dy * (x * error);
    dp[kSize] += share * e;
    dp[kGamma] = dp[kGamma] - by_u * x;
    return dy * p[kLine] * error - by_u * p[kGamma];
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    dparams[kAlpha] = static_cast<T>(dp[kLine] * Sign(params));
    dparams[kBeta] = static_cast<T>(dp[kSize] * Sign(params));
    dparams[kGamma] = static_cast<T>(dp[kGamma]);
  }

  // exp(v); beyond e^1000000 all is the same.
  static HOST_DEVICE Wide WideExp(double v) {
    using M = MathNumbers<double>;
    if (IsNan(v)) return Wide(v);
    v = Max(Min(v, 1e6), -1e6);
    const double k = floor(v * 1.4426950408889634074);
    return Wide(exp((v - k * M::kLn2) - k * M::kLn2Rest), static_cast<int64_t>(k));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place) const {
    const Wide number(Finite(x)), e = WideExp(static_cast<double>(-(Wide(p[kGamma]) * number)));
    const double z = Min(static_cast<double>(Wide(p[kSize]) * e), 30.0);
    return static_cast<T>(Wide(p[kLine]) * number * Wide(erf(z)));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place) const {
    const Wide number(Finite(x)), line(p[kLine]), gamma(p[kGamma]);
    const Wide e = WideExp(static_cast<double>(-(gamma * number)));
    const double z = Min(static_cast<double>(Wide(p[kSize]) * e), 30.0);
    const Wide error(erf(z)), by_z = line * number * Wide(exp(-(z * z)) * kSlope);
    const Wide by_u = Wide(dy) * by_z * Wide(z);
    dp[kLine] += static_cast<double>(Wide(dy) * number * error);
    // As in layers/eelu.py: a derivative that no number can hold is none.
    const double by_size = static_cast<double>(by_z * e);
    if (fabs(by_size) <= Float<T>::kMax) dp[kSize] += dy * by_size;
    dp[kGamma] -= static_cast<double>(by_u * number);
    const Wide dx = Wide(dy) * line * error - by_u * gamma;
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(dx);
  }
};

struct Eelu {
  static constexpr char kName[] = "Eelu";
  static constexpr bool kRandom = false;

  struct Settings {};

  static bool Parse(const Call& call, Settings*, Error* error) {
    if (call.num_settings != 0 || call.count != 3) {
      return error->Say("%s: there must be 3 parameters, alpha, beta, gamma, and no settings. "
                        "Received: %lld and %lld", kName, static_cast<long long>(call.count),
                        static_cast<long long>(call.num_settings));
    }
    return true;
  }

  template <typename F>
  static void Specialize(const Settings&, const F& f) {
    f(EeluFormula{});
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_EELU_H_
