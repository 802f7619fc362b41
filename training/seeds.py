"""Trains several seeds of one image classifier in one compiled step. Needs JAX.

    KERAS_BACKEND=jax python -m training.seeds --seeds=0,1,2 --workdir=DIR
    KERAS_BACKEND=jax python -m training.seeds --seeds=0,1,2,3,4 --dataset=mnist --network=lenet \\
        --activation=pau --workdir=DIR

All other flags are those of `training.image_classification`. Every seed has its own start, order of
the data and noise, and leaves in DIR/seed0, DIR/seed1, … what a run of that program with this
`--seed` leaves: the two can go on with each other's checkpoints.

A step of a small network leaves a GPU idle while the next one is prepared. All seeds together take
about as many calls as one of them. A CPU is busy anyway: there it gains little or nothing, see
`benchmarks/seeds.py`.

The same command again goes on where it was killed; seeds that have finished are not trained again.
"""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from absl import flags

from training import feeding, image_classification, loop, records
from training.command_line import from_flags, start
from training.config import ImageConfig, UserError


def train(config: ImageConfig, seeds: Sequence[int], workdir: str) -> dict[int, dict]:
    """Trains the network once for each seed, all at the same time.

    A seed that diverges ends there, and is recorded as such; the others go on.

    Args:
        config: the run; its seed is replaced by each of `seeds`.
        seeds: different integers.
        workdir: seed k leaves its files in `workdir/seed<k>`. Its result.json says in
            `trained_together` which seeds shared its steps; `seconds_per_epoch` is the time of all
            of them.

    Returns:
        For each seed the metrics of `image_classification.train`.

    Errors: a `UserError` for another backend than JAX, seeds that are equal, a data set that does
    not fit in memory, `distribute`; and as `image_classification.train`. All before any training.
    """
    _assert_possible(config, seeds)
    runs = {
        seed: (Path(workdir, f"seed{seed}"), dataclasses.replace(config, seed=seed))
        for seed in seeds
    }
    metrics = {seed: records.finished(*run) for seed, run in runs.items()}
    waiting = [run for seed, run in runs.items() if metrics[seed] is None]
    if not waiting:
        return metrics
    images, _ = image_classification.data(config)
    copies = [_Copy(*run, images) for run in waiting]
    together = [copy.config.seed for copy in copies]
    first = copies[0]
    print(
        f"{image_classification.summary(config, first.model, images, first.feed)}; in one step the "
        f"seeds {_listed(together)}"
    )
    for copy in _trained(copies):
        metrics[copy.config.seed] = copy.finish(images, together)
    return metrics


def main(argv):
    values = flags.FLAGS
    if values.seed is not None or values.workdir is None or values.seeds is None:
        raise UserError(
            "--seeds and --workdir are needed, and --seed is not: say --seeds=0,1,2 --workdir=DIR, "
            "where DIR/seed0 is that of seed 0. Received: "
            f"--seeds={values.seeds} --workdir={values.workdir} --seed={values.seed}"
        )
    config, workdir = from_flags(ImageConfig)
    for seed, metrics in train(config, parsed(values.seeds), workdir).items():
        print(f"\nSeed {seed}, in {Path(workdir, f'seed{seed}')}\n{records.summary(metrics)}")


def parsed(texts: Sequence[str]) -> list[int]:
    """The seeds that `--seeds` lists.

    Errors: a `UserError` if they are not integers.
    """
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise UserError(
            f"--seeds must be integers, say --seeds=0,1,2. Received: {','.join(texts)}"
        ) from None


