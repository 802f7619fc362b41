"""fitting: stored starts are what they say they are, fits are the best there are."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_learnact.fitting import TABLE_6, fit, sizes, start

# Not the fit's grid: an odd number of points, with a shift that is no short fraction.
GRID = np.linspace(-3, 3, 100_001) * (1 - 1e-9)


def rational(x, numerator, denominator, version):
    """F as MATH.md writes it, term by term."""
    p = sum(a * x**j for j, a in enumerate(numerator))
    if version == "A":
        return p / (1 + sum(abs(b) * abs(x) ** k for k, b in enumerate(denominator, 1)))
    if version == "B":
        return p / (1 + abs(sum(b * x**k for k, b in enumerate(denominator, 1))))
    if version == "C":
        return p / (0.1 + abs(sum(b * x**k for k, b in enumerate(denominator))))
    return p / (1 + sum(b * x**k for k, b in enumerate(denominator, 1)))


def error(f, found, version, x=GRID):
    return rational(x, found[0], found[1], version) - f(x)


def gelu(x):
    return np.asarray(keras.ops.convert_to_numpy(keras.activations.gelu(x)), "float64")


def elu(x):
    return np.where(x > 0, x, np.expm1(x))


# Stored starts


@pytest.mark.parametrize(
    ("name", "largest"), [("sigmoid", 9.81e-7), ("tanh", 4.00e-4), ("swish", 1.36e-4)]
)
def test_stored_pade_approximants_follow_their_function(name, largest):
    found = error(TABLE_6[name].function, start(name), "A")
    assert 0.99 * largest < np.abs(found).max() <= largest


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("relu", 0.0),
        ("leaky_relu", 0.01),
        ("leaky_relu_0.2", 0.2),
        ("leaky_relu_0.25", 0.25),
        ("leaky_relu_0.3", 0.3),
        ("leaky_relu_-0.5", -0.5),
    ],
)
def test_stored_kinked_starts_are_farthest_off_at_the_kink(name, slope):
    numerator, denominator = start(name)
    found = error(lambda x: np.where(x < 0, slope * x, x), (numerator, denominator), "A")
    # The grid has the point 0, where F = a0 / 1 and f = 0.
    assert np.abs(found).max() == numerator[0] == abs(found[len(GRID) // 2]) <= 0.030


def test_the_paper_counts_leaky_relu_as_slope_0_01_and_keras_as_0_2():
    at = np.array([-3.0])
    stored = rational(at, *start("leaky_relu"), "A")
    fitted = rational(at, *start("leaky_relu", (7, 6), "B"), "B")
    of_keras = rational(at, *start(keras.activations.leaky_relu, (7, 6), "B"), "B")
    np.testing.assert_allclose([stored, fitted, of_keras], [[-0.03], [-0.03], [-0.6]], atol=0.02)


def test_a_name_can_be_spelled_in_two_ways():
    assert start("silu") == start("swish") == TABLE_6["swish"][1:]
    assert start("leaky_relu_0.20") == TABLE_6["leaky_relu_0.2"][1:]
    assert start("leaky_relu_0.01") == TABLE_6["leaky_relu"][1:]
    at = np.array([-2.0, 2.0])
    np.testing.assert_allclose(rational(at, *start("leaky_relu_0.1"), "A"), [-0.2, 2.0], atol=0.02)


def test_the_table_is_for_version_a_with_degrees_5_4():
    assert start("tanh", (5, 4), "A") == TABLE_6["tanh"][1:]
    assert start("tanh", [5, 4], "A") == TABLE_6["tanh"][1:]
    for degrees, version in [((5, 4), "B"), ((5, 3), "A"), ((3, 4), "A")]:
        assert start("tanh", degrees, version) == fit("tanh", degrees, version)[:2]


def test_explicit_coefficients_are_taken_as_they_are():
    assert start(([0, 1], [2]), (1, 1), "A") == ((0.0, 1.0), (2.0,))
    assert start((np.float32([0, 1]), np.ones(2)), (1, 1), "C") == ((0.0, 1.0), (1.0, 1.0))
    assert start(((0, 1), ()), (1, 0), "N") == ((0.0, 1.0), ())


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (([0, 1], [2, 3]), r"2 coefficients in the numerator and 1 in the denominator.*\(2,\)"),
        (([[0, 1]], [2]), r"shapes \(1, 2\) and \(1,\)"),
        (([0, 1e39], [2]), "finite in float32"),
        (([0, np.nan], [2]), "finite in float32"),
        (3, "a name, a callable, or a pair"),
        ([1.0, 2.0, 3.0], "a name, a callable, or a pair"),
        (("gelu", "relu"), "a name, a callable, or a pair"),
        ("gelo", "gelu.*Received: 'gelo'"),
        ("leaky_relu_steep", "leaky_relu.*Received: 'leaky_relu_steep'"),
    ],
)
def test_starts_that_are_none(initial, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        start(initial, (1, 1), "A")


# Best approximations that one can work out by hand


@pytest.mark.parametrize("version", "ABCN")
def test_the_best_line_through_the_modulus_is_a_half(version):
    found = fit(np.abs, (1, 0), version, (-1, 1))
    np.testing.assert_allclose(rational(GRID / 3, *found[:2], version), 0.5, atol=1e-6)
    np.testing.assert_allclose(found.max_error, 0.5, atol=1e-6)


def test_the_best_polynomials_are_chebyshevs():
    # x³ - (x³ - 3x/4) has the five extrema ±1/4 that make it the best of degree 2.
    found = fit(lambda x: x**3, (2, 0), "A", (-1, 1))
    np.testing.assert_allclose(found.numerator, [0, 0.75, 0], atol=0.0025)
    np.testing.assert_allclose(found.max_error, 0.25, rtol=0.01)  # within a percent, says fit


@pytest.mark.parametrize(
    ("f", "versions"),
    [
        (lambda x: x / (1 + np.abs(x)), "AB"),  # b1 = 1; B: |T| = |x|
        (lambda x: x / (1 + x**2), "ABCN"),
        (lambda x: (1 - 2 * x) / (1 + x + x**2), "CN"),  # B and A have no + x
        (lambda x: 3 * x**3 - x, "ABCN"),
        (lambda x: 0 * x, "ABCN"),
    ],
)
def test_rational_functions_are_found_exactly(f, versions):
    scale = np.abs(f(GRID)).max()
    for version in versions:
        assert fit(f, (3, 2), version).max_error <= 1e-8 * scale  # ten times the resolution


def test_the_error_equioscillates():
    # The sign of a best approximation of exp of degrees (3, 2) alternates over 3 + 2 + 2 extrema.
    found = error(np.exp, fit(np.exp, (3, 2), "N"), "N")
    extrema = found[np.abs(found) > 0.97 * np.abs(found).max()]
    assert 1 + np.sum(np.diff(np.sign(extrema)) != 0) == 7


# Quality, coefficients, tails


@pytest.mark.parametrize(
    ("name", "version", "to_beat"),
    [
        # Least squares on [-3, 3].
        ("tanh", "A", 3.0e-6),
        ("tanh", "B", 3.4e-6),
        ("sigmoid", "B", 6e-9),
        ("swish", "A", 1.1e-6),
        ("elu", "A", 4.3e-4),
        ("gelu", "A", 3.2e-3),
        ("selu", "B", 3.2e-2),
        ("mish", "A", 1.8e-4),
        ("relu", "A", 2.9e-2),  # the paper's start: 0.02996
        ("relu", "B", 3.3e-2),
        ("softplus", "B", 4e-6),
        ("exponential", "B", 2.5e-3),
    ],
)
def test_fits_beat_least_squares(name, version, to_beat):
    assert fit(name, (5, 4), version).max_error < to_beat


@pytest.mark.parametrize("version", "ABCN")
@pytest.mark.parametrize("degrees", [(1, 0), (3, 2), (2, 4), (9, 8)])
def test_fits_of_all_sizes(degrees, version):
    errors = []
    for name, f in [("tanh", np.tanh), ("elu", elu)]:
        found = fit(name, degrees, version)
        assert (len(found.numerator), len(found.denominator)) == sizes(degrees, version)
        np.testing.assert_allclose(
            found.max_error, np.abs(error(f, found, version)).max(), rtol=1e-3, atol=2e-7
        )
        assert np.abs(found.numerator + found.denominator).max() < 1000
        # Rounding the coefficients costs a few units of float32, 6e-8 each.
        assert found.max_error_float32 < found.max_error + 1e-6
        errors.append(found.max_error)
    assert errors[0] < {0: 0.33, 2: 2e-3, 4: 0.04, 8: 1e-8}[degrees[1]]


def test_float32_error_is_that_of_rounded_coefficients():
    found = fit("swish", (7, 6), "C")
    rounded = [np.float32(c).astype("float64") for c in found[:2]]
    np.testing.assert_allclose(
        found.max_error_float32, np.abs(error(TABLE_6["swish"].function, rounded, "C")).max()
    )
    assert found.max_error < found.max_error_float32


@pytest.mark.parametrize("version", "ABCN")
def test_odd_and_even_functions_get_exact_zeros(version):
    odd, even = fit("tanh", (5, 4), version), fit(lambda x: np.exp(-(x**2)), (5, 4), version)
    assert odd.numerator[0::2] == (0.0, 0.0, 0.0) != odd.numerator[1::2]
    assert even.numerator[1::2] == (0.0, 0.0, 0.0) != even.numerator[0::2]
    if version in "BN":
        assert odd.denominator[0::2] == even.denominator[0::2] == (0.0, 0.0)  # b1, b3


@pytest.mark.parametrize(
    ("name", "degrees"),
    [("gelu", (5, 4)), ("selu", (5, 5)), ("exponential", (7, 6)), ("softplus", (9, 8))],
)
def test_nothing_lurks_outside_the_interval(name, degrees):
    found = fit(name, degrees, "N")
    roots = np.roots(np.trim_zeros(found.denominator[::-1] + (1.0,), "f"))
    assert not np.any(np.abs(roots.imag) < 1e-9 * np.abs(roots))  # no pole on the whole line
    x = np.concatenate([GRID, 10 ** np.linspace(0.47, 6, 2001)])
    for version in "BC":
        b = fit(name, degrees, version).denominator
        for side in (x[x > 0], x[x < 0], -x[x > 3]):
            t = sum(c * side**k for k, c in enumerate(b, 1 if version == "B" else 0))
            # The fit lets T turn by 1e-5 of the highest power, R = 3.
            slack = 1e-5 * np.maximum(1, np.abs(side) / 3) ** degrees[1] + 1e-12 * np.abs(t)
            assert np.all(t >= -slack) or np.all(t <= slack)


def test_free_outside_is_better_inside():
    smooth, free = (fit("gelu", (5, 4), "B", outside=word) for word in ("smooth", "free"))
    assert 1.2e-3 < smooth.max_error < 1.4e-3
    assert 4.2e-4 < free.max_error < 4.6e-4
    far = np.array([-6.0, 6.0])
    assert np.abs(error(gelu, smooth, "B", far)).max() < 0.1
    assert np.abs(error(gelu, free, "B", far)).max() > 2


def test_tails_are_one_line():
    found = fit("tanh", (5, 4), "A")
    slope = found.numerator[5] / found.denominator[3]
    np.testing.assert_allclose(
        rational(np.array([-1e6, 1e6]), *found[:2], "A"), [-1e6 * slope, 1e6 * slope], rtol=1e-3
    )


# Arguments


def test_the_normal_weight_moves_the_error_to_the_tails():
    uniform, normal = (error(gelu, fit("gelu", weight=w), "A") for w in ("uniform", "normal"))
    density = np.exp(-(GRID**2) / 2)
    assert np.abs(normal).max() > 5 * np.abs(uniform).max()
    assert np.abs(density * normal).max() < np.abs(density * uniform).max() / 5


@pytest.mark.parametrize("interval", [(0, 5), (-1, 10), (1.5, 4), (-0.3, 0.1), (-20, 20)])
def test_intervals(interval):
    x = np.linspace(*interval, 50_001)
    for version in "BN":
        found = fit("tanh", (5, 4), version, interval)
        np.testing.assert_allclose(
            found.max_error, np.abs(error(np.tanh, found, version, x)).max(), rtol=1e-3, atol=1e-9
        )
        assert found.max_error < 0.01


def test_functions_of_arrays_of_tensors_and_by_name_are_the_same():
    named = fit("relu6", (3, 2), "B")
    for function in (
        keras.activations.relu6,
        lambda x: x.clip(0, 6),  # NumPy arrays only
        lambda x: keras.ops.relu6(x),
        lambda x: keras.ops.where(x > 0, keras.ops.minimum(x, 6), keras.ops.zeros_like(x)),
    ):
        found = fit(function, (3, 2), "B")
        # The same function from another formula: rounding may move the exchanged points.
        np.testing.assert_allclose(found.numerator, named.numerator, rtol=1e-4)
        np.testing.assert_allclose(found.denominator, named.denominator, rtol=1e-4)


def test_a_kink_anywhere_is_measured():
    f = lambda x: np.abs(x - 1 / 3)  # noqa: E731
    found = fit(f, (5, 4), "A")
    x = np.append(GRID, 1 / 3)
    np.testing.assert_allclose(found.max_error, np.abs(error(f, found, "A", x)).max(), rtol=1e-3)


def test_names_are_fitted_once_and_callables_alike_every_time():
    assert fit("mish", (3, 2), "B") is fit("mish", [3, 2], "B")
    assert fit(keras.activations.mish, (3, 2), "B") is fit(keras.activations.mish, (3, 2), "B")
    assert fit(np.sin, (3, 2), "C") == fit(np.sin, (3, 2), "C")


def test_a_fit_inside_a_traced_function_is_an_ordinary_fit():
    ordinary = fit(lambda x: keras.ops.tanh(x) ** 2, (3, 2))
    traced = []

    def function(x):
        traced.append(fit(lambda x: keras.ops.tanh(x) ** 2, (3, 2)))
        return x

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.function(function, autograph=False)(tf.zeros(()))
    elif keras.backend.backend() == "jax":
        import jax

        jax.jit(function)(0.0)
    else:
        pytest.skip("nothing to trace")
    assert traced == [ordinary]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"function": "gelo"}, "gelu.*Received: 'gelo'"),
        ({"function": 3}, "a name or a callable. Received: function=3"),
        ({"degrees": (0, 4)}, r"m >= 1.*Received: degrees=\(0, 4\)"),
        ({"degrees": (5, -1)}, r"n >= 0. Received: degrees=\(5, -1\)"),
        ({"degrees": (5.0, 4)}, r"two integers.*Received: degrees=\(5.0, 4\)"),
        ({"degrees": 5}, "two integers.*Received: degrees=5"),
        ({"denominator": "D"}, "'A', 'B', 'C', 'N'.*Received: denominator='D'"),
        ({"interval": (3, -3)}, r"low < high. Received: interval=\(3, -3\)"),
        ({"interval": (0, np.inf)}, "two finite numbers"),
        ({"interval": 3}, "two finite numbers.*Received: interval=3"),
        ({"weight": "gauss"}, "'uniform', 'normal'.*Received: weight='gauss'"),
        ({"outside": "wild"}, "'smooth', 'free'.*Received: outside='wild'"),
        ({"function": np.log}, "must be finite.*nan at x = -3"),
        ({"function": lambda x: 1 / x}, "must be finite.*inf at x = 0"),
        ({"function": "softmax"}, "element-wise"),
        ({"function": "threshold"}, "must take one NumPy array.*TypeError"),
        ({"function": lambda x: x.sum()}, "element-wise"),
        ({"function": lambda x: x - x.mean()}, "element-wise"),
        ({"function": np.exp, "interval": (0, 300)}, "finite in float32"),
    ],
)
def test_errors_say_what_is_wanted_and_what_came(arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        fit(**{"function": "tanh", **arguments})


# Any function


@settings(max_examples=12)
@given(
    st.lists(
        st.tuples(st.floats(-2, 2), st.floats(0.2, 4), st.floats(-3, 3)), min_size=1, max_size=4
    ),
    st.sampled_from([(2, 1), (3, 2), (4, 4), (5, 4)]),
    st.sampled_from("ABCN"),
)
def test_any_sum_of_steps(steps, degrees, version):
    def f(x):
        return sum(height * np.tanh(slope * (x - at)) for height, slope, at in steps)

    found = fit(f, degrees, version)
    scale = np.abs(f(GRID)).max()
    measured = np.abs(error(f, found, version)).max()
    # Between two grid points, 6e-5 apart, the error hardly changes.
    np.testing.assert_allclose(found.max_error, measured, rtol=2e-3, atol=1e-6 * scale)
    # Q = 1 is one of the denominators, so no polynomial of degree m is better.
    line = np.polynomial.Chebyshev.fit(GRID, f(GRID), degrees[0])(GRID)
    assert found.max_error <= 1.01 * np.abs(line - f(GRID)).max() + 1e-8 * scale
    if version == "N":
        q = 1 + sum(b * GRID**k for k, b in enumerate(found.denominator, 1))
        assert q.min() > 0.01
    largest = 1e4 if version in "ABN" else 1e5  # C: Q(0) may be scaled up
    assert all(
        abs(b) * 3**k <= 1.001 * largest
        for k, b in enumerate(found.denominator, 0 if version == "C" else 1)
    )
