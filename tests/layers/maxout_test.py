import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from keras_learnact import kernels
from keras_learnact.layers.maxout import Maxout, MaxoutConv2D, MaxoutDense
from tests.numeric import call, gradients

# Without subnormal numbers: processors that flush them to zero compare them as zero, too.
NUMBERS = st.floats(width=32, allow_nan=False, allow_subnormal=False)


def test_neighbouring_channels_form_a_group():
    x = np.float32([[1, 5, -2, -3, 0, 9]])
    np.testing.assert_array_equal(call(Maxout(pieces=2), x), [[5, -2, 9]])
    np.testing.assert_array_equal(call(Maxout(pieces=3), x), [[5, 9]])
    np.testing.assert_array_equal(call(Maxout(pieces=6), x), [[9]])
    np.testing.assert_array_equal(call(Maxout(pieces=1), x), x)


@pytest.mark.parametrize("axis", [1, 2, -1, -2])
def test_any_axis_but_the_first(axis):
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype("float32")
    even, odd = (x.take(range(start, x.shape[axis], 2), axis) for start in (0, 1))
    y = call(Maxout(axis=axis), x)
    np.testing.assert_array_equal(y, np.maximum(even, odd))
    assert Maxout(axis=axis).compute_output_shape(x.shape) == y.shape


