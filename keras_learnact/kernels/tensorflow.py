"""Binds the compiled kernels to TensorFlow, as ops with gradients of any order.

Three libraries take part, and each is of use without the next:

    tf         the ops and their CPU kernels; for any TensorFlow
    xla, cuda  the same kernels as handlers of XLA on the CPU and on CUDA; likewise
    tf_native  the ops inside XLA, where they call those handlers, and on GPUs; for one TensorFlow

With all of them a call is an op, everywhere. Without `tf_native` it is an op only in eager mode:
a graph may be compiled by XLA at any later time, which would not know the op, so in a graph the
call is a piece of StableHLO that calls the handlers. Without handlers a graph gets the formula.
Nothing is ever decided by whether XLA compiles at this moment: a function that was traced before
may be called inside one that is compiled.
"""

import contextlib
import ctypes
import functools
import os
import re

import tensorflow as tf
from tensorflow.python.saved_model import save_context

from keras_learnact import kernels
from keras_learnact.kernels import library

DTYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}

_kernels = {}  # by name: _Kernel
_loaded = {}  # by library: the ctypes.CDLL
_absent = {}  # by library: why it is not used
_settled = {}  # "gpu": what `_gpu` says from the first call on


class _Kernel:
    """A kernel of the library `tf`, with the functions that make its two ops."""

    def __init__(self, number, name, functions):
        loaded = _loaded["tf"]
        self.number, self.name = number, name
        self.random = bool(loaded.keras_learnact_tf_random(number))
        self.pools = bool(loaded.keras_learnact_tf_pools(number))
        self.forward = functions[f"keraslearnact{self.name}".lower()]
        self.gradient = functions[f"keraslearnact{self.name}grad".lower()]


# What keras_learnact.kernels asks for.


@functools.cache
def load():
    """Loads the libraries; "", or why there are no kernels.

    It starts nothing: neither TensorFlow's devices nor CUDA.
    """
    for name, load_one, instead in (
        ("tf", _load_ops, kernels.FORMULAS),
        ("xla", _load_handlers, kernels.FORMULAS.replace("Layers", "In graphs layers")),
        ("cuda", _load_handlers, kernels.FORMULAS),
        ("tf_native", _load_native, "Graphs call the kernels by a longer way."),
    ):
        why = _unmet(name) or library.missing(name, instead)
        if not why:
            why = load_one(name)
            if why:
                kernels.warn(why, instead)
        _absent[name] = why
        if name == "tf" and why:
            return why
    return ""


def report():
    """Lines of `kernels.status()`."""
    gpus = "a GPU" if _gpu() else "no GPU"
    count = threads() if _settled else _given_threads() or threads()
    target = _loaded["tf"].keras_learnact_tf_target().decode()
    says = {
        "xla": "handlers for XLA on the CPU",
        "cuda": "handlers for XLA on CUDA",
        "tf_native": "the ops inside XLA and on GPUs",
    }
    return [
        f"TensorFlow {tf.__version__}, {gpus}",
        f"ops: {', '.join(sorted(_kernels))}; built for {target}, {count} threads",
        *(
            f"{what}: {_absent[name] or os.path.basename(library.path(name))}"
            for name, what in says.items()
        ),
        f"eager mode: {_nothing(False) or _way(False)}",
        f"graphs, compiled by XLA or not: {_nothing(True) or _way(True)}",
    ]


def threads(count=0):
    """How many threads a call on the CPU may use; sets it if `count` is at least 1."""
    if "xla" in _loaded:
        _loaded["xla"].keras_learnact_xla_threads(count)
    return _loaded["tf"].keras_learnact_tf_threads(count)


def why_not(name, settings, count, dtype):
    """Why a call made now runs the formula, or ""."""
    return _unfit(name, settings, count, dtype) or _nothing(not tf.executing_eagerly())


