"""The numbers of parameters that prove the networks, from the papers."""

import types

import keras
import numpy as np
import pytest

from training import networks
from training.config import UserError

GREY, COLOURED = (28, 28, 1), (32, 32, 3)


@pytest.fixture(autouse=True)
def no_random_numbers(monkeypatch):
    # Counting needs none, and JAX would compile their generation for every shape.
    def zeros(self, shape, dtype=None):
        return np.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)


def facts(shape, classes=10):
    channels = shape[-1]
    return types.SimpleNamespace(
        shape=shape, classes=classes, mean=(0.5,) * channels, deviation=(0.25,) * channels
    )


def count(name, shape, activation, **arguments):
    model = networks.build(name, facts(shape), networks.Unit(activation, **arguments))
    return networks.parameter_count(model)


@pytest.mark.parametrize(
    ("name", "shape", "activation", "parameters"),
    [
        ("lenet", GREY, "relu", 61_706),
        ("lenet", GREY, "pau", 61_746),  # 4 activations of 10
        ("vgg8", GREY, "relu", 9_224_458),
        ("vgg8", GREY, "pau", 9_224_508),  # 5 of 10
        ("vgg8", COLOURED, "relu", 3_918_858),
        ("vgg8", COLOURED, "pau", 3_918_908),
        ("vgg8", COLOURED, "maxout", 7_829_642),
        ("mobilenet_v2", COLOURED, "relu", 2_296_922),
        ("mobilenet_v2", COLOURED, "pau", 2_296_922 + 360),
        ("mobilenet_v2", COLOURED, "maxout", 3_524_506),
        ("resnet101", COLOURED, "relu", 42_512_970),
        ("resnet101", COLOURED, "pau", 42_512_970 + 1000),
        ("resnet101", COLOURED, "maxout", 75_454_090),
        ("densenet121", COLOURED, "relu", 6_956_298),
        ("densenet121", COLOURED, "pau", 6_956_298 + 1200),
        ("mlp", GREY, "relu", 1_333_770),
        ("mlp", GREY, "deu", 1_333_770 + 5 * (1024 + 512)),
        # Not in a paper: 32 * (9 + 1), 16 * (9 * 32 + 1), 14 * 14 * 16 * 10 + 10.
        ("cnn", GREY, "relu", 320 + 4_624 + 31_370),
        # He et al. say 0.46 million.
        ("resnet32", COLOURED, "relu", 464_154),
        ("resnet32", COLOURED, "pau", 464_154 + 310),  # 31 activations of 10
        # Not in a paper: what the common CIFAR form is known to have.
        ("resnet18", COLOURED, "relu", 11_173_962),
        ("resnet18", COLOURED, "pau", 11_173_962 + 170),
    ],
)
def test_a_network_has_as_many_parameters_as_its_paper_says(name, shape, activation, parameters):
    assert count(name, shape, activation) == parameters


def test_prelu_has_one_parameter_for_each_layer():
    assert count("lenet", GREY, "prelu") == 61_706 + 4
    assert count("vgg8", COLOURED, "prelu") == 3_918_858 + 5


@pytest.mark.parametrize(
    ("name", "width", "parameters"),
    [
        ("mlp", 0.125, 785 * 128 + 129 * 64 + 65 * 10),
        ("mlp", 2.0, 785 * 2048 + 2049 * 1024 + 1025 * 10),
        ("cnn", 0.5, 16 * 10 + 8 * (9 * 16 + 1) + 14 * 14 * 8 * 10 + 10),
        ("cnn", 0.04, 10 + 10 + 14 * 14 * 10 + 10),  # 1.28 and 0.64 filters are 1 and 1
    ],
)
def test_a_width_scales_the_hidden_layers(name, width, parameters):
    model = networks.build(name, facts(GREY), networks.Unit("relu"), width)
    assert networks.parameter_count(model) == parameters


def test_a_width_of_a_network_that_has_one_only_is_an_error():
    with pytest.raises(UserError, match="Only cnn and mlp take a width. Received: width=0.5 for l"):
        networks.build("lenet", facts(GREY), networks.Unit("relu"), 0.5)


@pytest.mark.parametrize("width", [0.0, -1.0, 0.03, float("nan"), float("inf")])
def test_a_width_that_leaves_nothing_is_an_error(width):
    with pytest.raises(UserError, match=f"leave at least 1 of .*Received: width={width}"):
        networks.build("cnn", facts(GREY), networks.Unit("relu"), width)


def test_mobilenet_for_imagenet_has_its_35_activations_replaced():
    relu6 = count("mobilenet_v2_imagenet", (224, 224, 3), "relu6")
    assert count("mobilenet_v2_imagenet", (224, 224, 3), "pau") == relu6 + 350


def test_the_regression_network_takes_10_inputs():
    unit = networks.Unit("relu")
    model = networks.regression(10, (50, 20), unit)
    assert networks.parameter_count(model) == 11 * 50 + 51 * 20 + 21
    assert model.output_shape == (None, 1)


def test_arguments_reach_every_activation_of_a_network():
    # 6 + 16 + 120 + 84 channels with 10 coefficients each.
    assert count("lenet", GREY, "pau", sharing="channel") == 61_706 + 10 * 226


def test_a_network_takes_raw_pixels_of_its_data_set():
    model = networks.build("lenet", facts((8, 8, 1)), networks.Unit("relu"))
    rescaling, resizing = model.layers[1:3]
    # (255 / 255 - 0.5) / 0.25 = 2 and (0 / 255 - 0.5) / 0.25 = -2
    pixels = np.array([0, 255], "float32").reshape(1, 1, 2, 1)
    np.testing.assert_allclose(np.ravel(rescaling(pixels)), [-2, 2], rtol=1e-6)
    assert resizing.compute_output_shape((None, 8, 8, 1)) == (None, 32, 32, 1)
    assert model.output_shape == (None, 10)


def test_maxout_halves_what_a_depthwise_convolution_doubled():
    unit = networks.Unit("maxout")
    x = keras.Input((8, 8, 3))
    assert unit.depthwise(x, 3, padding="same").shape == (None, 8, 8, 3)


def test_maxout_in_a_network_with_an_activation_that_follows_no_weights_is_an_error():
    with pytest.raises(UserError, match="needs a dense or convolution layer right before it"):
        count("densenet121", COLOURED, "maxout")


def test_an_unknown_network_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match="must be one of .*'lenet'.*Received: 'vgg9'"):
        count("vgg9", COLOURED, "relu")
