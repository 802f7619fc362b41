// Hermite (Lokhande, Tasneeyapant, Venkatesh, Ravi, Singh, CVPR 2020):
//
//   y = Σ_i c_i He_i(x) / √i!,   He_0 = 1, He_1 = x, He_{i+1} = x He_i − i He_{i−1}
//
// Settings: none. Parameters: the c_i. y(±∞) is the limit.

#ifndef KERAS_LEARNACT_KERNELS_HERMITE_H_
#define KERAS_LEARNACT_KERNELS_HERMITE_H_

#include "kernels/rational.h"
#include "runtime/call.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// kCount is the number of coefficients; 0: known only when it runs.
template <int kCount>
struct HermiteFormula {
  static constexpr int kMost = 17;
  static constexpr int kMaxPrepared = (kCount ? kCount : kMost) + 1;
  static constexpr bool kAlwaysUsual = false;

  int num_coefficients;

  HOST_DEVICE int count() const { return kCount ? kCount : num_coefficients; }

  // c_i / √i!, and the bound of |x| up to which plain arithmetic is safe.
  HOST_DEVICE int prepared() const { return count() + 1; }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    double factorial = 1;
    T largest = 0;
    bool nan = false;
    for (int i = 0; i < count(); ++i) {
      if (i > 1) factorial *= i;
      p[i] = static_cast<T>(params[i] / Sqrt(factorial));
      nan = nan || IsNan(p[i]);
      largest = Max(largest, Abs(p[i]));
    }
    T bound = -1;
    if (nan) {
      bound = static_cast<T>(Infinity());  // plain arithmetic makes nan of everything
    } else if (largest <= static_cast<T>(0x1p60)) {
      // |He_i(x)| <= (|x| + n)^i with n = degree, so with |p| < 2^e and |x| + n <= 2^r no term
      // exceeds 2^(e + r n).
      const int n = count() - 1, e = largest < 1 ? 0 : static_cast<int>(Wide(largest).exponent) + 1;
      bound = static_cast<T>(PowerOfTwo((100 - e) / n) - n);
    }
    p[count()] = bound;
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[count()]);  // nan is usual: it stays nan
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    R y = p[0], before(0.0), here(1.0);
    for (int i = 1; i < count(); ++i) {
      const R next = x * here - R(1.0 * (i - 1)) * before;
      before = here;
      here = next;
      y += p[i] * here;
    }
    return y;
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    R slope(0.0), before(0.0), here(1.0);
    dp[0] += dy;
    for (int i = 1; i < count(); ++i) {
      const R next = x * here - R(1.0 * (i - 1)) * before;
      before = here;
      here = next;
      slope += p[i] * (R(1.0 * i) * before);
      dp[i] += dy * here;
    }
    return dy * slope;
  }

  template <typename T>
  HOST_DEVICE void Finish(const T*, const double* dp, T* dparams) const {
    double factorial = 1;
    for (int i = 0; i < count(); ++i) {
      if (i > 1) factorial *= i;
      dparams[i] = static_cast<T>(dp[i] / Sqrt(factorial));
    }
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place place) const {
    Wide wide[kMaxPrepared];
    for (int i = 0; i < count(); ++i) wide[i] = Wide(p[i]);
    return static_cast<T>(Forward(wide, RationalFormula<'A', 0, 0>::Widened(x), place));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place place) const {
    if (Abs(x) > Float<T>::kMax) return 0;  // the limit is a constant
    Wide wide[kMaxPrepared], dwide[kMaxPrepared];
    for (int i = 0; i < count(); ++i) {
      wide[i] = Wide(p[i]);
      dwide[i] = Wide(0.0);
    }
    const T dx = static_cast<T>(Backward(wide, Wide(x), Wide(dy), dwide, place));
    for (int i = 0; i < count(); ++i) dp[i] += static_cast<double>(dwide[i]);
    return dx;
  }
};

struct Hermite {
  static constexpr char kName[] = "Hermite";
  static constexpr bool kRandom = false;

  struct Settings {
    int num_coefficients;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    constexpr int most = HermiteFormula<0>::kMost;
    if (call.num_settings != 0 || call.count < 2 || call.count > most) {
      return error->Say("%s: there must be 2 to %d coefficients, and no settings. Received: %lld "
                        "and %lld", kName, most, static_cast<long long>(call.count),
                        static_cast<long long>(call.num_settings));
    }
    *settings = {static_cast<int>(call.count)};
    return true;
  }

  // The paper's number of coefficients, and any other.
  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    if (s.num_coefficients == 5) {
      f(HermiteFormula<5>{5});
    } else {
      f(HermiteFormula<0>{s.num_coefficients});
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_HERMITE_H_
