import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.interpolate import BSpline as SciPys
from scipy.special import expit

from keras_learnact.layers.bspline import BSpline, basis, basis_polynomials, bspline
from tests.numeric import call, gradients

MAX = float(np.finfo("float32").max)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
EVERY = [(degree, base) for degree in (1, 2, 3) for base in ("silu", None)]
every_kind = pytest.mark.parametrize(("degree", "base"), EVERY)


def scipys(x, coefficients, weight, degree, grid_range):
    """The same by SciPy in float64, with its lines outside."""
    low, high = grid_range
    cell = (high - low) / (len(coefficients) - degree)
    knots = low + cell * np.arange(-degree, len(coefficients) + 1)
    spline = SciPys(knots, coefficients, degree)
    inside = np.clip(x, low, high)
    at_ends = spline.derivative()(np.array([low, high - 1e-9 * cell]))
    y = spline(np.minimum(inside, high - 1e-15)) + np.where(
        x < low, at_ends[0] * (x - low), np.where(x > high, at_ends[1] * (x - high), 0)
    )
    return y if weight is None else y + weight * x * expit(x)


def test_it_starts_as_silu_exactly():
    x = np.float32([-300, -3, -1, 0, 0.5, 3, 40])
    np.testing.assert_allclose(BSpline().curve(x), [x * expit(x)], rtol=1e-6)
    assert not BSpline().parameters()["coefficients"].any()


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_line_is_met_exactly_by_the_means_of_the_knots(degree):
    layer = BSpline(4, degree, (-2, 2), base=None, initial="linear")
    # Knots at the whole numbers; Greville: coefficient j is the mean of `degree` neighbours.
    knots = np.arange(-2 - degree, 3 + degree)
    means = [np.mean(knots[j + 1 : j + 1 + degree]) for j in range(4 + degree)]
    np.testing.assert_allclose(layer.parameters()["coefficients"], [means], atol=1e-7)
    x = np.float32([-1e6, -2, -0.3, 1, 7])
    np.testing.assert_allclose(layer.curve(x), [x], rtol=1e-6)


def test_it_starts_near_any_function():
    x = np.linspace(-3, 3, 301, dtype="float32")
    for base in ("silu", None):
        layer = BSpline(grid=16, base=base, initial="tanh")
        np.testing.assert_allclose(layer.curve(x)[0], np.tanh(x), atol=1e-3)
        cubed = BSpline(2, base=base, initial=lambda x: x**3, grid_range=(-1, 2))
        expected = x**3 if base is None else 0 * x
        if base is None:  # a polynomial of the spline's degree
            inside = (x >= -1) & (x <= 2)
            np.testing.assert_allclose(cubed.curve(x)[0][inside], expected[inside], atol=1e-5)


@every_kind
@pytest.mark.parametrize("way", ["formula", "kernel"])
def test_it_computes_what_scipy_does(degree, base, way):
    rng = np.random.default_rng(0)
    for grid, grid_range in ((1, (-1, 1)), (5, (-2, 1.5)), (8, (-3, 3))):
        c = rng.normal(size=grid + degree)
        layer = BSpline(grid, degree, grid_range, base=base, initial=tuple(c))
        x = np.append(rng.normal(size=200, scale=3), grid_range).astype("float32")
        y = layer.curve(x)[0] if way == "formula" else call(layer, x[:, np.newaxis])[:, 0]
        exact = scipys(x.astype("float64"), c, base and 1.0, degree, grid_range)
        np.testing.assert_allclose(y, exact, atol=2e-5)  # a few roundings of numbers below 30
    assert way == "formula" or layer.path == "kernel"


@pytest.mark.tensorflow  # float64
@every_kind
def test_all_derivatives_equal_differences_of_scipys(degree, base):
    rng = np.random.default_rng(1)
    c, grid_range = rng.normal(size=5 + degree), (-2, 1.5)
    weight = np.array([0.7]) if base else None
    x = np.array([-5, -2.3, -1.9, -1, -0.2, 0.4, 0.9, 1.45, 1.6, 4])
    wide = [np.repeat(p[:, np.newaxis], x.size, axis=1) for p in (c, *([weight] if base else []))]

    def ours(x, c, *weight):
        return bspline(x, c, weight[0] if weight else None, degree, grid_range)

    _, (by_x, by_c, *by_weight) = gradients(ours, x, *wide)
    arguments, step = (weight and weight[0] if base else None, degree, grid_range), 1e-5
    for j in range(len(c)):
        unit = np.eye(len(c))[j]
        above, below = (scipys(x, c + h * unit, *arguments) for h in (step, -step))
        # Linear in each: what is left is the slope of SciPy's right end, taken beside it.
        np.testing.assert_allclose(by_c[j], (above - below) / (2 * step), atol=1e-7)
    above, below = (scipys(x + h, c, *arguments) for h in (step, -step))
    np.testing.assert_allclose(by_x, (above - below) / (2 * step), atol=1e-7)
    if base:
        np.testing.assert_allclose(by_weight[0][0], x * expit(x), rtol=1e-12)


