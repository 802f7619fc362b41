"""Proven bounds: right by hand, never left by an attack, and tight enough to certify something."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from keras.layers import (
    Activation,
    Add,
    Average,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv1D,
    Conv2D,
    Conv3D,
    Cropping2D,
    Dense,
    DepthwiseConv1D,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    Input,
    LeakyReLU,
    MaxPooling1D,
    MaxPooling2D,
    Normalization,
    Permute,
    PReLU,
    ReLU,
    RepeatVector,
    Rescaling,
    Reshape,
    SeparableConv2D,
    Softmax,
    Subtract,
    UpSampling2D,
    ZeroPadding2D,
)

import keras_learnact as kla
from keras_learnact import expressions, verify
from tests.layers.contract_test import ACTIVATIONS, randomised
from tests.numeric import gradients

METHODS = ["ibp", "crown-ibp", "crown"]
every_method = pytest.mark.parametrize("method", METHODS)


def model_of(*layers, shape):
    return keras.Sequential([Input(shape), *layers])


def dense(kernel, bias=None, **kwargs):
    """A Dense layer with these weights, in a model of its own."""
    kernel = np.array(kernel, "float32")
    layer = Dense(kernel.shape[1], **kwargs)
    layer.build((None, kernel.shape[0]))
    layer.kernel.assign(kernel)
    if bias is not None:
        layer.bias.assign(bias)
    return layer


def numbers(shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(size=shape, scale=scale).astype("float32")


def call(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def shuffled(model, seed=0, scale=1.0):
    """Every weight a little off its start: statistics, biases and coefficients too."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "seed" in weight.name:
            continue
        value = ops.convert_to_numpy(weight)
        value = value + scale * 0.2 * rng.normal(size=value.shape)
        weight.assign(abs(value) + 0.05 if "variance" in weight.name else value)
    return model


