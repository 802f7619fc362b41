"""One file that holds all that a run needs to go on as if nothing had happened."""

import json
from pathlib import Path

import keras
import numpy as np

from keras_learnact.files import written


def save(path: Path, trainer: keras.Model, state: dict) -> None:
    """Writes the variables of a compiled model, and `state`, which must be JSON.

    The variables are those of the model (the states of its random generators among them, which
    Keras' own files leave out) and of its optimizer. The file is written beside and renamed: one
    of this name is always complete.
    """
    arrays = {
        f"{i:05d}": keras.ops.convert_to_numpy(variable)
        for i, variable in enumerate(_variables(trainer))
    }
    with written(path) as file:
        np.savez(file, state=json.dumps(state), **arrays)


def read_state(path: Path) -> dict:
    """The `state` of a checkpoint."""
    with np.load(path, allow_pickle=False) as file:
        return json.loads(str(file["state"]))


def restore(path: Path, trainer: keras.Model) -> None:
    """Gives a model that was built alike, and its optimizer, the variables of a checkpoint."""
    variables = _variables(trainer)
    with np.load(path, allow_pickle=False) as file:
        if len(file.files) != len(variables) + 1:
            raise ValueError(
                f"{path} was written by another program: it has {len(file.files) - 1} variables, "
                f"and this model and its optimizer have {len(variables)}. Use another --workdir."
            )
        for i, variable in enumerate(variables):
            variable.assign(file[f"{i:05d}"])


def _variables(trainer):
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer.variables + trainer.optimizer.variables
