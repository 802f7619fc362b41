import contextlib
import csv
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

from keras_learnact import PAU
from tests.training import distribution_processes as processes
from training import distribution, feeding
from training.command_line import to_flags
from training.config import UserError, differences

# Two replicas sum in another order than one, in float32. In 18 steps of SGD with momentum such
# differences grow to some 1e-6; clipping before the sum, say, makes 1e-1.
SUMS = {"rtol": 1e-4, "atol": 1e-5}
# Of a process, on a machine that is busy with other tests: it imports for most of that time.
PATIENCE = 600


def with_distribution(**fields):
    return distribution.entered(dataclasses.replace(processes.CONFIG, **fields))


# What is wrong is said before anything trains.


@pytest.mark.parametrize("word", ["two", "mirrored:0", "mirrored:x", "none:2", "multi_worker:2"])
def test_an_unknown_distribution_is_an_error(word):
    with pytest.raises(UserError, match=f"none, mirrored, multi_worker.*Received: '{word}'"):
        with with_distribution(distribute=word):
            pass


def test_devices_that_are_not_there_are_an_error():
    with pytest.raises(UserError, match="mirrored:64 needs 64 devices. Received: a machine with 1"):
        with with_distribution(distribute="mirrored:64", batch_size=64):
            pass


def test_gpus_that_are_asked_for_and_not_there_are_an_error(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match="asks for 2 GPUs. Received: a machine on which .* finds 0"):
        with with_distribution(distribute="mirrored"):
            pass


def test_a_backend_that_cannot_is_an_error(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(UserError, match="needs TensorFlow or JAX .* Received: KERAS_BACKEND=torch"):
        with with_distribution(distribute="multi_worker"):
            pass


def test_that_all_workers_would_get_the_data_is_an_error():
    with pytest.raises(UserError, match="--download with .* python -m training.datasets"):
        with with_distribution(distribute="multi_worker", download=True):
            pass


def tf_config(addresses, index, kind="worker"):
    task = {"type": kind, "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "localhost:1234",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        tf_config(["a:1", "b:1"], 2),
        tf_config(["a:1", "b:1"], -1),
        tf_config(["a:1", "b:1"], 0, kind="chief"),
        tf_config(["a:1", "a:1"], 0),
        tf_config(["a", "b:1"], 0),
        tf_config([], 0),
    ],
)
def test_a_tf_config_that_says_nothing_useful_is_an_error_that_shows_one(text, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match='TF_CONFIG=\'{"cluster"') as error:
        with with_distribution(distribute="multi_worker"):
            pass
    assert str(error.value).endswith("nothing" if text is None else repr(text))


def test_a_chief_is_worker_0(monkeypatch):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    task = {"type": "worker", "index": 1}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    found = distribution.cluster_from_environment()
    assert found.addresses == ["a:1", "b:1", "c:1"] and found.number == 2


def test_a_batch_with_fewer_examples_than_replicas_is_an_error(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(["a:1", "b:1", "c:1"], 0))
    with pytest.raises(UserError, match="Each of 3 replicas .* Received: batch_size=2"):
        with with_distribution(distribute="multi_worker", batch_size=2):
            pass


def test_workers_that_do_not_begin_alike_are_an_error():
    with pytest.raises(UserError, match="same flags"):
        distribution._assert_alike(np.array([[3, 77], [3, 78]]))
    with pytest.raises(UserError, match=r"same --workdir.* after the epochs \[3, 0\]"):
        distribution._assert_alike(np.array([[3, 77], [0, 77]]))


# Who gets what.


