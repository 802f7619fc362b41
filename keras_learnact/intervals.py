"""Expressions on intervals: their values, their derivatives, and what rounding makes of them.

What `keras_learnact.bounds` is certain by, see there.
"""

import functools
import math
import operator

import numpy as np
from scipy import special

from keras_learnact import expressions

# The widest hardware numbers: their range also keeps x^17 from overflowing.
WIDE = np.longdouble
# By how much of its result every operation on intervals is rounded outward.
OUTWARD = 2.0**-50
TINY = np.finfo(WIDE).tiny

# Units in the last place by which a layer's operations err: arithmetic; exp and its like.
_ARITHMETIC = 2
_FUNCTION = 16


def flint():
    """python-flint, which is imported only where bounds are asked for."""
    try:
        import flint
    except ImportError as error:
        raise ImportError(
            "Bounds need python-flint: pip install 'keras_learnact[analysis]'"
        ) from error
    return flint


# Expressions.


class Node:
    """One operation of an expression; equal subexpressions are one node."""

    __slots__ = ("args", "exact", "op", "value")

    def __init__(self, op, args=(), value=None, exact=None):
        self.op = op
        self.args = args
        # Of a "number" the nearest float64; of a "power" its exponent; of a "log" what its argument
        # is at least, a positive number, or None.
        self.value = value
        self.exact = exact  # of a rational number: itself


def tree(expression, log1p=True):
    """The `Node` of a SymPy expression in one symbol.

    Args:
        expression: SymPy expression.
        log1p: whether log(1 + u) stands for a function of u that does not round 1 + u.
    """
    sp, fmpq = expressions.sympy(), flint().fmpq
    functions = {sp.exp, sp.sin, sp.cos, sp.tanh, sp.erf, sp.sinh, sp.cosh}
    relations = {
        sp.StrictGreaterThan: ("above", 0, 1),
        sp.GreaterThan: ("not below", 0, 1),
        sp.StrictLessThan: ("above", 1, 0),
        sp.LessThan: ("not below", 1, 0),
    }
    nodes = {}

    def node(e):
        if e not in nodes:
            nodes[e] = make(e)
        return nodes[e]

    def make(e):
        if e.is_Symbol:
            return Node("x")
        if e is sp.true or e is sp.false:
            return Node("always" if e else "never")
        if isinstance(e, (sp.And, sp.Or)):
            return Node(type(e).__name__.lower(), list(map(node, e.args)))
        if e.func in relations:
            op, i, j = relations[e.func]
            return Node(op, [node(e.args[i]), node(e.args[j])])
        if e.is_Rational:
            p, q = int(e.p), int(e.q)
            return Node("number", value=ratio(p, q), exact=fmpq(p, q))
        if e.is_number and e.is_real:
            return Node("number", value=float(e.evalf(30)))
        if e.is_Add:
            if len(e.args) == 2 and e.args[0] == 1 and e.args[1].func is sp.erf:
                # 1 + erf(u), which cancels for u < 0.
                return Node("erfc", [node(-e.args[1].args[0])])
            return Node("add", list(map(node, e.args)))
        if e.is_Mul:
            return Node("multiply", list(map(node, e.args)))
        if e.is_Pow and e.exp == -1 and e.base.is_Add and len(e.base.args) == 2:
            one, other = e.base.args
            if one == 1 and other.func is sp.exp:
                return Node("sigmoid", [node(-other.args[0])])
        if e.is_Pow and e.exp.is_Integer:
            return Node("power", [node(e.base)], value=int(e.exp))
        if e.is_Pow and e.exp == sp.S.Half:
            return Node("sqrt", [node(e.base)])
        if e.is_Pow and e.exp == -sp.S.Half:
            return Node("power", [Node("sqrt", [node(e.base)])], value=-1)
        if e.func is sp.log:
            (inside,) = e.args
            if inside.func is sp.Max:
                least = max((a for a in inside.args if a.is_Rational and a > 0), default=None)
                return Node(
                    "log", [node(inside)], value=least and ratio(int(least.p), int(least.q))
                )
            if log1p and inside.is_Add and inside.args[0] == 1:
                return Node("log1p", [node(inside - 1)])
            return Node("log", [node(inside)])
        if e.func in functions:
            return Node(e.func.__name__, [node(e.args[0])])
        if e.func is sp.Abs:
            u = node(e.args[0])
            return Node("max", [u, Node("multiply", [node(sp.S.NegativeOne), u])])
        if e.func in (sp.Max, sp.Min):
            # In the order of sympy's own printing, not of a set.
            ordered = sorted(e.args, key=sp.default_sort_key)
            return Node(e.func.__name__.lower(), list(map(node, ordered)))
        if e.func is sp.Piecewise:
            return Node("piecewise", [(node(value), node(c)) for value, c in e.args])
        raise ValueError(
            f"Bounds know sums, products, integer powers, exp, log, sqrt, sin, cos, tanh, sinh, "
            f"cosh, erf, Abs, Max, Min and Piecewise. Received: {e} in {expression}"
        )

    return node(expression)


