// Kernels on a GPU, as every framework's binding calls them. Needs no CUDA header.

#ifndef KERAS_LEARNACT_RUNTIME_CUDA_H_
#define KERAS_LEARNACT_RUNTIME_CUDA_H_

#include "kernels/all.h"
#include "runtime/call.h"

namespace keras_learnact {

// One kernel on the GPU. All pointers but `call` and `error` are the GPU's, and `stream` is a
// cudaStream_t of the current device. x, y, dy and dx have call.size() elements, aligned to their
// own size at least (to 16 bytes they are faster); y may be x and dx may be dy; params and dparams
// have call.groups * call.count. The key, for a kernel that draws random numbers, is read when the
// stream gets there.
//
// The functions put the work into the stream and return; nothing is allocated and nothing waits. A
// call's result depends on its arguments alone, bit by bit: not on the device, nor on what else it
// does. They return false, with the reason in `error`, if CUDA takes no more work.
struct CudaKernel {
  const char* name;
  bool random;
  // A pooling kernel: as for CpuKernel.
  bool pools;
  // Whether the call's settings and its number of parameters go together.
  bool (*check)(const Call& call, Error* error);
  bool (*forward)(const Call& call, const void* x, const void* params, const uint32_t* key,
                  void* y, void* stream, Error* error);
  // How many bytes of memory `backward` needs while it runs, aligned to 8.
  int64_t (*scratch_bytes)(const Call& call);
  bool (*backward)(const Call& call, const void* x, const void* params, const uint32_t* key,
                   const void* dy, void* dx, void* dparams, void* scratch, void* stream,
                   Error* error);
};

// The kernels of all.h.
namespace cuda {
#define KLA_DECLARE(Kernel) extern const CudaKernel k##Kernel;
KERAS_LEARNACT_KERNELS(KLA_DECLARE)
#undef KLA_DECLARE
}  // namespace cuda

inline const CudaKernel* const* CudaKernels(int* count) {
#define KLA_ENTRY(Kernel) &cuda::k##Kernel,
  static const CudaKernel* const kernels[] = {KERAS_LEARNACT_KERNELS(KLA_ENTRY)};
#undef KLA_ENTRY
  *count = sizeof(kernels) / sizeof(kernels[0]);
  return kernels;
}

}  // namespace keras_learnact

#endif  // KERAS_LEARNACT_RUNTIME_CUDA_H_
