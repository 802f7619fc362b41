// The two 16-bit dtypes as arrays on the CPU, to and from float, rounded to nearest even.

#ifndef KERAS_LEARNACT_RUNTIME_HALF_H_
#define KERAS_LEARNACT_RUNTIME_HALF_H_

#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

HOST_DEVICE float ToFloat(Half x) {
  const uint32_t magnitude = x.bits & 0x7fffu;
  // The exponent moves by a multiplication, which is right for denormal numbers too.
  const uint32_t finite = BitCast<uint32_t>(BitCast<float>(magnitude << 13) * 0x1p112f);
  const uint32_t bits = magnitude >= 0x7c00u ? 0x7f800000u | (magnitude << 13) : finite;
  return BitCast<float>(bits | (x.bits & 0x8000u) << 16);
}

HOST_DEVICE Half ToHalf(float x) {
  const uint32_t bits = BitCast<uint32_t>(x), twice = bits << 1;
  // Adding 2^(exponent + 13) makes the hardware round off the bits that a half has no room for.
  // What is too large becomes infinite on the way.
  const float scaled = (fabsf(x) * 0x1p112f) * 0x1p-110f;
  uint32_t bias = twice & 0xff000000u;
  bias = bias < 0x71000000u ? 0x71000000u : bias;
  const uint32_t sum = BitCast<uint32_t>(BitCast<float>((bias >> 1) + 0x07800000u) + scaled);
  const uint32_t magnitude = ((sum >> 13) & 0x7c00u) + (sum & 0x0fffu);
  return {static_cast<uint16_t>((bits >> 16 & 0x8000u) | (twice > 0xff000000u ? 0x7e00u : magnitude))};
}

HOST_DEVICE float ToFloat(BFloat16 x) { return BitCast<float>(uint32_t{x.bits} << 16); }

HOST_DEVICE BFloat16 ToBFloat16(float x) {
  const uint32_t bits = BitCast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return {static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded)};
}

template <typename S>
void ToFloat(const S* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
}
inline void FromFloat(const float* from, Half* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = ToHalf(from[i]);
}
inline void FromFloat(const float* from, BFloat16* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = ToBFloat16(from[i]);
}

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_HALF_H_
