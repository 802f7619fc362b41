"""The group rational and its dense layer, against the formula of the published kernels."""

import contextlib

import keras
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf, expit

import keras_learnact as kla
from keras_learnact import PAU, RPAU, GroupKANDense, fitting, kernels, observe, verify
from tests.numeric import call, gradients

STARTS = {  # and how far the best fit of degrees (5, 4) is from them on [-3, 3]
    "identity": (lambda x: x, 1e-15),
    "linear": (lambda x: x, 1e-15),
    "swish": (lambda x: x * expit(x), 1.4e-4),  # the paper's Padé approximant, not a fit
    "gelu": (lambda x: x * (1 + erf(x / 2**0.5)) / 2, 1.3e-3),
    "relu": (lambda x: np.maximum(x, 0), 0.03),
    "tanh": (np.tanh, 4e-4),
    "sigmoid": (expit, 1e-6),
}


def published(x, numerator, denominator):
    """What the published kernels compute of [batch, length, channels], in float64.

    Element i of the flattened x is of the group (i mod channels) // (channels // groups); P by
    Horner's rule, Q with |b_k| |x|^k.
    """
    groups, flat = len(denominator), x.astype("float64").ravel()
    channels = x.shape[-1]
    group = np.arange(flat.size) % channels // (channels // groups)
    p = np.zeros_like(flat)
    for a in numerator[0, ::-1]:
        p = p * flat + a
    q = 1.0
    for k, b in enumerate(denominator.T, 1):
        q = q + abs(b[group]) * abs(flat) ** k
    return (p / q).reshape(x.shape)


def group_rational(shape, groups, cls=PAU, **kwargs):
    """Built and moved off its start, another way for each group."""
    layer = cls(sharing=groups, shared_numerator=True, **kwargs)
    layer.build((None, *shape))
    rng = np.random.default_rng(0)
    for weight in (layer.numerator, layer.denominator):
        value = keras.ops.convert_to_numpy(weight)
        weight.assign(value + rng.normal(size=value.shape, scale=0.3))
    return layer


def numbers(shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape, scale=2).astype("float32")


@pytest.mark.once
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_values_and_derivatives_are_those_of_the_published_formula(groups, compiled):
    layer = group_rational((5, 16), groups)
    x, dy = numbers((3, 5, 16)), numbers((3, 5, 16), 2)
    a, b = (keras.ops.convert_to_numpy(w) for w in (layer.numerator, layer.denominator))
    assert (a.shape, b.shape) == ((1, 6), (groups, 4))

    def loss(x, a, b):
        return layer.stateless_call([a, b], [], x)[0] * dy

    with contextlib.nullcontext() if compiled else kernels.disabled():
        y, slopes = gradients(loss, x, a, b)
    # float32 sums of at most 240 terms of size 10 against float64.
    np.testing.assert_allclose(y, published(x, a, b) * dy, rtol=1e-5, atol=1e-5)
    arguments = [x.astype("float64"), a.astype("float64"), b.astype("float64")]
    for place, slope in enumerate(slopes):
        for index in np.ndindex(slope.shape):
            values = []
            for step in (1e-6, -1e-6):
                moved = [value.copy() for value in arguments]
                moved[place][index] += step
                values.append(np.sum(published(*moved) * dy))
            expected = (values[0] - values[1]) / 2e-6
            assert slope[index] == pytest.approx(expected, rel=1e-4, abs=1e-3), (place, index)


@pytest.mark.parametrize("sharing", ["layer", "channel", 2, "unit"])
def test_one_numerator_serves_all_groups(sharing):
    layer = group_rational((3, 8), sharing)
    groups = {"layer": 1, "channel": 8, 2: 2, "unit": 24}[sharing]
    assert layer.numerator.shape == (1, 6) and layer.denominator.shape == (groups, 4)
    assert layer.count_params() == 6 + 4 * groups
    parameters = layer.parameters()
    assert {name: value.shape for name, value in parameters.items()} == {
        "numerator": (groups, 6),
        "denominator": (groups, 4),
    }
    assert (parameters["numerator"] == parameters["numerator"][0]).all()
    # The same values as with a numerator for each group, all of them equal.
    apart = PAU(sharing=sharing)
    apart.build((None, 3, 8))
    for name, value in parameters.items():
        getattr(apart, name).assign(value)
    x = numbers((2, 3, 8))
    np.testing.assert_array_equal(call(layer, x), call(apart, x))
    np.testing.assert_array_equal(layer.curve([-1.0, 2.0]), apart.curve([-1.0, 2.0]))
    assert layer.formula() == apart.formula()


