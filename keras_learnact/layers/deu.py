"""DEU: the differential equation unit, a solution of a learned differential equation."""

import math
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
)
from keras_learnact.numerics import limits, mantissa, power_of_two

# The authors' guards.
EPSILON = 0.01
MAX_EXPONENT = 14.0
LIMIT = 1000.0

# The authors' sharpness of the smoothed step H(x) = 1 / (1 + e^(-100 x)), where a = b = 0.
SHARPNESS = 100.0

# Half the width of the band around D = 0, in D / (b² + 4|ac|), in which (c1, c2) pass from one of
# the table's bases to the next. The authors' own band is |D| < 0.01.
BAND = 0.01

NAMES = ("a", "b", "c", "c1", "c2")

# |δ| t² below which cosh and sinh are summed as series in it.
NEAR = 0.25


@keras.saving.register_keras_serializable(PACKAGE)
class DEU(LearnableActivation):
    """Differential equation unit: the solution of an equation whose coefficients are learned.

    Formula: y = f(x) solves, on both sides of 0,

        a y″ + b y′ + c y = H(x),   H(x) = 1 for x > 0, else 0.

    A coefficient of magnitude below epsilon counts as 0. With D = b² - 4ac:

        a b c                  f(x)
        0 0 0                  x (a convention)
        0 0 ≠                  1 / (c (1 + e^(-100 x))), a smoothed H(x) / c
        0 ≠ 0                  H x/b + c1
        0 ≠ ≠                  c1 e^(-cx/b) + H (1 - e^(-cx/b)) / c
        ≠ 0 0                  c1 x + c2 + H x²/(2a)
        ≠ 0 ≠, ac > 0          c1 cos ωx + c2 sin ωx + H (1 - cos ωx) / c,   ω = √(ac)/a
        ≠ 0 ≠, ac < 0          c1 e^(-ωx) + c2 e^(ωx) + H (1 - cosh ωx) / c,   ω = √(-ac)/a
        ≠ ≠ 0                  -(a c1/b) e^(-bx/a) + c2 + H (x/b - a (1 - e^(-bx/a)) / b²)
        ≠ ≠ ≠, D < 0           E (c1 cos φ + c2 sin φ) + H (1 - E (cos φ + (b/s) sin φ)) / c,
                               E = e^(-bx/(2a)), φ = sx/(2a), s = √(-D)
        ≠ ≠ ≠, D = 0           e^(-rx) (c1 x + c2) + H (1 - e^(-rx) (1 + rx)) / c,   r = 2c/b
        ≠ ≠ ≠, D > 0           c1 q + c2 p + H (1 - ((b + s) p + (s - b) q) / (2s)) / c,
                               p = e^((s - b)x/(2a)), q = e^(-(s + b)x/(2a)), s = √D

    It starts with a, b, c drawn from [0, 1) and c1 = c2 = 0, so that f(x) = 0 for x <= 0.
    a = c = c1 = 0, b = 1 is ReLU: `DEU(initial=(0, 1, 0, 0, 0))`.

    Through D = 0, f and its derivatives by x, a, b, c are continuous, and they are the true
    derivatives, not those along the surface D = 0. The part with H allows that as it stands. The
    parts with c1 and c2 do not meet: towards D = 0 the table's rows tend to E c1 from below, to
    E (c1 + c2) from above, and at D = 0 it has E (c1 x + c2). Where |D| < 0.01 (b² + 4|ac|),
    they are therefore a weighted mean of the row on this side of 0 and the row of D = 0, the
    latter continued as E (c1 S + c2 C) with C = cosh σx, S = sinh(σx)/σ, σ² = D/(4a²). Its weight
    goes smoothly from 1 at D = 0 to 0 at the ends of this band. So f solves the equation for all
    parameters, and it equals the table at D = 0, outside of the band, and where c1 = c2 = 0.

    At |a|, |b| or |c| = epsilon the function jumps, as in the paper; a coefficient that counts as 0
    has gradient 0.

    Guards, the authors' by default: exponentials stop growing at e^max_exponent (for x > 0 all of
    the unit stands still there), and f is clipped to ±limit. The derivatives are those of this
    guarded function, 0 where it is clipped. They are not clipped themselves, as the authors clip
    them to ±1000: second derivatives would be wrong. An optimizer's `clipvalue` does that.

    f(±∞) is f of a large finite number. f(nan) is nan, and so is f with nan among its parameters.

    Args:
        initial: where (a, b, c, c1, c2) start: five entries, each a number, a Keras initializer, or
            None for the start above.
        epsilon: which coefficients count as 0, at least 1e-6.
        max_exponent: the largest exponent of an exponential. None, or more than that, is 35 in
            float32 and 283 in float64.
        limit: the largest |f(x)|. None: parts of f that are not linear stop at 1e19 in float32.
        sharing: see `LearnableActivation`; each unit has its own equation by default.
        axis: see `LearnableActivation`.
        regularizer: optional Keras regularizer of each of the five.
        constraint: optional Keras constraint of each of the five.

    Weights: `a`, `b`, `c`, `c1`, `c2`, each [groups, 1].

    Raises:
        ValueError: for an `initial` that is not five such entries, an epsilon below 1e-6, a
            max_exponent or limit that is not positive.

    Example:

    >>> layer = DEU(initial=(0, 2, 1, 0.5, 0), sharing="layer")
    >>> layer.formula()
    'f(x) = 0.5 exp(-0.5 x) + H(x) (1 - exp(-0.5 x))'

    Reference: Torkamani, Shankar, Rooshenas, Wallis: Differential Equation Units: Learning
    Functional Forms of Activation Functions from Data, AAAI 2020, Table 1 and Algorithm 1.
    """

    smoothness = -1

    def __init__(
        self,
        initial=None,
        epsilon=EPSILON,
        max_exponent=MAX_EXPONENT,
        limit=LIMIT,
        sharing="unit",
        axis=-1,
        regularizer=None,
        constraint=None,
        **kwargs,
    ):
        super().__init__(sharing=sharing, axis=axis, **kwargs)
        if not _is_number(epsilon) or not 1e-6 <= epsilon < math.inf:
            raise ValueError(
                "DEU: `epsilon` must be a number >= 1e-6, since 1/c must stay representable. "
                f"Received: epsilon={epsilon!r}"
            )
        for name, value in (("max_exponent", max_exponent), ("limit", limit)):
            if value is not None and not (_is_number(value) and value > 0):
                raise ValueError(
                    f"DEU: `{name}` must be a positive number, or None for no such guard. "
                    f"Received: {name}={value!r}"
                )
        self.initial = initial
        self.epsilon = epsilon
        self.max_exponent = max_exponent
        self.limit = limit
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)
        self._start = _start(initial)

    def parameter_list(self):
        return [
            Parameter(name, 1, start, self.regularizer, self.constraint)
            for name, start in zip(NAMES, self._start, strict=True)
        ]

    def function(self, x, a, b, c, c1, c2):
        return deu(x, a[0], b[0], c[0], c1[0], c2[0], self.epsilon, self.max_exponent, self.limit)

    def kernel(self, training):
        guards = (math.inf if g is None else g for g in (self.max_exponent, self.limit))
        return kernels.Call(KERNEL, tuple(map(kernels.bits, (self.epsilon, *guards))))

    def expression(self, x, a, b, c, c1, c2):
        numbers = [a[0], b[0], c[0], c1[0], c2[0]]
        if not all(number.is_number for number in numbers):
            raise NotImplementedError(
                "DEU's expression needs numbers: which row of the table in its docstring holds "
                f"depends on them. Received: {', '.join(map(str, numbers))}. Use layer.sympy()."
            )
        guards = self.epsilon, self.max_exponent, self.limit
        return _expression(x, *numbers, *guards, np.finfo(self._math_dtype))

    def text(self, a, b, c, c1, c2):
        numbers = [ops.convert_to_tensor(p[0]) for p in (a, b, c, c1, c2)]
        unit = _unit(*numbers, self.epsilon, self.max_exponent)
        unit = _Unit(*(ops.convert_to_numpy(value).item() for value in unit))
        return _text(unit, a.item(), b.item(), c.item(), c1.item(), c2.item())

    def get_config(self):
        return {
            **super().get_config(),
            "initial": serialize(self.initial),
            "epsilon": self.epsilon,
            "max_exponent": self.max_exponent,
            "limit": self.limit,
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }


