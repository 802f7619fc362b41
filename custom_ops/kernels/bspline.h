// B-spline (Bohra, Campos, Gupta, Aziznejad, Unser, 2020; Liu et al., KAN, 2024):
//
//   y = weight · silu(x) + Σ_j coefficients_j B_j(x)
//
// with the B-splines B_j of a degree on equally spaced knots. Outside of [low, high] the sum goes on
// as a line.
//
// Settings: the degree, the number of intervals, low, high (as bits of float64), whether there is a
// weight. Parameters: the coefficients, intervals + degree of them; the weight. y(±∞) is y at the
// largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_BSPLINE_H_
#define KERAS_LEARNACT_KERNELS_BSPLINE_H_

#include "kernels/mixture.h"
#include "runtime/call.h"
#include "runtime/pieces.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// Of equally spaced knots at the whole numbers, the B-splines that are not 0 at 0 <= t <= 1, and
// their derivatives (Cox, de Boor).
template <int kDegree, typename R>
HOST_DEVICE void Basis(R t, R* basis, R* slopes) {
  basis[0] = R(1.0);
  for (int d = 1; d <= kDegree; ++d) {
    R lower[kDegree + 2];
    lower[0] = lower[d + 1] = R(0.0);
    for (int k = 0; k < d; ++k) lower[k + 1] = basis[k];
    for (int k = 0; k <= d; ++k) {
      slopes[k] = lower[k] - lower[k + 1];
      basis[k] = ((t + R(1.0 * (d - k))) * lower[k] + (R(1.0 + k) - t) * lower[k + 1]) *
                 R(1.0 / d);
    }
  }
}

// kGrid is the number of intervals; 0: known only when it runs.
template <int kDegree, int kGrid, bool kBase>
struct BsplineFormula {
  static constexpr int kMost = 64, kOwn = kDegree + 1;
  static constexpr int kMaxPrepared = (kGrid ? kGrid : kMost) + kDegree + kBase + 3;
  static constexpr bool kAlwaysUsual = false;

  int num_intervals;
  double low, high;

  HOST_DEVICE int grid() const { return kGrid ? kGrid : num_intervals; }
  HOST_DEVICE int coefficients() const { return grid() + kDegree; }
  HOST_DEVICE int params() const { return coefficients() + kBase; }
  HOST_DEVICE double scale() const { return grid() / (high - low); }

  // The parameters, the slopes left and right of the grid, and the bound of |x| up to which plain
  // arithmetic is safe.
  HOST_DEVICE int left() const { return params(); }
  HOST_DEVICE int right() const { return params() + 1; }
  HOST_DEVICE int prepared() const { return params() + 3; }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params_, T* p) const {
    for (int k = 0; k < params(); ++k) p[k] = params_[k];
    p[left()] = p[right()] = 0;
    for (int side = 0; side < 2; ++side) {
      T basis[kOwn], slopes[kOwn];
      Basis<kDegree>(T(side), basis, slopes);
      const T* own = params_ + side * (grid() - 1);
      T slope = 0;
      for (int k = 0; k < kOwn; ++k) slope += slopes[k] * own[k];
      p[params() + side] = Finite(slope * static_cast<T>(scale()));
    }
    p[params() + 2] = BoundFor(p, params() + 2, 0x1p60);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[params() + 2]);  // nan is usual: it stays nan
  }

  // x in cells: the cell and how far x is in it.
  template <typename R>
  HOST_DEVICE R Within(const R* p, R x, R* cell, R* own) const {
    const R u = (Min(Max(x, R(low)), R(high)) - R(low)) * R(scale());
    *cell = Pick<kOwn>(p, grid(), u, own);
    return u - *cell;
  }

  template <typename R>
  HOST_DEVICE R OfSide(R x, R on_right, R on_left, R between) const {
    return Select(x > R(high), on_right, Select(x < R(low), on_left, between));
  }

  // Without the weight's term.
  template <typename R>
  HOST_DEVICE R Spline(const R* p, R x) const {
    R cell, own[kOwn], basis[kOwn], slopes[kOwn];
    Basis<kDegree>(Within(p, x, &cell, own), basis, slopes);
    R y = OfSide(x, p[right()] * (x - R(high)), p[left()] * (x - R(low)), R(0.0));
    for (int k = 0; k < kOwn; ++k) y += basis[k] * own[k];
    return y;
  }

  template <typename R>
  HOST_DEVICE R SplineBackward(const R* p, R x, R dy, R* dp) const {
    const R zero(0.0);
    R cell, own[kOwn], basis[kOwn], slopes[kOwn], slope(0.0);
    Basis<kDegree>(Within(p, x, &cell, own), basis, slopes);
    for (int k = 0; k < kOwn; ++k) {
      slope += slopes[k] * own[k];
      basis[k] = basis[k] * dy;
    }
    Spread<kOwn>(dp, grid(), cell, basis);
    dp[left()] += OfSide(x, zero, dy * (x - R(low)), zero);
    dp[right()] += OfSide(x, dy * (x - R(high)), zero, zero);
    return dy * OfSide(x, p[right()], p[left()], slope * R(scale()));
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R y = Spline(p, x);
    return kBase ? y + p[coefficients()] * Evaluate(kSilu, x).y : y;
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R dx = SplineBackward(p, x, dy, dp);
    if (!kBase) return dx;
    const Point<R> silu = Evaluate(kSilu, x);
    dp[coefficients()] += dy * silu.y;
    return dx + dy * (p[coefficients()] * silu.slope);
  }

  template <typename T>
  HOST_DEVICE void Finish(const T*, const double* dp, T* dparams) const {
    double total[kMaxPrepared];
    for (int k = 0; k < params(); ++k) total[k] = dp[k];
    for (int side = 0; side < 2; ++side) {
      double basis[kOwn], slopes[kOwn];
      Basis<kDegree>(static_cast<double>(side), basis, slopes);
      double* own = total + side * (grid() - 1);
      for (int k = 0; k < kOwn; ++k) own[k] += slopes[k] * scale() * dp[params() + side];
    }
    for (int k = 0; k < params(); ++k) dparams[k] = static_cast<T>(total[k]);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place) const {
    Wide wide[kMaxPrepared];
    for (int k = 0; k < params() + 2; ++k) wide[k] = Wide(p[k]);
    x = Finite(x);
    const Wide y = Spline(wide, Wide(x));
    return static_cast<T>(
        kBase ? y + wide[coefficients()] * Wide(Evaluate(kSilu, x).y) : y);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place) const {
    Wide wide[kMaxPrepared], dwide[kMaxPrepared];
    for (int k = 0; k < params() + 2; ++k) {
      wide[k] = Wide(p[k]);
      dwide[k] = Wide(0.0);
    }
    const T finite = Finite(x);
    Wide dx = SplineBackward(wide, Wide(finite), Wide(dy), dwide);
    if (kBase) {
      const Point<T> silu = Evaluate(kSilu, finite);
      dwide[coefficients()] = Wide(dy) * Wide(silu.y);
      dx += Wide(dy) * wide[coefficients()] * Wide(silu.slope);
    }
    for (int k = 0; k < params() + 2; ++k) dp[k] += static_cast<double>(dwide[k]);
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(dx);
  }
};

