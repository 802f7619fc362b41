"""The kernels on a GPU: KERAS_BACKEND=jax python -m tests.gpu.check (or tensorflow)

    every      every kernel and dtype against the formula in float64, for shapes that are cut in
               every way; the same bits 100 times
    raw        on JAX: the library called without it, on misaligned and on empty arrays
    huge       on JAX: 2^31 + 7 elements
    tests      the tests in tests/kernels, on the GPU
    sanitizer  on JAX: raw again, under compute-sanitizer, if that is on the PATH

Without names all of them. It fails where there is no GPU. With --rehearse it runs there what can
run, to try this program itself, and fails in the end.
"""

import argparse
import ctypes
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks.cuda_library import Call, Error, all_kernels
from keras_learnact import kernels
from tests.kernels import kernels_test
from tests.kernels.kernels_test import CONFIGS, DTYPES, ONE_OF_EACH, assert_equal, sample

ROOT = Path(__file__).resolve().parents[2]
REPEATS = 100
SIZE = 16384
# Shape, axis, groups: one run; channels last, few and many, of whole packs of elements and not;
# channels first with runs short and long; groups of channels; units; none.
VIEWS = [
    ((1,), 0, 1),
    ((16_381,), 0, 1),
    ((8, 2048), 0, 1),
    ((1000, 3), 1, 3),
    ((250, 64), 1, 64),
    ((51, 300), 1, 300),
    ((21, 768), 1, 8),
    ((33, 96), 1, 8),
    ((40, 5, 7, 7), 1, 5),
    ((40, 6, 8, 8), 1, 6),
    ((18, 2, 17, 17), 1, 2),
    ((17, 3, 16, 20), 1, 3),
    ((2, 1, 64, 128), 1, 1),
    ((1, 2, 90, 91), 1, 2),
    ((1, 2, 64, 128), 1, 2),
    ((16, 1000), 1, 1000),
    ((7, 33), 1, 33),
    ((0, 4), 1, 4),
]


def main():
    parts = {"every": every, "raw": raw, "huge": huge, "tests": suites, "sanitizer": sanitizer}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer shapes and repeats")
    options = parser.parse_args()
    if not set(options.parts) <= set(parts):
        parser.error(f"the parts are {', '.join(parts)}")
    problem = no_gpu()
    if problem and not options.rehearse:
        sys.exit(f"FAILED: {problem}")
    binding, why = kernels.load()
    if binding is None:
        sys.exit(f"FAILED: no kernels: {why}")
    kernels.status()
    for name in options.parts or parts:
        start = time.time()
        print(f"--- {name}", flush=True)
        parts[name](options)
        print(f"    {time.time() - start:.0f} s", flush=True)
    if problem:
        sys.exit(f"FAILED, but for the rehearsal: {problem}")
    print("PASSED on", device_name())


def no_gpu():
    """Why this cannot test a GPU, or ""."""
    backend = _backend()
    if backend == "jax":
        import jax

        found = jax.default_backend()
        return "" if found == "gpu" else f"JAX has no GPU, it runs on {found} ({sys.prefix})"
    if backend == "tensorflow":
        import tensorflow as tf

        return "" if tf.config.list_physical_devices("GPU") else "TensorFlow has no GPU"
    return f"there are no kernels for Keras on {backend}"


def device_name():
    if _backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    gpu = tf.config.list_physical_devices("GPU")[0]
    return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)


def every(options):
    """Against float64, and the same bits again."""
    kernels_test.SIZE = SIZE  # the formula is compiled once for each config
    calls = 0
    for i, config in enumerate(CONFIGS):
        # Every view of one config of each kernel, some of the others.
        some = VIEWS if config in ONE_OF_EACH and not options.quick else VIEWS[i % 5 :: 5]
        for j, view in enumerate(some):
            for dtype in DTYPES if len(some) == len(VIEWS) else [DTYPES[(i + j) % 4]]:
                if dtype == "float64" and _backend() in config.float32_on:
                    continue
                try:
                    assert_equal(config, sample(config, *view, dtype, seed=i * 100 + j))
                except AssertionError:
                    print(f"WRONG: {config}, {view}, {dtype}", flush=True)
                    raise
                calls += 1
        print(f"    {config}", flush=True)
    print(f"    {calls} calls agree with float64")
    repeats = 3 if options.quick else REPEATS
    views = [((300_007,), 0, 1), ((3000, 64), 1, 64)]
    for config, view, dtype in itertools.product(ONE_OF_EACH, views, ("float32", "bfloat16")):
        arguments = sample(config, *view, dtype, seed=1)
        first = kernels_test.run(config, arguments)
        for _ in range(repeats):
            again = kernels_test.run(config, arguments)
            for a, b in zip(first, again, strict=True):
                assert np.array_equal(a, b, equal_nan=True), (config, view, dtype)
    print(f"    the same bits {repeats} times")


