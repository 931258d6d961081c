"""What the CPU side is held to: a row a target, met, missed or not measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

STEPS = {
    "digits-cnn": 0.30,
    "mnist-mlp": 1.0,
    "lenet": 0.60,
    "mnist-cnn": 0.75,
    "cifar-vgg": 1.0,
    "resnet9": 1.0,
}


class Target(NamedTuple):
    """measured(rows) is a figure, or None where it was not measured; at_most: else at least the limit."""

    what: str
    measured: Callable[[list[dict]], float | None]
    limit: float
    at_most: bool = True


def found(rows: list[dict], section: str, name: str) -> list[dict]:
    """The rows of a section and a workload that hold figures."""
    return [
        row
        for row in rows
        if row["job"].split("/")[:2] == [section, name] and not {"skipped", "error"} & row.keys()
    ]


def step(name: str, peer: str | None = None) -> Callable:
    """The step's time over PyTorch's in its faster format, or over another peer's; the median of the runs."""

    def measured(rows):
        runs = found(rows, "steps", name)
        ratios = [row["ratio"] if peer is None else row["ratios"][peer]["ratio"] for row in runs
                  if (peer in row["ratios"] if peer else "ratio" in row)]  # fmt: skip
        return float(np.median(ratios)) if ratios else None

    return measured


def memory(name: str, key: str) -> Callable:
    """xpnet's growth over that of PyTorch in the format that takes less."""

    def measured(rows):
        growths = {row["job"].split("/")[2]: row[key] for row in found(rows, "memory", name)}
        ours = growths.pop("xpnet", None)
        return ours / min(growths.values()) if ours is not None and growths else None

    return measured


def field(section: str, name: str, key: str) -> Callable:
    def measured(rows):
        return next((row[key] for row in found(rows, section, name)), None)

    return measured


def latency(name: str, images: int) -> Callable:
    def measured(rows):
        sizes = [size for row in found(rows, "predict", name) for size in row["sizes"]]
        return next((size["ratio"] for size in sizes if size["images"] == images), None)

    return measured


GROWTHS = {"after import": "growth_after_import_mib", "after a first tiny step": "growth_mib"}
GROWTH = 1.05  # 1, and a twentieth for the noise of two medians
CLIFF = 1.25  # a step of one sample more, or one fewer

TARGETS = [
    *(Target(f"step of {name} / PyTorch", step(name), limit) for name, limit in STEPS.items()),
    Target("step of mnist-mlp / scikit-learn", step("mnist-mlp", "scikit-learn"), 0.35),
    *(
        Target(f"growth of memory {since}, {name} / PyTorch", memory(name, key), 1.0)
        for since, key in GROWTHS.items()
        for name in STEPS
    ),
    *(
        Target(f"times as fast on all threads, {name}", field("threads", name, "ratio"), 1.7, False)
        for name in ("mnist-cnn", "cifar-vgg")
    ),
    Target("predict of one image, lenet / PyTorch", latency("lenet", 1), 0.35),
    *(
        Target(f"worst growth with the batch, {name}", field("batches", name, "growth"), GROWTH)
        for name in STEPS
    ),
    *(
        Target(f"worst cliff between batch sizes, {name}", field("batches", name, "cliff"), CLIFF)
        for name in STEPS
    ),
    *(
        Target(f"epoch of MNIST by fit / its bare steps, {name}", field("epoch", name, "ratio"), 1.05)
        for name in ("mnist-mlp", "lenet")
    ),
]


def check(rows: list[dict]) -> list[dict]:
    """Every target with what was measured and whether that meets it."""
    out = []
    for target in TARGETS:
        value = target.measured(rows)
        met = value is not None and (value <= target.limit if target.at_most else value >= target.limit)
        out.append(
            {
                "target": target.what,
                "measured": value,
                "limit": f"{'at most' if target.at_most else 'at least'} {target.limit:g}",
                "result": "not measured" if value is None else "met" if met else "missed",
            }
        )
    return out
