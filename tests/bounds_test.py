"""Bounds of learned activations: never left, and no wider than they must be."""

import contextlib
import math
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import keras_learnact as kla
from keras_learnact import APL, DEU, PAU, SLAF, Mixture, SReLU, bounds
from keras_learnact.numerics import finite
from tests.layers.contract_test import ACTIVATIONS, built, every_activation, randomised
from tests.numeric import call

MAX = float(np.finfo("float32").max)
INF = math.inf

# Every kind of function there is beside each activation's default.
OTHERS = [
    PAU(denominator="B", initial=((0.03, 0.6, 2, 3, 1.4, 0.25), (1, -2, 0.5, 0.3))),
    PAU(denominator="C", initial=((0.03, 0.6, 2, 3, 1.4, 0.25), (-0.1, 1, -2, 0.5, 0.3))),
    PAU(denominator="N", initial=((0.03, 0.6, 2, 3, 1.4, 0.25), (1, -2, 0.5, 0.3))),
    PAU(
        degrees=(9, 8),
        initial=(
            (0.1, 1, -1, 0.3, 0.2, -0.5, 0.1, 0.4, -0.2, 0.1),
            (0.5, 1, 0, 0.2, 0.7, 0.1, 0.3, 0.1),
        ),
    ),
    SLAF(order=9, initial=(0.1, 1, -0.3, 0.2, 0, 0, 0.01, 0, 0, 1e-4), sharing="layer"),
    *(
        Mixture(names)
        for names in [
            ("tanh", "gelu", "hard_sigmoid"),
            ("silu", "mish", "relu6"),
            ("elu", "softplus", "hard_tanh"),
            ("exponential", "celu", "softsign"),
            ("sigmoid", "hard_silu", "log_sigmoid"),
            ("hard_shrink", "tanh_shrink", "sparse_plus"),
        ]
    ),
    # The rows of DEU's table, in its order.
    *(
        DEU(initial=initial, sharing="layer")
        for initial in [
            (0, 0, 0, 0.5, 0.5),
            (0, 0, 0.5, 0.5, 0.5),
            (0, 1, 0, 0.5, 0.5),
            (0, 1, 0.5, 1, 1),
            (1, 0, 0, 0.1, 0.2),
            (0.5, 0, 0.3, 1, 1),
            (0.5, 0, -0.3, 1, 1),
            (1, 1, 0, 0.1, 0.2),
            (1, 0.5, 0.75, 0.3, 0.2),
            (1, 2, 1, 0.5, 0.1),
            (1, 2, 0.75, 0.3, 0.2),
            (-1, 0.5, 0.75, 0.3, 0.2),
        ]
    ),
]


def moved(layer, seed=0):
    """The layer with coefficients a little off; what is 0 stays 0, and so does a DEU's row."""
    rng = np.random.default_rng(seed)
    for name, value in layer.parameters().items():
        getattr(layer, name).assign(value * (1 + 0.1 * rng.normal(size=value.shape)))
    return layer


def inputs(layer, count, rng):
    """Numbers of the whole float32 range, and those beside all places where a function turns."""
    values = [
        rng.normal(size=count) * 3,
        rng.choice([-1, 1], count) * np.exp2(rng.uniform(-149, 128, count)),
        [0.0, -0.0, MAX, -MAX, INF, -INF, 1e-40, -1e-40],
    ]
    for shape in bounds._shapes(layer, "the test"):
        table = shape.values
        short = table.right - table.left <= 1e-6 * abs(table.left)
        short &= abs(table.left) <= MAX  # of a float64 layer, whose values overflow later
        turns = table.left[short][:50].astype("float32")
        values += [turns, np.nextafter(turns, np.float32(INF)), np.nextafter(turns, np.float32(-9))]
    return np.concatenate(values).astype("float32")


