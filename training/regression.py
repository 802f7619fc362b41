"""Trains a regression network with any activation, by cross-validation.

    python -m training.regression
    python -m training.regression --activation=deu --hidden=20,20
    python -m training.regression --config=training/configs/sum_of_sines_pau.py

The same command again goes on where it was killed, and says so when it has finished.
"""

from pathlib import Path

import keras
import numpy as np

from training import datasets, distribution, feeding, loop, networks, optimizers, records
from training.command_line import from_flags, start
from training.config import RegressionConfig, UserError

# Which examples make a fold is the same for every run, whatever its seed.
FOLDS_SEED = 0


def train(config: RegressionConfig, workdir: str) -> dict:
    """Trains one network for each fold and tests it on that fold.

    Every fold has its folder in `workdir`, with the model, the picture and the logs. Resumes a
    run that was killed, and only reads the result of one that is finished.

    Returns:
        The metrics of result.json: mean and sample standard deviation over the folds of RMSE (in
        the unit of the targets) and R² after the last epoch, `diverged`, `parameters`,
        `seconds_per_epoch`.

    Errors: a `UserError` for an unknown name or a workdir of another run.
    """
    workdir = Path(workdir)
    metrics = records.finished(workdir, config)
    if metrics is not None:
        return metrics
    if config.network != "mlp":
        raise UserError(f'The network of a regression must be "mlp". Received: {config.network!r}')
    table = [array[: config.examples] for array in datasets.load_table(config.dataset)]
    with distribution.entered(config):
        results = []
        for number, fold in enumerate(folds(len(table[0]), config.folds)):
            print(f"Fold {number + 1} of {config.folds}")
            folder = workdir / f"fold_{number + 1}"
            results.append(_train_fold(config, folder, table, fold))
        metrics = _summary(results)
        records.write_result(workdir, config, results[0]["model"], metrics=metrics)
    return metrics


def folds(examples: int, count: int) -> list[np.ndarray]:
    """The rows of each fold; each row is in one of them."""
    if not 2 <= count <= examples:
        raise UserError(
            f"Cross-validation of {examples} examples needs 2 to {examples} folds. "
            f"Received: folds={count}"
        )
    return np.array_split(np.random.default_rng(FOLDS_SEED).permutation(examples), count)


def main(argv):
    config, workdir = from_flags(RegressionConfig)
    metrics = train(config, workdir)
    print(f"{records.summary(metrics)}\nEverything is in {workdir}")


def _train_fold(config, workdir, table, fold):
    inputs, targets = table
    rest = np.setdiff1d(np.arange(len(inputs)), fold)
    # The unit of every column is the standard deviation of what the network may see.
    x, to_x = _standardized(inputs, rest)
    y, to_y = _standardized(targets, rest)

    keras.utils.set_random_seed(config.seed)
    unit = networks.Unit(config.activation, **config.activation_args)
    network = networks.regression(x.shape[1], config.hidden, unit)
    feed = feeding.ArrayFeed((x[rest], y[rest]), (x[fold], y[fold]), config.batch_size, config.seed)
    trainer = distribution.current().trainer([keras.Input(x.shape[1:]), network])
    trainer.compile(optimizers.build(config, feed.steps_per_epoch), "mse")
    progress = loop.fit(trainer, feed, config, workdir)

    model = _on_raw_numbers(network, to_x, to_y)
    predicted = keras.ops.convert_to_numpy(model(inputs[fold]))[:, 0]
    squares = np.mean((predicted - targets[fold]) ** 2)
    if not progress.diverged:
        records.write_model(workdir, config, model)
    return {
        "rmse": float(np.sqrt(squares)),
        "r2": float(1 - squares / np.var(targets[fold])),
        "diverged": progress.diverged,
        "seconds": progress.seconds_per_epoch(),
        "model": model,
    }


def _standardized(columns, rows):
    """The columns with mean 0 and deviation 1 over the given rows; mean and deviation."""
    mean, deviation = columns[rows].mean(0), columns[rows].std(0)
    return (columns - mean) / deviation, (mean, deviation)


def _on_raw_numbers(network, to_x, to_y):
    """A model that takes the inputs and returns the targets as they are in the data set."""
    inputs = keras.Input(network.input_shape[1:])
    (mean, deviation), (target_mean, target_deviation) = to_x, to_y
    x = keras.layers.Rescaling((1 / deviation).tolist(), (-mean / deviation).tolist())(inputs)
    return keras.Model(
        inputs, keras.layers.Rescaling(float(target_deviation), float(target_mean))(network(x))
    )


def _summary(results):
    summary = {}
    for metric in ("rmse", "r2"):
        values = [result[metric] for result in results]
        summary[f"{metric}_mean"] = float(np.mean(values))
        summary[f"{metric}_std"] = float(np.std(values, ddof=1))
    return {
        **summary,
        "diverged": any(result["diverged"] for result in results),
        "parameters": networks.parameter_count(results[0]["model"]),
        "seconds_per_epoch": float(np.median([result["seconds"] for result in results])),
    }


if __name__ == "__main__":
    start(RegressionConfig, main)
