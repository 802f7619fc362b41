"""How the activations of a model changed: in memory, and as one file."""

import dataclasses
import functools
import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from keras_learnact.files import written
from keras_learnact.layers.base import LearnableActivation
from keras_learnact.observe import named_activations
from keras_learnact.plotting import Distribution, input_distributions, snapshot

FILE_NAME = "activations.npz"  # of the history in the folder of a run

_FORMAT = "keras_learnact history 1"
# What NumPy and JSON raise for a file of another kind, or one that was cut off.
_NO_HISTORY = (
    AttributeError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclasses.dataclass(frozen=True)
class Moment:
    """The activations of a model at one moment of its training.

    Args:
        epoch: how many epochs were done; 0 is before training.
        parameters: for each activation its parameters, as `plotting.snapshot` gives them:
            dictionaries from the parameter's name to an array `[groups, count]`.
        inputs: for each activation whose inputs were seen, their histogram: the numbers of the
            occupied bins of a `plotting.Distribution`, and how many inputs are in each. That is
            a hundredth of a `Distribution`.
        metrics: what Keras says of the epoch, `loss`, `val_accuracy`, …, as far as it is a number.
    """

    epoch: int
    parameters: dict[str, dict[str, np.ndarray]]
    inputs: dict[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.layers.Layer, inputs=None, epoch: int = 0, metrics=None) -> "Moment":
        """What a model is now; for the arguments see `History.of`."""
        # First: it may be what builds the model.
        seen = {} if inputs is None else input_distributions(model, inputs)
        metrics = {k: float(v) for k, v in (metrics or {}).items() if np.ndim(v) == 0}
        return cls(epoch, snapshot(model), {k: _occupied(d) for k, d in seen.items()}, metrics)

    @property
    def distributions(self) -> dict[str, Distribution]:
        """How the inputs of the activations are distributed; made anew at each access."""
        return {name: self.distribution(name) for name in self.inputs}

    def distribution(self, name: str) -> Distribution | None:
        """How the inputs of one activation are distributed, if they were seen."""
        if name not in self.inputs:
            return None
        distribution = Distribution()
        bins, counts = self.inputs[name]
        distribution.counts[bins] = counts
        return distribution

    def renamed(self, names: dict[str, str]) -> "Moment":
        """The same with other names of the activations, {old: new}, and without the unnamed."""
        parameters, inputs = (
            {names[name]: value for name, value in values.items() if name in names}
            for values in (self.parameters, self.inputs)
        )
        return dataclasses.replace(self, parameters=parameters, inputs=inputs)


class History:
    """How the activations of a model changed.

    Made by `History.of` (a single moment), by `keras_learnact.callbacks.ActivationHistory`
    (a training) or by `History.load`.

    Attributes:
        layers: for each name (see `named_activations`) an activation whose functions are drawn
            with the parameters of a moment: `layer.curve(x, parameters)`. What parameters the
            layer itself has now is of no meaning here.
        moments: a list of `Moment`, in the order of their epochs.
        epochs: their epochs; 0 is before training.

    Args:
        moments: see above.
        configs: for each name the activation's configuration, as `configurations` gives it; its
            `layers` are made of them.
        layers: or the activations themselves.
        safe_mode: as for `keras.saving.load_model`.

    Example:

    >>> history = History.load("run/activations.npz")
    >>> for moment in history.moments:
    ...     for name, layer in history.layers.items():
    ...         print(moment.epoch, name, layer.curve([-1.0, 0.0, 1.0], moment.parameters[name]))
    """

    def __init__(self, moments: Iterable[Moment], *, configs=None, layers=None, safe_mode=True):
        self.moments = list(moments)
        self._safe_mode = safe_mode
        # Each is made of the other, and only when asked for: a training that goes on needs no
        # layers of its own, and to be drawn an activation need not be one that can be saved.
        if configs is not None:
            self.configs = configs
        if layers is not None:
            self.layers = layers

    @functools.cached_property
    def layers(self) -> dict[str, LearnableActivation]:
        return {
            name: keras.saving.deserialize_keras_object(config, safe_mode=self._safe_mode)
            for name, config in self.configs.items()
        }

    @functools.cached_property
    def configs(self) -> dict[str, dict]:
        return configurations(self.layers)

    @property
    def epochs(self) -> list[int]:
        return [moment.epoch for moment in self.moments]

    @classmethod
    def of(cls, model: keras.layers.Layer, inputs=None) -> "History":
        """The single moment at which a model is now.

        Args:
            model: a built model, or any other layer.
            inputs: data for the model, an array or a list or dictionary of arrays, samples first;
                a few hundred samples. What arrives at the activations is counted.

        Raises:
            TypeError: `model` is not a Keras model or layer.
            ValueError: it has no learnable activation, or one without parameters yet.
        """
        if not isinstance(model, keras.layers.Layer):
            raise TypeError(f"History.of needs a Keras model or layer. Received: {model!r}")
        named = named_activations(model)
        if not named:
            raise ValueError(f"{model.name!r} has no learnable activation. Received: {model!r}")
        moment = Moment.of(model, inputs)
        unbuilt = [name for name in named if name not in moment.parameters]
        if unbuilt:
            raise ValueError(
                f"{model.name!r} has activations without parameters yet: {', '.join(unbuilt)}. "
                f"Received: {model!r}. Call it on data, give `inputs`, or build it."
            )
        return cls([moment], layers=named)

    def save(self, path) -> None:
        """Writes one file, NumPy's .npz with JSON in it and without pickle.

        It is written beside and renamed: a file of this name is always complete.
        """
        moments, arrays = self.moments, {}
        for i, name in enumerate(self.configs):
            for key in moments[0].parameters[name] if moments else ():
                values = [moment.parameters[name][key] for moment in moments]
                arrays[f"parameters/{i}/{key}"] = np.stack(values)
            none = np.zeros(0, np.uint16), np.zeros(0, np.uint8)
            seen = [moment.inputs.get(name, none) for moment in moments]
            bins, counts = zip(none, *seen, strict=True)  # of no moment too
            arrays[f"inputs/{i}/lengths"] = np.array([len(b) for b, _ in seen], np.uint16)
            arrays[f"inputs/{i}/bins"] = np.concatenate(bins)
            arrays[f"inputs/{i}/counts"] = np.concatenate(counts)
        facts = {
            "format": _FORMAT,
            "bins": len(Distribution().counts),
            "layers": self.configs,
            "epochs": self.epochs,
            "metrics": [moment.metrics for moment in moments],
        }
        with written(path) as file:
            np.savez_compressed(file, history=json.dumps(facts), **arrays)

    @classmethod
    def load(cls, path, safe_mode: bool = True) -> "History":
        """What `save` wrote.

        Args:
            path: the file.
            safe_mode: as for `keras.saving.load_model`. False allows activations made with a
                lambda, whose code is then taken from the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a history, or of another version of this package.
        """
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                facts = json.loads(str(file["history"]))
                if facts["format"] != _FORMAT or facts["bins"] != len(Distribution().counts):
                    raise ValueError(f"it has the format {facts['format']!r}")
                moments = _moments(facts, file)
            return cls(moments, configs=facts["layers"], safe_mode=safe_mode)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"There is no history of activations. Received: {str(path)!r}. The callback "
                "keras_learnact.callbacks.ActivationHistory(path) writes one."
            ) from None
        except _NO_HISTORY as error:
            # Not NumPy's own words, which are about pickles.
            reason = f": {error}" if "it has the format" in str(error) else ""
            is_model = str(path).endswith((".keras", ".h5"))
            way_out = " Load the model and give that." if is_model else ""
            raise ValueError(
                "A file is wanted that keras_learnact.callbacks.ActivationHistory or History.save "
                "of this version wrote. "
                f"Received: {str(path)!r}, which is not one{reason}.{way_out}"
            ) from error