struct Bspline {
  static constexpr char kName[] = "Bspline";
  static constexpr bool kRandom = false;

  struct Settings {
    int degree, num_intervals;
    double low, high;
    bool base;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    constexpr int most = BsplineFormula<3, 0, true>::kMost;
    if (call.num_settings != 5) {
      return error->Say("%s: settings must be [degree, number of intervals, low, high, whether "
                        "there is a weight]. Received: %lld numbers", kName,
                        static_cast<long long>(call.num_settings));
    }
    const int64_t degree = call.settings[0], intervals = call.settings[1];
    const int64_t base = call.settings[4];
    const double low = BitCast<double>(call.settings[2]), high = BitCast<double>(call.settings[3]);
    if (degree < 1 || degree > 3 || intervals < 1 || intervals > most || base < 0 || base > 1) {
      return error->Say("%s: the degree must be 1, 2 or 3, and there must be 1 to %d intervals. "
                        "Received: %lld and %lld", kName, most, static_cast<long long>(degree),
                        static_cast<long long>(intervals));
    }
    if (!(low >= -0x1p60 && low < high && high <= 0x1p60)) {
      return error->Say("%s: low and high must be in order, and at most 2^60. Received: %g and %g",
                        kName, low, high);
    }
    if (call.count != degree + intervals + base) {
      return error->Say("%s: there must be %lld parameters. Received: %lld", kName,
                        static_cast<long long>(degree + intervals + base),
                        static_cast<long long>(call.count));
    }
    *settings = {static_cast<int>(degree), static_cast<int>(intervals), low, high, base == 1};
    return true;
  }

  template <int kDegree, int kGrid, typename F>
  static void SpecializeDegree(const Settings& s, const F& f) {
    if (s.base) {
      f(BsplineFormula<kDegree, kGrid, true>{s.num_intervals, s.low, s.high});
    } else {
      f(BsplineFormula<kDegree, kGrid, false>{s.num_intervals, s.low, s.high});
    }
  }

  // The layer's default, and any other.
  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    if (s.degree == 3 && s.num_intervals == 8) {
      SpecializeDegree<3, 8>(s, f);
    } else if (s.degree == 3) {
      SpecializeDegree<3, 0>(s, f);
    } else if (s.degree == 2) {
      SpecializeDegree<2, 0>(s, f);
    } else {
      SpecializeDegree<1, 0>(s, f);
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_BSPLINE_H_
