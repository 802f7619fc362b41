import keras
import mpmath
import numpy as np
import pytest

from keras_learnact import EELU
from keras_learnact.layers.eelu import eelu
from tests.numeric import call, gradients

MAX = float(np.finfo("float32").max)


def exact(x, alpha, beta, gamma):
    """α x erf(β e^(−γx)), and its derivatives by all four."""
    with mpmath.workdps(40):
        x, alpha, beta, gamma = (mpmath.mpf(float(v)) for v in (x, alpha, beta, gamma))
        e = mpmath.exp(-gamma * x)
        z = beta * e
        slope = 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-z * z)
        error = mpmath.erf(z)
        return (
            alpha * x * error,
            alpha * (error - gamma * x * z * slope),
            x * error,
            alpha * x * slope * e,
            -alpha * x * x * slope * z,
        )


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.tensorflow)]
)
def test_values_and_derivatives_are_those_of_the_equation(dtype):
    rng = np.random.default_rng(0)
    x, *parameters = (scale * rng.normal(size=300) for scale in (4, 1, 1, 1))
    parameters[1][::20] = 0
    arguments = [v.astype(dtype) for v in (x, *parameters)]
    y, slopes = gradients(eelu, *arguments)
    # The exponential turns the rounding of γx, below 40, into 40 units of e and z; where z is
    # large, e^(-z²) turns that of z² into 2 z² as many, but is then small.
    for value, right in zip(
        (y, *slopes),
        np.array([[float(v) for v in exact(*row)] for row in zip(*arguments, strict=True)]).T,
        strict=True,
    ):
        error = np.finfo(dtype).eps * (200 * abs(right) + 64 * (1 + abs(arguments[0]) ** 2))
        assert (abs(value - right) <= error).all()


def test_its_start_is_what_the_search_found():
    # -x erf(e^-x): at 1 -erf(0.36788), at -1 erf(2.71828).
    np.testing.assert_allclose(EELU().curve([-1, 0, 1]), [[0.999879, 0, -0.397118]], rtol=2e-5)


def test_the_tails():
    # ±α x on the left, 0 on the right.
    x = np.float32([-MAX, -1e30, -100, 100, MAX])
    for beta in (1.0, -1.0, 1e-30):
        layer = EELU(initial=(0.5, beta, 1))
        line = 0.5 * np.sign(beta) * np.float32(x)
        for y in (layer.curve(x)[0], call(layer, x)):
            np.testing.assert_allclose(y, np.where(x < 0, line, 0), rtol=1e-6, atol=1e-38)


def test_a_small_beta_times_a_large_exponential():
    # e^90 alone is beyond float32.
    layer = EELU(initial=(1, 1e-39, 1))
    wanted = float(exact(-90, 1, np.float32(1e-39), 1)[0])
    # 1e-39 has few digits in float32, and processors may flush it to zero.
    for y in (layer.curve([-90.0]).item(), call(layer, np.float32([-90])).item()):
        assert y == pytest.approx(wanted, rel=1e-4) or y == 0
    layer = EELU(initial=(1, 2e-38, 1))
    wanted = float(exact(-88.5, 1, np.float32(2e-38), 1)[0])
    for y in (layer.curve([-88.5]).item(), call(layer, np.float32([-88.5])).item()):
        assert y == pytest.approx(wanted, rel=1e-4)  # 88 units of the exponential


def test_beta_zero_is_zero_and_has_a_gradient():
    y, (by_x, _, by_beta, by_gamma) = gradients(eelu, *np.float32([[2], [3], [0], [0]]))
    assert (y, by_x, by_gamma) == (0, 0, 0)
    assert by_beta == pytest.approx(6 * 2 / np.sqrt(np.pi), rel=1e-6)


def test_bounds():
    layer = EELU()
    ((minimum, *others),) = layer.extrema(-9, 9)
    x = np.linspace(-3, 3, 600_001)
    from scipy import special

    y = -x * special.erf(np.exp(-x))
    assert minimum.x == pytest.approx(x[y.argmin()], abs=1e-4) and not others
    assert minimum.value == pytest.approx(y.min(), rel=1e-6)
    least, greatest = layer.range(-3, 3)
    assert least[0] == pytest.approx(y.min(), rel=1e-4)
    assert greatest[0] == pytest.approx(y.max(), rel=1e-4)


def test_formula_config_and_wrong_arguments():
    layer = EELU(initial=(2, -1, -0.5), regularizer=keras.regularizers.L1(1.0))
    assert layer.formula() == "f(x) = 2 x erf(-1 exp(0.5 x))"
    assert sum(float(loss) for loss in layer.losses) == 3.5
    assert EELU.from_config(layer.get_config()).get_config() == layer.get_config()
    with pytest.raises(ValueError, match=r"\(alpha, beta, gamma\).*initial=\(1, 2\)"):
        EELU(initial=(1, 2))
