"""Times that can be compared: interleaved repetitions in random order.

Nothing but the standard library: the process of `benchmarks.torch_rivals` imports it too.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Case(NamedTuple):
    """Something to be timed.

    Args:
        run: a call of it, which returns when all work is done.
        every: it takes part in every so-manieth round; the slow ones are measured less often.
    """

    run: Callable[[], object]
    every: int = 1


class Clock:
    """Measures cases in rounds. In each, every case has its turn, in another order.

    What disturbs a machine for a while so disturbs all cases alike. Each turn begins with a call
    that is not timed: it brings caches, threads and the allocator's blocks into the state that
    calls of the same kind leave, whatever ran before.

    Args:
        cases: the `Case`s by any keys.
        shortest: a turn has so many calls, at most 100, that it takes at least these seconds.
    """

    def __init__(self, cases: dict, shortest: float = 0.002):
        self._cases = cases
        self._order = random.Random(0)
        self._calls = {}
        for key, case in cases.items():
            case.run()  # traces and compiles
            self._calls[key] = max(1, min(100, round(shortest / _seconds(case.run, 1))))

    def round(self, number: int) -> dict:
        """The seconds of every case that takes part in the round of that number."""
        keys = [key for key, case in self._cases.items() if number % case.every == 0]
        self._order.shuffle(keys)
        seconds = {}
        gc.collect()
        gc.disable()
        try:
            for key in keys:
                run = self._cases[key].run
                run()
                seconds[key] = _seconds(run, self._calls[key])
        finally:
            gc.enable()
        return seconds


class Measured(NamedTuple):
    """The times of one case.

    Args:
        median: in seconds.
        spread: how far the middle half of the times reaches, over their median.
    """

    median: float
    spread: float


def measure(sources: list, rounds: int) -> dict[object, Measured]:
    """Lets several clocks, or what has their `round`, take turns, in another order each round."""
    order, times = random.Random(0), {}
    for number in range(rounds):
        for source in order.sample(sources, len(sources)):
            for key, seconds in source.round(number).items():
                times.setdefault(key, []).append(seconds)
    return {key: _summary(seconds) for key, seconds in times.items()}


def _summary(seconds):
    ordered, quarter = sorted(seconds), len(seconds) // 4
    median = statistics.median(ordered)
    return Measured(median, (ordered[-1 - quarter] - ordered[quarter]) / median)


def _seconds(run, calls):
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls
