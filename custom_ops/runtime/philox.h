// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): the same draws as keras_learnact/philox.py,
// for the number types R of a formula but Wide.
//
// A block of four words has the counter (i, b): the low and the high word of the element's index,
// the number of the block, 0.

#ifndef KERAS_LEARNACT_RUNTIME_PHILOX_H_
#define KERAS_LEARNACT_RUNTIME_PHILOX_H_

#include "runtime/math.h"
#include "runtime/portable.h"

#if defined(__SSE2__) && !defined(__CUDACC__)
#include <emmintrin.h>
#endif

namespace keras_learnact::KLA_TARGET {

constexpr int kDrawBits = 12;
constexpr int kDrawsPerBlock = 10;

// The product of a 32-bit word, the low half of x, and one more.
HOST_DEVICE uint64_t MultiplyWords(uint64_t x, uint32_t word) {
  return static_cast<uint64_t>(static_cast<uint32_t>(x)) * word;
}

#ifndef __CUDACC__
typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));

HOST_DEVICE Words MultiplyWords(Words x, uint32_t word) {
  const Words words = Words{} + word;
#if defined(__AVX512F__)
  return BitCast<Words>(_mm512_maskz_mul_epu32(0xff, BitCast<__m512i>(x), BitCast<__m512i>(words)));
#elif defined(__AVX2__)
  return BitCast<Words>(_mm256_mul_epu32(BitCast<__m256i>(x), BitCast<__m256i>(words)));
#elif defined(__SSE2__)
  return BitCast<Words>(_mm_mul_epu32(BitCast<__m128i>(x), BitCast<__m128i>(words)));
#else
  return (x & 0xffffffff) * words;
#endif
}
#endif

// The words are the low halves of c. Elements are those of kSets vectors W, or W is uint64_t; the
// high halves of all W are rubbish, which none of these operations brings down. The high words of
// the indices are the same for all.
template <typename W, int kSets>
HOST_DEVICE void Philox(const W (&low)[kSets], uint32_t high, uint32_t block, const uint32_t* key,
                        W (&c)[kSets][4]) {
  constexpr uint32_t kBy0 = 0xD2511F53, kBy1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  constexpr int kRounds = 10;
  const uint32_t k0 = key[0], k1 = key[1];
  // Half of the first two rounds does not depend on the low word: it is the same for all.
  const uint64_t of_block = MultiplyWords(block, kBy1);
  const uint64_t second =
      MultiplyWords(static_cast<uint32_t>(of_block >> 32) ^ high ^ k0, kBy0);
  const uint32_t to0 = static_cast<uint32_t>(of_block) ^ (k0 + kWeyl0);
  const uint32_t to2 = static_cast<uint32_t>(second >> 32) ^ (k1 + kWeyl1);
  for (int i = 0; i < kSets; ++i) {
    const W first0 = MultiplyWords(low[i], kBy0);
    const W second1 = MultiplyWords((first0 >> 32) ^ (W{} + k1), kBy1);
    c[i][0] = (second1 >> 32) ^ (W{} + to0);
    c[i][1] = second1;
    c[i][2] = first0 ^ (W{} + to2);
    c[i][3] = W{} + static_cast<uint32_t>(second);
  }
  for (uint32_t round = 2; round < kRounds; ++round) {
    const W now0 = W{} + (k0 + round * kWeyl0), now1 = W{} + (k1 + round * kWeyl1);
    for (int i = 0; i < kSets; ++i) {
      const W product0 = MultiplyWords(c[i][0], kBy0), product1 = MultiplyWords(c[i][2], kBy1);
      c[i][0] = (product1 >> 32) ^ c[i][1] ^ now0;
      c[i][1] = product1;
      c[i][2] = (product0 >> 32) ^ c[i][3] ^ now1;
      c[i][3] = product0;
    }
  }
}

