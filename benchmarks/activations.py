"""Speed and memory of every activation, forward and backward, in every mode: ratios side by side.

    KERAS_BACKEND=tensorflow python -m benchmarks.activations
    KERAS_BACKEND=jax python -m benchmarks.activations
    KERAS_BACKEND=tensorflow python -m benchmarks.activations --torch_python=/path/to/bin/python

Minutes each, on a machine that does nothing else. More of it, any of these:

    --sizes=10,12,14,16,18,20,22,24 --sharing=layer,channel,8 --formula_sizes=16,22,24

`--torch_python` is the Python of another environment (`pip install torch`; beside it, if wanted,
`pip install --no-deps rational-activations` and `pip install scipy matplotlib seaborn tqdm`, and
`pip install difw ninja`). It measures a PAU in eager PyTorch and by torch.compile, the package of
PAU's authors, and DiTAC by the package difw for transforms of its kind.

What is timed. Inputs are float32, [size / 64, 64], normally distributed. "forward" is y of x,
called as in training. "forward + backward" is one function that gives y, dx for a given dy, and the
gradients of all parameters. DEU is measured where it takes exp, sin and cos. Keras' own overhead of
a call counts, for ReLU too. All cases of one size take their turns in random order, see
`benchmarks.clock`; a ratio is that of two medians. What runs as a formula has fewer turns.

What it is held against:

    copy        the least time of all copies: forward reads x and writes y, backward reads x and dy
                and writes dx. For Maxout the copies are of as many bytes as it must move.
    own copy    the same as -x and x + dy in the same mode: with the framework's own allocator,
                threads and overhead of a call.
    plain copy  the same by C and NumPy in memory that is already there, with one thread or with
                all, whichever takes less.
    ReLU, PAU   Keras' ReLU and our PAU in the same mode.
    exp         the framework's own vectorised exp in the same mode: one pass over x, and for
                "forward + backward" two, since the gradient needs exponentials too.
    formula     `keras.ops` without kernels, in each mode: how many times as long as this it takes.

In one compiled function XLA may read x only once for both passes: a ratio may be below 1.

"spread" is the distance of the quartiles of a row's own times over their median. Below 1.3 × call
two things equal. Up to about 2^16 the call rules, not the arithmetic. At 2^24 fresh pages rule
where the framework gives memory back to the system, which JAX does and TensorFlow does not: judge
at 2^22.

Peak memory is that of "forward + backward" beyond x and dy in arrays of the input's size, see
`benchmarks.memory`; the formula's is taken at a quarter of the size.

The tables go to --results: activations_BACKEND.md and three CSV files.
"""

import dataclasses
import functools
from typing import NamedTuple

from keras import ops

from benchmarks import clock, memory, modes, subjects, tables
from benchmarks.clock import Case, Clock
from benchmarks.command_line import field, start
from benchmarks.copies import THREADS, PlainCopy
from benchmarks.rivals import Rivals
from benchmarks.subjects import BASELINE, CHANNELS, Subject
from benchmarks.torch_rivals import RIVALS

PASSES = ("forward", "forward + backward")
# Formulas, and activations that run as one, take part in every so-manieth round.
FORMULA_EVERY = 5
# A formula's peak is taken at the size over this, because it can be 90 arrays.
FORMULA_SHARE = 4


@dataclasses.dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...] = field((10, 16, 22, 24), "sizes as exponents of 2")
    formula_sizes: tuple[int, ...] = field((22,), "those at which the formula is measured too")
    memory_size: int = field(24, "exponent of the size for peak memory; 0: do not measure it")
    activations: tuple[str, ...] = field((), "activations by name; none: all of the package")
    sharing: tuple[str, ...] = field(("layer",), "layer, channel, unit, or numbers of groups")
    modes: tuple[str, ...] = field((), "eager, graph, jit; none: all of the backend")
    rounds: int = field(15, "rounds for each size")
    torch_python: str = field("", "Python of an environment that has torch; none: no torch")
    results: str = field("benchmarks/results", "folder of the tables")


