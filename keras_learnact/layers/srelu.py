"""SReLU: the S-shaped rectified linear unit."""

import keras
from keras import ops

from keras_learnact import expressions, kernels
from keras_learnact.layers.base import PACKAGE, NumbersActivation, TwoPhaseActivation
from keras_learnact.numerics import difference, finite, weighted_sum


@keras.saving.register_keras_serializable(PACKAGE)
class SReLU(NumbersActivation, TwoPhaseActivation):
    """S-shaped rectified linear unit: identity in the middle, a learned line on either side.

    Formula:

        f(x) = t_right + a_right (x − t_right)   for x >= t_right
               x                                 for t_left < x < t_right
               t_left + a_left (x − t_left)      for x <= t_left

    It starts as leaky ReLU with slope 0.2: t_left = 0, a_left = 0.2, a_right = 1, and then t_right,
    which starts at 1, has no effect.

    If training moves t_left above t_right, the two change places: the smaller one is the end of the
    left line, the larger one the start of the right line. So f is continuous, in x and in its
    parameters, whatever they are. At a threshold the derivative is that of the line (at
    t_left = t_right that of the right line).

    The paper trains in two phases: for some epochs the parameters stay at their start, a leaky
    ReLU; then t_right is set from the data and all four are learned. The callback
    `keras_learnact.callbacks.SReLUThresholds` does both. The first phase is kept in the weight
    `frozen`, which is not trainable: while it is 1, no gradient flows to the four parameters. (An
    optimizer with weight decay would still shrink them.)

    The value is right for every finite x and all finite parameters; where a product
    slope · distance overflows although f does not, no gradient flows. f(±∞) is f at the largest
    finite number, f(nan) is nan.

    Args:
        initial: `(t_left, a_left, t_right, a_right)`, each a number or a Keras initializer.
        sharing: see `LearnableActivation`. The paper's is "channel": four parameters for each.
        axis: see `LearnableActivation`.
        regularizer, constraint: optional Keras regularizer and constraint of all, or a tuple of
            four.

    Weights: `t_left`, `a_left`, `t_right`, `a_right`, each [groups, 1]; `frozen`, a scalar.

    Raises:
        ValueError: for an `initial` that is not four numbers or initializers.

    Example:

    >>> layer = SReLU(initial=(-1, 0.5, 2, 0), sharing="layer")
    >>> layer(np.array([-3.0, 0.5, 7.0]))
    [-2.0, 0.5, 2.0]

    Reference: Jin, Xu, Feng, Wei, Xiong, Yan: Deep Learning with S-shaped Rectified Linear
    Activation Units, AAAI 2016, Eq. 1. The numbers of the start are a reconstruction.
    """

    starts_as = "max(x, 0.2 * x)"
    names = ("t_left", "a_left", "t_right", "a_right")

    def __init__(
        self,
        initial=(0.0, 0.2, 1.0, 1.0),
        sharing="channel",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(initial, sharing, axis, regularizer, constraint, **kwargs)

    def function(self, x, t_left, a_left, t_right, a_right):
        return srelu(x, t_left[0], a_left[0], t_right[0], a_right[0])

    def kernel(self, training):
        return kernels.Call(KERNEL, ())

    def expression(self, x, t_left, a_left, t_right, a_right):
        sp = expressions.sympy()
        low, high = sp.Min(t_left[0], t_right[0]), sp.Max(t_left[0], t_right[0])
        return sp.Piecewise(
            (high + a_right[0] * (x - high), x >= high),
            (low + a_left[0] * (x - low), x <= low),
            (x, True),
        )

    def text(self, t_left, a_left, t_right, a_right):
        low, high = sorted((t_left[0], t_right[0]))
        return (
            f"{high:.6g} + {a_right[0]:.6g} (x - {high:.6g}) for x >= {high:.6g}; "
            f"{low:.6g} + {a_left[0]:.6g} (x - {low:.6g}) for x <= {low:.6g}; x between"
        ).replace("- -", "+ ")


def srelu(x, t_left, a_left, t_right, a_right):
    """The three lines of `SReLU`.

    Args:
        x: float tensor.
        t_left, a_left, t_right, a_right: tensors that broadcast with x.
    """
    x = finite(x)
    crossed = t_left > t_right
    low = ops.where(crossed, t_right, t_left)
    high = ops.where(crossed, t_left, t_right)
    right = x >= high
    left = ops.logical_and(x <= low, x < high)
    # f(x) = x held between low and high, plus slope · distance on the side where x is.
    weights, terms = [ops.ones_like(a_left)], [ops.where(right, high, ops.where(left, low, x))]
    for side, slope, threshold in ((right, a_right, high), (left, a_left, low)):
        for part in difference(x, threshold):
            weights.append(slope)
            terms.append(ops.where(side, part, 0.0))
    return weighted_sum(weights, terms)


def _formula(x, p, settings, key):
    return srelu(x, p[0], p[1], p[2], p[3])


KERNEL = kernels.kernel("Srelu", _formula)
