"""SLAF: a polynomial as activation, its coefficients learned."""

import math

import keras

from keras_learnact import expressions, fitting, kernels
from keras_learnact.layers.base import (
    PACKAGE,
    LearnableActivation,
    Parameter,
    serialize_start,
    standardized,
)
from keras_learnact.layers.pau import RATIONAL, polynomial_text, rational


@keras.saving.register_keras_serializable(PACKAGE)
class SLAF(LearnableActivation):
    """Self-learnable activation function: a polynomial.

    Formula:

        f(x) = Σ_{i=0..N} c_i x^i

    It starts as the polynomial that fits `initial` on [-3, 3]. Polynomials of order above 1 grow
    without bound, and networks of them are known to diverge: the values then overflow to ±∞, never
    to a silent finite number or NaN.

    Args:
        order: N >= 1.
        initial: the name of a Keras activation, a callable, or the N + 1 coefficients c_0 … c_N.
        sharing: see `LearnableActivation`.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of the coefficients.
        constraint: optional Keras constraint.

    Weights: `coefficients` [groups, N + 1].

    Raises:
        ValueError: for an order below 1, an unknown `initial`, or coefficients of another number.

    Reference: Goyal, Goyal, Lall: Learning Activation Functions: A new paradigm for understanding
    Neural Networks, 2019.
    """

    starts_as = "max(0, x)"
    start_error = 0.4  # of the polynomial of order 3, at x = 0
    smoothness = math.inf

    def __init__(
        self,
        order=3,
        initial="relu",
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if isinstance(order, bool) or not isinstance(order, int) or order < 1:
            raise ValueError(
                f"SLAF: `order` must be an integer >= 1, the highest power of x. "
                f"Received: order={order!r}"
            )
        self.order = order
        self.initial = standardized(initial)
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        # A polynomial is a rational function without a denominator.
        function = (self.initial, ()) if isinstance(self.initial, tuple) else initial
        self._start, _ = fitting.start(function, (order, 0), "A")

    def parameter_list(self):
        return [
            Parameter(
                "coefficients", self.order + 1, self._start, self.regularizer, self.constraint
            )
        ]

    def function(self, x, coefficients):
        return rational(x, coefficients, [], "A")

    def kernel(self, training):
        return kernels.Call(RATIONAL, (self.order + 1, ord("A")))

    def expression(self, x, coefficients):
        return expressions.polynomial(coefficients, x)

    def text(self, coefficients):
        return polynomial_text(coefficients)

    def get_config(self):
        return {
            **super().get_config(),
            "order": self.order,
            "initial": serialize_start(self.initial, lambda: self._start),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }
