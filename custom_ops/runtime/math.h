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

// What the functions below know of float and of double.
template <typename T>
struct MathNumbers;

template <>
struct MathNumbers<float> {
  // Between this and its double, numbers are whole: adding it rounds, and leaves the whole number
  // in the low bits.
  static constexpr float kRound = 12582912;  // 1.5 · 2^23

  // exp r = 1 + r + r² q(r) for |r| <= ln(2) / 2.
  static constexpr float kHighest = 89, kLowest = -104;  // exp is infinite above, 0 below
  // ln 2 in two parts: the product of the first with a whole number of 10 bits is exact.
  static constexpr float kLn2[] = {0x1.62ep-1f, 0x1.0bfbe8p-15f};
  static constexpr float kExp[] = {0.49999993054f, 0.16666514783f, 0.041668456071f,
                                   0.0083694195668f, 0.0013813179486f};

  // sin r = r + r³ s(r²), cos r = 1 - r²/2 + r⁴ c(r²) for |r| <= π/4.
  static constexpr float kSin[] = {-0.16666654226f, 0.0083321315191f, -0.00019510841324f};
  static constexpr float kCos[] = {0.041666645653f, -0.0013887306035f, 2.4431204136e-05f};
  // π/2 in four parts of 14, 14, 14 and 24 bits: products with 10 bits are exact, and next to a
  // multiple of π/2 the remainder has all its digits.
  static constexpr float kHalfPi[] = {0x1.9218p+0f, 0x1.ed5p-14f, 0x1.10bp-30f, 0x1.184698p-44f};
  static constexpr float kFarthest = 1600;  // 10 bits times π/2, about
};

template <>
struct MathNumbers<double> {
  static constexpr double kRound = 6755399441055744;  // 1.5 · 2^52
  static constexpr double kHighest = 710, kLowest = -746;
  static constexpr double kLn2[] = {0x1.62e42fefa2p-1, 0x1.9ef35793c7673p-41};
  static constexpr double kExp[] = {
      0.50000000000000117009,    0.16666666666666386343,    0.041666666666519154791,
      0.0083333333335076352491,  0.0013888888946919651137,  0.00019841269486213061747,
      2.4801489352469471082e-05, 2.7557597145323872822e-06, 2.7631687313401328937e-07,
      2.4999004333198922181e-08};
  static constexpr double kSin[] = {-0.16666666666666627669,    0.0083333333333212821227,
                                    -0.0001984126982886806965,  2.7557313355428835747e-06,
                                    -2.5050703961415938199e-08, 1.5893579943286779496e-10};
  static constexpr double kCos[] = {0.041666666666666591064,   -0.0013888888888872599347,
                                    2.4801587288492503616e-05, -2.7557314056709490738e-07,
                                    2.0875681898795256245e-09, -1.1357449690595311793e-11};
  // 33, 33, 33 and 53 bits, for products with 20 bits.
  static constexpr double kHalfPi[] = {0x1.921fb544p+0, 0x1.0b4611a6p-34, 0x1.3198a2ep-69,
                                       0x1.b839a252049c1p-104};
  static constexpr double kFarthest = 1600000;
};

// Σ c[k] x^k.
template <typename R, typename T, int kCount>
HOST_DEVICE R Polynomial(const T (&c)[kCount], R x) {
  R sum = R(c[kCount - 1]);
  for (int k = kCount - 2; k >= 0; --k) sum = sum * x + R(c[k]);
  return sum;
}

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
  const Bits half = k >> 1, one = BitCast<Bits>(R(1.0));
  const R first = BitCast<R>(ShiftUp(half, Float<R>::kMantissa) + one);
  const R second = BitCast<R>(ShiftUp(k - half, Float<R>::kMantissa) + one);
  return y * first * second;
}

template <typename R>
HOST_DEVICE R ExpOf(R x) {
  using M = MathNumbers<typename Float<R>::Scalar>;
  x = Max(Min(x, R(M::kHighest)), R(M::kLowest));
  const R n = (x * R(1.4426950408889634074) + R(M::kRound)) - R(M::kRound);
  const R r = (x - n * R(M::kLn2[0])) - n * R(M::kLn2[1]);
  return TimesPowerOfTwo(R(1.0) + (r + r * r * Polynomial(M::kExp, r)), n);
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
  const R first = size - n * R(M::kHalfPi[0]);
  const R second = n * R(M::kHalfPi[1]), third = n * R(M::kHalfPi[2]);
  const R high = first - second, r = high - third;
  const R tail =
      ((first - high) - second) + ((high - r) - third) - n * R(M::kHalfPi[3]);
  const R z = r * r;
  const R s = r + (tail + r * (z * Polynomial(M::kSin, z)));
  const R c = R(1.0) + (z * z * Polynomial(M::kCos, z) - (z * R(0.5) + r * tail));
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

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_MATH_H_
