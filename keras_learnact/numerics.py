"""Floating-point numbers taken apart and put together, exactly, on every Keras backend.

Formulas use these where a plain evaluation would overflow on the way to a representable result.
They work on the bits of numbers, or, in the scope of `kernels.portable()`, by arithmetic alone,
slower and with the same results: ONNX and LiteRT have no operations on bits.
"""

import functools
import math
import operator

import keras
import numpy as np
from keras import ops

from keras_learnact import kernels

_INTEGER = {"float32": "int32", "float64": "int64"}


def limits(dtype):
    """`numpy.finfo` of a tensor's dtype."""
    return np.finfo(keras.backend.standardize_dtype(dtype))


def _view(x, dtype):
    """The same bits as numbers of another dtype of the same size."""
    shape = x.shape
    if getattr(shape, "rank", 0) is None or (len(shape) > 0 and shape[-1] is None):
        # `ops.view` wants to know the last size.
        return ops.reshape(ops.view(ops.reshape(x, (-1, 1)), dtype), ops.shape(x))
    return ops.view(x, dtype)


def exponent(x):
    """`floor(log2(|x|))` as an integer tensor.

    0 and denormal numbers give `1 - bias` at most, inf and nan the largest exponent + 1.
    No gradient flows through it.
    """
    x = ops.stop_gradient(x)
    info = limits(x.dtype)
    if kernels.is_portable():
        return _exponent_by_arithmetic(x, info)
    bits = _view(x, _INTEGER[str(info.dtype)])
    field = ops.bitwise_and(ops.right_shift(bits, info.nmant), 2**info.nexp - 1)
    return field - (info.maxexp - 1)