def pairs(x, rng):
    """Intervals, half of them narrow, and a number in each."""
    with np.errstate(all="ignore"):
        narrow = x * (1 + 0.1 * rng.normal(size=x.shape)).astype("float32")
        other = np.where(rng.random(x.shape) < 0.5, narrow, rng.permutation(x))
        other = np.where(np.isnan(other), x, other)
        lo, hi = np.minimum(x, other), np.maximum(x, other)
        inside = lo + (hi - lo) * rng.random(x.shape).astype("float32")
        return lo, np.clip(np.where(np.isfinite(inside), inside, lo), lo, hi), hi


def assert_sound(layer, x, lo, inside, hi):
    """Kernel and formula stay within the bounds at x, and at all points of lo … hi."""
    at, between = layer.interval(x, x), layer.interval(lo, hi)
    for path in (contextlib.nullcontext(), kla.kernels.disabled()):
        with path:
            checks = [(x, at), *((v, between) for v in (lo, inside, hi))]
            for points, (least, greatest) in checks:
                y = call(layer, points).astype("float64")
                wrong = ~((least <= y) & (y <= greatest))
                assert not wrong.any(), [
                    v[wrong][:3] for v in (points, y, least, greatest, lo, hi) if v.shape == y.shape
                ]


def check(layer, channels=1, count=4000, dtype="float32"):
    rng = np.random.default_rng(1)
    # One size: other sizes would compile anew on XLA.
    x = np.resize(inputs(layer, count, rng), 2 * count + 608)
    x = np.repeat(x[:, None], channels, axis=1).astype(dtype)
    assert_sound(layer, x, *pairs(x, rng))


@every_activation
def test_no_value_leaves_the_bounds(cls):
    check(built(cls, 2, shape=(None, 4)), channels=4)


@pytest.mark.parametrize("layer", OTHERS, ids=lambda layer: layer.formula()[:40])
def test_no_value_of_other_functions_leaves_the_bounds(layer):
    check(moved(layer))


@every_activation
@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_no_value_of_half_precision_leaves_the_bounds(cls, policy):
    layer = built(cls, dtype=policy)
    rng = np.random.default_rng(1)
    x = inputs(layer, 2000, rng)[:, None]
    # The layer rounds x to fewer digits before anything else, perhaps out of lo … hi.
    assert_sound(layer, x, *pairs(x, rng))


@pytest.mark.tensorflow  # JAX has no float64 unless its 64-bit mode is on
@every_activation
def test_no_value_of_float64_leaves_the_bounds(cls):
    check(built(cls, dtype="float64"), count=2000, dtype="float64")


coefficients = st.one_of(st.floats(-8, 8, width=32), st.floats(-MAX, MAX, width=32), st.just(0.0))


@settings(max_examples=30)
@given(data=st.data())
def test_no_value_leaves_the_bounds_whatever_the_coefficients(data):
    version = data.draw(st.sampled_from("ABCN"))
    start = (0, 1, 0, 0), (0,) * (3 if version == "C" else 2)
    layer = PAU(degrees=(3, 2), denominator=version, initial=start)
    for name, value in layer.parameters().items():
        size = value.size
        numbers = data.draw(st.lists(coefficients, min_size=size, max_size=size))
        getattr(layer, name).assign(np.reshape(numbers, value.shape))
    check(layer, count=100)


@pytest.mark.tensorflow  # float64
def test_coefficients_beyond_those_of_float32_are_refused():
    layer = PAU(degrees=(3, 2), dtype="float64")
    layer.denominator.assign([[0, 1e39]])
    with pytest.raises(ValueError, match="coefficients up to 3.4e.38. Received: one of 1e.39"):
        layer.range(-1, 1)


def test_at_infinity_the_sign_is_that_of_the_largest_number():
    # a_3 x^3 is the leading term, and at the largest float32 number a_2 x^2 is larger.
    layer = PAU(degrees=(3, 2), initial=((0, 0, -3.4e7, 5.6e-38), (0, 1)))
    for x in (MAX, INF):
        assert_sound(layer, *[np.array([x], "float32")] * 4)


