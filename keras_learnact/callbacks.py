"""Callbacks for `fit` that know learnable activations."""

import warnings

import keras
import numpy as np

from keras_learnact.layers.srelu import SReLU
from keras_learnact.observe import activation_layers, record_inputs


class SReLUThresholds(keras.callbacks.Callback):
    """Trains `SReLU` layers in the paper's two phases.

    For the first epochs all `SReLU` layers of the model are frozen at their start, a leaky ReLU.
    At the end of these epochs the right threshold of each group is set to a percentile of the
    inputs that reach it (but never below the left threshold), and all four parameters are learned
    from then on. Nothing is compiled anew.

    The epochs are numbered as in `fit`: to continue a training, say `fit(initial_epoch=…)`. A
    training that ends earlier leaves the layers frozen, also when saved; one that continues goes
    on from there.

    Args:
        inputs: what the model takes, samples first: an array, or a list or dictionary of arrays.
            Some hundreds of the training samples will do; all inputs of all `SReLU` layers on
            them are held in memory at once.
        epochs: how many epochs the layers are frozen, >= 1.
        percentile: of the inputs, from 0 to 100.
        batch_size: how many samples run at once.

    Raises:
        ValueError: for epochs < 1 or a percentile outside of 0 to 100; when training begins, for a
            model without `SReLU` layers.

    Example:

    >>> model.fit(x, y, epochs=20, callbacks=[SReLUThresholds(x[:500], epochs=5)])

    Reference: Jin, Xu, Feng, Wei, Xiong, Yan: Deep Learning with S-shaped Rectified Linear
    Activation Units, AAAI 2016. The numbers of epochs and percent are a reconstruction.
    """

    def __init__(self, inputs, epochs=5, percentile=90.0, batch_size=256):
        super().__init__()
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
            raise ValueError(
                f"SReLUThresholds: `epochs` must be an integer >= 1. Received: epochs={epochs!r}"
            )
        if not 0 <= percentile <= 100:
            raise ValueError(
                "SReLUThresholds: `percentile` must be a number from 0 to 100. "
                f"Received: percentile={percentile!r}"
            )
        self.inputs = inputs
        self.epochs = epochs
        self.percentile = percentile
        self.batch_size = batch_size
        self.layers = []

    def on_train_begin(self, logs=None):
        self.layers = [x for x in activation_layers(self.model) if isinstance(x, SReLU)]
        if not self.layers:
            raise ValueError(
                f"SReLUThresholds needs a model with SReLU layers. Received: {self.model!r}, which "
                "has none. Leave the callback out."
            )
        if any(layer.frozen is None for layer in self.layers):
            # Some models build their layers on their first call only.
            self.model(keras.tree.map_structure(lambda x: x[:1], self.inputs), training=False)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch < self.epochs:
            for layer in self.layers:
                layer.frozen.assign(1)
        else:
            # A checkpoint of the last frozen epoch may have been saved before this callback ran.
            self._release()

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 >= self.epochs:
            self._release()

    def _release(self):
        """Sets the thresholds of the layers that are frozen, and lets these layers learn."""
        frozen = {id(layer): layer for layer in self.layers if layer.frozen > 0}
        if not frozen:
            return
        seen = {key: [] for key in frozen}

        def collect(layer, inputs):
            if id(layer) in seen:
                seen[id(layer)].append(_by_group(layer, inputs.astype("float32")))

        record_inputs(self.model, self.inputs, collect, self.batch_size)
        for key, layer in frozen.items():
            if seen[key]:
                self._set_threshold(layer, np.concatenate(seen[key], axis=1))
            else:
                warnings.warn(
                    f"SReLUThresholds: the inputs of {layer.name!r} cannot be observed; its "
                    "t_right stays as it is.",
                    stacklevel=2,
                )
            layer.frozen.assign(0)

    def _set_threshold(self, layer, inputs):
        old = layer.parameters()
        new = np.percentile(inputs, self.percentile, axis=1)[:, np.newaxis]
        new = np.maximum(new, old["t_left"])
        # A model that has diverged keeps its thresholds; it is not for this callback to stop it.
        layer.t_right.assign(np.where(np.isfinite(new), new, old["t_right"]))


def _by_group(layer, inputs):
    """The inputs of a learnable activation as `[groups, inputs of each group]`."""
    if layer.sharing == "layer":
        return inputs.reshape(1, -1)
    if layer.sharing == "unit":
        return inputs.reshape(len(inputs), -1).T
    return np.moveaxis(inputs, layer.axis, 0).reshape(layer.groups, -1)
