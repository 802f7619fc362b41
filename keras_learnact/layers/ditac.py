"""DiTAC: a learned, strictly increasing warp of the input inside another activation."""

import functools
import math
from fractions import Fraction
from typing import NamedTuple

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
from keras_learnact.numerics import erf, finite, limits, log1p_ratio

# In the order of DitacForm in custom_ops/kernels/ditac.h.
FORMS = ("gelu", "leaky", "ge", "inf")
NEGATIVE_SLOPE = 0.01  # of the leaky form
FAR = 2.0**80  # from here on the form "inf" goes on as a line
SHRINKING = -math.log(2)
SMALL = 0.5  # up to here series are used: the closed forms lose digits


@keras.saving.register_keras_serializable(PACKAGE)
class DiTAC(LearnableActivation):
    """Diffeomorphism-based trainable activation: GELU of an input that a learned flow has warped.

    Formula:

        f(x) = T(x) Φ(x)   for lo <= x <= hi
               x Φ(x)      elsewhere
        T(x) = φ(1),   φ(0) = x,   dφ/dt = v(φ)

    Φ is the normal distribution function, so x Φ(x) is GELU. The velocity v is continuous and
    affine in each of `tess` cells of equal length between lo and hi, and 0 at lo and at hi. Its
    values at the tess − 1 vertices between them are the parameters, in lengths of the interval for
    a unit of time. T is strictly increasing and maps the interval onto itself, whatever they are.
    They start at 0: T is the identity, and the layer starts as GELU.

    T is exact, not read from a table: within a cell φ is an exponential, so is the time to its
    end a logarithm, and the walk goes from cell to cell until the time is used. T′(x) = v(T)/v(x)
    is continuous inside of the interval but for vertices where v is 0, at which the derivative is
    the right one; at lo and hi f has kinks, where it is that from inside. Speeds |v| beyond
    2^40/tess count as that (in float64 2^80) and have no gradient; T changes by it only where v
    goes from one such speed to another of the other sign, and then is 0 in the middle of the cell.
    A speed below 2^-80/tess (2^-900) never leaves its cell.

    The forms:

        "gelu"    as above
        "leaky"   T(x) in the interval, leaky ReLU with slope 0.01 outside of it
        "ge"      T(x) in the interval, GELU outside of it
        "inf"     T(x) Φ(x) for every x: v is not 0 at lo and hi, these two values are parameters
                  also, and the cells at the ends go on to ∓∞

    "leaky" with lo = 0 starts as leaky ReLU; with another lo it jumps there, and "ge" jumps at
    both ends. All but "gelu" are reconstructions.

    The penalty λ vᵀ Σ⁻¹ v of the authors favours small and smooth velocities. Σ is the covariance
    of v where the 2·tess numbers of its affine pieces (slopes and intercepts) have the covariance
    (output_variance · 2 tess)² exp(−2 d / length_scale), d the distance of two of 2·tess equally
    spaced points of [−1, 1]; it is conditioned on v being continuous, and 0 at the ends. By default
    λ = 0: an activation should not add to a model's loss unasked. The authors' λ is 0.1.

    Values and gradients are right for every finite x; in the form "inf" where |x| < 2^80 and
    T′ < e^87 (in float64 e^708), beyond which T goes on as a line and T′ counts as that. f(±∞) is f
    at the largest finite number, f(nan) is nan.

    `lipschitz` and `slope_interval` are certain, and may be two to three times as large as the
    steepest slope: where T leaves a cell for others, they count the slopes of all.

    Args:
        tess: number of cells, at least 2.
        interval: (lo, hi), lo < hi.
        form: see above.
        initial: where the velocities start: a number, tess − 1 numbers (tess + 1 for "inf"), or a
            Keras initializer. The authors draw them from their prior.
        prior: λ, the weight of the penalty, in `model.losses`.
        length_scale, output_variance: the penalty's, λ_smooth and λ_var of the authors.
        sharing: see `LearnableActivation`. The paper's is "layer".
        axis: see `LearnableActivation`.
        velocity_regularizer: optional Keras regularizer, in addition to the prior.
        velocity_constraint: optional Keras constraint.

    Weights: `velocity` [groups, tess − 1], for "inf" [groups, tess + 1].

    Raises:
        ValueError: for another form, tess < 2, or numbers that are not as said.

    Example:

    >>> layer = DiTAC(tess=2, interval=(0, 1), initial=1.0, form="ge")
    >>> layer.transform(np.array([0.0, 0.1, 2.0]))  # in the first cell v(x) = 2 x
    [0.0, 0.6616, 2.0]

    Reference: Chelly, Finder, Ifergane, Freifeld: Trainable Highly-expressive Activation Functions,
    ECCV 2024, the equation DiTAC(x) = x̃ Φ(x). The penalty is that of the authors' program, as the
    quadratic form that its name promises.
    """

    starts_as = "gelu(x)"

    def __init__(
        self,
        tess=10,
        interval=(-0.5, 2.0),
        form="gelu",
        initial=0.0,
        prior=0.0,
        length_scale=5.0,
        output_variance=2.0,
        sharing="layer",
        axis=-1,
        velocity_regularizer=None,
        velocity_constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if isinstance(tess, bool) or not isinstance(tess, int) or tess < 2:
            raise ValueError(f"DiTAC: `tess` must be an integer >= 2. Received: tess={tess!r}")
        ends = np.asarray(interval)
        if (
            ends.shape != (2,)
            or ends.dtype.kind not in "iuf"
            or not (np.isfinite(ends).all() and 1e-6 <= ends[1] - ends[0] <= 1e6)
            or abs(ends).max() > 1e6
        ):
            raise ValueError(
                "DiTAC: `interval` must be two numbers (lo, hi) in [-1e6, 1e6] with "
                f"hi >= lo + 1e-6. Received: interval={interval!r}"
            )
        if form not in FORMS:
            raise ValueError(f"DiTAC: `form` must be one of {FORMS}. Received: form={form!r}")
        for name, value, positive in (
            ("prior", prior, False),
            ("length_scale", length_scale, True),
            ("output_variance", output_variance, True),
        ):
            if not (isinstance(value, (int, float)) and 0 <= value < math.inf) or (
                positive and value == 0
            ):
                raise ValueError(
                    f"DiTAC: `{name}` must be a number {'> 0' if positive else '>= 0'}. "
                    f"Received: {name}={value!r}"
                )
        self.tess = tess
        # As the layer's numbers: where f jumps there, its expression must jump there too.
        self._ends = tuple(ends.astype(self._math_dtype).tolist())
        vertices = np.linspace(*self._ends, tess + 1).astype(self._math_dtype)
        if not (np.diff(vertices) > 0).all():
            raise ValueError(
                f"DiTAC: `interval` must have room for {tess} cells between numbers of "
                f"{self._math_dtype}. Received: interval={interval!r}, tess={tess!r}. Use fewer "
                "cells, a longer interval, or dtype='float64'."
            )
        if form == "ge" or (form == "leaky" and self._ends[0] < 0):
            self.smoothness = -1
        self.form = form
        self.initial = standardized(initial)
        self.prior = prior
        self.length_scale = length_scale
        self.output_variance = output_variance
        self.velocity_regularizer = keras.regularizers.get(velocity_regularizer)
        self.velocity_constraint = keras.constraints.get(velocity_constraint)
        self._interval = standardized(interval)
        self._start = start("DiTAC", "initial", self.initial, self._count)

    @property
    def _count(self):
        return self.tess + 1 if self.form == "inf" else self.tess - 1

    def parameter_list(self):
        return [
            Parameter(
                "velocity",
                self._count,
                self._start,
                self._penalty if self.prior else self.velocity_regularizer,
                self.velocity_constraint,
            )
        ]

    def _penalty(self, velocity):
        """λ Σ_groups vᵀ Σ⁻¹ v, and what the user's regularizer adds."""
        precision = prior_precision(
            self.tess, self.form == "inf", self.length_scale, self.output_variance
        )
        product = ops.matmul(velocity, ops.convert_to_tensor(precision, velocity.dtype))
        penalty = self.prior * ops.sum(product * velocity)
        if self.velocity_regularizer is None:
            return penalty
        return penalty + self.velocity_regularizer(velocity)

    def function(self, x, velocity):
        return ditac(x, velocity, self.tess, self._ends, self.form)

    def kernel(self, training):
        lo, hi = map(kernels.bits, self._ends)
        return kernels.Call(KERNEL, (self.tess, FORMS.index(self.form), lo, hi))

    def transform(self, inputs):
        """T of each element, the identity outside of the interval; a tensor of the input's shape.

        Args:
            inputs: a tensor as for a call.
        """
        return self._flow(inputs, 1)

    def inverse(self, outputs):
        """The inverse of `transform`: T goes back by time 1, which is forward with −v.

        Where T has brought numbers so close together that the dtype hardly tells them apart, so
        does it bring the rounding of `outputs` apart.

        Args:
            outputs: a tensor as for a call, of values of `transform`.
        """
        return self._flow(outputs, -1)

    def _flow(self, inputs, sign):
        self._assert_built("the transform")
        inputs = ops.convert_to_tensor(inputs)
        shape, repeats = self._parameter_shape(inputs.shape)
        x = ops.cast(inputs, self._math_dtype)
        velocity = sign * self._columns(shape, repeats)["velocity"]
        moved = warped(x, velocity, self.tess, self._ends, self.form == "inf")
        return ops.cast(moved, self.compute_dtype)

    def expression(self, x, velocity):
        return _expression(x, velocity, self.tess, self._ends, self.form)

    def text(self, velocity):
        """`warp(x, lo, hi, v)` stands for T(x), x itself outside of the interval."""
        lo, hi = self._ends
        values = [*velocity] if self.form == "inf" else [0.0, *velocity, 0.0]
        warp = f"warp({', '.join(['x', *(f'{value:.6g}' for value in (lo, hi, *values))])})"
        if self.form in ("gelu", "inf"):
            return f"{warp} Phi(x)"
        outside = "x Phi(x)" if self.form == "ge" else f"max(x, {NEGATIVE_SLOPE:g} x)"
        return f"{outside} for (x < {lo:.6g}) | (x > {hi:.6g}); {warp} between"

    def get_config(self):
        return {
            **super().get_config(),
            "tess": self.tess,
            "interval": self._interval,
            "form": self.form,
            "initial": serialize(self.initial),
            "prior": self.prior,
            "length_scale": self.length_scale,
            "output_variance": self.output_variance,
            "velocity_regularizer": keras.regularizers.serialize(self.velocity_regularizer),
            "velocity_constraint": keras.constraints.serialize(self.velocity_constraint),
        }


@functools.cache
def prior_precision(tess, free, length_scale, output_variance):
    """Σ⁻¹ of the values of v at its vertices, as `DiTAC` says; NumPy.

    The authors have a prior on θ, the coordinates of the affine pieces A in an orthonormal basis B
    of all continuous velocities: θ = Bᵀ A has the covariance Bᵀ C B. With A = Q v and B = Q R⁻¹
    that is θᵀ (Bᵀ C B)⁻¹ θ = vᵀ G (Qᵀ C Q)⁻¹ G v with G = Qᵀ Q, for any basis.
    """
    vertices = np.arange(tess + 1) / tess
    slopes = tess * np.diff(np.eye(tess + 1), axis=0)
    intercepts = np.eye(tess + 1)[:-1] - vertices[:-1, np.newaxis] * slopes
    pieces = np.stack([slopes, intercepts], axis=1).reshape(2 * tess, tess + 1)
    if not free:
        pieces = pieces[:, 1:-1]
    places = np.linspace(-1, 1, 2 * tess)
    distances = abs(places[:, np.newaxis] - places)
    covariance = (output_variance * 2 * tess) ** 2 * np.exp(-2 * distances / length_scale)
    gram = pieces.T @ pieces
    return gram @ np.linalg.solve(pieces.T @ covariance @ pieces, gram)


def ditac(x, velocity, tess, interval, form):
    """`DiTAC`'s formula.

    Args:
        x: float tensor.
        velocity: tensor whose first axis counts the vertices; velocity[k] broadcasts with x.
        tess, interval, form: see `DiTAC`.
    """
    x = finite(x)
    moved = warped(x, velocity, tess, interval, form == "inf")
    # TensorFlow's erf of 1e308 is nan.
    below = 0.5 * (1 + erf(ops.clip(x, -64.0, 64.0) * (1 / math.sqrt(2))))
    if form in ("gelu", "inf"):
        return moved * below
    outside = x * below if form == "ge" else ops.where(x < 0, NEGATIVE_SLOPE * x, x)
    return ops.where(_inside(x, interval), moved, outside)


def warped(x, velocity, tess, interval, free):
    """T(x); x itself outside of the interval, unless the boundary is free."""
    lo, hi = interval
    most, _ = _speeds(x)
    speeds = [tess * ops.clip(velocity[k], -most, most) for k in range(velocity.shape[0])]
    if not free:
        speeds = [ops.zeros_like(speeds[0]), *speeds, ops.zeros_like(speeds[0])]
    length = (hi - lo) / tess
    knots = _knots(interval, tess, limits(x.dtype))
    if not free:
        inside = _inside(x, interval)
        moved = flow(ops.where(inside, x, lo), length, knots, speeds, free)
        return ops.where(inside, moved, x)
    # So far away that nothing overflows; beyond, T goes on as a line.
    moved = flow(ops.clip(x, -FAR, FAR), length, knots, speeds, free, x)
    largest = float(limits(x.dtype).max)
    return ops.clip(moved, -largest, largest)


class Knot(NamedTuple):
    """A vertex to twice a dtype's digits: next to one, T may be many times as far from it as x is.

    Attributes:
        at: the nearest number.
        lacks: what that lacks.
        first: the first number not below the vertex.
    """

    at: float
    lacks: float
    first: float


@functools.cache
def _knots(interval, tess, precision):
    lo, hi = map(Fraction, interval)
    knots = []
    for k in range(tess + 1):
        vertex = lo + (hi - lo) * k / tess
        at = precision.dtype.type(float(vertex))
        lacks = vertex - Fraction(float(at))
        first = np.nextafter(at, precision.max) if lacks > 0 else at
        knots.append(Knot(float(at), float(lacks), float(first)))
    return knots


def _inside(x, interval):
    return ops.logical_and(x >= interval[0], x <= interval[1])


def _speeds(x):
    """The largest speed, in cells, and the smallest one with which a cell is left."""
    return (2.0**40, 2.0**-80) if limits(x.dtype).bits == 32 else (2.0**80, 2.0**-900)


def flow(x, length, knots, speeds, free, far=None):
    """Where a unit of time leads: T.

    No branch has an operand without a finite derivative where it is not taken: gradients of any
    order are those of the branch that is.

    Args:
        x: tensor, where the flow starts.
        length: of a cell.
        knots: the vertices, of `Knot`.
        speeds: the speeds at the vertices, in cells, tensors that broadcast with x.
        free: whether the cells at the ends have no outer end.
        far: the place of which T is wanted, in the same cell as x but farther out, perhaps.
    """
    cells = len(speeds) - 1
    cell, low, high = ops.zeros_like(x), speeds[0], speeds[1]
    left, right = ([ops.full_like(x, part) for part in knot[:2]] for knot in knots[:2])
    for k in range(1, cells):
        here = x >= knots[k].first
        cell = ops.where(here, float(k), cell)
        low, high = ops.where(here, speeds[k], low), ops.where(here, speeds[k + 1], high)
        left = [ops.where(here, *parts) for parts in zip(knots[k][:2], left, strict=True)]
        right = [ops.where(here, *parts) for parts in zip(knots[k + 1][:2], right, strict=True)]
    slope = high - low
    local = ((x - left[0]) - left[1]) * (1 / length)
    rest = ((right[0] - x) + right[1]) * (1 / length)

    def speed_at(local, rest):  # from the vertex that is nearer
        return ops.where(local < rest, low + slope * local, high - slope * rest)

    # The cell where it starts.
    speed = speed_at(local, rest)
    rightwards = speed > 0
    end = ops.where(rightwards, high, low)
    can = _same_direction(speed, end)
    if free:
        outer = ops.where(rightwards, cell == cells - 1, cell == 0)
        can = ops.logical_and(can, ops.logical_not(outer))
    leaves, used = _time(speed, end, ops.where(rightwards, rest, -local), slope, can)
    time = 1 - used
    origin, lacks = x, ops.zeros_like(x)
    if free:
        # Where distances shrink to less than a half, the way would nearly undo the distance from
        # the vertex: T is reckoned from there.
        below = ops.logical_and(local < 0, slope < SHRINKING)
        above = ops.logical_and(rest < 0, slope < SHRINKING)
        origin = ops.where(below, knots[0].at, ops.where(above, knots[-1].at, x))
        local = ops.where(below, 0.0, ops.where(above, 1.0, local))
        rest = ops.where(below, 1.0, ops.where(above, 0.0, rest))
        speed = ops.where(leaves, speed, speed_at(local, rest))
        beyond = far - origin

    # The cells that follow, until one is not crossed in the time that is left.
    slopes = [speeds[k + 1] - speeds[k] for k in range(cells)]
    crossings = []
    for k in range(cells):
        can = _same_direction(speeds[k], speeds[k + 1])
        if free and k in (0, cells - 1):
            can = ops.zeros_like(can)
        # By |v|, whose slope is the other where v < 0.
        one = ops.ones_like(slopes[k])
        sign = ops.where(speeds[k] < 0, -one, one)
        sizes = sign * speeds[k], sign * speeds[k + 1]
        crossings.append(_time(*sizes, one, sign * slopes[k], can))
    for direction in (1, -1):
        onwards = rightwards if direction > 0 else ops.logical_not(rightwards)
        walks = ops.logical_and(leaves, onwards)
        for k in range(cells)[::direction]:
            entry = k if direction > 0 else k + 1
            entered = ops.logical_and(walks, cell < k if direction > 0 else cell > k)
            crossed, needed = crossings[k]
            goes_on = ops.logical_and(crossed, needed < time)
            ends = ops.logical_and(entered, ops.logical_not(goes_on))
            time = ops.where(ops.logical_and(entered, goes_on), time - needed, time)
            speed, slope = ops.where(ends, speeds[entry], speed), ops.where(ends, slopes[k], slope)
            origin = ops.where(ends, knots[entry].at, origin)
            lacks = ops.where(ends, knots[entry].lacks, lacks)
            walks = ops.logical_and(walks, ops.logical_not(ends))

    highest = 87.0 if limits(x.dtype).bits == 32 else 708.0  # their exp are numbers
    exponent = ops.minimum(slope * time, highest)
    moved = origin + (lacks + length * (speed * (time * _exponential_quotient(exponent))))
    return moved + ops.where(leaves, 0.0, beyond * ops.exp(exponent)) if free else moved


def _same_direction(speed, other):
    """Whether speeds do not change their sign between two places, and are not too small."""
    _, least = _speeds(speed)
    return ops.logical_or(
        ops.logical_and(speed > least, other > least),
        ops.logical_and(speed < -least, other < -least),
    )


def _time(speed, end, distance, slope, can):
    """Whether a distance is crossed in less than a unit of time, and in how much; else in 0.

    That is ∫ dy / (speed + slope y), where `can` says that speed and end have the same sign, which
    is that of the distance.
    """
    possible = map(ops.stop_gradient, _where(can, speed, end, distance, slope))
    crossed = ops.logical_and(can, _duration(*possible) < 1)
    duration = _duration(*_where(crossed, speed, end, distance, slope))
    return crossed, ops.where(crossed, duration, 0.0)


def _where(condition, speed, end, distance, slope):
    """The arguments where the condition holds, elsewhere harmless ones."""
    return (
        ops.where(condition, speed, 1.0),
        ops.where(condition, end, 1.0),
        ops.where(condition, distance, 1.0),
        ops.where(condition, slope, 0.0),
    )


def _duration(speed, end, distance, slope):
    # How much the speed changes, relative; elsewhere its derivative may be infinite.
    small = ops.abs(slope * distance) <= SMALL * ops.abs(speed)
    over = ops.where(small, distance, 0.0) / ops.where(small, speed, 1.0)
    near = over * log1p_ratio(slope * over)
    sizes = ops.abs(speed), ops.abs(end)
    # The quotient of the two may overflow. Then their logarithms are far enough apart.
    similar = ops.logical_and(sizes[0] < 2.0**20 * sizes[1], sizes[1] < 2.0**20 * sizes[0])
    alike = ops.logical_and(similar, ops.logical_not(small))
    unlike = ops.logical_not(ops.logical_or(similar, small))
    of_quotient = ops.log(ops.where(alike, sizes[1], 1.0) / ops.where(alike, sizes[0], 1.0))
    of_each = ops.log(ops.where(unlike, sizes[1], 1.0)) - ops.log(ops.where(unlike, sizes[0], 1.0))
    far = (of_quotient + of_each) / ops.where(small, 1.0, slope)
    return ops.where(small, near, far)


def _exponential_quotient(z):
    """(e^z − 1) / z, 1 at 0."""
    small = ops.abs(z) <= SMALL
    # The first term left out is below 2^-53 of the sum, also in the second derivative.
    series = _series(ops.where(small, z, 0.0), [1 / math.factorial(n + 1) for n in range(16)])
    large = ops.where(small, 1.0, z)
    return ops.where(small, series, (ops.exp(large) - 1) / large)


def _series(z, coefficients):
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = coefficient + z * total
    return total


def _expression(x, velocity, tess, interval, form):
    """`DiTAC` as one Piecewise, by the cell and the direction in which x starts.

    How long φ stays in a cell on its way is min and max of the time that was left when it came;
    so the expression is continuous as it stands, and only vertices and zeros of v are its ends.
    """
    sp = expressions.sympy()
    if any(number.free_symbols for number in velocity):
        raise NotImplementedError("which cells are crossed depends on the velocities")
    free = form == "inf"
    lo, hi = map(expressions.exact, interval)
    length = (hi - lo) / tess
    knots = [lo + length * k for k in range(tess + 1)]
    speeds = [tess * number for number in (velocity if free else [0, *velocity, 0])]
    slopes = [speeds[k + 1] - speeds[k] for k in range(tess)]

    def way(speed, slope, *times, may_be_over=False):
        """length · speed · (exp(slope · t) − 1) / slope for the least t of the times.

        Where the time may be over, t < 0 counts as 0; elsewhere that would be a kink at a vertex
        for who computes on intervals. SymPy would try long to simplify products with exp, and
        products in it.
        """
        steep = abs(slope) > 64  # there sinh would overflow, and exp(…) − 1 cancels nothing
        factor = length * speed if slope == 0 else slope if steep else slope / 2
        inner, outer = (sp.Min, sp.Max) if (slope or speed) > 0 else (sp.Max, sp.Min)
        times = [factor * time for time in times]
        time = inner(*times, evaluate=False) if len(times) > 1 else times[0]
        if may_be_over:
            time = outer(0, time, evaluate=False)
        if slope == 0:
            return time
        if steep:
            return sp.Mul(length / slope, speed, sp.exp(time, evaluate=False) - 1, evaluate=False)
        grown = sp.exp(time, evaluate=False), sp.sinh(time, evaluate=False)
        return sp.Mul(2 * length / slope, speed, *grown, evaluate=False)

    def crossing(k):
        """How long it takes to cross a whole cell; None if that is more than 1, or never."""
        one, other = speeds[k], speeds[k + 1]
        if one * other <= 0 or (free and k in (0, tess - 1)):
            return None
        if slopes[k] == 0:
            time = 1 / abs(one)
        else:
            time = sp.log(other / one, evaluate=False) / slopes[k]
            time = time if other > 0 else -time
        return time if float(time) < 1 else None

    crossings = [crossing(k) for k in range(tess)]

    def speed_in(k):
        """v(x), which keeps its digits next to the vertex."""
        beyond = sp.Add(x, -knots[k], evaluate=False)
        rise = sp.Mul(slopes[k] / length, beyond, evaluate=False)
        return sp.Add(speeds[k], rise, evaluate=False) if slopes[k] != 0 else speeds[k]

    def staying(k):
        """T where x never leaves cell k."""
        return x + way(speed_in(k), slopes[k], sp.S.One)

    def leaving(k, right):
        """T where x may leave cell k to the right, or to the left."""
        slope, local = slopes[k], (x - knots[k]) / length
        speed, end = speed_in(k), speeds[k + 1] if right else speeds[k]
        distance = 1 - local if right else -local
        if slope == 0:
            time = distance / end
        else:
            # One x in it is closer on intervals, but loses digits where v hardly changes.
            one, other = speeds[k], speeds[k + 1]
            alike = 4 * one < 6 * other < 9 * one or 4 * one > 6 * other > 9 * one
            ratio = 1 + slope * distance / speed if alike else end / speed
            time = sp.log(ratio, evaluate=False) / slope
        if crossings[k] is None:
            total = x + way(speed, slope, sp.S.One, time)
        else:  # it always leaves
            total = knots[k + 1] if right else knots[k]
        left = 1 - time
        for m in range(k + 1, tess) if right else range(k - 1, -1, -1):
            entry = speeds[m] if right else speeds[m + 1]
            if crossings[m] is None:
                return total + way(entry, slopes[m], left, may_be_over=True)
            total += way(entry, slopes[m], left, crossings[m], may_be_over=True)
            left -= crossings[m]
        raise AssertionError("the last cell is never crossed")

    def add_cell(k, right, first, last):
        """The pieces of cell k where v points to the right, or to the left: first < x < last."""
        slope, end = slopes[k], speeds[k + 1] if right else speeds[k]
        outer = free and k == (tess - 1 if right else 0)
        if outer or not (end > 0 if right else end < 0):
            add(staying(k), x < last)
            return
        if crossings[k] is not None:
            add(leaving(k, right), x < last)
            return
        # Where it takes more than 1 to leave, close to where v is 0 perhaps: either piece says the
        # same there, so it does not matter where one ends.
        farthest = first if right else last
        if slope == 0:
            place = (knots[k + 1] if right else knots[k]) - length * end
        else:
            place = knots[k] + length * (float(end) * math.exp(-float(slope)) - speeds[k]) / slope
        place = expressions.exact(float(place + (farthest - place) / 16))
        if abs(slope) > 32 or not first < place < last:  # too close to the zero
            add(leaving(k, right), x < last)
        elif right:
            add(staying(k), x < place)
            add(leaving(k, right), x < last)
        else:
            add(leaving(k, right), x < place)
            add(staying(k), x < last)

    pieces = []

    def add(value, condition):
        if pieces and pieces[-1][0] == value:
            pieces.pop()
        pieces.append((value, condition))

    for k in range(tess):
        one, other, slope = speeds[k], speeds[k + 1], slopes[k]
        first, last = knots[k : k + 2]
        zero = first - length * one / slope if slope != 0 else None
        if (
            zero is not None
            and (first < zero or (free and k == 0))
            and (zero < last or (free and k == tess - 1))
        ):
            # As doubles, which the C text compares with, a vertex may be the zero next to it.
            if float(zero) != float(first):
                add_cell(k, slope < 0, first, zero)
                if float(zero) != float(last):
                    add(x, x <= zero)
            else:
                add(leaving(k, False) if slope > 0 else staying(k), x <= first)
            if float(zero) != float(last):
                add_cell(k, slope > 0, zero, last)
        elif one == other == 0:
            add(x, x < last)
        else:
            add_cell(k, one > 0 or other > 0, first, last)
        if other == 0:
            add(x, x <= last)
    below = sp.Mul(sp.S.Half, 1 + sp.erf(x / sp.sqrt(2)), evaluate=False)  # no 2 x, which overflows
    if free:
        warped = sp.Piecewise(*pieces[:-1], (pieces[-1][0], True), evaluate=False)
        return sp.Mul(warped, below, evaluate=False)
    if form == "gelu":
        warped = x
        if len(pieces) > 1:
            warped = sp.Piecewise((x, x <= lo), *pieces[:-1], (x, True), evaluate=False)
        return sp.Mul(warped, below, evaluate=False)
    if form == "ge":
        outside = x * below
    else:
        outside = sp.Piecewise((expressions.decimal(NEGATIVE_SLOPE) * x, x < 0), (x, True))
    return sp.Piecewise((outside, x < lo), (x, x <= lo), *pieces, (outside, True), evaluate=False)


def _formula(x, p, settings, key):
    tess, form, lo, hi = settings
    return ditac(x, p, tess, (kernels.real(lo), kernels.real(hi)), FORMS[form])


KERNEL = kernels.kernel("Ditac", _formula)
