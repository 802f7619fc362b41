// The ops of tf_ops.cc inside TensorFlow's XLA. Unlike those this uses TensorFlow's C++ interface,
// so the library fits the TensorFlow it was built for and no other.
//
// An op becomes one call of the handler that xla_ffi.cc registers under its name, on the CPU, or
// xla_ffi_cuda.cc, on CUDA.

#include <stdint.h>

#include <string>
#include <utility>
#include <vector>

#include "kernels/all.h"
#include "runtime/call.h"

// Half of what the headers below would read is for these two classes, of which they only need the
// names: it takes as long as all the rest.
#define TENSORFLOW_COMPILER_TF2XLA_XLA_COMPILER_H_
#define XLA_CLIENT_CLIENT_H_
namespace tensorflow {
class XlaCompiler;
}
namespace xla {
class Client;
}
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"

namespace keras_learnact {
namespace {

using tensorflow::DataType;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::XlaOpKernelContext;

constexpr char kPrefix[] = "KerasLearnact>";

// An input whose sizes are not known when XLA compiles, only their bounds: seen with the bounds as
// its sizes, and filled up with zeros.
struct Filled {
  xla::XlaOp op;
  xla::Shape shape;                                        // static
  std::vector<std::pair<int64_t, xla::XlaOp>> true_sizes;  // by axis
};

Filled Fill(xla::XlaOp op, const xla::Shape& shape) {
  Filled filled{op, shape, {}};
  if (shape.is_static()) return filled;
  const xla::XlaOp zero =
      xla::ConvertElementType(xla::ConstantR0<float>(op.builder(), 0), shape.element_type());
  for (int64_t axis = 0; axis < static_cast<int64_t>(shape.dimensions().size()); ++axis) {
    if (!shape.is_dynamic_dimension(axis)) continue;
    const xla::XlaOp size = xla::GetDimensionSize(filled.op, axis);
    filled.true_sizes.emplace_back(axis, size);
    filled.shape.set_dynamic_dimension(axis, false);
    filled.op = xla::RemoveDynamicDimension(filled.op, axis);
  }
  for (const auto& [axis, size] : filled.true_sizes) {
    const xla::Shape indices = xla::ShapeUtil::ChangeElementType(filled.shape, xla::S32);
    const xla::XlaOp inside = xla::Lt(xla::Iota(op.builder(), indices, axis), size);
    filled.op = xla::Select(inside, filled.op, xla::Broadcast(zero, filled.shape.dimensions()));
  }
  return filled;
}

// Whether an array is an argument of the whole program, reshaped or not.
bool IsArgument(xla::XlaOp op) {
  using xla::internal::XlaBuilderFriend;
  const xla::HloInstructionProto* made_by = XlaBuilderFriend::GetInstruction(op);
  while (made_by->opcode() == "reshape") {
    made_by = XlaBuilderFriend::GetInstructionByHandle(op.builder(), made_by->operand_ids(0));
  }
  return made_by->opcode() == "parameter";
}

class XlaKernel : public tensorflow::XlaOpKernel {
 public:
  XlaKernel(OpKernelConstruction* construction, bool gradient)
      : XlaOpKernel(construction), gradient_(gradient) {
    OP_REQUIRES_OK(construction, construction->GetAttr("axis", &axis_));
    OP_REQUIRES_OK(construction, construction->GetAttr("settings", &settings_));
  }

