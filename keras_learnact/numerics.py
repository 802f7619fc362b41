"""Floating-point numbers taken apart and put together, exactly, on every Keras backend.

Formulas use these where a plain evaluation would overflow on the way to a representable result.
"""

import keras
import numpy as np
from keras import ops

_INTEGER = {"float32": "int32", "float64": "int64"}


def limits(dtype):
    """`numpy.finfo` of a tensor's dtype."""
    return np.finfo(keras.backend.standardize_dtype(dtype))


def exponent(x):
    """`floor(log2(|x|))` as an integer tensor.

    0 and denormal numbers give `1 - bias` at most, inf and nan the largest exponent + 1.
    No gradient flows through it.
    """
    info = limits(x.dtype)
    bits = ops.view(ops.stop_gradient(x), _INTEGER[str(info.dtype)])
    field = ops.bitwise_and(ops.right_shift(bits, info.nmant), 2**info.nexp - 1)
    return field - (info.maxexp - 1)


def power_of_two(k, dtype):
    """`2**k`, exactly, for an integer tensor `k`; 0 where that is below the normal numbers.

    `k` must not exceed the dtype's largest exponent (127 for float32). No gradient flows through
    it.
    """
    info = limits(dtype)
    field = ops.maximum(k + (info.maxexp - 1), 0)
    return ops.view(ops.left_shift(field, info.nmant), str(info.dtype))


def mantissa(x, least=None):
    """x scaled to 1 <= |x| < 2 by an exact power of two 2^-k, and the integer tensor k.

    Where the exponent is below `least` (default: that of the smallest normal number), or x is 0, k
    is `least`. The gradient flows through the scaled x; k is a constant.
    """
    info = limits(x.dtype)
    k = ops.clip(exponent(x), info.minexp if least is None else least, info.maxexp - 1)
    # In two steps: 2^-k alone may be below the normal numbers.
    return x * power_of_two(-(k // 2), x.dtype) * power_of_two(k // 2 - k, x.dtype), k
