"""Mixture: a learned weighted sum of fixed activations."""

import keras
import numpy as np
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
from keras_learnact.numerics import finite, weighted_sum

# The functions that the kernel has; its number for each is the place in this list, as in
# custom_ops/kernels/mixture.h.
FUNCTIONS = (
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "hard_tanh",
    "softplus",
    "softsign",
    "silu",
    "hard_silu",
    "gelu",
    "log_sigmoid",
    "mish",
    "exponential",
)


@keras.saving.register_keras_serializable(PACKAGE)
class Mixture(LearnableActivation):
    """Learned combination of fixed activations.

    Formula:

        f(x) = Σ_i w_i φ_i(x),   by default φ = {identity, ReLU}

    It starts with equal weights that sum to 1, so the default starts as leaky ReLU with slope
    1/2. The weights are free, the linear hull of the φ_i. The paper keeps them in the affine
    (Σ w_i = 1) or convex hull (also w_i >= 0): pass a Keras `constraint` for that.

    The sum never overflows on the way to a value that the dtype can hold, and a function that
    overflows to ±∞ counts as ± the largest finite number, so that a weight of 0 switches it off.
    f(±∞) is f at the largest finite number, f(nan) is nan. The derivatives of the φ_i are Keras'
    own: of its names, `exponential` has none that is finite above 88, `squareplus` and
    `sparse_plus` overflow where the square of x does, and, but for the kernel, so does `silu` where
    its weight times x does.

    Args:
        activations: element-wise functions, each the name of a Keras activation, a callable (one
            that Keras can serialize, if the layer is to be saved), or a layer without weights.
            `range`, `interval` and `keras_learnact.verify` need functions of Keras.
        initial: the weights at the start: one number for each activation, or a Keras initializer.
            None: all 1 / number of activations.
        sharing: see `LearnableActivation`.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of the weights.
        constraint: optional Keras constraint of the weights.

    Weights: `w` [groups, number of activations].

    Raises:
        ValueError: for no activation, an unknown name, something that cannot be called, a layer
            with weights, or another number of initial weights.

    Example:

    >>> layer = Mixture(("linear", "relu", "tanh"))
    >>> layer.formula()
    'f(x) = 0.333333 x + 0.333333 relu(x) + 0.333333 tanh(x)'

    Reference: Manessi, Rozza: Learning Combinations of Activation Functions, ICPR 2018.
    """

    starts_as = "x / 2 + max(0, x) / 2"

    def __init__(
        self,
        activations=("linear", "relu"),
        initial=None,
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if not isinstance(activations, (list, tuple)) or len(activations) == 0:
            raise ValueError(
                "Mixture: `activations` must be a list or tuple of at least one activation. "
                f"Received: activations={activations!r}"
            )
        self.activations = tuple(activations)
        self.initial = standardized(initial)
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        self._functions = [_element_wise(activation) for activation in activations]
        self._start = start(
            "Mixture",
            "initial",
            [1 / len(activations)] * len(activations) if initial is None else initial,
            len(activations),
        )

    def parameter_list(self):
        return [
            Parameter("w", len(self.activations), self._start, self.regularizer, self.constraint)
        ]

    def function(self, x, w):
        return mixture(x, w, self._functions)

    def kernel(self, training):
        known = [keras.activations.get(name) for name in FUNCTIONS]
        for activation, function in zip(self.activations, self._functions, strict=True):
            if function not in known:
                return (
                    f"Mixture's kernel has the functions {', '.join(FUNCTIONS)} of "
                    f"keras.activations, not {_name(activation)}"
                )
        return kernels.Call(KERNEL, tuple(map(known.index, self._functions)))

    def expression(self, x, w):
        sp = expressions.sympy()
        largest = expressions.exact(np.finfo(self._math_dtype).max)
        terms = []
        for number, activation, function in zip(w, self.activations, self._functions, strict=True):
            term = expressions.of_callable(function, x, f"Mixture's {_name(activation)}")
            if expressions.keras_name(function) in (None, "exponential", "selu"):  # may overflow
                term = expressions.clip(term, -largest, largest)
            terms.append(number * term)
        return sp.Add(*terms)

    def why_no_bounds(self):
        names = {function: expressions.keras_name(function) for function in self._functions}
        own = [
            _name(activation)
            for activation, function in zip(self.activations, self._functions, strict=True)
            if names[function] is None
        ]
        if own:
            return super().why_no_bounds() or (
                f"of {', '.join(own)} SymPy makes an expression that may round less, as x for "
                "(x + 1) - 1. Use functions of keras.activations, or write a LearnableActivation "
                "with an `expression` of its own."
            )
        return expressions.why_rounded(names.values(), self._math_dtype) or super().why_no_bounds()

    def text(self, w):
        names = ["x" if name == "linear" else f"{name}(x)" for name in map(_name, self.activations)]
        terms = [f"{number:.6g} {name}" for number, name in zip(w, names, strict=True)]
        return " + ".join(terms).replace("+ -", "- ")

    def get_config(self):
        return {
            **super().get_config(),
            "activations": serialize(self.activations),
            "initial": serialize(self.initial),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }


def _element_wise(activation):
    """The function of one entry of `activations`."""
    if isinstance(activation, keras.layers.Layer):
        if activation.weights or not activation.built:
            raise ValueError(
                "Mixture: a layer among the `activations` must have no weights of its own, and "
                "need no building. "
                f"Received: {activation!r}. Pass the function that it computes."
            )
        return activation.call  # not `__call__`, which may cast to float16
    if isinstance(activation, str):
        try:
            return keras.activations.get(activation)
        except ValueError:
            pass  # Keras' message does not say where to look
    elif callable(activation):
        return activation
    raise ValueError(
        "Mixture: each activation must be a callable, a layer without weights, or the name of a "
        f"function in keras.activations. Received: {activation!r}"
    )


def _name(activation):
    if isinstance(activation, str):
        return activation
    return getattr(activation, "__name__", None) or getattr(activation, "name", repr(activation))


def mixture(x, w, functions):
    """Σ_i w[i] functions[i](x), as `Mixture` defines it.

    Args:
        x: float tensor.
        w: tensor whose first axis counts the functions; w[i] broadcasts with x.
        functions: element-wise functions.
    """
    x = finite(x)
    terms = [finite(function(x)) for function in functions]
    # Some functions of Keras turn nan into 0.
    return ops.where(ops.isnan(x), x, weighted_sum([w[i] for i in range(len(terms))], terms))


def _formula(x, p, settings, key):
    return mixture(x, p, [keras.activations.get(FUNCTIONS[number]) for number in settings])


KERNEL = kernels.kernel("Mixture", _formula)
