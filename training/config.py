"""What a run is: a typed configuration, its flags, its presets and its quick form.

Precedence, from weak to strong: the defaults below, a preset (`--config=FILE`), `--quick`, the
other flags.
"""

import dataclasses
import json
import runpy
import types
import typing

from absl import flags


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
    quick: bool = _field(False, "seconds instead of hours: 2 epochs of 2 small batches")
    data_dir: str = _field("~/tensorflow_datasets", "where data sets are kept", result=False)
    download: bool = _field(False, "get the data set if it is not in data_dir", result=False)


@dataclasses.dataclass(frozen=True)
class ImageConfig(Config):
    """A run of `training.image_classification`."""

    dataset: str = _field("digits", "digits, or any image data set of TensorFlow Datasets by name")
    network: str = _field("lenet", "network by name, say lenet or vgg8")
    augmentation: str = _field(
        "default", "default: that of the data set; or none, rotation, crop_and_flip"
    )


@dataclasses.dataclass(frozen=True)
class RegressionConfig(Config):
    """A run of `training.regression`."""

    dataset: str = _field("diabetes", "diabetes or sum_of_sines")
    network: str = _field("mlp", "network by name")
    hidden: tuple[int, ...] = _field((50,), "units of each hidden layer")
    folds: int = _field(3, "folds of the cross-validation")
    learning_rate: float = _field(0.005, "learning rate")
    epochs: int = _field(100, "epochs")
    batch_size: int = _field(32, "batch size")


def quick(config: Config) -> Config:
    """The form of a run that takes seconds: it shows that everything runs, and learns nothing."""
    batch_size = min(config.batch_size, 8)
    return dataclasses.replace(
        config,
        quick=True,
        epochs=min(config.epochs, 2),
        batch_size=batch_size,
        examples=2 * batch_size,
    )


def differences(wanted: dict, found: dict, config_class: type[Config]) -> list[str]:
    """The fields of two configurations, given as dictionaries, that make their results differ."""
    names = [field.name for field in dataclasses.fields(config_class) if field.metadata["result"]]
    wanted, found = (json.loads(json.dumps(config)) for config in (wanted, found))
    return [
        f"{name}={found.get(name)!r} there and {wanted.get(name)!r} here"
        for name in names
        if found.get(name) != wanted.get(name)
    ]


def load_preset(path: str, config_class: type[Config]) -> Config:
    """The `config` of a preset file.

    Errors: a ValueError if the file has none, or one for another program.
    """
    config = runpy.run_path(path).get("config")
    if not isinstance(config, config_class):
        raise ValueError(
            f"--config needs a file with `config = {config_class.__name__}(…)`. "
            f"Received: {path}, where config is {type(config).__name__}."
        )
    return config


def define_flags(config_class: type[Config], values: flags.FlagValues = flags.FLAGS) -> None:
    """One flag for each field; a flag that is not given is None and leaves the field alone."""
    flags.DEFINE_string("config", None, "preset, say training/configs/NAME.py", flag_values=values)
    flags.DEFINE_string(
        "workdir", None, "where everything is written; default: runs/…", flag_values=values
    )
    for field, kind in _fields(config_class):
        define = {
            str: flags.DEFINE_string,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            bool: flags.DEFINE_bool,
            tuple: flags.DEFINE_list,
            dict: flags.DEFINE_string,
        }[kind]
        default = getattr(config_class(), field.name)
        help = f"{field.metadata['help']} (default: {default})"
        define(field.name, None, help, flag_values=values)


def from_flags(
    config_class: type[Config], values: flags.FlagValues = flags.FLAGS
) -> tuple[Config, str]:
    """The configuration and the workdir that the flags ask for."""
    config = load_preset(values.config, config_class) if values.config else config_class()
    given = {}
    for field, kind in _fields(config_class):
        value = values[field.name].value
        if value is not None:
            given[field.name] = _parse(field.name, kind, value)
    if given.get("quick"):
        config = quick(config)
    config = dataclasses.replace(config, **given)
    return config, values.workdir or _workdir(config)


def _fields(config_class):
    """Each field with its plain type: `float | None` is float, `tuple[int, ...]` is tuple."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):
            kind = typing.get_args(kind)[0]
        yield field, typing.get_origin(kind) or kind


def _parse(name, kind, value):
    if kind is tuple:
        return tuple(int(part) for part in value)
    if kind is dict:
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = None
        if not isinstance(parsed, dict):
            raise ValueError(
                f'--{name} must be a JSON object, say \'{{"sharing": "channel"}}\'. '
                f"Received: {value}"
            )
        return parsed
    return value


def _workdir(config):
    words = [config.dataset, config.network, config.activation, f"seed{config.seed}"]
    return "/".join(["runs", "_".join(words + ["quick"] * config.quick)])