def grid_of(layer, lo, hi):
    """The exact function of each group at many points, in float64, and their distance."""
    import sympy

    x = np.linspace(lo, hi, 40001)
    names = sympy.Symbol("x", real=True)
    functions = [
        sympy.lambdify(names, layer.sympy(group), ["scipy", "numpy"])
        for group in range(layer.groups)
    ]
    with np.errstate(all="ignore"):
        return x, np.stack([np.broadcast_to(f(x), x.shape) for f in functions]), x[1] - x[0]


@every_activation
def test_bounds_are_no_wider_than_the_function_and_its_rounding(cls):
    layer = built(cls, 2, shape=(None, 4))
    for lo, hi in [(-2, 2), (-0.7, 0.1), (0.25, 0.5), (-9, -3)]:
        x, y, h = grid_of(layer, lo, hi)
        least, greatest = layer.range(lo, hi)
        # Between two points of the grid f goes at most half a step of its steepest slope beyond
        # them. The rounding: some ten operations of a few units, 2^-24, of terms up to 100 here.
        room = layer.lipschitz(lo, hi) * h / 2 + 1e-4 * (1 + abs(y).max(axis=1))
        assert (least <= y.min(axis=1)).all() and (least >= y.min(axis=1) - room).all()
        assert (greatest >= y.max(axis=1)).all() and (greatest <= y.max(axis=1) + room).all()


@every_activation
def test_the_lipschitz_bound_is_the_steepest_slope(cls):
    layer = built(cls, 2, shape=(None, 4))
    for lo, hi in [(-2, 2), (-0.7, 0.1), (0.25, 0.5)]:
        x, y, h = grid_of(layer, lo, hi)
        secants = abs(np.diff(y, axis=1)) / h
        bound = layer.lipschitz(lo, hi)
        # A secant is the mean of slopes; float64 differences of values near 1 err by 1e-16 / h.
        assert (secants.max(axis=1) <= bound * (1 + 1e-12) + 1e-10).all()
        # Half a step from the steepest point the slope differs by the curvature times h.
        bend = abs(np.diff(y, 2, axis=1)).max(axis=1) / h
        # DiTAC's expression is a sum over cells: where one hands over to others, all slopes count.
        most = bound / 3 if cls.__name__ == "DiTAC" else bound
        assert (secants.max(axis=1) >= most - 2 * bend - 1e-6).all()


@every_activation
def test_the_bounds_of_all_numbers_are_those_of_a_large_interval(cls):
    layer = built(cls, 2, shape=(None, 4))
    least, greatest = layer.range(-INF, INF)
    inner_least, inner_greatest = layer.range(-MAX, MAX)
    y = layer.curve([-INF, -MAX, -1e9, -5, 0, 5, 1e9, MAX, INF])
    assert (least <= y.min(axis=1)).all() and (greatest >= y.max(axis=1)).all()
    assert (least <= inner_least).all() and (greatest >= inner_greatest).all()
    assert not np.isnan([least, greatest]).any()


# By hand.


def test_a_square():
    layer = PAU(degrees=(2, 0), initial=((0, 0, 1), ()))
    least, greatest = layer.range([-1, 0.5, -INF], [3, 2, INF])
    np.testing.assert_allclose(least[0, [0, 2]], [0, 0], atol=1e-44)  # a few denormal numbers
    np.testing.assert_array_equal(greatest[0, 2], INF)
    # One or two roundings, taken for a dozen.
    np.testing.assert_allclose([least[0, 1], *greatest[0, :2]], [0.25, 9, 4], rtol=2e-6)
    np.testing.assert_allclose(layer.lipschitz([-1, 1, 0], [3, 2, INF]), [[6, 4, INF]], rtol=1e-12)
    assert layer.extrema(-1, 3) == [[(0.0, 0.0, "minimum")]]
    assert layer.extrema(0, 3) == [[]]  # 0 is not inside


