"""What a learned activation can return: certain bounds of its values and of its slopes.

From `LearnableActivation.expression`, the function f of one group as an exact expression, a `Table`
is made once for each set of coefficients. It cuts the numbers of the layer's dtype into cells, in
each of which f is certainly monotone, or varies by less than the layer rounds. The least value
between lo and hi then is that at lo, at hi, or at the end of a cell between them.

Why the bounds are certain:

1. *Where f turns.* f is taken apart at the roots of what stands in its Abs, Max, Min and Piecewise
   conditions. Where the part between two of them is a rational function N/D with rational
   coefficients, it turns at real roots of N'D - ND' only, has poles at those of D only, and its
   slope turns at those of the next derivative's numerator. FLINT isolates all real roots of these
   integer polynomials in exact arithmetic, so none is missed, and the sign between two of them is
   exact. Any other part (exp, sin, tanh, …) is bisected: a cell is done when interval arithmetic
   with derivatives (`jets`) proves the sign of f' in it, or that f varies less than the layer
   rounds. Every operation on intervals is rounded outward by 2^-50 of its result, more than the
   errors of the C library's functions.

2. *What the layer rounds.* `rounding` follows the expression, node by node, for all x of a cell:
   it adds up how far a computed value can be from the exact one if every operation errs by a few
   units in the last place, exp and its like by more. Sums count with the magnitudes of their terms,
   which covers Horner's rule and every other order of summation. This is a model: it says what
   kernels and formulas keep, and the tests try to refute it. This package's activations are scaled
   so that nothing overflows or underflows on the way to a value; of other classes the operations
   are taken to be done as they stand, in whatever order, and where that may overflow nothing is
   certain. Since an expression's constants may be computed from several parameters (1 / c, √(b² -
   4ac), t - a t), the effect of a change of every parameter by `_PARAMETER` units is added
   (`conditioning`), which is measured at three places of a cell and doubled.

3. *Between cells.* The cells are closed and cover all finite numbers. A root that is no floating
   point number lies within a cell of its own, two or three numbers wide. Where a layer computes its
   operations as they stand, cells hold all parts between which its rounding may choose there.

Slopes are those of the exact f: derivatives that the layer rounds are another matter.
"""

import functools
import math
import weakref
from typing import NamedTuple

import numpy as np

from keras_learnact import expressions
from keras_learnact.intervals import (
    WIDE,
    Interval,
    Node,
    filled,
    flint,
    jets,
    number_or,
    ratio,
    rounding,
    tree,
)

# Units in the last place by which rounding on the way may change a parameter.
_PARAMETER = 8  # a quarter of it where the function is rational

# How a number of the compute dtype is stored: digits of the significand, exponents of 2 of the
# smallest number and of the smallest normal one, the largest number.
_FORMATS = {
    "float64": (53, -1074, -1022, float(np.finfo("float64").max)),
    "float32": (24, -149, -126, float(np.finfo("float32").max)),
    "float16": (11, -24, -14, 65504.0),
    "bfloat16": (8, -133, -126, 255 * 2.0**120),
}

_MOST_CELLS = 1024  # bisected at once; where f oscillates longer than that, its envelope must do

# Of a rational function. A float64 layer may have larger coefficients, for which the float64
# arithmetic of a `Table` would overflow.
_LARGEST = 2**128


class Extremum(NamedTuple):
    """Where a function turns.

    Attributes:
        x: the place.
        value: the exact function there, as a float64.
        kind: "minimum" or "maximum".
    """

    x: float
    value: float
    kind: str


def value_range(layer, lo, hi):
    """See `LearnableActivation.range`."""
    _check_rounding(layer, "range(lo, hi)")
    lo, hi = _ends(layer, "range", lo, hi)
    return _each_group(layer, "range(lo, hi)", lo, hi, Shape.range)


def lipschitz(layer, lo, hi):
    """See `LearnableActivation.lipschitz`."""
    lo, hi = _ends(layer, "lipschitz", lo, hi)
    least, greatest = _each_group(layer, "lipschitz(lo, hi)", lo, hi, Shape.slopes)
    return np.maximum(-least, greatest)


def extrema(layer, lo, hi):
    """See `LearnableActivation.extrema`."""
    lo, hi = _ends(layer, "extrema", lo, hi)
    if lo.ndim or hi.ndim:
        raise ValueError(
            f"{_name(layer)}: extrema(lo, hi) takes two numbers. "
            f"Received: arrays of shape {np.broadcast(lo, hi).shape}"
        )
    shapes = _shapes(layer, "extrema(lo, hi)")
    return [shape.extrema(float(lo), float(hi)) for shape in shapes]


def interval(layer, low, high):
    """See `LearnableActivation.interval`."""
    _check_rounding(layer, "interval(low, high)")
    return _each_element(layer, "interval", low, high, Shape.range)


def slopes(layer, low, high):
    """See `LearnableActivation.slope_interval`."""
    return _each_element(layer, "slope_interval", low, high, Shape.slopes)


def rounding_error(layer, low, high):
    """How far what the layer returns between arrays low and high may be from the exact function.

    The arrays have the layer's input shape, as for `LearnableActivation.interval`.
    """
    _check_rounding(layer, "rounding_error(low, high)")
    return _each_element(layer, "rounding_error", low, high, Shape.errors)[1]


