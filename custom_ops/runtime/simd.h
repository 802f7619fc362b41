// Vec<T>: as many elements as a register of this file's instruction set holds.

#ifndef KERAS_LEARNACT_RUNTIME_SIMD_H_
#define KERAS_LEARNACT_RUNTIME_SIMD_H_

#include "runtime/portable.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace keras_learnact::KLA_TARGET {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename T>
struct Vec {
  using Scalar = T;
  using Int = typename Float<T>::Int;
  static constexpr int kLanes = kVectorBytes / sizeof(T);
  typedef T Native __attribute__((vector_size(kVectorBytes)));
  // A mask: all bits of a lane are set, or none.
  typedef Int Mask __attribute__((vector_size(kVectorBytes)));

  Native v;

  Vec() = default;
  HOST_DEVICE Vec(Native native) : v(native) {}
  HOST_DEVICE explicit Vec(double x) : v(Native{} + static_cast<T>(x)) {}

  static HOST_DEVICE Vec Load(const T* from) {
    Vec x;
    memcpy(&x.v, from, sizeof(x.v));
    return x;
  }
  HOST_DEVICE void Store(T* to) const { memcpy(to, &v, sizeof(v)); }
};

#define KLA_OPERATOR(op)                                                                  \
  template <typename T>                                                                   \
  HOST_DEVICE Vec<T> operator op(Vec<T> x, Vec<T> y) {                                    \
    return Vec<T>(x.v op y.v);                                                            \
  }
KLA_OPERATOR(+)
KLA_OPERATOR(-)
KLA_OPERATOR(*)
KLA_OPERATOR(/)
#undef KLA_OPERATOR

#define KLA_COMPARISON(op)                                                                \
  template <typename T>                                                                   \
  HOST_DEVICE typename Vec<T>::Mask operator op(Vec<T> x, Vec<T> y) {                     \
    return x.v op y.v;                                                                    \
  }
KLA_COMPARISON(<)
KLA_COMPARISON(>)
KLA_COMPARISON(<=)
KLA_COMPARISON(>=)
KLA_COMPARISON(==)
KLA_COMPARISON(!=)
#undef KLA_COMPARISON

template <typename T>
HOST_DEVICE Vec<T> operator-(Vec<T> x) {
  return Vec<T>(-x.v);
}
template <typename T>
HOST_DEVICE Vec<T>& operator+=(Vec<T>& x, Vec<T> y) {
  x.v += y.v;
  return x;
}
template <typename T>
HOST_DEVICE Vec<T> Select(typename Vec<T>::Mask mask, Vec<T> yes, Vec<T> no) {
  return Vec<T>(mask ? yes.v : no.v);
}
template <typename T>
HOST_DEVICE Vec<T> Abs(Vec<T> x) {
  typedef typename Vec<T>::Mask Bits;
  const Bits magnitude = Bits{} + Float<T>::kMagnitude;
  return Vec<T>((typename Vec<T>::Native)((Bits)x.v & magnitude));
}
template <typename T>
HOST_DEVICE typename Vec<T>::Mask IsNan(Vec<T> x) {
  return x.v != x.v;
}
template <typename T>
HOST_DEVICE Vec<T> Sqrt(Vec<T> x) {
  for (int i = 0; i < Vec<T>::kLanes; ++i) x.v[i] = Sqrt(x.v[i]);
  return x;
}

template <typename T>
struct Float<Vec<T>> : Float<T> {};

// Whether no lane is set.
template <typename Mask>
HOST_DEVICE bool None(Mask mask) {
#if defined(__AVX512F__)
  const __m512i bits = BitCast<__m512i>(mask);
  return _mm512_test_epi32_mask(bits, bits) == 0;
#elif defined(__AVX2__)
  const __m256i bits = BitCast<__m256i>(mask);
  return _mm256_testz_si256(bits, bits) != 0;
#else
  typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));
  const Words words = BitCast<Words>(mask);
  return (words[0] | words[1]) == 0;
#endif
}
HOST_DEVICE bool None(bool mask) { return !mask; }
HOST_DEVICE bool None(int mask) { return !mask; }  // what & makes of two bools

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_SIMD_H_
