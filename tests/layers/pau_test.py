"""PAU's formula: by hand, against exact fractions, and where float32 ends."""

from fractions import Fraction

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keras_learnact import PAU
from keras_learnact.layers.pau import rational
from tests.numeric import call, gradients

MAX = float(np.finfo("float32").max)


@pytest.mark.parametrize(
    "version, denominator, value",
    [  # P(-2) = 1 - 4 + 12 = 9 everywhere
        ("A", [-0.5, 0.25], 9 / (1 + 1 + 1)),
        ("B", [-0.5, -0.5], 9 / (1 + 1)),  # T = 1 - 2
        ("C", [0.5, 0.25, -0.5], 9 / (0.1 + 2)),  # T = 0.5 - 0.5 - 2
        ("N", [-0.5, 0.25], 9 / (1 + 1 + 1)),
    ],
)
def test_versions_by_hand(version, denominator, value):
    layer = PAU((2, 2), version, initial=([1.0, 2.0, 3.0], denominator))
    np.testing.assert_allclose(call(layer, np.array([[-2.0]], "float32")), [[value]], rtol=1e-6)


def test_the_default_start_is_a_leaky_relu_on_its_interval_and_not_beyond():
    x = np.linspace(-3, 3, 601, dtype="float32")
    (y,) = PAU().curve(x)
    error = abs(y - np.where(x < 0, 0.01 * x, x))
    assert error.max() == error[300] == pytest.approx(0.02979246)  # at x = 0, equal to a_0
    assert PAU().curve(-10.0)[0] == pytest.approx(-2.7, abs=0.05)


def test_the_tails_have_one_slope():
    layer = PAU()
    slope = 0.25103717 / 0.34720652
    y = layer.curve(np.array([-1e30, 1e30], "float32"))[0]
    np.testing.assert_allclose(y, [-slope * 1e30, slope * 1e30], rtol=1e-6)
    assert layer.curve(np.array([-np.inf, np.inf]))[0].tolist() == [-np.inf, np.inf]


def test_the_limit_at_infinity_of_equal_degrees_is_a_constant():
    layer = PAU((2, 2), initial=([1, 1, 3], [1, 2]))
    np.testing.assert_allclose(layer.curve([-np.inf, np.inf])[0], [1.5, 1.5], rtol=1e-6)


