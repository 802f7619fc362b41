// The kernels of every instruction set that this processor has.

#ifndef KERAS_LEARNACT_TESTS_NATIVE_KERNELS_OF_ALL_TARGETS_H_
#define KERAS_LEARNACT_TESTS_NATIVE_KERNELS_OF_ALL_TARGETS_H_

#include <string.h>

#include <string>
#include <vector>

#include "kernels/all.h"
#include "runtime/call.h"

#define KLA_DECLARE(Kernel) extern const CpuKernel k##Kernel;
#define KLA_ADDRESS(Kernel) &k##Kernel,
#define KLA_TARGET_KERNELS(target)                                                 \
  namespace keras_learnact::target {                                               \
  KERAS_LEARNACT_KERNELS(KLA_DECLARE)                                              \
  static const std::vector<const CpuKernel*> kAll = {KERAS_LEARNACT_KERNELS(KLA_ADDRESS)}; \
  }

KLA_TARGET_KERNELS(baseline)
#ifdef __x86_64__
KLA_TARGET_KERNELS(avx2)
KLA_TARGET_KERNELS(avx512)
#endif

namespace keras_learnact {

struct Target {
  std::string name;
  std::vector<const CpuKernel*> kernels;
};

inline std::vector<Target> AllTargets() {
  std::vector<Target> targets = {{"baseline", baseline::kAll}};
#ifdef __x86_64__
  const std::string best = CpuTarget();
  if (best != "baseline") targets.push_back({"avx2", avx2::kAll});
  if (best == "avx512") targets.push_back({"avx512", avx512::kAll});
#endif
  return targets;
}

}  // namespace keras_learnact

#endif  // KERAS_LEARNACT_TESTS_NATIVE_KERNELS_OF_ALL_TARGETS_H_
