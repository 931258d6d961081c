"""Every route of a convolution on the CPU, at many shapes: the fastest one, and the one that the rule takes.

    python -m bench.routes [--rounds 7] [--only 3x3,strides,...] [--json FILE]

One thread.  At each shape the routes run in turn, and a route's figure is its median.  "chosen" is the time
of what the rule takes over that of the fastest, "plain" over that of the plain operation (im2col of all rows,
one matmul each): above 1 the rule loses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.rows import machine, table
from xpnet.layers.conv import resolve_padding
from xpnet.ops import convolution
from xpnet.ops.geometry import Window
from xpnet.ops.numpy_ops import NumpyOps
from xpnet.ops.reference import Ops
from xpnet.ops.threads import blas_threads


class Shape(NamedTuple):
    """x (N, C, size, size), F filters of kernel x kernel."""

    C: int
    F: int
    size: int
    N: int
    kernel: int = 3
    strides: int = 1
    padding: str = "same"
    dilation: int = 1
    groups: int = 1


GROUPS: dict[str, list[Shape]] = {
    "3x3": [
        Shape(C, F, size, N)
        for C, F in ((8, 8), (16, 32), (32, 32), (32, 64), (64, 64), (128, 128), (256, 256))
        for size, N in ((28, 32), (14, 7), (14, 64), (7, 64), (8, 1), (4, 32))
        if C * size * size * N < 64 * 14 * 14 * 128
    ],
    "valid": [Shape(32, 64, 26, 64, padding="valid"), Shape(48, 48, 9, 16, padding="valid")],
    "kernels": [Shape(C, F, 14, N, k) for C, F in ((6, 16), (32, 32)) for k in (1, 5, 7) for N in (1, 7, 64)],
    "first": [
        Shape(1, 6, 28, 64, 5),
        Shape(3, 64, 32, 32),
        Shape(1, 32, 28, 64, padding="valid"),
        Shape(3, 16, 33, 1, 7),
    ],
    "strides": [Shape(C, 32, 15, N, 3, 2) for C in (8, 32, 64) for N in (1, 7, 64)],
    "dilated": [Shape(16, 16, 14, 32, 3, dilation=2)],
    "groups": [
        Shape(32, 32, 14, 32, groups=4),
        Shape(32, 32, 14, 32, groups=32),
        Shape(64, 64, 7, 1, groups=64),
    ],
}


@contextmanager
def _forced(tile: int, route: str | None):
    """Convolution by tiles of this size, or by a way of reading the map."""
    kept = convolution.tile, NumpyOps._route
    convolution.tile = lambda *shapes: tile
    if route is not None:
        NumpyOps._route = staticmethod(lambda *shapes: route)  # type: ignore[method-assign]
    try:
        yield
    finally:
        convolution.tile, NumpyOps._route = kept[0], staticmethod(kept[1])  # type: ignore[method-assign]


def routes(shape: Shape, window: Window) -> dict[str, tuple[int, str | None]]:
    """The routes that can be taken: name -> what to force."""
    found: dict[str, tuple[int, str | None]] = {"copied": (0, "copied")}
    if shape.groups == 1 and shape.dilation == 1:
        found["side by side"] = (0, "side by side")
        if shape.strides == 1:
            found["in place"] = (0, "in place")
            if shape.kernel == 3:
                found |= {"2x2": (2, None), "4x4": (4, None)}
    return found


def measure(shape: Shape, rounds: int, seconds: float) -> list[dict]:
    """A row for each direction: milliseconds of every route, of the rule's and of the plain operation."""
    rng = np.random.default_rng(0)
    window = Window((shape.kernel,) * 2, (shape.strides,) * 2, (shape.dilation,) * 2)
    window = window._replace(padding=resolve_padding(shape.padding, window, shape.size, shape.size))
    ops, plain = NumpyOps(), Ops()
    shape_in = (shape.size, shape.C, shape.size, shape.N)
    x = ops.pad(rng.standard_normal(shape_in, dtype=np.float32), window.padding)
    w = rng.standard_normal((shape.kernel, shape.F, shape.kernel, shape.C // shape.groups), dtype=np.float32)
    OH, OW = window.out_size(shape.size, shape.size)
    dz, dw = rng.standard_normal((OH, shape.F, OW, shape.N), dtype=np.float32), np.empty_like(w)
    g = shape.groups
    ways: dict[str, Callable] = {
        "forward": lambda o: o.conv2d(x, w, window.bare, g),
        "weights": lambda o: o.conv2d_weight_grad(x, dz, dw, window.bare, g),
        "input": lambda o: o.conv2d_input_grad(dz, w, shape_in, window, g),
    }
    found = []
    for direction, way in ways.items():
        runs: dict[str, Callable] = {"rule": partial(way, ops), "plain": partial(way, plain)}
        for name, forced in routes(shape, window).items():
            runs[name] = partial(_run_forced, forced, way, ops)
        times = _in_turn(runs, rounds, seconds)
        fastest = min((name for name in times if name != "rule"), key=times.__getitem__)
        found.append(
            {**shape._asdict(), "direction": direction, "ms": times, "fastest": fastest}
            | {"chosen": times["rule"] / times[fastest], "plain": times["rule"] / times["plain"]}
        )
    return found


def _run_forced(forced, way, ops):
    with _forced(*forced):
        way(ops)


def _in_turn(runs: dict[str, Callable], rounds: int, seconds: float) -> dict[str, float]:
    repeat = {}
    for name, run in runs.items():
        run()
        start = time.perf_counter()
        run()
        repeat[name] = max(1, int(seconds / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(repeat[name]):
                run()
            times[name].append((time.perf_counter() - start) / repeat[name] * 1e3)
    return {name: statistics.median(t) for name, t in times.items()}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.005, help="of a round, at least one run")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups of shapes, by commas")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args(argv)
    unknown = [name for name in args.only.split(",") if name not in GROUPS]
    if unknown:
        parser.error(f"--only: no group of shapes is called {unknown[0]!r}; there are {', '.join(GROUPS)}")
    rows: list[dict] = []
    with blas_threads(1):
        for name in args.only.split(","):
            for shape in GROUPS[name]:
                rows += measure(shape, args.rounds, args.seconds)
                _show(rows[-3:])
    chosen, plain = ([row[key] for row in rows] for key in ("chosen", "plain"))
    print(f"\nover the fastest route: {_summary(chosen)}; over the plain operation: {_summary(plain)}")
    worst = sorted(rows, key=lambda row: -row["chosen"])[:5]
    print("furthest from the fastest:")
    print(table(["shape", "direction", "fastest", "chosen", "plain"], map(_line, worst)))
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def _show(rows: list[dict]) -> None:
    for row in rows:
        times = "  ".join(f"{name} {ms:.3g}" for name, ms in row["ms"].items())
        print(
            f"{_name(row):34} {row['direction']:8} {row['chosen']:5.2f} {row['plain']:5.2f}   {times}",
            flush=True,
        )


def _name(row: dict) -> str:
    extra = "".join(f" {k}={row[k]}" for k in ("strides", "dilation", "groups") if row[k] > 1)
    return f"{row['N']}x{row['C']}x{row['size']}x{row['size']} -> {row['F']} @{row['kernel']}{extra}"


def _line(row: dict) -> list:
    return [_name(row), row["direction"], row["fastest"], row["chosen"], row["plain"]]


def _summary(ratios: list[float]) -> str:
    return f"geometric mean {statistics.geometric_mean(ratios):.2f}, worst {max(ratios):.2f}"


if __name__ == "__main__":
    main()