def _name(layer):
    return f"{type(layer).__name__} {layer.name!r}"


def _check_rounding(layer, what):
    why = layer.why_no_bounds()
    if why:
        raise ValueError(f"{_name(layer)}: {what} is not known: {why}")


def _is_scaled(layer):
    """Whether `function` takes care that nothing is lost on the way to its value.

    This package's formulas do: nothing overflows or underflows, which the contract test asks of
    each, and log(1 + u) keeps the digits of u. Of others it is not known, and `Expression` computes
    what its formula says, as it stands.
    """
    if layer.as_it_stands:
        return False
    written_in = next(c for c in type(layer).__mro__ if "function" in vars(c)).__module__
    return written_in.startswith(f"{__package__}.")


def _ends(layer, what, lo, hi):
    lo, hi = np.asarray(lo, "float64"), np.asarray(hi, "float64")
    wrong = ~(lo <= hi)  # nan too
    if wrong.any():
        place = tuple(map(int, np.argwhere(wrong)[0]))
        first, last = (float(np.broadcast_to(v, wrong.shape)[place]) for v in (lo, hi))
        raise ValueError(
            f"{_name(layer)}: {what} needs lo <= hi, both numbers. "
            f"Received: lo={first}, hi={last}{f' at {place}' if place else ''}"
        )
    return lo, hi


def _each_group(layer, what, lo, hi, bounds):
    lo, hi = np.broadcast_arrays(lo, hi)
    pairs = [bounds(shape, lo, hi) for shape in _shapes(layer, what)]
    return tuple(np.stack(arrays) for arrays in zip(*pairs, strict=True))


def _each_element(layer, what, low, high, bounds):
    if np.shape(low) != np.shape(high):
        raise ValueError(
            f"{_name(layer)}: {what}(low, high) needs two arrays of the layer's input shape. "
            f"Received: shapes {np.shape(low)} and {np.shape(high)}"
        )
    low, high = _ends(layer, what, low, high)
    shapes = _shapes(layer, f"{what}(low, high)")
    shape, repeats = layer._parameter_shape(low.shape)
    if len(shapes) == 1:
        return bounds(shapes[0], low, high)
    group = np.repeat(np.arange(layer.groups), repeats).reshape(shape)
    group = np.broadcast_to(group, low.shape).ravel()
    places = np.split(
        np.argsort(group, kind="stable"),
        np.cumsum(np.bincount(group, minlength=layer.groups))[:-1],
    )
    least, greatest = np.empty(low.size), np.empty(low.size)
    for place, of_group in zip(places, shapes, strict=True):
        least[place], greatest[place] = bounds(of_group, low.ravel()[place], high.ravel()[place])
    return least.reshape(low.shape), greatest.reshape(low.shape)


_known = weakref.WeakKeyDictionary()  # of each layer the shapes of its current coefficients


def _shapes(layer, what):
    """The `Shape` of every group, made anew only where the coefficients have changed."""
    layer._assert_built(what)
    flint()
    values = layer.parameters()
    keys = [
        (layer.compute_dtype, *(value[group].tobytes() for value in values.values()))
        for group in range(layer.groups)
    ]
    before, now = _known.get(layer, {}), {}
    for group, key in enumerate(keys):
        if key not in now:
            now[key] = before.get(key) or _shape(layer, group, what)
    _known[layer] = now
    return [now[key] for key in keys]


def _shape(layer, group, what):
    sp = expressions.sympy()
    values = {
        name: list(map(expressions.exact, value))
        for name, value in layer._values_of_group(what, group).items()
    }
    x, scaled = expressions.symbol("x"), _is_scaled(layer)

    def node(values):
        return tree(layer.expression(x, **values), log1p=scaled)

    # The same function with one parameter larger by as much as rounding on the way may do.
    digits, *_ = _FORMATS[layer._math_dtype]
    h = sp.Rational(_PARAMETER, 2**digits)
    changed = []
    for name, numbers in values.items():
        for i, number in enumerate(numbers):
            if number != 0:
                moved = [*numbers[:i], number * (1 + h), *numbers[i + 1 :]]
                changed.append(node({**values, name: moved}))
    shape = Shape(node(values), changed, layer.compute_dtype, layer._math_dtype, scaled)
    most = max((abs(number) for numbers in values.values() for number in numbers), default=0)
    if most > _LARGEST and any(f and f.exact[1].degree() > 0 for f in shape.fractions):
        raise ValueError(
            f"{_name(layer)}: {what} of a rational function needs coefficients up to "
            f"{_LARGEST:.1e}. Received: one of {float(most):.3g} in group {group}."
        )
    return shape


# Rational parts, exactly.