def _exponent_by_arithmetic(x, info):
    x = ops.abs(x)
    number = x <= info.max
    # The logarithm is at most one off, and zeros and denormal numbers count as the smallest normal.
    guess = ops.floor(ops.log(ops.clip(x, info.tiny, info.max)) * (1 / math.log(2)))
    k = ops.cast(ops.where(number, guess, 0.0), _INTEGER[str(info.dtype)])
    k = ops.clip(k, info.minexp, info.maxexp - 1)
    part = x * power_of_two(-(k // 2), x.dtype) * power_of_two(k // 2 - k, x.dtype)
    k = ops.where(part < 1, k - 1, ops.where(part < 2, k, k + 1))
    return ops.where(number, k, info.maxexp)


def power_of_two(k, dtype):
    """`2**k`, exactly, for an integer tensor `k`; 0 where that is below the normal numbers.

    `k` must not exceed the dtype's largest exponent (127 for float32). No gradient flows through
    it.
    """
    info = limits(dtype)
    if kernels.is_portable():
        table = np.ldexp(1.0, np.arange(info.minexp, info.maxexp)).astype(info.dtype)
        place = ops.maximum(k - (info.minexp - 1), 0)
        return ops.take(ops.convert_to_tensor(np.append(info.dtype.type(0), table)), place)
    field = ops.maximum(k + (info.maxexp - 1), 0)
    return _view(ops.left_shift(field, info.nmant), str(info.dtype))


def mantissa(x, least=None):
    """x scaled to 1 <= |x| < 2 by an exact power of two 2^-k, and the integer tensor k.

    Where the exponent is below `least` (default: that of the smallest normal number), or x is 0, k
    is `least`. The gradient flows through the scaled x; k is a constant.
    """
    info = limits(x.dtype)
    k = ops.clip(exponent(x), info.minexp if least is None else least, info.maxexp - 1)
    # In two steps: 2^-k alone may be below the normal numbers.
    return x * power_of_two(-(k // 2), x.dtype) * power_of_two(k // 2 - k, x.dtype), k


def weighted_sum(weights, terms):
    """Σ_j weights[j] terms[j], finite wherever the sum is, even if a product alone is not.

    Where a product overflows, the value is that of the sum in smaller numbers, and no gradient
    flows. Elsewhere it is the plain sum.

    Args:
        weights: list of finite tensors.
        terms: list of as many finite tensors, which broadcast with the weights.
    """

    def total(factors, others):
        return functools.reduce(operator.add, (a * b for a, b in zip(factors, others, strict=True)))

    plain = total(weights, terms)
    weights = [ops.stop_gradient(weight) for weight in weights]
    terms = [ops.stop_gradient(term) for term in terms]
    # n terms with |weight| < 2^(e+1) and n < 2^b: the weights times 2^-(e+1+b) sum to less than 1,
    # so all partial sums stay below the largest term. Half of that power goes to each factor:
    # then what underflows is below 2^-30 of the rounding error of a sum that overflows.
    largest = functools.reduce(ops.maximum, [ops.abs(weight) for weight in weights])
    k = ops.maximum(exponent(largest) + 1 + len(weights).bit_length(), 0)
    up = power_of_two(k // 2, plain.dtype), power_of_two(k - k // 2, plain.dtype)
    down = power_of_two(-(k // 2), plain.dtype), power_of_two(k // 2 - k, plain.dtype)
    small = total([w * down[0] for w in weights], [term * down[1] for term in terms])
    return select(ops.isfinite(plain), plain, small * up[0] * up[1])


def product_over(a, b, c):
    """a b / c for c > 0, also where a b would overflow."""
    unit = ops.stop_gradient(ops.where(c > 1, c, 1.0))
    root = ops.sqrt(unit)
    return (a / root) * (b / root) * (unit / c)


def select(condition, value, otherwise):
    """`ops.where` for a value that may be infinite or nan where it is not taken.

    tf2onnx makes 1 · value + 0 · otherwise of a choice, except where it sees that the condition
    is about nan.
    """
    if kernels.is_portable():
        condition = ops.isnan(ops.where(condition, float("nan"), 0.0))
    return ops.where(condition, value, otherwise)


def finite(x):
    """x with ±∞ replaced by the largest finite numbers, where no gradient flows; nan stays."""
    return ops.where(ops.isinf(x), ops.sign(x) * limits(x.dtype).max, x)


def difference(a, b):
    """a − b as the sum of two numbers of one sign, neither of which overflows.

    They are the difference of the positive parts and that of the negative parts. Where a and b
    have the same sign, one of the two is 0 and the other a − b itself: nothing is lost. The
    derivatives of their sum are 1 and −1 everywhere, also at a = 0 and b = 0.
    """

    def parts(x):
        return ops.where(x >= 0, x, 0.0), ops.where(x >= 0, 0.0, x)

    (positive_a, negative_a), (positive_b, negative_b) = parts(a), parts(b)
    return positive_a - positive_b, negative_a - negative_b


def log1p_ratio(w):
    """log(1 + w) / w for -1/2 <= w <= 1, smooth at 0, of operations that ONNX has.

    log(1 + w) = 2 artanh(s) with s = w / (2 + w).
    """
    s = w / (2 + w)
    z, series = s * s, 0.0
    for k in range(17, -1, -1):  # |s| <= 1/3: the next term is below 2^-62
        series = series * z + 1 / (2 * k + 1)
    return series * (2 / (2 + w))


def erfc(v):
    """1 − erf(v) for v >= 0."""
    if _has_erf(v):
        return 1 - erf(v)
    # The fit of NormalTail in custom_ops/runtime/math.h, of √2 v.
    t = 1 / (1 + 0.3 * math.sqrt(2) * v)
    return 2 * ops.exp(-v * v) * t * functools.reduce(lambda y, c: y * t + c, ERFC)


# From the highest power on.
ERFC = (
    *(-0.02062302219, 0.11243335274, -0.22820866149, 0.19177843074, -0.079418796762),
    *(0.096154507607, 0.078390389571, 0.11023527906, 0.11957182995, 0.11968668906),
)


def erf(v):
    """The error function, also where LiteRT has to compute it; XLA's own exceeds 1."""
    if _has_erf(v):
        return ops.clip(ops.erf(v), -1.0, 1.0)
    small = ops.abs(v) < 0.5
    near, series = ops.where(small, v, 0.0), 0.0
    for k in range(6, -1, -1):  # the next term is below 2^-30 of the sum
        series = series * near * near + (-1) ** k / (math.factorial(k) * (2 * k + 1))
    far = ops.sign(v) * (1 - erfc(ops.abs(ops.where(small, 1.0, v))))
    return ops.where(small, 2 / math.sqrt(math.pi) * near * series, far)


def _has_erf(v):
    """Whether what is traced now may call erf: LiteRT has none, and no numbers of 64 bits."""
    return not kernels.is_portable() or limits(v.dtype).dtype == "float64"
