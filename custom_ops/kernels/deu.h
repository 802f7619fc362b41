// DEU: y solves a y″ + b y′ + c y = H(x) on both sides of 0 (Torkamani, Shankar, Rooshenas,
// Wallis, AAAI 2020; MATH.md, section 3). layers/deu.py has the table of its rows, and what happens
// around D = 0 and at the guards; DeuUnit and DeuElement below are that file's formula.
//
// Settings: epsilon, max_exponent, limit, as bits of a double; infinity for no such guard.
// Parameters: a, b, c, c1, c2.
//
// Prepare turns the row of a group into the numbers of one form in t = rate x: two exponents, or
// one exponent and a phase. All of a row's work that does not depend on x is done there, and only
// the half of the form that some lane needs is evaluated.

#ifndef KERAS_LEARNACT_KERNELS_DEU_H_
#define KERAS_LEARNACT_KERNELS_DEU_H_

#include "runtime/call.h"
#include "runtime/math.h"

namespace keras_learnact::KLA_TARGET {

// A number with its derivatives by N others. Comparisons are those of the values.
template <int N>
struct Dual {
  static constexpr int kWidth = (N + 7) / 8 * 8;  // of whole vectors; the rest is 0
  double by[kWidth];
  double value;

  Dual() = default;
  HOST_DEVICE Dual(double x) : by{}, value(x) {}
  HOST_DEVICE Dual(double x, int index) : Dual(x) { by[index] = 1; }