class Together:
    """The steps of several models that were built alike, each compiled into one program.

    Args:
        trainer: one of the models, compiled and built; its variables are not touched.
        feed: `training.feeding.ArrayFeed` of its data, which is kept on the device once.
        mapped: what `jax.vmap` is. Default: `mapping()`.
    """

    def __init__(
        self, trainer: keras.Model, feed: feeding.ArrayFeed, mapped: Callable | None = None
    ):
        import jax

        mapped = mapped or mapping()

        def train_step(state, inputs, targets, chosen):
            _, state = trainer.train_step(state, (inputs[chosen], targets[chosen]))
            return state

        def test_step(metrics, model, inputs, targets, chosen):
            # Of the state only the metrics change: nothing is random in a test, and nothing learns.
            _, (*_, metrics) = trainer.test_step(
                (*model, metrics), (inputs[chosen], targets[chosen])
            )
            return metrics

        self._train_step = jax.jit(mapped(train_step, (0, None, None, 0)), donate_argnums=0)
        self._test_step = jax.jit(mapped(test_step, (0, 0, None, None, None)), donate_argnums=0)
        self._stack = jax.jit(_stacked)
        self._unstack = jax.jit(_unstacked, static_argnums=1)
        self._train_data, self._test_data = (
            (jax.numpy.asarray(batches.inputs), jax.numpy.asarray(batches.targets))
            for batches in (feed.batches, feed.test)
        )
        self._batch_sizes = feed.batches.batch_size, feed.test.batch_size
        self._test_order = feed.test.order

    def train(self, trainers: Sequence[keras.Model], orders: Sequence[np.ndarray]) -> None:
        """Trains models for an epoch.

        Args:
            trainers: the models.
            orders: for each the order in which it sees the examples: their numbers.
        """
        state = self._stack([_state(trainer) for trainer in trainers])
        orders = np.stack(orders).astype("int32")
        for chosen in _batches(orders, self._batch_sizes[0]):
            state = self._train_step(state, *self._train_data, chosen)
        for trainer, values in zip(trainers, self._unstack(state, len(trainers)), strict=True):
            _assign(_variables(trainer), values)

    def train_program(self, trainers: Sequence[keras.Model]):
        """The step of training, as JAX lowers it for these models."""
        state = self._stack([_state(trainer) for trainer in trainers])
        chosen = np.zeros((len(trainers), self._batch_sizes[0]), "int32")
        return self._train_step.lower(state, *self._train_data, chosen)

    def test(self, trainers: Sequence[keras.Model]) -> None:
        """Brings the metrics of models to what they are on the test examples."""
        trainable, non_trainable, _, metrics = self._stack([_state(model) for model in trainers])
        for chosen in _batches(self._test_order[None].astype("int32"), self._batch_sizes[1]):
            state = trainable, non_trainable
            metrics = self._test_step(metrics, state, *self._test_data, chosen[0])
        for trainer, values in zip(trainers, self._unstack(metrics, len(trainers)), strict=True):
            _assign(trainer.metrics_variables, values)


def build(trainer: keras.Model, feed: feeding.ArrayFeed) -> None:
    """Makes all variables of a compiled model, those of its optimizer and its metrics too."""
    trainer._symbolic_build(data_batch=feed.batches[0])


def mapping() -> Callable:
    """How a function of one model becomes one of several on the device there is.

    Under `vmap` the convolutions of several models are one convolution in groups of channels, which
    XLA for the CPU computes far more slowly than one after the other.
    """
    import jax

    return in_turn if jax.default_backend() == "cpu" else jax.vmap


def in_turn(function: Callable, in_axes: Sequence[int | None]) -> Callable:
    """What `jax.vmap(function, in_axes)` is, as a program of one copy after the other."""
    import jax

    def of_several(*arguments):
        def part(i):
            return [
                argument if axis is None else jax.tree.map(operator.itemgetter(i), argument)
                for argument, axis in zip(arguments, in_axes, strict=True)
            ]

        count = len(jax.tree.leaves(arguments[0])[0])
        return _stacked([function(*part(i)) for i in range(count)])

    return of_several


class _Copy:
    """The run of one seed."""

    def __init__(self, folder, config, images):
        self.folder = folder
        self.config = config
        self.feed = feeding.ArrayFeed(images.train, images.test, config.batch_size, config.seed)
        # Layers get the names that they have in a process of their own.
        keras.utils.clear_session(free_memory=False)
        self.model, self.trainer = image_classification.compiled(
            config, images, self.feed.steps_per_epoch
        )
        build(self.trainer, self.feed)
        self.run = loop.Run(self.trainer, self.feed, config, folder)

    @property
    def has_ended(self):
        return self.run.progress.diverged or self.run.done >= self.config.epochs

    def begin(self):
        self.callbacks = keras.callbacks.CallbackList(
            self.run.arguments()["callbacks"],
            model=self.trainer,
            epochs=self.config.epochs,
            steps=self.feed.steps_per_epoch,
        )
        self.callbacks.on_train_begin()

    def begin_epoch(self):
        self.trainer.reset_metrics()
        self.callbacks.on_epoch_begin(self.run.done)
        self.callbacks.on_train_batch_begin(0)

    def begin_test(self):
        """What follows the last step: for callbacks all steps of an epoch are one call."""
        self.logs = self.trainer.get_metrics_result()
        self.callbacks.on_train_batch_end(self.feed.steps_per_epoch - 1, self.logs)
        self.trainer.reset_metrics()
        self.callbacks.on_test_begin()

    def end_epoch(self):
        of_test = self.trainer.get_metrics_result()
        self.callbacks.on_test_end(of_test)
        self.logs |= {f"val_{name}": value for name, value in of_test.items()}
        self.callbacks.on_epoch_end(self.run.done, self.logs)
        if self.has_ended:
            self.callbacks.on_train_end(self.logs)

    def finish(self, images, together):
        return image_classification.finish(
            self.config, self.folder, self.model, self.run.end(), images, trained_together=together
        )


