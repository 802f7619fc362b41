"""What distribution_test.py asks of other processes: a small run, and what its variables became.

    python -m tests.training.distribution_processes --workdir=FOLDER --distribute=…

Variables of the surroundings: DEVICES=2 cuts the CPU into two devices for TensorFlow;
VARIABLES=FILE is where the variables go that this process holds in the end; KILLED_IN_EPOCH=1 ends
the process in the middle of the second epoch, as kill -9 does.
"""

import os
import signal

import keras
import numpy as np

import keras_learnact as kla
from training import feeding, image_classification
from training.command_line import from_flags, start
from training.config import ImageConfig

# 81 examples make five batches of 16 and one of a single example, of which a second replica has
# nothing. Whatever depends on the whole batch is there: batch normalization, clipping, the mean of
# the loss. The bound is one that clips: without clipping the test of it fails.
CONFIG = ImageConfig(
    activation="rpau",
    augmentation="none",
    epochs=3,
    batch_size=16,
    examples=81,
    clip_norm=0.5,
    optimizer="sgd",
    learning_rate=0.05,
    momentum=0.9,
)


def network(config, images):
    """Small, so that almost all of the time is the processes' start."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(images.shape),
            layers.Flatten(),
            layers.Rescaling(1 / 16),
            layers.Dense(8),
            kla.RPAU(noise=0, sharing="channel"),  # has a random generator, and draws nothing
            layers.BatchNormalization(),
            layers.Dense(images.classes),
        ]
    )


def train(config, workdir):
    """The history of the run and the network, as this process holds it in the end."""
    models = []

    def kept(*arguments):
        models.append(network(*arguments))
        return models[-1]

    image_classification.train(config, workdir, start_with=kept)
    return models[-1]


def variables(model):
    """The variables of each replica that is here, as a list of dictionaries of arrays."""
    named = {f"{number} {v.path}": _replicas(v) for number, v in enumerate(model.variables)}
    return [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]


def _replicas(variable):
    replicas = getattr(variable.value, "values", [variable.value])
    return [keras.ops.convert_to_numpy(value) for value in replicas]


class Killed(feeding.StartEpoch):
    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (int(os.environ["KILLED_IN_EPOCH"]), 2):
            os.kill(os.getpid(), signal.SIGKILL)


def main(argv):
    if "DEVICES" in os.environ and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = [tf.config.LogicalDeviceConfiguration()] * int(os.environ["DEVICES"])
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], devices
        )
    if "KILLED_IN_EPOCH" in os.environ:
        feeding.StartEpoch = Killed
    config, workdir = from_flags(ImageConfig)
    replicas = variables(train(config, workdir))
    stacked = {name: np.stack([replica[name] for replica in replicas]) for name in replicas[0]}
    np.savez(os.environ["VARIABLES"], **stacked)


if __name__ == "__main__":
    start(ImageConfig, main)