@pytest.mark.tensorflow
@pytest.mark.parametrize("streamed", [False, True])
def test_replicas_get_parts_of_each_batch_in_the_order_of_the_feed(streamed):
    import tensorflow as tf

    batches = feeding.Batches(np.arange(10), np.arange(10) * 2, batch_size=4, seed=7)
    x = batches
    if streamed:
        order = np.concatenate(
            [np.random.default_rng((7, epoch)).permutation(10) for epoch in (2, 3)]
        )
        x = tf.data.Dataset.from_tensor_slices((order, order * 2))
        x = x.take(10).batch(4).concatenate(x.skip(10).batch(4))
    with with_distribution(distribute="mirrored"):
        replicas = distribution.current()
        replicas.replicas = 3  # this process then reads the parts of all three
        feed = {
            "x": x,
            "steps_per_epoch": 3,
            "validation_data": feeding.Batches(*[np.arange(2)] * 2, 2),
        }
        arguments = replicas.arguments(types.SimpleNamespace(), feed, first_epoch=2)
        found = [part for part, _ in zip(arguments["x"], range(18), strict=False)]
    assert (arguments["steps_per_epoch"], arguments["validation_steps"]) == (3, 1)
    assert [len(x) for x, _ in found] == [1, 1, 2, 1, 1, 2, 0, 1, 1] * 2
    assert all(np.array_equal(y, 2 * x) for x, y in found)
    for epoch, parts in ((2, found[:9]), (3, found[9:])):
        batches.start_epoch(epoch)
        assert np.concatenate([x for x, _ in parts]).tolist() == batches.order.tolist()


# Processes.


@contextlib.contextmanager
def started(*runs):
    """Processes, one for each `(folder, environment, flags)`; what is left of them ends here."""
    running = []
    try:
        for run in runs:
            running.append(start(*run))
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def start(folder, environment, *flags):
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", processes.__name__, *to_flags(processes.CONFIG), *flags]
    # Several processes with all cores each would only be in each other's way.
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    surroundings["VARIABLES"] = str(folder / "variables.npz")
    with open(folder / "log.txt", "a") as log:
        return subprocess.Popen(command, env=surroundings, stdout=log, stderr=subprocess.STDOUT)


def assert_ends_well(process, folder):
    code = process.wait(PATIENCE)
    assert code == 0, (folder / "log.txt").read_text()


def addresses(count):
    """Ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("localhost", 0))) for _ in range(count)
        ]
        return [f"localhost:{one.getsockname()[1]}" for one in sockets]


def workers(folder, **of_worker_1):
    """What `start` needs for each of two workers of one run."""
    both = addresses(2)
    flags = "--distribute=multi_worker", f"--workdir={folder / 'run'}"
    return [
        (
            folder / f"worker_{i}",
            {"TF_CONFIG": tf_config(both, i), **(of_worker_1 if i else {})},
            *flags,
        )
        for i in range(2)
    ]


def variables(folder):
    """What a process held in the end: the variables of each of its replicas."""
    with np.load(folder / "variables.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return [
        {name: array[i] for name, array in arrays.items()}
        for i in range(len(next(iter(arrays.values()))))
    ]


def curve(workdir):
    """The columns of metrics.csv, without the seconds."""
    with open(workdir / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name != "seconds"}


def assert_same_curve(workdir, other):
    found, expected = curve(workdir), curve(other)
    assert list(found) == list(expected) and found["epoch"] == [1, 2, 3]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, **SUMS, err_msg=name)


def assert_same_variables(replicas, expected):
    """Of each replica, one after the other; `expected` are those of one device."""
    for number, found in enumerate(replicas):
        # In one process Keras numbers the layers of a second network anew.
        for value, (name, wanted) in zip(found.values(), expected.items(), strict=True):
            if "seed_generator_state" in name:
                # On TensorFlow each replica draws its own noise, on JAX all draw that of one.
                own = number if keras.backend.backend() == "tensorflow" else 0
                assert value.tolist() == [wanted[0] + own * distribution.SEED_STRIDE, wanted[1]]
            else:
                np.testing.assert_allclose(value, wanted, **SUMS, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same run on one device: its folder and its variables."""
    workdir = tmp_path_factory.mktemp("alone")
    keras.utils.set_random_seed(0)
    return workdir, processes.variables(processes.train(processes.CONFIG, workdir))[0]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """An undisturbed run of two workers."""
    folder = tmp_path_factory.mktemp("two_workers")
    runs = workers(folder)
    with started(*runs) as both:
        for process, run in zip(both, runs, strict=True):
            assert_ends_well(process, run[0])
    return folder


