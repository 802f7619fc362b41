"""APL: the adaptive piecewise linear unit."""

from statistics import NormalDist

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
from keras_learnact.numerics import difference, finite, weighted_sum

# The authors draw their hinges from this distribution.
HINGES = NormalDist(0.0, 0.5)


@keras.saving.register_keras_serializable(PACKAGE)
class APL(LearnableActivation):
    """Adaptive piecewise linear unit: ReLU plus learned hinges that open to the left.

    Formula:

        f(x) = max(0, x) + Σ_{s=1..S} slopes_s · max(0, hinges_s − x)

    The slopes start at zero, so the layer starts as ReLU. A hinge whose slope is zero has no
    gradient: the slopes move first, and hinges that started together would stay together. So the
    hinges start apart, at the S quantiles (s − 1/2)/S of the normal distribution with standard
    deviation 0.5, from which the authors draw them: 0 for S = 1, ∓0.337 for S = 2. The authors
    also draw the slopes, from (−0.5, 0.5); that is

        initial=(RandomUniform(-0.5, 0.5), RandomNormal(0, 0.5))  # of keras.initializers

    Above all hinges f is ReLU; far to the left it has the slope −Σ slopes_s. At x = 0 the
    derivative of max(0, x) is 0, at a hinge that of max(0, hinge − x) is 0.

    The value is right for every finite x and all finite parameters; where a product
    slope · height overflows although f does not, no gradient flows. f(±∞) is f at the largest
    finite number, f(nan) is nan.

    Args:
        num_hinges: S >= 1.
        initial: `(slopes, hinges)`, each a number, S numbers, or a Keras initializer. None: the
            start above.
        sharing: see `LearnableActivation`. The paper's is "unit": 2·S parameters for each unit.
        axis: see `LearnableActivation`.
        slopes_regularizer, hinges_regularizer: optional Keras regularizers. The authors' programs
            have a weight decay of 0.001 on both, which is `keras.regularizers.L2(0.0005)`.
        slopes_constraint, hinges_constraint: optional Keras constraints.

    Weights: `slopes` [groups, S] and `hinges` [groups, S].

    Raises:
        ValueError: for num_hinges < 1, or an `initial` of another form.

    Example:

    >>> layer = APL(num_hinges=1, initial=(-0.2, 0), sharing="layer")
    >>> layer(np.array([-1.0, 2.0]))  # leaky ReLU
    [-0.2, 2.0]

    Reference: Agostinelli, Hoffman, Sadowski, Baldi: Learning Activation Functions to Improve Deep
    Neural Networks, ICLR 2015 workshop, Eq. 1.
    """

    starts_as = "max(0, x)"

    def __init__(
        self,
        num_hinges=2,
        initial=None,
        sharing="unit",
        axis=-1,
        slopes_regularizer=None,
        hinges_regularizer=None,
        slopes_constraint=None,
        hinges_constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if isinstance(num_hinges, bool) or not isinstance(num_hinges, int) or num_hinges < 1:
            raise ValueError(
                f"APL: `num_hinges` must be an integer >= 1. Received: num_hinges={num_hinges!r}"
            )
        if initial is None:
            quantiles = [(s + 0.5) / num_hinges for s in range(num_hinges)]
            slopes, hinges = 0.0, [HINGES.inv_cdf(quantile) for quantile in quantiles]
        elif isinstance(initial, (list, tuple)) and len(initial) == 2:
            slopes, hinges = initial = standardized(initial)
        else:
            raise ValueError(
                "APL: `initial` must be None or a pair (slopes, hinges). "
                f"Received: initial={initial!r}"
            )
        self.num_hinges = num_hinges
        self.initial = initial
        self.slopes_regularizer = keras.regularizers.get(slopes_regularizer)
        self.hinges_regularizer = keras.regularizers.get(hinges_regularizer)
        self.slopes_constraint = keras.constraints.get(slopes_constraint)
        self.hinges_constraint = keras.constraints.get(hinges_constraint)
        self._start = (
            start("APL", "initial[0]", slopes, num_hinges),
            start("APL", "initial[1]", hinges, num_hinges),
        )

    def parameter_list(self):
        slopes, hinges = self._start
        return [
            Parameter(
                "slopes", self.num_hinges, slopes, self.slopes_regularizer, self.slopes_constraint
            ),
            Parameter(
                "hinges", self.num_hinges, hinges, self.hinges_regularizer, self.hinges_constraint
            ),
        ]

    def function(self, x, slopes, hinges):
        return apl(x, slopes, hinges)

    def kernel(self, training):
        return kernels.Call(KERNEL, (self.num_hinges,))

    def expression(self, x, slopes, hinges):
        sp = expressions.sympy()
        terms = [a * sp.Max(0, b - x) for a, b in zip(slopes, hinges, strict=True)]
        return sp.Add(sp.Max(0, x), *terms)

    def text(self, slopes, hinges):
        terms = ["max(0, x)"]
        for slope, hinge in zip(slopes, hinges, strict=True):
            terms.append(f"{slope:.6g} max(0, {hinge:.6g} - x)")
        return " + ".join(terms).replace("+ -", "- ")

    def get_config(self):
        return {
            **super().get_config(),
            "num_hinges": self.num_hinges,
            "initial": self.initial and serialize(self.initial),
            "slopes_regularizer": keras.regularizers.serialize(self.slopes_regularizer),
            "hinges_regularizer": keras.regularizers.serialize(self.hinges_regularizer),
            "slopes_constraint": keras.constraints.serialize(self.slopes_constraint),
            "hinges_constraint": keras.constraints.serialize(self.hinges_constraint),
        }


def apl(x, slopes, hinges):
    """max(0, x) + Σ_s slopes[s] · max(0, hinges[s] − x), as `APL` defines it.

    Args:
        x: float tensor.
        slopes: tensor whose first axis counts the hinges; slopes[s] broadcasts with x.
        hinges: likewise.
    """
    x = finite(x)
    weights, terms = [ops.ones_like(slopes[0])], [ops.relu(x)]
    for s in range(slopes.shape[0]):
        below = x < hinges[s]
        for part in difference(hinges[s], x):
            weights.append(slopes[s])
            terms.append(ops.where(below, part, 0.0))
    return weighted_sum(weights, terms)


def _formula(x, p, settings, key):
    (num_hinges,) = settings
    return apl(x, p[:num_hinges], p[num_hinges:])


KERNEL = kernels.kernel("Apl", _formula)
