"""Draws the functions that an activation of a table has learned: Fig. 3 of the PAU paper."""

from pathlib import Path

import numpy as np

from keras_learnact import history, plotting
from keras_learnact.files import written
from training import outcomes
from training.table import Table

# Of a network with more activations so many, evenly chosen.
PICTURED = 6


def write(table: Table, name: str, workdir: Path, folder: Path) -> None:
    """Writes `<name>_functions.png`, unless no run of `table.learned` has finished in `workdir`.

    Args:
        table: whose runs they are.
        name: of the table.
        workdir: where its runs are.
        folder: where the picture goes.
    """
    panels = [
        # The heights suited all of the training.
        panel._replace(name=column, family=panel.name, heights=None)
        for column, path in _histories(table, workdir).items()
        for panel in _chosen(path)
    ]
    if panels:
        with written(folder / f"{name}_functions.png") as file:
            plotting.draw(panels).savefig(file, format="png", metadata={"Software": None})


def _histories(table, workdir):
    """For each column the file of the first seed that has finished and did not diverge."""
    runs = [run for run in table.runs() if run.row.label == table.learned]
    found = outcomes.first_sound(runs, workdir, history.FILE_NAME)
    return {column: path for (column, _), (_, path) in found.items()}


def _chosen(path):
    """The functions at the end and before training, over the inputs of the end."""
    *_, last = plotting.panels_of_moments(history.History.load(path), max_curves=24)
    count = min(PICTURED, len(last))
    return [last[i] for i in np.linspace(0, len(last) - 1, count).round().astype(int)]
