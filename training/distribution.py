"""Data-parallel training: replicas of one model, each with its part of every batch.

`batch_size` is that of all replicas together, and the result is that of one device: the loss is
the mean over the whole batch (also of the last, smaller one), batch normalization sees all of it,
gradients are clipped after they are summed. What differs is the rounding of sums and, on
TensorFlow, the draws of noise: every replica has its own.

All GPUs of this machine, or the first two of them (without a GPU, the CPU counts as a device):

    python -m training.image_classification --distribute=mirrored
    python -m training.image_classification --distribute=mirrored:2

Several machines, or processes: the same command on each, with the same `--workdir` on a disk that
all of them see, and TensorFlow's variable TF_CONFIG, which lists all workers and says which one
this is. Worker 0 writes the files. Here two on one machine:

    TF_CONFIG='{"cluster": {"worker": ["localhost:12345", "localhost:23456"]},
        "task": {"type": "worker", "index": 0}}' \\
        python -m training.image_classification --distribute=multi_worker --workdir=runs/two &
    TF_CONFIG='{"cluster": {"worker": ["localhost:12345", "localhost:23456"]},
        "task": {"type": "worker", "index": 1}}' \\
        python -m training.image_classification --distribute=multi_worker --workdir=runs/two

A worker that was killed is started again by its command. The others notice within a minute, start
themselves again and wait for it, and all go on from the last complete epoch to what an undisturbed
run gives. JAX may end them instead, where its devices wait for each other without an error; then
their commands start them again, too.
"""

import contextlib
import copy
import dataclasses
import functools
import itertools
import json
import os
import tempfile
import zlib
from pathlib import Path

import keras
import numpy as np

from training.config import Config, StartAgain, UserError

MODES = ("none", "mirrored", "multi_worker")

# Added to the seeds of replica 1, twice to those of replica 2, …: a prime, so that no two of the
# small seeds that people choose meet.
SEED_STRIDE = 1_000_003


class OneDevice:
    """No distribution; and what the distributions below have to say about themselves."""

    replicas = 1
    chief = True

    def scope(self):
        """Where variables are created."""
        return contextlib.nullcontext()

    def trainer(self, layers) -> keras.Sequential:
        """A sequential model of these layers, whose `fit` trains all replicas."""
        return keras.Sequential(layers)

    def arguments(self, trainer, arguments: dict, first_epoch: int) -> dict:
        """What `trainer.fit` is to be given, for what a feed gives to Keras' own `fit`."""
        return arguments

    def begin(self, trainer, config: Config, first_epoch: int) -> None:
        """Is called once before training, when the variables have their values.

        Errors: a `UserError` if the workers do not begin alike.
        """

    def folder(self, workdir: Path) -> Path:
        """Where this process writes what belongs into `workdir`; it exists."""
        workdir.mkdir(parents=True, exist_ok=True)
        return workdir

    def is_lost_worker(self, error: Exception) -> bool:
        """Whether this is how the end of another worker shows."""
        return False

    def close(self) -> None:
        """Is called at the end of the run."""


_current = OneDevice()


def current() -> OneDevice:
    """The distribution of the run that is in progress."""
    return _current


@contextlib.contextmanager
def entered(config: Config):
    """Makes what `config.distribute` asks for the current distribution; variables belong to it.

    Errors: a `UserError` for an unknown word, devices that are not there, a TF_CONFIG that is
    missing or not understood, a batch smaller than the number of replicas. A `StartAgain` if
    another worker ends before the run does.
    """
    global _current
    before, _current = _current, _create(config)
    try:
        _assert_enough(config, _current.replicas)
        with _current.scope():
            yield
    except Exception as error:
        if not _current.is_lost_worker(error):
            raise
        raise StartAgain(
            "Another worker is gone. Starts again and waits for it, to go on from the last epoch "
            f"that is complete. ({_first_line(error)})"
        ) from error
    finally:
        _current.close()
        _current = before


def _not_ready(error):
    # The others may still train: it takes them some seconds to see that one of them is gone.
    return StartAgain(f"The other workers are not ready. Starts again. ({_first_line(error)})")


def _first_line(error):
    return str(error).strip().partition("\n")[0]


def _assert_enough(config, replicas):
    if config.batch_size < replicas:
        raise UserError(
            f"Each of {replicas} replicas needs an example of every batch. Received: "
            f"batch_size={config.batch_size}. Use a larger --batch_size: it is that of all "
            "replicas together."
        )


