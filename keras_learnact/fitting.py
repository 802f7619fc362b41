"""Coefficients that make a Padé activation unit start as a given function.

`start` gives a unit its coefficients: the paper's Table 6 where it has them, else those of `fit`.

`fit` finds `F = P/Q` with the smallest maximum error on an interval. With `w` the weight, an error
of at most `d` says `w |f Q - P| <= d Q`: for a given `d` that is linear in the coefficients, so
the best fit is found by linear programs, globally, without start values: the differential
correction algorithm (Cheney and Loeb, 1961; Barrodale, Powell and Roberts, 1972), each program
solved by SciPy's HiGHS, and the points exchanged as in Remez' algorithm. Linear too is what keeps
Q from zero: `|b_k| >= 0` in version A; in B and C, where `Q = q0 + |T|`, that T has one sign, or
the sign of x (a kink at 0, as ReLU has): both are tried and the better one is taken.

References:
    Molina, Schramowski, Kersting (2020). Padé Activation Units. ICLR. Table 6.
    Cheney, Loeb (1961). Two new algorithms for rational approximation. Numer. Math. 3.
    Barrodale, Powell, Roberts (1972). The differential correction algorithm for rational l-infinity
    approximation. SIAM J. Numer. Anal. 9.
"""

import difflib
import functools
import operator
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras
import numpy as np
from scipy.interpolate import make_lsq_spline
from scipy.optimize import linprog
from scipy.special import expit

DENOMINATORS = ("A", "B", "C", "N")
EPSILON = 0.1  # of version C
LEAKY = r"leaky_relu_(-?\d*\.?\d+(?:e-?\d+)?)"  # the name of a leaky ReLU of any slope
ALIASES = {"silu": "swish", "identity": "linear"}
WEIGHTS = {"uniform": np.ones_like, "normal": lambda x: np.exp(-(x**2) / 2)}

# No |b_k| R^k is above it, where R is the largest |x| of the interval: best fits of functions with
# kinks would have ever larger coefficients, which train badly, for ever less error.
LARGEST = 1e4
LOWEST = 0.03  # Q >= LOWEST in version N: far enough from a pole
RESOLUTION = 1e-9  # relative to the largest |f|: a smaller error is as good as none


class Fit(NamedTuple):
    """What `fit` found.

    Attributes:
        numerator: `a_0 … a_m`.
        denominator: `b_1 … b_n`; `b_0 … b_n` in version C.
        max_error: the largest |F - f| on the interval, unweighted, of these very numbers.
        max_error_float32: the same after rounding every coefficient to float32, as a float32
            layer stores them.
    """

    numerator: tuple[float, ...]
    denominator: tuple[float, ...]
    max_error: float
    max_error_float32: float


class Stored(NamedTuple):
    """A function of the paper with its coefficients of version A, degrees (5, 4)."""

    function: Callable
    numerator: tuple[float, ...]
    denominator: tuple[float, ...]


def _leaky_relu(slope):
    return lambda x: np.where(x >= 0, x, slope * x)


