"""EELU: the exponential error linear unit, a family around what a search found."""

import math

import keras
from keras import ops

from keras_learnact import expressions, kernels
from keras_learnact.layers.base import PACKAGE, NumbersActivation
from keras_learnact.numerics import erf, finite, limits


@keras.saving.register_keras_serializable(PACKAGE)
class EELU(NumbersActivation):
    """Exponential error linear unit: x times the error function of an exponential.

    Formula:

        f(x) = α x erf(β e^(−γx))

    It starts with α = −1, β = γ = 1 as −x erf(e^(−x)), which an evolutionary search found. For
    γ > 0, f is the line ±α x far to the left, with the sign of β, and tends to 0 on the right.

    This is a reconstruction: the search's winner is published, the family with three learned
    numbers around it is ours.

    The value is right for every finite x and all finite parameters; where a product of α, x, β and
    e^(−γx) overflows although f does not, no gradient flows through the error function. f(±∞) is f
    at the largest finite number, f(nan) is nan.

    Args:
        initial: `(alpha, beta, gamma)`, each a number or a Keras initializer.
        sharing: see `LearnableActivation`.
        axis: see `LearnableActivation`.
        regularizer, constraint: optional Keras regularizer and constraint of all, or a tuple of
            three.

    Weights: `alpha`, `beta`, `gamma`, each [groups, 1].

    Raises:
        ValueError: for an `initial` that is not three numbers or initializers.

    Example:

    >>> layer = EELU(initial=(2, 0.5, 0))
    >>> layer(np.array([1.0]))  # 2 erf(0.5)
    [1.0409998]

    Reference: Rahman, He, Wang: Activation Function Optimization Scheme for Image Classification,
    2024: −x erf(e^(−x)). The family is a reconstruction.
    """

    starts_as = "-x * erf(exp(-x))"
    smoothness = math.inf
    names = ("alpha", "beta", "gamma")

    def __init__(
        self,
        initial=(-1.0, 1.0, 1.0),
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(initial, sharing, axis, regularizer, constraint, **kwargs)

    def function(self, x, alpha, beta, gamma):
        return eelu(x, alpha[0], beta[0], gamma[0])

    def kernel(self, training):
        return kernels.Call(KERNEL, ())

    def expression(self, x, alpha, beta, gamma):
        sp = expressions.sympy()
        return alpha[0] * x * sp.erf(beta[0] * sp.exp(-gamma[0] * x))

    def text(self, alpha, beta, gamma):
        return f"{alpha[0]:.6g} x erf({beta[0]:.6g} exp({-gamma[0]:.6g} x))"


def eelu(x, alpha, beta, gamma):
    """α x erf(β e^(−γx)), as `EELU` defines it.

    Args:
        x: float tensor.
        alpha, beta, gamma: tensors that broadcast with x.
    """
    x = finite(x)
    half, highest = -0.5 * finite(gamma * x), 0.98 * math.log(limits(x.dtype).max)
    # The root of e^(−γx): a small β times e^(−γx) may be a number where that alone is none.
    root = ops.exp(ops.where(half > highest, highest, half))
    # Where erf is ±1, and its slope 0 in every dtype, or a product of derivatives may overflow, no
    # gradient flows.
    level = ops.abs(beta * root * root) > 30
    error = ops.where(level, ops.sign(beta), erf(ops.where(level, 0.0, beta) * root * root))
    size, growth = ops.maximum(ops.abs(beta), 1.0), ops.square(ops.maximum(root, 1.0))
    fits = ops.isfinite(alpha * x * size * growth * 4 * (ops.abs(x) + ops.abs(gamma) + 1))
    return alpha * (x * ops.where(fits, error, ops.stop_gradient(error)))


def _formula(x, p, settings, key):
    return eelu(x, p[0], p[1], p[2])


KERNEL = kernels.kernel("Eelu", _formula)