def _trained(copies):
    """Trains all copies; gives each as soon as it has ended."""
    first = copies[0]
    together = Together(first.trainer, first.feed)
    yield from (copy for copy in copies if copy.has_ended)
    copies = [copy for copy in copies if not copy.has_ended]
    for copy in copies:
        copy.begin()
    while copies:
        # A run that was killed while it wrote its checkpoints goes on with the seeds that have none
        # of the last epoch.
        done = min(copy.run.done for copy in copies)
        now = [copy for copy in copies if copy.run.done == done]
        _train_epoch(now, together)
        yield from (copy for copy in now if copy.has_ended)
        copies = [copy for copy in copies if not copy.has_ended]


def _train_epoch(copies, together):
    trainers = [copy.trainer for copy in copies]
    for copy in copies:
        copy.begin_epoch()
    together.train(trainers, [copy.feed.batches.order for copy in copies])
    for copy in copies:
        copy.begin_test()
    together.test(trainers)
    for copy in copies:
        copy.end_epoch()
    print(_epoch_line([copy.run.progress.history[-1] for copy in copies], copies), flush=True)


def _epoch_line(rows, copies):
    parts = [f"Epoch {rows[0]['epoch']}/{copies[0].config.epochs}", f"{rows[0]['seconds']:.1f} s"]
    parts += [f"seeds {_listed(copy.config.seed for copy in copies)}"]
    for name in copies[0].logs:
        parts.append(f"{name}: " + " ".join(f"{row[name]:.4f}" for row in rows))
    return " - ".join(parts)


def _listed(seeds):
    return ", ".join(map(str, seeds))


def _assert_possible(config, seeds):
    if keras.backend.backend() != "jax":
        raise UserError(
            "Several seeds in one step need JAX. Received: KERAS_BACKEND="
            f"{keras.backend.backend()}. Set KERAS_BACKEND=jax, or run "
            "training.image_classification for each seed."
        )
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(
            "Seeds are different integers that are not negative, say --seeds=0,1,2. Received: "
            f"{_listed(seeds) or 'none'}"
        )
    if config.distribute != "none":
        raise UserError(
            "Several seeds in one step run on one device. Received: "
            f"--distribute={config.distribute}. Use --distribute=none, or run "
            "training.image_classification for each seed."
        )
    if config.dataset == "imagenet2012":
        raise UserError(
            "Several seeds in one step need a data set that fits in memory. Received: "
            f"{config.dataset}. Run training.image_classification for each seed."
        )


# The state of a Keras model in JAX, see `keras.Model.train_step` of that backend.


def _variables(trainer):
    return (
        trainer.trainable_variables,
        trainer.non_trainable_variables,
        trainer.optimizer.variables,
        trainer.metrics_variables,
    )


def _state(trainer):
    return tuple([variable.value for variable in part] for part in _variables(trainer))


def _assign(variables, values):
    for variable, value in zip(
        keras.tree.flatten(variables), keras.tree.flatten(values), strict=True
    ):
        variable.assign(value)


def _stacked(states):
    import jax

    return jax.tree.map(lambda *arrays: jax.numpy.stack(arrays), *states)


def _unstacked(state, count):
    import jax

    return [jax.tree.map(operator.itemgetter(i), state) for i in range(count)]


def _batches(orders, size):
    """The numbers of the examples `[seeds, size]`, batch by batch; the last may be smaller."""
    return [orders[:, first : first + size] for first in range(0, orders.shape[1], size)]


if __name__ == "__main__":
    flags.DEFINE_list("seeds", None, "seeds that are trained together, say 0,1,2")
    start(ImageConfig, main)
