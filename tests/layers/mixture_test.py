import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from keras_learnact.layers.mixture import Mixture
from keras_learnact.numerics import finite, weighted_sum
from tests.numeric import call, gradients

EPSILON, TINY, MAX = (float(getattr(np.finfo("float32"), n)) for n in ("eps", "tiny", "max"))

# Without subnormal numbers: processors that flush them to zero compare them as zero, too.
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@keras.saving.register_keras_serializable("tests")
def doubled(x):
    return 2 * x


def test_the_default_starts_as_half_of_the_identity_and_half_of_relu():
    layer = Mixture()
    np.testing.assert_array_equal(layer.curve([-4, 0, 4]), [[-2, 0, 4]])
    assert layer.count_params() == 2


def test_each_weight_scales_its_function():
    layer = Mixture(("linear", "relu", "tanh"), initial=(2, -3, 10))
    # At -1: -2 - 10 tanh 1. At 1: 2 - 3 + 10 tanh 1.
    expected = [[-2 - 10 * np.tanh(1), 2 - 3 + 10 * np.tanh(1)]]
    np.testing.assert_allclose(layer.curve([-1, 1]), expected, rtol=1e-6)


def test_derivatives_by_hand():
    layer = Mixture(("linear", "relu"))
    w = np.repeat(np.float32([[0.25], [0.5]]), 2, axis=1)
    _, (by_x, by_w) = gradients(layer.function, np.float32([-3, 4]), w)
    np.testing.assert_array_equal(by_x, [0.25, 0.75])
    np.testing.assert_array_equal(by_w, [[-3, 4], [0, 4]])


