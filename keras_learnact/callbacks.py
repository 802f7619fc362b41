"""Callbacks for `fit` that know learnable activations."""

import dataclasses
import os
import time
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_learnact import history, plotting
from keras_learnact.layers.pwlu import PWLU
from keras_learnact.layers.srelu import SReLU
from keras_learnact.observe import activation_layers, named_activations, record_inputs

# Of a parameter. More diagrams than these are nothing to look at.
_MOST_SCALARS = 16
# Of an activation. More take time and are a blot.
_MOST_CURVES = 12
# Inches, 100 pixels each: as wide as TensorBoard shows an image, which it shrinks pixel by pixel.
_CARD = 3.5


class _TwoPhases(keras.callbacks.Callback):
    """Freezes layers of a class for the first epochs, then starts them by what reaches them.

    A subclass says which (`layer_class`), and how one starts (`_start`).
    """

    layer_class = None

    def __init__(self, inputs, epochs, batch_size):
        super().__init__()
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
            raise ValueError(
                f"{type(self).__name__}: `epochs` must be an integer >= 1. "
                f"Received: epochs={epochs!r}"
            )
        self.inputs = inputs
        self.epochs = epochs
        self.batch_size = batch_size
        self.layers = []

    def on_train_begin(self, logs=None):
        self.layers = [x for x in activation_layers(self.model) if isinstance(x, self.layer_class)]
        if not self.layers:
            raise ValueError(
                f"{type(self).__name__} needs a model with {self.layer_class.__name__} layers. "
                f"Received: {self.model!r}, which has none. Leave the callback out."
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
        """Starts the layers that are frozen, and lets them learn."""
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
                self._start(layer, np.concatenate(seen[key], axis=1))
            else:
                warnings.warn(
                    f"{type(self).__name__}: the inputs of {layer.name!r} cannot be observed; its "
                    "parameters stay as they are.",
                    stacklevel=2,
                )
            layer.frozen.assign(0)

    def _start(self, layer, inputs):
        """Sets what inputs `[groups, inputs of each group]` say of the layer.

        A model that has diverged keeps its parameters; it is not for a callback to stop it.
        """
        raise NotImplementedError


class SReLUThresholds(_TwoPhases):
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

    layer_class = SReLU

    def __init__(self, inputs, epochs=5, percentile=90.0, batch_size=256):
        super().__init__(inputs, epochs, batch_size)
        if not 0 <= percentile <= 100:
            raise ValueError(
                "SReLUThresholds: `percentile` must be a number from 0 to 100. "
                f"Received: percentile={percentile!r}"
            )
        self.percentile = percentile

    def _start(self, layer, inputs):
        old = layer.parameters()
        new = np.percentile(inputs, self.percentile, axis=1)[:, np.newaxis]
        new = np.maximum(new, old["t_left"])
        layer.t_right.assign(np.where(np.isfinite(new), new, old["t_right"]))


class PWLUBoundaries(_TwoPhases):
    """Trains `PWLU` layers in the paper's two phases.

    For the first epochs all `PWLU` layers of the model are frozen at their start, a ReLU. At the
    end of these epochs each starts anew, see `PWLU.realign`, with the boundaries of each group some
    standard deviations below and above the mean of the inputs that reach it; from then on all
    parameters are learned. A group whose inputs are all the same keeps its first boundaries.
    Nothing is compiled anew.

    The epochs are numbered as in `fit`: to continue a training, say `fit(initial_epoch=…)`. A
    training that ends earlier leaves the layers frozen, also when saved; one that continues goes
    on from there.

    Args:
        inputs: what the model takes, samples first: an array, or a list or dictionary of arrays.
            Some hundreds of the training samples will do; all inputs of all `PWLU` layers on
            them are held in memory at once.
        epochs: how many epochs the layers are frozen, >= 1.
        deviations: how many standard deviations, > 0.
        batch_size: how many samples run at once.

    Raises:
        ValueError: for epochs < 1 or deviations that are not above 0; when training begins, for a
            model without `PWLU` layers.

    Example:

    >>> model.fit(x, y, epochs=20, callbacks=[PWLUBoundaries(x[:500], epochs=5)])

    Reference: Zhou, Zhu, Zhong: Learning specialized activation functions with the Piecewise Linear
    Unit, ICCV 2021. It keeps running means of the first phase; here the inputs are those at its
    end, a reconstruction, as is the number of epochs.
    """

    layer_class = PWLU

    def __init__(self, inputs, epochs=5, deviations=3.0, batch_size=256):
        super().__init__(inputs, epochs, batch_size)
        if not 0 < deviations < float("inf"):
            raise ValueError(
                "PWLUBoundaries: `deviations` must be a number above 0. "
                f"Received: deviations={deviations!r}"
            )
        self.deviations = deviations

    def _start(self, layer, inputs):
        inputs = inputs.astype("float64")  # in which sums and squares do not overflow
        with np.errstate(invalid="ignore"):  # inf - inf
            mean, deviation = inputs.mean(axis=1), inputs.std(axis=1)
        ends = np.stack([mean + side * self.deviations * deviation for side in (-1, 1)], axis=1)
        ends = ends.astype("float32")  # in which those of equal inputs are equal
        known = (ends[:, 0] < ends[:, 1]) & (abs(ends).max(axis=1) <= 2.0**60)  # false for nan
        layer.realign(np.where(known[:, np.newaxis], ends, layer.initial_boundaries))


class MetricsBoard(keras.callbacks.Callback):
    """Writes for TensorBoard what Keras' own `TensorBoard` callback writes, without TensorFlow.

    Losses, metrics and the learning rate of every epoch, as `epoch_loss`, `epoch_accuracy` and so
    on: those of training in `log_dir/train`, those of validation in `log_dir/validation`.

    Args:
        log_dir: where the event files go. See them with `tensorboard --logdir log_dir`.

    Raises:
        ImportError: tensorboardX is not installed.
        NotADirectoryError: when training begins, if `log_dir` is a file.
    """

    def __init__(self, log_dir):
        super().__init__()
        try:
            # Now, and not only when the first epoch is over.
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"{type(self).__name__} writes with tensorboardX. Get it with: "
                "pip install 'keras_learnact[board]'"
            ) from error
        self.log_dir = os.fspath(log_dir)

    def on_train_begin(self, logs=None):
        if os.path.exists(self.log_dir) and not os.path.isdir(self.log_dir):
            raise NotADirectoryError(
                f"{type(self).__name__} writes into a folder. Received: log_dir={self.log_dir!r}, "
                "which is a file. Name another."
            )
        self._writers = {}

    def on_epoch_end(self, epoch, logs=None):
        logs = dict(logs or {})
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer:
            # Of replicas (`tf.distribute`) it is a variable that `float` does not know.
            logs["learning_rate"] = ops.convert_to_numpy(optimizer.learning_rate)
        for name, value in logs.items():
            run = "validation" if name.startswith("val_") else "train"
            name = name.removeprefix("val_")
            self._writer(run).add_scalar(f"epoch_{name}", float(value), epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()
        self.set_model(None)  # which may be large, and this callback may live on

    def _writer(self, run):
        if run not in self._writers:
            import tensorboardX

            self._writers[run] = tensorboardX.SummaryWriter(
                os.path.join(self.log_dir, run),
                # Without it a file is overwritten that began in the same second.
                filename_suffix=f".{time.time_ns()}",
            )
        return self._writers[run]


class ActivationBoard(MetricsBoard):
    """Writes for TensorBoard how the activations of a model learn, without TensorFlow.

    For each learnable activation, here of the name `pau`:

    - `pau/numerator_0` and so on, scalars: its coefficients; of several groups their means.
      Parameters of more than 16 coefficients have none.
    - `pau/numerator`, a histogram: all coefficients of the parameter. Of several groups instead
      `pau/numerator_0/groups` and so on: how each coefficient is distributed over the groups.
    - `pau/curve`, an image: the function, in grey as it was when training began, and behind it
      the distribution of its inputs. Of many groups 12 are drawn.

    `activations` is one image of all of them. Beside them what `MetricsBoard` writes: losses and
    metrics. The first epoch is 0, as in Keras' own `TensorBoard` callback.

    Training that goes on with `fit(initial_epoch=…)` goes on in the same diagrams. When training
    is over, the callback keeps nothing of the model.

    Args:
        log_dir: where the event files go. See them with `tensorboard --logdir log_dir`.
        every: when the activations are written: `"epoch"`, at the end of every epoch; or a
            number of training steps. The horizontal axis then counts the optimizer's steps.
        inputs: data for the model, a few hundred samples: an array, or a list or dictionary of
            arrays. Behind every curve the distribution of the activation's inputs on this data is
            drawn. Of a data set, say a `tf.data.Dataset` or a `keras.utils.PyDataset`, the first
            256 samples are taken, once, see `keras_learnact.plotting.first_inputs`.
        before: a `keras_learnact.plotting.snapshot`, drawn in grey instead of the functions
            at the beginning of this `fit`.
        derivative: whether the images show the derivatives too.
        max_images: at most so many activations, evenly chosen, have an image of their own.

    Raises:
        ValueError: for another `every`, a negative `max_images`; when training begins, for a model
            without learnable activations, and for `inputs` without samples.
        NotADirectoryError: when training begins, if `log_dir` is a file.
        ImportError: tensorboardX or matplotlib is not installed.

    Example:

    >>> model.fit(x, y, callbacks=[ActivationBoard("runs/first", inputs=x[:500])])
    """

    def __init__(
        self, log_dir, every="epoch", inputs=None, before=None, derivative=False, max_images=16
    ):
        super().__init__(log_dir)
        is_count = isinstance(every, int) and not isinstance(every, bool) and every >= 1
        if every != "epoch" and not is_count:
            raise ValueError(
                'ActivationBoard: `every` must be "epoch" or a number of training steps >= 1. '
                f"Received: every={every!r}"
            )
        if isinstance(max_images, bool) or not isinstance(max_images, int) or max_images < 0:
            raise ValueError(
                "ActivationBoard: `max_images` must be an integer >= 0. "
                f"Received: max_images={max_images!r}"
            )
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "ActivationBoard draws with matplotlib. Get it with: "
                "pip install 'keras_learnact[board]'"
            ) from error
        self.every = every
        self.inputs = inputs
        self.before = before
        self.derivative = derivative
        self.max_images = max_images

    # Of `self.model`: on JAX each access to it copies the state of the training loop into the
    # model's variables, which are empty or old in between. So no layer is kept from call to call.

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        model = self.model
        if not activation_layers(model):
            raise ValueError(
                f"ActivationBoard needs a model with learnable activations. Received: {model!r}, "
                "which has none. MetricsBoard writes losses and metrics alone."
            )
        self._start = plotting.snapshot(model) if self.before is None else self.before
        self._inputs = None if self.inputs is None else plotting.first_inputs(self.inputs)
        if self._inputs is not None and model.built:  # what is wrong with them is said now
            first = keras.tree.map_structure(lambda x: x[:1], self._inputs)
            plotting.input_distributions(model, first)
        # A model with a training step of its own may keep its optimizers elsewhere.
        optimizer = getattr(model, "optimizer", None)
        self._steps = int(ops.convert_to_numpy(optimizer.iterations)) if optimizer else 0
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
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self._inputs = None

    def _write_activations(self, step):
        writer, model = self._writer("train"), self.model
        layers = named_activations(model)
        for name, layer in layers.items():
            for parameter, values in layer.parameters().items():
                _write_parameter(writer, f"{name}/{parameter}", values, step)
        distributions = None
        if self._inputs is not None:
            distributions = plotting.input_distributions(model, self._inputs)
        panels = plotting.panels(layers, self._start, distributions, _MOST_CURVES)
        count = min(len(panels), self.max_images)
        for i in np.linspace(0, len(panels) - 1, count).astype(int):
            self._write_image(f"{panels[i].name}/curve", panels[i : i + 1], step, _CARD)
        if len(panels) > 1:
            self._write_image("activations", panels, step)
        writer.flush()

    def _write_image(self, tag, panels, step, width=None):
        image = plotting.pixels(plotting.draw(panels, self.derivative, width=width))
        self._writer("train").add_image(tag, image, step, dataformats="HWC")


