import csv
import dataclasses
import json
import math
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

from keras_learnact import RPAU, SReLU
from keras_learnact.history import as_history
from training import feeding
from training.config import ImageConfig, UserError, quick
from training.image_classification import accuracy_by_frequency, data, train

# 4 batches in an epoch. Every kind of random generator is in use. Few coefficients, so that the
# noise of RPAU compiles quickly.
SMALL = ImageConfig(
    network="mlp",
    activation="rpau",
    activation_args={"degrees": [1, 1], "initial": [[0.0, 1.0], [0.5]]},
    augmentation="rotation",
    epochs=3,
    batch_size=16,
    examples=64,
    clip_norm=5.0,
)
FIXED = dataclasses.replace(SMALL, activation="relu", activation_args={}, epochs=1)


class Killed(BaseException):
    """What kill -9 is: nothing that follows in the process runs."""


def kill_in_epoch(epoch, monkeypatch):
    """Ends the process's training in the middle of an epoch, the first being 0."""

    class Kill(feeding.StartEpoch):
        def on_epoch_begin(self, number, logs=None):
            super().on_epoch_begin(number)
            self.number = number

        def on_train_batch_end(self, batch, logs=None):
            if (self.number, batch) == (epoch, 2):
                raise Killed

    monkeypatch.setattr(feeding, "StartEpoch", Kill)


def final_state(workdir):
    """All variables and all metrics but the seconds."""
    with np.load(workdir / "checkpoint.npz") as file:
        arrays = {name: file[name] for name in file.files}
    state = json.loads(str(arrays.pop("state")))
    for row in state["history"]:
        del row["seconds"]
    return arrays, state


def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    train(SMALL, tmp_path / "undisturbed")
    with monkeypatch.context() as patched:
        kill_in_epoch(1, patched)
        with pytest.raises(Killed):
            train(SMALL, tmp_path / "killed")
    assert len(read_csv(tmp_path / "killed")) == 1  # one epoch is lost, not more
    train(SMALL, tmp_path / "killed")

    (expected, expected_state), (found, found_state) = (
        final_state(tmp_path / name) for name in ("undisturbed", "killed")
    )
    assert found_state == expected_state and len(found_state["history"]) == 3
    # 3 weight layers, 2 RPAU with a generator each, that of the augmentation, Adam twice.
    assert len(expected) > 30
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)

    expected, found = (as_history(tmp_path / name) for name in ("undisturbed", "killed"))
    assert found.epochs == expected.epochs == [0, 1, 2, 3]
    for one, other in zip(expected.moments, found.moments, strict=True):
        assert one.metrics == other.metrics
        # In one process Keras numbers the layers of the second network anew.
        for a, b in ((one.parameters, other.parameters), (one.inputs, other.inputs)):
            np.testing.assert_equal(list(a.values()), list(b.values()))


def read_csv(workdir):
    with open(workdir / "metrics.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    config = dataclasses.replace(FIXED, activation="pau", epochs=2)
    return config, workdir, train(config, workdir)


def test_a_run_returns_its_metrics_and_writes_them(finished):
    config, workdir, metrics = finished
    result = json.loads((workdir / "result.json").read_text())
    assert result["metrics"] == metrics
    assert result["config"] == json.loads(json.dumps(dataclasses.asdict(config)))
    assert metrics["parameters"] == 1_333_770 + 20
    assert 0 <= metrics["final_accuracy"] <= metrics["best_accuracy"] <= 1
    assert not metrics["diverged"] and metrics["seconds_per_epoch"] > 0
    assert result["backend"] == keras.backend.backend()
    assert {"python", "keras", "keras_learnact", "numpy"} < set(result["versions"])
    assert result["activation_path"] == RPAU(**SMALL.activation_args).path


def test_a_run_leaves_its_history_its_pictures_and_its_model(finished):
    config, workdir, metrics = finished
    rows = read_csv(workdir)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["val_accuracy"]) == metrics["final_accuracy"]
    assert (workdir / "activations.png").read_bytes()[:4] == b"\x89PNG"
    assert as_history(workdir).moments[2].metrics["val_accuracy"] == metrics["final_accuracy"]
    assert list((workdir / "tensorboard").rglob("events.out.tfevents.*"))
    assert not [path for path in workdir.iterdir() if path.name.startswith(".")]


def test_the_saved_model_takes_raw_pixels_and_needs_no_augmentation(finished):
    config, workdir, metrics = finished
    model = keras.saving.load_model(workdir / "model.keras")
    pixels = np.zeros((3, 8, 8, 1), "uint8")
    assert np.asarray(model(pixels)).shape == (3, 10)
    names = {type(layer).__name__ for layer in model.layers}
    assert "PAU" in names and "Rotation" not in names


@pytest.mark.tensorflow
def test_the_saved_model_of_tensorflow_gives_the_same_logits(finished):
    import tensorflow as tf

    config, workdir, metrics = finished
    pixels = np.arange(64, dtype="float32").reshape(1, 8, 8, 1)
    expected = keras.saving.load_model(workdir / "model.keras")(pixels)
    loaded = tf.saved_model.load(str(workdir / "saved_model"))
    served = loaded.serve(pixels)
    # The same float32 sums over 784 pixels, perhaps fused in another way.
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow writes one")
def test_without_tensorflow_one_line_says_that_there_is_no_saved_model(tmp_path, capsys):
    train(FIXED, tmp_path)
    assert capsys.readouterr().out.count("No SavedModel: that needs TensorFlow") == 1


def test_a_finished_run_says_so_instead_of_training_again(finished, capsys):
    config, workdir, metrics = finished
    before = (workdir / "result.json").stat().st_mtime_ns
    assert train(config, workdir) == metrics
    assert "This run is finished" in capsys.readouterr().out
    assert (workdir / "result.json").stat().st_mtime_ns == before


