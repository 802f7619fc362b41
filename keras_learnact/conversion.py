"""Putting learnable activations into an existing network, and taking them out again.

`convert`, `freeze` and `simplify` return a new model and leave the given one as it is. They copy it
layer by layer, as `keras.models.clone_model` does, and change an activation in the CONFIG of its
layer: what a copy computes is therefore also what is loaded after it was saved.
"""

import contextlib
import difflib
import fnmatch
import inspect
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras
import numpy as np
from keras import ops
from keras.src.saving.serialization_lib import ObjectSharingScope
from scipy.optimize import least_squares

from keras_learnact import fitting, layers
from keras_learnact.observe import activation_layers, layers_of, record_inputs, recording

FUNCTIONS = {
    name: function
    for name, function in vars(keras.activations).items()
    if inspect.isfunction(function) and name not in ("get", "serialize", "deserialize")
}
ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
# The names of Keras' classes, of layers and of operations, that are one of these functions.
CLASSES = {name.replace("_", ""): name for name in FUNCTIONS}
SAMPLE = 2**17  # inputs of each activation that their quantiles are told from
BIAS, RANGE = 10.0, 1e-3  # weights of the mean error, and of errors where nothing arrives
# Methods of a model that a copy without its class would lose.
COMPUTES = (
    "__call__",
    "call",
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
)
GATES = "recurrent_activation"  # must stay between 0 and 1: replaced only where named

# What `simplify` compares with, in the order in which equally good ones are taken.
KNOWN = (
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "silu",
    "gelu",
    "mish",
    "hard_silu",
    "tanh",
    "hard_tanh",
    "softsign",
    "sigmoid",
    "hard_sigmoid",
    "softplus",
    "log_sigmoid",
    "exponential",
)


# Of `Report.relative_difference`: the copy is another network to begin with.
LARGE = 0.1
EXACT = (
    "This is far: the copy does not start as the given network. Exact starts are: APL for relu; "
    "lambda: SReLU(initial=(0, 0, 6, 0)) for relu6; "
    "lambda site: Mixture((site.function,), initial=[1.0]) for any function."
)


# Layers that combine what an activation keeps apart.
MIXING = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    layers.GroupKANDense,
    layers.Maxout,
    layers.MaxoutDense,
    layers.MaxoutConv2D,
)


class Site(NamedTuple):
    """What a factory with one argument is told about the activation that it replaces.

    Attributes:
        name: the name of the layer that is, or has, the activation.
        function: the activation, a callable: Keras' function, or the layer that is there if it has
            settings, such as `LeakyReLU(0.3)`.
        interval: `(low, high)`, the range of what reaches it on `inputs`; None without `inputs`,
            and where nothing can be seen: inside a traced loop.
        quantiles: how what reaches it is distributed: 1,001 increasing numbers, float64, the
            smallest input, the one that 0.1 % are below, …, the largest; None as `interval`.
    """

    name: str
    function: Callable
    interval: tuple[float, float] | None
    quantiles: np.ndarray | None = None


class Row(NamedTuple):
    """One activation in a `Report`.

    Attributes:
        layer: the path of the layer: the names of the models and wrappers around it, its own, and
            `.argument` if it has the activation as an argument of another name than `activation`.
        was: the activation before.
        became: the activation now; "" if it was left.
        parameters: how many parameters more (fewer, if negative) are trainable.
        note: why it was left; how near the new function is.
    """

    layer: str
    was: str
    became: str
    parameters: int
    note: str


