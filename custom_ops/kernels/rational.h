// PAU, and SLAF as its case n = 0 (Molina, Schramowski, Kersting, ICLR 2020; MATH.md, section 1):
//
//   y = P(x) / Q(x),   P(x) = Σ_{j=0..m} a_j x^j
//
//   A:  Q(x) = 1 + Σ_{k=1..n} |b_k| |x|^k
//   B:  Q(x) = 1 + |Σ_{k=1..n} b_k x^k|
//   C:  Q(x) = 0.1 + |Σ_{k=0..n} b_k x^k|
//   N:  Q(x) = 1 + Σ_{k=1..n} b_k x^k
//
// Settings: m + 1, and the version's letter. Parameters: a_0 … a_m, then b_1 … b_n (b_0 … for C).
// Where a derivative meets sign(0), it is +1.

#ifndef KERAS_LEARNACT_KERNELS_RATIONAL_H_
#define KERAS_LEARNACT_KERNELS_RATIONAL_H_

#include "runtime/call.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// kA and kB are the numbers of coefficients in P and Q; 0 and 0: known only when it runs.
template <char kVersion, int kA, int kB>
struct RationalFormula {
  static constexpr int kMost = 17;  // coefficients of one polynomial
  static constexpr int kMaxPrepared = kA ? kA + kB + 1 : 2 * kMost + 1;
  static constexpr bool kAlwaysUsual = false;
  static constexpr int kFirst = kVersion == 'C' ? 0 : 1;  // the power of x that b[0] belongs to

  int num_a, num_b;

  HOST_DEVICE int a() const { return kA ? kA : num_a; }
  HOST_DEVICE int b() const { return kA ? kB : num_b; }
  HOST_DEVICE int degree() const {
    const int n = b() - 1 + kFirst;
    return a() - 1 > n ? a() - 1 : n;
  }

  // a, then b (|b| for A), then the bound of |x| up to which plain arithmetic is safe: there no
  // term exceeds 2^40, so no product of two polynomials overflows, and float64 has room to spare.
  HOST_DEVICE int prepared() const { return a() + b() + 1; }

  // The bound holds for coefficients up to `growth` times as large as these.
  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p, T growth = 1) const {
    T largest = 0;
    bool nan = false;
    for (int k = 0; k < a() + b(); ++k) {
      p[k] = kVersion == 'A' && k >= a() ? Abs(params[k]) : params[k];
      nan = nan || IsNan(p[k]);
      largest = Max(largest, Abs(p[k]));
    }
    largest = largest * growth;
    T bound = -1;
    if (nan) {
      bound = static_cast<T>(Infinity());  // plain arithmetic makes nan of everything
    } else if (largest <= static_cast<T>(0x1p40)) {
      // With |c| < 2^e and |x| <= 2^r: |c x^k| < 2^(e + r degree).
      const Wide wide(largest);
      const int e = largest < 1 ? 0 : static_cast<int>(wide.exponent) + 1;
      bound = static_cast<T>(PowerOfTwo(e < 40 ? (40 - e) / (degree() > 0 ? degree() : 1) : 0));
    }
    p[a() + b()] = bound;
  }

  template <typename R>
  static HOST_DEVICE R Horner(const R* c, int count, R x) {
    R sum = c[count - 1];
    for (int k = count - 2; k >= 0; --k) sum = sum * x + c[k];
    return sum;
  }

  // Q(x) without its constant and bars.
  template <typename R>
  HOST_DEVICE R Inner(const R* p, R x) const {
    if (b() == 0) return R(0.0);
    const R u = kVersion == 'A' ? Abs(x) : x;
    const R t = Horner(p + a(), b(), u);
    return kFirst ? t * u : t;
  }

  // Where Q's inner sum has a sign to lose: +1 at 0.
  template <typename R>
  static HOST_DEVICE R Sign(R t) {
    return Select(t < R(0.0), R(-1.0), R(1.0));
  }

  template <typename R>
  static HOST_DEVICE R Outer(R t) {
    if (kVersion == 'B') return R(1.0) + Abs(t);
    // eps + |t| >= 0.1: the division is safe for every x and b, as it is for A and B.
    if (kVersion == 'C') return R(0.1) + Abs(t);
    return R(1.0) + t;
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    // nan is usual: it stays nan.
    const auto usual = !(Abs(x) > p[a() + b()]);
    if constexpr (kVersion == 'N') {
      // Near a pole the quotients need more room.
      return usual & !(Abs(Outer(Inner(p, x))) < R(0x1p-20));
    } else {
      return usual;
    }
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R numerator = Horner(p, a(), x);
    if (kA ? kB == 0 : false) return numerator;
    return numerator / Outer(Inner(p, x));
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    // P and P', by Horner's rule.
    R numerator = p[a() - 1], slope = R(0.0);
    for (int j = a() - 2; j >= 0; --j) {
      slope = slope * x + numerator;
      numerator = numerator * x + p[j];
    }
    if (kA ? kB == 0 : b() == 0) {
      R power = kVersion == 'C' ? dy / R(0.1) : dy;
      const R dx = power * slope;
      for (int j = 0; j < a(); ++j) {
        dp[j] += power;
        power = power * x;
      }
      return dx;
    }
    // T, the inner sum of Q, and its derivative by u.
    const R u = kVersion == 'A' ? Abs(x) : x;
    const R* b_ = p + a();
    R inner = b_[b() - 1], inner_slope = R(0.0);
    for (int k = b() - 2; k >= 0; --k) {
      inner_slope = inner_slope * u + inner;
      inner = inner * u + b_[k];
    }
    if (kFirst) {
      inner_slope = inner_slope * u + inner;
      inner = inner * u;
    }
    const R q = R(1.0) / Outer(inner);
    const R g = dy * q;                    // dy dF/dP
    R h = -(g * (numerator * q));          // dy dF/dQ
    if (kVersion == 'B' || kVersion == 'C') h = h * Sign(inner);
    R dx = g * slope;
    dx += (kVersion == 'A' ? h * Sign(x) : h) * inner_slope;
    R power = g;
    for (int j = 0; j < a(); ++j) {
      dp[j] += power;
      if (j + 1 < a()) power = power * x;
    }
    power = kFirst ? h * u : h;
    for (int k = 0; k < b(); ++k) {
      dp[a() + k] += power;
      if (k + 1 < b()) power = power * u;
    }
    return dx;
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    for (int k = 0; k < a() + b(); ++k) {
      const bool negative = kVersion == 'A' && k >= a() && params[k] < 0;
      dparams[k] = static_cast<T>(negative ? -dp[k] : dp[k]);
    }
  }

  // ±infinity, as far as any polynomial can tell.
  template <typename T>
  static HOST_DEVICE Wide Widened(T x) {
    return Abs(x) > Float<T>::kMax ? Wide(x > 0 ? 1.0 : -1.0, int64_t{1} << 40) : Wide(x);
  }

  template <typename T>
  HOST_DEVICE void Widen(const T* p, Wide* wide) const {
    for (int k = 0; k < a() + b(); ++k) wide[k] = Wide(p[k]);
  }

  // N may be 0 exactly: then the smallest normal number stands for it.
  template <typename T>
  static HOST_DEVICE Wide AwayFromPole(Wide q) {
    const Wide tiny(Float<T>::kTiny);
    return kVersion == 'N' && Abs(q) < tiny ? tiny : q;
  }

  // The same for coefficients in Wide.
  template <typename T>
  NOINLINE_HOST_DEVICE T WideForward(const Wide* p, T x) const {
    const Wide x_ = Widened(x);
    return static_cast<T>(Horner(p, a(), x_) / AwayFromPole<T>(Outer(Inner(p, x_))));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T WideBackward(const Wide* p, T x, T dy, double* dp, Place place) const {
    if (Abs(x) > Float<T>::kMax) return 0;  // the limit is a constant
    Wide dwide[kMaxPrepared];
    for (int k = 0; k < a() + b(); ++k) dwide[k] = Wide(0.0);
    const T dx = static_cast<T>(Backward(p, Wide(x), Wide(dy), dwide, place));
    for (int k = 0; k < a() + b(); ++k) dp[k] += static_cast<double>(dwide[k]);
    return dx;
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place) const {
    Wide wide[kMaxPrepared];
    Widen(p, wide);
    return WideForward(wide, x);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place place) const {
    Wide wide[kMaxPrepared];
    Widen(p, wide);
    return WideBackward(wide, x, dy, dp, place);
  }
};

