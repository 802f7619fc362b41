"""APA: the adaptive parametric activation, and AGLU, x times it."""

import math

import keras
from keras import ops
from keras.initializers import RandomUniform

from keras_learnact import expressions, kernels
from keras_learnact.layers.base import PACKAGE, NumbersActivation
from keras_learnact.numerics import finite, log1p_ratio, product_over

# exp(-1000) is 0 in every dtype. Where w = λ e^(-κx) > 1, log(1 + w)/λ exceeds log(2)/λ and
# (log λ - κx)/λ: one of them exceeds 1000 if κx/λ < -2^15. Where w < 1, it does if κx < -8.
_NOTHING, _HIGHEST = 2.0**15, 8.0

# Below it λ counts as 0 where λ e^(-κx) exceeds 1: there f is 0 either way.
_SMALLEST = 2.0**-60


@keras.saving.register_keras_serializable(PACKAGE)
class APA(NumbersActivation):
    """Adaptive parametric activation: a sigmoid whose two ends are learned, a gate in (0, 1).

    Formula:

        f(x) = (1 + λ e^(−κx))^(−1/λ)

    λ = 1 is the sigmoid of κx; λ → 0 gives exp(−e^(−κx)), the Gumbel distribution, and at λ = 0 the
    layer is that. For κ > 0, f tends to 1 as 1 − e^(−κx) on the right, whatever λ is, and to 0 as
    (e^(κx)/λ)^(1/λ) on the left: the smaller λ, the harder the gate closes. κ < 0 mirrors it.

    λ is the magnitude of the weight `lambda_`, which may have any value. So nothing keeps an
    optimizer from passing through 0, and a gradient flows on both sides; at 0 it is that of λ > 0.
    With `constraint=(keras.constraints.NonNeg(), None)` the weight itself is λ.

    It starts as the authors define it: λ and κ drawn from (0, 1). In their residual networks the
    gates of channel attention start mirrored, with κ from (−1, 0); that is

        initial=(RandomUniform(0, 1), RandomUniform(-1, 0))  # of keras.initializers

    The value is right for every finite x and all finite parameters, also for the smallest λ.
    f(±∞) is f at the largest finite number, f(nan) is nan.

    Args:
        initial: `(lambda_, kappa)`, each a number or a Keras initializer. None: the start above.
        sharing: see `LearnableActivation`. The authors have one set for a layer, or for a channel.
        axis: see `LearnableActivation`.
        regularizer, constraint: optional Keras regularizer and constraint of both, or a pair.

    Weights: `lambda_` and `kappa`, each [groups, 1].

    Raises:
        ValueError: for an `initial` that is not two numbers or initializers.

    Example:

    >>> layer = APA(initial=(1, 2))  # sigmoid(2 x)
    >>> layer(np.array([0.0, 1.0]))
    [0.5, 0.880797]

    Reference: Alexandridis, Deng, Nguyen, Luo: Adaptive Parametric Activation, ECCV 2024.
    """

    smoothness = math.inf

    # Where κ starts, if nothing else is said; λ starts between 0 and 1.
    _kappas = (0.0, 1.0)
    names = ("lambda_", "kappa")

    def __init__(
        self, initial=None, sharing="layer", axis=-1, regularizer=None, constraint=None, **kwargs
    ):
        drawn = RandomUniform(0.0, 1.0), RandomUniform(*self._kappas)
        start = drawn if initial is None else initial
        super().__init__(start, sharing, axis, regularizer, constraint, **kwargs)
        if initial is None:
            self.initial = None

    def function(self, x, lambda_, kappa):
        return apa(x, lambda_[0], kappa[0])

    def kernel(self, training):
        return kernels.Call(KERNEL, (0,))

    def expression(self, x, lambda_, kappa):
        return _expression(x, lambda_[0], kappa[0])

    def text(self, lambda_, kappa):
        size, exponential = abs(lambda_[0]), f"exp({-kappa[0]:.6g} x)"
        if size == 0:
            return f"exp(-{exponential})"
        return f"(1 + {size:.6g} {exponential})^(-1/{size:.6g})"


