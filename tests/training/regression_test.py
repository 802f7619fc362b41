import dataclasses
import json

import keras
import numpy as np
import pytest

from training import datasets
from training.config import RegressionConfig, UserError
from training.regression import folds, train

SMALL = RegressionConfig(activation="relu", hidden=(8,), epochs=2, examples=60)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    config = dataclasses.replace(SMALL, activation="pau", epochs=3)
    return config, workdir, train(config, workdir)


def test_every_example_is_tested_in_exactly_one_fold():
    parts = folds(442, 3)
    assert [len(part) for part in parts] == [148, 147, 147]
    assert sorted(np.concatenate(parts)) == list(range(442))


def test_the_folds_are_the_same_every_time():
    assert all(map(np.array_equal, folds(442, 3), folds(442, 3)))


@pytest.mark.parametrize("count", [1, 11])
def test_a_number_of_folds_that_makes_no_sense_is_an_error(count):
    with pytest.raises(
        UserError, match=f"10 examples needs 2 to 10 folds. Received: folds={count}"
    ):
        folds(10, count)


def test_the_result_is_mean_and_deviation_over_the_folds(finished):
    config, workdir, metrics = finished
    inputs, targets = (array[:60] for array in datasets.load_table("diabetes"))
    errors, shares = [], []
    for number, fold in enumerate(folds(60, 3)):
        # The saved model takes and gives the numbers of the data set.
        model = keras.saving.load_model(workdir / f"fold_{number + 1}" / "model.keras")
        residuals = np.asarray(model(inputs[fold]))[:, 0] - targets[fold]
        errors.append(np.sqrt(np.mean(residuals**2)))
        shares.append(1 - np.mean(residuals**2) / np.var(targets[fold]))
    assert metrics["rmse_mean"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert metrics["rmse_std"] == pytest.approx(np.std(errors, ddof=1), rel=1e-3)
    assert metrics["r2_mean"] == pytest.approx(np.mean(shares), rel=1e-3, abs=1e-4)
    assert json.loads((workdir / "result.json").read_text())["metrics"] == metrics


def test_a_run_leaves_what_each_fold_learned(finished):
    config, workdir, metrics = finished
    for fold in ("fold_1", "fold_2", "fold_3"):
        found = {path.name for path in (workdir / fold).iterdir()}
        assert found >= {"metrics.csv", "activations.png", "tensorboard", "checkpoint.npz"}
    assert metrics["parameters"] == 11 * 8 + 10 + 9


def test_a_finished_run_says_so_and_an_unfinished_one_goes_on(finished, capsys):
    config, workdir, metrics = finished
    assert train(config, workdir) == metrics
    assert "This run is finished" in capsys.readouterr().out
    (workdir / "result.json").unlink()
    again = train(config, workdir)
    assert capsys.readouterr().out.count("Goes on after epoch 3 of 3") == 3
    assert again == metrics


def test_a_network_learns_the_sum_of_a_linear_problem(tmp_path, monkeypatch):
    inputs = np.random.default_rng(0).normal(size=(300, 2)).astype("float32")
    monkeypatch.setattr(datasets, "load_table", lambda name: (inputs, 100 + 20 * inputs.sum(1)))
    config = RegressionConfig(activation="relu", hidden=(16,), epochs=20, learning_rate=0.03)
    # The targets have a standard deviation of 20 √2 = 28.
    metrics = train(config, tmp_path)
    assert metrics["rmse_mean"] < 5.6 and metrics["r2_mean"] > 0.95


def test_the_sum_of_sines_runs(tmp_path):
    metrics = train(dataclasses.replace(SMALL, dataset="sum_of_sines", epochs=1), tmp_path)
    assert np.isfinite(metrics["rmse_mean"])


def test_divergence_is_recorded(tmp_path):
    config = dataclasses.replace(SMALL, activation="slaf", optimizer="sgd", learning_rate=1e6)
    metrics = train(config, tmp_path)
    assert metrics["diverged"]
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]["rmse_mean"] is not None


def test_an_unknown_network_is_an_error(tmp_path):
    with pytest.raises(UserError, match="must be \"mlp\". Received: 'lenet'"):
        train(dataclasses.replace(SMALL, network="lenet"), tmp_path)