def test_the_expression_the_bounds_and_the_c_code_know_the_numerator_of_every_group():
    layer = group_rational((8,), 4)
    apart = PAU(sharing=4)
    apart.build((None, 8))
    for name, value in layer.parameters().items():
        getattr(apart, name).assign(value)
    assert [layer.sympy(g) for g in range(4)] == [apart.sympy(g) for g in range(4)]
    assert layer.latex() == apart.latex()
    assert layer.to_c("f") == apart.to_c("f").replace(apart.name, layer.name)
    for mine, other in zip(layer.range(-3, 3), apart.range(-3, 3), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_randomised_group_rational_draws_every_elements_own_numerator():
    layer = group_rational((8,), 2, RPAU, noise=0.1, seed=1)
    assert layer.numerator.shape == (1, 6)
    x = np.ones((64, 8), "float32")
    exact, noisy = call(layer, x), call(layer, x, training=True)
    assert len(np.unique(noisy)) > 500  # of 512
    # Ten coefficients, each within 10 %: by the terms' sizes at most 10 % of P and of Q.
    p = abs(layer.parameters()["numerator"]).sum(axis=1).max()
    assert abs(noisy - exact).max() < 0.1 * p + 0.1 / 0.9 * abs(exact).max() + 0.1 * p


def test_the_config_says_that_the_numerator_is_shared(tmp_path):
    model = keras.Sequential([keras.Input((8,)), group_rational((8,), 2)])
    x = numbers((4, 8))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].shared_numerator and loaded.layers[0].numerator.shape == (1, 6)
    np.testing.assert_array_equal(call(loaded, x), call(model, x))
    with pytest.raises(ValueError, match="shared_numerator=1"):
        PAU(shared_numerator=1)


@pytest.mark.parametrize("name", STARTS)
def test_a_start_is_its_function_under_the_version_that_evaluates_it(name):
    exact, error = STARTS[name]
    x = np.linspace(-3, 3, 20_001)
    layer = PAU(sharing=2, shared_numerator=True, initial=name)
    layer.build((None, 4))
    start = fitting.start(name)
    powers = np.arange(6)
    p = x[:, None] ** powers @ np.array(start[0])
    q = 1 + abs(x[:, None]) ** powers[1:5] @ abs(np.array(start[1]))
    assert abs(p / q - exact(x)).max() <= error
    # Both round some times in float32, values up to 3.
    np.testing.assert_allclose(
        layer.curve(x.astype("float32")), np.stack([p / q] * 2), rtol=2e-6, atol=2e-6
    )


# The dense layer.


@pytest.mark.parametrize("name", STARTS)
def test_the_gain_is_one_over_the_second_moment(name):
    start = fitting.start(name)

    def density(x):
        y = fitting.rational(np.array([x]), *start, "A")[0]
        return y**2 * np.exp(-(x**2) / 2) / (2 * np.pi) ** 0.5

    moment = quad(density, -15, 0)[0] + quad(density, 0, 15)[0]
    gain = GroupKANDense(4, initial=name).gain()
    # The quadrature's polynomials follow what is nearly a kink, of relu, less well.
    assert gain * moment == pytest.approx(1, abs=1e-9 if name != "relu" else 1e-4)


def test_the_gain_is_that_of_the_functions_that_are_given():
    rational = PAU(initial="relu", sharing=8, shared_numerator=True)
    layer = GroupKANDense(4, rational=rational)
    assert layer.gain() == GroupKANDense(4, initial="relu").gain()
    layer.build((None, 4096))
    variance = 4096 * np.var(keras.ops.convert_to_numpy(layer.linear.kernel))
    assert variance == pytest.approx(2, rel=0.05)
    other = GroupKANDense(4, initial="gelu", rational=kla.Swish())
    assert other.gain() == GroupKANDense(4, initial="gelu").gain()


