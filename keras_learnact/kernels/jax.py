"""Binds the compiled kernels to JAX, as XLA FFI calls.

`run` is differentiable twice in reverse mode (the second time through the reference formula), and
takes part in `jit`, `vmap` (one call), `scan`, `checkpoint`, and in partitioned programs: every
device computes its own part of x, and parts of the parameters' gradient are summed.

The kernels run where every platform that JAX has started has them: the choice is made when a layer
is traced, and not when its program is compiled for a platform, because a choice inside the program
would keep what both ways need for the gradient.
"""

import ctypes
import functools
import itertools
import math
import os
import re
from inspect import signature
from typing import NamedTuple

import jax
import jax.extend.backend
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.interpreters import batching, mlir
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_learnact import kernels
from keras_learnact.kernels import library

# jax.ffi is new there. Other names that an older JAX lacks are imported where they are used: then
# this file can be imported with any, and `load` says why there are no kernels.
OLDEST = (0, 5, 0)
ON_CUDA = "Layers run their formulas in keras.ops where JAX runs on CUDA."
ANEW = "Build it anew: python custom_ops/build.py."
DTYPES = ("float32", "float64", "float16", "bfloat16")

_libraries = {}  # by platform, as JAX names it: the loaded library
_kernels = {}  # by name: _Kernel
_absent = {}  # by platform: why it has no library


class _Kernel(NamedTuple):
    """What the library for the CPU says of a kernel."""

    number: int
    name: str
    random: bool
    pools: bool


@functools.cache
def load():
    """Loads the libraries; "", or why there are no kernels."""
    if _version(jax.__version__) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return f"kernels need jax >= {oldest}, and this is {jax.__version__}"
    _absent["cpu"] = library.missing("xla") or _load_cpu()
    _absent["cuda"] = _absent["cpu"] or library.missing("cuda", ON_CUDA) or _load_cuda()
    return _absent["cpu"]


def report():
    """Lines of `kernels.status()`."""
    lines = [f"JAX {jax.__version__} on {', '.join(jax.extend.backend.backends())}"]
    for platform, why in _absent.items():
        loaded = _libraries.get(platform)
        line = why or f"{os.path.basename(loaded._name)}: {', '.join(sorted(_kernels))}"
        if platform == "cpu" and not why:
            target = loaded.keras_learnact_xla_target().decode()
            line += f"; built for {target}, {threads()} threads"
        lines.append(f"{platform}: {line}")
    lines += [f"not used: {why}" for why in [_platforms()] if why]
    return lines


def threads(count=0):
    """How many threads a call on the CPU may use; sets it if `count` is at least 1."""
    return _libraries["cpu"].keras_learnact_xla_threads(count)


@functools.cache
def why_not(name, settings, count, dtype):
    """Why a call runs the formula, or ""."""
    if name not in _kernels:
        return f"the library has no kernel {name}; build it anew (python custom_ops/build.py)"
    if dtype not in DTYPES:
        return f"kernels take {', '.join(DTYPES)}, not {dtype}"
    check = _libraries["cpu"].keras_learnact_xla_check
    return library.refusal(check, _kernels[name].number, count, settings) or _platforms()


def side_by_side(params):
    """The arrays `params` in one."""
    return jnp.concatenate(params, axis=1)


def run(name, settings, x, params, axis, key):
    """The kernel's output. Arguments as of `kernels.run`; `settings` is a tuple."""
    x = jnp.asarray(x)
    if key is not None:
        key = jnp.asarray(key).astype(jnp.int32)
    return _function(name, settings, axis)(*_equally_varying(x, params, key))


# Loading.


def _load_cpu():
    loaded, why = _open("xla", kernels.FORMULAS)
    if why:
        return why
    for name, result in (("name", ctypes.c_char_p), ("target", ctypes.c_char_p)):
        getattr(loaded, f"keras_learnact_xla_{name}").restype = result
    for number in range(loaded.keras_learnact_xla_kernels()):
        name = loaded.keras_learnact_xla_name(number).decode()
        random, pools = (
            bool(says(number))
            for says in (loaded.keras_learnact_xla_random, loaded.keras_learnact_xla_pools)
        )
        _kernels[name] = _Kernel(number, name, random, pools)
    loaded.keras_learnact_xla_handler.restype = ctypes.c_void_p
    _register("cpu", loaded, loaded.keras_learnact_xla_handler, list(_kernels))
    return ""


