// Chooses the code for this processor.

#include <string.h>

#include "kernels/all.h"
#include "runtime/call.h"

#define KLA_DECLARE(Kernel) extern const CpuKernel k##Kernel;
#define KLA_ENTRY(Kernel) &k##Kernel,
#define KLA_TARGET_KERNELS(target)                              \
  namespace keras_learnact::target {                            \
  KERAS_LEARNACT_KERNELS(KLA_DECLARE)                           \
  static const CpuKernel* const kKernels[] = {KERAS_LEARNACT_KERNELS(KLA_ENTRY)}; \
  }

KLA_TARGET_KERNELS(baseline)
#ifdef __x86_64__
KLA_TARGET_KERNELS(avx2)
KLA_TARGET_KERNELS(avx512)
#endif

namespace keras_learnact {

const char* CpuTarget() {
#ifdef __x86_64__
  static const char* const target = [] {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
                      __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    return avx2 && avx512 ? "avx512" : avx2 ? "avx2" : "baseline";
  }();
  return target;
#else
  return "baseline";
#endif
}

const CpuKernel* const* CpuKernels(int* count) {
  *count = sizeof(baseline::kKernels) / sizeof(baseline::kKernels[0]);
#ifdef __x86_64__
  if (strcmp(CpuTarget(), "avx512") == 0) return avx512::kKernels;
  if (strcmp(CpuTarget(), "avx2") == 0) return avx2::kKernels;
#endif
  return baseline::kKernels;
}

}  // namespace keras_learnact