  // f(x) from the value and the derivative of f there.
  HOST_DEVICE Dual Chain(double f, double slope) const {
    Dual y;
    for (int i = 0; i < kWidth; ++i) y.by[i] = slope * by[i];
    y.value = f;
    return y;
  }
  // f(x, y) from the value and the derivatives of f there.
  HOST_DEVICE Dual Chain(double f, double slope, const Dual& y, double slope_of_y) const {
    Dual z;
    for (int i = 0; i < kWidth; ++i) z.by[i] = slope * by[i] + slope_of_y * y.by[i];
    z.value = f;
    return z;
  }
};

template <int N>
HOST_DEVICE Dual<N> operator+(const Dual<N>& x, const Dual<N>& y) {
  return x.Chain(x.value + y.value, 1, y, 1);
}
template <int N>
HOST_DEVICE Dual<N> operator-(const Dual<N>& x, const Dual<N>& y) {
  return x.Chain(x.value - y.value, 1, y, -1);
}
template <int N>
HOST_DEVICE Dual<N> operator*(const Dual<N>& x, const Dual<N>& y) {
  return x.Chain(x.value * y.value, y.value, y, x.value);
}
template <int N>
HOST_DEVICE Dual<N> operator/(const Dual<N>& x, const Dual<N>& y) {
  const double inverse = 1 / y.value, quotient = x.value / y.value;
  return x.Chain(quotient, inverse, y, -quotient * inverse);
}
template <int N>
HOST_DEVICE Dual<N> operator-(const Dual<N>& x) {
  return x.Chain(-x.value, -1);
}
// A plain number has no derivatives.
template <int N>
HOST_DEVICE Dual<N> operator+(const Dual<N>& x, double y) {
  return x.Chain(x.value + y, 1);
}
template <int N>
HOST_DEVICE Dual<N> operator-(double x, const Dual<N>& y) {
  return y.Chain(x - y.value, -1);
}
template <int N>
HOST_DEVICE Dual<N> operator*(const Dual<N>& x, double y) {
  return x.Chain(x.value * y, y);
}
template <int N>
HOST_DEVICE Dual<N> operator/(const Dual<N>& x, double y) {
  return x.Chain(x.value / y, 1 / y);
}

HOST_DEVICE double ValueOf(double x) { return x; }
template <int N>
HOST_DEVICE double ValueOf(const Dual<N>& x) {
  return x.value;
}
template <int N>
HOST_DEVICE Dual<N> Sqrt(const Dual<N>& x) {
  const double root = sqrt(x.value);
  return x.Chain(root, 0.5 / root);
}
template <int N>
HOST_DEVICE Dual<N> Abs(const Dual<N>& x) {
  return x.Chain(fabs(x.value), (x.value > 0) - (x.value < 0));
}
template <int N>
HOST_DEVICE Dual<N> Exp(const Dual<N>& x) {
  const double e = Exp(x.value);
  return x.Chain(e, e);
}
template <int N>
HOST_DEVICE void SinCos(const Dual<N>& x, Dual<N>* sine, Dual<N>* cosine) {
  double s, c;
  SinCos(x.value, &s, &c);
  *sine = x.Chain(s, c);
  *cosine = x.Chain(c, -s);
}

// The larger, the smaller, and what lies between: the first argument where it is one of them.
template <typename R>
HOST_DEVICE R Larger(const R& x, const R& y) {
  return ValueOf(x) >= ValueOf(y) ? x : y;
}
template <typename R>
HOST_DEVICE R Smaller(const R& x, const R& y) {
  return ValueOf(x) > ValueOf(y) ? y : x;  // x if that is nan
}
template <typename R>
HOST_DEVICE R Within(const R& x, const R& low, const R& high) {
  return ValueOf(x) < ValueOf(low) ? low : ValueOf(x) > ValueOf(high) ? high : x;
}

// What keeps the numbers of T from overflowing; largest is T's largest number.
template <typename T>
struct DeuBounds;
template <>
struct DeuBounds<float> {
  // largest^0.5, ^0.7, ^0.22, ^0.45, and 0.4 ln(largest).
  static constexpr double kReach = 1.8446742974197924e+19, kMost = 9.381831044187467e+26,
                          kFar = 299919488.0, kFarSpread = 2.1843777606700237e+17,
                          kHighest = 35.4891357421875;
};
template <>
struct DeuBounds<double> {
  static constexpr double kReach = 1.3407807929942596e154, kMost = 6.0020677307360313e215,
                          kFar = 6.5469258653635254e67, kFarSpread = 5.1834868601731632e138,
                          kHighest = 283.9130851573536;
};

// The numbers of one unit.
template <typename R>
struct DeuUnit {
  bool undefined;  // a parameter is nan
  bool second;     // a ≠ 0
  bool first;      // a = 0 ≠ b
  bool step;       // a = b = 0 ≠ c
  bool identity;   // a = b = c = 0
  bool spread;     // two exponents: a = 0 ≠ b, or D > 0 with exponents well apart
  bool linear;     // a = c = 0 ≠ b
  double rate;     // t = rate x; a power of two
  double radius;   // the magnitude of the larger exponent
  R alpha, eta;    // λ² - 2 alpha λ + eta is the characteristic polynomial in t, where a ≠ 0
  R delta;         // alpha² - eta, the sign of D; 0 where spread
  double root;     // √|delta|
  R fast, slow;    // the exponents where spread, the latter -c / (b rate) if a = 0; else alpha
  R k1, k2;        // the free part is k1 f1 + k2 f2
  R gain;          // 1 / (a rate²)
  R gap_gain;      // gain / (fast (slow - fast)) where spread
  R rest;          // 1 / c; where spread, the gain of the slow exponential's first-order equation
  R start, end;    // t is kept between them
};

// From 0 at x <= 0 to 1 at x >= 1, with two continuous derivatives.
template <typename R>
HOST_DEVICE R DeuRise(const R& x) {
  if (!(ValueOf(x) > 0)) return R(0.0);
  if (!(ValueOf(x) < 1)) return R(1.0);
  return x * x * x * (10.0 - x * (15.0 - x * 6.0));
}

// 2^k among the normal numbers of T.
template <typename T>
HOST_DEVICE double DeuPower(int k) {
  return PowerOfTwo(k < Float<T>::kMin ? Float<T>::kMin : k > Float<T>::kTop ? Float<T>::kTop : k);
}

// x scaled to 1 <= |x| < 2 by a power of two, 2^-k.
template <typename T, typename R>
HOST_DEVICE R DeuMantissa(const R& x, int* k) {
  const int field = static_cast<int>((BitCast<int64_t>(ValueOf(x)) >> 52) & 0x7ff) - 1023;
  *k = field < Float<T>::kMin ? Float<T>::kMin : field > Float<T>::kTop ? Float<T>::kTop : field;
  // In two steps: 2^-k alone may be below the normal numbers.
  return x * PowerOfTwo(-(*k / 2)) * PowerOfTwo(*k / 2 - *k);
}

// _unit of layers/deu.py, whose comments say why. R is double or Dual<5>, T what it is made for.
template <typename T, typename R>
HOST_DEVICE DeuUnit<R> MakeDeuUnit(R a, R b, R c, R c1, R c2, double epsilon,
                                   double max_exponent) {
  using Bounds = DeuBounds<T>;
  constexpr double kBand = 0.01, kSharpness = 100, kLargest = Float<T>::kMax;
  constexpr int kTop = Float<T>::kTop;
  const R zero(0.0), one(1.0);
  const auto bounded = [](const R& x, double most) { return Within(x, R(-most), R(most)); };
  const auto only = [&](bool condition, const R& x) { return condition ? x : zero; };
  const auto size = [](const R& x) { return fabs(ValueOf(x)); };
  const auto more = [](int x, int y) { return x > y ? x : y; };

  DeuUnit<R> unit;
  unit.undefined = IsNan(ValueOf(a)) || IsNan(ValueOf(b)) || IsNan(ValueOf(c)) ||
                   IsNan(ValueOf(c1)) || IsNan(ValueOf(c2));
  a = bounded(a, kLargest);
  b = bounded(b, kLargest);
  c = bounded(c, kLargest);
  c1 = bounded(c1, Bounds::kReach);
  c2 = bounded(c2, Bounds::kReach);
  if (epsilon < kLargest) epsilon = static_cast<T>(epsilon);  // as it is in layers/deu.py
  const bool second = size(a) >= epsilon, has_b = size(b) >= epsilon, has_c = size(c) >= epsilon;
  const bool first = !second && has_b;
  unit.second = second;
  unit.first = first;
  unit.step = !second && !has_b && has_c;
  unit.identity = !second && !has_b && !has_c;
  unit.linear = first && !has_c;

  int k_a, k_b, k_c;
  const R part_a = DeuMantissa<T>(second ? a : one, &k_a);
  const R part_b = DeuMantissa<T>(has_b ? b : one, &k_b);
  const R part_c = DeuMantissa<T>(has_c ? c : one, &k_c);

  int k_rate = 0;
  if (second) {
    k_rate = -(k_a >> 1) - 28;
    if (has_b) k_rate = more(k_rate, k_b - k_a);
    if (has_c) k_rate = more(k_rate, -((k_a - k_c) >> 1));
  } else if (first) {
    k_rate = (has_c ? more(k_c, 0) : 0) - k_b;
  }
  k_rate = more(k_rate, -(kTop * 9 / 10));
  k_rate = k_rate < kTop * 3 / 4 ? k_rate : kTop * 3 / 4;

  const bool damped = second && has_b, bound = second && has_c;
  const R alpha =
      only(damped, -part_b / part_a / 2.0 * DeuPower<T>(k_b - k_a - k_rate));
  const R eta = only(bound, part_c / part_a * DeuPower<T>(k_c - k_a - 2 * k_rate));
  const R delta = alpha * alpha - eta;
  const bool real = second && ValueOf(delta) > 0;
  const R root = ValueOf(delta) != 0 ? Sqrt(Abs(delta)) : zero;
  const double sign_a = ValueOf(part_a) < 0 ? -1 : 1;
  const bool backwards = has_b && ValueOf(part_b) < 0;
  const R offset = only(real, root * (backwards ? sign_a : -sign_a));
  R fast = alpha + offset;
  unit.radius = real ? size(fast) : sqrt(size(eta));
  const int k_gain = -k_a - 2 * k_rate;
  const R gain = only(second, R(DeuPower<T>(k_gain)) / part_a);
  const bool spread = real && ValueOf(root) > size(alpha) / 4;
  int k_fast, k_offset;
  const R part_fast = DeuMantissa<T>(spread ? fast : one, &k_fast);
  const R part_offset = DeuMantissa<T>(spread ? offset : one, &k_offset);
  R slow = alpha - offset;
  if (spread) {
    slow = only(bound, part_c / part_a / part_fast * DeuPower<T>(k_c + k_gain - k_fast));
  }
  const R slow_gain = R(-DeuPower<T>(k_gain - k_fast)) / part_a / part_fast;
  const R gap_gain = slow_gain / part_offset / 2.0 * DeuPower<T>(-k_offset);

  int k;
  const R part =
      DeuMantissa<T>(ValueOf(delta) != 0 ? alpha * alpha + Abs(eta) : one, &k);
  const R position = delta * DeuPower<T>(-k) / part / kBand;
  const R below = DeuRise(-position), above = DeuRise(position);
  const R at = 1.0 - below - above;
  const R on_cosh = below * c1 + at * c2;
  const R on_sinh = only(ValueOf(below) > 0, below * sign_a * root * c2) +
                    only(ValueOf(at) > 0, at * c1 * DeuPower<T>(-k_rate));
  const bool integrator = damped && !has_c;
  const int k_share = k_a - k_b < kTop * 3 / 4 ? k_a - k_b : kTop * 3 / 4;
  const R share = part_a / part_b * DeuPower<T>(k_share);
  const R on_fast =
      integrator ? bounded(-share * c1, Bounds::kMost) : above * (backwards ? c2 : c1);
  const R on_slow = above * (integrator || !backwards ? c2 : c1);
  const R k1 = spread ? on_fast : on_cosh + on_fast + on_slow;
  const R k2 = spread ? on_slow : on_sinh + offset * (on_fast - on_slow);
  const R stationary = only(has_c, R(DeuPower<T>(-k_c)) / part_c);

  if (first) slow = only(has_c, -part_c / part_b * DeuPower<T>(k_c - k_b - k_rate));
  if (unit.step) fast = R(-kSharpness);
  const double exponent = unit.step ? Bounds::kHighest : max_exponent;
  R far(Bounds::kFar);
  if (spread || first) {
    far = Within(R(Bounds::kReach) / Larger(Abs(slow_gain), one), R(Bounds::kFar),
                 R(Bounds::kFarSpread));
  }
  const auto until = [&](const R& growth) {
    return ValueOf(growth) > exponent / ValueOf(far) ? R(exponent) / growth : far;
  };
  const R joint = 1.0 - DeuRise(position - one);
  unit.start = unit.linear ? R(-kLargest) : -until(joint * Larger(-fast, -slow));
  unit.end = unit.linear ? R(kLargest) : until(Larger(fast, slow));

  // A double integrator is told in x.
  const double unit_rate = second && !has_b && !has_c ? PowerOfTwo(k_rate) : 1;
  unit.start = unit.start / unit_rate;
  unit.end = unit.end / unit_rate;
  unit.spread = spread || first;
  unit.rate = PowerOfTwo(k_rate) / unit_rate;
  unit.alpha = alpha;
  unit.eta = eta;
  unit.delta = only(second && !spread, delta);
  unit.root = ValueOf(root);
  unit.fast = spread || unit.step ? fast : alpha;
  unit.slow = spread || first ? slow : alpha;
  unit.k1 = only(second, bounded(k1, Bounds::kMost));
  unit.k2 = first ? c1 : only(second, bounded(k2, Bounds::kMost)) * unit_rate;
  unit.gain = gain * (unit_rate * unit_rate);
  unit.gap_gain = only(spread, bounded(gap_gain, Bounds::kMost));
  unit.rest = first ? R(DeuPower<T>(-k_b - k_rate)) / part_b : spread ? slow_gain : stationary;
  return unit;
}

// deu() of layers/deu.py for one element, with every guard. R is double or a Dual.
template <typename T, typename R>
HOST_DEVICE R DeuElement(const DeuUnit<R>& unit, const R& x, double max_exponent, double limit) {
  using Bounds = DeuBounds<T>;
  constexpr double kNear = 0.25;
  const R zero(0.0), one(1.0);
  const double reach = unit.linear ? Float<T>::kMax : Bounds::kReach;
  const auto bounded = [](const R& v, double most) { return Within(v, R(-most), R(most)); };
  R y = x;
  if (!unit.identity) {
    const R t = Within(x * unit.rate, unit.start, unit.end);
    if (unit.step) {
      y = unit.rest / (Exp(unit.fast * t) + one);
    } else {
      const R z = unit.delta * t * t;
      const bool apart = ValueOf(z) >= kNear, turning = ValueOf(z) <= -kNear;
      const R root = apart || turning ? Sqrt(Abs(z)) : one;
      const R offset = apart ? root : zero;
      const R exponent1 = Smaller(unit.fast * t + offset, R(max_exponent));
      const R exponent2 = Smaller(unit.slow * t - offset, R(max_exponent));
      const R e1 = Exp(exponent1), e2 = Exp(exponent2);
      R f1 = e1, f2 = e2;
      if (!unit.spread) {
        if (apart) {
          f1 = (e1 + e2) / 2.0;
          f2 = t * ((e1 - e2) / (root * 2.0));
        } else {
          R cosine = one, sine = one;  // cosh √z and sinh(√z)/√z
          if (turning) {
            SinCos(root, &sine, &cosine);
            sine = sine / root;
          } else {
            for (int n = 9; n > 0; --n) {
              cosine = z * cosine / (2.0 * n * (2 * n - 1)) + one;
              sine = z * sine / (2.0 * n * (2 * n + 1)) + one;
            }
          }
          f1 = cosine * e1;
          f2 = t * sine * e1;
        }
      }

      // Of the part driven by H: l1 f1 + l2 f2 + rest, or the series of a divided difference.
      R l1 = zero, l2 = zero, rest = zero;
      if (ValueOf(t) > 0) {
        // The divided difference of exp at 0, u and v from u + v and u v.
        const auto series = [&](const R& total, const R& product) {
          R next = one, current = one;
          for (int k = 19; k >= 2; --k) {
            const R last = total * current / (k + 1.0) - product * next / ((k + 1.0) * (k + 2.0));
            next = current;
            current = last + one;
          }
          return current / 2.0;
        };
        if (unit.second && unit.radius * ValueOf(t) < 1) {
          rest = unit.gain * t * (t * series(exponent1 + exponent2, exponent1 * exponent2 - z));
        } else if (unit.spread) {
          l1 = -unit.gap_gain;
          l2 = unit.gap_gain;
          const R slope = fabs(ValueOf(exponent2)) < 1
                              ? exponent2 * series(exponent2, zero) + one
                              : (e2 - one) / exponent2;
          rest = unit.rest * (t * slope);
        } else {
          l1 = bounded(-unit.rest, Bounds::kMost);
          l2 = bounded(unit.alpha * unit.rest, Bounds::kMost);
          rest = unit.rest;
        }
      }
      y = bounded((unit.k1 + l1) * f1, reach) + bounded((unit.k2 + l2) * f2, reach) +
          bounded(rest, reach);
    }
  }
  return bounded(y, limit);
}

// What the vector code knows of float and of double.
template <typename T>
struct DeuNumbers;

template <>
struct DeuNumbers<float> {
  // The series for early t ends with 1/k! for this k: its value's, and its gradient's.
  static constexpr int kLast = 12, kLastOfGradient = 14;
  // exp r = 1 + r + r² q(r) for |r| <= ln(2) / 2, the error relative to q.
  template <typename R>
  static HOST_DEVICE R Exp(R r) {
    return Polynomial(r, 0.5, 0.1666666676207841371, 0.041666456789122992527,
                      0.0083332840436217918636, 0.0013934543740153480057,
                      0.00019908944965741618724);
  }
  // sin √z / √z = 1 + z s(z), cos √z = 1 - z/2 + z² c(z) for -1.02 <= z <= 0.63.
  template <typename R>
  static HOST_DEVICE R Sin(R z) {
    return Polynomial(z, -0.16666666583328665509, 0.008333327366995517375,
                      -0.0001984239829796420758, 2.7755365242625537925e-6);
  }
  template <typename R>
  static HOST_DEVICE R Cos(R z) {
    return Polynomial(z, 0.041666666597208134701, -0.0013888883923758402683,
                      0.000024802527840313138478, -2.7722087208827729418e-7);
  }
};

template <>
struct DeuNumbers<double> {
  static constexpr int kLast = 20, kLastOfGradient = 22;
  template <typename R>
  static HOST_DEVICE R Exp(R r) {
    return Polynomial(r, 0.5, 0.16666666666666671438, 0.041666666666666685593,
                      0.0083333333333255449373, 0.0013888888888873173981,
                      0.00019841269876863656732, 0.00002480158735023192473,
                      2.7557252834324312804e-6, 2.7557250134309452044e-7,
                      2.5106274430399094127e-8, 2.0922521355099453681e-9);
  }
  template <typename R>
  static HOST_DEVICE R Sin(R z) {
    return Polynomial(z, -0.16666666666666665529, 0.0083333333333333227597,
                      -0.00019841269841313430873, 2.7557319223978507193e-6,
                      -2.5052105839528264315e-8, 1.6059152401755995515e-10,
                      -7.6858284121278850004e-13);
  }
  template <typename R>
  static HOST_DEVICE R Cos(R z) {
    return Polynomial(z, 0.041666666666666666035, -0.001388888888888888303,
                      0.000024801587301611507761, -2.7557319223980075372e-7,
                      2.0876755574108465585e-9, -1.1470805946882148945e-11,
                      4.8009457813634378588e-14);
  }
};

// 1/k!
struct DeuFactorials {
  double inverse[24];
  constexpr DeuFactorials() : inverse{1} {
    for (int k = 1; k < 24; ++k) inverse[k] = inverse[k - 1] / k;
  }
};

// e = e^x and, where `near` is 0, q = (e^x - 1 - x) / x² without cancellation.
template <typename R>
struct DeuExp {
  R e, near, q;