struct Rational {
  static constexpr char kName[] = "Rational";
  static constexpr bool kRandom = false;

  struct Settings {
    int num_a, num_b;
    char version;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    constexpr int most = RationalFormula<'A', 0, 0>::kMost;
    if (call.num_settings != 2) {
      return error->Say("%s: settings must be [number of numerator coefficients, version]. "
                        "Received: %lld numbers", kName, static_cast<long long>(call.num_settings));
    }
    const int64_t a = call.settings[0], version = call.settings[1];
    if (version != 'A' && version != 'B' && version != 'C' && version != 'N') {
      return error->Say("%s: the version must be one of the letters A, B, C, N (65, 66, 67, 78). "
                        "Received: %lld", kName, static_cast<long long>(version));
    }
    if (a < 1 || a > most || call.count < a || call.count - a > most) {
      return error->Say("%s: each polynomial must have at most %d coefficients, the numerator at "
                        "least 1. Received: %lld of the numerator among %lld in all", kName, most,
                        static_cast<long long>(a), static_cast<long long>(call.count));
    }
    *settings = {static_cast<int>(a), static_cast<int>(call.count - a), static_cast<char>(version)};
    return true;
  }

  // The paper's sizes, SLAF's, and any other.
  template <char kVersion, typename F>
  static void SpecializeVersion(const Settings& s, const F& f) {
    if (s.num_a == 6 && s.num_b == (kVersion == 'C' ? 5 : 4)) {
      f(RationalFormula<kVersion, 6, kVersion == 'C' ? 5 : 4>{s.num_a, s.num_b});
    } else {
      f(RationalFormula<kVersion, 0, 0>{s.num_a, s.num_b});
    }
  }

  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    if (s.version == 'A' && s.num_a == 4 && s.num_b == 0) {
      f(RationalFormula<'A', 4, 0>{s.num_a, s.num_b});
    } else if (s.version == 'A') {
      SpecializeVersion<'A'>(s, f);
    } else if (s.version == 'B') {
      SpecializeVersion<'B'>(s, f);
    } else if (s.version == 'C') {
      SpecializeVersion<'C'>(s, f);
    } else {
      SpecializeVersion<'N'>(s, f);
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_RATIONAL_H_
