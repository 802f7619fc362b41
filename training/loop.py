"""The loop of every training program: epochs, checkpoints, metrics.csv, divergence."""

import csv
import dataclasses
import math
import os
import statistics
import sys
import time
from pathlib import Path

import keras

from keras_learnact import history, observe, plotting
from keras_learnact.callbacks import (
    ActivationBoard,
    ActivationHistory,
    MetricsBoard,
    PWLUBoundaries,
    SReLUThresholds,
)
from training import checkpoints, distribution
from training.config import Config, UserError, differences

CHECKPOINT = "checkpoint.npz"
# How many inputs show the distribution of what reaches the activations.
PICTURED = 256
# How many pictures of each activation TensorBoard gets at most.
BOARD_PICTURES = 25


@dataclasses.dataclass
class Progress:
    """How far a run came.

    Args:
        history: one row for each epoch: `epoch`, Keras' metrics, `seconds` of training, without
            the test and the pictures.
        diverged: whether the loss of the last epoch was not a finite number.
    """

    history: list[dict] = dataclasses.field(default_factory=list)
    diverged: bool = False

    def best(self, metric: str, largest: bool) -> dict:
        """The row with the best value of a metric; the first of equal ones."""
        rows = [row for row in self.history if math.isfinite(row[metric])] or self.history
        return (max if largest else min)(rows, key=lambda row: row[metric])

    def seconds_per_epoch(self) -> float:
        """Of training; the median, so that compiling in the first epoch does not count."""
        return statistics.median(row["seconds"] for row in self.history)


def fit(trainer: keras.Model, feed, config: Config, workdir: Path) -> Progress:
    """Trains until `config.epochs` are done or the loss is not finite.

    Resumes from `workdir/checkpoint.npz`, which every epoch writes; so a run that was killed loses
    less than one epoch and ends as an undisturbed run does. Also writes metrics.csv, TensorBoard's
    logs, activations.png, the learned functions before and after, and activations.npz, their
    history, of which `keras_learnact.report.write_html(workdir, …)` makes a page.

    Args:
        trainer: a compiled model.
        feed: what `training.feeding.ArrayFeed` is: `arguments(first_epoch)` for Keras' `fit`.
        config: the run.
        workdir: where all of it goes.
    """
    run = Run(trainer, feed, config, workdir)
    if run.done < config.epochs:
        epochs = {"initial_epoch": run.done, "epochs": config.epochs}
        trainer.fit(**run.arguments(), **epochs, verbose=verbosity())
    return run.end()


class Run:
    """What `fit` does before and after Keras' `fit`, and gives to it.

    Args:
        trainer, feed, config, workdir: as for `fit`. The trainer gets the variables of the
            checkpoint, if there is one.
    """

    def __init__(self, trainer: keras.Model, feed, config: Config, workdir: Path):
        self.trainer, self.feed, self.config = trainer, feed, config
        replicas = distribution.current()
        path = workdir / CHECKPOINT
        self.workdir = replicas.folder(workdir)
        self.progress = Progress()
        self._inputs, self._before = feed.some_inputs(PICTURED), plotting.snapshot(trainer)
        if path.exists():
            state = checkpoints.read_state(path)
            assert_same_run(config, state["config"], path)
            checkpoints.restore(path, trainer)
            self.progress.history = state["history"]
            print(f"Goes on after epoch {self.done} of {config.epochs}: {path}")
        replicas.begin(trainer, config, self.done)

    @property
    def done(self) -> int:
        """How many epochs are."""
        return len(self.progress.history)

    def arguments(self) -> dict:
        """Of Keras' `fit`: the data, and the callbacks that write everything."""
        arguments = self.feed.arguments(first_epoch=self.done)
        arguments = distribution.current().arguments(self.trainer, arguments, self.done)
        interval = _board_interval(self.config.epochs, self.feed.steps_per_epoch)
        arguments["callbacks"] += [
            *_phases(self.trainer, self._inputs, self.config),
            *_watching(self.trainer, self._inputs, self._before, self.workdir, interval),
            # The last: it saves what the others did.
            _Recorder(self.progress, self.config, self.workdir),
        ]
        return arguments

    def end(self) -> Progress:
        """Draws what was learned."""
        if observe.activation_layers(self.trainer) and not self.progress.diverged:
            picture = plotting.plot(self.trainer, self._inputs, self._before)
            picture.savefig(self.workdir / "activations.png")
        return self.progress


def verbosity() -> int:
    """Keras' `verbose`: a progress bar in a terminal, one plain line for an epoch in a log.

    Of several workers only the chief shows it.
    """
    if not distribution.current().chief:
        return 0
    return 1 if sys.stdout.isatty() else 2


def assert_same_run(config: Config, found: dict, path: Path) -> None:
    """Errors: a `UserError` if the file at `path` belongs to another configuration."""
    other = differences(dataclasses.asdict(config), found, type(config))
    if other:
        raise UserError(
            f"{path} belongs to another run: {'; '.join(other)}. Use another --workdir, or delete "
            "this one."
        )


def _phases(trainer, inputs, config):
    """The two phases of SReLU and PWLU: 5 epochs frozen, in short runs half of all epochs."""
    epochs = min(5, max(1, config.epochs // 2))
    layers = observe.activation_layers(trainer)
    return [
        phases(inputs, epochs=epochs)
        for phases in (SReLUThresholds, PWLUBoundaries)
        if any(isinstance(layer, phases.layer_class) for layer in layers)
    ]


def _watching(trainer, inputs, before, workdir, interval):
    """How the activations change, kept after `_phases` has set what it sets in an epoch's end."""
    board = workdir / "tensorboard"
    if not observe.activation_layers(trainer):
        return [MetricsBoard(board)]
    return [
        ActivationHistory(workdir / history.FILE_NAME, inputs),
        ActivationBoard(board, every=interval, inputs=inputs, before=before),
    ]


def _board_interval(epochs, steps_per_epoch):
    """Each epoch; in long runs every so many steps, because pictures of 100 layers take seconds."""
    if epochs <= BOARD_PICTURES:
        return "epoch"
    return steps_per_epoch * -(-epochs // BOARD_PICTURES)


class _Recorder(keras.callbacks.Callback):
    """After each epoch: a row of metrics.csv and a checkpoint, or the end if the loss diverged."""

    def __init__(self, progress, config, workdir):
        super().__init__()
        self.progress = progress
        self.config = config
        self.workdir = workdir

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_test_begin(self, logs=None):
        # JAX goes on while it still computes; a number that the last step gives waits for it.
        keras.ops.convert_to_numpy(self.model.optimizer.iterations)
        self.seconds = round(time.perf_counter() - self.start, 3)

    def on_epoch_end(self, epoch, logs=None):
        metrics = {name: float(value) for name, value in logs.items()}
        self.progress.history.append({"epoch": epoch + 1, **metrics, "seconds": self.seconds})
        _write_csv(self.workdir / "metrics.csv", self.progress.history)
        if not math.isfinite(metrics["loss"]):
            # The checkpoint stays at the last epoch that was sound.
            self.progress.diverged = True
            self.model.stop_training = True
            print(f"Diverged in epoch {epoch + 1}: the loss is {metrics['loss']}.")
            return
        config = dataclasses.asdict(self.config)
        state = {"config": config, "history": self.progress.history}
        checkpoints.save(self.workdir / CHECKPOINT, self.model, state)


def _write_csv(path, rows):
    beside = path.with_name(f".{path.name}")
    with open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(beside, path)