class Report:
    """What was changed in a network and what was left. As a string it is a table.

    Attributes:
        rows: a tuple of `Row`s.
        max_difference, mean_difference: |new output - old output| on the given `inputs`; None
            without them, nan if an output is not finite.
        relative_difference: the mean difference over the standard deviation of the old outputs
            from sample to sample, of the output with the largest; None for less than two samples
            and for outputs that are all equal.
    """

    def __init__(self, rows, differences=(None, None, None), advice=""):
        self.rows = tuple(rows)
        self.max_difference, self.mean_difference, self.relative_difference = differences
        self.advice = advice  # what to do if they are large

    @property
    def changed(self):
        """The rows of what was changed."""
        return tuple(row for row in self.rows if row.became)

    @property
    def left(self):
        """The rows of what was left as it was; `note` says why."""
        return tuple(row for row in self.rows if not row.became)

    def __repr__(self):
        return str(self)

    def __str__(self):
        cells = [("layer", "was", "became", "parameters", "note")]
        cells += [
            (row.layer, row.was, row.became or "-", f"{row.parameters:+d}", row.note)
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        lines.append(f"{len(self.changed)} changed, {len(self.left)} left")
        if self.max_difference is None:
            return "\n".join(lines)
        if not np.isfinite(self.max_difference):
            lines.append("outputs cannot be compared: some are not finite")
            return "\n".join(lines)
        lines.append(
            f"outputs differ by at most {self.max_difference:.3g}, "
            f"by {self.mean_difference:.3g} on average"
        )
        if self.relative_difference is not None:
            lines[-1] += f", {self.relative_difference:.2%} of their standard deviation"
            if self.relative_difference > LARGE and self.advice:
                lines.append(self.advice)
        return "\n".join(lines)


def convert(
    model: keras.Model, mapping: Mapping, where=None, *, inputs=None, batch_size: int = 32
) -> keras.Model:
    """A copy of a network that has learnable activations in place of the named ones.

    Found are layers that are an activation (`Activation`, `ReLU`, `LeakyReLU`, `ELU`, …);
    activation arguments of every layer whose config holds them (`Dense`, convolutions, recurrent
    layers, your own ones), also inside wrappers and submodels; and `keras.ops.relu(x)` or
    `keras.activations.relu(x)` between the layers of a functional model.

    A subclass of `Sequential` or of a functional model is made anew from `layers`, or `inputs` and
    `outputs`. One that takes other arguments becomes plain if it has no call, steps or weights of
    its own; else it is refused.

    All other weights, all names and the `trainable` flags are kept; what is put into a frozen
    layer is frozen. A layer that is used several times gets one activation, used as often.
    A dtype policy that the new layer does not say is that of the layer it replaces. The given
    model stays as it is, and the copy is not compiled.

    Args:
        model: a built model: `Sequential`, functional, or a subclassed one whose `get_config`
            holds its activations.
        mapping: a dict from an activation to what makes a layer in its place.
            Keys: the name of a Keras activation ("relu", "relu6", "silu", …), whatever its
            settings (but `ReLU(max_value=6)` is "relu6" and `ReLU(negative_slope=…)`
            "leaky_relu"); a function; a class of layers, say `keras.layers.PReLU`.
            Values: a class or a function without arguments, called anew for each place; a function
            of one argument, the `Site`, say `fitted()`; the name of one of our layers or of a
            Keras activation.
        where: which of them. None: all. A pattern of a layer's name or path as `fnmatch` reads it
            ("block_1*"), or a list of patterns: those that it fits. A function: the layers for
            which it returns True. A dict from patterns to what makes the layer, in place of the
            mapping's values: the first pattern that fits rules. An argument may be named as in
            "block.hidden_activation"; the `recurrent_activation` of a recurrent layer is replaced
            only by such a pattern: "lstm.recurrent_activation".
        inputs: samples of what the model takes, some hundreds: an array, or a list or dictionary of
            arrays. They tell `Site.interval` and `Site.quantiles`, and the report how far the
            outputs moved; if that is more than 10 % of their standard deviation, the report names
            starts that are exact.
        batch_size: how many of these run at once.

    Returns:
        The copy. Its attribute `conversion_report`, a `Report`, says what was changed and what was
        left; it is not saved with the model.

    Raises:
        TypeError: if `model` is no model, or if what should make a layer makes none.
        ValueError: for a model that is not built or cannot be copied, an unknown name, a layer
            in place of what makes one, a `where` that fits nothing, and a model without any of the
            activations.

    Example:

    >>> mobilenet = keras.applications.MobileNetV2()
    >>> converted = convert(mobilenet, {"relu6": fitted()}, inputs=images[:256])
    >>> print(converted.conversion_report)
    """
    _check_model("convert", model)
    if not isinstance(mapping, Mapping):
        raise TypeError(
            f'convert: `mapping` must be a dict, say {{"relu": PAU}}. Received: mapping={mapping!r}'
        )
    if not (where is None or callable(where) or isinstance(where, (str, Mapping, list, tuple))):
        raise TypeError(
            "convert: `where` must be None, a pattern, a list of patterns, a dict from patterns to "
            f"what makes a layer, or a function of a layer. Received: where={where!r}"
        )
    mapping = {_key(key): _factory(value, f"mapping[{key!r}]") for key, value in mapping.items()}
    classes = tuple(key for key in mapping if isinstance(key, type))
    found = list(_places(model, classes))
    chosen = [(place, mapping[key]) for place in found for key in _first_key(place, mapping)]
    if not chosen:
        hidden = [p for p, _ in _hidden(model, classes) if _first_key(p, mapping)]
        known = Counter(describe(place.call) for place in found)
        raise ValueError(
            "convert: the model has no activation of the mapping. Wanted: "
            f"{', '.join(map(_text, mapping)) or 'nothing, an empty mapping'}. It has: "
            f"{', '.join(f'{name} ({count})' for name, count in known.items()) or 'none'}."
            + "".join(f" {place.path!r} {IN_CODE}." for place in hidden[:1])
        )
    chosen = _selected(chosen, where)
    seen = {} if inputs is None else _observed(model, chosen, inputs, batch_size)
    made = {}
    for place, factory in chosen:
        made[place.key] = _made(factory, place, *seen.get(place.key, (None, None)))
    copy = _Copy(model, made, [place for place, _ in chosen])
    rows = [copy.row(place) for place, _ in chosen]
    rejected = [place for place in found if place.key not in made]
    for place, note in copy.left(_hidden(model, classes), rejected):
        if place.call is None or (_first_key(place, mapping) and _fits(place, where)):
            rows.append(Row(place.text, describe(place.call, place.layer), "", 0, note))
    return copy.finished(rows, inputs, batch_size, EXACT)


def fitted(cls: type = layers.PAU, degrees=(7, 6), denominator: str = "A", **arguments) -> Callable:
    """What makes, in `convert`, a rational unit that starts as the function that it replaces.

    Without `inputs` the fit is on [-3, 3], as PAU's own start. With them the unit starts with the
    least mean square of the error on what reaches the activation, and next to no mean error; or as
    without them, should that be nearer. In a deep network the inputs are wider than [-3, 3], and a
    rational unit leaves its function quickly outside of the interval it was fitted on.

    How near the outputs stay: mean |difference| of the logits over their standard deviation from
    image to image, on images that the fit has not seen, for `PAU(initial=…, degrees=(7, 6))` and
    for `fitted()` with inputs. A small convolutional network trained on digits, 300 inputs:
    relu 21 %, 0.16 %; relu6 44 %, 2.1 %; gelu 13 %, 0.03 %; silu 0.25 %, 0.003 %; tanh below
    0.0001 %. Deep networks of keras.applications, 96 x 96 pixels of noise, random weights and
    shifts, the batch norm statistics those of the 64 inputs: EfficientNetB0 0.2 %, 0.1 %;
    DenseNet121 15 %, 6.2 %; ResNet50 131 %, 11 %; MobileNetV2 74 %, 41 %: no rational function of
    low degrees is near enough to one with kinks for 35 layers of it. There a start that is exact
    serves better: `APL` for relu, `lambda: SReLU(initial=(0, 0, 6, 0))` for relu6,
    `lambda site: Mixture((site.function,), initial=[1.0])` for any function.

    Args:
        cls: `PAU`, or another layer with the arguments `initial`, `degrees` and `denominator`.
        degrees: `(m, n)`, see `PAU`.
        denominator: "A", "B", "C" or "N", see `PAU`.
        **arguments: other arguments of the layer, say `sharing="channel"`.

    Returns:
        A function from a `Site` to a layer.
    """

    def make(site):
        start = _start(site, degrees, denominator)
        return cls(degrees=degrees, denominator=denominator, initial=start, **arguments)

    return make


def freeze(model: keras.Model) -> keras.Model:
    """A copy of a network in which the learned activations are constants.

    Every learnable activation of the copy has `trainable=False`, also after it was saved and
    loaded: no optimizer changes its parameters, no regularizer counts them. An `RPAU` keeps its
    noise in training. All outputs are those of the given model, which stays as it is. The copy is
    not compiled. To let them learn again, set `layer.trainable = True` for the layers of
    `keras_learnact.observe.activation_layers(copy)`.

    Args:
        model: a built model with learnable activations, as for `convert`.

    Returns:
        The copy. Its `conversion_report` lists the activations.

    Raises:
        TypeError: if `model` is no model.
        ValueError: for a model that is not built, cannot be copied or has no learnable activations.

    Example:

    >>> frozen = freeze(trained)
    >>> frozen.save("frozen.keras")
    """
    _check_learnable("freeze", model, LEARNING)
    copy = _Copy(model)
    rows = []
    for layer in layers_of(LEARNING, copy.model):
        parameters = sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)
        layer.trainable = False
        name = describe(layer)
        rows.append(Row(layer.name, name, f"constant {name}", -parameters, ""))
    return copy.finished(rows)


