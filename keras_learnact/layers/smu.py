"""SMU: the smooth maximum unit."""

import math

import keras
from keras import ops

from keras_learnact import expressions
from keras_learnact.layers.acon import between_lines, fixed_lines, smooth_maximum
from keras_learnact.layers.base import PACKAGE, NumbersActivation


@keras.saving.register_keras_serializable(PACKAGE)
class SMU(NumbersActivation):
    """Smooth maximum unit: leaky ReLU, its kink smoothed as much as is learned.

    Formula:

        f(x) = ((1 + α) x + (1 − α) x erf(μ (1 − α) x)) / 2

    α is fixed, μ is learned. For μ → ∞ it is max(x, α x), leaky ReLU with slope α (of α < 1); with
    α = 0 and μ = 1/√2 it is GELU; with μ = 0 it is the line (1 + α) x / 2, and for μ → −∞ it is
    min(x, α x).

    It starts with μ = 2.5, a leaky ReLU that is smooth over |x| < 1 or so. The programs published
    for the paper start at μ = 10^6. There SMU is leaky ReLU to 10^−6 and μ stays where it is, for
    it has a gradient only where |μ (1 − α) x| is no more than a few units.

    The value is right for every finite x and μ, to the rounding of the larger of x and α x; in the
    dtype's left tail, with α = 0, that is the precision of 1 + erf. f(±∞) is f at the largest
    finite number, f(nan) is nan.

    Args:
        alpha: α, a number between -10^30 and 10^30.
        initial: μ at the start, a number or a Keras initializer.
        sharing: see `LearnableActivation`.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of μ.
        constraint: optional Keras constraint of μ.

    Weights: `mu` [groups, 1].

    Raises:
        ValueError: for an `alpha` that is no such number, or an `initial` that is neither a number
            nor an initializer.

    Example:

    >>> layer = SMU(initial=1e6)
    >>> layer(np.array([-1.0, 2.0]))
    [-0.25, 2.0]

    Reference: Biswas, Kumar, Banerjee, Pandey: Smooth Maximum Unit: Smooth Activation Function for
    Deep Networks using Smoothing Maximum Technique, CVPR 2022. The start is a reconstruction.
    """

    starts_as = "(1.25 * x + 0.75 * x * erf(1.875 * x)) / 2"
    smoothness = math.inf
    names = ("mu",)

    def __init__(
        self,
        alpha=0.25,
        initial=2.5,
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(initial, sharing, axis, regularizer, constraint, **kwargs)
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) <= 1e30:
            raise ValueError(
                f"SMU: `alpha` must be a number between -1e30 and 1e30. Received: alpha={alpha!r}"
            )
        self.alpha = alpha

    def function(self, x, mu):
        one = ops.ones_like(mu[0])
        return smooth_maximum(x, one, self.alpha * one, mu[0], "normal")

    def kernel(self, training):
        return fixed_lines("normal", 1.0, self.alpha)

    def expression(self, x, mu):
        sp, alpha = expressions.sympy(), expressions.decimal(self.alpha)
        erf = sp.erf(mu[0] * (1 - alpha) * x)
        return between_lines(x, sp.S.One, alpha, mu[0], (1 + erf) / 2, (1 - erf) / 2)

    def text(self, mu):
        line, kink = (1 + self.alpha) / 2, (1 - self.alpha) / 2
        return f"{line:.6g} x + {kink:.6g} x erf({2 * mu[0] * kink:.6g} x)".replace("+ -", "- ")

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}
