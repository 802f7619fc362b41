// DiTAC (Chelly, Finder, Ifergane, Freifeld, ECCV 2024; MATH.md, section 5):
//
//   y = T(x) Φ(x) for lo <= x <= hi, and x Φ(x) elsewhere
//   T(x) = φ(1),  φ(0) = x,  dφ/dt = v(φ)
//
// v is affine in each of `tess` cells, with the parameters as its values at the vertices between
// them. Settings: tess, form (DitacForm), the bits of lo and of hi. Lengths are in cells here.
//
// In a cell φ moves by speed (exp(slope t) − 1) / slope, and needs ln(end / speed) / slope to its
// end. So an element costs one logarithm, for the cell where it starts, one exponential, for the
// cell where it ends, and comparisons with the times that Prepare has of the cells between.

#ifndef KERAS_LEARNACT_KERNELS_DITAC_H_
#define KERAS_LEARNACT_KERNELS_DITAC_H_

#include "runtime/call.h"
#include "runtime/math.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// In the order of FORMS in layers/ditac.py.
enum DitacForm { kDitacGelu, kDitacLeaky, kDitacGe, kDitacInf, kDitacForms };

// What depends on the precision; the largest speed and the smallest one with which a cell is left.
template <typename T>
struct DitacNumbers;

template <>
struct DitacNumbers<float> {
  static constexpr double kMost = 0x1p40, kLeast = 0x1p-80, kHighest = 87;
  // (atanh(y) / y − 1) / y² of z = y² <= 0.03.
  template <typename R>
  static HOST_DEVICE R Atanh(R z) {
    return Polynomial(z, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9);
  }
  // (exp(z) − 1) / z, and its derivative, for |z| <= 1/2.
  template <typename R>
  static HOST_DEVICE R Quotient(R z) {
    return Polynomial(z, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040,
                      1.0 / 40320);
  }
  template <typename R>
  static HOST_DEVICE R QuotientSlope(R z) {
    return Polynomial(z, 1.0 / 2, 1.0 / 3, 1.0 / 8, 1.0 / 30, 1.0 / 144, 1.0 / 840, 1.0 / 5760,
                      1.0 / 45360);
  }
};

template <>
struct DitacNumbers<double> {
  static constexpr double kMost = 0x1p80, kLeast = 0x1p-900, kHighest = 708;
  template <typename R>
  static HOST_DEVICE R Atanh(R z) {
    return Polynomial(z, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17,
                      1.0 / 19, 1.0 / 21);
  }
  template <typename R>
  static HOST_DEVICE R Quotient(R z) {
    return Polynomial(z, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040,
                      1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600,
                      1.0 / 6227020800, 1.0 / 87178291200, 1.0 / 1307674368000);
  }
  template <typename R>
  static HOST_DEVICE R QuotientSlope(R z) {
    return Polynomial(z, 1.0 / 2, 1.0 / 3, 1.0 / 8, 1.0 / 30, 1.0 / 144, 1.0 / 840, 1.0 / 5760,
                      1.0 / 45360, 1.0 / 403200, 1.0 / 3991680, 1.0 / 43545600, 1.0 / 518918400,
                      1.0 / 6706022400, 1.0 / 93405312000, 1.0 / 1394852659200);
  }
};

// The way from a place to the end of its cell, on which the speed changes from `speed` to `end`.
template <typename R>
struct DitacCrossing {
  R time;    // ∫ dy / w, w the speed
  R all;     // ∫ dy / w²
  R beyond;  // ∫ (y − place) dy / w²
  R behind;  // ∫ (end of the way − y) dy / w²

  HOST_DEVICE DitacCrossing(R speed, R end, R distance, R slope) {
    using M = DitacNumbers<typename Float<R>::Scalar>;
    using Bits = typename BitsOf<R>::Type;
    const R one(1.0), two(2.0), over = one / speed, base = distance * over;
    const R ratio = Abs(end * over);  // negative only if the way is not the flow's
    // ratio = 2^k m with 1/√2 <= m < √2, and ln m = 2 atanh(y).
    const Bits bits = BitCast<Bits>(ratio), root = BitCast<Bits>(R(0.70710678118654752440));
    const Bits k = (bits - root) >> Float<R>::kMantissa;
    const auto near = k == 0;
    const R m = BitCast<R>(bits - ShiftUp(k, Float<R>::kMantissa));
    const R less = Select(near, slope * base, m - one);
    const R y = less / (two + less), square = y * y, tail = M::Atanh(square);
    const R round(MathNumbers<typename Float<R>::Scalar>::kRound);
    const R n = BitCast<R>(k + BitCast<Bits>(round)) - round;
    const R of_m = one + square * tail;  // atanh(y) / y
    const R log = n * R(0.69314718055994530942) + two * y * of_m;
    const R over_slope = one / slope, over_end = one / end;
    time = Select(near, base * (one - y) * of_m, log * over_slope);
    all = base * over_end;
    const R close = (one - y) * (one - y) * (one + (one + y) * y * tail) / (two + two * y);
    const R unlike = time * over_slope - distance * over_slope * over_end;
    beyond = Select(near, base * base * close, unlike);
    const R alike = R(0.5) * (one - y) * (one - (one - y) * y * tail);
    behind = Select(near, base * base * alike, (base - time) * over_slope);
  }
};

