"""xpnet and its peers on the CPU, in turn in one run: times, memory, accuracy, and the targets.

    python -m bench.compare [WORKLOAD ...] [--only steps,memory,...] [--short] [--json FILE]

The peers are PyTorch eager (the faster of its memory formats counts), scikit-learn's MLPClassifier where
the network is one, and as context Keras on JAX and plain im2col NumPy.  All have the same threads, weights
and batch, in float32.  A ratio is the median of xpnet's times over the peer's, below 1 where xpnet is faster,
with the quartiles of the ratios within a round.  Sections:

    steps      a training step of each workload, of every peer
    memory     growth of memory by training, each side in a process of its own
    accuracy   seconds to a held-out accuracy on digits and MNIST, by fit and by a plain loop in PyTorch
    threads    a step on one thread and on all
    predict    latency of predict, from one image to 10,000
    batches    a step over batch sizes: growth with the batch, and cliffs between neighbours
    epoch      an epoch of MNIST by fit over the sum of its bare steps
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import peers, rows, sections, targets
from bench.workloads import WORKLOADS

BUSY = 0.15  # cores that others take, of what this process may use, from which figures are doubtful


def spread(row: dict) -> str:
    low, high = row["quartiles"]
    return f"{low:.2f} to {high:.2f}"


def steps_table(found: list[dict]) -> str:
    lines = []
    for row in found:
        _, name, run = row["job"].split("/")
        title = name if run == "1" else f"{name}, run {run}"
        lines.append([title, "xpnet", row["sides"]["xpnet"]["ms"], None, None])
        for side, ratio in row["ratios"].items():
            better = " (the faster)" if side == row.get("torch") and "channels_last" in row["sides"] else ""
            lines.append([title, side + better, row["sides"][side]["ms"], ratio["ratio"], spread(ratio)])
    return rows.table(["workload", "side", "step, ms", "xpnet / side", "quartiles"], lines)


def memory_table(found: list[dict]) -> str:
    lines = [
        [*row["job"].split("/")[1:], row["growth_after_import_mib"], row["growth_mib"], row["peak_mib"]]
        for row in found
    ]
    return rows.table(
        ["workload", "side", "growth after import, MiB", "after a first tiny step", "peak, MiB"], lines
    )


def accuracy_table(found: list[dict]) -> str:
    lines = []
    for row in found:
        seconds, epochs = row["seconds"], row["epochs"]
        reached = f"{row['job'].split('/')[1]}, {row['workload']}, {row['accuracy']:.0%}"
        counts = f"{sorted(epochs['xpnet'])} and {sorted(epochs['torch'])}"
        lines.append([reached, seconds["xpnet"], seconds["torch"], row["ratio"], spread(row), counts])
    header = ["held-out accuracy", "xpnet, s", "PyTorch, s", "ratio", "quartiles", "epochs, by seed, sorted"]
    return rows.table(header, lines)


def threads_table(found: list[dict]) -> str:
    lines = []
    for row in found:
        (_, one), (many, all_) = row["sides"].items()
        lines.append([row["job"].split("/")[1], one["ms"], all_["ms"], many, row["ratio"], spread(row)])
    header = ["workload", "one thread, ms", "all threads, ms", "threads", "times as fast", "quartiles"]
    return rows.table(header, lines)


def predict_table(found: list[dict]) -> str:
    lines = []
    for row in found:
        name = row["job"].split("/")[1]
        for size in row["sizes"]:
            times = [size["xpnet_ms"], size["torch_ms"], size["ratio"], spread(size)]
            lines.append([name, size["images"], *times, size["torch"]])
        lines += [[name, count, "left out: takes too long", *[None] * 4] for count in row["left_out"]]
    header = [
        "workload",
        "images",
        "xpnet, ms",
        "PyTorch, ms",
        "ratio",
        "quartiles",
        "PyTorch's faster format",
    ]
    return rows.table(header, lines)


def batches_table(found: list[dict]) -> str:
    lines = []
    for row in found:
        lines.append(
            [
                row["job"].split("/")[1],
                row["growth"],
                " to ".join(map(str, row["growth_between"])) or None,
                row["cliff"],
                " and ".join(map(str, row["cliff_between"])) or None,
                ", ".join(f"{b}: {us:.3g}" for b, us in row["per_sample_us"].items()),
                ", ".join(map(str, row["left_out"])) or None,
            ]
        )
    header = ["workload", "worst growth", "from", "worst cliff", "between", "batch: us a sample", "left out"]
    return rows.table(header, lines)


def epoch_table(found: list[dict]) -> str:
    lines = [
        [
            row["job"].split("/")[1],
            row["samples"],
            row["sides"]["fit"]["ms"] / 1e3,
            row["sides"]["steps"]["ms"] / 1e3,
            row["ratio"],
            spread(row),
        ]
        for row in found
    ]
    return rows.table(["workload", "samples", "fit, s", "bare steps, s", "ratio", "quartiles"], lines)


TABLES = {
    "steps": steps_table,
    "memory": memory_table,
    "accuracy": accuracy_table,
    "threads": threads_table,
    "predict": predict_table,
    "batches": batches_table,
    "epoch": epoch_table,
}


def report(section: str, found: list[dict], short: bool = False) -> str:
    """The section's table, and a line for every job without figures and every peer that is not there."""
    measured = [row for row in found if not {"skipped", "error"} & row.keys()]
    lines = [f"## {section}", ""]
    lines += [TABLES[section](measured), ""] if measured else []
    for row in found:
        for why in ("skipped", "error"):
            if why in row:
                lines.append(f"{row['job']}: {why}: {row[why]}")
    if section == "steps":
        for peer, install in peers.missing().items():
            lines.append(f"{peer}: left out, it is not installed: {install}")
    if short and section in sections.SHORTER:
        lines.append(f"the short form leaves out: {', '.join(sections.SHORTER[section])}")
    return "\n".join(lines)


