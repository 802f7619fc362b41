"""DEU: the table of its rows, its equation, what happens at D = 0, its guards and its start."""

import functools
import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.integrate import solve_ivp

from keras_learnact.layers.deu import BAND, DEU, deu
from tests.numeric import call, gradients

# (a, b, c) of every row of the table, with every sign that matters.
ROWS = [
    (0, 0, 0),
    (0, 0, 2),
    (0, 0, -2),
    (0, 2, 0),
    (0, -2, 0),
    (0, 2, 0.5),
    (0, -2, 0.5),
    (2, 0, 0),
    (-2, 0, 0),
    (2, 0, 1),
    (-2, 0, -1),
    (2, 0, -1),
    (-2, 0, 1),
    (2, 1, 0),
    (2, -1, 0),
    (-2, 1, 0),
    (1, 1, 2),
    (-1, 1, -2),
    (1, -1, 2),
    (0.25, 1, 1),
    (-0.25, 1, -1),
    (1, -2, 1),
    (1, 3, 2),
    (1, -3, 2),
    (-1, 3, -2),
    (1, 2.2, 1),
    (1, 3, -2),
    (-1, 3, 2),
]
CONSTANTS = (0.5, -0.25)
X = np.array([-4, -2.5, -1, -0.3, -0.02, 0.02, 0.1, 0.4, 1, 1.7, 2.5, 4], "float32")
UNGUARDED = {"max_exponent": None, "limit": None}
HAS_FLOAT64 = keras.backend.backend() != "jax"  # JAX has none unless its 64-bit mode is on
DTYPE = "float64" if HAS_FLOAT64 else "float32"
MAX = float(np.finfo("float32").max)


def table(x, a, b, c, c1, c2):
    """The paper's table, row by row, in NumPy's float64."""
    x = np.asarray(x, "float64")
    h, d = x > 0, b * b - 4 * a * c
    if a == b == c == 0:
        return x
    if a == b == 0:
        return 1 / (c * (1 + np.exp(-100 * x)))
    if a == c == 0:
        return x * h / b + c1
    if a == 0:
        return c1 * np.exp(-c * x / b) + h * (1 - np.exp(-c * x / b)) / c
    if b == c == 0:
        return x**2 * h / (2 * a) + c1 * x + c2
    if b == 0 and a * c > 0:
        w = np.sqrt(a * c) / a
        return c1 * np.cos(w * x) + c2 * np.sin(w * x) + h * (1 - np.cos(w * x)) / c
    if b == 0:
        w = np.sqrt(-a * c) / a
        return c1 * np.exp(-w * x) + c2 * np.exp(w * x) + h * (1 - np.cosh(w * x)) / c
    if c == 0:
        e = np.exp(-b * x / a)
        return h * x / b - a * h * (1 - e) / b**2 - (a * c1 / b) * e + c2
    if d < 0:
        s = np.sqrt(-d)
        phi, e = s * x / (2 * a), np.exp(-b * x / (2 * a))
        free = e * (c1 * np.cos(phi) + c2 * np.sin(phi))
        return free + h / c * (1 - e * (np.cos(phi) + b / s * np.sin(phi)))
    if d == 0:
        r = 2 * c / b
        return np.exp(-r * x) * (c1 * x + c2) + h / c * (1 - np.exp(-r * x) * (1 + r * x))
    s = np.sqrt(d)
    p, q = np.exp((-b + s) * x / (2 * a)), np.exp(-(b + s) * x / (2 * a))
    return c1 * q + c2 * p + h / c * (1 - ((b + s) * p + (s - b) * q) / (2 * s))


def evaluate(parameters, x=X, dtype=DTYPE, **guards):
    """f and its derivatives by x, a, b, c, c1, c2, each element with parameters of its own."""
    columns = np.broadcast_arrays(*(np.asarray(v, dtype) for v in (x, *parameters)))
    shape, size = columns[0].shape, columns[0].size
    # One size for all: XLA would compile every other one anew.
    padded = [np.pad(v.ravel(), (0, 512 - size)) for v in columns]
    y, derivatives = gradients(lambda *v: deu(*v, **guards), *padded)
    return y[:size].reshape(shape), [v[:size].reshape(shape) for v in derivatives]


