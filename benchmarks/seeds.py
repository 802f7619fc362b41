"""How long several seeds of a network take in one step, over one after the other. Needs JAX.

    KERAS_BACKEND=jax python -m benchmarks.seeds

Minutes, on a machine that does nothing else. More of it:

    --networks=lenet,cnn,mlp --seeds=3,5,10 --steps=200

What is timed: an epoch on random images in the form of MNIST's, with the PAU paper's recipe for it:
batches of 64, rotation, Adam, a bound on the gradient's norm. "One after the other" is that epoch
by Keras' `fit`, as `training.image_classification` trains, times the number of seeds. The other
columns are `training.seeds` over it, in its two ways: "vmap" computes all copies at once, "in turn"
is one program of one copy after the other. "spread" is the distance of the quartiles over the
median of the way that the program takes on this device, which "takes" names. All take turns in
random order, see `benchmarks.clock`; a ratio is that of two medians: below 1 together is faster.

The tables go to --results: seeds_jax.md and a CSV file.
"""

import dataclasses

import keras
import numpy as np

from benchmarks import clock, tables
from benchmarks.clock import Case, Clock
from benchmarks.command_line import field, start
from training import datasets, feeding, image_classification, recipes, seeds
from training.config import ImageConfig, UserError

DATASET = "mnist"
ALONE = "alone"


@dataclasses.dataclass(frozen=True)
class Config:
    networks: tuple[str, ...] = field(("lenet",), "networks")
    activations: tuple[str, ...] = field(("relu", "pau"), "activations by name")
    seeds: tuple[int, ...] = field((3, 5), "how many seeds")
    steps: int = field(30, "steps in an epoch")
    batch_size: int = field(64, "images in a batch")
    rounds: int = field(5, "rounds for each network and activation")
    results: str = field("benchmarks/results", "folder of the tables")


QUICK = Config(networks=("mlp",), activations=("relu",), seeds=(2,), steps=2, rounds=2)


def run(config: Config) -> list[dict]:
    """Measures, prints and writes everything; returns the rows of the table."""
    if keras.backend.backend() != "jax":
        raise UserError(
            f"Several seeds in one step need JAX. Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    import jax

    ways, rows = {"vmap": jax.vmap, "in turn": seeds.in_turn}, []
    takes = next(name for name, way in ways.items() if way is seeds.mapping())
    for network in config.networks:
        for activation in config.activations:
            times = _times(network, activation, config, ways)
            for count in config.seeds:
                row = {"network": network, "activation": activation, "seeds": count}
                alone = count * times[ALONE].median
                row |= {name: times[name, count].median / alone for name in ways}
                rows.append({**row, "takes": takes, "spread": times[takes, count].spread})
            print(tables.markdown(rows), flush=True)
    device = jax.devices()[0]
    heading = f"{device.platform}: {device.device_kind}, batches of {config.batch_size}"
    tables.write(config.results, "seeds", __doc__, {"time": rows}, {heading: rows}, ())
    return rows


def _times(network, activation, config, ways):
    images = datasets.generated_images(DATASET, config.steps * config.batch_size)
    recipe = {**recipes.PAU_MNIST, "batch_size": config.batch_size}
    trainers, feeds = [], []
    for seed in range(max(config.seeds)):
        of_seed = ImageConfig(
            dataset=DATASET, network=network, activation=activation, seed=seed, **recipe
        )
        feed = feeding.ArrayFeed(images.train, images.test, config.batch_size, seed)
        _, trainer = image_classification.compiled(of_seed, images, feed.steps_per_epoch)
        seeds.build(trainer, feed)
        trainers.append(trainer)
        feeds.append(feed)

    arguments = feeds[0].arguments(first_epoch=0)
    del arguments["validation_data"]

    def alone():
        trainers[0].fit(**arguments, verbose=0)

    def together(step, count):
        orders = [np.random.default_rng(seed).permutation(feed.order) for seed in range(count)]
        return lambda: step.train(trainers[:count], orders)

    feed = feeds[0].batches
    cases = {ALONE: Case(alone)}
    for name, way in ways.items():
        step = seeds.Together(trainers[0], feeds[0], way)
        cases |= {(name, count): Case(together(step, count)) for count in config.seeds}
    return clock.measure([Clock(cases, shortest=0.0)], config.rounds)


if __name__ == "__main__":
    start(Config(), QUICK, run, __doc__)