@functools.lru_cache(maxsize=1)  # compiled once for each model
def slope(model):
    """The gradient of Σ c · model(x) with respect to x."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(jax.grad(lambda x, c: (model(x, training=False) * c).sum()))
    return lambda x, c: gradients(lambda z: model(z, training=False) * c, x)[1][0]


def attack(model, x, eps, steps=6, replicas=8, seed=0, clip=None):
    """Outputs that projected gradient ascent finds, `[steps * replicas, samples, …]`.

    Each replica pushes one random output up or down. It starts in a corner of the box.
    """
    rng = np.random.default_rng(seed)
    low, high = x.astype("float64") - eps, x.astype("float64") + eps
    if clip is not None:
        low, high = np.clip(low, *clip), np.clip(high, *clip)
    # Rounded to the nearest float32, as a user's perturbed input of float64 would be.
    low, high = (np.concatenate([side.astype("float32")] * replicas) for side in (low, high))
    z = np.where(rng.integers(0, 2, low.shape) == 1, high, low)
    y = call(model, z)
    found, ascent = [y], slope(model)
    size = y[0].size
    goals = np.zeros((len(z), size), "float32")
    goals[np.arange(len(z)), rng.integers(0, size, len(z))] = rng.choice([-1, 1], len(z))
    goals = goals.reshape(y.shape)
    for step in range(steps):
        gradient = np.asarray(ascent(z, goals))
        length = eps if step % 2 else eps / 4
        z = np.clip(z + length * np.sign(gradient), low, high).astype("float32")
        found.append(call(model, z))
    return np.concatenate(found).reshape(-1, *y.shape[1:]).reshape(-1, len(x), *y.shape[1:])


def assert_encloses(model, x, eps, **kwargs):
    """No attack leaves the bounds; lines never make them looser than intervals."""
    outputs = np.concatenate([call(model, x)[None], attack(model, x, eps, **kwargs)])
    clip = kwargs.get("clip")
    intervals = None
    for method in METHODS:
        low, high = verify.bounds(model, x, eps, method=method, clip=clip)
        assert low.dtype == high.dtype == np.float32
        assert low.shape == high.shape == outputs.shape[1:]
        # Where float32 overflows, which infinite bounds admit, a later difference may be nan.
        admitted = np.isnan(outputs) & np.isinf(low) & np.isinf(high)
        outside = ~admitted & ~((low <= outputs) & (outputs <= high))
        assert not outside.any(), (method, np.argwhere(outside)[:5])
        intervals = intervals or (low, high)
        assert (low >= intervals[0]).all() and (high <= intervals[1]).all(), method
    return low, high


# By hand.


@every_method
def test_a_dense_layer_adds_the_weights_magnitudes(method):
    model = model_of(dense([[1.0], [-2.0]], [0.5]), shape=(2,))
    low, high = verify.bounds(model, np.array([[1.0, 0.5]]), 0.1, method=method)
    # 1 - 1 + 0.5 ± (0.1 + 0.2), and a few units for rounding
    np.testing.assert_allclose([low.item(), high.item()], [0.2, 0.8], atol=2e-6)
    assert low.item() <= 0.2 and high.item() >= 0.8


def test_lines_see_that_a_difference_cancels_and_intervals_do_not():
    model = model_of(dense([[1.0, 1.0]]), dense([[1.0], [-1.0]]), shape=(1,))
    x = np.zeros((1, 1))
    low, high = verify.bounds(model, x, 1.0, method="ibp")
    np.testing.assert_allclose([low.item(), high.item()], [-2, 2], rtol=1e-5)
    low, high = verify.bounds(model, x, 1.0, method="crown-ibp")
    np.testing.assert_allclose([low.item(), high.item()], [0, 0], atol=2e-6)


def test_relu_lies_below_its_chord():
    # relu(x) - x / 2 on [-1, 1]: the chord is (x + 1) / 2, so 1/2 above; x or 0 below, so -1/2.
    # Intervals: [0, 1] - [-1/2, 1/2].
    inputs = Input((1,))
    half = dense([[0.5]], use_bias=False)
    model = keras.Model(inputs, Subtract()([ReLU()(inputs), half(inputs)]))
    low, high = verify.bounds(model, np.zeros((1, 1)), 1.0, method="ibp")
    np.testing.assert_allclose([low.item(), high.item()], [-0.5, 1.5], rtol=1e-5)
    low, high = verify.bounds(model, np.zeros((1, 1)), 1.0)
    np.testing.assert_allclose([low.item(), high.item()], [-0.5, 0.5], rtol=1e-5)


def test_a_line_above_a_kink_touches_it():
    # f = min(relu(x), 0.37) on [-1, 1]; its chord has the slope 0.185, and f less that is largest
    # at the kink, which is no end of a piece: 0.37 - 0.185 · 0.37.
    inputs = Input((1,))
    capped = ReLU(max_value=0.37)(inputs)
    model = keras.Model(inputs, Subtract()([capped, dense([[0.185]], use_bias=False)(inputs)]))
    low, high = verify.bounds(model, np.zeros((1, 1)), 1.0)
    assert 0.30155 <= high.item() <= 0.3016


@every_method
def test_a_filter_of_ones_sums_its_window(method):
    layer = Conv2D(1, 2, kernel_initializer="ones")
    model = model_of(layer, shape=(3, 3, 1))
    x = np.arange(9.0).reshape(1, 3, 3, 1)
    low, high = verify.bounds(model, x, 0.25, method=method)
    np.testing.assert_allclose(low[0, :, :, 0], [[7, 11], [19, 23]], rtol=1e-5)
    np.testing.assert_allclose(high[0, :, :, 0], [[9, 13], [21, 25]], rtol=1e-5)


@every_method
def test_maxout_and_maximum_pooling_take_the_larger_ends(method):
    x = np.array([[1.0, 5.0, -2.0, -3.0]])
    low, high = verify.bounds(model_of(kla.Maxout(2), shape=(4,)), x, 2.0, method=method)
    # The box is one float32 wider on each side, for its own rounding.
    np.testing.assert_allclose([low[0], high[0]], [[3, -4], [7, 0]], atol=5e-7)
    model = model_of(Reshape((4, 1)), MaxPooling1D(2), Flatten(), shape=(4,))
    pooled = verify.bounds(model, x, 2.0, method=method)
    np.testing.assert_array_equal(pooled, [low, high])


@every_method
def test_softmax_is_lowest_where_its_own_score_is_and_the_others_are_highest(method):
    model = model_of(Softmax(), shape=(2,))
    low, high = verify.bounds(model, np.array([[1.0, 0.0]]), 0.25, method=method)
    # p = 1 / (1 + exp(score of the other - own score))
    expected = [1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-1.5))]
    np.testing.assert_allclose([low[0, 0], high[0, 0]], expected, rtol=1e-5)
    np.testing.assert_allclose([high[0, 1], low[0, 1]], 1 - np.array(expected), rtol=1e-5)


@every_method
def test_clip_keeps_pixels_in_their_range(method):
    model = model_of(dense([[1.0], [1.0]]), shape=(2,))
    x = np.array([[0.0, 0.9]])
    low, high = verify.bounds(model, x, 0.25, method=method, clip=(0, 1))
    np.testing.assert_allclose([low.item(), high.item()], [0.65, 1.25], rtol=1e-5)


@every_method
def test_a_linear_classifier_is_certified_up_to_its_margin(method):
    # Scores x and -x: a sample x > 0 of class 0 stays so for eps < x.
    model = model_of(dense([[1.0, -1.0]]), shape=(1,))
    data = np.array([[0.1], [0.2], [0.3], [-0.4], [0.5]]), np.array([0, 0, 0, 1, 1])
    for eps, certified in [(0.0, 4), (0.15, 3), (0.25, 2), (0.35, 1), (0.45, 0)]:
        result = verify.certified_accuracy(model, data, eps, method=method)
        assert result == verify.CertifiedAccuracy(4 / 5, certified / 5, 5)


@every_method
def test_a_tie_is_not_certified(method):
    data = np.ones((3, 1)), np.zeros(3)
    # The softmax of scores that differ by 1e-9 is 0.5 and 0.5 in float32.
    for bias, end, certified in [(0.0, [], 0), (1e-9, [], 1), (1e-9, [Softmax()], 0)]:
        model = model_of(dense([[0.0, 0.0]], [bias, 0.0]), *end, shape=(1,))
        result = verify.certified_accuracy(model, data, 0.0, method=method)
        assert result == (1.0, certified, 3)


def test_a_sample_that_may_overflow_has_no_bounds_and_the_others_do():
    model = model_of(dense([[1e30]]), kla.SLAF(3), dense([[1.0]]), shape=(1,))
    low, high = verify.bounds(model, np.array([[1.0], [0.0]]), 1e-31)
    assert (low[0], high[0]) == (-np.inf, np.inf)
    assert np.isfinite([low[1], high[1]]).all()


def test_an_exact_input_has_bounds_as_wide_as_the_rounding():
    model = shuffled(model_of(Dense(16, "relu"), Dense(16, kla.PAU()), Dense(3), shape=(8,)))
    x = numbers((5, 8))
    low, high = assert_encloses(model, x, 0.0)
    # Sums of up to 16 terms of size 1: (16 + 4) 2^-24, three layers of weights.
    assert (high - low).max() < 1e-4


def test_bounds_grow_with_eps():
    model = shuffled(model_of(Dense(8, "tanh"), Dense(8, kla.PAU()), Dense(3), shape=(4,)))
    x = numbers((5, 4))
    for method in METHODS:
        nested = [verify.bounds(model, x, eps, method=method) for eps in (0.0, 0.01, 0.1, 1.0)]
        for (low, high), (wider_low, wider_high) in zip(nested, nested[1:], strict=False):
            assert (wider_low <= low).all() and (high <= wider_high).all()


def test_eps_may_differ_from_element_to_element():
    model = model_of(dense([[1.0], [1.0]]), shape=(2,))
    low, high = verify.bounds(model, np.zeros((2, 2)), np.array([[0.1, 0.0], [0.2, 0.3]]))
    np.testing.assert_allclose(high[:, 0], [0.1, 0.5], rtol=1e-5)
    np.testing.assert_allclose(low[:, 0], [-0.1, -0.5], rtol=1e-5)


# By attack.

IMAGE, VECTOR, SEQUENCE = (8, 8, 4), (12,), (10, 4)
BLOCKS = {
    "conv": (IMAGE, lambda: [Conv2D(6, 3)]),
    "conv same stride": (IMAGE, lambda: [Conv2D(6, 3, strides=2, padding="same")]),
    "conv uneven": (IMAGE, lambda: [Conv2D(6, (2, 3), strides=(3, 2), padding="same")]),
    "conv dilation": (IMAGE, lambda: [Conv2D(6, 3, dilation_rate=2, padding="same")]),
    "conv groups": (IMAGE, lambda: [Conv2D(6, 3, groups=2, use_bias=False)]),
    "conv activation": (IMAGE, lambda: [Conv2D(6, 3, activation="relu")]),
    "conv1d causal": (SEQUENCE, lambda: [Conv1D(5, 3, padding="causal", dilation_rate=2)]),
    "conv1d": (SEQUENCE, lambda: [Conv1D(5, 3, strides=2, padding="same")]),
    "conv3d": ((4, 4, 4, 2), lambda: [Conv3D(3, 2, strides=2)]),
    "depthwise": (IMAGE, lambda: [DepthwiseConv2D(3, depth_multiplier=2, padding="same")]),
    "depthwise1d": (SEQUENCE, lambda: [DepthwiseConv1D(3, strides=2)]),
    "separable": (IMAGE, lambda: [SeparableConv2D(5, 3, depth_multiplier=2)]),
    "max pooling": (IMAGE, lambda: [MaxPooling2D(2)]),
    "max pooling overlapping": (IMAGE, lambda: [MaxPooling2D(3, strides=2, padding="same")]),
    "average pooling": (IMAGE, lambda: [AveragePooling2D(3, strides=2, padding="same")]),
    "global average": (IMAGE, lambda: [GlobalAveragePooling2D(keepdims=True)]),
    "global max": (IMAGE, lambda: [GlobalMaxPooling2D()]),
    "global max 1d": (SEQUENCE, lambda: [GlobalMaxPooling1D()]),
    "batch normalization": (IMAGE, lambda: [BatchNormalization()]),
    "batch normalization axis": (IMAGE, lambda: [BatchNormalization(axis=1, center=False)]),
    "moves": (IMAGE, lambda: [ZeroPadding2D(1), Cropping2D(((2, 0), (1, 0))), Permute((3, 1, 2))]),
    "upsampling": (IMAGE, lambda: [UpSampling2D(2), Conv2D(3, 2)]),
    "repeat": (VECTOR, lambda: [RepeatVector(3), Dense(5)]),
    "scales": (IMAGE, lambda: [Rescaling(1 / 3, -0.7), Dropout(0.5)]),
    "prelu": (IMAGE, lambda: [PReLU(shared_axes=[1, 2])]),
    "prelu units": (IMAGE, lambda: [PReLU()]),
    "leaky": (IMAGE, lambda: [LeakyReLU(0.3)]),
    "negative slope": (IMAGE, lambda: [kla.RReLU(-0.5, -0.1)]),
    "capped": (IMAGE, lambda: [ReLU(max_value=1.5, negative_slope=0.1)]),
    "rrelu": (IMAGE, lambda: [kla.RReLU()]),
    "maxout": (IMAGE, lambda: [kla.Maxout(2, axis=1), kla.Maxout(4)]),
    "maxout dense": (VECTOR, lambda: [kla.MaxoutDense(5, 3)]),
    "maxout conv": (IMAGE, lambda: [kla.MaxoutConv2D(3, 2, 2, strides=2)]),
    "softmax": (VECTOR, lambda: [Dense(5, "softmax")]),
    "softmax axis": (IMAGE, lambda: [Softmax(axis=1)]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_no_attack_leaves_the_bounds_of(name):
    shape, make = BLOCKS[name]
    # An affine layer in front and behind, so that lines pass through both ways.
    model = model_of(Dense(shape[-1]), *make(), Flatten(), Dense(3), shape=shape)
    shuffled(model, scale=0.5)
    for eps in (0.001, 0.3):
        assert_encloses(model, numbers((3, *shape)), eps, steps=3)


def test_channels_first():
    first = {"data_format": "channels_first"}
    model = model_of(
        *(Conv2D(4, 3, **first), AveragePooling2D(2, **first), MaxPooling2D(2, 1, **first)),
        *(GlobalAveragePooling2D(**first), Dense(3)),
        shape=(2, 8, 8),
    )
    assert_encloses(shuffled(model), numbers((3, 2, 8, 8)), 0.1)


@pytest.mark.parametrize("cls", ACTIVATIONS, ids=lambda c: c.__name__)
def test_no_attack_leaves_the_bounds_of_learned(cls):
    keras.utils.set_random_seed(0)
    activation = randomised(cls(sharing="layer"))
    model = model_of(Dense(8), activation, Dense(8), activation, Dense(3), shape=(6,))
    x = numbers((8, 6), scale=0.5)
    for eps in (0.001, 0.3):
        assert_encloses(model, x, eps)


@pytest.mark.parametrize("sharing", ["channel", 2, "unit"])
def test_groups_have_their_own_bounds(sharing):
    activation = kla.PAU(sharing=sharing)
    model = model_of(Conv2D(4, 3), activation, Flatten(), Dense(3), shape=(4, 4, 1))
    randomised(activation)
    assert_encloses(model, numbers((4, 4, 4, 1)), 0.2)


@pytest.mark.parametrize("name", expressions.KERAS)
def test_no_attack_leaves_the_bounds_of_keras(name):
    model = model_of(Dense(8), Activation(name), Dense(8, name), Dense(3), shape=(6,))
    shuffled(model)
    for eps in (0.001, 0.5):
        assert_encloses(model, numbers((8, 6)), eps)


def test_skips_shared_layers_and_models_in_models():
    inputs = Input((6,))
    shared = Dense(6, kla.PAU())
    inner_inputs = Input((6,))
    inner = keras.Model(inner_inputs, Add()([Dense(6, "tanh")(inner_inputs), inner_inputs]))
    a = shared(inputs)
    b = shared(inner(a))
    c = Concatenate()([a, b, inner(b) - a])
    d = Average()([Dense(4)(c), model_of(Dense(4, "relu"), shape=(18,))(c)])
    model = keras.Model(inputs, Dense(3)(d + Dense(4)(inputs)))
    assert_encloses(shuffled(model, scale=0.3), numbers((6, 6)), 0.1)


def test_several_inputs_and_outputs():
    left, right = Input((3,), name="left"), Input((2,), name="right")
    both = Concatenate()([left, right])
    model = keras.Model(
        {"left": left, "right": right}, {"sum": Dense(2, "relu")(both), "same": right}
    )
    x = {"left": numbers((4, 3)), "right": numbers((4, 2), seed=1)}
    low, high = verify.bounds(model, x, {"left": 0.1, "right": 0.2})
    assert set(low) == set(high) == {"sum", "same"}
    np.testing.assert_allclose(high["same"] - low["same"], np.full((4, 2), 0.4), rtol=1e-5)
    y = ops.convert_to_numpy(model(x)["sum"])
    assert (low["sum"] <= y).all() and (y <= high["sum"]).all()
    listed = keras.Model([left, right], [Dense(2)(both), right])
    low, high = verify.bounds(listed, [x["left"], x["right"]], [0.1, 0.2])
    assert [side.shape for side in low] == [(4, 2), (4, 2)]


def test_statistics_of_the_data():
    layer = Normalization()
    x = numbers((50, 4), scale=3)
    layer.adapt(x)
    assert_encloses(model_of(layer, Dense(3), shape=(4,)), x, 0.1)
    inverse = Normalization(mean=1.0, variance=4.0, invert=True)
    assert_encloses(model_of(inverse, Dense(3), shape=(4,)), x, 0.1)


def random_model(seed):
    """A network of random layers, and its inputs."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)

    def pick(*choices):
        return choices[rng.integers(len(choices))]

    def activation():
        if rng.random() < 0.5:
            return pick(*ACTIVATIONS)(sharing="layer")
        return Activation(pick("relu", "tanh", "gelu", "silu", "elu", "softplus", "sigmoid"))

    size = int(rng.integers(6, 10))
    inputs = x = Input((size, size, 2))
    for _ in range(rng.integers(1, 3)):
        x = Conv2D(
            4,
            int(rng.integers(1, 4)),
            strides=int(rng.integers(1, 3)),
            padding=pick("same", "valid") if x.shape[1] > 3 else "same",
            groups=pick(1, 2),
        )(x)
        x = pick(lambda v: v, lambda v: BatchNormalization()(v))(x)
        x = activation()(x)
        x = pick(
            lambda v: v,
            lambda v: MaxPooling2D(2, padding="same")(v),
            lambda v: AveragePooling2D(2, padding="same")(v),
            lambda v: Add()([v, Conv2D(4, 3, padding="same")(v)]),
            lambda v: kla.Maxout(2)(Concatenate()([v, Conv2D(4, 1)(v)])),
        )(x)
    x = pick(Flatten(), GlobalAveragePooling2D(), GlobalMaxPooling2D())(x)
    x = activation()(Dense(6)(x))
    outputs = pick(Dense(3), Dense(3, "softmax"), kla.MaxoutDense(3))(x)
    model = shuffled(keras.Model(inputs, outputs), seed, scale=rng.choice([0.0, 0.3]))
    return model, rng.normal(size=(2, size, size, 2)).astype("float32"), rng


