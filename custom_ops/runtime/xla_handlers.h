// XLA FFI handlers: what the libraries for the CPU and for CUDA have in common.
//
// The targets of the kernel Some are
//   keras_learnact.Some      x, params, [key] -> y, none             pooling: x -> y, none
//   keras_learnact.SomeGrad  x, params, [key], dy -> dx, dparams              x, dy -> dx, none
// where none is an empty array: until 2025 XLA ended the process when a call with attributes gave
// one array, which was all that a program gave, and there was a concatenation in the program,
// with the attributes axis: i64 and settings: array<i64>. Calls may come from a file: every shape,
// type and number is checked.
//
// params is [groups, count], or [batch…, groups, count] where each entry of a batch has parameters
// of its own: then x starts with the same axes, and `axis` counts them too. A key serves the whole
// batch, or is [batch…, words].

#ifndef KERAS_LEARNACT_RUNTIME_XLA_HANDLERS_H_
#define KERAS_LEARNACT_RUNTIME_XLA_HANDLERS_H_

#include <stdint.h>

#include <algorithm>

#include "runtime/call.h"
#include "xla/ffi/api/ffi.h"

namespace keras_learnact {

namespace ffi = xla::ffi;

using FfiSettings = ffi::Span<const int64_t>;

// The arrays of one call; for a gradient, y is dx.
struct Arrays {
  const char *x = nullptr, *params = nullptr, *key = nullptr, *dy = nullptr;
  char *y = nullptr, *dparams = nullptr;
};

// `call` is one entry of the batch.
struct BatchedCall {
  Call call;
  int64_t batch = 1;
  Arrays first;
  // From one entry to the next, in bytes.
  int64_t x_step = 0, params_step = 0, key_step = 0, y_step = 0;

  Arrays At(int64_t i, bool gradient) const {
    Arrays a = first;
    a.x += i * x_step;
    if (a.params) a.params += i * params_step;
    if (a.key) a.key += i * key_step;
    a.y += i * (gradient ? x_step : y_step);
    if (gradient) a.dy += i * y_step;
    if (a.dparams) a.dparams += i * params_step;
    return a;
  }
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

// Whether `a` and `b` agree on `rank` axes.
inline bool SameSizes(ffi::AnyBuffer::Dimensions a, ffi::AnyBuffer::Dimensions b, size_t rank) {
  return a.size() >= rank && b.size() >= rank && std::equal(a.begin(), a.begin() + rank, b.begin());
}

inline bool SameType(const ffi::AnyBuffer& a, const ffi::AnyBuffer& b) {
  return a.element_type() == b.element_type() &&
         a.dimensions().size() == b.dimensions().size() &&
         SameSizes(a.dimensions(), b.dimensions(), a.dimensions().size());
}

// Looks at everything that a call has. `Kernel` says its name, whether it is random and whether it
// pools, and checks the settings, as CpuKernel does.
template <typename Kernel>
bool ReadCall(const Kernel& kernel, bool gradient, const ffi::RemainingArgs& args,
              const ffi::RemainingRets& rets, int64_t axis, FfiSettings settings, BatchedCall* to,
              Error* error) {
  const char* name = kernel.name;
  const int num_args = 1 + (kernel.pools ? 0 : 1) + (kernel.random ? 1 : 0) + (gradient ? 1 : 0);
  const int num_rets = 2;
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
  const ffi::AnyBuffer::Dimensions sizes = x.dimensions();
  const auto rank = static_cast<int64_t>(sizes.size());
  Call& call = to->call;
  if (!ReadDType(x.element_type(), &call.dtype)) {
    return error->Say("%s: x must be float32, float64, float16 or bfloat16. Received: XLA's type "
                      "number %d", name, static_cast<int>(x.element_type()));
  }
  call.settings = settings.begin();
  call.num_settings = static_cast<int64_t>(settings.size());
  to->first.x = static_cast<const char*>(x.untyped_data());
  to->first.y = static_cast<char*>(y.untyped_data());

  size_t batch_rank = 0;
  int64_t pieces = 1;
  if (kernel.pools) {
    pieces = settings.size() == 1 ? settings[0] : 0;
    if (!SetPoolView(name, sizes.begin(), rank, axis, pieces, &call, error)) return false;
  } else {
    const ffi::AnyBuffer params = *args.get<ffi::AnyBuffer>(next++);
    const ffi::AnyBuffer::Dimensions shape = params.dimensions();
    if (params.element_type() !=
        (call.dtype == DType::kFloat64 ? ffi::DataType::F64 : ffi::DataType::F32)) {
      return error->Say("%s: params must be float64 for float64 x, else float32. Received: XLA's "
                        "type number %d", name, static_cast<int>(params.element_type()));
    }
    if (shape.size() > 2) {
      batch_rank = shape.size() - 2;
      if (!SameSizes(sizes, shape, batch_rank)) {
        return error->Say("%s: x must start with the axes that params has before its last two",
                          name);
      }
      for (size_t i = 0; i < batch_rank; ++i) {
        if (shape[i] < 0 || __builtin_mul_overflow(to->batch, shape[i], &to->batch)) {
          return error->Say("%s: the batch is too large", name);
        }
      }
    }
    const auto batch_axes = static_cast<int64_t>(batch_rank);
    if (!SetView(name, sizes.begin() + batch_rank, rank - batch_axes,
                 axis < batch_axes ? -1 : axis - batch_axes,
                 shape.begin() + batch_rank, static_cast<int64_t>(shape.size() - batch_rank), &call,
                 error)) {
      return false;
    }
    to->first.params = static_cast<const char*>(params.untyped_data());
    to->params_step =
        call.groups * call.count * (call.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float));
    if (gradient) {
      const ffi::AnyBuffer dparams = **rets.get<ffi::AnyBuffer>(1);
      if (!SameType(dparams, params)) {
        return error->Say("%s: the gradient of params must have the shape and type of params",
                          name);
      }
      to->first.dparams = static_cast<char*>(dparams.untyped_data());
    }
  }
  if (!kernel.check(call, error)) return false;
  int64_t elements, parameters;
  if (__builtin_mul_overflow(call.size(), to->batch, &elements) || elements > INT64_MAX / 16 ||
      __builtin_mul_overflow(call.groups * call.count, to->batch, &parameters) ||
      parameters > INT64_MAX / 16) {
    return error->Say("%s: the batch is too large", name);
  }
  // Entries of one row, or of one group, are all in one view: more groups. Draws are of an entry's
  // own elements.
  if (to->batch > 1 && !kernel.random && (call.outer == 1 || call.groups == 1)) {
    call.inner *= call.outer;
    call.outer = 1;
    call.groups *= to->batch;
    to->batch = 1;
  }
  to->y_step = call.size() * SizeOf(call.dtype);
  to->x_step = to->y_step * pieces;