@pytest.mark.parametrize(
    ("name", "gain"), [("identity", 1), ("swish", 2.8178205), ("gelu", 2.3567850), ("relu", 2)]
)
def test_the_gain_is_near_that_of_the_published_program(name, gain):
    # Theirs is the mean of a million random numbers (0.2 % standard error), for other fits.
    assert GroupKANDense(4, initial=name).gain() == pytest.approx(gain, rel=0.006)


@pytest.mark.parametrize("name", ["identity", "swish", "gelu", "leaky_relu"])
def test_the_variance_is_kept_through_layers(name):
    keras.utils.set_random_seed(0)
    first, second = GroupKANDense(2048, initial="identity"), GroupKANDense(2048, initial=name)
    x = np.random.default_rng(0).normal(size=(256, 512)).astype("float32")
    hidden = call(first, x)
    y = call(second, hidden)
    # About 2,000 independent weights sum up to each of 2,048 outputs; over the samples they share
    # the weights: 1/√2048 is 2 %.
    assert np.mean(hidden**2) == pytest.approx(1, abs=0.03)
    assert np.mean(y**2) == pytest.approx(1, abs=0.05)
    kernel = keras.ops.convert_to_numpy(second.linear.kernel)
    assert kernel.var() * 2048 == pytest.approx(second.gain(), rel=0.005)


def test_it_is_a_group_rational_and_a_dense_layer():
    layer = GroupKANDense(5, groups=4, initial="gelu")
    x = numbers((2, 3, 8))
    y = call(layer, x)
    assert y.shape == layer.compute_output_shape(x.shape) == (2, 3, 5)
    assert layer.count_params() == 6 + 4 * 4 + 8 * 5 + 5
    pau = PAU(sharing=4, shared_numerator=True, initial="gelu")
    pau.build(x.shape)
    kernel = keras.ops.convert_to_numpy(layer.linear.kernel)
    # One product of matrices, in another order.
    np.testing.assert_allclose(y, call(pau, x) @ kernel, rtol=1e-5, atol=1e-5)
    assert observe.activation_layers(layer) == [layer.rational]
    assert layer.rational.name == f"{layer.name}_rational"


def test_it_learns_what_a_dense_layer_cannot():
    x = np.random.default_rng(0).uniform(-2, 2, (512, 2)).astype("float32")
    target = x[:, :1] ** 2 - np.cos(2 * x[:, 1:])  # a sum of two functions
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), GroupKANDense(1, groups=2, initial="identity")])
    model.compile(keras.optimizers.Adam(0.03), "mse")
    before = model.layers[0].rational.parameters()
    model.fit(x, target, epochs=60, batch_size=64, verbose=0)
    assert all((v != before[k]).any() for k, v in model.layers[0].rational.parameters().items())
    line = np.linalg.lstsq(np.c_[x, np.ones(512)], target, rcond=None)[1][0] / 512
    assert model.evaluate(x, target, verbose=0) < 0.5 * line


@pytest.mark.parametrize(
    "layer",
    [
        GroupKANDense(4),
        GroupKANDense(4, 2, "gelu", (3, 2), use_bias=False, kernel_regularizer="l2", name="here"),
        GroupKANDense(4, kernel_initializer=keras.initializers.Constant(2), trainable=False),
        GroupKANDense(4, initial=keras.ops.tanh, dtype="mixed_float16"),
        GroupKANDense(4, rational=RPAU(sharing="channel", initial="relu")),
    ],
    ids=range(5),
)
def test_a_config_gives_back_what_was_given(layer):
    config = layer.get_config()
    assert GroupKANDense.from_config(config).get_config() == config
    plain = keras.saving.serialize_keras_object(layer)
    assert keras.saving.deserialize_keras_object(plain).get_config() == config
    layer.build((None, 8))
    assert layer.get_config() == config


def test_options_reach_the_linear_layer():
    layer = GroupKANDense(
        4, kernel_initializer="ones", bias_initializer="ones", kernel_regularizer="l1"
    )
    y = call(layer, np.zeros((1, 8), "float32"))
    np.testing.assert_array_equal(y, np.ones((1, 4)))  # swish(0) is 0, so the bias remains
    assert [float(loss) for loss in layer.losses] == pytest.approx([0.01 * 32])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    layer = GroupKANDense(4, dtype=policy)
    y = layer(np.full((2, 3, 8), 2, "float32"))
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype != "float32"
    assert all(weight.dtype == "float32" for weight in layer.weights)


