import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from keras_learnact.layers.apl import APL, apl
from tests.numeric import call, differences, gradients

EPSILON, TINY, MAX = (float(getattr(np.finfo("float32"), n)) for n in ("eps", "tiny", "max"))

# Without subnormal numbers: processors that flush them to zero compare them as zero, too.
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


def column(*numbers, dtype="float32"):
    """One number for each hinge, in the shape that `apl` takes."""
    return np.array(numbers, dtype)[:, np.newaxis]


def test_it_starts_as_relu_with_its_hinges_apart():
    layer = APL(num_hinges=2, sharing="layer")
    np.testing.assert_array_equal(layer.curve([-2, 0, 3]), [[0, 0, 3]])
    # The quartiles of a normal distribution lie 0.6745 standard deviations, here of 0.5, from 0.
    np.testing.assert_allclose(layer.parameters()["hinges"], [[-0.33724, 0.33724]], atol=1e-5)
    np.testing.assert_array_equal(APL(1, sharing="layer").parameters()["hinges"], [[0]])


def test_a_hinge_adds_its_slope_times_the_distance_below_its_position():
    layer = APL(num_hinges=2, initial=((0.5, -1), (1, -2)), sharing="layer")
    # At -3: 0.5 * 4 - 1 * 1. At 0: 0.5 * 1. At 2 both hinges are closed.
    np.testing.assert_array_equal(layer.curve([-3, 0, 2]), [[1, 0.5, 2]])


def test_derivatives_by_hand():
    x = np.array([-3, 0, 2], "float32")
    slopes = np.repeat(column(0.5, -1), 3, axis=1)
    hinges = np.repeat(column(1, -2), 3, axis=1)
    _, (by_x, by_slopes, by_hinges) = gradients(apl, x, slopes, hinges)
    np.testing.assert_array_equal(by_x, [0.5, -0.5, 1])  # minus the slopes of the open hinges
    np.testing.assert_array_equal(by_slopes, [[4, 1, 0], [1, 0, 0]])  # the distances
    np.testing.assert_array_equal(by_hinges, [[0.5, 0.5, 0], [-1, 0, 0]])


@pytest.mark.parametrize(
    ("x", "hinge"), [(0, 3), (-3, 0), (-3, -0.0), (-0.0, 3), (-2, 1), (-4, -1)]
)
def test_numbers_of_either_sign_and_zeros_have_the_same_derivatives(x, hinge):
    y, (by_x, by_slope, by_hinge) = gradients(
        apl, np.array([x], "float32"), column(2), column(hinge)
    )
    # The hinge is 3 above x in every case.
    assert (y, by_x, by_slope, by_hinge) == (6, -2, 3, 2)


def test_at_a_hinge_the_derivative_is_that_of_the_closed_side():
    _, (by_x, by_slope, by_hinge) = gradients(apl, np.float32([1]), column(5), column(1))
    assert (by_x, by_slope, by_hinge) == (1, 0, 0)


def test_hinges_move_only_after_their_slopes():
    layer = APL(num_hinges=2, sharing="layer")
    slopes, hinges = (p.T for p in layer.parameters().values())
    x = np.float32([-2])
    _, (_, by_slopes, by_hinges) = gradients(apl, x, slopes, hinges)
    assert (by_hinges == 0).all()
    # The distances differ, so the two hinges will not stay alike.
    np.testing.assert_allclose(by_slopes, column(2 - 0.33724, 2 + 0.33724), atol=1e-5)


def test_the_paper_s_count_is_two_numbers_a_hinge_and_unit():
    layer = APL(num_hinges=5)
    layer.build((None, 3, 4))
    assert layer.count_params() == 2 * 5 * 12


def test_the_authors_random_start():
    initial = (
        keras.initializers.RandomUniform(-0.5, 0.5, seed=1),
        keras.initializers.RandomNormal(0, 0.5, seed=2),
    )
    layer = APL(num_hinges=50, initial=initial)
    layer.build((None, 40))
    slopes, hinges = layer.parameters().values()
    assert -0.5 <= slopes.min() < -0.49 and 0.49 < slopes.max() <= 0.5
    # 2000 numbers: the standard error of the mean and of the deviation is about 0.01.
    assert abs(hinges.mean()) < 0.05 and abs(hinges.std() - 0.5) < 0.05
    again = APL.from_config(layer.get_config())
    again.build((None, 40))
    np.testing.assert_array_equal(again.parameters()["slopes"], slopes)


@pytest.mark.tensorflow  # float64
def test_derivatives_by_parameters_equal_differences_in_float64():
    x, slopes, hinges = np.linspace(-2, 2, 9), np.array([0.3, -0.7]), np.array([0.4, -0.9])
    wide = [np.repeat(p[:, np.newaxis], 9, axis=1) for p in (slopes, hinges)]
    _, (_, by_slopes, by_hinges) = gradients(apl, x, *wide)

    def value(s, h):
        layer = APL(2, initial=(list(s), list(h)), sharing="layer", dtype="float64")
        return call(layer, x)

    for s in range(2):
        unit = np.eye(2)[s]
        # Linear in each parameter: the difference is exact, up to the rounding of 1 / 1e-6.
        by_slope = differences(lambda t, unit=unit: value(slopes + t * unit, hinges), 0, 1e-6)
        by_hinge = differences(lambda t, unit=unit: value(slopes, hinges + t * unit), 0, 1e-6)
        np.testing.assert_allclose(by_slopes[s], by_slope, atol=1e-9)
        np.testing.assert_allclose(by_hinges[s], by_hinge, atol=1e-9)