@pytest.mark.once
@pytest.mark.parametrize("seed", range(32))
def test_no_attack_leaves_the_bounds_of_a_random_network(seed):
    model, x, rng = random_model(seed)
    eps = float(10 ** rng.uniform(-4, -0.5))
    clip = (-2.0, 2.0) if rng.random() < 0.3 else None
    x = x if clip is None else np.clip(x, *clip)
    assert_encloses(model, x, eps, steps=4, seed=seed, clip=clip)


# float32.


def bounds_of(function, x, eps=0.0):
    """The bounds of a function of keras.Input and what the model gives, both for x."""
    inputs = Input(x.shape[1:])
    model = keras.Model(inputs, function(inputs))
    low, high = verify.bounds(model, x, eps)
    return low, call(model, x), high


@pytest.mark.parametrize("number", [1e-40, -1e-40])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: MaxPooling2D(2),
        lambda: MaxPooling2D(3, 1),
        lambda: GlobalMaxPooling2D(),
        lambda: kla.Maxout(2),
        lambda: Activation("relu6"),
        lambda: LeakyReLU(0.2),
        lambda: LeakyReLU(1e30),
        lambda: PReLU(alpha_initializer=keras.initializers.Constant(1e30)),
    ],
)
def test_denormal_numbers_may_count_as_zero(layer, number):
    x = np.full((1, 4, 4, 2), number, "float32")
    low, y, high = bounds_of(lambda inputs: layer()(inputs), x)
    assert ((low <= y) & (y <= high)).all()
    # What one backend flushes another may keep.
    assert (low <= min(number, 0)).all() and (high >= 0).all()