  explicit HOST_DEVICE DeuExp(R x) {
    using T = typename Float<R>::Scalar;
    using M = MathNumbers<T>;
    const R inside = Max(x, R(M::kLowest));
    near = (inside * R(1.4426950408889634074) + R(M::kRound)) - R(M::kRound);
    const R r = (inside - near * R(M::kLn2)) - near * R(M::kLn2Rest);
    q = DeuNumbers<T>::Exp(r);
    e = TimesPowerOfTwo(R(1.0) + (r + r * (r * q)), near);
  }
};

struct DeuFormula {
  enum {
    // With gradients. That of kDelta is in kFast's place, since a unit has but one of them.
    kK1, kK2, kRest, kAlpha, kEta, kGain, kFast, kSlow, kGapGain, kStart, kEnd, kNumGradients,
    // Without. See Prepare.
    kDelta = kNumGradients, kRate, kKind, kFirst, kMix, kEarly, kPhase, kGap, kInverseRoot,
    kInverseSlow, kNan, kBound, kMaxPrepared
  };
  // Kinds of units: one exponent and a phase, two exponents, a = b = c = 0 as a case of the former,
  // and a = b = 0 ≠ c, which is neither.
  static constexpr double kCalm = 0, kSpread = 1, kIdentity = 2, kStep = 3;
  static constexpr bool kAlwaysUsual = false;
  // radius · t before which the part driven by H is summed as a series: the closed form would
  // cancel, and its derivatives by c even more.
  static constexpr double kEarlyRadius = 1;

