import keras
import mpmath
import numpy as np
import pytest

from keras_learnact import Snake
from keras_learnact.layers.snake import snake
from tests.numeric import call, gradients

MAX = float(np.finfo("float32").max)


def exact(x, a):
    """x + sin²(ax)/a, and its derivatives by x and a, from the paper's equation."""
    with mpmath.workdps(60):
        x, a = mpmath.mpf(float(x)), mpmath.mpf(float(a))
        if a == 0:
            return x, mpmath.mpf(1), x * x
        v = a * x
        square = mpmath.sin(v) ** 2
        return (
            x + square / a,
            1 + mpmath.sin(2 * v),
            x * mpmath.sin(2 * v) / a - square / a**2,
        )


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.tensorflow)]
)
def test_values_and_derivatives_are_those_of_the_equation(dtype):
    rng = np.random.default_rng(0)
    x = (3 * rng.normal(size=300)).astype(dtype)
    a = (10 ** rng.uniform(-12, 2, 300) * rng.choice([-1, 1], 300)).astype(dtype)
    a[::20] = 0
    y, (by_x, by_a) = gradients(snake, x, a)
    wanted = np.array([[float(v) for v in exact(*pair)] for pair in zip(x, a, strict=True)]).T
    # The phase ax is rounded once, the rest a few times.
    error = np.finfo(dtype).eps * (8 + abs(a * x))
    assert (abs(y - wanted[0]) <= error * abs(x)).all()
    assert (abs(by_x - wanted[1]) <= 4 * error).all()
    assert (abs(by_a - wanted[2]) <= 4 * error * x * x).all()


def test_it_starts_with_a_wave_of_period_pi():
    # sin² is 1 at π/2 and 0 at π.
    np.testing.assert_allclose(
        Snake().curve([0, np.pi / 2, np.pi]), [[0, np.pi / 2 + 1, np.pi]], rtol=1e-6
    )


def test_it_passes_smoothly_through_a_zero():
    x = np.full(5, 3, "float32")
    a = np.float32([-1e-3, -1e-20, 0, 1e-20, 1e-3])
    y, (_, by_a) = gradients(snake, x, a)
    # x + a x² and x², both but for a third-order term of (ax)² = 1e-5.
    np.testing.assert_allclose(y, x + a * 9, rtol=1e-6)
    np.testing.assert_allclose(by_a, 9, rtol=1e-4)


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.tensorflow)]
)
def test_where_no_phase_is_known_it_is_the_identity(dtype):
    layer = Snake(initial=2, dtype=dtype)
    last = {"float32": 2.0**23, "float64": 2.0**52}[dtype]
    x = np.array([last * 1.01, -4 * last, 1e30, np.finfo(dtype).max, np.inf], dtype)
    finite = np.minimum(x, np.finfo(dtype).max)
    y, (slope,) = gradients(layer, x)
    np.testing.assert_array_equal(y, finite)
    np.testing.assert_array_equal(slope[:-1], 1)
    # Before, sin² is half a unit of the last place of x at most, and is still there in its slope.
    before = np.array([last * 0.5, last * 0.99], dtype)
    y, (slope,) = gradients(layer, before)
    np.testing.assert_allclose(y, before, rtol=np.finfo(dtype).eps)
    np.testing.assert_allclose(slope, 1 + np.sin(4 * before.astype("float64")), atol=1e-5)


def test_kernel_and_formula_agree_in_the_far_phases():
    x = np.float32([1e3, 1.234e4, -5.5e5, 7.7e6, 1.6e7, 2e7, -1e12, MAX])
    layer = Snake()
    y, (slope,) = gradients(layer, x)
    y_formula, (slope_formula,) = gradients(lambda x: layer.function(x, np.float32([1])), x)
    np.testing.assert_allclose(y, y_formula, rtol=2e-7)
    np.testing.assert_allclose(slope, slope_formula, atol=1e-6)  # of the same rounded phase


def test_it_never_falls_and_its_range_is_known():
    layer = Snake(initial=3)
    assert layer.extrema(-9, 9) == [[]]
    np.testing.assert_allclose(layer.lipschitz(-9, 9), [2], rtol=1e-6)  # 1 + sin(2v)
    least, greatest = layer.range(-np.inf, np.inf)
    assert least[0] <= -MAX and greatest[0] >= MAX
    least, greatest = layer.range(-1, 1)
    ends = np.array([-1, 1]) + np.sin(3) ** 2 / 3
    np.testing.assert_allclose([least[0], greatest[0]], ends, rtol=1e-4)


def test_it_learns_a_frequency():
    x = np.tile(np.linspace(-4, 4, 128, dtype="float32"), 50)[:, np.newaxis]
    model = keras.Sequential([keras.Input((1,)), Snake(initial=1.3)])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    model.fit(x, x + np.sin(1.5 * x) ** 2 / 1.5, epochs=4, batch_size=128, verbose=0)
    # 200 steps of 0.02 at most.
    assert model.layers[0].parameters()["a"] == pytest.approx(1.5, abs=0.01)


def test_formula_and_config():
    assert Snake(initial=0.5).formula() == "f(x) = x + sin(0.5 x)^2 / 0.5"
    assert Snake(initial=0).formula() == "f(x) = x"
    layer = Snake(initial=2, regularizer=keras.regularizers.L2(0.5), constraint="non_neg")
    assert [float(loss) for loss in layer.losses] == [2]
    assert Snake.from_config(layer.get_config()).get_config() == layer.get_config()
    np.testing.assert_array_equal(call(Snake(initial=0), np.float32([1.5])), [1.5])
    array = Snake(initial=np.array([1.5])).get_config()
    assert array["initial"] == (1.5,) and Snake.from_config(array).get_config() == array
    with pytest.raises(ValueError, match=r"initial=\(1, 2\)"):
        Snake(initial=(1, 2))