def test_any_number_that_counts_as_zero_may_be_the_maximum():
    x = np.array([[-1e-40, 0.0]], "float32")
    low, _, _ = bounds_of(lambda inputs: kla.Maxout(2)(inputs), x)
    assert low.item() <= -1e-40


def test_the_cap_of_a_relu_is_a_float32():
    _, high = verify._Hinge(0, 0.7).interval(np.array([5.0]), np.array([6.0]))
    assert high.item() == float(np.float32(0.7))


@pytest.mark.parametrize("name", expressions.KERAS)
def test_a_function_of_keras_keeps_its_bounds_for_every_float32(name):
    rng = np.random.default_rng(0)
    x = np.concatenate([
        rng.normal(size=4000) * 3,
        rng.uniform(-100, 100, 2000),
        rng.choice([-1, 1], 4000) * np.exp2(rng.uniform(-149, 128, 4000)),
    ]).astype("float32")  # fmt: skip
    low, high = verify._ElementWise(verify._of_keras(name)).interval((x.astype(float),) * 2)
    y = ops.convert_to_numpy(keras.activations.get(name)(ops.convert_to_tensor(x)))
    overflows = np.isinf(low) & np.isinf(high)
    assert (overflows | ((low <= y) & (y <= high))).all()
    assert not overflows[abs(x) < 80].any()  # exp does from 88 on


