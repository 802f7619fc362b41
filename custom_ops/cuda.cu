// One kernel's loops on a GPU. Compiled for every kernel of kernels/all.h, with nvcc 12.8 or newer for
// all of these architectures:
//
//   nvcc -std=c++17 -O3 -prec-div=false -Icustom_ops -Xcompiler -fPIC,-fvisibility=hidden
//     -gencode=arch=compute_80,code=[compute_80,sm_80,sm_86,sm_89,sm_90,sm_100]
//     --compress-mode=size
//     -DKLA_KERNEL=Rational -DKLA_HEADER='"kernels/rational.h"' -DKLA_TARGET=cuda
//     -c custom_ops/cuda.cu -o cuda/rational.o
//   g++ -std=c++17 -O3 -fPIC -fvisibility=hidden -Icustom_ops -isystem FFI_HEADERS
//     -c custom_ops/xla_ffi_cuda.cc -o xla_ffi_cuda.o
//   g++ -shared -pthread xla_ffi_cuda.o cuda/*.o CUDA/lib64/libcudart_static.a -ldl -lrt
//     -o libkeras_learnact_cuda.so
//
// One translation to PTX serves all architectures: separate ones, -gencode by -gencode, would take
// as long again for the same code. With -prec-div=false a float quotient has an error of up to 2
// units in the last place instead of 1/2; it is the difference between a formula that waits for
// memory and one that waits for its division. Never -use_fast_math: it flushes denormal numbers.
// -Xptxas -v shows registers and spills.

#include KLA_HEADER
#include "runtime/cuda.cuh"

#define KLA_JOIN_(a, b) a##b
#define KLA_JOIN(a, b) KLA_JOIN_(a, b)

namespace keras_learnact::KLA_TARGET {

extern const CudaKernel KLA_JOIN(k, KLA_KERNEL);
const CudaKernel KLA_JOIN(k, KLA_KERNEL) = CudaEntryOf<KLA_KERNEL>();

}  // namespace keras_learnact::KLA_TARGET
