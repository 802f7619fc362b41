"""Speed on a GPU, as ratios: KERAS_BACKEND=jax python -m benchmarks.gpu

PAU's kernel with degrees (5, 4), float32 and bfloat16, from 2^20 elements up, with one group, 8
groups and one for each of 256 channels, and at the size of KAT's networks, [1024, 197, 768] with 8
groups. It fails where there is no GPU.

kernels   The library called without a framework; what is timed is a CUDA graph of many calls, so
          that the time is the device's alone. "copy" is cuMemcpyDtoD of the least bytes: forward
          reads x and writes y, backward reads x and dy and writes dx. Both find in the second cache
          what fits there. Beside them, where they are installed for this Python, the same passes
          of rational_kat_cu (its CUDA kernel, `kat_rational.kat_1dgroup`) and of FlashKAT (its
          Triton kernel, `rational_kat`), as CUDA graphs of PyTorch.
XLA       jax.jit of the kernel over that of the formula, and a convolution, batch normalisation
          and PAU in one function: the custom call over the formula, which XLA may fuse. What is
          timed is a row of calls; each takes the caller's time too.

A ratio is that of two medians of interleaved rounds. The tables go to --results.
"""

import argparse
import ctypes
import importlib.util
import itertools
import random
import statistics
import sys
import time
from pathlib import Path

import keras
import numpy as np

import keras_learnact as kla
from benchmarks.cuda_library import Call, Error, all_kernels
from keras_learnact import kernels

