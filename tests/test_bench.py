"""The benchmark scripts run on the CPU, and their reports say what the figures say."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import devices, gpu_compare, gpu_facts, gpu_report, parity, rows, steps, workloads
from xpnet.data.arrays import Arrays

# -- jobs in a process apart ---------------------------------------------------------------------------------

JOBS = """
import argparse, os, sys, time
sys.path.insert(0, {repo!r})
from bench import rows

def work(job):
    if job == "fails":
        raise ValueError("no")
    if job == "dies":
        os._exit(7)
    if job == "hangs":
        time.sleep(60)
    row = {{"value": job + "!", "process": os.getpid()}}
    return row | {{"stopped": "half way"}} if job == "stops" else row

args = rows.arguments("about", ["a"]).parse_args()
args.limit = 3.0
rows.run("jobs", args, work, {{"kind": "test"}})
"""


def test_a_job_that_fails_dies_or_hangs_costs_only_itself(tmp_path, monkeypatch):
    (tmp_path / "jobs.py").write_text(JOBS.format(repo=sys.path[0]))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "rows.jsonl"
    rows.append(path, {"kind": "test", "job": "a", "value": "of an earlier run"})
    names = ["a", "fails", "b", "dies", "c", "hangs", "stops", "d", "e"]
    args = argparse.Namespace(jobs=names, rows=path, limit=3.0, apart=False)
    found = {row["job"]: row for row in rows.run("jobs", args, None, {"kind": "test"})}
    assert list(found) == names
    assert [found[n].get("value") for n in "abcde"] == ["a!", "b!", "c!", "d!", "e!"]
    assert found["fails"]["error"] == "ValueError: no"
    assert "ended by 7" in found["dies"]["error"] and "limit" in found["hangs"]["error"]
    # a GPU's error stays with its process: after each, another one; otherwise none is started
    assert len({found[n]["process"] for n in "abcd"}) == 4
    assert found["d"]["process"] == found["e"]["process"] != found["stops"]["process"]


def test_half_a_line_of_a_killed_process_is_passed_over(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    assert rows.read(path) == [{"a": 1}] and rows.read(tmp_path / "none") == []


# -- steps ---------------------------------------------------------------------------------------------------


def test_the_timed_step_is_that_of_fit():
    """Also beyond the end of its epoch."""
    timed, fitted = workloads.model("digits-cnn", "cpu"), workloads.model("digits-cnn", "cpu")
    x, y = workloads.batch("digits-cnn", 32)
    order = timed.shuffled(32)
    run = steps.trainer(timed, Arrays(x, y), 8, batches=4)
    for _ in range(6):
        run()
    fitted.fit(x[order], y[order], batch_size=8, verbose=0, shuffle=False)
    fitted.fit(x[order][:16], y[order][:16], batch_size=8, verbose=0, shuffle=False)
    for name, value in fitted.state_dict().items():
        np.testing.assert_array_equal(timed.state_dict()[name], value, err_msg=name)


def test_measure_waits_once_a_round_and_counts_calls(monkeypatch):
    clock, log = [0.0], []

    def run():
        clock[0] += 0.002
        log.append("run")

    def wait():
        clock[0] += 0.004
        log.append("wait")

    monkeypatch.setattr(steps.time, "perf_counter", lambda: clock[0])
    figures = steps.measure(run, wait, seconds=0.5, rounds=5, host=True)
    assert figures["host_us"] == pytest.approx(2000)
    repeat = log[log.index("wait", 40) + 1 :].index("wait")
    assert figures["ms"] == pytest.approx(2 + 4 / repeat, rel=0.2)


def test_gpu_compare_measures_both_libraries_on_the_cpu():
    for side in ("xpnet", "eager"):
        if side == "eager":
            pytest.importorskip("torch", reason="PyTorch is not installed")
        row = gpu_compare.work(side, "cpu", 0.01, "digits-cnn/4/float32")
        assert row["ms"] > 0 and row["host_us"] is None
        assert gpu_compare.work(side, "cpu", 0.01, "matmul/32/float32")["tflops"] > 0
        layers = gpu_compare.work(side, "cpu", 0.01, "layers/2/float32")["layers"]
        convs = [one for one in layers if "Conv2D" in one["layer"]]
        assert len(convs) == 6 and len(layers) == (11 if side == "xpnet" else 6)
        # by hand: 2 samples, 32 x 32 positions, 64 filters of 3 x 3 x 64
        assert convs[1]["forward_gflop"] == pytest.approx(2 * 2 * 32 * 32 * 64 * 9 * 64 / 1e9)
        assert convs[1]["both_gflop"] == pytest.approx(3 * convs[1]["forward_gflop"])
        assert convs[0]["both_gflop"] == 2 * convs[0]["forward_gflop"]  # no input gradient


@pytest.mark.torch
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_networks_of_both_libraries_learn_alike(precision):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from bench import torch_steps

    model = workloads.model("lenet", "cpu")
    x, y = workloads.batch("lenet", 8)
    before = model.predict(x)
    run, net = torch_steps.step("lenet", model, x, y, True, "cpu", precision)
    with torch.no_grad(), torch_steps.autocast("cpu", precision):
        p = net(torch.from_numpy(x)).float().numpy()
    np.testing.assert_allclose(p, before, atol=1e-5 if precision == "float32" else 0.05)
    assert (np.abs(p - before).max() < 1e-5) == (precision == "float32")
    run()
    assert all(p.dtype == torch.float32 for p in net.parameters())


# -- parity --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["layers/Dense", "layers/MaxPooling2D", "workload/digits-cnn"])
def test_parity_of_the_cpu_is_within_float32_and_not_zero(job):
    (errors,) = parity.work(["cpu"], 3, job)["errors"].values()
    assert 0 < max(errors["gradient"]) < 1e-5 and max(errors["forward"]) < 1e-5


def test_parity_sees_a_device_that_computes_wrongly(monkeypatch):
    from xpnet.ops.numpy_ops import NumpyOps

    right = NumpyOps.max_pool_backward

    def wrong(self, dy, x, y, window):
        return 1.01 * right(self, dy, x, y, window)

    monkeypatch.setattr(NumpyOps, "max_pool_backward", wrong)
    (errors,) = parity.work(["cpu"], 3, "layers/MaxPooling2D")["errors"].values()
    assert max(errors["forward"]) < 1e-6 and min(errors["gradient"]) > 5e-3


def test_every_type_of_layer_has_settings_for_parity():
    cases = parity.tests_table().CASES
    assert {type(case.make()).__name__ for case in cases} == set(parity.layer_types())


def test_errors_are_relative_the_worst_and_never_silent():
    assert parity.errors([([1.0, 2.0], [1.0, 4.0]), ([0.0], [0.0])]) == [0.5, pytest.approx(2 / 17**0.5)]
    assert parity.errors([([0.1], [1e-17]), ([1.0], [1.0])]) == pytest.approx(
        [0.1, 0.1]
    )  # zero but for rounding
    assert parity.errors([([np.nan], [1.0])]) == [np.inf, np.inf] == parity.errors([([1.0], [1.0, 1.0])])


def test_loss_curves_start_from_the_same_weights_and_learn():
    losses = parity.work(["cpu"], 40, "curve/mnist-mlp")["losses"]
    single, double = losses["cpu float32"], losses["cpu float64"]
    assert single == pytest.approx(double, rel=1e-3) and single != double and single[-1] < 0.5 * single[0]


def test_a_precision_that_fails_costs_neither_the_others_nor_the_report(monkeypatch):
    monkeypatch.setitem(parity.PRECISIONS, "cpu", ["float32", "float8"])
    found = []
    for job in ("layers/Flatten", "workload/digits-cnn", "curve/digits-cnn"):
        row = {"job": job, **parity.work(["cpu"], 2, job)}
        assert "float8" in row["stopped"]
        found.append(row)
    lines = parity.markdown(found).splitlines()
    assert sum("cpu float32 |" in line and "rror" not in line for line in lines) == 3
    assert sum("cpu float8 | ValueError" in line for line in lines) == 3


def test_hashes_tell_devices_apart_that_differ_and_masks_move_with_the_step(monkeypatch):
    found = parity.same(["cpu"])["sha256"]
    assert len({digest for one in found.values() for digest in one.values()}) == len(found) == 10
    text = parity.markdown(
        [{"job": "same", "sha256": {"a": {"cpu": "1", "cuda": "1"}, "b": {"cpu": "1", "cuda": "2"}}}]
    )
    assert "| a | 1 | 1 | yes |" in text and "| b | 1 | 2 | NO |" in text


# -- reports -------------------------------------------------------------------------------------------------


def device_row(device, times, name="lenet"):
    sizes = [{"batch": b, "ms": ms, "quartiles_ms": [ms, ms], "transfer_ms": 0.01} for b, ms in times.items()]
    return {
        "kind": "devices",
        "job": f"{name}/{device}",
        "workload": name,
        "device": device,
        "setup_s": 0.5,
        "sizes": sizes,
    }


@pytest.mark.parametrize(
    "gpu, said",
    [
        ({1: 2.0, 4: 2.0, 16: 2.0}, "between 1 and 4"),
        ({1: 0.5, 4: 0.5}, "none: the GPU wins from 1 on"),
        ({1: 9.0, 4: 9.0, 16: 99.0}, "above 16"),
        ({1: 0.5, 4: 9.0, 16: 1.0}, "between 4 and 16"),
    ],
)
def test_the_crossing_is_where_the_gpu_wins_from_then_on(gpu, said):
    cpu = device_row("cpu", {1: 1.0, 4: 4.0, 16: 16.0})
    assert devices.crossing(cpu, device_row("cuda", gpu)) == said


def test_the_devices_report_measures_draws_and_needs_both_devices(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    cpu = devices.work([1, 4], 0.01, "digits-cnn/cpu")
    assert [s["batch"] for s in cpu["sizes"]] == [1, 4] and cpu["setup_s"] > 0
    path = tmp_path / "rows.jsonl"
    rows.append(
        path,
        {"kind": "devices", "job": "digits-cnn/cpu", **cpu},
        device_row("cuda", {1: 1.0, 4: 1.0}, "digits-cnn"),
    )
    rows.append(
        path, device_row("cuda", {1: 1.0}), {"kind": "devices", "job": "lenet/cpu", "error": "killed"}
    )
    assert list(devices.pairs(rows.read(path))) == ["digits-cnn"]
    devices.main(["--from", str(path), "--plot", str(tmp_path / "d.png")])
    assert (tmp_path / "d.png").read_bytes()[:4] == b"\x89PNG"


def test_benchmarks_of_both_devices_meet_in_one_line(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    made = [
        {"name": f"test_layer[{d}-forward-Conv2D]", "params": {"ops": d}, "stats": {"median": m}}
        for d, m in (("cpu", 0.004), ("cuda", 0.001))
    ] + [{"name": "test_pack_images[cpu]", "params": {"ops": "cpu"}, "stats": {"median": 0.002}}]
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"benchmarks": made}))
    devices.main(
        ["--from", str(path), "--plot", str(tmp_path / "b.png"), "--rows", str(tmp_path / "r.jsonl")]
    )
    printed = capsys.readouterr().out
    assert "| layer forward-Conv2D | 4 | 1 | 4 |" in printed and "| pack images | 2 | - | - |" in printed
    assert rows.read(tmp_path / "r.jsonl")[0] == {
        "kind": "bench",
        "name": "layer forward-Conv2D",
        "cpu": 4.0,
        "cuda": 1.0,
    }


def compared(side, job, ms, **more):
    return {
        "kind": "compare",
        "side": side,
        "job": job,
        "ms": ms,
        "quartiles_ms": [ms, ms],
        "host_us": None,
        **more,
    }


def test_targets_are_met_missed_or_not_measured(tmp_path, capsys):
    layer = {
        "layer": "0 Conv2D (64, 32, 32)",
        "forward_ms": 1.0,
        "both_ms": 2.0,
        "forward_gflop": 100.0,
        "both_gflop": 300.0,
    }
    pool = {**layer, "layer": "2 MaxPooling2D (64, 16, 16)", "both_ms": 50.0, "both_gflop": 0.0}
    rows.append(
        tmp_path / "rows.jsonl",
        compared("xpnet", "lenet/128/auto", 1.0, host_us=31.0),
        {"kind": "compare", "side": "eager", "job": "lenet/128/auto", "error": "a first try"},
        compared("eager", "lenet/128/auto", 8.0),
        compared("channels_last", "lenet/128/auto", 5.0),
        {"kind": "compare", "side": "channels_last", "job": "lenet/128/auto", "error": "a second try"},
        compared("graph", "lenet/128/auto", 0.8),
        compared("xpnet", "cifar-vgg/512/bfloat16", 1.4, host_us=9.0),
        compared("channels_last", "cifar-vgg/512/bfloat16", 1.0),
        {"kind": "compare", "side": "compile", "job": "lenet/128/auto", "error": "ended by -9 (limit 75 s)"},
        {"kind": "compare", "side": "xpnet", "job": "layers/512/tf32", "layers": [layer, pool]},
        compared("xpnet", "matmul/8192/tf32", 1.0, tflops=200.0),
        compared("eager", "matmul/8192/tf32", 1.0, tflops=300.0),
        {"kind": "stage", "name": "tests", "seconds": 3, "status": 0, "last": "7 passed"},
    )
    gpu_report.main([str(tmp_path)])
    table = {line.split(" | ")[0][2:]: line.split(" | ")[2:] for line in capsys.readouterr().out.splitlines()}
    assert table["lenet/128/auto / PyTorch eager, the faster format"] == ["0.2", "met |"]
    assert table["lenet/128/auto / PyTorch CUDA graph"] == ["1.25", "missed |"]
    assert table["cifar-vgg/512/bfloat16 / PyTorch channels_last eager"] == ["1.4", "met |"]
    assert table["cifar-vgg/64/tf32 / PyTorch channels_last eager"] == ["-", "not measured |"]
    assert table["convolutions of cifar-vgg/512/tf32, forward + backward / matmul rate"] == ["0.5", "met |"]
    assert table["host time per graph step, the longest, us"] == ["31", "missed |"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["targets"]) == 14 and len(results["compare"]) == 12
    report = (tmp_path / "report.md").read_text()
    assert "limit 75 s" in report and "7 passed" in report and "Parity" not in report


def test_facts_come_from_the_probe_s_last_json_line():
    probe = {
        "device": "a card", "cupy": "14.2.0", "host us of an eager cupy.add": 3.21, "copy TB/s": 4.2,
        "tf32 matmul TFLOP/s": 400.0, "tf32 graph replay equals eager": True,
        "tf32 host us of a graph launch": 2.5, "bfloat16 graph replay equals eager": "RuntimeError('a | b')",
        "tf32 64 64 64 34": {"forward ms": 0.05, "best rows": "8", "weight grad ms": 0.08,
                             "forward TFLOP/s": 100.0, "forward / torch": 0.9, "weight grad / torch": 1.5},
    }  # fmt: skip
    text = gpu_facts.page(
        gpu_facts.result(f"a table\n{{'no': json}}\n{json.dumps(probe)}\nlater words\n"), "2026-11-21"
    )
    assert "a card, CuPy 14.2.0; 2026-11-21" in text
    assert "| tf32 | 64, 64, 64, 34 | 0.05 | 8 | 100 | 25% | 0.9 | 0.08 | 1.5 |" in text
    assert "| tf32 | yes | 2.5 |" in text and "RuntimeError('a / b')" in text
    with pytest.raises(ValueError, match="no line of JSON"):
        gpu_facts.result("Traceback\n")