def _load_cuda():
    loaded, why = _open("cuda", ON_CUDA)
    if why:
        return why
    loaded.keras_learnact_cuda_name.restype = ctypes.c_char_p
    count = loaded.keras_learnact_cuda_kernels()
    names = [loaded.keras_learnact_cuda_name(number).decode() for number in range(count)]
    if not set(_kernels) <= set(names):
        why = f"{loaded._name} has other kernels than the library for the CPU. {ANEW}"
        kernels.warn(why, ON_CUDA)
        return why
    loaded.keras_learnact_cuda_handler.restype = ctypes.c_void_p
    _register("cuda", loaded, loaded.keras_learnact_cuda_handler, names)
    return ""


def _open(name, instead):
    """The library and "", or None and why not, with a warning."""
    loaded, why = library.open_library(name)
    if loaded is not None:
        if not library.fits(loaded, name):
            why = f"{loaded._name} is of another version of keras_learnact. {ANEW}"
    if why:
        kernels.warn(why, instead)
        return None, why
    return loaded, ""


def _register(platform, loaded, handler, names):
    for number, name in enumerate(names):
        for gradient in (False, True):
            capsule = jax.ffi.pycapsule(handler(number, gradient))
            jax.ffi.register_ffi_target(_target(name, gradient), capsule, platform=platform)
    _libraries[platform] = loaded


def _version(text):
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _target(name, gradient):
    return f"keras_learnact.{name}{'Grad' if gradient else ''}"


@functools.cache
def _platforms():
    """Why the platforms that JAX has started rule the kernels out, or ""."""
    without = [platform for platform in jax.extend.backend.backends() if platform not in _libraries]
    if not without:
        return ""
    why = _absent.get(without[0], "there are kernels for cpu and cuda")
    return f"JAX runs on {', '.join(without)}: {why}"


# The function and its derivatives.


@functools.cache
def _function(name, settings, axis):
    """`run` of one kernel, compiled also where it is called outside of any `jit`."""
    bind = functools.partial(_bind, name=name, settings=settings, axis=axis)

    def of_function(arrays, dy):
        dx, dparams = gradient(*arrays, dy)
        return dx, dparams, None

    def of_gradient(arrays, cotangents):
        x, params, key, dy = arrays

        def reference(x, params):
            return kernels.reference(name, settings, x, params, axis, key)

        def reference_gradient(x, params, dy):
            return jax.vjp(reference, x, params)[1](dy)

        dx, dparams, ddy = jax.vjp(reference_gradient, x, params, dy)[1](cotangents)
        return dx, dparams, None, ddy

    function = _differentiable(functools.partial(bind, gradient=False), of_function)
    gradient = _differentiable(functools.partial(bind, gradient=True), of_gradient)
    return jax.jit(function, inline=True)


def _differentiable(call, derivative):
    """`call` with `reuse`, but without where the derivative will need the arguments again."""
    keeping = jax.custom_vjp(functools.partial(call, reuse=False))
    keeping.defvjp(lambda *arrays: (keeping(*arrays), arrays), derivative)
    reusing = jax.custom_vjp(functools.partial(call, reuse=True))
    reusing.defvjp(lambda *arrays: (keeping(*arrays), arrays), derivative)
    return reusing


# One call: (x, params, key) -> y, or, with `gradient`, (x, params, key, dy) -> (dx, dparams), where
# params and dparams are None for a kernel that pools and key for one that is not random.
#   axis      the groups cover the axes of x from this one on
#   reuse     y may take the memory of x, and dx that of dy. It spares fresh pages: the inference of
#             a network then takes less than half the time.
# params may be [batch..., groups, count], see custom_ops/runtime/xla_handlers.h.

_call = jax.extend.core.Primitive("keras_learnact")
_call.multiple_results = True