@functools.cache
def of_every_row(dtype):
    columns = np.array([(*row, *CONSTANTS) for row in ROWS], dtype).T[:, :, None]
    y, derivatives = evaluate(columns, X[None], dtype, **UNGUARDED)
    return dict(zip(ROWS, y, strict=True)), dict(
        zip(ROWS, np.swapaxes(derivatives, 0, 1), strict=True)
    )


every_row = pytest.mark.parametrize("row", ROWS, ids=str)


@every_row
def test_every_row_is_the_tables(row):
    expected = table(X, *row, *CONSTANTS)
    # A few roundings of exponentials of up to e^14, at exponents that are rounded themselves.
    np.testing.assert_allclose(of_every_row("float32")[0][row], expected, rtol=1e-5, atol=1e-6)
    if HAS_FLOAT64:
        y = of_every_row("float64")[0][row]
        np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-14)


@every_row
def test_every_row_solves_its_equation(row):
    a, b, c = row
    if a == b == 0:
        pytest.skip("no differential equation")
    y = of_every_row(DTYPE)[0][row]
    # From f(0) and f′(0-), which the table's free part gives, to either side.
    at, before, earlier = (table(x, *row, *CONSTANTS).item() for x in (0.0, -1e-5, -2e-5))
    start = [at, (3 * at - 4 * before + earlier) / 2e-5]
    for side, step in ((X < 0, 0.0), (X > 0, 1.0)):
        x, values = X[side].astype("float64"), y[side]
        order = np.argsort(abs(x))

        def change(_, y, step=step):
            if a == 0:
                return [(step - c * y[0]) / b]
            return [y[1], (step - b * y[1] - c * y[0]) / a]

        solution = solve_ivp(
            change,
            (0, x[order][-1]),
            start[: 1 if a == 0 else 2],
            t_eval=x[order],
            rtol=1e-10,
            atol=1e-10,
        )
        # Where the equation is unstable it multiplies the solver's errors by up to e^14.
        np.testing.assert_allclose(values[order], solution.y[0], rtol=2e-5, atol=1e-4)


@every_row
def test_every_derivative_is_the_tables_difference(row):
    parameters = [*row, *CONSTANTS]
    if row[1] ** 2 == 4 * row[0] * row[2] != 0:
        pytest.skip("D = 0: see the closed forms below")
    step = 1e-6
    for k, derivative in enumerate(of_every_row(DTYPE)[1][row]):
        if 0 < k < 4 and row[k - 1] == 0:
            np.testing.assert_array_equal(derivative, 0)  # it counts as 0, whatever it is
            continue
        shifted = []
        for sign in (1, -1):
            values = [X.astype("float64"), *parameters]
            values[k] = values[k] + sign * step
            shifted.append(table(*values))
        expected = (shifted[0] - shifted[1]) / (2 * step)
        # Two roundings of f over 2 step; step² times a third derivative, 100³ in the smoothed step.
        allowed = 1e-9 * abs(shifted[0]) + 1e-6 + 1e-5 * abs(expected)
        if not HAS_FLOAT64:
            allowed = allowed + 2e-5 * (1 + abs(expected))
        assert np.all(abs(derivative - expected) <= allowed), (k, derivative, expected)


@pytest.mark.parametrize("a, b, c", [(0.25, 1, 1), (1, 2, 1), (-1, 2, -1), (0.5, -1, 0.5)])
def test_derivatives_at_d_zero_are_the_true_ones(a, b, c):
    x = X[X > 0].astype("float64")
    _, (_, by_a, by_b, by_c, _, _) = evaluate((a, b, c, 0, 0), x)
    e, z = np.exp(-b * x / (2 * a)), b * x / (2 * a)
    # float32 rounds the sum of a few terms of this size.
    close = {"rtol": 1e-11, "atol": 1e-13} if HAS_FLOAT64 else {"rtol": 2e-5, "atol": 2e-6}
    np.testing.assert_allclose(by_a, x**2 * (b * x - 6 * a) * e / (12 * a**3), **close)
    np.testing.assert_allclose(by_b, -(x**3) * e / (6 * a**2), **close)
    bracket = 1 - (1 + z + z**2 / 2 + z**3 / 6) / np.exp(z)
    np.testing.assert_allclose(by_c, -bracket / c**2, **close)


