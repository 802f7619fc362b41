"""The kernels in JAX: the same numbers in every mode, and never a crash."""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest

import keras_learnact as kla
from keras_learnact import kernels
from keras_learnact.kernels import library

if keras.backend.backend() == "jax":
    import jax
    import jax.numpy as jnp

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs Keras on JAX")
ROOT = Path(__file__).parents[2]
NAMES = sorted(kernels.KERNELS)  # of those that a layer calls
TRANSCENDENTAL = ("Deu", "Pelu", "Snake")  # whose formula takes exp, tanh or sin
every_kernel = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module", autouse=True)
def binding():
    loaded, why = kernels.load()
    if why:
        # A job that should test the kernels must not pass without them.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return loaded


class Sample(NamedTuple):
    """A call that a layer makes of a kernel. NumPy arrays; params and key may be None."""

    name: str
    settings: tuple
    x: np.ndarray
    params: np.ndarray
    axis: int
    key: np.ndarray
    dy: np.ndarray

    def arrays(self, dtype="float32"):
        """x and dy, between them params if there are any: what derivatives are taken of."""
        arrays = [jnp.asarray(self.x, dtype)]
        if self.params is not None:
            arrays.append(jnp.asarray(self.params, "float64" if dtype == "float64" else "float32"))
        return [*arrays, jnp.asarray(self.dy, dtype)]

    def value(self, run=None, axis=None):
        """The call as a function of `arrays` without dy."""
        run = run or kernels.load()[0].run
        axis = self.axis if axis is None else axis
        return lambda x, params=None, key=self.key: run(
            self.name, self.settings, x, params, axis, None if key is None else jnp.asarray(key)
        )

    def function(self, run=None, axis=None):
        """The call and its gradients as a function of `arrays`."""
        value = self.value(run, axis)

        def function(*arrays, **key):
            y, pull = jax.vjp(functools.partial(value, **key), *arrays[:-1])
            return [y, *pull(arrays[-1])]

        return function

    def truth(self, dtype="float32"):
        """The same in float64 by the formula, of arguments that were rounded to the dtype."""
        with wide():
            arrays = [jnp.asarray(a, "float64") for a in self.arrays(dtype)]
            return formula(self.name)(*arrays)

    def second(self):
        """Something nonlinear in all that the gradient gives, and its derivatives."""
        first = self.function()

        def total(*arrays):
            return sum(jnp.sum(jnp.sqrt(1 + g * g)) for g in first(*arrays)[1:])

        return total, lambda *arrays: jax.grad(total, tuple(range(len(arrays))))(*arrays)


@functools.cache
def formula(name):
    """The formula and its gradients, for one sample in whatever precision its arguments have."""
    return once(samples()[name].function(kernels.reference))


def once(f):
    """A function that is compiled quickly, to be called once or twice."""
    fast = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(f, compiler_options=fast)


