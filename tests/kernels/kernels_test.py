"""Every kernel against its layer's formula in float64, on whichever backend runs.

The truth is the formula in `keras.ops`, evaluated in float64 with parameters of its own for every
element, so that the gradient of a group's parameters is a sum of numbers that are known. That
gradient, in turn, is compared with differences of the formula.
"""

import contextlib
import functools
import os
from typing import NamedTuple

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import keras_learnact as kla
from keras_learnact import kernels
from keras_learnact.layers.mixture import FUNCTIONS
from tests.layers.contract_test import ACTIVATIONS
from tests.numeric import gradients

DTYPES = ("float32", "float64", "float16", "bfloat16")
SMALL = (-2.0, -1.0, -0.0, 0.0, 1e-40, 0.5, 1.0, 3.0)
LARGE = (*SMALL, -1e30, 1e30, -300.0, 70.0)
# JAX compiles a call for every shape.
EXAMPLES = 6 if keras.backend.backend() == "tensorflow" else 2
KINKS = (-3, -1, 0, 1, 3, 6)
SIZE = 1024  # of the arrays of which the truth is told: one size, so JAX compiles it once


class Config(NamedTuple):
    """Calls of one kernel with certain settings, in one way or another.

    Args:
        name, settings: the kernel's.
        count: number of parameters.
        special: values of x among the random ones.
        spread: standard deviation of x.
        positive: whether x and the parameters are.
        kinks: where Keras' backends do not agree on the derivative.
        float32_on: backends on which a float64 function of Keras has the precision of float32.
    """

    name: str
    settings: tuple
    count: int
    special: tuple = LARGE
    spread: float = 2.0
    positive: bool = False
    kinks: tuple = ()
    float32_on: tuple = ()

    def __str__(self):
        return "-".join(map(str, (self.name, *self.settings)))


def special_configs():
    """Other settings than the defaults, and what a default needs to be known."""
    # Numerator coefficients, version, parameters. The highest powers of 1e30 are beyond float64.
    rationals = [(6, "A", 10), (6, "B", 10), (6, "C", 11), (4, "A", 4), (1, "B", 3)]
    for a, version, count in rationals:
        yield Config("Rational", (a, ord(version)), count)
    # N has poles where its denominator is 0.
    yield Config("Rational", (6, ord("N")), 10, positive=True)
    for version, count in (("A", 33), ("B", 33), ("C", 34)):
        yield Config("Rational", (17, ord(version)), count, SMALL, 1.0)
    for noise in (0.0, 0.1, 3.0):
        for a, version, count in (*rationals[:3], (2, "A", 14)):
            random = (a, ord(version), kernels.bits(noise))
            yield Config("RandomizedRational", random, count, SMALL)
    yield Config("RandomizedRational", (6, ord("N"), kernels.bits(0.5)), 10, SMALL, positive=True)
    for hinges in (1, 2, 3, 5, 32):
        yield Config("Apl", (hinges,), 2 * hinges)
    # The normal gate with lines that are learned, which no layer has, and other lines.
    yield Config("SmoothMaximum", (1,), 3)
    for gate, p1, p2 in ((0, -2.0, 3.0), (1, 1.0, 0.0), (1, 1.0, 1.0)):
        yield Config("SmoothMaximum", (gate, kernels.bits(p1), kernels.bits(p2)), 1)
    for intervals in (1, 5, 64):
        yield Config("Pwlu", (intervals,), intervals + 5)
    # The degree, the parts, their range, whether there is a weight.
    for degree, grid, low, high, base in ((1, 5, -2, 1.5, 0), (2, 64, -3, 3, 1), (3, 1, -1, 1, 0)):
        spline = (degree, grid, kernels.bits(low), kernels.bits(high), base)
        yield Config("Bspline", spline, degree + grid + base)
    for coefficients in (2, 5, 10, 17):
        yield Config("Hermite", (), coefficients, SMALL, 1.0)
    for gamma in (-0.125, 1e30):
        yield Config("CubicRelu", (kernels.bits(gamma),), 2)
    yield Config("Deu", kla.DEU().kernel(False).settings, 5, SMALL, float32_on=("jax",))
    ends = (-0.5, 2.0)
    warps = ((10, 0, ends), (10, 1, (0, 2)), (3, 2, (-1, 1)), (16, 0, (-3, 3)), (5, 3, ends))
    for tess, form, ends in warps:
        count = tess + 1 if form == 3 else tess - 1
        # The formula's 1 + erf(x / √2) has lost digits of float64 in the tail.
        float32_on = ("tensorflow", "jax") if form != 1 else ()
        settings = (tess, form, *map(kernels.bits, ends))
        yield Config("Ditac", settings, count, float32_on=float32_on)
    for number, name in enumerate(FUNCTIONS):
        # exp(70) is a number of float32.
        special = (*SMALL, 70.0) if name == "exponential" else LARGE
        float32_on = {"tensorflow": ("leaky_relu", "gelu"), "jax": ("tanh", "exponential")}
        float32_on = tuple(backend for backend, names in float32_on.items() if name in names)
        yield Config("Mixture", (number,), 1, special, 3.0, False, KINKS, float32_on)
    yield Config("Mixture", (0, 1), 2, kinks=KINKS)
    everything = tuple(range(len(FUNCTIONS)))
    backends = ("tensorflow", "jax")
    yield Config("Mixture", everything, len(everything), SMALL, 2.0, False, KINKS, backends)