def configurations(layers: dict[str, LearnableActivation]) -> dict[str, dict]:
    """For each activation what makes it anew: plain data, equal for equal activations."""
    configs = {k: keras.saving.serialize_keras_object(layer) for k, layer in layers.items()}
    for config in configs.values():
        config.pop("build_config", None)  # the function is wanted, no weights
    return json.loads(json.dumps(configs))  # as from a file


def as_history(source, inputs=None) -> History:
    """The history that a model, a file or the folder of a run has, or a history itself.

    Args:
        source: a model or other layer (then the history has a single moment), a `History`, the
            path of a file that holds one, or the path of a run's folder with such a file in it.
        inputs: data for a model, see `History.of`; only with a model.

    Raises:
        TypeError: `source` is something else.
        ValueError: see `History.of` and `History.load`; or there are `inputs` without a model.
        FileNotFoundError: there is no such file, or no history in the folder.
    """
    if isinstance(source, keras.layers.Layer):
        return History.of(source, inputs)
    if inputs is not None:
        raise ValueError(
            "`inputs` are run through a model; a history holds the distributions that were seen "
            f"in training. Received: inputs with {source!r}. Leave them out, or give the model."
        )
    if isinstance(source, History):
        return source
    try:
        path = Path(source)
    except TypeError:
        raise TypeError(
            "A model, a History, or the path of a history or of a run's folder is wanted. "
            f"Received: {source!r}"
        ) from None
    return History.load(_file_in(path) if path.is_dir() else path)


def _file_in(folder):
    if (folder / FILE_NAME).exists():
        return folder / FILE_NAME
    deeper = sorted(path.parent for path in folder.glob(f"*/{FILE_NAME}"))
    if not deeper:
        raise FileNotFoundError(
            f"There is no {FILE_NAME} in this folder. Received: {str(folder)!r}. "
            f"ActivationHistory(folder / {FILE_NAME!r}) writes it, and so do the training programs."
        )
    raise ValueError(
        f"This folder holds {len(deeper)} runs, and one is wanted. Received: {str(folder)!r}. "
        f"Name one of: {', '.join(map(str, deeper))}"
    )


def _moments(facts, file):
    parameters, inputs = {}, {}
    for i, name in enumerate(facts["layers"]):
        prefix = f"parameters/{i}/"
        keys = [key for key in file.files if key.startswith(prefix)]
        parameters[name] = {key.removeprefix(prefix): file[key] for key in keys}
        ends = np.cumsum(file[f"inputs/{i}/lengths"], dtype=np.int64)[:-1]
        bins, counts = (np.split(file[f"inputs/{i}/{key}"], ends) for key in ("bins", "counts"))
        inputs[name] = list(zip(bins, counts, strict=True))
    return [
        Moment(
            epoch,
            {name: {k: v[m] for k, v in values.items()} for name, values in parameters.items()},
            {name: seen[m] for name, seen in inputs.items() if len(seen[m][0])},
            metrics,
        )
        for m, (epoch, metrics) in enumerate(zip(facts["epochs"], facts["metrics"], strict=True))
    ]


def _occupied(distribution):
    """The bins of a distribution that are not empty, and their counts, in few bytes."""
    bins = np.flatnonzero(distribution.counts)
    counts = distribution.counts[bins]
    return bins.astype(np.uint16), counts.astype(np.min_scalar_type(counts.max()))
