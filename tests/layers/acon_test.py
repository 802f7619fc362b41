import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops
from scipy import special

from keras_learnact import kernels
from keras_learnact.layers.acon import ACONC, GATES, Swish, smooth_maximum
from tests.numeric import call, gradients

EPSILON, TINY, MAX = (float(getattr(np.finfo("float32"), n)) for n in ("eps", "tiny", "max"))

# Without subnormal numbers: processors that flush them to zero compare them as zero, too.
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
every_gate = pytest.mark.parametrize("gate", list(GATES))


def of_paper(x, p1, p2, beta, gate):
    """The papers' formulas in NumPy: Ma et al., Table 1; Biswas et al., of which this is SMU."""
    d = p1 - p2
    if gate == "logistic":
        return d * x * special.expit(beta * d * x) + p2 * x
    return ((p1 + p2) * x + d * x * special.erf(beta * d * x)) / 2


def test_they_start_as_silu():
    x = np.float32([-4, -1, 0, 2])
    silu = x / (1 + np.exp(-x))
    for layer in (Swish(), ACONC(sharing="layer")):
        np.testing.assert_allclose(layer.curve(x), [silu], rtol=1e-6)


def test_acon_by_hand():
    layer = ACONC(initial=(2, 1, math.log(3)), sharing="layer")
    # At 1 the gate is σ(log 3) = 3/4, at -1 it is 1/4: 3/4 + 1 and -1/4 - 1.
    np.testing.assert_allclose(layer.curve([-1, 0, 1]), [[-1.25, 0, 1.75]], rtol=1e-6)


def test_beta_turns_a_maximum_into_a_line_and_into_a_minimum():
    x = np.float32([-3, 2])
    for beta, y in ((1e4, [-1.5, 2]), (0, [-2.25, 1.5]), (-1e4, [-3, 1])):
        layer = ACONC(initial=(1, 0.5, beta), sharing="layer")
        np.testing.assert_array_equal(layer.curve(x), [y])


def test_derivatives_by_hand():
    # x = 3, p1 = 2, p2 = 4. At beta = 0 the gate is 1/2, its derivative 1/4: of the square of the
    # distance between the lines, which is -6.
    arguments = np.float32([[3], [2], [4], [0]])
    y, grads = gradients(lambda *a: smooth_maximum(*a, "logistic"), *arguments)
    assert (y, *grads) == (9, 3, 1.5, 1.5, 36 / 4)


@pytest.mark.tensorflow  # float64
@every_gate
def test_values_and_all_derivatives_are_those_of_the_papers_formula(gate):
    rng = np.random.default_rng(0)
    arguments = rng.normal(size=(4, 500), scale=2)
    arguments[1:, :50] *= rng.random((3, 50)) < 0.7  # some are 0
    y, grads = gradients(lambda *a: smooth_maximum(*a, gate), *arguments)
    # A few roundings, of products of up to some hundred.
    np.testing.assert_allclose(y, of_paper(*arguments, gate), rtol=1e-13, atol=1e-13)
    for i, grad in enumerate(grads):
        step = 1e-5 * np.eye(4)[i][:, None]
        moved = [of_paper(*(arguments + sign * step), gate) for sign in (1, -1)]
        quotient = (moved[0] - moved[1]) / 2e-5
        # The difference's third-order error, with third derivatives of up to some thousand.
        np.testing.assert_allclose(grad, quotient, rtol=1e-6, atol=1e-6)


@every_gate
@settings(max_examples=50)  # a few hundred small operations each
@given(arguments=arrays("float32", (4, 8), elements=NUMBERS))
def test_values_and_gradients_over_the_whole_float_range(gate, arguments):
    y, grads = gradients(lambda *a: smooth_maximum(*a, gate), *arguments)
    x, p1, p2, beta = arguments.astype("float64")
    with np.errstate(over="ignore"):
        exact, size = of_paper(x, p1, p2, beta, gate), np.maximum(abs(p1 * x), abs(p2 * x))
        # u G(u) has slopes of up to 1.2: u is rounded three times, the lines a few times. What is
        # flushed to zero before a slope multiplies it counts, too, and d x that overflows.
        error = 16 * EPSILON * size + 8 * TINY * (1 + abs(p1) + abs(p2) + abs(x))
    known = (abs(beta) >= 1e-36) | (size < MAX / 4)
    known &= (abs(beta) <= 1e36) | (size > 1)
    fits = known & (abs(exact) + error <= MAX)
    assert (abs(y - exact)[fits] <= error[fits]).all()
    assert not np.isnan(y).any()
    assert not any(np.isnan(g).any() for g in grads)


