import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import keras_learnact as kla
from keras_learnact.layers.pwlu import NARROWEST, PWLU, pwlu
from tests.numeric import call, gradients

EPSILON, MAX = float(np.finfo("float32").eps), float(np.finfo("float32").max)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


def column(*numbers, dtype="float32"):
    return np.array(numbers, dtype)[:, np.newaxis]


def papers(x, values, boundaries, slopes):
    """The paper's Eq. 1 for one x, in float64."""
    (low, high), n = boundaries, len(values) - 1
    if x < low:
        return (x - low) * slopes[0] + values[0]
    if x >= high:
        return (x - high) * slopes[1] + values[n]
    d = (high - low) / n
    j = min(int((x - low) // d), n - 1)
    return (x - (low + j * d)) * (values[j + 1] - values[j]) / d + values[j]


def a_sample(rng, n=5):
    values, slopes = rng.normal(size=n + 1), rng.normal(size=2)
    return values, np.sort(rng.normal(size=2, scale=2)), slopes


def test_it_starts_as_relu_everywhere():
    x = np.float32([-300, -3, -1.7, 0, 0.2, 3, 40])
    np.testing.assert_allclose(PWLU().curve(x), [np.maximum(x, 0)], rtol=1e-6)
    assert PWLU(3).curve(x)[0][[0, 1, -2, -1]] == pytest.approx([0, 0, 3, 40])  # between: a line


def test_values_at_places_and_lines_between_them():
    layer = PWLU(2, initial=((1, 0, 4), (-2, 0.5)), initial_boundaries=(-1, 3))
    # Places at -1, 1 and 3. Below -1 the slope is -2, above 3 it is 1/2.
    np.testing.assert_allclose(
        layer.curve([-2, -1, 0, 1, 2, 3, 5]), [[3, 1, 0.5, 0, 2, 4, 5]], atol=1e-6
    )


def test_it_starts_as_any_function_and_goes_on_as_a_line():
    layer = PWLU(32, initial="tanh", initial_boundaries=(-2, 2))
    x = np.linspace(-2, 2, 33, dtype="float32")
    np.testing.assert_allclose(layer.curve(x)[0], np.tanh(x), atol=2e-6)
    squared = PWLU(4, initial=np.square, initial_boundaries=(0, 4)).parameters()
    np.testing.assert_allclose(squared["values"], [[0, 1, 4, 9, 16]], rtol=1e-6)
    np.testing.assert_allclose(squared["slopes"], [[-1, 9]], rtol=1e-6)  # (0 - 1) and (25 - 16)


@pytest.mark.parametrize("way", ["formula", "kernel"])
def test_it_computes_the_papers_equation(way):
    rng = np.random.default_rng(0)
    for _ in range(5):
        values, boundaries, slopes = a_sample(rng)
        layer = PWLU(5, initial=(values, slopes), initial_boundaries=boundaries)
        x = np.append(rng.normal(size=100, scale=3), boundaries).astype("float32")
        y = layer.curve(x)[0] if way == "formula" else call(layer, x[:, np.newaxis])[:, 0]
        exact = [papers(p, values, layer.parameters()["boundaries"][0], slopes) for p in x]
        # A few roundings of numbers of about 10, over intervals of at least a tenth.
        np.testing.assert_allclose(y, exact, atol=2e-5)


@pytest.mark.tensorflow  # float64
def test_all_derivatives_equal_differences_of_the_papers_equation():
    rng = np.random.default_rng(1)
    values, boundaries, slopes = a_sample(rng)
    x = np.append(boundaries - [1, -1], np.linspace(*boundaries, 13)[1:-1] + 0.01)
    wide = [np.repeat(p[:, np.newaxis], x.size, axis=1) for p in (values, boundaries, slopes)]
    _, grads = gradients(pwlu, x, *wide)
    point, step = np.concatenate([values, boundaries, slopes]), 1e-6

    def value(t, i):
        p = point.copy()
        p[i] += t
        return np.array([papers(at, p[:6], p[6:8], p[8:]) for at in x])

    by_parameters = np.concatenate(grads[1:])
    for i in range(len(point)):
        expected = (value(step, i) - value(-step, i)) / (2 * step)
        # The rounding of numbers of about 3, over 2e-6.
        np.testing.assert_allclose(by_parameters[i], expected, atol=1e-8)
    above, below = (
        np.array([papers(at + h, values, boundaries, slopes) for at in x]) for h in (step, -step)
    )
    expected = (above - below) / (2 * step)
    np.testing.assert_allclose(grads[0], expected, atol=1e-8)


def test_where_lines_meet_the_derivative_is_that_of_the_right_one():
    x = np.float32([-1, 1, 3])
    arguments = [np.repeat(column(*p), 3, axis=1) for p in ((1, 0, 4), (-1, 3), (-2, 0.5))]
    _, (by_x, _, by_boundaries, _) = gradients(pwlu, x, *arguments)
    np.testing.assert_allclose(by_x, [-0.5, 2, 0.5])
    # The one that is there moves its value along; in the middle each moves x by a half.
    np.testing.assert_allclose(by_boundaries, [[0.5, -1, 0], [0, -1, -0.5]])


def test_boundaries_that_cross_change_places_with_their_derivatives():
    x = np.linspace(-4, 4, 33, dtype="float32")
    values, slopes = (np.repeat(column(*p), 33, axis=1) for p in ((1, -1, 0, 2), (0.5, -1)))
    boundaries = np.repeat(column(-2, 1), 33, axis=1)
    y, (_, _, by_boundaries, _) = gradients(pwlu, x, values, boundaries, slopes)
    crossed, (_, _, by_crossed, _) = gradients(pwlu, x, values, boundaries[::-1], slopes)
    np.testing.assert_array_equal(crossed, y)
    np.testing.assert_array_equal(by_crossed, by_boundaries[::-1])


@pytest.mark.parametrize("way", ["formula", "kernel"])
def test_boundaries_that_meet_are_a_steep_line_apart_and_can_part(way):
    layer = PWLU(2, initial=((-1, 0, 1), (2, 3)), initial_boundaries=(0, 1))
    layer.boundaries.assign([[0, 0]])
    x = np.float32([-1, 0, NARROWEST / 2, NARROWEST, 1])
    y = layer.curve(x)[0] if way == "formula" else call(layer, x[:, np.newaxis])[:, 0]
    np.testing.assert_allclose(y, [-3, -1, 0, 1, 4], rtol=1e-5)
    boundaries = np.zeros((2, 5), "float32")
    values, slopes = (np.repeat(p.T, 5, axis=1) for p in (*layer.parameters().values(),)[::2])
    _, (by_x, _, (by_left, by_right), _) = gradients(pwlu, x, values, boundaries, slopes)
    np.testing.assert_allclose(by_x, [2, 2 / NARROWEST, 2 / NARROWEST, 3, 3])
    np.testing.assert_allclose(by_left, -by_x)  # the smaller one, the left one, moves everything
    np.testing.assert_array_equal(by_right, 0)


@pytest.mark.parametrize("way", ["formula", "kernel"])
def test_boundaries_between_which_float32_has_no_number_are_a_step(way):
    layer = PWLU(2, initial=((1, 5, 2), (0, 3)), initial_boundaries=(0, 1))
    layer.boundaries.assign([[-32, -32]])
    x = np.float32([-33, -32, -31])
    y = layer.curve(x)[0] if way == "formula" else call(layer, x[:, np.newaxis])[:, 0]
    np.testing.assert_array_equal(y, [1, 2, 5])


def test_parameters_for_each_group():
    layer = PWLU(4, sharing="channel")
    layer.build((None, 7, 3))
    assert layer.count_params() == 3 * (5 + 2 + 2) + 1  # and `frozen`


def test_realigned_it_starts_anew_between_other_boundaries_of_each_group():
    layer = PWLU(4, sharing="channel")
    layer.build((None, 2))
    layer.values.assign(np.ones((2, 5)))
    layer.realign([[-4, 4], [-1, 7]])
    parameters = layer.parameters()
    np.testing.assert_array_equal(parameters["boundaries"], [[-4, 4], [-1, 7]])
    np.testing.assert_array_equal(parameters["values"], [[0, 0, 0, 2, 4], [0, 1, 3, 5, 7]])
    np.testing.assert_array_equal(parameters["slopes"], [[0, 1], [0, 1]])
    layer.realign((-2, 2))
    np.testing.assert_array_equal(layer.parameters()["values"], 2 * [[0, 0, 0, 1, 2]])
    with pytest.raises(ValueError, match=r"`boundaries` must be two increasing.*\[2\.0, 2\.0\]"):
        layer.realign((2, 2))
    with pytest.raises(ValueError, match="no parameters yet"):
        PWLU(sharing="channel").realign((-2, 2))


@settings(max_examples=20)  # a few hundred small operations each
@given(
    x=arrays("float32", 4, elements=NUMBERS),
    values=arrays("float32", (4, 4), elements=NUMBERS),
    boundaries=arrays("float32", (2, 4), elements=NUMBERS),
    slopes=arrays("float32", (2, 4), elements=NUMBERS),
)
def test_values_over_the_whole_float_range(x, values, boundaries, slopes):
    y, grads = gradients(pwlu, x, values, boundaries, slopes)
    assert not any(np.isnan(a).any() for a in (y, *grads))
    for i in range(4):
        v, b, s = (a[:, i].astype("float64") for a in (values, np.sort(boundaries, 0), slopes))
        if b[1] - b[0] < 2 * NARROWEST:
            continue  # float32 knows no numbers between such boundaries
        exact = papers(float(x[i]), v, b, s)
        # The place of x in units of an interval, and a few roundings of each term.
        beyond = max(b[0] - x[i], x[i] - b[1], 0)
        error = 32 * EPSILON * (abs(v).max() + abs(s).max() * beyond)
        if abs(exact) + error <= MAX:
            assert abs(y[i] - exact) <= error + 1e-37


def test_infinities_and_nan():
    layer = PWLU(initial="tanh")
    layer.slopes.assign([[0, 0]])
    x = np.float32([-np.inf, np.inf, np.nan])
    for y in (layer.curve(x)[0], call(layer, x)):
        np.testing.assert_allclose(y, [-np.tanh(3), np.tanh(3), np.nan], rtol=1e-5)


def test_it_learns_a_function_of_several_kinks():
    x = np.linspace(-2, 2, 256, dtype="float32")[:, np.newaxis]
    y = abs(abs(x) - 1)
    model = keras.Sequential([keras.Input((1,)), PWLU(8, initial_boundaries=(-2, 2))])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, y, epochs=60, batch_size=64, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 1e-3


def test_formula_is_a_sum_of_hinges_around_the_middle():
    layer = PWLU(2, initial=((1, 0, 4), (-2, 0.5)), initial_boundaries=(-1, 3))
    assert layer.formula() == (
        "f(x) = 0 - 0.5 (x - 1) + 1.5 max(0, -1 - x) + 2.5 max(0, x - 1) - 1.5 max(0, x - 3)"
    )


def test_bounds_are_its_exact_turns():
    layer = PWLU(2, initial=((1, 0, 4), (-2, 0.5)), initial_boundaries=(-1, 3))
    (extrema,) = layer.extrema(-2, 5)
    assert [(e.x, e.value, e.kind) for e in extrema] == [(1, 0, "minimum")]
    np.testing.assert_allclose(layer.lipschitz(-0.9, 4), [2], rtol=1e-6)


def test_its_kernel_takes_as_many_intervals_as_it_says():
    assert PWLU(64).path == "kernel" and "1 to 64 intervals. Received: 65" in PWLU(65).path
    kla.PWLU(65)(np.ones((2, 3), "float32"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_intervals": 0}, "num_intervals=0"),
        ({"num_intervals": True}, "num_intervals=True"),
        ({"initial_boundaries": (1, 1)}, r"`initial_boundaries` .*increasing.*\(1, 1\)"),
        ({"initial_boundaries": 3}, "increasing.*Received: 3"),
        ({"initial": "rleu"}, "Unknown activation.*'rleu'"),
        ({"initial": 0.5}, r"a name, a callable, or numbers.*initial=0\.5"),
        ({"initial": ((1, 2), (0, 1))}, r"17 values and 2 slopes.*initial=\(\(1, 2\), \(0, 1\)\)"),
        ({"initial": ("relu", 3)}, "17 values and 2 slopes"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PWLU(**arguments)
