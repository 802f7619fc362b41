// APL (Agostinelli, Hoffman, Sadowski, Baldi, ICLR 2015 workshop; MATH.md, section 4):
//
//   y = max(0, x) + Σ_{s=1..S} slope_s max(0, hinge_s − x)
//
// Settings: S. Parameters: the S slopes, then the S hinges. At x = 0 and at a hinge the derivative
// is that of the side where max is 0. y(±∞) is y at the largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_APL_H_
#define KERAS_LEARNACT_KERNELS_APL_H_

#include "runtime/call.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// kS is the number of hinges; 0: known only when it runs.
template <int kS>
struct AplFormula {
  static constexpr int kMost = 32;
  static constexpr int kMaxPrepared = kS ? 2 * kS + 1 : 2 * kMost + 1;
  static constexpr bool kAlwaysUsual = false;

  int num_hinges;

  HOST_DEVICE int hinges() const { return kS ? kS : num_hinges; }

  // The slopes, the hinges, and the bound of |x| up to which plain arithmetic is safe.
  HOST_DEVICE int prepared() const { return 2 * hinges() + 1; }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    for (int k = 0; k < 2 * hinges(); ++k) p[k] = params[k];
    // No term exceeds 2^60 (2^60 + 2^60), nor the sum of 32 of them 2^126.
    p[2 * hinges()] = BoundFor(params, 2 * hinges(), 0x1p60);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[2 * hinges()]);  // nan is usual: it stays nan
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    R sum = Max(x, R(0.0));
    for (int s = 0; s < hinges(); ++s) {
      const R height = p[hinges() + s] - x;
      sum += p[s] * Select(height > R(0.0), height, R(0.0));
    }
    return sum;
  }

  // The sum for a hinge lacks its factor, the slope, which is the same for all elements.
  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R zero(0.0);
    R dx = Select(x > zero, dy, zero);
    for (int s = 0; s < hinges(); ++s) {
      const R height = p[hinges() + s] - x;
      const auto open = height > zero;
      const R share = Select(open, dy, zero);
      dp[s] += dy * Select(open, height, zero);
      dp[hinges() + s] += share;
      dx = dx - p[s] * share;
    }
    return dx;
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    for (int s = 0; s < hinges(); ++s) {
      dparams[s] = static_cast<T>(dp[s]);
      dparams[hinges() + s] = static_cast<T>(params[s] * dp[hinges() + s]);
    }
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place place) const {
    Wide wide[kMaxPrepared];
    for (int k = 0; k < 2 * hinges(); ++k) wide[k] = Wide(p[k]);
    return static_cast<T>(Forward(wide, Wide(Finite(x)), place));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place place) const {
    Wide wide[kMaxPrepared], dwide[kMaxPrepared];
    for (int k = 0; k < 2 * hinges(); ++k) {
      wide[k] = Wide(p[k]);
      dwide[k] = Wide(0.0);
    }
    const Wide dx = Backward(wide, Wide(Finite(x)), Wide(dy), dwide, place);
    for (int k = 0; k < 2 * hinges(); ++k) dp[k] += static_cast<double>(dwide[k]);
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(dx);
  }
};

struct Apl {
  static constexpr char kName[] = "Apl";
  static constexpr bool kRandom = false;

  struct Settings {
    int num_hinges;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    constexpr int most = AplFormula<0>::kMost;
    if (call.num_settings != 1) {
      return error->Say("%s: settings must be [number of hinges]. Received: %lld numbers", kName,
                        static_cast<long long>(call.num_settings));
    }
    const int64_t hinges = call.settings[0];
    if (hinges < 1 || hinges > most) {
      return error->Say("%s: there must be 1 to %d hinges. Received: %lld", kName, most,
                        static_cast<long long>(hinges));
    }
    if (call.count != 2 * hinges) {
      return error->Say("%s: %lld hinges need %lld parameters, the slopes and the hinges. "
                        "Received: %lld", kName, static_cast<long long>(hinges),
                        static_cast<long long>(2 * hinges), static_cast<long long>(call.count));
    }
    *settings = {static_cast<int>(hinges)};
    return true;
  }

  // The numbers of hinges in the paper, and any other.
  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    if (s.num_hinges == 1) {
      f(AplFormula<1>{1});
    } else if (s.num_hinges == 2) {
      f(AplFormula<2>{2});
    } else if (s.num_hinges == 5) {
      f(AplFormula<5>{5});
    } else {
      f(AplFormula<0>{s.num_hinges});
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_APL_H_
