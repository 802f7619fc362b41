"""What every learnable activation keeps, asked of every one that the package exports."""

import contextlib
import functools
import json
import os

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

import keras_learnact as kla
from tests.numeric import call, differences, gradients

ACTIVATIONS = [
    c
    for c in vars(kla.layers).values()
    if isinstance(c, type)
    and issubclass(c, kla.LearnableActivation)
    and c is not kla.LearnableActivation
]
SHARINGS = ["layer", "channel", 2, "unit"]
every_activation = pytest.mark.parametrize("cls", ACTIVATIONS, ids=lambda c: c.__name__)
every_sharing = pytest.mark.parametrize("sharing", SHARINGS)
MAX = float(np.finfo("float32").max)


def randomised(layer, seed=0, by=0.3):
    """Moves every parameter a little off its start, each group another way."""
    rng = np.random.default_rng(seed)
    for name, value in layer.parameters().items():
        getattr(layer, name).assign(value + by * rng.normal(size=value.shape))
    return layer


def sample(shape=(3, 4, 5, 8), seed=1):
    return np.random.default_rng(seed).normal(size=shape, scale=2).astype("float32")


def built(cls, sharing="layer", shape=(None, 4, 5, 8), by=0.3, **kwargs):
    keras.utils.set_random_seed(0)  # some start at random
    layer = cls(sharing=sharing, **kwargs)
    layer.build(shape)
    return randomised(layer, by=by)


def matters(layer, name, x):
    """Whether the values of a layer depend on one of its parameters."""
    weight, y = getattr(layer, name), call(layer, x)
    value = ops.convert_to_numpy(weight)
    weight.assign(value + 0.01)
    moved = call(layer, x)
    weight.assign(value)
    return np.any(moved != y)


def in_model(*layers, shape=(8,)):
    return keras.Sequential([keras.Input(shape), *layers])


@every_activation
@every_sharing
def test_shape_dtype_and_groups(cls, sharing):
    layer = built(cls, sharing)
    y = layer(sample())
    assert tuple(y.shape) == (3, 4, 5, 8)
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    groups = {"layer": 1, "channel": 8, 2: 2, "unit": 160}[sharing]
    shapes = [(p.name, (groups, p.count)) for p in layer.parameter_list()]
    assert [(n, v.shape) for n, v in layer.parameters().items()] == shapes
    for name, shape in shapes:
        assert tuple(getattr(layer, name).shape) == shape
        assert getattr(layer, name).name == name
    assert layer.groups == groups


@every_activation
def test_one_set_for_the_layer_exists_from_construction(cls):
    layer = cls(sharing="layer")
    assert len(layer.parameters()) == len(layer.parameter_list()) > 0
    assert layer.curve([0.0, 1.0]).shape == (1, 2)


@every_activation
@every_sharing
def test_a_config_gives_back_what_was_given(cls, sharing):
    layer = cls(sharing=sharing, axis=1, name="here", dtype="mixed_float16", trainable=False)
    config = layer.get_config()
    assert (config["sharing"], config["axis"], config["name"]) == (sharing, 1, "here")
    assert cls.from_config(config).get_config() == config
    layer.build((None, 8, 3))
    assert layer.get_config() == config
    plain = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    assert keras.saving.deserialize_keras_object(plain).get_config() == config