def ratio(p, q):
    try:
        return p / q
    except OverflowError:
        return math.inf if p > 0 else -math.inf


# Intervals.


def number_or(value, instead):
    return np.where(np.isnan(value), instead, value)


class Interval:
    """Arrays of intervals; every operation rounds outward."""

    __slots__ = ("high", "low")

    def __init__(self, low, high):
        self.low = low
        self.high = high

    @classmethod
    def outward(cls, low, high, relative=OUTWARD, absolute=TINY):
        low = number_or(low * np.where(low > 0, 1 - relative, 1 + relative), -np.inf) - absolute
        high = number_or(high * np.where(high < 0, 1 - relative, 1 + relative), np.inf) + absolute
        return cls(low, high)

    def __neg__(self):
        return Interval(-self.high, -self.low)

    def __add__(self, other):
        # No underflow: a sum of zeros is zero.
        return self.outward(self.low + other.low, self.high + other.high, absolute=0)

    def __sub__(self, other):
        return self + -other

    def __mul__(self, other):
        products = [
            number_or(p * q, 0)  # 0 · ∞ of two bounds
            for p in (self.low, self.high)
            for q in (other.low, other.high)
        ]
        return self.outward(
            functools.reduce(np.minimum, products), functools.reduce(np.maximum, products)
        )

    def times(self, number):
        return self * Interval(WIDE(number), WIDE(number))

    @property
    def size(self):
        return np.maximum(abs(self.low), abs(self.high))

    @property
    def least_size(self):
        return np.where(
            (self.low <= 0) & (self.high >= 0), 0, np.minimum(abs(self.low), abs(self.high))
        )

    def power(self, n):
        if n < 0:
            return self.power(-n).inverse()
        if n % 2 == 0:
            return self.outward(_multiplied(self.least_size, n), _multiplied(self.size, n))
        return self.outward(_multiplied(self.low, n), _multiplied(self.high, n))

    def inverse(self):
        crosses = (self.low < 0) & (self.high > 0)
        low = np.where(crosses, -np.inf, np.where(self.high == 0, -np.inf, 1 / self.high))
        high = np.where(crosses, np.inf, np.where(self.low == 0, np.inf, 1 / self.low))
        return self.outward(low, high)

    def joined(self, other):
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def within(self, other):
        """What both enclose."""
        low, high = np.maximum(self.low, other.low), np.minimum(self.high, other.high)
        return Interval(np.minimum(low, high), np.maximum(low, high))


def _any():
    return Interval(-np.inf, np.inf)


def filled(interval, shape, factor=1):
    """An interval, or None for 0, as arrays of the shape, times a factor."""
    if interval is None:
        zeros = np.zeros(shape, WIDE)
        return Interval(zeros, zeros)
    if factor != 1:
        interval = interval.times(float(factor))
    return Interval(
        *(np.broadcast_to(v, shape).astype(WIDE) for v in (interval.low, interval.high))
    )


# Functions of one argument, of intervals or of numbers.


def _sech2(u):
    return 4 * _bell(2 * u)


def _bell(u):
    """The derivative of the sigmoid."""
    e = np.exp(-abs(u))
    return e / (1 + e) ** 2


