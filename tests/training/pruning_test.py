import csv
import dataclasses
import json

import keras
import numpy as np
import pytest

import keras_learnact as kla
from training import datasets, feeding, image_classification, loop, pruning_table, table
from training.config import ImageConfig, PruningConfig, UserError, quick
from training.outcomes import Outcome
from training.pruning import train

# 3 batches in an epoch. Noise in the network and in the images. CNN: 32 and 16 filters.
SMALL = PruningConfig(
    network="cnn",
    activation="rrelu",
    augmentation="rotation",
    epochs=2,
    batch_size=16,
    examples=48,
    shares=(50,),
)


class Killed(BaseException):
    """What kill -9 is: nothing that follows in the process runs."""


@pytest.fixture(scope="module", autouse=True)
def no_saved_models():
    """One takes longer than all the rest; tests/training/image_classification_test.py has some."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kla, "export_saved_model", lambda *arguments, **options: None)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that has ended: its workdir, its metrics, and the values that each stage began with."""
    workdir, starts = tmp_path_factory.mktemp("pruning"), []
    fit = loop.fit

    def noting(trainer, *arguments):
        starts.append([np.array(weight) for weight in trainer.weights])
        return fit(trainer, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "fit", noting)
        metrics = train(SMALL, workdir)
    return workdir, metrics, starts


def weights(path):
    return [np.array(weight) for weight in keras.saving.load_model(path).weights]


def final_state(workdir):
    """All variables and all metrics but the seconds."""
    with np.load(workdir / "checkpoint.npz") as file:
        arrays = {name: file[name] for name in file.files}
    state = json.loads(str(arrays.pop("state")))
    for row in state["history"]:
        del row["seconds"]
    return arrays, state["history"]


def assert_same(one, other):
    (arrays, history), (other_arrays, other_history) = map(final_state, (one, other))
    assert history == other_history and len(history) == 2
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, other_arrays[name])


