import keras
import numpy as np
import pytest

from training import checkpoints


def model(units=3):
    layers = keras.layers
    built = keras.Sequential([keras.Input((2,)), layers.Dense(units), layers.Dropout(0.5)])
    built.compile("adam", "mse")
    return built


def trained(steps=2):
    built = model()
    for _ in range(steps):
        built.train_on_batch(np.ones((4, 2)), np.ones((4, 3)))
    return built


def test_what_is_restored_goes_on_with_the_same_noise_and_the_same_steps(tmp_path):
    first, second = trained(), model()
    checkpoints.save(tmp_path / "checkpoint.npz", first, {})
    checkpoints.restore(tmp_path / "checkpoint.npz", second)
    for built in (first, second):
        built.train_on_batch(np.ones((4, 2)), np.ones((4, 3)))
    for a, b in zip(
        first.variables + first.optimizer.variables,
        second.variables + second.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(a.value), np.asarray(b.value))


def test_the_state_comes_back_as_it_was(tmp_path):
    state = {"history": [{"epoch": 1, "loss": 0.1 + 0.2}], "config": {"seed": 0}}
    checkpoints.save(tmp_path / "checkpoint.npz", model(), state)
    assert checkpoints.read_state(tmp_path / "checkpoint.npz") == state


def test_a_save_that_fails_leaves_the_last_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.npz"
    checkpoints.save(path, model(), {"epoch": 1})
    with pytest.raises(TypeError):
        checkpoints.save(path, model(), {"epoch": object()})
    assert checkpoints.read_state(path) == {"epoch": 1}


def test_a_checkpoint_of_another_number_of_variables_is_an_error(tmp_path):
    checkpoints.save(tmp_path / "checkpoint.npz", model(), {})
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(3)])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="written by another program: it has 9 variables"):
        checkpoints.restore(tmp_path / "checkpoint.npz", other)