def simplify(
    model: keras.Model,
    tolerance: float = 0.01,
    *,
    inputs=None,
    interval=(-3.0, 3.0),
    batch_size: int = 32,
) -> keras.Model:
    """A copy of a network in which what a known function does as well is that function.

    A learnable activation becomes the function that it is nearest to, if it differs from it by
    at most `tolerance` over the range of what reaches it, in all its groups. Compared with are
    Keras' activations without settings; if none of them is near enough, a leaky ReLU of any slope,
    and a line a·x + b, the layer `Rescaling`. Of functions that are the same on this range, as
    relu and relu6 on [-3, 3], the one that is nearest on a range 30 times as wide is taken.

    Args:
        model: a built model with learnable activations, as for `convert`.
        tolerance: the largest |difference| of the two functions, > 0.
        inputs: samples of what the model takes, as for `convert`. They tell the range of each
            activation, and the report how far the outputs moved.
        interval: `(low, high)`, the range where no input says another.
        batch_size: how many samples run at once.

    Returns:
        The copy, not compiled. Its `conversion_report` has for each activation the nearest
        function, the error and the range.

    Raises:
        TypeError: if `model` is no model.
        ValueError: for a tolerance that is not positive, an interval that is not increasing, a
            model that is not built, cannot be copied or has no learnable activations.

    Example:

    >>> simple = simplify(trained, tolerance=0.05, inputs=images[:256])
    >>> print(simple.conversion_report)
    """
    is_number = isinstance(tolerance, (int, float, np.number)) and not isinstance(tolerance, bool)
    if not is_number or not 0 < tolerance < float("inf"):
        raise ValueError(
            f"simplify: `tolerance` must be a positive number. Received: tolerance={tolerance!r}"
        )
    if len(interval) != 2 or not -float("inf") < interval[0] < interval[1] < float("inf"):
        raise ValueError(
            "simplify: `interval` must be two finite numbers (low, high) with low < high. "
            f"Received: interval={interval!r}"
        )
    _check_learnable("simplify", model)
    places = [p for p in _places(model) if isinstance(p.call, layers.LearnableActivation)]
    seen = {}
    if inputs is not None:
        seen = _observed(model, [(place, None) for place in places], inputs, batch_size)
    made, notes = {}, {}
    for place in places:
        low, high = seen.get(place.key, (interval,))[0]
        name, error, layer = _nearest(place.call, low, high, tolerance)
        notes[place.key] = f"{name}: error {error:.2g} on [{low:.3g}, {high:.3g}]"
        if error <= tolerance:
            made[place.key] = layer
    copy = _Copy(model, made, [place for place in places if place.key in made])
    rows = []
    for place in places:
        note = notes[place.key]
        if place.key in made:
            rows.append(copy.row(place, note))
        else:
            rows.append(Row(place.text, describe(place.call), "", 0, f"nearest is {note}"))
    kept = [place for place in places if place.key not in made]
    for place, note in copy.left(_hidden(model), kept):
        if isinstance(place.call, layers.LearnableActivation):
            rows.append(Row(place.text, describe(place.call), "", 0, note))
    return copy.finished(rows, inputs, batch_size)


# Which activations a network has.


class _Place(NamedTuple):
    """Where a network has an activation.

    Attributes:
        path: the names of the models and wrappers around the layer, and its own.
        layer: the layer, or the operation (`keras.ops.relu(x)`) of a functional model.
        argument: the name of the argument that is the activation; "" if the layer is.
        call: the activation, a callable; None for code that cannot be looked into.
    """

    path: str
    layer: object
    argument: str
    call: Callable | None

    @property
    def key(self):
        return id(self.layer), self.argument

    @property
    def text(self):
        return self.path + (f".{self.argument}" if self.argument not in ("", "activation") else "")

    @property
    def names(self):
        """What a pattern may fit."""
        names = [self.layer.name, self.path]
        return names + ([f"{name}.{self.argument}" for name in names] if self.argument else [])

    def fits(self, pattern):
        if self.argument == GATES and "." not in pattern:
            return False
        return any(fnmatch.fnmatchcase(name, pattern) for name in self.names)


IN_CODE = "has it in its code, not in its config: no copy can have another"
NOT_SEEN = "its code may call activations; they are not seen"


