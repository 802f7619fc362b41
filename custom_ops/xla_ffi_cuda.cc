// Every kernel as an XLA FFI handler on CUDA, for JAX and for TensorFlow's XLA: as xla_ffi.cc on the
// CPU. The library links neither, and loads on machines without a GPU.

#include <optional>
#include <string>
#include <utility>

#include "runtime/cuda.h"
#include "runtime/xla_handlers.h"

namespace keras_learnact {
namespace {

#define KLA_INDEX(Kernel) k##Kernel,
enum { KERAS_LEARNACT_KERNELS(KLA_INDEX) kNumKernels };

const CudaKernel& KernelAt(int i) {
  int count;
  return *CudaKernels(&count)[i];
}

// A cudaStream_t.
using Stream = void*;


const uint32_t* Key(const Arrays& a) { return reinterpret_cast<const uint32_t*>(a.key); }

template <int kKernel>
ffi::Error Forward(Stream stream, ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t axis,
                   FfiSettings settings) {
  const CudaKernel& kernel = KernelAt(kKernel);
  BatchedCall batch;
  Error error;
  if (!ReadCall(kernel, false, args, rets, axis, settings, &batch, &error)) {
    return ffi::Error::InvalidArgument(error.text);
  }
  for (int64_t i = 0; i < batch.batch; ++i) {
    const Arrays a = batch.At(i, false);
    if (!kernel.forward(batch.call, a.x, a.params, Key(a), a.y, stream, &error)) {
      return ffi::Error::Internal(error.text);
    }
  }
  return ffi::Error::Success();
}

template <int kKernel>
ffi::Error Gradient(Stream stream, ffi::ScratchAllocator scratch, ffi::RemainingArgs args,
                    ffi::RemainingRets rets, int64_t axis, FfiSettings settings) {
  const CudaKernel& kernel = KernelAt(kKernel);
  BatchedCall batch;
  Error error;
  if (!ReadCall(kernel, true, args, rets, axis, settings, &batch, &error)) {
    return ffi::Error::InvalidArgument(error.text);
  }
  const int64_t bytes = kernel.scratch_bytes(batch.call);
  void* memory = nullptr;
  if (bytes > 0) {
    // Given back when this function returns; what uses it later comes later in the stream.
    const std::optional<void*> allocated = scratch.Allocate(static_cast<size_t>(bytes), 256);
    if (!allocated) {
      return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                        std::string(kernel.name) + ": not enough memory for " +
                            std::to_string(bytes) + " bytes of partial sums");
    }
    memory = *allocated;
  }
  for (int64_t i = 0; i < batch.batch; ++i) {
    const Arrays a = batch.At(i, true);
    if (!kernel.backward(batch.call, a.x, a.params, Key(a), a.dy, a.y, a.dparams, memory, stream,
                         &error)) {
      return ffi::Error::Internal(error.text);
    }
  }
  return ffi::Error::Success();
}

// It only puts kernels into the stream, so that XLA may record it in a CUDA graph. A gradient may
// not be recorded: the graph would run again when its scratch memory is another's.
template <int kKernel>
XLA_FFI_Error* HandleForward(XLA_FFI_CallFrame* frame) {
  static const auto handler = ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<Stream>>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int64_t>("axis")
                                  .Attr<FfiSettings>("settings")
                                  .To(Forward<kKernel>, {ffi::Traits::kCmdBufferCompatible});
  return handler->Call(frame);
}

template <int kKernel>
XLA_FFI_Error* HandleGradient(XLA_FFI_CallFrame* frame) {
  static const auto handler = ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<Stream>>()
                                  .Ctx<ffi::ScratchAllocator>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int64_t>("axis")
                                  .Attr<FfiSettings>("settings")
                                  .To(Gradient<kKernel>);
  return handler->Call(frame);
}

struct Target {
  XLA_FFI_Handler *forward, *gradient;
};

#define KLA_HANDLERS(Kernel) {HandleForward<k##Kernel>, HandleGradient<k##Kernel>},
constexpr Target kTargets[] = {KERAS_LEARNACT_KERNELS(KLA_HANDLERS)};

}  // namespace
}  // namespace keras_learnact

// What Python and TensorFlow call. Kernels are numbered from 0.

using namespace keras_learnact;

#define KLA_EXPORT extern "C" __attribute__((visibility("default")))

// Of these functions and of the handlers: another number where another Python module is needed.
KLA_EXPORT int keras_learnact_cuda_interface() { return kInterface; }

KLA_EXPORT int keras_learnact_cuda_kernels() { return kNumKernels; }

KLA_EXPORT const char* keras_learnact_cuda_name(int kernel) { return KernelAt(kernel).name; }

// The handler of the kernel or of its gradient.
KLA_EXPORT void* keras_learnact_cuda_handler(int kernel, int gradient) {
  const Target& target = kTargets[kernel];
  return reinterpret_cast<void*>(gradient ? target.gradient : target.forward);
}

// The kernels themselves, for other libraries: a `const CudaKernel* const*`.
KLA_EXPORT const void* keras_learnact_cuda_all(int* count) { return CudaKernels(count); }

// Registers everything with a framework's XLA, once. `api` is its XLA_FFI_Api, as
// xla::ffi::GetXlaFfiApi() gives it. Returns the number of handlers that it refused.
KLA_EXPORT int keras_learnact_cuda_register(const void* api) {
  const auto* xla = static_cast<const XLA_FFI_Api*>(api);
  int refused = 0;
  for (int i = 0; i < kNumKernels; ++i) {
    for (const bool gradient : {false, true}) {
      const std::string name =
          std::string("keras_learnact.") + KernelAt(i).name + (gradient ? "Grad" : "");
      XLA_FFI_Error* error = ffi::Ffi::RegisterStaticHandler(
          xla, name, "CUDA", gradient ? kTargets[i].gradient : kTargets[i].forward,
          gradient ? 0 : XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE);
      if (error == nullptr) continue;
      ++refused;
      XLA_FFI_Error_Destroy_Args destroy{XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
      xla->XLA_FFI_Error_Destroy(&destroy);
    }
  }
  return refused;
}