# The library without JAX.


class Memory:
    """Bytes on the GPU: JAX owns them, and they begin `shift` bytes after an aligned address."""

    def __init__(self, content, shift=0):
        import jax

        content = np.frombuffer(np.ascontiguousarray(content).tobytes(), np.uint8)
        self.size, self.shift = content.size, shift
        # Behind it and before it there is something else, which must stay.
        self.whole = np.concatenate(
            [np.full(shift, 7, np.uint8), content, np.full(64, 7, np.uint8)]
        )
        self.array = jax.device_put(self.whole).block_until_ready()

    def pointer(self):
        return self.array.unsafe_buffer_pointer() + self.shift

    def read(self, dtype):
        import jax.numpy as jnp

        # A copy on the GPU first: JAX may keep what it has copied to the host before.
        whole = np.asarray(jnp.copy(self.array))
        ends = (slice(0, self.shift), slice(self.shift + self.size, None))
        assert all(np.array_equal(whole[e], self.whole[e]) for e in ends), "written beyond the end"
        return np.frombuffer(whole[self.shift : self.shift + self.size].tobytes(), dtype)


def raw(options):
    """Misaligned and empty arrays."""
    if _backend() != "jax":
        print("    on JAX alone")
        return
    found = all_kernels()
    assert set(found) >= {config.name for config in CONFIGS}, list(found)
    driver = None if no_gpu() else ctypes.CDLL("libcuda.so.1")

    def call(kernel, config, arguments, shift):
        x, params, axis, dy, key = arguments
        groups = len(params)
        covered = int(np.prod(x.shape[axis:], dtype=np.int64))
        numbers = (ctypes.c_int64 * max(1, len(config.settings)))(*config.settings)
        described = Call(
            ("float32", "float64", "float16", "bfloat16").index(str(x.dtype)),
            int(np.prod(x.shape[:axis], dtype=np.int64)),
            groups,
            covered // groups,
            config.count,
            numbers,
            len(config.settings),
            2,
        )
        error = Error()
        assert kernel.check(described, error), error.text
        memory = {
            "x": Memory(x, shift),
            "params": Memory(params),
            "key": Memory(key),
            "dy": Memory(dy, shift),
            "y": Memory(np.zeros_like(x), shift),
            "dx": Memory(np.zeros_like(x), shift),
            "dparams": Memory(np.ones_like(params)),
            "scratch": Memory(np.full(max(8, kernel.scratch_bytes(described)), 255, np.uint8)),
        }
        at = {name: m.pointer() for name, m in memory.items()}
        ok = kernel.forward(described, at["x"], at["params"], at["key"], at["y"], None, error)
        if driver is None:  # it must say so, and nothing else
            assert not ok or x.size == 0, "it says that it runs"
            assert not error.text or b"CUDA does not start" in error.text, error.text
            return [np.zeros(0)] * 3
        assert ok, error.text
        order = ("x", "params", "key", "dy", "dx", "dparams", "scratch")
        ok = kernel.backward(described, *(at[name] for name in order), None, error)
        assert ok, error.text
        status = driver.cuCtxSynchronize()
        assert status == 0, f"CUDA error {status}"
        memory["scratch"].read(np.uint8)
        return [
            memory["y"].read(x.dtype).astype("float64"),
            memory["dx"].read(x.dtype).astype("float64"),
            memory["dparams"].read(params.dtype).astype("float64"),
        ]

    count = 0
    for i, config in enumerate(ONE_OF_EACH):
        for j, view in enumerate(VIEWS):
            for dtype in [DTYPES[(i + j) % 4]] if options.quick else DTYPES:
                arguments = sample(config, *view, dtype, seed=i * 100 + j)
                item = arguments.x.dtype.itemsize
                aligned = call(found[config.name], config, arguments, 0)
                for shift in (item, 16 - item):
                    other = call(found[config.name], config, arguments, shift)
                    # A compiler may contract other products with sums where elements are taken
                    # singly.
                    few = {"float64": 2**-48, "float32": 2**-19, "float16": 2**-9}
                    for a, b in zip(aligned[:2], other[:2], strict=True):
                        close = np.allclose(a, b, few.get(dtype, 2**-6), 1e-5, equal_nan=True)
                        assert close, (config, view, dtype, shift)
                    # Sums in another order.
                    size = 1 + abs(aligned[2]).max(initial=0)
                    finite = np.isfinite(aligned[2]) & (size < 1e30)
                    off = abs(aligned[2] - other[2])[finite]
                    epsilon = 2**-52 if dtype == "float64" else 2**-23
                    assert np.all(off <= 4000 * epsilon * size), (config, view, dtype, off.max())
                    count += 1
                if arguments.x.size == 0:
                    assert not np.any(aligned[2]), (config, view, dtype)
    print(f"    {count} misaligned or empty calls")