def _places(layer, classes=(), path="", seen=None):
    """Every activation that a copy can have another in place of, in the order of the layers."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    children = _children(layer)
    if isinstance(layer, (keras.Function, keras.Sequential)):
        for child in children.values():
            yield from _places(child, classes, _joined(path, child), seen)
        return
    path = path or layer.name
    standing = _standing(layer, classes)
    if standing is not None:
        yield _Place(path, layer, "", standing)
        return
    if not isinstance(layer, keras.layers.Layer):
        return
    by_name = {child.name: child for child in children.values()}
    for key, value in _config(layer).items():
        activation = _argument(layer, key)
        if activation is not None:
            yield _Place(path, layer, key, activation)
            continue
        for child in _named_in(value, by_name):
            yield from _places(child, classes, _joined(path, child), seen)


def _hidden(layer, classes=(), path="", seen=None):
    """Every activation of every layer, found in attributes; with a reason why it may stay.

    Also each layer whose code cannot be looked into, as a place without `call`.
    """
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    if not isinstance(layer, (keras.Function, keras.Sequential)):
        path = path or layer.name
        standing = _standing(layer, classes)
        if standing is not None:
            yield _Place(path, layer, "", standing), IN_CODE
            return
        for name in list(vars(layer)) if isinstance(layer, keras.layers.Layer) else ():
            activation = _argument(layer, name)
            if activation is not None:
                yield _Place(path, layer, name, activation), IN_CODE
        if isinstance(layer, keras.layers.Lambda) or _is_foreign(layer):
            yield _Place(path, layer, "", None), NOT_SEEN
    for child in _children(layer).values():
        yield from _hidden(child, classes, _joined(path, child), seen)


def _joined(path, child):
    return f"{path}/{child.name}" if path else child.name


def _is_foreign(layer):
    package = type(layer).__module__.split(".")[0]
    return isinstance(layer, keras.layers.Layer) and package not in ("keras", "keras_learnact")


def _standing(layer, classes=()):
    """The activation that a layer or an operation is, or None."""
    if isinstance(layer, keras.layers.Activation):
        return layer.activation
    of_keras = type(layer).__module__.startswith("keras.") and (
        type(layer).__name__.lower() in CLASSES or isinstance(layer, keras.layers.PReLU)
    )
    if of_keras or isinstance(layer, (layers.LearnableActivation, layers.RReLU, *classes)):
        return layer
    return None


def _argument(layer, name):
    """The activation that a layer has under this name, or None."""
    if "activation" not in name:
        return None
    value = getattr(layer, name, None)
    if isinstance(value, str):
        return FUNCTIONS.get(ALIASES.get(value, value))
    return value if callable(value) and not inspect.ismethod(value) else None


def _children(layer):
    """The layers (of a functional model also the operations) in a layer, each with its place."""
    if isinstance(layer, keras.Function):
        return {(child.name,): child for child in layer.operations}
    if isinstance(layer, keras.Sequential):
        return {(child.name,): child for child in layer.layers}
    found = {}

    def visit(place, value):
        if isinstance(value, keras.layers.Layer):
            found[place] = value
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                visit((*place, index), item)
        elif isinstance(value, dict):
            for key, item in value.items():
                visit((*place, key), item)

    if isinstance(layer, keras.layers.Layer):
        for name, value in vars(layer).items():
            if name != "_layers":  # Keras' own list of them all
                visit((name,), value)
    return found


def _config(layer):
    with warnings.catch_warnings():
        # That a lambda cannot be loaded from a file: it is not here.
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        try:
            return layer.get_config()
        except NotImplementedError as error:
            raise ValueError(
                f"A copy of the {type(layer).__name__} {layer.name!r} needs its `get_config`. "
                f"Received: {str(error).strip().splitlines()[0]} Write get_config, or build the "
                "model with learnable activations in the first place."
            ) from error


def _named_in(value, by_name):
    """The layers whose configs are in a value of a config."""
    if isinstance(value, dict):
        child = _of_config(value, by_name)
        if child is not None:
            yield child
            return
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _named_in(item, by_name)


def _of_config(value, by_name):
    """The layer of a serialized layer, or None."""
    if "class_name" in value and isinstance(value.get("config"), dict):
        return by_name.get(value["config"].get("name"))
    return None


# What they are.


def describe(call, layer=None) -> str:
    """The name of an activation with the settings that are not Keras' defaults.

    `relu`, `leaky_relu(negative_slope=0.3)`, `PAU`.
    """
    if call is None:
        return type(layer).__name__
    name, settings = _identity(call)
    if name is None:
        is_layer = isinstance(call, keras.Operation)
        name = type(call).__name__ if is_layer else getattr(call, "__name__", repr(call))
    inside = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return f"{name}({inside})" if inside else name


def _identity(call):
    """Name and settings of a Keras activation, however it is written; else (None, {})."""
    if isinstance(call, keras.Operation):
        if not type(call).__module__.startswith("keras."):
            return None, {}
        name = CLASSES.get(type(call).__name__.lower())
    else:
        name = getattr(call, "__name__", None)
        if not any(call is getattr(m, str(name), 0) for m in (keras.activations, keras.ops)):
            return None, {}
        name = ALIASES.get(name, name)
    if name not in FUNCTIONS:
        return None, {}
    settings = {}
    for key, parameter in list(inspect.signature(FUNCTIONS[name]).parameters.items())[1:]:
        value = getattr(call, key, parameter.default)
        if isinstance(call, keras.Operation) and value != parameter.default:
            settings[key] = value
    if name == "relu" and settings == {"max_value": 6}:
        return "relu6", {}
    if name == "relu" and list(settings) == ["negative_slope"]:
        return "leaky_relu", settings
    return name, settings


def _function(call):
    """Keras' own function, if the activation is one of these without settings; else as it is."""
    name, settings = _identity(call)
    return call if name is None or settings else FUNCTIONS[name]


# What the user asks for.


def _key(key):
    if isinstance(key, str):
        name = ALIASES.get(key, key)
        if name not in FUNCTIONS:
            known = [*FUNCTIONS, *ALIASES]
            near = difflib.get_close_matches(key, known, 3) or ["relu", "gelu", "tanh"]
            raise ValueError(
                "convert: the keys of `mapping` must be names of Keras activations, for example "
                f"{', '.join(near)}, functions, or classes of layers. Received: {key!r}"
            )
        return name
    if isinstance(key, keras.layers.Layer) or not callable(key):
        raise ValueError(
            "convert: the keys of `mapping` must be names of Keras activations, functions, or "
            f"classes of layers. Received: {key!r}"
        )
    name, settings = _identity(key)
    return key if name is None or settings else name


def _first_key(place, mapping):
    """The first key of the mapping that means a place's activation, in a list, or []."""
    if place.call is None:
        return []
    name, _ = _identity(place.call)
    for key in mapping:
        if key == name or key is place.call or type(place.call) is key:
            return [key]
    return []


def _text(key):
    return key if isinstance(key, str) else key.__name__