def wide():
    """Where JAX has float64."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return jax.experimental.enable_x64()


# Few cells: the second derivative of a walk through ten is compiled for minutes.
SMALLER = {kla.DiTAC: {"tess": 3}}


@functools.cache
def samples():
    """By kernel: a call of it by a layer, with parameters off their start."""
    keras.utils.set_random_seed(0)
    rng, found = np.random.default_rng(0), {}
    x = rng.normal(size=(6, 5, 8), scale=2).astype("float32")
    original = kernels.run

    def record(call, x, params, axis):
        key = call.key() if call.key else None
        y = kernels.load()[0].run(call.kernel.name, call.settings, x, params, axis, key)
        arrays = [None if a is None else np.array(a) for a in (x, params, key)]
        dy = rng.normal(size=y.shape).astype("float32")
        sample = Sample(call.kernel.name, call.settings, *arrays[:2], axis, arrays[2], dy)
        found.setdefault(sample.name, sample)
        return y

    kernels.run = record
    try:
        layers = [c(sharing="channel", **SMALLER.get(c, {})) for c in activations()]
        for layer in [*layers, kla.Maxout(pieces=2)]:
            if layer.path != "kernel":
                continue
            layer.build(x.shape)
            for weight in layer.weights:
                if "activation_parameter" in vars(weight):
                    weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
            layer(x)
            if isinstance(layer, kla.LearnableActivation):
                layer(x, training=True)
    finally:
        kernels.run = original
    return found


def activations():
    return [
        c
        for c in vars(kla.layers).values()
        if isinstance(c, type)
        and issubclass(c, kla.LearnableActivation)
        and c is not kla.LearnableActivation
    ]


def assert_close(got, expected, tolerance):
    """Sums of many terms may differ by the tolerance of the largest."""
    for a, b in zip(got, expected, strict=True):
        a, b = np.array(a, "float64"), np.array(b, "float64")
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (1 + np.abs(b).max()))


def assert_same_bits(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.array(a), np.array(b))


def text(f, *arrays, **settings):
    """What JAX gives to XLA."""
    return jax.jit(f, **settings).lower(*arrays).as_text()


def test_every_kernel_of_the_library_is_called_by_a_layer(binding):
    assert sorted(binding._kernels) == NAMES == sorted(samples())


@every_kernel
def test_values_and_gradients(name):
    sample = samples()[name]
    # float32 against float64, with cancellation in polynomials
    assert_close(sample.function()(*sample.arrays()), sample.truth(), 1e-4)


@every_kernel
@pytest.mark.parametrize("dtype, tolerance", [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_is_rounded_once(name, dtype, tolerance):
    # One rounding to 11 and to 8 bits, of values up to about 1 + the largest.
    sample = samples()[name]
    y, dx, *dparams = sample.function()(*sample.arrays(dtype))
    assert y.dtype == dx.dtype == dtype and all(d.dtype == "float32" for d in dparams)
    assert_close([y, dx, *dparams], sample.truth(dtype), tolerance)


@every_kernel
def test_float64(name):
    sample = samples()[name]
    with wide():
        result = sample.function()(*sample.arrays("float64"))
    assert all(a.dtype == "float64" for a in result)
    # XLA's exp, tanh and sin of a float64 on the CPU have hardly more digits than those of a
    # float32. Then the formula is not the truth; that the kernel has float64's digits, differences
    # show below.
    assert_close(result, sample.truth("float64"), 1e-5 if name in TRANSCENDENTAL else 1e-11)


def slopes(sample, function, gradients, arrays):
    """Of a function of arrays along a random direction: by differences, and by its gradients."""
    rng = np.random.default_rng(3)
    direction = [rng.normal(size=a.shape) for a in arrays]
    if sample.key is not None:
        direction[1] *= 0  # the gradient takes the noise of params as a constant

    def moved(t):
        return float(function(*(a + t * d for a, d in zip(arrays, direction, strict=True))))

    step = 1e-6
    exact = sum(float(jnp.sum(g * d)) for g, d in zip(gradients, direction, strict=True))
    return (moved(step) - moved(-step)) / (2 * step), exact


@every_kernel
def test_gradients_by_differences(name):
    """In float64, where float32 would show nothing."""
    sample = samples()[name]
    with wide():
        *arrays, dy = sample.arrays("float64")
        _, *gradients = sample.function()(*arrays, dy)
        value = sample.value()
        slope, exact = slopes(sample, lambda *a: jnp.sum(value(*a) * dy), gradients, arrays)
    assert abs(slope - exact) < 1e-6 * (1 + abs(exact)), (slope, exact)


@every_kernel
def test_second_derivatives_by_differences(name):
    sample = samples()[name]
    with wide():
        arrays = sample.arrays("float64")
        total, second = sample.second()
        slope, exact = slopes(sample, total, once(second)(*arrays), arrays)
    assert abs(slope - exact) < 1e-6 * (1 + abs(exact)), (slope, exact)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float16", 1e-2)])
def test_second_derivatives_of_other_dtypes(dtype, tolerance):
    # One kernel, whose formula compiles quickly: it is the same code for all.
    sample = samples()["Srelu"]
    _, second = sample.second()
    arrays = sample.arrays(dtype)
    got = jax.jit(second)(*arrays)
    assert [a.dtype for a in got] == [a.dtype for a in arrays]
    with wide():
        exact = once(second)(*(jnp.asarray(a, "float64") for a in arrays))
    assert_close(got, exact, tolerance)


# One kernel in every mode. All of them run the same code, so all bits must agree.


def in_jit(f, arrays):
    return jax.jit(f)(*arrays)


def in_scan(f, arrays):
    _, result = jax.lax.scan(lambda carry, _: (carry, f(*arrays)), 0, None, length=2)
    return [a[1] for a in result]


def with_checkpoint(f, arrays):
    return jax.jit(lambda *arrays: jax.checkpoint(f)(*arrays))(*arrays)


def in_a_branch(f, arrays):
    zeros = jax.eval_shape(f, *arrays)
    other = lambda *_: [jnp.zeros(a.shape, a.dtype) for a in zeros]  # noqa: E731
    return jax.jit(lambda i, *arrays: jax.lax.cond(i > 0, f, other, *arrays))(1, *arrays)


def without_jit(f, arrays):
    with jax.disable_jit():
        return f(*arrays)


MODES = [in_jit, in_scan, with_checkpoint, in_a_branch, without_jit]


@pytest.mark.parametrize("mode", MODES, ids=lambda f: f.__name__)
@every_kernel
def test_the_same_bits_in_every_mode(name, mode):
    sample = samples()[name]
    f, arrays = sample.function(), sample.arrays()
    assert_same_bits(mode(f, arrays), f(*arrays))


@every_kernel
def test_a_checkpointed_loss(name):
    sample = samples()[name]
    *arrays, dy = sample.arrays()

    def loss(function):
        return jax.grad(lambda *a: jnp.sum(function(*a) * dy), tuple(range(len(arrays))))

    f = sample.value()
    assert_same_bits(jax.jit(loss(jax.checkpoint(f)))(*arrays), jax.jit(loss(f))(*arrays))


# vmap


def batched(sample):
    """Entries of their own for x, params, dy and key: a batch of three; and axes for all."""
    arrays = [jnp.stack([a, a[::-1], -a]) for a in sample.arrays()]
    key = {} if sample.key is None else {"key": np.stack([sample.key, sample.key + 1, sample.key])}
    return arrays, key


@every_kernel
def test_vmap_over_everything_is_one_call_with_the_bits_of_each(name):
    sample = samples()[name]
    f = sample.function()
    arrays, keys = batched(sample)
    mapped = jax.vmap(lambda key, *a: f(*a, **key))
    got = mapped(keys, *arrays)
    for i in range(3):
        key = {k: v[i] for k, v in keys.items()}
        assert_same_bits([a[i] for a in got], f(*(a[i] for a in arrays), **key))
    calls = text(mapped, keys, *arrays).count("@keras_learnact.")
    assert calls == 2  # the value and the gradient


@every_kernel
def test_vmap_over_each_argument_alone(name):
    sample = samples()[name]
    f, single = sample.function(), sample.arrays()
    arrays, _ = batched(sample)
    for only in range(len(arrays)):
        mixed = [a if i == only else single[i] for i, a in enumerate(arrays)]
        axes = [0 if i == only else None for i in range(len(arrays))]
        mapped = jax.vmap(f, axes)
        got = mapped(*mixed)
        for i in range(3):
            entry = [a[i] if j == only else a for j, a in enumerate(mixed)]
            assert_same_bits([a[i] for a in got], f(*entry))
        assert text(mapped, *mixed).count("@keras_learnact.") == 2


@every_kernel
def test_vmap_of_vmap_and_over_another_axis(name):
    sample = samples()[name]
    f = sample.function()
    arrays, _ = batched(sample)
    twice = [jnp.stack([a, 2 * a], axis=1) for a in arrays]
    got = jax.vmap(jax.vmap(f), in_axes=1)(*twice)
    for i in range(2):
        for j in range(3):
            assert_same_bits([a[i, j] for a in got], f(*(a[j, i] for a in twice)))


@every_kernel
def test_the_gradient_of_a_mapped_function_sums_over_entries(name):
    sample = samples()[name]
    arrays, _ = batched(sample)
    if sample.params is None:
        pytest.skip("there is nothing to sum: it has no parameters")
    x, params, dy = arrays[0], sample.arrays()[1], arrays[2]
    mapped = jax.vmap(sample.value(), (0, None))
    got = jax.grad(lambda x, params: jnp.sum(mapped(x, params) * dy), (0, 1))(x, params)
    _, dx, dparams = zip(*(sample.function()(x[i], params, dy[i]) for i in range(3)), strict=True)
    # sums of three in another order
    assert_close(got, [jnp.stack(dx), sum(dparams)], 1e-6)


@every_kernel
def test_vmap_draws_what_the_formula_draws(name):
    sample = samples()[name]
    if sample.key is None:
        pytest.skip("it draws nothing")
    (x, params, _), keys = batched(sample)
    for axes in [(0, None, None), (0, None, 0), (None, None, 0)]:
        values = [
            once(jax.vmap(sample.value(run), axes))(
                *(b if i == 0 else a for i, a, b in zip(axes, single, stacked, strict=True))
            )
            for run in (None, kernels.reference)
            for single, stacked in [
                ((sample.x, sample.params, sample.key), (x, params, keys["key"]))
            ]
        ]
        # float32 in another order of operations; another draw would differ by 1e-2
        assert_close(values[:1], values[1:], 1e-5)


# Memory


@every_kernel
def test_a_result_takes_the_memory_of_what_is_not_needed_any_more(name):
    sample = samples()[name]
    value = sample.value()
    *arrays, dy = sample.arrays()

    def reuses(f, *arrays, **settings):
        return text(f, *arrays, **settings).count("output_operand_alias<")

    allowed = 0 if sample.params is None else 1  # a pooling kernel's result has another shape
    assert reuses(lambda x, *p: value(2 * x, *p), *arrays) == allowed
    if allowed:
        assert reuses(value, *arrays, donate_argnums=0) == 1
    assert reuses(value, *arrays) == 0  # XLA would have to copy x first
    # In a gradient dx takes the memory of dy; x is needed after the value.
    gradient = jax.grad(lambda x, *p: jnp.sum(value(2 * x, *p) * dy))
    assert reuses(lambda *a: gradient(*a), *arrays) == allowed


@every_kernel
def test_a_donated_input(name):
    sample = samples()[name]
    f = sample.value()
    *arrays, _ = sample.arrays()
    expected = f(*arrays)
    x, *params = arrays
    if sample.params is None:
        pytest.skip("its result has another shape than x")
    assert_same_bits([jax.jit(f, donate_argnums=0)(jnp.array(x), *params)], [expected])


# Several devices


def in_a_process(program, **environment):
    """What a program, a module or after -c a text, prints last."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *program],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_on_two_devices():
    flags = "--xla_force_host_platform_device_count=2"
    said = in_a_process(["-m", "tests.kernels.jax_devices"], XLA_FLAGS=flags)
    assert said == f"right on 2 devices: {len(NAMES)} kernels"