class ActivationHistory(keras.callbacks.Callback):
    """Keeps how the activations of a model change, in one file.

    When training begins and when an epoch ends: the parameters of every learnable activation, the
    distribution of its inputs, and the epoch's loss and metrics. `keras_learnact.report.write_html`
    makes a page of the file, and `keras_learnact.history.History.load` reads it.

    Training that goes on with `fit(initial_epoch=…)` goes on in the same file; what the file holds
    of later epochs is dropped. After every epoch the file is complete.

    Args:
        path: of the file, say "run/activations.npz". Its folder must exist.
        inputs: data for the model, a few hundred samples: an array, or a list or dictionary of
            arrays. The distribution of what arrives at the activations on it is kept. A model
            that its first batch builds has a moment before training only if there are `inputs`.
        every: a number of epochs >= 1. The first and the last moment are kept in any case.
        limit: at most so many moments are kept, >= 3: when there are more, every second one is
            dropped, and from then on only every second one is taken.

    Raises:
        ValueError: for `every` < 1 or `limit` < 3; when training begins, for a model without
            learnable activations, or if the file holds the history of another model.
        FileNotFoundError: when training begins, if the file's folder does not exist.
        IsADirectoryError: `path` is a folder.

    Example:

    >>> model.fit(x, y, epochs=20, callbacks=[ActivationHistory("activations.npz", x[:500])])
    >>> keras_learnact.report.write_html("activations.npz", "activations.html")
    """

    def __init__(self, path, inputs=None, every=1, limit=100):
        super().__init__()
        if os.path.isdir(path):
            raise IsADirectoryError(
                f"ActivationHistory writes a file, say activations.npz. Received: path={path!r}, "
                "which is a folder."
            )
        for name, value, least in (("every", every, 1), ("limit", limit, 3)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(
                    f"ActivationHistory: `{name}` must be an integer >= {least}. "
                    f"Received: {name}={value!r}"
                )
        self.path = Path(path)
        self.inputs = inputs
        self.every = every
        self.limit = limit

    # As above, no layer is kept from call to call, and `self.model` is asked for once a call.

    def on_train_begin(self, logs=None):
        self._first = self._history = self._not_taken = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._first is None:  # only here Keras says where training begins
            self._first = epoch
            self._take(epoch, {})

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        self._not_taken = done, dict(logs or {})
        if done % self._interval(done) == 0:
            self._take(*self._not_taken)

    def on_train_end(self, logs=None):
        if self._not_taken:
            self._take(*self._not_taken)

    def _take(self, epoch, metrics):
        model = self.model
        named = named_activations(model)
        if not named:
            raise ValueError(
                f"ActivationHistory needs a model with learnable activations. Received: {model!r}, "
                "which has none. Leave the callback out."
            )
        moment = history.Moment.of(model, self.inputs, epoch, metrics)
        if self._history is None:
            if epoch == self._first and len(moment.parameters) < len(named):
                return  # the first batch will build the rest
            built = {name: named[name] for name in moment.parameters}
            self._begin(history.configurations(built), moment)
        moment = moment.renamed(self._names)
        interval, before = self._interval(epoch), []
        for old in self._history.moments:
            if old.epoch == epoch:  # training goes on from here
                moment = dataclasses.replace(moment, metrics=old.metrics)
            elif not before or old.epoch % interval == 0:
                before.append(old)
        self._history.moments = [*before, moment]
        self._history.save(self.path)
        self._not_taken = None

    def _begin(self, configs, moment):
        """Starts a history, or goes on with that of the file."""
        self._history = found = history.History([], configs=configs)
        old = history.History.load(self.path) if self.path.exists() else found
        if old.moments:
            self._history = found = old
            kinds = _kinds(found.configs, found.moments[0]), _kinds(configs, moment)
            if kinds[0] != kinds[1]:
                raise ValueError(
                    f"ActivationHistory: {self.path} holds the history of another model, with the "
                    f"activations {_listed(found.configs)}. Received: a model with the activations "
                    f"{_listed(configs)}. Use another path, or delete the file."
                )
            found.moments = [old for old in found.moments if old.epoch <= self._first]
        # The file keeps its names: in one process Keras numbers the layers of a second model anew.
        self._names = dict(zip(configs, found.configs, strict=True))

    def _interval(self, epoch):
        """How many epochs are between two moments, so that up to this epoch the limit holds."""
        interval = self.every
        while epoch // interval + 3 > self.limit:  # 0, the multiples, and the first and the last
            interval *= 2
        return interval


def _kinds(configs, moment):
    """What two models have in common whose activations differ in nothing but names and values."""
    return [
        (
            {**config, "config": {**config["config"], "name": None}},
            {key: value.shape for key, value in moment.parameters[name].items()},
        )
        for name, config in configs.items()
    ]


def _listed(configs):
    return ", ".join(f"{config['class_name']} {name!r}" for name, config in configs.items())


def _by_group(layer, inputs):
    """The inputs of a learnable activation as `[groups, inputs of each group]`."""
    if layer.sharing == "layer":
        return inputs.reshape(1, -1)
    if layer.sharing == "unit":
        return inputs.reshape(len(inputs), -1).T
    return np.moveaxis(inputs, layer.axis, 0).reshape(layer.groups, -1)


def _write_parameter(writer, tag, values, step):
    """Scalars and histograms of an array `[groups, count]`."""
    values = values.astype("float64")  # in which sums and squares do not overflow
    groups, count = values.shape
    if groups == 1 or count > _MOST_SCALARS:
        _write_histogram(writer, tag, values, step)
    if count > _MOST_SCALARS:
        return
    note = f"The mean over {groups} groups." if groups > 1 else ""
    with np.errstate(invalid="ignore"):  # inf - inf
        means = values.mean(axis=0)
    for j, mean in enumerate(means):
        writer.add_scalar(f"{tag}_{j}", mean, step, summary_description=note)
        if groups > 1:
            _write_histogram(writer, f"{tag}_{j}/groups", values[:, j], step)


def _write_histogram(writer, tag, values, step):
    finite = values[np.isfinite(values)]
    if finite.size:  # a diverged activation may have nothing to count
        # 32 bins; distinct, also where all values are equal.
        margin = 1e-12 + 1e-9 * np.abs(finite).max()
        edges = np.linspace(finite.min() - margin, finite.max() + margin, 33)
        writer.add_histogram(tag, finite, step, edges)
