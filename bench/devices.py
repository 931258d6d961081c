"""Two devices side by side: the workloads over batch sizes, or the benchmarks, as a table and a picture.

    python -m bench.devices [JOB ...] [--rows FILE] [--plot devices.png]      measures; JOB: WORKLOAD/DEVICE
    python -m bench.devices --from bench.json [--plot devices.png]

bench.json is what pytest --benchmark-json=bench.json wrote; a file of rows, as --rows leaves it, will do too.

Set-up (model, first three steps: kernels are compiled and a CUDA graph is captured in them) and the transfer
of a batch from host memory are measured apart from the steps, whose data lie on the device.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import numpy as np

from bench import rows, workloads
from xpnet.data.arrays import Arrays
from xpnet.ops.threads import blas_threads
from xpnet.training.timing import measure, trainer

SIZES = (1, 4, 16, 64, 256, 1024)
LONGEST = 1.5  # seconds of a step that a batch size may take: larger ones are left out


def default_jobs() -> list[str]:
    return [f"{name}/{device}" for device in ("cuda", "cpu") for name in workloads.WORKLOADS]


def work(sizes, seconds: float, job: str) -> dict:
    """Set-up time, and by batch size the times of a step and of a batch's transfer."""
    name, device = job.split("/")
    start = time.perf_counter()
    model = workloads.model(name, device)
    if not model.device.startswith(device):
        raise RuntimeError(model.device_reason)
    data = Arrays(*workloads.batch(name))
    run = trainer(model, data, len(data), 3)
    run(), run(), run()
    model.ops.synchronize()
    row = {"workload": name, "device": device, "setup_s": time.perf_counter() - start, "sizes": []}
    for size in sizes:
        done = row["sizes"][-1:]
        if done and done[0]["ms"] * size / done[0]["batch"] > 1e3 * LONGEST:
            break
        try:
            row["sizes"].append(_of_size(model, name, size, seconds))
        except Exception as error:  # such as too little memory
            row["stopped"] = f"batch {size}: {type(error).__name__}: {error}"[:500]
            break
    return row


def _of_size(model, name: str, size: int, seconds: float) -> dict:
    data = Arrays(*workloads.batch(name, max(size, 256)))
    with blas_threads(model.train_step().blas_threads(size)):
        step = measure(trainer(model, data, size), model.ops.synchronize, seconds, rounds=9)
    x = data.x[:size]
    moved = measure(lambda: model.ops.asarray(x), model.ops.synchronize, 0.05, rounds=5)
    return {"batch": size, "ms": step["ms"], "quartiles_ms": step["quartiles_ms"], "transfer_ms": moved["ms"]}


# -- the workloads -------------------------------------------------------------------------------------------


def pairs(found: list[dict]) -> dict[str, tuple[dict, dict]]:
    """{workload: (the CPU's row, the GPU's row)}, of those measured on both; the last row of each counts."""
    by_device: dict[str, dict[str, dict]] = {"cpu": {}, "cuda": {}}
    for row in found:
        if "sizes" in row:
            by_device[row["device"]][row["workload"]] = row
    return {w: (by_device["cpu"][w], row) for w, row in by_device["cuda"].items() if w in by_device["cpu"]}


def crossing(cpu: dict, gpu: dict) -> str:
    """From which measured batch on the GPU's step is the shorter one."""
    times = {s["batch"]: s["ms"] for s in cpu["sizes"]}
    wins = [(s["batch"], s["ms"] < times[s["batch"]]) for s in gpu["sizes"] if s["batch"] in times]
    lost = [batch for batch, won in wins if not won]
    if not lost:
        return f"none: the GPU wins from {wins[0][0]} on"
    won = [batch for batch, _ in wins if batch > lost[-1]]
    return f"between {lost[-1]} and {won[0]}" if won else f"above {lost[-1]}"


def workloads_table(found: list[dict]) -> str:
    lines, ends = [], []
    for name, (cpu, gpu) in pairs(found).items():
        on_gpu = {s["batch"]: s for s in gpu["sizes"]}
        for one in cpu["sizes"]:
            if other := on_gpu.get(one["batch"]):
                ratio = one["ms"] / other["ms"]
                lines.append([name, one["batch"], one["ms"], other["ms"], ratio, other["transfer_ms"]])
        ends.append([name, crossing(cpu, gpu), cpu["setup_s"], gpu["setup_s"]])
    steps = rows.table(["workload", "batch", "CPU, ms", "GPU, ms", "CPU / GPU", "transfer of x, ms"], lines)
    header = ["workload", "batch below which the CPU wins", "set-up CPU, s", "set-up GPU, s"]
    return f"{steps}\n\n{rows.table(header, ends)}"


