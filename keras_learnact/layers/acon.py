"""Swish with a learned slope, and ACON-C: the larger of two lines, smoothed and learned."""

import math

import keras
from keras import ops

from keras_learnact import expressions, kernels
from keras_learnact.layers.base import PACKAGE, NumbersActivation
from keras_learnact.numerics import erfc, finite, limits, weighted_sum


@keras.saving.register_keras_serializable(PACKAGE)
class Swish(NumbersActivation):
    """Swish with a learned slope of its gate.

    Formula:

        f(x) = x σ(β x),   σ(u) = 1 / (1 + e^(−u))

    It starts with β = 1, as SiLU. With β = 0 it is the line x / 2; for β → ∞ it is ReLU, for
    β → −∞ it is min(0, x). β = 1.702 is the common approximation of GELU.

    The value is right for every finite x and β, but for what the dtype flushes to zero: where
    σ(β x) is below its normal numbers, so may f(x) / x be. f(±∞) is f at the largest finite number,
    f(nan) is nan.

    Args:
        initial: β at the start, a number or a Keras initializer.
        sharing: see `LearnableActivation`.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of β.
        constraint: optional Keras constraint of β.

    Weights: `beta` [groups, 1].

    Raises:
        ValueError: for an `initial` that is neither a number nor an initializer.

    Example:

    >>> Swish().formula()
    'f(x) = x sigmoid(1 x)'

    Reference: Ramachandran, Zoph, Le: Searching for Activation Functions, 2017, section 4.
    """

    starts_as = "x * sigmoid(x)"
    smoothness = math.inf
    names = ("beta",)

    def __init__(
        self, initial=1.0, sharing="layer", axis=-1, regularizer=None, constraint=None, **kwargs
    ):
        super().__init__(initial, sharing, axis, regularizer, constraint, **kwargs)

    def function(self, x, beta):
        one = ops.ones_like(beta[0])
        return smooth_maximum(x, one, ops.zeros_like(one), beta[0], "logistic")

    def kernel(self, training):
        return fixed_lines("logistic", 1.0, 0.0)

    def expression(self, x, beta):
        return x / (1 + expressions.sympy().exp(-beta[0] * x))

    def text(self, beta):
        return f"x sigmoid({beta[0]:.6g} x)"


