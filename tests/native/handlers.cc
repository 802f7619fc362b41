// Calls XLA's handlers of every kernel and its gradient with call frames at random: hostile ones,
// such as come from a damaged file, must be refused, others must give the bits of the kernel called
// by hand for each entry of the batch. Arrays, and the lists of their sizes, end where their memory
// ends, and it is built with sanitizers (`make sanitize`). Of what kernels compute see fuzz.cc.
//
//   handlers [SECONDS [SEED [FIRST]]]    FIRST: the number of a call, as a failure names it

#include <algorithm>
#include <memory>
#include <string>

#include "fuzzing.h"
#include "runtime/pool.h"
#include "xla/ffi/api/c_api.h"

extern "C" void* keras_learnact_xla_handler(int kernel, int gradient);

// XLA's own, of which handlers see the name alone.
struct XLA_FFI_Error {
  std::string text;
};

namespace keras_learnact {
namespace {

constexpr int64_t kMost = 1 << 17;       // elements of an array that is really there
constexpr double kAny = INT64_MAX / 16;  // elements of any array that a handler may take

using Sizes = std::vector<int64_t>;

struct Array {
  XLA_FFI_DataType type;
  Sizes sizes;
  bool is_array = true;  // XLA may come to have other kinds of arguments

  bool operator==(const Array& other) const { return type == other.type && sizes == other.sizes; }
  bool is_negative() const {
    return std::any_of(sizes.begin(), sizes.end(), [](int64_t size) { return size < 0; });
  }
  // Of small arrays it is exact, and it never overflows.
  double elements() const {
    double product = 1;
    for (int64_t size : sizes) product *= static_cast<double>(size);
    return product;
  }
  int64_t bytes() const {
    const bool half = type == XLA_FFI_DataType_F16 || type == XLA_FFI_DataType_BF16;
    return static_cast<int64_t>(elements()) * (type == XLA_FFI_DataType_F64 ? 8 : half ? 2 : 4);
  }
  // Whether the handler is given memory; else it is an address where there is none.
  bool is_there() const { return elements() <= kMost && !is_negative(); }
};

struct Frame {
  const CpuKernel* kernel;
  bool gradient;
  std::vector<Array> arguments, results;
  int64_t axis;
  Sizes settings;
};

// Those of which something is known: not a result that is none.
std::vector<const Array*> UsedArrays(const Frame& frame) {
  std::vector<const Array*> used;
  for (const Array& array : frame.arguments) used.push_back(&array);
  const bool second = frame.gradient && !frame.kernel->pools;
  for (size_t i = 0; i < frame.results.size(); ++i) {
    if (i != 1 || second) used.push_back(&frame.results[i]);
  }
  return used;
}

std::string TextOf(const Frame& frame) {
  std::string text = frame.kernel->name;
  if (frame.gradient) text += "Grad";
  text += ", axis " + std::to_string(frame.axis) + ", settings";
  for (int64_t setting : frame.settings) text += " " + std::to_string(setting);
  for (const auto* arrays : {&frame.arguments, &frame.results}) {
    text += arrays == &frame.results ? " ->" : ":";
    for (const Array& array : *arrays) {
      text += array.is_array ? " type " : " no array, type ";
      text += std::to_string(array.type) + "[";
      for (int64_t size : array.sizes) text += " " + std::to_string(size);
      text += " ]";
    }
  }
  return text;
}

int64_t SomeSize(Random* random) {
  constexpr int64_t kSizes[] = {0, 1, 1, 2, 2, 3, 4, 5, 7, 8, 16, 17, 33, 64, 100, 300};
  return random->Of(kSizes);
}

// What a handler takes, if nothing in it is hostile.
Frame SomeGoodFrame(const CpuKernel& kernel, bool gradient, const Setup& setup, Random* random) {
  Frame frame{&kernel, gradient, {}, {}, 0, setup.settings};
  const int64_t batch_axes = kernel.pools || random->OneIn(2) ? 0 : random->Below(4);
  const int64_t axes = random->Below(4) + (kernel.pools ? 1 : 0);
  Sizes sizes;
  int64_t elements = 1;
  for (int64_t i = 0; i < batch_axes + axes; ++i) {
    sizes.push_back(SomeSize(random));
    if (elements * sizes.back() > kMost / (random->OneIn(8) ? 1 : 32)) sizes.back() = 1;
    elements *= sizes.back();
  }
  if (random->OneIn(8)) {
    for (int64_t& size : sizes) {
      if (random->OneIn(2)) size = random->Of(kHostile);
    }
  }
  frame.axis = batch_axes + random->Below(axes + (kernel.pools ? 0 : 1));

  constexpr XLA_FFI_DataType kTypes[] = {XLA_FFI_DataType_F32, XLA_FFI_DataType_F64,
                                         XLA_FFI_DataType_F16, XLA_FFI_DataType_BF16};
  const XLA_FFI_DataType type = random->Of(kTypes);
  Array x{type, sizes}, y = x;
  if (kernel.pools) {
    const int64_t pieces = setup.settings[0];
    int64_t& pooled = x.sizes[frame.axis];
    if (pieces < 0 || __builtin_mul_overflow(pooled, pieces, &pooled)) pooled = 0;
  }
  frame.arguments = {x};
  const Sizes batch(sizes.begin(), sizes.begin() + batch_axes);
  Array params{type == XLA_FFI_DataType_F64 ? type : XLA_FFI_DataType_F32, batch};
  if (!kernel.pools) {
    int64_t groups = 1;
    if (random->OneIn(2)) {
      for (size_t i = frame.axis; i < sizes.size(); ++i) {
        if (__builtin_mul_overflow(groups, sizes[i], &groups) || random->OneIn(2)) break;
      }
    }
    if (groups < 1) groups = 1 + random->Below(3);
    if (groups % 2 == 0 && random->OneIn(3)) groups /= 2;
    params.sizes.insert(params.sizes.end(), {groups, setup.count});
    frame.arguments.push_back(params);
  }
  if (kernel.random) {
    Array key{XLA_FFI_DataType_S32, random->OneIn(2) ? batch : Sizes{}};
    key.sizes.push_back(random->OneIn(2) ? 2 : 4);
    frame.arguments.push_back(key);
  }
  const Array none{XLA_FFI_DataType_F32, {0}};
  if (frame.gradient) {
    frame.arguments.push_back(y);
    frame.results = {x, kernel.pools ? none : params};
  } else {
    frame.results = {y, none};
  }
  return frame;
}

void MakeHostile(Frame* frame, Random* random) {
  std::vector<Array>& arrays = random->OneIn(3) ? frame->results : frame->arguments;
  Array* array = arrays.empty() ? nullptr : &arrays[random->Below(arrays.size())];
  const int64_t kind = random->Below(8);
  if (kind == 0) {
    const int64_t rank = arrays.empty() ? 0 : static_cast<int64_t>(array->sizes.size());
    frame->axis = random->OneIn(2) ? random->Of(kHostile) : random->Below(rank + 5) - 2;
  } else if (kind == 1) {
    if (random->OneIn(2)) frame->settings.resize(random->Below(9), 'A');
    for (int64_t& setting : frame->settings) {
      if (random->OneIn(2)) setting = SomeSetting(random);
    }
  } else if (kind == 2) {
    if (array != nullptr && random->OneIn(2)) {
      arrays.erase(arrays.begin() + (array - arrays.data()));
    } else {
      arrays.push_back(array != nullptr ? Array(*array) : Array{XLA_FFI_DataType_F32, {2}});
    }
  } else if (array == nullptr) {
    return;
  } else if (kind == 3) {
    constexpr int kTypes[] = {0, 1, 4, 5, 8, 10, 11, 12, 15, 16, 17, 19, 33, 1000, -1};
    array->type = static_cast<XLA_FFI_DataType>(random->Of(kTypes));
  } else if (kind == 4) {
    const auto at = array->sizes.begin() + random->Below(array->sizes.size() + 1);
    array->sizes.insert(at, random->OneIn(3) ? SomeSize(random) : 1);
  } else if (kind == 5 && random->OneIn(8)) {
    array->is_array = false;
  } else if (kind == 5 && !array->sizes.empty()) {
    array->sizes.erase(array->sizes.begin() + random->Below(array->sizes.size()));
  } else if (!array->sizes.empty()) {
    array->sizes[random->Below(array->sizes.size())] =
        random->OneIn(2) ? random->Of(kHostile) : SomeSize(random);
  }
}

// What the frame says, if it is a good one; x is [batch, outer, groups, inner].
struct View {
  Call call;
  int64_t batch = 1, pieces = 1;
  bool own_keys = false;
};

// Whether it is good, as xla_handlers.h describes it, arrays of impossible sizes included; then
// fills the view, of a frame whose arrays are all there.
bool Good(const Frame& frame, View* view) {
  const CpuKernel& kernel = *frame.kernel;
  const size_t count = 1 + !kernel.pools + kernel.random + frame.gradient;
  if (frame.arguments.size() != count || frame.results.size() != 2) return false;
  for (const auto* arrays : {&frame.arguments, &frame.results}) {
    for (const Array& array : *arrays) {
      if (!array.is_array) return false;
    }
  }
  bool all_there = true;
  for (const Array* array : UsedArrays(frame)) {
    if (array->is_negative()) return false;
    all_there = all_there && array->is_there();
  }
  const Array& x = frame.arguments[0];
  const auto rank = static_cast<int64_t>(x.sizes.size());
  Call& call = view->call;
  call.outer = call.groups = call.inner = 1;
  call.settings = frame.settings.data();
  call.num_settings = static_cast<int64_t>(frame.settings.size());
  switch (x.type) {
    case XLA_FFI_DataType_F32: call.dtype = DType::kFloat32; break;
    case XLA_FFI_DataType_F64: call.dtype = DType::kFloat64; break;
    case XLA_FFI_DataType_F16: call.dtype = DType::kFloat16; break;
    case XLA_FFI_DataType_BF16: call.dtype = DType::kBFloat16; break;
    default: return false;
  }
  Array y = x;
  int64_t batch_axes = 0;
  if (kernel.pools) {
    if (frame.axis < 0 || frame.axis >= rank || frame.settings.size() != 1) return false;
    view->pieces = frame.settings[0];
    if (view->pieces < 1 || x.sizes[frame.axis] % view->pieces != 0) return false;
    y.sizes[frame.axis] /= view->pieces;
    call.groups = y.sizes[frame.axis];
  } else {
    const Array& params = frame.arguments[1];
    batch_axes = static_cast<int64_t>(params.sizes.size()) - 2;
    if (params.type != (x.type == XLA_FFI_DataType_F64 ? x.type : XLA_FFI_DataType_F32) ||
        batch_axes < 0 || batch_axes > rank || frame.axis < batch_axes || frame.axis > rank ||
        !std::equal(x.sizes.begin(), x.sizes.begin() + batch_axes, params.sizes.begin())) {
      return false;
    }
    call.groups = params.sizes[batch_axes];
    call.count = params.sizes[batch_axes + 1];
    if (call.groups < 1) return false;
    __int128 rest = 1;  // of the covered elements, divided by the groups
    for (int64_t i = frame.axis; i < rank; ++i) {
      rest = rest * (x.sizes[i] % call.groups) % call.groups;
    }
    if (rest % call.groups != 0) return false;
    if (frame.gradient && !(frame.results[1] == params)) return false;
  }
  Error error;
  if (!kernel.check(call, &error)) return false;
  if (kernel.random) {
    const Array& key = frame.arguments[2];
    Sizes own(x.sizes.begin(), x.sizes.begin() + batch_axes);
    if (key.type != XLA_FFI_DataType_S32 || key.sizes.empty()) return false;
    call.key_words = static_cast<int>(key.sizes.back());
    own.push_back(key.sizes.back());
    view->own_keys = key.sizes == own;
    if (!view->own_keys && key.sizes.size() != 1) return false;
    if (key.sizes.back() != 2 && key.sizes.back() != 4) return false;
  }
  if (!(frame.results[0] == (frame.gradient ? x : y))) return false;
  if (frame.gradient && !(frame.arguments.back() == y)) return false;
  if (!all_there) return true;

  double outer = 1, inner = 1, batch = 1;
  for (int64_t i = 0; i < rank; ++i) {
    double& product = i < batch_axes ? batch : i < frame.axis ? outer : inner;
    if (!kernel.pools || i != frame.axis) product *= static_cast<double>(x.sizes[i]);
  }
  if (!kernel.pools) inner /= static_cast<double>(call.groups);
  // Beside a 0 the others may be of any size.
  view->batch = static_cast<int64_t>(std::min<double>(batch, INT64_MAX / 2));
  if (outer == 0 || inner == 0) outer = inner = 0;
  if (kernel.pools && call.groups == 0) outer = inner = 0;
  call.outer = batch == 0 ? 0 : static_cast<int64_t>(outer);
  call.inner = batch == 0 ? 0 : static_cast<int64_t>(inner);
  return true;
}

XLA_FFI_Error* CreateError(XLA_FFI_Error_Create_Args* args) {
  Expect(args->errc != XLA_FFI_Error_Code_OK, "an error has the code of one");
  return new XLA_FFI_Error{args->message};
}

// The memory of arrays, and what XLA tells a handler of them.
struct Buffers {
  std::vector<std::unique_ptr<Exact>> memory;  // null where an array is not there
  std::vector<Sizes> sizes;
  std::vector<XLA_FFI_Buffer> buffers;
  std::vector<void*> addresses;

