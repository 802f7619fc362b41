"""Compiled kernels: which there are, and what is loaded. It knows no activation.

An activation's file makes a `Kernel` of its formula and says in `LearnableActivation.kernel` how a
layer calls it. Everything else is here and in one file for each backend: without a compiled
library the same call runs the formula in `keras.ops`.
"""

import contextlib
import contextvars
import functools
import operator
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

# Any of these values turns the kernels off in a whole process.
VARIABLE = "KERAS_LEARNACT_KERNELS"
OFF = ("0", "off", "false", "no")

KERNELS = {}  # by name: every Kernel that was made


class Kernel(NamedTuple):
    """A function of x and of its groups' parameters that the libraries have compiled.

    Args:
        name: in custom_ops/kernels/all.h.
        formula: the function in `keras.ops`, `formula(x, p, settings, key)`, for second
            derivatives: x a float32 or float64 tensor, `p[j]` the j-th parameter of every group
            in a shape that broadcasts with x, `settings` the integers of `Call.settings`. Of a
            kernel that pools, x is `[outer, groups, pieces, inner]`, y has no pieces, p is None.
    """

    name: str
    formula: Callable


class Call(NamedTuple):
    """How a layer calls a kernel: with its parameters, in the order of `parameter_list`.

    Args:
        kernel: the `Kernel`.
        settings: integers, as the kernel's header says; `bits` makes one of a float.
        key: of a kernel that draws random numbers: a function that gives an integer tensor of two
            words, another one at each call.
    """

    kernel: Kernel
    settings: tuple
    key: Callable | None = None


def kernel(name, formula):
    """Makes the `Kernel` of that name known."""
    KERNELS[name] = Kernel(name, formula)
    return KERNELS[name]


def bits(number):
    """A real number as one of the integers of `Call.settings`."""
    return int(np.float64(number).view(np.int64))


def real(setting):
    """The real number that `bits` made an integer of."""
    return float(np.int64(setting).view(np.float64))


_disabled = 0


@contextlib.contextmanager
def disabled():
    """In this scope layers run their formula in `keras.ops`; so do functions traced in it.

    A function that was traced before keeps its kernels in it, and one that is traced in it its
    formulas afterwards: so do the `predict` and `fit` of a model, from their first call on. Use a
    new model, or compile it again, to compare the two.

    It holds for all threads, since `tf.distribute` traces its replicas in threads of its own.
    """
    global _disabled
    _disabled += 1
    try:
        yield
    finally:
        _disabled -= 1


_portable = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable():
    """In this scope layers run, and trace, formulas of operations that every runtime has.

    No kernels, and no operations on the bits of numbers, which ONNX and LiteRT do not have; the
    values are those of the formulas. Keras' exports are traced in it by themselves, see
    `keras_learnact.export`; it is for other ways to the same formats, as `tf.saved_model.save`.

    It holds for the thread that enters it: others may train meanwhile.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable():
    """Whether what is traced now is for a process that does not know this package."""
    return _portable.get()


def status():
    """Prints what is loaded, what it was built for, and why something is not."""
    print(report())


def report():
    """The text that `status` prints."""
    backend = keras.backend.backend()
    lines = [f"keras_learnact kernels, Keras on {backend}:"]
    binding, why = load()
    if binding is None:
        lines.append(f"  reference formulas only: {why}")
    else:
        lines += [f"  {line}" for line in binding.report()]
    why = switched_off()
    if why:
        lines.append(f"  not used now: {why}")
    return "\n".join(lines)


def switched_off():
    """Why kernels are not to be used at this moment, or ""."""
    if _disabled:
        return "kernels.disabled()"
    if is_portable():
        return "traced for an export"
    value = os.environ.get(VARIABLE, "")
    return f"{VARIABLE}={value}" if value.strip().lower() in OFF else ""


@functools.cache
def load():
    """The binding of Keras' backend and "", or None and why there is none.

    A library that is there and cannot be used gives one warning.
    """
    backend = keras.backend.backend()
    if os.environ.get(VARIABLE, "").strip().lower() in OFF:
        return None, f"{VARIABLE}={os.environ[VARIABLE]}"
    if backend == "tensorflow":
        from keras_learnact.kernels import tensorflow as binding
    elif backend == "jax":
        from keras_learnact.kernels import jax as binding
    else:
        return None, f"there are kernels for TensorFlow and JAX, not for {backend}"
    why = binding.load()
    return (None, why) if why else (binding, "")


FORMULAS = "Layers run their formulas in keras.ops, which give the same values more slowly."


def warn(message, instead=FORMULAS):
    """The one warning about a library that is there and cannot be used, or was and is gone.

    Args:
        message: which library, and why.
        instead: what layers do without it.
    """
    warnings.warn(
        f"keras_learnact: {message} {instead} See keras_learnact.kernels.status(); "
        f"{VARIABLE}=off silences this.",
        stacklevel=2,
    )


def why_not(call, dtype, count):
    """Why a layer's call runs the formula, or "" if it runs the kernel.

    Args:
        call: what `LearnableActivation.kernel` gave: a `Call`, or why there is none.
        dtype: the input's dtype.
        count: number of parameters of each group.
    """
    if isinstance(call, str):
        return call
    why = switched_off()
    if why:
        return why
    binding, why = load()
    if binding is None:
        return why
    return binding.why_not(call.kernel.name, call.settings, count, dtype)


def side_by_side(params):
    """Arrays `[groups, n]` as one `[groups, count]`; to be asked only where `why_not` is ""."""
    binding, _ = load()
    return binding.side_by_side(params) if len(params) > 1 else params[0]


def run(call, x, params, axis):
    """What the kernel gives; to be asked only where `why_not` is "".

    Args:
        call: a `Call`.
        x: the input.
        params: float32 or, for a float64 input, float64 tensor `[groups, count]`. None for a
            kernel that pools: `Call.settings[0]` neighbours on `axis` become one.
        axis: the groups cover the axes of x from this one on: 0, all axes (one group); the
            channel axis; or 1 (units).
    """
    binding, _ = load()
    key = call.key() if call.key else None
    return binding.run(call.kernel.name, call.settings, x, params, axis, key)


def reference(name, settings, x, params, axis, key=None):
    """The same as `run` in `keras.ops`; differentiable any number of times."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    math_dtype = "float64" if dtype == "float64" else "float32"
    shape = ops.shape(x)
    outer = _product(shape[:axis])
    if params is None:
        pieces = settings[0]
        groups = shape[axis] // pieces
        seen, p = (outer, groups, pieces, _product(shape[axis + 1 :])), None
        shape = (*shape[:axis], groups, *shape[axis + 1 :])
    else:
        groups, count = params.shape
        seen = outer, groups, _product(shape[axis:]) // groups
        p = ops.reshape(ops.transpose(params), (count, groups, 1))
    y = KERNELS[name].formula(ops.reshape(ops.cast(x, math_dtype), seen), p, settings, key)
    return ops.cast(ops.reshape(y, shape), dtype)


def _product(sizes):
    """Of integers and scalar tensors."""
    return functools.reduce(operator.mul, sizes, 1)