# Determinism


@every_kernel
def test_the_same_bits_in_100_repeats_and_on_one_thread(name, binding):
    sample = samples()[name]
    rng = np.random.default_rng(0)

    def large(a):
        return jnp.asarray(np.tile(a, (150, 1, 1)) * rng.uniform(0.5, 1, (900, 1, 1)), "float32")

    x, *params, dy = sample.arrays()
    f = jax.jit(sample.function())
    arrays = [large(x), *params, large(dy)]  # 36000 elements: several threads
    expected = [np.array(a) for a in f(*arrays)]
    threads = binding.threads()
    try:
        for repeat in range(100):
            binding.threads(1 + repeat % 3)
            assert_same_bits(f(*arrays), expected)
    finally:
        binding.threads(threads)


# Errors


def ffi(target, types, *arrays, axis=None, settings=None):
    attributes = {} if axis is None else {"axis": axis}
    if settings is not None:
        attributes["settings"] = settings
    return jax.ffi.ffi_call(target, types)(*arrays, **attributes)


@every_kernel
def test_a_call_that_no_layer_makes_is_refused(name):
    """Wrong numbers, types and shapes of everything: an error that names the kernel."""
    sample = samples()[name]
    *arrays, dy = sample.arrays()
    if sample.key is not None:
        arrays.append(jnp.asarray(sample.key.astype("int32")))
    target = f"keras_learnact.{name}"
    good = {
        "axis": np.int64(sample.axis),
        "settings": np.array(sample.settings, np.int64),
    }
    none = jax.ShapeDtypeStruct((0,), "float32")  # handlers give two arrays
    y = jax.ShapeDtypeStruct(dy.shape, dy.dtype)
    gradients = [*(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays[:2]), none][:2]
    result, _ = ffi(target, [y, none], *arrays, **good)
    assert_same_bits([result], [sample.value()(*sample.arrays()[:-1])])
    x, *others = arrays

    def shaped(a, shape):
        return jax.ShapeDtypeStruct(shape, a.dtype)

    bad = [
        ([y, none], [], good),
        ([y, none], [x, *others, x], good),
        ([y], arrays, good),
        ([y, none, none], arrays, good),
        ([y, none], [x.astype("int32"), *others], good),
        ([shaped(y, (*y.shape, 1)), none], arrays, good),
        ([jax.ShapeDtypeStruct(y.shape, "float16"), none], arrays, good),
        ([y, none], arrays, {**good, "axis": np.int64(-1)}),
        ([y, none], arrays, {**good, "axis": np.int64(2**40)}),
        ([y, none], arrays, {**good, "axis": np.float32(sample.axis + 0.5)}),
        ([y, none], arrays, {**good, "settings": np.array([*sample.settings, 1], np.int64)}),
        ([y, none], arrays, {**good, "settings": np.array([1.0])}),
        ([y, none], arrays, {"axis": good["axis"]}),
        ([y, none], arrays, {"settings": good["settings"]}),
    ]
    for value in (-(2**63), -1, 2**31, 2**63 - 1):
        for i in range(len(sample.settings)):
            if sample.key is not None and i == len(sample.settings) - 1:
                continue  # a real number, of which many are right
            if abs(int(good["settings"][i])) > 2**40 and value in (-(2**63), 2**31):
                continue  # the bits of one, likewise: these are -0 and a denormal, the others nan
            settings = good["settings"].copy()
            settings[i] = value
            bad.append(([y, none], arrays, {**good, "settings": settings}))
    if sample.params is not None:
        params = others[0]
        for wrong in [
            params.astype("float16"),
            params[0],
            params[None],
            params[:, :1],
            params[:0],
            params[:3],
            params.reshape(-1, 1, 1, 1),
        ]:
            if (wrong.shape, wrong.dtype) != (params.shape, params.dtype):
                bad.append(([y, none], [x, wrong, *others[1:]], good))
    if sample.key is not None:
        for wrong in (others[1].astype("float32"), others[1][:1], others[1][None], others[1][0]):
            bad.append(([y, none], [x, others[0], wrong], good))
    bad = [(target, *case) for case in bad]
    bad += [
        (f"{target}Grad", [*gradients, y], [*arrays, dy], good),
        (f"{target}Grad", gradients, arrays, good),
        (f"{target}Grad", gradients, [*arrays, dy[:-1]], good),
        (f"{target}Grad", gradients, [*arrays, dy.astype("float16")], good),
        (f"{target}Grad", [shaped(x, (*x.shape, 1)), *gradients[1:]], [*arrays, dy], good),
    ]
    for case in bad:
        target_, types, operands, attributes = case
        try:
            jax.block_until_ready(ffi(target_, types, *operands, **attributes))
        except jax.errors.JaxRuntimeError as e:
            assert "INVALID_ARGUMENT" in str(e), case
        else:
            pytest.fail(f"not refused: {case}")