  Buffers(const std::vector<Array>& arrays, Random* random)
      : sizes(arrays.size()), buffers(arrays.size()), addresses(arrays.size()) {
    for (size_t i = 0; i < arrays.size(); ++i) {
      const Array& array = arrays[i];
      memory.emplace_back();
      void* data = reinterpret_cast<void*>(64);
      if (array.is_there()) {
        memory[i].reset(new Exact(array.bytes(), 0));
        // Numbers between 2^-16 and 2 whatever the type: an element's highest byte is an odd one.
        for (int64_t at = 0; at < array.bytes(); at += 8) {
          const uint64_t bits = (random->Bits() & 0x80ff80ff80ff80ff) | 0x3f003f003f003f00;
          memcpy(memory[i]->get() + at, &bits, std::min<int64_t>(8, array.bytes() - at));
        }
        data = memory[i]->get();
      }
      sizes[i] = array.sizes;
      buffers[i] = {XLA_FFI_Buffer_STRUCT_SIZE, nullptr, array.type, data,
                    static_cast<int64_t>(sizes[i].size()), sizes[i].data()};
      addresses[i] = &buffers[i];
    }
  }
  char* operator[](size_t i) const { return memory[i]->get(); }
  bool operator==(const Buffers& other) const {
    return std::equal(memory.begin(), memory.end(), other.memory.begin(), other.memory.end(),
                      [](const auto& a, const auto& b) { return a ? b && *a == *b : !b; });
  }
};

// Returns whether the handler took it.
bool Handle(int kernel, const Frame& frame, Buffers* arguments, Buffers* results) {
  XLA_FFI_Api api = {};
  api.struct_size = XLA_FFI_Api_STRUCT_SIZE;
  api.XLA_FFI_Error_Create = CreateError;
  std::vector<XLA_FFI_ArgType> argument_types;
  for (const Array& array : frame.arguments) {
    const int type = XLA_FFI_ArgType_BUFFER + (array.is_array ? 0 : 1);
    argument_types.push_back(static_cast<XLA_FFI_ArgType>(type));
  }
  std::vector<XLA_FFI_RetType> result_types;
  for (const Array& array : frame.results) {
    const int type = XLA_FFI_RetType_BUFFER + (array.is_array ? 0 : 1);
    result_types.push_back(static_cast<XLA_FFI_RetType>(type));
  }
  int64_t axis_value = frame.axis;
  Sizes settings_values = frame.settings;
  XLA_FFI_Scalar axis = {XLA_FFI_DataType_S64, &axis_value};
  XLA_FFI_Array settings = {XLA_FFI_DataType_S64, settings_values.size(), settings_values.data()};
  XLA_FFI_ByteSpan axis_name = {"axis", 4}, settings_name = {"settings", 8};
  XLA_FFI_AttrType attribute_types[] = {XLA_FFI_AttrType_SCALAR, XLA_FFI_AttrType_ARRAY};
  XLA_FFI_ByteSpan* names[] = {&axis_name, &settings_name};
  void* attributes[] = {&axis, &settings};

  XLA_FFI_CallFrame call = {};
  call.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  call.api = &api;
  call.stage = XLA_FFI_ExecutionStage_EXECUTE;
  call.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, static_cast<int64_t>(argument_types.size()),
               argument_types.data(), arguments->addresses.data()};
  call.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, static_cast<int64_t>(result_types.size()),
               result_types.data(), results->addresses.data()};
  call.attrs = {XLA_FFI_Attrs_STRUCT_SIZE, nullptr, 2, attribute_types, names, attributes};
  const auto handler =
      reinterpret_cast<XLA_FFI_Handler*>(keras_learnact_xla_handler(kernel, frame.gradient));
  const std::unique_ptr<XLA_FFI_Error> error(handler(&call));
  Expect(!error || !error->text.empty(), "an error says what is wrong");
  return !error;
}

