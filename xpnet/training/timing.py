"""Training steps to be timed, and the timing of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np


def trainer(model, data, batch_size: int, batches: int | None = None) -> Callable[[], None]:
    """A function that trains on the next batch, the way `fit` does, and does not wait for the device.

    It goes through epochs of so many batches, drawn from data as often as it takes.
    """
    batches = batches or min(max((1 << 20) // batch_size, 500), 20000)  # so that epochs hardly begin
    order = np.resize(model.shuffled(len(data)), batches * batch_size)

    def endless():
        while True:
            epoch = model.train_step().epoch(data, order, batch_size)
            for batch in range(batches):
                epoch.step(batch)
                yield

    return partial(next, endless())


def measure(run, wait, seconds: float = 1.0, rounds: int = 20, host: bool = False) -> dict:
    """Median time of a call of run in milliseconds and its quartiles; host: also the median of the host's
    microseconds to hand one over to the device.

    A round is a number of calls and one wait.  A card's clocks rise under load, so it is kept busy first.
    """
    for _ in range(3):  # two eager steps and the one that is captured
        run()
    wait()
    start, calls = time.perf_counter(), 0
    while calls < 1 or time.perf_counter() - start < 0.3 * seconds:
        run()
        calls += 1
        if calls % 8 == 0:
            wait()
    wait()
    once = (time.perf_counter() - start) / calls
    repeat = int(min(max(seconds / rounds / once, 1), 1000))
    rounds = int(min(max(seconds / (repeat * once), 3), rounds))
    times: list[float] = []
    handed: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        wait()
        times.append((time.perf_counter() - start) / repeat * 1e3)
    for _ in range(7 if host else 0):  # so few calls that the device's queue is never full
        start = time.perf_counter()
        for _ in range(20):
            run()
        handed.append((time.perf_counter() - start) / 20 * 1e6)
        wait()
    return {
        "ms": statistics.median(times),
        "quartiles_ms": [float(q) for q in np.quantile(times, (0.25, 0.75))],
        "host_us": statistics.median(handed) if host else None,
    }