  if (kernel.random) {
    const ffi::AnyBuffer key = *args.get<ffi::AnyBuffer>(next++);
    const ffi::AnyBuffer::Dimensions shape = key.dimensions();
    const bool own = shape.size() == batch_rank + 1;
    const int64_t words = shape.size() == 0 ? 0 : shape.back();
    if (key.element_type() != ffi::DataType::S32 || !(own || shape.size() == 1) ||
        (own && !SameSizes(shape, sizes, batch_rank)) || (words != 2 && words != 4)) {
      return error->Say("%s: the key must be int32 of shape [2] or [4], or one for each entry of a "
                        "batch. Received: XLA's type number %d, rank %d, %lld words", name,
                        static_cast<int>(key.element_type()), static_cast<int>(shape.size()),
                        static_cast<long long>(words));
    }
    call.key_words = static_cast<int>(words);
    to->first.key = static_cast<const char*>(key.untyped_data());
    to->key_step = own && batch_rank > 0 ? words * sizeof(int32_t) : 0;
  }

  // y and dy have the sizes of x, but for the axis that a pooling kernel shortens.
  const auto is_output = [&](const ffi::AnyBuffer& a) {
    const ffi::AnyBuffer::Dimensions shape = a.dimensions();
    if (a.element_type() != x.element_type() || shape.size() != sizes.size()) return false;
    for (int64_t i = 0; i < rank; ++i) {
      if (shape[i] != (kernel.pools && i == axis ? call.groups : sizes[i])) return false;
    }
    return true;
  };
  if (gradient) {
    const ffi::AnyBuffer dy = *args.get<ffi::AnyBuffer>(next++);
    if (!is_output(dy) || !SameType(y, x)) {
      return error->Say("%s: dy must have the shape and type of the kernel's output, dx those of x",
                        name);
    }
    to->first.dy = static_cast<const char*>(dy.untyped_data());
  } else if (!is_output(y)) {
    return error->Say("%s: the result must have the type of x, and the shape of the kernel's "
                      "output", name);
  }
  return true;
}

}  // namespace keras_learnact

#endif  // KERAS_LEARNACT_RUNTIME_XLA_HANDLERS_H_
