"""The benchmark scripts run on the CPU, and their reports say what the figures say."""

import argparse
import json
import mmap
import os
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import (
    compare,
    devices,
    follow,
    gpu_compare,
    gpu_facts,
    gpu_report,
    memory,
    parity,
    peers,
    plain,
    reach,
    rows,
    sections,
    targets,
    turns,
    workloads,
)
from xpnet.data.arrays import Arrays
from xpnet.training import timing


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """What the programs set for their processes goes with the test."""
    monkeypatch.setenv("XPNET_REQUIRE_CUDA", "0")


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
    run = timing.trainer(timed, Arrays(x, y), 8, batches=4)
    for _ in range(6):
        run()
    fitted.fit(x[order], y[order], batch_size=8, verbose=0, shuffle=False)
    fitted.fit(x[order][:16], y[order][:16], batch_size=8, verbose=0, shuffle=False)
    for name, value in fitted.state_dict().items():
        np.testing.assert_array_equal(timed.state_dict()[name], value, err_msg=name)


def test_a_timed_step_holds_its_model():
    x, y = workloads.batch("digits-cnn", 8)
    run = timing.trainer(workloads.model("digits-cnn", "cpu"), Arrays(x, y), 8)
    run(), run()


def test_measure_waits_once_a_round_and_counts_calls(monkeypatch):
    clock, log = [0.0], []

    def run():
        clock[0] += 0.002
        log.append("run")

    def wait():
        clock[0] += 0.004
        log.append("wait")

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    figures = timing.measure(run, wait, seconds=0.5, rounds=5, host=True)
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
    assert len({digest for one in found.values() for digest in one.values()}) == len(found) == 11
    text = parity.markdown(
        [{"job": "same", "sha256": {"a": {"cpu": "1", "cuda": "1"}, "b": {"cpu": "1", "cuda": "2"}}}]
    )
    assert "| a | 1 | 1 | yes |" in text and "| b | 1 | 2 | NO |" in text


# -- following PyTorch ---------------------------------------------------------------------------------------


def small_resnet9(**settings):
    """The workload in small."""
    from xpnet import networks

    work = workloads.WORKLOADS["resnet9"]
    settings = {**work.settings, **settings}
    return work._replace(layers=lambda: networks.resnet9((3, 32, 32), 10, width=8), settings=settings)


def pictures(count):
    """Smooth random pictures (N, 3, 32, 32), lighter the higher their label."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, count)
    x = rng.standard_normal((count, 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3) + y[:, None, None, None] / 5
    return x.astype(np.float32), y


@pytest.mark.torch
def test_resnet9_follows_pytorch_s_first_steps():
    """In float64 to the last digits; in float32 as far as roundings allow."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    taken = follow.batches(*pictures(128), steps=8, size=32)
    losses = {side: list(run()) for side, run in follow.sides(small_resnet9(), taken).items()}
    found = follow.gaps(losses)
    assert found["xpnet, float64"]["largest"] < 1e-12
    assert found["xpnet"]["agree_for"] >= 1 and found["xpnet"]["largest"] < 0.01
    assert len(set(losses["xpnet"])) == 8 and losses["xpnet"] != losses["PyTorch"]


@pytest.mark.torch
@pytest.mark.parametrize("wrong", [{"momentum": 0.89}, {"nesterov": False}, {"learning_rate": 0.0501}])
def test_another_rule_does_not_follow(wrong):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    taken = follow.batches(*pictures(64), steps=4, size=32)
    right = list(follow.of_torch(small_resnet9(), taken, "float64"))
    other = list(follow.of_xpnet(small_resnet9(**wrong), taken, "float64"))
    assert follow.gaps({follow.REFERENCE: right, "xpnet, float64": other})["xpnet, float64"]["largest"] > 1e-6


