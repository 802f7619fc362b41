// What a kernel's formula may use, on the CPU and in CUDA.
//
// A formula is a template over its number type R, which is one of
//   float, double   in CUDA, and once for each group of parameters everywhere
//   Vec<T>          several elements at once, on the CPU (simd.h)
//   Wide            one element whose plain arithmetic might overflow
// and it is written with + - * /, comparisons, and the functions below.

#ifndef KERAS_LEARNACT_RUNTIME_PORTABLE_H_
#define KERAS_LEARNACT_RUNTIME_PORTABLE_H_

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__ __forceinline__
#define NOINLINE_HOST_DEVICE __host__ __device__ __noinline__
// Of an operator that is used rarely, and then often: every GPU kernel compiles its own copies.
#define RARE_HOST_DEVICE inline NOINLINE_HOST_DEVICE
#else
#define HOST_DEVICE inline __attribute__((always_inline))
#define NOINLINE_HOST_DEVICE __attribute__((noinline))
#define RARE_HOST_DEVICE HOST_DEVICE
#endif

// The instruction set that this file is compiled for. What depends on it is in a namespace of that
// name, so that the linker never takes one's code for the other's. Of the few functions outside, in
// call.h, the linker takes the first: an object for every processor comes first in its command.
#ifndef KLA_TARGET
#define KLA_TARGET baseline
#endif

namespace keras_learnact::KLA_TARGET {

// Bits of numbers. kTop is the exponent of the largest power of two, kMin that of the smallest
// normal number.
template <typename R>
struct Float;

template <>
struct Float<float> {
  using Scalar = float;
  using Int = int32_t;
  static constexpr int32_t kMagnitude = 0x7fffffff;  // all bits but the sign
  static constexpr int kMantissa = 23, kTop = 127, kMin = -126;
  static constexpr float kMax = 3.40282346638528859812e+38f, kTiny = 1.17549435082228750797e-38f;
};

template <>
struct Float<double> {
  using Scalar = double;
  using Int = int64_t;
  static constexpr int64_t kMagnitude = 0x7fffffffffffffff;
  static constexpr int kMantissa = 52, kTop = 1023, kMin = -1022;
  static constexpr double kMax = 1.79769313486231570815e+308,
                          kTiny = 2.22507385850720138309e-308;
};

template <typename To, typename From>
HOST_DEVICE To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

HOST_DEVICE float Select(bool condition, float yes, float no) { return condition ? yes : no; }
HOST_DEVICE double Select(bool condition, double yes, double no) { return condition ? yes : no; }
HOST_DEVICE float Abs(float x) { return fabsf(x); }
HOST_DEVICE double Abs(double x) { return fabs(x); }
HOST_DEVICE float Sqrt(float x) { return sqrtf(x); }
HOST_DEVICE double Sqrt(double x) { return sqrt(x); }
HOST_DEVICE bool IsNan(float x) { return x != x; }
HOST_DEVICE bool IsNan(double x) { return x != x; }

// The larger and the smaller; nan if x is nan.
template <typename R>
HOST_DEVICE R Max(R x, R bound) {
  return Select(x < bound, bound, x);
}
template <typename R>
HOST_DEVICE R Min(R x, R bound) {
  return Select(x > bound, bound, x);
}

HOST_DEVICE double Infinity() { return BitCast<double>(int64_t{0x7ff} << 52); }
HOST_DEVICE double NotANumber() { return BitCast<double>(int64_t{0x7ff8} << 48); }

// 2^k; 0 below the normal numbers and infinity above the largest.
HOST_DEVICE double PowerOfTwo(int64_t k) {
  k += 1023;
  k = k < 0 ? 0 : k > 2047 ? 2047 : k;
  return BitCast<double>(k << 52);
}

// mantissa · 2^exponent with 1 <= |mantissa| < 2, or mantissa 0, infinite or nan and exponent 0.
// Products, quotients and sums of any floats neither overflow nor underflow.
struct Wide {
  double mantissa;
  int64_t exponent;

  Wide() = default;
  HOST_DEVICE explicit Wide(double x) : Wide(x, 0) {}
  HOST_DEVICE Wide(double x, int64_t k) : mantissa(x), exponent(k) { Normalize(); }

  // The nearest double, or infinity.
  HOST_DEVICE explicit operator double() const {
    if (exponent > 1023) return mantissa * Infinity();
    if (exponent < -1100) return mantissa * 0.0;
    return mantissa * PowerOfTwo(exponent / 2) * PowerOfTwo(exponent - exponent / 2);
  }
  HOST_DEVICE explicit operator float() const { return static_cast<float>(double{*this}); }