def deu(x, a, b, c, c1, c2, epsilon=EPSILON, max_exponent=MAX_EXPONENT, limit=LIMIT):
    """The solution of a y″ + b y′ + c y = H(x) that `DEU` defines.

    `_unit` brings the eleven rows, once for each set of parameters, to one form in t = rate x,

        f = k1 f1 + k2 f2 + the part driven by H,

    where (f1, f2) are e^(p1 t) and e^(p2 t) if the exponents are well apart (or a = 0), else
    e^(p1 t) cosh √z and e^(p1 t) t sinh(√z)/√z with z = δt². The latter are smooth through D = 0
    and turn into cosine and sine. So each element takes two exponentials, a sine and a cosine.

    Args:
        x: float tensor.
        a, b, c, c1, c2: tensors of x's dtype, of shapes that broadcast with x.
        epsilon, max_exponent, limit: see `DEU`.
    """
    unit = _unit(a, b, c, c1, c2, epsilon, max_exponent)
    undefined = ops.isnan(x) | unit.undefined
    x = ops.where(undefined, 0.0, x)
    # Beyond these bounds time stands still, also at ±∞.
    t = ops.clip(unit.rate * x, unit.start, unit.end)

    z = unit.delta * t * t
    apart, turning = z >= NEAR, z <= -NEAR
    near = ~(apart | turning)
    root = ops.sqrt(ops.where(near, 1.0, ops.abs(z)))
    offset = _only(apart, root)
    exponent1 = ops.minimum(unit.p1 * t + offset, unit.max_exponent)
    exponent2 = ops.minimum(unit.p2 * t - offset, unit.max_exponent)
    e1, e2 = ops.exp(exponent1), ops.exp(exponent2)
    cosh, sinh = _cosh_and_sinh(_only(near, z))
    cosh = ops.where(turning, ops.cos(root), cosh)
    sinh = ops.where(turning, ops.sin(root) / root, sinh)
    f1 = ops.where(unit.spread, e1, ops.where(apart, (e1 + e2) / 2, cosh * e1))
    f2 = ops.where(unit.spread, e2, ops.where(apart, t * ((e1 - e2) / (2 * root)), t * sinh * e1))

    # The part driven by H, in the form that does not cancel. Early, while no exponent exceeds 1, it
    # is gain t² times a divided difference, by its series. Later it is l1 f1 + l2 f2 + a rest: 1/c,
    # or, where spread, what a first-order unit with the slow exponential alone would give.
    driven = t > 0
    early = driven & unit.second & (unit.radius * t < 1)
    late = driven & ~early
    small = ops.abs(exponent2) < 1
    flat = unit.spread & late & small
    series = _divided_difference(
        ops.where(early, exponent1 + exponent2, _only(flat, exponent2)),
        _only(early, exponent1 * exponent2 - z),
    )
    slope = ops.where(
        flat, 1 + _only(flat, exponent2) * series, (e2 - 1) / ops.where(small, 1.0, exponent2)
    )
    rest = unit.rest * ops.where(unit.spread, t * slope, 1.0)
    rest = ops.where(early, unit.gain * t * (t * series), _only(late, rest))

    y = (
        _bounded(ops.where(late, unit.k1 + unit.l1, unit.k1) * f1, unit.reach)
        + _bounded(ops.where(late, unit.k2 + unit.l2, unit.k2) * f2, unit.reach)
        + _bounded(rest, unit.reach)
    )
    y = ops.where(unit.step, unit.rest / (1 + e1), y)
    y = ops.where(unit.identity, x, y)
    if limit is not None:
        y = ops.clip(y, -limit, limit)
    return ops.where(undefined, float("nan"), y)