@every_kernel
def test_empty_inputs(name):
    sample = samples()[name]
    x, *params, dy = sample.arrays()
    for part in (x[:0], x[:, :0]):
        empty = dy[:0] if part.shape[0] == 0 else dy[:, :0]
        y, dx, *dparams = sample.function()(part, *params, empty)
        assert (y.shape, dx.shape) == (empty.shape, part.shape)
        assert all(not np.any(np.array(d)) for d in dparams)


def test_why_a_call_runs_the_formula(binding):
    call = kla.PAU().kernel(False)
    assert binding.why_not("Rational", call.settings, 10, "float32") == ""
    assert "no kernel Other" in binding.why_not("Other", (), 1, "float32")
    assert "not int32" in binding.why_not("Rational", call.settings, 10, "int32")
    assert "at most 17" in binding.why_not("Rational", (18, ord("A")), 20, "float32")


def test_a_platform_without_kernels_runs_the_formula(binding, monkeypatch):
    monkeypatch.setattr(jax.extend.backend, "backends", lambda: {"cpu": None, "tpu": None})
    binding._platforms.cache_clear()
    binding.why_not.cache_clear()
    try:
        assert kla.PAU().path == "reference: JAX runs on tpu: there are kernels for cpu and cuda"
        assert "not used: JAX runs on tpu" in kernels.report()
    finally:
        binding._platforms.cache_clear()
        binding.why_not.cache_clear()