// The vertices lo + k length to twice T's digits: next to one, T may be many times as far from it as
// x is. A vertex is the number `at` and what that lacks; `from` is the first number not below it.
template <typename T, int kCount>
struct DitacVertices {
  T at[kCount], rest[kCount], from[kCount];

  void Set(int k, double vertex, double lacks) {
    at[k] = static_cast<T>(vertex);
    rest[k] = static_cast<T>((vertex - at[k]) + lacks);
    from[k] = rest[k] > 0 ? nextafter(at[k], Float<T>::kMax) : at[k];
  }
};

// kN is the number of cells; 0: known only when it runs.
template <int kN>
struct DitacFormula {
  static constexpr int kMost = 32, kVertices = (kN ? kN : kMost) + 1;
  static constexpr int kMaxPrepared = 2 * (kN ? kN : kMost) + 1;
  static constexpr bool kAlwaysUsual = true;
  static constexpr double kFar = 0x1p80;  // from here on the free form goes on as a line

  int tess;
  int form;
  double lo, hi;
  DitacVertices<float, kVertices> floats;
  DitacVertices<double, kVertices> doubles;

  DitacFormula(int tess, int form, double lo, double hi) : tess(tess), form(form), lo(lo), hi(hi) {
    const int n = cells();
    for (int k = 0; k <= n; ++k) {
      const double one = lo * (n - k), two = hi * k, sum = one + two, of_two = sum - one;
      const double lost = ((one - (sum - of_two)) + (two - of_two)) + fma(lo, n - k, -one) +
                          fma(hi, k, -two);
      const double quotient = sum / n, more = (fma(-quotient, n, sum) + lost) / n;
      const double vertex = quotient + more, lacks = more - (vertex - quotient);
      floats.Set(k, vertex, lacks);
      doubles.Set(k, vertex, lacks);
    }
  }

  HOST_DEVICE const DitacVertices<float, kVertices>& vertices(float) const { return floats; }
  HOST_DEVICE const DitacVertices<double, kVertices>& vertices(double) const { return doubles; }

  HOST_DEVICE int cells() const { return kN ? kN : tess; }
  HOST_DEVICE bool free() const { return form == kDitacInf; }
  HOST_DEVICE bool has_factor() const { return form == kDitacGelu || form == kDitacInf; }
  HOST_DEVICE double length() const { return (hi - lo) / cells(); }