// The kernel itself, for each entry of the batch.
void CallByHand(const Frame& frame, View view, const Buffers& in, const Buffers& out) {
  const CpuKernel& kernel = *frame.kernel;
  Call& call = view.call;
  // The handler makes one call of entries of one row or one group, whose sums, and so their bits,
  // are in another order.
  if (view.batch > 1 && !kernel.random && (call.outer == 1 || call.groups == 1)) {
    call.inner *= call.outer;
    call.outer = 1;
    call.groups *= view.batch;
    view.batch = 1;
  }
  const int64_t y_step = call.size() * SizeOf(call.dtype), x_step = y_step * view.pieces;
  const int64_t params_step =
      call.groups * call.count * (call.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float));
  for (int64_t i = 0; i < view.batch; ++i) {
    const char* x = in[0] + i * x_step;
    const char* params = kernel.pools ? nullptr : in[1] + i * params_step;
    const auto* key = reinterpret_cast<const uint32_t*>(kernel.random ? in[2] : nullptr);
    if (view.own_keys) key += i * call.key_words;
    bool enough;
    if (frame.gradient) {
      enough = kernel.backward(call, x, params, key, in[in.memory.size() - 1] + i * y_step,
                               out[0] + i * x_step,
                               kernel.pools ? nullptr : out[1] + i * params_step);
    } else {
      enough = kernel.forward(call, x, params, key, out[0] + i * y_step);
    }
    Expect(enough, "there is memory");
  }
}