def test_bounds_do_not_depend_on_the_dtype_policy():
    model = model_of(Activation("gelu", dtype="float32"), shape=(3,))
    x = numbers((20, 3))
    expected = verify.bounds(model, x, 0.1)
    verify._of_keras.cache_clear()
    before = kla.Mixture().name
    keras.config.set_dtype_policy("bfloat16")
    try:
        np.testing.assert_array_equal(verify.bounds(model, x, 0.1), expected)
    finally:
        keras.config.set_dtype_policy("float32")
        verify._of_keras.cache_clear()
    # No layer was made for it: the next one of a kind has the next number.
    number = int(before.rpartition("_")[2]) if before != "mixture" else 0
    assert kla.Mixture().name == f"mixture_{number + 1}"


# Operations of a functional model.


@pytest.mark.parametrize(
    "function, expected",
    [
        (lambda x: x + 1.5, [2.5, -0.5]),
        (lambda x: 1 - x, [0, 3]),
        (lambda x: x - np.array([[1, 2]], "float32"), [0, -4]),
        (lambda x: x - Rescaling(3.0)(x), [-2, 4]),
        # Not in the order in which they are named.
        (lambda x: type(ops_subtract())()(x2=Rescaling(3.0)(x), x1=x), [-2, 4]),
        (lambda x: ops.relu(x), [1, 0]),
        (lambda x: ops.tanh(x), np.tanh([1, -2])),
        (lambda x: ops.softplus(x), np.log1p(np.exp([1, -2]))),
    ],
)
def test_operations_are_known(function, expected):
    x = np.array([[1.0, -2.0]], "float32")
    low, y, high = bounds_of(function, x)
    assert ((low <= y) & (y <= high)).all()
    # Some ten units of numbers up to 6.
    np.testing.assert_allclose([low[0], high[0]], [expected, expected], atol=2e-5)
    low, _, high = bounds_of(function, x, 0.1)
    # No slope here is above 2.
    assert (high - low <= 0.41).all()


