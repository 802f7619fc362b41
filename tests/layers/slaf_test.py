import numpy as np
import pytest

from keras_learnact import SLAF


def test_a_polynomial_by_hand():
    layer = SLAF(order=2, initial=(1.0, -2.0, 0.5))
    np.testing.assert_allclose(layer.curve([-2.0, 0.0, 3.0]), [[7.0, 1.0, -0.5]])
    assert layer.formula() == "f(x) = 1 - 2 x + 0.5 x^2"


def test_it_starts_as_its_function_on_the_interval():
    x = np.linspace(-3, 3, 100)
    assert abs(SLAF(order=3, initial="linear").curve(x)[0] - x).max() < 1e-5
    # On [-3, 3] no cubic comes closer to the kink of ReLU than 3/16.
    assert abs(SLAF(order=3).curve(x)[0] - np.maximum(x, 0)).max() < 0.2


def test_it_overflows_to_infinity_never_to_nan():
    layer = SLAF(order=3, initial=(0.0, 0.0, -1.0, 1.0))  # ∞ - ∞ if summed term by term
    y = layer.curve(np.array([1e30, -1e30, 3e38, np.inf, -np.inf]))[0]
    np.testing.assert_array_equal(y, [np.inf, -np.inf, np.inf, np.inf, -np.inf])


@pytest.mark.parametrize("order", [0, -1, 2.5, True])
def test_a_wrong_order_is_named(order):
    with pytest.raises(ValueError, match="order="):
        SLAF(order=order)


def test_coefficients_of_another_number_are_named():
    with pytest.raises(ValueError, match="4"):
        SLAF(order=3, initial=(1.0, 2.0))
