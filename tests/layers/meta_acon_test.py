import keras
import numpy as np
import pytest
from keras import ops
from scipy import special

import keras_learnact as kla
from keras_learnact.layers.meta_acon import MetaACONC
from tests.numeric import call, differences, gradients


def sample(shape=(3, 4, 5, 8), seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape, scale=2).astype(dtype)


def randomised(layer, seed=1):
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        # Variances stay positive.
        value = ops.convert_to_numpy(weight) + 0.3 * rng.normal(size=weight.shape)
        weight.assign(abs(value) + 0.1 if "variance" in weight.name else value)
    return layer


def built(shape=(None, 4, 5, 8), **kwargs):
    layer = MetaACONC(**{"ratio": 4, **kwargs})
    layer.build(shape)
    return randomised(layer)


def of_paper(layer, x, counted=None):
    """The authors' equations in NumPy, at inference, of x [batch, height, width, channels]."""

    def weight(owner, name):
        return ops.convert_to_numpy(getattr(owner, name)).astype("float64")

    def normalized(y, by):
        shifted = (y - weight(by, "moving_mean")) / np.sqrt(weight(by, "moving_variance") + 1e-5)
        return weight(by, "gamma") * shifted + weight(by, "beta")

    beta = x.astype("float64").mean((1, 2)) if counted is None else counted
    for name in ("squeeze", "excite"):
        dense = getattr(layer, name)
        beta = beta @ weight(dense, "kernel") + weight(dense, "bias")
        if layer.normalization:
            beta = normalized(beta, getattr(layer, f"{name}_normalization"))
    beta = special.expit(beta)[:, None, None]
    p1, p2 = weight(layer, "p1"), weight(layer, "p2")
    return (p1 - p2) * x * special.expit(beta * (p1 - p2) * x) + p2 * x


@pytest.mark.parametrize("normalization", [True, False])
def test_values_are_those_of_the_paper(normalization):
    layer, x = built(normalization=normalization), sample()
    # float32, through two small matrix products.
    np.testing.assert_allclose(call(layer, x), of_paper(layer, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalization", [True, False])
def test_it_starts_as_swish_with_a_slope_of_a_half(normalization):
    layer, x = MetaACONC(normalization=normalization), sample()
    for training in (False, True):
        y = call(layer, x, training=training)
        np.testing.assert_allclose(y, x * special.expit(x / 2), rtol=2e-6)


def test_the_weights_are_those_of_the_paper():
    layer = MetaACONC(ratio=16)
    layer.build((None, 7, 7, 512))
    # p1, p2; 512 to 32 and back with biases; two normalizations of scale and offset.
    trained = sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)
    assert trained == 2 * 512 + 513 * 32 + 33 * 512 + 2 * 32 + 2 * 512
    small = MetaACONC(ratio=16)
    small.build((None, 8))
    assert small.squeeze.units == 16  # at least `ratio`


@pytest.mark.tensorflow  # float64
def test_gradients_equal_differences():
    layer = built(shape=(None, 3, 4), dtype="float64")
    x, dy = sample((2, 3, 4), dtype="float64"), sample((2, 3, 4), 7, "float64")
    _, (slope,) = gradients(lambda t: layer(t) * dy, x)
    for place in np.ndindex(x.shape):  # each input moves the mean of its channel
        unit = np.zeros(x.shape)
        unit[place] = 1
        expected = differences(lambda t, unit=unit: (call(layer, x + t * unit) * dy).sum(), 0, 1e-6)
        assert slope[place] == pytest.approx(expected, rel=1e-6, abs=1e-7)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(x) * dy)
    found = tape.gradient(total, [weight.value for weight in layer.trainable_weights])
    for weight, gradient in zip(layer.trainable_weights, found, strict=True):
        start = ops.convert_to_numpy(weight)
        direction = sample(start.shape, 3, "float64")

        def moved(t, weight=weight, start=start, direction=direction):
            weight.assign(start + t * direction)
            return (call(layer, x) * dy).sum()

        expected = differences(moved, 0, 1e-6)
        weight.assign(start)
        assert (gradient.numpy() * direction).sum() == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_every_weight_is_trained():
    for normalization in (True, False):
        model = keras.Sequential(
            [
                keras.Input((4, 4, 6)),
                MetaACONC(2, normalization=normalization),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(1),
            ]
        )
        before = [ops.convert_to_numpy(w) for w in model.trainable_weights]
        x = sample((64, 4, 4, 6))
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
        model.fit(x, x[:, 0, 0, :1], batch_size=16, epochs=3, verbose=0)
        layer = model.layers[0]
        # A bias before a normalization has no effect; rounding may move it.
        idle = (layer.squeeze.bias, layer.excite.bias) if normalization else ()
        for weight, old in zip(model.trainable_weights, before, strict=True):
            assert np.isfinite(ops.convert_to_numpy(weight)).all()
            if not any(weight is other for other in idle):
                assert (ops.convert_to_numpy(weight) != old).any(), weight.path


def test_channels_first_equals_channels_last_transposed():
    last, first = built(), built((None, 8, 4, 5), axis=1)
    first.set_weights(last.get_weights())
    x = sample()
    y = call(first, x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    # The means are sums in another order.
    np.testing.assert_allclose(y, call(last, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8), (2, 3, 8), (0, 4, 5, 8), (2, 1, 3, 2, 8)])
def test_any_rank(shape):
    assert call(built(shape), np.ones(shape, "float32")).shape == shape