def test_nothing_jumps_where_d_passes_zero():
    # c = 1 + k/100000 with a = 1, b = 2: D = -4 k/100000, from the one sign to the other.
    c = 1 + np.arange(-100, 101) / 1e5
    for x in (-3.0, 0.5, 3.0, 20.0):
        y, derivatives = evaluate((1, 2, c, 0, 0), np.full(c.shape, x))
        for values in (y, *derivatives[:4]):
            # Every derivative by c is below 2.1 here; the rest is float32's rounding.
            limit = 2.1e-5 + (0 if HAS_FLOAT64 else 4e-6)
            assert np.max(np.abs(np.diff(values))) < limit


@pytest.mark.parametrize("c1, c2", [(1, 0), (0, 1), (-0.7, 2)])
@pytest.mark.parametrize("a", [1, -1])
def test_the_constants_pass_from_basis_to_basis_without_a_jump(a, c1, c2):
    # D / (b² + 4ac) = (1 - c) / (1 + c): the band is |c - 1| < 0.02.
    c = a * (1 + np.linspace(-0.03, 0.03, 501))
    y, derivatives = evaluate((a, 2, c, c1, c2), np.full(c.shape, 0.5))
    # The weights rise with a slope of at most 15/8 over half the band: 167 steps.
    steepest = 15 / 8 * (abs(c1) + abs(c2)) * 2 / 167
    assert np.max(np.abs(np.diff(y))) < 2 * steepest
    # Their second derivative is at most 5.8.
    for k in (1, 2, 3):
        jump = np.max(np.abs(np.diff(derivatives[k])))
        assert jump < 2 * 5.8 * (abs(c1) + abs(c2)) * 2 / 167 * 2 / BAND
    for at in (0, 250, -1):
        expected = table(0.5, a, 2, c[at] if at else a * 0.97, c1, c2)
        np.testing.assert_allclose(y[at], expected, rtol=1e-5)


def test_f_solves_the_equation_within_the_band_too():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 512)
    a, b = rng.uniform(0.3, 2, 512), rng.uniform(0.5, 2, 512) * rng.choice([-1, 1], 512)
    # D / (b² + 4ac) = position · BAND
    position = rng.uniform(-1.2, 1.2, 512)
    c = b * b / (4 * a) * (1 - position * BAND) / (1 + position * BAND)
    c1, c2 = rng.normal(size=(2, 512))
    x, *numbers = (v.astype(DTYPE) for v in (x, a, b, c, c1, c2))

    def f(x):
        return deu(x, *numbers, **UNGUARDED)

    y, (slope,) = gradients(f, x)
    _, (curvature,) = gradients(lambda x: slope_of(f, x), x)
    a, b, c = (v.astype("float64") for v in numbers[:3])
    residual = a * curvature + b * slope + c * y - (x > 0)
    size = abs(a * curvature) + abs(b * slope) + abs(c * y) + 1
    # A few roundings in the second derivative of a series.
    assert np.max(abs(residual) / size) < (1e-13 if HAS_FLOAT64 else 1e-4)