// Returns whether the call was carried out.
bool OneCall(int index, bool gradient, const std::vector<Setup>& usual, Random* random) {
  int count;
  const CpuKernel& kernel = *CpuKernels(&count)[index];
  const Setup& setup = usual[random->Below(static_cast<int64_t>(usual.size()))];
  Frame frame = SomeGoodFrame(kernel, gradient, setup, random);
  if (random->OneIn(2)) {
    do MakeHostile(&frame, random);
    while (random->OneIn(3));
  }
  current = TextOf(frame);

  View view;
  const bool good = Good(frame, &view);
  double most = 0;
  int64_t longest = 0;
  for (const Array* array : UsedArrays(frame)) {
    most = std::max(most, array->elements());
    for (int64_t size : array->sizes) longest = std::max(longest, size);
  }
  // It would be carried out, on memory that is not here.
  if (good && most > kMost && most <= kAny) return false;

  const Random before = *random;
  Buffers arguments(frame.arguments, random), results(frame.results, random);
  Random again = before;
  const Buffers arguments_before(frame.arguments, &again), expected(frame.results, &again);
  SetNumThreads(1 + static_cast<int>(random->Below(4)));
  const bool taken = Handle(index, frame, &arguments, &results);
  Expect(arguments == arguments_before, "arguments are left as they are");
  Expect(good || !taken, "a bad frame is refused");
  Expect(most <= kAny || !taken, "arrays of impossible sizes are refused");
  // Beside a 0 it may take sizes whose product is more than a number holds.
  Expect(taken || !good || longest > kMost, "a good frame is taken");
  if (taken) CallByHand(frame, view, arguments, expected);
  Expect(results == expected, taken ? "results have the bits of the kernel called by hand"
                                    : "what is refused writes nothing");
  if (taken && !kernel.pools && random->OneIn(3)) {
    // XLA may give y the place of x, and dx that of dy.
    const size_t place = frame.gradient ? frame.arguments.size() - 1 : 0;
    results.buffers[0].data = arguments[place];
    Expect(Handle(index, frame, &arguments, &results), "it is taken once more");
    Expect(*arguments.memory[place] == *expected.memory[0], "in x's or dy's place it is the same");
  }
  return taken;
}

