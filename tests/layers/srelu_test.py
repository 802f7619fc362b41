import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from keras_learnact.layers.srelu import SReLU, srelu
from tests.numeric import call, differences, gradients

EPSILON, TINY, MAX = (float(getattr(np.finfo("float32"), n)) for n in ("eps", "tiny", "max"))

# Without subnormal numbers: processors that flush them to zero compare them as zero, too.
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


def at(x, t_left=-1, a_left=0.5, t_right=2, a_right=0.25):
    """Value and derivatives at one point, with the parameters of most tests."""
    names = ("x", "t_left", "a_left", "t_right", "a_right")
    numbers = np.array([[x], [t_left], [a_left], [t_right], [a_right]], "float32")
    y, grads = gradients(srelu, *numbers)
    return y.item(), {name: g.item() for name, g in zip(names, grads, strict=True)}


def test_it_starts_as_leaky_relu_with_slope_0_2():
    layer = SReLU(sharing="layer")
    np.testing.assert_allclose(layer.curve([-10, 0, 0.5, 20]), [[-2, 0, 0.5, 20]], rtol=1e-6)


def test_each_of_the_three_pieces():
    layer = SReLU(initial=(-1, 0.5, 2, 0.25), sharing="layer")
    # -1 + 0.5 * (-3 + 1), the identity between -1 and 2, 2 + 0.25 * (6 - 2).
    np.testing.assert_array_equal(
        layer.curve([-3, -1, -0.5, 0, 1.5, 2, 6]), [[-2, -1, -0.5, 0, 1.5, 2, 3]]
    )


def test_derivatives_on_each_piece_by_hand():
    assert at(-3)[1] == {"x": 0.5, "t_left": 0.5, "a_left": -2, "t_right": 0, "a_right": 0}
    assert at(0)[1] == {"x": 1, "t_left": 0, "a_left": 0, "t_right": 0, "a_right": 0}
    assert at(6)[1] == {"x": 0.25, "t_left": 0, "a_left": 0, "t_right": 0.75, "a_right": 4}


def test_at_a_threshold_the_derivative_is_that_of_the_line():
    assert at(-1)[1] == {"x": 0.5, "t_left": 0.5, "a_left": 0, "t_right": 0, "a_right": 0}
    assert at(2)[1] == {"x": 0.25, "t_left": 0, "a_left": 0, "t_right": 0.75, "a_right": 0}
    assert at(2, t_left=2)[1]["x"] == 0.25


@pytest.mark.parametrize(
    ("x", "t_right"), [(3, 0), (3, -0.0), (0, -3), (-0.0, -3), (2, -1), (5, 2)]
)
def test_numbers_of_either_sign_and_zeros_have_the_same_derivatives(x, t_right):
    y, grads = at(x, t_left=-9, t_right=t_right)
    # x is 3 above the right threshold in every case.
    assert y == t_right + 0.25 * 3
    assert grads == {"x": 0.25, "t_left": 0, "a_left": 0, "t_right": 0.75, "a_right": 3}


def test_crossed_thresholds_change_places():
    layer = SReLU(initial=(2, 0.5, -1, 0.25), sharing="layer")
    uncrossed = SReLU(initial=(-1, 0.5, 2, 0.25), sharing="layer")
    x = np.linspace(-4, 4, 33)
    np.testing.assert_array_equal(layer.curve(x), uncrossed.curve(x))
    # t_left is now where the right line begins, and still has a gradient.
    assert at(6, t_left=2, t_right=-1)[1]["t_left"] == 0.75
    assert layer.formula() == uncrossed.formula()


def test_it_is_continuous_in_the_thresholds_where_they_cross():
    # 1e-3 apart on either side of the crossing: a slope of at most 1, so at most 2e-3 apart.
    for x in (-3.0, 0.0, 6.0):
        before, after = at(x, t_left=0.999, t_right=1)[0], at(x, t_left=1.001, t_right=1)[0]
        assert abs(before - after) <= 2e-3


@pytest.mark.tensorflow  # float64
@pytest.mark.parametrize("x", [-3.0, 0.5, 6.0])
def test_derivatives_by_parameters_equal_differences_in_float64(x):
    numbers = np.array([-1.0, 0.5, 2.0, 0.25])

    def value(numbers):
        return call(SReLU(tuple(numbers), sharing="layer", dtype="float64"), np.array([x]))[0]

    _, grads = gradients(srelu, np.array([x]), *(numbers[:, np.newaxis]))
    expected = [
        differences(lambda t, unit=unit: value(numbers + t * unit), 0, 1e-6) for unit in np.eye(4)
    ]
    # Linear in each parameter: the difference is exact, up to the rounding of 1 / 1e-6.
    np.testing.assert_allclose(np.ravel(grads[1:]), expected, atol=1e-9)