def test_sizes_may_be_unknown():
    inputs = keras.Input((None, None, 8))
    model = keras.Model(inputs, MetaACONC()(inputs))
    assert model.output_shape == (None, None, None, 8)
    assert model.predict(sample((2, 7, 2, 8)), verbose=0).shape == (2, 7, 2, 8)


def test_what_a_mask_hides_does_not_count():
    layer, x = built((None, 4, 8)), sample((2, 4, 8))
    mask = np.array([[True, True, False, False], [True, True, True, True]])
    y = call(layer, x, mask=mask)
    counted = np.stack([x[0, :2].mean(0), x[1].mean(0)])
    expected = of_paper(layer, x[:, None], counted)[:, 0]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    embedded = keras.layers.Embedding(3, 8, mask_zero=True)(np.array([[1, 2, 0, 0]]))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(layer(embedded)._keras_mask), [[True, True, False, False]]
    )


def test_a_config_gives_back_what_was_given():
    normal = keras.initializers.RandomNormal(0, 1, seed=3)
    layer = MetaACONC(8, (normal, 0.5), False, 1, name="here", dtype="mixed_float16")
    config = layer.get_config()
    names = ("ratio", "normalization", "axis", "name")
    assert [config[name] for name in names] == [8, False, 1, "here"]
    again = MetaACONC.from_config(config)
    assert again.get_config() == config
    for one in (layer, again):
        one.build((None, 2000, 3))
    p1 = ops.convert_to_numpy(again.p1)
    np.testing.assert_array_equal(p1, ops.convert_to_numpy(layer.p1))
    assert abs(p1.std() - 1) < 0.1 and (ops.convert_to_numpy(again.p2) == 0.5).all()
    plain = keras.saving.serialize_keras_object(layer)
    assert keras.saving.deserialize_keras_object(plain).get_config() == config


def test_saved_and_loaded_models_compute_the_same(tmp_path):
    model = keras.Sequential([keras.Input((4, 5, 3)), MetaACONC(2), keras.layers.Conv2D(2, 3)])
    randomised(model.layers[0])
    x = sample((3, 4, 5, 3))
    y = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), y)
    model.save_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(clone.predict(x, verbose=0), y)


@pytest.mark.tensorflow
def test_an_exported_model_computes_the_same(tmp_path):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((4, 5, 3)), MetaACONC(2)])
    randomised(model.layers[0])
    x = sample((3, 4, 5, 3))
    kla.export_saved_model(model, tmp_path / "saved_model")
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    y = loaded.serve(x)
    # One formula, compiled twice.
    np.testing.assert_allclose(y, model.predict(x, verbose=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(policy):
    layer, exact = built(dtype=policy), built()
    exact.set_weights([ops.convert_to_numpy(ops.cast(w, "float32")) for w in layer.weights])
    x = ops.cast(sample(), layer.compute_dtype)
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert layer(keras.Input((4, 5, 8))).dtype == layer.compute_dtype
    expected = ops.cast(exact(ops.cast(x, "float32")), layer.compute_dtype)
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(ops.cast(part, "float32")) for part in (y, expected))
    )


@pytest.mark.parametrize("training", [False, True])
def test_large_numbers_give_no_nan(training):
    layer = built((None, 8))
    x = np.repeat(np.float32([[3e38], [-3e38], [1e30], [0], [np.inf]]), 8, axis=1)
    y, (slope,) = gradients(lambda t: layer(t, training=training), x)
    assert not np.isnan(y).any()
    y = call(built((None, 4, 8)), np.full((2, 4, 8), 3e38, "float32"))
    assert not np.isnan(y).any()
    assert not np.isnan(slope).any()


def test_means_of_large_numbers_of_both_signs_are_numbers_when_compiled():
    inputs = keras.Input((64, 2))
    model = keras.Model(inputs, randomised(MetaACONC(2))(inputs))
    model.compile(jit_compile=True)
    halves = np.repeat(np.float32([3e38, -3e38]), 32)
    x = np.stack([np.broadcast_to(halves[:, None], (64, 2)), np.full((64, 2), 1.0)]).astype("f4")
    assert np.isfinite(model.predict(x, verbose=0)).all()


def test_numbers_beyond_the_largest_have_no_part_in_the_slope_of_the_means():
    layer = built((None, 2, 8))
    x = np.float32([[[2e15] * 8, [-2e15] * 8]])
    _, (slope,) = gradients(layer.switching_factors, x)
    np.testing.assert_array_equal(slope, 0)


def test_a_nan_that_a_mask_hides_does_not_count():
    layer = built((None, 3, 8))
    x = sample((1, 3, 8))
    mask = np.array([[True, True, False]])
    y = call(layer, x, mask=mask)
    x[0, 2] = np.nan
    np.testing.assert_array_equal(call(layer, x, mask=mask)[:, :2], y[:, :2])


def test_it_says_what_it_runs():
    assert built().path.startswith("reference: MetaACONC has no compiled kernel")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MetaACONC(0), "ratio=0"),
        (lambda: MetaACONC(2.0), r"ratio=2\.0"),
        (lambda: MetaACONC(True), "ratio=True"),
        (lambda: MetaACONC(axis=0), "batch axis.*axis=0"),
        (lambda: MetaACONC(initial=1.0), r"\(p1, p2\).*initial=1\.0"),
        (lambda: MetaACONC(initial=(1, None)), r"initial\[1\]=None"),
        (lambda: MetaACONC()(keras.Input((4, None))), r"known.*input_shape=\(None, 4, None\)"),
        (lambda: MetaACONC(axis=3)(np.zeros((2, 8))), r"axis=3.*input_shape=\(2, 8\)"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
