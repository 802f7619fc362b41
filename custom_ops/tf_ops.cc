// The TensorFlow ops of all kernels and their CPU kernels, through TensorFlow's C API alone, whose
// functions keep their form from version to version: one library runs on all of them.
//
//   KerasLearnact>SomeName      x: T, params: P, [key: int32]         -> y: T
//   KerasLearnact>SomeNameGrad  x: T, params: P, [key: int32], dy: T  -> dx: T, dparams: P
//
// key is there if the kernel draws random numbers. A pooling kernel has no params. The attributes
// are axis and settings, see runtime/call.h; anything may stand in them, and any shape may come.

#include <stdint.h>
#include <string.h>

#include <string>
#include <utility>
#include <vector>

#include "kernels/all.h"
#include "runtime/call.h"
#include "runtime/pool.h"

// The part of tensorflow/c/{ops,kernels,tf_tensor,tf_status,tf_datatype}.h that is used here.
extern "C" {
typedef struct TF_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_ShapeHandle TF_ShapeHandle;
typedef struct TF_KernelBuilder TF_KernelBuilder;
typedef struct TF_OpKernelConstruction TF_OpKernelConstruction;
typedef struct TF_OpKernelContext TF_OpKernelContext;
typedef enum { TF_FLOAT = 1, TF_DOUBLE = 2, TF_INT32 = 3, TF_BFLOAT16 = 14, TF_HALF = 19 }
    TF_DataType;
typedef enum { TF_OK = 0, TF_INVALID_ARGUMENT = 3, TF_RESOURCE_EXHAUSTED = 8 } TF_Code;

TF_Status* TF_NewStatus(void);
void TF_DeleteStatus(TF_Status*);
void TF_SetStatus(TF_Status*, TF_Code, const char* message);
TF_Code TF_GetCode(const TF_Status*);
const char* TF_Message(const TF_Status*);

void TF_DeleteTensor(TF_Tensor*);
TF_DataType TF_TensorType(const TF_Tensor*);
int TF_NumDims(const TF_Tensor*);
int64_t TF_Dim(const TF_Tensor*, int);
void* TF_TensorData(const TF_Tensor*);

TF_OpDefinitionBuilder* TF_NewOpDefinitionBuilder(const char* name);
void TF_RegisterOpDefinition(TF_OpDefinitionBuilder*, TF_Status*);
void TF_OpDefinitionBuilderAddAttr(TF_OpDefinitionBuilder*, const char*);
void TF_OpDefinitionBuilderAddInput(TF_OpDefinitionBuilder*, const char*);
void TF_OpDefinitionBuilderAddOutput(TF_OpDefinitionBuilder*, const char*);
void TF_OpDefinitionBuilderSetShapeInferenceFunction(
    TF_OpDefinitionBuilder*, void (*)(TF_ShapeInferenceContext*, TF_Status*));

TF_ShapeHandle* TF_NewShapeHandle();
void TF_DeleteShapeHandle(TF_ShapeHandle*);
void TF_ShapeInferenceContextGetInput(TF_ShapeInferenceContext*, int, TF_ShapeHandle*, TF_Status*);
void TF_ShapeInferenceContextSetOutput(TF_ShapeInferenceContext*, int, TF_ShapeHandle*,
                                       TF_Status*);
void TF_ShapeInferenceContextSetUnknownShape(TF_ShapeInferenceContext*, TF_Status*);
void TF_ShapeInferenceContext_GetAttrType(TF_ShapeInferenceContext*, const char*, TF_DataType*,
                                          TF_Status*);
int64_t TF_ShapeInferenceContextRank(TF_ShapeInferenceContext*, TF_ShapeHandle*);
int TF_ShapeInferenceContextRankKnown(TF_ShapeInferenceContext*, TF_ShapeHandle*);

TF_KernelBuilder* TF_NewKernelBuilder(const char* op, const char* device,
                                      void* (*create)(TF_OpKernelConstruction*),
                                      void (*compute)(void*, TF_OpKernelContext*),
                                      void (*destroy)(void*));
void TF_RegisterKernelBuilder(const char* name, TF_KernelBuilder*, TF_Status*);
void TF_OpKernelConstruction_GetAttrInt64(TF_OpKernelConstruction*, const char*, int64_t*,
                                          TF_Status*);
void TF_OpKernelConstruction_GetAttrSize(TF_OpKernelConstruction*, const char*, int32_t* list_size,
                                         int32_t* total_size, TF_Status*);
void TF_OpKernelConstruction_GetAttrInt64List(TF_OpKernelConstruction*, const char*, int64_t*,
                                              int max_values, TF_Status*);
void TF_OpKernelConstruction_Failure(TF_OpKernelConstruction*, TF_Status*);
void TF_OpKernelContext_Failure(TF_OpKernelContext*, TF_Status*);
void TF_GetInput(TF_OpKernelContext*, int, TF_Tensor**, TF_Status*);
TF_Tensor* TF_ForwardInputOrAllocateOutput(TF_OpKernelContext*, const int* candidates,
                                           int num_candidates, int output, const int64_t* sizes,
                                           int rank, int* forwarded, TF_Status*);
}

