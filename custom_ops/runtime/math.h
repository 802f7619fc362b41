// exp, sin and cos for the number types R of a formula but Wide: Vec<T>, float and double.
//
// None of them branches on its elements, so that Vec<T> takes as many at once as it holds, but for
// phases beyond some thousand (SinCos). nan stays nan.
//
//         range                       error, in units of the last place
//   Exp   everything: infinity above, denormals and 0 below; at most 1.1
//   Sin   everything; at most 1.3, also next to multiples of π
//   Cos   likewise
//
// The polynomials are minimax fits of the relative error of the whole function.

#ifndef KERAS_LEARNACT_RUNTIME_MATH_H_
#define KERAS_LEARNACT_RUNTIME_MATH_H_

#include "runtime/portable.h"

#ifndef __CUDACC__
#include "runtime/simd.h"
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace keras_learnact::KLA_TARGET {

#ifdef __CUDACC__
HOST_DEVICE bool None(bool mask) { return !mask; }
#endif

// Whole numbers of the size of R.
template <typename R>
struct BitsOf {
  using Type = typename R::Mask;
};
template <>
struct BitsOf<float> {
  using Type = int32_t;
};
template <>
struct BitsOf<double> {
  using Type = int64_t;
};

template <typename Bits>
HOST_DEVICE Bits ShiftUp(Bits bits, int by) {
  return bits << by;
}
// A plain shift of a negative number would be undefined.
HOST_DEVICE int32_t ShiftUp(int32_t bits, int by) {
  return static_cast<int32_t>(static_cast<uint32_t>(bits) << by);
}
HOST_DEVICE int64_t ShiftUp(int64_t bits, int by) {
  return static_cast<int64_t>(static_cast<uint64_t>(bits) << by);
}

// c0 + c1 x + c2 x² …
template <typename R>
HOST_DEVICE R Polynomial(R, double c0) {
  return R(c0);
}
template <typename R, typename... Rest>
HOST_DEVICE R Polynomial(R x, double c0, Rest... rest) {
  return R(c0) + x * Polynomial(x, rest...);
}

// What the functions below know of float and of double.
template <typename T>
struct MathNumbers;

template <>
struct MathNumbers<float> {
  // Between this and its double, numbers are whole: adding it rounds, and leaves the whole number
  // in the low bits.
  static constexpr float kRound = 12582912;  // 1.5 · 2^23

  static constexpr float kHighest = 89, kLowest = -104;  // exp is infinite above, 0 below
  // ln 2 in two parts: the product of the first with a whole number of 10 bits is exact.
  static constexpr float kLn2 = 0x1.62ep-1f, kLn2Rest = 0x1.0bfbe8p-15f;
  // exp r = 1 + r + r² q(r) for |r| <= ln(2) / 2.
  template <typename R>
  static HOST_DEVICE R Exp(R r) {
    return Polynomial(r, 0.49999993054, 0.16666514783, 0.041668456071, 0.0083694195668,
                      0.0013813179486);
  }

  // π/2 in four parts of 14, 14, 14 and 24 bits: products with 10 bits are exact, and next to a
  // multiple of π/2 the remainder has all its digits.
  static constexpr float kHalfPi0 = 0x1.9218p+0f, kHalfPi1 = 0x1.ed5p-14f,
                         kHalfPi2 = 0x1.10bp-30f, kHalfPi3 = 0x1.184698p-44f;
  static constexpr float kFarthest = 1600;  // 10 bits times π/2, about
  // sin r = r + r³ s(r²), cos r = 1 - r²/2 + r⁴ c(r²) for |r| <= π/4.
  template <typename R>
  static HOST_DEVICE R Sin(R z) {
    return Polynomial(z, -0.16666654226, 0.0083321315191, -0.00019510841324);
  }
  template <typename R>
  static HOST_DEVICE R Cos(R z) {
    return Polynomial(z, 0.041666645653, -0.0013887306035, 2.4431204136e-05);
  }
};

template <>
struct MathNumbers<double> {
  static constexpr double kRound = 6755399441055744;  // 1.5 · 2^52
  static constexpr double kHighest = 710, kLowest = -746;
  static constexpr double kLn2 = 0x1.62e42fefa2p-1, kLn2Rest = 0x1.9ef35793c7673p-41;
  template <typename R>
  static HOST_DEVICE R Exp(R r) {
    return Polynomial(r, 0.50000000000000117009, 0.16666666666666386343, 0.041666666666519154791,
                      0.0083333333335076352491, 0.0013888888946919651137,
                      0.00019841269486213061747, 2.4801489352469471082e-05,
                      2.7557597145323872822e-06, 2.7631687313401328937e-07,
                      2.4999004333198922181e-08);
  }
  // 33, 33, 33 and 53 bits, for products with 20 bits.
  static constexpr double kHalfPi0 = 0x1.921fb544p+0, kHalfPi1 = 0x1.0b4611a6p-34,
                          kHalfPi2 = 0x1.3198a2ep-69, kHalfPi3 = 0x1.b839a252049c1p-104;
  static constexpr double kFarthest = 1600000;
  template <typename R>
  static HOST_DEVICE R Sin(R z) {
    return Polynomial(z, -0.16666666666666627669, 0.0083333333333212821227,
                      -0.0001984126982886806965, 2.7557313355428835747e-06,
                      -2.5050703961415938199e-08, 1.5893579943286779496e-10);
  }
  template <typename R>
  static HOST_DEVICE R Cos(R z) {
    return Polynomial(z, 0.041666666666666591064, -0.0013888888888872599347,
                      2.4801587288492503616e-05, -2.7557314056709490738e-07,
                      2.0875681898795256245e-09, -1.1357449690595311793e-11);
  }
};

// y 2^n, rounded once, for 1/2 <= y <= 2 and a whole n: infinity above, denormals and 0 below.
template <typename R>
HOST_DEVICE R TimesPowerOfTwo(R y, R n) {
#ifdef __AVX512F__
  if constexpr (sizeof(R) == sizeof(__m512)) {
    if constexpr (sizeof(typename Float<R>::Scalar) == 4) {
      return BitCast<R>(_mm512_maskz_scalef_ps(0xffff, BitCast<__m512>(y), BitCast<__m512>(n)));
    } else {
      return BitCast<R>(_mm512_maskz_scalef_pd(0xff, BitCast<__m512d>(y), BitCast<__m512d>(n)));
    }
  }
#endif
  using Bits = typename BitsOf<R>::Type;
  using M = MathNumbers<typename Float<R>::Scalar>;
  const Bits k = BitCast<Bits>(n + R(M::kRound)) - BitCast<Bits>(R(M::kRound));
  // In two steps: 2^n alone may be beyond the normal numbers.
  const Bits half = k >> 1, bias = BitCast<Bits>(R(1.0)) >> Float<R>::kMantissa;
  const R first = BitCast<R>(ShiftUp(half + bias, Float<R>::kMantissa));
  const R second = BitCast<R>(ShiftUp(k - half + bias, Float<R>::kMantissa));
  return y * first * second;
}

template <typename R>
HOST_DEVICE R ExpOf(R x) {
  using M = MathNumbers<typename Float<R>::Scalar>;
  x = Max(Min(x, R(M::kHighest)), R(M::kLowest));
  const R n = (x * R(1.4426950408889634074) + R(M::kRound)) - R(M::kRound);
  const R r = (x - n * R(M::kLn2)) - n * R(M::kLn2Rest);
  return TimesPowerOfTwo(R(1.0) + (r + r * r * M::Exp(r)), n);
}

// One lane after the other, of phases so large that few have them.
template <typename R>
NOINLINE_HOST_DEVICE void SinCosFar(R x, R* sine, R* cosine) {
  for (int i = 0; i < R::kLanes; ++i) {
    sine->v[i] = static_cast<typename R::Scalar>(sin(static_cast<double>(x.v[i])));
    cosine->v[i] = static_cast<typename R::Scalar>(cos(static_cast<double>(x.v[i])));
  }
}
HOST_DEVICE void SinCosFar(double x, double* sine, double* cosine) {
  *sine = sin(x);
  *cosine = cos(x);
}
HOST_DEVICE void SinCosFar(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(sin(static_cast<double>(x)));
  *cosine = static_cast<float>(cos(static_cast<double>(x)));
}

template <typename R>
HOST_DEVICE void SinCosOf(R x, R* sine, R* cosine) {
  using Bits = typename BitsOf<R>::Type;
  using M = MathNumbers<typename Float<R>::Scalar>;
  const R size = Abs(x);
  if (__builtin_expect(!None(size > R(M::kFarthest)), false)) return SinCosFar(x, sine, cosine);
  // The quadrant, n, is in the low bits of `rounded`.
  const R rounded = size * R(0.63661977236758134308) + R(M::kRound);
  const R n = rounded - R(M::kRound);
  // The remainder is r + tail: the first difference is exact, the tail has what the others lose.
  const R first = size - n * R(M::kHalfPi0);
  const R second = n * R(M::kHalfPi1), third = n * R(M::kHalfPi2);
  const R high = first - second, r = high - third;
  const R tail = ((first - high) - second) + ((high - r) - third) - n * R(M::kHalfPi3);
  const R z = r * r;
  const R s = r + (tail + r * (z * M::Sin(z)));
  const R c = R(1.0) + (z * z * M::Cos(z) - (z * R(0.5) + r * tail));
  const Bits quadrant = BitCast<Bits>(rounded), one = quadrant - quadrant + 1;
  const int top = 8 * sizeof(typename Float<R>::Scalar) - 1;  // the sign's bit
  const Bits sign = ShiftUp(one, top);
  const auto odd = (quadrant & one) != 0;
  const Bits negative = ShiftUp(quadrant, top - 1) & sign;
  const Bits odd_bits = ShiftUp(quadrant, top);
  *sine = BitCast<R>(BitCast<Bits>(Select(odd, c, s)) ^ negative ^ (BitCast<Bits>(x) & sign));
  *cosine = BitCast<R>(BitCast<Bits>(Select(odd, s, c)) ^ negative ^ odd_bits);
}

template <typename R>
HOST_DEVICE R Exp(R x) {
  return ExpOf(x);
}
template <typename R>
HOST_DEVICE void SinCos(R x, R* sine, R* cosine) {
  SinCosOf(x, sine, cosine);
}

// CUDA has its own.
HOST_DEVICE float Exp(float x) {
#ifdef __CUDA_ARCH__
  return expf(x);
#else
  return ExpOf(x);
#endif
}
HOST_DEVICE double Exp(double x) {
#ifdef __CUDA_ARCH__
  return exp(x);
#else
  return ExpOf(x);
#endif
}
HOST_DEVICE void SinCos(float x, float* sine, float* cosine) {
#ifdef __CUDA_ARCH__
  sincosf(x, sine, cosine);
#else
  SinCosOf(x, sine, cosine);
#endif
}
HOST_DEVICE void SinCos(double x, double* sine, double* cosine) {
#ifdef __CUDA_ARCH__
  sincos(x, sine, cosine);
#else
  SinCosOf(x, sine, cosine);
#endif
}

template <typename R>
HOST_DEVICE R Sin(R x) {
  R sine, cosine;
  SinCos(x, &sine, &cosine);
  return sine;
}
template <typename R>
HOST_DEVICE R Cos(R x) {
  R sine, cosine;
  SinCos(x, &sine, &cosine);
  return cosine;
}

// Functions of activations. Vec<float> has fits of its own, at most 2 units of the last place off;
// for Vec<double> the C library is asked lane by lane.

// exp(x) − 1 for x <= 0.
HOST_DEVICE float Expm1(float x) { return expm1f(x); }
HOST_DEVICE double Expm1(double x) { return expm1(x); }

// log(1 + x) for 0 <= x <= 1.
HOST_DEVICE float Log1p(float x) { return log1pf(x); }
HOST_DEVICE double Log1p(double x) { return log1p(x); }

// The normal distribution's probability of more than x >= 0, from exp(-x²/2).
HOST_DEVICE float NormalTail(float x, float) { return 0.5f * erfcf(x * 0.70710678118654752440f); }
HOST_DEVICE double NormalTail(double x, double) { return 0.5 * erfc(x * 0.70710678118654752440); }

#ifndef __CUDACC__
HOST_DEVICE Vec<float> Expm1(Vec<float> x) {
  using R = Vec<float>;
  using M = MathNumbers<float>;
  x = Max(x, R(-30.0));  // there it is -1
  const R n = (x * R(1.4426950408889634074) + R(M::kRound)) - R(M::kRound);
  const R r = (x - n * R(M::kLn2)) - n * R(M::kLn2Rest);
  const R power = TimesPowerOfTwo(R(1.0), n);
  return power * (r + r * r * M::Exp(r)) + (power - R(1.0));
}

HOST_DEVICE Vec<float> Log1p(Vec<float> x) {
  return x * Polynomial(x, 0.99999999529, -0.49999902427, 0.3332996248, -0.24954134074,
                        0.196759407, -0.15305595351, 0.10603657845, -0.056959549718,
                        0.019851464455, -0.0032440244612);
}

HOST_DEVICE Vec<float> NormalTail(Vec<float> x, Vec<float> density) {
  const Vec<float> one(1.0), t = one / (one + x * Vec<float>(0.3));
  return density * t *
         Polynomial(t, 0.11968668906, 0.11957182995, 0.11023527906, 0.078390389571, 0.096154507607,
                    -0.079418796762, 0.19177843074, -0.22820866149, 0.11243335274,
                    -0.02062302219);
}

template <typename F>
__attribute__((noinline)) void ForLanes(double* lanes, const F& f) {
  for (int l = 0; l < Vec<double>::kLanes; ++l) lanes[l] = f(lanes[l]);
}
template <typename F>
HOST_DEVICE Vec<double> OfLanes(Vec<double> x, const F& f) {
  double lanes[Vec<double>::kLanes];
  x.Store(lanes);
  ForLanes(lanes, f);
  return Vec<double>::Load(lanes);
}
HOST_DEVICE Vec<double> Expm1(Vec<double> x) {
  return OfLanes(x, [](double lane) { return expm1(lane); });
}
HOST_DEVICE Vec<double> Log1p(Vec<double> x) {
  return OfLanes(x, [](double lane) { return log1p(lane); });
}
HOST_DEVICE Vec<double> NormalTail(Vec<double> x, Vec<double>) {
  return OfLanes(x, [](double lane) { return NormalTail(lane, 0.0); });
}
#endif

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_MATH_H_