# Molina et al. (2020), Table 6. The first three are exact Padé approximants at 0.
TABLE_6 = {
    "sigmoid": Stored(
        expit,
        (1 / 2, 1 / 4, 1 / 18, 1 / 144, 1 / 2016, 1 / 60480),
        (0.0, 1 / 9, 0.0, 1 / 1008),
    ),
    "tanh": Stored(
        np.tanh,
        (0.0, 1.0, 0.0, 1 / 9, 0.0, 1 / 945),
        (0.0, 4 / 9, 0.0, 1 / 63),
    ),
    "swish": Stored(
        lambda x: x * expit(x),
        (0.0, 1 / 2, 1 / 4, 3 / 56, 1 / 168, 1 / 3360),
        (0.0, 3 / 28, 0.0, 1 / 1680),
    ),
    "relu": Stored(
        _leaky_relu(0.0),
        (0.02996348, 0.61690165, 2.37539147, 3.06608078, 1.52474449, 0.25281987),
        (1.19160814, 4.40811795, 0.91111034, 0.34885983),
    ),
    "leaky_relu": Stored(
        _leaky_relu(0.01),
        (0.02979246, 0.61837738, 2.32335207, 3.05202660, 1.48548002, 0.25103717),
        (1.14201226, 4.39322834, 0.87154450, 0.34720652),
    ),
    "leaky_relu_0.2": Stored(
        _leaky_relu(0.2),
        (0.02557776, 0.66182815, 1.58182975, 2.94478759, 0.95287794, 0.23319681),
        (0.50962605, 4.18376890, 0.37832090, 0.32407314),
    ),
    "leaky_relu_0.25": Stored(
        _leaky_relu(0.25),
        (0.02423485, 0.67709718, 1.43858363, 2.95497990, 0.85679722, 0.23229612),
        (0.41014746, 4.14691964, 0.30292546, 0.32002850),
    ),
    "leaky_relu_0.3": Stored(
        _leaky_relu(0.3),
        (0.02282366, 0.69358438, 1.30847432, 2.97681599, 0.77165297, 0.23252265),
        (0.32849543, 4.11557902, 0.24155603, 0.31659365),
    ),
    "leaky_relu_-0.5": Stored(
        _leaky_relu(-0.5),
        (0.02650441, 0.80772912, 13.56611639, 7.00217900, 11.61477781, 0.68720375),
        (13.70648993, 6.07781733, 12.32535229, 0.54006880),
    ),
}


def sizes(degrees, denominator):
    """How many coefficients numerator and denominator have.

    Args:
        degrees: `(m, n)`, integers, m >= 1 and n >= 0.
        denominator: the version, `"A"`, `"B"`, `"C"` or `"N"`.

    Returns:
        `(m + 1, n)`; `(m + 1, n + 1)` in version C.

    Raises:
        ValueError: for any other degrees or version.
    """
    if denominator not in DENOMINATORS:
        raise ValueError(
            f"`denominator` must be one of {DENOMINATORS}. Received: denominator={denominator!r}"
        )
    try:
        m, n = (operator.index(degree) for degree in degrees)
    except (TypeError, ValueError):
        m = n = -1
    if m < 1 or n < 0:
        raise ValueError(
            "`degrees` must be two integers (m, n), numerator's and denominator's, m >= 1 and "
            f"n >= 0. Received: degrees={degrees!r}"
        )
    return m + 1, n + (denominator == "C")


def start(initial, degrees=(5, 4), denominator="A"):
    """The coefficients with which a unit starts.

    Args:
        initial: one of
            a name of `TABLE_6`: the paper's numbers for version A and degrees (5, 4), else fitted;
            any other name or callable that `fit` takes: fitted;
            a pair `(numerator, denominator)` of number sequences: taken as it is.
        degrees: `(m, n)`.
        denominator: the version, `"A"`, `"B"`, `"C"` or `"N"`.

    Returns:
        `(numerator, denominator)`, two tuples of floats with the lengths that `sizes` gives.

    Raises:
        ValueError: for explicit coefficients of other lengths or that are not finite in float32,
            and for what `fit` and `sizes` refuse.
    """
    counts = sizes(degrees, denominator)
    if isinstance(initial, str):
        initial = _canonical(initial)
        if initial in TABLE_6 and tuple(degrees) == (5, 4) and denominator == "A":
            return TABLE_6[initial].numerator, TABLE_6[initial].denominator
    if isinstance(initial, str) or callable(initial):
        return fit(initial, degrees, denominator)[:2]
    try:
        numerator, given_denominator = (np.asarray(part, "float64") for part in initial)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`initial` must be a name, a callable, or a pair (numerator, denominator) of number "
            f"sequences. Received: initial={initial!r}"
        ) from error
    if (numerator.shape, given_denominator.shape) != tuple((count,) for count in counts):
        raise ValueError(
            f"Degrees {tuple(degrees)} of version {denominator} take {counts[0]} coefficients in "
            f"the numerator and {counts[1]} in the denominator. Received: initial={initial!r}, of "
            f"shapes {numerator.shape} and {given_denominator.shape}"
        )
    _check_float32(numerator, given_denominator, "`initial` must hold", f"initial={initial!r}")
    return _floats(numerator), _floats(given_denominator)