  // The speeds at the vertices, and the time that each cell takes: above 1 if it is not crossed.
  HOST_DEVICE int prepared() const { return 2 * cells() + 1; }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    using M = DitacNumbers<T>;
    const int n = cells();
    for (int k = 0; k <= n; ++k) {
      const bool fixed = !free() && (k == 0 || k == n);
      const T speed = fixed ? T(0) : params[free() ? k : k - 1];
      p[k] = T(n) * Min(Max(speed, T(-M::kMost)), T(M::kMost));
    }
    for (int k = 0; k < n; ++k) {
      const bool crossed = Crossed(p, k) && !(free() && (k == 0 || k == n - 1));
      const double time = crossed ? Cell(p, k).time : 2;
      p[n + 1 + k] = static_cast<T>(time < 2 ? time : 2);
    }
  }

  template <typename T>
  static HOST_DEVICE bool Crossed(const T* p, int k) {
    const T least(DitacNumbers<T>::kLeast);
    return (p[k] > least && p[k + 1] > least) || (p[k] < -least && p[k + 1] < -least);
  }

  // A whole cell, as if φ went to the right.
  template <typename T>
  static HOST_DEVICE DitacCrossing<double> Cell(const T* p, int k) {
    const double one = fabs(static_cast<double>(p[k])), two = fabs(static_cast<double>(p[k + 1]));
    return DitacCrossing<double>(one, two, 1.0, two - one);
  }

  // The vertices at the ends of a cell, and the speeds there.
  template <typename R>
  struct Ends {
    R number, low, high;
    R left, left_rest, right, right_rest;
  };

  // What the flow does with an element.
  template <typename R>
  struct Flow {
    using Mask = decltype(R() > R());
    Mask inside, leaves, right;
    R x, near;              // near: where T is reckoned
    R first;                // the cell where it starts
    R local, rest;          // how far its ends are, in cells
    R speed, distance, end, slope;
    R last, entry, time;    // the cell where it ends
    R from, from_rest;      // its place in it at the time: an end of it, or where T is reckoned
    R last_slope;
    R quotient, growth;     // (exp(z) − 1) / z and exp(z)
    R z;
    R warped;
  };

  // The cell of an element: starts(k) is whether it is in the k-th or a later one.
  template <typename R, typename Starts>
  HOST_DEVICE Ends<R> CellWhere(const R* p, const Starts& starts) const {
    const auto& v = vertices(typename Float<R>::Scalar());
    Ends<R> e{R(0.0), p[0], p[1], R(v.at[0]), R(v.rest[0]), R(v.at[1]), R(v.rest[1])};
    for (int k = 1; k < cells(); ++k) {
      const auto here = starts(k);
      e.number = Select(here, R(k), e.number);
      e.low = Select(here, p[k], e.low);
      e.high = Select(here, p[k + 1], e.high);
      e.left = Select(here, R(v.at[k]), e.left);
      e.left_rest = Select(here, R(v.rest[k]), e.left_rest);
      e.right = Select(here, R(v.at[k + 1]), e.right);
      e.right_rest = Select(here, R(v.rest[k + 1]), e.right_rest);
    }
    return e;
  }

  // The speed at a place, from the vertex that is nearer.
  template <typename R>
  static HOST_DEVICE R SpeedAt(const Ends<R>& e, R slope, R local, R rest) {
    return Select(local < rest, e.low + slope * local, e.high - slope * rest);
  }

  template <typename R>
  HOST_DEVICE Flow<R> Walk(const R* p, R x) const {
    using T = typename Float<R>::Scalar;
    using M = DitacNumbers<T>;
    const auto& v = vertices(T());
    const int n = cells();
    const R zero(0.0), one(1.0), nowhere(-9.0), per_length(1 / length());
    Flow<R> f;
    f.x = Max(Min(x, R(Float<T>::kMax)), R(-Float<T>::kMax));
    f.inside = (f.x >= R(lo)) & (f.x <= R(hi));
    const R there =
        free() ? Max(Min(f.x, R(kFar)), R(-kFar)) : Select(f.inside, f.x, R(lo));

    const Ends<R> starts = CellWhere(p, [&](int k) { return there >= R(v.from[k]); });
    f.first = starts.number;
    f.local = ((there - starts.left) - starts.left_rest) * per_length;
    f.rest = ((starts.right - there) + starts.right_rest) * per_length;
    f.slope = starts.high - starts.low;
    f.speed = SpeedAt(starts, f.slope, f.local, f.rest);
    f.near = there, f.from = f.local, f.from_rest = f.rest;
    if (free()) {
      // Where distances shrink to less than a half, the way would nearly undo the distance from the
      // vertex: T is reckoned from there.
      const auto shrinks = f.slope < R(-0.69314718055994530942);
      const auto below = shrinks & (f.local < zero), above = shrinks & (f.rest < zero);
      f.near = Select(below, R(lo), Select(above, R(hi), there));
      f.from = Select(below, zero, Select(above, one, f.local));
      f.from_rest = Select(below, one, Select(above, zero, f.rest));
    }
    f.right = f.speed > zero;
    f.end = Select(f.right, starts.high, starts.low);
    f.distance = Select(f.right, f.rest, -f.local);
    const R least(M::kLeast);
    auto can = ((f.speed > least) & (f.end > least)) | ((f.speed < -least) & (f.end < -least));
    if (free()) can = can & (Select(f.right, R(n - 1) - f.first, f.first) > zero);
    const R used = DitacCrossing<R>(f.speed, f.end, f.distance, f.slope).time;
    f.leaves = can & (used < one);

    f.time = Select(f.leaves, one - used, one);
    R to_right = Select(f.leaves & f.right, f.first + one, nowhere);
    R to_left = Select(f.leaves & (f.speed < zero), f.first - one, nowhere);
    const R* times = p + n + 1;
    for (int k = 1; k < n - 1; ++k) {
      const auto crossed = (to_right == R(k)) & (times[k] < f.time);
      f.time = Select(crossed, f.time - times[k], f.time);
      to_right = Select(crossed, R(k + 1), to_right);
    }
    for (int k = n - 2; k > 0; --k) {
      const auto crossed = (to_left == R(k)) & (times[k] < f.time);
      f.time = Select(crossed, f.time - times[k], f.time);
      to_left = Select(crossed, R(k - 1), to_left);
    }
    f.last = Select(f.leaves, Max(to_right, to_left), f.first);
    const Ends<R> stops = CellWhere(p, [&](int k) { return f.last >= R(k); });
    f.entry = Select(f.leaves, Select(f.right, stops.low, stops.high),
                     SpeedAt(starts, f.slope, f.from, f.from_rest));
    f.from = Select(f.leaves, Select(f.right, zero, one), f.from);
    f.from_rest = Select(f.leaves, Select(f.right, one, zero), f.from_rest);
    f.last_slope = stops.high - stops.low;
    const R origin = Select(f.leaves, Select(f.right, stops.left, stops.right), f.near);
    const R origin_rest =
        Select(f.leaves, Select(f.right, stops.left_rest, stops.right_rest), zero);

    const R z = Min(f.last_slope * f.time, R(M::kHighest)), grown = Exp(z);
    const auto small = Abs(z) <= R(0.5);
    f.z = z;
    f.quotient = Select(small, M::Quotient(z), (grown - one) / z);
    f.growth = grown;
    f.warped = origin + (origin_rest + R(length()) * (f.entry * (f.time * f.quotient)));
    if (free()) {
      f.warped += (f.x - f.near) * Select(f.leaves, zero, f.growth);
      f.warped = Max(Min(f.warped, R(Float<T>::kMax)), R(-Float<T>::kMax));
    } else {
      f.warped = Select(f.inside, f.warped, f.x);
    }
    return f;
  }

  // Φ(x), from exp(-x²/2).
  template <typename R>
  static HOST_DEVICE R Below(R x, R density) {
    const R tail = NormalTail(Abs(x), density);
    return Select(x < R(0.0), tail, R(1.0) - tail);
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const Flow<R> f = Walk(p, x);
    if (form == kDitacLeaky) {
      return Select(f.inside, f.warped, Select(x < R(0.0), R(0.01) * f.x, f.x));
    }
    const R below = Below(f.x, Exp(f.x * f.x * R(-0.5)));
    return form == kDitacGe ? Select(f.inside, f.warped, f.x * below) : f.warped * below;
  }

  // The sum for a cell's time lacks what that depends on, which is the same for all elements.
  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    using T = typename Float<R>::Scalar;
    using M = DitacNumbers<T>;
    const int n = cells();
    const R zero(0.0), one(1.0);
    const Flow<R> f = Walk(p, x);
    const R largest(Float<T>::kMax);
    // The speed at T. A product of infinity and 0 would be nan.
    const R arrival = Max(Min(f.entry * f.growth, largest), -largest);
    R factor = one, of_factor = zero;      // Φ(x), and what its derivative gives dx
    if (form != kDitacLeaky) {
      const R density = Exp(f.x * f.x * R(-0.5));
      factor = Below(f.x, density);
      of_factor = f.warped * density * R(0.39894228040143267794);  // 1 / √(2π)
    }
    const auto held = Abs(f.warped) >= largest;
    R share = form == kDitacGe ? dy : dy * factor;  // of T
    share = free() ? Select(held, zero, share) : Select(f.inside, share, zero);
    R dx = Select(f.leaves, share * arrival / f.speed, share * f.growth);
    if (free()) dx = Select(f.leaves & (Abs(f.x) > R(kFar)), zero, dx);
    if (has_factor()) {
      dx += dy * of_factor;
      if (!free()) dx += Select(f.inside, zero, dy * factor);
    } else if (form == kDitacGe) {
      dx = Select(f.inside, dx, dy * (factor + of_factor));
    } else {
      dx = Select(f.inside, dx, dy * Select(f.x < zero, R(0.01), one));
    }

    // The cell where it ends.
    const R per_cell = share * R(length());
    const auto small = Abs(f.z) <= R(0.5);
    const R quotient_slope =
        Select(f.z < R(M::kHighest),
               Select(small, M::QuotientSlope(f.z), (f.growth - f.quotient) / f.z), zero);
    const R moved = per_cell * (f.time * f.quotient);
    R turned = per_cell * quotient_slope * (f.entry * (f.time * f.time));
    if (free()) turned += Select(f.leaves, zero, share * f.growth * (f.x - f.near));
    const R last_low = moved * f.from_rest - turned, last_high = moved * f.from + turned;
    // The cell where it starts, if it leaves that, and those between.
    const DitacCrossing<R> crossing(f.speed, f.end, f.distance, f.slope);
    // As above, but what dy says must be seen, if it is no number.
    const R product = per_cell * arrival, held_rate = Max(Min(product, largest), -largest);
    const R rate = Select(Abs(per_cell) <= largest, held_rate, product);
    // From far out the two parts of a difference would be alike.
    const R from_right = Select(f.rest < zero, crossing.all + crossing.behind,
                                f.rest * crossing.all - crossing.beyond);
    const R from_left = Select(f.local < zero, crossing.all - crossing.behind,
                               f.local * crossing.all + crossing.beyond);
    const R low = rate * Select(f.right, crossing.behind, from_right);
    const R high = rate * Select(f.right, from_left, -crossing.behind);
    const R first = Select(f.leaves, f.first, R(-9.0));
    const R left = Min(f.first, f.last), right = Max(f.first, f.last);
    for (int k = 0; k < n; ++k) {
      const auto starts = first == R(k), ends = f.last == R(k);
      dp[k] += Select(starts, low, zero) + Select(ends, last_low, zero);
      dp[k + 1] += Select(starts, high, zero) + Select(ends, last_high, zero);
      if (k > 0 && k < n - 1) {
        dp[n + 1 + k] += Select((left < R(k)) & (right > R(k)), -rate, zero);
      }
    }
    return Select(Abs(x) > R(Float<T>::kMax), zero, dx);
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    const int n = cells();
    T p[kMaxPrepared];
    Prepare(params, p);
    double speeds[(kN ? kN : kMost) + 1];
    for (int k = 0; k <= n; ++k) speeds[k] = dp[k];
    for (int k = 1; k < n - 1; ++k) {
      if (!(p[n + 1 + k] < T(1))) continue;
      const DitacCrossing<double> cell = Cell(p, k);
      const double of_time = p[k] > T(0) ? dp[n + 1 + k] : -dp[n + 1 + k];
      speeds[k] -= of_time * (cell.all - cell.beyond);
      speeds[k + 1] -= of_time * cell.beyond;
    }
    for (int k = 0; k <= n; ++k) {
      if (!free() && (k == 0 || k == n)) continue;
      const int i = free() ? k : k - 1;
      const T most(DitacNumbers<T>::kMost);
      const bool held = params[i] > most || params[i] < -most;
      dparams[i] = held ? T(0) : static_cast<T>(n * speeds[k]);
    }
  }
};

