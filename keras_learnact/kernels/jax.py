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

import jax
import jax.extend.backend
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import (
    ArrayMapping,
    CompoundFactor,
    SdyShardingRule,
    custom_partitioning,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_learnact import kernels
from keras_learnact.kernels import library

INTERFACE = 1  # of the libraries' functions and handlers, as custom_ops/xla_ffi.cc gives it
OLDEST = (0, 5, 0)  # jax.ffi is new there
DTYPES = ("float32", "float64", "float16", "bfloat16")

_libraries = {}  # by platform, as JAX names it: the loaded library
_kernels = {}  # by name: _Kernel
_absent = {}  # by platform: why it has no library


class _Kernel:
    """What the library for the CPU says of a kernel."""

    def __init__(self, loaded, number):
        self.name = loaded.keras_learnact_xla_name(number).decode()
        self.random = bool(loaded.keras_learnact_xla_random(number))
        self.pools = bool(loaded.keras_learnact_xla_pools(number))
        self.number = number


@functools.cache
def load():
    """Loads the libraries; "", or why there are no kernels."""
    if _version(jax.__version__) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return f"kernels need jax >= {oldest}, and this is {jax.__version__}"
    for platform, name in (("cpu", "xla"), ("cuda", "cuda")):
        _absent[platform] = library.missing(name) or _load(platform, name)
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
    numbers = (ctypes.c_int64 * len(settings))(*settings)
    text = ctypes.create_string_buffer(512)
    _libraries["cpu"].keras_learnact_xla_check(
        _kernels[name].number, count, numbers, len(settings), text, len(text)
    )
    return text.value.decode() or _platforms()


def run(name, settings, x, params, axis, key):
    """The kernel's output. Arguments as of `kernels.run`; `settings` is a tuple."""
    x = jnp.asarray(x)
    if key is not None:
        key = jnp.asarray(key).astype(jnp.int32)
    return _function(name, settings, axis)(x, params, key)


# Loading.


def _load(platform, name):
    """Loads and registers one library; "" or why not, with a warning."""
    loaded, why = library.open_library(name)
    if loaded is not None:
        try:
            interface = loaded.keras_learnact_xla_interface()
        except AttributeError:
            interface = None
        if interface != INTERFACE:
            why = (
                f"{loaded._name} is of another version of keras_learnact. Build it anew: python "
                f"custom_ops/build.py."
            )
    if why:
        kernels.warn(why)
        return why
    loaded.keras_learnact_xla_name.restype = ctypes.c_char_p
    loaded.keras_learnact_xla_handler.restype = ctypes.c_void_p
    for number in range(loaded.keras_learnact_xla_kernels()):
        kernel = _Kernel(loaded, number)
        for gradient in (False, True):
            handler = loaded.keras_learnact_xla_handler(number, gradient)
            target = _target(kernel.name, gradient)
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler), platform=platform)
        if platform == "cpu":
            _kernels[kernel.name] = kernel
    if platform == "cpu":
        loaded.keras_learnact_xla_target.restype = ctypes.c_char_p
        loaded.keras_learnact_xla_check.argtypes = [
            ctypes.c_int,
            ctypes.c_int64,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_char_p,
            ctypes.c_int64,
        ]
    _libraries[platform] = loaded
    return ""


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
    forward, backward = (_batched(name, settings, axis, gradient) for gradient in (False, True))

    def reference(x, params, key):
        return kernels.reference(name, settings, x, params, axis, key)

    @jax.custom_vjp
    def function(x, params, key):
        return forward(x, params, key)[0]

    @jax.custom_vjp
    def gradient(x, params, key, dy):
        return backward(x, params, key, dy)

    def of_gradient(arrays, cotangents):
        x, params, key, dy = arrays

        def formula(x, params, dy):
            return jax.vjp(lambda x, params: reference(x, params, key), x, params)[1](dy)

        dx, dparams, ddy = jax.vjp(formula, x, params, dy)[1](cotangents)
        return dx, dparams, None, ddy

    gradient.defvjp(lambda *arrays: (gradient(*arrays), arrays), of_gradient)

    def of_function(arrays, dy):
        dx, dparams = gradient(*arrays, dy)
        return dx, dparams, None

    function.defvjp(lambda *arrays: (function(*arrays), arrays), of_function)
    return jax.jit(function, inline=True)


# A call, `gradient` False: (x, params, key) -> (y,); True: (x, params, key, dy) -> (dx, dparams).
# params and dparams are None for a kernel that pools, key is None for one that is not random.