def _increasing(f, u, relative=OUTWARD, absolute=TINY):
    if not isinstance(u, Interval):
        return f(u)
    return Interval.outward(f(u.low), f(u.high), relative, absolute)


def _decreasing_from_zero(f, u, relative=OUTWARD, absolute=TINY):
    """f(|u|) for a decreasing f."""
    if not isinstance(u, Interval):
        return f(abs(u))
    return Interval.outward(f(u.size), f(u.least_size), relative, absolute)


def _wave(u, shift):
    """cos(u - shift), shift 0 or π/2."""
    f = np.sin if shift else np.cos
    if not isinstance(u, Interval):
        return f(u)
    reach = 1e-12 * (1 + u.size)
    low, high = (u.low - shift - reach) / np.pi, (u.high - shift + reach) / np.pi
    ends = f(u.low), f(u.high)
    first, last = np.ceil(low), np.floor(high)
    one, two = first <= last, first < last
    even = np.mod(first, 2) == 0
    lost = ~(u.size < 1e9)  # the phase
    top = lost | two | (one & even)
    bottom = lost | two | (one & ~even)
    wave = Interval.outward(
        np.where(bottom, -1.0, np.minimum(*ends)), np.where(top, 1.0, np.maximum(*ends))
    )
    return Interval(np.maximum(wave.low, -1.0), np.minimum(wave.high, 1.0))


def _erf(u):
    """SciPy has no wider numbers."""
    return special.erf(np.asarray(u, "float64")).astype(WIDE)


def _erfc(u):
    return special.erfc(np.asarray(u, "float64")).astype(WIDE)


def _erfc_of_interval(u):
    """As `_erfc` is steep far from 0, for the doubles around the ends."""
    low = np.nextafter(np.asarray(u.low, "float64"), -np.inf)
    high = np.nextafter(np.asarray(u.high, "float64"), np.inf)
    y = Interval.outward(_erfc(high), _erfc(low), 2.0**-48, float(np.finfo("float64").tiny))
    # Where doubles underflow: 0 <= erfc(u) <= exp(-u^2) for u >= 0.
    bell = np.where(u.low > 1, np.exp(-u.low * u.low) * (1 + 2.0**-40) + TINY, np.inf)
    return Interval(np.maximum(y.low, 0), np.minimum(y.high, bell))


def _even_root(u):
    return _increasing(lambda v: np.sqrt(np.maximum(v, 0)), u)


def _value(op, u):
    """One of the functions of a single argument, of an interval or of numbers."""
    if op == "exp":
        return _increasing(np.exp, u)
    if op in ("sin", "cos"):
        return _wave(u, np.pi / 2 if op == "sin" else 0)
    if op == "tanh":
        return _increasing(np.tanh, u)
    if op == "sigmoid":
        return _increasing(lambda v: 1 / (1 + np.exp(-v)), u)
    if op == "sinh":
        return _increasing(np.sinh, u)
    if op == "cosh":
        if not isinstance(u, Interval):
            return np.cosh(u)
        return Interval.outward(np.cosh(u.least_size), np.cosh(u.size))
    if op == "erf":
        return _increasing(_erf, u, 2.0**-48, float(np.finfo("float64").tiny))
    if op == "erfc":
        return _erfc_of_interval(u) if isinstance(u, Interval) else _erfc(u)
    if op == "log":
        return _increasing(lambda v: np.where(v > 0, np.log(v), -np.inf), u)
    if op == "log1p":
        return _increasing(lambda v: np.where(v > -1, np.log1p(v), -np.inf), u)
    return _even_root(u)


def _scaled(u, number):
    return u.times(number) if isinstance(u, Interval) else u * number


def _power(u, n):
    return u.power(n) if isinstance(u, Interval) else _multiplied(u, n)


def _multiplied(u, n):
    """u^n by multiplications: NumPy's own power is far slower."""
    if n < 0:
        return 1 / _multiplied(u, -n)
    result, square = None, u
    while n:
        if n % 2:
            result = square if result is None else result * square
        n //= 2
        square = square * square if n else square
    return np.ones_like(u) if result is None else result