def ops_subtract():
    return (Input((1,)) - Input((1,)))._keras_history.operation


# Certified accuracy.


@pytest.fixture(scope="module")
def trained():
    """Two small networks that know the digits, and digits they have not seen."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    keras.utils.set_random_seed(0)
    penalty = {"kernel_regularizer": keras.regularizers.L1(3e-4)}
    models = {
        "dense": model_of(
            Dense(24, **penalty), kla.PAU(), Dense(10, "softmax", **penalty), shape=(64,)
        ),
        "convolution": model_of(
            *(Reshape((8, 8, 1)), Conv2D(6, 3, **penalty), kla.PAU(), AveragePooling2D(2)),
            *(Flatten(), Dense(10, "softmax", **penalty)),
            shape=(64,),
        ),
    }
    for model in models.values():
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        model.fit(images[:1500], labels[:1500], epochs=12, batch_size=64, verbose=0)
    return models, images[1500:1560], labels[1500:1560]


def survives(model, x, labels, eps, steps=8):
    """Which samples keep their class under an attack on the label's probability."""
    ascent = slope(model)
    goals = -np.eye(10, dtype="float32")[labels]
    low, high = np.clip(x - eps, 0, 1), np.clip(x + eps, 0, 1)
    right = call(model, x).argmax(-1) == labels
    z = np.random.default_rng(0).uniform(low, high).astype("float32")
    for _ in range(steps):
        z = np.clip(z + eps / 2 * np.sign(np.asarray(ascent(z, goals))), low, high)
        z = z.astype("float32")
        right &= call(model, z).argmax(-1) == labels
    return right