# Layers


def test_status_says_what_is_loaded(capsys, binding):
    kernels.status()
    said = capsys.readouterr().out
    assert f"JAX {jax.__version__} on cpu" in said
    assert f"cpu: libkeras_learnact_xla.so: {', '.join(NAMES)}; built for" in said
    assert f"{binding.threads()} threads" in said
    assert "cuda: " in said


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "mixed_float16"])
def test_a_layer_says_that_it_runs_the_kernel(dtype):
    assert kla.PAU(dtype=dtype).path == "kernel"


def test_training_gives_what_the_formula_gives():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 6)).astype("float32"), rng.normal(size=(32, 1)).astype("float32")

    def losses():
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.layers.Dense(12), kla.SReLU(sharing="channel"), keras.layers.Dense(1)]
        )
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model.fit(x, y, batch_size=8, epochs=3, verbose=0).history["loss"]

    with_kernels = losses()
    with kernels.disabled():
        np.testing.assert_allclose(with_kernels, losses(), rtol=1e-4)  # twelve steps in float32


# Libraries that are not right


@contextlib.contextmanager
def other_folder(binding, monkeypatch, folder):
    """The libraries are looked for in another folder, as if for the first time."""
    with monkeypatch.context() as patch:
        patch.setattr(library, "FOLDER", str(folder))
        for state in ("_libraries", "_kernels", "_absent"):
            patch.setattr(binding, state, {})
        yield binding.load.__wrapped__


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-5000])