def busy(found: list[dict]) -> str:
    """A warning that names the timed jobs during which other processes had the cores, or nothing."""
    timed = [row for row in found if not row["job"].startswith("memory/")]
    taken = {row["job"]: row.get("cores_elsewhere") or 0.0 for row in timed}
    jobs = [f"{job} ({cores:.1f} cores)" for job, cores in taken.items() if cores > BUSY]
    if not jobs:
        return ""
    return (
        "NOT TO BE RELIED ON: other processes were at work on these cores, which may slow one side a hundred "
        f"times as much as another. Run these again on a quiet machine: {', '.join(jobs)}"
    )


def targets_table(checked: list[dict]) -> str:
    return rows.table(["target", "measured", "limit", "result"], [list(one.values()) for one in checked])


def machine() -> dict:
    """What the figures were measured on, and with what."""
    import xpnet
    from xpnet.ops.threads import available_cores, blas_info

    versions = {"xpnet": xpnet.__version__, "python": platform.python_version()}
    for name in ("numpy", "torch", "scikit-learn", "keras", "jax"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    blas = [f"{b['internal_api']} {b['version']} {b.get('architecture', '')}" for b in blas_info()]
    return {"cpu": cpu(), "cores": available_cores(), "blas": ", ".join(blas), "versions": versions}


def cpu() -> str:
    """The processor's name as the system has it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--only", metavar="SECTIONS", default=",".join(TABLES), help="comma-separated")
    sections.add_options(parser)
    parser.add_argument("--limit", type=float, default=1200, help="seconds for a job (default 1200)")
    parser.add_argument("--json", type=Path, help="save everything there")
    args = parser.parse_args(argv)
    only = args.only.split(",")
    for given, known, what in ((args.workloads, WORKLOADS, "workload"), (only, TABLES, "section")):
        if unknown := [one for one in given if one not in known]:
            parser.error(f"no such {what}. Received: {', '.join(unknown)}. Expected: {', '.join(known)}")
    sections.settle(args)
    facts = machine()
    print(f"{facts['cpu']}, {args.threads} threads; {facts['blas']}; {facts['versions']}\n", flush=True)
    found: list[dict] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for section in only:
            start = time.perf_counter()
            jobs = sections.jobs(section, args.workloads or WORKLOADS, args)
            new = sections.measure(jobs, args, Path(folder) / f"{section}.jsonl")
            found += new
            print(report(section, new, args.short), end="\n\n", flush=True)
            seconds[section] = time.perf_counter() - start
    checked = targets.check(found)
    print(f"## targets\n\n{targets_table(checked)}")
    if disturbed := busy(found):
        print(f"\n{disturbed}")
    if args.json:
        about = {"date": time.strftime("%Y-%m-%d"), "threads": args.threads, "rounds": args.rounds}
        about |= {"short": args.short, "seconds": seconds, **facts, "targets": checked, "rows": found}
        args.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
