"""What a GPU run has to show so far, from its rows: results.json for bench/results/, report.md for reading,
and the targets, which are also printed.

    python -m bench.gpu_report FOLDER        FOLDER holds rows.jsonl
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench import devices, parity, reach, rows

SMALL = ("digits-cnn/8/auto", "lenet/128/auto", "mnist-mlp/1000/auto", "mnist-cnn/128/auto")


def steps(found: list[dict]) -> dict[str, dict[str, dict]]:
    """{job: {side: row}} of the comparison; the last row that is no error counts."""
    out: dict[str, dict[str, dict]] = {}
    for row in found:
        if row.get("kind") == "compare":
            sides = out.setdefault(row["job"], {})
            if "error" not in row or "error" in sides.get(row["side"], {"error": ""}):
                sides[row["side"]] = row
    return out


def ratio(sides: dict[str, dict], *peers: str) -> float | None:
    """xpnet's step by the fastest of the peers that ran."""
    times = [sides[p]["ms"] for p in peers if "ms" in sides.get(p, {})]
    ours = sides.get("xpnet", {}).get("ms")
    return ours / min(times) if times and ours else None


def convolutions(row: dict) -> tuple[float, float]:
    """Milliseconds and TFLOP/s of forward and backward of all convolutions of a "layers" row."""
    convs = [one for one in row["layers"] if "Conv2D" in one["layer"]]
    ms = sum(one["both_ms"] for one in convs)
    return ms, sum(one["both_gflop"] for one in convs) / ms


def targets(found: list[dict]) -> list[tuple[str, float, str, float | None]]:
    """(target, its bound, "at most" or "at least", what was measured or None)."""
    by_job = steps(found)

    def of(job, *peers):
        return ratio(by_job.get(job, {}), *peers)

    out: list[tuple[str, float, str, float | None]] = []
    for job in SMALL:
        out.append(
            (f"{job} / PyTorch eager, the faster format", 0.25, "at most", of(job, "eager", "channels_last"))
        )
    for job in SMALL:
        out.append((f"{job} / PyTorch CUDA graph", 1.0, "at most", of(job, "graph")))
    for precision, bound in (("tf32", 1.0), ("bfloat16", 1.5)):
        for batch in (64, 512):
            job = f"cifar-vgg/{batch}/{precision}"
            out.append((f"{job} / PyTorch channels_last eager", bound, "at most", of(job, "channels_last")))
    out.append(("convolutions of cifar-vgg/512/tf32, forward + backward / matmul rate", 0.4, "at least",
                conv_share(by_job)))  # fmt: skip
    trained = reached(found)
    if trained is None:
        out.append(("resnet9's accuracy on CIFAR-10's test images", reach.TARGET, "at least", None))
    else:
        what = f"resnet9's accuracy on CIFAR-10's test images, after {trained['seconds']:.1f} s"
        out.append((what, trained["target"], "at least", trained["accuracy"]))
    hosts = [by_job[j]["xpnet"].get("host_us") for j in by_job if "xpnet" in by_job[j]]
    hosts = [h for h in hosts if h is not None]
    out.append(("host time per graph step, the longest, us", 30.0, "at most", max(hosts) if hosts else None))
    return out


def conv_share(by_job) -> float | None:
    """Our convolutions' rate by the card's matmul rate, the better of PyTorch's and ours."""
    row = by_job.get("layers/512/tf32", {}).get("xpnet", {})
    rates = [r["tflops"] for r in by_job.get("matmul/8192/tf32", {}).values() if "tflops" in r]
    return convolutions(row)[1] / max(rates) if rates and "layers" in row else None


def reached(found: list[dict]) -> dict | None:
    """The last training of resnet9 to an accuracy that was no error."""
    return next((r for r in reversed(found) if r.get("kind") == "reach" and "error" not in r), None)


def reached_table(found: list[dict]) -> str:
    """Every such training."""
    names = ["target", "accuracy", "epochs", "seconds", "device", "precision", "error"]
    return rows.table(names, [[row.get(n) for n in names] for row in found if row.get("kind") == "reach"])


def targets_table(found: list[dict]) -> str:
    lines = []
    for name, bound, sense, value in targets(found):
        met = None if value is None else value <= bound if sense == "at most" else value >= bound
        lines.append(
            [name, f"{sense} {bound:g}", value, {True: "met", False: "missed", None: "not measured"}[met]]
        )
    return rows.table(["target", "", "measured", ""], lines)


