// The larger of two lines through 0, smoothed (Ma, Zhang, Liu, Sun, CVPR 2021; Biswas, Kumar,
// Banerjee, Pandey, CVPR 2022):
//
//   y = p2 x + d x G(β d x)   with d = p1 − p2 and G a distribution function, G(-v) = 1 − G(v)
//
// Settings: the number of G, see SmoothMaximumGate; or this, p1 and p2. Parameters: p1, p2, β; or
// β. y(±∞) is y at the largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_SMOOTH_MAXIMUM_H_
#define KERAS_LEARNACT_KERNELS_SMOOTH_MAXIMUM_H_

#include "runtime/call.h"
#include "runtime/math.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// In the order of GATES in layers/acon.py.
enum SmoothMaximumGate : uint8_t {
  kLogistic,  // G(u) = 1 / (1 + exp(-u))
  kNormal,    // G(u) = (1 + erf(u)) / 2
  kSmoothMaximumGates
};

// G(-v), G(v) and G'(v) for v >= 0.
template <typename R>
struct GateAt {
  R below, above, density;
};

// kLearned: whether the lines are parameters.
template <int kGate, bool kLearned>
struct SmoothMaximumFormula {
  enum { kP1, kP2, kDifference, kRate, kBound, kMaxPrepared };
  static constexpr bool kAlwaysUsual = false;

  double lines[2];  // p1 and p2, if they are not learned

  // The lines, d, β d, and the bound of |x| up to which plain arithmetic is safe.
  HOST_DEVICE int prepared() const { return kMaxPrepared; }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    p[kP1] = kLearned ? params[0] : static_cast<T>(lines[0]);
    p[kP2] = kLearned ? params[1] : static_cast<T>(lines[1]);
    p[kDifference] = p[kP1] - p[kP2];
    const T beta = params[kLearned ? 2 : 0];
    // d x is at most 2^41, its square in the gradient of β 2^82, and u 2^101.
    p[kBound] = Abs(beta) > T(0x1p60) ? T(-1) : BoundFor(p, 2, 0x1p20);
    // β itself where all is evaluated carefully.
    p[kRate] = p[kBound] < T(0) ? beta : beta * p[kDifference];
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[kBound]);  // nan is usual: it stays nan
  }

  template <typename R>
  static HOST_DEVICE GateAt<R> Gate(R v) {
    const R one(1.0);
    if constexpr (kGate == kLogistic) {
      const R small = Exp(-v), above = one / (one + small), below = small * above;
      return {below, above, below * above};
    } else {
      const R density = Exp(-(v * v));
      const R below = NormalTail(v * R(1.41421356237309504880), density);
      return {below, one - below, density * R(0.56418958354775628695)};  // 1 / √π
    }
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    const R u = p[kRate] * x, rest = p[kDifference] * x * Gate(Abs(u)).below;
    return Select(u < R(0.0), p[kP2] * x + rest, p[kP1] * x - rest);
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    const R u = p[kRate] * x, v = Abs(u), distance = p[kDifference] * x;
    const GateAt<R> gate = Gate(v);
    const auto left = u < R(0.0);
    // d/du (u G(u)) on the left, 1 minus that on the right.
    const R turn = v * gate.density, below = gate.below - turn, above = gate.above + turn;
    if constexpr (kLearned) {
      const R share = dy * x;
      dp[kP1] += share * Select(left, below, above);
      dp[kP2] += share * Select(left, above, below);
    }
    dp[kRate] += dy * distance * (gate.density * distance);
    const R bend = p[kDifference] * below;
    return dy * Select(left, p[kP2] + bend, p[kP1] - bend);
  }

  template <typename T>
  HOST_DEVICE void Finish(const T*, const double* dp, T* dparams) const {
    if constexpr (kLearned) {
      dparams[0] = static_cast<T>(dp[kP1]);
      dparams[1] = static_cast<T>(dp[kP2]);
    }
    dparams[kLearned ? 2 : 0] = static_cast<T>(dp[kRate]);
  }

  // What carefully evaluated formulas have in common.
  struct Careful {
    Wide x, p1, p2, difference, distance;
    bool left;
    GateAt<double> gate;
    double turn;  // |u| G'(u)
  };

  template <typename T>
  HOST_DEVICE Careful At(const T* p, T x) const {
    Careful at;
    at.x = Wide(Finite(x));
    at.p1 = Wide(p[kP1]);
    at.p2 = Wide(p[kP2]);
    at.difference = at.p1 - at.p2;
    at.distance = at.difference * at.x;
    const Wide u = Wide(p[kRate]) * (p[kBound] < T(0) ? at.distance : at.x);
    const double v = fabs(static_cast<double>(u));
    at.left = u.mantissa < 0;
    at.gate = Gate(v);
    at.turn = at.gate.density == 0 ? 0 : v * at.gate.density;
    return at;
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place) const {
    const Careful at = At(p, x);
    const Wide rest = at.distance * Wide(at.gate.below);
    return static_cast<T>(at.left ? at.p2 * at.x + rest : at.p1 * at.x - rest);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place) const {
    const Careful at = At(p, x);
    const Wide below(at.gate.below - at.turn), above(at.gate.above + at.turn);
    const Wide share = Wide(dy) * at.x;
    dp[kP1] += static_cast<double>(share * (at.left ? below : above));
    dp[kP2] += static_cast<double>(share * (at.left ? above : below));
    dp[kRate] += static_cast<double>(Wide(dy) * at.distance * at.distance * Wide(at.gate.density));
    const Wide bend = at.difference * below;
    const Wide slope = at.left ? at.p2 + bend : at.p1 - bend;
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(Wide(dy) * slope);
  }
};

struct SmoothMaximum {
  static constexpr char kName[] = "SmoothMaximum";
  static constexpr bool kRandom = false;

  struct Settings {
    int gate;
    bool learned;
    double lines[2];
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    const bool learned = call.num_settings == 1;
    if (!(learned || call.num_settings == 3) || call.count != (learned ? 3 : 1)) {
      return error->Say("%s: there must be 1 setting, the gate, and 3 parameters, p1, p2 and beta, "
                        "or 3 settings, the gate, p1 and p2, and 1 parameter, beta. Received: %lld "
                        "and %lld", kName, static_cast<long long>(call.num_settings),
                        static_cast<long long>(call.count));
    }
    const int64_t gate = call.settings[0];
    if (gate < 0 || gate >= kSmoothMaximumGates) {
      return error->Say("%s: the gates have the numbers 0 to %d. Received: %lld", kName,
                        kSmoothMaximumGates - 1, static_cast<long long>(gate));
    }
    *settings = {static_cast<int>(gate), learned, {0, 0}};
    for (int i = 0; !learned && i < 2; ++i) {
      const double line = BitCast<double>(call.settings[1 + i]);
      if (!(fabs(line) <= 1e30)) {
        return error->Say("%s: the slopes of lines that are not learned must be between -1e30 and "
                          "1e30", kName);
      }
      settings->lines[i] = line;
    }
    return true;
  }

  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    const double p1 = s.lines[0], p2 = s.lines[1];
    if (s.gate == kLogistic && s.learned) {
      f(SmoothMaximumFormula<kLogistic, true>{{p1, p2}});
    } else if (s.gate == kLogistic) {
      f(SmoothMaximumFormula<kLogistic, false>{{p1, p2}});
    } else if (s.learned) {
      f(SmoothMaximumFormula<kNormal, true>{{p1, p2}});
    } else {
      f(SmoothMaximumFormula<kNormal, false>{{p1, p2}});
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_SMOOTH_MAXIMUM_H_