def test_the_identity_keeps_its_interval():
    layer = SReLU(initial=(0, 1, 1, 1), sharing="layer")
    np.testing.assert_array_equal(layer.range(0.25, 0.5), [[0.25], [0.5]])  # nothing is rounded
    np.testing.assert_array_equal(layer.lipschitz(-INF, INF), [1])


def test_a_leaky_relu_has_two_slopes_and_no_extremum():
    layer = SReLU(sharing="layer")  # 0.2 x below 0
    least, greatest = layer.range(-5, 3)
    # A few roundings of 2^-24 each.
    assert -1.000001 <= least[0] <= -1 and 3 <= greatest[0] <= 3.000001
    low, high = layer.slope_interval([[-1.0, 1.0, 0.0]], [[-0.5, 2.0, 0.0]])
    slope = float(np.float32(0.2))
    np.testing.assert_allclose(low, [[slope, 1, slope]], rtol=1e-12)  # the kink has both
    np.testing.assert_allclose(high, [[slope, 1, 1]], rtol=1e-12)
    assert layer.extrema(-INF, INF) == [[]]


def test_a_deu_that_is_relu():
    layer = DEU(initial=(0, 1, 0, 0, 0), sharing="layer")
    least, greatest = layer.range([-3, -3, 0.5], [-1, 2, 0.75])
    # A few denormal numbers, which count as 0.
    np.testing.assert_allclose(least[0], [0, 0, 0.5], rtol=2e-6, atol=1e-44)
    np.testing.assert_allclose(greatest[0], [0, 2, 0.75], rtol=2e-6, atol=1e-44)
    # The guard: f is clipped to ±1000.
    np.testing.assert_allclose(layer.range(-INF, INF)[1], 1000, rtol=2e-6)
    assert layer.extrema(-9, 9) == [[]]  # flat, then rising


def test_a_cubic_turns_at_one():
    layer = SLAF(initial=(0, -3, 0, 1))  # x³ - 3x
    (found,) = layer.extrema(-INF, INF)
    assert [e.kind for e in found] == ["maximum", "minimum"]
    np.testing.assert_allclose([e.x for e in found], [-1, 1], rtol=1e-15)
    np.testing.assert_allclose([e.value for e in found], [2, -2], rtol=1e-15)
    np.testing.assert_allclose(layer.range(-1.5, 1.5), [[-2], [2]], rtol=3e-6)
    np.testing.assert_allclose(layer.range(-3, 1.5), [[-18], [2]], rtol=3e-6)
    low, high = layer.slope_interval([[-2.0]], [[1.0]])
    np.testing.assert_allclose([low, high], [[[-3]], [[9]]], rtol=1e-12)


def test_two_extrema_that_almost_meet_are_both_found():
    d = 2.0**-10
    layer = SLAF(initial=(0, -3 * d * d, 0, 1))  # x³ - 3 d² x
    (found,) = layer.extrema(-1, 1)
    # float32 keeps 3 d² to 24 digits.
    np.testing.assert_allclose([e.x for e in found], [-d, d], rtol=1e-7)


def test_a_roof_has_a_maximum_and_a_plateau_one_in_its_middle():
    roof = APL(num_hinges=1, initial=(-1, 0.5), sharing="layer")  # max(0, x) - max(0, 1/2 - x)
    assert roof.extrema(-9, 9) == [[]]
    roof = SReLU(initial=(-1, -2, 1, -3), sharing="layer")  # falls, rises from -1 to 1, falls
    assert roof.extrema(-9, 9) == [[(-1.0, -1.0, "minimum"), (1.0, 1.0, "maximum")]]
    plateau = Mixture(("relu", "relu6", "hard_tanh"), initial=(-1, 1, -1))
    # It falls from -1 to 1, is -1 until 6, and falls on: no turn.
    assert plateau.extrema(-9, 9) == [[]]
    plateau = Mixture(("relu", "relu6", "hard_tanh"), initial=(1, -1, -1))
    assert plateau.extrema(-9, 9) == [[(3.5, -1.0, "minimum")]]  # falls, -1 from 1 to 6, rises