def test_an_identity_with_a_denominator_of_zeros_stays_one_up_to_the_largest_number():
    layer = PAU(initial=([0, 1, 0, 0, 0, 0], [0, 0, 0, 0]))
    x = np.array([1e-30, 1.5, -1e10, 1e30, MAX], "float32")
    y, (slope,) = gradients(layer, x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(slope[:4], 1)


@pytest.mark.parametrize("version", "ABC")
def test_a_denominator_that_starts_at_zero_has_a_gradient(version):
    b = np.zeros((3 if version == "C" else 2, 1), "float32")
    a = np.array([[0.0], [1.0]], "float32")
    x = np.array([2.0], "float32")
    _, (db,) = gradients(lambda t: rational(x, a, t, version), b)
    # -P/Q² x^k with sign(0) = +1: P = 2, and Q = 1, or 0.1 for C
    powers = [[1], [2], [4]][-len(b) :]
    np.testing.assert_allclose(
        db, -2 * np.array(powers) / (0.01 if version == "C" else 1), rtol=1e-6
    )


anywhere = st.floats(-MAX, MAX, width=32, allow_subnormal=False)
coefficients = st.one_of(st.floats(-4, 4, width=32, allow_subnormal=False), st.just(0.0), anywhere)


@pytest.mark.parametrize("version", "ABCN")
@example([0.0] * 4 + [2.0**-103, 0.0], [0.0] * 5, 2.0**32)
@example([0.0] * 5 + [2.0], [0.0, 0.0, 2.0**127, 1.0, 0.0], float(np.float32(1e30)))
@given(
    st.lists(coefficients, min_size=6, max_size=6),
    st.lists(coefficients, min_size=5, max_size=5),
    anywhere,
)
def test_values_equal_exact_fractions_everywhere(version, a, b, x):
    b = b[: 5 if version == "C" else 4]
    first = 0 if version == "C" else 1
    X = Fraction(x)
    terms_p = [Fraction(c) * X**j for j, c in enumerate(a)]
    terms_q = [Fraction(c) * X**k for k, c in enumerate(b, first)]
    q = {
        "A": 1 + sum(map(abs, terms_q)),
        "B": 1 + abs(sum(terms_q)),
        "C": Fraction(0.1) + abs(sum(terms_q)),
        "N": 1 + sum(terms_q),
    }[version]
    if q == 0:
        return
    exact = sum(terms_p) / q
    if abs(exact) > MAX / 2:
        return
    columns = [np.array(c, "float32")[:, None] for c in (a, b)]
    (y,) = call(lambda t: rational(t, *columns, version), np.array([x], "float32"))
    # Horner's bound: 2 operations a degree on the sums of absolute terms of P and of Q; products
    # below the normal numbers are lost.
    size_p, size_q = sum(map(abs, terms_p)), 1 + sum(map(abs, terms_q))
    bound = 24 * 2.0**-24 * (size_p / abs(q)) * (1 + size_q / abs(q)) + Fraction(2.0**-100)
    if 24 * 2.0**-24 * size_q > abs(q) / 2:
        return  # next to a pole or a zero of T: the bound does not hold
    assert abs(Fraction(float(y)) - exact) <= bound


def test_terms_of_the_largest_coefficients_are_not_lost():
    # P = -1.2e54 and Q = 1.1e71, whose exponents are further apart than float32's.
    start = (2.6e38, 5.7e37, 0.33, -5), (-8.5e37, -2.4e38)
    x = -2.1e16
    exact = (2.6e38 + 5.7e37 * x + 0.33 * x**2 - 5 * x**3) / (8.5e37 * abs(x) + 2.4e38 * x**2)
    (y,) = PAU((3, 2), initial=start).curve([x])
    np.testing.assert_allclose(y, [exact], rtol=1e-6)


def test_leading_zeros_change_nothing_at_the_largest_numbers():
    x = np.array([1e30, -1e35, MAX], "float32")
    for m in (2, 7, 12):
        line = PAU((m, 4), initial=([0.5, 1] + [0] * (m - 1), [0] * 4))
        np.testing.assert_array_equal(line.curve(x)[0], x)
    unbounded = PAU((7, 4), "B", initial=([1, 0, 2] + [0] * 5, [0, 1, 0, 0]))  # 2 beyond 1
    np.testing.assert_allclose(unbounded.curve(x)[0], [2, 2, 2], rtol=1e-6)


def test_formula_is_readable():
    layer = PAU((2, 1), initial=([0.5, -1.25, 0.0], [-2.0]))
    assert layer.formula() == "f(x) = (0.5 - 1.25 x) / (1 + 2 |x|)"
    layer = PAU((1, 2), "B", initial=([0.0, 1.0], [-2.0, 3.0]))
    assert layer.formula() == "f(x) = (1 x) / (1 + |-2 x + 3 x^2|)"
    layer = PAU((1, 1), "C", initial=([0.0, 1.0], [-2.0, 3.0]))
    assert layer.formula() == "f(x) = (1 x) / (0.1 + |-2 + 3 x|)"
    layer = PAU((1, 1), "N", initial=([0.0, 1.0], [-2.0]))
    assert layer.formula() == "f(x) = (1 x) / (1 - 2 x)"
    assert PAU((1, 0), initial=([0.0, 1.0], [])).formula() == "f(x) = 1 x"


def test_a_callable_start_survives_a_file(tmp_path):
    model = keras.Sequential([keras.Input((2,)), PAU((3, 2), initial=keras.ops.tanh)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.array([[-1.0, 0.5]], "float32")
    np.testing.assert_array_equal(call(loaded, x), call(model, x))
    assert abs(call(model, x) - np.tanh(x)).max() < 0.01


def test_regularizers_and_constraints_reach_the_weights():
    layer = PAU(
        (1, 1),
        initial=([3.0, 4.0], [-2.0]),
        numerator_regularizer=keras.regularizers.L2(0.1),
        denominator_constraint="non_neg",
    )
    layer(np.zeros((1, 1), "float32"))
    assert float(layer.losses[0]) == pytest.approx(2.5)  # 0.1 (9 + 16)
    assert layer.denominator.constraint is not None
    again = PAU.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"degrees": (-1, 4)}, "degrees"),
        ({"degrees": (0, 4)}, "degrees"),
        ({"degrees": 5}, "degrees"),
        ({"degrees": (2.5, 1)}, "degrees"),
        ({"denominator": "D"}, "denominator"),
        ({"initial": "leaky_rleu"}, "leaky_relu"),
        ({"initial": ([1.0, 2.0], [1.0])}, "6"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PAU(**arguments)
