import gc
import weakref

import keras
import numpy as np
import pytest

import keras_learnact as kla
from keras_learnact.callbacks import ActivationHistory
from keras_learnact.history import History, Moment, as_history
from keras_learnact.observe import named_activations
from keras_learnact.plotting import input_distributions, snapshot
from tests.layers.contract_test import every_activation

X = np.linspace(-4, 4, 64, dtype="float32").reshape(16, 4)
Y = np.sum(X**2, axis=1, keepdims=True)


def model_of(*activations, **compile_arguments):
    layers = [layer for a in activations for layer in (keras.layers.Dense(4), a)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse", **compile_arguments)
    return model


def fit(model, callback, epochs, **arguments):
    model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=[callback], **arguments)


def assert_same(one, other):
    """Two moments or histories have the same content, to the bit."""
    if isinstance(one, History):
        assert one.configs == other.configs
        assert one.epochs == other.epochs
        for pair in zip(one.moments, other.moments, strict=True):
            assert_same(*pair)
        return
    assert (one.epoch, one.metrics) == (other.epoch, other.metrics)
    assert list(one.parameters) == list(other.parameters)
    for a, b in ((one.parameters, other.parameters), (one.inputs, other.inputs)):
        a, b = keras.tree.flatten(a), keras.tree.flatten(b)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


@every_activation
def test_a_history_of_every_activation_survives_its_file(cls, tmp_path):
    # JAX has float64 only where it is asked for.
    dtype = "float64" if keras.backend.backend() == "tensorflow" else "bfloat16"
    model = model_of(cls(sharing="channel", name='<by "channel">\'s'), cls(dtype=dtype))
    history = History.of(model, X)
    history.save(tmp_path / "a.npz")
    again = History.load(tmp_path / "a.npz")
    assert_same(history, again)
    points = np.linspace(-3, 3, 7)
    for name, layer in named_activations(model).items():
        curves = again.layers[name].curve(points, again.moments[0].parameters[name])
        np.testing.assert_array_equal(curves, layer.curve(points))


def test_a_moment_has_the_distributions_that_were_seen():
    model = model_of(kla.PAU(name="first"), kla.APL(name="second"))
    seen, kept = input_distributions(model, X), Moment.of(model, X).distributions
    assert list(kept) == ["first", "second"]
    for name, distribution in seen.items():
        np.testing.assert_array_equal(kept[name].counts, distribution.counts)


def test_a_training_is_recorded_from_before_its_begin_to_its_end(tmp_path):
    model = model_of(kla.PAU(name="pau"), metrics=["mae"])
    start = snapshot(model)
    fit(model, ActivationHistory(tmp_path / "a.npz", X), epochs=3, validation_data=(X, Y))
    history = History.load(tmp_path / "a.npz")
    assert history.epochs == [0, 1, 2, 3]
    first, *rest = history.moments
    np.testing.assert_equal(first.parameters, start)
    np.testing.assert_equal(rest[-1].parameters, snapshot(model))
    assert first.metrics == {}
    losses = [moment.metrics["loss"] for moment in rest]
    assert [set(m.metrics) for m in rest] == [{"loss", "mae", "val_loss", "val_mae"}] * 3
    assert losses == model.history.history["loss"]
    assert [moment.distributions["pau"].counts.sum() for moment in history.moments] == [64] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]  # nothing is left beside


def test_a_training_that_goes_on_is_one_history(tmp_path):
    def train(path, *parts):
        keras.utils.set_random_seed(1)
        model = model_of(kla.PAU(), kla.SReLU(), metrics=["mae"])
        for begin, end in parts:
            fit(model, ActivationHistory(path, X), end, initial_epoch=begin, shuffle=False)

    train(tmp_path / "whole.npz", (0, 4))
    whole = History.load(tmp_path / "whole.npz")
    train(tmp_path / "parts.npz", (0, 2), (2, 4))
    parts = History.load(tmp_path / "parts.npz")
    # Keras gave the layers of the second model other names.
    assert list(whole.configs) != list(parts.configs)
    names = dict(zip(parts.configs, whole.configs, strict=True))
    for one, other in zip(whole.moments, parts.moments, strict=True):
        assert_same(one, other.renamed(names))


