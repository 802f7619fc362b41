"""EELU: the exponential error linear unit, a family around what a search found."""

import math

import keras
from keras import ops

from keras_learnact import expressions, kernels
from keras_learnact.layers.base import (
    PACKAGE,
    LearnableActivation,
    Parameter,
    serialize,
    standardized,
    start,
)
from keras_learnact.numerics import erf, finite, limits

PARAMETERS = ("alpha", "beta", "gamma")


@keras.saving.register_keras_serializable(PACKAGE)
class EELU(LearnableActivation):
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
        regularizer: optional Keras regularizer of each of the three.
        constraint: optional Keras constraint of each of the three.

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

    def __init__(
        self,
        initial=(-1.0, 1.0, 1.0),
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if not isinstance(initial, (list, tuple)) or len(initial) != len(PARAMETERS):
            raise ValueError(
                "EELU: `initial` must be three numbers or initializers (alpha, beta, gamma). "
                f"Received: initial={initial!r}"
            )
        self.initial = standardized(initial)
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        self._start = [
            start("EELU", f"initial[{i}]", value, 1) for i, value in enumerate(self.initial)
        ]

    def parameter_list(self):
        return [
            Parameter(name, 1, value, self.regularizer, self.constraint)
            for name, value in zip(PARAMETERS, self._start, strict=True)
        ]

    def function(self, x, alpha, beta, gamma):
        return eelu(x, alpha[0], beta[0], gamma[0])

    def kernel(self, training):
        return kernels.Call(KERNEL, ())

    def expression(self, x, alpha, beta, gamma):
        sp = expressions.sympy()
        return alpha[0] * x * sp.erf(beta[0] * sp.exp(-gamma[0] * x))

    def text(self, alpha, beta, gamma):
        return f"{alpha[0]:.6g} x erf({beta[0]:.6g} exp({-gamma[0]:.6g} x))"

    def get_config(self):
        return {
            **super().get_config(),
            "initial": tuple(map(serialize, self.initial)),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }


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
    return eelu(x, *(p[i] for i in range(len(PARAMETERS))))


KERNEL = kernels.kernel("Eelu", _formula)