def test_a_wave_turns_at_every_multiple_of_pi():
    layer = DEU(initial=(1, 0, 1, 1, 0), sharing="layer")  # cos x below 0, and 1 above
    (found,) = layer.extrema(-10, -0.5)
    np.testing.assert_allclose([e.x for e in found], [-3 * np.pi, -2 * np.pi, -np.pi], rtol=1e-9)
    assert [e.kind for e in found] == ["minimum", "maximum", "minimum"]
    np.testing.assert_allclose([e.value for e in found], [-1, 1, -1], rtol=1e-9)
    # The layer does not know the phase of far waves; that alone may make one look larger.
    np.testing.assert_allclose(layer.range(-1e6, INF), [[-1], [1]], atol=3e-3)
    with pytest.raises(ValueError, match="turns too often near x = .* smaller interval"):
        layer.extrema(-1e6, 0)


def test_a_pole_leaves_nothing_certain_where_it_is():
    layer = PAU(degrees=(1, 2), denominator="N", initial=((1, 0), (0, -1)))  # 1 / (1 - x²)
    least, greatest = layer.range([0.5, 1.5, -2], [2, 2, 0])
    np.testing.assert_array_equal(least[0, [0, 2]], [-INF, -INF])
    np.testing.assert_array_equal(greatest[0, [0, 2]], [INF, INF])
    np.testing.assert_allclose([least[0, 1], greatest[0, 1]], [-0.8, -1 / 3], rtol=5e-6)
    assert layer.lipschitz(0.5, 2) == INF
    assert layer.extrema(-INF, INF) == [[(0.0, 1.0, "minimum")]]


def test_a_jump_has_no_lipschitz_bound():
    layer = Mixture(("hard_shrink",))  # 0 between -1/2 and 1/2, else x
    assert layer.lipschitz(0, 1) == INF
    np.testing.assert_allclose(layer.lipschitz([-0.25, 1], [0.25, 2]), [[0, 1]], rtol=1e-12)
    greatest = layer.range([-0.25, 0, 0.75], [0.25, 1, 2])[1]
    np.testing.assert_allclose(greatest, [[0, 1, 2]], rtol=1e-6)


def test_a_default_pau_is_a_leaky_relu_within_its_fit():
    layer = PAU(initial="tanh")
    x = np.linspace(-3, 3, 1001)
    y = layer.curve(x)
    np.testing.assert_allclose(layer.range(-3, 3), [[y.min()], [y.max()]], atol=1e-5)
    least, greatest = layer.range(1, 1)
    assert 0 < greatest[0] - least[0] < 2e-5  # what is lost to rounding


@every_activation
def test_no_parameter_hides_a_method(cls):
    # A weight named as a method takes its place: APL has `slopes`.
    names = {p.name for p in cls(sharing="layer").parameter_list()}
    assert not names & set(dir(kla.LearnableActivation))


# Elements.


