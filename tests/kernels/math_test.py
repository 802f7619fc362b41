"""exp, sin and cos of custom_ops/runtime/math.h, for every instruction set that runs here."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

SOURCES = Path(__file__).resolve().parents[2] / "custom_ops"
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"]
TARGETS = {
    "baseline": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}
NEEDS = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512dq", "avx512vl"}}
COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)

PROGRAM = """
#include "runtime/math.h"
using namespace keras_learnact::KLA_TARGET;

template <typename T>
void Evaluate(const T* x, T* results, int64_t n) {
  using V = Vec<T>;
  V sine, cosine;
  for (int64_t i = 0; i < n; i += V::kLanes) {
    SinCos(V::Load(x + i), &sine, &cosine);
    Exp(V::Load(x + i)).Store(results + i);
    sine.Store(results + n + i);
    cosine.Store(results + 2 * n + i);
  }
  for (int64_t i = 0; i < n; ++i) {
    results[3 * n + i] = Exp(x[i]);
    SinCos(x[i], results + 4 * n + i, results + 5 * n + i);
  }
}

extern "C" {
void float32(const float* x, float* results, int64_t n) { Evaluate(x, results, n); }
void float64(const double* x, double* results, int64_t n) { Evaluate(x, results, n); }
}
"""


def runs_here(target):
    cpu = Path("/proc/cpuinfo")
    flags = set(cpu.read_text().split()) if cpu.exists() else set()
    return NEEDS.get(target, set()) <= flags


@pytest.fixture(scope="module", params=TARGETS)
def library(request, tmp_path_factory):
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    if not runs_here(request.param):
        pytest.skip(f"this processor has no {request.param}")
    folder = tmp_path_factory.mktemp("math")
    (folder / "math.cc").write_text(PROGRAM)
    flags = [*FLAGS, *TARGETS[request.param], f"-DKLA_TARGET={request.param}", f"-I{SOURCES}"]
    output = folder / "math.so"
    subprocess.run([COMPILER, *flags, folder / "math.cc", "-o", output], check=True)
    return ctypes.CDLL(str(output))


def evaluate(library, x):
    """exp, sin and cos of x, each [2, x.size]: in vectors, and one by one."""
    assert x.size % 16 == 0  # whole vectors
    results = np.empty((2, 3, x.size), x.dtype)
    function = getattr(library, str(x.dtype))
    pointers = (v.ctypes.data_as(ctypes.c_void_p) for v in (x, results))
    function(*pointers, ctypes.c_int64(x.size))
    return results.swapaxes(0, 1)


def worst(values, exact):
    """The largest error, in units of the last place of the exact value."""
    unit = np.spacing(abs(exact).astype(values.dtype)).astype(exact.dtype)
    return np.max(abs(values - exact) / unit)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exp_is_within_one_unit_and_a_tenth_of_the_last_place(library, dtype):
    rng = np.random.default_rng(0)
    # To the largest result and the smallest one, a denormal number.
    low, high = (-103.9, 88.7) if dtype == "float32" else (-745.1, 709.7)
    x = np.concatenate([rng.uniform(low, high, 1 << 17), rng.uniform(-2, 2, 1 << 17)])
    x = x.astype(dtype)
    assert worst(evaluate(library, x)[0], np.exp(x.astype("longdouble"))) < 1.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sin_and_cos_are_within_one_unit_and_three_tenths_of_the_last_place(library, dtype):
    rng = np.random.default_rng(0)
    far = 1600 if dtype == "float32" else 1.6e6
    count = 1 << 16
    # Around 0, everywhere, next to multiples of π/2, and beyond what the vectors do themselves.
    x = np.concatenate(
        [
            rng.uniform(-10, 10, count),
            rng.uniform(-far, far, count),
            rng.integers(-1000, 1000, count) * (np.pi / 2),
            10 ** rng.uniform(-30, 12, count),
        ]
    ).astype(dtype)
    _, sine, cosine = evaluate(library, x)
    # The C library's, of 64 bits, is exact next to multiples of π.
    assert worst(sine, np.sin(x.astype("longdouble"))) < 1.3
    assert worst(cosine, np.cos(x.astype("longdouble"))) < 1.3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_ends_of_the_line(library, dtype):
    largest, least = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, least, -least, np.inf, -np.inf, np.nan, largest] * 2, dtype)
    exponential, sine, cosine = evaluate(library, x)
    expected = np.array([1, 1, 1, 1, np.inf, 0, np.nan, np.inf] * 2, dtype)
    np.testing.assert_array_equal(exponential, [expected] * 2)
    for values in sine:
        np.testing.assert_array_equal(values[:4], x[:4])
        np.testing.assert_array_equal(np.signbit(values[:4]), np.signbit(x[:4]))
        assert np.isnan(values[6]) and abs(values[7]) <= 1
    for values in cosine:
        np.testing.assert_array_equal(values[:4], 1)
        assert np.isnan(values[6]) and abs(values[7]) <= 1
