"""CubicReLU: a line and a cube above 0, the nonlinearity-enhanced rectifier."""

import keras
from keras import ops

from keras_learnact import expressions, kernels
from keras_learnact.layers.base import PACKAGE, NumbersActivation
from keras_learnact.numerics import finite, mantissa, power_of_two, select, weighted_sum


@keras.saving.register_keras_serializable(PACKAGE)
class CubicReLU(NumbersActivation):
    """Nonlinearity-enhanced ReLU: above 0 a learned line and a learned cube.

    Formula:

        f(x) = H(x) (α x + γ β x³)

    H is 1 for x > 0, else 0. α and β are learned; γ, one constant for a whole network, says how
    fast the cube comes in: a step of β moves f by γ x³. It starts as ReLU, α = 1 and β = 0. At
    x = 0 the derivative is 0.

    This is a reconstruction: the numbers of the start, and γ = 1, are ours.

    The value is right for every finite x and all parameters for which γ β is a number; where a term
    comes close to overflow no gradient flows. f(±∞) is f at the largest finite number, f(nan) is
    nan.

    Args:
        gamma: γ, a number between -10^30 and 10^30.
        initial: `(alpha, beta)`, each a number or a Keras initializer.
        sharing: see `LearnableActivation`. The paper's is "layer": two parameters for each.
        axis: see `LearnableActivation`.
        regularizer, constraint: optional Keras regularizer and constraint of both, or a pair.

    Weights: `alpha` and `beta`, each [groups, 1].

    Raises:
        ValueError: for a `gamma` that is no such number, or an `initial` that is not two numbers or
            initializers.

    Example:

    >>> layer = CubicReLU(gamma=0.1, initial=(1, 2))
    >>> layer(np.array([-1.0, 2.0]))
    [0.0, 3.6]

    Reference: Yevick: Nonlinearity Enhanced Adaptive Activation Functions, 2024 (a reconstruction).
    """

    starts_as = "max(0, x)"
    names = ("alpha", "beta")

    def __init__(
        self,
        gamma=1.0,
        initial=(1.0, 0.0),
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(initial, sharing, axis, regularizer, constraint, **kwargs)
        if isinstance(gamma, bool) or not isinstance(gamma, (int, float)) or not abs(gamma) <= 1e30:
            raise ValueError(
                "CubicReLU: `gamma` must be a number between -1e30 and 1e30. "
                f"Received: gamma={gamma!r}"
            )
        self.gamma = gamma

    def function(self, x, alpha, beta):
        return cubic_relu(x, alpha[0], beta[0], self.gamma)

    def kernel(self, training):
        return kernels.Call(KERNEL, (kernels.bits(self.gamma),))

    def expression(self, x, alpha, beta):
        above = expressions.sympy().Max(0, x)
        return alpha[0] * above + expressions.exact(self.gamma) * beta[0] * above**3

    def text(self, alpha, beta):
        return f"H(x) ({alpha[0]:.6g} x + {self.gamma * beta[0]:.6g} x^3)".replace("+ -", "- ")

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma}


def cubic_relu(x, alpha, beta, gamma):
    """H(x) (α x + γ β x³), as `CubicReLU` defines it: s m (α + γ β s² m²) with x = s m, s >= 1.

    Args:
        x: float tensor.
        alpha, beta: tensors that broadcast with x.
        gamma: a number.
    """
    x, cube = finite(x), finite(gamma * beta)
    above = x > 0
    m, k = mantissa(ops.where(above, x, 1.0), least=0)
    s = power_of_two(k, x.dtype)
    # In an order in which neither a square is lost below 1, nor 0 · ∞ is a derivative above.
    one, square = m < 1, ops.square(ops.where(m < 1, 1.0, m))
    below = ops.where(one, m, 1.0)
    curve = ops.where(one, cube * below * below, finite(cube * s * s) * square)
    y = weighted_sum([alpha, finite(curve)], [m, m])
    fits = ops.isfinite(s * 32 * (ops.abs(alpha) + ops.abs(curve)))
    y = select(ops.logical_or(one, fits), y, ops.stop_gradient(y)) * s
    return select(above, y, ops.where(ops.isnan(x), x, 0.0))


def _formula(x, p, settings, key):
    return cubic_relu(x, p[0], p[1], kernels.real(settings[0]))


KERNEL = kernels.kernel("CubicRelu", _formula)
