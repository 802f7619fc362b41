import inspect

import keras
import numpy as np
import pytest

import keras_learnact as kla
from training import activations
from training.config import UserError

X = np.array([[-2.0, 4.0]], "float32")


def values(name, **arguments):
    return np.asarray(activations.create(name, **arguments)(X))


@pytest.mark.parametrize(
    "name",
    (
        "pau rpau deu apl srelu maxout mixture slaf relu relu6 leaky_relu rrelu elu celu selu "
        "swish prelu"
    ).split(),
)
def test_every_activation_of_the_papers_has_its_name_and_runs(name):
    layer = activations.create(name)
    assert np.all(np.isfinite(np.asarray(layer(X))))


def test_every_activation_of_the_package_is_in_the_registry():
    layers = {
        cls
        for cls in vars(kla.layers).values()
        if inspect.isclass(cls) and issubclass(cls, kla.LearnableActivation)
    }
    assert layers - {kla.LearnableActivation} <= set(activations.registry().values())


def test_layers_that_are_no_activations_are_not_in_the_registry():
    found = set(activations.registry())
    assert not found & {"maxoutdense", "maxoutconv2d", "learnableactivation", "get", "parameter"}


def test_leaky_relu_has_the_papers_slope():
    np.testing.assert_allclose(values("leaky_relu"), [[-0.02, 4]], rtol=1e-6)
    np.testing.assert_allclose(values("leaky_relu", negative_slope=0.5), [[-1, 4]], rtol=1e-6)


def test_prelu_starts_at_a_quarter_and_has_one_slope_for_each_layer():
    layer = activations.create("prelu")
    images = np.full((1, 3, 3, 2), -2.0, "float32")
    np.testing.assert_allclose(np.asarray(layer(images)), images / 4)
    assert layer.count_params() == 1


def test_arguments_reach_the_layer():
    layer = activations.create("pau", sharing="channel")
    layer(X)
    assert layer.groups == 2


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("pua", {}, r"must be one of \[.*'pau'.*Received: 'pua'"),
        ("relu6", {"slope": 1}, "relu6 of Keras takes no arguments"),
        ("pau", {"colour": 1}, "--activation=pau with {'colour': 1}"),
        ("pau", {"degrees": (-1, 4)}, "--activation=pau .*degrees"),
    ],
)
def test_a_wrong_name_or_argument_is_an_error_that_says_so(name, arguments, message):
    with pytest.raises(UserError, match=message):
        activations.create(name, **arguments)


def test_every_activation_of_keras_has_its_own_name():
    assert activations.create("swish")(X) is not None
    assert keras.activations.get("celu") is activations.registry()["celu"]


def test_a_name_of_keras_stays_with_keras():
    # The papers compare with the fixed function.
    known = activations.registry()
    assert known["swish"] is keras.activations.silu
    assert known["learned_swish"] is kla.Swish
    assert len(activations.create("learned_swish").trainable_weights) == 1
