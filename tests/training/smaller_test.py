"""Networks without some of their filters: which go, and that the rest computes what it did."""

import types

import keras
import numpy as np
import pytest

from keras_learnact import PAU, Maxout
from training import networks, smaller
from training.config import UserError

layers = keras.layers
COLOURED = (32, 32, 3)


@pytest.fixture(autouse=True)
def random_numbers_of_numpy(monkeypatch):
    # JAX would compile their generation for every shape.
    random = np.random.default_rng(0)

    def uniform(self, shape, dtype=None):
        limit = np.sqrt(3 / np.prod(shape[:-1]))
        return random.uniform(-limit, limit, shape).astype(dtype or "float32")

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", uniform)


def build(name, shape, activation, **arguments):
    channels = shape[-1]
    facts = types.SimpleNamespace(
        shape=shape, classes=10, mean=(0.5,) * channels, deviation=(0.25,) * channels
    )
    return networks.build(name, facts, networks.Unit(activation, **arguments))


def classifier(shape, function):
    """A network of Keras' layers, with a dense layer at its end."""
    x = inputs = keras.Input(shape)
    x = layers.GlobalAveragePooling2D()(function(x))
    return keras.Model(inputs, layers.Dense(2)(x))


def weigh(convolution, *sums):
    """Gives the filters these sums of absolute weights; every other weight is negative."""
    kernel = np.ones(convolution.kernel.shape)
    kernel[..., ::2, :] = -1
    per_filter = kernel.size // len(sums)
    convolution.kernel.assign(kernel * np.reshape(sums, kernel.shape[3:]) / per_filter)


def outputs(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


# Which filters go.


def test_the_filters_with_the_smallest_sums_of_absolute_weights_go():
    convolution = layers.Conv2D(4, 3)
    model = classifier((8, 8, 2), convolution)
    weigh(convolution, 4.0, 1.0, 3.0, 2.0)
    (mask,) = smaller.strongest(model, 50).values()
    assert mask.tolist() == [True, False, True, False]
    (mask,) = smaller.strongest(model, 25).values()
    assert mask.tolist() == [True, False, True, True]


def test_one_filter_always_stays():
    convolution = layers.Conv2D(4, 3)
    model = classifier((8, 8, 2), convolution)
    weigh(convolution, 1.0, 2.0, 4.0, 3.0)
    (mask,) = smaller.strongest(model, 99).values()
    assert mask.tolist() == [False, False, True, False]


def test_convolutions_whose_outputs_are_added_keep_the_same_filters():
    a, b, alone = (layers.Conv2D(3, 3, padding="same", name=name) for name in ("a", "b", "alone"))
    model = classifier((8, 8, 2), lambda x: alone(a(x) + b(x)))
    weigh(a, 1.0, 2.0, 6.0)
    weigh(b, 5.0, 1.0, 1.0)  # together 6, 3, 7
    weigh(alone, 1.0, 3.0, 2.0)
    kept = {name: mask.tolist() for name, mask in smaller.strongest(model, 33).items()}
    assert kept["a"] == kept["b"] == [True, False, True]
    assert kept["alone"] == [False, True, True]


def test_a_depthwise_convolution_keeps_the_filters_of_the_convolution_before_it():
    a, depthwise = layers.Conv2D(3, 1, name="a"), layers.DepthwiseConv2D(3, name="depthwise")
    model = classifier((8, 8, 2), lambda x: depthwise(a(x)))
    weigh(a, 1.0, 2.0, 3.0)
    depthwise.kernel.assign(np.full((3, 3, 3, 1), 1.0) * np.reshape([1, 0.5, 0], (1, 1, 3, 1)))
    # Together 1 + 9, 2 + 4.5, 3.
    kept = smaller.strongest(model, 33)
    assert kept["a"].tolist() == kept["depthwise"].tolist() == [True, True, False]


def test_the_features_that_maxout_compares_are_one_filter():
    convolution = layers.Conv2D(6, 3)
    model = classifier((8, 8, 2), lambda x: Maxout(2)(convolution(x)))
    weigh(convolution, 1.0, 8.0, 3.0, 3.0, 4.0, 4.0)
    (mask,) = smaller.strongest(model, 33).values()
    assert mask.tolist() == [True, True, False, False, True, True]


def test_what_reaches_the_output_of_the_network_stays():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, name="hidden")(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(x)))
    hidden, logits = smaller.strongest(model, 50).values()
    assert sum(hidden) == 2 and logits.tolist() == [True, True]


# How large what is left is.


