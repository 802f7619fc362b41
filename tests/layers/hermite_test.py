import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import quad
from scipy.special import eval_hermitenorm, factorial

from keras_learnact.layers.hermite import Hermite, hermite, monomials
from tests.numeric import call, gradients

MAX = float(np.finfo("float32").max)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


def normalised(i, x):
    """h_i(x) by SciPy's recurrence, in float64."""
    return eval_hermitenorm(i, x) / np.sqrt(factorial(i))


@pytest.mark.parametrize("degree", [1, 4, 9])
def test_it_starts_with_relus_own_coefficients(degree):
    density = 1 / np.sqrt(2 * np.pi)
    means = [
        quad(lambda x, i=i: x * normalised(i, x) * np.exp(-(x**2) / 2) * density, 0, np.inf)[0]
        for i in range(degree + 1)
    ]
    found = Hermite(degree).parameters()["coefficients"][0]
    np.testing.assert_allclose(found, means, atol=1e-7)  # stored in float32
    assert found[:2] == pytest.approx([density, 0.5])


def test_it_starts_with_any_functions_coefficients():
    # x³ = He_3 + 3 He_1 and He_3 = √6 h_3.
    layer = Hermite(3, initial=lambda x: x**3)
    np.testing.assert_allclose(layer.parameters()["coefficients"], [[0, 3, 0, 6**0.5]], atol=1e-6)
    np.testing.assert_allclose(layer.curve([-2, 3]), [[-8, 27]], rtol=1e-6)


def test_more_terms_are_nearer_to_relu_where_the_inputs_are():
    x = np.random.default_rng(0).normal(size=10_000)
    errors = [
        np.mean((Hermite(degree).curve(x)[0] - np.maximum(x, 0)) ** 2) for degree in (1, 2, 4, 8)
    ]
    # What is left of E[max(0, x)²] = 1/2: 1/4 - 1/(2π), less 1/(4π), less 1/(48π), …
    assert errors[0] == pytest.approx(0.0908, rel=0.1)
    assert errors[0] > 5 * errors[1] and errors[1] > 1.5 * errors[2] and errors[2] > errors[3]


@pytest.mark.parametrize("way", ["formula", "kernel"])
@pytest.mark.parametrize("degree", [1, 4, 16])
def test_it_computes_the_sum_of_scipys_polynomials(degree, way):
    rng = np.random.default_rng(0)
    c = rng.normal(size=degree + 1).astype("float32")
    layer = Hermite(degree, initial=tuple(c.tolist()))
    x = rng.normal(size=300).astype("float32")
    y = layer.curve(x)[0] if way == "formula" else call(layer, x[:, np.newaxis])[:, 0]
    terms = np.array([c[i] * normalised(i, x.astype("float64")) for i in range(degree + 1)])
    # The powers of x in a polynomial of order 16 cancel: they are up to 100 times as large as it.
    np.testing.assert_allclose(y, terms.sum(0), atol=2e-6 * (10 if degree < 16 else 1000))
    assert way == "formula" or layer.path == "kernel"


@pytest.mark.tensorflow  # float64
@pytest.mark.parametrize("degree", [1, 4, 8])
def test_derivatives_are_the_polynomials_and_those_of_one_order_less(degree):
    rng = np.random.default_rng(1)
    x, c = rng.normal(size=30), rng.normal(size=degree + 1)
    _, (by_x, by_c) = gradients(hermite, x, np.repeat(c[:, np.newaxis], 30, axis=1))
    for i in range(degree + 1):
        np.testing.assert_allclose(by_c[i], normalised(i, x), rtol=1e-9, atol=1e-10)
    # h_i' = √i h_{i-1}
    slopes = [c[i] * np.sqrt(i) * normalised(i - 1, x) for i in range(1, degree + 1)]
    np.testing.assert_allclose(by_x, np.sum(slopes, axis=0), rtol=1e-9, atol=1e-10)


def test_the_polynomials_by_hand():
    np.testing.assert_allclose(
        monomials(4),
        [
            [1, 0, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [-(0.5**0.5), 0, 0.5**0.5, 0, 0],
            [0, -3 / 6**0.5, 0, 1 / 6**0.5, 0],
            [3 / 24**0.5, 0, -6 / 24**0.5, 0, 1 / 24**0.5],
        ],
    )


@settings(max_examples=20)  # a few hundred small operations each
@given(x=arrays("float32", 4, elements=NUMBERS), c=arrays("float32", (5, 4), elements=NUMBERS))
def test_values_over_the_whole_float_range(x, c):
    y, grads = gradients(hermite, x, c)
    assert not any(np.isnan(a).any() for a in (y, *grads))
    x, c = x.astype("float64"), c.astype("float64")
    # The largest terms are 3e38⁵ / √24: float64 holds them.
    terms = np.array([c[i] * normalised(i, x) for i in range(5)])
    powers = np.array([abs(c[i]) * (abs(x) ** i + 3) for i in range(5)])
    exact, error = terms.sum(0), 1e-5 * powers.sum(0)
    # Beyond, the coefficient of a power of x alone may be no number.
    fits = (abs(exact) + error <= MAX) & (abs(c).max(0) < MAX / 8)
    assert (abs(y - exact)[fits] <= error[fits] + 1e-37).all()


def test_what_overflows_does_so_loudly_and_far_out_lines_stay_lines():
    np.testing.assert_array_equal(Hermite().curve([-1e30, 1e30]), [[-np.inf, -np.inf]])
    line = Hermite(initial=(1, 2, 0, 0, 0))
    for y in (line.curve([-1e30, 1e30])[0], call(line, np.float32([-1e30, 1e30]))):
        np.testing.assert_allclose(y, [-2e30, 2e30], rtol=1e-6)


def test_infinities_and_nan():
    x = np.float32([-np.inf, np.inf, np.nan])
    for layer, ends in ((Hermite(), [-np.inf, -np.inf]), (Hermite(1), [-np.inf, np.inf])):
        for y in (layer.curve(x)[0], call(layer, x)):
            np.testing.assert_array_equal(y, [*ends, np.nan])


def test_parameters_for_each_group():
    layer = Hermite(sharing="channel")
    layer.build((None, 5, 3))
    assert layer.count_params() == 3 * 5


def test_it_learns_a_square():
    x = np.linspace(-2, 2, 128, dtype="float32")[:, np.newaxis]
    model = keras.Sequential([keras.Input((1,)), Hermite()])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, x**2, epochs=80, batch_size=64, verbose=0)
    assert model.evaluate(x, x**2, verbose=0) < 1e-2


def test_formula_has_the_powers_of_x():
    # x + 1/2 He_2 = x + (x² - 1) / 2, and h_2 = He_2 / √2.
    layer = Hermite(2, initial=(0, 1, 0.5**0.5))
    assert layer.formula() == "f(x) = -0.5 + 1 x + 0.5 x^2"


def test_its_kernel_takes_as_many_coefficients_as_it_says():
    assert Hermite(16).path == "kernel"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degree": 0}, "degree=0"),
        ({"degree": True}, "degree=True"),
        ({"degree": 17}, "from 1 to 16.*degree=17"),
        ({"initial": (1, 2)}, r"5 finite coefficients.*initial=\(1, 2\)"),
        ({"initial": (1, 2, 3, 4, float("nan"))}, "5 finite coefficients"),
        ({"initial": "rleu"}, "Unknown activation.*'rleu'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Hermite(**arguments)