QUICK = Config(
    sizes=(10,), formula_sizes=(10,), memory_size=20, activations=("mixture", "maxout"), rounds=2
)


class Traffic(NamedTuple):
    """Numbers in each of the two arrays of a forward, and of the three of a backward pass."""

    forward: int
    backward: int


def run(config: Config) -> dict[str, list[dict]]:
    """Measures, prints and writes everything; returns the rows of each table by its name."""
    asked = subjects.asked(config.activations, config.sharing, modes.modes(config.modes))
    rivals = Rivals(config.torch_python) if config.torch_python else None
    names = rivals.names if rivals else []
    found = {"time": [], "torch": [], "memory": []}
    try:
        for exponent in config.sizes:
            times = _times(config, asked, exponent, rivals)
            for part in PASSES:
                print(f"\n2^{exponent}, {part}")
                found["time"] += _shown([_row(s, part, exponent, times) for s in asked])
                found["torch"] += _shown([_torch_row(n, part, exponent, times) for n in names])
    finally:
        if rivals:
            rivals.close()
    if config.memory_size:
        print("\nPeak memory")
        found["memory"] += _shown(_memory_rows(asked, config.memory_size))
    _write(config, found)
    return found


def _times(config, asked, exponent, rivals):
    """What was measured at one size, by (what, …, pass)."""
    sources = [Clock(_cases(asked, 2**exponent, exponent in config.formula_sizes))]
    if rivals:
        rivals.prepare(2**exponent)
        sources.append(rivals)
    return clock.measure(sources, config.rounds)


def _cases(asked, size, with_formulas):
    """Everything that is measured in this process."""
    cases, used = {}, dict.fromkeys(subject.mode for subject in asked)

    @functools.cache
    def tensor(size, seed, width=CHANNELS):
        return ops.convert_to_tensor(subjects.inputs(size, width, seed))

    def add(key, functions, one, two, every=1):
        for part, function, arguments in zip(PASSES, functions, (one, two), strict=True):
            cases[(*key, part)] = Case(functools.partial(function, *arguments), every)

    x = tensor(size, 0)
    for subject in asked:
        dy = tensor(size, 1, subject.width_of_y())
        fast = subject.name == BASELINE or subject.runs() == "kernel"
        every = 1 if fast else FORMULA_EVERY
        add((subject,), _functions(subject), [x], [x, dy], every)
        if with_formulas and subject.can_have_kernel():
            formula = subject._replace(formula=True)
            add((formula,), _functions(formula), [x], [x, dy], FORMULA_EVERY)
    for traffic in dict.fromkeys(_traffic(subject, size) for subject in asked):
        one = [tensor(traffic.forward, 0)]
        two = [tensor(traffic.forward, 0), *(tensor(traffic.backward, seed) for seed in (0, 1))]
        for mode in used:
            add(("copy", traffic, mode), _own_copies(mode), one, two)
        for threads in {1, THREADS}:
            plain = PlainCopy(*traffic, threads)
            add(("copy", traffic, threads), (plain.forward, plain.forward_backward), [], [])
    for mode in used:
        add(("exp", mode), _exponentials(mode), [x], [x, tensor(size, 1)])
    return cases


# The same functions for all sizes: TensorFlow traces them once.


@functools.cache
def _functions(subject):
    return subject.forward(), subject.forward_backward()


@functools.cache
def _own_copies(mode):
    return (
        modes.elementwise(lambda x: -x, mode, (CHANNELS,)),
        modes.elementwise(lambda x, a, b: (-x, a + b), mode, (CHANNELS,) * 3),
    )


@functools.cache
def _exponentials(mode):
    return (
        modes.elementwise(ops.exp, mode, (CHANNELS,)),
        modes.elementwise(lambda a, b: (ops.exp(a), ops.exp(b)), mode, (CHANNELS,) * 2),
    )