@pytest.mark.parametrize(
    "sharing, axis, shape",
    [
        ("layer", -1, (3, 4)),
        ("channel", -1, (3, 2, 4)),
        ("channel", 1, (3, 4, 2)),
        (2, -1, (3, 4)),
        ("unit", -1, (3, 2, 2)),
    ],
)
def test_every_element_has_the_bounds_of_its_group(sharing, axis, shape):
    start = (0, 1, 0, 0.1), (0, 0.5)
    layer = PAU(degrees=(3, 2), initial=start, sharing=sharing, axis=axis)
    layer.build((None, *shape[1:]))
    randomised(layer)
    rng = np.random.default_rng(0)
    low = rng.normal(size=shape)
    high = low + rng.random(shape)
    numbers = np.arange(layer.groups)
    group = {
        "layer": lambda: 0,
        "channel": lambda: numbers if axis == -1 else numbers[:, None],
        2: lambda: numbers.repeat(2),
        "unit": lambda: numbers.reshape(shape[1:]),
    }[sharing]()
    group = np.broadcast_to(group, shape)
    least, greatest = layer.range(low, high)
    steepest = layer.lipschitz(low, high)
    places = tuple(np.indices(shape))
    np.testing.assert_array_equal(
        layer.interval(low, high), [least[(group, *places)], greatest[(group, *places)]]
    )
    smallest, largest = layer.slope_interval(low, high)
    np.testing.assert_array_equal(np.maximum(-smallest, largest), steepest[(group, *places)])


def test_slopes_hold_every_secant():
    layer = randomised(DEU(sharing="layer"))
    rng = np.random.default_rng(0)
    low = rng.normal(size=(500, 1))
    high = low + rng.random((500, 1))
    smallest, largest = layer.slope_interval(low, high)
    import sympy

    f = sympy.lambdify(sympy.Symbol("x", real=True), layer.sympy(), ["scipy", "numpy"])
    secant = (f(high) - f(low)) / (high - low)
    # float64 differences err by 1e-16 over the distance, 1e-3 and more nearly always.
    room = 1e-14 / (high - low)
    assert (smallest - room <= secant).all() and (secant <= largest + room).all()


def test_bounds_follow_the_coefficients():
    layer = PAU(degrees=(1, 0), initial=((0, 1), ()))
    assert layer.range(0, 1)[1] == pytest.approx(1, rel=1e-6)
    (before,) = bounds._shapes(layer, "the test")
    assert bounds._shapes(layer, "the test")[0] is before  # nothing is done twice
    layer.numerator.assign([[0, 2]])
    assert layer.range(0, 1)[1] == pytest.approx(2, rel=1e-6)


@keras.saving.register_keras_serializable("tests")
class Swish(kla.LearnableActivation):
    """An activation that nobody told keras_learnact.bounds of."""

    def parameter_list(self):
        return [kla.layers.base.Parameter("b", 1, 1.0)]

    def function(self, x, b):
        x = finite(x)
        return x * ops.sigmoid(b[0] * x)

    def expression(self, x, b):
        import sympy

        return x / (1 + sympy.exp(-b[0] * x))


def test_an_activation_of_tomorrow_has_bounds_too():
    layer = Swish(sharing=2)
    layer.build((None, 4))
    layer.b.assign([[1], [-1.5]])
    check(layer, channels=4)
    first, second = layer.extrema(-9, 9)
    # Where x/(1 + e^-x) turns: 1 + e^-x + x e^-x = 0.
    assert first[0].kind == "minimum" and first[0].x == pytest.approx(-1.2784645427610738, rel=1e-9)
    assert second[0].kind == "maximum" and second[0].x == pytest.approx(1.278464542761 / 1.5)


# Classes that nobody knows.


class Own(kla.LearnableActivation):
    """A function that does nothing against overflow, and its expression."""

    def __init__(self, formula, expression):
        super().__init__()
        self.formula_of, self.expression_of = formula, expression

    def parameter_list(self):
        return [kla.Parameter("unused", 1, 1.0)]

    def function(self, x, unused):
        return self.formula_of(x)

    def expression(self, x, unused):
        return self.expression_of(x)


def kept(*parts, kind="Add"):
    """A sum or product that SymPy leaves as it stands."""
    import sympy

    return getattr(sympy, kind)(*parts, evaluate=False)


def power_of_ten(exponent):
    import sympy

    return sympy.Integer(10) ** exponent


def exp(x):
    import sympy

    return sympy.exp(x)


def log(x):
    import sympy

    return sympy.log(x)


