"""Callbacks for `fit` that know learnable activations."""

import os
import time
import warnings

import keras
import numpy as np

from keras_learnact import plotting
from keras_learnact.layers.srelu import SReLU
from keras_learnact.observe import activation_layers, named_activations, record_inputs


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


class ActivationBoard(keras.callbacks.Callback):
    """Writes for TensorBoard how the activations of a model learn, without TensorFlow.

    For each learnable activation: every parameter as a histogram over its groups, each of its
    coefficients as a scalar (of several groups their mean), and the curve as an image, with the
    one that it had when training began in grey. Beside them what Keras' own `TensorBoard`
    callback writes, which needs TensorFlow: losses and metrics as `epoch_loss`, `epoch_accuracy`
    and so on, those of training in `log_dir/train`, those of validation in `log_dir/validation`.

    Training that goes on with `fit(initial_epoch=…)` goes on in the same diagrams.

    Args:
        log_dir: where the event files go. See them with `tensorboard --logdir log_dir`.
        every: when the activations are written: `"epoch"`, at the end of every epoch; or a
            number of training steps. The horizontal axis then counts the optimizer's steps.
        inputs: data for the model, a few hundred samples. Behind every curve the distribution
            of the activation's inputs on this data is drawn.
        before: a `keras_learnact.plotting.snapshot`, drawn in grey instead of the functions
            at the beginning of this `fit`.

    Errors:
        ImportError: tensorboardX or matplotlib is not installed.

    Example:

    >>> model.fit(x, y, callbacks=[ActivationBoard("runs/first", inputs=x[:500])])
    """

    def __init__(self, log_dir, every="epoch", inputs=None, before=None):
        super().__init__()
        is_count = isinstance(every, int) and not isinstance(every, bool) and every >= 1
        if every != "epoch" and not is_count:
            raise ValueError(
                'ActivationBoard: `every` must be "epoch" or a number of training steps >= 1. '
                f"Received: every={every!r}"
            )
        try:
            # Now, and not only when the first epoch is over.
            import matplotlib.figure  # noqa: F401
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "ActivationBoard writes with tensorboardX and draws with matplotlib. Get them "
                "with: pip install tensorboardX matplotlib"
            ) from error
        self.log_dir = log_dir
        self.every = every
        self.inputs = inputs
        self.before = before

    # Of `self.model`: on JAX each access to it copies the state of the training loop into the
    # model's variables, which are empty or old in between. So no layer is kept from call to call.

    def on_train_begin(self, logs=None):
        model = self.model
        self._start = plotting.snapshot(model) if self.before is None else self.before
        # A model with a training step of its own may keep its optimizers elsewhere.
        optimizer = getattr(model, "optimizer", None)
        self._steps = int(optimizer.iterations) if optimizer else 0
        self._writers = {}

    def on_epoch_begin(self, epoch, logs=None):
        self._steps_before = self._steps

    def on_train_batch_end(self, batch, logs=None):
        written = self._steps
        self._steps = self._steps_before + batch + 1
        # Keras calls once for several steps when it is compiled with `steps_per_execution`.
        if self.every != "epoch" and self._steps // self.every > written // self.every:
            self._write_activations(self._steps)

    def on_epoch_end(self, epoch, logs=None):
        if self.every == "epoch":
            self._write_activations(epoch)
        logs = dict(logs or {})
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer:
            logs["learning_rate"] = optimizer.learning_rate
        for name, value in logs.items():
            run = "validation" if name.startswith("val_") else "train"
            name = name.removeprefix("val_")
            self._writer(run).add_scalar(f"epoch_{name}", float(value), epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()

    def _writer(self, run):
        if run not in self._writers:
            import tensorboardX

            self._writers[run] = tensorboardX.SummaryWriter(
                os.path.join(self.log_dir, run),
                # Without it a file is overwritten that began in the same second.
                filename_suffix=f".{time.time_ns()}",
            )
        return self._writers[run]

    def _write_activations(self, step):
        writer, model = self._writer("train"), self.model
        distributions = None
        if self.inputs is not None:
            distributions = plotting.input_distributions(model, self.inputs)
        for name, layer in named_activations(model).items():
            for parameter, values in layer.parameters().items():
                values = values.astype("float64")  # in which sums and squares do not overflow
                finite = values[np.isfinite(values)]
                if finite.size:  # a diverged activation may have nothing to count
                    bins = _bin_edges(finite)
                    writer.add_histogram(f"{name}/{parameter}", finite, step, bins)
                with np.errstate(invalid="ignore"):  # inf - inf
                    means = values.mean(axis=0)
                for j, mean in enumerate(means):
                    writer.add_scalar(f"{name}/{parameter}_{j}", mean, step)
            figure = plotting.plot({name: layer}, before=self._start, distributions=distributions)
            writer.add_image(f"{name}/curve", _pixels(figure), step, dataformats="HWC")
        writer.flush()


def _by_group(layer, inputs):
    """The inputs of a learnable activation as `[groups, inputs of each group]`."""
    if layer.sharing == "layer":
        return inputs.reshape(1, -1)
    if layer.sharing == "unit":
        return inputs.reshape(len(inputs), -1).T
    return np.moveaxis(inputs, layer.axis, 0).reshape(layer.groups, -1)


def _bin_edges(values):
    """The edges of 32 bins around finite values; distinct, also where all values are equal."""
    margin = 1e-12 + 1e-9 * np.abs(values).max()
    return np.linspace(values.min() - margin, values.max() + margin, 33)


def _pixels(figure):
    """A figure as an array [height, width, 3] of bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]