namespace keras_learnact {
namespace {

#define KLA_ONE(Kernel) +1
constexpr int kNumKernels = KERAS_LEARNACT_KERNELS(KLA_ONE);

const CpuKernel& KernelAt(int i) {
  int count;
  return *CpuKernels(&count)[i];
}

constexpr int kMostDimensions = 254;  // of a TensorFlow shape
constexpr int kMostSettings = 4096;   // more than any kernel reads; a call may come from a file

struct Status {
  TF_Status* const status = TF_NewStatus();
  Status() = default;
  Status(const Status&) = delete;
  ~Status() { TF_DeleteStatus(status); }
  bool ok() const { return TF_GetCode(status) == TF_OK; }
  // Always false, so that a check can end with it.
  bool Set(TF_Code code, const char* message) {
    TF_SetStatus(status, code, message);
    return false;
  }
};

struct Tensor {
  TF_Tensor* tensor = nullptr;
  Tensor() = default;
  Tensor(const Tensor&) = delete;
  ~Tensor() { Drop(); }
  void Drop() {
    if (tensor != nullptr) TF_DeleteTensor(tensor);
    tensor = nullptr;
  }
  bool Get(TF_OpKernelContext* context, int input, Status* status) {
    Drop();
    TF_GetInput(context, input, &tensor, status->status);
    return status->ok();
  }
  bool ShapeIs(const int64_t* sizes, int rank) const {
    if (TF_NumDims(tensor) != rank) return false;
    for (int i = 0; i < rank; ++i) {
      if (TF_Dim(tensor, i) != sizes[i]) return false;
    }
    return true;
  }
  void* data() const { return TF_TensorData(tensor); }
};

// One node of a graph: what its attributes say.
struct Node {
  const CpuKernel* kernel;
  bool gradient;
  int64_t axis;
  std::vector<int64_t> settings;
};

bool ReadAttributes(TF_OpKernelConstruction* construction, Node* node, Status* status) {
  TF_OpKernelConstruction_GetAttrInt64(construction, "axis", &node->axis, status->status);
  if (!status->ok()) return false;
  int32_t size = 0, unused = 0;
  TF_OpKernelConstruction_GetAttrSize(construction, "settings", &size, &unused, status->status);
  if (!status->ok()) return false;
  if (size < 0 || size > kMostSettings) {
    Error error;
    error.Say("%s: settings must be at most %d numbers. Received: %d", node->kernel->name,
              kMostSettings, size);
    return status->Set(TF_INVALID_ARGUMENT, error.text);
  }
  node->settings.resize(size);
  if (size > 0) {
    TF_OpKernelConstruction_GetAttrInt64List(construction, "settings", node->settings.data(), size,
                                             status->status);
  }
  return status->ok();
}

template <int kIndex, bool kGradient>
void* Create(TF_OpKernelConstruction* construction) {
  Node* node = new Node{&KernelAt(kIndex), kGradient, 0, {}};
  Status status;
  if (!ReadAttributes(construction, node, &status)) {
    TF_OpKernelConstruction_Failure(construction, status.status);
    delete node;
    return nullptr;
  }
  return node;
}

void Destroy(void* node) { delete static_cast<Node*>(node); }

bool ReadDType(TF_DataType type, DType* dtype) {
  switch (type) {
    case TF_FLOAT: *dtype = DType::kFloat32; return true;
    case TF_DOUBLE: *dtype = DType::kFloat64; return true;
    case TF_HALF: *dtype = DType::kFloat16; return true;
    case TF_BFLOAT16: *dtype = DType::kBFloat16; return true;
    default: return false;
  }
}

TF_DataType ParamsType(DType dtype) { return dtype == DType::kFloat64 ? TF_DOUBLE : TF_FLOAT; }

// Of a node's inputs. -1: it has none of these.
struct Inputs {
  explicit Inputs(const Node& node)
      : params(node.kernel->pools ? -1 : 1),
        key(node.kernel->random ? 2 : -1),
        dy(node.gradient ? (node.kernel->pools ? 1 : node.kernel->random ? 3 : 2) : -1) {}
  const int params, key, dy;
};

bool Run(const Node& node, TF_OpKernelContext* context, Status* status) {
  const CpuKernel& kernel = *node.kernel;
  const char* name = kernel.name;
  const Inputs inputs(node);
  Error error;
  const auto invalid = [&] { return status->Set(TF_INVALID_ARGUMENT, error.text); };

  Tensor x, params, key, dy;
  if (!x.Get(context, 0, status)) return false;
  Call call;
  call.settings = node.settings.data();
  call.num_settings = static_cast<int64_t>(node.settings.size());
  const int rank = TF_NumDims(x.tensor);
  if (!ReadDType(TF_TensorType(x.tensor), &call.dtype) || rank < 0 || rank > kMostDimensions) {
    error.Say("%s: x must be a tensor of real numbers. Received: type %d, rank %d", name,
              TF_TensorType(x.tensor), rank);
    return invalid();
  }
  int64_t x_sizes[kMostDimensions], y_sizes[kMostDimensions], params_sizes[2] = {0, 0};
  for (int i = 0; i < rank; ++i) y_sizes[i] = x_sizes[i] = TF_Dim(x.tensor, i);

  if (kernel.pools) {
    if (call.num_settings < 1) {
      error.Say("%s: settings must begin with the number of pieces. Received: none", name);
      return invalid();
    }
    if (!SetPoolView(name, x_sizes, rank, node.axis, call.settings[0], &call, &error)) {
      return invalid();
    }
    y_sizes[node.axis] = call.groups;
  } else {
    if (!params.Get(context, inputs.params, status)) return false;
    if (TF_TensorType(params.tensor) != ParamsType(call.dtype)) {
      error.Say("%s: params must be float64 for a float64 x, else float32", name);
      return invalid();
    }
    const int params_rank = TF_NumDims(params.tensor);
    for (int i = 0; i < 2 && i < params_rank; ++i) params_sizes[i] = TF_Dim(params.tensor, i);
    if (!SetView(name, x_sizes, rank, node.axis, params_sizes, params_rank, &call, &error)) {
      return invalid();
    }
  }
  if (kernel.random) {
    if (!key.Get(context, inputs.key, status)) return false;
    const int64_t words = TF_NumDims(key.tensor) == 1 ? TF_Dim(key.tensor, 0) : 0;
    if ((words != 2 && words != 4) || TF_TensorType(key.tensor) != TF_INT32) {
      error.Say("%s: key must be int32 of shape [2] or [4]", name);
      return invalid();
    }
    call.key_words = static_cast<int>(words);
  }
  if (node.gradient) {
    if (!dy.Get(context, inputs.dy, status)) return false;
    if (!dy.ShapeIs(y_sizes, rank) || TF_TensorType(dy.tensor) != TF_TensorType(x.tensor)) {
      error.Say("%s: dy must be of the shape and type of the output that it is the gradient of",
                name);
      return invalid();
    }
  }
  if (!kernel.check(call, &error)) return invalid();

  // The output takes the memory of x, or that of dy, if nobody else holds it: TensorFlow counts,
  // and a handle of ours counts too.
  Tensor out, dparams;
  int forwarded;
  const int reusable = node.gradient ? inputs.dy : 0;
  (node.gradient ? dy : x).Drop();
  out.tensor = TF_ForwardInputOrAllocateOutput(context, &reusable, kernel.pools ? 0 : 1, 0,
                                               node.gradient ? x_sizes : y_sizes, rank, &forwarded,
                                               status->status);
  if (!status->ok() || !(node.gradient ? dy : x).Get(context, reusable, status)) return false;
  if (node.gradient && !kernel.pools) {
    dparams.tensor = TF_ForwardInputOrAllocateOutput(context, nullptr, 0, 1, params_sizes, 2,
                                                     &forwarded, status->status);
    if (!status->ok()) return false;
  }

  const void* params_data = kernel.pools ? nullptr : params.data();
  const uint32_t* key_data = kernel.random ? static_cast<const uint32_t*>(key.data()) : nullptr;
  const bool enough_memory =
      node.gradient
          ? kernel.backward(call, x.data(), params_data, key_data, dy.data(), out.data(),
                            kernel.pools ? nullptr : dparams.data())
          : kernel.forward(call, x.data(), params_data, key_data, out.data());
  return enough_memory ||
         status->Set(TF_RESOURCE_EXHAUSTED, "not enough memory for the sums of the gradient");
}

void Compute(void* node, TF_OpKernelContext* context) {
  Status status;
  if (!Run(*static_cast<const Node*>(node), context, &status)) {
    TF_OpKernelContext_Failure(context, status.status);
  }
}

struct Shape {
  TF_ShapeHandle* const handle = TF_NewShapeHandle();
  Shape() = default;
  Shape(const Shape&) = delete;
  ~Shape() { TF_DeleteShapeHandle(handle); }
};

// Whatever is known of an input's rank must be this.
bool HasRank(TF_ShapeInferenceContext* context, const char* name, Shape* shape, int64_t rank,
             TF_Status* status) {
  if (!TF_ShapeInferenceContextRankKnown(context, shape->handle)) return true;
  const int64_t known = TF_ShapeInferenceContextRank(context, shape->handle);
  if (known == rank) return true;
  Error error;
  error.Say("%s must be of rank %lld. Received: rank %lld", name, static_cast<long long>(rank),
            static_cast<long long>(known));
  TF_SetStatus(status, TF_INVALID_ARGUMENT, error.text);
  return false;
}

// y is as x; dx is as x, dparams as params. Of a pooling kernel's y the C API, which cannot read
// `axis` here, can only say nothing.
template <bool kRandom, bool kPools, bool kGradient>
void InferShapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_SetStatus(status, TF_OK, "");
  const auto get = [&](int input, Shape* shape) {
    TF_ShapeInferenceContextGetInput(context, input, shape->handle, status);
    return TF_GetCode(status) == TF_OK;
  };
  Shape x, params, key, dy;
  if (!get(0, &x)) return;
  if (kPools && !kGradient) {
    TF_ShapeInferenceContextSetUnknownShape(context, status);
    return;
  }
  if (!kPools) {
    TF_DataType x_type, params_type;
    TF_ShapeInferenceContext_GetAttrType(context, "T", &x_type, status);
    if (TF_GetCode(status) != TF_OK) return;
    TF_ShapeInferenceContext_GetAttrType(context, "P", &params_type, status);
    if (TF_GetCode(status) != TF_OK) return;
    if ((x_type == TF_DOUBLE) != (params_type == TF_DOUBLE)) {
      TF_SetStatus(status, TF_INVALID_ARGUMENT,
                   "params must be float64 for a float64 x, else float32");
      return;
    }
    if (!get(1, &params) || !HasRank(context, "params", &params, 2, status)) return;
  }
  if (kRandom && (!get(2, &key) || !HasRank(context, "key", &key, 1, status))) return;
  if (kGradient) {
    if (!get(kPools ? 1 : kRandom ? 3 : 2, &dy)) return;
    if (TF_ShapeInferenceContextRankKnown(context, x.handle) &&
        !HasRank(context, "dy", &dy, TF_ShapeInferenceContextRank(context, x.handle), status)) {
      return;
    }
  }
  TF_ShapeInferenceContextSetOutput(context, 0, x.handle, status);
  if (kGradient && !kPools && TF_GetCode(status) == TF_OK) {
    TF_ShapeInferenceContextSetOutput(context, 1, params.handle, status);
  }
}

template <bool kGradient>
void (*ShapeFunction(const CpuKernel& kernel))(TF_ShapeInferenceContext*, TF_Status*) {
  if (kernel.pools) return InferShapes<false, true, kGradient>;
  return kernel.random ? InferShapes<true, false, kGradient> : InferShapes<false, false, kGradient>;
}

// What TensorFlow says while the ops are registered; no news is good news.
std::string& RegistrationErrors() {
  static std::string* const errors = new std::string;
  return *errors;
}

template <int kIndex, bool kGradient>
void RegisterOp() {
  const CpuKernel& kernel = KernelAt(kIndex);
  const std::string name = std::string("KerasLearnact>") + kernel.name + (kGradient ? "Grad" : "");
  Status status;

  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder(name.c_str());
  TF_OpDefinitionBuilderAddInput(op, "x: T");
  if (!kernel.pools) TF_OpDefinitionBuilderAddInput(op, "params: P");
  if (kernel.random) TF_OpDefinitionBuilderAddInput(op, "key: int32");
  if (kGradient) TF_OpDefinitionBuilderAddInput(op, "dy: T");
  TF_OpDefinitionBuilderAddOutput(op, kGradient ? "dx: T" : "y: T");
  if (kGradient && !kernel.pools) TF_OpDefinitionBuilderAddOutput(op, "dparams: P");
  TF_OpDefinitionBuilderAddAttr(op, "T: {float, double, half, bfloat16}");
  if (!kernel.pools) TF_OpDefinitionBuilderAddAttr(op, "P: {float, double}");
  TF_OpDefinitionBuilderAddAttr(op, "axis: int >= 0");
  TF_OpDefinitionBuilderAddAttr(op, "settings: list(int)");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(op, ShapeFunction<kGradient>(kernel));
  TF_RegisterOpDefinition(op, status.status);
  if (!status.ok()) RegistrationErrors() += TF_Message(status.status);

  TF_KernelBuilder* builder = TF_NewKernelBuilder(name.c_str(), "CPU", &Create<kIndex, kGradient>,
                                                  &Compute, &Destroy);
  TF_RegisterKernelBuilder(name.c_str(), builder, status.status);
  if (!status.ok()) RegistrationErrors() += TF_Message(status.status);
}

template <int... kIndices>
bool RegisterAll(std::integer_sequence<int, kIndices...>) {
  ((RegisterOp<kIndices, false>(), RegisterOp<kIndices, true>()), ...);
  return true;
}

const bool registered = RegisterAll(std::make_integer_sequence<int, kNumKernels>());

}  // namespace
}  // namespace keras_learnact