def test_gaps_are_relative_and_xpnet_s_are_held_against_pytorch_s():
    losses = {
        follow.REFERENCE: [2.0] * 20,
        "xpnet, float64": [2.0] * 20,
        "PyTorch": [2.0] * 5 + [2.0002] * 14 + [2.1],
        "xpnet": [2.0] * 5 + [2.00038] * 14 + [2.19],
    }
    found = follow.gaps(losses)
    assert found["PyTorch"]["largest"] == pytest.approx(0.05) and found["xpnet"]["agree_for"] == 5
    assert found["xpnet"]["median"] == pytest.approx(1.9e-4) == found["xpnet"]["largest_of_first"]
    assert follow.follows(found) and "| xpnet | 2 |" in follow.table(found)
    for side, values in (
        ("xpnet", [2.0] * 19 + [2.21]),  # the largest gap
        ("xpnet", [2.0] * 5 + [2.00042] * 15),  # the median
        ("xpnet", [2.0] * 19 + [np.nan]),
        ("xpnet, float64", [2.0] * 19 + [2.0 + 3e-9]),
    ):
        assert not follow.follows(follow.gaps(losses | {side: values}))


@pytest.mark.torch
def test_the_curves_are_printed_drawn_and_saved(tmp_path, capsys, monkeypatch, tiny):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    monkeypatch.setitem(workloads.WORKLOADS, "resnet9", small_resnet9())
    monkeypatch.setattr(follow, "photographs", pictures)
    files = ["--json", str(tmp_path / "f.json"), "--plot", str(tmp_path / "f.png")]
    follow.main(["--steps", "3", "--batch", "16", "--threads", "1", *files])
    printed, saved = capsys.readouterr().out, json.loads((tmp_path / "f.json").read_text())
    assert list(saved["losses"]) == list(saved["seconds"]) and len(saved["losses"]["xpnet"]) == 3
    assert saved["batch"] == 16 and saved["settings"]["momentum"] == 0.9
    assert ("DOES NOT" not in printed) == saved["follows"] and "| xpnet, float64 |" in printed
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit):
        follow.main(["cifar-vgg", "--width", "8"])
    assert "--width is resnet9's. Received: --width 8 for cifar-vgg" in capsys.readouterr().err


def test_a_run_to_an_accuracy_leaves_a_row(tmp_path, monkeypatch):
    path, asked = tmp_path / "rows.jsonl", []
    monkeypatch.setattr(
        reach, "reach", lambda *given: asked.append(given) or {"accuracy": 0.93, "seconds": 20.0}
    )
    reach.main(["--device", "cpu", "--rows", str(path), "--", "--width", "4"])
    assert asked == [("cpu", 0.92, ["--width", "4"])]

    def fails(*_):
        raise OSError("no pictures")

    monkeypatch.setattr(reach, "reach", fails)
    with pytest.raises(SystemExit):
        reach.main(["--rows", str(path)])
    done, failed = rows.read(path)
    assert done == {"kind": "reach", "job": "resnet9", "target": 0.92, "accuracy": 0.93, "seconds": 20.0}
    assert failed["error"] == "OSError: no pictures"
    (row,) = [one for one in gpu_report.targets(rows.read(path)) if "resnet9" in one[0]]
    assert row == ("resnet9's accuracy on CIFAR-10's test images, after 20.0 s", 0.92, "at least", 0.93)
    report = gpu_report.report(rows.read(path))
    assert "| 0.92 | 0.93 | - | 20 |" in report and "OSError: no pictures" in report


def test_the_run_to_an_accuracy_is_the_example(monkeypatch, capsys):
    x, y = pictures(96)
    x = np.clip(128 + 40 * x, 0, 255).astype(np.uint8)
    from xpnet import datasets

    monkeypatch.setattr(datasets, "load_cifar10", lambda raw: ((x, y), (x, y)))
    more = ["--width", "4", "--epochs", "3", "--batch-size", "32", "--images", "64"]
    figures = reach.reach("cpu", 0.01, more)
    assert figures["reached"] and figures["epochs"] == 1 and figures["device"] == "cpu"
    assert "64 images after 1 epochs" in capsys.readouterr().out
    assert not reach.reach("cpu", 1.01, more)["reached"]


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
    assert len(results["targets"]) == 15 and len(results["compare"]) == 12
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


# -- the comparison on the CPU -------------------------------------------------------------------------------

TINY = {
    "threads": 1,
    "rounds": 1,
    "lasting": 1e-4,
    "longest": 0.02,
    "short": True,
    "seeds": 2,
    "samples": 20,
    "rest": 1e-4,
}