@settings(max_examples=50)  # a few hundred small operations each
@given(arrays("float32", (5, 4), elements=NUMBERS))
def test_values_and_gradients_over_the_whole_float_range(numbers):
    y, grads = gradients(srelu, *numbers)
    x, t_left, a_left, t_right, a_right = numbers.astype("float64")
    low, high = np.minimum(t_left, t_right), np.maximum(t_left, t_right)
    middle = np.clip(x, low, high)
    right, left = x >= high, (x <= low) & (x < high)
    slope = np.where(right, a_right, np.where(left, a_left, 1))
    distance = x - middle
    exact, size = middle + slope * distance, abs(middle) + abs(slope * distance)
    # 5 terms, each rounded a few times; and what is flushed to zero before a slope multiplies it.
    error = 8 * EPSILON * size + 8 * TINY * np.maximum(1, abs(slope))
    fits = abs(exact) + error <= MAX
    assert (abs(y - exact)[fits] <= error[fits]).all()
    assert not np.isnan(y).any()

    smooth = size < MAX / 4  # beyond, the value has no gradient
    np.testing.assert_array_equal(grads[0][smooth], slope[smooth])
    fits = smooth & (abs(distance) <= MAX)
    np.testing.assert_allclose(
        (grads[2] + grads[4])[fits], distance[fits], rtol=2 * EPSILON, atol=TINY
    )
    by_thresholds = np.where(left | right, 1 - slope, 0)
    np.testing.assert_allclose(
        (grads[1] + grads[3])[smooth], by_thresholds[smooth], rtol=2 * EPSILON
    )
    assert not any(np.isnan(g).any() for g in grads)


def test_a_product_that_overflows_and_cancels():
    # f(0) = t_right - a_right t_right = 3e38, although 2 * 3e38 overflows.
    assert at(0, t_left=-MAX, t_right=-3e38, a_right=2)[0] == pytest.approx(3e38, rel=1e-6)
    # a_right = 1 is the identity, although x - t_right = 6e38 overflows.
    y, grads = at(3e38, t_left=-MAX, t_right=-3e38, a_right=1)
    assert y == pytest.approx(3e38, rel=1e-6)
    assert grads["x"] == 1


def test_infinities_and_nan():
    x = np.float32([-np.inf, np.inf, np.nan])
    zero = np.zeros(3, "float32")
    y, grads = gradients(srelu, x, zero, zero, zero, zero)
    np.testing.assert_array_equal(y, [0, 0, np.nan])  # not 0 * ∞
    assert not any(np.isnan(g[:2]).any() for g in grads)


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_stays_nan(compiled):
    model = keras.Sequential([keras.Input((2,)), SReLU()])
    model.compile(jit_compile=compiled, run_eagerly=not compiled)
    y = model.predict(np.float32([[np.nan, 2]]), verbose=0)
    np.testing.assert_array_equal(y, [[np.nan, 2]])


def test_the_paper_s_count_is_four_trained_numbers_a_channel():
    layer = SReLU()
    layer.build((None, 7, 7, 16))
    assert sum(w.shape[0] for w in layer.trainable_weights) == 4 * 16
    assert [w.name for w in layer.non_trainable_weights] == ["frozen"]


def test_frozen_parameters_get_no_gradient_without_compiling_anew():
    layer = SReLU(initial=(-1, 0.5, 2, 0.25), sharing="layer")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.float32([[-3], [0], [6]])
    start = layer.parameters()
    layer.frozen.assign(1)
    model.train_on_batch(x, 0 * x)
    function = model.train_function
    for name, value in layer.parameters().items():
        np.testing.assert_array_equal(value, start[name])
    layer.frozen.assign(0)
    model.train_on_batch(x, 0 * x)
    for name, value in layer.parameters().items():
        assert (value != start[name]).all()
    assert model.train_function is function


def test_a_frozen_layer_passes_the_gradient_of_its_input():
    layer = SReLU(initial=(-1, 0.5, 2, 0.25), sharing="layer")
    layer.frozen.assign(1)
    _, (by_x,) = gradients(layer, np.float32([-3, 0, 6]))
    np.testing.assert_array_equal(by_x, [0.5, 1, 0.25])


def test_frozen_is_saved_with_the_model(tmp_path):
    model = keras.Sequential([keras.Input((2,)), SReLU()])
    model.layers[0].frozen.assign(1)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").layers[0].frozen > 0


def test_it_learns_a_clipped_line():
    x = np.linspace(-3, 3, 128, dtype="float32")[:, np.newaxis]
    y = np.clip(x, -1, 2)
    model = keras.Sequential([keras.Input((1,)), SReLU()])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, y, epochs=60, batch_size=64, verbose=0)
    parameters = {name: value.item() for name, value in model.layers[0].parameters().items()}
    # It starts with an error of 0.2; what remains is the noise of the last steps.
    assert model.evaluate(x, y, verbose=0) < 1e-3
    assert parameters == pytest.approx(
        {"t_left": -1, "a_left": 0, "t_right": 2, "a_right": 0}, abs=0.15
    )


def test_initial_may_hold_initializers():
    layer = SReLU(initial=(0, keras.initializers.RandomUniform(0.1, 0.3, seed=1), 1, "ones"))
    layer.build((None, 50))
    a_left = layer.parameters()["a_left"]
    assert 0.1 <= a_left.min() < 0.12 and 0.28 < a_left.max() <= 0.3
    again = SReLU.from_config(layer.get_config())
    again.build((None, 50))
    np.testing.assert_array_equal(again.parameters()["a_left"], a_left)
    assert again.get_config() == layer.get_config()


def test_formula():
    layer = SReLU(initial=(-1, 0.5, 2, 0.25), sharing="layer")
    assert layer.formula() == (
        "f(x) = 2 + 0.25 (x - 2) for x >= 2; -1 + 0.5 (x + 1) for x <= -1; x between"
    )


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (0.2, r"numbers.*t_left, a_left, t_right, a_right.*initial=0\.2"),
        ((0, 0.2, 1), r"initial=\(0, 0\.2, 1\)"),
        ((0, (1, 2), 1, 1), r"initial\[1\]=\(1, 2\)"),
        ((0, 0.2, "nonsense", 1), "nonsense"),
    ],
)
def test_wrong_arguments_are_named(initial, message):
    with pytest.raises(ValueError, match=message):
        SReLU(initial=initial)
