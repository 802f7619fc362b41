import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from keras_learnact.layers.rrelu import RReLU
from tests.numeric import call, gradients

MAX = float(np.finfo("float32").max)


def test_at_inference_the_slope_is_the_middle_of_the_range():
    # (1/8 + 1/3) / 2 = 11/48
    np.testing.assert_allclose(call(RReLU(), np.float32([-48, 0, 5])), [-11, 0, 5], rtol=1e-6)


def test_in_training_every_element_has_its_own_slope_in_the_range():
    x = np.full((100, 100), -1, "float32")
    slopes = -call(RReLU(0.1, 0.5, seed=1), x, training=True)
    assert 0.1 <= slopes.min() < 0.101 and 0.499 < slopes.max() <= 0.5
    # Of 10,000 draws from 2^23 numbers about 6 are alike to another one.
    assert len(np.unique(slopes)) > 9900
    # The standard error of the mean is 0.4 / √12 / 100 = 0.0012.
    assert abs(slopes.mean() - 0.3) < 0.005


def test_positive_numbers_pass_in_training_too():
    x = np.float32([0, 1e-30, 7, MAX])
    np.testing.assert_array_equal(call(RReLU(), x, training=True), x)


def test_the_same_seed_gives_the_same_slopes_call_by_call():
    x = np.full(20, -1, "float32")
    one, two = RReLU(seed=5), RReLU(seed=5)
    first, second = call(one, x, training=True), call(one, x, training=True)
    assert (first != second).all()
    np.testing.assert_array_equal(call(two, x, training=True), first)
    np.testing.assert_array_equal(call(two, x, training=True), second)
    assert (call(RReLU(seed=6), x, training=True) != first).all()


def test_the_gradient_is_the_slope_that_was_drawn():
    x = np.full(50, -1, "float32")
    y, (slope,) = gradients(lambda x: RReLU(seed=3)(x, training=True), x)
    np.testing.assert_array_equal(slope, -y)


@given(
    x=arrays("float32", 8, elements=st.floats(width=32, allow_nan=False)),
    bounds=st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted),
    training=st.booleans(),
)
def test_no_value_or_gradient_is_nan_over_the_whole_float_range(x, bounds, training):
    layer = RReLU(*bounds, seed=0)
    y, (slope,) = gradients(lambda x: layer(x, training=training), x)
    assert not np.isnan(y).any() and not np.isnan(slope).any()
    assert (abs(y) <= abs(x)).all()


def test_a_slope_of_zero_at_minus_infinity_and_nan():
    y = call(RReLU(0, 0), np.float32([-np.inf, np.inf, np.nan]))
    np.testing.assert_array_equal(y, [0, np.inf, np.nan])


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_stays_nan(compiled):
    model = keras.Sequential([keras.Input((2,)), RReLU()])
    model.compile(jit_compile=compiled, run_eagerly=not compiled)
    y = model.predict(np.float32([[np.nan, 2]]), verbose=0)
    np.testing.assert_array_equal(y, [[np.nan, 2]])


def test_fit_draws_and_predict_does_not(tmp_path):
    identity = keras.layers.Dense(1, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((1,)), RReLU(0.0, 1.0, seed=1), identity])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.full((256, 1), -1, "float32")
    first = model.fit(x, 0 * x, epochs=2, batch_size=256, verbose=0).history["loss"]
    # The mean of a² over (0, 1) is 1/3, with a standard error of 0.3 / 16; at inference it is 1/4.
    assert abs(first[0] - 1 / 3) < 0.06 and first[0] != first[1]
    assert model.evaluate(x, 0 * x, verbose=0) == 0.25
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.layers[0].get_config() == model.layers[0].get_config()


def test_it_is_an_activation_argument():
    layer = keras.layers.Dense(2, RReLU(0.25, 0.5), kernel_initializer="identity")
    x = np.float32([[-8, 1]])
    np.testing.assert_array_equal(call(layer, x), [[-3, 1]])
    assert -4 < call(layer, x, training=True)[0, 0] < -2
    assert call(layer, x, training=True)[0, 0] != -3


@pytest.mark.parametrize(
    "policy",
    ["mixed_float16", "mixed_bfloat16", pytest.param("float64", marks=pytest.mark.tensorflow)],
)
@pytest.mark.parametrize("training", [False, True])
def test_the_output_has_the_compute_dtype(policy, training):
    layer = RReLU(dtype=policy)
    y = layer(np.float32([-300, 300]), training=training)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert layer(keras.Input((3,))).dtype == layer.compute_dtype
    assert -100.1 <= float(y[0]) <= -37 and float(y[1]) == 300


def test_unknown_sizes_and_masks():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, RReLU()(inputs))
    assert model(np.ones((2, 7, 4)), training=True).shape == (2, 7, 4)
    embedded = keras.layers.Embedding(3, 4, mask_zero=True)(np.array([[1, 0]]))
    mask = RReLU()(embedded)._keras_mask
    np.testing.assert_array_equal(ops.convert_to_numpy(mask), [[True, False]])


def test_config():
    config = RReLU(0.2, 0.3, seed=7, name="here").get_config()
    assert (config["lower"], config["upper"], config["seed"]) == (0.2, 0.3, 7)
    assert RReLU.from_config(config).get_config() == config


@pytest.mark.parametrize("bounds", [(0.5, 0.25), (0, float("inf")), (float("nan"), 1), ("a", "b")])
def test_wrong_bounds_are_named(bounds):
    with pytest.raises(ValueError, match=f"lower={bounds[0]!r}, upper={bounds[1]!r}"):
        RReLU(*bounds)