@pytest.fixture
def tiny():
    """Options that make a section take a moment; the threads of all libraries are put back."""
    import threadpoolctl

    import xpnet

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    with threadpoolctl.threadpool_limits(limits=None):
        yield argparse.Namespace(**TINY)
    xpnet.set_num_threads(None)
    if torch:
        torch.set_num_threads(before)


def without_dropout(name, monkeypatch):
    """A model of a workload whose dropout drops nothing, so that libraries can be compared by value."""
    work = workloads.WORKLOADS[name]

    def layers():
        made = work.layers()
        for layer in made:
            if hasattr(layer, "rate"):
                layer.rate = 0.0
        return made

    monkeypatch.setitem(workloads.WORKLOADS, name, work._replace(layers=layers))
    return workloads.model(name)


@pytest.mark.parametrize("name", ["digits-cnn", "mnist-mlp", "lenet", "mnist-cnn"])
def test_the_plain_network_steps_as_xpnet_does(name, monkeypatch):
    model = without_dropout(name, monkeypatch)
    x, y = workloads.batch(name, 6)
    net = plain.Network(model)
    for _ in range(3):
        assert net.step(x, y) == pytest.approx(model.train_on_batch(x, y), rel=1e-5)
    ours = list(model.state_dict().values())
    theirs = [p for layer in net.layers for p in layer.params]
    assert len(ours) == len(theirs)
    for p, q in zip(ours, theirs):  # a rounding may turn the sign of a step where the gradient is 0
        assert q.dtype == np.float32 and np.mean(np.abs(p - q) > 1e-5) < 2e-3


def test_the_plain_dropout_drops_its_share_and_keeps_the_mean():
    layer = plain.Dropout(0.25, np.random.default_rng(0))
    y = layer.forward(np.ones((200, 100), np.float32))
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.02) and y.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(layer.backward(np.ones_like(y), False), y)


def test_scikit_learn_takes_the_same_steps():
    model = workloads.model("mnist-mlp")
    model.optimizer.epsilon = 1e-12  # which it adds to another form of Adam's quotient
    x, y = workloads.batch("mnist-mlp", 50)
    net = peers.sklearn_net(x, y, model)
    assert {w.dtype for w in net.coefs_} == {np.dtype(np.float32)}
    found = []
    for _ in range(4):
        net.partial_fit(x, y)
        found.append(net.loss_)
    assert found == pytest.approx([model.train_on_batch(x, y) for _ in range(4)], rel=1e-3)
    assert not peers.is_mlp(workloads.model("lenet"))


@pytest.mark.torch
@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_pytorch_s_network_without_a_model_is_the_same_network(name):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from bench import torch_steps

    asked = torch_steps.module(workloads.model(name))
    made = torch_steps.fresh(name)
    assert repr(made) == repr(asked) and not any(p.is_meta for p in made.parameters())


