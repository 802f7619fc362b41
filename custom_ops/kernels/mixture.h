// Mixture (Manessi, Rozza, ICPR 2018; MATH.md, section 4):
//
//   y = Σ_i w_i φ_i(x)
//
// Settings: the numbers of the functions φ_i, see MixtureFunction. Parameters: the weights. The
// functions and their derivatives are Keras' own; where a function has a kink, and Keras' backends
// disagree, the derivative is that of TensorFlow. One that overflows counts as ± the largest finite
// number, with derivative 0. y(±∞) is y at the largest finite number.

#ifndef KERAS_LEARNACT_KERNELS_MIXTURE_H_
#define KERAS_LEARNACT_KERNELS_MIXTURE_H_

#include "runtime/call.h"
#include "runtime/math.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// In the order of FUNCTIONS in layers/mixture.py.
enum MixtureFunction : uint8_t {
  kLinear,
  kRelu,
  kRelu6,
  kLeakyRelu,
  kElu,
  kSelu,
  kCelu,
  kSigmoid,
  kHardSigmoid,
  kTanh,
  kHardTanh,
  kSoftplus,
  kSoftsign,
  kSilu,
  kHardSilu,
  kGelu,
  kLogSigmoid,
  kMish,
  kExponential,
  kMixtureFunctions
};

// A function's value and derivative at one x. Who needs the value alone pays for nothing else.
template <typename R>
struct Point {
  R y, slope;
};

// 1 / (1 + exp(-x)) and 1 / (1 + exp(x)); no exponential overflows.
template <typename R>
struct Sigmoids {
  R small, of_x, of_minus_x;  // small: exp(-|x|)

  explicit HOST_DEVICE Sigmoids(R x) : small(Exp(-Abs(x))) {
    const R large = R(1.0) / (R(1.0) + small), rest = small * large;
    of_x = Select(x < R(0.0), rest, large);
    of_minus_x = Select(x < R(0.0), large, rest);
  }
};

template <typename R>
HOST_DEVICE Point<R> Between(R x, R low, R high, bool at_ends) {
  const R one(1.0), zero(0.0);
  const R inside = at_ends ? Select(x < low, zero, Select(x > high, zero, one))
                           : Select(x > low, Select(x < high, one, zero), zero);
  return {Min(Max(x, low), high), inside};
}

template <typename R>
HOST_DEVICE Point<R> Elu(R x) {
  const R one(1.0), zero(0.0);
  const R below = Expm1(Min(x, zero));  // its slope at 0 is 1 from both sides
  return {Select(x > zero, x, below), Select(x > zero, one, below + one)};
}

template <typename R>
HOST_DEVICE Point<R> HardSigmoid(R x) {
  const Point<R> relu6 = Between(x + R(3.0), R(0.0), R(6.0), false);
  return {relu6.y * R(1.0 / 6), relu6.slope * R(1.0 / 6)};
}

template <typename R>
HOST_DEVICE Point<R> Gelu(R x) {
  const R density = Exp(x * x * R(-0.5));  // without its constant
  const R tail = NormalTail(Abs(x), density);
  const R below = Select(x < R(0.0), tail, R(1.0) - tail);
  return {x * below, below + x * density * R(0.39894228040143267794)};  // 1 / √(2π)
}

// tanh(softplus(x)) = w / (w + 2) with w = e² + 2 e and e = exp(x); from exp(-x) for x > 0.
template <typename R>
HOST_DEVICE Point<R> Mish(R x) {
  const R one(1.0), two(2.0), n = Exp(-Abs(x));
  const auto left = x < R(0.0);
  const R w = n * (n + two), v = one + two * n;
  const R over = one / Select(left, w + two, v + two * n * n);
  const R tanh = Select(left, w, v) * over;
  const R up = R(4.0) * n * (n + one);
  return {x * tanh, tanh + x * (Select(left, up, up * n) * over * over)};
}

template <typename R>
HOST_DEVICE Point<R> Evaluate(int function, R x) {
  const R zero(0.0), one(1.0);
  switch (function) {
    case kRelu:
      return {Max(x, zero), Select(x > zero, one, zero)};
    case kRelu6:
      return Between(x, zero, R(6.0), false);
    case kLeakyRelu: {
      const R slope = Select(x > zero, one, R(0.2));
      return {x * slope, slope};
    }
    case kElu:
    case kCelu:
      return Elu(x);
    case kSelu: {
      const R scale(1.05070098735548049342), alpha(1.67326324235437728481);
      const Point<R> elu = Elu(x);
      return {scale * Select(x < zero, alpha * elu.y, x),
              scale * Select(x < zero, alpha * elu.slope, one)};
    }
    case kSigmoid: {
      const Sigmoids<R> s(x);
      return {s.of_x, s.of_x * s.of_minus_x};
    }
    case kHardSigmoid:
      return HardSigmoid(x);
    case kTanh: {
      const R below = Expm1(R(-2.0) * Abs(x));
      const R size = -below / (R(2.0) + below);
      return {Select(x < zero, -size, size), one - size * size};
    }
    case kHardTanh:
      return Between(x, R(-1.0), one, true);
    case kSoftplus: {
      const Sigmoids<R> s(x);
      return {Max(x, zero) + Log1p(s.small), s.of_x};
    }
    case kSoftsign: {
      const R size = one + Abs(x), over = one / size;
      return {x / size, over * over};
    }
    case kSilu: {
      const Sigmoids<R> s(x);
      return {x * s.of_x, s.of_x * (one + x * s.of_minus_x)};
    }
    case kHardSilu: {
      const Point<R> hard = HardSigmoid(x);
      return {x * hard.y, hard.y + x * hard.slope};
    }
    case kGelu:
      return Gelu(x);
    case kLogSigmoid: {
      const Sigmoids<R> s(x);
      return {Min(x, zero) - Log1p(s.small), s.of_minus_x};
    }
    case kMish:
      return Mish(x);
    case kExponential: {
      const R y = Exp(x);
      return {y, y};
    }
    default:
      return {x, one};
  }
}