def test_what_is_left_starts_with_the_values_that_it_started_with(finished):
    workdir, _, (whole, half) = finished
    start, trained = (weights(workdir / "full" / name) for name in ("start.keras", "model.keras"))
    for found, expected in zip(whole, start, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(trained[0], start[0])
    # The strongest 16 of 32 filters and 8 of 16 of the trained network, in their order.
    first, second = (
        np.sort(np.argsort(np.abs(trained[i]).sum((0, 1, 2)))[-count:])
        for i, count in ((0, 16), (2, 8))
    )
    np.testing.assert_array_equal(half[0], start[0][..., first])
    np.testing.assert_array_equal(half[2], start[2][:, :, first][..., second])
    # 14×14 places of the second convolution's channels.
    places = np.reshape(start[4], (14, 14, 16, 10))[:, :, second]
    np.testing.assert_array_equal(half[4], np.reshape(places, (-1, 10)))


def test_the_metrics_say_what_each_network_has(finished):
    workdir, metrics, _ = finished
    # 9 weights and a bias; 14×14 features of each filter to 10 classes.
    assert metrics["parameters"] == 32 * 10 + 16 * (32 * 9 + 1) + 196 * 16 * 10 + 10
    assert metrics["parameters_50"] == 16 * 10 + 8 * (16 * 9 + 1) + 196 * 8 * 10 + 10
    assert [metrics[name] for name in ("filters", "filters_50")] == [48, 24]
    assert metrics["filters_left_50"] == 0.5 and metrics["time"] == 1.0
    assert metrics["time_50"] > 0 and not metrics["diverged"]
    for name, suffix in (("full", ""), ("pruned_50", "_50")):
        history = final_state(workdir / name)[1]
        assert metrics[f"final_accuracy{suffix}"] == history[-1]["val_accuracy"]
    assert json.loads((workdir / "result.json").read_text())["metrics"] == metrics
    with open(workdir / "pruning.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["removed"], int(row["parameters"])) for row in rows] == [
        ("0", metrics["parameters"]),
        ("50", metrics["parameters_50"]),
    ]


def test_the_picture_and_the_table_of_a_run(finished):
    workdir, metrics, _ = finished
    assert (workdir / "pruning.png").read_bytes().startswith(b"\x89PNG")
    page = (workdir / "pruning.md").read_text()
    accuracy = f"{100 * metrics['final_accuracy_50']:.2f}"
    work = metrics["multiply_adds_50"] / metrics["multiply_adds"]
    assert f"| 50 % | 50.0% | {work:.1%} | {accuracy} |" in page
    assert "`python -m training.pruning " in page and "--shares=50" in page


def test_the_whole_network_is_that_of_an_unpruned_run(finished, tmp_path):
    names = {field.name for field in dataclasses.fields(ImageConfig)}
    config = ImageConfig(**{name: getattr(SMALL, name) for name in names})
    image_classification.train(config, tmp_path)
    assert_same(finished[0] / "full", tmp_path)


def test_a_finished_run_is_read_instead_of_training_again(finished, capsys):
    workdir, metrics, _ = finished
    assert train(SMALL, workdir) == metrics
    assert "This run is finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="shares=.50. there and .25. here"):
        train(dataclasses.replace(SMALL, shares=(25,)), workdir)


def test_a_run_that_was_killed_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch):
    killed = []

    class Kill(feeding.StartEpoch):
        """Ends the process in the middle of an epoch, the first time that it is the second."""

        def on_epoch_begin(self, number, logs=None):
            super().on_epoch_begin(number)
            self.number = number

        def on_train_batch_end(self, batch, logs=None):
            network = "pruned" if (tmp_path / "full" / "result.json").exists() else "full"
            if (self.number, batch) == (1, 1) and network not in killed:
                killed.append(network)
                raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(feeding, "StartEpoch", Kill)
        for _ in range(2):
            with pytest.raises(Killed):
                train(SMALL, tmp_path)
    assert killed == ["full", "pruned"] and not (tmp_path / "result.json").exists()
    metrics = train(SMALL, tmp_path)
    for name in ("full", "pruned_50"):
        assert_same(finished[0] / name, tmp_path / name)
    assert metrics["final_accuracy_50"] == finished[1]["final_accuracy_50"]


def test_a_start_is_that_of_the_run_and_not_of_one_killed_before_its_first_epoch(
    tmp_path, monkeypatch
):
    started = []

    def killed(config, workdir, start_with):
        keras.utils.set_random_seed(config.seed)
        started.append(start_with(config, datasets.load_images("digits", "nowhere")))
        raise Killed

    monkeypatch.setattr(image_classification, "train", killed)
    for seed in (0, 1):
        with pytest.raises(Killed):
            train(dataclasses.replace(SMALL, seed=seed), tmp_path)
    zero, one = (np.array(model.weights[0]) for model in started)
    assert not np.array_equal(zero, one)
    np.testing.assert_array_equal(weights(tmp_path / "full" / "start.keras")[0], one)