def _bind(x, params, key, *dy, reuse, **settings):
    operands = _present([x, params, key, *dy])
    # What runs is written in the equation, twice: JAX looks for calls that may be partitioned.
    jaxprs = [
        jax.make_jaxpr(functools.partial(_partitioned, reuse=reuse, **settings))(*operands)
        for reuse in ([False, True] if reuse and params is not None else [False])
    ]
    result = _call.bind(*operands, keeping=jaxprs[0], reusing=jaxprs[-1], **settings)
    return (*result, None)[:2] if settings["gradient"] else result[0]


def _complete(kernel, operands):
    """x, params, key, then dy if there is one."""
    x, *others = operands
    params = None if kernel.pools else others.pop(0)
    key = others.pop(0) if kernel.random else None
    return [x, params, key, *others]


def _present(arrays):
    return tuple(a for a in arrays if a is not None)


@_call.def_impl
def _evaluated(*operands, keeping, **_):
    return jax.extend.core.jaxpr_as_fun(keeping)(*operands)


@_call.def_abstract_eval
def _abstract(*operands, keeping, **_):
    return keeping.out_avals


def _batched(operands, axes, *, name, settings, axis, gradient, keeping, reusing):
    """Under `vmap`: one call too."""
    kernel = _kernels[name]
    size = next(a.shape[i] for a, i in zip(operands, axes, strict=True) if i is not None)

    def spread(array, i):
        if i is not None:
            return jnp.moveaxis(array, i, 0)
        return jnp.broadcast_to(array, (size, *array.shape))

    x, params, key, *dy = _complete(kernel, operands)
    of_x, of_params, of_key, *of_dy = _complete(kernel, axes)
    # x gets one more axis before those that the groups cover. If the parameters or the draws differ
    # from entry to entry, or each has a gradient, every entry has parameters of its own.
    own = not kernel.pools and (gradient or kernel.random or of_params is not None)
    if own or (params is not None and params.ndim > 2):
        params = spread(params, of_params)
    if key is not None and (of_key is not None or key.ndim > 1):
        key = spread(key, of_key)
    result = _bind(
        spread(x, of_x),
        params,
        key,
        *map(spread, dy, of_dy),
        name=name,
        settings=settings,
        axis=axis + 1,
        gradient=gradient,
        reuse=reusing is not keeping,
    )
    result = _present(result if gradient else [result])
    return result, [0] * len(result)


def _lowering(context, *operands, gradient, keeping, reusing, **_):
    jaxpr = reusing if _is_free(operands[-1 if gradient else 0]) else keeping
    lowering = mlir.lower_fun(jax.extend.core.jaxpr_as_fun(jaxpr), multiple_results=True)
    return lowering(context, *operands)


def _is_free(value):
    """Whether an array's memory is not an argument's that must be kept: XLA would copy it first."""
    block = value.owner
    if not isinstance(block, mlir.ir.Block):
        return True
    function = block.owner
    if "arg_attrs" not in function.attributes:
        return False  # of a loop's body, say
    of_argument = function.attributes["arg_attrs"][value.arg_number]
    return any(name in of_argument for name in ("tf.aliasing_output", "jax.buffer_donor"))


batching.primitive_batchers[_call] = _batched
# Newer JAX would lower a call once for all its places, and out of sight of what its operands are.
_once = {"cacheable": False} if "cacheable" in signature(mlir.register_lowering).parameters else {}
mlir.register_lowering(_call, _lowering, **_once)