@pytest.mark.parametrize("name", ["dense", "convolution"])
def test_what_is_certified_survives_every_attack(trained, name):
    models, x, labels = trained
    for eps in (0.01, 0.03, 0.1):
        ibp, crown = (
            verify.certified_accuracy(models[name], (x, labels), eps, method=m, clip=(0, 1))
            for m in ("ibp", "crown")
        )
        attacked = survives(models[name], x, labels, eps).mean()
        assert ibp.accuracy == crown.accuracy > 0.85
        assert ibp.certified <= crown.certified <= attacked <= crown.accuracy
        if eps == 0.01:
            assert crown.certified > 0.7
        if eps == 0.03:
            assert crown.certified > ibp.certified


def test_every_kind_of_dataset_gives_the_same(trained):
    models, x, labels = trained
    model, eps = models["dense"], 0.03
    whole = verify.certified_accuracy(model, (x, labels), eps)
    assert whole.count == 60 and 0 < whole.certified < whole.accuracy
    batches = [(x[i : i + 7], labels[i : i + 7]) for i in range(0, 60, 7)]
    one_hot = np.eye(10)[labels]
    for dataset in (
        (x, labels[:, None]),
        (x, one_hot),
        [x, labels],
        batches,
        iter(batches),
        [(ops.convert_to_tensor(a), ops.convert_to_tensor(b)) for a, b in batches],
    ):
        assert verify.certified_accuracy(model, dataset, eps, batch_size=11) == whole


@pytest.mark.tensorflow
def test_a_dataset_of_tensorflow(trained):
    import tensorflow as tf

    models, x, labels = trained
    dataset = tf.data.Dataset.from_tensor_slices((x, labels)).batch(16)
    model = models["dense"]
    assert verify.certified_accuracy(model, dataset, 0.03) == verify.certified_accuracy(
        model, (x, labels), 0.03
    )


# Wrong use.


class OwnCall(Dense):
    def call(self, inputs, training=None):
        return -super().call(inputs)


class OwnModel(keras.Model):
    def call(self, x):
        return x


class OwnActivation(kla.PAU):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training)


class OwnOperation(keras.Operation):
    """Its name is that of another."""

    def call(self, a, b):
        return a - b

    def compute_output_spec(self, a, b):
        return keras.KerasTensor(a.shape, a.dtype)


OwnOperation.__name__ = "Add"


def functional(function, **kwargs):
    inputs = Input((3,), **kwargs)
    return keras.Model(inputs, function(inputs))


def inner_of(dtype):
    return functional(Rescaling(2.0), dtype=dtype)