// The four words of each element, of the size of R.
template <typename T>
HOST_DEVICE void PhiloxWords(Place place, uint32_t block, T, typename BitsOf<T>::Type* words) {
  const uint64_t low[1] = {place.index};
  uint64_t c[1][4];
  Philox(low, static_cast<uint32_t>(place.index >> 32), block, place.key, c);
  for (int i = 0; i < 4; ++i) {
    words[i] = static_cast<typename BitsOf<T>::Type>(static_cast<uint32_t>(c[0][i]));
  }
}

#ifndef __CUDACC__
// first, first + step, …
HOST_DEVICE Words Sequence(uint64_t first, uint64_t step) {
  Words sequence;
  for (uint64_t l = 0; l < kVectorBytes / 8; ++l) sequence[l] = l * step;
  return sequence + first;
}

template <typename T>
HOST_DEVICE void PhiloxWords(Place place, uint32_t block, Vec<T>, typename Vec<T>::Mask* words) {
  using Bits = typename Vec<T>::Mask;
  const auto high = static_cast<uint32_t>(place.index >> 32);
  if (__builtin_expect(static_cast<uint32_t>(place.index) > UINT32_MAX - Vec<T>::kLanes, false)) {
    // The high word changes on the way, once in 2^32 elements.
    for (int l = 0; l < Vec<T>::kLanes; ++l) {
      typename Float<T>::Int of_one[4];
      PhiloxWords(Place{place.index + l, place.key}, block, T(), of_one);
      for (int i = 0; i < 4; ++i) words[i][l] = of_one[i];
    }
  } else if constexpr (sizeof(T) == sizeof(uint64_t)) {
    const Words low[1] = {Sequence(place.index, 1)};
    Words c[1][4];
    Philox(low, high, block, place.key, c);
    for (int i = 0; i < 4; ++i) words[i] = BitCast<Bits>(c[0][i]);
  } else {
    const Words low[2] = {Sequence(place.index, 2), Sequence(place.index + 1, 2)};
    Words c[2][4];
    Philox(low, high, block, place.key, c);
    for (int i = 0; i < 4; ++i) {
      words[i] = BitCast<Bits>((c[0][i] & 0xffffffff) | c[1][i] << 32);
    }
  }
}
#endif

// From bit kFrom to bit kTo.
template <int kFrom, int kTo, typename Bits>
HOST_DEVICE Bits MoveBits(Bits bits) {
  if constexpr (kFrom < kTo) {
    return ShiftUp(bits, kTo - kFrom);
  } else {
    return bits >> (kFrom - kTo);
  }
}

// Draws 10 b, 10 b + 1, … of block b, each as 1 + n / 4096 with a whole n from 0 to 4095: 12 bits
// of a word are the highest of the mantissa. Two draws are the low 24 bits of each word, two the
// words' high bytes.
template <typename R>
HOST_DEVICE void Draw(Place place, uint32_t block, R* draws) {
  using Bits = typename BitsOf<R>::Type;
  using Int = typename Float<R>::Int;
  constexpr int kAt = Float<R>::kMantissa - kDrawBits;
  const Bits one = BitCast<Bits>(R(1.0)), zero = one ^ one;
  const Bits all = zero + (Int{0xfff} << kAt);
  const Bits low = zero + (Int{0xff} << kAt), high = zero + (Int{0xf} << (kAt + 8));
  Bits w[4];
  PhiloxWords(place, block, R(), w);
  for (int i = 0; i < 4; ++i) {
    draws[2 * i] = BitCast<R>((MoveBits<0, kAt>(w[i]) & all) | one);
    draws[2 * i + 1] = BitCast<R>((MoveBits<12, kAt>(w[i]) & all) | one);
  }
  for (int i = 0; i < 2; ++i) {
    const Bits of_two = (MoveBits<24, kAt>(w[2 * i]) & low) |
                        (MoveBits<24, kAt + 8>(w[2 * i + 1]) & high);
    draws[8 + i] = BitCast<R>(of_two | one);
  }
}

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_PHILOX_H_
