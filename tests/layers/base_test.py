"""What the base classes do for several layers."""

import inspect
import pydoc

import keras
import numpy as np
import pytest
from keras import ops

import keras_learnact as kla

FROM_A_FUNCTION = [kla.PAU, kla.SLAF, kla.BSpline, kla.Hermite]


def twice(x):
    return 2 * x


@pytest.mark.parametrize("function", [np.sin, ops.sin, lambda x: ops.sin(x)])
@pytest.mark.parametrize("cls", FROM_A_FUNCTION)
def test_a_start_that_keras_cannot_bring_back_is_saved_as_its_numbers(cls, function, tmp_path):
    layer = cls(initial=function, sharing="layer")
    config = layer.get_config()
    assert isinstance(config["initial"], tuple)
    again = cls.from_config(config)
    for name, values in layer.parameters().items():
        np.testing.assert_array_equal(again.parameters()[name], values)
    assert again.get_config() == config

    dense = kla.GroupKANDense(2, groups=1, initial=function)
    model = keras.Sequential([keras.Input((3,)), layer, dense])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.linspace(-2, 2, 12, dtype="float32").reshape(4, 3)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("cls", FROM_A_FUNCTION)
@pytest.mark.parametrize("function", ["tanh", keras.activations.tanh, twice])
def test_a_start_that_keras_can_bring_back_stays_what_it_is(cls, function):
    with keras.saving.custom_object_scope({"twice": twice}):
        layer = cls(initial=function)
        assert cls.from_config(layer.get_config()).initial == function


def test_a_start_that_is_a_layer_with_weights_is_saved_as_its_numbers():
    trained = kla.PAU()
    trained.numerator.assign(2 * trained.numerator)
    layer = kla.Hermite(initial=trained)
    again = kla.Hermite.from_config(layer.get_config())
    np.testing.assert_array_equal(again.curve([1.0]), layer.curve([1.0]))


@pytest.mark.parametrize("initial", ["relu", "no such", {"class_name": "no such"}])
def test_an_unknown_initializer_is_named(initial):
    with pytest.raises(ValueError, match="SMU: `initial` must be .* a Keras initializer. Received"):
        kla.SMU(initial=initial)


def test_the_signature_is_that_of_the_constructor():
    arguments = "initial=0.25, sharing='channel', axis=-1, regularizer=None, constraint=None"
    assert str(inspect.signature(kla.PReLU)) == f"({arguments}, **kwargs)"
    assert "(degrees=(5, 4)" in pydoc.render_doc(kla.PAU)
