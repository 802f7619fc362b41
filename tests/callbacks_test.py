"""Callbacks, on models of every kind."""

import keras
import numpy as np
import pytest

from keras_learnact.callbacks import PWLUBoundaries, SReLUThresholds
from keras_learnact.layers.pwlu import PWLU
from keras_learnact.layers.srelu import SReLU

# One channel of 1 … 100 and one of ten times as much: the percentiles can be read off.
INPUTS = np.stack([np.arange(1, 101), 10 * np.arange(1, 101)], axis=1).astype("float32")
TARGETS = INPUTS.sum(axis=1, keepdims=True) / 1000


def functional(layer):
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))


def sequential(layer):
    return keras.Sequential([keras.Input((2,)), layer, keras.layers.Dense(1)])


def without_input(layer):
    return keras.Sequential([layer, keras.layers.Dense(1)])


def nested(layer):
    inner = keras.Sequential([keras.Input((2,)), layer])
    return sequential(inner)


def subclassed(layer):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer, self.out = layer, keras.layers.Dense(1)

        def call(self, x):
            return self.out(self.layer(x))

    return Model()


EVERY_MODEL = [functional, sequential, without_input, nested, subclassed]


def fit(model, callback, epochs, initial_epoch=0, learning_rate=1e-3, **kwargs):
    if not model.compiled:
        model.compile(keras.optimizers.SGD(learning_rate, clipnorm=1.0), "mse")
    model.fit(
        INPUTS,
        TARGETS,
        epochs=epochs,
        initial_epoch=initial_epoch,
        batch_size=50,
        verbose=0,
        callbacks=callback,
        **kwargs,
    )


def is_frozen(layer):
    return bool(layer.frozen > 0)


def one_frozen_epoch(layer, inputs, kind=SReLUThresholds, of="t_right", **arguments):
    """What `fit` would make of the callback in one epoch that trains nothing."""
    callback = kind(inputs, epochs=1, **arguments)
    callback.set_model(keras.Sequential([keras.Input(inputs.shape[1:]), layer]))
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    assert is_frozen(layer)
    callback.on_epoch_end(0)
    assert not is_frozen(layer)
    return layer.parameters()[of]


