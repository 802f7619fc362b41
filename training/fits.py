"""Draws what the networks of a regression table make of data that can be seen: 1 or 2 inputs."""

from pathlib import Path

import keras
import numpy as np

import keras_learnact  # noqa: F401  makes its layers known to Keras
from keras_learnact.files import written
from training import datasets, outcomes, table_plot
from training.config import RegressionConfig
from training.table import Table

# Points on each axis at which a network is asked.
POINTS = {1: 800, 2: 160}
ACROSS, WIDTH, HEIGHT = 3, 3.4, 2.5  # panels, and the inches of each


def write(table: Table, name: str, workdir: Path, folder: Path) -> None:
    """Writes `<name>_fits.png`, unless no run whose data can be seen has finished in `workdir`.

    Args:
        table: whose runs they are.
        name: of the table.
        workdir: where its runs are.
        folder: where the picture goes.
    """
    found = _networks(table, workdir)
    if not found:
        return
    lines = [-(-(len(networks) + 1) // ACROSS) for networks in found.values()]
    size = ACROSS * WIDTH, sum(lines) * HEIGHT + 0.4 * len(lines)
    figure = table_plot.figure_class()(figsize=size, dpi=100, layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(found), 1, height_ratios=lines))
    for (label, networks), part, count in zip(found.items(), parts, lines, strict=True):
        dataset = next(c.config.dataset for c in table.columns if c.label == label)
        part.suptitle(label, fontsize=11)
        panels = part.subplots(count, ACROSS, sharex=True, sharey=True, squeeze=False).flat
        _draw(panels, datasets.load_table(dataset), networks)
    with written(folder / f"{name}_fits.png") as file:
        table_plot.save(figure, file)


def _networks(table, workdir):
    """For each column {title: file} of the first seed of each row that finished, not diverged."""
    seen = {column.label for column in table.columns if _can_be_seen(column.config)}
    runs = [run for run in table.runs() if run.column.label in seen]
    words, found = table.metric.removesuffix("_mean").upper(), {}
    for (column, row), (outcome, path) in outcomes.first_sound(
        runs, workdir, "model.keras"
    ).items():
        title = f"{row}, {words} {outcome.metrics[table.metric]:.3g}"
        found.setdefault(column, {})[title] = path
    return found


def _can_be_seen(config):
    if not isinstance(config, RegressionConfig):
        return False
    return datasets.load_table(config.dataset)[0].shape[1] in POINTS


def _draw(panels, data, networks):
    """The data in the first panel, and each network in one of the next."""
    inputs, targets = data
    low, high = inputs.min(0), inputs.max(0)
    count = POINTS[inputs.shape[1]]
    axes = [np.linspace(*ends, count, dtype="float32") for ends in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, inputs.shape[1])
    fits = {
        title: keras.ops.convert_to_numpy(keras.saving.load_model(path)(grid))[:, 0]
        for title, path in networks.items()
    }
    order = np.argsort(inputs[:, 0])
    room = 0.05 * np.ptp(targets)
    limits = float(targets.min()), float(targets.max())
    image = {"cmap": "viridis", "vmin": limits[0], "vmax": limits[1]}
    for panel, title in zip(panels, ["data", *fits, *[None] * len(panels)], strict=False):
        if title is None:
            panel.set_axis_off()
            continue
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
        if inputs.shape[1] == 1:
            panel.plot(inputs[order, 0], targets[order], color="#BBBBBB", linewidth=1)
            if title in fits:
                panel.plot(grid[:, 0], fits[title], color="#0072B2", linewidth=1.2)
            panel.set_ylim(limits[0] - room, limits[1] + room)
        elif title in fits:
            extent = low[0], high[0], low[1], high[1]
            values = fits[title].reshape(count, count)
            panel.imshow(values, origin="lower", extent=extent, aspect="auto", **image)
        else:
            panel.scatter(*inputs.T, c=targets, s=3, linewidths=0, **image)
            panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
