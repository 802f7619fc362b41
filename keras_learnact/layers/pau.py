"""PAU: the Padé activation unit, a rational function with learned coefficients."""

import keras
from keras import ops

from keras_learnact import expressions, fitting, kernels
from keras_learnact.layers.base import (
    PACKAGE,
    LearnableActivation,
    Parameter,
    serialize_start,
    standardized,
)
from keras_learnact.numerics import exponent, limits, mantissa, power_of_two

# A polynomial is scaled only where a term exceeds 2^HEADROOM. A term is lost only where it
# underflows then: far less than a unit in the last place of the sum.
HEADROOM = 40


@keras.saving.register_keras_serializable(PACKAGE)
class PAU(LearnableActivation):
    """Padé activation unit: a quotient of two polynomials whose coefficients are learned.

    Formula:

        f(x) = P(x) / Q(x),   P(x) = Σ_{j=0..m} a_j x^j

        denominator="A":  Q(x) = 1 + Σ_{k=1..n} |b_k| |x|^k
        denominator="B":  Q(x) = 1 + |Σ_{k=1..n} b_k x^k|
        denominator="C":  Q(x) = 0.1 + |Σ_{k=0..n} b_k x^k|
        denominator="N":  Q(x) = 1 + Σ_{k=1..n} b_k x^k

    A, B and C have no poles, whatever the coefficients; N may have some. B is the paper's Eq. 2,
    A the authors' kernels and their Table 6. Where a derivative meets sign(0), it is +1, so that
    a denominator that starts at zero trains.

    The layer starts as `initial`, within the error of the fit on [-3, 3]. Far out it does not: with
    m = n + 1 the function tends to (a_m / |b_n|) x on BOTH sides, so the default start has slope
    0.72 at -∞ too (f(-10) = -2.7). With m = n it tends to a constant.

    Values are right for every finite x: where x^m overflows, both polynomials are scaled by a
    power of two. f(±∞) is the limit, f(nan) is nan.

    Args:
        degrees: `(m, n)`, m >= 1 and n >= 0. 10 coefficients for the default (5, 4).
        denominator: "A", "B", "C" or "N", see above.
        initial: where the function starts: a name of the paper's Table 6 ("sigmoid", "tanh",
            "swish", "relu", "leaky_relu", …), the name of any Keras activation, a callable (both
            are fitted, see `keras_learnact.fitting.fit`), or the coefficients
            `(numerator, denominator)` themselves.
        sharing: see `LearnableActivation`.
        axis: see `LearnableActivation`.
        shared_numerator: whether all groups have one numerator, and each a denominator of its own:
            with `sharing=8` the group rational of Yang and Wang. The gradient of the numerator is
            the sum of those of the groups.
        numerator_regularizer, denominator_regularizer: optional Keras regularizers.
        numerator_constraint, denominator_constraint: optional Keras constraints.

    Weights: `numerator` [groups, m + 1], or [1, m + 1] if it is shared, and `denominator`
    [groups, n] (n + 1 for "C").

    Raises:
        ValueError: at construction for negative or non-integer degrees, an unknown denominator
            or `initial`, coefficients of another number than the degrees ask for, or a
            `shared_numerator` that is neither True nor False.

    Example:

    >>> model = keras.Sequential([keras.layers.Dense(64), PAU(), keras.layers.Dense(10)])

    Reference: Molina, Schramowski, Kersting: Padé Activation Units, ICLR 2020, Eqs. 1-2, Table 6.
    The group rational: Yang, Wang: Kolmogorov–Arnold Transformer, ICLR 2025.
    """

    starts_as = "max(x, 0.01 * x)"
    start_error = 0.030  # at x = 0, of the fit in Table 6

    def __init__(
        self,
        degrees=(5, 4),
        denominator="A",
        initial="leaky_relu",
        sharing="layer",
        axis=-1,
        shared_numerator=False,
        numerator_regularizer=None,
        denominator_regularizer=None,
        numerator_constraint=None,
        denominator_constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if not isinstance(shared_numerator, bool):
            raise ValueError(
                f"{type(self).__name__}: `shared_numerator` must be True or False. "
                f"Received: shared_numerator={shared_numerator!r}"
            )
        self.shared_numerator = shared_numerator
        self.degrees = standardized(degrees)
        self.version = denominator
        self.initial = standardized(initial)
        self.numerator_regularizer = keras.regularizers.get(numerator_regularizer)
        self.denominator_regularizer = keras.regularizers.get(denominator_regularizer)
        self.numerator_constraint = keras.constraints.get(numerator_constraint)
        self.denominator_constraint = keras.constraints.get(denominator_constraint)
        self._start = fitting.start(self.initial, self.degrees, denominator)

    def parameter_list(self):
        numerator, denominator = self._start
        return [
            Parameter(
                "numerator",
                len(numerator),
                numerator,
                self.numerator_regularizer,
                self.numerator_constraint,
                self.shared_numerator,
            ),
            Parameter(
                "denominator",
                len(denominator),
                denominator,
                self.denominator_regularizer,
                self.denominator_constraint,
            ),
        ]

    def function(self, x, numerator, denominator):
        return rational(x, numerator, denominator, self.version)

    def kernel(self, training):
        return kernels.Call(RATIONAL, (self.degrees[0] + 1, ord(self.version)))

    def expression(self, x, numerator, denominator):
        p = expressions.polynomial(numerator, x)
        if self.version == "A":
            magnitudes = list(map(expressions.absolute, denominator))
            return p / (1 + expressions.polynomial(magnitudes, expressions.absolute(x), 1))
        t = expressions.polynomial(denominator, x, 0 if self.version == "C" else 1)
        if self.version == "N":
            return p / (1 + t)
        one = expressions.decimal(fitting.EPSILON) if self.version == "C" else 1
        return p / (one + expressions.absolute(t))

    def text(self, numerator, denominator):
        numerator = polynomial_text(numerator)
        first, constant = (0, f"{fitting.EPSILON:g}") if self.version == "C" else (1, "1")
        if len(denominator) == 0:
            return numerator
        if self.version == "A":
            terms = polynomial_text(abs(denominator), first, "|x|")
        else:
            terms = polynomial_text(denominator, first)
        bars = "|" if self.version in "BC" else ""
        joined = f"{constant} + {bars}{terms}{bars}".replace("+ -", "- ")
        return f"({numerator}) / ({joined})"

    def get_config(self):
        return {
            **super().get_config(),
            "degrees": self.degrees,
            "denominator": self.version,
            "initial": serialize_start(self.initial, lambda: self._start),
            "shared_numerator": self.shared_numerator,
            "numerator_regularizer": keras.regularizers.serialize(self.numerator_regularizer),
            "denominator_regularizer": keras.regularizers.serialize(self.denominator_regularizer),
            "numerator_constraint": keras.constraints.serialize(self.numerator_constraint),
            "denominator_constraint": keras.constraints.serialize(self.denominator_constraint),
        }


def rational(x, numerator, denominator, version):
    """P(x) / Q(x) as `PAU` defines it, without overflow or underflow on the way.

    x is taken apart into r 2^e with e = 0 for |x| < 2 and 1 <= |r| < 2 beyond. Every polynomial is
    scaled by 2^-E, term by term: c_k x^k 2^-E = c_k 2^(k e - E) r^k. E is 0 for moderate terms,
    and else their largest exponent, less some headroom: sums are safe, and a term that underflows
    is too small to matter. The powers of two are exact and constant for the gradient, so that
    autodiff gives the derivatives of P/Q.

    In the last few octaves before overflow, and where P/Q overflows, the value has no gradient
    (0): there the chain rule would multiply ∞ by 0.

    Args:
        x: float tensor.
        numerator: m + 1 coefficients, lowest first, each of a shape that broadcasts with x: a list,
            or a tensor whose first axis counts them.
        denominator: n coefficients (n + 1 for version "C"), likewise.
        version: "A", "B", "C" or "N".
    """
    a = _coefficients(numerator)
    b = _coefficients(denominator)
    if kernels.is_portable():
        return _rational_in_plain_operations(x, a, b, version)
    first = 0 if version == "C" else 1  # the power of x that belongs to b[0]
    dtype, info = x.dtype, limits(x.dtype)
    top = info.maxexp - 1  # 2^top is the largest power of two

    infinite = ops.isinf(x)
    x = ops.where(infinite, ops.sign(x) * info.max, x)
    exponent_of_x = exponent(x)
    e = ops.maximum(exponent_of_x, 0)
    # In two steps: 2^-127 alone is below the normal float32 numbers.
    r = x * power_of_two(-(e // 2), dtype) * power_of_two(e // 2 - e, dtype)

    powers = range(max(len(a), first + len(b)))
    term_exponents = [k * exponent_of_x for k in powers]
    power_exponents = [k * e for k in powers]

    q_exponent = _largest_exponent(denominator, b, term_exponents[first:], top, 0 * exponent_of_x)
    p_exponent = _largest_exponent(numerator, a, term_exponents, top, q_exponent)

    def scaled(coefficients, first, scale):
        # A large coefficient lends its exponent to the power, which would underflow before the
        # term does. A power reaches its bound only if its coefficient is 0: then the term vanishes
        # and its gradient, which no number of this dtype can hold, saturates.
        terms = []
        for c, k in zip(coefficients, power_exponents[first:], strict=False):
            own = ops.clip(exponent(c), 0, top - 1)
            up = power_of_two(ops.minimum(k - scale + own, top), dtype)
            terms.append(c * power_of_two(-own, dtype) * up)
        return terms

    p = _horner(scaled(a, 0, p_exponent), r)  # P 2^-p_exponent
    # Q 2^-q_exponent; its 1 stays a normal number, so that q > 0 for A, B and C.
    one = power_of_two(ops.maximum(-q_exponent, info.minexp), dtype)
    if version == "A":
        q = _horner([one, *scaled([_magnitude(c) for c in b], 1, q_exponent)], _magnitude(r))
    elif version == "B":
        q = one + _magnitude(_horner([0 * one, *scaled(b, 1, q_exponent)], r))
    elif version == "C":
        q = fitting.EPSILON * one + _magnitude(_horner(scaled(b, 0, q_exponent), r))
    else:
        q = _horner([one, *scaled(b, 1, q_exponent)], r)
    q = ops.where(ops.abs(q) < info.tiny, info.tiny, q)  # N may have a pole: no 0 / 0

    # Mantissas and exponents of both, so that the quotient and its derivatives stay near 1.
    p, exponent_of_p = mantissa(p, -top // 2)
    q, exponent_of_q = mantissa(q)
    y = p / q
    shift = p_exponent - q_exponent - exponent_of_q
    room = top - 1 - max(len(a), len(b))
    beyond = infinite | (shift > room) | (shift + exponent_of_p > room)
    shift = ops.clip(shift + exponent_of_p, -2 * top, 2 * top)
    up, up2 = power_of_two(shift // 2, dtype), power_of_two(shift - shift // 2, dtype)
    value = ops.stop_gradient(y) * up * up2
    grows = _degree(a) > _degree(b, first)
    value = ops.where(infinite & grows, _signed_infinity(value), value)
    return ops.where(beyond, value, y * ops.where(beyond, 1.0, up) * ops.where(beyond, 1.0, up2))


def _rational_in_plain_operations(x, a, b, version):
    """`rational` for an export: a third of its operations, which any runtime has.

    With x = r / t, r the part of x within ±X and t <= 1, both polynomials are homogeneous:
    P = t^-m Σ a_j r^j t^(m-j), and no power of r or t leaves the dtype. That reaches to |x| = X²;
    from there on f is its leading term, |x|^(degree of P − degree of Q) times a constant.
    """
    first = 0 if version == "C" else 1
    m, n = len(a) - 1, first + len(b) - 1
    info = limits(x.dtype)
    bound = 2.0 ** (3 * info.maxexp // 4 // max(m, n))  # X; its largest power is 2^96 in float32

    size = ops.minimum(ops.abs(x), info.max)
    r = ops.clip(x, -bound, bound)
    t = ops.maximum(bound / ops.maximum(size, bound), 1 / bound)
    powers = [1.0, t]
    while len(powers) <= max(m, n):
        powers.append(powers[-1] * t)

    def homogeneous(coefficients, r):
        total = coefficients[-1]
        for k, c in enumerate(coefficients[-2::-1], 1):
            total = total * r + c * powers[k]
        return total

    p = homogeneous(a, r)
    q = fitting.EPSILON * powers[n] if version == "C" else powers[n]
    if b:
        b, s = ([ops.abs(c) for c in b], ops.abs(r)) if version == "A" else (b, r)
        inner = homogeneous(b, s) if version == "C" else homogeneous(b, s) * s
        q = q + (ops.abs(inner) if version in "BC" else inner)
    if version == "N":  # may have a pole: no 0 / 0
        q = ops.where(ops.abs(q) < info.tiny, info.tiny, q)
    y = p * powers[n - m] / q if n > m else p / (q * powers[m - n])

    beyond = ops.log(ops.maximum(size / bound / bound, 1.0))
    growth = ops.cast(_degree(a) - _degree(b, first), x.dtype)
    # Not every runtime passes nan through minimum and maximum.
    return ops.where(ops.isnan(x), x, y * ops.exp(growth * beyond))


def _degree(coefficients, first=0):
    """Of a polynomial, its leading zeros left out; 0 also where all coefficients are 0."""
    degree = 0
    for k, c in enumerate(coefficients, first):
        degree = ops.where(c != 0, k, degree)
    return degree


def _formula(x, p, settings, key):
    a, version = settings
    return rational(x, p[:a], p[a:], chr(version))


RATIONAL = kernels.kernel("Rational", _formula)


def polynomial_text(coefficients, first=0, variable="x"):
    """`c0 + c1 x + c2 x^2 …` as plain text, without the terms that are 0."""
    powers = ["", f" {variable}"] + [f" {variable}^{k}" for k in range(2, 99)]
    terms = [f"{c:.6g}{powers[k]}" for k, c in enumerate(coefficients, first) if c != 0]
    return " + ".join(terms).replace("+ -", "- ") or "0"


def _coefficients(values):
    return values if isinstance(values, list) else list(ops.unstack(values, values.shape[0]))


def _horner(coefficients, x):
    total = coefficients[-1]
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


def _magnitude(x):
    """|x| with derivative +1 at 0: a coefficient that starts at zero trains."""
    return ops.where(x < 0, -x, x)


def _largest_exponent(values, coefficients, exponents, top, at_least):
    """How far to scale a polynomial down so that its terms are about 2^HEADROOM at most."""
    if not coefficients:
        return at_least
    if isinstance(values, list):
        of_c = [_exponent_of_coefficient(c, top) for c in coefficients]
    else:  # all at once: a graph of fewer nodes
        of_c = ops.unstack(_exponent_of_coefficient(values, top), len(coefficients))
    largest = of_c[0]
    for c, k in zip(of_c, exponents, strict=False):
        at_least = ops.maximum(at_least, c - HEADROOM + k)
        largest = ops.maximum(largest, c)
    # Of the coefficients alone too: c 2^-result and sums of it stay numbers where |x| < 1.
    return ops.maximum(at_least, largest - top + 8)


def _exponent_of_coefficient(c, top):
    # Not less: what a tiny coefficient is multiplied with must be a number too. But no power of x
    # makes a term of a zero.
    return ops.where(c == 0, -(2**20), ops.maximum(exponent(c), HEADROOM - top))


def _signed_infinity(y):
    return ops.where(y < 0, -float("inf"), float("inf"))
