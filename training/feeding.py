"""Arrays as batches whose order depends on the seed and the epoch, and on nothing else."""

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Batches of arrays; the last one may be smaller.

    Args:
        inputs: array, examples first.
        targets: array, examples first.
        batch_size: examples in a batch.
        seed: epoch e goes through the examples in the order that `(seed, e)` gives, so that a run
            that resumes at e sees what the undisturbed run saw. None: the order of the arrays.
    """

    def __init__(self, inputs, targets, batch_size: int, seed: int | None = None):
        super().__init__()
        self.inputs = inputs
        self.targets = targets
        self.batch_size = batch_size
        self.seed = seed
        self.order = np.arange(len(inputs))

    def start_epoch(self, epoch: int) -> None:
        if self.seed is not None:
            self.order = np.random.default_rng((self.seed, epoch)).permutation(len(self.inputs))

    def __len__(self):
        return -(-len(self.inputs) // self.batch_size)

    def __getitem__(self, index):
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.inputs[chosen], self.targets[chosen]


class StartEpoch(keras.callbacks.Callback):
    """Tells the batches which epoch begins: Keras' own `on_epoch_begin` of a data set does not."""

    def __init__(self, batches: Batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.start_epoch(epoch)


class ArrayFeed:
    """Training and test arrays for Keras' `fit`.

    Args:
        train: inputs and targets.
        test: inputs and targets.
        batch_size: of training. Tests run in larger batches.
        seed: see `Batches`.
    """

    TEST_BATCH_SIZE = 256

    def __init__(self, train, test, batch_size: int, seed: int):
        self.batches = Batches(*train, batch_size, seed)
        self.test = Batches(*test, max(batch_size, self.TEST_BATCH_SIZE))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def arguments(self, first_epoch: int) -> dict:
        """What Keras' `fit` is to be given: here the same for every first epoch."""
        return {
            "x": self.batches,
            "shuffle": False,  # Keras would shuffle the batches, by Python's global generator
            "validation_data": self.test,
            "callbacks": [StartEpoch(self.batches)],
        }

    def some_inputs(self, count: int):
        """The first test inputs."""
        return self.test.inputs[:count]
