"""The kernels in TensorFlow: the same numbers in every mode, and never a crash."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest

import keras_learnact as kla
from keras_learnact import kernels
from tests.kernels import tensorflow_processes as processes

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

pytestmark = pytest.mark.tensorflow
ROOT = Path(__file__).parents[2]
NAMES = sorted(kernels.KERNELS)  # of those that a layer calls
every_kernel = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module", autouse=True)
def binding():
    loaded, why = kernels.load()
    why = why or next(filter(None, (loaded._absent[n] for n in ("xla", "tf_native"))), "")
    if why:
        # A job that should test the kernels must not pass without them.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return loaded


@pytest.fixture
def without_native(monkeypatch, binding):
    """As if the library tf_native were not there, which a portable wheel does not have."""
    monkeypatch.delitem(binding._loaded, "tf_native")


class Sample(NamedTuple):
    """A call that a layer makes of a kernel. NumPy arrays; params and key may be None."""

    name: str
    settings: tuple
    x: np.ndarray
    params: np.ndarray
    axis: int
    key: np.ndarray
    dy: np.ndarray

    def arrays(self, dtype="float32"):
        """x, params (if there are any) and dy as tensors: what gradients are taken of, and dy."""
        math_dtype = "float64" if dtype == "float64" else "float32"
        arrays = [tf.cast(self.x, dtype)]
        if self.params is not None:
            arrays.append(tf.cast(self.params, math_dtype))
        return [*arrays, tf.cast(self.dy, dtype)]

    def function(self, run=None, axis=None):
        """The call and its gradients as a function of `arrays`."""
        run = run or kernels.load()[0].run
        axis = self.axis if axis is None else axis
        key = None if self.key is None else tf.constant(self.key)

        def function(*arrays):
            *watched, dy = arrays
            x, params = watched[0], watched[1] if len(watched) > 1 else None
            with tf.GradientTape() as tape:
                tape.watch(watched)
                y = run(self.name, self.settings, x, params, axis, key)
            return [y, *tape.gradient(y, watched, output_gradients=dy)]

        return function

    def truth(self, dtype="float32"):
        """The same in float64 by the formula, of arguments that were rounded to the dtype."""
        arrays = [tf.cast(a, "float64") for a in self.arrays(dtype)]
        return self.function(kernels.reference)(*arrays)

    def weights(self):
        """Of the sum whose derivatives `second` gives, for x and params."""
        rng = np.random.default_rng(2)
        return [rng.normal(size=a.shape) for a in self.arrays()[:-1]]

    def second(self, run=None):
        """Derivatives of some sum of all that the gradient gives."""
        first = self.function(run)

        def second(*arrays):
            with tf.GradientTape() as tape:
                tape.watch(arrays)
                _, *gradients = first(*arrays)
            weights = [tf.cast(w, g.dtype) for w, g in zip(self.weights(), gradients, strict=True)]
            return tape.gradient(gradients, arrays, weights, unconnected_gradients="zero")

        return second


def activations():
    learnable = [
        c
        for c in vars(kla.layers).values()
        if isinstance(c, type)
        and issubclass(c, kla.LearnableActivation)
        and c is not kla.LearnableActivation
    ]
    return [*(c(sharing="channel") for c in learnable), kla.Maxout(pieces=2)]


@functools.cache
def samples():
    """By kernel: a call of it by a layer, with parameters off their start."""
    rng, found = np.random.default_rng(0), {}
    x = rng.normal(size=(6, 5, 8), scale=2).astype("float32")
    original = kernels.run

    def record(call, x, params, axis):
        key = call.key() if call.key else None
        name, settings = call.kernel.name, tuple(call.settings)
        run = kernels.load()[0].run
        y = run(name, settings, x, params, axis, key)
        dy = rng.normal(size=y.shape).astype("float32")
        arrays = [None if a is None else np.array(a) for a in (x, params, key)]
        found.setdefault(name, Sample(name, settings, *arrays[:2], axis, arrays[2], dy))
        return y

    kernels.run = record
    try:
        for layer in activations():
            layer.build(x.shape)
            for weight in layer.weights:
                if "activation_parameter" in vars(weight):
                    weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
            layer(x)
            if isinstance(layer, kla.LearnableActivation):
                layer(x, training=True)
    finally:
        kernels.run = original
    return found


def assert_close(got, expected, tolerance):
    """Sums of many terms may differ by the tolerance of the largest."""
    for a, b in zip(got, expected, strict=True):
        a, b = np.array(a, "float64"), np.array(b, "float64")
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (1 + np.abs(b).max()))


def assert_same_bits(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


def test_every_kernel_of_the_library_is_called_by_a_layer(binding):
    assert sorted(binding._kernels) == NAMES == sorted(samples())


# One kernel in every mode. All of them run the same code, so all bits must agree.


def graph(f, arrays):
    return tf.function(f)(*arrays)


def compiled(f, arrays):
    return tf.function(f, jit_compile=True)(*arrays)


def specs(arrays, shape):
    """x and dy of the given shape, the rest as it is."""
    first, *rest, last = arrays
    return [
        tf.TensorSpec(shape(first.shape), first.dtype),
        *(tf.TensorSpec(a.shape, a.dtype) for a in rest),
        tf.TensorSpec(shape(last.shape), last.dtype),
    ]


def traced(f, arrays, shape):
    return tf.function(f, input_signature=specs(arrays, shape))


def inside_compiled(f, arrays, shape=lambda s: s):
    """Traced before, and then called inside a compiled function."""
    function = traced(f, arrays, shape)
    function.get_concrete_function()
    return tf.function(lambda *a: function(*a), jit_compile=True)(*arrays)


def unknown_batch(f, arrays):
    return traced(f, arrays, lambda shape: (None, *shape[1:]))(*arrays)


def unknown_batch_compiled(f, arrays):
    return inside_compiled(f, arrays, lambda shape: (None, *shape[1:]))


def unknown_rank(f, arrays):
    return traced(f, arrays, lambda shape: None)(*arrays)


def unknown_rank_compiled(f, arrays):
    return inside_compiled(f, arrays, lambda shape: None)


def in_a_loop(f, arrays):
    """The body of a while loop, once."""

    def looped(*arrays):
        start = [tf.zeros_like(a) for a in f(*arrays)]
        result = tf.while_loop(lambda i, *_: i < 1, lambda i, *_: (i + 1, *f(*arrays)), (0, *start))
        return result[1:]

    return tf.function(looped)(*arrays)


MODES = [
    graph,
    compiled,
    inside_compiled,
    unknown_batch,
    unknown_batch_compiled,
    unknown_rank,
    unknown_rank_compiled,
    in_a_loop,
]
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda f: f.__name__)


@every_kernel
def test_values_and_gradients_in_eager_mode(name):
    sample = samples()[name]
    # float32 against float64, with cancellation in polynomials
    assert_close(sample.function()(*sample.arrays()), sample.truth(), 1e-4)


@every_mode
@every_kernel
def test_the_same_bits_in_every_mode(name, mode):
    sample = samples()[name]
    f, arrays = sample.function(), sample.arrays()
    assert_same_bits(mode(f, arrays), f(*arrays))


@every_mode
@every_kernel
def test_the_same_bits_without_the_library_for_this_tensorflow(name, mode, without_native):
    sample = samples()[name]
    f, arrays = sample.function(), sample.arrays()
    assert_same_bits(mode(f, arrays), f(*arrays))


@every_kernel
@pytest.mark.parametrize("dtype, tolerance", [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_is_rounded_once(name, dtype, tolerance):
    # One rounding to 11 and to 8 bits, of values up to about 1 + the largest.
    sample = samples()[name]
    f, arrays = sample.function(), sample.arrays(dtype)
    y, dx, *dparams = f(*arrays)
    assert y.dtype == dx.dtype == dtype and all(d.dtype == "float32" for d in dparams)
    assert_close([y, dx, *dparams], sample.truth(dtype), tolerance)
    assert_same_bits(compiled(f, arrays), [y, dx, *dparams])


@every_kernel
def test_float64(name):
    sample = samples()[name]
    f, arrays = sample.function(), sample.arrays("float64")
    result = f(*arrays)
    assert all(a.dtype == "float64" for a in result)
    assert_close(result, sample.truth("float64"), 1e-11)
    assert_same_bits(compiled(f, arrays), result)


@pytest.mark.parametrize("native", [True, False])
@every_kernel
def test_second_derivatives(name, native, request):
    sample = samples()[name]
    arrays = sample.arrays()
    expected = sample.second(kernels.reference)(*(tf.cast(a, "float64") for a in arrays))
    # float32 through two derivatives of the formula
    if native:
        assert_close(sample.second()(*arrays), expected, 1e-3)
        assert_close(graph(sample.second(), arrays), expected, 1e-3)
    else:
        request.getfixturevalue("without_native")
        assert_close(unknown_rank(sample.second(), arrays), expected, 1e-3)


def test_second_derivatives_compiled():
    # Of one kernel, since it is XLA's time that this takes: some seconds.
    sample = samples()["Rational"]
    arrays = sample.arrays()
    expected = sample.second(kernels.reference)(*(tf.cast(a, "float64") for a in arrays))
    assert_close(compiled(sample.second(), arrays), expected, 1e-3)


@every_kernel
def test_second_derivatives_are_the_differences_of_first_ones(name, binding):
    """In float64, along a random direction."""
    sample = samples()[name]
    arrays = [tf.cast(a, "float64") for a in sample.arrays()]
    rng = np.random.default_rng(3)
    direction = [rng.normal(size=a.shape) for a in arrays]
    if binding._kernels[name].random:
        direction[1] *= 0  # the width of the noise follows the parameters, but has no gradient

    def total(t):
        first = sample.function()(*(a + t * d for a, d in zip(arrays, direction, strict=True)))
        return sum(np.sum(w * g) for w, g in zip(sample.weights(), first[1:], strict=True))

    step = 1e-6
    slope = (total(step) - total(-step)) / (2 * step)
    second = sample.second()(*arrays)
    exact = sum(float(tf.reduce_sum(s * d)) for s, d in zip(second, direction, strict=True))
    np.testing.assert_allclose(slope, exact, rtol=1e-5, atol=1e-5)


@every_kernel
def test_vectorized_map(name):
    """Each entry is as a call of its own."""
    sample = samples()[name]
    axis = max(sample.axis - 1, 0)
    f = sample.function(axis=axis)
    x, *params, dy = sample.arrays()

    def entry(x_and_dy):
        x, dy = x_and_dy
        return f(x, *params, dy)

    entries = [entry((x[i], dy[i])) for i in range(len(x))]
    assert_same_bits(tf.vectorized_map(entry, (x, dy)), map(tf.stack, zip(*entries, strict=True)))
    in_function = tf.function(lambda x, dy: tf.vectorized_map(entry, (x, dy)))
    assert_same_bits(in_function(x, dy), map(tf.stack, zip(*entries, strict=True)))


@every_kernel
def test_vectorized_map_is_one_call_where_nothing_is_drawn(name, binding):
    sample = samples()[name]
    x, *params, _ = sample.arrays()

    def entry(x):
        key = None if sample.key is None else tf.constant(sample.key)
        axis = max(sample.axis - 1, 0)
        return binding.run(name, sample.settings, x, params[0] if params else None, axis, key)

    graph = tf.function(lambda x: tf.vectorized_map(entry, x)).get_concrete_function(x).graph
    # Only what the output is made of: the call for one entry, which was traced first, is there too.
    used = {y.op for y in graph.outputs}
    while more := {array.op for op in used for array in op.inputs} - used:
        used |= more
    types = [op.type for op in used]
    loops = [kind for kind in types if "While" in kind]
    if binding._kernels[name].random:
        assert loops and f"KerasLearnact>{name}" not in types  # it is in the loop
    else:
        assert types.count(f"KerasLearnact>{name}") == 1 and not loops, types


@every_kernel
def test_vectorized_map_over_parameters(name, binding):
    if binding._kernels[name].pools:
        return
    sample = samples()[name]
    f = sample.function()
    x, params, dy = sample.arrays()
    several = tf.stack([params, 0.5 * params, -params])
    entries = [f(x, p, dy) for p in several]
    got = tf.vectorized_map(lambda p: f(x, p, dy), several)
    assert_same_bits(got, map(tf.stack, zip(*entries, strict=True)))


@every_kernel
def test_repeats_and_threads_do_not_change_a_bit(name, binding):
    sample = samples()[name]
    rng, f = np.random.default_rng(1), sample.function()
    shape = (300, *sample.x.shape[1:-1], sample.x.shape[-1])
    x = rng.normal(size=shape).astype("float32")
    dy = rng.normal(size=(300, *sample.dy.shape[1:])).astype("float32")
    arrays = [tf.constant(x), *sample.arrays()[1:-1], tf.constant(dy)]
    before, results = binding.threads(), set()
    try:
        for threads in (1, 2, 3):
            binding.threads(threads)
            for _ in range(34):
                results.add(b"".join(np.array(a).tobytes() for a in f(*arrays)))
    finally:
        binding.threads(before)
    assert len(results) == 1


@every_kernel
def test_an_empty_batch(name):
    sample = samples()[name]
    x, *params, dy = sample.arrays()
    y, dx, *dparams = sample.function()(x[:0], *params, dy[:0])
    assert y.shape == dy[:0].shape and dx.shape == x[:0].shape
    assert all(np.all(np.array(d) == 0) for d in dparams)


def test_an_array_whose_size_xla_finds_when_it_runs():
    layer = kla.PAU(sharing="channel")
    x = tf.constant(np.random.default_rng(0).normal(size=(40, 8)).astype("float32"))
    layer(x)

    def f(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(tf.boolean_mask(x, x[:, 0] > 0))
        return [y, *tape.gradient(y, [x, *layer.trainable_variables], 2 * y)]

    assert_same_bits(tf.function(f, jit_compile=True)(x), f(x))


# Layers.


@pytest.mark.parametrize("native", [True, False])
def test_fit_is_the_same_compiled_or_not(native, request):
    if not native:
        request.getfixturevalue("without_native")
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")

    def losses(jit_compile):
        keras.utils.set_random_seed(0)
        layers = [a for a in activations() if getattr(a, "path", "kernel") == "kernel"]
        assert layers
        parts = [part for layer in layers for part in (keras.layers.Dense(8), layer)]
        model = keras.Sequential([keras.Input((8,)), *parts, keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=jit_compile)
        fitted = model.fit(x, x[:, :1], batch_size=16, epochs=2, shuffle=False, verbose=0)
        return fitted.history["loss"]

    expected = losses(False)
    assert np.all(np.isfinite(expected))
    for jit_compile in (True, "auto"):
        # the dense layers' sums are in another order
        np.testing.assert_allclose(losses(jit_compile), expected, rtol=1e-3)


def test_disabled_is_the_formula_in_graphs_too():
    layer = kla.PAU()
    x = tf.ones((2, 3))

    def ops():
        graph = tf.function(lambda x: layer(x)).get_concrete_function(x).graph
        return {node.op for node in graph.as_graph_def().node}

    assert "KerasLearnact>Rational" in ops()
    with kernels.disabled():
        assert layer.path == "reference: kernels.disabled()"
        assert not any("KerasLearnact" in op or op == "XlaCallModule" for op in ops())
    assert layer.path == "kernel"


def test_a_graph_without_handlers_has_the_formula(without_native, binding, monkeypatch):
    monkeypatch.delitem(binding._loaded, "xla")
    layer, paths = kla.PAU(), []

    def f(x):
        paths.append(layer.path)
        return layer(x)

    x = tf.constant([[0.5, -1.0]])
    y = f(x)
    for jit_compile in (False, True):
        assert_close([tf.function(f, jit_compile=jit_compile)(x)], [y], 1e-6)
    assert paths[0] == "kernel" and all("XLA would not know the op" in p for p in paths[1:])


def test_the_formula_takes_an_unknown_last_size():
    layer = kla.PAU()
    x = tf.constant([[0.5, -1.0, 1e30]])
    with kernels.disabled():
        f = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec((None, None))])
        assert_same_bits([f(x)], [layer(x)])


def test_results_take_the_memory_of_what_is_not_needed_any_more(binding):
    """As those of ReLU do: y that of x, or at training, when x is still needed, dx that of dy."""
    n, kernel = 1 << 20, binding._kernels["Rational"]
    call = {"axis": 0, "settings": (6, 65)}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        params = tf.ones((1, 10))
        x, dy = (tf.random.uniform((n,), seed=i) for i in range(2))
        y = kernel.forward(x, params, **call)
        dx, dparams = kernel.gradient(tf.abs(y), params, dy, **call)
        trace = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        metadata = tf.compat.v1.RunMetadata()
        session.run([tf.reduce_sum(dx), dparams], options=trace, run_metadata=metadata)
    allocated = {
        node.node_name: sum(
            record.alloc_bytes
            for m in node.memory
            for record in m.allocation_records
            if record.alloc_bytes > 0
        )
        for device in metadata.step_stats.dev_stats
        for node in device.node_stats
    }
    for output in (y, dx):
        assert allocated[output.op.name] < 1000, allocated  # dparams, nothing of x's size


# Calls that no layer makes.

FLOAT = {"x": np.ones((4, 6), "float32"), "params": np.ones((3, 10), "float32")}
BAD = {
    "axis < 0": {"axis": -1},
    "axis beyond the rank": {"axis": 3},
    "axis of 2^62": {"axis": 2**62},
    "no settings": {"settings": []},
    "too few settings": {"settings": [6]},
    "too many settings": {"settings": [6, 65, 1]},
    "100000 settings": {"settings": [1] * 100000},
    "negative order": {"settings": [-1, 65]},
    "huge order": {"settings": [2**40, 65]},
    "order beyond params": {"settings": [11, 65]},
    "no such version": {"settings": [6, 200]},
    "params of rank 1": {"params": np.ones(10, "float32")},
    "params of rank 3": {"params": np.ones((1, 3, 10), "float32")},
    "no groups": {"params": np.ones((0, 10), "float32")},
    "no parameters": {"params": np.ones((3, 0), "float32")},
    "4 groups of 6 channels": {"params": np.ones((4, 10), "float32")},
    "params of float64": {"params": np.ones((3, 10))},
    "x of float64": {"x": np.ones((4, 6))},
    "x of int32": {"x": np.ones((4, 6), "int32")},
    "dy of another shape": {"dy": np.ones((6, 4), "float32")},
    "dy of another rank": {"dy": np.ones((24,), "float32")},
    "dy of another type": {"dy": np.ones((4, 6), "float16")},
}


@pytest.mark.parametrize("how", ["eager", "graph", "unknown shapes", "compiled"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_call_is_an_error(bad, how, binding):
    call = {**FLOAT, "axis": 1, "settings": [6, 65], **bad}
    arrays = [tf.constant(call["x"]), tf.constant(call["params"])]
    if "dy" in call:
        arrays.append(tf.constant(call["dy"]))
    op = binding._kernels["Rational"]
    op = op.gradient if "dy" in call else op.forward

    def f(*arrays):
        return op(*arrays, axis=call["axis"], settings=call["settings"])

    if how == "unknown shapes":
        f = tf.function(f, input_signature=[tf.TensorSpec(None, a.dtype) for a in arrays])
    elif how != "eager":
        f = tf.function(f, jit_compile=how == "compiled")
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError, TypeError)) as error:
        f(*arrays)
    if how == "eager" and not isinstance(error.value, TypeError):
        assert isinstance(error.value, tf.errors.InvalidArgumentError)


def test_bad_keys_are_errors(binding):
    for name in NAMES:
        if binding._kernels[name].random:
            sample = samples()[name]
            for key in ([1], [1, 2, 3], [[1, 2]], []):
                with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
                    sample._replace(key=np.array(key, "int32")).function()(*sample.arrays())


@pytest.mark.parametrize("settings", [[], [0], [-2], [3], [2**62], [2, 2]])
def test_bad_pooling_is_an_error(settings, binding):
    for name in NAMES:
        if binding._kernels[name].pools:
            with pytest.raises(tf.errors.InvalidArgumentError):
                binding._kernels[name].forward(tf.ones((4, 8)), axis=1, settings=settings)


# Fresh processes.


@pytest.fixture(scope="module")
def in_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    layers = [a for a in activations() if getattr(a, "path", "kernel") == "kernel"]
    x = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")

    class Everything(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8))])
        def call(self, x):
            return {type(layer).__name__: layer(x) for layer in self.layers}

    module = Everything()
    module.layers = layers
    expected = {name: np.array(y) for name, y in module.call(x).items()}
    tf.saved_model.save(module, folder / "saved")
    np.savez(folder / "expected.npz", x=x, **expected)
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.tensorflow_processes", str(folder)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", processes.CASES)
def test_in_a_fresh_process(case, in_processes):
    assert not in_processes[case], in_processes[case]