def fit(
    function,
    degrees=(5, 4),
    denominator="A",
    interval=(-3, 3),
    weight="uniform",
    *,
    outside="smooth",
):
    """The rational function with the smallest maximum error on an interval.

    `F(x) = P(x)/Q(x)`, `P(x) = Σ_{j=0..m} a_j x^j`, and in version

        A: `Q(x) = 1 + Σ_{k=1..n} |b_k| |x|^k`
        B: `Q(x) = 1 + |T(x)|,   T(x) = Σ_{k=1..n} b_k x^k`
        C: `Q(x) = 0.1 + |T(x)|, T(x) = Σ_{k=0..n} b_k x^k`
        N: `Q(x) = 1 + Σ_{k=1..n} b_k x^k`, the only one that can have poles

    The fit minimises the maximum over the interval of `w(x) |F(x) - f(x)|`, to within a percent
    or to 1e-9 of the largest |f|. With R the largest |x| of the interval, no `|b_k| R^k` exceeds
    10,000, so that kinks do not lead to coefficients that never train. An odd or even function on
    an interval around 0 gets exact zeros for the coefficients that it does not need.

    Outside the interval F follows its own tails: for m = n + 1 and b_n != 0 it tends to a line of
    slope `a_m / |b_n|` on BOTH sides (N with n even: `a_m / b_n`), whatever f does; with b_n = 0,
    which happens, it grows faster.

    Args:
        function: the name of a Keras activation or of `TABLE_6` (the table's names rule:
            `"leaky_relu"` has the paper's slope 0.01, not Keras' 0.2), `"leaky_relu_<slope>"`,
            `"identity"`, or an element-wise callable on NumPy arrays or Keras tensors.
        degrees: `(m, n)`.
        denominator: the version, `"A"`, `"B"`, `"C"` or `"N"`.
        interval: `(low, high)`.
        weight: `"uniform"`: w = 1. `"normal"`: w(x) = exp(-x²/2), the standard normal density up
            to a factor; an error at |x| = 3 counts 90 times less than one at 0.
        outside: `"smooth"`: outside the interval, too, version N has no pole and the T of B and C
            no change of sign (other than at 0), which would be a kink of F. `"free"`: only on the
            interval, for a smaller error there (gelu, B, degrees (5, 4): 4.4e-4 instead of
            1.3e-3). Version A is smooth for every b.

    Returns:
        A `Fit`. The same arguments give the same numbers; names and Keras' own functions are fitted
        once per process.
        A backend without float64 gives values of f rounded to float32; then errors below
        2.4e-7 of the largest |f| are as good as none.

    Raises:
        ValueError: for an unknown name, version, weight or `outside`, degrees below (1, 0), an
            interval that is not two finite increasing numbers, a function that is not element-wise
            or not finite on the interval, coefficients beyond float32.

    Example:
        >>> fit("gelu", degrees=(7, 6)).max_error < 2e-6
        True
    """
    sizes(degrees, denominator)
    for name, value, words in (
        ("weight", weight, tuple(WEIGHTS)),
        ("outside", outside, ("smooth", "free")),
    ):
        if value not in words:
            raise ValueError(f"`{name}` must be one of {words}. Received: {name}={value!r}")
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(
            "`interval` must be two finite numbers (low, high) with low < high. "
            f"Received: interval={interval!r}"
        )
    arguments = (int(degrees[0]), int(degrees[1])), denominator, (low, high), weight, outside
    if isinstance(function, str):
        return _fit_once(_canonical(function), *arguments)
    if not callable(function):
        raise ValueError(
            f"`function` must be a name or a callable. Received: function={function!r}"
        )
    name = getattr(function, "__name__", "")
    if any(function is getattr(module, name, None) for module in (keras.activations, keras.ops)):
        return _fit_once(function, *arguments)
    return _fit(function, *arguments)