// What Python calls. Kernels are numbered from 0.

using namespace keras_learnact;

#define KLA_EXPORT extern "C" __attribute__((visibility("default")))

// Of these functions and of the ops: another number where another Python module is needed.
KLA_EXPORT int keras_learnact_tf_interface() { return kInterface; }

KLA_EXPORT int keras_learnact_tf_kernels() { return kNumKernels; }

KLA_EXPORT const char* keras_learnact_tf_name(int kernel) { return KernelAt(kernel).name; }

KLA_EXPORT int keras_learnact_tf_random(int kernel) { return KernelAt(kernel).random; }

KLA_EXPORT int keras_learnact_tf_pools(int kernel) { return KernelAt(kernel).pools; }

// What is wrong with these settings and this number of parameters: fills `text`, which is empty if
// nothing is.
KLA_EXPORT void keras_learnact_tf_check(int kernel, int64_t count, const int64_t* settings,
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

// What TensorFlow said against the ops while they were registered, or "".
KLA_EXPORT const char* keras_learnact_tf_errors() { return RegistrationErrors().c_str(); }

// The instruction set in use.
KLA_EXPORT const char* keras_learnact_tf_target() { return CpuTarget(); }

// Sets the number of threads if it is at least 1; returns it.
KLA_EXPORT int keras_learnact_tf_threads(int count) {
  if (count >= 1) SetNumThreads(count);
  return NumThreads();
}
