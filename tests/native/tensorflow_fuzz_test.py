"""TensorFlow's ops of every kernel, called by hand with whatever comes: results or errors only."""

import inspect
import os

import keras
import numpy as np
import pytest

import keras_learnact as kla
from keras_learnact import kernels

pytestmark = pytest.mark.tensorflow

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    from keras_learnact.kernels import library

    REFUSED = (tf.errors.InvalidArgumentError, ValueError, TypeError)

HOSTILE = (-1, -(2**63), 2**63 - 1, 2**31, 2**32 + 1, 2**62, 0, 1, 17, 18, 40, 66, 1000)


@pytest.fixture(scope="module")
def ops():
    """{name of an op, with _ for >: its function}."""
    binding, why = kernels.load()
    if binding is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    module = tf.load_op_library(library.path("tf"))
    found = {n: f for n, f in vars(module).items() if n.startswith("KerasLearnact_")}
    assert len(found) >= 2 * 5
    return found


def _arguments(function):
    return [name for name in inspect.signature(function).parameters if name != "name"]


def usual_settings():
    """{name of a kernel with parameters: (settings, number of parameters)}, as layers have them."""
    usual = {}
    learnable = [k for k in vars(kla.layers).values() if hasattr(k, "training_function")]
    for layer in [kind() for kind in learnable if kind is not kla.LearnableActivation]:
        for training in (False, True):
            call = layer.kernel(training)
            if not isinstance(call, str):
                count = sum(p.count for p in layer.parameter_list())
                usual[call.kernel.name.lower()] = (list(call.settings), count)
    return usual


def some_shape(random):
    return tuple(random.choice([0, 1, 2, 3, 4, 5, 16, 17, 33], random.integers(0, 5)))


def some_array(random, shape, dtypes=("float32", "float64", "float16", "bfloat16")):
    dtype = random.choice(dtypes)
    return tf.cast(tf.constant(random.normal(size=shape)), dtype)


def some_call(random, names, usual):
    """Arguments by name: those of a good call, and some of them replaced."""
    settings, count = usual
    shape = some_shape(random)
    x = some_array(random, shape)
    axis = int(random.integers(0, len(shape) + 1))
    covered = int(np.prod(shape[axis:]))
    groups = int(random.choice([1, max(covered, 1)]))
    arguments = {"x": x, "axis": axis, "settings": list(settings)}
    if "params" in names:
        dtype = "float64" if x.dtype == tf.float64 else "float32"
        arguments["params"] = some_array(random, (groups, count), [dtype])
    if "key" in names:
        arguments["key"] = tf.constant([1, 2])
    if "params" not in names and axis < len(shape):  # a pooling kernel
        arguments["x"] = tf.repeat(x, settings[0], axis)
    if "dy" in names:
        arguments["dy"] = tf.identity(x)
    for name in names:
        if random.random() > 0.25:
            continue
        if name == "axis":
            arguments[name] = int(random.choice(HOSTILE))
        elif name == "settings":
            size = random.integers(0, 5)
            arguments[name] = [int(random.choice(HOSTILE)) for _ in range(size)]
        elif name == "key":
            arguments[name] = tf.zeros(some_shape(random), random.choice(["int32", "int64"]))
        elif name in ("x", "params", "dy"):
            arguments[name] = some_array(random, some_shape(random))
    return arguments


def kernel_of(name, usual):
    """The settings that go with an op's function; a pooling kernel has the number of pieces."""
    plain = name.lower().replace("_", "").removeprefix("keraslearnact").removesuffix("grad")
    return usual.get(plain, ([2], 0))


def test_a_call_by_hand_gives_a_result_of_its_shape_or_an_error(ops):
    usual, random = usual_settings(), np.random.default_rng(0)
    taken, refused = dict.fromkeys(ops, 0), 0
    for name, function in ops.items():
        names = _arguments(function)
        for _ in range(250):
            arguments = some_call(random, names, kernel_of(name, usual))
            try:
                y = function(**arguments)
            except REFUSED:
                refused += 1
                continue
            taken[name] += 1
            if "params" in names:
                first = y[0] if isinstance(y, (tuple, list)) else y
                assert first.shape == arguments["x"].shape and first.dtype == arguments["x"].dtype
            if "dy" in names and "params" in names:
                assert y[1].shape == arguments["params"].shape
    assert refused > 100 and all(taken.values()), (refused, taken)


def test_a_graph_whose_attributes_were_changed_gives_a_result_or_an_error(ops):
    # As a SavedModel may have been changed by anyone.
    usual, random = usual_settings(), np.random.default_rng(1)
    taken = refused = 0
    for name, function in ops.items():
        names = [n for n in _arguments(function) if n not in ("axis", "settings")]
        settings, count = kernel_of(name, usual)
        for _ in range(12):
            graph = tf.Graph()
            with graph.as_default():
                inputs = {n: tf.compat.v1.placeholder(tf.float32, name=n) for n in names}
                if "key" in inputs:
                    inputs["key"] = tf.compat.v1.placeholder(tf.int32, name="wanted_key")
                function(**inputs, axis=1, settings=settings, name="call")
            definition = graph.as_graph_def()
            (node,) = [n for n in definition.node if n.name == "call"]
            if random.random() < 0.5:
                node.attr["axis"].i = int(random.choice(HOSTILE))
            if random.random() < 0.5:
                size = random.integers(0, 5)
                node.attr["settings"].list.i[:] = [int(random.choice(HOSTILE)) for _ in range(size)]
            feeds = {
                tensor.name: np.zeros((1, count) if n == "params" else (4, 6), "float32")
                for n, tensor in inputs.items()
            }
            if "key" in inputs:
                feeds[inputs["key"].name] = np.array([1, 2], "int32")
            changed = tf.Graph()
            try:
                with changed.as_default():
                    tf.graph_util.import_graph_def(definition, name="")
                with tf.compat.v1.Session(graph=changed) as session:
                    session.run("call:0", feeds)
                taken += 1
            except REFUSED:
                refused += 1
    assert taken > 0 and refused > 0, (taken, refused)