def test_the_largest_piece_gets_the_gradient_and_equal_ones_share_it():
    x = np.float32([[1, 5, 2, 2, -np.inf, -np.inf]])
    _, (slope,) = gradients(Maxout(), x)
    np.testing.assert_array_equal(slope, [[0, 1, 0.5, 0.5, 0.5, 0.5]])
    _, (slope,) = gradients(Maxout(3), np.float32([[7, 7, 7]]))
    np.testing.assert_allclose(slope, [[1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


@given(arrays("float32", (3, 4), elements=NUMBERS))
def test_value_and_gradient_over_the_whole_float_range(x):
    y, (slope,) = gradients(Maxout(), x)
    np.testing.assert_array_equal(y, x.reshape(3, 2, 2).max(axis=2))
    np.testing.assert_array_equal(slope.reshape(3, 2, 2).sum(axis=2), 1)


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_in_a_group_gives_nan(compiled):
    x = np.float32([[np.nan, 1, 2, np.nan, 3, 4]])
    model = keras.Sequential([keras.Input((6,)), Maxout()])
    model.compile(jit_compile=compiled, run_eagerly=not compiled)
    np.testing.assert_array_equal(model.predict(x, verbose=0), [[np.nan, np.nan, 4]])


def test_an_empty_input_gives_an_empty_output():
    with kernels.disabled():
        assert Maxout(pieces=2)(np.zeros((0, 6), "float32")).shape == (0, 3)
    assert Maxout(pieces=2)(np.zeros((0, 6), "float32")).shape == (0, 3)


def test_unknown_sizes_of_other_axes_and_masks():
    inputs = keras.Input((None, None, 6))
    model = keras.Model(inputs, Maxout(3)(inputs))
    assert model.output_shape == (None, None, None, 2)
    assert model(np.zeros((2, 5, 1, 6))).shape == (2, 5, 1, 2)
    embedded = keras.layers.Embedding(3, 4, mask_zero=True)(np.array([[1, 0]]))
    for layer in (Maxout(), MaxoutDense(3)):
        mask = layer(embedded)._keras_mask
        np.testing.assert_array_equal(ops.convert_to_numpy(mask), [[True, False]])


def dense_example():
    """Two inputs a and b: unit 0 is max(a, -a), unit 1 is max(b + 1, 0)."""
    layer = MaxoutDense(units=2)
    layer.build((None, 2))
    layer.linear.kernel.assign([[1, -1, 0, 0], [0, 0, 1, 0]])
    layer.linear.bias.assign([0, 0, 1, 0])
    return layer


def test_a_dense_unit_is_the_largest_of_its_linear_functions():
    x = np.float32([[-3, 4], [2, -5]])
    np.testing.assert_array_equal(call(dense_example(), x), [[3, 5], [2, 0]])


def test_a_dense_layer_has_pieces_times_the_weights():
    layer = MaxoutDense(units=7, pieces=3)
    layer.build((None, 5))
    assert layer.count_params() == 3 * (5 * 7 + 7)
    assert layer.compute_output_shape((None, 4, 5)) == (None, 4, 7)
    assert MaxoutDense(7, use_bias=False)(np.zeros((2, 5))).shape == (2, 7)


def test_a_filter_is_the_largest_of_its_convolutions():
    layer = MaxoutConv2D(3, 2, pieces=2, strides=2, padding="same", kernel_initializer="normal")
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype("float32")
    y = call(layer, x)
    plain = ops.conv(x, layer.linear.kernel, strides=2, padding="same")
    plain = ops.convert_to_numpy(plain) + np.zeros(6)
    # The same convolution; only the compiler may order its sums otherwise.
    np.testing.assert_allclose(y, np.maximum(plain[..., 0::2], plain[..., 1::2]), atol=1e-6)
    assert layer.compute_output_shape(x.shape) == y.shape == (2, 3, 3, 3)
    assert layer.count_params() == 2 * (2 * 2 * 4 * 3 + 3)


def test_channels_first():
    layer = MaxoutConv2D(3, 2, data_format="channels_first")
    inputs = keras.Input((4, 6, 6))
    assert layer(inputs).shape == (None, 3, 5, 5)
    if keras.backend.backend() != "tensorflow":  # TensorFlow's convolution has it on GPUs only
        last = MaxoutConv2D(3, 2)
        last.build((None, 6, 6, 4))
        last.set_weights(layer.get_weights())
        x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype("float32")
        y = call(layer, x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
        # The same sums in another order.
        np.testing.assert_allclose(y, call(last, x), atol=1e-6)


def test_options_reach_the_linear_layer():
    layer = MaxoutConv2D(
        4,
        3,
        pieces=2,
        dilation_rate=2,
        groups=2,
        bias_initializer="ones",
        kernel_initializer=keras.initializers.Constant(2),
        kernel_regularizer=keras.regularizers.L1(0.5),
        bias_regularizer="l2",
        kernel_constraint="non_neg",
        bias_constraint="unit_norm",
        activity_regularizer=keras.regularizers.L1(1.0),
    )
    y = layer(np.zeros((1, 5, 5, 2)))
    np.testing.assert_array_equal(y, np.ones((1, 1, 1, 4)))
    # 0.5 · 2 · (3·3·1·8 numbers) + 0.01 · 8 ones; the activity: 4 ones.
    assert sorted(float(loss) for loss in layer.losses) == pytest.approx([0.08, 4, 72])
    assert type(layer.linear.kernel.constraint) is keras.constraints.NonNeg
    assert type(layer.linear.bias.constraint) is keras.constraints.UnitNorm
    assert layer.linear.dilation_rate == (2, 2)


@pytest.mark.parametrize(
    "layer",
    [
        Maxout(3, axis=1, name="here"),
        MaxoutDense(4, 3, kernel_regularizer="l2", use_bias=False),
        MaxoutDense(4, kernel_initializer=keras.initializers.Constant(2), trainable=False),
        MaxoutConv2D(4, (3, 2), strides=2, padding="same", dtype="mixed_float16"),
        MaxoutConv2D(4, 3, data_format="channels_first", bias_constraint="unit_norm"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_config_gives_back_what_was_given(layer):
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config
    plain = keras.saving.serialize_keras_object(layer)
    assert keras.saving.deserialize_keras_object(plain).get_config() == config


def test_arguments_are_in_the_config_as_they_were_given():
    config = MaxoutConv2D(4, 3, pieces=3, kernel_initializer="he_normal").get_config()
    names = ("filters", "kernel_size", "pieces", "kernel_initializer", "strides")
    assert [config[name] for name in names] == [4, 3, 3, "he_normal", (1, 1)]


def test_saved_and_loaded_models_compute_the_same(tmp_path):
    layers = [MaxoutConv2D(4, 3), Maxout(2, axis=1), keras.layers.Flatten(), MaxoutDense(3)]
    model = keras.Sequential([keras.Input((6, 5, 2)), *layers])
    x = np.random.default_rng(0).normal(size=(3, 6, 5, 2)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for after, before in zip(loaded.layers, model.layers, strict=True):
        assert after.get_config() == before.get_config()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    for layer in (Maxout(), MaxoutDense(4), MaxoutConv2D(2, 1)):
        layer = type(layer).from_config({**layer.get_config(), "dtype": policy})
        y = layer(np.full((2, 3, 3, 4), 300, "float32"))
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype != "float32"
        assert layer(keras.Input((3, 3, 4))).dtype == layer.compute_dtype
        assert all(weight.dtype == "float32" for weight in layer.weights)


def test_a_dense_unit_learns_the_absolute_value():
    x = np.linspace(-2, 2, 128, dtype="float32")[:, np.newaxis]
    model = keras.Sequential([keras.Input((1,)), MaxoutDense(1, kernel_initializer="normal")])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, abs(x), epochs=40, batch_size=64, verbose=0)
    # From 1.3 at the start; what remains is the noise of the last steps.
    assert model.evaluate(x, abs(x), verbose=0) < 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Maxout(0), "pieces=0"),
        (lambda: Maxout(2.0), r"pieces=2\.0"),
        (lambda: Maxout(axis=0), "batch axis.*axis=0"),
        (lambda: MaxoutDense(3, pieces=0), "pieces=0"),
        (lambda: MaxoutDense(0), "Received: 0"),
        (lambda: MaxoutConv2D(2.5, 3), r"Received: 2\.5"),
        (lambda: Maxout(3)(np.zeros((2, 8))), r"multiple of 3\. Received: input_shape=\(2, 8\)"),
        (lambda: Maxout()(keras.Input((4, None))), r"known.*input_shape=\(None, 4, None\)"),
        (lambda: Maxout(axis=3)(np.zeros((2, 8))), r"axis=3.*input_shape=\(2, 8\)"),
        (lambda: Maxout(axis=-2)(np.zeros((2, 8))), r"axis=-2.*input_shape=\(2, 8\)"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [Maxout, lambda **kwargs: MaxoutDense(3, **kwargs)])
def test_a_map_of_policies_is_no_trouble(make):
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16")
    layer = make(dtype=policies)
    layer.build((None, 4))
    assert layer.compute_dtype == "bfloat16"