def _factory(value, where):
    """A function from a `Site` to a layer."""
    if isinstance(value, keras.layers.Layer):
        raise ValueError(
            "convert: a layer here would be one layer in all places. Give what makes it, "
            f"`lambda: {type(value).__name__}(…)`. Received: {where}={value!r}"
        )
    if isinstance(value, str):
        ours = getattr(layers, value, None)
        if isinstance(ours, type):
            return lambda site: ours()
        name = ALIASES.get(value, value)
        if name in FUNCTIONS:
            return lambda site: keras.layers.Activation(name)
        known = [*layers.__all__, *FUNCTIONS]
        near = difflib.get_close_matches(value, known, 3) or ["PAU", "APL", "gelu"]
        raise ValueError(
            "convert: a name here must be one of our layers or of Keras' activations, for example "
            f"{', '.join(near)}. Received: {where}={value!r}"
        )
    if not callable(value):
        raise ValueError(
            f"convert: what makes a layer must be callable. Received: {where}={value!r}"
        )
    if isinstance(value, type):
        return lambda site: value()
    try:
        wanted = [
            p
            for p in inspect.signature(value).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except ValueError:  # some builtins have no signature
        wanted = []
    return value if wanted else lambda site: value()


def _selected(chosen, where):
    """Of the pairs (place, factory) those that `where` means, with its factories."""
    factories = {}
    if isinstance(where, Mapping):
        factories = {p: _factory(value, f"where[{p!r}]") for p, value in where.items()}
    selected, used = [], set()
    for place, factory in chosen:
        fits = _fits(place, where)
        if fits:
            selected.append((place, factories.get(fits[0], factory)))
            used.update(fits)
    for pattern in () if where is None or callable(where) else _patterns(where):
        if pattern not in used:
            _nothing(chosen, pattern)
    return selected or _nothing(chosen, where)


def _fits(place, where):
    """What of `where` means a place: patterns, or [None] for another kind of `where`."""
    if where is None or callable(where):
        fits = place.argument != GATES and (where is None or where(place.layer))
        return [None] if fits else []
    return [pattern for pattern in _patterns(where) if place.fits(pattern)]


def _patterns(where):
    return [where] if isinstance(where, str) else list(where)


def _nothing(chosen, where):
    names = list(dict.fromkeys(name for place, _ in chosen for name in place.names))
    near = difflib.get_close_matches(str(where), names, 3, cutoff=0.3) or names[:3]
    raise ValueError(
        "convert: `where` fits no layer that has one of the activations. Layers that have, among "
        f"others: {', '.join(near)}. Received: {where!r}"
    )


def _made(factory, place, interval, quantiles):
    site = Site(place.layer.name, _function(place.call), interval, quantiles)
    layer = factory(site)
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            f"convert: what makes the activation of {place.path!r} must make a Keras layer. "
            f"Received: {layer!r}"
        )
    if isinstance(layer, MIXING):
        raise TypeError(
            f"convert: what makes the activation of {place.path!r} must make an activation. "
            f"Received: {layer!r}, which combines its inputs."
        )
    return layer


def _check_model(what, model):
    if not isinstance(model, keras.Model):
        raise TypeError(f"{what}: `model` must be a keras.Model. Received: model={model!r}")
    if not model.built:
        raise ValueError(
            f"{what}: the model must be built, to have weights that can be kept. Call it on data, "
            f"or model.build(input_shape). Received: model={model!r}"
        )


# What has parameters of its own, element-wise or not.
LEARNING = layers.LearnableActivation, layers.MetaACONC


def _check_learnable(what, model, kind=layers.LearnableActivation):
    _check_model(what, model)
    if not layers_of(kind, model):
        own = " that act element by element, as MetaACONC does not"
        raise ValueError(
            f"{what}: the model must have learnable activations{'' if kind is LEARNING else own}. "
            f"Received: model={model!r}, which has none. `convert` puts some in."
        )


# What reaches them.