def test_epochs_after_the_point_where_training_goes_on_are_dropped(tmp_path):
    path = tmp_path / "a.npz"
    fit(model_of(kla.PAU()), ActivationHistory(path), epochs=5)
    before = History.load(path)
    model = model_of(kla.PAU())  # a new process would have the first name again
    fit(model, ActivationHistory(path), epochs=4, initial_epoch=3)
    after = History.load(path)
    assert after.epochs == [0, 1, 2, 3, 4]
    assert list(after.configs) == list(before.configs)
    for i in (0, 1, 2):
        assert_same(after.moments[i], before.moments[i])
    assert after.moments[3].metrics == before.moments[3].metrics
    now = list(snapshot(model).values())
    np.testing.assert_equal(list(after.moments[4].parameters.values()), now)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"every": 3}, [0, 3, 6, 7]),
        ({"every": 10}, [0, 7]),
        ({"limit": 3}, [0, 7]),
        ({"limit": 5}, [0, 4, 7]),
        ({"limit": 6}, [0, 2, 4, 6, 7]),
        ({"every": 2, "limit": 5}, [0, 4, 7]),
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_first_and_last_are_kept_and_between_them_every_so_many(tmp_path, settings, epochs):
    model, path = model_of(kla.Mixture()), tmp_path / "a.npz"
    fit(model, ActivationHistory(path, **settings), epochs=5)
    fit(model, ActivationHistory(path, **settings), epochs=7, initial_epoch=5)
    assert History.load(path).epochs == epochs


def test_a_long_training_never_keeps_more_than_the_limit(tmp_path):
    class Counted(ActivationHistory):
        def _take(self, epoch, metrics):
            super()._take(epoch, metrics)
            counts.append(len(self._history.moments))

    model, counts = model_of(kla.Mixture()), []
    callback = Counted(tmp_path / "a.npz", limit=8)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(300):
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {})
    assert max(counts) <= 8


class Late(keras.Model):
    """Builds its activation when it is called first."""

    def __init__(self):
        super().__init__()
        self.pau = kla.PAU(sharing="channel")
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(self.pau(x))


def test_a_model_that_is_built_by_its_inputs_has_a_moment_before_training(tmp_path):
    model = Late()
    model.compile("adam", "mse")
    fit(model, ActivationHistory(tmp_path / "a.npz", X), epochs=1)
    assert History.load(tmp_path / "a.npz").epochs == [0, 1]


@pytest.mark.tensorflow  # JAX's `fit` builds a model before its callbacks begin
def test_a_model_that_is_built_by_its_first_batch_is_recorded_from_its_first_epoch(tmp_path):
    model = Late()
    model.compile("adam", "mse")
    fit(model, ActivationHistory(tmp_path / "a.npz"), epochs=2)
    assert History.load(tmp_path / "a.npz").epochs == [1, 2]


def test_the_callback_keeps_no_layer_alive(tmp_path):
    model, callback = model_of(kla.PAU()), ActivationHistory(tmp_path / "a.npz", X)
    fit(model, callback, epochs=1)
    layer = weakref.ref(model.layers[1])
    callback.set_model(None)
    keras.backend.clear_session()
    del model
    gc.collect()
    assert layer() is None


def test_a_file_of_another_model_is_not_touched(tmp_path):
    path = tmp_path / "a.npz"
    History.of(model_of(kla.PAU(name="old"))).save(path)
    before = path.read_bytes()
    for other in (
        model_of(kla.APL(name="new")),
        model_of(kla.PAU(degrees=(3, 2), name="new")),
        model_of(kla.PAU(), kla.PAU(name="new")),
    ):
        with pytest.raises(ValueError, match="another model.*PAU 'old'.*'new'.*Use another path"):
            fit(other, ActivationHistory(path), epochs=1)
    assert path.read_bytes() == before
    # The same kind of activation, of another number of channels.
    narrow = keras.Sequential([keras.Input((4,)), kla.PAU(sharing="channel", name="act")])
    wide = keras.Sequential([keras.Input((8,)), kla.PAU(sharing="channel", name="act")])
    wide.compile("sgd", "mse")
    History.of(narrow).save(path)
    with pytest.raises(ValueError, match="another model"):
        wide.fit(np.ones((2, 8)), np.ones((2, 8)), verbose=0, callbacks=[ActivationHistory(path)])


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    history = History.of(model_of(kla.PAU()))
    history.save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        history.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    assert path.read_bytes() == before


