import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import keras_learnact as kla
from keras_learnact.layers.prelu import PReLU, prelu
from tests.numeric import call, gradients

EPSILON, TINY, MAX = (float(getattr(np.finfo("float32"), n)) for n in ("eps", "tiny", "max"))
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


def test_it_starts_with_a_quarter_of_what_is_negative():
    np.testing.assert_array_equal(PReLU(sharing="layer").curve([-4, 0, 3]), [[-1, 0, 3]])


def test_it_has_one_slope_for_each_channel_where_keras_has_one_for_each_pixel():
    counts = []
    for layer in (keras.layers.PReLU(), PReLU(), PReLU(sharing="layer")):
        model = keras.Sequential([keras.Input((26, 26, 1)), keras.layers.Conv2D(32, 3), layer])
        counts.append(model.layers[1].count_params())
    assert counts == [24 * 24 * 32, 32, 1]


def test_derivatives_by_hand_also_at_the_kink():
    x = np.float32([-3, -0.0, 0, 2])
    _, (by_x, by_alpha) = gradients(prelu, x, np.full(4, 0.5, "float32"))
    np.testing.assert_array_equal(by_x, [0.5, 0.5, 0.5, 1])  # the paper's x > 0 leaves 0 below
    np.testing.assert_array_equal(by_alpha, [-3, 0, 0, 0])


def test_it_computes_what_keras_prelu_does_with_the_same_slopes():
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype("float32")
    theirs, ours = keras.layers.PReLU(shared_axes=[1, 2]), PReLU()
    theirs.build(x.shape), ours.build(x.shape)
    slopes = np.float32([0.1, -2, 3])
    theirs.alpha.assign(slopes.reshape(1, 1, 3))
    ours.alpha.assign(slopes.reshape(3, 1))
    np.testing.assert_array_equal(call(ours, x), call(theirs, x))


def test_it_takes_the_place_of_keras_prelu_and_of_leaky_relu():
    layers = [keras.layers.PReLU(), keras.layers.Dense(3), keras.layers.LeakyReLU(0.25)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    x = np.random.default_rng(0).normal(size=(9, 8, 8, 3)).astype("float32")
    converted = kla.convert(
        model, {keras.layers.PReLU: PReLU, "leaky_relu": lambda: PReLU(sharing="layer")}, inputs=x
    )
    assert [type(layer) for layer in converted.layers] == [PReLU, keras.layers.Dense, PReLU]
    # 3 slopes instead of 192, and 1 instead of none.
    assert [row.parameters for row in converted.conversion_report.changed] == [3 - 192, 1]
    converted.layers[0].alpha.assign(np.zeros((3, 1)))  # where Keras' start
    np.testing.assert_allclose(converted.predict(x, verbose=0), model.predict(x, verbose=0))


def test_what_it_has_learned_is_frozen_or_simplified_as_any_other():
    model = keras.Sequential([keras.Input((2,)), PReLU(initial=0.3)])
    frozen, simple = kla.freeze(model), kla.simplify(model)
    assert not frozen.trainable_weights and not simple.trainable_weights
    assert type(frozen.layers[0]) is PReLU
    x = np.float32([[-2, 3]])
    np.testing.assert_allclose(simple.predict(x, verbose=0), [[-0.6, 3]], rtol=1e-5)


@given(x=arrays("float32", 9, elements=NUMBERS), alpha=arrays("float32", 9, elements=NUMBERS))
def test_values_and_gradients_over_the_whole_float_range(x, alpha):
    y, (by_x, by_alpha) = gradients(prelu, x, alpha)
    x, alpha = x.astype("float64"), alpha.astype("float64")
    exact = np.maximum(x, 0) + alpha * np.minimum(x, 0)  # the paper's other form of Eq. 1
    fits = abs(exact) <= MAX
    # One rounding; what is below the normal numbers may be flushed to 0.
    np.testing.assert_allclose(y[fits], exact[fits], rtol=EPSILON, atol=TINY)
    assert np.isinf(y[~fits]).all()
    np.testing.assert_array_equal(by_x, np.where(x > 0, 1, alpha))
    np.testing.assert_array_equal(by_alpha, np.minimum(x, 0))


@pytest.mark.parametrize("alpha", [0.0, -3.0])
@pytest.mark.parametrize("way", ["formula", "kernel"])
def test_infinities_and_nan(alpha, way):
    layer = PReLU(initial=alpha, sharing="layer")
    x = np.float32([-np.inf, np.inf, np.nan])
    y = layer.curve(x)[0] if way == "formula" else call(layer, x[:, np.newaxis])[:, 0]
    np.testing.assert_array_equal(y, [0 if alpha == 0 else np.inf, MAX, np.nan])


def test_formula():
    assert PReLU(0.1, sharing="layer").formula() == "f(x) = max(0, x) - 0.1 max(0, -x)"
    assert PReLU(-2, sharing="layer").formula() == "f(x) = max(0, x) + 2 max(0, -x)"


def test_regularizer_and_constraint():
    layer = PReLU(0.5, sharing="layer", regularizer=keras.regularizers.L1(0.5), constraint="NonNeg")
    assert float(layer.losses[0]) == 0.25
    assert PReLU.from_config(layer.get_config()).get_config() == layer.get_config()


def test_a_wrong_start_is_named():
    with pytest.raises(ValueError, match=r"`initial` must be 1 number.*initial=\(1, 2\)"):
        PReLU((1, 2))
