"""Seconds until resnet9 knows so many of CIFAR-10's test images, by the example that anybody can run.

    python -m bench.reach [--device cuda] [--target 0.92] [--rows FILE] [-- MORE]

MORE: further arguments of examples/cifar_resnet9.py, such as --width 16 --epochs 2 --images 2000.
"""

from __future__ import annotations

import argparse
import importlib.util
import traceback
from pathlib import Path

from bench import rows

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "cifar_resnet9.py"
TARGET = 0.92


def reach(device: str, target: float, more: list[str]) -> dict:
    """The figures of a run of the example."""
    spec = importlib.util.spec_from_file_location("cifar_resnet9", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    args = example.arguments(["--device", device, "--target", str(target), *more])
    _, figures = example.train(example.load(args.images), args)
    return figures


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--target", type=float, default=TARGET)
    parser.add_argument("--rows", type=Path, help="append the figures there, as a line of JSON")
    parser.add_argument("more", nargs="*", metavar="MORE")
    args = parser.parse_args(argv)
    row = {"kind": "reach", "job": "resnet9", "target": args.target}
    try:
        row |= reach(args.device, args.target, args.more)
    except Exception as error:  # whatever it is, it is the result of this run
        traceback.print_exc()
        row["error"] = f"{type(error).__name__}: {error}"[:500]
    if args.rows:
        rows.append(args.rows, row)
    if "error" in row:
        raise SystemExit(rows.REPORTED)


if __name__ == "__main__":
    main()