  void Compile(XlaOpKernelContext* context) override {
    const char* name = type_string().c_str();
    const bool pools = num_inputs() == (gradient_ ? 2 : 1);
    const int dy = num_inputs() - 1;
    Error error;
    Call call;
    std::vector<xla::XlaOp> operands;
    std::vector<xla::Shape> shapes;
    std::vector<std::pair<int64_t, xla::XlaOp>> true_sizes;
    for (int i = 0; i < num_inputs(); ++i) {
      auto shape = context->InputXlaShape(i);
      OP_REQUIRES_OK(context, shape.status());
      const Filled filled = Fill(context->Input(i), *shape);
      if (i == 0) true_sizes = filled.true_sizes;
      operands.push_back(filled.op);
      shapes.push_back(xla::ShapeUtil::MakeShapeWithDescendingLayout(
          filled.shape.element_type(), filled.shape.dimensions()));
    }

    const auto sizes = [&](int i) { return shapes[i].dimensions().data(); };
    const auto rank = [&](int i) { return static_cast<int64_t>(shapes[i].dimensions().size()); };
    xla::Shape y = shapes[0];
    const bool ok =
        pools ? SetPoolView(name, sizes(0), rank(0), axis_, settings_.empty() ? 0 : settings_[0],
                            &call, &error)
              : SetView(name, sizes(0), rank(0), axis_, sizes(1), rank(1), &call, &error);
    OP_REQUIRES(context, ok, absl::InvalidArgumentError(error.text));
    if (pools) y.set_dimensions(axis_, call.groups);
    // Zeros between an entry of that axis and the next do not change an element's group. They do
    // change its index, so a kernel that is random draws other numbers than outside of XLA.
    for (const auto& [axis, size] : true_sizes) {
      const bool groups_are_whole_channels =
          axis < axis_ || (axis > axis_ && (pools || sizes(0)[axis_] % call.groups == 0));
      OP_REQUIRES(context, groups_are_whole_channels || (!pools && call.groups == 1),
                  absl::InvalidArgumentError(absl::StrCat(
                      name, ": axis ", axis, " of x must be of known size inside XLA, or only the "
                            "axis of the groups be divided by them")));
    }
    if (gradient_) {
      OP_REQUIRES(context, xla::ShapeUtil::Compatible(shapes[dy], y),
                  absl::InvalidArgumentError(absl::StrCat(
                      name, ": dy must be of the shape and type of the output that it is the "
                            "gradient of")));
    }

    // dx takes the place of dy, which nothing else needs; of an argument of the whole program XLA
    // would make a copy first. y does not take the place of x: in training the gradient needs x.
    std::vector<std::pair<xla::ShapeIndex, std::pair<int64_t, xla::ShapeIndex>>> places;
    if (gradient_ && !pools && !IsArgument(operands[dy])) places.push_back({{0}, {dy, {}}});
    const bool two = gradient_ && !pools;
    const xla::Shape none = xla::ShapeUtil::MakeShape(xla::F32, {0});
    const xla::Shape result =
        xla::ShapeUtil::MakeTupleShape({gradient_ ? shapes[0] : y, two ? shapes[1] : none});
    const std::string target =
        absl::StrCat("keras_learnact.", type_string().substr(sizeof(kPrefix) - 1));
    const xla::XlaOp outputs = xla::CustomCallWithLayout(
        context->builder(), target, operands, result, shapes,
        absl::StrCat("{axis = ", axis_, " : i64, settings = array<i64",
                     settings_.empty() ? "" : ": ", absl::StrJoin(settings_, ", "), ">}"),
        /*has_side_effect=*/false, places, /*literal=*/nullptr,
        xla::CustomCallSchedule::SCHEDULE_NONE,
        xla::CustomCallApiVersion::API_VERSION_TYPED_FFI);
    xla::XlaOp first = xla::GetTupleElement(outputs, 0);
    for (const auto& [axis, size] : true_sizes) first = xla::SetDimensionSize(first, size, axis);
    context->SetOutput(0, first);
    if (two) context->SetOutput(1, xla::GetTupleElement(outputs, 1));
  }

 private:
  const bool gradient_;
  int64_t axis_;
  std::vector<int64_t> settings_;
};

template <bool kGradient>
OpKernel* Create(OpKernelConstruction* construction) {
  return new XlaKernel(construction, kGradient);
}

#define KLA_NAME(Kernel) #Kernel,
constexpr const char* kNames[] = {KERAS_LEARNACT_KERNELS(KLA_NAME)};

void RegisterInXla(const char* device) {
  for (const char* name : kNames) {
    const std::string op = absl::StrCat(kPrefix, name), gradient = absl::StrCat(op, "Grad");
    using tensorflow::KernelDefBuilder;
    using tensorflow::kernel_factory::OpKernelRegistrar;
    // They take effect when they are made, also in a process that has compiled before.
    OpKernelRegistrar(KernelDefBuilder(op.c_str()).Device(device).Build(), op, Create<false>);
    OpKernelRegistrar(KernelDefBuilder(gradient.c_str()).Device(device).Build(), gradient,
                      Create<true>);
  }
}

}  // namespace
}  // namespace keras_learnact

using namespace keras_learnact;

#define KLA_EXPORT extern "C" __attribute__((visibility("default")))

// Python looks for these words in the file before it loads it.
KLA_EXPORT const char* keras_learnact_tf_native_built_for() {
  return "keras_learnact for TensorFlow " KLA_TENSORFLOW_VERSION;
}

// Of this library's functions: another number where another Python module is needed.
KLA_EXPORT int keras_learnact_tf_native_interface() { return kInterface; }

KLA_EXPORT int keras_learnact_tf_native_kernels() { return sizeof(kNames) / sizeof(kNames[0]); }

KLA_EXPORT const char* keras_learnact_tf_native_name(int kernel) { return kNames[kernel]; }

// Makes the ops known to XLA on the CPU or, with 1, on CUDA: to be called once for each, when the
// handlers are registered there.
KLA_EXPORT void keras_learnact_tf_native_register(int cuda) {
  RegisterInXla(cuda ? "XLA_GPU_JIT" : "XLA_CPU_JIT");
}
