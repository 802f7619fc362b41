// PWLU (Zhou, Zhu, Zhong, ICCV 2021): a line between every two of N + 1 equally spaced places, and
// one on either side:
//
//   y = values_0 + slope_L (x − low)                          for x < low
//       values_j + (u − j) (values_{j+1} − values_j),  j = ⌊u⌋  between
//       values_N + slope_R (x − high)                         for x >= high
//   u = N (x − low) / (high − low)
//
// Settings: N. Parameters: the N + 1 values, two boundaries, of which the smaller one is low, and
// the slopes. high is low + kNarrowest at least. Where two pieces meet, the derivative is that of
// the right one. y(±∞) is y at the largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_PWLU_H_
#define KERAS_LEARNACT_KERNELS_PWLU_H_

#include "runtime/call.h"
#include "runtime/pieces.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// kN is the number of intervals; 0: known only when it runs.
template <int kN>
struct PwluFormula {
  static constexpr int kMost = 64;
  static constexpr double kNarrowest = 0x1p-20;
  static constexpr int kMaxPrepared = (kN ? kN : kMost) + 7;
  static constexpr bool kAlwaysUsual = false;
  enum { kLow, kHigh, kLeft, kRight, kInverse, kBound };  // after the values
  enum { kFirst, kSecond, kSlopeL, kSlopeR };             // in params, after the values

  int num_intervals;

  HOST_DEVICE int n() const { return kN ? kN : num_intervals; }
  HOST_DEVICE int prepared() const { return n() + 7; }

  template <typename T>
  HOST_DEVICE bool Crossed(const T* params) const {
    return params[n() + 1 + kFirst] > params[n() + 1 + kSecond];
  }

  template <typename T>
  static HOST_DEVICE bool IsNarrow(T low, T high) {
    return T(0.5) * high - T(0.5) * low < T(0.5 * kNarrowest);  // no overflow
  }

