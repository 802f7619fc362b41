"""Removes the weakest filters of a trained network, and trains what is left from its start.

    python -m training.pruning
    python -m training.pruning --dataset=mnist --activation=relu --shares=10,30,50
    python -m training.pruning --config=training/configs/cifar10_vgg8_pruning_pau.py

Lottery tickets, as in Fig. 4 of the PAU paper: a network is trained; in every convolution the
filters with the smallest sum of absolute weights go; the rest gets its starting values back and is
trained again, as long as before. For each of `--shares` this begins from the same trained network.
Filters are not set to zero: the networks are smaller (see `training.smaller`) and so faster.

The same command again goes on where it was killed, and says so when it has finished.
"""

import dataclasses
import functools
import os
import random
import time
from pathlib import Path

import keras
import numpy as np

from training import (
    image_classification,
    loop,
    networks,
    outcomes,
    pruning_table,
    records,
    smaller,
)
from training.command_line import from_flags, start
from training.config import PruningConfig, UserError
from training.table import Column, Row, Run, Table, load

# The starting values of the whole network, in the folder of its run.
START = "start.keras"
# The time of a network is told by so many batches of about so many multiply-adds, so that it is not
# the time that a call takes beside them.
TIMED_ROUNDS, TIMED_WORK = 20, 2e9


def train(config: PruningConfig, workdir: str) -> dict:
    """Trains a network, and then what is left of it without each share of its filters.

    `workdir/full` is the run of the whole network, `workdir/pruned_10` that of the one without
    10 %, and so on: runs of `training.image_classification`, each of which resumes. `workdir` gets
    result.json, and pruning.csv, pruning.md and pruning.png, accuracy against filters left.

    Returns:
        The metrics of result.json: those of the whole network, and those of the others with their
        share behind the name: `final_accuracy_10`, `parameters_10`, … Of every network also
        `filters`, `multiply_adds` for one image, and `time`, that of inference over the whole
        network's, measured side by side. `diverged` is whether any of the runs did; if that of the
        whole network did, there are no others.

    Errors: a `UserError` for shares that are none, a network that cannot be pruned, an unknown
    name or a workdir of another run; a `datasets.MissingDataset`. All before any training.
    """
    workdir = Path(workdir)
    metrics = records.finished(workdir, config)
    if metrics is not None:
        return metrics
    _assert_can_run(config)
    full = workdir / "full"
    stages = {0: _stage(config, (), full, functools.partial(_whole, full, max(config.shares)))}
    for share in config.shares:
        if stages[0]["diverged"]:
            print("Nothing is pruned, because the whole network has diverged.")
            break
        print(f"Without {share} % of the filters:")
        folder = workdir / f"pruned_{share}"
        stages[share] = _stage(config, (share,), folder, functools.partial(_pruned, full, share))
    rows = _rows(config, full, stages)
    metrics = pruning_table.to_metrics(rows)
    _write(workdir, config, rows, metrics)
    model = keras.saving.load_model(full / START, compile=False)
    records.write_result(workdir, config, model, metrics=metrics)
    return metrics


def main(argv):
    config, workdir = from_flags(PruningConfig)
    metrics = train(config, workdir)
    print(f"\n{pruning_table.overview(metrics)}\nEverything is in {workdir}")


def _assert_can_run(config):
    shares = config.shares
    if config.distribute.startswith("multi_worker"):
        raise UserError(
            "Pruning is done by one process, on one machine: its steps read what the step before "
            f"wrote. Received: distribute={config.distribute!r}. Use --distribute=mirrored."
        )
    if not shares or len(set(shares)) != len(shares) or not all(0 < p < 100 for p in shares):
        raise UserError(
            "Shares are different percents between 1 and 99, say --shares=10,30,50. "
            f"Received: shares={shares}"
        )


def _stage(config, shares, folder, start_with):
    """A run of one of the networks; its configuration says which."""
    config = dataclasses.replace(config, shares=shares)
    return image_classification.train(config, folder, start_with)


def _whole(full, largest_share, config, images):
    model = image_classification.new_network(config, images)
    # That it can be pruned is to be known before it is trained.
    smaller.smaller(model, smaller.strongest(model, largest_share))
    if not (full / loop.CHECKPOINT).exists():  # else it is there, and of this run
        full.mkdir(parents=True, exist_ok=True)
        beside = full / f".{START}"
        model.save(beside)
        os.replace(beside, full / START)
    return model


def _pruned(full, share, config=None, images=None):
    model = keras.saving.load_model(full / START, compile=False)
    start = model.get_weights()
    model.set_weights(keras.saving.load_model(full / "model.keras", compile=False).get_weights())
    kept = smaller.strongest(model, share)
    model.set_weights(start)
    return smaller.smaller(model, kept)


def _rows(config, full, stages):
    """A row of pruning.csv for each network."""
    whole = keras.saving.load_model(full / START, compile=False)
    models = [_pruned(full, share) if share else whole for share in stages]
    filters = smaller.filter_count(whole)
    return [
        {
            "removed": share,
            "filters": smaller.filter_count(model),
            "filters_left": smaller.filter_count(model) / filters,
            "parameters": networks.parameter_count(model),
            "multiply_adds": smaller.multiply_adds(model),
            "time": duration,
            **{name: value for name, value in metrics.items() if name != "parameters"},
        }
        for (share, metrics), model, duration in zip(
            stages.items(), models, _times(models, config.quick), strict=True
        )
    ]


def _times(models, eagerly):
    """How long each takes for a batch, over the first. They take turns in random order.

    Of each the fastest: what else the machine does only adds to a time.
    """
    batch = min(1024, max(16, round(TIMED_WORK / smaller.multiply_adds(models[0]))))
    rounds = TIMED_ROUNDS
    if eagerly:
        batch, rounds = 2, 2
    shape = (batch, *models[0].input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape).astype("float32")
    order, seconds = random.Random(0), [[] for _ in models]
    for model in models:
        model.run_eagerly = eagerly  # a quick run compiles nothing
        model.predict_on_batch(images)
    for _ in range(rounds):
        for i in order.sample(range(len(models)), len(models)):
            begin = time.perf_counter()
            models[i].predict_on_batch(images)
            seconds[i].append(time.perf_counter() - begin)
    fastest = list(map(min, seconds))
    return [one / fastest[0] for one in fastest]


def _write(workdir, config, rows, metrics):
    """pruning.csv, pruning.md and pruning.png."""
    outcomes.write_rows(workdir / "pruning.csv", rows)
    row = Row(config.activation, config.activation_args)
    column = Column(f"{config.dataset}, {config.network}", config)
    table = Table(
        title=f"{config.network} with {config.activation} on {config.dataset}, pruned",
        claim="How far the accuracy holds while filters go.",
        source=load("pau_fig4").source,
        columns=(column,),
        rows=(row,),
        seeds=(config.seed,),
    )
    command = outcomes.command(Run(column, row, config.seed))
    outcome = outcomes.Outcome(column.label, row.label, config.seed, command, metrics, {}, [])
    pruning_table.write(table, "pruning", [outcome], workdir)


if __name__ == "__main__":
    start(PruningConfig, main)
