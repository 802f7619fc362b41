"""PELU: the parametric exponential linear unit."""

import keras
from keras import ops

from keras_learnact import expressions, kernels
from keras_learnact.layers.base import PACKAGE, NumbersActivation
from keras_learnact.numerics import finite, limits, product_over

# The authors keep both parameters above it.
LEAST = 0.1


@keras.saving.register_keras_serializable(PACKAGE)
class PELU(NumbersActivation):
    """Parametric exponential linear unit: a line, and below 0 an exponential that fits to it.

    Formula:

        f(x) = (a/b) x            for x >= 0
               a (e^(x/b) − 1)    for x < 0

    It starts as ELU, a = b = 1. The slope is a/b from both sides of 0, so f has a continuous
    derivative; far to the left f is −a.

    a and b are positive: each is the magnitude of its weight w, and where that is below 0.1, the
    bound at which the authors clip, it is (w² + 0.01) / 0.2, which has the same value and slope
    there and is never below 0.05. So the weights may have any value, nothing divides by 0, and a
    gradient flows everywhere but at a weight of exactly 0, the lowest point.

    The value is right for every finite x and all finite parameters; where a product of a, x and 1/b
    comes close to overflow although f does not, no gradient flows. f(±∞) is f at the largest finite
    number, f(nan) is nan.

    Args:
        initial: `(a, b)`, each a number or a Keras initializer.
        sharing: see `LearnableActivation`. The paper's is "layer": two parameters for each.
        axis: see `LearnableActivation`.
        regularizer, constraint: optional Keras regularizer and constraint of both, or a pair.

    Weights: `a` and `b`, each [groups, 1].

    Raises:
        ValueError: for an `initial` that is not two numbers or initializers.

    Example:

    >>> layer = PELU(initial=(2, 4))
    >>> layer(np.array([-4.0, 6.0]))
    [-1.264241, 3.0]

    Reference: Trottier, Giguère, Chaib-draa: Parametric Exponential Linear Unit for Deep
    Convolutional Neural Networks, ICMLA 2017.
    """

    starts_as = "max(x, 0) + exp(min(x, 0)) - 1"
    smoothness = 1
    names = ("a", "b")

    def __init__(
        self,
        initial=(1.0, 1.0),
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(initial, sharing, axis, regularizer, constraint, **kwargs)

    def function(self, x, a, b):
        return pelu(x, a[0], b[0])

    def kernel(self, training):
        return kernels.Call(KERNEL, ())

    def expression(self, x, a, b):
        sp = expressions.sympy()
        a, b = (_positive_expression(sp, weight[0]) for weight in (a, b))
        return sp.Piecewise((a / b * x, x >= 0), (a * (sp.exp(x / b) - 1), True))

    def text(self, a, b):
        a, b = (_positive_number(weight[0]) for weight in (a, b))
        return f"{a / b:.6g} max(0, x) + {a:.6g} (exp(min(0, x) / {b:.6g}) - 1)"


def pelu(x, a, b):
    """The line and the exponential of `PELU`.

    Args:
        x: float tensor.
        a, b: the weights: tensors that broadcast with x.
    """
    x, a, b = finite(x), _positive(a), _positive(b)
    most = limits(x.dtype).max / 1024  # 1024 > (1/0.05)²
    # The line. Where its derivatives might overflow, its value is a constant.
    value = ops.stop_gradient(product_over(a, x, b))
    steep = ops.abs(product_over(ops.maximum(a, 1.0), x, b)) > most
    plain = ops.logical_and(x > 0, ops.logical_not(steep))
    line = product_over(a, ops.where(plain, x, 0.0), b)
    line = ops.where(steep, value, line)
    # The exponential, which is over at −1000.
    ended = x < -1000 * b
    t = ops.where(ops.logical_or(ended, x > 0), 0.0, x) / b
    t = ops.where(a > most, ops.stop_gradient(t), t)
    # e^t − 1 is 2s / (1 − s) with s = tanh(t/2), which keeps the digits of a small t. Its
    # derivative, (1 + s) / (1 − s), has none far below 0.
    far = t < -0.5
    s = ops.tanh(0.5 * ops.where(far, 0.0, t))
    curve = ops.where(far, ops.exp(ops.where(far, t, 0.0)) - 1, 2 * s / (1 - s))
    curve = a * ops.where(ended, -1.0, curve)
    return ops.where(x > 0, line, ops.where(ops.isnan(x), x, curve))


def _positive(weight):
    """A weight as positive number, see `PELU`."""
    size = ops.where(weight < 0, -weight, weight)
    small = size < LEAST
    square = ops.square(ops.where(small, weight, 0.0))
    return ops.where(small, square * (0.5 / LEAST) + 0.5 * LEAST, size)


def _positive_expression(sp, weight):
    least = expressions.decimal(LEAST)
    below, above = weight**2 / (2 * least) + least / 2, sp.Abs(weight)
    return sp.Piecewise((below, above < least), (above, True))


def _positive_number(weight):
    return abs(weight) if abs(weight) >= LEAST else weight**2 * (0.5 / LEAST) + 0.5 * LEAST


def _formula(x, p, settings, key):
    return pelu(x, p[0], p[1])


KERNEL = kernels.kernel("Pelu", _formula)
