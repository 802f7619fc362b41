"""How long a training step takes with every activation, over the same network with ReLU.

    KERAS_BACKEND=tensorflow python -m benchmarks.training_step
    KERAS_BACKEND=jax python -m benchmarks.training_step

Minutes each, on a machine that does nothing else. More of it, with either flag or both:

    --formula=pau,apl,deu --formula_networks=lenet,vgg8,resnet18

What is timed: one step of a network of the papers on random images and labels that are in memory:
forward, loss, backward, Adam. On TensorFlow `graph` is `tf.function`, which Keras' `fit` takes on a
machine without GPU, and `jit` is XLA; on JAX the step is one jitted function that gets its state
donated. All steps of one network take turns in random order, see `benchmarks.clock`; a ratio is
that of two medians, to ReLU's in the same mode.

"step over ReLU's" is that of the layer as it is, "formula over ReLU's" that of its formula in
`keras.ops`, without compiled kernels. Maxout's network has twice the weights, see
`training.networks.Unit`: that, and not the maximum, takes the time. "spread" is the distance of the
quartiles of a row's own times over their median.

The tables go to --results: training_step_BACKEND.md and a CSV file.
"""

import dataclasses
from typing import NamedTuple

import keras
import numpy as np

from benchmarks import clock, modes, subjects, tables
from benchmarks.clock import Case, Clock
from benchmarks.command_line import field, start
from benchmarks.subjects import BASELINE, Subject
from training import networks
from training.config import UserError

# Nobody trains a network eagerly, and on JAX the state is donated always.
MODES = ("graph", "jit")
# Formulas take part in every so-manieth round.
FORMULA_EVERY = 3
# Seconds of a turn, at least: some steps of a small network.
SHORTEST = 0.2


class Images(NamedTuple):
    """What `networks.build` asks of a data set."""

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


GREY = Images((32, 32, 1), 10, (0.5,), (0.25,))
COLOURS = Images((32, 32, 3), 10, (0.5,) * 3, (0.25,) * 3)
# Each network with its images and its batch: steps of some tenths of a second on two cores.
NETWORKS = {"lenet": (GREY, 256), "vgg8": (COLOURS, 16), "resnet18": (COLOURS, 8)}


@dataclasses.dataclass(frozen=True)
class Config:
    networks: tuple[str, ...] = field(tuple(NETWORKS), "networks")
    activations: tuple[str, ...] = field((), "activations by name; none: all of the package")
    modes: tuple[str, ...] = field((), "graph, jit; none: all of the backend")
    formula: tuple[str, ...] = field(("pau",), "activations whose formula is measured too")
    formula_networks: tuple[str, ...] = field(("lenet",), "networks in which it is measured")
    batch_size: int = field(0, "images in a batch; 0: a number for each network")
    rounds: int = field(7, "rounds for each network")
    results: str = field("benchmarks/results", "folder of the tables")


QUICK = Config(networks=("lenet",), activations=("pau",), formula=(), batch_size=2, rounds=2)


def run(config: Config) -> list[dict]:
    """Measures, prints and writes everything; returns the rows of the table."""
    unknown = set(config.networks) - set(NETWORKS)
    if unknown:
        raise UserError(f"--networks: {', '.join(NETWORKS)}. Received: {sorted(unknown)}")
    chosen = chosen_modes(config.modes)
    asked = subjects.asked(config.activations, ("layer",), chosen)
    rows, sections = [], {}
    for network in config.networks:
        images, batch_size = NETWORKS[network]
        batch_size = config.batch_size or batch_size
        wanted = config.formula if network in config.formula_networks else ()
        formulas = [s._replace(formula=True) for s in asked if s.name in wanted]
        times = _times(network, images, batch_size, asked + formulas, config.rounds)
        heading = f"{network}, batches of {batch_size}"
        sections[heading] = [_row(network, batch_size, subject, times) for subject in asked]
        print(f"\n{heading}\n{tables.markdown(sections[heading], COMMON)}", flush=True)
        rows += sections[heading]
    tables.write(config.results, "training_step", __doc__, {"time": rows}, sections, COMMON)
    return rows


def chosen_modes(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The modes that are asked for, of `MODES`; none: all of the backend."""
    chosen = asked or tuple(mode for mode in modes.modes() if mode in MODES)
    if not set(chosen) <= set(MODES) & set(modes.modes()):
        raise UserError(f"--modes: {', '.join(MODES)}, on JAX jit. Received: {chosen}")
    return chosen


# Columns that a heading says.
COMMON = ("network", "batch size")


def _row(network, batch_size, subject, times):
    relu = times[Subject(BASELINE, "", subject.mode)].median
    formula = times.get(subject._replace(formula=True))
    return {
        "network": network,
        "batch size": batch_size,
        "activation": subject.name,
        "mode": subject.mode,
        "runs": subject.runs(),
        "step over ReLU's": times[subject].median / relu,
        "formula over ReLU's": formula.median / relu if formula else None,
        "spread": times[subject].spread,
    }


def _times(network, images, batch_size, asked, rounds):
    cases = {}
    for subject in asked:
        step = _step(network, images, batch_size, subject)
        every = FORMULA_EVERY if subject.formula else 1
        cases[subject] = Case(modes.as_formula(step) if subject.formula else step, every)
    return clock.measure([Clock(cases, SHORTEST)], rounds)


def _step(network, images, batch_size, subject):
    """A function without arguments that trains a new network by one step."""
    keras.utils.set_random_seed(0)
    arguments = {"sharing": subject.sharing} if subject.sharing else {}
    model = networks.build(network, images, networks.Unit(subject.name, **arguments))
    return training_step(model, images, batch_size, subject.mode)


def training_step(model: keras.Model, images: Images, batch_size: int, mode: str):
    """A function without arguments that trains a classifier by one step, on the same images.

    Args:
        model: gives logits.
        images: what it classifies.
        batch_size: how many of them.
        mode: one of `MODES`.
    """
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (batch_size, *images.shape)).astype("float32")
    labels = random.integers(0, images.classes, batch_size, "int32")
    # So slow that what the weights become cannot make a difference.
    optimizer = keras.optimizers.Adam(1e-6)
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    make = _tensorflow_step if keras.backend.backend() == "tensorflow" else _jax_step
    return make(model, optimizer, loss, x, labels, mode)


def _tensorflow_step(model, optimizer, loss, x, labels, mode):
    import tensorflow as tf

    @tf.function(jit_compile=mode == "jit")
    def step(x, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    x, labels = tf.constant(x), tf.constant(labels)
    return lambda: step(x, labels).numpy()


def _jax_step(model, optimizer, loss, x, labels, mode):
    import jax

    def step(state, x, labels):
        trainable, non_trainable, optimizer_state = state

        def value_of(trainable):
            logits, changed = model.stateless_call(trainable, non_trainable, x, training=True)
            return loss(labels, logits), changed

        (value, changed), gradients = jax.value_and_grad(value_of, has_aux=True)(trainable)
        trainable, optimizer_state = optimizer.stateless_apply(
            optimizer_state, gradients, trainable
        )
        return (trainable, changed, optimizer_state), value

    compiled = jax.jit(step, donate_argnums=0)
    x, labels = jax.numpy.asarray(x), jax.numpy.asarray(labels)
    of_model = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    state = tuple([jax.numpy.copy(v.value) for v in variables] for variables in of_model)

    def run():
        nonlocal state
        state, value = compiled(state, x, labels)
        return jax.block_until_ready((state, value))

    return run


if __name__ == "__main__":
    start(Config(), QUICK, run, __doc__)
