"""What a finished run leaves in its workdir: result.json and the model in two formats."""

import dataclasses
import importlib.metadata
import json
import math
import platform
from pathlib import Path

import keras

import keras_learnact as kla
from keras_learnact import observe
from keras_learnact.files import written
from training import distribution
from training.config import Config
from training.loop import assert_same_run


def finished(workdir: Path, config: Config) -> dict | None:
    """The metrics of a run that ended here before; None if there is none.

    Errors: a ValueError if the run had another configuration.
    """
    path = workdir / "result.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    assert_same_run(config, result["config"], path)
    print(f"This run is finished: {path}. For a new one use another --workdir.")
    return result["metrics"]


def write_result(workdir: Path, config: Config, model: keras.Model, **facts) -> None:
    """Writes result.json: the configuration, the surroundings, and the given facts."""
    replicas = distribution.current()
    result = {
        **facts,
        "replicas": replicas.replicas,
        "activation_path": activation_path(model),
        "config": dataclasses.asdict(config),
        "backend": keras.backend.backend(),
        "versions": versions(),
    }
    with written(replicas.folder(workdir) / "result.json", "w") as file:
        file.write(json.dumps(_plain(result), indent=2, allow_nan=False) + "\n")


def write_model(workdir: Path, config: Config, model: keras.Model) -> None:
    """Writes model.keras, and saved_model/ where TensorFlow runs."""
    workdir = distribution.current().folder(workdir)
    model.save(workdir / "model.keras")
    if config.quick:
        print("No SavedModel of a quick run: it would take longer than all the rest.")
    elif keras.backend.backend() == "tensorflow":
        # Of a run that was killed and goes on there may be one.
        kla.export_saved_model(model, workdir / "saved_model", overwrite=True)
    else:
        print("No SavedModel: that needs TensorFlow as the backend of Keras. There is model.keras.")


def summary(metrics: dict) -> str:
    """The metrics as lines of text."""
    width = max(len(name) for name in metrics)
    return "\n".join(
        f"{name.replace('_', ' '):{width}}  {value}" for name, value in metrics.items()
    )


def activation_path(model: keras.Model) -> str:
    """Which implementations the learnable activations ran; "keras" if there are none."""
    return ", ".join(sorted({layer.path for layer in observe.activation_layers(model)})) or "keras"


def versions() -> dict:
    packages = ("keras", "numpy", keras.backend.backend())
    found = {"python": platform.python_version(), "keras_learnact": kla.__version__}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu, say
            found[package] = getattr(__import__(package), "__version__", "unknown")
    return found


def _plain(value):
    """JSON has no NaN: what is not finite becomes its name, "nan" or "inf"."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