def _formula(x, p, settings, key):
    return deu(x, *ops.unstack(p, len(NAMES)), *map(kernels.real, settings))


KERNEL = kernels.kernel("Deu", _formula)


class _Unit(NamedTuple):
    """What deu() needs to know of one set of parameters; each entry has their shape.

    Where a ≠ 0, λ² - 2αλ + η = 0 is the equation's characteristic polynomial in the unit's time and
    δ = α² - η, the sign of D.
    """

    undefined: object  # a parameter is nan
    second: object  # a ≠ 0
    step: object  # a = b = 0 ≠ c
    identity: object  # a = b = c = 0
    real: object  # a ≠ 0 and D > 0
    spread: object  # a = 0 ≠ b, or D > 0 with exponents well apart
    rate: object  # t = rate x; a power of two, a constant for the gradient
    alpha: object
    root: object  # √|δ|
    delta: object  # δ; 0 where spread
    p1: object  # the faster exponent; α if not spread
    p2: object  # the slower one, -c / (b rate) if a = 0; α if not spread
    radius: object  # the magnitude of the larger exponent
    k1: object
    k2: object
    l1: object
    l2: object
    gain: object  # 1 / (a rate²)
    rest: object  # 1 / c; where spread, the gain of the slow exponential's first-order equation
    start: object  # t is kept between start and end
    end: object
    max_exponent: object
    reach: object  # parts of f are kept within ± this