class Record(keras.callbacks.Callback):
    """The layer's parameters and `frozen` after every epoch, as a later callback sees them."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.parameters, self.frozen = layer, [], []

    def on_epoch_end(self, epoch, logs=None):
        self.parameters.append(self.layer.parameters())
        self.frozen.append(is_frozen(self.layer))


@pytest.mark.parametrize("make", EVERY_MODEL, ids=lambda make: make.__name__)
def test_thresholds_are_still_for_two_epochs_then_set_to_a_percentile_then_learned(make):
    layer = SReLU(initial=(5.0, 0.2, 30.0, 0.5))
    record = Record(layer)
    callback = SReLUThresholds(INPUTS, epochs=2, percentile=50, batch_size=33)
    fit(make(layer), [callback, record], epochs=3)
    first, second, third = record.parameters
    assert record.frozen == [True, False, False]
    start = {"t_left": 5, "a_left": 0.2, "t_right": 30, "a_right": 0.5}
    for name, value in start.items():
        np.testing.assert_array_equal(first[name], np.full((2, 1), value, "float32"))
        if name != "t_right":
            np.testing.assert_array_equal(second[name], first[name])
        assert (third[name] != second[name]).any()
    # The median of 1 … 100 is 50.5.
    np.testing.assert_array_equal(second["t_right"], [[50.5], [505]])


@pytest.mark.parametrize("validate", [False, True])
def test_thresholds_survive_when_the_frozen_phase_ends_with_the_training(validate):
    layer = SReLU()
    data = {"validation_data": (INPUTS, TARGETS)} if validate else {}
    fit(functional(layer), SReLUThresholds(INPUTS, epochs=1, percentile=100), 1, **data)
    np.testing.assert_array_equal(layer.parameters()["t_right"], [[100], [1000]])
    assert not is_frozen(layer)


def test_a_training_that_stops_within_the_frozen_phase_continues_from_a_file(tmp_path):
    model = functional(SReLU())
    fit(model, SReLUThresholds(INPUTS, epochs=2, percentile=100), epochs=1)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    layer = model.layers[1]
    assert is_frozen(layer)
    np.testing.assert_array_equal(layer.parameters()["t_right"], [[1], [1]])
    # Epoch 3 of 3: the two frozen ones are over, the thresholds are set before it begins.
    fit(model, SReLUThresholds(INPUTS, epochs=2, percentile=50), epochs=3, initial_epoch=2)
    assert not is_frozen(layer)
    # Two steps of at most 1e-3 each have been learned since.
    np.testing.assert_allclose(layer.parameters()["t_right"], [[50.5], [505]], atol=2e-3)
    assert (layer.parameters()["a_right"] != 1).all()


def test_without_the_callback_everything_learns_from_the_start():
    layer = SReLU(initial=(5.0, 0.2, 30.0, 0.5))
    fit(functional(layer), None, epochs=1)
    for name, value in zip(layer.parameters(), (5.0, 0.2, 30.0, 0.5), strict=True):
        assert (layer.parameters()[name] != np.float32(value)).any()


def test_the_activation_argument_of_a_layer_and_one_object_in_two_places_are_found_once():
    shared = SReLU(sharing="layer")
    inputs = keras.Input((2,))
    x = keras.layers.Dense(2, activation=shared, kernel_initializer="identity")(inputs)
    model = keras.Model(inputs, shared(x))
    # Both calls see 1 … 100 and 10 … 1000 (positive inputs pass): the largest is 1000.
    callback = SReLUThresholds(INPUTS, epochs=1, percentile=100)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(INPUTS, INPUTS, epochs=1, verbose=0, callbacks=[callback])
    assert callback.layers == [shared]
    np.testing.assert_array_equal(shared.parameters()["t_right"], [[1000]])


@pytest.mark.parametrize(
    ("sharing", "axis", "expected"),
    [
        ("layer", -1, [12]),
        ("channel", -1, [9, 10, 11, 12]),
        ("channel", 1, [4, 8, 12]),
        (2, -1, [10, 12]),
        ("unit", -1, list(range(1, 13))),
    ],
)
def test_each_group_has_its_own_percentile(sharing, axis, expected):
    # Two samples: zeros, and 1 … 12 in 3 rows of 4 columns.
    inputs = np.stack([np.zeros((3, 4)), np.arange(1, 13).reshape(3, 4)]).astype("float32")
    thresholds = one_frozen_epoch(SReLU(sharing=sharing, axis=axis), inputs, percentile=100)
    np.testing.assert_array_equal(thresholds[:, 0], expected)


def test_a_threshold_is_never_set_below_the_left_one():
    layer = SReLU(sharing="layer", initial=(-0.5, 0.2, 1.0, 1.0))
    assert one_frozen_epoch(layer, -INPUTS) == -0.5


def test_a_threshold_of_nan_is_never_set():
    assert one_frozen_epoch(SReLU(sharing="layer"), np.nan * INPUTS) == 1


def test_a_layer_whose_inputs_cannot_be_observed_is_named_and_learns_from_then_on(monkeypatch):
    # As the cells of recurrent layers on JAX.
    monkeypatch.setattr("keras_learnact.callbacks.record_inputs", lambda *arguments: None)
    with pytest.warns(UserWarning, match="the inputs of 'hidden' cannot be observed"):
        assert one_frozen_epoch(SReLU(sharing="layer", name="hidden"), INPUTS) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 1.5}, "epochs=1.5"),
        ({"percentile": 101}, "percentile=101"),
        ({"percentile": float("nan")}, "percentile=nan"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SReLUThresholds(INPUTS, **arguments)


def test_a_model_without_srelu_is_named():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="plain")
    with pytest.raises(ValueError, match="needs a model with SReLU layers.*plain"):
        fit(model, SReLUThresholds(INPUTS), epochs=1)


@pytest.mark.parametrize("make", EVERY_MODEL, ids=lambda make: make.__name__)
def test_pwlu_is_still_for_two_epochs_then_starts_anew_around_its_inputs_then_learns(make):
    layer = PWLU(2, sharing="channel")
    record = Record(layer)
    callback = PWLUBoundaries(INPUTS, epochs=2, deviations=2, batch_size=33)
    fit(make(layer), [callback, record], epochs=3)
    first, second, third = record.parameters
    assert record.frozen == [True, False, False]
    np.testing.assert_array_equal(first["boundaries"], 2 * [[-3, 3]])
    np.testing.assert_array_equal(first["values"], 2 * [[0, 0, 3]])
    # 1 … 100 have the mean 50.5 and the variance (100² - 1) / 12.
    low, high = (50.5 + side * 2 * (9999 / 12) ** 0.5 for side in (-1, 1))
    expected = np.array([[low, high], [10 * low, 10 * high]])
    np.testing.assert_allclose(second["boundaries"], expected, rtol=1e-6)
    np.testing.assert_allclose(second["values"][0], [0, 50.5, high], rtol=1e-6)  # ReLU
    np.testing.assert_array_equal(second["slopes"], 2 * [[0, 1]])
    # No input is beyond the boundaries, where the slopes are.
    assert all((third[name] != second[name]).any() for name in ("values", "boundaries"))


def test_groups_whose_inputs_say_nothing_keep_their_first_boundaries():
    columns = [0.1, 0.1, 0.1, 0.1], [np.nan, 0, 0, 1], [-1e30, 0, 0, 1], [-1, -1, 1, 1]
    layer = PWLU(sharing="channel", initial_boundaries=(-2, 2))
    ends = one_frozen_epoch(layer, np.float32(columns).T, PWLUBoundaries, "boundaries")
    np.testing.assert_array_equal(ends, [[-2, 2], [-2, 2], [-2, 2], [-3, 3]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "PWLUBoundaries: .*epochs=0"),
        ({"deviations": 0}, "deviations=0"),
        ({"deviations": float("nan")}, "deviations=nan"),
    ],
)
def test_wrong_arguments_of_pwlu_boundaries_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PWLUBoundaries(INPUTS, **arguments)


def test_a_model_without_pwlu_is_named():
    with pytest.raises(ValueError, match="PWLUBoundaries needs a model with PWLU layers"):
        fit(functional(SReLU()), PWLUBoundaries(INPUTS), epochs=1)
