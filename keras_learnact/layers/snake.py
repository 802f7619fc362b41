"""Snake: the identity with a learned wave on it."""

import math

import keras
from keras import ops

from keras_learnact import expressions, kernels
from keras_learnact.layers.base import PACKAGE, NumbersActivation
from keras_learnact.numerics import finite, limits


@keras.saving.register_keras_serializable(PACKAGE)
class Snake(NumbersActivation):
    """Snake: the identity with a learned wave on it, for what is periodic.

    Formula:

        f(x) = x + sin²(ax) / a

    It starts with a = 1 as x + sin²(x). f never falls. It tends to x as a → 0, and at a = 0 the
    layer is that, smoothly: the derivative by a there is x². a < 0 gives the wave below the
    identity.

    Where |ax| exceeds 2 / epsilon (1.7e7 in float32, 9e15 in float64), neighbouring numbers are a
    radian or more apart, and the wave is below the last digit of x: there f is x, and no gradient
    flows through the wave. f(±∞) is f at the largest finite number, f(nan) is nan.

    Args:
        initial: where a starts: a number or a Keras initializer.
        sharing: see `LearnableActivation`. The paper's is "layer"; later work has one a for each
            channel.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of a.
        constraint: optional Keras constraint of a.

    Weights: `a` [groups, 1].

    Raises:
        ValueError: for an `initial` that is not a number or an initializer.

    Example:

    >>> layer = Snake(initial=np.pi / 2)
    >>> layer(np.array([0.0, 1.0, 2.0]))
    [0.0, 1.63662, 2.0]

    Reference: Ziyin, Hartwig, Ueda: Neural Networks Fail to Learn Periodic Functions and How to Fix
    It, NeurIPS 2020.
    """

    starts_as = "x + sin(x)**2"
    smoothness = math.inf
    names = ("a",)

    def __init__(
        self, initial=1.0, sharing="layer", axis=-1, regularizer=None, constraint=None, **kwargs
    ):
        super().__init__(initial, sharing, axis, regularizer, constraint, **kwargs)

    def function(self, x, a):
        return snake(x, a[0])

    def kernel(self, training):
        return kernels.Call(KERNEL, ())

    def expression(self, x, a):
        sp = expressions.sympy()
        if a[0].is_Symbol:
            raise NotImplementedError("Snake's expression needs numbers: a may be 0.")
        return x + sp.sin(a[0] * x) ** 2 / a[0] if a[0] != 0 else x

    def text(self, a):
        return f"x + sin({a[0]:.6g} x)^2 / {a[0]:.6g}" if a[0] != 0 else "x"


def snake(x, a):
    """x + sin²(v)/a with v = ax, as `Snake` defines it: x + x sin(v) sin(v)/v.

    Args:
        x: float tensor.
        a: tensor that broadcasts with x.
    """
    x = finite(x)
    far = ops.abs(a * x) > 2 / limits(x.dtype).eps
    v = a * ops.where(far, 0.0, x)
    # sin(v)/v, by its series where the derivatives of a quotient would lose digits.
    near = ops.abs(v) < 0.25
    z = ops.square(ops.where(near, v, 0.0))
    series = ops.ones_like(z)
    for k in range(7, 0, -1):  # the next term is below 2^-64 there
        series = 1 - z / (2 * k * (2 * k + 1)) * series
    sine, whole = ops.sin(v), ops.where(near, 1.0, v)
    return x + x * (sine * ops.where(near, series, ops.sin(whole) / whole))


def _formula(x, p, settings, key):
    return snake(x, p[0])


KERNEL = kernels.kernel("Snake", _formula)
