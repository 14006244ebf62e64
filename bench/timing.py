"""Times of several ways to do a thing, taken in turns so that drift and noise hit all alike."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Summarise values.

        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.0, high=3.0)
        """
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


def paired(
    *ways: Callable[[], object],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[float, ...]]:
    """Run A, B, ..., A, B, ... and return the seconds of each way, one tuple per round.

    A ratio of two times of the same round compares what ran within moments of each other; the
    median of such ratios then needs neither a quiet nor a steady machine.

    Args:
        *ways: What to time.
        rounds: Timed turns of every way.
        warmup: Turns before that are not counted: caches fill, libraries choose their kernels.
        clock: Returns seconds.
    """
    taken = [tuple(_seconds(way, clock) for way in ways) for _ in range(warmup + rounds)]
    return taken[warmup:]


def _seconds(way: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    way()
    return clock() - start


def repeated(way: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a way that does another one several times: for what is too short for a clock."""

    def run() -> None:
        for _ in range(times):
            way()

    return run