def _observed(model, chosen, inputs, batch_size):
    """Of the finite inputs of each place, by its key: their range, with some room; quantiles."""
    total = len(keras.tree.flatten(inputs)[0])
    if total < 1 or batch_size < 1:
        raise ValueError(
            "`inputs` must hold at least one sample, and `batch_size` be at least 1. "
            f"Received: {total} samples, batch_size={batch_size!r}"
        )
    batches = -(-total // batch_size)
    count = max(SAMPLE // batches, 64)
    random = np.random.default_rng(0)
    ranges, samples = {}, {}

    def note(place, values):
        values = np.asarray(values, "float64")
        values = values[np.isfinite(values)]
        if values.size:
            low, high = ranges.get(place.key, (np.inf, -np.inf))
            ranges[place.key] = min(low, values.min()), max(high, values.max())
            if values.size > count:
                values = values[random.integers(0, values.size, count)]
            samples.setdefault(place.key, []).append(values)

    with contextlib.ExitStack() as stack:
        for place, _ in chosen:
            stack.enter_context(_heard(place, note))
        record_inputs(model, inputs, lambda layer, values: None, batch_size)
    seen = {}
    for key, (low, high) in ranges.items():
        quantiles = np.quantile(np.concatenate(samples[key]), np.linspace(0, 1, 1001))
        quantiles[[0, -1]] = low, high
        room = max(0.05 * (high - low), 1e-3 * max(abs(low), abs(high), 1.0))
        seen[key] = (float(low - room), float(high + room)), quantiles
    return seen


def _start(site, degrees, version):
    """Numerator and denominator of a rational function that is near a site's function.

    Of the fit on [-3, 3], of that on the range of nearly all inputs, and of what least squares make
    of it, the one with the least error on the inputs.
    """
    if site.quantiles is None:
        return fitting.fit(site.function, degrees, version, site.interval or (-3, 3))[:2]
    low, high = map(float, site.quantiles[[1, -2]])  # without 0.1 % on either side
    if high - low <= 0.01 * max(abs(low), abs(high)):
        # Nearly one value, which says nothing of the next ones.
        return fitting.fit(site.function, degrees, version, (min(low, -3), max(high, 3)))[:2]
    interval = low, high
    wide = fitting.fit(site.function, degrees, version, interval)[:2]
    plain = fitting.fit(site.function, degrees, version)[:2]
    problem = _OnInputs(site, interval, degrees, version)
    return min(plain, wide, problem.polished(wide[1]), key=problem.error)


class _OnInputs:
    """The fit of a rational function to what reaches a site.

    Minimised is `mean(e²) + (BIAS mean(e))²`, e the error at the quantiles of the inputs: a mean
    that moves adds up in the sums and averages of the next layers, other errors average out. All
    of the interval counts a little, too: where nothing arrives the function is near as well.
    """

    def __init__(self, site, interval, degrees, version):
        self.version, self.powers = version, np.arange(degrees[0] + 1)
        self.radius = max(map(abs, interval))
        # No outlier so far that its powers overflow, and none where the function does.
        inputs = np.clip(site.quantiles, -1e3 * self.radius, 1e3 * self.radius)
        x = np.concatenate([inputs, np.linspace(*interval, 101)])
        y = site.function(ops.convert_to_tensor(x.astype("float32")))
        y = np.asarray(ops.convert_to_numpy(y), "float64")
        finite = np.isfinite(y)
        self.x, self.y, self.count = x[finite], y[finite], np.sum(finite[: len(inputs)])

    def weighted(self, values):
        """What the sum of the squares is to be small of."""
        inputs, grid = np.split(values, [self.count])
        parts = [
            inputs / np.sqrt(len(inputs)),
            BIAS * inputs.mean(axis=0, keepdims=True),
            grid * np.sqrt(RANGE / len(grid)),
        ]
        return np.concatenate(parts)

    def error(self, start):
        values = fitting.rational(self.x, *map(np.asarray, start), self.version)
        return float(np.sum(self.weighted(values - self.y) ** 2))

    def solved(self, denominator):
        """The best numerator for a denominator, by linear least squares; and the errors."""
        # 1/Q, in powers of x/R.
        columns = fitting.rational(self.x, np.ones(1), denominator, self.version)[:, None]
        columns = self.weighted(columns * (self.x / self.radius)[:, None] ** self.powers)
        y = self.weighted(self.y)
        sizes = np.linalg.norm(columns, axis=0)  # far outliers would hide the low powers
        numerator = np.linalg.lstsq(columns / sizes, y, rcond=None)[0] / sizes
        return numerator / self.radius**self.powers, columns @ numerator - y

    def polished(self, denominator):
        """The best function that is found from a denominator; of version A with another one.

        In the other versions a moving denominator may come by a pole or a kink.
        """
        denominator = np.asarray(denominator)
        if self.version == "A" and len(denominator):
            scale = self.radius ** np.arange(1, len(denominator) + 1)
            # Squares, as no |b_k| is negative.
            roots = np.sqrt(np.clip(np.abs(denominator) * scale, 1e-6, 0.999 * fitting.LARGEST))
            found = least_squares(
                lambda roots: self.solved(roots**2 / scale)[1],
                roots,
                bounds=(0.0, np.sqrt(fitting.LARGEST)),
                x_scale=np.maximum(roots, 0.1),
                max_nfev=60,
            )
            denominator = found.x**2 / scale
        return self.solved(denominator)[0], denominator


def _heard(place, note):
    """While in this context, `note(place, inputs)` is called whenever the activation runs."""
    stack = contextlib.ExitStack()
    if not place.argument:
        heard = place._replace(call=place.layer.call)
        stack.enter_context(_with(place.layer, "call", recording(heard, note)))
        return stack
    # A recurrent layer's argument is an attribute of its cell.
    for owner in (place.layer, *_children(place.layer).values()):
        if vars(owner).get(place.argument) is place.call:
            stack.enter_context(_with(owner, place.argument, recording(place, note)))
    return stack


@contextlib.contextmanager
def _with(owner, name, value):
    """Sets an attribute for a while, past `__setattr__`, with which Keras locks and tracks."""
    missing = object()
    before = vars(owner).get(name, missing)
    vars(owner)[name] = value
    try:
        yield
    finally:
        if before is missing:
            del vars(owner)[name]
        else:
            vars(owner)[name] = before


def _nearest(layer, low, high, tolerance):
    """The known function that is nearest to a unit: its name, the largest error, a layer."""
    x, y = _curve(layer, low, high)
    wide = min(30 * max(abs(low), abs(high)), 3e38)  # a float32
    wide_x, wide_y = _curve(layer, -wide, wide)

    def known(name, x):
        values = ops.convert_to_numpy(FUNCTIONS[name](ops.convert_to_tensor(x)))
        return np.asarray(values, "float64")

    errors = {name: _largest(y - known(name, x)) for name in KNOWN}
    # As float32 tells them apart.
    least = min(errors.values()) + 1e-6 * max(1.0, _largest(y))
    near = [name for name in KNOWN if errors[name] <= least]
    with np.errstate(all="ignore"):  # exp of much
        name = min(near, key=lambda name: _largest(wide_y - known(name, wide_x)))
    best = name, errors[name], keras.layers.Activation(name)
    if best[1] <= tolerance:
        return best
    x = x.astype("float64")
    negative = x < 0
    if negative.any():
        below = y[:, negative].mean(axis=0)
        slope = max(0.0, float(np.sum(x[negative] * below) / np.sum(x[negative] ** 2)))
        this = _largest(y - np.where(negative, slope * x, x))
        if this < best[1]:
            best = f"leaky_relu({slope:.3g})", this, keras.layers.LeakyReLU(slope)
    a, b = np.polyfit(x, y.mean(axis=0), 1)
    this = _largest(y - (a * x + b))
    if this < best[1]:
        best = f"{a:.3g} x + {b:.3g}", this, keras.layers.Rescaling(float(a), float(b))
    return best


def _curve(layer, low, high):
    """Points on an interval and a unit's values there, of each group."""
    # float32 points, with 0, where the known functions have their kinks.
    x = np.unique(np.clip(np.append(np.linspace(low, high, 4001), 0.0), low, high))
    x = x.astype("float32")
    return x, np.asarray(layer.curve(x), "float64")


def _largest(values):
    """The largest |value|; infinite if one is not a number."""
    return float(np.max(np.where(np.isnan(values), np.inf, np.abs(values))))


# The copy.


class _Copy:
    """A new model with another one's layers and weights, some activations replaced.

    Args:
        model: a built model.
        made: a dict from the `key` of a place to the layer to put there.
        places: the places themselves.
    """

    def __init__(self, model, made=None, places=()):
        self.given = model
        self.made = made or {}
        self.removed = {id(place.call) for place in places}
        self.configs = {place.key: _placed(self.made[place.key], place) for place in places}
        self.clones = {}  # from the id of a layer to its copy, without weights
        self.copies = {}  # the same, and of the layers in these, with weights
        everything = [x for top in (model, *self.made.values()) for x in _beneath(top)]
        custom = {_class_key(type(x)): type(x) for x in everything if _is_foreign(x)}
        # By name only what one class has: a config may name layers that cannot be found in it.
        names = Counter(cls.__name__ for cls in custom.values())
        custom |= {c.__name__: c for c in custom.values() if names[c.__name__] == 1}
        with (
            keras.saving.custom_object_scope(custom),
            warnings.catch_warnings(),
            ObjectSharingScope(),
            _uncompiled(model),
        ):
            warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
            self.model = self._layer(model)
            if not self.model.built:
                self.model.build_from_config(model.get_build_config())
        self._build()
        self.model.built = True  # Keras leaves it open for a subclassed model
        self._keep(model, self.model)
        self._start(places)

    def _copied(self, model):
        if isinstance(model, keras.Function):
            # Else an input without a name would get another one than it has.
            inputs = keras.tree.map_structure(_input, model.input)
            copy = keras.models.clone_model(model, inputs, clone_function=self._layer)
            arguments = {"inputs": copy.input, "outputs": copy.output}
        else:
            copy = keras.models.clone_model(model, clone_function=self._layer)
            arguments = {"layers": list(copy._layers)}  # with its Input
        return _as_class(copy, model, arguments) if _is_foreign(model) else copy

    def _layer(self, layer):
        """The copy of a layer or an operation, once for each."""
        if id(layer) not in self.clones:
            self.clones[id(layer)] = self._new_layer(layer)
        return self.clones[id(layer)]

    def _new_layer(self, layer):
        if (id(layer), "") in self.configs:
            return _deserialized(self.configs[id(layer), ""], layer)
        if not isinstance(layer, keras.layers.Layer):
            return type(layer).from_config(layer.get_config())  # an operation
        if isinstance(layer, (keras.Function, keras.Sequential)):
            return self._copied(layer)
        if type(layer) is keras.layers.Lambda:
            # Its function itself: a config loses what the function refers to.
            return keras.layers.Lambda(
                layer.function,
                output_shape=layer._output_shape,
                mask=layer.mask,
                arguments=layer.arguments,
                name=layer.name,
                dtype=layer.dtype_policy,
            )
        _config(layer)  # says what to do if it has none
        return _deserialized(self._edited(layer, keras.saving.serialize_keras_object(layer)), layer)

    def _edited(self, layer, serialized):
        """A serialized layer with the new activations in it."""
        if (id(layer), "") in self.configs:
            # The rest says where in a functional model it is.
            kept = {k: v for k, v in serialized.items() if k in ("name", "inbound_nodes")}
            return {**self.configs[id(layer), ""], **kept}
        by_name = {child.name: child for child in _children(layer).values()}
        config = {}
        for key, value in serialized["config"].items():
            activation = _argument(layer, key)
            if (id(layer), key) in self.configs:
                config[key] = self.configs[id(layer), key]
            elif inspect.isfunction(activation) and _identity(activation)[0] is None:
                config[key] = activation  # your own function, which a config may only name
            else:
                config[key] = self._edited_inside(value, by_name)
        # Without `build_config`: built where it is called, its weights have the paths they had.
        left_out = ("build_config", "compile_config")
        kept = {key: value for key, value in serialized.items() if key not in left_out}
        return {**kept, **_registered(layer), "config": config}

    def _edited_inside(self, value, by_name):
        if isinstance(value, dict):
            child = _of_config(value, by_name)
            if child is not None:
                return self._edited(child, value)
            return {key: self._edited_inside(item, by_name) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._edited_inside(item, by_name) for item in value)
        return value

    def _build(self):
        """Activation arguments with parameters for each channel are built when they are called."""
        unbuilt = [layer for layer in activation_layers(self.model) if not layer.built]
        if not unbuilt:
            return
        if isinstance(self.model, keras.Function):
            given = self.model.input
        elif isinstance(self.model, keras.Sequential):
            given = self.model.inputs[0]
        else:
            shapes = self.given.get_build_config()["input_shape"]
            given = keras.tree.map_shape_structure(keras.KerasTensor, shapes)
        inputs = keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), given)
        with contextlib.ExitStack() as stack:
            for layer in unbuilt:
                # Only to be built: their new weights have no values yet.
                stack.enter_context(_with(layer, "call", lambda x, training=None: x))
            _Run(self.model)(inputs)

    def _keep(self, old, new):
        """Weights and flags, from the outside in: a layer's flag is set for all in it."""
        if id(old) in self.copies:
            return
        self.copies[id(old)] = new
        if not isinstance(old, keras.layers.Layer):
            return
        if (id(old), "") in self.configs:
            return
        new.trainable = old.trainable
        _give_variables(old, new)
        if hasattr(old, "save_assets"):  # vocabularies
            with tempfile.TemporaryDirectory() as folder:
                old.save_assets(folder)
                new.load_assets(folder)
        children = _children(new)
        for place, child in _children(old).items():
            if id(child) in self.removed and (id(child), "") not in self.configs:
                continue
            if place in children:
                self._keep(child, children[place])
            elif getattr(child, "weights", None):
                raise ValueError(
                    f"The weights of {child.name!r} in {old.name!r} cannot be kept: a "
                    f"{type(old).__name__} made from its config has no such layer. Make it in "
                    "`__init__` or `build`."
                )

    def _start(self, places):
        """Flags and parameters of the new activations: as they were made, frozen in the frozen."""
        for place in places:
            made = self.made[place.key]
            for layer in self.all_at(place):
                if isinstance(layer, keras.layers.Layer):
                    layer.trainable = made.trainable and getattr(place.layer, "trainable", True)
                    _give_variables(made, layer)

    def at(self, place):
        """What the copy has at a place."""
        copy = self.copies[id(place.layer)]
        if not place.argument:
            return copy
        activation = _argument(copy, place.argument)
        if activation is not None or place.key not in self.configs:
            return activation
        return self.all_at(place)[0]

    def all_at(self, place):
        """The same, and whatever else a layer has made from this argument.

        A layer may keep the argument as its config has it, and give it to layers inside.
        """
        copy = self.copies[id(place.layer)]
        if not place.argument:
            return [copy]
        name = _name_at(place)
        found = [
            x for x in _beneath(copy) if x.name == name and type(x) is type(self.made[place.key])
        ]
        activation = _argument(copy, place.argument)
        if activation is not None and not any(x is activation for x in found):
            found.insert(0, activation)
        if not found:
            raise ValueError(
                f"The activation of {place.path!r} cannot be replaced: a "
                f"{type(place.layer).__name__} made from its config has the new one neither as "
                f"`{place.argument}` nor in a layer inside. Keep it there as "
                "`keras.activations.get` returns it."
            )
        return found

    def left(self, hidden, elsewhere):
        """Of the hidden places those that are what they were, but for what is told elsewhere.

        A recurrent layer's cell has what the layer has as an argument, and does as the layer does.
        """
        told = {place.key for place in elsewhere}
        above = tuple(f"{place.path}/" for place in elsewhere if place.argument)
        for place, note in hidden:
            if place.key in told or place.key in self.configs or id(place.layer) not in self.copies:
                continue
            if place.argument and place.path.startswith(above):
                continue
            if place.argument and describe(self.at(place)) != describe(place.call):
                continue
            yield place, note

    def row(self, place, note=""):
        layer, old = self.at(place), place.call
        return Row(
            place.text,
            describe(old),
            describe(_standing(layer) or layer),
            sum(map(_trainable, self.all_at(place))) - _trainable(old),
            note,
        )

    def finished(self, rows, inputs=None, batch_size=32, advice=""):
        differences = (None, None, None)
        if inputs is not None:
            differences = _differences(self.given, self.model, inputs, batch_size)
        self.model.conversion_report = Report(rows, differences, advice)
        return self.model


