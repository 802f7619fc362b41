"""How long a pruned network takes, over the whole one.

    KERAS_BACKEND=tensorflow python -m benchmarks.pruning
    KERAS_BACKEND=jax python -m benchmarks.pruning

Minutes each, on a machine that does nothing else. What is timed: inference, and a training step as
in `benchmarks.training_step`, of networks from which `training.smaller` took --removed percent of
the filters in every convolution. All of one network take turns in random order, see
`benchmarks.clock`; "time" is the ratio of two medians, to the whole network's with the same
activation in the same mode. "spread" is the distance of the quartiles of a row's own times over
their median. "multiply-adds" and "parameters" are ratios, too: the time would be the first of them
if nothing else took any. "time over ReLU's" is that over the whole network with ReLU.

The tables go to --results: pruning_BACKEND.md and a CSV file.
"""

import dataclasses

import keras
import numpy as np

from benchmarks import clock, tables, training_step
from benchmarks.clock import Case, Clock
from benchmarks.command_line import field, start
from training import networks, smaller
from training.config import UserError

PASSES = ("inference", "training step")
BASELINE = "relu"
# Seconds of a turn, at least.
SHORTEST = 0.2


@dataclasses.dataclass(frozen=True)
class Config:
    networks: tuple[str, ...] = field(("lenet", "vgg8"), "networks")
    activations: tuple[str, ...] = field((BASELINE, "pau"), "activations by name")
    removed: tuple[int, ...] = field((50,), "percent of the filters")
    modes: tuple[str, ...] = field((), "graph, jit; none: all of the backend")
    batch_size: int = field(0, "images in a batch; 0: a number for each network")
    rounds: int = field(9, "rounds for each network")
    results: str = field("benchmarks/results", "folder of the tables")


QUICK = Config(networks=("lenet",), activations=(BASELINE,), batch_size=2, rounds=2)


def run(config: Config) -> list[dict]:
    """Measures, prints and writes everything; returns the rows of the table."""
    unknown = set(config.networks) - set(training_step.NETWORKS)
    if unknown:
        raise UserError(
            f"--networks: {', '.join(training_step.NETWORKS)}. Received: {sorted(unknown)}"
        )
    if not all(0 < percent < 100 for percent in config.removed):
        raise UserError(f"--removed: percents between 1 and 99. Received: {config.removed}")
    modes = training_step.chosen_modes(config.modes)
    rows, sections = [], {}
    for network in config.networks:
        images, batch_size = training_step.NETWORKS[network]
        batch_size = config.batch_size or batch_size
        models = {
            (activation, percent): model
            for activation in dict.fromkeys((BASELINE, *config.activations))
            for percent, model in _models(network, images, activation, config.removed).items()
        }
        times = _times(models, images, batch_size, modes, config.rounds)
        heading = f"{network}, batches of {batch_size}"
        sections[heading] = [
            _row(network, batch_size, (activation, percent), part, mode, models, times)
            for part in PASSES
            for activation in config.activations
            for percent in config.removed
            for mode in modes
        ]
        print(f"\n{heading}\n{tables.markdown(sections[heading], COMMON)}", flush=True)
        rows += sections[heading]
    tables.write(config.results, "pruning", __doc__, {"time": rows}, sections, COMMON)
    return rows


# Columns that a heading says.
COMMON = ("network", "batch size")


def _row(network, batch_size, key, part, mode, models, times):
    activation, percent = key
    whole, model = models[activation, 0], models[key]
    measured = times[key, part, mode]
    return {
        "network": network,
        "batch size": batch_size,
        "pass": part,
        "activation": activation,
        "removed": f"{percent} %",
        "mode": mode,
        "parameters": networks.parameter_count(model) / networks.parameter_count(whole),
        "multiply-adds": smaller.multiply_adds(model) / smaller.multiply_adds(whole),
        "time": measured.median / times[(activation, 0), part, mode].median,
        "spread": measured.spread,
        "time over ReLU's": measured.median / times[(BASELINE, 0), part, mode].median,
    }


def _models(network, images, activation, removed):
    """The whole network, as share 0, and those without these shares of its filters."""
    keras.utils.set_random_seed(0)
    whole = networks.build(network, images, networks.Unit(activation))
    pruned = {p: smaller.smaller(whole, smaller.strongest(whole, p)) for p in removed}
    return {0: whole, **pruned}


def _times(models, images, batch_size, modes, rounds):
    make = {"inference": _inference, "training step": training_step.training_step}
    cases = {
        (key, part, mode): Case(make[part](model, images, batch_size, mode))
        for key, model in models.items()
        for part in PASSES
        for mode in modes
    }
    return clock.measure([Clock(cases, SHORTEST)], rounds)


def _inference(model, images, batch_size, mode):
    """A function without arguments that runs the model on the same images each time."""
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (batch_size, *images.shape)).astype("float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        call = tf.function(lambda x: model(x, training=False), jit_compile=mode == "jit")
        x = tf.constant(x)
        return lambda: call(x).numpy()
    import jax

    def call(trainable, non_trainable, x):
        return model.stateless_call(trainable, non_trainable, x, training=False)[0]

    compiled, x = jax.jit(call), jax.numpy.asarray(x)
    state = [
        [jax.numpy.copy(v.value) for v in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]
    return lambda: jax.block_until_ready(compiled(*state, x))


if __name__ == "__main__":
    start(Config(), QUICK, run, __doc__)
