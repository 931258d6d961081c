"""`xpnet bench`: which workloads and devices are timed, what is told and written, and how errors end."""

import json
import sys
from pathlib import Path

import conftest
import pytest

from xpnet import cli
from xpnet.commands import bench
from xpnet.ops.threads import chosen_threads, num_threads, set_num_threads


@pytest.fixture
def xp(capsys, tmp_path, monkeypatch):
    """Run `xpnet bench` in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        capsys.readouterr()
        code = cli.main(["bench", *map(str, argv)])
        return code, *capsys.readouterr()

    return run


def test_a_line_for_each_workload_asked_for_and_the_same_figures_in_the_file(xp, tmp_path):
    code, out, _ = xp(
        "lenet", "digits-cnn", "lenet", "--device", "cpu", "--seconds", 0.02, "--json", "t.json"
    )
    assert code == 0
    stored = json.loads((tmp_path / "t.json").read_text())
    assert [row["workload"] for row in stored["steps"]] == ["lenet", "digits-cnn"]
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert stored["devices"] == {"cpu": lines["cpu:"].removeprefix("cpu: ")}
    for row in stored["steps"]:
        low, high = row["quartiles_ms"]
        assert 0 < low <= row["ms"] <= high
        assert row["batch"] == bench.WORKLOADS[row["workload"]].batch
        words = lines[row["workload"]].split()
        assert words[1] == str(row["batch"]) and words[2] == f"{row['ms']:.3g}"
        assert words[-1] == f"{row['batch'] / row['ms'] * 1e3:,.0f}"


def test_the_batch_and_the_threads_are_those_asked_for_and_the_threads_are_given_back(
    xp, tmp_path, monkeypatch
):
    seen = []
    time_one = bench.time_one
    monkeypatch.setattr(bench, "time_one", lambda *a: seen.append((num_threads(), a)) or time_one(*a))
    set_num_threads(None)
    code, out, _ = xp("lenet", "--device", "cpu", "--threads", 1, "--batch-size", 5, "--seconds", 0.01)
    assert code == 0 and seen == [(1, ("lenet", "cpu", 5, 0.01))] and "cpu: 1 thread," in out
    assert chosen_threads() is None


def test_two_devices_stand_side_by_side_with_their_ratio():
    rows = [{"workload": "lenet", "device": d, "batch": 8, "ms": ms, "quartiles_ms": [ms, ms]}
            for d, ms in (("cpu", 4.0), ("cuda", 1.0))]  # fmt: skip
    heading, line = bench.heading(["cpu", "cuda"]), bench.line(rows)
    assert heading.split()[-3:] == ["cuda", "/", "cpu"] and line.split()[-1] == "0.25"
    assert len(heading) == len(line)
    failed = bench.line([rows[0], {"workload": "lenet", "device": "cuda", "batch": 8, "error": "no memory"}])
    assert "no memory" in failed and len(failed) == len(heading)


def test_a_gpu_is_timed_like_the_cpu():
    row = bench.time_one("digits-cnn", conftest.cuda_ops("host"), 4, 0.01)
    assert row["ms"] > 0


def test_a_workload_that_does_not_fit_is_told_and_the_others_go_on(xp, monkeypatch):
    from xpnet import networks

    def too_large(*shape):
        raise MemoryError("9 TB are not there")

    monkeypatch.setattr(networks, "vgg", too_large)
    code, out, _ = xp("cifar-vgg", "digits-cnn", "--device", "cpu", "--seconds", 0.01)
    assert code == 1 and "MemoryError: 9 TB are not there" in out and "\ndigits-cnn" in out


def test_without_a_gpu_the_cpu_is_timed_alone_and_a_gpu_asked_for_is_an_error(xp, monkeypatch):
    from xpnet import device

    def none_here(*_):
        raise device.NoDevice("nothing in the slot")

    monkeypatch.setattr(device, "_cuda", none_here)
    monkeypatch.setattr(device, "_first_cuda", none_here)
    code, out, err = xp("digits-cnn", "--seconds", 0.01)
    assert code == 0 and "the CPU alone: no GPU: nothing in the slot" in err and "samples/s" in out
    code, _, err = xp("digits-cnn", "--device", "cuda")
    assert code == 2 and "cuda cannot be timed: no GPU: nothing in the slot" in err


def test_mistakes_in_the_command_line_are_named(xp, tmp_path):
    (tmp_path / "there.json").write_text("kept")
    for argv, words in (
        (["lenett"], "Did you mean 'lenet'"),
        (["--seconds", "0"], "seconds must be above 0 and at most 3600. Received: '0'"),
        (["--seconds", "soon"], "Received: 'soon'"),
        (["--batch-size", "0"], "batch-size must be a whole number of at least 1"),
        (["--device", "gpu"], "unknown device"),
        (["--json", "there.json"], "exists already"),
    ):
        code, _, err = xp(*argv)
        assert code == 2 and words in err, argv
    assert (tmp_path / "there.json").read_text() == "kept"


def test_the_workloads_are_those_that_the_benchmarks_compare_with_pytorch():
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from bench.workloads import WORKLOADS

    assert list(WORKLOADS) == list(bench.WORKLOADS)
    for name, work in bench.WORKLOADS.items():
        other = WORKLOADS[name]
        assert (work.shape, work.batch, work.optimizer) == (other.input_shape, other.batch, other.optimizer)
