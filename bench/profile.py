"""Where the time of a training step on the CPU goes, call by call.

    python -m bench.profile [WORKLOAD ...] [--rounds 20] [--top 12]

A step's work is recorded by then (`xpnet/ops/record.py`), so it is a list of NumPy calls; each is timed by
itself, on one thread, with the share of a batch that a thread has in `bench.compare`.  Beside the matmuls'
rate stands that of a large one, which is the machine's limit.
"""

from __future__ import annotations

import argparse
import math
import operator
import statistics
import time
from collections import defaultdict

import numpy as np

import xpnet
from bench import workloads
from bench.rows import table
from xpnet.data.arrays import Arrays
from xpnet.ops.threads import blas_threads

KINDS = ("matmul", "copying", "elementwise", "other")


def kind(call) -> str:
    """What a noted call does."""
    if call.func is np.matmul:
        return "matmul"
    if call.func is operator.setitem:
        return "copying"
    return "elementwise" if isinstance(getattr(call.func, "__self__", call.func), np.ufunc) else "other"


def multiply_adds(call) -> int:
    """Of a matmul."""
    a, b = call.args[:2]
    return math.prod(call.keywords["out"].shape) * a.shape[-1] if a.ndim > 1 else a.size * b.shape[-1]


def name(call) -> str:
    function = getattr(call.func, "__self__", call.func)
    shapes = [a.shape for a in (*call.args, *call.keywords.values()) if isinstance(a, np.ndarray)]
    return f"{getattr(function, '__name__', function)} {' '.join(map(str, shapes))}"


def limit(rounds: int) -> float:
    """Multiply-adds a second of a matmul of 1024 x 1024 in float32."""
    a = np.ones((1024, 1024), np.float32)
    out = np.empty_like(a)
    return 1024**3 / statistics.median(_seconds(lambda: np.matmul(a, a, out=out)) for _ in range(rounds))


def profile(workload: str, rounds: int) -> dict:
    """Seconds of a step as it is, of its calls one by one, and of the optimizer's part."""
    xpnet.set_num_threads(1)
    n = max(workloads.WORKLOADS[workload].batch // 2, 8)
    model = workloads.model(workload)
    step, data, index = model.train_step(), Arrays(*workloads.batch(workload, n)), np.arange(n)
    with blas_threads(1):
        while not (recordings := step.replicas(n)[0].repeated.recordings()):
            step(data, index)
        calls = recordings[0].calls
        whole, update, times = [], [], [[] for _ in calls]
        for _ in range(rounds):  # in turn, since machines have fast and slow phases
            whole.append(_seconds(lambda: step(data, index)))
            update.append(_seconds(lambda: step.update([step.params.grads], 0.0)))
            with np.errstate(all="ignore"):
                for call, seen in zip(calls, times):
                    seen.append(_seconds(call))
        rate = limit(rounds)
    return {
        "workload": workload,
        "samples": n,
        "step": statistics.median(whole),
        "update": statistics.median(update),
        "limit": rate,
        "calls": [(call, statistics.median(seen)) for call, seen in zip(calls, times)],
    }


def _seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def show(found: dict, top: int) -> None:
    step, calls = found["step"], found["calls"]
    shares: dict[str, float] = defaultdict(float)
    named: dict[str, list[float]] = defaultdict(list)
    for call, seconds in calls:
        shares[kind(call)] += seconds
        named[f"{kind(call)}: {name(call)}"].append(seconds)
    done = sum(multiply_adds(call) for call, _ in calls if kind(call) == "matmul")
    rate = done / shares["matmul"]
    print(f"\n{found['workload']}, {found['samples']} samples, one thread: {step * 1e3:.2f} ms a step")
    rest = step - sum(shares.values()) - found["update"]
    rows = [[what, shares[what] * 1e3, f"{shares[what] / step:.0%}"] for what in KINDS]
    rows += [["optimizer", found["update"] * 1e3, f"{found['update'] / step:.0%}"]]
    rows += [["Python, gathering, checks", rest * 1e3, f"{rest / step:.0%}"]]
    print(table(["part", "ms", "of the step"], rows))
    print(
        f"{len(calls)} calls; matmuls at {2 * rate / 1e9:.0f} of {2 * found['limit'] / 1e9:.0f} GFLOP/s; "
        f"at that limit they alone would take {done / found['limit'] / step:.0%} of the step\n"
    )
    longest = sorted(named.items(), key=lambda item: -sum(item[1]))[:top]
    print(table(["call", "times", "ms", "of the step"], [
        [what, len(seen), sum(seen) * 1e3, f"{sum(seen) / step:.1%}"] for what, seen in longest
    ]))  # fmt: skip


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", default=list(workloads.WORKLOADS), metavar="WORKLOAD")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--top", type=int, default=12, help="calls that are listed")
    args = parser.parse_args(argv)
    for workload in args.workloads:
        show(profile(workload, args.rounds), args.top)


if __name__ == "__main__":
    main()
