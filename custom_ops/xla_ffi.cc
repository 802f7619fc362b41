// Every kernel as an XLA FFI handler on the CPU, for JAX and for TensorFlow's XLA. The library links
// neither: it is built with the headers of the oldest one that we support, and newer ones take it.

#include <algorithm>
#include <atomic>
#include <string>

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

constexpr int64_t kSmall = 16384;  // elements that one thread does alone

// One batch's entries: one after another, each on all threads, or, if they are small, each on one.
class Entries {
 public:
  Entries(const CpuKernel& kernel, const BatchedCall& batch, bool gradient)
      : kernel_(kernel), batch_(batch), gradient_(gradient) {}

  // Whether there was enough memory.
  bool Run() {
    if (batch_.batch == 1 || batch_.call.size() >= kSmall) {
      for (int64_t i = 0; i < batch_.batch; ++i) One(i);
      return enough_;
    }
    step_ = kSmall / (batch_.call.size() + 1) + 1;
    ParallelFor((batch_.batch + step_ - 1) / step_,
                [](void* entries, int64_t i) { static_cast<Entries*>(entries)->Some(i); }, this);
    return enough_;
  }

 private:
  void Some(int64_t part) {
    const int64_t end = std::min((part + 1) * step_, batch_.batch);
    for (int64_t i = part * step_; i < end; ++i) One(i);
  }

  void One(int64_t i) {
    const Arrays a = batch_.At(i, gradient_);
    const auto* key = reinterpret_cast<const uint32_t*>(a.key);
    const bool enough =
        gradient_ ? kernel_.backward(batch_.call, a.x, a.params, key, a.dy, a.y, a.dparams)
                  : kernel_.forward(batch_.call, a.x, a.params, key, a.y);
    if (!enough) enough_ = false;
  }

  const CpuKernel& kernel_;
  const BatchedCall& batch_;
  const bool gradient_;
  int64_t step_ = 1;
  std::atomic<bool> enough_{true};
};

template <int kKernel, bool kGradient>
ffi::Error Run(ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t axis,
               FfiSettings settings) {
  const CpuKernel& kernel = KernelAt(kKernel);
  BatchedCall batch;
  Error error;
  if (!ReadCall(kernel, kGradient, args, rets, axis, settings, &batch, &error)) {
    return ffi::Error::InvalidArgument(error.text);
  }
  if (Entries(kernel, batch, kGradient).Run()) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    std::string(kernel.name) + ": not enough memory");
}

template <int kKernel, bool kGradient>
XLA_FFI_Error* Handle(XLA_FFI_CallFrame* frame) {
  static const auto handler = ffi::Ffi::Bind()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int64_t>("axis")
                                  .Attr<FfiSettings>("settings")
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

// Of these functions and of the handlers: another number where another Python module is needed.
KLA_EXPORT int keras_learnact_xla_interface() { return kInterface; }

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
