"""Timing in turn: every side gets its share of every phase of the machine, and ratios stand where
milliseconds drift.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np

STAT = Path("/proc/stat")
FIRST, LONGEST = 8, 2.0  # calls before anything is timed, and seconds that they may take, two at least
REST = 0.1  # seconds; an idle worker of OpenBLAS or OpenMP waits some 30 ms for more, at full speed


class Side(NamedTuple):
    """What is timed, and a context for it (its threads) that is entered and left outside the timed part."""

    run: Callable[[], object]
    hold: Callable[[], AbstractContextManager] = nullcontext


def seconds(run, calls: int) -> float:
    """Mean time of a call."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def settle(run) -> None:
    """The first calls, in which libraries compile, record and choose."""
    start = time.perf_counter()
    for call in range(FIRST):
        run()
        if call and time.perf_counter() - start > LONGEST:
            break


def warm(run, least: float) -> None:
    """Call until the threads of the side before have come to rest, once at least."""
    start = time.perf_counter()
    run()
    while time.perf_counter() - start < least:
        run()


def in_turn(
    sides: dict[str, Side], rounds: int, lasting: float = 0.1, rest: float = REST
) -> dict[str, np.ndarray]:
    """Milliseconds of a call, by side and round.

    In a round every side is timed once, over so many calls as take `lasting` seconds, after calls that warm
    it up.  The order is drawn anew for each round, so that nobody always follows the same one.
    """
    calls, names = {}, list(sides)
    for name, side in sides.items():
        with side.hold():
            settle(side.run)
            calls[name] = max(1, round(lasting / max(seconds(side.run, 1), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in names}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(names):
            with sides[name].hold():
                warm(sides[name].run, rest)
                times[name].append(1e3 * seconds(sides[name].run, calls[name]))
    return {name: np.array(t) for name, t in times.items()}


class Elsewhere:
    """How much of the cores that this process may use other processes took since it was made, in cores; None
    where the system does not say.

    A busy neighbour does not slow all sides alike: threads that wait for each other at full speed, as
    OpenMP's do, may take a hundred times as long where one of them has no core.
    """

    def __init__(self):
        self.start = time.perf_counter()
        self.before = _busy()

    def cores(self) -> float | None:
        now = _busy()
        if now is None or self.before is None:
            return None
        return max(0.0, (now - self.before) / (time.perf_counter() - self.start))


def _busy() -> float | None:
    """Seconds that this process's cores have worked for others."""
    if not STAT.exists() or not hasattr(os, "sched_getaffinity"):
        return None
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in STAT.read_text().splitlines():
        name, *fields = line.split()
        if name in mine:
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    spent = os.times()
    own = spent.user + spent.system + spent.children_user + spent.children_system
    return ticks / os.sysconf("SC_CLK_TCK") - own


def summary(times) -> dict:
    """Median and quartiles of one side's milliseconds."""
    return {"ms": float(np.median(times)), "quartiles_ms": quartiles(times)}


def ratio(ours, theirs) -> dict:
    """The ratio of the medians; as its spread, the quartiles of the ratios within a round."""
    return {
        "ratio": float(np.median(ours) / np.median(theirs)),
        "quartiles": quartiles(np.asarray(ours) / np.asarray(theirs)),
    }


def quartiles(values) -> list[float]:
    return [float(q) for q in np.quantile(values, (0.25, 0.75))]


def faster(times: dict[str, np.ndarray], prefix: str) -> str | None:
    """Of the sides whose names begin so, the one of the least median; None where there is none."""
    named = [name for name in times if name.startswith(prefix)]
    return min(named, key=lambda name: np.median(times[name])) if named else None