def _create(config):
    word, _, count = config.distribute.partition(":")
    backend = keras.backend.backend()
    if word not in MODES or (
        count and (word != "mirrored" or not count.isdecimal() or count == "0")
    ):
        raise UserError(
            f"--distribute must be one of {', '.join(MODES)}, or mirrored:N for N devices. "
            f"Received: {config.distribute!r}"
        )
    if word == "none":
        return OneDevice()
    if backend not in ("tensorflow", "jax"):
        raise UserError(
            f"--distribute={word} needs TensorFlow or JAX as the backend of Keras. Received: "
            f"KERAS_BACKEND={backend}. Use --distribute=none."
        )
    kind = _TensorFlow if backend == "tensorflow" else _Jax
    if word == "multi_worker":
        if config.download:
            raise UserError(
                "All workers would get the data set at once, into one folder. Received: "
                "--download with --distribute=multi_worker. Get it before: python -m "
                f"training.datasets --dataset={config.dataset} --data_dir={config.data_dir} "
                "--download"
            )
        cluster = cluster_from_environment()
        _assert_enough(config, len(cluster.addresses))
        print(f"{cluster}: waits until all of them have started", flush=True)
        return kind.of_workers(cluster)
    return kind.of_devices(_chosen(kind.devices(), count, config.distribute))


def _chosen(devices, count, asked):
    """The first `count` devices, a number as text; of "" all."""
    count = int(count or len(devices))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    wanted = [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    gpus = [name for name in devices if "cpu" not in name.lower()]
    if len(wanted) > len(gpus):
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={visible} asks for {len(wanted)} GPUs. Received: a machine on "
            f"which {keras.backend.backend()} finds {len(gpus)} of them. Install it with its parts "
            "for GPUs, name others, or unset the variable."
        )
    if count > len(devices):
        raise UserError(
            f"--distribute={asked} needs {count} devices. Received: a machine with "
            f"{len(devices)}: {', '.join(devices)}. Use --distribute=mirrored for all that there "
            "are."
        )
    return devices[:count]


class Cluster:
    """The workers of a run.

    Args:
        jobs: the addresses "host:port" of each kind of worker: "worker", perhaps "chief" too.
        kind: of this one.
        index: of this one among its kind.
    """

    def __init__(self, jobs: dict[str, list[str]], kind: str, index: int):
        self.addresses = [*jobs.get("chief", []), *jobs["worker"]]
        self.number = self.addresses.index(jobs[kind][index])

    def __str__(self):
        return f"Worker {self.number} of {len(self.addresses)} ({', '.join(self.addresses)})"


