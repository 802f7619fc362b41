"""Peak memory of a forward and a backward pass, in arrays of the input's size.

Each figure comes from a process of its own: one that was forked from a server that had imported the
framework and had computed nothing. There a layer runs twice on small inputs of two sizes, so that
threads and whatever a compiler keeps are there; then x and dy of the full size are made, Linux is
told to forget the largest resident set so far (/proc/self/clear_refs), and the layer runs once on
them. The largest resident set during this run (VmHWM), less the resident set before (VmRSS), is
what the pass took beyond x and dy, with the framework's own allocator: y and dx are 2 arrays, the
least possible.
"""

import gc
import multiprocessing
from pathlib import Path

import keras

from benchmarks import subjects
from benchmarks.subjects import CHANNELS, Subject
from training.config import UserError

# Numbers in the inputs that are run before.
SMALL = (16 * CHANNELS, 32 * CHANNELS)


def peaks(asked: list[Subject], size: int) -> list[float]:
    """For each subject the peak beyond x and dy, in arrays of `size` float32 numbers."""
    if not Path("/proc/self/clear_refs").exists():
        raise UserError("Peak memory is read from Linux' /proc. Use --memory_size=0 elsewhere.")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with context.Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(_peak, [(subject, size) for subject in asked], chunksize=1)


def _peak(subject, size):
    run = subject.forward_backward()
    width = subject.layer().compute_output_shape((None, CHANNELS))[-1]
    small = [_inputs(n, width) for n in SMALL]
    for arrays in small:
        run(*arrays)
    x, dy = _inputs(size, width)
    # TensorFlow lets go of the NumPy arrays that x and dy were made of when it is called again.
    run(*small[0])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmRSS")
    result = run(x, dy)  # kept: y and dx are memory that the pass takes
    peak = _kilobytes("VmHWM")
    del result
    return (peak - before) * 1024 / (4 * size)


def _inputs(size, width):
    return (
        keras.ops.convert_to_tensor(subjects.inputs(size, CHANNELS, seed=0)),
        keras.ops.convert_to_tensor(subjects.inputs(size, width, seed=1)),
    )


def _kilobytes(name):
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0])