def _taylor(op, u, order):
    """The Taylor coefficients g^(k)(u) / k! of one of the functions, k = 0 … order."""
    value = _value(op, u)
    if order == 0:
        return [value]
    if op == "exp":
        terms = [value, value, _scaled(value, 1 / 2), _scaled(value, 1 / 6)]
    elif op in ("sin", "cos", "sinh", "cosh"):
        other = {"sin": "cos", "cos": "sin", "sinh": "cosh", "cosh": "sinh"}[op]
        slope, turn = _value(other, u), (1 if op.endswith("h") else -1)
        slope = -slope if op == "cos" else slope
        terms = [value, slope, _scaled(value, turn / 2), _scaled(slope, turn / 6)]
    elif op == "tanh":
        d = _decreasing_from_zero(_sech2, u)
        three = _scaled(_power(value, 2), 3.0)
        terms = [value, d, -(value * d), _scaled(d * (three + _constant(-1.0, u)), 1 / 3)]
    elif op == "sigmoid":
        d = _decreasing_from_zero(_bell, u)
        odd = _increasing(np.tanh, _scaled(u, 1 / 2))
        even = _constant(1.0, u) + _scaled(d, -6.0)
        terms = [value, d, -_scaled(d * odd, 1 / 2), _scaled(d * even, 1 / 6)]
    elif op in ("erf", "erfc"):
        sign = 1 if op == "erf" else -1
        d = _decreasing_from_zero(lambda v: np.exp(-v * v), u)
        d = _scaled(d, sign * 2 / math.sqrt(math.pi))
        terms = [
            value,
            d,
            -(u * d),
            _scaled(d * (_scaled(_power(u, 2), 2.0) + _constant(-1.0, u)), 1 / 3),
        ]
    elif op in ("log", "log1p"):
        v = u if op == "log" else u + _constant(1.0, u)
        terms = [
            value, _power(v, -1), _scaled(_power(v, -2), -1 / 2), _scaled(_power(v, -3), 1 / 3)
        ]  # fmt: skip
    else:  # sqrt
        terms = [
            value,
            _scaled(_power(value, -1), 1 / 2),
            _scaled(_power(value, -3), -1 / 8),
            _scaled(_power(value, -5), 1 / 16),
        ]
    return terms[: order + 1]


def _constant(number, like):
    return Interval(WIDE(number), WIDE(number)) if isinstance(like, Interval) else number


# Derivatives: a jet is the list of f, f', f''/2, f'''/6 of a subexpression; None is 0.


def jets(root, x, order):
    """The jet of an expression at the numbers, or in the intervals, x."""
    interval = isinstance(x, Interval)
    memo = {}

    def jet(node):
        key = id(node)
        if key not in memo:
            memo[key] = make(node)
        return memo[key]

    def number(node):
        if not interval:
            return node.value
        v = WIDE(node.value)
        return Interval(v, v) if _is_exact(node) else Interval.outward(v, v)

    def make(node):
        op = node.op
        if op == "number":
            return [number(node)] + [None] * order
        if op == "x":
            return [x, _constant(1.0, x), None, None][: order + 1]
        if op == "add":
            return [_sum(terms) for terms in zip(*map(jet, node.args), strict=True)]
        if op == "multiply":
            return functools.reduce(_product, map(jet, node.args))
        if op == "power":
            u, n = jet(node.args[0]), node.value
            terms = [
                _scaled(_power(u[0], n - k), float(_binomial(n, k))) if _binomial(n, k) else None
                for k in range(order + 1)
            ]
            return _composed(terms, u)
        if op in ("max", "min"):
            jets = [jet(arg) for arg in node.args]
            return functools.reduce(lambda u, v: _larger(u, v, op == "max"), jets)
        if op == "piecewise":
            return piecewise(node)
        u = jet(node.args[0])
        return _composed(_taylor(op, u[0], order), u)

    def piecewise(node):
        """Each part is followed only where it may hold: there may be many."""
        shape = np.shape(x.low if interval else x)
        left = np.ones(shape, bool)  # where no condition certainly holds so far
        parts = []
        for value, condition in node.args:
            yes, no = (np.broadcast_to(v, shape) for v in _holds(condition, jet))
            may = left if value is node.args[-1][0] else left & ~no
            if may.any():
                parts.append((yes, no, jet(value) if may.all() else part(value, may)))
            left = left & ~yes
        (*_, result) = parts.pop() if parts else (None, jet(node.args[-1][0]))
        for yes, no, value in reversed(parts):
            result = _chosen(yes, no, value, result)
        return result

    def part(node, where):
        """The jet at some of the numbers, 0 elsewhere."""

        def filled(values):
            if values is None:
                return None
            if isinstance(values, Interval):
                return Interval(filled(values.low), filled(values.high))
            everywhere = np.zeros(where.shape, WIDE)
            everywhere[where] = values
            return everywhere

        some = Interval(x.low[where], x.high[where]) if interval else x[where]
        return list(map(filled, jets(node, some, order)))

    return jet(root)


