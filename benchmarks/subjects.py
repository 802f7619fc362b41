"""What is measured: activations by name, and what they are given."""

import inspect
from typing import NamedTuple

import keras
import numpy as np

import keras_learnact as kla
from benchmarks import modes
from benchmarks.torch_rivals import DITAC_CELLS, DITAC_INTERVAL, DITAC_SPEED
from training import activations

CHANNELS = 64
BASELINE = "relu"

# DEU starts at random, on each backend another way. This is its costliest case, b² < 4ac, which
# takes exp, sin and cos. DiTAC starts as the identity; this leads through several cells.
ARGUMENTS = {
    "deu": {"initial": (0.4, 0.7, 0.6, 0.3, 0.2)},
    "ditac": {"initial": DITAC_SPEED, "tess": DITAC_CELLS, "interval": DITAC_INTERVAL},
}


class Subject(NamedTuple):
    """An activation as it is measured.

    Args:
        name: of `training.activations.registry()`.
        sharing: of its constructor, as text; "" for an activation without.
        mode: one of `modes.modes()`.
        formula: whether compiled kernels are kept out.
    """

    name: str
    sharing: str
    mode: str
    formula: bool = False

    def layer(self) -> keras.layers.Layer:
        """A new layer, with the same parameters each time."""
        keras.utils.set_random_seed(0)
        arguments = dict(ARGUMENTS.get(self.name, {}))
        if self.sharing:
            arguments["sharing"] = int(self.sharing) if self.sharing.isdigit() else self.sharing
        layer = activations.create(self.name, **arguments)
        layer.build((None, CHANNELS))
        return layer

    def forward(self):
        function = modes.forward(self.layer(), self.mode, CHANNELS)
        return modes.as_formula(function) if self.formula else function

    def forward_backward(self):
        function = modes.forward_backward(self.layer(), self.mode, CHANNELS)
        return modes.as_formula(function) if self.formula else function

    def width_of_y(self) -> int:
        return self.layer().compute_output_shape((None, CHANNELS))[-1]

    def runs(self) -> str:
        """What a call runs: "kernel", "reference: …" with the reason, or "keras.ops"."""
        path = self.layer().path  # of other layers than ours Keras' name for its place
        return path if path.partition(":")[0] in ("kernel", "reference") else "keras.ops"

    def can_have_kernel(self) -> bool:
        return self.runs() != "keras.ops"


def asked(
    names: tuple[str, ...], sharing: tuple[str, ...], modes: tuple[str, ...]
) -> list[Subject]:
    """The baseline and the activations of these names, or all of the package."""
    return [
        Subject(name, how, mode)
        for name in dict.fromkeys((BASELINE, *(names or exported())))
        for how in (sharing if _shares(name) else ("",))
        for mode in modes
    ]


def exported() -> tuple[str, ...]:
    """The names of all activations of the package that can be made without arguments."""
    own = list(vars(kla.layers).values())
    return tuple(
        name for name, value in activations.registry().items() if any(value is v for v in own)
    )


def inputs(size: int, width: int, seed: int) -> np.ndarray:
    """Normally distributed numbers, `[size / CHANNELS, width]`."""
    random = np.random.default_rng(seed)
    return random.standard_normal((size // CHANNELS, width), "float32")


def _shares(name):
    what = activations.registry().get(name)
    return inspect.isclass(what) and issubclass(what, kla.LearnableActivation)