def test_the_splines_sum_to_one_and_are_these_polynomials():
    for degree in (1, 2, 3):
        t = np.linspace(0, 1, 9)
        np.testing.assert_allclose(sum(basis(t, degree)), 1, rtol=1e-15)
        for spline, row in zip(basis(t, degree), basis_polynomials(degree), strict=True):
            np.testing.assert_allclose(
                spline, sum(float(c) * t**k for k, c in enumerate(row)), atol=1e-15
            )
    # The cubic ones at a knot: 1/6, 4/6, 1/6, 0.
    np.testing.assert_allclose(basis(0.0, 3), [1 / 6, 4 / 6, 1 / 6, 0], atol=1e-15)


def test_a_coefficient_moves_the_function_near_its_knots_only():
    layer = BSpline(8, base=None, initial=(0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0), grid_range=(-4, 4))
    # A hump of width 4 around 0, 2/3 high, and nothing outside.
    np.testing.assert_allclose(
        layer.curve([-9, -2, -1, 0, 1, 2, 9]), [[0, 0, 1 / 6, 2 / 3, 1 / 6, 0, 0]], atol=1e-6
    )


@every_kind
@settings(max_examples=20)  # a few hundred small operations each
@given(
    x=arrays("float32", 4, elements=NUMBERS),
    c=arrays("float32", (6, 4), elements=NUMBERS),
    weight=arrays("float32", (1, 4), elements=NUMBERS),
)
def test_values_over_the_whole_float_range(degree, base, x, c, weight):
    def ours(x, c, weight):
        return bspline(x, c, weight if base else None, degree, (-3.0, 3.0))

    y, grads = gradients(ours, x, c, weight)
    assert not any(np.isnan(a).any() for a in (y, *grads))
    for i in range(4):
        own, w = c[:, i].astype("float64"), weight[0, i] if base else None
        exact = scipys(np.float64(x[i]), own, w and np.float64(w), degree, (-3, 3))
        beyond = max(abs(float(x[i])) - 3, 0)
        error = 1e-5 * (abs(own).max() * (1 + beyond) + abs(float(w or 0)) * max(float(x[i]), 1))
        if abs(exact) + error <= MAX:
            assert abs(y[i] - exact) <= error + 1e-37


def test_infinities_and_nan():
    x = np.float32([-np.inf, np.inf, np.nan])
    layer = BSpline()
    for y in (layer.curve(x)[0], call(layer, x)):
        np.testing.assert_array_equal(y, [0, MAX, np.nan])


def test_parameters_for_each_group():
    for base, count in (("silu", 12), (None, 11)):
        layer = BSpline(base=base, sharing="channel")
        layer.build((None, 5, 3))
        assert layer.count_params() == 3 * count


def test_it_learns_a_wave():
    x = np.linspace(-3, 3, 256, dtype="float32")[:, np.newaxis]
    model = keras.Sequential([keras.Input((1,)), BSpline()])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, np.sin(2 * x), epochs=80, batch_size=64, verbose=0)
    assert model.evaluate(x, np.sin(2 * x), verbose=0) < 5e-3


def test_formula_is_a_polynomial_and_powers_of_hinges():
    assert BSpline().formula() == "f(x) = 1 x sigmoid(x)"
    layer = BSpline(2, 2, (-1, 1), base=None, initial=(0, 0, 0, 2))
    # The right half of the last hump: x² up to 1, then a line of slope 2.
    assert layer.formula() == "f(x) = 1 x^2 - 1 max(0, 0 - x)^2 - 1 max(0, x - 1)^2"


def test_its_kernel_takes_as_many_parts_as_it_says():
    assert BSpline(64).path == "kernel" and "1 to 64 intervals" in BSpline(65).path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": 0}, "grid=0"),
        ({"grid": 1001}, "from 1 to 1000.*grid=1001"),
        ({"grid": 1.5}, r"grid=1\.5"),
        ({"degree": 4}, r"one of \(1, 2, 3\).*degree=4"),
        ({"degree": True}, "degree=True"),
        ({"base": "relu"}, "base='relu'"),
        ({"grid_range": (1, 0)}, r"`grid_range` must be two increasing.*\(1, 0\)"),
        ({"initial": (1, 2)}, r"11 finite coefficients.*initial=\(1, 2\)"),
        ({"initial": "rleu"}, "Unknown activation.*'rleu'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        BSpline(**arguments)