def test_lenet_without_half_of_its_filters_has_the_parameters_that_a_hand_counts():
    # 25 + 1 for each of 3 filters, 3 * 25 + 1 of 8, 8 * 25 + 1 of 60; 60 features to 84, to 10.
    by_hand = 3 * 26 + 8 * 76 + 60 * 201 + 84 * 61 + 10 * 85
    for activation, arguments, of_activation in (
        ("relu", {}, 0),
        ("pau", {}, 4 * 10),
        ("pau", {"sharing": "channel"}, (3 + 8 + 60 + 84) * 10),
        ("pau", {"sharing": "channel", "shared_numerator": True}, (3 + 8 + 60 + 84) * 4 + 4 * 6),
    ):
        model = build("lenet", (28, 28, 1), activation, **arguments)
        half = smaller.smaller(model, smaller.strongest(model, 50))
        assert networks.parameter_count(half) == by_hand + of_activation
    assert (smaller.filter_count(model), smaller.filter_count(half)) == (6 + 16 + 120, 3 + 8 + 60)
    # Places of the output times weights.
    assert smaller.multiply_adds(model) == (
        28**2 * 6 * 25 + 10**2 * 16 * 6 * 25 + 120 * 16 * 25 + 120 * 84 + 84 * 10
    )
    assert smaller.multiply_adds(half) == (
        28**2 * 3 * 25 + 10**2 * 8 * 3 * 25 + 60 * 8 * 25 + 60 * 84 + 84 * 10
    )


def test_vgg8_without_half_of_its_filters_is_vgg8_of_half_the_widths():
    model = build("vgg8", COLOURED, "relu")
    half = smaller.smaller(model, smaller.strongest(model, 50))
    widths = [3, 32, 64, 128, 256, 256]
    # 3×3 weights and a bias; batch normalisation has two more.
    by_hand = sum(b * (9 * a + 3) for a, b in zip(widths, widths[1:], strict=False)) + 10 * 257
    assert networks.parameter_count(half) == by_hand


# What is left computes what it did.