def _canonical(name):
    """One spelling for each function: "silu" is "swish", "leaky_relu_0.20" "leaky_relu_0.2"."""
    if name in ALIASES:
        return ALIASES[name]
    leaky = re.fullmatch(LEAKY, name)
    if leaky:
        slope = float(leaky[1])
        return "leaky_relu" if slope == 0.01 else f"leaky_relu_{slope!r}"
    return name


def _named(name):
    """The function of a canonical name."""
    if name in TABLE_6:
        return TABLE_6[name].function
    leaky = re.fullmatch(LEAKY, name)
    if leaky:
        return _leaky_relu(float(leaky[1]))
    try:
        return keras.activations.get(name)
    except ValueError as error:
        known = sorted({*TABLE_6, *dir(keras.activations)} - {"get", "serialize", "deserialize"})
        near = difflib.get_close_matches(name, known, n=3) or ["sigmoid", "tanh", "gelu"]
        raise ValueError(
            "Unknown activation name. Use a name of Keras or of keras_learnact.fitting.TABLE_6, "
            f"for example {', '.join(near)}, or a callable. Received: {name!r}"
        ) from error


def _fit(function, degrees, version, interval, weight, outside):
    f = _Sampled(_named(function) if isinstance(function, str) else function, interval)
    even_odd = f.symmetry()
    best = None
    for follows_x in (False, True) if version in "BC" and degrees[1] else (False,):
        problem = _Problem(version, degrees, follows_x, even_odd, f, WEIGHTS[weight], outside)
        error, coefficients = _minimax(problem, f.tolerance / f.scale)
        error = max(error, f.tolerance / f.scale)
        if best is None or error < best[0]:
            best = error, coefficients
    numerator, denominator = best[1]
    _check_float32(numerator, denominator, "The fit needs", f"degrees={degrees}, {interval=}")
    return Fit(
        _floats(numerator),
        _floats(denominator),
        f.largest_error(numerator, denominator, version),
        f.largest_error(*(np.float32(c).astype("float64") for c in best[1]), version),
    )


_fit_once = functools.lru_cache(maxsize=None)(_fit)


class _Sampled:
    """A function on an interval, with its values on a fine grid."""

    def __init__(self, function, interval):
        self.function = function
        self.low, self.high = interval
        self.radius = max(abs(self.low), abs(self.high))
        # Dense at 0, where units have their kinks, and at the ends, where errors peak.
        near_zero = self.radius * 2.0 ** -np.arange(0, 20, 0.25)
        turns = np.cos(np.linspace(0, np.pi, 1001))
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        x = np.concatenate(
            [np.linspace(self.low, self.high, 3001), middle + half * turns]
            + [near_zero, -near_zero, [0.0]]
        )
        # Exact in float32, as not every backend has more; within the interval all the same.
        x = np.clip(np.float32(x).astype("float64"), self.low, self.high)
        self.x = np.unique(x)
        self.y, precise = _values(function, self.x)
        if not np.isfinite(self.y).all():
            at = self.x[~np.isfinite(self.y)]
            raise ValueError(
                f"The function must be finite on the interval [{self.low}, {self.high}]. Received: "
                f"{self.y[~np.isfinite(self.y)][0]} at x = {at[0]:g}. Use an interval without "
                "such points."
            )
        self.scale = np.max(np.abs(self.y)) or 1.0
        self.tolerance = (RESOLUTION if precise else 2.0**-22) * self.scale
        some, _ = _values(function, self.x[::3])
        if np.max(np.abs(some - self.y[::3])) > 1e-5 * self.scale:
            raise ValueError(
                "The function must be element-wise: its value at one x may not depend on the other "
                f"elements. Received: {function!r}"
            )

    def __call__(self, x):
        return _values(self.function, x)[0]

    def symmetry(self):
        """0 if the function is even, 1 if it is odd, on an interval around 0; else None."""
        if self.low != -self.high:
            return None
        mirrored = self(-self.x)
        for parity, sign in enumerate((1, -1)):
            if np.max(np.abs(self.y - sign * mirrored)) <= self.tolerance:
                return parity
        return None

    def largest_error(self, numerator, denominator, version):
        def error(x, y):
            return np.abs(y - rational(x, numerator, denominator, version))

        return float(_peaks(error, self.x, self.y, self)[1].max())


