// One call of a kernel, as every framework's binding hands it over.

#ifndef KERAS_LEARNACT_RUNTIME_CALL_H_
#define KERAS_LEARNACT_RUNTIME_CALL_H_

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

namespace keras_learnact {

// Raised with every change of what the libraries' callers see, functions, ops or handlers, and with
// it INTERFACE in keras_learnact/kernels/library.py: a library of another version is not used.
constexpr int kInterface = 2;

// Of the input, the output and their gradients. Parameters and their gradients are float64 for
// float64, else float32, and so is the arithmetic.
enum class DType { kFloat32, kFloat64, kFloat16, kBFloat16 };

inline int64_t SizeOf(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

// What is wrong with a call; nothing at first.
struct Error {
  char text[320] = "";
  bool ok() const { return text[0] == 0; }
  // Always false, so that a check can end with it.
  __attribute__((format(printf, 2, 3))) bool Say(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return false;
  }
};

// x is seen as [outer, groups, inner], contiguous; the parameters are [groups, count].
struct Call {
  DType dtype = DType::kFloat32;
  int64_t outer = 0, groups = 0, inner = 0;
  int64_t count = 0;
  // The kernel's own settings; each kernel's header says which. Real numbers are the bits of a
  // double.
  const int64_t* settings = nullptr;
  int64_t num_settings = 0;
  // Of a kernel that draws random numbers: 2, or 4 if the key's third and fourth word, low and
  // high, are the index of x's first element: x may be a part of an array whose draws it shares.
  int key_words = 2;

  // Beside a 0 the others may be of any size; without one the product is no more than SetView takes.
  int64_t size() const { return outer == 0 || inner == 0 ? 0 : outer * groups * inner; }
};

// The view of an input whose axes from `axis` on are covered by the groups: all of them by one
// group (axis 0), the channel axis and those behind it, or all but the first for units.
inline bool SetView(const char* name, const int64_t* sizes, int64_t rank, int64_t axis,
                    const int64_t* parameter_sizes, int64_t parameter_rank, Call* call,
                    Error* error) {
  if (parameter_rank != 2) {
    return error->Say("%s: params must be of shape [groups, count]. Received: rank %lld", name,
                      static_cast<long long>(parameter_rank));
  }
  if (axis < 0 || axis > rank) {
    return error->Say("%s: axis must be between 0 and the rank of x, %lld. Received: axis=%lld",
                      name, static_cast<long long>(rank), static_cast<long long>(axis));
  }
  int64_t outer = 1, covered = 1;
  for (int64_t i = 0; i < rank; ++i) {
    int64_t* product = i < axis ? &outer : &covered;
    if (sizes[i] < 0 || __builtin_mul_overflow(*product, sizes[i], product)) {
      return error->Say("%s: x has an impossible size: %lld on axis %lld", name,
                        static_cast<long long>(sizes[i]), static_cast<long long>(i));
    }
  }
  int64_t size;
  if (__builtin_mul_overflow(outer, covered, &size) || size > INT64_MAX / 16) {
    return error->Say("%s: x is too large", name);
  }
  const int64_t groups = parameter_sizes[0], count = parameter_sizes[1];
  int64_t parameters;
  if (groups < 1 || count < 0 || __builtin_mul_overflow(groups, count, &parameters) ||
      parameters > INT64_MAX / 16) {
    return error->Say("%s: params must be of shape [groups >= 1, count]. Received: [%lld, %lld]",
                      name, static_cast<long long>(groups), static_cast<long long>(count));
  }
  if (covered % groups != 0) {
    return error->Say(
        "%s: the axes of x from %lld on have %lld elements, which is not a multiple of the %lld "
        "groups of params",
        name, static_cast<long long>(axis), static_cast<long long>(covered),
        static_cast<long long>(groups));
  }
  call->outer = outer;
  call->groups = groups;
  call->inner = covered / groups;
  call->count = count;
  return true;
}

// The view of a pooling kernel's output, where `pieces` neighbours on `axis` of x become one: x is
// [outer, groups, pieces, inner], y is [outer, groups, inner]. There are no parameters.
inline bool SetPoolView(const char* name, const int64_t* sizes, int64_t rank, int64_t axis,
                        int64_t pieces, Call* call, Error* error) {
  if (axis < 0 || axis >= rank) {
    return error->Say("%s: axis must be between 0 and the rank of x, %lld, less 1. "
                      "Received: axis=%lld", name, static_cast<long long>(rank),
                      static_cast<long long>(axis));
  }
  if (pieces < 1 || sizes[axis] % pieces != 0) {
    return error->Say("%s: the size of axis %lld of x must be a multiple of pieces >= 1. "
                      "Received: size %lld, pieces %lld", name, static_cast<long long>(axis),
                      static_cast<long long>(sizes[axis]), static_cast<long long>(pieces));
  }
  int64_t outer = 1, inner = 1, size = 1;
  for (int64_t i = 0; i < rank; ++i) {
    int64_t unused = 0;
    int64_t* product = i < axis ? &outer : i > axis ? &inner : &unused;
    if (sizes[i] < 0 || __builtin_mul_overflow(*product, sizes[i], product) ||
        __builtin_mul_overflow(size, sizes[i], &size) || size > INT64_MAX / 16) {
      return error->Say("%s: x has an impossible size: %lld on axis %lld", name,
                        static_cast<long long>(sizes[i]), static_cast<long long>(i));
    }
  }
  call->outer = outer;
  call->groups = sizes[axis] / pieces;
  call->inner = inner;
  call->count = 0;
  return true;
}

inline bool CheckPool(const char* name, const Call& call, Error* error) {
  if (call.num_settings == 1 && call.settings[0] >= 1) return true;
  return error->Say("%s: settings must be [number of pieces >= 1]. Received: %lld settings%s", name,
                    static_cast<long long>(call.num_settings),
                    call.num_settings == 1 ? ", a number below 1" : "");
}

// One kernel for one instruction set. x, y, dy and dx have call.size() elements, y may be x and dx
// may be dy; params and dparams have call.groups * call.count; key has call.key_words words, for a
// kernel that draws random numbers, else it is not read. The functions return false if there is
// not enough memory.
struct CpuKernel {
  const char* name;
  bool random;
  // A pooling kernel: no parameters; settings[0] neighbours on an axis of x become one element of
  // y, see SetPoolView. x and dx have settings[0] * call.size() elements and alias nothing.
  bool pools;
  // Whether the call's settings and its number of parameters go together.
  bool (*check)(const Call& call, Error* error);
  bool (*forward)(const Call& call, const void* x, const void* params, const uint32_t* key,
                  void* y);
  bool (*backward)(const Call& call, const void* x, const void* params, const uint32_t* key,
                   const void* dy, void* dx, void* dparams);
};

// The instruction set that fits this processor, and the kernels of all.h for it.
const char* CpuTarget();
const CpuKernel* const* CpuKernels(int* count);

}  // namespace keras_learnact

#endif  // KERAS_LEARNACT_RUNTIME_CALL_H_