def _ffi_call(*operands, name, settings, axis, gradient, reuse):
    kernel = _kernels[name]
    x, *others = map(_type, operands)
    if gradient:
        types = [x] if kernel.pools else [x, others[0]]
    elif kernel.pools:
        sizes = enumerate(x.shape)
        types = [x.update(shape=tuple(n // settings[0] if i == axis else n for i, n in sizes))]
    else:
        types = [x]
    none = [] if len(types) == 2 else [jax.ShapeDtypeStruct((0,), np.float32)]
    call = jax.ffi.ffi_call(
        _target(name, gradient),
        [t.update(weak_type=False) for t in types] + none,
        input_output_aliases={len(operands) - 1 if gradient else 0: 0} if reuse else None,
    )
    results = call(*operands, axis=np.int64(axis), settings=np.array(settings, np.int64))
    return tuple(results[: len(types)])


def _type(array):
    """An array's abstract value; it says where in a mesh the array is, if JAX knows such types."""
    if hasattr(jax, "typeof"):
        return jax.typeof(array)
    return jax.core.ShapedArray(array.shape, array.dtype)  # jax < 0.6


def _equally_varying(*arrays):
    """In `shard_map`, arrays all of which count as differing where one of them does.

    Then the gradient of one that did not differ is summed over the devices, as JAX does for its own
    functions.
    """

    def varying(array):
        if array is None or not hasattr(jax, "typeof"):
            return ()
        kind = jax.typeof(array)
        return getattr(getattr(kind, "manual_axis_type", None), "varying", getattr(kind, "vma", ()))

    names = list(dict.fromkeys(name for array in arrays for name in varying(array)))
    if not names:
        return arrays
    missing = [() if a is None else tuple(n for n in names if n not in varying(a)) for a in arrays]
    if hasattr(jax.lax, "pcast"):
        vary = functools.partial(jax.lax.pcast, to="varying")
    else:
        vary = jax.lax.pvary
    return [vary(a, axes) if axes else a for a, axes in zip(arrays, missing, strict=True)]


# Partitioned programs.


def _partitioned(*operands, name, settings, axis, gradient, reuse):
    """A call each of whose parts a device can do alone.

    Axes of x may be cut where parts are whole groups, or parts of all groups; every other axis
    stays whole on each device, and XLA gathers it.
    """
    kernel = _kernels[name]
    layout = _Layout(kernel, settings, axis, gradient, *_complete(kernel, operands))
    call = functools.partial(
        _ffi_call, name=name, settings=settings, axis=axis, gradient=gradient, reuse=reuse
    )

    # An exception in these two would end the process.

    def partition(mesh, operands, results):
        mesh = _mesh_of(mesh, operands)
        specs = layout.specs(mesh, operands[0])
        summed = layout.summed(specs[0])

        def part(*operands):
            if kernel.random:
                x, params, key, *dy = operands
                operands = x, params, layout.part_of_key(mesh, specs[0], x, key), *dy
            result = call(*operands)
            if gradient and summed:
                return result[0], jax.lax.psum(result[1], summed)
            return result

        outputs = specs[:2] if gradient else specs[:1]
        return mesh, part, _shardings(mesh, outputs), _shardings(mesh, specs)

    def infer(mesh, operands, results):
        mesh = _mesh_of(mesh, operands)
        specs = layout.specs(mesh, operands[0])
        return _shardings(mesh, specs[:2] if gradient else specs[:1])

    partitioned = custom_partitioning(lambda *operands: call(*operands))
    partitioned.def_partition(
        partition, infer_sharding_from_operands=infer, sharding_rule=layout.rule()
    )
    return partitioned(*operands)


class _Layout:
    """Which axes of which array are cut together.

    For Shardy in a rule of named factors, of which one that is in two arrays is cut in both; for
    the partitioner of specs that say how every axis is cut, given those of x.
    """

    def __init__(self, kernel, settings, axis, gradient, x, params, key, *dy):
        self.kernel, self.axis, self.gradient = kernel, axis, gradient
        self.shape, self.key_rank = x.shape, None if key is None else key.ndim
        if kernel.pools:
            self.batch, self.groups = 0, x.shape[axis] // settings[0]
        else:
            self.batch, self.groups = params.ndim - 2, params.shape[-2]

    def rule(self):
        from jax.experimental.custom_partitioning import (
            ArrayMapping,
            CompoundFactor,
            SdyShardingRule,
        )

        x = [f"d{i}" for i in range(len(self.shape))]
        y, groups, sizes = list(x), "groups", {}
        size = self.shape[self.axis] if self.axis < len(self.shape) else 0
        if self.groups > 1 and size > 0:
            if size == self.groups:
                groups = x[self.axis]
            elif size % self.groups == 0:
                groups, sizes = "groups", {"groups": self.groups, "rest": size // self.groups}
                x[self.axis] = CompoundFactor("groups", "rest")
            elif self.groups % size == 0:
                sizes = {"rest": self.groups // size}
                groups = CompoundFactor(x[self.axis], "rest")
        if self.kernel.pools:
            if self.groups != size:
                y[self.axis] = groups
                sizes.pop("groups", None)  # a whole axis of y
            inputs, outputs = [x], [y]
            if self.gradient:
                inputs, outputs = [x, y], [x]
        else:
            y = x
            params = [*x[: self.batch], groups, "count"]
            if groups == "groups":
                sizes.pop("groups", None)  # a whole axis of params
            inputs, outputs = [x, params], [x]
            if self.kernel.random:
                inputs.append(["words"] if self.key_rank == 1 else [*x[: self.batch], "words"])
            if self.gradient:
                inputs.append(x)
                outputs.append(params)
        return SdyShardingRule(
            tuple(ArrayMapping(*array) for array in inputs),
            tuple(ArrayMapping(*array) for array in outputs),
            **sizes,
        )

    def specs(self, mesh, x):
        """Of x, params and key (None where there is none), and of dy if it is a gradient."""
        given = x.sharding.spec if isinstance(x.sharding, NamedSharding) else ()
        given = [*given, *[None] * len(self.shape)][: len(self.shape)]
        spec = [
            entry if entry and self._may_cut(i, _parts(mesh, entry)) else None
            for i, entry in enumerate(given)
        ]
        params = key = None
        if not self.kernel.pools:
            params = [*spec[: self.batch], spec[self.axis] if self.groups > 1 else None, None]
        if self.kernel.random:
            key = [None] if self.key_rank == 1 else [*spec[: self.batch], None]
        return [spec, params, key, spec] if self.gradient else [spec, params, key]

    def _may_cut(self, i, parts):
        """Whether each of so many parts of axis i of x is seen as [outer, groups, inner] too."""
        if self.shape[i] % parts or (self.kernel.random and i > self.batch):
            return False  # XLA would pad; parts of an array with draws must be contiguous
        if i < self.axis or self.groups == 1:
            return i != self.axis or not self.kernel.pools
        if i == self.axis:
            return self.groups % parts == 0
        return self.kernel.pools or math.prod(self.shape[self.axis : i]) % self.groups == 0

    def summed(self, spec):
        """The mesh axes over whose devices the parameters' gradient is summed."""
        if self.kernel.pools:
            return ()
        cut = [
            _names(entry)
            for i, entry in enumerate(spec)
            if i >= self.batch and not (i == self.axis and self.groups > 1)
        ]
        return tuple(itertools.chain(*cut))

    def part_of_key(self, mesh, spec, x, key):
        """The key, then the index of the first element of a device's part of x."""
        entry = spec[self.batch] if self.batch < len(spec) else None
        if not entry:
            return key
        part = 0
        for name in _names(entry):
            part = part * mesh.shape[name] + jax.lax.axis_index(name)
        first = [i * math.prod(x.shape[self.batch :]) for i in range(_parts(mesh, entry))]
        words = np.array([[i & 0xFFFFFFFF, i >> 32] for i in first], np.uint32).view(np.int32)
        words = jnp.broadcast_to(jnp.asarray(words)[part], key.shape)
        return jnp.concatenate([key, words], axis=-1)


def _names(entry):
    """The mesh axes of a `PartitionSpec`'s entry."""
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def _parts(mesh, entry):
    return math.prod(mesh.shape[name] for name in _names(entry))


def _mesh_of(mesh, arrays):
    """A mesh of the arrays' devices where JAX knows none: then nothing is cut."""
    if not mesh.empty:
        return mesh
    known = (a.sharding.device_set for a in arrays if a.sharding is not None)
    devices = next(known, jax.devices())
    return Mesh(np.array(sorted(devices, key=lambda device: device.id)), ("all",))


def _shardings(mesh, specs):
    return tuple(NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs if spec is not None)