def _as_class(copy, model, arguments):
    """A copy of a model by Keras' class, as the model's own class, if that matters."""
    cls = type(model)
    among = {id(child) for child in _children(model).values()}
    beside = [x.name for x in model._layers if x.weights and id(x) not in among]
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    names = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    passed_on = not names and len(parameters) == 2  # (*args, **kwargs)
    as_of_keras = names <= {*arguments, "name", "trainable"} and names >= set(arguments)
    if not beside and (passed_on or as_of_keras):
        named = "name" in names or any(p.kind is p.VAR_KEYWORD for p in parameters)
        return cls(**arguments, **({"name": model.name} if named else {}))
    own = [key for key in COMPUTES if getattr(cls, key) is not getattr(type(copy), key)]
    variables = {}
    model.save_own_variables(variables)
    own += [f"layer {name!r}" for name in beside] + ["weights"] * bool(variables)
    if not own:
        return copy
    raise ValueError(
        f"The {cls.__name__} {model.name!r} cannot be made anew with its own {', '.join(own)}. "
        f"Give it an `__init__` that takes {', '.join(arguments)} and name, as Keras' class does, "
        "nothing else, and that adds no layers; or build the model with learnable activations in "
        f"the first place. Received: __init__({', '.join(map(str, parameters))})"
    )


