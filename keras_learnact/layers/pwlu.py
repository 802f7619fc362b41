"""PWLU: a function of many lines, whose values and boundaries are learned."""

import keras
import numpy as np
from keras import ops

from keras_learnact import expressions, fitting, kernels
from keras_learnact.layers.base import (
    PACKAGE,
    Parameter,
    TwoPhaseActivation,
    serialize,
    standardized,
)
from keras_learnact.numerics import difference, finite, weighted_sum

NARROWEST = 2.0**-20  # what the boundaries are apart at least


@keras.saving.register_keras_serializable(PACKAGE)
class PWLU(TwoPhaseActivation):
    """Piecewise linear unit: lines between learned values at equally spaced places.

    Formula:

        f(x) = values_0 + slopes_0 (x − B_L)                     for x < B_L
               values_j + (u − j) (values_{j+1} − values_j)      for B_L <= x < B_R
               values_N + slopes_1 (x − B_R)                     for x >= B_R

        u = N (x − B_L) / (B_R − B_L),   j = ⌊u⌋,   boundaries = (B_L, B_R)

    It starts as ReLU, on N intervals between −3 and 3. Any number of intervals costs one division
    and a look at the values; where two lines meet, the derivative is that of the right one.

    If training moves B_L above B_R, the two change places. They count as 2^-20 apart at least, and
    then it is the smaller one that moves both: f is continuous, unless that is less than the dtype
    tells apart there, in float32 beyond 8. Then it may jump.

    The paper trains in two phases: for some epochs the layer stays a ReLU, and its inputs are
    watched; then it starts anew as a ReLU with boundaries three standard deviations from their mean
    on either side. The callback `keras_learnact.callbacks.PWLUBoundaries` does both, the method
    `realign` the second start. The first phase is kept in the weight `frozen`, which is not
    trainable: while it is 1, no gradient flows to the parameters. (An optimizer with weight decay
    would still shrink them.)

    The value is right for every finite x and all finite parameters; where a product overflows
    although f does not, no gradient flows. f(±∞) is f at the largest finite number, f(nan) is nan.

    Args:
        num_intervals: N >= 1.
        initial: where the function starts: the name of a Keras activation, a callable, or
            `(values, slopes)`, N + 1 and 2 numbers. The slopes of a function are those of the
            lines through one more place on either side.
        initial_boundaries: (B_L, B_R) at the start.
        sharing: see `LearnableActivation`. The paper's are "layer" and "channel".
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of the values.
        constraint: optional Keras constraint of the values.

    Weights: `values` [groups, N + 1], `boundaries` [groups, 2] and `slopes` [groups, 2]; `frozen`,
    a scalar.

    Raises:
        ValueError: for num_intervals < 1, boundaries that are not two increasing numbers, or an
            `initial` of another form.

    Example:

    >>> layer = PWLU(2, initial=((1, 0, 1), (-1, 1)), initial_boundaries=(-1, 1))
    >>> layer(np.array([-3.0, 0.5]))  # the absolute value
    [3.0, 0.5]

    Reference: Zhou, Zhu, Zhong: Learning specialized activation functions with the Piecewise Linear
    Unit, ICCV 2021, Eq. 1. N = 16 and the first boundaries are a reconstruction.
    """

    starts_as = "max(0, x)"

    def __init__(
        self,
        num_intervals=16,
        initial="relu",
        initial_boundaries=(-3.0, 3.0),
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if (
            isinstance(num_intervals, bool)
            or not isinstance(num_intervals, int)
            or (num_intervals < 1)
        ):
            raise ValueError(
                "PWLU: `num_intervals` must be an integer >= 1. "
                f"Received: num_intervals={num_intervals!r}"
            )
        self.num_intervals = num_intervals
        self.initial = standardized(initial)
        self.initial_boundaries = increasing("PWLU: `initial_boundaries`", initial_boundaries)
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        self._start = self._values_and_slopes(np.array([self.initial_boundaries]))

    def _values_and_slopes(self, boundaries):
        """Of `initial` for boundaries [groups, 2]: arrays [groups, N + 1] and [groups, 2]."""
        n = self.num_intervals
        if not isinstance(self.initial, tuple):
            low, high = boundaries[:, :1], boundaries[:, 1:]
            places = low + (high - low) * np.arange(-1, n + 2) / n
            y = fitting.values(self.initial, places.reshape(-1)).reshape(places.shape)
            slopes = (y[:, [1, -1]] - y[:, [0, -2]]) / ((high - low) / n)
            return y[:, 1:-1], slopes
        counts = n + 1, 2
        try:
            parts = [np.asarray(part, "float64") for part in self.initial]
        except (TypeError, ValueError):
            parts = []
        right = [part.shape for part in parts] == [(count,) for count in counts]
        if not (right and all(np.isfinite(part).all() for part in parts)):
            raise ValueError(
                f"PWLU: `initial` must be a name, a callable, or a pair of {n + 1} values and 2 "
                f"slopes, all finite. Received: initial={self.initial!r}"
            )
        return [np.broadcast_to(part, (len(boundaries), part.size)) for part in parts]

    def parameter_list(self):
        values, slopes = (tuple(map(float, part[0])) for part in self._start)
        return [
            Parameter("values", len(values), values, self.regularizer, self.constraint),
            Parameter("boundaries", 2, self.initial_boundaries),
            Parameter("slopes", 2, slopes),
        ]

    def realign(self, boundaries):
        """Starts anew, as `initial` says, between other boundaries.

        Args:
            boundaries: (B_L, B_R), for all groups or an array [groups, 2]. The paper's are the mean
                of the inputs -+ three times their standard deviation.
        """
        self._assert_built("realign")
        boundaries = np.broadcast_to(np.asarray(boundaries, "float64"), (self.groups, 2))
        for pair in boundaries:
            increasing("PWLU.realign: `boundaries`", pair.tolist())
        values, slopes = self._values_and_slopes(boundaries)
        self.values.assign(values)
        self.boundaries.assign(boundaries)
        self.slopes.assign(slopes)

    def function(self, x, values, boundaries, slopes):
        return pwlu(x, values, boundaries, slopes)

    def kernel(self, training):
        return kernels.Call(KERNEL, (self.num_intervals,))

    def expression(self, x, values, boundaries, slopes):
        sp = expressions.sympy()
        n, low = self.num_intervals, sp.Min(*boundaries)
        width = sp.Max(sp.Max(*boundaries) - low, expressions.exact(NARROWEST))
        places = [low + width * sp.Rational(j, n) for j in range(n)] + [low + width]
        inner = [(values[j + 1] - values[j]) * n / width for j in range(n)]
        lines = [values[0] + slopes[0] * (x - low)]
        lines += [values[j] + inner[j] * (x - places[j]) for j in range(n)]
        last = values[n] + slopes[1] * (x - places[n])
        pieces = [(line, x < place) for line, place in zip(lines, places, strict=True)]
        return sp.Piecewise(*pieces, (last, True))

    def text(self, values, boundaries, slopes):
        low, high = sorted(map(float, boundaries))
        width = max(high - low, NARROWEST)
        places = low + width * np.arange(self.num_intervals + 1) / self.num_intervals
        lines = [slopes[0], *(np.diff(values) / (width / self.num_intervals)), slopes[1]]
        # About the place in the middle, so that few terms have to add up far from there.
        m = len(places) // 2
        terms = [f"{values[m]:.6g}", f"{lines[m]:.6g} {variable(places[m])}"]
        for i, (place, change) in enumerate(zip(places, np.diff(lines), strict=True)):
            if change:
                height = f"{place:.6g} - x" if i < m else variable(place).strip("()")
                terms.append(f"{change:.6g} max(0, {height})")
        return " + ".join(terms).replace("+ -", "- ")

    def get_config(self):
        return {
            **super().get_config(),
            "num_intervals": self.num_intervals,
            "initial": serialize(self.initial),
            "initial_boundaries": self.initial_boundaries,
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }


def increasing(what, pair):
    """Two increasing numbers as a tuple of floats."""
    try:
        low, high = map(float, pair)
    except (TypeError, ValueError):
        low = high = 0.0
    if not -(2.0**60) <= low < high <= 2.0**60:
        raise ValueError(f"{what} must be two increasing numbers, at most 2^60. Received: {pair!r}")
    return low, high


def variable(place):
    """`(x - place)` as plain text; `x` where that is 0."""
    return f"(x - {place:.6g})".replace("- -", "+ ") if place else "x"


def pick(numbers, u, cells, count):
    """The whole number 0 … cells − 1 below u, and `count` of the numbers from that one on.

    Args:
        numbers: tensor whose first axis counts them; numbers[k] broadcasts with u.
        u: float tensor, of which the whole number is a constant.
    """
    u = ops.stop_gradient(u)
    cell, own = ops.zeros_like(u), [numbers[k] + ops.zeros_like(u) for k in range(count)]
    for i in range(1, cells):
        beyond = u >= i
        cell = ops.where(beyond, ops.cast(i, u.dtype), cell)
        own = [ops.where(beyond, numbers[i + k], value) for k, value in enumerate(own)]
    return cell, own


def pwlu(x, values, boundaries, slopes):
    """The lines of `PWLU`.

    Args:
        x: float tensor.
        values, boundaries, slopes: tensors whose first axis counts N + 1, 2 and 2 numbers, each of
            a shape that broadcasts with x.
    """
    x, n = finite(x), values.shape[0] - 1
    crossed = boundaries[0] > boundaries[1]
    low = ops.where(crossed, boundaries[1], boundaries[0])
    high = ops.where(crossed, boundaries[0], boundaries[1])
    half = 0.5 * high - 0.5 * low  # no overflow
    narrow = half < NARROWEST / 2
    half = ops.where(narrow, NARROWEST / 2, half)
    high = ops.where(narrow, low + NARROWEST, high)

    left, right = x < low, x >= high
    between = ops.logical_not(ops.logical_or(left, right))
    inside = ops.where(between, x, low)
    distance = 0.5 * inside - 0.5 * low
    u = n * (distance / half)
    cell, (first, second) = pick(values, u, n, 2)
    t = u - cell
    line = (1 - t) * first + t * second
    # Without a gradient where a factor of it overflows: there the chain rule would make nan.
    size = n * (ops.abs(first) + ops.abs(second)) * (1 + ops.abs(distance))
    line = ops.where(ops.isinf(ops.stop_gradient(size)), ops.stop_gradient(line), line)
    # The value at the nearer boundary, plus slope · distance on the side where x is.
    value = ops.where(right, values[n], ops.where(left, values[0], line))
    weights, terms = [ops.ones_like(slopes[0])], [value]
    for side, slope, boundary in ((right, slopes[1], high), (left, slopes[0], low)):
        for part in difference(x, boundary):
            weights.append(slope)
            terms.append(ops.where(side, part, 0.0))
    return weighted_sum(weights, terms)


def _formula(x, p, settings, key):
    (n,) = settings
    return pwlu(x, p[: n + 1], p[n + 1 : n + 3], p[n + 3 :])


KERNEL = kernels.kernel("Pwlu", _formula)