def _is_exact(node):
    """Whether the nearest float64 is the number itself."""
    if node.exact is None or not math.isfinite(node.value):
        return False
    return (int(node.exact.p), int(node.exact.q)) == node.value.as_integer_ratio()


def _binomial(n, k):
    return math.prod(n - i for i in range(k)) // math.factorial(k)


def _sum(terms):
    terms = [term for term in terms if term is not None]
    return functools.reduce(operator.add, terms) if terms else None


def _product(u, v):
    return [
        _sum([
            u[i] * v[k - i] if u[i] is not None and v[k - i] is not None else None
            for i in range(k + 1)
        ])
        for k in range(len(u))
    ]  # fmt: skip


def _composed(g, u):
    """The jet of g(u) from the Taylor coefficients of g at u."""
    result = [g[0]]
    _, u1, u2, u3 = (*u, None, None, None)[:4]

    def times(*factors):
        if any(f is None for f in factors):
            return None
        return functools.reduce(operator.mul, factors)

    square = None if u1 is None or len(g) < 3 else _power(u1, 2)
    if len(g) > 1:
        result.append(times(g[1], u1))
    if len(g) > 2:
        result.append(_sum([times(g[1], u2), times(g[2], square)]))
    if len(g) > 3:
        mixed = times(g[2], u1, u2)
        result.append(
            _sum([
                times(g[1], u3),
                None if mixed is None else _scaled(mixed, 2.0),
                times(g[3], square, u1),
            ])
        )  # fmt: skip
    return result


def _larger(u, v, larger):
    """The jet of max(u, v), or of min(u, v)."""
    if not isinstance(u[0], Interval):
        first = u[0] >= v[0] if larger else u[0] <= v[0]
        return [_where(first, a, b) for a, b in zip(u, v, strict=True)]
    extreme = np.maximum if larger else np.minimum
    value = Interval(extreme(u[0].low, v[0].low), extreme(u[0].high, v[0].high))
    first, second = u[0].low >= v[0].high, v[0].low >= u[0].high
    if not larger:
        first, second = u[0].high <= v[0].low, v[0].high <= u[0].low
    return [value, *_either(first, second, u, v)]


def _where(condition, a, b):
    if a is None and b is None:
        return None
    return np.where(condition, 0.0 if a is None else a, 0.0 if b is None else b)


def _either(first, second, u, v, jumps=False):
    """Derivatives where one of two jets holds, or either: there is a kink, or a jump."""
    result = []
    for k, (a, b) in enumerate(zip(u[1:], v[1:], strict=True), 1):
        a, b = (Interval(0.0, 0.0) if p is None else p for p in (a, b))
        either = a.joined(b) if k == 1 else _any()
        low, high = np.where(jumps, -np.inf, either.low), np.where(jumps, np.inf, either.high)
        result.append(
            Interval(
                np.where(first, a.low, np.where(second, b.low, low)),
                np.where(first, a.high, np.where(second, b.high, high)),
            )
        )
    return result