def slope_of(f, x):
    """df/dx as a tensor, so that it can be differentiated again."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = f(x)
        return tape.gradient(y, x)
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(lambda x: f(x).sum())(x)
    import torch

    return torch.autograd.grad(f(x).sum(), x, create_graph=True)[0]


def test_a_small_c_costs_no_digits():
    # f = x²/2 - c x⁴/24 + …: (1 - cos(x √c)) / c would lose four of float32's seven digits.
    x = np.array([0.1, 0.2, 0.3], "float32")
    y, derivatives = evaluate((1, 0, 0.01, 0, 0), x, dtype="float32")
    np.testing.assert_allclose(y, x**2 / 2 - 0.01 * x**4 / 24, rtol=1e-6)
    np.testing.assert_allclose(derivatives[3], -(x**4) / 24 + 0.01 * x**6 / 360, rtol=1e-6)


def test_b_alone_is_relu_exactly():
    rng = np.random.default_rng(0)
    x = np.concatenate([[0, -0.0, 1000, -1000], rng.normal(size=200) * 300]).astype("float32")
    x = np.clip(x, -1000, 1000)
    layer = DEU(initial=(0, 1, 0, 0, 0), sharing="layer")
    np.testing.assert_array_equal(call(layer, x), np.maximum(x, 0))
    _, (slope,) = gradients(layer, x)
    np.testing.assert_array_equal(slope[abs(x) < 1000], x[abs(x) < 1000] > 0)
    assert layer.formula() == "f(x) = x H(x)"


def test_without_a_limit_b_alone_is_relu_everywhere():
    x = np.array([-MAX, -1e20, -1e-30, 0, 1e-30, 1e4, 1e20, MAX], "float32")
    layer = DEU(initial=(0, 1, 0, 0, 0), sharing="layer", limit=None)
    np.testing.assert_array_equal(call(layer, x), np.maximum(x, 0))


def test_exponentials_stop_at_the_largest_exponent_and_f_at_the_limit():
    x = np.array([1, 13, 15, 1e30], "float32")

    # y′ = y + H from y(0) = 1: e^x for x < 0, 2 e^x - 1 for x > 0.
    y, _ = evaluate((0, 1, -1, 1.0, 0), -x, dtype="float32")
    np.testing.assert_allclose(y[:3], np.exp(-x[:3]), rtol=1e-6)
    assert 0 <= y[3] < 1e-20
    y, derivatives = evaluate((0, 1, -1, 1.0, 0), x, dtype="float32")
    np.testing.assert_allclose(y, [2 * np.e - 1, 1000, 1000, 1000], rtol=1e-6)
    np.testing.assert_array_equal(derivatives[0][1:], 0)
    y, _ = evaluate((0, 1, -1, 1.0, 0), x, dtype="float32", limit=None)
    np.testing.assert_allclose(y[1], 2 * np.exp(13) - 1, rtol=1e-5)
    np.testing.assert_allclose(y[2:], 2 * np.exp(14) - 1, rtol=1e-5)
    y, _ = evaluate((0, 1, -1, 1.0, 0), x, dtype="float32", limit=2.5, max_exponent=0.5)
    np.testing.assert_allclose(y, np.minimum(2 * np.exp(0.5) - 1, 2.5), rtol=1e-6)


def test_a_guarded_exponential_does_not_turn_around():
    # Both exponents grow: their difference must not vanish or change its sign at the guard.
    x = np.linspace(0, 60, 121)
    y, _ = evaluate((1, -3, 2, 0, 0), x)
    assert np.all(np.diff(y) >= 0) and y[-1] == 1000
    y, _ = evaluate((1, -3, 2, 0, 0), x, limit=None)
    assert np.all(np.diff(y) >= 0)


def test_a_coefficient_below_epsilon_counts_as_zero():
    x = np.array([-1.0, 0.5, 2.0], "float32")
    y, derivatives = evaluate((0.009, 1, -0.009, 0, 0), x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(derivatives[1], 0)
    np.testing.assert_array_equal(derivatives[3], 0)
    y, _ = evaluate((0.009, 1, -0.009, 0, 0), x, epsilon=0.001)
    np.testing.assert_allclose(y, table(x, 0.009, 1, -0.009, 0, 0), rtol=2e-5)
    # Exactly epsilon does not count as 0: c1 is a factor of e^(-x/100), not added to x.
    y, _ = evaluate((0, 1, 0.01, 1, 0), x)
    np.testing.assert_allclose(y, table(x, 0, 1, 0.01, 1, 0), rtol=2e-6)


numbers = st.one_of(
    st.floats(-MAX, MAX, width=32),
    st.floats(-8, 8, width=32),
    st.sampled_from([0.0, 1.0, -1.0, 0.01, MAX, -MAX, 1e-40, 1e19]),
)


@settings(max_examples=40)
@given(st.lists(st.tuples(*[numbers] * 6), min_size=1, max_size=50), st.booleans())
def test_no_value_or_derivative_is_nan_for_any_parameters(columns, guarded):
    first = columns[0][1:]  # also at the ends of the line
    columns = [*columns, *((x, *first) for x in (np.inf, -np.inf, MAX, -MAX, 0.0))]
    x, *parameters = np.array(columns, "float32").T
    guards = {} if guarded else UNGUARDED
    y, derivatives = evaluate(parameters, x, dtype="float32", **guards)
    for values in (y, *derivatives):
        assert not np.isnan(values).any(), columns[int(np.argmax(np.isnan(values)))]
    if guarded:
        assert np.max(np.abs(y)) <= 1000
        for values in derivatives[1:]:  # each has a bound: f's, times an exponent, over a size
            assert np.isfinite(values).all()


def test_compiled_by_xla_extreme_sizes_give_no_nan_either():
    # XLA makes (u / v) / w a u / (v w), which may overflow where the former does not.
    rng = np.random.default_rng(0)
    sizes = 10.0 ** np.concatenate([rng.uniform(-2, 38.5, 2048), rng.uniform(-2, 1, 1024)])
    numbers = rng.choice([-1, 0, 1, 1], 3072) * np.minimum(rng.permutation(sizes), MAX)
    columns = list(numbers.astype("float32").reshape(6, 512))
    for values in compiled(lambda *v: gradients_of(deu, v))(*columns):
        assert not np.isnan(values).any()


def gradients_of(function, arguments):
    """Value and gradients as tensors, so that they can be compiled."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arguments)
            y = function(*arguments)
        return [y, *tape.gradient(y, arguments)]
    import jax

    positions = tuple(range(len(arguments)))
    total = jax.grad(lambda *v: function(*v).sum(), positions)
    return [function(*arguments), *total(*arguments)]