def _values(function, x):
    """f(x) in float64, and whether it was computed in float64."""
    # Few sizes, as JAX compiles an operation anew for each.
    padded = np.pad(x, (0, -len(x) % 4096), mode="edge")

    def call():
        with np.errstate(all="ignore"):
            try:
                y = function(padded)
            except Exception as error:
                try:
                    y = function(keras.ops.convert_to_tensor(padded))
                except Exception:
                    raise ValueError(
                        "The function must take one NumPy array, or one Keras tensor, and return "
                        f"as many values. Received: {function!r}, which raised "
                        f"{type(error).__name__}: {error}"
                    ) from error
            return np.asarray(keras.ops.convert_to_numpy(y))

    # A layer may be made while a model is traced; a new thread is always outside of the trace.
    with ThreadPoolExecutor(1) as thread:
        y = thread.submit(call).result()
    if y.shape != padded.shape:
        raise ValueError(
            "The function must be element-wise, from an array to one of the same shape. "
            f"Received: {function!r}, from shape {padded.shape} to {y.shape}"
        )
    return y[: len(x)].astype("float64"), y.dtype.kind in "biu" or y.dtype.itemsize >= 8


def values(function, x):
    """A function that is a name or a callable, as `fit` takes it, at the points x, in float64."""
    named = _named(_canonical(function)) if isinstance(function, str) else function
    if not callable(named):
        raise ValueError(
            f"`initial` must be a name, a callable, or numbers. Received: initial={function!r}"
        )
    y, _ = _values(named, np.asarray(x, "float64"))
    if not np.isfinite(y).all():
        raise ValueError(
            f"The function must be finite between {min(x):g} and {max(x):g}. Received: {function!r}"
        )
    return y


def spline(function, degree, grid, grid_range):
    """Least squares: a B-spline's `grid + degree` coefficients for values of a function.

    Args:
        function: of an array of points in the range.
        degree, grid, grid_range: see `BSpline`.
    """
    low, high = grid_range
    cell = (high - low) / grid
    x = np.linspace(low, high, 64 * grid + 1)
    knots = low + cell * np.arange(-degree, grid + degree + 1)
    knots[-degree - 1] = high  # SciPy wants no x above it, not even by rounding
    c = make_lsq_spline(x, function(x), knots, degree).c
    step = 2.0 ** (np.ceil(np.log2(np.abs(c).max() or 1.0)) - 40)  # less is noise
    return _floats(np.round(c / step) * step)


def rational(x, numerator, denominator, version):
    """F in float64, as the definition reads."""
    powers = np.arange(len(denominator)) + (version != "C")
    if version == "A":
        q = 1 + np.abs(x[:, None]) ** powers @ np.abs(denominator)
    else:
        t = x[:, None] ** powers @ denominator
        q = {"B": 1 + np.abs(t), "C": EPSILON + np.abs(t), "N": 1 + t}[version]
    return x[:, None] ** np.arange(len(numerator)) @ numerator / q


