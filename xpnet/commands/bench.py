"""`xpnet bench`: how long a training step takes on the devices of this machine, side by side."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

SUMMARY = "time training steps on this machine's devices"
DESCRIPTION = """\
Time training steps (forward, backward, optimizer, on random samples that lie on the device) on every device
that works here, and compare them.  The median of many rounds is told, with its quartiles.
"""
EXAMPLES = """\
workloads:
  digits-cnn   8x8x1, two 3x3 convolutions, 200-200, dropout; Adagrad
  mnist-mlp    784-500-250-100-10; Adam
  lenet        28x28x1, 5x5 convolutions; Adam
  mnist-cnn    28x28x1, 32 and 64 filters, dropout; Adam
  cifar-vgg    32x32x3, six 3x3 convolutions; Adam
  resnet9      32x32x3, residual, batch normalization; SGD with momentum

examples:
  xpnet bench
  xpnet bench lenet mnist-cnn --device cpu --threads 1
  xpnet bench --batch-size 512 --json times.json
"""


class Workload(NamedTuple):
    """network: one of xpnet.networks, for samples of shape and 10 classes.  batch: samples of a step.

    optimizer: by its name, with settings.
    """

    network: str
    shape: tuple[int, ...]
    batch: int
    optimizer: str = "Adam"
    settings: Mapping[str, Any] = MappingProxyType({})


WORKLOADS = {
    "digits-cnn": Workload("cnn", (1, 8, 8), 8, "Adagrad"),
    "mnist-mlp": Workload("mlp", (784,), 1000),
    "lenet": Workload("lenet", (1, 28, 28), 128),
    "mnist-cnn": Workload("cnn", (1, 28, 28), 128),
    "cifar-vgg": Workload("vgg", (3, 32, 32), 64),
    "resnet9": Workload("resnet9", (3, 32, 32), 64, "SGD", {"learning_rate": 0.05, "momentum": 0.9}),
}
CLASSES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from .train import one_of, whole_number

    add = parser.add_argument
    add(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        type=one_of("workload", tuple(WORKLOADS)),
        help="which (default: all)",
    )
    add(
        "--device",
        action="append",
        metavar="DEVICE",
        help="cpu, cuda or cuda:1; give it twice to compare two (default: cpu, and cuda where it works)",
    )
    add(
        "--batch-size", type=whole_number("batch-size"), metavar="N", help="samples a step, for all workloads"
    )
    add("--threads", type=whole_number("threads"), metavar="N", help="on the CPU (default: one a core)")
    add(
        "--seconds",
        type=duration,
        default=1.0,
        metavar="S",
        help="how long each workload is timed on each device (default: 1)",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    add("--overwrite", action="store_true", help="replace FILE if it exists")


def duration(text: str) -> float:
    """An argparse type: seconds above 0, at most an hour."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"seconds must be above 0 and at most 3600. Received: {text!r}")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Time as args say; the exit code."""
    from ..ops import threads
    from .output import check_new, whole

    if args.json is not None:
        check_new(args.json, args.overwrite)
    before = threads.chosen_threads()
    if args.threads is not None:
        threads.set_num_threads(args.threads)
    try:
        devices = list(dict.fromkeys(args.device or working_devices()))
        told = {device: describe(device) for device in devices}
        for device, text in told.items():
            print(f"{device}: {text}")
        print("\n" + heading(devices), flush=True)
        found = []
        for name in list(dict.fromkeys(args.workloads)) or list(WORKLOADS):
            rows = [time_one(name, device, args.batch_size, args.seconds) for device in devices]
            print(line(rows), flush=True)
            found += rows
        facts = {"date": time.strftime("%Y-%m-%d"), "devices": told, "versions": versions(), "steps": found}
    finally:
        threads.set_num_threads(before)
    if args.json is not None:
        with whole(args.json) as path:
            path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        print(f"\nwrote {args.json}")
    return 0 if all("ms" in row for row in found) else 1


def working_devices() -> list[str]:
    """The CPU, and the first GPU where one works."""
    from ..device import resolve

    ops, why_not = resolve("auto", "auto")
    if ops.in_host_memory:
        print(f"the CPU alone: {why_not}", file=sys.stderr)
        return ["cpu"]
    return ["cpu", "cuda"]


def describe(device: str) -> str:
    """The device and what computes on it.  ValueError where a GPU that was asked for does not work."""
    from ..device import resolve
    from ..errors import DeviceFallbackWarning
    from ..ops.threads import blas_info, num_threads

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeviceFallbackWarning)  # there is nothing to fall back to here
        ops, reason = resolve(device, "auto")
    if ops.in_host_memory and device != "cpu":
        raise ValueError(f"{device} cannot be timed: {reason}; `xpnet doctor` says more")
    if not ops.in_host_memory:
        return reason
    blas = next((f"{b['internal_api']} {b['version']}" for b in blas_info()), "")
    threads = num_threads()
    return f"{threads} thread{'s' * (threads != 1)}, NumPy {versions()['numpy']}" + f" with {blas}" * bool(
        blas
    )


def versions() -> dict[str, str]:
    import numpy

    from .. import __version__

    return {"xpnet": __version__, "python": platform.python_version(), "numpy": numpy.__version__}


def time_one(name: str, device: str, batch: int | None, seconds: float) -> dict[str, Any]:
    """The median time of a step in milliseconds and its quartiles; or why there is none."""
    import numpy as np

    from .. import Sequential, networks, optimizers
    from ..data.arrays import Arrays
    from ..ops.threads import blas_threads
    from ..training.timing import measure, trainer

    work = WORKLOADS[name]
    size = batch or work.batch
    row: dict[str, Any] = {"workload": name, "device": device, "batch": size}
    try:
        layers = getattr(networks, work.network)(work.shape, CLASSES)
        model = Sequential(layers, input_shape=work.shape, device=device, seed=0)
        model.compile(getattr(optimizers, work.optimizer)(**work.settings), "sparse_categorical_crossentropy")
        rng = np.random.default_rng(0)
        data = Arrays(rng.random((size, *work.shape), dtype=np.float32), rng.integers(0, CLASSES, size))
        with blas_threads(model.train_step().blas_threads(size)):
            times = measure(trainer(model, data, size), model.ops.synchronize, seconds)
    except (MemoryError, RuntimeError) as error:  # such as too little memory on a card
        return row | {"error": f"{type(error).__name__}: {error}"}
    return row | {"ms": times["ms"], "quartiles_ms": times["quartiles_ms"]}


# -- the table -----------------------------------------------------------------------------------------------


def heading(devices: list[str]) -> str:
    columns = [f"{f'{device}, ms a step':>26}{'samples/s':>11}" for device in devices]
    return (
        f"{'workload':<12}{'batch':>6}" + "".join(columns) + ratios(devices, lambda d: f"{d} / {devices[0]}")
    )


def line(rows: list[dict]) -> str:
    """One workload on all devices."""
    first = rows[0]
    text = f"{first['workload']:<12}{first['batch']:>6}"
    for row in rows:
        if "error" in row:
            text += f"{row['error'][:36]:>37}"
            continue
        (low, high), ms = row["quartiles_ms"], row["ms"]
        step, rate = f"{ms:.3g} ({low:.3g} to {high:.3g})", row["batch"] / ms * 1e3
        text += f"{step:>26}{rate:>11,.0f}"
    return text + ratios(
        rows, lambda row: f"{row['ms'] / first['ms']:.2f}" if "ms" in row and "ms" in first else ""
    )


def ratios(columns: list, text: Callable[[Any], str]) -> str:
    return "".join(f"{text(column):>14}" for column in columns[1:])
