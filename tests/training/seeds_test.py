import csv
import dataclasses
import functools
import json
import math
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from keras_learnact import SReLU
from keras_learnact.history import History
from keras_learnact.observe import activation_layers
from training import checkpoints, datasets, feeding, image_classification, seeds
from training.config import ImageConfig, UserError

# 4 batches in an epoch, the last one smaller. Every kind of random generator is in use. SGD, since
# Adam divides a gradient by its size: where it is 0 but for rounding the step is as large as any.
SMALL = ImageConfig(
    network="mlp",
    activation="rpau",
    activation_args={"degrees": [1, 1], "initial": [[0.0, 1.0], [0.5]]},
    augmentation="rotation",
    optimizer="sgd",
    learning_rate=0.02,
    momentum=0.9,
    epochs=2,
    batch_size=16,
    examples=60,
    clip_norm=5.0,
)
PLAIN = dataclasses.replace(SMALL, activation="relu", activation_args={}, optimizer="adam")
# Of what both ways sum in float32, in another order, for some steps that move weights by 1e-2.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs Keras on JAX")


class Killed(BaseException):
    """What kill -9 is: nothing that follows in the process runs."""


def metrics_csv(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def result(folder):
    return json.loads((folder / "result.json").read_text())


def without_time(values):
    return {name: value for name, value in values.items() if not name.startswith("seconds")}


def files(folder):
    """The names of all files; TensorBoard's have the time in them."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name.partition("events.out.tfevents")[0] for name in names}


def layer_names(folder):
    with zipfile.ZipFile(folder / "model.keras") as file:
        config = json.loads(file.read("config.json"))
    return [layer["config"]["name"] for layer in config["config"]["layers"]]


def final_state(folder):
    """All variables and all metrics but the seconds."""
    with np.load(folder / "checkpoint.npz") as file:
        arrays = {name: file[name] for name in file.files}
    state = json.loads(str(arrays.pop("state")))
    return arrays, [without_time(row) for row in state["history"]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("together")
    return workdir, seeds.train(SMALL, [1, 0], workdir)


@on_jax
def test_a_seed_leaves_what_it_leaves_alone(trained, tmp_path):
    workdir, metrics = trained
    keras.utils.clear_session()  # names of layers as in a process of its own
    alone = image_classification.train(dataclasses.replace(SMALL, seed=1), tmp_path)
    folder = workdir / "seed1"
    assert list(metrics) == [1, 0] and result(folder)["metrics"] == metrics[1]
    assert files(folder) == files(tmp_path)
    assert layer_names(folder) == layer_names(tmp_path)
    histories = [History.load(path / "activations.npz") for path in (folder, tmp_path)]
    assert histories[0].epochs == histories[1].epochs == [0, 1, 2]
    assert list(histories[0].configs) == list(histories[1].configs)

    found, expected = result(folder), result(tmp_path)
    assert found.pop("trained_together") == [1, 0]
    for values in (found, expected):
        values["metrics"] = without_time(values["metrics"])
    assert found.pop("metrics") == pytest.approx(expected.pop("metrics"), rel=1e-5)
    assert found == expected
    assert metrics[1] != alone  # the seconds

    rows, others = ([without_time(row) for row in metrics_csv(path)] for path in (folder, tmp_path))
    assert len(rows) == len(others) == 2
    for row, other in zip(rows, others, strict=True):
        assert list(row) == list(other)
        floats = ({k: float(v) for k, v in r.items()} for r in (row, other))
        assert next(floats) == pytest.approx(next(floats), rel=1e-5)


@on_jax
def test_seeds_differ(trained):
    workdir, metrics = trained
    losses = {row["loss"] for k in (0, 1) for row in metrics_csv(workdir / f"seed{k}")}
    assert len(losses) == 4


@on_jax
def test_what_is_finished_is_not_trained_again(trained, capsys):
    workdir, metrics = trained
    before = (workdir / "seed0" / "result.json").stat().st_mtime_ns
    assert seeds.train(SMALL, [0, 1], workdir) == {0: metrics[0], 1: metrics[1]}
    assert capsys.readouterr().out.count("This run is finished") == 2
    assert (workdir / "seed0" / "result.json").stat().st_mtime_ns == before
    alone = image_classification.train(dataclasses.replace(SMALL, seed=0), workdir / "seed0")
    assert alone == metrics[0]


# With two seeds, checkpoints number 0 and 1 are of the first epoch.
@pytest.mark.parametrize("saved", [2, 3], ids=["before_all", "between_two_seeds"])
@on_jax
def test_a_run_that_was_killed_among_its_checkpoints_goes_on(
    saved, trained, tmp_path, monkeypatch, capsys
):
    count, save = 0, checkpoints.save

    def save_or_die(*arguments):
        nonlocal count
        if count == saved:
            raise Killed
        count += 1
        save(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", save_or_die)
        with pytest.raises(Killed):
            seeds.train(SMALL, [1, 0], tmp_path)
    capsys.readouterr()
    seeds.train(SMALL, [1, 0], tmp_path)
    went_on = re.findall(r"Epoch 2/2 .* seeds ([0-9, ]+) -", capsys.readouterr().out)
    assert went_on == ["1, 0" if saved == 2 else "0"]
    # The seed that goes on alone does so in another program.
    tolerance = {"rtol": 0, "atol": 0} if saved == 2 else CLOSE
    for seed in (0, 1):
        arrays, history = final_state(tmp_path / f"seed{seed}")
        expected, expected_history = final_state(trained[0] / f"seed{seed}")
        for name, array in expected.items():
            np.testing.assert_allclose(arrays[name], array, **tolerance)
        for row, other in zip(history, expected_history, strict=True):
            assert row == pytest.approx(other, rel=1e-5)


def with_seed_poisoned(monkeypatch, poisoned):
    """Lets one seed begin with nan."""
    compiled = image_classification.compiled

    def poisoning(config, *arguments):
        model, trainer = compiled(config, *arguments)
        if config.seed == poisoned:
            model.trainable_variables[0].assign(np.nan + model.trainable_variables[0].value)
        return model, trainer

    monkeypatch.setattr(image_classification, "compiled", poisoning)


@on_jax
def test_a_seed_that_diverges_is_recorded_and_stops_no_other(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        with_seed_poisoned(patched, 1)
        metrics = seeds.train(PLAIN, [0, 1, 2], tmp_path)
    assert [metrics[seed]["diverged"] for seed in (0, 1, 2)] == [False, True, False]
    assert [len(metrics_csv(tmp_path / f"seed{seed}")) for seed in (0, 1, 2)] == [2, 1, 2]
    assert math.isnan(float(metrics_csv(tmp_path / "seed1")[0]["loss"]))
    assert not (tmp_path / "seed1" / "model.keras").exists()
    assert (tmp_path / "seed2" / "model.keras").exists()
    assert seeds.train(PLAIN, [0, 1, 2], tmp_path)[1]["diverged"]  # finished, too


@on_jax
def test_srelu_is_trained_in_its_two_phases(tmp_path):
    seeds.train(dataclasses.replace(PLAIN, activation="srelu"), [0, 1], tmp_path)
    starts = []
    for seed in (0, 1):
        model = keras.saving.load_model(tmp_path / f"seed{seed}" / "model.keras")
        layers = [layer for layer in model.layers if isinstance(layer, SReLU)]
        assert all(float(np.asarray(layer.frozen.value)) == 0 for layer in layers)
        starts.append(float(layers[0].parameters()["t_right"][0, 0]))
    # Each from what reaches it after the first epoch, so no longer where it started.
    assert starts[0] != starts[1] and 1 not in starts


# Vmapped as on a GPU.


def two(network, activation):
    """Trainers and feeds of two seeds."""
    config, found = dataclasses.replace(SMALL, network=network, activation=activation), []
    if not activation.endswith("pau"):
        config = dataclasses.replace(config, activation_args={})
    images = datasets.load_images("digits", "").first(config.examples)
    for seed in (3, 7):
        of_seed = dataclasses.replace(config, seed=seed)
        feed = feeding.ArrayFeed(images.train, images.test, config.batch_size, seed)
        _, trainer = image_classification.compiled(of_seed, images, feed.steps_per_epoch)
        seeds.build(trainer, feed)
        feed.batches.start_epoch(0)
        found.append((trainer, feed))
    return zip(*found, strict=True)


@functools.cache
def vmapped(network, activation):
    import jax

    trainers, feeds = two(network, activation)
    return seeds.Together(trainers[0], feeds[0], jax.vmap)


def trained_for_an_epoch(network, activation, poisoned=False):
    trainers, feeds = two(network, activation)
    if poisoned:
        weight = trainers[0].trainable_variables[0]
        weight.assign(np.nan + weight.value)
    vmapped(network, activation).train(trainers, [feed.batches.order for feed in feeds])
    return trainers


def values(trainer):
    parts = trainer.variables + trainer.optimizer.variables + trainer.metrics_variables
    return [np.array(variable.value) for variable in parts]


@pytest.mark.parametrize(
    "network, activation", [("lenet", "pau"), ("mlp", "relu"), ("mlp", "rpau"), ("mlp", "maxout")]
)
@on_jax
def test_vmapped_networks_are_each_trained_as_alone(network, activation):
    (_, alone), (_, feed) = two(network, activation)
    arguments = feed.arguments(first_epoch=0)
    test = arguments.pop("validation_data")
    alone.fit(**arguments, verbose=0)
    trainers = trained_for_an_epoch(network, activation)
    for array, expected in zip(values(trainers[1]), values(alone), strict=True):
        np.testing.assert_allclose(array, expected, **CLOSE)

    expected = alone.evaluate(test, verbose=0, return_dict=True)
    for trainer in trainers:
        trainer.reset_metrics()
    vmapped(network, activation).test(trainers)
    assert trainers[1].get_metrics_result() == pytest.approx(expected, rel=1e-4)


@on_jax
def test_the_nan_of_one_seed_leaves_the_other_its_bits():
    _, sound = trained_for_an_epoch("lenet", "pau")
    poisoned, other = trained_for_an_epoch("lenet", "pau", poisoned=True)
    assert np.isnan(np.array(poisoned.trainable_variables[0].value)).all()
    for array, expected in zip(values(other), values(sound), strict=True):
        np.testing.assert_array_equal(array, expected)


@on_jax
def test_all_seeds_take_one_call_of_each_kernel():
    trainers, _ = two("lenet", "pau")
    layers = activation_layers(trainers[0])
    if layers[0].path != "kernel":
        pytest.skip(layers[0].path)
    text = vmapped("lenet", "pau").train_program(trainers).as_text()
    assert text.count("@keras_learnact.") == 2 * len(layers)  # the value and the gradient


@on_jax
def test_in_turn_is_vmap():
    import jax

    arrays = {"a": np.arange(6.0).reshape(3, 2)}, np.array([1.0, 2.0]), np.arange(3.0)

    def function(x, y, z):
        return {"b": x["a"] * y + z}, z

    axes = (0, None, 0)
    got, expected = seeds.in_turn(function, axes)(*arrays), jax.vmap(function, axes)(*arrays)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


# What is refused.


@pytest.mark.parametrize(
    "changed, chosen, message",
    [
        ({}, [], "Seeds are different integers"),
        ({}, [1, 1], "Seeds are different integers .* Received: 1, 1"),
        ({}, [0, -1], "Seeds are different integers"),
        ({"distribute": "mirrored"}, [0, 1], "run on one device"),
        ({"dataset": "imagenet2012"}, [0, 1], "fits in memory"),
        ({"network": "alexnet"}, [0, 1], "The network must be one of"),
    ],
)
@on_jax
def test_what_cannot_be_trained_together_is_refused(changed, chosen, message, tmp_path):
    with pytest.raises(UserError, match=message):
        seeds.train(dataclasses.replace(PLAIN, **changed), chosen, tmp_path)
    assert not list(tmp_path.iterdir())


@on_jax
def test_the_workdir_of_another_run_is_refused(trained):
    workdir, _ = trained
    with pytest.raises(UserError, match="belongs to another run: epochs=2 there and 3 here"):
        seeds.train(dataclasses.replace(SMALL, epochs=3), [0, 2], workdir)
    assert not (workdir / "seed2").exists()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX can")
def test_another_backend_is_refused(tmp_path):
    with pytest.raises(UserError, match="need JAX. Received: KERAS_BACKEND="):
        seeds.train(PLAIN, [0, 1], tmp_path)


@on_jax
def test_seeds_can_be_trained_and_read_as_a_program(tmp_path):
    command = [sys.executable, "-m", "training.seeds", "--seeds=0,4", f"--workdir={tmp_path}"]
    command += ["--network=mlp", "--activation=relu", "--epochs=1", "--examples=16"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Seed 4, in {tmp_path / 'seed4'}" in done.stdout
    assert result(tmp_path / "seed4")["config"]["seed"] == 4
    wrong = subprocess.run([*command, "--seed=4"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    assert "--seeds and --workdir are needed, and --seed is not" in wrong.stderr


def test_seeds_that_are_not_integers_are_refused():
    assert seeds.parsed(["0", "12"]) == [0, 12]
    with pytest.raises(UserError, match="Received: 0,a"):
        seeds.parsed(["0", "a"])