def _holds(condition, jet):
    """Where a condition certainly holds, and where it certainly does not."""
    if condition.op in ("always", "never"):
        return condition.op == "always", condition.op == "never"
    if condition.op in ("and", "or"):
        yes, no = zip(*(_holds(arg, jet) for arg in condition.args), strict=True)
        both, one = np.logical_and.reduce, np.logical_or.reduce
        if condition.op == "or":
            both, one = one, both
        return both(np.broadcast_arrays(*yes)), one(np.broadcast_arrays(*no))
    left, right = (jet(arg)[0] for arg in condition.args)
    if not isinstance(left, Interval):
        yes = left > right if condition.op == "above" else left >= right
        return yes, ~np.asarray(yes)
    if condition.op == "above":
        return left.low > right.high, left.high <= right.low
    return left.low >= right.high, left.high < right.low


def _chosen(yes, no, u, v):
    """The jet of u where yes, of v where no, of either elsewhere."""
    if not isinstance(u[0], Interval):
        return [_where(yes, a, b) for a, b in zip(u, v, strict=True)]
    both = u[0].joined(v[0])
    value = Interval(
        np.where(yes, u[0].low, np.where(no, v[0].low, both.low)),
        np.where(yes, u[0].high, np.where(no, v[0].high, both.high)),
    )
    apart = (u[0].low > v[0].high) | (v[0].low > u[0].high)
    return [value, *_either(yes, no, u, v, apart)]


# Rounding.


