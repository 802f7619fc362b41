"""The kernel of DEU: every row of its table, around D = 0, and where numbers get large."""

import contextlib
import math
import os

import keras
import numpy as np
import pytest
from keras import ops

import keras_learnact as kla
from keras_learnact import kernels
from keras_learnact.layers.deu import BAND, KERNEL, deu
from tests.layers.deu_test import ROWS, table
from tests.numeric import gradients

EPSILON = float(np.float32(0.01))  # the same number in both dtypes
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
CONSTANTS = (0.6, -0.2)  # no part of any row vanishes
MAX = float(np.finfo("float32").max)


@pytest.fixture(scope="module", autouse=True)
def binding():
    loaded, why = kernels.load()
    if why:
        # A job that should test the kernels must not pass without them.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return loaded


def wide(dtype="float64"):
    """Where there is float64."""
    if keras.backend.backend() != "jax" or dtype != "float64":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


def call(max_exponent=14.0, limit=1000.0, epsilon=EPSILON):
    guards = (math.inf if guard is None else guard for guard in (max_exponent, limit))
    return kernels.Call(KERNEL, tuple(map(kernels.bits, (epsilon, *guards))))


def columns(x, parameters, dtype):
    """x [n] and parameters [n, 5] of n elements."""
    arrays = np.broadcast_arrays(*(np.asarray(v, dtype) for v in (x, *parameters)))
    arrays = [v.ravel() for v in arrays]
    return arrays[0], np.stack(arrays[1:], axis=1)


def run(x, params, dy=None, axis=1, **guards):
    """y [n] and derivatives [n, 6] by x and the parameters, each element a unit of its own."""
    dtype = str(x.dtype)
    with wide(dtype):
        assert not kernels.why_not(call(**guards), dtype, 5)
        x = x[np.newaxis]
        y, (dx, dparams) = gradients(
            lambda x, p: kernels.run(call(**guards), x, p, axis), x, params
        )
    assert y.dtype == dx.dtype == dparams.dtype == dtype
    return y[0], np.concatenate([dx.T, dparams], axis=1)


def formula(x, params, max_exponent=14.0, limit=1000.0):
    """The same in float64 from the formula."""
    values = [v.astype("float64") for v in (x, *params.T)]
    with wide():
        y, derivatives = gradients(lambda *v: deu(*v, EPSILON, max_exponent, limit), *values)
    return y, np.stack(derivatives, axis=1)


def assert_close(x, params, units=64, **guards):
    """The kernel is the formula in float64, but for some units of the last place.

    That is of the result itself, of what it changes by when its arguments are rounded, and of
    f / parameter, since all derivatives are sums of such terms.
    """
    if x.dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("on JAX keras.ops.sin and cos give float32")
    epsilon = np.finfo(x.dtype).eps
    got = run(x, params, **guards)
    exact = formula(x, params, **guards)
    numbers = np.column_stack([x, params]).astype("float64")
    parts = np.where(numbers != 0, abs(exact[0][:, None] / np.where(numbers, numbers, 1)), 0)
    sizes = [abs(exact[0]), abs(exact[1]) + parts]
    rng = np.random.default_rng(0)
    step = 1e-7
    for _ in range(4):
        moved = numbers * (1 + step * rng.choice([-1, 1], numbers.shape))
        for size, here, there in zip(
            sizes, exact, formula(moved[:, 0], moved[:, 1:], **guards), strict=True
        ):
            np.maximum(size, abs(there - here) / step, out=size)
    # A smoothed step ends at e^-35.5 in float32, and has a slope of 100.
    end = 1e-13 if x.dtype == "float32" else 1e-300
    for value, right, size in zip(got, exact, sizes, strict=True):
        wrong = ~(abs(value - right) <= units * epsilon * size + end)
        assert not wrong.any(), (numbers[wrong.nonzero()[0]], value[wrong], right[wrong])


@DTYPES
@pytest.mark.parametrize("constants", [(0, 0), CONSTANTS], ids=str)
def test_every_row_in_the_company_of_all_others(dtype, constants):
    x = np.concatenate([-np.geomspace(0.001, 30, 40), [0], np.geomspace(0.001, 30, 40)])
    a, b, c = np.array(ROWS).T[:, None, :]
    numbers = columns(x[:, None], (a, b, c, *constants), dtype)
    assert_close(*numbers)
    assert_close(*numbers, max_exponent=30, limit=None)


