"""The same network without some filters of its convolutions, physically smaller.

A filter that goes leaves nothing behind: its channel goes from every layer that it passes, with
that layer's parameters, and so do the weights that read it. What the rest computes is as if those
weights had been zero.

How: each index of a tensor's channel axis gets a label, the filter that it comes from. The labels
run once through the graph of the network, and `_RULES` says what each kind of layer does with them.
Channels that can only go together get one label: the terms of a residual sum, a channel before and
after a depthwise convolution, the features that Maxout compares. Keras has no such tool, and those
that there are (Torch-Pruning's dependency graph is the nearest) are of other frameworks.
"""

import dataclasses
import math

import keras
import numpy as np
from keras.src.models.functional import Functional
from keras.src.ops.numpy import Add
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import keras_learnact as kla
from training.config import UserError

layers = keras.layers
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)
# The label of what always stays: the inputs, the outputs, the units of dense layers.
STAYS = 0


def strongest(model: keras.Model, percent: float) -> dict[str, np.ndarray]:
    """The filters that stay if in every convolution the weakest go.

    The weakest have the smallest sum of absolute weights. Where filters of several convolutions can
    only go together, their sums are added: so the convolutions whose outputs a residual network
    adds keep the same filters, and a depthwise convolution those of the convolution before it.
    Filters that Maxout compares are one.

    Args:
        model: a functional network, as `training.networks.build` makes it.
        percent: how many go, rounded to whole filters; one always stays.

    Returns:
        For the name of every convolution a mask `[filters]`, True for what stays.

    Errors: a `UserError` for a network that is not known to stay whole, or has nothing to remove.
    """
    labels = _Labels(model)
    convolutions = {
        layer: labels.same[step.after]
        for layer, step in labels.steps.items()
        if isinstance(layer, CONVOLUTIONS)
    }
    weight = np.zeros(labels.count)
    for layer, filters in convolutions.items():
        np.add.at(weight, filters, _absolute_sums(layer))
    stays = np.ones(labels.count, bool)
    groups = _groups(convolutions.values(), labels.same[STAYS], labels.count)
    if not groups:
        raise UserError(
            f"Pruning needs a network with convolutions before a dense layer, say lenet or vgg8. "
            f"Received: {model.name}, in which no filter can go."
        )
    for group in groups:
        going = min(round(len(group) * percent / 100), len(group) - 1)
        stays[group[np.argsort(weight[group], kind="stable")[:going]]] = False
    return {layer.name: stays[filters] for layer, filters in convolutions.items()}


def smaller(model: keras.Model, kept: dict[str, np.ndarray]) -> keras.Model:
    """A copy of a network, with its weights, that has only some filters of its convolutions.

    Args:
        model: see `strongest`. It is left as it is.
        kept: for the names of convolutions a mask `[filters]`, as `strongest` gives it. All filters
            stay in those that are not named.

    Errors: a `UserError` for a network that is not known to stay whole, and for masks that do not
    fit it.
    """
    labels = _Labels(model)
    stays = _stays(labels, kept)
    copies = []

    def copy(layer):
        config = layer.get_config()
        for argument, channels in labels.steps[layer].counts.items():
            config[argument] = int(np.sum(stays[channels]))
        copies.append((layer, type(layer).from_config(config)))
        return copies[-1][1]

    result = keras.models.clone_model(model, clone_function=copy, recursive=True)
    for layer, new in copies:
        axes = labels.steps[layer].axes
        for variable, new_variable in zip(_variables(layer), _variables(new), strict=True):
            value = keras.ops.convert_to_numpy(variable)
            for axis, channels in axes.get(variable.name, {}).items():
                value = np.compress(stays[channels], value, axis)
            new_variable.assign(value)
    return result


def filter_count(model: keras.Model) -> int:
    """How many filters its convolutions have together."""
    return sum(layer.output.shape[-1] for layer in _flat(model) if isinstance(layer, CONVOLUTIONS))


def multiply_adds(model: keras.Model) -> int:
    """How many products its convolutions and dense layers add up for one input."""
    return sum(
        math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
        for layer in _flat(model)
        if isinstance(layer, (*CONVOLUTIONS, layers.Dense))
    )