def plot_workloads(found: list[dict]):
    """A panel a workload: a step's time by batch size on both devices; and a panel of set-up times."""
    from xpnet.viz.style import PALETTE, figure, style

    with style():
        both = pairs(found)
        tall = -(-(len(both) + 1) // 3)
        drawn = figure(10.5, 3.1 * tall)
        panels = drawn.subplots(tall, 3, squeeze=False).ravel()
        for ax, (name, sides) in zip(panels, both.items()):
            for row, label, color, marker in zip(sides, ("CPU", "GPU"), PALETTE, "os"):
                sizes = [s["batch"] for s in row["sizes"]]
                ax.plot(
                    sizes,
                    [s["ms"] for s in row["sizes"]],
                    color=color,
                    marker=marker,
                    markersize=4,
                    label=label,
                )
            moved = [s["transfer_ms"] for s in sides[1]["sizes"]]
            ax.plot(
                [s["batch"] for s in sides[1]["sizes"]], moved, ":", color="#777777", linewidth=1.2,
                label="transfer of x to the GPU",
            )  # fmt: skip
            ax.set(title=name, xscale="log", yscale="log", xlabel="batch size", ylabel="milliseconds")
            ax.set_xticks(sizes, [str(size) for size in sizes])
            ax.minorticks_off()
            ax.grid()
        ax = panels[-1]
        places = np.arange(len(both))
        for k, (label, color) in enumerate(zip(("CPU", "GPU"), PALETTE)):
            ax.barh(
                places - 0.2 + 0.4 * k,
                [s[k]["setup_s"] for s in both.values()],
                0.36,
                color=color,
                label=label,
            )
        ax.set_yticks(places, list(both))
        ax.invert_yaxis()
        ax.set(title="Set-up, once", xlabel="seconds")
        ax.grid(axis="x")
        for unused in panels[len(both) : -1]:
            unused.set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=3)
        drawn.suptitle("A training step on the CPU and on the GPU")
    return drawn


# -- the benchmarks ------------------------------------------------------------------------------------------


def benchmarks(path) -> list[dict]:
    """A row a benchmark of a pytest-benchmark file: its name without the device, each device's median ms."""
    found: dict[str, dict] = {}
    for one in json.loads(Path(path).read_text(encoding="utf-8"))["benchmarks"]:
        device = (one.get("params") or {}).get("ops")
        if device not in ("cpu", "cuda"):
            continue
        name = one["name"].replace(f"[{device}-", "[").replace(f"[{device}]", "")
        name = name.removeprefix("test_").replace("_", " ").replace("[", " ").removesuffix("]")
        found.setdefault(name, {"name": name})[device] = one["stats"]["median"] * 1e3
    return list(found.values())


def benchmarks_table(found: list[dict]) -> str:
    lines = [
        [r["name"], r.get("cpu"), r.get("cuda"), r["cpu"] / r["cuda"] if "cpu" in r and "cuda" in r else None]
        for r in found
    ]
    return rows.table(["benchmark", "CPU, ms", "GPU, ms", "CPU / GPU"], lines)


def plot_benchmarks(found: list[dict]):
    """A line a benchmark, with a dot for each device's median."""
    from xpnet.viz.style import PALETTE, figure, style

    with style():
        drawn = figure(8.0, 1.4 + 0.2 * len(found))
        ax = drawn.add_subplot()
        places = np.arange(len(found))
        for row, place in zip(found, places):
            if "cpu" in row and "cuda" in row:
                ax.plot([row["cpu"], row["cuda"]], [place, place], color="#BBBBBB", linewidth=1.2, zorder=1)
        for device, label, color, marker in zip(("cpu", "cuda"), ("CPU", "GPU"), PALETTE, "os"):
            times = [row.get(device, np.nan) for row in found]
            ax.plot(times, places, marker, color=color, markersize=5, label=label)
        ax.set_yticks(places, [row["name"] for row in found], fontsize=8)
        ax.set_ylim(len(found) - 0.5, -0.5)
        ax.set(xscale="log", xlabel="milliseconds, median", title="Benchmarks on the CPU and on the GPU")
        ax.grid(axis="x")
        drawn.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawn


def main(argv=None) -> None:
    parser = rows.arguments(__doc__, default_jobs())
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--seconds", type=float, default=0.4, help="to measure a batch size for")
    parser.add_argument(
        "--from", dest="source", type=Path, help="a file of pytest-benchmark, or of rows (.jsonl)"
    )
    parser.add_argument("--plot", type=Path, help="write the picture there")
    args = parser.parse_args(argv)
    if args.source and args.source.suffix == ".json":
        found = benchmarks(args.source)
        if args.rows:
            rows.append(args.rows, *({"kind": "bench", **row} for row in found))
        draw, text = plot_benchmarks, benchmarks_table(found)
    else:
        if args.source:
            found = [row for row in rows.read(args.source) if row.get("kind") == "devices"]
        else:
            more = ["--seconds", str(args.seconds), "--sizes", *map(str, args.sizes)]
            do = partial(work, args.sizes, args.seconds)
            found = rows.run("bench.devices", args, do, {"kind": "devices"}, more)
        draw, text = plot_workloads, workloads_table(found)
    print(text)
    if args.plot:
        from xpnet.viz.style import save

        save(draw(found), args.plot)


if __name__ == "__main__":
    main()