def traced_anew():
    """A scope in which a `tf.function` is traced anew: no older trace, with kernels, is taken.

    TensorFlow keeps the traces that it makes for SavedModels apart from all others.
    """
    if save_context.in_save_context():
        return contextlib.nullcontext()
    return save_context.save_context(tf.saved_model.SaveOptions())


def side_by_side(params):
    """The arrays `params` in one; `ops.concatenate` takes five times as long in eager mode."""
    return tf.concat(params, 1)


def run(name, settings, x, params, axis, key):
    """The kernel's output. Arguments as of `kernels.run`."""
    if not _settled:
        _settle()
    kernel = _kernels[name]
    x = tf.convert_to_tensor(x)
    inputs = [x]
    if not kernel.pools:
        inputs.append(tf.convert_to_tensor(params))
    if kernel.random:
        inputs.append(tf.cast(key, tf.int32))
    settings = tuple(settings)
    if _way(not tf.executing_eagerly()) == OP:
        y = kernel.forward(*inputs, axis=axis, settings=settings)
        if kernel.pools and not tf.executing_eagerly():
            # The op's own shape function does not know the axis.
            y.set_shape(_pooled(x.shape, axis, settings))
        return y
    return _stablehlo(kernel, settings, axis)(*inputs)


# The ways of a call.

OP = "the op"
# XLA takes no handler there for an array whose size it finds when it runs, say of tf.boolean_mask.
STABLEHLO = "XLA's handler, through StableHLO"


def _gpu():
    """Whether TensorFlow may put a call on a GPU.

    Before the first call the user may still say which devices TensorFlow gets.
    """
    return _settled["gpu"] if _settled else bool(tf.config.get_visible_devices("GPU"))


def _settle():
    """What a call takes over from TensorFlow; whoever only asks about calls must not do this."""
    wanted = _given_threads()
    if wanted:
        threads(wanted)
    _settled["gpu"] = _gpu()


def _given_threads():
    """How many threads the user gave TensorFlow, which the kernels then use too, or 0."""
    if "KERAS_LEARNACT_NUM_THREADS" in os.environ:
        return 0
    return tf.config.threading.get_intra_op_parallelism_threads()


def _way(graph):
    if _gpu():
        return OP if "tf_native" in _loaded and _has_gpu_kernels() else STABLEHLO
    return OP if "tf_native" in _loaded or not graph else STABLEHLO


def _nothing(graph):
    """Why there is no way, or ""."""
    if _gpu() and "cuda" not in _loaded:
        return f"this machine has a GPU, and there are no kernels for it: {_absent['cuda']}"
    if _way(graph) == STABLEHLO and "xla" not in _loaded:
        return f"reference formula: XLA would not know the op, {_absent['xla']}"
    return ""


@functools.cache
def _unfit(name, settings, count, dtype):
    """Why the library does not take such a call, or ""."""
    if name not in _kernels:
        return f"the library has no kernel {name}; build it anew (python custom_ops/build.py)"
    if dtype not in DTYPES:
        return f"kernels take {', '.join(DTYPES)}, not {dtype}"
    check = _loaded["tf"].keras_learnact_tf_check
    return library.refusal(check, _kernels[name].number, count, settings)


# Loading. Each function gives "" or why the library cannot be used.


def _unmet(name):
    """What is missing for a library to be of use here, or "": no reason for a warning."""
    if name == "tf_native" and "xla" not in _loaded:
        return f"it needs the handlers for XLA on the CPU: {_absent['xla']}"
    if name in ("xla", "cuda") and not _xla():
        return f"the XLA in TensorFlow {tf.__version__} takes no handlers"
    return ""


