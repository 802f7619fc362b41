// Calls of kernels at random: usual ones, and such as only a damaged or hostile file has.

#ifndef KERAS_LEARNACT_TESTS_NATIVE_CALLS_H_
#define KERAS_LEARNACT_TESTS_NATIVE_CALLS_H_

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "runtime/call.h"

namespace keras_learnact {

// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  int64_t Below(int64_t n) { return static_cast<int64_t>(Bits() % static_cast<uint64_t>(n)); }
  bool OneIn(int64_t n) { return Below(n) == 0; }
  template <typename T, size_t n>
  T Of(const T (&values)[n]) {
    return values[Below(n)];
  }

 private:
  uint64_t state_;
};

constexpr int64_t kHostile[] = {-1, INT64_MIN, INT64_MAX, INT64_MAX / 8, INT64_MIN + 1,
                                int64_t{1} << 31, int64_t{1} << 32, (int64_t{1} << 32) + 1,
                                int64_t{1} << 62, -(int64_t{1} << 32), 1000003};

// A number that may stand in the settings of a call.
inline int64_t SomeSetting(Random* random) {
  constexpr double kReal[] = {0.0,  -0.0, 1.0,  -1.0,    0.01,      1e-3,   1e-6,
                              0.05, 0.5,  30.0, 1e30,    -1e300,    1e-310, 0.125};
  int64_t bits;
  double real = random->Of(kReal);
  memcpy(&bits, &real, sizeof(bits));
  switch (random->Below(20)) {
    case 0: return random->Of(kHostile);
    case 1: return static_cast<int64_t>(random->Bits());
    case 2: return int64_t{0x7ff} << 52 | random->Below(2);  // infinity, nan
    case 3: case 4: case 5: case 6: case 7: return bits;
    case 8: case 9: case 10: case 11: case 12: return 'A' + random->Below(14);
    default: return random->Below(19);
  }
}

// Settings and the number of parameters that go with them.
struct Setup {
  std::vector<int64_t> settings;
  int64_t count = 0;
};

inline bool Takes(const CpuKernel& kernel, const Setup& setup, Error* error) {
  Call call;
  call.outer = call.groups = call.inner = 1;
  call.count = setup.count;
  call.settings = setup.settings.data();
  call.num_settings = static_cast<int64_t>(setup.settings.size());
  return kernel.check(call, error);
}

// What a kernel takes, found by asking it: this file knows none.
inline std::vector<Setup> UsualSetups(const CpuKernel& kernel, Random* random) {
  constexpr size_t kEnough = 200;
  std::vector<Setup> found;
  for (int64_t attempt = 0; attempt < 3000000 && found.size() < kEnough; ++attempt) {
    Setup setup;
    setup.settings.resize(random->Below(7));
    for (int64_t& setting : setup.settings) setting = SomeSetting(random);
    setup.count = kernel.pools ? 0 : random->Below(40);
    Error error;
    if (Takes(kernel, setup, &error)) found.push_back(setup);
  }
  if (found.empty()) {
    fprintf(stderr, "%s took no settings: SomeSetting in tests/native/calls.h must give such as "
            "it takes.\n", kernel.name);
    exit(1);
  }
  return found;
}

// Memory of exactly this size, so that a sanitizer sees the first byte beyond it.
class Exact {
 public:
  // `shift` bytes before it are lost: a way to misaligned addresses.
  Exact(int64_t size, int64_t shift)
      : size_(size), all_(static_cast<char*>(malloc(static_cast<size_t>(size + shift)))),
        data_(all_ + shift) {}
  Exact(const Exact& other) : Exact(other.size_, other.data_ - other.all_) {
    if (size_ > 0) memcpy(data_, other.data_, static_cast<size_t>(size_));
  }
  ~Exact() { free(all_); }
  void operator=(const Exact&) = delete;
  char* get() const { return size_ > 0 ? data_ : nullptr; }
  bool operator==(const Exact& other) const {
    return size_ == other.size_ && (size_ == 0 || memcmp(data_, other.data_, size_) == 0);
  }

  // Numbers of any kind; `width` bytes each.
  void Fill(DType dtype, Random* random) {
    const int64_t width = SizeOf(dtype);
    const int64_t kind = random->Below(4);
    for (int64_t i = 0; i < size_; i += width) {
      uint64_t bits = random->Bits();
      const bool special = random->OneIn(kind == 0 ? 4 : 1000);
      if (kind != 1 && !special) {
        // Between 2^-7 and 4: the top bits of an exponent, whatever its width.
        const int exponent_bits = dtype == DType::kFloat64 ? 11 : dtype == DType::kFloat16 ? 5 : 8;
        const int mantissa_bits = static_cast<int>(8 * width) - 1 - exponent_bits;
        const uint64_t bias = (uint64_t{1} << (exponent_bits - 1)) - 1;
        const uint64_t exponent = bias - 7 + static_cast<uint64_t>(random->Below(9));
        const uint64_t sign = (bits >> 63) << (8 * width - 1);
        bits = sign | exponent << mantissa_bits |
               (bits & ((uint64_t{1} << mantissa_bits) - 1));
      } else if (special && random->OneIn(2)) {
        bits = 0;
      }
      memcpy(data_ + i, &bits, static_cast<size_t>(width));
    }
  }

 private:
  int64_t size_;
  char *all_, *data_;
};

}  // namespace keras_learnact

#endif  // KERAS_LEARNACT_TESTS_NATIVE_CALLS_H_
