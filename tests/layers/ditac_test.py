import keras
import numpy as np
import pytest
from keras import ops
from scipy.integrate import solve_ivp
from scipy.linalg import null_space
from scipy.special import ndtr

import keras_learnact as kla
from keras_learnact import kernels
from tests.numeric import call, gradients

# Moderate and rough: the flow crosses several cells, and stands still at 0 and between vertices.
VELOCITY = [0.3, 0.9, 0.7, -0.2, -0.6, 0.0, 0.5, 0.4, 0.25]
ROUGH = [3.0, -2.0, 4.0, 5.0, 6.0, -1.0, -7.0, 2.0, 0.5]
X = np.array([-0.5, -0.41, -0.25, -0.2, 0.0, 0.13, 0.4, 0.77, 1.0, 1.31, 1.6, 1.93, 2.0])


def warped(x, velocity, interval=(-0.5, 2.0)):
    """T(x) by a Runge–Kutta method; velocity at all vertices, in intervals for a unit of time."""
    lo, hi = interval
    velocity = np.asarray(velocity, "float64")
    cells = len(velocity) - 1

    def field(_, place):
        place = (place - lo) / (hi - lo) * cells
        k = np.clip(np.floor(place).astype(int), 0, cells - 1)
        return (hi - lo) * (velocity[k] + (velocity[k + 1] - velocity[k]) * (place - k))

    def solved(start):  # alone: the steps become small where v has a kink on its way
        options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13, "max_step": 0.02}
        return solve_ivp(field, (0, 1), [start], **options).y[0, -1]

    return np.array([solved(start) for start in x])


def with_ends(velocity):
    return [0.0, *velocity, 0.0]


def double(velocity=VELOCITY, **kwargs):
    return kla.DiTAC(initial=velocity, dtype="float64", **kwargs)


float64 = pytest.mark.tensorflow


@float64
@pytest.mark.parametrize("velocity", [VELOCITY, ROUGH], ids=["moderate", "rough"])
def test_the_transform_is_the_flow_by_runge_kutta(velocity):
    # What the solver errs by, 1e-10 where v has kinks.
    expected = warped(X, with_ends(velocity))
    np.testing.assert_allclose(call(double(velocity).transform, X), expected, atol=2e-9)


@float64
def test_the_layer_is_the_transform_times_the_normal_distribution_inside():
    layer, x = double(), np.append(X, [-3.0, 5.0])
    inside = np.append(warped(X, with_ends(VELOCITY)), [-3.0, 5.0])
    np.testing.assert_allclose(call(layer, x), inside * ndtr(x), atol=2e-9)


@float64
def test_derivatives_are_those_of_the_flow():
    layer = double()
    places = X[[1, 2, 5, 7, 9, 11]]  # no vertices: there T'' jumps
    step = 1e-4
    field = np.array(with_ends(VELOCITY))
    _, (slope,) = gradients(layer.transform, places)
    quotient = (warped(places + step, field) - warped(places - step, field)) / (2 * step)
    # The difference's third order, and 1e-10 of the solver over a step.
    np.testing.assert_allclose(slope, quotient, atol=2e-5)

    def by_velocity(velocity):
        return kla.layers.ditac.warped(places, velocity, 10, (-0.5, 2.0), False)

    columns = np.repeat(np.array(VELOCITY)[:, np.newaxis], len(places), axis=1)
    _, (found,) = gradients(by_velocity, columns)
    for k in range(9):
        moved = np.array(with_ends(VELOCITY))
        moved[k + 1] += step
        above = warped(places, moved)
        moved[k + 1] -= 2 * step
        quotient = (above - warped(places, moved)) / (2 * step)
        np.testing.assert_allclose(found[k], quotient, atol=2e-5)


def test_the_derivative_is_the_ratio_of_the_velocities():
    # In [0, 1/2] v = 2 x and in [1/2, 1] v = 2 (1 − x): T(0.1) is 1 − e^(ln 5 − 2) / 2.
    layer = kla.DiTAC(tess=2, interval=(0, 1), initial=1.0)
    place, end = 0.1, 1 - np.exp(np.log(5) - 2) / 2
    y, (slope,) = gradients(layer.transform, np.float32([place]))
    np.testing.assert_allclose(y, [end], rtol=1e-6)  # float32
    np.testing.assert_allclose(slope, [2 * (1 - end) / (2 * place)], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e30])