def _peaks(error, x, y, f):
    """The local maxima of `error(x, f(x))` and its values there, located between grid points."""
    e = error(x, y)
    middle = np.flatnonzero(
        (e >= np.concatenate([[0.0], e[:-1]])) & (e >= np.concatenate([e[1:], [0.0]]))
    )
    middle = np.sort(middle[np.argsort(-e[middle], kind="stable")[:64]])  # rounding has many
    at, value = x[middle], e[middle]
    left, right = x[np.maximum(middle - 1, 0)], x[np.minimum(middle + 1, len(x) - 1)]
    for _ in range(2):
        points = np.linspace(left, right, 33)
        e = error(points.ravel(), f(points.ravel())).reshape(points.shape)
        row, column = np.argmax(e, axis=0), np.arange(len(at))
        better = e[row, column] > value
        at = np.where(better, points[row, column], at)
        value = np.where(better, e[row, column], value)
        left = points[np.maximum(row - 1, 0), column]
        right = points[np.minimum(row + 1, 32), column]
    return at, value


class _Problem:
    """The fit within one set of denominators, in u = x/R and f/max|f|.

    `P = numerator_columns @ a`, `Q = q0 + denominator_columns @ c`, c restricted so that Q > 0:
    all of it linear in (a, c), and a convex set of Q.

    Args:
        follows_x: whether the T of versions B and C has the sign of x; else it is >= 0.
        even_odd: 0 or 1 if f is even or odd, else None. With (P(x), Q(x)) also (±P(-x), Q(-x)) is
            a fit with the same error, and so is their sum, which has the symmetry of f.
    """

    def __init__(self, version, degrees, follows_x, even_odd, f, weight, outside):
        m, n = degrees
        self.version, self.degrees, self.follows_x, self.f = version, degrees, follows_x, f
        self.weight = weight
        self.q0 = EPSILON if follows_x and version == "C" else 1.0
        self.lowest = LOWEST if version == "N" or (version == "C" and not follows_x) else self.q0
        around_zero = f.low < 0 < f.high
        powers_p, powers_q = np.arange(m + 1), np.arange(1, n + 1)
        if even_odd is not None:
            powers_p = powers_p[powers_p % 2 == even_odd]
        if version != "A":
            if even_odd is not None:
                powers_q = powers_q[powers_q % 2 == follows_x]
            if self.lowest == 1 and (around_zero or outside == "smooth") and not follows_x:
                powers_q = powers_q[powers_q != 1]  # T >= 0 = T(0), so T'(0) = 0
            if outside == "smooth" and n % 2 != follows_x:
                powers_q = powers_q[powers_q != n]  # else T has both signs at infinity
        self.powers_p, self.powers_q = powers_p, powers_q
        # Where Q >= lowest is asked for, to begin with, in units of R.
        self.reach = np.array([f.low, f.high]) / f.radius
        self.asked = np.linspace(*self.reach, 101)
        if outside == "smooth":
            self.reach = np.array([-np.inf, np.inf])
            inside = np.linspace(0, 1, 51)[1:]
            positive = np.concatenate([inside**3, 1 / inside, [1e3, 1e6, 1e12]])
            self.asked = np.concatenate([-positive, positive])

    def numerator_columns(self, u):
        return u[:, None] ** self.powers_p

    def denominator_columns(self, u):
        if self.version == "A":
            return np.abs(u)[:, None] ** self.powers_q
        sign = np.where(u < 0, -1.0, 1.0) if self.follows_x else np.ones_like(u)
        return sign[:, None] * u[:, None] ** self.powers_q

    def sign_rows(self, u):
        """`rows @ c >= bounds` is Q >= lowest, divided by the highest power where |u| > 1."""
        divisor = np.maximum(1, np.abs(u)) ** self.powers_q[-1]
        return self.denominator_columns(u) / divisor[:, None], (self.lowest - self.q0) / divisor

    def shorten(self, c):
        """Drops powers above the last one in use: with c_n = 0 also c_(n-1) has both signs."""
        used = self.powers_q[(c != 0) & (self.powers_q % 2 == self.follows_x)]
        kept = self.powers_q[self.powers_q <= max(used, default=0)]
        if np.isfinite(self.reach[0]) or self.version == "A" or len(kept) == len(c):
            return False
        self.powers_q = kept
        return True

    def ask(self, holes):
        """Asks for Q >= lowest there, too, and around: the next hole is in between."""
        asked = np.unique(self.asked)
        for u in holes:
            i = np.searchsorted(asked, u)
            between = np.linspace(asked[max(i - 1, 0)], asked[min(i, len(asked) - 1)], 7)
            self.asked = np.concatenate([self.asked, between[1:-1], [u]])

    def holes(self, c):
        """Local minima of Q, exactly, where it is below `lowest`."""
        if self.version == "A" or not c.any():
            return np.zeros(0)
        t = np.zeros(self.degrees[1] + 1)
        t[self.powers_q] = c
        roots = np.polynomial.polynomial.polyroots(np.polynomial.polynomial.polyder(t))
        u = roots.real[np.abs(roots.imag) <= 1e-6 * np.abs(roots)]
        u = u[(self.reach[0] <= u) & (u <= self.reach[1])]
        if self.lowest < self.q0:
            return u[self.q0 + self.denominator_columns(u) @ c < self.lowest / 2]
        rows, bounds = self.sign_rows(u)
        return u[rows @ c < bounds - 1e-5]  # T may turn by a hair

    def error(self, a, c):
        """The weighted error as a function of x and f(x), by the real formula; inf for Q <= 0."""

        def error(x, y):
            u = x / self.f.radius
            t = self.denominator_columns(u) @ c
            q = self.q0 + (np.abs(t) if self.lowest == self.q0 else t)
            p = self.numerator_columns(u) @ a
            distance = np.abs(y / self.f.scale - p / np.where(q > 0, q, 1.0))
            return self.weight(x) * np.where(q > 0, distance, np.inf)

        return error

    def in_x(self, a, c):
        """Numerator and denominator coefficients of the unit."""
        m, n = self.degrees
        numerator, denominator = np.zeros(m + 1), np.zeros(n + 1)
        numerator[self.powers_p] = self.f.scale * a / self.f.radius ** self.powers_p.astype(float)
        denominator[self.powers_q] = c / self.f.radius ** self.powers_q.astype(float)
        if self.version != "C":
            return numerator, denominator[1:]
        if not self.follows_x:
            # Q is known up to a factor: Q(0) = 1, or more where T >= 0.1 needs it.
            u = np.concatenate([self.asked, self.f.x / self.f.radius])
            factor = max(1.0, 2 * EPSILON / np.min(1 + self.denominator_columns(u) @ c))
            numerator, denominator = factor * numerator, factor * denominator
            denominator[0] = factor - EPSILON
        return numerator, denominator