@settings(max_examples=50)  # a few hundred small operations each
@given(
    x=arrays("float32", 4, elements=NUMBERS),
    slopes=arrays("float32", (3, 4), elements=NUMBERS),
    hinges=arrays("float32", (3, 4), elements=NUMBERS),
)
def test_values_and_gradients_over_the_whole_float_range(x, slopes, hinges):
    y, (by_x, by_slopes, by_hinges) = gradients(apl, x, slopes, hinges)
    x, slopes, hinges = (a.astype("float64") for a in (x, slopes, hinges))
    heights = np.maximum(hinges - x, 0)
    terms = np.concatenate([np.maximum(x, 0)[np.newaxis], slopes * heights])
    exact, size = terms.sum(axis=0), abs(terms).sum(axis=0)
    # 7 terms, each rounded a few times; and what is flushed to zero before a slope multiplies it.
    error = 10 * EPSILON * size + 8 * TINY * np.maximum(1, abs(slopes).max(axis=0))
    fits = abs(exact) + error <= MAX
    assert (abs(y - exact)[fits] <= error[fits]).all()
    assert not np.isnan(y).any()

    smooth = size < MAX / 2  # beyond, the value has no gradient
    opened = x < hinges
    exact_by_x = (x > 0) - (opened * slopes).sum(axis=0)
    error = 4 * EPSILON * (1 + abs(slopes).sum(axis=0))
    fits = smooth & (abs(slopes).sum(axis=0) < MAX / 2)
    assert (abs(by_x - exact_by_x)[fits] <= error[fits]).all()
    np.testing.assert_array_equal(by_hinges[:, smooth], (opened * slopes)[:, smooth])
    fits = smooth & (heights <= MAX)
    np.testing.assert_allclose(by_slopes[fits], heights[fits], rtol=2 * EPSILON, atol=TINY)
    assert not any(np.isnan(g).any() for g in (by_x, by_slopes, by_hinges))


def test_terms_that_overflow_and_cancel_give_their_difference():
    # -2^100 * 2^20, the difference of two products of about 2^140; float32 ends at 2^128.
    x, slopes, hinges = np.float32([-(2**40)]), column(2**100, -(2**100)), column(0, 2**20)
    y, grads = gradients(apl, x, slopes, hinges)
    assert y == -(2.0**120)
    assert all(np.isfinite(g).all() for g in grads)


def test_infinities_and_nan():
    x = np.float32([-np.inf, np.inf, np.nan])
    slopes = np.repeat(column(0, 0), 3, axis=1)
    y, grads = gradients(apl, x, slopes, slopes)
    assert y[0] == 0  # not 0 * ∞
    assert y[1] >= MAX
    assert np.isnan(y[2])
    assert not any(np.isnan(g[..., :2]).any() for g in grads)


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_stays_nan(compiled):
    model = keras.Sequential([keras.Input((2,)), APL()])
    model.compile(jit_compile=compiled, run_eagerly=not compiled)
    y = model.predict(np.float32([[np.nan, 2]]), verbose=0)
    np.testing.assert_array_equal(y, [[np.nan, 2]])


def test_regularizers_and_constraints_belong_to_their_parameters():
    layer = APL(
        num_hinges=1,
        initial=(3, -2),
        sharing="layer",
        slopes_regularizer=keras.regularizers.L2(0.1),
        hinges_regularizer=keras.regularizers.L1(0.5),
        slopes_constraint="non_neg",
        hinges_constraint="unit_norm",
    )
    assert sorted(float(loss) for loss in layer.losses) == pytest.approx([0.9, 1.0])
    assert type(layer.slopes.constraint) is keras.constraints.NonNeg
    assert type(layer.hinges.constraint) is keras.constraints.UnitNorm
    again = APL.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert sorted(float(loss) for loss in again.losses) == pytest.approx([0.9, 1.0])


def test_it_learns_the_absolute_value():
    x = np.linspace(-2, 2, 128, dtype="float32")[:, np.newaxis]
    model = keras.Sequential([keras.Input((1,)), APL(num_hinges=1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, abs(x), epochs=60, batch_size=64, verbose=0)
    parameters = model.layers[0].parameters()
    assert parameters["slopes"] == pytest.approx(1, abs=0.05)
    assert parameters["hinges"] == pytest.approx(0, abs=0.05)


def test_formula():
    layer = APL(num_hinges=2, initial=((0.5, -1), (1, -2)), sharing="layer")
    assert layer.formula() == "f(x) = max(0, x) + 0.5 max(0, 1 - x) - 1 max(0, -2 - x)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_hinges": 0}, "num_hinges=0"),
        ({"num_hinges": 1.0}, r"num_hinges=1\.0"),
        ({"num_hinges": True}, "num_hinges=True"),
        ({"initial": 0.5}, r"pair \(slopes, hinges\).*initial=0\.5"),
        ({"initial": (1, 2, 3)}, r"initial=\(1, 2, 3\)"),
        ({"initial": ((1, 2, 3), 0)}, r"must be 2 number.*initial\[0\]=\(1, 2, 3\)"),
        ({"initial": (0, "nonsense")}, "nonsense"),
        ({"initial": (0, None)}, r"initial\[1\]=None"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        APL(**{"num_hinges": 2, **arguments})
