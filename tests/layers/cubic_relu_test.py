import keras
import numpy as np
import pytest

from keras_learnact import CubicReLU
from keras_learnact.layers.cubic_relu import cubic_relu
from tests.numeric import call, gradients

EPSILON, TINY, MAX = (float(getattr(np.finfo("float32"), n)) for n in ("eps", "tiny", "max"))


def test_it_starts_as_relu_exactly():
    x = np.float32([-3, -0.0, 0, 1e-30, 0.7, 5, 1e30, MAX])
    np.testing.assert_array_equal(CubicReLU().curve(x), [np.maximum(x, 0)])
    np.testing.assert_array_equal(call(CubicReLU(), x), np.maximum(x, 0))


def test_a_line_and_a_cube_by_hand():
    layer = CubicReLU(gamma=0.5, initial=(3, -2))
    # 3 x - x³
    np.testing.assert_array_equal(layer.curve([-1, 0, 1, 2]), [[0, 0, 2, -2]])
    _, (by_x, by_alpha, by_beta) = gradients(
        lambda x, a, b: cubic_relu(x, a, b, 0.5), *np.float32([[-1, 0, 2], [3] * 3, [-2] * 3])
    )
    np.testing.assert_array_equal(by_x, [0, 0, 3 - 12])  # 0 at x = 0
    np.testing.assert_array_equal(by_alpha, [0, 0, 2])
    np.testing.assert_array_equal(by_beta, [0, 0, 4])  # γ x³


@pytest.mark.parametrize("gamma", [1.0, -0.125])
def test_values_and_derivatives_over_the_whole_float_range(gamma):
    rng = np.random.default_rng(0)
    x, alpha, beta = (
        (rng.choice([-1, 1], 4000) * np.exp2(rng.uniform(least, 128, 4000))).astype("float32")
        for least in (-60, -100, -100)  # below, the square of x has few digits
    )
    y, (by_x, by_alpha, by_beta) = gradients(
        lambda x, a, b: cubic_relu(x, a, b, gamma), x, alpha, beta
    )
    u, a, c = np.maximum(x, 0).astype("float64"), alpha.astype("float64"), gamma * beta
    c = np.clip(c, -MAX, MAX).astype("float64")
    parts, slopes = [a * u, c * u**3], [a, 3 * c * u**2]

    def compare(value, terms, of):
        exact, size = sum(terms), sum(map(abs, terms))
        # A few roundings of each term; what is below the normal numbers before it is scaled.
        error = 16 * EPSILON * size + 8 * TINY * np.maximum(1, u)
        known = of & (abs(exact) + error <= MAX)
        assert known.mean() > 0.3
        assert (abs(value - exact) <= error)[known].all()

    compare(y, parts, x == x)
    plain = (abs(parts[0]) < MAX / 64) & (abs(parts[1]) < MAX / 64)  # else no gradient flows
    compare(by_x, [np.where(x > 0, s, 0) for s in slopes], plain)
    compare(by_alpha, [u], plain)
    compare(by_beta, [gamma * u**3], plain & (u**3 <= MAX))  # x³ itself is a number


def test_terms_that_overflow_and_cancel_give_their_difference():
    # 2^100 · 2^40 - 2^20 · 2^120 = 0, and with another digit 2^118.
    x, beta = np.float32([2**40, 2**40]), np.float32([-(2.0**20), -(2.0**20) + 2.0**-2])
    y, grads = gradients(
        lambda x, a, b: cubic_relu(x, a, b, 1.0), x, np.float32([2.0**100] * 2), beta
    )
    np.testing.assert_array_equal(y, [0, 2.0**118])
    assert not any(np.isnan(g).any() for g in grads)
    layer = CubicReLU(initial=(2.0**100, -(2.0**20) + 2.0**-2))
    np.testing.assert_array_equal(call(layer, x), [2.0**118] * 2)


def test_bounds_are_exact():
    layer = CubicReLU(initial=(3, -1))  # 3 x - x³ turns at 1
    ((top,),) = layer.extrema(-9, 9)
    assert (top.x, top.value, top.kind) == (1, 2, "maximum")
    np.testing.assert_allclose(layer.range(-1, 2), [[-2], [2]], rtol=1e-5)
    np.testing.assert_allclose(layer.lipschitz(-1, 2), [9], rtol=1e-9)


def test_formula_config_and_wrong_arguments():
    layer = CubicReLU(gamma=0.5, initial=(1, -2), regularizer=keras.regularizers.L1(1.0))
    assert layer.formula() == "f(x) = H(x) (1 x - 1 x^3)"
    assert sum(float(loss) for loss in layer.losses) == 3
    assert CubicReLU.from_config(layer.get_config()).get_config() == layer.get_config()
    for wrong in ({"gamma": float("nan")}, {"gamma": True}, {"gamma": "1"}):
        with pytest.raises(ValueError, match="`gamma`"):
            CubicReLU(**wrong)
    with pytest.raises(ValueError, match=r"\(alpha, beta\).*initial=1"):
        CubicReLU(initial=1)