def test_where_the_whole_network_diverges_nothing_is_pruned(tmp_path, capsys):
    config = dataclasses.replace(
        SMALL, activation="slaf", optimizer="sgd", learning_rate=100.0, augmentation="none"
    )
    metrics = train(config, tmp_path)
    assert metrics["diverged"] and "parameters_50" not in metrics
    assert "Nothing is pruned" in capsys.readouterr().out
    assert "diverged" in (tmp_path / "pruning.md").read_text()
    assert train(config, tmp_path)["diverged"]  # finished, too


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shares": ()}, "between 1 and 99, say --shares=10,30,50"),
        ({"shares": (0, 10)}, "Received: shares=.0, 10."),
        ({"shares": (10, 100)}, "Received: shares=.10, 100."),
        ({"shares": (10, 10)}, "different percents"),
        ({"network": "mlp"}, "needs a network with convolutions"),
        ({"activation": "pau", "activation_args": {"sharing": 2}}, 'use "layer", "channel"'),
        ({"distribute": "multi_worker"}, "one process.* --distribute=mirrored"),
    ],
)
def test_what_cannot_be_pruned_is_an_error_before_any_training(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(SMALL, **fields), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_quick_run_prunes_once():
    assert quick(PruningConfig()).shares == (60,)


# The table of several runs.


def rows_of(accuracies, diverged=()):
    """The rows of pruning.csv of a network with 10 filters."""
    return [
        {
            "removed": share,
            "filters": 10 - share // 10,
            "filters_left": 1 - share / 100,
            "parameters": 1_000 - 5 * share,
            "multiply_adds": 100 - share,
            "time": 1 - share / 200,
            "final_accuracy": accuracy,
            "diverged": share in diverged,
        }
        for share, accuracy in accuracies.items()
    ]


def test_rows_become_metrics_and_metrics_rows():
    for rows in (rows_of({0: 0.9, 20: 0.8}, {20}), rows_of({0: 0.1}, {0})):
        metrics = pruning_table.to_metrics(rows)
        assert pruning_table.to_rows(metrics) == rows
        assert metrics["diverged"]
    assert not pruning_table.to_metrics(rows_of({0: 0.9, 20: 0.8}))["diverged"]


def written(tmp_path, runs):
    """The Markdown of runs of ReLU and PAU, by activation and seed."""
    plan = table.Table(
        title="Title",
        claim="Claim.",
        source="Source",
        columns=(table.Column("digits, LeNet", PruningConfig(shares=(20, 50))),),
        rows=(table.Row("relu", label="ReLU"), table.Row("pau", label="PAU")),
        seeds=(0, 1),
    )
    outcomes = [
        Outcome(
            "digits, LeNet", row, seed, f"run {row} {seed}", pruning_table.to_metrics(r), {}, []
        )
        for (row, seed), r in runs.items()
    ]
    pruning_table.write(plan, "name", outcomes, tmp_path)
    assert (tmp_path / "name.png").read_bytes().startswith(b"\x89PNG")
    return (tmp_path / "name.md").read_text()


def test_the_table_shows_mean_and_spread_for_each_share(tmp_path):
    page = written(
        tmp_path,
        {
            ("ReLU", 0): rows_of({0: 0.90, 20: 0.88, 50: 0.7}),
            ("ReLU", 1): rows_of({0: 0.92, 20: 0.86, 50: 0.7}),
            ("PAU", 0): rows_of({0: 0.92, 20: 0.93, 50: 0.91}),
            ("PAU", 1): rows_of({0: 0.92, 20: 0.91, 50: 0.61}),
        },
    )
    # Sample standard deviations of two numbers: their distance / √2.
    assert "| 0 % | 100.0% | 100.0% | 91.00 ± 1.41 | **92.00 ± 0.00** |" in page
    assert "| 20 % | 80.0% | 80.0% | 87.00 ± 1.41 | **92.00 ± 1.41** |" in page
    assert "| 50 % | 50.0% | 50.0% | 70.00 ± 0.00 | **76.00 ± 21.21** |" in page
    assert "The best whole network is that with PAU, 92.00. As good or better in the mean: " in page
    assert "PAU without 20 %." in page
    assert "| 50 % | 750 | 0.75 | 750 | 0.75 |" in page
    assert "mean ± sample standard deviation over 2 seeds." in page


def test_the_table_says_what_diverged_and_what_is_missing(tmp_path):
    page = written(
        tmp_path,
        {
            ("ReLU", 0): rows_of({0: 0.90, 20: 0.88}),
            ("PAU", 0): rows_of({0: 0.92, 20: 0.10}, {20}),
            ("PAU", 1): rows_of({0: 0.10}, {0}),
        },
    )
    assert "| 0 % | 100.0% | 100.0% | 90.00 | **92.00 (1 of 2 diverged)** |" in page
    assert "| 20 % | 80.0% | 80.0% | 88.00 | diverged |" in page
    assert "no pruned one" in page and "; 1 of 4 runs are missing" in page