  double epsilon, max_exponent, limit;

  HOST_DEVICE int prepared() const { return kMaxPrepared; }

  template <typename T>
  HOST_DEVICE double MostExponent() const {
    const double highest = DeuBounds<T>::kHighest;
    return max_exponent < highest ? max_exponent : highest;
  }

  template <typename T>
  HOST_DEVICE double Limit() const {
    const double largest = Float<T>::kMax;
    return limit < largest ? limit : Infinity();
  }

  template <typename R, typename T>
  HOST_DEVICE DeuUnit<R> UnitOf(const R* params) const {
    return MakeDeuUnit<T>(params[0], params[1], params[2], params[3], params[4], epsilon,
                          MostExponent<T>());
  }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    const double values[] = {params[0], params[1], params[2], params[3], params[4]};
    const DeuUnit<double> unit = UnitOf<double, T>(values);
    for (int k = 0; k < kMaxPrepared; ++k) p[k] = 0;
    if (unit.undefined) {
      p[kNan] = static_cast<T>(NotANumber());
      p[kBound] = static_cast<T>(Infinity());
      return;
    }
    const auto set = [p](int k, double value) {
      const double largest = Float<T>::kMax;
      p[k] = static_cast<T>(Min(Max(value, -largest), largest));
    };
    set(kK1, unit.k1);
    set(kK2, unit.k2);
    set(kRest, unit.rest);
    set(kAlpha, unit.alpha);
    set(kEta, unit.eta);
    set(kGain, unit.gain);
    set(kFast, unit.fast);
    set(kSlow, unit.slow);
    set(kGapGain, unit.gap_gain);
    set(kStart, unit.start);
    set(kEnd, unit.end);
    set(kDelta, unit.delta);
    set(kRate, unit.rate);
    set(kKind, unit.identity ? kIdentity : unit.step ? kStep : unit.spread ? kSpread : kCalm);
    set(kFirst, unit.first);
    set(kMix, !unit.spread);  // f2′ = slow f2 + mix f1
    // The t before which a second-order unit is early.
    set(kEarly, !unit.second ? -1 : unit.radius > 0 ? kEarlyRadius / unit.radius : Infinity());
    if (unit.identity) {  // f2 = t
      set(kK2, 1);
      set(kStart, -Float<T>::kMax);
      set(kEnd, Float<T>::kMax);
    }