def _settle(root, at, found):
    """The expression as it is around one point, without the choices in it.

    Args:
        root: a `Node`.
        at: a rational number, the point.
        found: a set to which the polynomials are added whose roots end the validity of the result.

    Returns:
        The fraction of two polynomials (N, D), or None if it is not one; and a `Node` that makes
        no choice between rational functions.
    """
    polynomial = flint().fmpq_poly
    memo = {}

    def settle(node):
        key = id(node)
        if key not in memo:
            memo[key] = make(node)
        return memo[key]

    def sign(left, right):
        """The sign of left - right at the point, or None."""
        if left is None or right is None:
            return None
        n, d = _subtract(left, right)
        for p in (n, d):
            if p.degree() > 0:
                found.add(_key(p))
        denominator = d(at)
        if denominator == 0:
            return None
        value = n(at) / denominator
        return (value > 0) - (value < 0)

    def holds(node):
        """True, False, or None and the condition for later."""
        if node.op in ("always", "never"):
            return node.op == "always", node
        if node.op in ("and", "or"):
            parts = [holds(arg) for arg in node.args]
            decisive = node.op == "or"
            if any(part is decisive for part, _ in parts):
                return decisive, node
            if all(part is not None for part, _ in parts):
                return not decisive, node
            return None, Node(node.op, [c for part, c in parts if part is None])
        left, right = map(settle, node.args)
        s = sign(left[0], right[0])
        if s is None:
            return None, Node(node.op, [left[1], right[1]])
        return (s > 0 if node.op == "above" else s >= 0), node

    def make(node):
        op = node.op
        if op == "number":
            exact = node.exact
            return exact is not None and (polynomial([exact]), polynomial([1])) or None, node
        if op == "x":
            return (polynomial([0, 1]), polynomial([1])), node
        if op == "piecewise":
            left_open = []
            for value, condition in node.args:
                decided, condition = holds(condition)
                if decided is False:
                    continue
                result = settle(value)
                if decided and not left_open:
                    return result
                left_open.append((result[1], Node("always") if decided else condition))
                if decided:
                    break
            return None, Node("piecewise", left_open)
        if op in ("max", "min"):
            chosen = settle(node.args[0])
            rest = []
            for arg in node.args[1:]:
                other = settle(arg)
                s = sign(other[0], chosen[0])
                if s is None:
                    rest.append(other)
                elif s * (1 if op == "max" else -1) > 0:
                    chosen = other
            if not rest:
                return chosen
            return None, Node(op, [chosen[1], *(n for _, n in rest)])
        settled = list(map(settle, node.args))
        fractions = [fraction for fraction, _ in settled]
        copy = Node(op, [n for _, n in settled], node.value)
        if any(fraction is None for fraction in fractions):
            return None, copy
        if op == "add":
            return functools.reduce(_add, fractions), copy
        if op == "multiply":
            return functools.reduce(lambda p, q: (p[0] * q[0], p[1] * q[1]), fractions), copy
        if op == "power":
            (n, d), k = fractions[0], node.value
            if k < 0 and n == 0:
                return None, copy
            return (n**k, d**k) if k >= 0 else (d**-k, n**-k), copy
        return None, copy

    return settle(root)


def _add(p, q):
    if p[1] == q[1]:
        return p[0] + q[0], p[1]
    return p[0] * q[1] + q[0] * p[1], p[1] * q[1]


def _subtract(p, q):
    return _add(p, (-q[0], q[1]))


