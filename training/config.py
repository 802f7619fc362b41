"""What a run is: a typed configuration, its presets and its quick form."""

import dataclasses
import json
import os
import runpy


class UserError(ValueError):
    """What only the user can mend: a program shows the message, without a traceback."""


class StartAgain(RuntimeError):
    """What passes when the same command starts again: a program shows the message and does so."""


def _field(default, help, *, result=True):
    """A field with its `--help` text; `result=False`: another value gives the same result."""
    metadata = {"help": help, "result": result}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """The words that every training program has in common."""

    dataset: str = _field("", "data set")
    network: str = _field("", "network")
    activation: str = _field("pau", "activation function by its name, say pau or relu")
    activation_args: dict = _field(
        {}, 'constructor arguments of the activation as JSON, say {"sharing": "channel"}'
    )
    optimizer: str = _field("adam", "adam, or sgd, which has a momentum")
    learning_rate: float = _field(0.002, "learning rate")
    momentum: float = _field(0.0, "momentum of sgd")
    weight_decay: float = _field(0.0, "weight decay; never applies to activation parameters")
    activation_learning_rate: float | None = _field(
        None, "constant learning rate of the activation parameters; None: that of the weights"
    )
    schedule: str = _field("constant", "learning rate: constant, exponential, steps or cosine")
    decay: float = _field(0.1, "factor per epoch (exponential) or per step of the rate (steps)")
    decay_epochs: tuple[int, ...] = _field((), "epochs at which the rate steps down (steps)")
    clip_norm: float | None = _field(None, "largest global norm of the gradient")
    epochs: int = _field(10, "epochs")
    batch_size: int = _field(64, "batch size")
    seed: int = _field(0, "seed of the start, the order of the data and all noise")
    examples: int | None = _field(None, "use only so many examples; None: all")
    distribute: str = _field(
        "none",
        "one run on many devices: none, mirrored, mirrored:N or multi_worker, see "
        "training/distribution.py",
        result=False,
    )
    quick: bool = _field(False, "seconds instead of hours: two steps")
    data_dir: str = _field("~/tensorflow_datasets", "where data sets are kept", result=False)
    download: bool = _field(False, "get the data set if it is not in data_dir", result=False)


@dataclasses.dataclass(frozen=True)
class ImageConfig(Config):
    """A run of `training.image_classification`."""

    dataset: str = _field("digits", "digits, or any image data set of TensorFlow Datasets by name")
    network: str = _field("lenet", "network by name, say lenet or vgg8")
    imbalance: float = _field(
        1.0,
        "images of the most frequent class for one of the rarest, of `examples`; 1: as they are",
    )
    width: float = _field(1.0, "factor of the hidden sizes of mlp and cnn; others take only 1")
    augmentation: str = _field(
        "default", "default: that of the data set; or none, rotation, crop_and_flip"
    )


@dataclasses.dataclass(frozen=True)
class PruningConfig(ImageConfig):
    """A run of `training.pruning`."""

    shares: tuple[int, ...] = _field(
        (10, 20, 30, 40, 50, 60), "percent of the filters that are removed, one network for each"
    )


@dataclasses.dataclass(frozen=True)
class SearchConfig(ImageConfig):
    """A run of `training.search`."""

    activation: str = _field("expression", "what formulas are tried as: only expression")
    epochs: int = _field(5, "epochs of each training")
    population: int = _field(16, "functions in a generation")
    generations: int = _field(6, "generations after the first")
    operations: str = _field(
        "", "operations of the grammar by name, separated by commas; none: all of training.grammar"
    )
    constants: int = _field(0, "most trainable constants of a formula: a, b, …, from 1 on")
    largest: int = _field(15, "the most nodes of a formula")
    repeats: int = _field(2, "trainings of each formula, whose mean accuracy counts")
    check_repeats: int = _field(5, "trainings of what was found, with other seeds, at the end")
    results: str = _field(
        "",
        "where the front's .csv, .md and .png go: a path without ending; none: workdir/front",
        result=False,
    )


@dataclasses.dataclass(frozen=True)
class RegressionConfig(Config):
    """A run of `training.regression`."""

    dataset: str = _field("diabetes", "diabetes, sum_of_sines or signal")
    network: str = _field("mlp", "network by name")
    hidden: tuple[int, ...] = _field((50,), "units of each hidden layer")
    folds: int = _field(3, "folds of the cross-validation")
    learning_rate: float = _field(0.005, "learning rate")
    epochs: int = _field(100, "epochs")
    batch_size: int = _field(32, "batch size")


def quick(config: Config) -> Config:
    """The form of a run that takes seconds: it shows that everything runs, and learns nothing.

    Two steps. Neither the training step nor a SavedModel is compiled, see where `quick` is asked.
    """
    batch_size = min(config.batch_size, 4)
    fewer = {"shares": config.shares[-1:]} if isinstance(config, PruningConfig) else {}
    if isinstance(config, SearchConfig):
        fewer = {"population": 4, "generations": 1, "repeats": 1, "check_repeats": 2}
    return dataclasses.replace(
        config,
        quick=True,
        epochs=1,
        batch_size=batch_size,
        examples=2 * batch_size,
        **fewer,
    )


def differences(wanted: dict, found: dict, config_class: type[Config]) -> list[str]:
    """The fields of two configurations, given as dictionaries, that make their results differ.

    A field that a configuration lacks is younger than it: what it does by default is what was done.
    """
    names = [field.name for field in dataclasses.fields(config_class) if field.metadata["result"]]
    defaults = dataclasses.asdict(config_class())
    wanted, found = (json.loads(json.dumps({**defaults, **c})) for c in (wanted, found))
    return [
        f"{name}={found[name]!r} there and {wanted[name]!r} here"
        for name in names
        if found[name] != wanted[name]
    ]


def load_preset(path: str, config_class: type[Config]) -> Config:
    """The `config` of a preset file.

    Errors: a `UserError` if there is no such file, or its `config` is for another program.
    """
    if not os.path.exists(path):
        raise UserError(f"--config needs a file, say training/configs/NAME.py. Received: {path}")
    config = runpy.run_path(path).get("config")
    if not isinstance(config, config_class):
        raise UserError(
            f"--config needs a file with `config = {config_class.__name__}(…)`. "
            f"Received: {path}, where config is {type(config).__name__}."
        )
    return config