@dataclasses.dataclass
class _Step:
    """What a layer does with channels.

    Args:
        after: the labels of its output's channels.
        axes: for the name of a weight the labels along its axes.
        counts: for a constructor argument that counts channels their labels.
    """

    after: np.ndarray
    axes: dict[str, dict[int, np.ndarray]] = dataclasses.field(default_factory=dict)
    counts: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


class _Labels:
    """The labels of all channels of a network.

    Attributes:
        steps: each layer's `_Step`, with the labels as they were given out.
        same: for each of them the label that stands for all that go together.
        count: how many there are.
    """

    def __init__(self, model):
        if not isinstance(model, Functional):
            raise UserError(f"Pruning needs a functional model. Received: {type(model).__name__}")
        self.steps, self.count, self._pairs = {}, 1, []
        for after in keras.tree.flatten(self._through(model, *map(_channels, model.inputs))):
            self.join(after, STAYS)
        a, b = np.concatenate(self._pairs, axis=1)
        graph = coo_array((np.ones(len(a)), (a, b)), shape=(self.count, self.count))
        self.same = connected_components(graph, directed=False)[1]
        for step in self.steps.values():
            step.axes = {
                name: {axis: self.same[channels] for axis, channels in axes.items()}
                for name, axes in step.axes.items()
            }
            step.counts = {name: self.same[channels] for name, channels in step.counts.items()}

    def new(self, count):
        self.count += count
        return np.arange(self.count - count, self.count)

    def join(self, some, others):
        """These channels can only go together."""
        self._pairs.append(np.stack(np.broadcast_arrays(some, others)))

    def _through(self, model, *inputs):
        for before in inputs:
            self.join(before, STAYS)
        return model._run_through_graph(inputs, call_fn=self._call)

    def _call(self, layer, *arguments, **options):
        inputs = keras.tree.flatten(arguments)
        if layer in self.steps:
            raise _refusal(layer, "is used in several places")
        if isinstance(layer, Functional):
            return self._through(layer, *inputs)
        learnable = isinstance(layer, kla.LearnableActivation)
        rule = _learnable if learnable else _RULES.get(type(layer))
        if rule is None or not all(isinstance(before, np.ndarray) for before in inputs):
            raise _refusal(layer, "has no rule in training.smaller")
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise _refusal(layer, "has its channels on another axis than the last")
        self.steps[layer] = rule(layer, self, *inputs)
        return self.steps[layer].after


def _channels(tensor):
    return np.full(tensor.shape[-1], STAYS)


# The rules: what a layer does with the labels of its inputs' channels.


def _convolution(layer, labels, before):
    if layer.groups > 1:
        raise _refusal(layer, f"has groups={layer.groups}")
    after = labels.new(layer.filters)
    return _Step(after, {"kernel": {2: before, 3: after}, "bias": {0: after}}, {"filters": after})


def _depthwise(layer, labels, before):
    after = np.repeat(before, layer.depth_multiplier)
    return _Step(after, {"kernel": {2: before}, "bias": {0: after}})


def _dense(layer, labels, before):
    return _Step(np.full(layer.units, STAYS), {"kernel": {0: before}})