def cluster_from_environment() -> Cluster:
    """The workers that TF_CONFIG lists.

    Errors: a `UserError` if it is missing or is not what the docstring of this module shows.
    """
    text = os.environ.get("TF_CONFIG")
    example = (
        '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        config = json.loads(text or "")
        jobs, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        addresses = [address for job in jobs.values() for address in job]
        understood = (
            "worker" in jobs
            and set(jobs) <= {"chief", "worker"}
            and len(jobs.get("chief", [])) <= 1
            and kind in jobs
            and 0 <= index < len(jobs[kind])
            and all(address.rpartition(":")[2].isdecimal() for address in addresses)
            and len(set(addresses)) == len(addresses)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        understood = False
    if not understood:
        raise UserError(
            "--distribute=multi_worker needs the variable TF_CONFIG: all workers, each with a port "
            "of its own, and which of them this is (from 0), say\n"
            f"    TF_CONFIG='{example}'\n"
            f"Received: {'nothing' if text is None else f'TF_CONFIG={text!r}'}"
        )
    return Cluster(jobs, kind, index)


class _Several(OneDevice):
    """What TensorFlow's replicas and JAX's have in common."""

    def __init__(self, replicas, worker=0):
        self.replicas = replicas
        self.chief = worker == 0
        self._elsewhere = None if self.chief else tempfile.TemporaryDirectory()

    def folder(self, workdir):
        # All workers do the same, callbacks and files too: what is computed on one alone waits
        # forever for the others where a value is spread over all of them.
        if self.chief:
            return super().folder(workdir)
        return super().folder(Path(self._elsewhere.name) / workdir.name)

    def close(self):
        if self._elsewhere:
            self._elsewhere.cleanup()


# TensorFlow.


class _TensorFlow(_Several):
    """Replicas of `tf.distribute`."""

    def __init__(self, strategy, worker=0):
        super().__init__(strategy.num_replicas_in_sync, worker)
        self.strategy = strategy

    @classmethod
    def of_devices(cls, names):
        import tensorflow as tf

        return cls(tf.distribute.MirroredStrategy(names))

    @classmethod
    def of_workers(cls, cluster):
        import tensorflow as tf

        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise _not_ready(error) from error
        return cls(strategy, cluster.number)

    @staticmethod
    def devices():
        import tensorflow as tf

        found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return [device.name.removeprefix("/device:") for device in found]

    def scope(self):
        return self.strategy.scope()

    def is_lost_worker(self, error):
        import tensorflow as tf

        signs = tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError
        return isinstance(error, signs)

    def trainer(self, layers):
        return _TensorFlowTrainer(layers, name="trainer")

    def arguments(self, trainer, arguments, first_epoch):
        train, test = arguments["x"], arguments["validation_data"]
        batches = _endless(train, first_epoch)
        trainer.example = batches.element_spec
        return {
            **arguments,
            "x": self._parts(batches),
            "steps_per_epoch": arguments.get("steps_per_epoch") or len(train),
            "validation_data": self._parts(_endless(test, first_epoch)),
            "validation_steps": len(test),
        }

    def begin(self, trainer, config, first_epoch):
        import tensorflow as tf

        @tf.function
        def beginnings():
            mine = tf.constant([[first_epoch, _fingerprint(config)]], "int64")
            return self.strategy.gather(self.strategy.run(lambda: mine), axis=0)

        _assert_alike(beginnings().numpy())
        generators = [v for v in trainer.variables if v.path.endswith("seed_generator_state")]

        def move():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state in generators:
                state.assign_add(tf.cast(tf.stack([number * SEED_STRIDE, 0]), state.dtype))

        # Each replica has its own copy of a generator's state, and with equal ones all would draw
        # the same numbers. A checkpoint keeps that of replica 0, which does not move.
        tf.function(lambda: self.strategy.run(move))()

    def _parts(self, batches):
        """The parts of the replicas of this worker, one after the other, of each batch."""
        import tensorflow as tf

        count = self.replicas

        def parts_of(context, *batch):
            local = count // context.num_input_pipelines
            first = context.input_pipeline_id * local
            size = tf.shape(batch[0])[0]
            bounds = [size * i // count for i in range(first, first + local + 1)]
            datasets = [
                tf.data.Dataset.from_tensors(tuple(array[start:end] for array in batch))
                for start, end in itertools.pairwise(bounds)
            ]
            return functools.reduce(tf.data.Dataset.concatenate, datasets)

        def of_worker(context):
            parts = batches.flat_map(functools.partial(parts_of, context))
            # It has no end, so TensorFlow need not ask all workers in each step whether there is
            # one: they have the same number of steps.
            parts = parts.apply(
                tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            )
            return parts.prefetch(tf.data.AUTOTUNE)

        return self.strategy.distribute_datasets_from_function(of_worker)


def _endless(batches, first_epoch):
    """A `tf.data.Dataset` of batches, epoch after epoch."""
    import tensorflow as tf

    if isinstance(batches, tf.data.Dataset):
        return batches.repeat()
    batches = copy.copy(batches)  # whose order is set where and when its batches are read

    def generator():
        for epoch in itertools.count(first_epoch):
            batches.start_epoch(epoch)
            for i in range(len(batches)):
                yield batches[i]

    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in batches[0])
    return tf.data.Dataset.from_generator(generator, output_signature=signature)


class _TensorFlowTrainer(keras.Sequential):
    """Keras' own steps, where they are not those of one device, or do not run.

    Keras 3 weighs replicas alike, whatever their part of the last batch. Under
    MultiWorkerMirroredStrategy its `fit` ends in errors where it averages a batch, to see its
    shape, and the logs of a step (keras 3.15, `_maybe_symbolic_build`, `reduce_per_replica`).
    """

    example = None

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        replica = tf.distribute.get_replica_context()
        count = tf.cast(tf.shape(x)[0], "float32")
        share = count / replica.all_reduce("SUM", count)
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            # Keras divides it by the number of replicas, and the optimizer sums over them.
            mean = self.compute_loss(x, y, outputs) * replica.num_replicas_in_sync
            loss = self.optimizer.scale_loss(mean * share)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(mean, sample_weight=count)
        return self.compute_metrics(x, y, outputs)

    def make_train_function(self, force=False):
        if force or self.train_function is None:
            self.train_function = self._on_replicas(self.train_step)

    def make_test_function(self, force=False):
        if force or self.test_function is None:
            self.test_function = self._on_replicas(self.test_step)

    def fit(self, *arguments, **options):
        normalizations = _normalizations(self)
        try:
            for layer in normalizations:
                layer.synchronized = True
            return super().fit(*arguments, **options)
        finally:
            for layer in normalizations:
                layer.synchronized = False

    def _on_replicas(self, step):
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()

        def on_replicas(iterator):
            # What a step returns is for the progress bar: the numbers of one replica will do.
            return strategy.experimental_local_results(strategy.run(step, (next(iterator),)))[0]

        return on_replicas if self.run_eagerly else tf.function(on_replicas)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        super()._maybe_symbolic_build(data_batch=self.example)


def _normalizations(layer):
    """The batch normalizations in a model."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [layer]
    return [found for part in getattr(layer, "layers", []) for found in _normalizations(part)]


# JAX.


class _Jax(_Several):
    """Replicas of Keras' distribution API: arrays that are spread over devices.

    The program is that of one device, and XLA divides it, so noise too is that of one device.
    """

    def __init__(self, devices, worker=0):
        super().__init__(len(devices), worker)
        self.distribution = _Replicated(devices=devices, auto_shard_dataset=False)

    @classmethod
    def of_devices(cls, names):
        return cls(names)

    @classmethod
    def of_workers(cls, cluster):
        import jax

        addresses = ",".join(cluster.addresses)
        try:
            keras.distribution.initialize(addresses, len(cluster.addresses), cluster.number)
        except jax.errors.JaxRuntimeError as error:
            raise _not_ready(error) from error
        return cls(cls.devices(), cluster.number)

    @staticmethod
    def devices():
        return keras.distribution.list_devices()

    def scope(self):
        return self.distribution.scope()

    def is_lost_worker(self, error):
        import jax

        # A full memory, say, is an error of this class, too.
        signs = "Gloo", "NCCL", "UNAVAILABLE"
        return isinstance(error, jax.errors.JaxRuntimeError) and any(s in str(error) for s in signs)

    def trainer(self, layers):
        start, *rest = layers
        return keras.Sequential([start, _Split(self.distribution), *rest])

    def begin(self, trainer, config, first_epoch):
        from jax.experimental import multihost_utils

        mine = np.array([[first_epoch, _fingerprint(config)]])
        _assert_alike(multihost_utils.process_allgather(mine).reshape(-1, 2))


class _Replicated(keras.distribution.DataParallel):
    """Brings the whole batch to each device; `_Split` then takes its part.

    Keras would cut batches before, and an array whose size is no multiple of the number of devices
    cannot be cut: the last batch of an epoch, say, which then all devices compute.
    """

    def get_data_layout(self, data_shape):
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


class _Split(keras.layers.Layer):
    """Leaves to each device its part of a batch, and all of it if it cannot be cut evenly."""

    def __init__(self, distribution):
        super().__init__()
        self.distribution = distribution

    def call(self, x):
        mesh = self.distribution.device_mesh
        if not isinstance(x.shape[0], int) or x.shape[0] % mesh.devices.size:
            return x
        axes = [self.distribution.batch_dim_name] + [None] * (len(x.shape) - 1)
        return keras.distribution.distribute_tensor(x, keras.distribution.TensorLayout(axes, mesh))


# Are the workers in step?


def _fingerprint(config):
    """A number that workers with the same result have in common."""
    fields = dataclasses.fields(config)
    values = [getattr(config, f.name) for f in fields if f.metadata["result"]]
    return zlib.crc32(repr(values).encode()) >> 1  # the largest integers of JAX have 31 bits


def _assert_alike(beginnings):
    """Errors: a `UserError` unless the rows, (first epoch, fingerprint), are equal."""
    epochs, configs = beginnings.T.tolist()
    if len(set(configs)) > 1:
        raise UserError(
            "All workers need the same flags: they are one run. Received: other ones on some. Give "
            "each the same command."
        )
    if len(set(epochs)) > 1:
        raise UserError(
            "All workers need the same --workdir, on a disk that all of them see: there is the "
            f"checkpoint from which they go on. Received: checkpoints after the epochs {epochs} "
            "(0: none)."
        )