@DTYPES
def test_a_units_neighbours_do_not_change_it(dtype):
    # Alone a unit takes one branch; among others, all that one of them needs.
    rng = np.random.default_rng(1)
    x = (3 * rng.normal(size=1024)).astype(dtype)
    params = np.array([(*row, *CONSTANTS) for row in ROWS], dtype)
    among, alone = [], []
    with wide(dtype):
        shape = (-1, len(ROWS))
        all_x = np.repeat(x, len(ROWS)).reshape(shape)
        y, (dx, _) = gradients(lambda x, p: kernels.run(call(), x, p, 1), all_x, params)
        among = [y, dx]
        for row in params:
            y, (dx, _) = gradients(lambda x, p: kernels.run(call(), x, p, 0), x, row[None])
            alone.append([y, dx])
    np.testing.assert_array_equal(np.array(among), np.moveaxis(np.array(alone), 0, 2))


@DTYPES
@pytest.mark.parametrize("constants", [(0, 0), (1, 0), (0, 1), (-0.7, 2)], ids=str)
def test_around_d_0_from_both_sides(dtype, constants):
    position = np.concatenate([[0], np.geomspace(1e-9, 4, 60)]) * BAND
    position = np.concatenate([-position, position])[:, None, None]
    x = np.array([-3, -0.5, 0.01, 0.5, 3, 20.0])[:, None]
    a, b = np.array([(1, 2), (-1, 2), (0.25, -1), (30, 2)]).T
    c = b * b / (4 * a) * (1 - position) / (1 + position)
    assert_close(*columns(x, (a, b, c, *constants), dtype))


@pytest.mark.parametrize("a, b, c", [(0.25, 1, 1), (1, 2, 1), (-1, 2, -1), (0.5, -1, 0.5)])
def test_derivatives_at_d_0_are_the_true_ones(a, b, c):
    x = np.array([0.01, 0.1, 0.4, 1, 2.5, 4])
    _, derivatives = run(*columns(x, (a, b, c, 0, 0), "float32"))
    _, by_a, by_b, by_c, _, _ = derivatives.T
    e, z = np.exp(-b * x / (2 * a)), b * x / (2 * a)
    np.testing.assert_allclose(by_a, x**2 * (b * x - 6 * a) * e / (12 * a**3), rtol=4e-6)
    np.testing.assert_allclose(by_b, -(x**3) * e / (6 * a**2), rtol=4e-6)
    bracket = 1 - (1 + z + z**2 / 2 + z**3 / 6) / np.exp(z)
    # In float64 `bracket` itself has an error of 1e-16, and is about z⁴/24.
    np.testing.assert_allclose(by_c, -bracket / c**2, rtol=4e-6, atol=1e-15)


def test_derivatives_are_differences_of_the_papers_table():
    rng = np.random.default_rng(2)
    for _ in range(40):
        x = rng.normal(size=7) * 2
        numbers = [*rng.normal(size=3) * rng.integers(0, 2, 3), *rng.normal(size=2)]
        numbers[:3] = [v if abs(v) > 0.05 else 0.0 for v in numbers[:3]]
        d = numbers[1] ** 2 - 4 * numbers[0] * numbers[2]
        if abs(d) < 3 * BAND * (numbers[1] ** 2 + 4 * abs(numbers[0] * numbers[2])) and d:
            continue  # the band, where (c1, c2) have another basis
        y, derivatives = run(*columns(x, numbers, "float64"), max_exponent=None, limit=None)
        np.testing.assert_allclose(y, table(x, *numbers), rtol=1e-9, atol=1e-12)
        for k in range(6):
            step = 1e-6
            above, below = [x, *numbers], [x, *numbers]
            above[k], below[k] = above[k] + step, below[k] - step
            if 0 < k < 4 and numbers[k - 1] == 0:
                np.testing.assert_array_equal(derivatives[:, k], 0)  # it counts as 0
                continue
            quotient = (table(*above) - table(*below)) / (2 * step)
            # The table's rounding over the step, and step² times a third derivative.
            size = abs(quotient) + abs(y) + 1
            np.testing.assert_allclose(derivatives[:, k] / size, quotient / size, atol=2e-6)