  HOST_DEVICE void Normalize() {
    if (mantissa == 0 || !(fabs(mantissa) < Infinity())) {
      exponent = 0;
      return;
    }
    if (fabs(mantissa) < Float<double>::kTiny) {
      mantissa *= 18014398509481984.0;  // 2^54
      exponent -= 54;
    }
    const int64_t bits = BitCast<int64_t>(mantissa);
    const int64_t k = ((bits >> 52) & 0x7ff) - 1023;
    exponent += k;
    mantissa = BitCast<double>(bits - k * (int64_t{1} << 52));
  }
};

HOST_DEVICE Wide operator-(Wide x) {
  x.mantissa = -x.mantissa;
  return x;
}
RARE_HOST_DEVICE Wide operator*(Wide x, Wide y) {
  return Wide(x.mantissa * y.mantissa, x.exponent + y.exponent);
}
RARE_HOST_DEVICE Wide operator/(Wide x, Wide y) {
  return Wide(x.mantissa / y.mantissa, x.exponent - y.exponent);
}
RARE_HOST_DEVICE Wide operator+(Wide x, Wide y) {
  if (x.mantissa == 0) return y;
  if (y.mantissa == 0) return x;
  if (!(fabs(x.mantissa) < 2) || !(fabs(y.mantissa) < 2)) return Wide(x.mantissa + y.mantissa);
  const Wide& large = x.exponent >= y.exponent ? x : y;
  const Wide& small = x.exponent >= y.exponent ? y : x;
  const int64_t distance = large.exponent - small.exponent;
  if (distance > 1000) return large;
  return Wide(large.mantissa + small.mantissa * PowerOfTwo(-distance), large.exponent);
}
HOST_DEVICE Wide operator-(Wide x, Wide y) { return x + -y; }
HOST_DEVICE Wide& operator+=(Wide& x, Wide y) { return x = x + y; }
HOST_DEVICE bool operator<(Wide x, Wide y) { return (x - y).mantissa < 0; }
HOST_DEVICE bool operator>(Wide x, Wide y) { return (x - y).mantissa > 0; }
HOST_DEVICE bool operator<=(Wide x, Wide y) { return (x - y).mantissa <= 0; }
HOST_DEVICE bool operator>=(Wide x, Wide y) { return (x - y).mantissa >= 0; }
HOST_DEVICE bool operator==(Wide x, Wide y) { return (x - y).mantissa == 0; }
HOST_DEVICE Wide Select(bool condition, Wide yes, Wide no) { return condition ? yes : no; }
HOST_DEVICE Wide Abs(Wide x) { return x.mantissa < 0 ? -x : x; }
HOST_DEVICE bool IsNan(Wide x) { return x.mantissa != x.mantissa; }

// ±∞ becomes the largest finite number.
template <typename T>
HOST_DEVICE T Finite(T x) {
  return Abs(x) > Float<T>::kMax ? (x > 0 ? Float<T>::kMax : -Float<T>::kMax) : x;
}

// The bound of |x| for a formula whose plain arithmetic is safe where no number exceeds `most`:
// less than any |x| if a parameter exceeds it.
template <typename T>
HOST_DEVICE T BoundFor(const T* params, int count, double most) {
  T bound = static_cast<T>(most);
  for (int k = 0; k < count; ++k) {
    if (Abs(params[k]) > static_cast<T>(most)) bound = -1;
  }
  return bound;
}

// A share of a sum such that no sum of these overflows to infinity - infinity. Where `of` is not
// finite the share is not either, or the overflow of a float16 gradient would not be seen.
template <typename T>
HOST_DEVICE double Bounded(double share, double of) {
  constexpr double most = Float<T>::kMax;
  if (of - of != 0) return share;
  return share > most ? most : share < -most ? -most : share;
}

// Pools<Kernel>(0): whether it is a pooling kernel.
template <typename Kernel>
constexpr auto Pools(int) -> decltype(Kernel::kPools) {
  return Kernel::kPools;
}
template <typename Kernel>
constexpr bool Pools(...) {
  return false;
}

// What a kernel that draws random numbers needs to know of an element.
struct Place {
  uint64_t index;       // of the element, in row-major order; of the first one of a Vec
  const uint32_t* key;  // two words
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_PORTABLE_H_