def _key(p):
    """A polynomial's integer coefficients without common factors: the same for equal roots."""
    numerator = p.numer()
    content = int(numerator.content()) * (-1 if numerator.leading_coefficient() < 0 else 1)
    return tuple(int(c) // content for c in numerator.coeffs())


@functools.lru_cache(maxsize=4096)
def _roots(key):
    """All real roots of a polynomial, as pairs of floats that enclose one each."""
    f = flint()
    before, f.ctx.prec = f.ctx.prec, 128
    try:
        roots = [root.real for root, _ in f.fmpz_poly(list(key)).complex_roots() if root.imag == 0]
    finally:
        f.ctx.prec = before
    enclosures = []
    for root in roots:
        middle = float(root.mid())
        if root.is_exact() and f.arb(middle) == root:
            enclosures.append((middle, middle))
        else:
            low, high = float(root.lower()), float(root.upper())
            enclosures.append((math.nextafter(low, -math.inf), math.nextafter(high, math.inf)))
    return enclosures


def _merged(enclosures):
    """Enclosures in order, those that meet made one."""
    merged = []
    for low, high in sorted(set(enclosures)):
        if merged and low <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return merged


def _between(enclosures):
    """A rational number before, between and after the enclosures."""
    fmpq = flint().fmpq

    def exact(number):
        return fmpq(*number.as_integer_ratio())

    if not enclosures:
        return [fmpq(0)]
    inner = [
        (exact(high) + exact(low)) / 2
        for (_, high), (low, _) in zip(enclosures, enclosures[1:], strict=False)
    ]
    return [exact(enclosures[0][0]) - 1, *inner, exact(enclosures[-1][1]) + 1]


def _pieces(root):
    """Where the expression's choices change, and what it is between."""
    found, ends = set(), []
    while True:
        pieces = [_settle(root, at, found) for at in _between(ends)]
        all_ends = _merged([root for key in found for root in _roots(key)])
        if all_ends == ends:
            return ends, pieces
        ends = all_ends


class _Fraction:
    """N / D, and where its cells must end."""

    def __init__(self, n, d):
        common = n.gcd(d)
        if common.degree() > 0:
            n, d = n // common, d // common
        self.exact = n, d
        size = max(map(abs, d.coeffs()))
        self.n, self.d = (
            np.array([ratio(int(c.p), int(c.q)) for c in (p / size).coeffs()] or [0.0])
            for p in (n, d)
        )

    def slope(self):
        n, d = self.exact
        return _Fraction(n.derivative() * d - n * d.derivative(), d * d)

    def sign(self, at):
        """The sign of the slope."""
        n, d = self.exact
        slope = (n.derivative() * d - n * d.derivative())(at)
        return (slope > 0) - (slope < 0)

    def turns(self):
        """Enclosures of all points where it may turn, and of its poles."""
        n, d = self.exact
        slope = n.derivative() * d - n * d.derivative()
        return _real_roots(slope), _real_roots(d)

    def __call__(self, x):
        y = np.empty_like(x)
        inside = abs(x) <= 1
        with np.errstate(all="ignore"):
            near = x[inside]
            y[inside] = _horner(self.n, near) / _horner(self.d, near)
            far = x[~inside]
            power = len(self.n) - len(self.d)
            y[~inside] = (
                _horner(self.n[::-1], 1 / far) / _horner(self.d[::-1], 1 / far)
            ) * far**power
        return y

    def error(self, left, right):
        """What `__call__` may be off by between two numbers where D has one sign and no turn."""
        if len(self.n) == len(self.d) == 1:  # constant, and mostly a floating-point number
            constant = self.exact[0][0] / self.exact[1][0]
            value = float(self.n[0] / self.d[0])
            wrong = constant != flint().fmpq(*value.as_integer_ratio())
            return np.full(left.shape, abs(value) * 2.0**-52 * wrong, WIDE)
        with np.errstate(all="ignore"):
            left, right = left.astype(WIDE), right.astype(WIDE)
            far = np.maximum(abs(left), abs(right))
            d = np.minimum(abs(_horner(self.d, left)), abs(_horner(self.d, right)))
            of_n = _horner(abs(self.n), far) / d
            quotient = np.maximum(abs(_horner(self.n, left) / d), abs(_horner(self.n, right) / d))
            of_d = quotient * _horner(abs(self.d), far) / d
            units = 4.0 * (len(self.n) + len(self.d)) * 2.0**-53
            return number_or((of_n + of_d) * units, math.inf)

    def at_infinity(self, side):
        """The limit at side · ∞, which may be far from the value at the largest number."""
        n, d = (p.degree() for p in self.exact)
        if n < d:
            return 0.0
        leading = float(self.n[-1] / self.d[-1])
        return math.copysign(math.inf, leading * (side if (n - d) % 2 else 1)) if n > d else leading


def _real_roots(p):
    return _roots(_key(p)) if p.degree() > 0 else []


def _horner(coefficients, x):
    total = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total *= x
        total += c
    return total


# Tables.


@functools.cache
def _grid(math_dtype):
    """Ends of cells: powers of two and, where functions usually bend, eighths between them."""
    _, _, normal, largest = _FORMATS[math_dtype]
    points = []
    for k in range(normal, math.frexp(largest)[1]):
        parts = 8 if -4 <= k < 7 else 2 if math_dtype == "float32" else 1
        points += [math.ldexp(1 + j / parts, k) for j in range(parts)]
    points = np.array([p for p in points if p < largest])
    return np.concatenate([-points[::-1], [0.0], points])


# What is known of a cell: f rises, falls, stays the same; it varies less than it is rounded; it
# varies more, but too many cells would be needed to say how.
_RISES, _FALLS, _FLAT, _STILL, _OPEN = 1, -1, 0, 2, 3


class Shape:
    """One group's function f with certain coefficients.

    Args:
        root: f as a `Node`.
        changed: f with each of its parameters changed by `_PARAMETER` units.
        dtype: the layer's compute dtype.
        math_dtype: the dtype of the layer's arithmetic.
        scaled: see `_is_scaled`.
    """

    def __init__(self, root, changed, dtype, math_dtype, scaled):
        digits, _, normal, self.largest = _FORMATS[math_dtype]
        self.dtype = dtype
        self.math_dtype = math_dtype
        self.changed = changed
        self.scaled = scaled
        self.unit = 2.0**-digits
        self.tiny = 2.0**normal
        self.ends, pieces = _pieces(root)
        self.root = root
        self.nodes = [node for _, node in pieces]
        self.fractions = [fraction and _Fraction(*fraction) for fraction, _ in pieces]
        self.poles = [
            pole
            for fraction in self.fractions
            if fraction
            for pole in _real_roots(fraction.exact[1])
        ]
        self.jumps = {end: self._jump(i, *end) for i, end in enumerate(self.ends)}

    def _jump(self, i, low, high):
        """1, 0, -1: f jumps up at the i-th end of its pieces, is continuous, jumps down."""
        with np.errstate(all="ignore"):
            before, after = (
                jets(node, np.array([x], WIDE), 0)[0]
                for node, x in ((self.nodes[i], low), (self.nodes[i + 1], high))
            )
            error = np.maximum(
                self.rounding(i, np.array([low]), np.array([low]), settled=True)[1],
                self.rounding(i + 1, np.array([high]), np.array([high]), settled=True)[1],
            )
        # What float64 cannot tell from 0, as a part of the layer's rounding error.
        least = error * max(2.0**-10, 2.0**-50 / self.unit)
        return int(((after - before > least) * 1 - (after - before < -least) * 1).item())

    def rounding(self, piece, left, right, settled=False):
        """What the layer may return in cells of a piece, and how far that may be from f.

        The latter includes the errors of a `_Fraction`.

        Args:
            settled: whether the layer chooses as f does there, however it rounds what it compares.
        """
        x = Interval(left.astype(WIDE), right.astype(WIDE))
        with np.errstate(all="ignore"):
            # This package's layers compare x with a parameter; what a formula compares is rounded.
            node = self.nodes[piece] if settled or self.scaled else self.root
            computed, error = rounding(node, x, self.unit, self.largest, self.tiny, self.scaled)
            error = np.broadcast_to(error, left.shape).astype(WIDE)
            fraction = self.fractions[piece]
            error = error + fraction.error(left, right) if fraction else error
        return filled(computed, left.shape), error

    def conditioning(self, piece, left, right, envelope):
        """The effect on f of rounding in its parameters, in cells of a piece.

        Args:
            envelope: in which of the cells f is to be taken by its bounds: it may oscillate.
        """
        worst = np.zeros(left.shape, WIDE)
        with np.errstate(all="ignore"):
            for x in (left, right, left / 2 + right / 2):
                x = x.astype(WIDE)
                y = jets(self.root, x, 0)[0]
                total = np.zeros(x.shape, WIDE)
                for changed in self.changed:
                    total = total + abs(jets(changed, x, 0)[0] - y)
                worst = np.maximum(worst, number_or(total, np.inf))
            if envelope.any():
                x = Interval(left[envelope].astype(WIDE), right[envelope].astype(WIDE))
                y = jets(self.root, x, 0)[0]
                total = 0.0
                for changed in self.changed:
                    other = jets(changed, x, 0)[0]
                    total = total + np.maximum(abs(other.low - y.low), abs(other.high - y.high))
                worst[envelope] = number_or(total, np.inf)
        return 2 * (worst / 4 if self.fractions[piece] else worst)

    @functools.cached_property
    def values(self):
        return _Table(self, 0)

    @functools.cached_property
    def derivatives(self):
        return _Table(self, 1)

    def range(self, lo, hi):
        """Bounds of what the layer returns for numbers between arrays lo and hi."""
        # Where the layer casts its input to fewer digits, and where denormal numbers count as 0.
        lo, hi = _outward(lo, hi, self.dtype)
        low, high = self.values(lo, hi)
        # The layer's arithmetic gives numbers of its dtype only, so the bounds may be such numbers,
        # too. What is left is its rounding to fewer digits.
        steps = [(self.math_dtype, np.ceil, np.floor)]
        if self.dtype != self.math_dtype:
            steps.append((self.dtype, np.rint, np.rint))
        for dtype, up, down in steps:
            low, high = _cast(low, dtype, up)[0], _cast(high, dtype, down)[1]
        return low, high

    def slopes(self, lo, hi):
        """Bounds of the exact f' between arrays lo and hi."""
        return self.derivatives(lo, hi)

    def errors(self, lo, hi):
        """0, and how far the layer's values between arrays lo and hi may be from the exact ones."""
        table = self.values
        # A break between two cells has no rounding of its own: it holds what both tend to.
        last = len(table.slack) - 1
        first = np.clip(np.searchsorted(table.edges, lo, "left") - 2, 0, last)
        end = np.clip(np.searchsorted(table.edges, hi, "right"), 0, last)
        level = np.frexp((end - first + 1).astype(float))[1] - 1
        slack = np.maximum(table.errors[level, first], table.errors[level, end - 2**level + 1])
        return np.zeros_like(slack), 2 * slack

    def extrema(self, lo, hi):
        """All places between lo and hi where f turns, as a list of `Extremum`s."""
        table = self.values
        found = []
        last = None  # where f rose or fell last: the cell, and which of the two
        for cell in table.cells_between(lo, hi):
            state = table.state[cell]
            if state == _OPEN:
                raise ValueError(
                    f"extrema(lo, hi): f turns too often near x = {table.left[cell]:.6g}. "
                    f"Received: lo={lo}, hi={hi}. Ask for a smaller interval."
                )
            if (table.left[cell], table.right[cell]) in table.poles:
                last = None
            if state not in (_RISES, _FALLS):
                continue
            if last is not None and state != table.state[last]:
                x, value = table.turn(last, cell)
                if lo < x < hi:
                    found.append(Extremum(x, value, "maximum" if state < 0 else "minimum"))
            last = cell
        return found


class _Table:
    """f, or f' for derivative = 1, in cells."""

    def __init__(self, shape, derivative):
        self.shape = shape
        self.derivative = derivative
        self.targets = [f and (f.slope() if derivative else f) for f in shape.fractions]
        self.poles = set()
        with np.errstate(all="ignore"):
            self._make()

    def _make(self):
        shape = self.shape
        breaks, grid = self._breaks()
        columns, before = [], -shape.largest
        for low, high in [*breaks, (shape.largest, None)]:
            if before < low:
                columns.append(self._gap(before, low, grid))
            if high is not None:
                columns.append(self._break(low, high))
                before = high
        self.left, self.right, self.piece, self.state, *bounds = (
            np.concatenate(column) for column in zip(*columns, strict=True)
        )
        self._bound(*bounds)

    def _breaks(self):
        """Cells of their own, around everything where it may turn; further ends of cells."""
        shape = self.shape
        breaks, grid = list(shape.ends), [_grid(shape.math_dtype)]
        for i, target in enumerate(self.targets):
            if not target:
                continue
            start = shape.ends[i - 1][1] if i else -math.inf
            end = shape.ends[i][0] if i < len(shape.ends) else math.inf
            turns, poles = target.turns()
            breaks += [r for r in turns + poles if start <= r[1] and r[0] <= end]
            grid.append([x for r in _real_roots(target.exact[1].derivative()) for x in r])
        if not shape.scaled:  # smaller cells near the ends, where the layer may choose otherwise
            for low, high in shape.ends:
                steps = max(abs(low), abs(high)) * shape.unit ** np.linspace(0, 1, 24)
                grid += [low - steps, high + steps]
        breaks = [r for r in _merged(breaks) if max(map(abs, r)) < shape.largest]
        return breaks, np.unique(np.concatenate(grid))

    def _piece(self, low):
        """The number of the piece that begins at or before a float."""
        return sum(end[1] <= low for end in self.shape.ends)

    def _gap(self, start, end, grid):
        """The cells between two breaks."""
        piece = self._piece(start)
        edges = np.concatenate([[start], grid[(start < grid) & (grid < end)], [end]])
        left, right = edges[:-1], edges[1:]
        target = self.targets[piece]
        if target:
            middle = _between([(start, start), (end, end)])[1]
            state = np.full(left.shape, target.sign(middle))
            low = high = np.full(left.shape, np.nan, WIDE)
        else:
            left, right, state, low, high = self._bisect(piece, left, right)
        left, right, state, low, high, slack = self._split(piece, left, right, state, low, high)
        least, greatest = np.full(left.shape, -np.inf), np.full(left.shape, np.inf)
        if self.derivative:
            slack = np.where(abs(state) <= 1, slack, 0)  # bounds of all of a cell are certain
        else:
            computed, _ = self.shape.rounding(piece, left, right)
            change = self.shape.conditioning(piece, left, right, abs(state) > 1)
            least, greatest = computed.low - change, computed.high + change
            slack = slack + change
        pieces = np.full(left.shape, piece)
        return left, right, pieces, state, low, high, slack, least, greatest

    def _break(self, low, high):
        shape = self.shape
        jump = 0
        for end in shape.ends:
            if low <= end[0] and end[1] <= high:
                jump = jump or shape.jumps[end]
        pole = any(low <= p[1] and p[0] <= high for p in shape.poles)
        if pole:
            self.poles.add((low, high))
        wild = pole or (self.derivative and jump)
        least, greatest = (-np.inf, np.inf) if wild else (np.inf, -np.inf)
        state = _STILL if self.derivative or pole or not jump else jump
        return tuple(
            np.array([v], t)
            for v, t in [
                (low, float), (high, float), (-1, int), (state, int),
                (least, WIDE), (greatest, WIDE), (0, WIDE), (-np.inf, WIDE), (np.inf, WIDE),
            ]
        )  # fmt: skip

    def _slack(self, piece, left, right):
        shape, target = self.shape, self.targets[piece]
        if not self.derivative:
            return shape.rounding(piece, left, right)[1]
        if target:
            return target.error(left, right)
        slack = np.zeros(left.shape, WIDE)
        for x in (left, right):
            y = self._at(piece, x)
            slack = np.maximum(slack, 8 * (y.high - y.low) + 2.0**-40 * y.size)
        return number_or(slack, np.inf)

    def _at(self, piece, x):
        """It at numbers, certainly."""
        x = x.astype(WIDE)
        y = jets(self.shape.nodes[piece], Interval(x, x), self.derivative)[-1]
        return filled(y, x.shape)

    def _size(self, piece, x):
        target = self.targets[piece]
        return abs(target(x)) if target else self._at(piece, x).size

    def _bisect(self, piece, left, right):
        """Cells of a piece that is no rational function, each with its state and bounds."""
        node, k = self.shape.nodes[piece], self.derivative
        done = []
        while left.size:
            with np.errstate(all="ignore"):
                x = Interval(left.astype(WIDE), right.astype(WIDE))
                middle = left / 2 + right / 2
                centre = middle.astype(WIDE)
                jet = jets(node, x, k + 2)
                at_centre = jets(node, Interval(centre, centre), k + 1)
                value, slope, curvature = (
                    filled(jet[k + i], left.shape, math.factorial(k + i)) for i in range(3)
                )
                exact_value, exact_slope = (
                    filled(at_centre[k + i], left.shape, math.factorial(k + i)) for i in range(2)
                )
                away = Interval.outward(x.low - centre, x.high - centre)
                slope = slope.within(exact_slope + curvature * away)
                value = value.within(exact_value + slope * away)
                state = np.where(slope.low >= 0, _RISES, _STILL)
                state = np.where(slope.high <= 0, _FALLS, state)
                state = np.where((slope.low == 0) & (slope.high == 0), _FLAT, state)
                if k:
                    tolerance = 2.0**-24 * value.size + 2.0**-40
                else:
                    tolerance = self.shape.rounding(piece, left, right)[1]
                finished = (
                    (state != _STILL)
                    | (value.high - value.low <= tolerance)
                    | (middle <= left)
                    | (middle >= right)
                )
            # Those nearest to 0 go on; where f turns for ever, the others stay as they are.
            going = np.nonzero(~finished)[0]
            going = going[np.argsort(abs(middle[going]), kind="stable")]
            given_up = going[_MOST_CELLS // 2 :]
            state[given_up] = _OPEN
            finished[given_up] = True
            done.append([v[finished] for v in (left, right, state, value.low, value.high)])
            left, middle, right = (v[~finished] for v in (left, middle, right))
            left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        left, right, state, low, high = (np.concatenate(v) for v in zip(*done, strict=True))
        order = np.argsort(left, kind="stable")
        return tuple(v[order] for v in (left, right, state, low, high))

    def _split(self, piece, left, right, state, low, high):
        """Smaller cells where the error at the ends of a cell is far below that within."""
        done = []
        least = 64 * (2.0**-40 if self.derivative else self.shape.unit)
        for depth in range(13):
            slack = self._slack(piece, left, right)
            ends = np.maximum(self._slack(piece, left, left), self._slack(piece, right, right))
            size = np.maximum(*(self._size(piece, x) for x in (left, right)))
            middle = left / 2 + right / 2
            split = (slack > 4 * ends) & (slack > least * size) & (abs(state) <= 1)
            split &= (middle > left) & (middle < right) & (depth < 12)
            split[np.nonzero(split)[0][_MOST_CELLS // 4 :]] = False
            keep = ~split
            done.append([v[keep] for v in (left, right, state, low, high, slack)])
            left, right = (
                np.concatenate([left[split], middle[split]]),
                np.concatenate([middle[split], right[split]]),
            )
            state, low, high = (np.concatenate([v[split]] * 2) for v in (state, low, high))
            if not left.size:
                break
        columns = [np.concatenate(v) for v in zip(*done, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return tuple(v[order] for v in columns)

    def _bound(self, low, high, slack, least, greatest):
        """Bounds of every cell, at its ends and in all of it; then tables for many cells.

        Args:
            low, high: bounds of f in cells in which it is not known to be monotone.
            slack: how far from f the layer may be.
            least, greatest: what the layer keeps in any case.
        """
        monotone = (abs(self.state) <= 1) & (self.piece >= 0)
        ends = []
        for x in (self.left, self.right):
            below, above = least.copy(), greatest.copy()
            for piece, target in enumerate(self.targets):
                of = monotone & (self.piece == piece)
                y = target(x[of]) if target else self._at(piece, x[of])
                y = Interval(y, y) if target else y
                # What is no number says nothing.
                below[of] = np.fmax(below[of], y.low - slack[of])
                above[of] = np.fmin(above[of], y.high + slack[of])
            ends.append((below, above))
        (left_low, left_high), (right_low, right_high) = ends
        others = np.fmax(least, low - slack), np.fmin(greatest, high + slack)
        low = np.where(monotone, np.minimum(left_low, right_low), others[0])
        high = np.where(monotone, np.maximum(left_high, right_high), others[1])
        for below, above in ends:
            below[~monotone], above[~monotone] = low[~monotone], high[~monotone]
        # A break holds what its neighbours tend to.
        for i in np.nonzero(self.piece < 0)[0]:
            for j, (a, b) in ((i - 1, ends[1]), (i + 1, ends[0])):
                if 0 <= j < len(low) and self.piece[j] >= 0:
                    low[i], high[i] = min(low[i], a[j]), max(high[i], b[j])
            for a, b in ends:
                a[i], b[i] = low[i], high[i]
        self.exact = monotone & np.isfinite(slack.astype(float))
        self.slack = slack.astype(float)
        down, up = (lambda v: _to_double(v, -np.inf)), (lambda v: _to_double(v, np.inf))
        self.low, self.high = down(low), up(high)
        self.begin, self.end = (down(left_low), up(left_high)), (down(right_low), up(right_high))
        self.edges = np.append(self.left, self.right[-1])
        self.least = _sparse(self.low, np.minimum)
        self.greatest = _sparse(self.high, np.maximum)
        self.errors = _sparse(self.slack, np.maximum)

    def __call__(self, lo, hi):
        """Bounds between arrays lo and hi."""
        shape, lo, hi = lo.shape, lo.ravel(), hi.ravel()
        largest = self.shape.largest
        x, y = np.clip(lo, -largest, largest), np.clip(hi, -largest, largest)
        last_cell = len(self.low) - 1
        first = np.clip(np.searchsorted(self.edges, x, "left") - 1, 0, last_cell)
        last = np.clip(np.searchsorted(self.edges, y, "right") - 1, 0, last_cell)
        low, high = self._point(x, first)
        low_y, high_y = self._point(y, last)
        np.minimum(low, low_y, out=low)
        np.maximum(high, high_y, out=high)
        # From lo to the end of its cell, from the beginning of the last one to hi.
        apart = first < last
        for cell, (least, greatest) in ((first, self.end), (last, self.begin)):
            low = np.where(apart, np.minimum(low, least[cell]), low)
            high = np.where(apart, np.maximum(high, greatest[cell]), high)
        # All cells between, as two stretches of 2^level cells.
        count = np.maximum(last - first - 1, 1)
        level = np.frexp(count.astype(float))[1] - 1
        start = np.minimum(first + 1, last_cell)
        other = np.maximum(last - 2**level, 0)
        inside = last - first > 1
        for table, join, result in (
            (self.least, np.minimum, low),
            (self.greatest, np.maximum, high),
        ):
            of_all = join(table[level, start], table[level, other])
            join(result, of_all, out=result, where=inside)
        for side, end, far in ((1, -1, hi == np.inf), (-1, 0, lo == -np.inf)):
            target = self.targets[end]
            if target and far.any():
                limit = target.at_infinity(side)
                ends = [limit]
                if not self.derivative:
                    # The layer rounds it, as any other value, and an infinite one has the sign of
                    # the layer's value at the largest number.
                    units = math.copysign(16 * self.shape.unit, limit)
                    ends = [limit * (1 - units) - self.shape.tiny]
                    ends += [limit * (1 + units) + self.shape.tiny]
                    if math.isinf(limit):
                        at_largest = target(np.array([side * self.shape.largest], WIDE))
                        ends.append(math.copysign(math.inf, at_largest.item()))
                np.minimum(low, min(ends), out=low, where=far)
                np.maximum(high, max(ends), out=high, where=far)
        return low.reshape(shape), high.reshape(shape)

    def _point(self, x, cell):
        """Bounds of what the layer returns at x."""
        low, high = self.low[cell], self.high[cell]
        piece = np.where(self.exact[cell], self.piece[cell], -1)
        slack = self.slack[cell]
        for i, target in enumerate(self.targets):
            of = piece == i
            if not of.any():
                continue
            at = x[of]
            with np.errstate(all="ignore"):
                if target:
                    y = target(at)
                else:
                    y = jets(self.shape.nodes[i], at, self.derivative)[-1]
                    y = np.broadcast_to(0.0 if y is None else y, at.shape)
                # nan says nothing: then the cell's bounds stay.
                low[of] = np.fmax(low[of], y - slack[of])
                high[of] = np.fmin(high[of], y + slack[of])
        return low, high

    def cells_between(self, lo, hi):
        first = max(np.searchsorted(self.edges, lo, "left") - 1, 0)
        return range(first, min(np.searchsorted(self.edges, hi, "right"), len(self.low)))

    def turn(self, before, after):
        """Where f turns between a cell in which it rises and one in which it falls."""
        low, high = self.right[before], self.left[after]
        piece = max(self.piece[before], 0)
        flat = (self.state[before + 1 : after] == _FLAT).any()
        smooth = not self.targets[self.piece[before]] and self.piece[before] == self.piece[after]
        if smooth and not flat and low < high:
            node, sign = self.shape.nodes[piece], self.state[before]
            while True:  # f' changes its sign between the two
                x = low / 2 + high / 2
                if not low < x < high:
                    break
                slope = jets(node, np.array([x], WIDE), 1)[1]
                if slope is not None and slope.item() * sign > 0:
                    low = x
                else:
                    high = x
        x = low / 2 + high / 2
        if self.piece[before] < 0 or self.piece[after] < 0:  # a jump is the turn
            sides = [
                self._value(self.shape.nodes[self.piece[i]], x)
                for i in range(max(before - 1, 0), min(after + 2, len(self.piece)))
                if self.piece[i] >= 0
            ]
            return float(x), (max if self.state[after] < 0 else min)(sides)
        return float(x), self._value(self.shape.root, x)

    def _value(self, node, x):
        value = jets(node, np.array([x], WIDE), 0)[0]
        return float(np.broadcast_to(value, (1,))[0])


def _to_double(v, direction):
    with np.errstate(over="ignore"):
        rounded = v.astype("float64")
    wrong = rounded > v if direction < 0 else rounded < v
    return np.where(wrong, np.nextafter(rounded, direction), rounded)


def _sparse(values, join):
    """Of every place the joint bound of 2^level cells from there, for all levels."""
    levels = [values]
    while 2 ** len(levels) <= len(values):
        step = 2 ** (len(levels) - 1)
        last = levels[-1]
        levels.append(np.append(join(last[:-step], last[step:]), last[-step:]))
    return np.stack(levels)


def _outward(low, high, dtype):
    """Numbers of a dtype that enclose; denormal numbers may count as 0."""
    low, _ = _cast(low, dtype, np.floor)
    _, high = _cast(high, dtype, np.ceil)
    return low, high


def _cast(x, dtype, whole):
    """x as a multiple of its unit in the last place; the least and the greatest it may be.

    Denormal numbers may become 0, and what is above all numbers infinite.
    """
    digits, least, normal, largest = _FORMATS[dtype]
    quantum = np.maximum(np.frexp(x)[1] - digits, least)
    with np.errstate(over="ignore"):
        y = np.ldexp(whole(np.ldexp(x, -quantum)), quantum) + 0.0
    denormal = abs(y) < 2.0**normal
    low = np.where(denormal, np.minimum(y, 0.0), np.minimum(y, largest))
    high = np.where(denormal, np.maximum(y, 0.0), np.maximum(y, -largest))
    return np.where(y < -largest, -np.inf, low), np.where(y > largest, np.inf, high)