def _minimax(problem, tolerance):
    """The smallest maximum error, and the unit's (numerator, denominator) that have it."""
    f = problem.f
    stride = max(1, len(f.x) // (8 * (sum(problem.degrees) + 2)))
    x = np.unique(np.concatenate([f.x[::stride], f.x[[0, -1]], f.x[np.abs(f.x) < 1e-9]]))
    y = f(x)
    columns = problem.numerator_columns(x / f.radius)
    polynomial = np.linalg.lstsq(columns, problem.q0 * y / f.scale, rcond=None)[0]
    a, c = polynomial, np.zeros(len(problem.powers_q))
    best = np.inf, problem.in_x(a, c)
    holes = np.zeros(0)
    for _ in range(20):
        if np.any(problem.q0 + problem.denominator_columns(x / f.radius) @ c < problem.lowest / 2):
            a, c, holes = polynomial, np.zeros_like(c), holes[:0]
        a, c, on_points = _differential_correction(problem, x, y, a, c, tolerance, len(holes))
        # Rounding of the linear programs: far below the error, but an x^n in the tails.
        a, c = (np.where(np.abs(k) < max(1e-8 * on_points, 1e-12), 0, k) for k in (a, c))
        if problem.shorten(c):
            c = c[: len(problem.powers_q)]
            continue
        peaks, errors = _peaks(problem.error(a, c), f.x, f.y, f)
        holes = problem.holes(c)
        if not len(holes) and errors.max() < best[0]:
            best = errors.max(), problem.in_x(a, c)
        if not len(holes) and errors.max() <= max(1.003 * on_points, tolerance):
            break
        problem.ask(holes)
        x = np.unique(np.concatenate([x, peaks[errors > 0.99 * on_points]]))
        y = f(x)
    return best


def _differential_correction(problem, x, y, a, c, tolerance, in_hole):
    """The best (a, c) on the points x, and its error; the first step leaves the holes, if any.

    A step aims at the error `aim·error` and minimises by how much it misses. With aim = 1 this is
    Barrodale, Powell and Roberts (1972): the error shrinks in every step, until it is the least.
    With aim = 0 it is Loeb's algorithm, which is faster, and does not inflate P and Q by a common
    factor, but ends near the best fit only. So the aim goes from 0 to 1.
    """
    error = max(np.max(problem.error(a, c)(x, y)), tolerance)
    if in_hole:
        signs, sign_bounds = problem.sign_rows(problem.asked)
        error = max(error, np.max(sign_bounds - signs @ c))  # the size of the step that is needed
    for aim in (0.0, 0.5, 0.9, 1.0):
        for _ in range(50):
            if error <= tolerance and not in_hole:
                break
            step = _step(problem, x, y, a, c, error, aim)
            if step is None:
                break
            new_error = max(np.max(problem.error(*step)(x, y)), tolerance)
            if not (new_error < error or in_hole):
                break
            converged = new_error > 0.99 * error and not in_hole
            (a, c), error, in_hole = step, new_error, False
            if converged:
                break
    return a, c, error


def _step(problem, x, y, a, c, error, aim):
    """The next (a, c), or None where the linear program finds none.

    Its unknowns are (step in a, step in c)/error, which is well scaled however small the error is,
    and `miss`: `±w(f Q - P) <= (aim·Q + miss·old Q)·error`.
    """
    u, w = x / problem.f.radius, problem.weight(x)
    p_columns = w[:, None] * problem.numerator_columns(u)
    q_columns = problem.denominator_columns(u)
    wf = w * y / problem.f.scale
    old_q = problem.q0 + q_columns @ c
    residual = (wf * old_q - p_columns @ a) / error
    wfq = wf[:, None] * q_columns
    slack = aim * error * q_columns
    rows = [
        np.hstack([-p_columns, wfq - slack, -old_q[:, None]]),
        np.hstack([p_columns, -wfq - slack, -old_q[:, None]]),
    ]
    bounds = [aim * old_q - residual, aim * old_q + residual]
    if len(c):
        # Q grows at most 4-fold in a step, or a large Q would pay however little it improves.
        rows.append(np.hstack([0 * p_columns, q_columns, 0 * old_q[:, None]]))
        bounds.append(3 * old_q / error)
        if problem.version != "A":
            signs, sign_bounds = problem.sign_rows(np.concatenate([u, problem.asked]))
            zeros = np.zeros((len(signs), len(a)))
            rows.append(np.hstack([zeros, -signs, np.zeros((len(signs), 1))]))
            bounds.append((signs @ c - sign_bounds) / error)
    largest = LARGEST * problem.q0
    least = 0 if problem.version == "A" else -largest
    solution = linprog(
        np.concatenate([np.zeros(len(a) + len(c)), [1.0]]),
        np.vstack(rows),
        np.concatenate(bounds),
        bounds=[(None, None)] * len(a)
        + [((least - k) / error, (largest - k) / error) for k in c]
        + [(None, None)],
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9},
    )
    if solution.x is None:
        return None
    a, c = a + error * solution.x[: len(a)], c + error * solution.x[len(a) : -1]
    return a, np.maximum(c, 0) if problem.version == "A" else c


def _check_float32(numerator, denominator, wants, received):
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(np.concatenate([numerator, denominator]))).all():
            raise ValueError(
                f"{wants} coefficients that are finite in float32. Received: {received}"
            )


def _floats(numbers):
    return tuple(float(number) for number in numbers)
