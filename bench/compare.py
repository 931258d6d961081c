"""Training steps of xpnet and PyTorch in turn, in one run: ratios of medians.

    python -m bench.compare [WORKLOAD ...] [--rounds 15] [--threads 2] [--json FILE]

Both sides train the same network from the same weights on the same batch with the same number of threads;
PyTorch runs in both of its memory formats and the faster one counts.  A ratio below 1: xpnet is faster.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np

import xpnet


def seconds(run, repeat: int) -> float:
    """Time of one call, the mean of repeat, after three that let the other side's threads come to rest."""
    run(), run(), run()
    start = time.perf_counter()
    for _ in range(repeat):
        run()
    return (time.perf_counter() - start) / repeat


def compare(name: str, rounds: int, threads: int) -> dict:
    """Median step times of one workload, in milliseconds, and their ratio with its quartiles."""
    import torch

    from bench import torch_steps, workloads
    from xpnet import set_num_threads
    from xpnet.data.arrays import Arrays
    from xpnet.ops.threads import blas_threads

    torch.set_num_threads(threads)
    set_num_threads(threads)
    model = workloads.model(name)
    x, y = workloads.batch(name)
    ours, data, index = model.train_step(), Arrays(x, y), np.arange(len(x))
    sides = {"xpnet": lambda: ours(data, index)}
    for layout in ("channels_first", "channels_last")[: x.ndim // 2]:
        sides[layout], _ = torch_steps.step(name, model, x, y, layout == "channels_last")
    times: dict[str, list[float]] = {side: [] for side in sides}
    with blas_threads(ours.blas_threads(len(x))):
        for run in sides.values():
            seconds(run, 1)
        repeat = max(1, int(0.1 / seconds(sides["xpnet"], 2)))
        for _ in range(rounds):
            for side, run in sides.items():
                times[side].append(seconds(run, repeat) * 1e3)
    medians = {side: statistics.median(t) for side, t in times.items()}
    peer = min((side for side in sides if side != "xpnet"), key=medians.__getitem__)
    ratios = np.array(times["xpnet"]) / np.array(times[peer])
    return {
        "workload": name,
        "xpnet_ms": medians["xpnet"],
        "torch_ms": medians[peer],
        "torch_layout": peer,
        "ratio": medians["xpnet"] / medians[peer],
        "quartiles": [float(q) for q in np.quantile(ratios, (0.25, 0.75))],
    }


def main(argv=None) -> None:
    from bench.workloads import WORKLOADS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), metavar="WORKLOAD")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args(argv)
    rows = []
    print(f"{'workload':12} {'xpnet ms':>9} {'torch ms':>9} {'ratio':>6}  quartiles    torch's faster layout")
    for name in args.workloads:
        row = compare(name, args.rounds, args.threads)
        rows.append(row)
        low, high = row["quartiles"]
        print(
            f"{name:12} {row['xpnet_ms']:9.2f} {row['torch_ms']:9.2f} {row['ratio']:6.2f}  {low:.2f} - "
            f"{high:.2f}  "
            f"{row['torch_layout']}",
            flush=True,
        )
    if args.json:
        import torch

        versions = {
            "xpnet": xpnet.__version__,
            "numpy": np.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        from xpnet.ops.threads import blas_info

        blas = [f"{b['internal_api']} {b['version']} {b.get('architecture', '')}" for b in blas_info()]
        versions["blas"] = ", ".join(blas)
        report = {
            "date": time.strftime("%Y-%m-%d"),
            "threads": args.threads,
            "rounds": args.rounds,
            "versions": versions,
            "workloads": rows,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
