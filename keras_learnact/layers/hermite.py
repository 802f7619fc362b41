"""Hermite: a learned sum of Hermite polynomials."""

import math

import keras
import numpy as np
from keras import ops

from keras_learnact import expressions, fitting, kernels
from keras_learnact.layers.base import (
    PACKAGE,
    LearnableActivation,
    Parameter,
    serialize_start,
    standardized,
)
from keras_learnact.layers.pau import polynomial_text, rational
from keras_learnact.numerics import finite, limits, weighted_sum

MOST = 16  # the largest degree


@keras.saving.register_keras_serializable(PACKAGE)
class Hermite(LearnableActivation):
    """Learned sum of normalised Hermite polynomials.

    Formula:

        f(x) = Σ_{i=0..d} c_i h_i(x),   h_i(x) = He_i(x) / √i!

        He_0 = 1,  He_1 = x,  He_{i+1} = x He_i − i He_{i−1}

    The h_i are orthonormal under the normal distribution, so that c_i² is what h_i adds to the mean
    square of f(x) for normally distributed x, as a batch normalisation makes them.

    It starts as the first terms of ReLU: c_i is the mean of max(0, x) h_i(x), with d = 4

        f(x) = 1/√(2π) + x/2 + (x² − 1)/√(8π) − (x⁴ − 6x² + 3)/(24 √(2π))

    which is 0.15 above ReLU at 0 and next to it at ±3. As every polynomial f grows without bound:
    beyond 4 this one falls. (In deep networks the authors put a softsign behind it.) Values
    overflow to ±∞, never to a silent finite number or NaN.

    The value is right for every finite x. Where x^i overflows, no gradient flows to c_i. f(±∞) is
    the limit, f(nan) is nan.

    Args:
        degree: d, from 1 to 16. Of higher ones the powers of x would cancel each other.
        initial: whose terms it starts with: the name of a Keras activation, a callable, or the
            d + 1 coefficients c_0 … c_d.
        sharing: see `LearnableActivation`.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of the coefficients.
        constraint: optional Keras constraint.

    Weights: `coefficients` [groups, d + 1].

    Raises:
        ValueError: for another degree, or an `initial` of another form.

    Example:

    >>> layer = Hermite(2, initial=(1, 0, 2**0.5))  # 1 + (x² - 1)
    >>> layer(np.array([-3.0, 2.0]))
    [9.0, 4.0]

    Reference: Lokhande, Tasneeyapant, Venkatesh, Ravi, Singh: Generating Accurate Pseudo-labels in
    Semi-Supervised Learning and Avoiding Overconfident Predictions via Hermite Polynomial
    Activations, CVPR 2020.
    """

    starts_as = (
        "0.3989422804014327 + x / 2 + 0.19947114020071635 * (x**2 - 1)"
        " - 0.016622595016726363 * (x**4 - 6 * x**2 + 3)"
    )
    smoothness = math.inf

    def __init__(
        self,
        degree=4,
        initial="relu",
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if isinstance(degree, bool) or not isinstance(degree, int) or not 1 <= degree <= MOST:
            raise ValueError(
                f"Hermite: `degree` must be an integer from 1 to {MOST}. "
                f"Received: degree={degree!r}"
            )
        self.degree = degree
        self.initial = standardized(initial)
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        self._start = self._coefficients()

    def _coefficients(self):
        if not isinstance(self.initial, tuple):
            # Beyond 12 the normal density is 1e-32 of what it is at 0, where a kink may be.
            x = np.linspace(-12, 12, 2**16 + 1)
            weighted = fitting.values(self.initial, x) * np.exp(-(x**2) / 2)
            powers = np.vander(x, self.degree + 1, increasing=True)
            polynomials = powers @ np.array(monomials(self.degree)).T
            start = weighted @ polynomials / math.sqrt(2 * math.pi) * (x[1] - x[0])
            return tuple(np.where(np.abs(start) < 1e-14, 0.0, start).tolist())  # no rounding errors
        numbers = np.asarray(self.initial)
        right = numbers.dtype.kind in "iuf" and numbers.shape == (self.degree + 1,)
        if not (right and np.isfinite(numbers).all()):
            raise ValueError(
                f"Hermite: `initial` must be a name, a callable, or {self.degree + 1} finite "
                f"coefficients. Received: initial={self.initial!r}"
            )
        return self.initial

    def parameter_list(self):
        return [
            Parameter(
                "coefficients", self.degree + 1, self._start, self.regularizer, self.constraint
            )
        ]

    def function(self, x, coefficients):
        return hermite(x, coefficients)

    def kernel(self, training):
        return kernels.Call(KERNEL, ())

    def expression(self, x, coefficients):
        rows = [list(map(expressions.exact, row)) for row in monomials(self.degree)]
        powers = [
            sum(c * row[k] for c, row in zip(coefficients, rows, strict=True))
            for k in range(self.degree + 1)
        ]
        return expressions.polynomial(powers, x)

    def text(self, coefficients):
        return polynomial_text(np.asarray(coefficients, "float64") @ monomials(self.degree))

    def get_config(self):
        return {
            **super().get_config(),
            "degree": self.degree,
            "initial": serialize_start(self.initial, lambda: self._start),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }


def monomials(degree):
    """The coefficients of the powers of x in h_0 … h_d: a row for each."""
    return [
        (polynomial.tolist() + degree * [0.0])[: degree + 1]
        for polynomial in (
            np.polynomial.hermite_e.herme2poly([0] * i + [1]) / math.sqrt(math.factorial(i))
            for i in range(degree + 1)
        )
    ]


def hermite(x, coefficients):
    """Σ_i coefficients[i] h_i(x), as `Hermite` defines it.

    Args:
        x: float tensor.
        coefficients: tensor whose first axis counts them; coefficients[i] broadcasts with x.
    """
    degree, top = coefficients.shape[0] - 1, limits(x.dtype).maxexp
    rows, size = monomials(degree), ops.abs(x)
    # No gradient of a coefficient is more than float can hold: the sums below would make nan of it.
    c = [
        coefficients[i]
        if i < 2
        else ops.where(
            size < 2.0 ** ((top - 8) / i), coefficients[i], ops.stop_gradient(coefficients[i])
        )
        for i in range(degree + 1)
    ]
    powers = []
    for k in range(degree + 1):
        used = [i for i in range(k, degree + 1) if rows[i][k]]
        numbers = [ops.convert_to_tensor(rows[i][k], x.dtype) for i in used]
        powers.append(finite(weighted_sum([c[i] for i in used], numbers)))
    return rational(x, powers, [], "A")


def _formula(x, p, settings, key):
    return hermite(x, p)


KERNEL = kernels.kernel("Hermite", _formula)