struct Ditac {
  static constexpr char kName[] = "Ditac";
  static constexpr bool kRandom = false;

  struct Settings {
    int tess, form;
    double lo, hi;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    constexpr int most = DitacFormula<0>::kMost;
    if (call.num_settings != 4) {
      return error->Say("%s: settings must be [number of cells, form, bits of lo, bits of hi]. "
                        "Received: %lld numbers", kName, static_cast<long long>(call.num_settings));
    }
    const int64_t tess = call.settings[0], form = call.settings[1];
    const double lo = BitCast<double>(call.settings[2]), hi = BitCast<double>(call.settings[3]);
    if (tess < 2 || tess > most || form < 0 || form >= kDitacForms) {
      return error->Say("%s: there must be 2 to %d cells, and a form from 0 to %d. Received: %lld "
                        "and %lld", kName, most, kDitacForms - 1, static_cast<long long>(tess),
                        static_cast<long long>(form));
    }
    if (!(lo >= -1e7 && hi <= 1e7 && hi - lo >= 1e-7)) {
      return error->Say("%s: lo and hi must be numbers between -1e7 and 1e7, hi at least 1e-7 "
                        "larger. Received: %g and %g", kName, lo, hi);
    }
    const int64_t count = form == kDitacInf ? tess + 1 : tess - 1;
    if (call.count != count) {
      return error->Say("%s: %lld cells need %lld parameters in this form. Received: %lld", kName,
                        static_cast<long long>(tess), static_cast<long long>(count),
                        static_cast<long long>(call.count));
    }
    *settings = {static_cast<int>(tess), static_cast<int>(form), lo, hi};
    return true;
  }

  // The paper's number of cells, and any other.
  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    if (s.tess == 10) {
      f(DitacFormula<10>(s.tess, s.form, s.lo, s.hi));
    } else {
      f(DitacFormula<0>(s.tess, s.form, s.lo, s.hi));
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_DITAC_H_