def _load_ops(name):
    file = library.path(name)
    why = library.damage(name)
    if not why:
        try:
            module = tf.load_op_library(file)
        except Exception as error:  # whatever TensorFlow and the loader say
            why = str(error)
    if why:
        return f"{file} cannot be loaded: {why}."
    loaded = ctypes.CDLL(file)
    if not library.fits(loaded, name):
        return _other_version(file)
    loaded.keras_learnact_tf_errors.restype = ctypes.c_char_p
    loaded.keras_learnact_tf_target.restype = ctypes.c_char_p
    why = loaded.keras_learnact_tf_errors().decode()
    if why:
        return f"TensorFlow does not take the ops of {file}: {why}."
    # keras_learnact_some_name; KerasLearnact_SomeName is the same for keyword arguments alone.
    functions = {key.replace("_", ""): f for key, f in vars(module).items() if key.islower()}
    _loaded[name] = loaded
    for number, kernel_name in enumerate(_names(loaded, name)):
        kernel = _Kernel(number, kernel_name, functions)
        _kernels[kernel.name] = kernel
        _register_gradients(kernel)
        _register_for_vectorized_map(kernel)
    return ""


def _load_handlers(name):
    loaded, why = library.open_library(name)
    if why:
        return why
    if not library.fits(loaded, name) or not set(_kernels) <= set(_names(loaded, name)):
        return _other_version(library.path(name))
    register = getattr(loaded, f"keras_learnact_{name}_register")
    register.argtypes = [ctypes.c_void_p]
    refused = register(_xla())
    if refused:
        return f"the XLA in TensorFlow {tf.__version__} refuses {refused} of the handlers in {name}"
    _loaded[name] = loaded
    return ""


def _load_native(name):
    file = library.path(name)
    # A C++ library of another version may end the process as soon as it is loaded.
    why = library.damage(name)
    if not why:
        built_for = _built_for(file)
        if built_for != tf.__version__:
            return (
                f"{file} was built for TensorFlow {built_for}, and this is {tf.__version__}. "
                "Build it anew: python custom_ops/build.py."
            )
        try:
            tf.load_library(file)
            loaded = ctypes.CDLL(file)
        except Exception as error:
            why = str(error)
    if why:
        return f"{file} cannot be loaded: {why}."
    if not library.fits(loaded, name) or not set(_kernels) <= set(_names(loaded, name)):
        return _other_version(file)
    _loaded[name] = loaded
    loaded.keras_learnact_tf_native_register(0)
    if "cuda" in _loaded:
        loaded.keras_learnact_tf_native_register(1)
        if _has_gpu_kernels():
            count = ctypes.c_int()
            found = _loaded["cuda"].keras_learnact_cuda_all
            found.restype = ctypes.c_void_p
            all_kernels = ctypes.c_void_p(found(ctypes.byref(count)))
            loaded.keras_learnact_tf_native_register_gpu(all_kernels, count)
    return ""


def _has_gpu_kernels():
    """Whether the library tf_native was built with CUDA's headers."""
    return hasattr(_loaded["tf_native"], "keras_learnact_tf_native_register_gpu")


def _names(loaded, name):
    """The kernels in a library."""
    name_of = getattr(loaded, f"keras_learnact_{name}_name")
    name_of.restype = ctypes.c_char_p
    return [
        name_of(number).decode()
        for number in range(getattr(loaded, f"keras_learnact_{name}_kernels")())
    ]


def _other_version(file):
    return (
        f"{file} is of another version of keras_learnact. Build it anew: python "
        "custom_ops/build.py."
    )


def _built_for(file):
    """The version of TensorFlow that the library says it is for, without loading it."""
    with open(file, "rb") as opened:
        found = re.search(rb"keras_learnact for TensorFlow ([^\0]*)\0", opened.read())
    return found.group(1).decode() if found else "no version that it names"