def _unit(a, b, c, c1, c2, epsilon, max_exponent):
    info = limits(a.dtype)
    # Bounds under which no product that the value or a derivative consists of overflows, unless its
    # exact value is above `reach` (1e19 in float32, 1e154 in float64). Time ends at `far` of its
    # scale: exponentials have long ended then, and float32 cannot tell the phase of an oscillation.
    largest = float(info.max)
    reach, most, far, far_spread = (largest**power for power in (0.5, 0.7, 0.22, 0.45))
    highest = 0.4 * math.log(largest)
    max_exponent = highest if max_exponent is None else min(max_exponent, highest)

    undefined = ops.isnan(a) | ops.isnan(b) | ops.isnan(c) | ops.isnan(c1) | ops.isnan(c2)
    c1, c2 = _bounded(c1, reach), _bounded(c2, reach)
    second, has_b, has_c = (ops.abs(p) >= epsilon for p in (a, b, c))
    first = ~second & has_b
    step = ~second & ~has_b & has_c
    identity = ~second & ~has_b & ~has_c

    # p = ± part · 2^k with a part in [1, 2): the powers of two are put together as integers, which
    # cannot overflow, and derivatives are taken of ratios of the parts.
    part_a, k_a = mantissa(ops.where(second, a, 1.0))
    part_b, k_b = mantissa(ops.where(has_b, b, 1.0))
    part_c, k_c = mantissa(ops.where(has_c, c, 1.0))
    top = info.maxexp - 1

    def two_to(k):
        return power_of_two(ops.clip(k, info.minexp, top), a.dtype)

    # The rate: |b/a| or √|c/a|, the larger. A double integrator, b = c = 0, has no scale of its
    # own but that of its gain; it comes last, so that the gain is never above 2^56.
    k_rate = -(k_a // 2) - 28
    k_rate = ops.where(has_b, ops.maximum(k_rate, k_b - k_a), k_rate)
    k_rate = ops.where(has_c, ops.maximum(k_rate, -((k_a - k_c) // 2)), k_rate)
    k_first = ops.where(has_c, ops.maximum(k_c, 0), 0) - k_b
    k_rate = ops.where(second, k_rate, ops.where(first, k_first, 0))
    k_rate = ops.clip(k_rate, -(top * 9 // 10), top * 3 // 4)

    damped, bound = second & has_b, second & has_c
    alpha = _only(damped, -part_b / part_a / 2 * two_to(k_b - k_a - k_rate))
    eta = _only(bound, part_c / part_a * two_to(k_c - k_a - 2 * k_rate))
    delta = alpha * alpha - eta
    real = second & (delta > 0)
    root = _only(delta != 0, ops.sqrt(ops.where(delta != 0, ops.abs(delta), 1.0)))
    sign_a = ops.sign(ops.stop_gradient(part_a))
    backwards = has_b & (part_b < 0)  # p, not q, has the larger exponent
    offset = _only(real, ops.where(backwards, sign_a, -sign_a) * root)
    fast = alpha + offset
    radius = ops.stop_gradient(ops.where(real, ops.abs(fast), ops.sqrt(ops.abs(eta))))
    k_gain = -k_a - 2 * k_rate
    gain = _only(second, two_to(k_gain) / part_a)
    # From a quarter on, neither form has lost digits yet. Also, it is well outside of the band.
    spread = real & (root > ops.abs(alpha) / 4)
    part_fast, k_fast = mantissa(ops.where(spread, fast, 1.0))
    part_offset, k_offset = mantissa(ops.where(spread, offset, 1.0))
    slow = ops.where(
        spread,
        _only(bound, part_c / part_a / part_fast * two_to(k_c + k_gain - k_fast)),
        alpha - offset,
    )
    slow_gain = -two_to(k_gain - k_fast) / part_a / part_fast
    difference_gain = slow_gain / part_offset / 2 * two_to(-k_offset)

    # The free part. The determinants of the three bases, as maps of (c1, c2) to (y, y′) at 0, do
    # not have one sign if a > 0: there is one D on either side of 0 within the band where c1 and c2
    # multiply the same function. No passage from basis to basis could avoid that.
    part, k = mantissa(ops.where(delta != 0, alpha * alpha + ops.abs(eta), 1.0))
    position = delta * two_to(-k) / part / BAND
    below, above = _rise(-position), _rise(position)
    at = 1 - below - above
    on_cosh = below * c1 + at * c2
    on_sinh = _only(below > 0, below * sign_a * root * c2) + _only(
        at > 0, at * c1 * two_to(-k_rate)
    )
    integrator = damped & ~has_c
    share = part_a / part_b * two_to(ops.minimum(k_a - k_b, top * 3 // 4))
    integrated = _bounded(-share * c1, most)
    on_fast = ops.where(integrator, integrated, above * ops.where(backwards, c2, c1))
    on_slow = above * ops.where(integrator | ~backwards, c2, c1)
    k1 = ops.where(spread, on_fast, on_cosh + on_fast + on_slow)
    k2 = ops.where(spread, on_slow, on_sinh + offset * (on_fast - on_slow))
    stationary = _only(has_c, two_to(-k_c) / part_c)
    l1 = -ops.where(spread, difference_gain, stationary)
    l2 = ops.where(spread, -l1, alpha * stationary)

    # Second-order equations have used their own numbers; first-order ones have e^(-cx/b) and its
    # response, and the smoothed step is rest / (1 + e1).
    decay = _only(has_c, -part_c / part_b * two_to(k_c - k_b - k_rate))
    slow = ops.where(first, decay, slow)
    fast = ops.where(step, -SHARPNESS, fast)
    rest = ops.where(spread, slow_gain, stationary)
    rest = ops.where(first, two_to(-k_b - k_rate) / part_b, rest)
    linear = first & ~has_c

    # Growth ends at max_exponent: for x > 0 at one time for both exponentials, or their difference
    # would change its sign, and likewise for x < 0 within the band; else for each by itself.
    exponent = ops.where(step, highest, max_exponent + ops.zeros_like(alpha))
    # A slow exponential may be all but constant, its response linear in time up to `reach`.
    until_reach = ops.clip(reach / ops.maximum(ops.abs(slow_gain), 1.0), far, far_spread)
    far = ops.where(spread | first, until_reach, far)

    def until(growth):
        # No quotient by the reciprocal of `far`: the cube of that, in a second derivative, is 0.
        ends = growth > exponent / far
        return ops.where(ends, exponent / ops.where(ends, growth, 1.0), far)

    joint = 1 - _rise(position - 1)
    start = -until(joint * ops.maximum(-fast, -slow))
    end = until(ops.maximum(fast, slow))
    return _Unit(
        undefined=undefined,
        second=second,
        step=step,
        identity=identity,
        real=real,
        spread=spread | first,
        rate=two_to(k_rate),
        alpha=alpha,
        root=root,
        delta=_only(second & ~spread, delta),
        p1=ops.where(spread | step, fast, alpha),
        p2=ops.where(spread | first, slow, alpha),
        radius=radius,
        k1=_only(second, _bounded(k1, most)),
        k2=ops.where(first, c1, _only(second, _bounded(k2, most))),
        l1=_only(second, _bounded(l1, most)),
        l2=_only(second, _bounded(l2, most)),
        gain=gain,
        rest=rest,
        start=ops.where(linear, -largest, start),
        end=ops.where(linear, largest, end),
        max_exponent=exponent,
        reach=ops.where(linear, largest, reach + ops.zeros_like(alpha)),
    )


def _expression(x, a, b, c, c1, c2, epsilon, max_exponent, limit, info):
    """deu() of five exact numbers as it would be in exact arithmetic, guards included.

    Its formulas in x itself, not in t = rate x: the rate only says where time ends. The driven part
    is l1 f1 + l2 f2 + a rest for all x > 0: the series are there for rounding only.
    """
    sp = expressions.sympy()
    exact, clip = expressions.exact, expressions.clip
    largest = float(info.max)
    reach, most, far, far_spread = (exact(largest**power) for power in (0.5, 0.7, 0.22, 0.45))
    highest = 0.4 * math.log(largest)
    exponent = exact(highest if max_exponent is None else min(max_exponent, highest))
    limit = None if limit is None else exact(info.dtype.type(limit))

    def less(one, other):  # numbers with square roots, which SymPy may not compare exactly
        return bool(sp.N(one, 30) < sp.N(other, 30))

    second, has_b, has_c = (bool(abs(p) >= exact(info.dtype.type(epsilon))) for p in (a, b, c))
    first, step = not second and has_b, has_c and not (second or has_b)
    if not (second or has_b or has_c):
        return x if limit is None else clip(x, -limit, limit)
    if step:
        sharpness = expressions.decimal(SHARPNESS)
        t = clip(x, -exact(highest) / sharpness, far)
        y = 1 / (c * (1 + sp.exp(-sharpness * t)))
        return y if limit is None or 1 / abs(c) <= limit else clip(y, -limit, limit)
    a = a if second else sp.S.Zero
    b = b if has_b else sp.S.Zero
    c = c if has_c else sp.S.Zero
    c1, c2 = clip(c1, -reach, reach), clip(c2, -reach, reach)

    # The exponents.
    alpha = -b / (2 * a) if second else sp.S.Zero
    eta = c / a if second else sp.S.Zero
    delta = alpha**2 - eta
    root = sp.sqrt(abs(delta))
    real = bool(delta > 0)
    spread = real and less(abs(alpha) / 4, root)
    offset = (sp.sign(a) if b < 0 else -sp.sign(a)) * root if real else sp.S.Zero
    fast, slow = (alpha + offset, alpha - offset) if second else (sp.S.Zero, -c / b)

    # Where time ends, with the rate of _unit().
    k_a, k_b, k_c = (math.frexp(p)[1] - 1 if p else 0 for p in (a, b, c))
    if second:
        k = -(k_a // 2) - 28
        k = max(k, k_b - k_a) if has_b else k
        k = max(k, -((k_a - k_c) // 2)) if has_c else k
    else:
        k = (max(k_c, 0) if has_c else 0) - k_b
    top = info.maxexp - 1
    rate = sp.Integer(2) ** min(max(k, -(top * 9 // 10)), top * 3 // 4)
    position = sp.S.Zero
    if delta != 0:
        position = delta / (alpha**2 + abs(eta)) / expressions.decimal(BAND)
    if spread or first:
        slow_gain = 1 / (a * rate * fast) if spread else rate**-2
        far = exact(min(max(float(reach / max(abs(sp.N(slow_gain)), 1)), far), far_spread))

    def until(growth):
        return exponent / growth if less(exponent * rate / far, growth) else far / rate

    start = -until(_exact_fall(position - 1) * max(-fast, -slow, key=sp.N))
    end = until(max(fast, slow, key=sp.N))

    t = clip(x, start, end)

    def exp(growth, after):
        """e^(growth t), which stops growing at e^max_exponent."""
        held = not after and less(exponent * (1 + exact(2.0**-40)), growth * start)
        return sp.exp(sp.Min(exponent, growth * t, evaluate=False) if held else growth * t)

    def bases(after):
        """f1 and f2, the latter in t itself, after or before 0."""
        if spread or first:
            return exp(fast, after), exp(slow, after)
        e = exp(alpha, after)
        if delta == 0:
            return e, t * e
        if not real:
            return e * sp.cos(root * t), e * sp.sin(root * t) / root
        # The larger exponent first. It is a difference of exponentials without cancellation.
        side = 1 if after else -1
        larger, smaller = exp(alpha + side * root, after), exp(alpha - side * root, after)
        if not (larger.has(sp.Min) or smaller.has(sp.Min)):
            ratio = sp.exp(-2 * side * root * t)
            return (larger + smaller) / 2, larger * (side - side * ratio) / (2 * root)
        apart = (larger + smaller) / 2, side * (larger - smaller) / (2 * root)
        near = sp.sqrt(exact(NEAR)) / root
        if not less(exponent, (abs(alpha) + root) * near):
            return apart
        # Near 0, with a small max_exponent: there it is e^(alpha t) that stops growing.
        up, down = sp.exp(root * t), sp.exp(-root * t)
        close = e * (up + down) / 2, e * (up - down) / (2 * root)
        return [sp.Piecewise((f, x <= -near), (g, True)) for f, g in zip(apart, close, strict=True)]

    # The weights of f1 and f2: k of the free part, l of the driven one.
    k1, k2, l1, l2 = sp.S.Zero, c1, sp.S.Zero, sp.S.Zero
    if second:
        below, above = 1 - _exact_fall(-position), 1 - _exact_fall(position)
        at = 1 - below - above
        on_fast, on_slow = (above * p for p in ((c2, c1) if b < 0 else (c1, c2)))
        if has_b and not has_c:
            on_fast, on_slow = clip(-a * c1 / b, -most, most), c2
        if spread:
            k1, k2 = on_fast, clip(on_slow, -most, most)
            l1 = 1 / (2 * a * fast * offset)
            l2 = -l1
        else:
            k1 = below * c1 + at * c2 + on_fast + on_slow
            k2 = below * sp.sign(a) * root * c2 + at * c1 + offset * (on_fast - on_slow)
            k2 = sp.Max(-most * rate, sp.Min(most * rate, k2))
            if has_c:
                l1, l2 = -1 / c, alpha / c
        k1 = clip(k1, -most, most)

    if has_c:
        rest = (1 - exp(slow, True)) / c if spread or first else 1 / c
    else:
        rest = t / b if has_b else t**2 / (2 * a)

    # Parts are kept within ± reach. That is left out where it cannot be seen: where they are not so
    # large, or where f is at its limit even if all others are against it.
    longest = max(-start, end, key=sp.N)
    largest_f1 = largest_f2 = sp.exp(exponent)
    if second and not spread:
        largest_f2 *= longest if delta == 0 else min(longest, 1 / root, key=sp.N)
    sizes = [
        (abs(k1) + abs(l1)) * largest_f1,
        (abs(k2) + abs(l2)) * largest_f2,
        (1 + sp.exp(exponent)) / abs(c) if has_c else abs(rest.subs(t, end)),
    ]

    def total(*parts):
        bounded = []
        for i, part in enumerate(parts):
            others = sum(sizes) - sizes[i]
            seen = limit is None or less(reach - limit, others)
            bounded.append(clip(part, -reach, reach) if seen and less(reach, sizes[i]) else part)
        return sp.Add(*bounded), bounded != list(parts)

    if first and not has_c:  # linear, without an end of time
        negative, positive = c1, c1 + x / b
        sizes = [sp.oo]
    else:
        f1, f2 = bases(after=False)
        negative, _ = total(k1 * f1, k2 * f2)
        f1, f2 = bases(after=True)
        positive, bounded = total((k1 + l1) * f1, (k2 + l2) * f2, rest)
        if bounded and second:
            early, _ = total(k1 * f1, k2 * f2, l1 * f1 + l2 * f2 + rest)
            radius = abs(fast) if real else sp.sqrt(abs(eta))
            late = positive
            positive = early if radius == 0 else sp.Piecewise((early, x < 1 / radius), (late, True))
    y = sp.Piecewise((positive, x > 0), (negative, True))
    return y if limit is None or not less(limit, sum(sizes)) else clip(y, -limit, limit)


def _exact_fall(x):
    """1 - _rise(x) of an exact number."""
    if x <= 0 or x >= 1:
        return expressions.exact(1.0 if x <= 0 else 0.0)
    return 1 - x**3 * (10 - x * (15 - 6 * x))


def _only(condition, value):
    """The value where the condition holds, else 0, whatever the value is there."""
    return ops.where(condition, value, 0.0)


def _bounded(value, largest):
    return ops.clip(value, -largest, largest)


def _rise(x):
    """From 0 at x <= 0 to 1 at x >= 1, with two continuous derivatives."""
    inside = (x > 0) & (x < 1)
    x = ops.where(inside, x, ops.where(x > 0, 1.0, 0.0))
    return ops.where(inside, x * x * x * (10 - x * (15 - 6 * x)), x)


def _cosh_and_sinh(z):
    """cosh √z and sinh(√z)/√z (cos √-z and sin(√-z)/√-z for z < 0) for |z| < NEAR."""
    count = _terms(lambda n: NEAR**n / math.factorial(2 * n), z.dtype)
    cosh, sinh = (
        _horner([1 / math.factorial(2 * n + odd) for n in range(count + 1)], z) for odd in (0, 1)
    )
    return cosh, sinh


def _horner(coefficients, x):
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = coefficient + x * value
    return value


def _divided_difference(total, product):
    """The divided difference of exp at 0, u and v for |u|, |v| <= 1, from u + v and u v.

    Σ h_n(u, v) / (n + 2)! with the complete symmetric polynomials h_n = (u + v) h_(n-1) -
    u v h_(n-2), |h_n| <= n + 1, summed by Clenshaw's recurrence. u and v may be complex.
    """
    count = _terms(lambda n: (n + 1) / math.factorial(n + 2), total.dtype)
    last, current = 0.0, 1 / math.factorial(count + 2)
    for n in range(count - 1, -1, -1):
        last, current = current, 1 / math.factorial(n + 2) + (total * current - product * last)
    return current


def _terms(term, dtype):
    """How many terms of a series count; a margin of 2^4 leaves its second derivative exact too."""
    n = 0
    while term(n) > limits(dtype).eps / 16:
        n += 1
    return n


def _start(initial):
    """Where the five parameters start, each as `Parameter.initial` takes it."""
    if initial is None:
        initial = (None,) * len(NAMES)
    if not isinstance(initial, (list, tuple)) or len(initial) != len(NAMES):
        raise ValueError(
            "DEU: `initial` must be five entries, for a, b, c, c1, c2, each a number, a Keras "
            f"initializer, or None for the paper's start. Received: initial={initial!r}"
        )
    start = []
    for name, entry in zip(NAMES, initial, strict=True):
        if entry is None:
            start.append(0.0 if name in ("c1", "c2") else _uniform())
        elif _is_number(entry) and math.isfinite(entry):
            start.append(entry)
        else:
            try:
                start.append(keras.initializers.get(entry))
            except (TypeError, ValueError):
                raise ValueError(
                    f"DEU: `initial` must hold a finite number, a Keras initializer or None for "
                    f"{name}. Received: {entry!r}"
                ) from None
    return start


def _uniform():
    """An initializer that draws from U(0, 1), the same numbers whenever it is asked.

    In NumPy, seeded from the generator that `keras.utils.set_random_seed` seeds. A weight may be
    created while a recurrent cell is traced; Keras' generators would leave a tracer in it, and
    Keras asks for such a weight's start again until the trace has ended.
    """
    seed = np.random.randint(2**31)
    return lambda shape, dtype=None: np.random.default_rng(seed).uniform(size=shape)


def _is_number(value):
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _text(unit, a, b, c, c1, c2):
    """One unit's row of the table with its numbers, without the guards."""
    if unit.identity:
        return "x"
    if unit.step:
        return f"{1 / c:.6g} / (1 + exp(-{SHARPNESS:g} x))"
    if not unit.second:
        if unit.p2 == 0:
            return _sum((c1, ""), (1 / b, "x H(x)"))
        decay = _exp(-c / b)
        return _sum((c1, decay), (1 / c, f"H(x) (1 - {decay})"))
    if unit.alpha == 0 and unit.root == 0:
        return _sum((c1, "x"), (c2, ""), (1 / (2 * a), "x^2 H(x)"))
    if unit.spread and unit.p2 == 0:
        decay = _exp(-b / a)
        driven = _sum((1 / b, "x"), (-a / b**2, f"(1 - {decay})"))
        return _sum((unit.k1, decay), (unit.k2, ""), (1, f"H(x) ({driven})"))

    alpha, root = unit.alpha * unit.rate, unit.root * unit.rate
    k1, k2 = unit.k1, unit.k2
    if unit.real:
        larger, smaller = alpha + root, alpha - root
        if not unit.spread:
            k1, k2 = k1 / 2 + k2 / (2 * unit.root), k1 / 2 - k2 / (2 * unit.root)
        elif unit.p1 < unit.p2:
            k1, k2 = k2, k1
        free = _sum((k1, _exp(larger)), (k2, _exp(smaller)))
        weights = smaller / (2 * root), -larger / (2 * root)
        response = _sum((1, ""), (weights[0], _exp(larger)), (weights[1], _exp(smaller)))
    else:
        if root > 0:
            one, two = f"cos({root:.6g} x)", f"sin({root:.6g} x)"
            free = _sum((k1, one), (k2 / unit.root, two))
            response = _sum((1, one), (-alpha / root, two))
        else:
            free = _sum((k1, ""), (k2 * unit.rate, "x"))
            response = _sum((1, ""), (-alpha, "x"))
        if alpha != 0:
            free = free if free == "0" else f"{_exp(alpha)} ({free})"
            response = f"{_exp(alpha)} ({response})"
        response = f"1 - {response}"
    return _sum((0 if free == "0" else 1, free), (1 / c, f"H(x) ({response})"))


def _exp(rate):
    return f"exp({_term(rate, 'x')})"


def _sum(*terms):
    """The sum of number times function as plain text, without the terms that are 0."""
    words = [_term(number, function) for number, function in terms if number != 0]
    return " + ".join(words).replace("+ -", "- ") or "0"


def _term(number, function):
    digits = f"{number:.6g}"
    if function and digits in ("1", "-1"):
        return digits[:-1] + function
    return f"{digits} {function}".strip()