def rounding(root, x, unit, largest, tiny, scaled):
    """What the layer may return for all x of each interval, and how far from the exact value.

    Of every subexpression three things are followed: the exact values, the computed values, and
    the largest distance between the two at one x, which the former two also bound.

    Args:
        root: the expression's `Node`.
        x: `Interval` of arrays.
        unit, largest, tiny: of the dtype, half a unit in the last place of 1, the largest number,
            and the smallest normal one.
        scaled: whether sums, products and powers neither overflow nor underflow on the way. If
            not, a term, a factor or a divisor may do so, in whatever order it is taken; where
            ∞ - ∞ or 0 · ∞ may come of it, the result is not known.
    """
    memo = {}
    unknown = np.zeros(np.shape(x.low), bool)  # where the layer may return nan
    # Layers scale a polynomial with coefficients near the largest number down by so much, a power
    # of two: what underflows then is that much larger.
    near = np.frexp(max(_magnitudes(root)))[1] - np.frexp(largest)[1] + 9
    tiny_scaled = tiny * 2.0 ** max(0, near) if scaled else tiny

    def follow(node):
        key = id(node)
        if key not in memo:
            memo[key] = checked(*make(node))
        return memo[key]

    def checked(value, computed, error):
        if not scaled:
            computed = overflowing(computed)
            error = np.where(np.isinf(computed.size), np.inf, error)
        error = np.minimum(
            number_or(error, np.inf),
            number_or(np.maximum(computed.high - value.low, value.high - computed.low), np.inf),
        )
        return value, computed, error

    rational = {}

    def is_rational(node):
        """Whether layers scale what it consists of, so that only coefficients underflow."""
        if not scaled:
            return False
        key = id(node)
        if key not in rational:
            arithmetic = node.op in ("number", "x", "add", "multiply", "power")
            rational[key] = arithmetic and all(map(is_rational, node.args))
        return rational[key]

    def rounded(interval, units, lost=False):
        if lost:  # a product may underflow, an inverse may not
            new = Interval.outward(interval.low, interval.high, units * unit, lost)
            none = tiny * 2.0**-30
            low, high = np.minimum(interval.low, 0), np.maximum(interval.high, 0)
            return Interval(
                np.where(interval.low > -none, np.maximum(new.low, low), new.low),
                np.where(interval.high < none, np.minimum(new.high, high), new.high),
            )
        new = Interval.outward(interval.low, interval.high, units * unit, tiny)
        # What is far too small for the dtype is 0, and no rounding changes a sign.
        low = np.where(interval.low > -tiny * 2.0**-30, np.minimum(interval.low, 0), new.low)
        high = np.where(interval.high < tiny * 2.0**-30, np.maximum(interval.high, 0), new.high)
        low = np.where(interval.low >= tiny, new.low, low)
        high = np.where(interval.high <= -tiny, new.high, high)
        return Interval(low, high)

    def overflowing(interval):
        # To ±∞, or, as some layers do, to the largest number.
        return Interval(
            np.where(interval.low < -largest, -np.inf, np.minimum(interval.low, largest)),
            np.where(interval.high > largest, np.inf, np.maximum(interval.high, -largest)),
        )

    def product_as_it_stands(args, computed, product, error):
        """A computed product whose factors are taken in any order, and its error."""
        nonlocal unknown
        above, below = _partial_products(computed)
        over = ~(above <= largest)
        unknown = unknown | (over & (below <= tiny))
        divisors = [follow(arg.args[0])[1].power(-arg.value) for arg in args if _divides(arg)]
        if len(divisors) > 1:  # they may be multiplied first
            most, least = _partial_products(divisors)
            unknown = unknown | ~(most <= largest) | (least < tiny)
        # What underflows on the way is multiplied by the other factors; not where others overflow.
        lost = (len(args) - 2) * tiny * np.where(over, 0, above)
        low, high = product.low - lost, product.high + lost
        low = np.where(product.low < 0, np.where(over, -np.inf, low), np.maximum(low, 0))
        high = np.where(product.high > 0, np.where(over, np.inf, high), np.minimum(high, 0))
        return Interval(low, high), error + lost

    def compared(node):
        """What a condition compares, as a jet."""
        value, computed, _ = follow(node)
        return [value if scaled else value.joined(computed)]

    def larger(u, v, larger):
        """The larger, or the smaller, of two; its error is that of both only where it may be."""
        value, computed = (_larger([u[k]], [v[k]], larger)[0] for k in range(2))
        if not larger:
            u, v = v, u
        over = (u[0].low >= v[0].high) & (u[1].low >= v[1].high)
        under = (v[0].low >= u[0].high) & (v[1].low >= u[1].high)
        if not larger:
            u, v = v, u
        error = np.where(over, u[2], np.where(under, v[2], np.maximum(u[2], v[2])))
        return value, computed, error

    def make(node):
        nonlocal unknown
        op = node.op
        if op == "number":
            v = WIDE(node.value)
            value = Interval(v, v)
            return value, rounded(value, 1), abs(v) * unit + tiny * (v != 0)
        if op == "x":
            return x, x, 0.0
        if op == "piecewise":
            parts = [follow(value) for value, _ in node.args]
            conditions = [_holds(c, compared) for _, c in node.args]
            value, computed, error = parts[-1]
            others = list(zip(parts, conditions, strict=True))[:-1]
            for part, (yes, no) in reversed(others):
                value = _chosen(yes, no, [part[0]], [value])[0]
                computed = _chosen(yes, no, [part[1]], [computed])[0]
                # As it stands the layer may have the other part.
                either = np.maximum(part[2], error) if scaled else np.inf
                error = np.where(yes, part[2], np.where(no, error, either))
            return value, computed, error
        # Layers multiply by an inverse last.
        args = sorted(node.args, key=_divides)
        values, computed, errors = zip(*map(follow, args), strict=True)
        if op in ("max", "min"):
            return functools.reduce(
                lambda u, v: larger(u, v, op == "max"), zip(values, computed, errors, strict=True)
            )
        if op == "add":
            units = _ARITHMETIC * len(values)
            total = functools.reduce(operator.add, [c.size for c in computed])
            lost = units * unit * total + (len(values) * tiny_scaled if near > 0 else 0.0)
            error = functools.reduce(operator.add, errors) + lost
            whole = functools.reduce(operator.add, computed)
            bound = number_or(lost, np.inf)
            positive = functools.reduce(np.minimum, [c.low for c in computed]) >= 0
            negative = functools.reduce(np.maximum, [c.high for c in computed]) <= 0
            low = number_or(whole.low - bound, -np.inf)
            high = number_or(whole.high + bound, np.inf)
            whole = Interval(
                np.where(positive, np.maximum(low, 0), low),
                np.where(negative, np.minimum(high, 0), high),
            )
            if not scaled:
                whole, error = rounded(whole, 0), error + tiny
                over = ~(total <= largest)
                unknown = unknown | (over & ~(positive | negative))  # ∞ - ∞, in some order
                whole = Interval(
                    np.where(over & ~positive, -np.inf, whole.low),
                    np.where(over & ~negative, np.inf, whole.high),
                )
            return functools.reduce(operator.add, values), whole, error
        if op == "multiply":
            value, other, error = values[0], computed[0], errors[0]
            for v, c, e in zip(values[1:], computed[1:], errors[1:], strict=True):
                product = other * c
                error = (
                    number_or(value.size * e, 0)
                    + number_or(c.size * error, 0)
                    + _ARITHMETIC * unit * product.size
                )
                lost = is_rational(node) and tiny_scaled
                value, other = value * v, rounded(product, _ARITHMETIC, lost)
            if not scaled:
                other, error = product_as_it_stands(args, computed, other, error)
            return value, other, error + (tiny_scaled if is_rational(node) else tiny)
        value, inside, error = values[0], computed[0], errors[0]
        if op == "power":
            n = node.value
            if n < -1 and not scaled:  # the inverse of what may overflow
                value, inside, error = checked(*make(Node("power", node.args, -n)))
                n = -1
            exact = value.power(n)
            # The smallest number there is stands for nothing.
            lost = tiny_scaled if n > 0 else np.finfo(WIDE).tiny
            result = rounded(inside.power(n), _ARITHMETIC * abs(n), is_rational(node) and lost)
            # |p^n - q^n| <= |n| |p - q| max(|p|, |q|)^(n - 1), and likewise for n < 0.
            both = value.joined(inside)
            slope = both.size ** (n - 1) if n > 0 else both.least_size ** float(n - 1)
            error = abs(n) * error * slope + _ARITHMETIC * abs(n) * unit * result.size
            return exact, result, error + (lost if is_rational(node) else tiny)
        inside = overflowing(inside)  # a square under a root, say
        if op == "log" and node.value is not None and node.value >= tiny:
            # However its argument is rounded: what is a positive number at least stays one.
            value, inside = (_at_least(node.value * (1 - 2 * unit), v) for v in (value, inside))
        if not scaled:
            defined_from = {"sqrt": 0, "log": 0, "log1p": -1}.get(op, -np.inf)
            unknown = unknown | (inside.low < defined_from)
            unknown = unknown | (np.isinf(inside.size) & (op in ("sin", "cos")))
        exact, result = _value(op, value), rounded(_value(op, inside), _FUNCTION)
        slope = _taylor(op, value.joined(inside), 1)[1]
        units = _FUNCTION * unit * result.size
        if op in ("exp", "sinh", "cosh"):
            result = overflowing(result)
        if op in ("erfc", "sin", "cos"):
            # They err absolutely; 1 + erf until erf is -1 with all digits, far from 6: then 0.
            certain = (op == "erfc") & (inside.low > 6)
            units = np.where(certain, result.size, _FUNCTION * unit)
            low, high = (0, 2) if op == "erfc" else (-1, 1)
            result = Interval(
                np.maximum(result.low - units, low), np.minimum(result.high + units, high)
            )
        if op == "erfc":
            result = Interval(np.where(inside.low > 6, 0, result.low), result.high)
        return exact, result, slope.size * error + units + tiny

    _, computed, error = follow(root)
    if is_rational(root) and root.op != "x":
        return rounded(computed, 0), error + tiny_scaled
    computed = Interval(
        np.where(unknown, -np.inf, computed.low), np.where(unknown, np.inf, computed.high)
    )
    return computed, np.where(unknown, np.inf, error)


def _at_least(number, interval):
    return Interval(np.maximum(interval.low, number), np.maximum(interval.high, number))


def _magnitudes(root):
    """Those of the numbers in an expression, and 1."""
    found, seen, left = [1.0], set(), [root]
    while left:
        node = left.pop()
        if isinstance(node, tuple):  # a part of a piecewise expression and its condition
            left += node
        elif id(node) not in seen:
            seen.add(id(node))
            left += node.args
            if node.op == "number" and np.isfinite(node.value):
                found.append(abs(node.value))
    return found


def _divides(node):
    return node.op == "power" and node.value < 0


def _partial_products(factors):
    """The largest and the least magnitude that a product of some of them may have; 1 is of none."""
    return (
        functools.reduce(operator.mul, [np.maximum(f.size, 1) for f in factors]),
        functools.reduce(operator.mul, [np.minimum(f.least_size, 1) for f in factors]),
    )