@keras.saving.register_keras_serializable(PACKAGE)
class ACONC(NumbersActivation):
    """ACON-C, "activate or not": the larger of two learned lines, smoothed as much as is learned.

    Formula:

        f(x) = (p1 − p2) x σ(β (p1 − p2) x) + p2 x,   σ(u) = 1 / (1 + e^(−u))

    It starts with p1 = 1, p2 = 0, β = 1, as SiLU. The authors' program draws p1 and p2 of every
    channel from the normal distribution, so that some channels start as −SiLU turned over; that is

        initial=(RandomNormal(0, 1), RandomNormal(0, 1), 1)  # of keras.initializers

    For β → ∞ it is max(p1 x, p2 x), for β → −∞ min(p1 x, p2 x), and with β = 0, or p1 = p2, the
    line (p1 + p2) x / 2: the unit does not activate. Far from 0 it comes to p1 x on the side where
    β (p1 − p2) x > 0, to p2 x on the other; its slope overshoots p1 and p2 by at most
    0.1 |p1 − p2|.

    The value is right for every finite x and all finite parameters, but for what the dtype flushes
    to zero, and for |β| below 10^−36, where (p1 − p2) x overflows; where a product overflows
    although f does not, no gradient flows. f(±∞) is f at the largest finite number, f(nan) is nan.

    Args:
        initial: `(p1, p2, beta)`, each a number or a Keras initializer.
        sharing: see `LearnableActivation`. The paper's is "channel": three parameters for each.
        axis: see `LearnableActivation`.
        regularizer, constraint: optional Keras regularizer and constraint of all, or a tuple of
            three.

    Weights: `p1`, `p2`, `beta`, each [groups, 1].

    Raises:
        ValueError: for an `initial` that is not three numbers or initializers.

    Example:

    >>> layer = ACONC(initial=(1, 0.25, 100), sharing="layer")
    >>> layer(np.array([-1.0, 2.0]))  # nearly leaky ReLU
    [-0.25, 2.0]

    Reference: Ma, Zhang, Liu, Sun: Activate or Not: Learning Customized Activation, CVPR 2021,
    ACON-C in Table 1.
    """

    starts_as = "x * sigmoid(x)"
    smoothness = math.inf
    names = ("p1", "p2", "beta")

    def __init__(
        self,
        initial=(1.0, 0.0, 1.0),
        sharing="channel",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(initial, sharing, axis, regularizer, constraint, **kwargs)

    def function(self, x, p1, p2, beta):
        return smooth_maximum(x, p1[0], p2[0], beta[0], "logistic")

    def kernel(self, training):
        return kernels.Call(KERNEL, (list(GATES).index("logistic"),))

    def expression(self, x, p1, p2, beta):
        sp, u = expressions.sympy(), beta[0] * (p1[0] - p2[0]) * x
        return between_lines(x, p1[0], p2[0], beta[0], 1 / (1 + sp.exp(-u)), 1 / (1 + sp.exp(u)))

    def text(self, p1, p2, beta):
        difference = p1[0] - p2[0]
        gated = f"{difference:.6g} x sigmoid({beta[0] * difference:.6g} x)"
        return f"{gated} + {p2[0]:.6g} x".replace("+ -", "- ")


# 2 G(-v) for v >= 0, for the distribution functions G that are gates; in the order of
# SmoothMaximumGate in custom_ops/kernels/smooth_maximum.h.
GATES = {
    "logistic": lambda v: 2 * ops.sigmoid(-v),
    "normal": erfc,
}


def smooth_maximum(x, p1, p2, beta, gate):
    """p2 x + d x G(β d x) with d = p1 − p2.

    It is computed from the line that the gate is nearer to, so that nothing cancels and nothing
    overflows that the value does not: p1 x − d x G(−β d x) on the right, where β d x >= 0.

    Args:
        x: float tensor.
        p1, p2, beta: tensors that broadcast with x.
        gate: key of `GATES`.
    """
    x, info = finite(x), limits(x.dtype)
    half = p1 * 0.5 - p2 * 0.5  # of d, which may overflow
    distance = finite(half * x)
    # Near the largest number the products of its derivative overflow: it has none.
    large = ops.abs(distance) > float(info.max) / 8
    distance = ops.where(large, ops.stop_gradient(distance), distance)
    right = beta * distance >= 0
    # Beyond that G is 0 or 1, with derivative 0: nothing that may overflow is multiplied by it.
    decided = ops.abs(beta * distance) > -1.25 * math.log(float(info.tiny))
    u = 2 * (beta * ops.where(decided, 0.0, distance))  # 2 beta may overflow
    # x, not the product: TensorFlow's graphs move the constants of G to it, where they overflow.
    rest = ops.where(decided, 0.0, x) * GATES[gate](ops.where(right, u, -u))
    return weighted_sum([ops.where(right, p1, p2), ops.where(right, -half, half)], [x, rest])


def between_lines(x, p1, p2, beta, share, rest):
    """The smooth maximum as an expression whose terms do not cancel: p1 x share + p2 x rest.

    Args:
        x, p1, p2, beta: SymPy numbers or symbols.
        share, rest: G(β d x) and G(−β d x).
    """
    if beta == 0:  # half of each line; SymPy would add them
        return expressions.sympy().Add(p1 * x / 2, p2 * x / 2, evaluate=False)
    return p1 * x * share + p2 * x * rest


def fixed_lines(gate, p1, p2):
    """The call of the kernel where β alone is learned."""
    return kernels.Call(
        KERNEL, (list(GATES).index(gate), kernels.bits(float(p1)), kernels.bits(float(p2)))
    )


def _formula(x, p, settings, key):
    gate, *lines = settings
    if lines:
        lines = [kernels.real(line) * ops.ones_like(p[0]) for line in lines]
    return smooth_maximum(x, *lines, *(p[i] for i in range(3 - len(lines))), list(GATES)[gate])


KERNEL = kernels.kernel("SmoothMaximum", _formula)