def test_a_small_c_costs_no_digits():
    # f = x²/2 - c x⁴/24 + …: (1 - cos(x √c)) / c would lose four of float32's seven digits.
    x = np.array([0.001, 0.1, 0.2, 0.3])
    y, derivatives = run(*columns(x, (1, 0, 0.01, 0, 0), "float32"))
    np.testing.assert_allclose(y, x**2 / 2 - 0.01 * x**4 / 24, rtol=1e-6)
    np.testing.assert_allclose(derivatives[:, 3], -(x**4) / 24 + 0.01 * x**6 / 360, rtol=1e-6)


@DTYPES
def test_random_units(dtype):
    rng = np.random.default_rng(3)
    params = rng.normal(size=(4000, 5))
    params[:2000, :3] = rng.uniform(size=(2000, 3))  # as it starts
    params[:1000, 3:] = 0
    x = (3 * rng.normal(size=4000)).astype(dtype)
    assert_close(x, params.astype(dtype))
    sizes = rng.choice([-1, 1], (4000, 6)) * 10 ** rng.uniform(-2, 3, (4000, 6))
    # The formula itself, in float64, loses digits of derivatives that nearly vanish.
    units = 64 if dtype == "float32" else 2**14
    assert_close(sizes[:, 0].astype(dtype), sizes[:, 1:].astype(dtype), units)


def extremes(n):
    """x and parameters of every size there is in float32."""
    rng = np.random.default_rng(4)
    some = (0, 1, -1, 0.01, MAX, -MAX, 1e-40, 1e19)
    kinds = [
        rng.choice([-1, 1], (n, 6)) * np.minimum(10 ** rng.uniform(-3, 38.5, (n, 6)), MAX),
        3 * rng.normal(size=(n, 6)),
        rng.choice(some, (n, 6)),
    ]
    numbers = np.choose(rng.integers(0, 3, (n, 6)), kinds)
    x = np.where(rng.random(n) < 0.05, rng.choice([-np.inf, np.inf], n), numbers[:, 0])
    return x, numbers[:, 1:]


GUARDS = [(14.0, 1000.0), (None, None), (None, 1000.0), (50.0, 1e30)]


@pytest.mark.tensorflow  # on JAX keras.ops.sin and cos give float32
@pytest.mark.parametrize("guards", GUARDS, ids=str)
def test_at_any_size_it_is_the_formula(guards):
    # In float64: float32 cannot tell the phase of an oscillation as far out as that.
    guards = dict(zip(("max_exponent", "limit"), guards, strict=True))
    x, params = extremes(6000)
    # Nothing is left of the value where parts of the size of their bounds cancel.
    apart = abs(params[:, 3:]).max(axis=1) < 1e19
    x, params = x[apart], params[apart]
    params[:, 3:] *= np.random.default_rng(5).uniform(0.5, 1.5, (len(x), 2))  # likewise
    (y, derivatives), (exact, slopes) = run(x, params, **guards), formula(x, params, **guards)
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-30)
    numbers = abs(np.column_stack([x, params]))
    with np.errstate(over="ignore"):
        size = abs(slopes) + abs(exact[:, None]) / np.maximum(numbers, 1e-2)
    wrong = ~(abs(derivatives - slopes) <= 1e-5 * size + 1e-300)
    assert not wrong.any(), (numbers[wrong.any(axis=1)], derivatives[wrong], slopes[wrong])


@pytest.mark.parametrize("guards", GUARDS, ids=str)
def test_at_any_size_there_is_no_nan_and_no_infinity(guards):
    guards = dict(zip(("max_exponent", "limit"), guards, strict=True))
    x, params = extremes(20000)
    y, derivatives = run(x.astype("float32"), params.astype("float32"), **guards)
    assert np.isfinite(derivatives).all()
    endless = (abs(params[:, :3]).max(axis=1) < EPSILON) & np.isinf(x)  # f(x) = x
    assert np.isfinite(y[~endless]).all()


