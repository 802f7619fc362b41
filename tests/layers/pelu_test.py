import keras
import numpy as np
import pytest

from keras_learnact import PELU
from keras_learnact.layers.pelu import pelu
from tests.numeric import call, differences, gradients

MAX = float(np.finfo("float32").max)


def positive(w):
    return np.where(abs(w) < 0.1, (w * w + 0.01) / 0.2, abs(w))


def exact(x, a, b):
    """The paper's equation in float64, with a and b as the layer has them from its weights."""
    x, a, b = (np.asarray(v, "float64") for v in (x, a, b))
    a, b = positive(a), positive(b)
    return np.where(x >= 0, a / b * x, a * np.expm1(np.minimum(x, 0) / b))


def random_arguments(dtype):
    rng = np.random.default_rng(0)
    x, a, b = 3 * rng.normal(size=300), 2 * rng.normal(size=300), rng.normal(size=300)
    a[:80:2] *= 0.05
    b[:80] *= 0.05
    x[:3] = 0
    return [v.astype(dtype) for v in (x, a, b)]


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.tensorflow)]
)
def test_values_and_derivatives_are_those_of_the_equation(dtype):
    arguments = random_arguments(dtype)
    y, slopes = gradients(pelu, *arguments)
    # x/b, up to 200, is rounded a few times before its exponential; a difference has an error of
    # its step's square times a third derivative below 1e6 here, and of 1e-16 / 1e-6 of the value.
    epsilon = np.finfo(dtype).eps
    np.testing.assert_allclose(y, exact(*arguments), rtol=16 * epsilon, atol=4 * epsilon)
    for i, slope in enumerate(slopes):

        def value(t, i=i):
            return exact(*[t if j == i else v for j, v in enumerate(arguments)])

        wanted = differences(value, arguments[i].astype("float64"), 1e-6)
        smooth = abs(arguments[0]) > 1e-5  # of x, whose second derivative jumps at 0
        np.testing.assert_allclose(
            slope[smooth], wanted[smooth], rtol=32 * epsilon + 1e-6, atol=64 * epsilon + 1e-5
        )


def test_it_starts_as_elu():
    x = np.linspace(-5, 5, 101).astype("float32")
    np.testing.assert_allclose(PELU().curve(x)[0], np.where(x > 0, x, np.expm1(x)), rtol=1e-6)


def test_small_numbers_keep_their_digits():
    # e^t - 1 is t + t²/2 and a rest below 1e-12 of it; so are its two derivatives 1 + t and 1.
    x = -np.float32([1e-30, 1e-9, 3e-8, 1e-6])
    one = np.ones(4, "float32")
    y, (slope, *_) = gradients(pelu, x, one, one)
    np.testing.assert_allclose(y, x + x * x / 2, rtol=4 * np.finfo("float32").eps)
    np.testing.assert_allclose(slope, 1 + x, rtol=4 * np.finfo("float32").eps)
    np.testing.assert_allclose(call(PELU(), x), y, rtol=4 * np.finfo("float32").eps)


def test_both_sides_by_hand():
    # a = 2, b = 4: slope 1/2 on the right, 2 (e^(x/4) - 1) on the left.
    np.testing.assert_allclose(
        PELU(initial=(2, 4)).curve([-np.inf, -4, 0, 6]), [[-2, 2 * (np.exp(-1) - 1), 0, 3]], 1e-6
    )
    _, (by_x, by_a, by_b) = gradients(pelu, *np.float32([[-0.0, 0, 6], [2, 2, 2], [4, 4, 4]]))
    np.testing.assert_array_equal(by_x, [0.5, 0.5, 0.5])  # one slope at 0, from both sides
    np.testing.assert_array_equal(by_a, [0, 0, 1.5])  # x/b
    np.testing.assert_allclose(by_b, [0, 0, -0.75])  # -a x / b²


def test_small_and_negative_weights_are_positive_and_keep_a_gradient():
    w = np.float32([-3, -0.1, -0.05, 0, 0.05, 0.1, 3])
    one = np.ones(7, "float32")
    y, (_, by_a, by_b) = gradients(pelu, one, w, one)
    # (w² + 0.01) / 0.2 at 0.05 is 0.0625, its slope 0.5; at 0 the lowest, 0.05.
    np.testing.assert_allclose(y, [3, 0.1, 0.0625, 0.05, 0.0625, 0.1, 3], rtol=1e-6)
    np.testing.assert_allclose(by_a, [-1, -1, -0.5, 0, 0.5, 1, 1], rtol=1e-6)
    y, (_, _, by_b) = gradients(pelu, one, one, w)
    np.testing.assert_allclose(y, 1 / positive(w), rtol=1e-6)
    assert ((by_b != 0) == (w != 0)).all()


def test_products_that_overflow_on_the_way():
    # a = 1e38, b = 1e38: (a/b) x; the product a x alone overflows.
    for initial, x, y in (((1e38, 1e38), 100.0, 100.0), ((1e38, 1e20), 1e-15, 1e3)):
        layer = PELU(initial=initial)
        assert layer.curve([x]) == pytest.approx(y, rel=1e-6)
        assert call(layer, np.float32([x])) == pytest.approx(y, rel=1e-6)


def test_bounds():
    layer = PELU(initial=(2, 4))
    least, greatest = layer.range(-np.inf, 6)
    np.testing.assert_allclose([least[0], greatest[0]], [-2, 3], rtol=1e-5)
    np.testing.assert_allclose(layer.lipschitz(-9, 9), [0.5], rtol=1e-6)
    assert layer.extrema(-9, 9) == [[]]


def test_regularizers_and_constraints_belong_to_their_parameters():
    layer = PELU(
        initial=(3, 2),
        regularizer=(keras.regularizers.L2(0.1), keras.regularizers.L1(0.5)),
        constraint=(None, "non_neg"),
    )
    assert sorted(float(loss) for loss in layer.losses) == pytest.approx([0.9, 1.0])
    assert type(layer.b.constraint) is keras.constraints.NonNeg
    assert PELU.from_config(layer.get_config()).get_config() == layer.get_config()
    # One for all.
    layer = PELU(initial=(3, 2), regularizer=keras.regularizers.L2(0.1), constraint="non_neg")
    assert sorted(float(loss) for loss in layer.losses) == pytest.approx([0.4, 0.9])
    assert type(layer.a.constraint) is type(layer.b.constraint) is keras.constraints.NonNeg
    assert PELU.from_config(layer.get_config()).get_config() == layer.get_config()


def test_formula_and_wrong_arguments():
    assert PELU(initial=(2, -4)).formula() == "f(x) = 0.5 max(0, x) + 2 (exp(min(0, x) / 4) - 1)"
    with pytest.raises(ValueError, match=r"initializers \(a, b\).*initial=1"):
        PELU(initial=1)
    with pytest.raises(ValueError, match=r"for each of \(a, b\).*constraint=\(None,\)"):
        PELU(constraint=[None])
    with pytest.raises(ValueError, match=r"initial\[1\]=nan"):
        PELU(initial=(1, float("nan")))