def steps_table(found: list[dict]) -> str:
    names = ["xpnet", "eager", "channels_last", "graph", "compile"]
    lines = []
    for job, sides in steps(found).items():
        if job.startswith(("matmul", "layers")):
            continue
        ours = sides.get("xpnet", {})
        times = [_time(sides.get(name)) for name in names]
        host = [sides.get(name, {}).get("host_us") for name in ("xpnet", "graph")]
        lines.append([job, *times, ratio(sides, "eager", "channels_last"), ratio(sides, "graph"),
                      ratio(sides, "compile"), *host, ours.get("meaning")])  # fmt: skip
    header = [
        "step",
        *(f"{n}, ms" for n in names),
        "/ eager",
        "/ graph",
        "/ compile",
        "host us",
        "graph's",
        "precision",
    ]
    return rows.table(header, lines)


def _time(row: dict | None) -> str | None:
    if row is None:
        return None
    if "error" in row:
        return row["error"][:60].replace("|", "/").replace("\n", " ")
    low, high = row["quartiles_ms"]
    return f"{row['ms']:.4g} ({low:.3g} to {high:.3g})"


def rates_table(found: list[dict]) -> str:
    by_job, lines = steps(found), []
    for job, sides in by_job.items():
        for side in ("xpnet", "eager"):
            row = sides.get(side, {})
            if "tflops" in row:
                lines.append([job, side, row["ms"], row["tflops"]])
            elif "layers" in row:
                lines.append([f"{job}, the convolutions, forward + backward", side, *convolutions(row)])
    return rows.table(["", "", "ms", "TFLOP/s"], lines)


def layers_tables(found: list[dict]) -> str:
    """Where the time of cifar-vgg goes, layer by layer, each timed alone."""
    out = []
    for job, sides in steps(found).items():
        if "layers" not in sides.get("xpnet", {}):
            continue
        peers = {one["layer"]: one for one in sides.get("eager", {}).get("layers", [])}
        lines = []
        for one in sides["xpnet"]["layers"]:
            peer = peers.get(one["layer"], {})
            rate = one["both_gflop"] / one["both_ms"] if "Conv2D" in one["layer"] else None
            forward = [one["forward_ms"], peer.get("forward_ms")]
            lines.append([one["layer"], *forward, one["both_ms"], peer.get("both_ms"), rate])
        header = ["layer", "forward, ms", "PyTorch", "forward + backward, ms", "PyTorch", "TFLOP/s"]
        out += [f"### {job}", rows.table(header, lines)]
    return "\n\n".join(out)


def report(found: list[dict]) -> str:
    """The whole report, as Markdown; parts without rows are left out."""
    machine = next((row for row in reversed(found) if row.get("kind") == "machine"), {})
    facts = ", ".join(f"{key} {value}" for key, value in machine.items() if key != "kind")
    kinds = {row.get("kind") for row in found}
    parts = ["# A run on a GPU", facts, "## Targets", targets_table(found)]
    if "compare" in kinds:
        parts += [
            "## Steps",
            "Medians, quartiles in brackets; the names are workload/batch/precision.",
            steps_table(found),
        ]
        parts += ["## Rates", rates_table(found), "## Layers of cifar-vgg", layers_tables(found)]
    if "reach" in kinds:
        parts += ["## resnet9 on CIFAR-10's images", reached_table(found)]
    if "devices" in kinds:
        parts += ["## GPU against CPU", devices.workloads_table(found)]
    if "bench" in kinds:
        named = {row["name"]: row for row in found if row["kind"] == "bench"}
        parts += ["## Benchmarks", devices.benchmarks_table(list(named.values()))]
    if "parity" in kinds:
        parts += ["## Parity", parity.markdown([row for row in found if row["kind"] == "parity"])]
    stages = [
        [r["name"], r["seconds"], r["status"], r.get("last")] for r in found if r.get("kind") == "stage"
    ]
    parts += ["## Stages", rows.table(["stage", "seconds", "exit", "last line"], stages)]
    return "\n\n".join(part for part in parts if part) + "\n"


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    found = rows.read(args.folder / "rows.jsonl")
    by_kind: dict[str, list[dict]] = {}
    for row in found:
        by_kind.setdefault(row["kind"], []).append({k: v for k, v in row.items() if k != "kind"})
    met = [{"target": n, "bound": b, "sense": s, "measured": v} for n, b, s, v in targets(found)]
    (args.folder / "results.json").write_text(json.dumps({"targets": met, **by_kind}, indent=1) + "\n")
    (args.folder / "report.md").write_text(report(found))
    print(targets_table(found))


if __name__ == "__main__":
    main()