@pytest.mark.torch
def test_pytorch_s_resnet9_is_the_network_of_the_paper():
    """By hand, with nothing of what makes the others from layers."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from bench import torch_steps

    model = workloads.model("resnet9")
    net = torch_steps.module(model).eval()
    p, F = dict(net.state_dict()), torch.nn.functional

    def conv(x, number, inside=""):
        x, n = F.conv2d(x, p[f"{inside}{number}.weight"], padding=1), f"{inside}{number + 1}"
        return F.relu(
            F.batch_norm(
                x, *(p[f"{n}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")), eps=1e-5
            )
        )

    def residual(x, number):
        return conv(conv(x, 0, f"{number}.body."), 3, f"{number}.body.") + x

    x, _ = workloads.batch("resnet9", 3)
    y = F.max_pool2d(conv(conv(torch.from_numpy(x), 0), 3), 2)
    y = F.max_pool2d(conv(residual(y, 7), 8), 2)
    y = residual(F.max_pool2d(conv(y, 12), 2), 16).amax(dim=(2, 3)) @ p["18.weight"].T / 8
    with torch.no_grad():
        torch.testing.assert_close(net(torch.from_numpy(x)), y, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(model.predict(x), y.numpy(), atol=1e-5)


@pytest.mark.torch
def test_pytorch_takes_the_same_steps(monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from bench import torch_steps

    model = without_dropout("digits-cnn", monkeypatch)
    x, y = workloads.batch("digits-cnn")
    run, net = torch_steps.step("digits-cnn", model, x, y, True)
    run(), run()
    model.train_on_batch(x, y), model.train_on_batch(x, y)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, torch.from_numpy(model.state_dict()[name]), atol=2e-6, rtol=1e-4)


def test_keras_takes_the_same_steps():
    if install := peers.missing(["keras on jax"]):
        pytest.skip(f"Keras or JAX is not installed: {install['keras on jax']}")
    model = workloads.model("lenet")
    x, y = workloads.batch("lenet", 8)
    net = peers.keras_net(model, 1)
    images = x.transpose(0, 2, 3, 1)
    for _ in range(2):
        np.testing.assert_allclose(net.predict(images, verbose=0), model.predict(x), atol=1e-3)
        net.train_on_batch(images, y), model.train_on_batch(x, y)


def test_sides_take_turns_and_only_their_calls_are_timed(monkeypatch):
    clock, log = [0.0], []

    def side(name, takes):
        def run():
            clock[0] += takes
            log.append(name)

        @contextmanager
        def hold():
            clock[0] += 1.0
            log.append(f"<{name}")
            yield
            clock[0] += 1.0

        return turns.Side(run, hold)

    monkeypatch.setattr(turns.time, "perf_counter", lambda: clock[0])
    times = turns.in_turn({"a": side("a", 1 / 64), "b": side("b", 1 / 8)}, 8, 1 / 16)
    assert list(times["a"]) == [15.625] * 8 and list(times["b"]) == [125.0] * 8
    text = "".join(log)
    held = [text[i + 1] for i, letter in enumerate(text) if letter == "<"]
    rounds = [held[k : k + 2] for k in range(2, len(held), 2)]
    assert len(rounds) == 8 and all(sorted(one) == ["a", "b"] for one in rounds)
    assert len({tuple(one) for one in rounds}) == 2  # not always in one order
    # the last round: 0.1 s to warm up, and as many timed calls as last 1/16 s, one at least
    assert text.startswith("<a" + 9 * "a" + "<b" + 9 * "b")  # to settle, and one to count by
    tail = sorted(text.split("<")[-2:])
    assert tail == ["a" * (1 + 7 + 4), "b" * (1 + 1 + 1)]


def test_what_others_take_of_the_cores_is_told(monkeypatch, tmp_path):
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not cores or not turns.STAT.exists():
        assert turns.Elsewhere().cores() is None
        pytest.skip("no /proc/stat")
    tick = os.sysconf("SC_CLK_TCK")
    clock, own, stat = [0.0], [5.0], tmp_path / "stat"

    def now(seconds, work, busy):
        """Of all our cores together: busy seconds, of which work are our own; and a core that is not ours."""
        clock[0], own[0] = seconds, work
        lines = ["cpu 1 1 1 1 1 1 1 1 0 0", f"cpu{max(cores) + 1} {round(seconds * tick)} 0 0 0 0 0 0 0 0 0"]
        lines += [f"cpu{core} 0 0 0 77 88 0 0 0 0 0" for core in cores[1:]]
        half = round(busy * tick / 2)
        stat.write_text("\n".join([*lines, f"cpu{cores[0]} {half} 0 0 99 99 0 0 {half} 0 0", "intr 5 6"]))

    monkeypatch.setattr(turns, "STAT", stat)
    monkeypatch.setattr(turns.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(turns.os, "times", lambda: os.times_result((own[0], 0.0, 0.0, 0.0, 0.0)))
    now(100, 5, 50)
    others = turns.Elsewhere()
    now(110, 12, 62)
    assert others.cores() == pytest.approx(0.5)
    row = figures("steps/lenet/1", cores_elsewhere=0.5)
    assert "steps/lenet/1 (0.5 cores)" in compare.busy([row, figures("predict/lenet", cores_elsewhere=0.01)])
    quiet = [figures("a/b", cores_elsewhere=None), figures("memory/b", cores_elsewhere=2.0)]
    assert compare.busy([*quiet, figures("c/d", skipped="no")]) == ""


def test_a_slow_side_settles_in_two_calls(monkeypatch):
    clock, calls = [0.0], []

    def run():
        clock[0] += 3.0
        calls.append(clock[0])

    monkeypatch.setattr(turns.time, "perf_counter", lambda: clock[0])
    turns.settle(run)
    assert calls == [3.0, 6.0]


def test_a_ratio_is_of_medians_and_its_spread_of_rounds():
    found = turns.ratio([1.0, 2.0, 30.0], [4.0, 4.0, 30.0])
    assert found == {"ratio": 0.5, "quartiles": [0.375, 0.75]}
    times = {"xpnet": [1.0], "torch a": [3.0], "torch b": [2.0]}
    assert turns.faster(times, "torch") == "torch b" and turns.faster(times, "keras") is None


def test_steps_are_compared_with_every_peer_there_is(tiny):
    row = sections.steps("mnist-mlp", tiny)
    assert set(row["sides"]) <= {"xpnet", "torch channels_first", "scikit-learn"}
    row = sections.steps("mnist-mlp", argparse.Namespace(**{**TINY, "short": False}))
    there = {p for p in peers.PEERS if p not in peers.missing()} - {"torch channels_last"}
    assert set(row["sides"]) == there and set(row["ratios"]) == there - {"xpnet"}
    assert {"scikit-learn", "plain numpy"} <= there
    for side, ratio in row["ratios"].items():
        assert ratio["ratio"] == pytest.approx(row["sides"]["xpnet"]["ms"] / row["sides"][side]["ms"])


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch, tiny):
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name in ("torch", "jax") else object())
    tiny.short = False
    assert set(sections.steps("digits-cnn", tiny)["sides"]) == {"xpnet", "plain numpy"}
    row = {"job": "steps/digits-cnn/1", **sections.work(tiny, "steps/digits-cnn/1")}
    text = compare.report("steps", [row])
    assert "torch channels_last: left out, it is not installed: pip install torch" in text
    assert "keras on jax: left out, it is not installed: pip install keras jax" in text
    for job in ("memory/digits-cnn/torch channels_first", "accuracy/digits", "predict/lenet"):
        assert sections.work(tiny, job) == {"skipped": "PyTorch is not installed: pip install torch"}
    row = {"job": "predict/lenet", **sections.work(tiny, "predict/lenet")}
    assert "predict/lenet: skipped: PyTorch is not installed" in compare.report("predict", [row])
    assert targets.step("digits-cnn")([row]) is None


def test_scaling_needs_two_threads(tiny):
    assert "two threads" in sections.work(tiny, "threads/digits-cnn")["skipped"]


@pytest.mark.torch
def test_the_time_to_an_accuracy_is_that_of_the_same_batches(monkeypatch, tiny):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setitem(sections.ACCURACY, "digits", ("digits-cnn", 0.6, 0.01, 20))
    row = sections.accuracy("digits", tiny)
    assert row["epochs"]["xpnet"] != [20, 20] and len(row["epochs"]["torch"]) == 2
    assert row["ratio"] == pytest.approx(row["seconds"]["xpnet"] / row["seconds"]["torch"])
    assert f"{row['ratio']:.3g}" in compare.accuracy_table([{"job": "accuracy/digits", **row}])
    monkeypatch.setitem(sections.ACCURACY, "digits", ("digits-cnn", 1.01, 0.01, 1))
    with pytest.raises(RuntimeError, match="after 1 epochs the accuracy is 0"):
        sections.accuracy("digits", tiny)


@pytest.mark.torch
@pytest.mark.parametrize("channels_last", [False, True])
def test_both_sides_of_the_accuracy_train_alike(monkeypatch, channels_last):
    """Without dropout they pass the same accuracies on the way, epoch by epoch."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from xpnet import datasets

    (x, y), (xt, yt) = datasets.load_digits()
    data, found = ((x[:200], y[:200]), (xt, yt)), []
    monkeypatch.setattr(sections, "_reached", lambda spent, history, wanted: found.append(history))
    for train in (sections._fit, partial(sections._loop, channels_last)):
        model = without_dropout("digits-cnn", monkeypatch)
        model.optimizer.learning_rate = 0.01
        train("digits-cnn", model, data, 1.0, 3)
    ours, theirs = found
    assert ours == pytest.approx(theirs, abs=0.01) and ours[-1] > 1.5 * ours[0] - 0.5 and len(ours) == 3