def compiled(function):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(function, jit_compile=True)
        return lambda *v: [y.numpy() for y in graph(*map(tf.constant, v))]
    import jax

    return lambda *v: [np.asarray(y) for y in jax.jit(function)(*v)]


def test_nan_in_is_nan_out():
    for k in range(6):
        values = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
        values[k] = np.nan
        y, _ = evaluate(values[1:], np.array([values[0], 2.0], "float32"))
        np.testing.assert_array_equal(np.isnan(y), [True, k > 0])


@pytest.mark.parametrize("shape", [(5, 4, 3), (2, 5, 4, 3)])
def test_each_unit_of_any_rank_has_its_own_equation(shape):
    layer = DEU()
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    y = call(layer, x)
    assert layer.groups == np.prod(shape[1:])
    p = {name: value.reshape(shape[1:]) for name, value in layer.parameters().items()}
    for index in np.ndindex(*shape[1:]):
        values = [float(p[name][index]) for name in ("a", "b", "c", "c1", "c2")]
        parameters = [value if value >= 0.01 else 0 for value in values]  # epsilon
        expected = table(x[(slice(None), *index)], *parameters)
        # c may be near epsilon: the NumPy table itself divides 1 - e by c.
        np.testing.assert_allclose(y[(slice(None), *index)], expected, rtol=1e-4, atol=1e-6)


def test_it_starts_as_the_paper_says():
    def start(seed):
        keras.utils.set_random_seed(seed)
        layer = DEU()
        layer.build((None, 500))
        return layer

    layer = start(0)
    values = layer.parameters()
    for name in ("a", "b", "c"):
        # The mean of 500 numbers from [0, 1) has a standard deviation of 0.013.
        assert abs(values[name].mean() - 0.5) < 0.06
        assert values[name].min() >= 0 and values[name].max() < 1
    np.testing.assert_array_equal(values["c1"], 0)
    np.testing.assert_array_equal(values["c2"], 0)
    again, other = start(0).parameters(), start(1).parameters()
    np.testing.assert_array_equal(again["a"], values["a"])
    assert np.all(other["a"] != values["a"])
    active = np.max([values[name] for name in "ab"], axis=0)[:, 0] >= 0.01
    y, _ = evaluate([value[:, 0] for value in values.values()], -3.0)
    np.testing.assert_array_equal(y[active], 0)