// The functions kIds; none: known only when it runs.
template <int... kIds>
struct MixtureFormula {
  static constexpr int kMost = 32;
  static constexpr int kFixed = sizeof...(kIds);
  static constexpr int kMaxPrepared = (kFixed ? kFixed : kMost) + 1;
  static constexpr bool kAlwaysUsual = false;

  int num_functions;
  uint8_t ids[kMost];

  HOST_DEVICE int functions() const { return kFixed ? kFixed : num_functions; }
  HOST_DEVICE int id(int i) const {
    if constexpr (kFixed) {
      constexpr int kFunctions[] = {kIds...};
      return kFunctions[i];
    } else {
      return ids[i];
    }
  }

  // The weights, and the bound of |x| up to which plain arithmetic is safe.
  HOST_DEVICE int prepared() const { return functions() + 1; }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    // No weight and no value of a function exceeds 1.06 · 2^60, no sum of 32 products 2^126.
    T bound = BoundFor(params, functions(), 0x1p60);
    for (int i = 0; i < functions(); ++i) {
      p[i] = params[i];
      if (id(i) == kExponential) bound = Min(bound, T(41));  // exp(41) < 2^60
    }
    p[functions()] = bound;
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    return !(Abs(x) > p[functions()]);  // nan is usual: it stays nan
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place) const {
    R y = p[0] * Evaluate(id(0), x).y;
    for (int i = 1; i < functions(); ++i) y += p[i] * Evaluate(id(i), x).y;
    return y;
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place) const {
    R slope(0.0);
    for (int i = 0; i < functions(); ++i) {
      const Point<R> of_one = Evaluate(id(i), x);
      slope += p[i] * of_one.slope;
      dp[i] += dy * of_one.y;
    }
    return dy * slope;
  }

  template <typename T>
  HOST_DEVICE void Finish(const T*, const double* dp, T* dparams) const {
    for (int i = 0; i < functions(); ++i) dparams[i] = static_cast<T>(dp[i]);
  }

  // One function at any x but nan.
  template <typename T>
  HOST_DEVICE Point<T> EvaluateFinite(int i, T x) const {
    const Point<T> point = Evaluate(id(i), Finite(x));
    return {Finite(point.y), Abs(point.y) > Float<T>::kMax ? T(0) : point.slope};
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place) const {
    Wide y(0.0);
    for (int i = 0; i < functions(); ++i) y += Wide(p[i]) * Wide(EvaluateFinite(i, x).y);
    return static_cast<T>(y);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place) const {
    Wide slope(0.0);
    for (int i = 0; i < functions(); ++i) {
      const Point<T> point = EvaluateFinite(i, x);
      slope += Wide(p[i]) * Wide(point.slope);
      dp[i] += static_cast<double>(Wide(dy) * Wide(point.y));
    }
    return Abs(x) > Float<T>::kMax ? T(0) : static_cast<T>(Wide(dy) * slope);
  }
};

struct Mixture {
  static constexpr char kName[] = "Mixture";
  static constexpr bool kRandom = false;

  struct Settings {
    MixtureFormula<> formula;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    constexpr int most = MixtureFormula<>::kMost;
    if (call.num_settings < 1 || call.num_settings > most || call.num_settings != call.count) {
      return error->Say("%s: there must be 1 to %d functions, and as many weights. Received: %lld "
                        "and %lld", kName, most, static_cast<long long>(call.num_settings),
                        static_cast<long long>(call.count));
    }
    settings->formula.num_functions = static_cast<int>(call.count);
    for (int64_t i = 0; i < call.num_settings; ++i) {
      const int64_t id = call.settings[i];
      if (id < 0 || id >= kMixtureFunctions) {
        return error->Say("%s: the functions have the numbers 0 to %d. Received: %lld", kName,
                          kMixtureFunctions - 1, static_cast<long long>(id));
      }
      settings->formula.ids[i] = static_cast<uint8_t>(id);
    }
    return true;
  }

  // The layer's default, and any other.
  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    if (s.formula.num_functions == 2 && s.formula.ids[0] == kLinear && s.formula.ids[1] == kRelu) {
      f(MixtureFormula<kLinear, kRelu>{2, {}});
    } else {
      f(s.formula);
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_MIXTURE_H_