    // Up to this |t|, and for such coefficients, no product overflows and no part of f reaches its
    // bound: with exponentials up to e^20 < 2^29, or e^36 < 2^52 in float, e^284 < 2^410 in double.
    const bool steep = MostExponent<T>() > 20;
    double longest = steep ? 0x1p10 : 0x1p16;
    const double most = steep ? 0x1p12 : 0x1p24;
    if (!unit.spread && unit.delta < 0) {
      set(kPhase, unit.root);
      const double farthest = MathNumbers<T>::kFarthest / unit.root;
      longest = Min(longest, farthest);
    }
    if (!unit.spread && unit.delta > 0) set(kGap, unit.root);
    // Only used where the phase or the exponent is not near 0.
    if (unit.root * longest > 0.5) set(kInverseRoot, 1 / unit.root);
    if (unit.spread && Abs(unit.slow) * longest > 0.25) set(kInverseSlow, 1 / unit.slow);
    const double sizes[] = {p[kK1], p[kK2], p[kRest], p[kGain], p[kGapGain],
                            1.0 * p[kRest] * p[kInverseSlow]};
    double largest = 0;
    for (double size : sizes) largest = Max(largest, fabs(size));
    double bound = -1;
    if (largest <= most) {
      bound = unit.start >= -longest && unit.end <= longest ? Infinity() : longest / unit.rate;
    }
    set(kBound, bound);
    if (bound == Infinity()) p[kBound] = static_cast<T>(bound);  // ±∞ too is usual
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[kBound]);  // nan is usual: it stays nan
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    return Evaluate<false>(p, x, x, static_cast<R*>(nullptr));
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    return Evaluate<true>(p, x, dy, dp);
  }

  template <bool kBackward, typename R>
  HOST_DEVICE R Evaluate(const R* p, R x, R dy, R* dp) const {
    using T = typename Float<R>::Scalar;
    using Bits = typename BitsOf<R>::Type;
    using Numbers = DeuNumbers<T>;
    using M = MathNumbers<T>;
    const R zero(0.0), one(1.0), half(0.5), most(MostExponent<T>()), largest(Limit<T>());

    const auto defined = x == x;
    if (kBackward) x = Select(defined, x, zero);
    const R moment = p[kRate] * x;
    const R t = Min(Max(moment, p[kStart]), p[kEnd]);
    const auto driven = t > zero;
    const auto spread = p[kKind] == R(kSpread);
    const auto step = p[kKind] == R(kStep);
    const bool any_spread = !None(spread), any_calm = !None(p[kKind] != R(kSpread)),
               any_step = !None(step);

    // Two exponents also where D > 0 and the phase, a hyperbolic one, is not small.
    R u = p[kFast] * t, v = p[kSlow] * t;
    const R gap = p[kGap] * t;
    const auto apart = Abs(gap) > one;
    const bool any_apart = !None(apart);
    if (any_apart) {
      u = Select(apart, u + gap, u);
      v = Select(apart, v - gap, v);
    }
    const DeuExp<R> first(Min(u, most));
    DeuExp<R> second = first;
    if (any_spread || any_apart) second = DeuExp<R>(Min(v, most));

    R f1 = first.e, f2 = second.e;

    // The part driven by H is rest · response + gap_gain · difference. With two exponents the
    // response is (e^v - 1) / slow and the difference e^v - e^u.
    const auto slow_near = second.near == zero;
    R response = zero, difference = zero;
    if (any_spread) {
      response = Select(slow_near, t + t * (v * second.q), p[kInverseSlow] * (second.e - one));
      difference = second.e - first.e;
    }

    // One exponent: f1 = e^u cos √z and f2 = t e^u sin √z / √z with z = -delta t², and the
    // response is 1 - f1 + alpha f2.
    R f2_by_delta = zero;
    if (any_calm) {
      const R phase = p[kPhase] * t;
      const R rounded = phase * R(0.63661977236758134308) + R(M::kRound);
      const R n = rounded - R(M::kRound);
      const R r = ((phase - n * R(M::kHalfPi0)) - n * R(M::kHalfPi1)) - n * R(M::kHalfPi2);
      const auto small = n == zero;
      const R z = Select(small, -(p[kDelta] * t * t), r * r);
      const R sine_tail = Numbers::Sin(z), cosine_tail = Numbers::Cos(z);
      const R sine0 = r + r * (z * sine_tail), cosine0 = one + z * (z * cosine_tail - half);

      const Bits quadrant = BitCast<Bits>(rounded), unit = quadrant - quadrant + 1;
      const int top = 8 * sizeof(T) - 1;  // the sign's bit
      const Bits odd = quadrant & unit, sign = ShiftUp(unit, top);
      const Bits negative = ShiftUp(quadrant, top - 1) & sign;
      const R sine = BitCast<R>(BitCast<Bits>(Select(odd != 0, cosine0, sine0)) ^ negative);
      const R cosine = BitCast<R>(BitCast<Bits>(Select(odd != 0, sine0, cosine0)) ^ negative ^
                                  ShiftUp(odd, top));
      R calm1 = first.e * cosine;
      R calm2 = first.e * Select(small, t + t * (z * sine_tail), sine * p[kInverseRoot]);
      if (kBackward) {
        const R inverse = p[kInverseRoot] * p[kInverseRoot];
        f2_by_delta =
            Select(small,
                   first.e * (t * t * t) * (R(0.25) + half * (sine_tail - z * cosine_tail)),
                   (calm2 - t * calm1) * (half * inverse));
      }
      if (any_apart) {
        calm1 = Select(apart, half * (first.e + second.e), calm1);
        calm2 = Select(apart, (first.e - second.e) * (half * p[kInverseRoot]), calm2);
      }
      const R calm_response = one - (calm1 - p[kAlpha] * calm2);
      f1 = any_spread ? Select(spread, f1, calm1) : calm1;
      f2 = any_spread ? Select(spread, f2, calm2) : calm2;
      response = any_spread ? Select(spread, response, calm_response) : calm_response;
    }
    R driven_y = p[kRest] * response + p[kGapGain] * difference;

    // Early it is gain t² F2 with F_k = Σ h_n / (n + k)!, h_n the complete symmetric polynomials
    // of both exponents: F_k = 1/k! + sum F_(k+1) - product F_(k+2). Its derivative by t is
    // gain t F1; those of F2 by sum and product are G3 and -G4 with
    // G_k = F_k + sum G_(k+1) - product G_(k+2).
    const auto early = t < p[kEarly];
    const bool any_early = !None(early & driven);
    R early_y = zero, f_1 = zero, f_2 = zero, g_3 = zero, g_4 = zero;
    if (any_early) {
      constexpr DeuFactorials factorials;
      constexpr int last = kBackward ? Numbers::kLastOfGradient : Numbers::kLast;
      const R s = Min(Max(t, zero), p[kEarly]);
      const R sum = (p[kAlpha] + p[kAlpha]) * s, product = p[kEta] * s * s;
      R f(factorials.inverse[last]), f_next = zero;
      g_3 = f;
      for (int k = last - 1; k >= 2; --k) {
        const R now = R(factorials.inverse[k]) + (sum * f - product * f_next);
        f_next = f;
        f = now;
        if (kBackward && k >= 3) {
          const R g_now = f + (sum * g_3 - product * g_4);
          g_4 = g_3;
          g_3 = g_now;
        }
      }
      f_2 = f;
      f_1 = one + (sum * f - product * f_next);
      early_y = p[kGain] * (t * t) * f_2;
      driven_y = Select(early, early_y, driven_y);
    }

    R y = p[kK1] * f1 + p[kK2] * f2 + Select(driven, driven_y, zero);
    R smooth = zero;
    if (any_step) {
      smooth = one / (one + Exp(p[kFast] * t));
      y = Select(step, p[kRest] * smooth, y);
    }
    y = y + p[kNan];
    if (!kBackward) return Min(Max(y, -largest), largest);

    R g = Select(Abs(y) <= largest, Select(defined, dy, zero), zero), dt = zero;
    if (any_step) {
      const R on_step = Select(step, g, zero);
      dp[kRest] += on_step * smooth;
      dt = -(on_step * p[kRest] * p[kFast] * (smooth * (one - smooth)));
      g = Select(step, zero, g);
    }
    const R driven_g = Select(driven, g, zero), late_g = Select(early, zero, driven_g);
    const R late = late_g * p[kRest], free1 = g * p[kK1], free2 = g * p[kK2];
    dp[kK1] += g * f1;
    dp[kK2] += g * f2;
    dp[kRest] += late_g * response;

    // An exponential that has stopped growing has no derivatives.
    const R moving1 = Select(u > most, zero, f1), moving2 = Select(v > most, zero, f2);
    R by_t = free1 * (p[kFast] * moving1 + p[kDelta] * moving2) +
             free2 * (p[kSlow] * moving2 + p[kMix] * moving1);
    R driven_by_t = p[kGain] * f2, by_fast = zero;
    if (any_spread) {
      const R of_gap = late_g * p[kGapGain];
      const R response_by_slow = Select(slow_near, t * t * (one + second.q * (v - one)),
                                        p[kInverseSlow] * (t * second.e - response));
      dp[kGapGain] += late_g * difference;
      dp[kSlow] += t * (free2 * moving2 + of_gap * second.e) + late * response_by_slow;
      by_fast = t * (free1 * moving1 - of_gap * first.e);
      driven_by_t = Select(spread, p[kGapGain] * p[kFast] * difference +
                                       p[kFirst] * p[kRest] * second.e, driven_by_t);
    }
    if (any_calm) {
      const R on1 = free1 - late, on2 = free2 + late * p[kAlpha];
      R by_alpha = t * (on1 * f1 + on2 * f2);
      R by_delta = on1 * (half * t * f2) + on2 * f2_by_delta;
      if (any_apart) {
        const R part = half * p[kInverseRoot];
        const R e1 = Select(u > most, zero, first.e), e2 = Select(v > most, zero, second.e);
        const R of_u = e1 * (half * on1 + part * on2), of_v = e2 * (half * on1 - part * on2);
        by_alpha = Select(apart, t * (of_u + of_v), by_alpha);
        by_delta =
            Select(apart, part * (t * (of_u - of_v) - on2 * f2 * p[kInverseRoot]), by_delta);
        by_t = Select(apart,
                      (p[kAlpha] + p[kGap]) * (e1 * (half * free1 + part * free2)) +
                          (p[kAlpha] - p[kGap]) * (e2 * (half * free1 - part * free2)),
                      by_t);
      }
      by_alpha += late * f2;
      dp[kAlpha] += any_spread ? Select(spread, zero, by_alpha) : by_alpha;
      by_fast = any_spread ? Select(spread, by_fast, by_delta) : by_delta;
    }
    dp[kFast] += by_fast;
    if (any_early) {
      const R of_early = Select(early, driven_g, zero) * (t * t), of_gain = of_early * p[kGain];
      dp[kGain] += of_early * f_2;
      dp[kAlpha] += of_gain * ((t + t) * g_3);
      dp[kEta] += of_gain * (-(t * t) * g_4);
      driven_by_t = Select(early, p[kGain] * t * f_1, driven_by_t);
    }
    dt += by_t + driven_g * driven_by_t;
    const auto before = moment < p[kStart], after = moment > p[kEnd];
    R dx = p[kRate] * dt;
    if (!None(before | after)) {
      dp[kStart] += Select(before, dt, zero);
      dp[kEnd] += Select(after, dt, zero);
      dx = Select(before | after, zero, dx);
    }
    return dx;
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    using R = Dual<5>;
    R values[5];
    for (int i = 0; i < 5; ++i) values[i] = R(params[i], i);
    const DeuUnit<R> unit = UnitOf<R, T>(values);
    const R none(0.0);
    const R* const numbers[] = {&unit.k1, &unit.k2, &unit.rest, &unit.alpha, &unit.eta, &unit.gain,
                          unit.spread ? &unit.fast : &unit.delta,
                          unit.spread ? &unit.slow : &none, &unit.gap_gain, &unit.start, &unit.end};
    for (int i = 0; i < 5; ++i) {
      double sum = 0, all = 0;  // `all` is finite if all are
      for (int k = 0; k < kNumGradients && !unit.undefined; ++k) {
        // What does not depend on a parameter may have an infinite gradient.
        if (numbers[k]->by[i] == 0) continue;
        sum += Bounded<T>(dp[k] * numbers[k]->by[i], dp[k]);
        all += dp[k] - dp[k];
      }
      dparams[i] = static_cast<T>(Bounded<T>(sum, all));
    }
  }

  // The unit that p was prepared from; variable(k) is p[k].
  template <typename R, typename T, typename F>
  static HOST_DEVICE DeuUnit<R> Restore(const T* p, const F& variable) {
    DeuUnit<R> unit;
    const double kind = p[kKind];
    unit.undefined = false;
    unit.first = p[kFirst] > 0;
    unit.step = kind == kStep;
    unit.identity = kind == kIdentity;
    unit.spread = kind == kSpread;
    unit.second = !unit.first && !unit.step && !unit.identity;
    unit.linear = unit.first && p[kSlow] == 0;
    unit.rate = p[kRate];
    unit.radius = kEarlyRadius / p[kEarly];
    unit.alpha = variable(kAlpha);
    unit.eta = variable(kEta);
    unit.delta = unit.spread || unit.step ? R(0.0) : variable(kFast);
    unit.fast = unit.spread ? variable(kFast) : unit.step ? R(p[kFast]) : unit.alpha;
    unit.slow = unit.spread ? variable(kSlow) : unit.alpha;
    unit.k1 = variable(kK1);
    unit.k2 = variable(kK2);
    unit.gain = variable(kGain);
    unit.gap_gain = variable(kGapGain);
    unit.rest = variable(kRest);
    unit.start = variable(kStart);
    unit.end = variable(kEnd);
    return unit;
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place) const {
    const auto plain = [p](int k) {
      return static_cast<double>(p[k == kFast && p[kKind] != kSpread ? kDelta : k]);
    };
    return static_cast<T>(
        DeuElement<T, double>(Restore<double>(p, plain), x, MostExponent<T>(), limit));
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place) const {
    using R = Dual<kNumGradients + 1>;
    const auto variable = [p](int k) {
      return R(p[k == kFast && p[kKind] != kSpread ? kDelta : k], k);
    };
    const R y = DeuElement<T, R>(Restore<R>(p, variable), R(x, kNumGradients), MostExponent<T>(),
                                 limit);
    const auto share = [dy](double slope) { return slope == 0 ? 0 : dy * slope; };
    for (int k = 0; k < kNumGradients; ++k) dp[k] += share(y.by[k]);
    return static_cast<T>(Bounded<T>(share(y.by[kNumGradients]), dy));
  }
};

struct Deu {
  static constexpr char kName[] = "Deu";
  static constexpr bool kRandom = false;

  struct Settings {
    double epsilon, max_exponent, limit;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    if (call.num_settings != 3 || call.count != 5) {
      return error->Say("%s: there must be 5 parameters, a, b, c, c1, c2, and 3 settings, epsilon, "
                        "max_exponent, limit. Received: %lld and %lld", kName,
                        static_cast<long long>(call.count),
                        static_cast<long long>(call.num_settings));
    }
    double* values[] = {&settings->epsilon, &settings->max_exponent, &settings->limit};
    for (int k = 0; k < 3; ++k) memcpy(values[k], call.settings + k, sizeof(double));
    const Settings& s = *settings;
    if (!(s.epsilon >= 1e-6 && s.epsilon < Infinity() && s.max_exponent > 0 && s.limit > 0)) {
      return error->Say("%s: epsilon must be a number >= 1e-6, max_exponent and limit must be "
                        "positive. Received: %g, %g, %g", kName, s.epsilon, s.max_exponent,
                        s.limit);
    }
    return true;
  }

  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    f(DeuFormula{s.epsilon, s.max_exponent, s.limit});
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_DEU_H_