def test_two_devices_train_as_one(alone, tmp_path):
    cut = {"DEVICES": "2", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    run = tmp_path, cut, "--distribute=mirrored:2", f"--workdir={tmp_path / 'run'}"
    with started(run) as (process,):
        assert_ends_well(process, tmp_path)
    assert_same_curve(tmp_path / "run", alone[0])
    found = variables(tmp_path)
    assert len(found) == (2 if keras.backend.backend() == "tensorflow" else 1)
    assert_same_variables(found, alone[1])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["replicas"] == 2 and result["activation_path"] == PAU().path


def test_two_workers_train_as_one_and_hold_the_same_variables(alone, two_workers):
    assert_same_curve(two_workers / "run", alone[0])
    (first,), (second,) = (variables(two_workers / f"worker_{i}") for i in range(2))
    assert any("numerator" in name for name in first)
    for name, value in first.items():
        if "seed_generator_state" not in name:
            np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert_same_variables([first, second], alone[1])


def test_worker_0_leaves_what_one_device_leaves_and_the_other_nothing(alone, two_workers):
    # Each file of TensorBoard has a name of its own.
    def names(folder):
        return {str(p.relative_to(folder)) for p in folder.rglob("*") if "tfevents" not in p.name}

    assert names(two_workers / "run") == names(alone[0])
    assert names(two_workers / "worker_1") == {"log.txt", "variables.npz"}


def test_what_was_trained_on_two_workers_runs_on_one_device(two_workers):
    model = keras.saving.load_model(two_workers / "run" / "model.keras", compile=False)
    (trained,) = variables(two_workers / "worker_0")
    for variable, (name, value) in zip(model.variables, trained.items(), strict=True):
        if "seed_generator_state" not in name:  # which Keras does not save
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    normalization = model.layers[-2]
    assert isinstance(normalization, keras.layers.BatchNormalization)
    assert not normalization.synchronized
    pixels = np.arange(3 * 64, dtype="float32").reshape(3, 8, 8, 1) % 17
    expected = model.predict(pixels, verbose=0)
    assert np.isfinite(expected).all()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        exported = tf.saved_model.load(two_workers / "run" / "saved_model")
        # The exported graph multiplies in another order.
        np.testing.assert_allclose(exported.serve(pixels), expected, rtol=1e-4, atol=1e-4)


def test_a_run_whose_worker_is_killed_goes_on_when_it_is_started_again(two_workers, tmp_path):
    runs = workers(tmp_path, KILLED_IN_EPOCH="1")
    with started(*runs) as running:
        assert running[1].wait(PATIENCE) == -signal.SIGKILL
        assert curve(tmp_path / "run")["epoch"] == [1]
        folder, environment, *flags = runs[1]
        del environment["KILLED_IN_EPOCH"]
        running.append(start(folder, environment, *flags))
        # The other one was not killed: the same process goes on.
        assert_ends_well(running[0], runs[0][0])
        assert_ends_well(running[2], folder)
    assert "Another worker is gone. Starts again" in (tmp_path / "worker_0/log.txt").read_text()
    for log in tmp_path.glob("worker_?/log.txt"):
        assert "Goes on after epoch 1 of 3" in log.read_text()
    assert curve(tmp_path / "run") == curve(two_workers / "run")  # to the last bit
    for i in range(2):
        (found,), (expected,) = (variables(f / f"worker_{i}") for f in (tmp_path, two_workers))
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_part_of_a_run_on_two_devices_may_be_continued_on_one():
    there, here = (dataclasses.asdict(processes.CONFIG) for _ in range(2))
    there["distribute"] = "mirrored:2"
    assert differences(here, there, type(processes.CONFIG)) == []
