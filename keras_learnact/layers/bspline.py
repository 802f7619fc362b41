"""BSpline: a smooth piecewise polynomial whose coefficients are learned."""

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
from keras_learnact.layers.pau import polynomial_text
from keras_learnact.layers.pwlu import increasing, pick, variable
from keras_learnact.numerics import finite, weighted_sum

BASES = ("silu", None)
DEGREES = (1, 2, 3)
LARGEST_GRID = 1000  # the formula has a term for each part


@keras.saving.register_keras_serializable(PACKAGE)
class BSpline(LearnableActivation):
    """Learned B-spline, as on the edges of a KAN, that goes on as a line outside of its grid.

    Formula:

        f(x) = weight · silu(x) + Σ_{j=0..G+d-1} coefficients_j B_j(x)

    The B_j are the B-splines of degree d on equally spaced knots, which cut `grid_range` into G
    parts: each is a hump over d + 1 of them, and together they make every piecewise polynomial of
    that degree whose derivatives up to d − 1 are continuous. Outside of `grid_range` the sum goes
    on as a line with the slope that it has at the end, so there f is continuously differentiable
    once (not for d = 1). With base=None the first term is left out.

    It starts as SiLU exactly: weight = 1 and all coefficients 0. (The authors of KAN also draw a
    little noise for the coefficients, and scale the sum by one more weight.)

    The value is right for every finite x. Where a product overflows although f does not, no
    gradient flows; a slope outside of the grid that would overflow counts as the largest
    finite number. f(±∞) is f at the largest finite number, f(nan) is nan.

    Args:
        grid: G, the number of parts, from 1 to 1000.
        degree: d, 1, 2 or 3. A spline of degree 1 is a `PWLU` with fixed boundaries.
        grid_range: two increasing numbers.
        base: "silu" or None.
        initial: where f starts: the name of a Keras activation, a callable, or the G + d
            coefficients. Functions are fitted by least squares on the range; without a base,
            polynomials up to degree d are met exactly, say "linear".
        sharing: see `LearnableActivation`.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of the coefficients.
        constraint: optional Keras constraint of the coefficients.

    Weights: `coefficients` [groups, G + d] and, with a base, `weight` [groups, 1].

    Raises:
        ValueError: for a grid outside of 1 to 1000, another degree or base, a range that is not two
            increasing numbers, or an `initial` of another form.

    Example:

    >>> layer = BSpline(base=None, initial="linear")
    >>> layer(np.array([-5.0, 0.5]))
    [-5.0, 0.5]

    Reference: Liu, Wang, Vaidya, Ruehle, Halverson, Soljačić, Hou, Tegmark: KAN:
    Kolmogorov-Arnold Networks, 2024, Eqs. 2.10-2.12; Bohra, Campos, Gupta, Aziznejad, Unser:
    Learning Activation Functions in Deep (Spline) Neural Networks, 2020, for the lines outside. G
    and the range are a reconstruction.
    """

    starts_as = "x * sigmoid(x)"
    smoothness = 1

    def __init__(
        self,
        grid=8,
        degree=3,
        grid_range=(-3.0, 3.0),
        base="silu",
        initial="silu",
        sharing="layer",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if isinstance(grid, bool) or not isinstance(grid, int) or not 1 <= grid <= LARGEST_GRID:
            raise ValueError(
                f"BSpline: `grid` must be an integer from 1 to {LARGEST_GRID}. "
                f"Received: grid={grid!r}"
            )
        if isinstance(degree, bool) or degree not in DEGREES:
            raise ValueError(
                f"BSpline: `degree` must be one of {DEGREES}. Received: degree={degree!r}"
            )
        if base not in BASES:
            raise ValueError(f"BSpline: `base` must be one of {BASES}. Received: base={base!r}")
        self.grid = grid
        self.degree = degree
        self.grid_range = increasing("BSpline: `grid_range`", grid_range)
        self.base = base
        self.initial = standardized(initial)
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        if degree == 1:
            self.smoothness = 0
        self._start = self._coefficients()

    def _coefficients(self):
        count = self.grid + self.degree
        if not isinstance(self.initial, tuple):

            def rest(x):
                y = fitting.values(self.initial, x)
                return y - fitting.values(self.base, x) if self.base else y

            return fitting.spline(rest, self.degree, self.grid, self.grid_range)
        numbers = np.asarray(self.initial)
        right = numbers.dtype.kind in "iuf" and numbers.shape == (count,)
        if not (right and np.isfinite(numbers).all()):
            raise ValueError(
                f"BSpline: `initial` must be a name, a callable, or {count} finite coefficients. "
                f"Received: initial={self.initial!r}"
            )
        return self.initial

    def parameter_list(self):
        count = self.grid + self.degree
        listed = [Parameter("coefficients", count, self._start, self.regularizer, self.constraint)]
        return listed + ([Parameter("weight", 1, (1.0,))] if self.base else [])

    def function(self, x, coefficients, weight=None):
        return bspline(x, coefficients, weight, self.degree, self.grid_range)

    def kernel(self, training):
        ends = map(kernels.bits, self.grid_range)
        return kernels.Call(KERNEL, (self.degree, self.grid, *ends, int(self.base is not None)))

    def expression(self, x, coefficients, weight=None):
        sp = expressions.sympy()
        low, high = map(expressions.exact, self.grid_range)
        scale, one, d = self.grid / (high - low), sp.Integer(1), self.degree

        def total(numbers, j):
            return sp.Add(*(b * c for b, c in zip(numbers, coefficients[j:], strict=False)))

        def line(place, j, t):
            slope = total(basis_slopes(t, d, one), j) * scale
            return total(basis(t * one, d, one), j) + slope * (x - place)

        pieces = [(line(low, 0, 0), x < low)]
        for j in range(self.grid):
            inside = total(basis((x - low) * scale - j, d, one), j)
            end = low + (j + 1) / scale
            pieces.append((inside, x < end if j + 1 < self.grid else x <= high))
        spline = sp.Piecewise(*pieces, (line(high, self.grid - 1, 1), True))
        if weight is None:
            return spline
        return weight[0] * expressions.KERAS["silu"](sp, x) + spline

    def _pieces(self, coefficients, cell):
        """Of each part the coefficients of its polynomial about its left end."""
        d = self.degree
        matrix = basis_polynomials(d)
        return [
            [
                sum(matrix[k][power] * coefficients[j + k] for k in range(d + 1)) / cell**power
                for power in range(d + 1)
            ]
            for j in range(self.grid)
        ]

    @staticmethod
    def _at_the_end(piece, cell):
        """The same polynomial about its right end."""
        return [
            sum(
                math.comb(k, power) * c * cell ** (k - power)
                for k, c in enumerate(piece)
                if k >= power
            )
            for power in range(len(piece))
        ]

    def text(self, coefficients, weight=None):
        low, high = self.grid_range
        cell = (high - low) / self.grid
        pieces = self._pieces(list(map(float, coefficients)), cell)
        # About the place in the middle, so that few terms have to add up far from there.
        m = self.grid // 2
        places = low + cell * np.arange(self.grid + 1)
        polynomial = polynomial_text(pieces[m], 0, variable(places[m]))
        terms = [polynomial] if polynomial != "0" else []
        beyond = [pieces[0][:2], *pieces, self._at_the_end(pieces[-1], cell)[:2]]
        for i, place in enumerate(places):
            left = beyond[i] if i == 0 else self._at_the_end(beyond[i], cell)
            right = beyond[i + 1]
            size = self.degree + 1
            jump = np.pad(right, (0, size - len(right))) - np.pad(left, (0, size - len(left)))
            height = f"{place:.6g} - x" if i <= m else variable(place).strip("()")
            # A part joins the next up to its derivative degree - 1, the lines at the ends up to 1.
            first = min(2, self.degree) if i in (0, self.grid) else self.degree
            for power in range(first, size):
                change = jump[power] if i > m else -jump[power] * (-1) ** power
                if change:
                    power_text = f"^{power}" if power > 1 else ""
                    terms.append(f"{change:.6g} max(0, {height}){power_text}")
        if weight is not None:
            terms.insert(0, f"{weight[0]:.6g} x sigmoid(x)")
        return (" + ".join(terms) or "0").replace("+ -", "- ")

    def get_config(self):
        return {
            **super().get_config(),
            "grid": self.grid,
            "degree": self.degree,
            "grid_range": self.grid_range,
            "base": self.base,
            "initial": serialize_start(self.initial, lambda: self._start),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }


def basis(t, degree, one=1.0):
    """The degree + 1 B-splines on whole numbers that are not 0 at 0 <= t <= 1 (Cox, de Boor).

    Args:
        t: a number, a tensor or an expression.
        degree: of the splines.
        one: 1 as a number of the kind that t is made of.
    """
    values = [one]
    for d in range(1, degree + 1):
        lower = [0 * one, *values, 0 * one]
        values = [
            ((t + (d - k)) * lower[k] + (1 + k - t) * lower[k + 1]) * (one / d)
            for k in range(d + 1)
        ]
    return values


def basis_slopes(t, degree, one=1.0):
    """Their derivatives."""
    lower = [0 * one, *basis(t, degree - 1, one), 0 * one]
    return [lower[k] - lower[k + 1] for k in range(degree + 1)]


def basis_polynomials(degree):
    """Of each of them the coefficients of the powers of t."""
    t = np.polynomial.Polynomial([0.0, 1.0])
    splines = basis(t, degree, np.polynomial.Polynomial([1.0]))
    return [np.pad(p.coef, (0, degree + 1))[: degree + 1].tolist() for p in splines]


def bspline(x, coefficients, weight, degree, grid_range):
    """weight silu(x) + Σ_j coefficients[j] B_j(x), as `BSpline` defines it.

    Args:
        x: float tensor.
        coefficients: tensor whose first axis counts them; coefficients[j] broadcasts with x.
        weight: likewise, of one number; or None.
        degree, grid_range: see `BSpline`.
    """
    x = finite(x)
    (low, high), cells = grid_range, coefficients.shape[0] - degree
    scale = cells / (high - low)
    left, right = x < low, x > high
    inside = ops.where(left, low, ops.where(right, high, x))
    u = (inside - low) * scale
    cell, own = pick(coefficients, u, cells, degree + 1)
    value = sum(b * c for b, c in zip(basis(u - cell, degree), own, strict=True))
    # Without a gradient where parts of it may overflow: their sum would be nan.
    size = 64 * max(1.0, scale) * sum(ops.abs(c) for c in own)
    value = ops.where(ops.isinf(ops.stop_gradient(size)), ops.stop_gradient(value), value)
    weights, terms = [ops.ones_like(coefficients[0])], [value]
    for side, end, first, t in ((left, low, 0, 0.0), (right, high, cells - 1, 1.0)):
        # Of a slope that overflows no gradient flows.
        slopes = [scale * slope for slope in basis_slopes(t, degree)]
        used = [k for k, slope in enumerate(slopes) if slope]
        numbers = [ops.convert_to_tensor(slopes[k], x.dtype) for k in used]
        weights.append(finite(weighted_sum([coefficients[first + k] for k in used], numbers)))
        terms.append(ops.where(side, x - end, 0.0))
    if weight is not None:
        weights.append(weight[0])
        # Where it is flat, the chain rule would multiply 0 by weight · x, which may overflow.
        sigmoid = ops.sigmoid(ops.clip(x, -1e4, 1e4))  # LiteRT's is nan at 1e30
        sigmoid = ops.where(ops.abs(x) < 80, sigmoid, ops.stop_gradient(sigmoid))
        terms.append(x * sigmoid)
    return weighted_sum(weights, terms)


def _formula(x, p, settings, key):
    degree, grid, low, high, base = settings
    grid_range = kernels.real(low), kernels.real(high)
    count = grid + degree
    return bspline(x, p[:count], p[count:] if base else None, degree, grid_range)


KERNEL = kernels.kernel("Bspline", _formula)