def huge(options):
    """Elements whose numbers do not fit in 32 bits: a pattern that repeats, and a rest."""
    if _backend() != "jax":
        print("    on JAX alone")
        return
    import jax
    import jax.numpy as jnp

    elements = 2**20 + 7 if no_gpu() or options.quick else 2**31 + 7
    stats = jax.devices()[0].memory_stats() or {}
    free = stats.get("bytes_limit", 2**62) - stats.get("bytes_in_use", 0)
    for dtype, bytes_each in (("bfloat16", 2), ("float32", 4)):
        needed = 7 * bytes_each * elements
        if needed > free:
            print(f"    {dtype}: needs {needed >> 30} GB, there are {free >> 30}: left out")
            continue
        config = CONFIGS[0]
        period = 8191
        part = sample(config._replace(special=()), (period,), 0, 1, dtype, seed=3)
        call = kernels.Call(kernels.KERNELS[config.name], config.settings)
        params = jnp.asarray(part.params)
        repeats, rest = divmod(elements, period)

        def value(x, params, call=call):
            return kernels.run(call, x, params, 0)

        def gradient(x, params, dy, value=value):
            return jax.vjp(value, x, params)[1](dy)

        def long(array, repeats=repeats, rest=rest):
            return jnp.concatenate([jnp.tile(array, repeats), array[:rest]])

        small = [jnp.asarray(a) for a in (part.x, part.dy)]
        expected = value(small[0], params)
        slope, sums = gradient(small[0], params, small[1])
        _, sums_of_rest = gradient(small[0][:rest], params, small[1][:rest])
        x, dy = (jax.jit(long)(a) for a in small)
        few = 2**-6 if dtype == "bfloat16" else 2**-19
        same = jax.jit(lambda a, b, few=few: jnp.all(abs(a - b) <= few * abs(b) + 1e-5))
        assert same(jax.jit(value)(x, params), jax.jit(long)(expected)), dtype
        dx, dparams = jax.jit(gradient)(x, params, dy)
        assert same(dx, jax.jit(long)(slope)), dtype
        truth = repeats * np.asarray(sums, "float64") + np.asarray(sums_of_rest, "float64")
        off = abs(np.asarray(dparams, "float64") - truth) / (abs(truth) + 1e-3 * elements)
        assert off.max() < 1e-4, (dtype, off)
        print(f"    {elements} elements of {dtype}")
        del x, dy, dx


def suites(options):
    """The tests in tests/kernels."""
    files = ["kernels_test.py"] if options.quick else ["kernels_test.py", f"{_backend()}_test.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    _run([*command, *(f"tests/kernels/{file}" for file in files)], CI="true")


def sanitizer(options):
    """Reads and writes out of bounds, missing barriers, memory that nothing was written to."""
    program = shutil.which("compute-sanitizer")
    why = "compute-sanitizer is not on the PATH" if program is None else no_gpu()
    if why or _backend() != "jax":
        print(f"    left out: {why or 'on JAX alone'}")
        return
    for tool in ("memcheck", "racecheck", "synccheck"):
        print(f"    {tool}", flush=True)
        command = [program, f"--tool={tool}", "--error-exitcode=9", "--target-processes=all"]
        # JAX's own memory pool would hide what lies beyond an array.
        _run(
            [*command, sys.executable, "-m", "tests.gpu.check", "raw", "--quick"],
            XLA_PYTHON_CLIENT_ALLOCATOR="platform",
        )


def _backend():
    return keras.backend.backend()


def _run(command, **environment):
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment})
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(map(str, command))}")


if __name__ == "__main__":
    main()