def test_large_constants_are_factors():
    # 2^13 is more than the vectors take without a guard: the one element after the other.
    x = -np.geomspace(0.01, 30, 64)
    a, b, c = np.array(ROWS).T[:, None, :]
    guards = {"max_exponent": 30, "limit": None}
    kinds = (abs(a) + abs(b) > 0) * np.ones((64, 1))
    keep = kinds.ravel() > 0
    small = run(*columns(x[:, None], (a, b, c, 1, -2), "float32"), **guards)
    large = run(*columns(x[:, None], (a, b, c, 2**13, -(2**14)), "float32"), **guards)
    size = abs(small[0]).max()
    for scaled, plain in zip(large, small, strict=True):
        plain, scaled = plain[keep], scaled[keep]
        if plain.ndim == 2:  # f is linear in c1 and c2
            plain, scaled = plain[:, :4], scaled[:, :4]
        # Exponents of up to 30 are rounded.
        np.testing.assert_allclose(scaled / 2**13, plain, rtol=2e-5, atol=1e-9 * size)


def test_guards():
    # y′ = y + H from y(0) = 1: 2 e^x - 1 for x > 0.
    x = np.array([1, 13, 15, 1e30])
    numbers = columns(x, (0, 1, -1, 1.0, 0), "float32")
    y, derivatives = run(*numbers)
    np.testing.assert_allclose(y, [2 * np.e - 1, 1000, 1000, 1000], rtol=1e-6)
    np.testing.assert_array_equal(derivatives[1:], 0)
    y, derivatives = run(*numbers, limit=None)
    np.testing.assert_allclose(y[1], 2 * np.exp(13) - 1, rtol=1e-5)
    np.testing.assert_allclose(y[2:], 2 * np.exp(14) - 1, rtol=1e-5)
    np.testing.assert_array_equal(derivatives[2:, 0], 0)
    y, _ = run(*numbers, limit=2.5, max_exponent=0.5)
    np.testing.assert_allclose(y, np.minimum(2 * np.exp(0.5) - 1, 2.5), rtol=1e-6)


def test_b_alone_is_relu_exactly():
    x = np.array([-MAX, -1e20, -3, -1e-30, -0.0, 0, 1e-30, 0.1, 7, 1e4, 1e20, MAX], "float32")
    y, derivatives = run(*columns(x, (0, 1, 0, 0, 0), "float32"), limit=None)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(derivatives[:, 0], x > 0)


@DTYPES
@pytest.mark.parametrize("row", [(1.0, 1.0, 1.0), (1.0, 3.0, 2.0), (0.0, 1.0, 2.0)])
def test_nan_in_is_nan_out_of_that_unit_alone(dtype, row):
    params = np.array([[*row, 0.5, 0.5]] * 20, dtype)
    x = np.full(20, 0.7, dtype)
    params[np.arange(5), np.arange(5)] = np.nan
    x[10] = np.nan
    y, derivatives = run(x, params)
    is_nan = np.isin(np.arange(20), (0, 1, 2, 3, 4, 10))
    np.testing.assert_array_equal(np.isnan(y), is_nan)
    assert np.isfinite(derivatives[~is_nan]).all() and np.isfinite(derivatives[:, 0]).all()
    # A nan among a unit's inputs does not spoil the gradient of its parameters.
    assert np.isfinite(derivatives[10]).all()


@DTYPES
@pytest.mark.parametrize("row", [(1.0, 1.0, 1.0), (1.0, 3.0, 2.0), (0.0, 1.0, 2.0)])
@pytest.mark.parametrize("constants", [(0.0, 0.0), (0.5, 0.5)])
def test_nan_stays_beside_infinity(dtype, row, constants):
    x = np.resize(np.array([np.nan, np.inf, -np.inf, 0.7], dtype), 64)
    y, _ = run(x, np.array([[*row, *constants]] * 64, dtype))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


def test_the_layer_runs_it():
    x = np.random.default_rng(5).normal(size=(33, 7, 3)).astype("float32")
    for guards in ({}, {"max_exponent": None, "limit": None}, {"epsilon": 1}):
        layer = kla.DEU(**guards)
        y = ops.convert_to_numpy(layer(x))
        assert layer.path == "kernel"
        with kernels.disabled():
            np.testing.assert_allclose(y, ops.convert_to_numpy(layer(x)), rtol=1e-4, atol=1e-6)


def test_settings_that_make_no_sense_are_named():
    for wrong in ({"epsilon": 0.0}, {"epsilon": math.inf}, {"max_exponent": -1}, {"limit": 0}):
        assert "epsilon must be a number >= 1e-6" in kernels.why_not(call(**wrong), "float32", 5)
    assert "5 parameters" in kernels.why_not(call(), "float32", 6)