def only_the_header(file):
    file.write_bytes(file.read_bytes()[:64])


def text_file(file):
    file.write_text("no library")


def of_another_processor(file):
    content = bytearray(file.read_bytes())
    content[18] ^= 0xFF
    file.write_bytes(content)


def of_someone_else(file):
    name = re.search(r"/\S*libm\.so\S*", Path("/proc/self/maps").read_text()).group()
    shutil.copy(name, file)


@pytest.mark.parametrize(
    "damage", [cut_short, only_the_header, text_file, of_another_processor, of_someone_else]
)
def test_a_library_that_is_not_right_gives_one_warning(binding, monkeypatch, tmp_path, damage):
    file = tmp_path / "libkeras_learnact_xla.so"
    shutil.copy(library.path("xla"), file)
    damage(file)
    with other_folder(binding, monkeypatch, tmp_path) as load:
        with pytest.warns(UserWarning, match=r"libkeras_learnact_xla\.so.*keras\.ops") as caught:
            why = load()
        assert why and len(caught) == 1
        assert binding._kernels == {}


def test_a_library_that_is_not_built_gives_no_warning(binding, monkeypatch, tmp_path):
    with other_folder(binding, monkeypatch, tmp_path) as load:
        assert load().startswith("libkeras_learnact_xla.so is not built")


def test_the_library_alone_is_enough(tmp_path):
    """Without the notes that the build writes beside it."""
    shutil.copy(library.path("xla"), tmp_path)
    program = (
        "import sys; from keras_learnact import PAU, kernels; "
        "from keras_learnact.kernels import library; "
        "library.FOLDER = sys.argv[1]; print(PAU().path)"
    )
    assert in_a_process(["-c", program, str(tmp_path)]) == "kernel"


def test_an_older_jax_runs_the_formula():
    """One that has not yet what the kernels need: it is taken away before the first import."""
    program = """
import jax
import jax.experimental.custom_partitioning as partitioning
import jax.extend.backend

jax.__version__ = "0.4.30"
vars(jax).pop("ffi", None)
for name in ("ArrayMapping", "CompoundFactor", "SdyShardingRule"):
    delattr(partitioning, name)

import numpy as np
from keras_learnact import PAU

layer = PAU()
assert np.all(np.isfinite(layer(np.ones((2, 3), "float32"))))
print(layer.path)
"""
    expected = "reference: kernels need jax >= 0.5.0, and this is 0.4.30"
    assert in_a_process(["-c", program]) == expected