@every_activation
@every_sharing
def test_channels_first_equals_channels_last_transposed(cls, sharing):
    if sharing == "unit":
        pytest.skip("units have no channel axis")
    last, first = built(cls, sharing), built(cls, sharing, shape=(None, 8, 4, 5), axis=1)
    x = sample()
    np.testing.assert_array_equal(
        call(last, x), call(first, x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    )


@every_activation
@every_sharing
def test_curve_equals_the_layer(cls, sharing):
    layer = built(cls, sharing)
    points = np.array([-300.0, -2.0, -0.5, 0.0, 0.25, 1.0, 7.0], "float32")
    curve = layer.curve(points)
    of_element = {
        "layer": np.zeros((4, 5, 8), int),
        "channel": np.broadcast_to(np.arange(8), (4, 5, 8)),
        2: np.broadcast_to(np.arange(8) // 4, (4, 5, 8)),
        "unit": np.arange(160).reshape(4, 5, 8),
    }[sharing]
    x = np.broadcast_to(points[:, None, None, None], (7, 4, 5, 8))
    # The layer may run its kernel, the curve runs the formula: float32 sums in another order.
    np.testing.assert_allclose(
        call(layer, x), curve[of_element].transpose(3, 0, 1, 2), rtol=1e-4, atol=1e-5
    )


@every_activation
def test_it_starts_as_it_says(cls):
    keras.utils.set_random_seed(0)
    layer = cls(sharing="layer")
    if not cls.starts_as:  # at random
        starts = cls(sharing=64), cls(sharing=64)
        for one in starts:
            one.build((None, 64))
        values = [list(one.parameters().values()) for one in starts]
        assert any((a != b).any() for a, b in zip(*values, strict=True))
        return
    x = np.append(np.linspace(-3, 3, 1001), 0).astype("float32")
    known = kla.Expression(cls.starts_as).curve(x)
    # Both round a few times in float32.
    np.testing.assert_allclose(layer.curve(x), known, rtol=2e-6, atol=cls.start_error + 2e-6)


@pytest.mark.tensorflow  # float64
@every_activation
def test_it_is_as_smooth_as_it_says(cls):
    """Where a derivative is continuous, its steps between neighbours shrink with their distance."""
    # By a little: where a derivative is e^8 the coarse steps would not be small yet.
    layer = built(cls, 2, shape=(None, 2), by=0.1, dtype="float64")

    def steps(points):
        """The largest step of the function and of its first two derivatives."""
        x = np.linspace(-4, 4, points)
        y, slope, curvature = values_and_derivatives(layer, np.repeat(x[:, np.newaxis], 2, axis=1))
        return np.array([abs(np.diff(d, axis=0)).max() for d in (y, slope, curvature)])

    coarse, fine = steps(2001), steps(2001 * 16)
    for order in range(3):
        if cls.smoothness >= order:
            assert fine[order] < max(coarse[order] / 8, 1e-9), order


def values_and_derivatives(layer, x):
    y, (slope,) = gradients(layer, x)
    _, (curvature,) = gradients(lambda t: gradient_of(layer, t), x)
    return y, slope, curvature


@every_activation
def test_formula_names_every_group(cls):
    lines = built(cls, 2).formula().splitlines()
    assert [line.split(" = ")[0] for line in lines] == ["f0(x)", "f1(x)"]
    assert built(cls).formula().startswith("f(x) = ")


@every_activation
@every_sharing
def test_saved_and_loaded_models_compute_the_same(cls, sharing, tmp_path):
    model = in_model(keras.layers.Dense(6), cls(sharing=sharing), keras.layers.Dense(2))
    randomised(model.layers[1])
    x = sample((5, 8))
    y = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), y)
    assert loaded.layers[1].get_config() == model.layers[1].get_config()

    model.save_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(clone.predict(x, verbose=0), y)


@every_activation
def test_activation_argument_of_a_layer_trains_and_reloads(cls, tmp_path):
    model = in_model(keras.layers.Dense(6, activation=cls()), keras.layers.Dense(1))
    x = sample((64, 8))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, x[:, :1], epochs=1, verbose=0)
    activation = model.layers[0].activation
    assert len(model.weights) == 4 + len(activation.weights)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for name, value in loaded.layers[0].activation.parameters().items():
        np.testing.assert_array_equal(value, activation.parameters()[name])
    assert type(loaded.layers[0].activation) is cls


@every_activation
def test_one_object_serves_two_layers_also_after_loading(cls, tmp_path):
    shared = randomised(cls(sharing="layer"))
    model = in_model(
        keras.layers.Dense(6, activation=shared), keras.layers.Dense(4, activation=shared)
    )
    x = sample((5, 8))
    y = model.predict(x, verbose=0)
    assert len(model.weights) == 4 + len(shared.weights)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), y)
    assert loaded.layers[0].activation is loaded.layers[1].activation


@every_activation
def test_functional_model_with_one_object_called_twice(cls):
    shared = cls(sharing="layer")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, shared(keras.layers.Dense(3)(shared(inputs))))
    assert model.count_params() == 27 + shared.count_params()
    assert model(sample((2, 8))).shape == (2, 3)