def _flatten(layer, labels, before):
    return _Step(np.tile(before, layer.output.shape[-1] // len(before)))


def _normalization(layer, labels, before):
    _assert_last(layer, layer.axis)
    return _Step(before, {weight.name: {0: before} for weight in layer.weights})


def _unchanged(layer, labels, before):
    return _Step(before)


def _learnable(layer, labels, before):
    if layer.sharing == "layer":
        return _Step(before)
    if isinstance(layer.sharing, int):
        raise _refusal(layer, f'has sharing={layer.sharing}: use "layer", "channel" or "unit"')
    _assert_last(layer, layer.axis)
    of_groups = np.tile(before, layer.groups // len(before))  # "unit": one for each place, too
    own = [p.name for p in layer.parameter_list() if not p.shared]
    return _Step(before, {name: {0: of_groups} for name in own})


def _maxout(layer, labels, before):
    _assert_last(layer, layer.axis)
    after, *others = np.reshape(before, (-1, layer.pieces)).T
    for other in others:
        labels.join(after, other)
    return _Step(after)


def _sum(layer, labels, first, *others):
    for other in others:
        if len(first) != len(other):
            raise _refusal(layer, "adds different numbers of channels")
        labels.join(first, other)
    return _Step(first)


def _concatenation(layer, labels, *before):
    _assert_last(layer, layer.axis)
    return _Step(np.concatenate(before))


_RULES = {
    layers.Conv2D: _convolution,
    layers.DepthwiseConv2D: _depthwise,
    layers.Dense: _dense,
    layers.Flatten: _flatten,
    layers.BatchNormalization: _normalization,
    kla.Maxout: _maxout,
    layers.Add: _sum,
    Add: _sum,  # `x + y` in a functional model
    layers.Concatenate: _concatenation,
    **dict.fromkeys(
        (
            *(layers.Rescaling, layers.Resizing, layers.ZeroPadding2D),
            *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, kla.RReLU),
            *(layers.MaxPooling2D, layers.AveragePooling2D),
            *(layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D),
            *(layers.Dropout, layers.SpatialDropout2D),
        ),
        _unchanged,
    ),
}


def _assert_last(layer, axis):
    if axis not in (-1, len(layer.output.shape) - 1):
        raise _refusal(layer, "has its channels on another axis than the last")


def _refusal(layer, why):
    return UserError(
        f"Pruning does not know what becomes of the channels in {type(layer).__name__} "
        f"{layer.name!r}, which {why}."
    )


def _groups(convolutions, stays, count):
    """The labels of filters that are weighed against each other, one array for each group.

    That is a convolution's own, and those of others where they share some.
    """
    rows = [filters[filters != stays] for filters in convolutions]
    owners = np.repeat(np.arange(len(rows)), list(map(len, rows)))
    owned = np.concatenate([*rows, np.zeros(0, int)])
    size = len(rows) + count
    graph = coo_array((np.ones(len(owned)), (owners, len(rows) + owned)), shape=(size, size))
    group = connected_components(graph, directed=False)[1]
    groups = {}
    for label in np.unique(owned):
        groups.setdefault(group[len(rows) + label], []).append(label)
    return list(map(np.array, groups.values()))


def _stays(labels, kept):
    """For every label of `labels.same` whether it stays."""
    stays = np.ones(labels.count, bool)
    convolutions = {
        layer.name: labels.same[step.after]
        for layer, step in labels.steps.items()
        if isinstance(layer, CONVOLUTIONS)
    }
    for name, mask in kept.items():
        if name not in convolutions or np.shape(mask) != convolutions[name].shape:
            sizes = {name: len(filters) for name, filters in convolutions.items()}
            raise UserError(
                f"The masks must be of these convolutions and sizes: {sizes}. "
                f"Received: {name!r} with {np.shape(mask)}"
            )
        if not np.any(mask):
            raise UserError(f"At least one filter must stay. Received: none for {name!r}")
        stays[convolutions[name][~np.asarray(mask)]] = False
    for name, filters in convolutions.items():
        wanted = kept.get(name, np.ones(len(filters), bool))
        other = np.flatnonzero(stays[filters] != wanted)
        if len(other) or not stays[labels.same[STAYS]]:
            raise UserError(
                f"Some filters of {name!r} go with those of other convolutions, or reach the "
                f"output and stay. Received: masks that differ in {other.tolist()}"
            )
    return stays


def _absolute_sums(convolution):
    """The sum of the absolute weights of each filter."""
    kernel = np.abs(keras.ops.convert_to_numpy(convolution.kernel).astype("float64"))
    if isinstance(convolution, layers.DepthwiseConv2D):
        return np.ravel(np.sum(kernel, (0, 1)))  # [channels, multiplier]: as its outputs
    return np.sum(kernel, (0, 1, 2))


def _flat(model):
    """The layers of a model and of the models in it."""
    for layer in model.layers:
        yield from _flat(layer) if isinstance(layer, keras.Model) else [layer]


def _variables(layer):
    """None for `x + y`, which is an operation."""
    return layer.variables if isinstance(layer, keras.layers.Layer) else []
