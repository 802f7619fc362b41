// XLA FFI handlers, and how Python and TensorFlow find them: what the libraries for the CPU and
// for CUDA have in common.
//
// The targets of the kernel Some are
//   keras_learnact.Some      x, params, [key] -> y            a pooling kernel: x -> y
//   keras_learnact.SomeGrad  x, params, [key], dy -> dx, dparams                x, dy -> dx
// with the attributes axis: i64 and settings: array<i64>. Calls may come from a file: every shape,
// type and number is checked.

#ifndef KERAS_LEARNACT_RUNTIME_XLA_HANDLERS_H_
#define KERAS_LEARNACT_RUNTIME_XLA_HANDLERS_H_

#include <stdint.h>

#include <string>

#include "runtime/call.h"
#include "xla/ffi/api/ffi.h"

namespace keras_learnact {

namespace ffi = xla::ffi;

using Settings = ffi::Span<const int64_t>;

// One call of a handler. For a gradient, y is dx.
struct XlaCall {
  Call call;
  const void *x = nullptr, *params = nullptr, *dy = nullptr;
  const uint32_t* key = nullptr;
  void *y = nullptr, *dparams = nullptr;
};

inline bool ReadDType(ffi::DataType type, DType* dtype) {
  switch (type) {
    case ffi::DataType::F32: *dtype = DType::kFloat32; return true;
    case ffi::DataType::F64: *dtype = DType::kFloat64; return true;
    case ffi::DataType::F16: *dtype = DType::kFloat16; return true;
    case ffi::DataType::BF16: *dtype = DType::kBFloat16; return true;
    default: return false;
  }
}

inline bool SameSizes(ffi::AnyBuffer::Dimensions a, ffi::AnyBuffer::Dimensions b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

// Looks at everything that a call has. `Kernel` says its name, whether it is random and whether it
// pools, and checks the settings, as CpuKernel does.
template <typename Kernel>
bool ReadCall(const Kernel& kernel, bool gradient, const ffi::RemainingArgs& args,
              const ffi::RemainingRets& rets, int64_t axis, Settings settings, XlaCall* to,
              Error* error) {
  const char* name = kernel.name;
  const int num_args = 1 + (kernel.pools ? 0 : 1) + (kernel.random ? 1 : 0) + (gradient ? 1 : 0);
  const int num_rets = gradient && !kernel.pools ? 2 : 1;
  if (static_cast<int>(args.size()) != num_args || static_cast<int>(rets.size()) != num_rets) {
    return error->Say("%s%s takes %d arrays and gives %d. Received: %d and %d", name,
                      gradient ? "Grad" : "", num_args, num_rets, static_cast<int>(args.size()),
                      static_cast<int>(rets.size()));
  }
  for (int i = 0; i < num_args; ++i) {
    if (!args.get<ffi::AnyBuffer>(i)) return error->Say("%s: argument %d is no array", name, i);
  }
  for (int i = 0; i < num_rets; ++i) {
    if (!rets.get<ffi::AnyBuffer>(i)) return error->Say("%s: result %d is no array", name, i);
  }
  int next = 0;
  const ffi::AnyBuffer x = *args.get<ffi::AnyBuffer>(next++);
  const ffi::AnyBuffer y = **rets.get<ffi::AnyBuffer>(0);
  Call& call = to->call;
  if (!ReadDType(x.element_type(), &call.dtype)) {
    return error->Say("%s: x must be float32, float64, float16 or bfloat16. Received: XLA's type "
                      "number %d", name, static_cast<int>(x.element_type()));
  }
  if (y.element_type() != x.element_type()) {
    return error->Say("%s: the result must have the type of x", name);
  }
  call.settings = settings.begin();
  call.num_settings = static_cast<int64_t>(settings.size());
  const auto sizes = x.dimensions();
  const auto rank = static_cast<int64_t>(sizes.size());
  to->x = x.untyped_data();
  to->y = y.untyped_data();

  if (kernel.pools) {
    const int64_t pieces = settings.size() == 1 ? settings[0] : 0;
    if (!SetPoolView(name, sizes.begin(), rank, axis, pieces, &call, error)) return false;
  } else {
    const ffi::AnyBuffer params = *args.get<ffi::AnyBuffer>(next++);
    const auto type =
        call.dtype == DType::kFloat64 ? ffi::DataType::F64 : ffi::DataType::F32;
    if (params.element_type() != type) {
      return error->Say("%s: params must be float64 for float64 x, else float32. Received: XLA's "
                        "type number %d", name, static_cast<int>(params.element_type()));
    }
    const auto shape = params.dimensions();
    if (!SetView(name, sizes.begin(), rank, axis, shape.begin(),
                 static_cast<int64_t>(shape.size()), &call, error)) {
      return false;
    }
    to->params = params.untyped_data();
    if (gradient) {
      const ffi::AnyBuffer dparams = **rets.get<ffi::AnyBuffer>(1);
      if (dparams.element_type() != type || !SameSizes(dparams.dimensions(), shape)) {
        return error->Say("%s: the gradient of params must have the shape and type of params",
                          name);
      }
      to->dparams = dparams.untyped_data();
    }
  }
  if (!kernel.check(call, error)) return false;

  if (kernel.random) {
    const ffi::AnyBuffer key = *args.get<ffi::AnyBuffer>(next++);
    const auto shape = key.dimensions();
    if (key.element_type() != ffi::DataType::S32 || shape.size() != 1 || shape[0] != 2) {
      return error->Say("%s: the key must be two int32. Received: XLA's type number %d, rank %d",
                        name, static_cast<int>(key.element_type()),
                        static_cast<int>(shape.size()));
    }
    to->key = static_cast<const uint32_t*>(key.untyped_data());
  }

  // The sizes of y: those of x, but for the axis that a pooling kernel shortens.
  const auto same_as_output = [&](ffi::AnyBuffer::Dimensions other) {
    if (other.size() != sizes.size()) return false;
    for (int64_t i = 0; i < rank; ++i) {
      const int64_t wanted = kernel.pools && i == axis ? call.groups : sizes[i];
      if (other[i] != wanted) return false;
    }
    return true;
  };
  if (gradient) {
    const ffi::AnyBuffer dy = *args.get<ffi::AnyBuffer>(next++);
    if (dy.element_type() != x.element_type() || !same_as_output(dy.dimensions())) {
      return error->Say("%s: dy must have the shape and type of the kernel's output", name);
    }
    if (!SameSizes(y.dimensions(), sizes)) {
      return error->Say("%s: dx must have the shape of x", name);
    }
    to->dy = dy.untyped_data();
  } else if (!same_as_output(y.dimensions())) {
    return error->Say("%s: the result has not the shape of the kernel's output", name);
  }
  return true;
}

// A kernel's two handlers.
struct XlaTarget {
  std::string name;  // without Grad
  bool random, pools;
  XLA_FFI_Handler *forward, *backward;
};

}  // namespace keras_learnact

#endif  // KERAS_LEARNACT_RUNTIME_XLA_HANDLERS_H_
