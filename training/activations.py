"""Every activation by name: those of keras_learnact and those of Keras, from one registry.

The names are derived, so a new layer needs no entry here: `SReLU` is "srelu", `relu6` of
`keras.activations` is "relu6". "swish" is what the papers compare with, the function of Keras, and
our `Swish`, whose slope is learned, is "learned_swish".
"""

import inspect

import keras

import keras_learnact as kla
from training.config import UserError

# Where the papers compare with another form than the default of the class.
PAPERS_CHOICE = {
    "leaky_relu": {"negative_slope": 0.01},
    "prelu": {"sharing": "layer"},  # as the PAU paper counts its slopes
}


def registry() -> dict:
    """Every name with what it stands for: a layer class, or a function of Keras."""
    functions = vars(keras.activations).items()
    not_activations = {"get", "serialize", "deserialize"}
    of_keras = {
        **{n: f for n, f in functions if inspect.isfunction(f) and n not in not_activations},
        # Of Keras' layers one that has more choices than the function's name.
        "leaky_relu": keras.layers.LeakyReLU,
    }
    ours = {cls.__name__.lower(): cls for cls in vars(kla.layers).values() if _is_activation(cls)}
    return of_keras | {f"learned_{n}" if n in of_keras else n: c for n, c in ours.items()}


def create(name: str, **arguments) -> keras.layers.Layer:
    """A new activation layer.

    Args:
        name: a name of `registry()`.
        **arguments: of the layer's constructor.

    Errors: a `UserError` for an unknown name, or for arguments that the activation does not take.
    """
    known = registry()
    if name not in known:
        raise UserError(f"The activation must be one of {sorted(known)}. Received: {name!r}")
    if not inspect.isclass(known[name]):
        if arguments:
            raise UserError(f"{name} of Keras takes no arguments. Received: {arguments}")
        return keras.layers.Activation(name)
    try:
        return known[name](**{**PAPERS_CHOICE.get(name, {}), **arguments})
    except (TypeError, ValueError) as error:
        raise UserError(f"--activation={name} with {arguments}: {error}") from error


def _is_activation(value):
    """Whether it is a layer that can be made without arguments: `MaxoutDense` needs its units."""
    if not inspect.isclass(value) or not issubclass(value, keras.layers.Layer):
        return False
    _, *arguments = inspect.signature(value.__init__).parameters.values()
    required = [a for a in arguments if a.default is a.empty and a.kind is not a.VAR_KEYWORD]
    return value is not kla.LearnableActivation and not required