def test_the_transform_rises_and_keeps_its_interval(scale):
    layer = kla.DiTAC(initial=[scale * v for v in VELOCITY])
    x = np.linspace(-0.5, 2, 2001, dtype="float32")
    y = call(layer.transform, x)
    # Steps of 1e-3 are far above what float32 rounds; where T is flat, neighbours may round apart.
    assert (np.diff(y) >= -1e-6).all()
    assert y[0] == -0.5 and y.max() <= 2 + 1e-6 and abs(y[-1] - 2) < 1e-6


@float64
@pytest.mark.parametrize("form", ["gelu", "inf"])
def test_the_inverse_undoes_the_transform(form):
    velocity = [0.1, *VELOCITY, -0.3] if form == "inf" else VELOCITY
    layer = double(velocity, form=form)
    x = np.linspace(-1, 3, 101)
    # T' is between 1/50 and 50 here, and so much larger than rounding is the error.
    np.testing.assert_allclose(call(layer.inverse, call(layer.transform, x)), x, atol=1e-12)
    np.testing.assert_allclose(call(layer.transform, call(layer.inverse, x)), x, atol=1e-12)


def test_without_velocity_the_transform_is_the_identity_exactly():
    x = np.random.default_rng(0).normal(size=1000).astype("float32")
    np.testing.assert_array_equal(call(kla.DiTAC().transform, x), x)
    with kernels.disabled():
        gelu = call(kla.Expression("gelu(x)"), x)
        # Rounding of 1 + erf(…), 1.2e-7 at most, times |x| < 4.
        np.testing.assert_allclose(call(kla.DiTAC(), x), gelu, rtol=1e-6, atol=5e-7)


@float64
def test_the_other_forms_outside_of_the_interval_and_in_it():
    x = np.array([-2.0, -0.7, 0.1, 0.5, 1.5, 4.0])
    for form, outside in (
        ("leaky", np.where(x < 0, 0.01 * x, x)),
        ("ge", x * ndtr(x)),
    ):
        layer = double(VELOCITY, form=form, interval=(0, 2))
        inside = warped(x[2:5], with_ends(VELOCITY), (0, 2))
        expected = np.concatenate([outside[:2], inside, outside[5:]])
        np.testing.assert_allclose(call(layer, x), expected, atol=2e-9)


@float64
def test_with_a_free_boundary_the_cells_at_the_ends_go_on():
    field = [0.4, -0.2, 0.3, 0.5]
    layer = double(field, form="inf", tess=3, interval=(-1, 1))
    x = np.array([-30.0, -2.0, -1.0, 0.2, 1.0, 3.0, 200.0])
    expected = warped(x, field, (-1, 1))
    np.testing.assert_allclose(call(layer.transform, x), expected, rtol=1e-9, atol=2e-9)
    np.testing.assert_allclose(call(layer, x), expected * ndtr(x), rtol=1e-9, atol=2e-9)


def test_with_a_free_boundary_distances_shrink_from_far_out():
    # From 1 on v(x) = -20 (x - 1): T(x) = 1 + (x - 1) e^-20, and Φ(x) = 1.
    layer = kla.DiTAC(2, (0, 2), "inf", initial=(0.0, 0.0, -10.0))
    x = np.float32([6, 1e4, 1e10, 1e24])
    y = layer.curve(x)[0]
    # An error of 6e-8 of the exponent 20 is 20 times as much of the distance.
    np.testing.assert_allclose(y, 1 + (x - 1.0) * np.exp(-20.0), rtol=3e-6)


@pytest.mark.parametrize(
    ("form", "velocity"),
    # T overflows far out; 1 / v² does at a vertex that is left all the same, as v soon is 50.
    [("inf", [-30, 0, 30]), ("gelu", [1e-22, 50, 0, 0, 0, 0, 0, 0, 0])],
)
def test_gradients_are_numbers_where_something_overflows(form, velocity):
    layer = kla.DiTAC(2 if form == "inf" else 10, (0, 1), form, initial=velocity)
    x = np.float32([-1e30, -1, 0, 0.1, 0.3, 2, 1e30, np.inf])
    columns = np.repeat(np.float32(velocity)[:, np.newaxis], len(x), axis=1)
    y, grads = gradients(layer.function, x, columns)
    assert not np.isnan(y).any() and all(np.isfinite(g).all() for g in grads)


def test_leaky_ditac_of_zero_is_leaky_relu():
    x = np.linspace(-3, 3, 13, dtype="float32")
    layer = kla.DiTAC(form="leaky", interval=(0, 2))
    np.testing.assert_allclose(call(layer, x), np.where(x < 0, 0.01 * x, x), rtol=1e-6)