def test_initial_takes_numbers_and_initializers():
    ones = keras.initializers.Ones()
    layer = DEU(initial=(2, 0.5, None, ones, "zeros"))
    layer.build((None, 3))
    values = layer.parameters()
    np.testing.assert_array_equal(values["a"], 2)
    np.testing.assert_array_equal(values["b"], 0.5)
    assert 0 <= values["c"].min() < values["c"].max() < 1
    np.testing.assert_array_equal(values["c1"], 1)
    np.testing.assert_array_equal(values["c2"], 0)
    copy = DEU.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    copy.build((None, 3))
    np.testing.assert_array_equal(copy.parameters()["c1"], 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"initial": (1, 2, 3)}, "five entries"),
        ({"initial": 1.0}, "five entries"),
        ({"initial": (1, 2, 3, 4, "no_such")}, "None for c2. Received: 'no_such'"),
        ({"initial": (float("nan"), 2, 3, 4, 5)}, "finite number.* for a. Received: nan"),
        ({"epsilon": 0}, "epsilon=0"),
        ({"max_exponent": -1}, "max_exponent=-1"),
        ({"limit": 0}, "limit=0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DEU(**arguments)


@every_row
@pytest.mark.parametrize("constants", [(0, 0), CONSTANTS], ids=str)
def test_the_formula_evaluates_to_the_curve(row, constants):
    layer = DEU(initial=(*row, *constants), sharing="layer", **UNGUARDED)
    # Six digits are printed, of terms up to e^14 that may cancel.
    np.testing.assert_allclose(value_of(layer), layer.curve(X)[0], rtol=1e-3, atol=2e-4)


def value_of(layer):
    """The text of the layer's formula evaluated at X."""
    text = layer.formula().removeprefix("f(x) = ").replace("^", "**")
    product = re.sub(r"(?<=[\dx)]) (?=[a-zH(])", "*", text)
    names = {name: getattr(np, name) for name in ("exp", "sin", "cos")}
    x = X.astype("float64")
    return eval(product, {"x": x, "H": lambda x: np.where(x > 0, 1, 0), **names}) + 0 * x


def test_within_the_band_the_formula_evaluates_to_the_curve_too():
    for c in (0.99, 0.9999, 1.0001, 1.01):
        layer = DEU(initial=(1, 2, c, *CONSTANTS), sharing="layer")
        # Six digits of two terms with factors of up to 1 / root = 100 that cancel.
        np.testing.assert_allclose(value_of(layer), layer.curve(X)[0], rtol=1e-2, atol=2e-3)


def test_float16_at_300_is_finite_and_float32s():
    x = np.array([[-300, -1, 0.5, 300]] * 2, "float32")
    half, single = DEU(dtype="mixed_float16"), DEU()
    half.build(x.shape)
    single.build(x.shape)
    for name, value in half.parameters().items():
        getattr(single, name).assign(value)
    y = call(half, x.astype("float16"))
    assert y.dtype == "float16" and np.isfinite(y).all()
    np.testing.assert_array_equal(y, call(single, x).astype("float16"))


def test_a_unit_learns_the_equation_of_its_data(tmp_path):
    x = np.random.default_rng(0).uniform(-2, 6, size=(512, 1)).astype("float32")
    y = table(x, 0.5, 0.4, 0.8, 0, 0)
    model = keras.Sequential([keras.Input((1,)), DEU(initial=(1, 1, 1, 0, 0))])
    model.compile(keras.optimizers.Adam(0.03), "mse")
    history = model.fit(x, y, epochs=150, batch_size=512, verbose=0).history["loss"]
    assert history[-1] < 1e-3 * history[0]
    learned = {name: value.item() for name, value in model.layers[0].parameters().items()}
    np.testing.assert_allclose([learned[n] for n in "abc"], [0.5, 0.4, 0.8], atol=0.02)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_as_the_activation_of_dense_and_of_a_recurrent_layer_called_directly():
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype("float32")
    dense = keras.layers.Dense(8, activation=DEU())
    assert tuple(dense(x[:, 0]).shape) == (2, 8) and dense.activation.groups == 8
    recurrent = keras.layers.LSTM(4, activation=DEU())
    first = call(recurrent, x)
    assert recurrent.cell.activation.groups == 4
    np.testing.assert_array_equal(call(recurrent, x), first)
    assert ops.is_tensor(recurrent.cell.activation.a.value)
