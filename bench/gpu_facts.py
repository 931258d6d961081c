"""docs/gpu-facts.md from what the design's GPU probe printed: the facts about a card that the design rests
on.

    python -m bench.gpu_facts probe.log [--date 2026-11-21] > docs/gpu-facts.md

The probe's last line is its result as JSON; every figure of the page is from it.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

from bench.rows import table

MODES = ("float32", "tf32", "bfloat16")


def result(text: str) -> dict:
    """The probe's result: its last line that is a JSON object."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                continue
    raise ValueError("no line of JSON in the probe's output: it did not come to its end")


def page(facts: dict, date: str) -> str:
    """The Markdown of the page."""
    parts = [
        "# What the GPU design rests on, as measured",
        f"{facts.get('device', 'unknown card')}, CuPy {facts.get('cupy', '?')}; {date}. "
        "One run of the design's probe, which asks a card in about a minute whether the plan holds: 20 calls "
        "timed by events after 5 that were not. PyTorch ran in a process of its own, in the faster of its "
        "memory formats, with cuDNN's own choice of algorithm (`cudnn.benchmark`). Written by "
        "`python -m bench.gpu_facts`.",
        "## Ceilings and costs",
        table(["", ""], _single(facts)),
        "## A library's own cuBLAS call in a CUDA graph",
        table(
            ["precision", "replay equals the eager call to the bit", "host time of a launch, us"],
            _graphs(facts),
        ),
        "## Convolution by strided batched products on the map in place",
        "3x3 kernels, stride 1, the map's border included in H; a product for each kernel column, forward in "
        "blocks of output rows (the best of three sizes; None: all rows at once), the weight gradient by "
        "parts that are then added. A ratio below 1: faster than PyTorch. Bias, activation and packing are "
        "in neither.",
        table(
            ["precision", "N, C, F, H", "forward, ms", "rows a block", "TFLOP/s", "of the matmul rate",
             "/ PyTorch", "weight gradient, ms", "/ PyTorch"],
            _convolutions(facts),
        ),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _single(facts: dict) -> list[list]:
    names = {
        "copy TB/s": "copy within the card's memory, read and written, TB/s",
        "host us of an eager cupy.add": "host time of an eager `cupy.add`, us",
    }
    names |= {f"{mode} matmul TFLOP/s": f"4096 x 4096 matmul, {mode}, TFLOP/s" for mode in MODES}
    return [[text, facts[key]] for key, text in names.items() if key in facts]


def _graphs(facts: dict) -> list[list]:
    lines = []
    for mode in MODES:
        if (same := facts.get(f"{mode} graph replay equals eager")) is not None:
            lines.append([mode, _yes(same), facts.get(f"{mode} host us of a graph launch")])
    return lines


def _yes(value) -> str:
    return {True: "yes", False: "no"}.get(value, str(value).replace("|", "/"))


def _convolutions(facts: dict) -> list[list]:
    lines = []
    for key, one in facts.items():
        if not (match := re.fullmatch(rf"({'|'.join(MODES)}) (\d+) (\d+) (\d+) (\d+)", key)):
            continue
        ceiling = facts.get(f"{match[1]} matmul TFLOP/s")
        share = f"{one['forward TFLOP/s'] / ceiling:.0%}" if ceiling else None
        lines.append([
            match[1], ", ".join(match.groups()[1:]), one["forward ms"], one["best rows"],
            one["forward TFLOP/s"], share, one.get("forward / torch"), one["weight grad ms"],
            one.get("weight grad / torch"),
        ])  # fmt: skip
    return lines


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path, help="what the probe printed")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"), help="of the run")
    args = parser.parse_args(argv)
    print(page(result(args.log.read_text(encoding="utf-8")), args.date), end="")


if __name__ == "__main__":
    main()