@keras.saving.register_keras_serializable(PACKAGE)
class AGLU(APA):
    """Adaptive generalised linear unit: x times an adaptive parametric activation.

    Formula:

        f(x) = x (1 + λ e^(−κx))^(−1/λ)

    λ = κ = 1 is SiLU; λ → 0 gives x exp(−e^(−κx)).

    It starts as the authors' units: λ drawn from (0, 1) and κ from (0.8, 1.2).

    What `APA` says of λ, and of values, holds here too.

    Args:
        initial: `(lambda_, kappa)`, each a number or a Keras initializer. None: the start above.
        sharing: see `LearnableActivation`. The authors have one set for a layer, or for a channel.
        axis: see `LearnableActivation`.
        regularizer, constraint: optional Keras regularizer and constraint of both, or a pair.

    Weights: `lambda_` and `kappa`, each [groups, 1].

    Raises:
        ValueError: for an `initial` that is not two numbers or initializers.

    Example:

    >>> layer = AGLU(initial=(1, 1))  # SiLU
    >>> layer(np.array([-1.0, 0.0, 1.0]))
    [-0.268941, 0.0, 0.731059]

    Reference: Alexandridis, Deng, Nguyen, Luo: Adaptive Parametric Activation, ECCV 2024.
    """

    _kappas = (0.8, 1.2)

    def function(self, x, lambda_, kappa):
        return aglu(x, lambda_[0], kappa[0])

    def kernel(self, training):
        return kernels.Call(KERNEL, (1,))

    def expression(self, x, lambda_, kappa):
        return x * _expression(x, lambda_[0], kappa[0])

    def text(self, lambda_, kappa):
        return f"x {super().text(lambda_, kappa)}"


def apa(x, lambda_, kappa):
    """(1 + λ e^(−κx))^(−1/λ), as `APA` defines it.

    It is exp(−g) with g = log(1 + w)/λ and w = λ e^(−κx). Where w < 1, g is e^(−κx) times a
    function of w that is smooth at 0, elsewhere (log λ − κx + log(1 + 1/w))/λ.

    Args:
        x: float tensor.
        lambda_, kappa: tensors that broadcast with x.
    """
    x = finite(x)
    size = ops.where(lambda_ < 0, -lambda_, lambda_)
    u = finite(kappa * x)
    some = size > _SMALLEST
    w_below_1 = ops.log(ops.where(some, size, 1.0)) < u
    small = ops.logical_or(ops.logical_not(some), w_below_1)
    zero = ops.logical_and(ops.logical_not(small), product_over(kappa, x, size) < -_NOTHING)
    settled = ops.logical_or(small, zero)  # nan is not

    # In each part the other elements are numbers for which no derivative overflows.
    near = ops.where(small, u, 0.0)
    e = ops.exp(ops.where(near < -_HIGHEST, _HIGHEST, -near))
    if_small = e * log1p_ratio(ops.where(small, size, 0.0) * e)

    size = ops.where(settled, 1.0, size)
    ratio, log = product_over(kappa, ops.where(settled, 0.0, x), size), ops.log(size)
    rest = ops.exp(ratio * size - log)
    if_large = (log + rest * log1p_ratio(rest)) / size - ratio

    value = ops.exp(-ops.where(small, if_small, ops.where(zero, _NOTHING, if_large)))
    return ops.where(ops.isnan(x), x, value)  # LiteRT's exp(nan) is 0


def aglu(x, lambda_, kappa):
    """x times `apa`, as `AGLU` defines it.

    Args:
        x: float tensor.
        lambda_, kappa: tensors that broadcast with x.
    """
    return finite(x) * apa(x, lambda_, kappa)


def _expression(x, lambda_, kappa):
    """`apa` as an exact expression that loses no digits when it is evaluated as it stands."""
    sp = expressions.sympy()
    if lambda_ == 0:
        return sp.exp(-sp.exp(sp.Min(-kappa * x, 8)))  # exp(-exp(8)) is 0 in every dtype
    size = sp.Abs(lambda_)
    if lambda_.is_Symbol:  # it may be 0
        size = sp.Max(size, sp.Rational(2) ** -126)
    log = sp.log(size)
    # Where one form ends and the other begins matters little; SymPy is slow with logarithms there.
    edge = expressions.exact(float(log)) if size.is_number else log
    w_small = sp.log(1 + size * sp.exp(-kappa * x))
    w_large = log - kappa * x + sp.log(1 + sp.exp(kappa * x) / size)
    return sp.exp(-sp.Piecewise((w_small, kappa * x > edge), (w_large, True)) / size)


def _formula(x, p, settings, key):
    (times_x,) = settings
    return (aglu if times_x else apa)(x, p[0], p[1])


KERNEL = kernels.kernel("Apa", _formula)