def _batched(name, settings, axis, gradient):
    """A call that under `vmap` is one call too."""
    kernel = _kernels[name]

    @jax.custom_batching.custom_vmap
    def call(*arrays):
        return _partitioned(kernel, settings, axis, gradient, arrays)

    @call.def_vmap
    def batched_call(size, batched, x, params, key, *dy):
        x_batched, params_batched, key_batched, *dy_batched = batched
        more = _batched(name, settings, axis + 1, gradient)

        def spread(array):
            return jnp.broadcast_to(array, (size, *array.shape))

        if not x_batched:
            x = spread(x)
        dy = [d if is_batched else spread(d) for d, is_batched in zip(dy, dy_batched, strict=True)]
        # One more axis before those that the groups cover. Where parameters or draws differ from
        # entry to entry, or the gradient is wanted of each, parameters of an entry's own.
        shared = kernel.pools or not (gradient or params_batched or kernel.random)
        if not (shared and (kernel.pools or params.ndim == 2)):
            params = params if params_batched else spread(params)
            if kernel.random and not key_batched and key.ndim > 1:
                key = spread(key)
        result = more(x, params, key, *dy)
        return result, jax.tree.map(lambda _: True, result)

    return call


def _call(kernel, settings, axis, gradient, arrays):
    """The FFI call of the arrays as they are."""
    x, params, key, *dy = arrays
    if gradient:
        shapes = [x, params]
    else:
        shape = list(x.shape)
        if kernel.pools:
            shape[axis] //= settings[0]
        shapes = [jax.ShapeDtypeStruct(shape, x.dtype)]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in shapes if a is not None]
    result = jax.ffi.ffi_call(_target(kernel.name, gradient), shapes)(
        *(a for a in (x, params, key, *dy) if a is not None),
        axis=np.int64(axis),
        settings=np.array(settings, np.int64),
    )
    return (*result, None)[:2] if gradient else tuple(result)


# Partitioned programs.


def _partitioned(kernel, settings, axis, gradient, arrays):
    """A call each of whose parts a device can do alone.

    Axes of x may be cut where parts are whole groups, or parts of all groups; every other axis
    stays whole on each device, and XLA gathers it.
    """
    there = [a is not None for a in arrays]
    layout = _Layout(kernel, settings, axis, gradient, arrays)

    def complete(present):
        values = iter(present)
        return [next(values) if is_there else None for is_there in there]

    @custom_partitioning
    def call(*present):
        return _present(_call(kernel, settings, axis, gradient, complete(present)))

    # An exception in these two would end the process.

    def partition(mesh, present, results):
        mesh = _mesh_of(mesh, present)
        specs = layout.specs(mesh, present[0])
        summed = layout.summed(specs[0])

        def part(*present):
            arrays = complete(present)
            if kernel.random:
                arrays[2] = layout.part_of_key(mesh, specs[0], arrays)
            result = _call(kernel, settings, axis, gradient, arrays)
            if gradient and summed:
                result = (result[0], jax.lax.psum(result[1], summed))
            return _present(result)

        outputs = specs[:2] if gradient else specs[:1]
        return mesh, part, _shardings(mesh, outputs), _shardings(mesh, specs)

    def infer(mesh, present, results):
        mesh = _mesh_of(mesh, present)
        specs = layout.specs(mesh, present[0])
        return _shardings(mesh, specs[:2] if gradient else specs[:1])

    call.def_partition(partition, infer_sharding_from_operands=infer, sharding_rule=layout.rule())
    result = call(*_present(arrays))
    return (*result, None)[:2] if gradient else tuple(result)


class _Layout:
    """Which axes of which array are cut together.

    For Shardy in a rule of named factors, of which one that is in two arrays is cut in both; for
    the partitioner of specs that say how every axis is cut, given those of x.
    """

    def __init__(self, kernel, settings, axis, gradient, arrays):
        x, params, key, *dy = arrays
        self.kernel, self.axis, self.gradient = kernel, axis, gradient
        self.shape, self.key_rank = x.shape, None if key is None else key.ndim
        if kernel.pools:
            self.batch, self.groups = 0, x.shape[axis] // settings[0]
        else:
            self.batch, self.groups = params.ndim - 2, params.shape[-2]

    def rule(self):
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

    def part_of_key(self, mesh, spec, arrays):
        """The key, then the index of the first element of a device's part of x."""
        entry = spec[self.batch] if self.batch < len(spec) else None
        x, _, key, *_ = arrays
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


def _present(arrays):
    return tuple(a for a in arrays if a is not None)