# Each with a number at which what is computed is far from the expression's exact value.
PLAIN = {
    "(x + 1) - 1": (1e-5, lambda x: (x + 1) - 1, lambda x: kept(x + 1, -1)),
    "(x + 1e8) - 1e8": (0.3, lambda x: x + 1e8 - 1e8, lambda x: kept(x + 10**8, -(10**8))),
    "1e-20 x^5": (1e9, lambda x: 1e-20 * x**5, lambda x: power_of_ten(-20) * x**5),
    "x² / (1 + x²)": (1e25, lambda x: x**2 / (1 + x**2), lambda x: x**2 / (1 + x**2)),
    "x³ / x": (1e15, lambda x: x**3 / x, lambda x: kept(x**3, 1 / x, kind="Mul")),
    "x² / x": (1e-25, lambda x: x * x / x, lambda x: kept(x**2, 1 / x, kind="Mul")),
    "x 1e30 1e-30": (
        1e10,
        lambda x: x * 1e30 * 1e-30,
        lambda x: kept(x, power_of_ten(30), power_of_ten(-30), kind="Mul"),
    ),
    "1e-30 x 1e-30 x 1e30": (
        1e9,
        lambda x: 1e-30 * x * 1e-30 * x * 1e30,
        lambda x: kept(power_of_ten(-30), x, power_of_ten(-30), x, power_of_ten(30), kind="Mul"),
    ),
    "1 / x²": (1.05e-19, lambda x: 1 / (x * x), lambda x: x**-2),
    "x / ((1 + x²) (1 + x⁴))": (
        1e7,
        lambda x: x / ((1 + x * x) * (1 + x * x * x * x)),
        lambda x: x / ((1 + x**2) * (1 + x**4)),
    ),
    "log(1 + exp(x))": (
        -20,
        lambda x: ops.log(1 + ops.exp(x)),
        lambda x: log(1 + exp(x)),
    ),
    "exp(x) - exp(2 x)": (
        89,
        lambda x: ops.exp(x) - ops.exp(2 * x),
        lambda x: exp(x) - exp(2 * x),
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_operations_of_an_unknown_class_are_taken_as_they_stand(name):
    number, formula, expression = PLAIN[name]
    layer = Own(formula, expression)
    rng = np.random.default_rng(0)
    x = np.concatenate([
        [number, -number, number / 2],
        rng.normal(size=2000) * 3,
        rng.choice([-1, 1], 4000) * np.exp2(rng.uniform(-149, 128, 4000)),
    ]).astype("float32")  # fmt: skip
    least, greatest = layer.interval(x, x)
    y = call(layer, x).astype("float64")
    assert ((least <= y) & (y <= greatest) | (np.isinf(least) & np.isinf(greatest))).all()
    usual = (abs(x) > 0.5) & (abs(x) < 4)
    # A few units of 1e8; elsewhere some tens of the units of exp(8).
    room = 200 if "1e8" in name else 0.03
    assert (greatest - least)[usual].max() < room


def test_a_mixture_of_functions_that_are_not_keras_has_no_bounds():
    import sympy

    layer = Mixture((lambda x: (x + 1) - 1,), initial=(2.0,))
    for ask in (layer.range, lambda *ends: layer.interval(*([end] for end in ends))):
        with pytest.raises(ValueError, match=r"<lambda> SymPy .* `expression` of its own"):
            ask(0.0, 1.0)
    assert layer.sympy().subs(sympy.Symbol("x", real=True), 3) == 6
    assert "double" in layer.to_c("f") and layer.latex().startswith("f(x) =")
    np.testing.assert_allclose(layer.lipschitz(-1, 1), [2], rtol=1e-12)  # of the exact function
    assert Mixture(("tanh", keras.activations.gelu)).range(0, 1)[1] > 0


def test_a_call_of_its_own_has_no_bounds():
    class Twice(PAU):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs, training)

    with pytest.raises(ValueError, match="Twice .* has a `call` of its own"):
        Twice().range(0, 1)


def test_a_function_of_its_own_inherits_neither_kernel_nor_expression():
    class Twice(PAU):
        def function(self, x, **parameters):
            return 2 * super().function(x, **parameters)

    class Again(Twice):
        pass

    for layer in (Twice(), Again()):
        x = np.array([[-1.0, 2.0]], "float32")
        np.testing.assert_array_equal(call(layer, x), layer.curve(x)[0])
        assert layer.path == f"reference: {type(layer).__name__} has no compiled kernel"
        with pytest.raises(NotImplementedError, match="does not say what its expression is"):
            layer.range(0, 1)

    class Whole(PAU):
        def function(self, x, numerator, denominator):
            return x * numerator[0]

        def expression(self, x, numerator, denominator):
            return x * numerator[0]

    # PAU's own scaling is not that of another function: x a may overflow.
    layer = Whole(initial=((3, 0, 0, 0, 0, 0), (0, 0, 0, 0)))
    assert layer.range(2, 2)[1] == pytest.approx(6, rel=1e-6) and layer.range(0, MAX)[1] == INF

    class Noisy(PAU):
        def training_function(self, x, **parameters):
            return 2 * self.function(x, **parameters)

    assert "no compiled kernel" in Noisy().kernel(True) and Noisy().range(0, 1)[1] > 0


@every_activation
def test_of_the_package_all_inherit_what_they_need(cls):
    class Renamed(cls):
        pass

    for name in ("kernel", "expression"):
        assert name in vars(cls) or cls is kla.RPAU  # whose expression is PAU's
        assert getattr(Renamed, name) is getattr(cls, name)
    assert kla.RPAU.expression is PAU.expression
    for kind in (cls, Renamed):
        assert bounds._is_scaled(kind(sharing="layer")) != cls.as_it_stands
    assert [c for c in ACTIVATIONS if c.as_it_stands] == [kla.Expression]


# Wrong use.


def test_wrong_use_is_named():
    layer = PAU()
    with pytest.raises(ValueError, match=r"needs lo <= hi.*Received: lo=2\.0, hi=1\.0"):
        layer.range(2, 1)
    with pytest.raises(ValueError, match=r"lo=3\.0, hi=2\.0 at \(1,\)"):
        layer.lipschitz([0, 3], 2)
    with pytest.raises(ValueError, match="lo=nan"):
        layer.extrema(math.nan, 1)
    with pytest.raises(ValueError, match="takes two numbers"):
        layer.extrema([0, 1], 2)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        layer.interval(np.zeros((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="no parameters yet"):
        PAU(sharing="channel").range(0, 1)
    layer.numerator.assign(np.full((1, 6), np.nan))
    with pytest.raises(ValueError, match="finite coefficients"):
        layer.range(0, 1)
    layer = PAU(sharing="channel")
    layer.build((None, 4))
    with pytest.raises(ValueError, match="built with 4 sets of parameters and this input needs 3"):
        layer.slope_interval(np.zeros((2, 3)), np.ones((2, 3)))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_learnact\[analysis\]'"):
        PAU().range(0, 1)


def test_every_activation_is_asked():
    assert {cls.__name__ for cls in ACTIVATIONS} >= {"PAU", "DEU", "APL", "SReLU", "Mixture"}


@pytest.mark.tensorflow
def test_constants_of_fewer_digits_are_no_float64():
    # Keras' leaky_relu(-5) is -1.0000000149 there.
    for name in ("leaky_relu", "gelu"):
        with pytest.raises(ValueError, match=f"{name} have float32 constants"):
            Mixture((name,), sharing="layer", dtype="float64").range(-5, 5)
        Mixture((name,), sharing="layer").range(-5, 5)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")  # JAX says the same
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="others always have float64")
def test_float64_that_is_float32_is_refused():
    with pytest.raises(ValueError, match="computes float64 in float32 here"):
        PAU(dtype="float64").range(-1, 1)