def test_a_layer_made_with_a_lambda_is_drawn_at_once_and_from_a_file_if_that_is_allowed(tmp_path):
    layer = kla.Mixture(("linear", lambda x: x / (1 + abs(x))), name="own")
    history = History.of(model_of(layer))
    assert history.layers["own"] is layer
    with pytest.warns(UserWarning, match="includes a `lambda`"):
        history.save(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="safe_mode=False"):
        History.load(tmp_path / "a.npz").layers  # noqa: B018
    again = History.load(tmp_path / "a.npz", safe_mode=False)
    parameters = again.moments[0].parameters["own"]
    np.testing.assert_array_equal(again.layers["own"].curve([1.0], parameters), layer.curve([1.0]))


def test_a_history_is_found_in_whatever_holds_it(tmp_path):
    model = model_of(kla.PAU())
    history = History.of(model)
    history.save(tmp_path / "activations.npz")
    assert as_history(history) is history
    assert_same(as_history(model), history)
    assert as_history(model, X).moments[0].inputs
    assert_same(as_history(tmp_path), history)
    assert_same(as_history(str(tmp_path / "activations.npz")), history)


def test_wrong_sources_say_the_way_out(tmp_path):
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")], name="plain")
    unbuilt = keras.Sequential([kla.PAU(sharing="channel", name="late")])
    broken, other = tmp_path / "broken.npz", tmp_path / "other.npz"
    History.of(model_of(kla.PAU())).save(broken)
    broken.write_bytes(broken.read_bytes()[:-100])
    np.savez(other, a=np.zeros(3))
    (tmp_path / "text.npz").write_text("no zip")
    np.save(tmp_path / "array.npy", np.zeros(3))
    for fold in ("fold_1", "fold_2"):
        (tmp_path / "runs" / fold).mkdir(parents=True)
        (tmp_path / "runs" / fold / "activations.npz").touch()
    for source, error, message in [
        (plain, ValueError, "'plain' has no learnable activation"),
        (unbuilt, ValueError, "without parameters yet: late"),
        (5, TypeError, "Received: 5"),
        (None, TypeError, "Received: None"),
        (tmp_path / "missing.npz", FileNotFoundError, "missing.npz.*ActivationHistory"),
        (tmp_path, FileNotFoundError, "no activations.npz in this folder"),
        (tmp_path / "runs", ValueError, "holds 2 runs.*fold_1, .*fold_2"),
        (broken, ValueError, "broken.npz.*not one"),
        (other, ValueError, "other.npz.*not one"),
        (tmp_path / "text.npz", ValueError, "text.npz.*not one"),
        (tmp_path / "array.npy", ValueError, "array.npy.*not one"),
    ]:
        with pytest.raises(error, match=message):
            as_history(source)
    with pytest.raises(ValueError, match="Leave them out, or give the model"):
        as_history(tmp_path, X)
    with pytest.raises(TypeError, match="needs a Keras model or layer"):
        History.of("model")


def test_wrong_arguments_of_the_callback_say_the_way_out(tmp_path):
    for settings, message in [
        ({"every": 0}, "every=0"),
        ({"every": True}, "every=True"),
        ({"limit": 2}, "limit=2"),
    ]:
        with pytest.raises(ValueError, match=message):
            ActivationHistory(tmp_path / "a.npz", **settings)
    plain = model_of()
    with pytest.raises(ValueError, match="needs a model with learnable activations"):
        fit(plain, ActivationHistory(tmp_path / "a.npz"), epochs=1)
    with pytest.raises(FileNotFoundError, match="no folder .*missing.*Make the folder first"):
        fit(model_of(kla.PAU()), ActivationHistory(tmp_path / "missing" / "a.npz"), epochs=1)
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        History.of(model_of(kla.PAU())).save(tmp_path)
    assert not list(tmp_path.iterdir())