@pytest.mark.torch
def test_pytorch_s_loop_drops_units_in_training_only(monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from xpnet import datasets

    (x, y), (xt, yt) = datasets.load_digits()
    seen, forward = [], torch.nn.Dropout.forward
    monkeypatch.setattr(
        torch.nn.Dropout, "forward", lambda self, h: seen.append((self.training, len(h))) or forward(self, h)
    )
    monkeypatch.setattr(sections, "_reached", lambda *_: None)
    data = ((x[:16], y[:16]), (xt[:100], yt[:100]))
    sections._loop(False, "digits-cnn", workloads.model("digits-cnn"), data, 1.01, 2)
    assert seen == 2 * (4 * [(True, 8)] + 2 * [(False, 100)])


@pytest.mark.torch
def test_predictions_are_compared_by_size_and_long_ones_left_out(monkeypatch, tiny):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setattr(sections, "IMAGES", (1, 5, 100_000))
    tiny.short = False
    row = sections.predict("lenet", tiny)
    assert [size["images"] for size in row["sizes"]] == [1, 5] and row["left_out"] == [100_000]
    assert "| lenet | 100000 | left out" in compare.predict_table([{"job": "predict/lenet", **row}])


@pytest.mark.torch
@pytest.mark.parametrize("channels_last", [False, True])
def test_pytorch_predicts_the_same_also_in_blocks(channels_last):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    model = workloads.model("digits-cnn")
    x, _ = workloads.batch("digits-cnn", 7)
    for block in (3, 10):
        ready, call = peers.torch_predictor(model, channels_last, block)
        np.testing.assert_allclose(call(ready(x)), model.predict(x), atol=1e-5)


def test_the_worst_batch_sizes_are_found(monkeypatch, tiny):
    ms = {16: 1.0, 17: 1.6, 24: 1.2, 32: 3.0, 31: 1.5, 64: 4.5}
    found = sections.worst(ms, ((16, 17), (31, 32), (63, 64)))
    assert found["growth"] == pytest.approx(3 / 1.2 * 24 / 32) and found["growth_between"] == [24, 32]
    assert found["cliff"] == pytest.approx(2.0) and found["cliff_between"] == [31, 32]
    assert (
        sections.worst({31: 2.0, 32: 1.0, 64: 1.5}, ((31, 32),))["cliff"] == 2.0
    )  # a larger one may be faster
    found = sections.worst({16: 1.0}, ((16, 17),))
    assert found["growth"] is found["cliff"] is None
    lone = {"job": "batches/cifar-vgg", "per_sample_us": {16: 1.0}, "left_out": [17, 24], **found}
    assert "| cifar-vgg | - | - | - | - | 16: 1 | 17, 24 |" in compare.batches_table([lone])
    monkeypatch.setattr(sections, "GRID", (16, 24, 5000))
    monkeypatch.setattr(sections, "NEIGHBOURS", ((16, 17),))
    monkeypatch.setattr(
        sections, "turns", argparse.Namespace(seconds=lambda run, count: 1.0, in_turn=turns.in_turn)
    )
    row = sections.batches("digits-cnn", argparse.Namespace(**{**TINY, "short": False, "longest": 2.0}))
    assert list(row["ms"]) == [16, 17, 24] and row["left_out"] == [5000]
    assert row["per_sample_us"][24] == pytest.approx(1e3 * row["ms"][24] / 24)
    assert "16: " in compare.batches_table([{"job": "batches/digits-cnn", **row}])


def test_an_epoch_of_fit_is_held_against_as_many_steps(monkeypatch, tiny, capsys):
    calls = []
    x, y = workloads.batch("lenet", 400)
    monkeypatch.setattr(sections, "mnist", lambda: ((x, y), (x, y)))
    made = peers.xpnet_side

    def side(name, x, y, model, count):
        one = made(name, x, y, model, count)
        return turns.Side(lambda: calls.append(len(x)) or one.run(), one.hold)

    def fit(model, x, y, batch_size, verbose):
        fitted.append((len(x), batch_size, verbose, [label for label, _ in model.metrics]))
        return really(model, x, y, batch_size=batch_size, verbose=verbose)

    fitted, really = [], workloads.Sequential.fit
    monkeypatch.setattr(workloads.Sequential, "fit", fit)
    monkeypatch.setattr(peers, "xpnet_side", side)
    row = sections.epoch("lenet", argparse.Namespace(**{**TINY, "samples": 300}))
    assert row["samples"] == 300 and fitted == 4 * [(300, 128, 1, ["accuracy"])]
    assert calls[:16] == 8 * [128] + 8 * [44] and calls[16:] == 3 * [128, 128, 44]
    assert row["ratio"] == pytest.approx(row["sides"]["fit"]["ms"] / row["sides"]["steps"]["ms"])
    out = capsys.readouterr()
    assert out.out == out.err == ""  # the bar is drawn, but nowhere


@pytest.mark.skipif(not memory.RESET.exists(), reason="no /proc/self/clear_refs: peaks cannot be reset")
def test_the_peak_of_memory_counts_what_is_gone_again_and_not_what_was_before():
    def touched(size):  # not by malloc, which may have as much at hand
        np.frombuffer(mmap.mmap(-1, size), np.uint8)[...] = 1

    touched(96 << 20)
    memory.reset_peak()
    before = memory.resident()
    assert memory.peak() - before < 20
    touched(32 << 20)
    assert 30 < memory.peak() - before < 60


def test_memory_is_measured_in_a_process_of_its_own(tmp_path):
    args = argparse.Namespace(**TINY, limit=60)
    sides = ["xpnet"] + ([] if "torch channels_first" in peers.missing() else ["torch channels_first"])
    found = sections.measure([f"memory/lenet/{side}" for side in sides], args, tmp_path / "rows.jsonl")
    for row in found:
        # a batch of lenet's first maps alone is 128 x 6 x 28 x 28 floats
        assert 2 < row["growth_mib"] < 500, row
        assert row["import_mib"] <= row["base_mib"] + 1 < row["peak_mib"] + 1
        assert row["growth_after_import_mib"] == pytest.approx(row["peak_mib"] - row["import_mib"])
    if len(found) > 1:
        assert found[1]["import_mib"] > found[0]["import_mib"] + 50


def test_jobs_are_for_what_applies(tiny):
    every = workloads.WORKLOADS
    full = argparse.Namespace(**{**TINY, "short": False})
    assert sections.jobs("steps", ["mnist-mlp", "lenet"], tiny) == ["steps/mnist-mlp/1", "steps/lenet/1"]
    runs = [job for job in sections.jobs("steps", every, full) if "mlp" in job]
    assert runs == [f"steps/mnist-mlp/{run}" for run in range(1, 6)]
    assert len(sections.jobs("memory", every, full)) == 17  # a network of vectors has one format
    assert len(sections.jobs("memory", every, tiny)) == 12
    assert sections.jobs("accuracy", ["lenet"], full) == ["accuracy/mnist"]
    assert sections.jobs("accuracy", every, full) == ["accuracy/digits", "accuracy/mnist"]
    assert sections.jobs("accuracy", every, tiny) == ["accuracy/digits"]
    assert "the short form leaves out: mnist" in compare.report("accuracy", [], short=True)
    assert sections.jobs("epoch", every, full) == ["epoch/mnist-mlp", "epoch/lenet"]


def test_memory_and_further_runs_have_processes_of_their_own(monkeypatch):
    groups = []
    monkeypatch.setattr(rows, "run", lambda module, args, *_: groups.append(args.jobs) or [])
    asked = ["steps/lenet/1", "memory/lenet/xpnet", "steps/lenet/2", "steps/lenet/3", "predict/lenet"]
    sections.measure(asked, argparse.Namespace(**TINY, limit=60), None)
    first, *others = groups
    assert first == ["steps/lenet/1", "predict/lenet"]
    assert others == [["memory/lenet/xpnet"], ["steps/lenet/2"], ["steps/lenet/3"]]


def figures(job, **more):
    return {"kind": "cpu", "job": job, **more}


def test_targets_of_the_cpu_are_met_missed_or_not_measured():
    mlp = [
        figures(f"steps/mnist-mlp/{run}", ratio=r, ratios={"scikit-learn": {"ratio": r / 2}})
        for run, r in enumerate((0.9, 1.2, 0.8), 1)
    ]
    sizes = [{"images": 1, "ratio": 0.3}, {"images": 16, "ratio": 0.9}]
    found = {
        row["target"]: (row["measured"], row["result"])
        for row in targets.check(
            [
                *mlp,
                figures("steps/lenet/1", ratio=0.61, ratios={}),
                figures("steps/cifar-vgg/1", error="ended by -9"),
                figures("memory/lenet/xpnet", growth_mib=30.0, growth_after_import_mib=40.0),
                figures("memory/lenet/torch channels_first", growth_mib=20.0, growth_after_import_mib=80.0),
                figures("memory/lenet/torch channels_last", growth_mib=60.0, growth_after_import_mib=99.0),
                figures("memory/mnist-cnn/xpnet", growth_mib=30.0, growth_after_import_mib=40.0),
                figures("threads/mnist-cnn", ratio=1.69),
                figures("threads/cifar-vgg", ratio=1.71),
                figures("predict/lenet", sizes=sizes),
                figures("batches/lenet", growth=1.2, cliff=1.1),
                figures("epoch/lenet", skipped="no MNIST"),
            ]
        )
    }
    assert found["step of mnist-mlp / PyTorch"] == (0.9, "met")  # the median of its runs
    assert found["step of mnist-mlp / scikit-learn"] == (0.45, "missed")
    assert found["step of lenet / PyTorch"] == (0.61, "missed")
    assert found["step of cifar-vgg / PyTorch"] == (None, "not measured")
    grown = "growth of memory after a first tiny step"
    assert found[f"{grown}, lenet / PyTorch"] == (1.5, "missed")  # the format that takes less
    assert found["growth of memory after import, lenet / PyTorch"] == (0.5, "met")
    assert found[f"{grown}, mnist-cnn / PyTorch"] == (None, "not measured")
    assert found["times as fast on all threads, mnist-cnn"] == (1.69, "missed")
    assert found["times as fast on all threads, cifar-vgg"] == (1.71, "met")
    assert found["predict of one image, lenet / PyTorch"] == (0.3, "met")
    assert found["worst growth with the batch, lenet"] == (1.2, "missed")
    assert found["worst cliff between batch sizes, lenet"] == (1.1, "met")
    assert found["epoch of MNIST by fit / its bare steps, lenet"] == (None, "not measured")


def test_the_comparison_prints_its_tables_and_saves_everything(tmp_path, capsys):
    path = tmp_path / "c.json"
    compare.main(
        ["digits-cnn", "--only", "steps,threads", "--threads", "1", "--short", "--rounds", "2"]
        + ["--json", str(path)]
    )
    printed, saved = capsys.readouterr().out, json.loads(path.read_text())
    steps_row, threads_row = saved["rows"]
    assert f"| digits-cnn | xpnet | {steps_row['sides']['xpnet']['ms']:.3g} |" in printed
    assert "threads/digits-cnn: skipped: scaling needs at least two threads" in printed
    assert saved["threads"] == 1 and saved["rounds"] == 2 and saved["blas"] and saved["cpu"]
    assert saved["versions"]["numpy"] == np.__version__
    if "torch" in saved["versions"]:
        assert f"| step of digits-cnn / PyTorch | {steps_row['ratio']:.3g} | at most 0.3 |" in printed
    else:
        assert "left out, it is not installed: pip install torch" in printed


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["alexnet"], "no such workload. Received: alexnet. Expected: digits-cnn"),
        (["--only", "steps,flops"], "no such section. Received: flops. Expected: steps, memory"),
    ],
)
def test_the_comparison_names_what_it_does_not_know(arguments, said, capsys):
    with pytest.raises(SystemExit):
        compare.main(arguments)
    assert said in capsys.readouterr().err


def test_more_threads_than_cores_are_refused():
    with pytest.raises(SystemExit, match=r"--threads must be .* Received: 4000; there are"):
        compare.main(["--threads", "4000"])
