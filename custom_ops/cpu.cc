// One kernel's CPU loops for one instruction set. Compiled for every kernel and every set, with
//   -DKLA_KERNEL=Rational -DKLA_HEADER='"kernels/rational.h"' -DKLA_TARGET=avx2

#include KLA_HEADER
#include "runtime/cpu_pool.h"

#define KLA_JOIN_(a, b) a##b
#define KLA_JOIN(a, b) KLA_JOIN_(a, b)

namespace keras_learnact::KLA_TARGET {

extern const CpuKernel KLA_JOIN(k, KLA_KERNEL);
const CpuKernel KLA_JOIN(k, KLA_KERNEL) = EntryOf<KLA_KERNEL>();

}  // namespace keras_learnact::KLA_TARGET