@every_activation
def test_subclassed_model_time_distribution_and_recurrence(cls):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.steps = keras.layers.TimeDistributed(cls())
            self.recurrent = keras.layers.LSTM(4, activation=cls())
            self.out = keras.layers.Dense(1, activation=cls())

        def call(self, x):
            return self.out(self.recurrent(self.steps(x)))

    model = Model()
    x = 0.1 * sample((6, 3, 8))  # small: a polynomial of a polynomial soon overflows
    assert model(x).shape == (6, 1)
    model.compile("adam", "mse")
    history = model.fit(x, x[:, 0, :1], verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@every_activation
def test_a_mask_passes_through(cls):
    x = np.array([[1, 2, 0, 0]])
    masked = keras.layers.Embedding(3, 8, mask_zero=True)(x)
    y = built(cls, shape=(None, 4, 8))(masked)
    mask = ops.convert_to_numpy(y._keras_mask)
    np.testing.assert_array_equal(mask, [[True, True, False, False]])


@every_activation
def test_a_map_of_policies_is_asked_by_the_layers_place(cls):
    policies = keras.dtype_policies.DTypePolicyMap()
    policies["here"] = "mixed_bfloat16"
    here, there = built(cls, name="here", dtype=policies), built(cls, name="there", dtype=policies)
    assert (here.compute_dtype, there.compute_dtype) == ("bfloat16", "float32")
    assert (here.path, there.path) == ("here", "there")


@every_activation
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(cls, policy):
    compute = policy.removeprefix("mixed_")
    layer = built(cls, dtype=policy)
    exact = cls(sharing="layer")
    for p in exact.parameter_list():
        getattr(exact, p.name).assign(layer.parameters()[p.name])
    x = ops.cast(np.array([[-300, -8, -1, -0.1, 0, 0.1, 1, 300]], "float32"), compute)
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == compute
    weight = getattr(layer, layer.parameter_list()[0].name)
    assert weight.dtype == ("float32" if policy.startswith("mixed") else compute)
    # One rounding, of the result, to the compute dtype.
    exact = exact(ops.cast(x, "float32"))
    expected = ops.cast(exact, compute)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ops.cast(y, "float32")),
        ops.convert_to_numpy(ops.cast(expected, "float32")),
    )
    largest = 65504 if compute == "float16" else MAX
    np.testing.assert_array_equal(
        np.isfinite(ops.convert_to_numpy(ops.cast(y, "float32"))),
        abs(ops.convert_to_numpy(exact)) <= largest,
    )


@every_activation
def test_float64_gradients_equal_differences(cls):
    if keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless its 64-bit mode is on")
    layer = built(cls, 2, shape=(None, 4), dtype="float64")
    x = sample((50, 4)).astype("float64")
    y, (slope,) = gradients(layer, x)
    assert y.dtype == "float64"
    # Third-order error of the difference; kinks lie between the sample's points.
    np.testing.assert_allclose(
        slope, differences(lambda t: call(layer, t), x, 1e-6), rtol=1e-6, atol=1e-7
    )
    _, (curvature,) = gradients(lambda t: gradient_of(layer, t), x)
    expected = differences(lambda t: gradients(layer, t)[1][0], x, 1e-6)
    np.testing.assert_allclose(curvature, expected, rtol=1e-5, atol=1e-6)


def gradient_of(layer, x):
    """d layer(x) / dx as a tensor, so that it can be differentiated again."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return tape.gradient(y, x)
    if backend == "jax":
        import jax

        return jax.grad(lambda t: layer(t).sum())(x)
    import torch

    return torch.autograd.grad(layer(x).sum(), x, create_graph=True)[0]


@every_activation
def test_a_frozen_layer_has_nothing_to_train(cls):
    layer = built(cls, trainable=False)
    assert layer.trainable_weights == []
    assert len(layer.non_trainable_weights) >= len(layer.parameter_list())


@every_activation
@pytest.mark.parametrize("sharing", ["layer", "channel", 2])
def test_sizes_may_be_unknown(cls, sharing):
    inputs = keras.Input((None, None, 8))
    model = keras.Model(inputs, cls(sharing=sharing)(inputs))
    assert model.output_shape == (None, None, None, 8)
    assert model(sample()).shape == (3, 4, 5, 8)
    assert model.predict(sample((1, 7, 2, 8)), verbose=0).shape == (1, 7, 2, 8)


@every_activation
@every_sharing
def test_compiled_training_moves_every_parameter_that_matters(cls, sharing):
    model = in_model(cls(sharing=sharing), keras.layers.Dense(1))
    layer = randomised(model.layers[0])
    before = layer.parameters()
    x = sample((256, 8))
    matter = {name for name in before if matters(layer, name, x)}
    model.compile(keras.optimizers.SGD(1e-4), "mse", jit_compile=True)
    model.fit(x, abs(x[:, :1]), batch_size=64, verbose=0)
    moved = {name for name, value in before.items() if np.any(layer.parameters()[name] != value)}
    assert moved == matter and matter
    assert all(np.isfinite(v).all() for v in layer.parameters().values())


@every_activation
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (5,), (7, 3), (2, 3, 1, 5, 2)])
def test_any_rank_and_size(cls, shape):
    layer = built(cls)
    assert tuple(layer(np.zeros(shape, "float32")).shape) == shape


finite_floats = st.floats(-MAX, MAX, width=32)
edges = [0.0, -0.0, 1.0, -1.0, 1e30, -1e30, MAX, -MAX, 1e-40, float("inf"), float("-inf")]


@contextlib.contextmanager
def as_written():
    """Where TensorFlow's graphs multiply and add in the order of the formula."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@functools.cache