def configs():
    """Those, and every activation as it comes."""
    named = list(special_configs())
    yield from named
    known = {(c.name, c.settings) for c in named}
    for cls in ACTIVATIONS:
        layer = cls(sharing="layer")
        call = layer.kernel(False)
        if isinstance(call, kernels.Call) and (call.kernel.name, call.settings) not in known:
            known.add((call.kernel.name, call.settings))
            count = sum(p.count for p in layer.parameter_list())
            yield Config(call.kernel.name, call.settings, count)


CONFIGS = list(configs())
ONE_OF_EACH = list({c.name: c for c in reversed(CONFIGS)}.values())
a_config_of_every_kernel = pytest.mark.parametrize("config", ONE_OF_EACH, ids=str)
every_config = pytest.mark.parametrize("config", CONFIGS, ids=str)
# Of tests of the kernels alone: TensorFlow and JAX call the same machine code.
every_config_once = pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, marks=() if config in ONE_OF_EACH else pytest.mark.once)
        for config in CONFIGS
    ],
    ids=str,
)


@pytest.fixture(scope="module", autouse=True)
def binding():
    loaded, why = kernels.load()
    if why:
        # A job that should test the kernels must not pass without them.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return loaded


def wide():
    """Where there is float64."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


def array(numbers, dtype):
    """A NumPy array of one of the four dtypes."""
    with np.errstate(over="ignore"):  # 1e30 is none of float16's
        return np.asarray(numbers).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


class Sample(NamedTuple):
    """Arguments of one call; NumPy arrays."""

    x: np.ndarray
    params: np.ndarray
    axis: int
    dy: np.ndarray
    key: np.ndarray

    def group_of_element(self):
        """Of every element of x, in order."""
        groups = len(self.params)
        covered = int(np.prod(self.x.shape[self.axis :]))
        of_column = np.arange(covered) // max(covered // groups, 1)
        return np.resize(of_column, self.x.size)


def sample(config, shape, axis, groups, dtype, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape, scale=config.spread).reshape(-1)
    places = rng.permutation(x.size)[: len(config.special)]
    x[places] = rng.permutation(config.special)[: len(places)]
    params = scale * rng.normal(size=(groups, config.count))
    params *= rng.random(params.shape) < 0.9  # some are 0
    if config.positive:
        x, params = abs(x), abs(params)
    dy = rng.normal(size=shape)
    math_dtype = "float64" if dtype == "float64" else "float32"
    x = array(x.reshape(shape), dtype)
    x[~np.isfinite(x)] = 1
    key = rng.integers(-(2**31), 2**31, size=2, dtype="int32")
    return Sample(x, params.astype(math_dtype), axis, array(dy, dtype), key)


def run(config, arguments):
    """y, dx and dparams of the kernel, as float64."""
    random = config.name == "RandomizedRational"
    call = kernels.Call(
        kernels.KERNELS[config.name],
        config.settings,
        (lambda: arguments.key) if random else None,
    )
    x, params, axis, dy, _ = arguments
    dtype = keras.backend.standardize_dtype(x.dtype)
    with wide() if dtype == "float64" else contextlib.nullcontext():
        assert not kernels.why_not(call, dtype, config.count)
        y = kernels.run(call, ops.convert_to_tensor(x), ops.convert_to_tensor(params), axis)
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        _, (dx, dparams) = gradients(lambda x, p: kernels.run(call, x, p, axis) * dy, x, params)
        # A bfloat16 tensor without axes does not become a NumPy array.
        y = ops.convert_to_numpy(y if dtype == "float64" else ops.cast(y, "float32"))
    assert y.shape == x.shape == dx.shape and dparams.shape == params.shape
    assert dx.dtype == x.dtype and dparams.dtype == params.dtype
    return [a.astype("float64") for a in (y, dx, dparams)]


@functools.cache
def formula(config):
    """Of x [n], parameters [n, count] and a key: y, and its gradients by x and parameters."""

    def value(x, params, key):
        random = config.name == "RandomizedRational"
        return kernels.reference(
            config.name, config.settings, x, params, 0, key if random else None
        )

    if keras.backend.backend() == "jax":
        import jax

        def total(x, params, key):
            y = value(x, params, key)
            return y.sum(), y

        compiled = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))

        def both(x, params, key):
            (_, y), grads = compiled(x, params, key)
            return y, *grads
    else:
        import tensorflow as tf

        @tf.function
        def both(x, params, key):
            with tf.GradientTape() as tape:
                tape.watch((x, params))
                y = value(x, params, key)
            return y, *tape.gradient(y, (x, params), unconnected_gradients="zero")

    return both


def truth(config, x, params, key):
    """`formula` of float64 NumPy arrays, filled up to whole multiples of SIZE."""
    size, full = len(x), -(-len(x) // SIZE) * SIZE
    rows = np.arange(full) % max(size, 1)
    if size == 0:
        return np.zeros(0), np.zeros(0), np.zeros((0, config.count))
    with wide():
        arguments = [ops.convert_to_tensor(a[rows], "float64") for a in (x, params)]
        results = formula(config)(*arguments, ops.convert_to_tensor(key, "int32"))
        return [ops.convert_to_numpy(a)[:size] for a in results]


def expected(config, arguments):
    """y, dy dx and dy dparams of every element, and by how much each may be off.

    That is a few times what changes when the arguments change by one unit of the last place, and
    a few units of the last place of the result. (In float64 the truth is off by as much.)
    """
    groups = arguments.group_of_element()
    x = arguments.x.astype("float64").reshape(-1)
    params = arguments.params.astype("float64")[groups]
    dy = arguments.dy.astype("float64").reshape(-1)
    kind = arguments.params.dtype
    epsilon, tiny = (float(getattr(np.finfo(kind), name)) for name in ("eps", "tiny"))
    exact = truth(config, x, params, arguments.key)
    off = [0 * value for value in exact]
    rng = np.random.default_rng(0)
    for _ in range(3):
        noise = [1 + epsilon * rng.choice((-1, 1), a.shape) for a in (x, params)]
        moved = truth(config, x * noise[0], params * noise[1], arguments.key)
        off = [np.maximum(o, abs(m - e)) for o, m, e in zip(off, moved, exact, strict=True)]
    few = 16 if kind == "float64" else 8
    largest = abs(params).max(axis=1, initial=0)
    sizes = [abs(exact[0]) + largest, abs(exact[1]) + largest, abs(exact[2]) + 1]
    if "Rational" in config.name:
        # The derivative is P'/Q - P Q'/Q², whose parts may cancel whatever the coefficients.
        parts = abs(params * exact[2]).sum(axis=1) * config.count / np.maximum(abs(x), 1)
        sizes[1] = sizes[1] + parts
    if config.name == "Pwlu":
        # Where x is among N intervals is rounded a few times, from 0 to N.
        (n,) = config.settings
        ends = abs(params[:, n + 1 : n + 3]).sum(axis=1)
        sizes[0] = sizes[0] + abs(exact[1]) * (abs(x) + ends)
        sizes[2] = sizes[2] + n
    if config.name == "Bspline":
        _, n, low, high, _ = config.settings
        scale = n / (kernels.real(high) - kernels.real(low))
        sizes = [sizes[0] + n * largest, sizes[1] + n * largest * scale, sizes[2] + n]
    bounds = [few * (2 * o + epsilon * size + tiny) for o, size in zip(off, sizes, strict=True)]
    columns = dy[:, np.newaxis]
    exact = [exact[0], dy * exact[1], columns * exact[2]]
    return exact, [bounds[0], abs(dy) * bounds[1], abs(columns) * bounds[2]]


def assert_equal(config, arguments):
    got = run(config, arguments)
    exact, bounds = expected(config, arguments)
    groups = arguments.group_of_element()
    x = arguments.x.astype("float64").reshape(-1)
    name = keras.backend.standardize_dtype(arguments.x.dtype)
    # bfloat16 has 8 bits, float16 11 with numbers below 2^-14 in steps of 2^-24.
    rounding, step, most = {
        "float16": (2.0**-11, 2.0**-25, 65504.0),
        "bfloat16": (2.0**-8, 0.0, 3.38e38),
        "float32": (0.0, 0.0, 3.4e38),
        "float64": (0.0, 0.0, 1.79e308),
    }[name]
    smooth = ~np.isin(x, config.kinks)
    if config.name == "Ditac":
        # Where T is no number of the dtype, it is the largest one, a constant.
        smooth &= abs(exact[0]) + bounds[0] < most
    for value, right, bound, where in zip(got, exact, bounds, (x == x, smooth), strict=False):
        bound = bound + rounding * (abs(right) + bound) + step
        where = where & (abs(right) + bound < most)
        wrong = where & ~(abs(value.reshape(-1) - right) <= bound)
        assert not wrong.any(), (x[wrong], value.reshape(-1)[wrong], right[wrong], bound[wrong])
        assert not np.isnan(value).any()

    most = 3.4e38 if arguments.params.dtype == "float32" else 1.79e308
    for g in range(len(arguments.params)):
        terms, errors = exact[2][groups == g], bounds[2][groups == g].sum(axis=0)
        epsilon = np.finfo(arguments.params.dtype).eps
        size = abs(terms).sum(axis=0)
        errors = errors + 32 * epsilon * size  # sums of some hundred numbers of that dtype
        wrong = (size + errors < most) & ~(abs(got[2][g] - terms.sum(axis=0)) <= errors)
        assert not wrong.any(), (g, got[2][g][wrong], terms.sum(axis=0)[wrong], errors[wrong])


SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 64, 100, 129, 257)


@st.composite
def views(draw):
    """A shape, an axis and a number of groups: every [outer, groups, inner] that is not large."""
    outer = draw(st.sampled_from((0, *SIZES)))
    groups = draw(st.sampled_from((1, *SIZES)))
    inner = draw(st.sampled_from(SIZES))
    while outer * groups * inner > SIZE:
        outer, groups, inner = -(-outer // 2), -(-groups // 2), -(-inner // 2)
    if groups == 1 and draw(st.booleans()):
        return draw(st.sampled_from([(outer * inner,), (outer, inner), ()])), 0, 1
    shapes = [((outer, groups * inner), 1), ((outer, groups, inner), 1)]
    shapes += [((1, outer, groups, 1, inner), 2)]  # more axes
    return *draw(st.sampled_from(shapes)), groups


def test_there_are_calls_of_every_kernel():
    assert {config.name for config in CONFIGS} | {"Maxout"} == set(kernels.KERNELS)


@every_config
@settings(max_examples=EXAMPLES)  # four evaluations of a formula and its gradient each
@given(
    view=views(),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from((1.0, 1.0, 1e-3, 30.0)),
    seed=st.integers(0, 2**16),
)
def test_values_and_gradients_are_those_of_the_formula(config, view, dtype, scale, seed):
    if keras.backend.backend() in config.float32_on and dtype == "float64":
        dtype = "float32"
    assert_equal(config, sample(config, *view, dtype, seed, scale))


@every_config_once
@pytest.mark.parametrize("point", [0.5, -2.0, 1e3, -1e15])
def test_the_overflow_of_a_gradient_is_seen(config, point):
    # A float16 gradient that overflows is infinite, and loss scaling looks for that. Two of
    # opposite signs do not cancel.
    usual = sample(config, (2,), 0, 1, "float32", 0)
    usual = usual._replace(x=np.float32([abs(point) if config.positive else point] * 2))
    _, slope, slopes = run(config, usual._replace(dy=np.float32([1, 0])))
    for dy in ([np.inf, 0], [np.inf, -np.inf]):
        _, dx, dparams = run(config, usual._replace(dy=np.float32(dy)))
        assert not np.isfinite(dx[slope != 0]).any()
        assert not np.isfinite(dparams[slopes != 0]).any(), (dparams, slopes)


@a_config_of_every_kernel
@pytest.mark.parametrize("shape, axis, groups", [((70_001,), 0, 1), ((311, 17, 9), 1, 17)])
def test_many_elements_and_the_same_bits_again(config, shape, axis, groups):
    arguments = sample(config, shape, axis, groups, "float32", 1)
    assert_equal(config, arguments)
    for first, second in zip(run(config, arguments), run(config, arguments), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("scale", [1e15, 1e30])
@pytest.mark.parametrize(
    "name",
    ("Apl", "Srelu", "Mixture", "Prelu", "SmoothMaximum", "Pwlu", "Bspline", "CubicRelu"),
)
def test_parameters_whose_products_overflow(name, scale):
    # The sum of such products, and the derivatives, may still be numbers.
    for config in CONFIGS:
        if config.name == name and 18 not in config.settings:  # not an exponential
            assert_equal(config, sample(config, (40, 7), 1, 7, "float32", 3, scale))


@pytest.mark.tensorflow  # float64, in all functions
@every_config
def test_the_formulas_gradient_is_its_difference_quotient(config):
    rng = np.random.default_rng(2)
    x, params = rng.normal(size=200), rng.normal(size=(200, config.count))
    if config.positive:
        x, params = abs(x), abs(params)
    key = np.array([1, 2], "int32")
    by_x, by_params = rng.normal(size=x.shape), rng.normal(size=params.shape)

    def moved(by):
        y, dx, dparams = truth(config, x + by * by_x, params + by * by_params, key)
        if config.name == "RandomizedRational":  # its gradient takes the noise as a constant
            return y, dx * by_x
        return y, dx * by_x + (dparams * by_params).sum(axis=1)

    if config.name == "RandomizedRational":
        by_params = 0 * by_params
    step = 1e-6
    below, here, above = moved(-step), moved(0), moved(step)
    quotient = (above[0] - below[0]) / (2 * step)
    # Between two points the quotient is a derivative: it is as far off as the derivative changes.
    bound = 2 * abs(above[1] - below[1]) + 1e-8 * (1 + abs(here[0]) + abs(here[1]))
    assert (abs(quotient - here[1]) <= bound).all()
    # That says something: at nearly all points the derivative changes little.
    assert np.median(bound / (1e-3 + abs(here[1]))) < 1e-2


@every_config_once
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_where_it_is_and_infinity_makes_none(config, dtype):
    arguments = sample(config, (9, 5), 0, 1, dtype, 4)
    arguments.x[1:4, 0] = np.nan, np.inf, -np.inf
    if config.positive:
        arguments.x[3, 0] = 1
    y, dx, _ = run(config, arguments)
    is_nan = np.isnan(arguments.x.astype("float32"))
    np.testing.assert_array_equal(np.isnan(y), is_nan)
    assert not np.isnan(dx[~is_nan]).any()


@every_config_once
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_beside_infinity(config, dtype):
    """In one vector, which then is computed with more care than plain arithmetic has."""
    for seed in range(3):
        arguments = sample(config, (4, 64), 1, 8, dtype, seed)
        arguments.x[:, ::2] = np.nan
        arguments.x[:, 1::4] = np.inf
        arguments.x[:, 3::4] = 1 if config.positive else -np.inf
        y, _, _ = run(config, arguments)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(arguments.x.astype("float32")))


def test_derivatives_at_kinks_by_hand():
    # Functions with a kink at 0, and the derivative there; `celu` has none, but TensorFlow's is 2.
    at_0 = {"relu": 0, "relu6": 0, "leaky_relu": 0.2, "selu": 1.0507, "celu": 1, "elu": 1}
    elsewhere = {("relu6", 6): 0, ("hard_sigmoid", 3): 0, ("hard_tanh", 1): 1, ("hard_tanh", -1): 1}
    for (name, x), slope in [*(((name, 0), s) for name, s in at_0.items()), *elsewhere.items()]:
        call = kernels.Call(kernels.KERNELS["Mixture"], (FUNCTIONS.index(name),))
        one = np.ones((1, 1), "float32")
        _, (dx, _) = gradients(lambda x, w: kernels.run(call, x, w, 0), x * one, one)  # noqa: B023
        assert dx.item() == pytest.approx(slope, rel=1e-4), name


# Maxout has no parameters.


def pool(x, pieces, axis, dy=None):
    """y, or with dy dx, by NumPy."""
    shape = (*x.shape[:axis], x.shape[axis] // pieces, pieces, *x.shape[axis + 1 :])
    split = x.astype("float64").reshape(shape)
    y = split.max(axis=axis + 1)
    if dy is None:
        return y
    chosen = split == np.expand_dims(y, axis + 1)
    shares = chosen.sum(axis=axis + 1)
    share = dy.astype("float64") / np.maximum(shares, 1)
    share = np.where(shares == 0, np.nan, share)  # a nan among them
    chosen = chosen | (np.expand_dims(shares, axis + 1) == 0)
    return np.where(chosen, np.expand_dims(share, axis + 1), 0).reshape(x.shape)


@settings(max_examples=10 * EXAMPLES)
@given(
    pieces=st.sampled_from((1, 2, 3, 4, 5, 8, 31)),
    outer=st.sampled_from((0, 1, 2, 7, 33)),
    groups=st.sampled_from((1, 2, 5, 16, 37)),
    inner=st.sampled_from((1, 1, 2, 3, 16, 49, 520)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
def test_maxout_and_its_gradient(pieces, outer, groups, inner, dtype, seed):
    shape = (outer, groups * pieces) if inner == 1 else (outer, groups * pieces, inner)
    rng = np.random.default_rng(seed)
    # Few numbers: several pieces are often the largest.
    x = rng.choice([-np.inf, -2, -1, 0, 1, 1, 2, 3, np.inf, np.nan], size=shape)
    x = array(np.where(rng.random(shape) < 0.5, x, rng.normal(size=shape)), dtype)
    call = kernels.Call(kernels.KERNELS["Maxout"], (pieces,))
    with wide() if dtype == "float64" else contextlib.nullcontext():
        assert not kernels.why_not(call, dtype, 0)
        y = ops.convert_to_numpy(kernels.run(call, ops.convert_to_tensor(x), None, 1))
        dy = array(rng.normal(size=y.shape), dtype)
        _, (dx,) = gradients(lambda x: kernels.run(call, x, None, 1) * dy, x)
    assert y.dtype == dx.dtype == x.dtype
    np.testing.assert_array_equal(y.astype("float64"), pool(x, pieces, 1))
    # One rounding to the dtype, of a quotient.
    bound = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, 1e-6)
    np.testing.assert_allclose(
        dx.astype("float64"), pool(x, pieces, 1, dy), rtol=bound, atol=1e-7 if bound > 1e-3 else 0
    )


# Which layers run their kernel.


def path(layer):
    if not layer.built:
        layer.build((None, 8))
    return layer.path


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "mixed_float16", "bfloat16"])
@pytest.mark.parametrize("sharing", ["layer", "channel", 2, "unit"])
def test_layers_run_their_kernel_whatever_the_sharing_and_the_dtype(sharing, dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless its 64-bit mode is on")
    common = {"sharing": sharing, "dtype": dtype}
    layers = [
        *(kla.PAU(denominator=version, **common) for version in "ABCN"),
        *(kla.PAU(degrees=degrees, **common) for degrees in ((1, 0), (3, 3), (16, 16))),
        kla.RPAU(noise=0.1, **common),
        kla.SLAF(order=16, **common),
        kla.DEU(**common),
        kla.APL(1, **common),
        kla.APL(32, **common),
        kla.SReLU(**common),
        kla.Swish(**common),
        kla.ACONC(**common),
        kla.SMU(alpha=0.5, **common),
        kla.APA(**common),
        kla.AGLU(**common),
        kla.EELU(**common),
        kla.CubicReLU(gamma=0.1, **common),
        kla.PELU(**common),
        kla.Snake(**common),
        kla.Mixture(FUNCTIONS, **common),
        kla.PReLU(**common),
        *(kla.PWLU(intervals, **common) for intervals in (1, 16, 64)),
        *(kla.BSpline(grid, degree, **common) for grid, degree in ((1, 1), (8, 3), (64, 2))),
        *(kla.Hermite(degree, **common) for degree in (1, 4, 16)),
        kla.Mixture(("swish", "hard_swish", keras.activations.tanh), **common),
        kla.Maxout(3, dtype=dtype),
        kla.MaxoutDense(4, dtype=dtype),
        kla.MaxoutConv2D(4, 3, dtype=dtype),
    ]
    for layer in layers:
        if isinstance(layer, kla.LearnableActivation):
            layer.build((None, 8))
        assert layer.path == "kernel", layer


@keras.saving.register_keras_serializable("tests")
def doubled(x):
    return 2 * x


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda: kla.PAU(degrees=(17, 4), initial=([0.0, 1.0] + 16 * [0.0], 4 * [0.0])),
            "at most 17 coefficients",
        ),
        (lambda: kla.PAU(degrees=(5, 18), initial=(6 * [0.0], 18 * [0.0])), "at most 17 coeff"),
        (lambda: kla.SLAF(order=17), "at most 17 coefficients"),
        (lambda: kla.APL(33), "1 to 32 hinges. Received: 33"),
        (lambda: kla.PWLU(65), "1 to 64 intervals. Received: 65"),
        (lambda: kla.BSpline(65), "1 to 64 intervals. Received: 3 and 65"),
        (lambda: kla.Mixture(33 * ["relu"]), "1 to 32 functions"),
        (lambda: kla.Mixture((doubled, "relu")), "not doubled"),
        (lambda: kla.Mixture((keras.layers.LeakyReLU(0.5, name="mine"),)), "not mine"),
        (lambda: kla.Mixture(("squareplus",)), "not squareplus"),
        (lambda: kla.RPAU(noise=2e6), "noise must be between 0 and 1e"),
    ],
)
def test_only_these_configurations_of_layers_run_their_formula(make, why):
    layer = make()
    layer.build((None, 8))
    assert layer.path.startswith("reference: ") and why in layer.path
    assert np.isfinite(ops.convert_to_numpy(layer(np.ones((2, 8), "float32")))).all()


def test_no_other_activation_of_keras_is_left_out():
    left_out = set()
    for name in dir(keras.activations):
        if name in ("get", "serialize", "deserialize") or name.startswith("_"):
            continue
        # These are not element-wise, or need arguments.
        if name in ("softmax", "log_softmax", "glu", "sparsemax", "threshold"):
            continue
        layer = kla.Mixture((name,))
        if layer.path != "kernel":
            left_out.add(name)
    assert left_out == {
        "hard_shrink",
        "soft_shrink",
        "sparse_plus",
        "sparse_sigmoid",
        "squareplus",
        "tanh_shrink",
    }


def test_rrelu_has_no_kernel():
    # Its noise is Keras' own, and nothing is learned.
    assert not hasattr(kla.RReLU, "kernel")