def test_functions_may_be_names_callables_and_layers(tmp_path):
    functions = ("relu", doubled, keras.activations.tanh, keras.layers.LeakyReLU(0.5))
    layer = Mixture(functions, initial=(1, 10, 0, 100))
    np.testing.assert_array_equal(layer.curve([-2, 1]), [[-140, 121]])
    assert layer.formula() == (
        f"f(x) = 1 relu(x) + 10 doubled(x) + 0 tanh(x) + 100 {functions[3].name}(x)"
    )
    assert Mixture.from_config(layer.get_config()).get_config() == layer.get_config()
    model = keras.Sequential([keras.Input((3,)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(loaded, np.float32([[-2, 1, 0]])), [[-140, 121, 0]])


def test_a_layer_of_half_precision_is_computed_in_the_precision_of_the_mixture():
    half = keras.layers.LeakyReLU(0.5, dtype="float16")
    # 100,000 is not a float16 number.
    np.testing.assert_array_equal(Mixture((half,)).curve([1e5]), [[1e5]])


@settings(max_examples=50)  # a few hundred small operations each
@given(x=arrays("float32", 4, elements=NUMBERS), w=arrays("float32", (3, 4), elements=NUMBERS))
def test_values_and_gradients_over_the_whole_float_range(x, w):
    y, (by_x, by_w) = gradients(Mixture(("linear", "relu", "tanh")).function, x, w)
    x, w = x.astype("float64"), w.astype("float64")
    functions = np.stack([x, np.maximum(x, 0), np.tanh(x)])
    exact, size = (w * functions).sum(axis=0), abs(w * functions).sum(axis=0)
    # 3 terms, each rounded a few times, tanh in float32; and what is flushed to zero.
    error = 12 * EPSILON * size + 4 * TINY
    fits = abs(exact) + error <= MAX
    assert (abs(y - exact)[fits] <= error[fits]).all()
    assert not np.isnan(y).any()

    smooth = size < MAX / 2  # beyond, the value has no gradient
    np.testing.assert_allclose(by_w[:, smooth], functions[:, smooth], rtol=8 * EPSILON, atol=TINY)
    derivatives = np.stack([0 * x + 1, x > 0, 1 - np.tanh(x) ** 2])
    size = abs(w).sum(axis=0)
    # 1 - tanh² is known to a few units of the last place of 1.
    fits = smooth & (size < MAX / 2)
    assert (abs(by_x - (w * derivatives).sum(axis=0)) <= 12 * EPSILON * size + TINY)[fits].all()
    assert not np.isnan(by_x).any() and not np.isnan(by_w).any()


@pytest.mark.parametrize("name", ["elu", "gelu", "selu", "silu", "softplus", "softsign", "mish"])
def test_a_weight_of_zero_switches_a_function_off_at_every_x(name):
    x = np.float32([-np.inf, -MAX, -1e20, -100, 0, 100, 1e20, MAX, np.inf])
    w = np.repeat(np.float32([[0], [1]]), len(x), axis=1)
    y, (by_x, _) = gradients(Mixture((name, "relu")).function, x, w)
    np.testing.assert_array_equal(y, np.clip(x, 0, MAX))
    np.testing.assert_array_equal(by_x[1:-1], (x > 0)[1:-1])
    assert not np.isnan(by_x).any()


def test_a_function_that_overflows_counts_as_the_largest_number():
    # e^1000 is not a float32 number.
    layer = Mixture(("exponential", "linear"), initial=(0, 1))
    np.testing.assert_array_equal(layer.curve([1000]), [[1000]])
    assert Mixture(("exponential", "linear")).curve([1000]) == MAX / 2


def test_nan_stays_nan_although_a_function_hides_it():
    # hard_shrink(nan) is 0 in Keras.
    assert np.isnan(Mixture(("hard_shrink", "hard_shrink")).curve([np.nan])).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_stays_nan(compiled):
    model = keras.Sequential([keras.Input((2,)), Mixture(("relu", "relu"))])
    model.compile(jit_compile=compiled, run_eagerly=not compiled)
    y = model.predict(np.float32([[np.nan, 2]]), verbose=0)
    np.testing.assert_array_equal(y, [[np.nan, 2]])


def test_a_sum_of_products_that_overflow_and_cancel():
    # 2^200 - 2^200 + 2^100; float32 ends at 2^128.
    weights = [np.float32([2**100]), np.float32([-(2**100)]), np.float32([2**100])]
    terms = [np.float32([2**100]), np.float32([2**100]), np.float32([1])]

    def total(*numbers):
        return weighted_sum(list(numbers[:3]), list(numbers[3:]))

    y, grads = gradients(total, *weights, *terms)
    assert y == 2.0**100
    assert all(np.isfinite(g).all() for g in grads)


def test_a_sum_that_does_not_fit_is_infinite():
    y = weighted_sum([ops.convert_to_tensor([MAX])] * 2, [ops.convert_to_tensor([1.0])] * 2)
    assert ops.convert_to_numpy(y) == np.inf


def test_finite_keeps_nan_and_every_number():
    x = np.float32([-np.inf, np.inf, np.nan, 1, -MAX])
    y, (slope,) = gradients(finite, x)
    np.testing.assert_array_equal(y, [-MAX, MAX, np.nan, 1, -MAX])
    np.testing.assert_array_equal(slope[[0, 1, 3, 4]], [0, 0, 1, 1])


def test_it_learns_the_weights_of_a_mixture():
    x = np.linspace(-2, 2, 128, dtype="float32")[:, np.newaxis]
    model = keras.Sequential([keras.Input((1,)), Mixture()])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, 0.2 * x + 0.7 * np.maximum(x, 0), epochs=40, batch_size=64, verbose=0)
    # A linear problem without noise.
    np.testing.assert_allclose(model.layers[0].parameters()["w"], [[0.2, 0.7]], atol=0.01)


def test_regularizer_and_constraint():
    layer = Mixture(initial=(3, -1), regularizer=keras.regularizers.L1(0.5), constraint="non_neg")
    assert [float(loss) for loss in layer.losses] == [2.0]
    assert type(layer.w.constraint) is keras.constraints.NonNeg
    again = Mixture.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert [float(loss) for loss in again.losses] == [2.0]


def test_formula():
    layer = Mixture(("linear", "relu"), initial=(0.25, -0.5))
    assert layer.formula() == "f(x) = 0.25 x - 0.5 relu(x)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activations": ()}, r"at least one activation.*activations=\(\)"),
        ({"activations": "relu"}, "list or tuple.*activations='relu'"),
        ({"activations": ("relu", "nonsense")}, "keras.activations.*'nonsense'"),
        ({"activations": ("relu", 3)}, "callable.*Received: 3"),
        ({"activations": ("relu", None)}, "Received: None"),
        ({"activations": (keras.layers.PReLU(name="slope"),)}, "no weights of its own.*slope"),
        ({"initial": (1, 2, 3)}, r"must be 2 number.*initial=\(1, 2, 3\)"),
        ({"initial": "nonsense"}, "nonsense"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mixture(**arguments)