@pytest.mark.tensorflow
@every_gate
def test_a_graph_that_moves_constants_computes_the_same(gate):
    import tensorflow as tf

    def both(*arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            y = smooth_maximum(*arguments, gate)
        return y, *tape.gradient(y, arguments)

    x = np.float32([MAX, -MAX, 1e30, 2])
    arguments = [tf.constant(x), *(tf.constant(np.full_like(x, number)) for number in (1, 0, 1))]
    for plain, graph in zip(both(*arguments), tf.function(both)(*arguments), strict=True):
        np.testing.assert_allclose(graph, plain, rtol=1e-6)


def test_where_there_is_no_erf_it_is_a_fit_with_all_digits():
    v = np.append(np.linspace(0, 9, 901), [1e3, 1e30, np.nan]).astype("float32")
    with kernels.portable():
        y = ops.convert_to_numpy(GATES["normal"](ops.convert_to_tensor(v)))
    # Some roundings, and that of v² in the exponent.
    exact = special.erfc(v.astype("float64"))
    np.testing.assert_allclose(y, exact, rtol=2e-5, atol=TINY)
    np.testing.assert_allclose(y[v < 1], exact[v < 1], rtol=1e-6)


def test_infinities_and_nan():
    x = np.float32([-np.inf, np.inf, np.nan])
    for layer in (Swish(), ACONC(sharing="layer")):
        y = call(layer, x)
        np.testing.assert_array_equal(y, np.float32([0, MAX, np.nan]))


def test_the_authors_random_start():
    normal = keras.initializers.RandomNormal
    layer = ACONC(initial=(normal(0, 1, seed=1), normal(0, 1, seed=2), 1))
    layer.build((None, 5, 2000))
    p1, p2, beta = layer.parameters().values()
    assert layer.count_params() == 3 * 2000
    # 2000 numbers: the standard error of the mean and of the deviation is about 0.02.
    assert abs(p1.mean()) < 0.1 and abs(p2.std() - 1) < 0.1 and (beta == 1).all()
    again = ACONC.from_config(layer.get_config())
    again.build((None, 5, 2000))
    np.testing.assert_array_equal(again.parameters()["p1"], p1)


def test_a_slope_is_learned():
    x = np.linspace(-4, 4, 256, dtype="float32")[:, np.newaxis]
    y = x / (1 + np.exp(-2.5 * x))
    model = keras.Sequential([keras.Input((1,)), Swish()])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, y, epochs=60, batch_size=64, verbose=0)
    assert model.layers[0].parameters()["beta"] == pytest.approx(2.5, abs=0.1)


def test_regularizer_and_constraint_are_of_beta():
    layer = Swish(initial=-3, regularizer=keras.regularizers.L2(0.1), constraint="non_neg")
    assert [float(loss) for loss in layer.losses] == pytest.approx([0.9])
    assert type(layer.beta.constraint) is keras.constraints.NonNeg
    again = Swish.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_formulas():
    assert Swish(initial=0.5).formula() == "f(x) = x sigmoid(0.5 x)"
    layer = ACONC(initial=(1, -0.5, 2), sharing="layer")
    assert layer.formula() == "f(x) = 1.5 x sigmoid(3 x) - 0.5 x"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Swish(initial=(1, 2)), r"initial=\(1, 2\)"),
        (lambda: Swish(initial=float("inf")), "must be finite"),
        (lambda: ACONC(initial=1.0), r"numbers.*\(p1, p2, beta\).*initial=1\.0"),
        (lambda: ACONC(initial=(1, 0)), r"initial=\(1, 0\)"),
        (lambda: ACONC(initial=(1, 0, None)), r"initial\[2\]=None"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