def _compiled(cls, xla):
    """Value and gradients of a layer's function, in a graph or compiled; eager calls are slow."""
    layer = cls(sharing="layer")
    names = [p.name for p in layer.parameter_list()]

    def function(x, *values):
        return layer.function(x, **dict(zip(names, values, strict=True)))

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=xla)
        def both(*arguments):
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                y = function(*arguments)
            return y, tape.gradient(y, arguments, unconnected_gradients="zero")

    else:
        import jax

        total = jax.grad(lambda *a: function(*a).sum(), tuple(range(1 + len(names))))
        both = jax.jit(lambda *a: (function(*a), total(*a)))

    def arrays(*arguments):
        with contextlib.nullcontext() if xla else as_written():
            y, grads = both(*map(ops.convert_to_tensor, arguments))
        return ops.convert_to_numpy(y), list(map(ops.convert_to_numpy, grads))

    return arrays


# JAX has nothing but XLA.
@pytest.mark.parametrize("xla", [pytest.param(False, marks=pytest.mark.tensorflow), True])
@every_activation
@given(data=st.data())
def test_no_value_or_gradient_is_nan_over_the_whole_float_range(cls, xla, data):
    layer = cls(sharing="layer")
    names = [p.name for p in layer.parameter_list()]
    coefficients = st.one_of(finite_floats, st.floats(-8, 8, width=32), st.just(0.0))
    values = [
        np.array(
            data.draw(st.lists(coefficients, min_size=p.count, max_size=p.count)), "float32"
        ).reshape(p.count, 1)
        for p in layer.parameter_list()
    ]
    # One size: other sizes would compile anew on XLA.
    x = np.array(data.draw(st.lists(finite_floats, min_size=5, max_size=5)) + edges, "float32")

    # A column for each element: its own gradients, no sum that may overflow.
    columns = [np.repeat(v, x.size, axis=1) for v in values]
    y, grads = _compiled(cls, xla)(x, *columns)
    assert not np.isnan(y).any(), x[np.isnan(y)]
    for name, g in zip(["x", *names], grads, strict=True):
        assert not np.isnan(g).any(), (name, x[np.isnan(g).reshape(-1, x.size).any(axis=0)])


@every_activation
def test_nan_in_is_nan_out_and_infinity_is_not(cls):
    y = call(built(cls), np.array([[np.nan, 1.0, np.inf, -np.inf]], "float32"))
    np.testing.assert_array_equal(np.isnan(y), [[True, False, False, False]])


@every_activation
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sharing": "unknown"}, "sharing='unknown'"),
        ({"sharing": 0}, "sharing=0"),
        ({"sharing": True}, "sharing=True"),
        ({"axis": 0}, "batch axis"),
        ({"axis": 1.5}, "axis=1.5"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_wrong_arguments_are_named(cls, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cls(**arguments)


@every_activation
def test_wrong_shapes_are_named_with_the_way_out(cls):
    with pytest.raises(ValueError, match=r"8 channels on axis -1\. Use one of \[1, 2, 4, 8\]"):
        cls(sharing=3)(np.zeros((2, 8), "float32"))
    with pytest.raises(ValueError, match="Use an axis between -1 and 1"):
        cls(sharing="channel", axis=2)(np.zeros((2, 8), "float32"))
    with pytest.raises(ValueError, match='sharing="channel"'):
        cls(sharing="unit")(keras.Input((None, 8)))
    with pytest.raises(ValueError, match="Fix that size"):
        cls(sharing="channel")(keras.Input((8, None)))
    for sharing in ("channel", 2, "unit"):
        with pytest.raises(ValueError, match=r'input_shape=\(2, 0\).*sharing="layer"'):
            cls(sharing=sharing)(np.zeros((2, 0), "float32"))
    with pytest.raises(ValueError, match="no parameters yet"):
        cls(sharing="channel").parameters()
    layer = cls(sharing="channel")
    layer.build((None, 8))
    with pytest.raises(ValueError, match="built with 8 sets of parameters and this input needs 4"):
        layer(np.zeros((2, 4), "float32"))


def test_the_contract_covers_the_package():
    folder = os.path.dirname(kla.layers.__file__)
    modules = {f[:-3] for f in os.listdir(folder) if f.endswith(".py")} - {"__init__", "base"}
    exported = {
        c.__module__.rsplit(".", 1)[1] for c in vars(kla.layers).values() if isinstance(c, type)
    }
    assert modules <= exported
    assert len(ACTIVATIONS) >= 3