SIZES = (20, 22, 24, 26)  # powers of two
SHARINGS = {"layer": (1, 1), "8 groups": (8, 512), "channel": (256, 256)}  # groups, channels
KAT = (1024, 197, 768)
DTYPES = ("float32", "bfloat16")
ROUNDS = 30


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", default="benchmarks/results", help="folder of the tables")
    parser.add_argument(
        "--rehearse", action="store_true", help="XLA's part on the CPU, small, then fail"
    )
    options = parser.parse_args()
    if keras.backend.backend() != "jax":
        sys.exit("FAILED: KERAS_BACKEND must be jax.")
    import jax

    gpu = jax.default_backend() == "gpu"
    if not gpu and not options.rehearse:
        sys.exit(f"FAILED: JAX has no GPU, it runs on {jax.default_backend()}")
    layer = kla.PAU()
    call = layer.kernel(False)
    why = kernels.why_not(call, "float32", 10)
    if why:
        sys.exit(f"FAILED: no kernels: {why}")
    parameters = layer.parameters()
    params = np.concatenate([parameters["numerator"], parameters["denominator"]], axis=1)

    rows = []
    if gpu:
        rows += kernel_rows(call, params)
    rows += xla_rows(call, params, small=not gpu)
    name = jax.devices()[0].device_kind
    text = [f"# {name}, JAX {jax.__version__}", "", "| what | dtype | case | ratio | time, µs |"]
    text += ["| --- | --- | --- | ---: | ---: |"]
    for what, dtype, case, ratio, seconds in rows:
        text.append(f"| {what} | {dtype} | {case} | {ratio:.3g} | {seconds * 1e6:.1f} |")
    print("\n".join(text))
    if not gpu:
        sys.exit("FAILED, but for the rehearsal: there is no GPU")
    folder = Path(options.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.md").write_text("\n".join(text) + "\n")


def medians(cases, rounds=ROUNDS):
    """The median of what each case returns, the seconds it took, in interleaved rounds."""
    order, found = random.Random(0), {key: [] for key in cases}
    for _ in range(rounds):
        for key in order.sample(list(cases), len(cases)):
            found[key].append(cases[key]())
    return {key: statistics.median(times) for key, times in found.items()}


# Kernels alone.


class Driver:
    """The few functions of CUDA's driver that timing takes. All work is put into one stream."""

    def __init__(self):
        self._cuda = ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDeviceGet", ctypes.byref(device), 0)
        # JAX's own.
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)
        self.stream = ctypes.c_void_p()
        self("cuStreamCreate", ctypes.byref(self.stream), 1)  # waits for no other stream
        self._events = [ctypes.c_void_p() for _ in range(2)]
        for event in self._events:
            self("cuEventCreate", ctypes.byref(event), 0)

    def __call__(self, function, *arguments):
        code = getattr(self._cuda, function)(*arguments)
        if code != 0:
            raise RuntimeError(f"{function}: CUDA error {code}")

    def copy(self, to, source, size):
        to, source = ctypes.c_uint64(to), ctypes.c_uint64(source)
        self("cuMemcpyDtoDAsync_v2", to, source, ctypes.c_size_t(size), self.stream)

    def timed(self, work):
        """A function that runs `work`, recorded many times in a graph; the seconds of one."""
        work()  # loads its code, which cannot be recorded
        self("cuStreamSynchronize", self.stream)
        once = self._graph(work, 3)
        self._launch(once)
        repeats = max(5, min(200, round(2e-3 / (self._launch(once) / 3))))
        graph = self._graph(work, repeats)

        def run():
            self._launch(graph)
            return self._launch(graph) / repeats

        return run

    def _graph(self, work, repeats):
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self("cuStreamBeginCapture_v2", self.stream, 2)
        for _ in range(repeats):
            work()
        self("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        flags = ctypes.c_ulonglong(0)
        self("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, flags)
        return executable

    def _launch(self, graph):
        begin, end = self._events
        self("cuEventRecord", begin, self.stream)
        self("cuGraphLaunch", graph, self.stream)
        self("cuEventRecord", end, self.stream)
        self("cuStreamSynchronize", self.stream)
        milliseconds = ctypes.c_float()
        self("cuEventElapsedTime", ctypes.byref(milliseconds), begin, end)
        return milliseconds.value / 1e3


def kernel_rows(call, params):
    kernel = all_kernels()[call.kernel.name]
    driver = Driver()
    settings = (ctypes.c_int64 * len(call.settings))(*call.settings)
    cases = [
        (f"2^{size}, {sharing}", 2**size // channels, groups, channels // groups)
        for size, (sharing, (groups, channels)) in itertools.product(SIZES, SHARINGS.items())
    ]
    # One group is one run.
    cases = [(name, 1, 1, o * i) if g == 1 else (name, o, g, i) for name, o, g, i in cases]
    cases.append((f"{list(KAT)}, 8 groups", KAT[0] * KAT[1], 8, KAT[2] // 8))
    rows = []
    for (name, outer, groups, inner), dtype in itertools.product(cases, DTYPES):
        width = 4 if dtype == "float32" else 2
        described = Call(
            ("float32", "float64", "float16", "bfloat16").index(dtype),
            outer,
            groups,
            inner,
            params.shape[1],
            settings,
            len(settings),
            2,
        )
        size = outer * groups * inner * width
        x, dy = (_numbers(size // width, dtype, seed) for seed in (0, 1))
        y, dx, p, dp, scratch = (
            _bytes(n) for n in (size, size, 0, 40 * groups, max(8, kernel.scratch_bytes(described)))
        )
        import jax.numpy as jnp

        p = jnp.asarray(np.repeat(params, groups, 0).astype("float32")).block_until_ready()
        at = {k: a.unsafe_buffer_pointer() for k, a in
              dict(x=x, dy=dy, y=y, dx=dx, p=p, dp=dp, scratch=scratch).items()}  # fmt: skip
        error = Error()

        def forward(described=described, at=at, error=error):
            ok = kernel.forward(described, at["x"], at["p"], None, at["y"], driver.stream, error)
            assert ok, error.text

        def backward(described=described, at=at, error=error):
            order = (at[k] for k in ("dy", "dx", "dp", "scratch"))
            ok = kernel.backward(described, at["x"], at["p"], None, *order, driver.stream, error)
            assert ok, error.text

        def copy(at=at, size=size):
            driver.copy(at["y"], at["x"], size)

        def copy_and_half(at=at, size=size):
            driver.copy(at["y"], at["x"], size)
            driver.copy(at["dx"], at["dy"], size // 2)

        timed = {
            "copy": driver.timed(copy),
            "copy for backward": driver.timed(copy_and_half),
            "forward": driver.timed(forward),
            "backward": driver.timed(backward),
        }
        if name.startswith("["):
            timed.update(rival_cases(dtype))
        found = medians(timed)
        for what, seconds in found.items():
            if what.startswith("copy"):
                continue
            least = found["copy" if what.startswith("forward") else "copy for backward"]
            rows.append((f"{what} over the copy", dtype, name, seconds / least, seconds))
            print(*rows[-1], flush=True)
    return rows


def _numbers(size, dtype, seed):
    import jax

    return jax.random.normal(jax.random.key(seed), (size,), dtype).block_until_ready()


def _bytes(size):
    import jax.numpy as jnp

    return jnp.zeros((size,), "uint8").block_until_ready()


def rival_cases(dtype):
    """What is installed of PyTorch's, at the size of KAT."""
    if importlib.util.find_spec("torch") is None:
        return {}
    import torch

    if not torch.cuda.is_available():
        print("PyTorch has no GPU: without its kernels")
        return {}
    makers = {
        "rational_kat_cu": lambda: _module("kat_rational.kat_1dgroup").KAT_Group(8, "gelu"),
        "FlashKAT": lambda: _module("rational_kat").FlashKAT_Group(KAT[2], 1, 8, 6, 4, "gelu"),
    }
    found = {}
    for name, make in makers.items():
        try:
            layer = make().cuda()
            x = torch.randn(KAT, device="cuda", dtype=getattr(torch, dtype), requires_grad=True)
            dy = torch.randn_like(x)
            found[f"forward, {name}"] = _torch_graph(lambda layer=layer, x=x: layer(x.detach()))
            wanted = [x, *layer.parameters()]

            def both(layer=layer, x=x, dy=dy, wanted=wanted):
                torch.autograd.grad(layer(x), wanted, dy)

            forward = _torch_graph(lambda layer=layer, x=x: layer(x))
            with_backward = _torch_graph(both)
            found[f"backward, {name}"] = lambda a=with_backward, b=forward: a() - b()
        except Exception as error:  # another's package: say what it says
            print(f"{name} does not run with {dtype}: {type(error).__name__}: {error}")
    return found


def _module(name):
    return importlib.import_module(name)


def _torch_graph(work):
    """A function that runs `work`, recorded in a graph; the seconds of one."""
    import torch

    repeats = 20
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def run():
        graph.replay()
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeats

    return run


# Inside XLA.


def xla_rows(call, params, small):
    import jax
    import jax.numpy as jnp

    def by_kernel(x, p, axis):
        return kernels.run(call, x, p, axis)

    def by_formula(x, p, axis):
        return kernels.reference(call.kernel.name, call.settings, x, p, axis)

    def block(activation):
        """A convolution, batch normalisation of its output, and the activation."""

        def function(x, weights, scale, offset, p):
            y = jax.lax.conv_general_dilated(
                x, weights, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            z = y.astype("float32")
            mean, mean_square = z.mean((0, 1, 2)), (z * z).mean((0, 1, 2))
            z = (z - mean) * jax.lax.rsqrt(mean_square - mean * mean + 1e-3) * scale + offset
            return activation(z.astype(x.dtype), p, 0)

        return function

    rows = []
    for dtype in DTYPES:
        key = jax.random.key(0)
        for size, (sharing, (groups, channels)) in itertools.product(
            (12,) if small else (22, 24), SHARINGS.items()
        ):
            x = jax.random.normal(key, (2**size // channels, channels), dtype)
            p = jnp.asarray(np.repeat(params, groups, 0), "float32")
            axis = 0 if groups == 1 else 1
            cases = {}
            for name, activation in (("kernel", by_kernel), ("formula", by_formula)):
                cases[name, "forward"], cases[name, "both"] = _passes(
                    lambda x, p, f=activation, axis=axis: f(x, p, axis), x, x, p
                )
            rows += _ratios(medians(cases), "in jax.jit", dtype, f"2^{size}, {sharing}")
        edge, channels = (8, 8) if small else (56, 64)
        x = jax.random.normal(key, (4 if small else 64, edge, edge, channels), dtype)
        weights = (jax.random.normal(key, (3, 3, channels, channels)) / 24).astype(dtype)
        scale, offset = jnp.ones((channels,)), jnp.zeros((channels,))
        p = jnp.asarray(params, "float32")
        cases = {}
        for name, activation in (("kernel", by_kernel), ("formula", by_formula)):
            cases[name, "forward"], cases[name, "both"] = _passes(
                block(activation), x, x, weights, scale, offset, p
            )
        rows += _ratios(medians(cases), "conv, batch norm, PAU", dtype, str(list(x.shape)))
    return rows


def _passes(function, dy, *arguments):
    """The forward pass, and it with all gradients, as functions that give the seconds of one."""
    import jax

    forward = jax.jit(function)

    @jax.jit
    def both(dy, *arguments):
        y, pull = jax.vjp(function, *arguments)
        return y, pull(dy)

    return _row_of_calls(forward, arguments), _row_of_calls(both, (dy, *arguments))


def _row_of_calls(function, arguments, calls=20):
    import jax

    jax.block_until_ready(function(*arguments))

    def run():
        jax.block_until_ready(function(*arguments))
        start = time.perf_counter()
        for _ in range(calls):
            result = function(*arguments)
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / calls

    return run


def _ratios(found, what, dtype, case):
    passes = {"forward": "forward", "both": "forward + backward"}
    rows = [
        (
            f"{what}: {name}, kernel over formula",
            dtype,
            case,
            found["kernel", key] / found["formula", key],
            found["kernel", key],
        )
        for key, name in passes.items()
    ]
    for row in rows:
        print(*row, flush=True)
    return rows


if __name__ == "__main__":
    main()