def silence(model, kept):
    """Makes the outputs of the filters that are not kept 0, which then stays 0 in all layers."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.beta.assign(np.zeros(layer.beta.shape))
            layer.moving_mean.assign(np.zeros(layer.beta.shape))
        if layer.name in kept:
            kernel = np.array(keras.ops.convert_to_numpy(layer.kernel))
            filters = (-1,) if isinstance(layer, layers.Conv2D) else kernel.shape[2:]
            kernel *= np.reshape(kept[layer.name], filters)
            layer.kernel.assign(kernel)
            if layer.bias is not None:
                layer.bias.assign(np.array(layer.bias) * kept[layer.name])


def scatter(model, x):
    """Other values for everything that begins alike in all channels, but for zeros.

    Batch normalisation gets the statistics of x, or little would come through many layers.
    """
    normalizations = [n for n in model.layers if isinstance(n, layers.BatchNormalization)]
    for layer in normalizations:
        layer.momentum = 0.0
    model(x, training=True)
    random = np.random.default_rng(0)
    for variable in model.weights:
        value = np.array(keras.ops.convert_to_numpy(variable))
        if variable.name == "bias":
            value += random.normal(0, 0.1, value.shape)
        elif variable.name != "kernel":
            value *= random.uniform(0.7, 1.3, value.shape)
        variable.assign(value)


def basic_blocks(x, classes, unit):
    """Two stages of ResNet-18."""
    return networks._resnet(x, classes, unit, networks._basic_block, (2, 2))


def bottlenecks(x, classes, unit):
    """Two stages of ResNet-101, shortened."""
    return networks._resnet(x, classes, unit, networks._bottleneck, (1, 2))


def inverted_residuals(x, classes, unit):
    """Three blocks of MobileNetV2: the last two add what the first gives."""
    plain = {"normalized": True, "use_bias": False}
    for strides in (2, 1, 1):
        y = unit.convolution(x, 24, 1, **plain)
        y = unit.depthwise(y, 3, strides=strides, padding="same", use_bias=False)
        y = networks.normalize(layers.Conv2D(10, 1, use_bias=False)(y))
        x = y if strides > 1 else y + x
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def dense_block(x, classes, unit):
    """A stage of DenseNet-121, shortened, and the narrowing between two stages."""

    def convolution(x, filters, size):
        x = unit.alone()(networks.normalize(x))
        return layers.Conv2D(filters, size, padding="same", use_bias=False)(x)

    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    for _ in range(3):
        x = layers.Concatenate()([convolution(convolution(x, 16, 1), 4, 3), x])
    x = layers.AveragePooling2D(2)(convolution(x, 10, 1))
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(unit.alone()(x)))


SHORTENED = {f.__name__: f for f in (basic_blocks, bottlenecks, inverted_residuals, dense_block)}


@pytest.mark.parametrize(
    ("name", "shape", "activation", "arguments"),
    [
        ("lenet", (28, 28, 1), "maxout", {}),
        ("cnn", (28, 28, 1), "prelu", {"sharing": "channel"}),
        ("vgg8", COLOURED, "pau", {"sharing": "channel", "initial": "tanh"}),
        (
            *("cnn", (28, 28, 1), "pau"),
            {"sharing": "channel", "shared_numerator": True, "initial": "tanh"},
        ),
        ("cnn", (28, 28, 1), "srelu", {"sharing": "unit"}),
        ("basic_blocks", COLOURED, "silu", {}),
        ("bottlenecks", COLOURED, "relu", {}),
        ("bottlenecks", COLOURED, "maxout", {}),
        ("inverted_residuals", COLOURED, "relu6", {}),
        ("inverted_residuals", COLOURED, "maxout", {}),
        ("dense_block", COLOURED, "elu", {}),
    ],
)
def test_a_smaller_network_computes_what_the_whole_one_does_with_those_filters_silent(
    name, shape, activation, arguments, monkeypatch
):
    for shortened, function in SHORTENED.items():
        monkeypatch.setitem(networks.NETWORKS, shortened, networks.Network(function, 32))
    model = build(name, shape, activation, **arguments)
    x = np.random.default_rng(1).integers(0, 256, (4, *shape)).astype("float32")
    scatter(model, x)
    kept = smaller.strongest(model, 40)
    whole = outputs(model, x)
    silence(model, kept)
    expected = outputs(model, x)
    found = outputs(smaller.smaller(model, kept), x)
    size = np.abs(expected).max()
    assert np.abs(expected - whole).max() > 0.01 * size  # the filters were of use
    # float32 sums of thousands of terms in another order, through up to 20 layers.
    np.testing.assert_allclose(found, expected, atol=1e-4 * size, rtol=0)


def test_with_any_activation_it_is_as_if_what_reads_a_filter_had_been_zero():
    model = build("lenet", (28, 28, 1), "pau")  # f(0) is not 0
    kept = smaller.strongest(model, 50)
    half = smaller.smaller(model, kept)
    weighted = (layers.Conv2D, layers.Dense)
    first, second, third, dense, _ = (x for x in model.layers if isinstance(x, weighted))
    for producer, reader in ((first, second), (second, third), (third, dense)):
        # What reads it: axis 2 of a convolution's kernel; 120 features of one place each.
        mask = kept[producer.name]
        shape = (1, 1, -1, 1) if reader is not dense else (-1, 1)
        reader.kernel.assign(np.array(reader.kernel) * np.reshape(mask, shape))
    x = np.random.default_rng(1).integers(0, 256, (2, 28, 28, 1)).astype("float32")
    # Logits of about 1; float32 sums of at most 400 terms in another order.
    np.testing.assert_allclose(outputs(half, x), outputs(model, x), atol=1e-5)


def test_the_given_network_stays_as_it_is():
    model = build("cnn", (28, 28, 1), "pau")
    before = [np.array(weight) for weight in model.weights]
    smaller.smaller(model, smaller.strongest(model, 50))
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_smaller_network_can_be_saved_and_loaded(tmp_path):
    inputs = keras.Input(COLOURED)
    model = keras.Model(inputs, bottlenecks(inputs, 10, networks.Unit("pau")))
    half = smaller.smaller(model, smaller.strongest(model, 50))
    half.save(tmp_path / "half.keras")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    x = np.ones((1, *COLOURED), "float32")
    np.testing.assert_array_equal(outputs(loaded, x), outputs(half, x))


# What cannot be.


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: layers.Conv2D(4, 3, groups=2)(x), "groups=2"),
        (lambda x: PAU(sharing=2)(layers.Conv2D(4, 3)(x)), 'sharing=2: use "layer"'),
        (
            lambda x: layers.LayerNormalization()(layers.Conv2D(4, 3)(x)),
            "LayerNormalization .* rule",
        ),
        (lambda x: layers.Conv2D(4, 3)(x) + 1.0, "Add .* has no rule"),
        (lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3)(x)), "another axis"),
        (
            lambda x: layers.AveragePooling2D(1, data_format="channels_first")(
                layers.Conv2D(4, 3)(x)
            ),
            "AveragePooling2D .* another axis",
        ),
        (lambda x: layers.Flatten()(x)[:, None, None], "GetItem .* has no rule"),
    ],
)
def test_what_is_not_known_to_stay_whole_is_an_error(function, message):
    with pytest.raises(UserError, match=f"Pruning does not know .*{message}"):
        smaller.strongest(classifier((8, 8, 2), function), 50)


def test_a_layer_in_several_places_is_an_error():
    shared = layers.Conv2D(2, 3, padding="same")
    with pytest.raises(UserError, match="Conv2D .* is used in several places"):
        smaller.strongest(classifier((8, 8, 2), lambda x: shared(shared(x))), 50)


def test_a_network_without_convolutions_is_an_error():
    with pytest.raises(UserError, match="needs a network with convolutions .* mlp"):
        smaller.strongest(build("mlp", (28, 28, 1), "relu"), 50)


def test_masks_that_do_not_fit_are_an_error():
    inputs = keras.Input((8, 8, 2))
    x = layers.Add()([layers.Conv2D(2, 3, name=name)(inputs) for name in "ab"])
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(UserError, match="must be of these convolutions .*'a': 2.* 'c' with"):
        smaller.smaller(model, {"c": [True, False]})
    with pytest.raises(UserError, match="At least one filter must stay. Received: none for 'a'"):
        smaller.smaller(model, {"a": [False, False], "b": [False, False]})
    with pytest.raises(UserError, match="'b' go with those of other .* differ in .0."):
        smaller.smaller(model, {"a": [False, True], "b": [True, True]})