@functools.cache
def _xla():
    """The address of the XLA_FFI_Api in this process' TensorFlow, or None."""
    try:
        # Whatever is loaded already; nothing is loaded for this.
        here = ctypes.CDLL("libtensorflow_cc.so.2", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        get = here._ZN3xla3ffi12GetXlaFfiApiEv  # xla::ffi::GetXlaFfiApi()
    except (OSError, AttributeError):
        return None
    get.restype = ctypes.c_void_p
    return get()


# Gradients.


def _register_gradients(kernel):
    """Of the op, through the op of its gradient; and of that one, through the formula."""

    def gradient(op, dy):
        settings, axis = op.get_attr("settings"), op.get_attr("axis")
        result = kernel.gradient(*op.inputs, dy, axis=axis, settings=settings)
        return _complete(kernel, [result] if kernel.pools else result)

    def second(op, *upstream):
        settings, axis = op.get_attr("settings"), op.get_attr("axis")
        return _second(kernel, settings, axis, op.inputs, upstream)

    tf.RegisterGradient(f"KerasLearnact>{kernel.name}")(gradient)
    tf.RegisterGradient(f"KerasLearnact>{kernel.name}Grad")(second)


def _complete(kernel, gradients):
    """Gradients of x and params as those of all inputs of the op: a key has none."""
    return [*gradients, *([None] if kernel.random else [])]


def _second(kernel, settings, axis, inputs, upstream):
    """What the upstream gradients of dx and dparams are to the inputs x, params, key, dy."""
    x, dy = inputs[0], inputs[-1]
    params = [] if kernel.pools else [inputs[1]]
    key = inputs[2] if kernel.random else None
    with tf.GradientTape() as outer:
        outer.watch([x, *params, dy])
        with tf.GradientTape() as inner:
            inner.watch([x, *params])
            y = _formula(kernel, settings, axis, x, params, key)
        first = inner.gradient(y, [x, *params], output_gradients=dy, unconnected_gradients="zero")
    second = outer.gradient(
        first, [x, *params, dy], output_gradients=list(upstream), unconnected_gradients="zero"
    )
    return [*_complete(kernel, second[:-1]), second[-1]]


def _formula(kernel, settings, axis, x, params, key):
    """The kernel's function in keras.ops, of an x of any rank, known or not."""
    params = params[0] if params else None
    seen, seen_axis = x, axis
    if x.shape.rank is None:
        seen = _seen_by_axis(x, axis) if kernel.pools else _seen(x, params.shape[0], axis)
        seen_axis = 1
    y = kernels.reference(kernel.name, tuple(settings), seen, params, seen_axis, key)
    if seen is x:
        return y
    return tf.reshape(y, _pooled_sizes(x, axis, settings) if kernel.pools else tf.shape(x))


# Shapes that are known only when a graph runs.


def _seen(x, groups, axis):
    """x as [outer, groups, inner]."""
    sizes = tf.shape(x, out_type=tf.int64)
    inner = tf.reduce_prod(sizes[axis:]) // groups
    return tf.reshape(x, [tf.reduce_prod(sizes[:axis]), groups, inner])


def _seen_by_axis(x, axis):
    """x as [outer, sizes[axis], inner]."""
    sizes = tf.shape(x, out_type=tf.int64)
    return tf.reshape(
        x, [tf.reduce_prod(sizes[:axis]), sizes[axis], tf.reduce_prod(sizes[axis + 1 :])]
    )


def _pooled(shape, axis, settings):
    """The static shape of a pooling kernel's output."""
    if shape.rank is None:
        return shape
    sizes = shape.as_list()
    if sizes[axis] is not None:
        sizes[axis] //= settings[0]
    return tf.TensorShape(sizes)


def _pooled_sizes(x, axis, settings):
    sizes = tf.shape(x, out_type=tf.int64)
    return tf.concat([sizes[:axis], [sizes[axis] // settings[0]], sizes[axis + 1 :]], 0)


# The handlers in a graph whose XLA does not know the op.


@functools.cache
def _stablehlo(kernel, settings, axis):
    """Of one kernel (x, params, key) -> y, without what it has not; differentiable twice."""

    @tf.custom_gradient
    def gradient(*inputs):
        def second(*upstream):
            return _second(kernel, settings, axis, inputs, upstream)

        dx, *dparams = _call_handler(kernel, settings, axis, inputs, gradient=True)
        return (dx, *dparams), second

    @tf.custom_gradient
    def function(*inputs):
        def first(dy):
            return _complete(kernel, gradient(*inputs, dy))

        (y,) = _call_handler(kernel, settings, axis, inputs, gradient=False)
        return y, first

    return function


def _call_handler(kernel, settings, axis, inputs, gradient):
    """The outputs of the op, or of its gradient."""
    from tensorflow.compiler.tf2xla.python import xla

    x = inputs[0]
    if x.shape.rank is None:  # StableHLO has no such arrays
        if kernel.pools:
            seen = [_seen_by_axis(a, axis) for a in inputs]
        else:
            groups = tf.shape(inputs[1], out_type=tf.int64)[0]
            seen = [_seen(x, groups, axis), *inputs[1:]]
            if gradient:
                seen[-1] = _seen(inputs[-1], groups, axis)
        outputs = _call_handler(kernel, settings, 1, seen, gradient)
        whole = kernel.pools and not gradient
        sizes = _pooled_sizes(x, axis, settings) if whole else tf.shape(x, out_type=tf.int64)
        return [tf.reshape(outputs[0], sizes), *outputs[1:]]
    if gradient:
        like = inputs[:1] if kernel.pools else inputs[:2]
        shapes = [a.shape for a in like]
    else:
        like = [x]
        shapes = [_pooled(x.shape, axis, settings) if kernel.pools else x.shape]
    platforms = ["CPU", "CUDA"] if "cuda" in _loaded else ["CPU"]
    return xla.call_module(
        list(inputs),
        version=_MODULE_VERSION,
        module=_module(
            f"keras_learnact.{kernel.name}{'Grad' if gradient else ''}",
            axis,
            settings,
            tuple((tuple(a.shape), _mlir_type(a)) for a in inputs),
            tuple((tuple(s), _mlir_type(a)) for s, a in zip(shapes, like, strict=True)),
            (axis, settings[0]) if kernel.pools and not gradient else None,
            len(platforms),
        ),
        Tout=[a.dtype for a in like],
        Sout=shapes,
        platforms=platforms,
    )


_MODULE_VERSION = 9  # of XlaCallModule


def _mlir_type(array):
    return "i32" if array.dtype == tf.int32 else DTYPES[array.dtype.name]


def _array_type(shape, element):
    sizes = ["?" if n is None else str(n) for n in shape]
    return f"tensor<{'x'.join([*sizes, element])}>"


@functools.cache
def _module(target, axis, settings, arguments, results, pooled, platforms):
    """StableHLO that calls a handler.

    dx does not take the memory of dy, as it does in the op: in a graph that is not compiled as a
    whole dy is an argument of this program, which XLA may not overwrite, and would copy.

    Args:
        target, axis, settings: of the handler.
        arguments, results: (shape, element type) of each; the i-th result has the unknown sizes of
            the i-th argument.
        pooled: None, or an axis and by how much it is shorter in the result.
        platforms: how many there are; if several, the program is told which one it runs on.
    """
    types = [_array_type(*a) for a in arguments]
    result_types = [_array_type(*r) for r in results]
    names = [f"%a{i}" for i in range(len(arguments))]
    head = [f"{n}: {t}" for n, t in zip(names, types, strict=True)]
    if platforms > 1:
        head.insert(0, "%platform: tensor<i32>")
    body, dynamic = [], any(None in shape for shape, _ in [*arguments, *results])
    if dynamic:
        # Each result's shape, as one more argument, which is gone when the sizes are known.
        for i, (shape, _) in enumerate(results):
            sizes = []
            for d, size in enumerate(shape):
                at = f"{i}_{d}"
                if size is not None:
                    body.append(f"%s{at} = stablehlo.constant dense<{size}> : tensor<1xi32>")
                else:
                    body.append(
                        f"%d{at} = stablehlo.get_dimension_size %a{i}, dim = {d} : ({types[i]}) "
                        "-> tensor<i32>"
                    )
                    last = f"%d{at}"
                    if pooled and d == pooled[0]:
                        body.append(f"%k{at} = stablehlo.constant dense<{pooled[1]}> : tensor<i32>")
                        body.append(f"%q{at} = stablehlo.divide %d{at}, %k{at} : tensor<i32>")
                        last = f"%q{at}"
                    body.append(
                        f"%s{at} = stablehlo.reshape {last} : (tensor<i32>) -> tensor<1xi32>"
                    )
                sizes.append(f"%s{at}")
            vector = f"tensor<{len(shape)}xi32>"
            if sizes:
                body.append(
                    f"%s{i} = stablehlo.concatenate {', '.join(sizes)}, dim = 0 : "
                    f"({', '.join(['tensor<1xi32>'] * len(sizes))}) -> {vector}"
                )
            else:
                body.append(f"%s{i} = stablehlo.constant dense<> : {vector}")
            names.append(f"%s{i}")
            types.append(vector)
    given = list(result_types)
    if len(given) == 1:  # handlers give two arrays, see custom_ops/runtime/xla_handlers.h
        given.append("tensor<0xf32>")
        if dynamic:
            body.append("%none = stablehlo.constant dense<0> : tensor<1xi32>")
            names.append("%none")
            types.append("tensor<1xi32>")
    attributes = [
        "api_version = 4 : i32",
        f"backend_config = {{axis = {axis} : i64, settings = array<i64"
        f"{': ' if settings else ''}{', '.join(map(str, settings))}>}}",
        f"operand_layouts = [{', '.join(_layout(t) for t in types)}]",
        f"result_layouts = [{', '.join(_layout(t) for t in given)}]",
    ]
    if dynamic:
        indices = list(range(len(arguments), len(names)))
        attributes.append(
            f"indices_of_shape_operands = dense<{indices}> : tensor<{len(indices)}xi64>"
        )
    outputs = [f"%y#{i}" for i in range(len(results))]
    joined = ", ".join(result_types)
    body.append(
        f"%y:{len(given)} = stablehlo.custom_call @{target}"
        f"({', '.join(names)}) {{{', '.join(attributes)}}} : ({', '.join(types)}) -> "
        f"({', '.join(given)})"
    )
    body.append(f"return {', '.join(outputs)} : {joined}")
    lines = "\n".join(f"    {line}" for line in body)
    return (
        f"module @keras_learnact attributes {{jax.uses_shape_polymorphism = "
        f"{'true' if dynamic else 'false'}}} {{\n  func.func public @main({', '.join(head)}) -> "
        f"({joined}) {{\n{lines}\n  }}\n}}\n"
    )


def _layout(array_type):
    rank = array_type.count("x")
    order = ", ".join(map(str, reversed(range(rank))))
    return f"dense<[{order}]> : tensor<{rank}xindex>" if rank else "dense<> : tensor<0xindex>"


# tf.vectorized_map.


def _register_for_vectorized_map(kernel):
    """One call for all entries, where their parameters are the same and nothing is drawn.

    Otherwise TensorFlow calls the op for one entry after the other.
    """
    from tensorflow.python.ops.parallel_for import pfor

    if kernel.random:
        return

    @pfor.RegisterPFor(f"KerasLearnact>{kernel.name}")
    def convert(entries):
        x = entries.stacked_input(0)
        params = [] if kernel.pools else [entries.unstacked_input(1)]
        axis, settings = entries.get_attr("axis"), entries.get_attr("settings")
        y = kernel.forward(x, *params, axis=axis + 1, settings=settings)
        if kernel.pools:
            y.set_shape(_pooled(x.shape, axis + 1, settings))
        return pfor.wrap(y, True)
