"""The costs that `keras_learnact.activations()` shows: every activation over ReLU.

    KERAS_BACKEND=tensorflow python -m benchmarks.costs

It measures as `benchmarks.activations` does, one set of parameters for the layer, in the mode in
which `fit` runs, and writes keras_learnact/costs.csv. Minutes, on a machine that does nothing else.
"""

import dataclasses
import inspect
import tempfile
import time
from pathlib import Path

import keras

import keras_learnact as kla
from benchmarks import activations, tables
from benchmarks.command_line import field, start
from training.activations import registry
from training.config import UserError

COSTS = Path(kla.__file__).with_name("costs.csv")
# Keras leaves XLA off on a processor where it may choose, and JAX has nothing else.
MODE = {"tensorflow": "graph", "jax": "jit"}


@dataclasses.dataclass(frozen=True)
class Config:
    size: int = field(22, "size as an exponent of 2")
    rounds: int = field(45, "rounds")
    activations: tuple[str, ...] = field((), "activations by name; none: all of the package")
    results: str = field(str(COSTS), "the file")


QUICK = Config(size=10, rounds=2, activations=("apl", "maxout"))


def run(config: Config) -> list[dict]:
    """Measures and writes; returns the rows that it wrote."""
    if config.activations and Path(config.results) == COSTS:
        raise UserError(
            f"{COSTS.name} has all activations. Received: "
            f"--activations={','.join(config.activations)}. Name another file by --results."
        )
    mode = MODE[keras.backend.backend()]
    with tempfile.TemporaryDirectory() as folder:
        rows = activations.run(
            activations.Config(
                sizes=(config.size,),
                formula_sizes=(),
                memory_size=0,
                activations=config.activations,
                modes=(mode,),
                rounds=config.rounds,
                results=folder,
            )
        )["time"]
    own = {c: name for name, c in vars(kla.layers).items() if inspect.isclass(c)}
    names = {name: own[value] for name, value in registry().items() if value in own}
    costs = {}
    for row in rows:
        if row["activation"] in names:
            name = names[row["activation"]]
            costs.setdefault(name, {"activation": name})[row["pass"]] = row["over ReLU"]
    rows = [costs[name] for name in sorted(costs, key=str.lower)]
    about = (
        f"Measured on {time.strftime('%Y-%m-%d')} at 2^{config.size} float32 numbers, one set of "
        f"parameters, {keras.backend.backend()} in {mode} mode; {tables.measured_with()}."
    )
    tables.save(Path(config.results), f"# {about}\n{tables.comma_separated(rows)}")
    return rows


if __name__ == "__main__":
    start(Config(), QUICK, run, __doc__)
