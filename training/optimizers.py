"""The optimizer of a run: rate, schedule, decay, clipping, and rules for activation parameters."""

import keras

from keras_learnact import optimizers
from training.config import Config, UserError

SCHEDULES = ("constant", "exponential", "steps", "cosine")


def build(config: Config, steps_per_epoch: int) -> optimizers.ActivationOptimizer:
    """Two optimizers of one kind: one for the weights, one for the activation parameters.

    The activation parameters have no weight decay, and the learning rate of the weights unless
    `activation_learning_rate` gives them their own. `clip_norm` bounds the norm of all gradients
    together.
    """
    common = {"global_clipnorm": config.clip_norm, "weight_decay": _weight_decay(config)}
    rate = schedule(config, steps_per_epoch)
    if config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, **common)
    elif config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=config.momentum, **common)
    else:
        raise UserError(f'The optimizer must be "adam" or "sgd". Received: {config.optimizer!r}')
    return optimizers.ActivationOptimizer(optimizer, config.activation_learning_rate)


def schedule(config: Config, steps_per_epoch: int):
    """The learning rate of the weights: a number, or a Keras schedule over steps."""
    rate, schedules = config.learning_rate, keras.optimizers.schedules
    if config.schedule == "constant":
        return rate
    if config.schedule == "exponential":
        return schedules.ExponentialDecay(rate, steps_per_epoch, config.decay, staircase=True)
    if config.schedule == "steps":
        # Keras changes the rate after a boundary, not on it: the last step of the epoch before.
        boundaries = [epoch * steps_per_epoch - 1 for epoch in config.decay_epochs]
        rates = [rate * config.decay**i for i in range(len(boundaries) + 1)]
        return schedules.PiecewiseConstantDecay(boundaries, rates)
    if config.schedule == "cosine":
        return schedules.CosineDecay(rate, config.epochs * steps_per_epoch)
    raise UserError(f"The schedule must be one of {SCHEDULES}. Received: {config.schedule!r}")


def _weight_decay(config):
    """Keras' weight decay for one in the papers' sense.

    The papers' programs add `decay * w` to the gradient, and momentum m then repeats it
    1 + m + m² + … = 1 / (1 - m) times. Keras subtracts `rate * decay * w` apart from momentum.
    """
    decay = config.weight_decay
    if config.optimizer == "sgd":
        decay /= 1 - config.momentum
    return decay or None