def small():
    return model_of(Dense(2), shape=(3,))


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        (lambda: keras.Sequential([Dense(2)]), {}, "not built"),
        (OwnModel, {}, "OwnModel"),
        (lambda: Dense(2), {}, "must be a Keras model"),
        (lambda: model_of(OwnCall(2, name="mine"), shape=(3,)), {}, "OwnCall 'mine'"),
        (lambda: model_of(OwnActivation(), shape=(3,)), {}, "has a `call` of its own"),
        (lambda: model_of(Dense(2, OwnActivation()), shape=(3,)), {}, "has a `call` of its own"),
        (lambda: functional(lambda x: OwnOperation()(x, x)), {}, r"through Add '.*verify_test.Add"),
        (lambda: model_of(kla.Mixture((lambda x: x * 2,)), shape=(3,)), {}, "of <lambda> SymPy"),
        (
            lambda: functional(lambda x: Softmax()(x, mask=np.array([[True, False, True]]))),
            {},
            "Received: mask",
        ),
        (
            lambda: functional(lambda x: Softmax()(x, np.array([[True, False, True]]))),
            {},
            "Received: mask",
        ),
        (
            lambda: functional(lambda x: Add()([x, np.ones((1, 3), "float32")])),
            {},
            "more than outputs of other layers. Received: a constant in `inputs`",
        ),
        (lambda: functional(lambda x: x + np.ones((2, 3), "float32")), {}, "with one sample"),
        (lambda: functional(lambda x: x + np.ones(3, "int32")), {}, "or float32 arrays"),
        (lambda: functional(Rescaling(2.0), dtype="float16"), {}, "float16. Build it with"),
        (lambda: functional(Rescaling(2.0), dtype="uint8"), {}, "of dtype uint8"),
        (lambda: functional(inner_of("float16")), {}, "of dtype float16"),
        (
            lambda: model_of(keras.layers.LayerNormalization(), shape=(3,)),
            {},
            "through LayerNormalization",
        ),
        (lambda: model_of(Dense(2, lambda x: x), shape=(3,)), {}, "activation without known"),
        (lambda: model_of(Dense(2, dtype="mixed_float16"), shape=(3,)), {}, "mixed_float16"),
        (lambda: model_of(ReLU(threshold=1.0), shape=(3,)), {}, "threshold=1.0"),
        (lambda: model_of(keras.layers.ELU(2.0), shape=(3,)), {}, "alpha=2.0"),
        (small, {"eps": -0.1}, "`eps` must be finite and >= 0"),
        (small, {"eps": float("nan")}, "`eps` must be finite and >= 0"),
        (small, {"eps": np.zeros(2)}, r"eps of shape \(2,\)"),
        (small, {"x": np.zeros((1, 4))}, r"has the shape \(None, 3\)"),
        (small, {"x": np.zeros(3)}, r"Received: shape \(3,\)"),
        (small, {"x": np.zeros((0, 3))}, "at least one sample"),
        (small, {"x": np.full((1, 3), np.nan)}, "finite numbers"),
        (small, {"method": "magic"}, "method='magic'"),
        (small, {"clip": (1, 0)}, r"`clip` must be two numbers"),
        (small, {"clip": (0.5, 1)}, "must lie in the range"),
    ],
)
def test_wrong_use_of_bounds_is_named(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        verify.bounds(make(), **{"x": np.zeros((1, 3)), "eps": 0.1, **arguments})


@pytest.mark.parametrize(
    "make, dataset, message",
    [
        (small, (np.zeros((2, 3)), np.zeros(3)), "as many labels as samples"),
        (small, (np.zeros((2, 3)), np.array([0, 2])), "from 0 to 1"),
        (small, (np.zeros((2, 3)), np.array([0, 0.5])), "from 0 to 1"),
        (small, (np.zeros((2, 3)), np.zeros((2, 3))), "Labels must be integers"),
        (small, [np.zeros((2, 3))], "iterable of such batches"),
        (small, [], "at least one sample"),
        (small, (np.zeros((0, 3)), np.zeros(0)), "at least one sample"),
        (lambda: model_of(Dense(1), shape=(3,)), (np.zeros((2, 3)), np.zeros(2)), "classes >= 2"),
    ],
)
def test_wrong_use_of_certified_accuracy_is_named(make, dataset, message):
    with pytest.raises(ValueError, match=message):
        verify.certified_accuracy(make(), dataset, 0.1)