def test_a_run_that_was_killed_after_its_last_epoch_only_writes_its_result(finished, capsys):
    config, workdir, metrics = finished
    (workdir / "result.json").unlink()
    assert train(config, workdir) == metrics
    assert "Goes on after epoch 2 of 2" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["result.json", "checkpoint.npz"])
def test_the_workdir_of_another_run_is_an_error(finished, file):
    config, workdir, metrics = finished
    result = (workdir / "result.json").read_text()
    if file != "result.json":
        (workdir / "result.json").unlink()
    with pytest.raises(UserError, match=f"{file} belongs to another run: seed=0 there and 1 here"):
        train(dataclasses.replace(config, seed=1), workdir)
    (workdir / "result.json").write_text(result)


def test_divergence_ends_the_run_cleanly_and_is_recorded(tmp_path, capsys):
    config = dataclasses.replace(
        FIXED, activation="slaf", optimizer="sgd", learning_rate=100.0, clip_norm=None, epochs=4
    )
    metrics = train(config, tmp_path)
    assert metrics["diverged"]
    assert "Diverged in epoch" in capsys.readouterr().out
    assert not math.isfinite(float(read_csv(tmp_path)[-1]["loss"]))
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]["diverged"]
    assert train(config, tmp_path)["diverged"]  # finished, too


def test_srelu_is_trained_in_its_two_phases(tmp_path):
    train(dataclasses.replace(FIXED, activation="srelu", epochs=2), tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    layers = [layer for layer in model.layers if isinstance(layer, SReLU)]
    assert all(float(np.asarray(layer.frozen.value)) == 0 for layer in layers)
    # From the data after the first epoch, so no longer where it started.
    assert np.all(layers[0].parameters()["t_right"] != 1)


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path):
    def loss(seed, name):
        train(dataclasses.replace(FIXED, seed=seed), tmp_path / name)
        return read_csv(tmp_path / name)[0]["loss"]

    assert loss(0, "a") == loss(0, "b") != loss(1, "c")


def test_quick_runs_on_generated_images_where_the_data_set_is_missing(tmp_path, capsys):
    config = ImageConfig(
        dataset="cifar10", network="mlp", activation="relu", data_dir=str(tmp_path / "none")
    )
    with pytest.raises(UserError, match="python -m training.datasets --dataset=cifar10"):
        train(config, tmp_path / "run")
    train(quick(config), tmp_path / "run")
    assert "THIS QUICK RUN USES GENERATED NOISE INSTEAD" in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["dataset"] == "generated noise, not cifar10"


def test_a_run_can_be_started_and_read_as_a_program(tmp_path):
    command = [sys.executable, "-m", "training.image_classification", "--epochs=1", "--examples=16"]
    command += ["--network=mlp", "--activation=relu", f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "best accuracy" in done.stdout and f"Everything is in {tmp_path}" in done.stdout
    assert "\x08" not in done.stdout  # plain lines: no progress bar in a log
    wrong = subprocess.run([*command, "--seed=1"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    assert "belongs to another run: seed=0 there and 1 here" in wrong.stderr


def test_an_imbalanced_run_tells_frequent_from_rare_classes(tmp_path):
    config = dataclasses.replace(FIXED, imbalance=10.0, examples=None, epochs=2)
    metrics = train(config, tmp_path)
    # The digits have 139 training images of the rarest class, so 139 of the first and 13 of the
    # last; the test set has 35 to 37 of each class. Three, four and three classes make the whole.
    images, _ = data(config)
    counts = np.bincount(images.train[1])
    assert (counts[0], counts[-1]) == (139, 13) and (np.diff(counts) < 0).all()
    fewer = np.bincount(data(dataclasses.replace(config, examples=400))[0].train[1])
    assert fewer[0] == 10 * fewer[-1] + fewer[0] % 10 > 20  # of fewer examples the same profile
    tests = np.bincount(images.test[1])
    shares = [tests[:3].sum(), tests[3:7].sum(), tests[7:].sum()] / tests.sum()
    shots = [metrics[f"{name}_accuracy"] for name in ("many", "medium", "few")]
    assert metrics["final_accuracy"] == pytest.approx(np.dot(shares, shots), abs=1e-6)
    assert shots[0] > shots[2]


def test_accuracy_by_frequency_goes_by_the_numbers_of_training_images():
    # Classes 1, 2 and 0 by frequency; the model is right for class 1 only.
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Rescaling(0, [0.0, 1.0, 0.0])(inputs))
    labels = np.array([0, 1, 2, 1], "int32")
    images = types.SimpleNamespace(
        classes=3, train=(None, np.repeat([0, 1, 2], [1, 5, 2])), test=(np.zeros((4, 1)), labels)
    )
    assert accuracy_by_frequency(model, images) == {
        "many_accuracy": 1.0,
        "medium_accuracy": 0.0,
        "few_accuracy": 0.0,
    }


def test_of_two_classes_none_is_between():
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Rescaling(0, [1.0, 0.0])(inputs))
    images = types.SimpleNamespace(
        classes=2, train=(None, np.array([0, 1, 1])), test=(np.zeros((3, 1)), np.array([0, 1, 1]))
    )
    found = accuracy_by_frequency(model, images)
    assert (found["many_accuracy"], found["few_accuracy"]) == (0, 1)
    assert np.isnan(found["medium_accuracy"])


def test_imagenet_has_no_imbalance():
    with pytest.raises(UserError, match="use --imbalance=1"):
        data(dataclasses.replace(FIXED, dataset="imagenet2012", imbalance=10.0))
