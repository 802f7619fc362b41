// Every kernel as an XLA FFI handler on the CPU, for JAX and for TensorFlow's XLA. The library links
// neither: it is built with the headers of the oldest one that we support, and newer ones take it.

#include <string.h>

#include "kernels/all.h"
#include "runtime/pool.h"
#include "runtime/xla_handlers.h"

namespace keras_learnact {
namespace {

#define KLA_INDEX(Kernel) k##Kernel,
enum { KERAS_LEARNACT_KERNELS(KLA_INDEX) kNumKernels };

const CpuKernel& KernelAt(int i) {
  int count;
  return *CpuKernels(&count)[i];
}

template <int kKernel, bool kGradient>
ffi::Error Run(ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t axis, Settings settings) {
  const CpuKernel& kernel = KernelAt(kKernel);
  XlaCall c;
  Error error;
  if (!ReadCall(kernel, kGradient, args, rets, axis, settings, &c, &error)) {
    return ffi::Error::InvalidArgument(error.text);
  }
  const bool enough = kGradient
                          ? kernel.backward(c.call, c.x, c.params, c.key, c.dy, c.y, c.dparams)
                          : kernel.forward(c.call, c.x, c.params, c.key, c.y);
  if (enough) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    std::string(kernel.name) + ": not enough memory");
}

template <int kKernel, bool kGradient>
XLA_FFI_Error* Handle(XLA_FFI_CallFrame* frame) {
  static const auto handler = ffi::Ffi::Bind()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int64_t>("axis")
                                  .Attr<Settings>("settings")
                                  .To(Run<kKernel, kGradient>);
  return handler->Call(frame);
}

struct Target {
  XLA_FFI_Handler *forward, *backward;
};

#define KLA_HANDLERS(Kernel) {Handle<k##Kernel, false>, Handle<k##Kernel, true>},
constexpr Target kTargets[] = {KERAS_LEARNACT_KERNELS(KLA_HANDLERS)};

}  // namespace
}  // namespace keras_learnact

// What Python and TensorFlow call. Kernels are numbered from 0.

using namespace keras_learnact;

#define KLA_EXPORT extern "C" __attribute__((visibility("default")))

KLA_EXPORT int keras_learnact_xla_kernels() { return kNumKernels; }

KLA_EXPORT const char* keras_learnact_xla_name(int kernel) { return KernelAt(kernel).name; }

KLA_EXPORT int keras_learnact_xla_random(int kernel) { return KernelAt(kernel).random; }

KLA_EXPORT int keras_learnact_xla_pools(int kernel) { return KernelAt(kernel).pools; }

// The handler of the kernel or of its gradient.
KLA_EXPORT void* keras_learnact_xla_handler(int kernel, int gradient) {
  const Target& target = kTargets[kernel];
  return reinterpret_cast<void*>(gradient ? target.backward : target.forward);
}

// What is wrong with these settings and this number of parameters: fills `text`, which is empty if
// nothing is.
KLA_EXPORT void keras_learnact_xla_check(int kernel, int64_t count, const int64_t* settings,
                                         int64_t num_settings, char* text, int64_t size) {
  Call call;
  call.groups = call.outer = call.inner = 1;
  call.count = count;
  call.settings = settings;
  call.num_settings = num_settings;
  Error error;
  KernelAt(kernel).check(call, &error);
  snprintf(text, static_cast<size_t>(size), "%s", error.text);
}

// The instruction set in use.
KLA_EXPORT const char* keras_learnact_xla_target() { return CpuTarget(); }

// Sets the number of threads if it is at least 1; returns it.
KLA_EXPORT int keras_learnact_xla_threads(int count) {
  if (count >= 1) SetNumThreads(count);
  return NumThreads();
}

// Registers everything with a framework's XLA, once. `api` is its XLA_FFI_Api, as
// xla::ffi::GetXlaFfiApi() gives it. Returns the number of handlers that it refused.
KLA_EXPORT int keras_learnact_xla_register(const void* api) {
  const auto* xla = static_cast<const XLA_FFI_Api*>(api);
  int refused = 0;
  for (int i = 0; i < kNumKernels; ++i) {
    for (const bool gradient : {false, true}) {
      const std::string name =
          std::string("keras_learnact.") + KernelAt(i).name + (gradient ? "Grad" : "");
      XLA_FFI_Error* error = ffi::Ffi::RegisterStaticHandler(
          xla, name, "Host", gradient ? kTargets[i].backward : kTargets[i].forward);
      if (error == nullptr) continue;
      ++refused;
      XLA_FFI_Error_Destroy_Args destroy{XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
      xla->XLA_FFI_Error_Destroy(&destroy);
    }
  }
  return refused;
}