def _input(tensor):
    layer = tensor._keras_history.operation
    return type(layer).from_config(layer.get_config()).output


class _Run(keras.Operation):
    """Runs a model's code on tensors without values, so that everything in it gets built."""

    def __init__(self, model):
        super().__init__()
        self.call = model


def _give_variables(old, new):
    store = {}
    old.save_own_variables(store)
    if not store:
        return
    # Copies: on JAX a variable that is assigned another one has the same array, and whoever is
    # trained first gives it away.
    store = {k: np.array(ops.convert_to_numpy(v)) for k, v in store.items()}
    try:
        new.load_own_variables(store)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The weights of the {type(old).__name__} {old.name!r} cannot be kept: made anew from "
            f"its config it does not have the same ones. Make them in `__init__` or `build`, from "
            f"what `get_config` returns. Received: {error}"
        ) from error


def _beneath(layer, seen=None):
    seen = set() if seen is None else seen
    if id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        for child in _children(layer).values():
            yield from _beneath(child, seen)


def _placed(made, place):
    """What the config of a layer has at a place; of the layer itself, if it is the activation."""
    if place.argument and isinstance(made, keras.layers.Activation):
        return keras.activations.serialize(made.activation)
    serialized = keras.saving.serialize_keras_object(made)
    config = dict(serialized["config"])
    config["name"] = _name_at(place)
    policy = getattr(place.layer, "dtype_policy", None)
    if policy is not None and made.dtype_policy == keras.config.dtype_policy():
        config["dtype"] = keras.dtype_policies.serialize(policy)
    kept = {key: serialized[key] for key in ("module", "class_name", "registered_name")}
    return {**kept, **_registered(made), "config": config}


def _name_at(place):
    """The name of the new activation."""
    return place.layer.name + (f"_{place.argument}" if place.argument else "")


def _class_key(cls):
    return f"{cls.__qualname__} {id(cls)}"


def _registered(layer):
    """By what a class is found while a model is copied: two classes may have one name."""
    return {"registered_name": _class_key(type(layer))} if _is_foreign(layer) else {}


def _deserialized(serialized, layer):
    try:
        return keras.saving.deserialize_keras_object(serialized, safe_mode=False)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"The {type(layer).__name__} {layer.name!r} cannot be made anew from its config: "
            f"{error}"
        ) from error


def _uncompiled(model):
    """While a model is cloned: `clone_model` compiles, which takes a loss that can be saved."""
    stack = contextlib.ExitStack()
    for layer in _beneath(model):
        if vars(layer).get("compiled"):
            stack.enter_context(_with(layer, "compiled", False))
    return stack


def _trainable(call):
    weights = call.trainable_weights if isinstance(call, keras.layers.Layer) else ()
    return sum(int(np.prod(weight.shape)) for weight in weights)


def _differences(old, new, inputs, batch_size):
    """|new - old|, the largest and the mean; and the mean over the deviation, see `Report`."""
    spreads = {}
    for start in range(0, len(keras.tree.flatten(inputs)[0]), batch_size):
        batch = keras.tree.map_structure(lambda x, s=start: x[s : s + batch_size], inputs)
        outputs = [keras.tree.flatten(model(batch, training=False)) for model in (old, new)]
        for index, pair in enumerate(zip(*outputs, strict=True)):
            before, after = (np.asarray(ops.convert_to_numpy(y), "float64") for y in pair)
            with np.errstate(invalid="ignore"):  # inf - inf
                spreads.setdefault(index, _Spread(before[0])).add(before, np.abs(after - before))
    spreads = spreads.values()
    largest = max(spread.largest for spread in spreads)
    if not all(np.isfinite(spread.largest) for spread in spreads):
        return float("nan"), float("nan"), None
    mean = sum(spread.total for spread in spreads) / sum(spread.size for spread in spreads)
    relative = [spread.total / spread.size / d for spread in spreads if (d := spread.deviation())]
    return float(largest), float(mean), max(relative, default=None)


class _Spread:
    """Changes of one output, and its standard deviation from sample to sample.

    Args:
        origin: an output near the mean, for the sum of squares to be exact.
    """

    def __init__(self, origin):
        self.origin = origin
        self.largest, self.total, self.size, self.samples = 0.0, 0.0, 0, 0
        self.sum, self.squares = np.zeros_like(origin), np.zeros_like(origin)

    def add(self, before, change):
        self.largest = np.maximum(self.largest, change.max())  # nan stays
        self.total += float(change.sum())
        self.size += change.size
        self.samples += len(before)
        self.sum += np.sum(before - self.origin, axis=0)
        self.squares += np.sum((before - self.origin) ** 2, axis=0)

    def deviation(self):
        """Its mean; 0 if it is that of float32's rounding."""
        variance = self.squares / self.samples - (self.sum / self.samples) ** 2
        deviation = float(np.mean(np.sqrt(np.maximum(variance, 0.0))))
        return deviation if deviation > 1e-6 * np.max(np.abs(self.origin)) else 0.0