def mlp():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            GroupKANDense(16, 2, "identity", name="first"),
            GroupKANDense(3, 2, "swish", name="second"),
        ]
    )
    return model


def test_a_saved_model_computes_the_same(tmp_path):
    model, x = mlp(), numbers((5, 8))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert [layer.get_config() for layer in loaded.layers] == [
        layer.get_config() for layer in model.layers
    ]


def test_freezing_holds_also_after_loading(tmp_path):
    frozen = kla.freeze(mlp())
    frozen.save(tmp_path / "frozen.keras")
    loaded = keras.models.load_model(tmp_path / "frozen.keras")
    for model in (frozen, loaded):
        assert len(model.trainable_weights) == 4  # two kernels, two biases
    x = numbers((5, 8))
    np.testing.assert_array_equal(call(loaded, x), call(mlp(), x))


def test_a_rational_that_is_still_a_known_function_becomes_that(tmp_path):
    model, x = mlp(), numbers((64, 8)) / 2
    simple = kla.simplify(model, inputs=x, tolerance=0.01)
    assert [row.became for row in simple.conversion_report.changed] == ["linear", "silu"]
    assert not observe.activation_layers(simple)
    # 16 functions, each at most 0.01 off, times weights of standard deviation 0.4.
    np.testing.assert_allclose(call(simple, x), call(model, x), atol=16 * 0.01 * 0.4)
    simple.save(tmp_path / "simple.keras")
    loaded = keras.models.load_model(tmp_path / "simple.keras")
    np.testing.assert_array_equal(call(loaded, x), call(simple, x))


def test_it_is_no_activation_to_put_in():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, "relu")])
    with pytest.raises(TypeError, match="combines its inputs"):
        kla.convert(model, {"relu": lambda: GroupKANDense(8)})


def test_its_pictures_have_the_names_of_the_layers():
    model = mlp()
    assert list(kla.plotting.snapshot(model)) == ["first_rational", "second_rational"]
    panels = kla.plotting.panels(observe.named_activations(model), {}, None, 8)
    assert [panel.name for panel in panels] == ["first_rational", "second_rational"]


def test_a_history_has_the_numerator_of_every_group(tmp_path):
    model, x = mlp(), numbers((16, 8))
    kla.history.History.of(model, x).save(tmp_path / "history.npz")
    history = kla.history.History.load(tmp_path / "history.npz")
    parameters = history.moments[0].parameters["second_rational"]
    assert parameters["numerator"].shape == (2, 6)
    np.testing.assert_array_equal(
        history.layers["second_rational"].curve([-1.0, 2.0], parameters),
        model.layers[1].rational.curve([-1.0, 2.0]),
    )


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_bounds_of_a_network_hold(method):
    model, x = mlp(), numbers((3, 8))
    low, high = verify.bounds(model, x, 0.1, method=method)
    rng = np.random.default_rng(0)
    for _ in range(50):
        y = call(model, x + rng.uniform(-0.1, 0.1, x.shape).astype("float32"))
        assert (low <= y).all() and (y <= high).all()
    assert (high - low).max() < 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupKANDense(0), "units=0"),
        (lambda: GroupKANDense(4, groups=2.0), r"groups=2\.0"),
        (lambda: GroupKANDense(4, groups="channel"), "groups='channel'"),
        (lambda: GroupKANDense(4, initial=([0.0] * 6, [0.0] * 4)), "kernel_initializer"),
        (lambda: GroupKANDense(4, initial="gleu"), "gelu"),
        (lambda: GroupKANDense(4, rational="pau"), "a layer, say a PAU.*rational='pau'"),
        (
            lambda: GroupKANDense(4, 3)(np.zeros((2, 8))),
            r"multiple of 3.*Use one of \[1, 2, 4, 8\]",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_map_of_policies_is_no_trouble():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16")
    layer = GroupKANDense(3, dtype=policies)
    layer.build((None, 8))
    assert layer.compute_dtype == "bfloat16"


def test_a_mask_passes_through():
    embedded = keras.layers.Embedding(3, 8, mask_zero=True)(np.array([[1, 0]]))
    mask = GroupKANDense(3)(embedded)._keras_mask
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(mask), [[True, False]])