int Fuzz(double seconds, int64_t first) {
  int count;
  const CpuKernel* const* kernels = CpuKernels(&count);
  Random search(7);
  std::vector<std::vector<Setup>> usual;
  for (int i = 0; i < count; ++i) usual.push_back(UsualSetups(*kernels[i], &search));

  std::vector<int64_t> carried_out(2 * count);
  MakeCalls(seconds, first, [&](Random* random) {
    const int index = static_cast<int>(random->Below(count));
    const bool gradient = random->OneIn(2);
    carried_out[2 * index + gradient] += OneCall(index, gradient, usual[index], random);
  });
  printf("%lld calls, seed %lld. Carried out, %s:\n", static_cast<long long>(number - first),
         static_cast<long long>(seed), CpuTarget());
  bool all = true;
  for (int i = 0; i < 2 * count; ++i) {
    const std::string name = std::string(kernels[i / 2]->name) + (i % 2 ? "Grad" : "");
    printf("  %-32s %lld\n", name.c_str(), static_cast<long long>(carried_out[i]));
    all = all && carried_out[i] > 0;
  }
  if (!all) fprintf(stderr, "A handler never took a call: give more seconds.\n");
  return all ? 0 : 1;
}

}  // namespace
}  // namespace keras_learnact

int main(int count, char** arguments) {
  return keras_learnact::FuzzerMain("handlers", keras_learnact::Fuzz, count, arguments);
}