def _traffic(subject, size):
    rows, width = size // CHANNELS, subject.width_of_y()
    forward = round(rows * (CHANNELS + width) / (2 * CHANNELS))
    backward = round(rows * (2 * CHANNELS + width) / (3 * CHANNELS))
    return Traffic(forward * CHANNELS, backward * CHANNELS)


def _row(subject, part, exponent, times):
    key, mode = (subject, part), subject.mode
    copies = _copies(_traffic(subject, 2**exponent), part, times)

    def formula(mode):
        return (subject._replace(mode=mode, formula=True), part)

    return {
        "size": f"2^{exponent}",
        "pass": part,
        **_named(subject),
        "over copy": _ratio(times, key, min(copies.values(), key=times.get)),
        "over own copy": _ratio(times, key, copies[mode]),
        "over plain copy": _ratio(times, key, _plain(copies, times)),
        "over ReLU": _ratio(times, key, (Subject(BASELINE, "", mode), part)),
        "over PAU": _ratio(times, key, (Subject("pau", subject.sharing, mode), part)),
        "over exp": _ratio(times, key, ("exp", mode, part)),
        **{f"{m} formula over it": _ratio(times, formula(m), key) for m in modes.modes()},
        "spread": times[key].spread,
    }


def _torch_row(name, part, exponent, times):
    key, traffic = (name, part), Traffic(2**exponent, 2**exponent)
    return {
        "size": f"2^{exponent}",
        "pass": part,
        "activation": name,
        "over plain copy": _ratio(times, key, _plain(_copies(traffic, part, times), times)),
        "over ReLU of torch": _ratio(times, key, ("ReLU of torch", part)),
        **{
            f"over ours, {mode}": _ratio(times, key, (_ours(name, mode), part))
            for mode in modes.modes()
        },
        "spread": times[key].spread,
    }


def _ours(name, mode):
    """What a rival does, by Keras or by us."""
    return Subject(RIVALS[name].ours, "" if RIVALS[name].ours == BASELINE else "layer", mode)


def _memory_rows(asked, exponent):
    formulas = [s._replace(formula=True) for s in asked if s.can_have_kernel()]
    peaks = dict(zip(asked, memory.peaks(asked, 2**exponent), strict=True))
    for_formulas = memory.peaks(formulas, 2**exponent // FORMULA_SHARE)
    peaks.update(zip(formulas, for_formulas, strict=True))
    return [
        {
            **_named(subject),
            "arrays": peaks[subject],
            "arrays of the formula": peaks.get(subject._replace(formula=True)),
        }
        for subject in asked
    ]


@functools.cache
def _named(subject):
    return {
        "activation": subject.name,
        "sharing": subject.sharing,
        "mode": subject.mode,
        "runs": subject.runs(),
    }


def _copies(traffic, part, times):
    """The keys of all copies of that traffic, by mode or number of threads."""
    return {key[2]: key for key in times if key[:2] == ("copy", traffic) and key[3] == part}


def _plain(copies, times):
    return min((key for how, key in copies.items() if isinstance(how, int)), key=times.get)


def _ratio(times, key, other):
    """None if one of the two was not measured."""
    return times[key].median / times[other].median if {key, other} <= set(times) else None


def _shown(rows):
    if rows:
        print(tables.markdown(rows, without=("size", "pass")), flush=True)
    return rows


def _write(config, found):
    sections = {
        f"{heading}{size}, {part}": [r for r in rows if (r["size"], r["pass"]) == (size, part)]
        for heading, rows in (("", found["time"]), ("PyTorch, ", found["torch"]))
        for size, part in dict.fromkeys((row["size"], row["pass"]) for row in rows)
    }
    sections[f"Peak memory at 2^{config.memory_size}"] = found["memory"]
    tables.write(config.results, "activations", __doc__, found, sections, ("size", "pass"))


if __name__ == "__main__":
    start(Config(), QUICK, run, __doc__)
