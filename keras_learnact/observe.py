"""Looking into a model: which learnable activations it has, and what their inputs are."""

import functools
from collections.abc import Sequence

import keras
from keras import ops

from keras_learnact.layers.base import LearnableActivation


def activation_layers(
    model: keras.layers.Layer | Sequence[keras.layers.Layer],
) -> list[LearnableActivation]:
    """Every learnable activation of a model, each once, in the order of its definition.

    Found wherever a layer keeps them: in the model itself, in submodels, in wrappers such as
    `TimeDistributed`, in recurrent cells, as the `activation` argument of `Dense` or `Conv2D`,
    in lists and dictionaries. An activation that several layers share is listed once, and one
    that is not built yet is listed too.

    Args:
        model: a model or any other layer, also an activation itself; or a list of layers.
    """
    return layers_of(LearnableActivation, model)


def layers_of(kind, model):
    """As `activation_layers`, of any class of layers."""
    found, seen = [], set()

    def visit(value):
        if not isinstance(value, (keras.layers.Layer, list, tuple, dict)) or id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, kind):
            found.append(value)
        if isinstance(value, keras.Model):
            # Before its attributes: `layers` is in the order of the calls, if that is known.
            visit_all(value.layers)
        if isinstance(value, keras.layers.Layer):
            visit_all(vars(value).values())
        else:
            visit_all(value.values() if isinstance(value, dict) else value)

    def visit_all(values):
        # A copy, so that no container can change while it is walked.
        for value in list(values):
            visit(value)

    visit(model)
    return found


def named_activations(
    model: keras.layers.Layer | Sequence[keras.layers.Layer],
) -> dict[str, LearnableActivation]:
    """The `activation_layers` of a model by name, in the same order.

    The key is the layer's name. Submodels may have activations of the same name: the second of
    them is found under `name_2`, and so on.

    Args:
        model: as for `activation_layers`.
    """
    named = {}
    for layer in activation_layers(model):
        key, count = layer.name, 1
        while key in named:
            count += 1
            key = f"{layer.name}_{count}"
        named[key] = layer
    return named


def record_inputs(model: keras.layers.Layer, x, function, batch_size: int = 256) -> None:
    """Calls `function(layer, inputs)` for every call of every learnable activation.

    The model runs in inference mode and without compilation, batch by batch. Its weights,
    metrics and compiled functions stay as they are, and so do its activations when `function`
    or the model raises.

    A call inside a traced loop has no numbers to show and is skipped: that is so for the cells
    of recurrent layers on the JAX backend, unless they are made with `unroll=True`.

    Args:
        model: a model or any other layer.
        x: what the model takes: an array, or a list or dictionary of arrays, samples first.
        function: called with the `LearnableActivation` and with what it is called on, a NumPy
            array `[samples of the batch, …]` in the layer's compute dtype.
        batch_size: how many samples run at once.

    Example:

    >>> def widest(layer, inputs):
    ...     print(layer.name, abs(inputs).max())
    >>> record_inputs(model, x_train[:1000], widest)
    """
    layers = activation_layers(model)
    replaced = [(layer, vars(layer).get("call")) for layer in layers]
    try:
        for layer in layers:
            # In the instance's own namespace, where Keras finds it before the method of the
            # class, and not through `__setattr__`, which locks and tracks what is set.
            vars(layer)["call"] = recording(layer, function)
        for start in range(0, len(keras.tree.flatten(x)[0]), batch_size):
            batch = keras.tree.map_structure(
                lambda array, start=start: ops.convert_to_tensor(array[start : start + batch_size]),
                x,
            )
            model(batch, training=False)
    finally:
        for layer, before in replaced:
            vars(layer).pop("call", None)
            if before is not None:
                vars(layer)["call"] = before


def recording(layer, function):
    """What calls `layer.call`, and before it `function(layer, inputs)` with a NumPy array.

    Inputs without numbers, as inside a traced loop, are not shown.
    """
    call = layer.call

    @functools.wraps(call)
    def recording_call(inputs, *args, **kwargs):
        try:
            values = ops.convert_to_numpy(inputs)
        except (TypeError, NotImplementedError, ValueError):
            pass  # What each backend raises for a tensor that is being traced.
        else:
            function(layer, values)
        return call(inputs, *args, **kwargs)

    return recording_call
