// The ops of tf_ops.cc on a GPU, outside of XLA: a part of the library tf_native where it is built
// with CUDA's headers, with EIGEN_USE_GPU and GOOGLE_CUDA. The kernels are those of the library
// cuda: nothing here is code for a GPU.

#include <stdint.h>

#include <string>
#include <vector>

#include "runtime/cuda.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace keras_learnact {
namespace {

using tensorflow::DataType;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

constexpr char kPrefix[] = "KerasLearnact>";

// Those of the library cuda.
const CudaKernel* const* all_kernels = nullptr;
int num_kernels = 0;

bool ReadDType(DataType type, DType* dtype) {
  switch (type) {
    case tensorflow::DT_FLOAT: *dtype = DType::kFloat32; return true;
    case tensorflow::DT_DOUBLE: *dtype = DType::kFloat64; return true;
    case tensorflow::DT_HALF: *dtype = DType::kFloat16; return true;
    case tensorflow::DT_BFLOAT16: *dtype = DType::kBFloat16; return true;
    default: return false;
  }
}

std::vector<int64_t> Sizes(const Tensor& tensor) {
  const auto sizes = tensor.shape().dim_sizes();
  return {sizes.begin(), sizes.end()};
}

void* Data(const Tensor& tensor) { return const_cast<char*>(tensor.tensor_data().data()); }

class GpuKernel : public OpKernel {
 public:
  GpuKernel(OpKernelConstruction* construction, bool gradient)
      : OpKernel(construction), gradient_(gradient) {
    OP_REQUIRES_OK(construction, construction->GetAttr("axis", &axis_));
    OP_REQUIRES_OK(construction, construction->GetAttr("settings", &settings_));
    std::string name = type_string().substr(sizeof(kPrefix) - 1);
    if (gradient) name.resize(name.size() - 4);  // Grad
    for (int i = 0; i < num_kernels; ++i) {
      if (name == all_kernels[i]->name) kernel_ = all_kernels[i];
    }
    OP_REQUIRES(construction, kernel_ != nullptr, absl::InternalError("no kernel " + name));
  }

  void Compute(OpKernelContext* context) override {
    const CudaKernel& kernel = *kernel_;
    const char* name = kernel.name;
    const int key_at = kernel.random ? 2 : -1, dy_at = gradient_ ? num_inputs() - 1 : -1;
    const Tensor& x = context->input(0);  // a copy of the handle would count as a holder
    const std::vector<int64_t> sizes = Sizes(x);
    TensorShape y_shape = x.shape(), params_shape;
    Error error;
    Call call;
    call.settings = settings_.data();
    call.num_settings = static_cast<int64_t>(settings_.size());
    bool ok = ReadDType(x.dtype(), &call.dtype) || error.Say("%s: x must be real numbers", name);
    if (ok && kernel.pools) {
      ok = SetPoolView(name, sizes.data(), x.dims(), axis_, settings_.empty() ? 0 : settings_[0],
                       &call, &error);
      if (ok) y_shape.set_dim(static_cast<int>(axis_), call.groups);
    } else if (ok) {
      params_shape = context->input(1).shape();
      const std::vector<int64_t> params_sizes = Sizes(context->input(1));
      const bool wide = context->input(1).dtype() == tensorflow::DT_DOUBLE;
      ok = SetView(name, sizes.data(), x.dims(), axis_, params_sizes.data(), params_shape.dims(),
                   &call, &error);
      if (ok && wide != (call.dtype == DType::kFloat64)) {
        ok = error.Say("%s: params must be float64 for a float64 x, else float32", name);
      }
    }
    if (ok && kernel.random) {
      const Tensor& key = context->input(key_at);
      call.key_words = static_cast<int>(key.NumElements());
      if (key.dims() != 1 || (call.key_words != 2 && call.key_words != 4)) {
        ok = error.Say("%s: key must be int32 of shape [2] or [4]", name);
      }
    }
    if (ok && gradient_ && context->input(dy_at).shape() != y_shape) {
      ok = error.Say("%s: dy must be of the shape of the output that it is the gradient of", name);
    }
    ok = ok && kernel.check(call, &error);
    OP_REQUIRES(context, ok, absl::InvalidArgumentError(error.text));
    Run(context, call, gradient_ ? x.shape() : y_shape, params_shape, key_at, dy_at);
  }

 private:
  void Run(OpKernelContext* context, const Call& call, const TensorShape& shape,
           const TensorShape& params_shape, int key_at, int dy_at) {
    const CudaKernel& kernel = *kernel_;
    Tensor *out = nullptr, *dparams = nullptr, scratch;
    // y takes the memory of x, or dx that of dy, if nobody else holds it.
    const int reusable = gradient_ ? dy_at : 0;
    if (kernel.pools) {
      OP_REQUIRES_OK(context, context->allocate_output(0, shape, &out));
    } else {
      OP_REQUIRES_OK(context,
                     context->forward_input_or_allocate_output({reusable}, 0, shape, &out));
    }
    if (gradient_) {
      if (!kernel.pools) {
        OP_REQUIRES_OK(context, context->allocate_output(1, params_shape, &dparams));
      }
      const int64_t bytes = kernel.scratch_bytes(call);
      OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes}),
                                                     &scratch));
    }
    const void* x = Data(context->input(0));
    const void* params = kernel.pools ? nullptr : Data(context->input(1));
    const auto* key =
        kernel.random ? static_cast<const uint32_t*>(Data(context->input(key_at))) : nullptr;
    void* stream = context->eigen_gpu_device().stream();
    Error error;
    const bool ok =
        gradient_ ? kernel.backward(call, x, params, key, Data(context->input(dy_at)), Data(*out),
                                    dparams ? Data(*dparams) : nullptr, Data(scratch), stream,
                                    &error)
                  : kernel.forward(call, x, params, key, Data(*out), stream, &error);
    OP_REQUIRES(context, ok, absl::InternalError(error.text));
  }

  const bool gradient_;
  const CudaKernel* kernel_ = nullptr;
  int64_t axis_;
  std::vector<int64_t> settings_;
};

template <bool kGradient>
OpKernel* Create(OpKernelConstruction* construction) {
  return new GpuKernel(construction, kGradient);
}

}  // namespace
}  // namespace keras_learnact

// Makes the ops known on GPUs, once. `kernels` is what keras_learnact_cuda_all gives.
extern "C" __attribute__((visibility("default"))) void keras_learnact_tf_native_register_gpu(
    const void* kernels, int count) {
  using namespace keras_learnact;
  using tensorflow::KernelDefBuilder;
  using tensorflow::kernel_factory::OpKernelRegistrar;
  all_kernels = static_cast<const CudaKernel* const*>(kernels);
  num_kernels = count;
  for (int i = 0; i < count; ++i) {
    const std::string op = std::string(kPrefix) + all_kernels[i]->name, gradient = op + "Grad";
    OpKernelRegistrar(KernelDefBuilder(op.c_str()).Device(tensorflow::DEVICE_GPU).Build(), op,
                      Create<false>);
    OpKernelRegistrar(KernelDefBuilder(gradient.c_str()).Device(tensorflow::DEVICE_GPU).Build(),
                      gradient, Create<true>);
  }
}