@pytest.mark.parametrize("free", [False, True])
def test_the_prior_is_the_authors_form_in_any_basis(free):
    """In coordinates of the null space of the constraints, as the authors compute it."""
    length_scale, variance = 5.0, 2.0
    # Pieces a x + b agree at the vertices 1/3 and 2/3, and are 0 at 0 and 1.
    constraints = [[1 / 3, 1, -1 / 3, -1, 0, 0], [0, 0, 2 / 3, 1, -2 / 3, -1]]
    if not free:
        constraints += [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    basis = null_space(np.array(constraints))
    places = np.linspace(-1, 1, 6)
    half = np.exp(-abs(places[:, np.newaxis] - places) / length_scale)
    covariance = (variance * 6) ** 2 * half * half
    values = np.array([0.5, 0.3, -0.2, 0.1])
    if not free:
        values[[0, 3]] = 0
    slopes = 3 * np.diff(values)
    pieces = np.stack([slopes, values[:-1] - slopes * np.arange(3) / 3], axis=1).reshape(-1)
    theta = basis.T @ pieces
    expected = theta @ np.linalg.solve(basis.T @ covariance @ basis, theta)

    initial = values if free else values[1:-1]
    layer = kla.DiTAC(3, prior=0.1, initial=initial, form="inf" if free else "gelu")
    (loss,) = layer.losses
    assert float(ops.convert_to_numpy(loss)) == pytest.approx(0.1 * expected, rel=1e-5)  # float32
    assert kla.DiTAC(3, initial=initial, form=layer.form).losses == []


def test_the_prior_counts_once_with_the_users_regularizer():
    layer = kla.DiTAC(2, initial=2.0, prior=0.5, velocity_regularizer=keras.regularizers.L2(1.0))
    model = keras.Sequential([keras.Input((3,)), layer])
    model(np.ones((2, 3), "float32"))
    (loss,) = model.losses
    # One vertex: slopes ±2 v, intercepts 0 and 2 v. With q = (2, 0, −2, 2), C of 4 places at a
    # distance of 2/3: vᵀ G (qᵀ C q)⁻¹ G v with G = 12.
    q, d = np.array([2, 0, -2, 2]), abs(np.subtract.outer(range(4), range(4))) * 2 / 3
    spread = q @ ((2 * 4) ** 2 * np.exp(-2 * d / 5)) @ q
    assert float(ops.convert_to_numpy(loss)) == pytest.approx(
        0.5 * 2**2 * 12**2 / spread + 2**2, rel=1e-5
    )


def test_the_speed_at_which_a_cell_is_not_left():
    # From 0.1 the flow v = x needs ln 10 > 1 to 1 = lo + cell; from 0.5 it needs ln 2 < 1.
    layer = kla.DiTAC(tess=2, interval=(0, 2), initial=0.5)
    y = call(layer.transform, np.float32([0.1, 0.5]))
    end = 2 - np.exp(-(1 - np.log(2)))
    np.testing.assert_allclose(y, [0.1 * np.e, end], rtol=1e-6)


def test_bounds_know_the_warp():
    layer = kla.DiTAC(initial=VELOCITY)
    x = np.linspace(-0.5, 2, 501, dtype="float32")
    y = layer.curve(x)[0]
    (least,), (greatest,) = layer.range(-0.5, 2.0)
    assert least <= y.min() and y.max() <= greatest
    assert greatest - y.max() < 1e-4 and y.min() - least < 1e-4
    # Where v is 0 at a vertex and −6 (in cells) at the one before, T' is e^6, times Φ(1).
    steepest = np.exp(6) * ndtr(1.0)
    assert (
        steepest <= layer.lipschitz(0.75, 1.2)[0] < 2.1 * steepest
    )  # two min in one, each bounded


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"tess": 1}, "tess=1"),
        ({"interval": (2, -0.5)}, r"interval=\(2, -0.5\)"),
        ({"interval": (9e5, 9e5 + 1e-3)}, "room for 10 cells between numbers of float32"),
        ({"form": "relu"}, "form='relu'"),
        ({"prior": -1}, "prior=-1"),
        ({"length_scale": 0}, "length_scale=0"),
        ({"initial": [1.0, 2.0]}, r"initial=\(1.0, 2.0\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        kla.DiTAC(**arguments)


def test_the_forms_that_jump_say_so():
    assert kla.DiTAC().smoothness == kla.DiTAC(form="inf").smoothness == 0
    assert kla.DiTAC(form="leaky", interval=(0, 2)).smoothness == 0
    assert kla.DiTAC(form="leaky").smoothness == kla.DiTAC(form="ge").smoothness == -1
