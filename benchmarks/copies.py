"""The least time that memory allows: plain copies of as many bytes."""

import concurrent.futures
import ctypes
import os
from collections.abc import Callable

import numpy as np

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class PlainCopy:
    """Moves bytes as an activation must at the least, into memory that is already there.

    Forward: reads an array, writes one (C's memmove, which for large arrays does not read what it
    overwrites). Backward: reads two arrays, writes one (NumPy's addition, which is vectorised).

    Args:
        forward: float32 numbers in each array of the forward pass.
        backward: the same for the backward pass.
        threads: how many share the work.
    """

    def __init__(self, forward: int, backward: int, threads: int):
        self._moved = _parts(forward, threads, 2)
        self._added = _parts(backward, threads, 3)
        self._pool = concurrent.futures.ThreadPoolExecutor(threads) if threads > 1 else None

    def forward(self) -> None:
        self._each(_move, self._moved)

    def forward_backward(self) -> None:
        self._each(_move, self._moved)
        self._each(_add, self._added)

    def _each(self, function: Callable, parts):
        if self._pool is None:
            function(*parts[0])
        else:
            list(self._pool.map(lambda part: function(*part), parts))


def _parts(count, threads, arrays):
    """The same part of several arrays of `count` numbers, for each thread."""
    split = [np.array_split(np.ones(count, "float32"), threads) for _ in range(arrays)]
    return list(zip(*split, strict=True))


def _move(source, target):
    ctypes.memmove(target.ctypes.data, source.ctypes.data, source.nbytes)  # without Python's lock


def _add(a, b, target):
    np.add(a, b, out=target)
