"""PReLU: ReLU with a learned slope below zero."""

import keras
from keras import ops

from keras_learnact import expressions, kernels
from keras_learnact.layers.base import PACKAGE, NumbersActivation
from keras_learnact.numerics import finite


@keras.saving.register_keras_serializable(PACKAGE)
class PReLU(NumbersActivation):
    """Parametric rectified linear unit: ReLU with a learned slope below zero.

    Formula:

        f(x) = x         for x > 0
               alpha x   for x <= 0

    It starts as leaky ReLU with slope 0.25. At x = 0 the derivative is alpha.

    `keras.layers.PReLU` has a slope for every element unless it is told the axes of the image:
    18,432 behind a convolution of 32 channels on 24 x 24 pixels. This one has the paper's
    "channel-wise" slopes by default, 32, whatever the size of the image, or, with
    sharing="layer", its "channel-shared" slope.

    The value is right for every finite x and alpha. f(±∞) is f at the largest finite number,
    f(nan) is nan.

    Args:
        initial: alpha at the start, a number or a Keras initializer.
        sharing: see `LearnableActivation`.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of alpha. The paper has none: a weight decay would
            make a ReLU of it.
        constraint: optional Keras constraint.

    Weights: `alpha` [groups, 1].

    Raises:
        ValueError: for an `initial` that is neither a number nor an initializer.

    Example:

    >>> layer = PReLU(sharing="layer")
    >>> layer(np.array([-2.0, 3.0]))
    [-0.5, 3.0]

    Reference: He, Zhang, Ren, Sun: Delving Deep into Rectifiers: Surpassing Human-Level Performance
    on ImageNet Classification, ICCV 2015, Eq. 1.
    """

    starts_as = "max(x, 0.25 * x)"
    names = ("alpha",)

    def __init__(
        self, initial=0.25, sharing="channel", axis=-1, regularizer=None, constraint=None, **kwargs
    ):
        super().__init__(initial, sharing, axis, regularizer, constraint, **kwargs)

    def function(self, x, alpha):
        return prelu(x, alpha[0])

    def kernel(self, training):
        return kernels.Call(KERNEL, ())

    def expression(self, x, alpha):
        return expressions.sympy().Piecewise((x, x > 0), (alpha[0] * x, True))

    def text(self, alpha):
        return f"max(0, x) - {alpha[0]:.6g} max(0, -x)".replace("- -", "+ ")


def prelu(x, alpha):
    """x above 0, alpha x below."""
    x = finite(x)
    return ops.where(x > 0, x, alpha * x)


def _formula(x, p, settings, key):
    return prelu(x, p[0])


KERNEL = kernels.kernel("Prelu", _formula)