  // The values, the boundaries in order, the slopes, N / (high − low), and the bound of |x| up to
  // which plain arithmetic is safe: no factor exceeds 2^61, no product of two 2^122.
  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    for (int k = 0; k <= n(); ++k) p[k] = params[k];
    const T* b = params + n() + 1;
    T* q = p + n() + 1;
    q[kLow] = b[Crossed(params) ? kSecond : kFirst];
    q[kHigh] = b[Crossed(params) ? kFirst : kSecond];
    q[kInverse] = T(n()) / (q[kHigh] - q[kLow]);
    if (IsNarrow(q[kLow], q[kHigh])) {
      q[kHigh] = q[kLow] + T(kNarrowest);
      q[kInverse] = T(n() / kNarrowest);
    }
    q[kLeft] = b[kSlopeL];
    q[kRight] = b[kSlopeR];
    q[kBound] = BoundFor(params, n() + 5, 0x1p60);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[n() + 1 + kBound]);  // nan is usual: it stays nan
  }

  template <typename R>
  static HOST_DEVICE R OfSide(const R* q, R x, R on_right, R on_left, R between) {
    return Select(x >= q[kHigh], on_right, Select(x < q[kLow], on_left, between));
  }

  // How far x is beyond a boundary.
  template <typename R>
  static HOST_DEVICE R Beyond(const R* q, R x) {
    return OfSide(q, x, x - q[kHigh], x - q[kLow], R(0.0));
  }

  // The cell that x is in, and how far, from 0 to 1; own: the values at its ends.
  template <typename R>
  HOST_DEVICE R Within(const R* p, R x, R* cell, R* own) const {
    const R* q = p + n() + 1;
    const R u = OfSide(q, x, R(1.0 * n()), R(0.0), (x - q[kLow]) * q[kInverse]);
    *cell = Pick<2>(p, n(), u, own);
    return u - *cell;
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R* q = p + n() + 1;
    R cell, own[2];
    const R t = Within(p, x, &cell, own);
    const R slope = OfSide(q, x, q[kRight], q[kLeft], R(0.0));
    return (R(1.0) - t) * own[0] + t * own[1] + slope * Beyond(q, x);
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R* q = p + n() + 1;
    R* dq = dp + n() + 1;
    R cell, own[2];
    const R zero(0.0), t = Within(p, x, &cell, own);
    const R shares[] = {(R(1.0) - t) * dy, t * dy};
    Spread<2>(dp, n(), cell, shares);
    const R by_slope = dy * Beyond(q, x);
    dq[kLeft] += OfSide(q, x, zero, by_slope, zero);
    dq[kRight] += OfSide(q, x, by_slope, zero, zero);
    const R dx = dy * OfSide(q, x, q[kRight], q[kLeft], (own[1] - own[0]) * q[kInverse]);
    // Where the boundaries move, x moves with them the other way.
    const R part = (cell + t) * R(1.0 / n());
    dq[kLow] += dx * (part - R(1.0));
    dq[kHigh] += -(dx * part);
    return dx;
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    for (int k = 0; k <= n(); ++k) dparams[k] = static_cast<T>(dp[k]);
    const T* b = params + n() + 1;
    const double* dq = dp + n() + 1;
    T* db = dparams + n() + 1;
    const bool crossed = Crossed(params);
    const T low = b[crossed ? kSecond : kFirst], high = b[crossed ? kFirst : kSecond];
    const bool narrow = IsNarrow(low, high);  // then low alone moves both
    db[crossed ? kSecond : kFirst] = static_cast<T>(dq[kLow] + (narrow ? dq[kHigh] : 0));
    db[crossed ? kFirst : kSecond] = static_cast<T>(narrow ? 0 : dq[kHigh]);
    db[kSlopeL] = static_cast<T>(dq[kLeft]);
    db[kSlopeR] = static_cast<T>(dq[kRight]);
  }

  template <typename T>
  HOST_DEVICE void Widen(const T* p, Wide* wide) const {
    const int inverse = n() + 1 + kInverse;
    for (int k = 0; k < inverse; ++k) wide[k] = Wide(p[k]);
    const Wide narrowest(kNarrowest), width = wide[n() + 1 + kHigh] - wide[n() + 1 + kLow];
    wide[inverse] = Wide(n()) / (width < narrowest ? narrowest : width);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place place) const {
    Wide wide[kMaxPrepared];
    Widen(p, wide);
    return static_cast<T>(Forward(wide, Wide(Finite(x)), place));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place place) const {
    Wide wide[kMaxPrepared], dwide[kMaxPrepared];
    Widen(p, wide);
    for (int k = 0; k < prepared(); ++k) dwide[k] = Wide(0.0);
    const Wide dx = Backward(wide, Wide(Finite(x)), Wide(dy), dwide, place);
    for (int k = 0; k < n() + 1 + kInverse; ++k) dp[k] += static_cast<double>(dwide[k]);
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(dx);
  }
};

struct Pwlu {
  static constexpr char kName[] = "Pwlu";
  static constexpr bool kRandom = false;

  struct Settings {
    int num_intervals;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    constexpr int most = PwluFormula<0>::kMost;
    if (call.num_settings != 1) {
      return error->Say("%s: settings must be [number of intervals]. Received: %lld numbers",
                        kName, static_cast<long long>(call.num_settings));
    }
    const int64_t n = call.settings[0];
    if (n < 1 || n > most) {
      return error->Say("%s: there must be 1 to %d intervals. Received: %lld", kName, most,
                        static_cast<long long>(n));
    }
    if (call.count != n + 5) {
      return error->Say("%s: %lld intervals need %lld parameters, the values, 2 boundaries and 2 "
                        "slopes. Received: %lld", kName, static_cast<long long>(n),
                        static_cast<long long>(n + 5), static_cast<long long>(call.count));
    }
    *settings = {static_cast<int>(n)};
    return true;
  }

  // The layer's default, and any other.
  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    if (s.num_intervals == 16) {
      f(PwluFormula<16>{16});
    } else {
      f(PwluFormula<0>{s.num_intervals});
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_PWLU_H_
