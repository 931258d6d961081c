"""Results as lines of JSON, one a job, written as soon as there is one; and jobs in a process apart, so that
one that fails or hangs costs only itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPORTED = 3  # exit status of a process whose last job failed and is written down


def append(path, *rows: dict) -> None:
    with open(path, "a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def read(path) -> list[dict]:
    """The rows of a file; what a killed process left of a line is passed over."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def arguments(about: str, jobs: Iterable[str]) -> argparse.ArgumentParser:
    """What every script that runs jobs is told by."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=list(jobs), metavar="JOB", help="default: all")
    parser.add_argument("--rows", type=Path, help="append the results there, a line of JSON a job")
    parser.add_argument("--limit", type=float, default=60, help="seconds for a job (default 60)")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)  # this is the process apart
    return parser


def run(
    module: str, args: argparse.Namespace, work: Callable[[str], dict], mark: dict, more=()
) -> list[dict]:
    """Do args.jobs by work(job), in a process of their own; their rows, each with mark and the job's name.

    more: further arguments for that process.  A GPU's error stays with its process, so the next job gets a
    new one.
    """
    os.environ["XPNET_REQUIRE_CUDA"] = "1"  # a fallback to the CPU must never pass for the GPU
    if args.apart:
        for job in args.jobs:
            try:
                row = work(job)
            except Exception as error:  # whatever it is, it is this job's result
                append(args.rows, {**mark, "job": job, "error": f"{type(error).__name__}: {error}"[:500]})
                sys.stderr.write(f"{job}: {error!r}\n")
                os._exit(REPORTED)  # without tidying up on a device that may not answer
            append(args.rows, {**mark, "job": job, **row})
            if "stopped" in row:  # by an error in the middle: what was measured before it counts
                os._exit(REPORTED)
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        path = args.rows or Path(folder) / "rows.jsonl"
        before = len(read(path))
        _supervise(module, args, path, before, mark, more)
        return [row for row in read(path)[before:] if row.items() >= mark.items()]


def _supervise(module, args, path, before, mark, more) -> None:
    def left():
        done = {row.get("job") for row in read(path)[before:] if row.items() >= mark.items()}
        return [job for job in args.jobs if job not in done]

    todo = left()
    while todo:
        command = [sys.executable, "-m", module, "--apart", "--rows", str(path), *more, "--", *todo]
        child = subprocess.Popen(command)
        since = time.monotonic()
        while child.poll() is None:
            time.sleep(0.1)
            if len(now := left()) < len(todo):
                todo, since = now, time.monotonic()
            elif time.monotonic() - since > args.limit:
                child.kill()
        todo = left()
        if todo and child.returncode != REPORTED:
            append(
                path,
                {**mark, "job": todo[0], "error": f"ended by {child.returncode} (limit {args.limit:.0f} s)"},
            )
            todo = todo[1:]


def machine() -> dict:
    """What the figures were measured on."""
    names = ("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton")
    facts = {"kind": "machine", "date": time.strftime("%Y-%m-%d"), "python": platform.python_version()}
    facts |= {"cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}
    for name in names:
        with suppress(PackageNotFoundError):
            facts[name] = version(name)
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm"
    try:
        asked = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
        facts["gpu"] = asked.stdout.strip() if asked.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        facts["gpu"] = None
    return facts


def table(header: list[str], rows: Iterable[Iterable]) -> str:
    """A Markdown table; floats in three figures, None as a dash."""
    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value).replace("|", "/").replace("\n", " ")
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
