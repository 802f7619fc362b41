"""Expression: a formula, given as text, as activation; its named constants are learned."""

import inspect
import math

import keras
import numpy as np

from keras_learnact import expressions, formulas
from keras_learnact.layers.base import (
    PACKAGE,
    LearnableActivation,
    Parameter,
    serialize,
    standardized,
    start,
)

_START = {"x * sigmoid(beta * x)": {"beta": 1.0}}  # of the default formula


@keras.saving.register_keras_serializable(PACKAGE)
class Expression(LearnableActivation):
    """Any formula in x as activation, with named constants that are learned.

    Formula: what you write, by default

        f(x) = x · sigmoid(β x)

    It starts with the numbers that you give to its constants. A formula without constants is a
    fixed function: `Expression("-x * erf(exp(-x))")`, which an evolutionary search found.

    The text is never executed. It is written as in Python and SymPy: numbers, names, `+ - * / **`,
    parentheses, and the functions of `keras_learnact.formulas.FUNCTIONS`: exp, log, sqrt, abs,
    sign, max, min, sin, cos, tan, sinh, cosh, tanh, asinh, atan, erf, erfc, log1p, expm1, and those
    of `keras.activations`: relu, sigmoid, softplus, silu, gelu and more. `pi` and `E` are numbers.
    What SymPy prints of such a formula can be read, but for Piecewise.

    Where the formula alone would give nan, it is continued: sqrt(u) is 0 for u < 0; log(u) is that
    of the smallest normal number for u below it; u / 0 is u divided by that number; u ** p for a p
    that is neither an integer nor ± 1/2 is exp(p · log(u)); of what overflows ∞ - ∞ and 0 · ∞ are 0
    and ∞ / ∞ is ± 1. So nan comes out only where nan went in; f(±∞) is f at the largest number.
    Gradients are 0 where a part overflows, where such an edge holds, and at sqrt(0).

    What is not promised of every formula: that a value is right where a part of it overflows
    (`exp(x) / exp(x)**2`, `sqrt(1 + x**2)` for |x| > 1e19), and that a gradient is a number where a
    product of derivatives overflows before it meets a 0. `range` and the other bounds allow for the
    first; they do not know tan, asinh and atan.

    There is no compiled kernel: any formula would need one of its own.

    Args:
        formula: text of at most `formulas.LONGEST` characters.
        sharing: see `LearnableActivation`. A formula without constants has nothing to share.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer, of every constant.
        constraint: optional Keras constraint, of every constant.
        **constants: where each constant of the formula starts: a number, or a Keras initializer.
            Also Keras' own arguments `name`, `dtype` and `trainable`.

    Weights: for every constant one of its name, [groups, 1].

    Raises:
        ValueError: for a text that is no such formula; a constant that the formula does not have,
            or one without a start, or with one that is not finite; a constant with the name of
            something that the layer has.

    Example:

    >>> layer = Expression("alpha * x * erf(beta * exp(-x))", alpha=-1, beta=1)
    >>> layer.formula()
    'f(x) = -1.0 * x * erf(1.0 * exp(-x))'
    """

    starts_as = "x * sigmoid(x)"
    smoothness = math.inf  # of the default formula

    as_it_stands = True

    def __init__(
        self,
        formula="x * sigmoid(beta * x)",
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **constants,
    ):
        of_keras = inspect.signature(keras.layers.Layer.__init__).parameters
        super().__init__(
            sharing=sharing,
            axis=axis,
            **{name: constants.pop(name) for name in of_keras if name in constants},
        )
        self._formula = formulas.parse(formula)
        self.constants = {**_START.get(formula, {}), **constants}
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        self._check_constants()
        self.constants = {name: standardized(value) for name, value in self.constants.items()}
        self._starts = {
            name: start("Expression", name, self.constants[name], 1)
            for name in self._formula.constants
        }

    def _check_constants(self):
        wanted, given = self._formula.constants, list(self.constants)
        taken = [name for name in wanted if hasattr(self, name)]
        if taken:
            raise ValueError(
                f"Expression: the layer has a `{taken[0]}` of its own, so a constant needs another "
                f"name. Received: formula={self._formula.text!r}"
            )
        if set(wanted) != set(given):
            what = f"the constants {', '.join(wanted)}" if wanted else "no constants"
            without = [name for name in wanted if name not in given]
            starts = ", ".join(f"{name}=1.0" for name in without)
            way_out = f"Say where to start: Expression(…, {starts})" if without else "Leave it out."
            raise ValueError(
                f"Expression: the formula {self._formula.text!r} has {what}, and each needs a "
                f"start. Received: {', '.join(given) or 'none'}. {way_out}"
            )

    def parameter_list(self):
        return [
            Parameter(name, 1, initial, self.regularizer, self.constraint)
            for name, initial in self._starts.items()
        ]

    def _parameter_shape(self, input_shape):
        if not self._formula.constants:
            return (), 1  # one function, whatever shares it
        return super()._parameter_shape(input_shape)

    def function(self, x, **constants):
        return self._formula.value(x, **{name: value[0] for name, value in constants.items()})

    def kernel(self, training):
        return "a formula given as text has no compiled kernel"

    def expression(self, x, **constants):
        return self._formula.expression(
            x,
            expressions.exact(np.finfo(self._math_dtype).tiny),
            **{name: value[0] for name, value in constants.items()},
        )

    def why_no_bounds(self):
        operations = self._formula.root.operations()
        return expressions.why_rounded(operations, self._math_dtype) or super().why_no_bounds()

    def text(self, **constants):
        return self._formula.with_numbers(**{name: value[0] for name, value in constants.items()})

    def get_config(self):
        return {
            **super().get_config(),
            "formula": self._formula.text,
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
            **{name: serialize(value) for name, value in self.constants.items()},
        }
