"""`xpnet doctor`: what it says of installations that are whole, broken, or lack a part."""

import json
import subprocess
import sys

import pytest

from xpnet import cli
from xpnet.commands import doctor

H200 = "NVIDIA H200, 140 GiB, compute capability 9.0"


@pytest.fixture(autouse=True)
def no_data(monkeypatch, tmp_path):
    monkeypatch.delenv("XPNET_DATA", raising=False)
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def machine(monkeypatch):
    """A machine made up: what the driver's library, nvidia-smi, CuPy and a training step answer."""

    def make(*, library=None, smi=None, banner="", cupy=None, wheels=(), trains=None):
        library = (
            library if library is not None else {"missing": "libcuda.so.1: cannot open shared object file"}
        )
        answers = {
            doctor.ASK_DRIVER: library,
            doctor.TRY_GPU: cupy or {"error": "ImportError: broken"},
            doctor.TRAIN_A_LITTLE: trains or {"ok": True, "device": "cpu", "why": "no GPU: none here"},
        }

        def command(words, seconds):
            if words[0] == "nvidia-smi":
                if smi is None:
                    return -1, "", "not found"
                return 0, (smi if len(words) > 1 else banner), ""
            return 0, json.dumps(answers[words[2]]) + "\n", ""

        monkeypatch.setattr(doctor, "run_command", command)
        monkeypatch.setattr(doctor, "cupy_wheels", lambda: dict(wheels))

    return make


@pytest.fixture
def report(capsys):
    """Run the doctor: (exit code, its report)."""

    def run():
        code = cli.main(["doctor"])
        out, err = capsys.readouterr()
        assert err == ""
        return code, out

    return run


def _line(out, label):
    """The text of a line of the report, with those that continue it."""
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"  {label} "))
    end = at + 1
    while end < len(lines) and lines[end].startswith(" " * 10):
        end += 1
    return "\n".join(line.strip() for line in lines[at:end])


# -- this machine --------------------------------------------------------------------------------------------


def test_the_doctor_finds_this_installation_usable(report):
    """Nothing is faked: the tests could not run otherwise."""
    import numpy

    code, out = report()
    assert code == 0
    assert out.splitlines()[-1].startswith("xpnet works: it trains on ")
    assert sys.executable in out
    assert _line(out, "numpy").endswith(numpy.__version__)
    for label in (
        "BLAS",
        "threads",
        "driver",
        "CuPy",
        "matplotlib",
        "XPNET_DATA",
        "cache",
        "mnist",
        "cifar10",
    ):
        assert _line(out, label)


def test_the_training_that_is_tried_trains():
    assert doctor.run_python(doctor.TRAIN_A_LITTLE)["ok"] is True


# -- GPUs ----------------------------------------------------------------------------------------------------


def test_without_a_driver_there_is_no_gpu_to_install_for(machine, report):
    machine()
    code, out = report()
    assert code == 0
    assert "not found" in _line(out, "driver") and "nvidia.com/drivers" in _line(out, "driver")
    assert "not installed" in _line(out, "CuPy") and "pip install" not in _line(out, "CuPy")
    assert "it trains on the CPU" in out


@pytest.mark.parametrize(
    ("cuda", "extra"), [(12000, "cuda12"), (12080, "cuda12"), (13000, "cuda13"), (14020, "cuda13")]
)
def test_the_install_line_follows_the_drivers_cuda(machine, report, cuda, extra):
    machine(library={"cuda": cuda, "gpus": [H200]}, smi="550.54, NVIDIA H200, 143771\n")
    code, out = report()
    assert code == 0
    assert f"-> pip install 'xpnet[{extra}]'" in _line(out, "CuPy")
    assert f"NVIDIA 550.54, runs CUDA up to {cuda // 1000}.{cuda % 1000 // 10}" in _line(out, "driver")
    assert H200 in _line(out, "cuda:0")


def test_a_driver_too_old_for_cupy_is_told_what_to_update_to(machine, report):
    machine(library={"cuda": 11040, "gpus": [H200]}, smi="470.82, NVIDIA H200, 143771\n")
    _, out = report()
    assert "CUDA up to 11.4" in _line(out, "driver") and "driver 525 or later" in _line(out, "driver")
    assert "xpnet[cuda" not in _line(out, "CuPy")


def test_nvidia_smi_alone_is_enough_to_know_the_gpus(machine, report):
    machine(
        smi="570.1, NVIDIA A100, 81920\n570.1, NVIDIA T4, 15360\n",
        banner="| NVIDIA-SMI 570.1   Driver Version: 570.1   CUDA Version: 12.8 |",
    )
    _, out = report()
    assert "CUDA up to 12.8" in _line(out, "driver")
    assert "NVIDIA A100, 80 GiB" in _line(out, "cuda:0") and "NVIDIA T4, 15 GiB" in _line(out, "cuda:1")
    assert "xpnet[cuda12]" in _line(out, "CuPy")


def test_a_driver_that_does_not_start_is_told_with_its_words(machine, report):
    machine(library={"cuda": 12040, "gpus": [], "error": "system has unsupported display driver"})
    _, out = report()
    assert "it does not work: system has unsupported display driver" in _line(out, "driver")
    assert "restart" in _line(out, "driver")


def test_a_gpu_that_works_is_reported_and_trained_on(machine, report):
    machine(
        library={"cuda": 13000, "gpus": [H200]},
        wheels={"cupy-cuda12x": "14.0.1"},  # an older CUDA runs on a newer driver
        cupy={"version": "14.0.1", "runtime": 12090, "works": True},
        trains={"ok": True, "device": "cuda:0", "why": "a working GPU was found"},
    )
    code, out = report()
    assert code == 0
    assert _line(out, "CuPy").endswith("cupy-cuda12x 14.0.1, CUDA 12.9, works")
    assert out.splitlines()[-1] == "xpnet works: it trains on cuda:0"


def test_a_wheel_too_new_for_the_driver_is_to_be_replaced(machine, report):
    machine(
        library={"cuda": 12040, "gpus": [H200]},
        wheels={"cupy-cuda13x": "14.0.1"},
        cupy={"error": "CUDARuntimeError: cudaErrorInsufficientDriver"},
    )
    _, out = report()
    line = _line(out, "CuPy")
    assert "made for CUDA 13, the driver runs 12.4 at most" in line and "InsufficientDriver" in line
    assert "-> pip uninstall cupy-cuda13x && pip install 'xpnet[cuda12]'" in line


def test_a_wheel_without_the_cuda_toolkit_gets_it_by_the_extra(machine, report):
    machine(
        library={"cuda": 13000, "gpus": [H200]},
        wheels={"cupy-cuda12x": "14.0.1"},
        cupy={"error": "RuntimeError: CuPy failed to load libnvrtc.so.12"},
    )
    _, out = report()
    assert "libnvrtc" in _line(out, "CuPy")
    assert "-> pip install --upgrade 'xpnet[cuda12]'" in _line(out, "CuPy")


def test_two_wheels_of_cupy_are_one_too_many(machine, report):
    machine(
        library={"cuda": 12040, "gpus": [H200]},
        wheels={"cupy-cuda12x": "13.0", "cupy-cuda13x": "14.0"},
        cupy={"works": True},
    )
    _, out = report()
    fix = "-> pip uninstall cupy-cuda12x cupy-cuda13x && pip install 'xpnet[cuda12]'"
    assert "only one may be installed" in _line(out, "CuPy") and fix in _line(out, "CuPy")


def test_cupy_that_works_for_itself_alone_is_told(machine, report):
    machine(
        library={"cuda": 12040, "gpus": [H200]},
        wheels={"cupy-cuda12x": "14.0"},
        cupy={"works": True},
        trains={"ok": True, "device": "cpu", "why": "no GPU: cuBLAS is missing"},
    )
    code, out = report()
    assert code == 0 and out.splitlines()[-1].endswith("although CuPy works (no GPU: cuBLAS is missing)")


def test_the_wheels_of_cupy_are_told_from_its_relatives(monkeypatch):
    class Distribution:
        version = "14.0"

        def __init__(self, name):
            self.metadata = {"Name": name}

    names = ["numpy", "cupy_backends", "cupy-cuda12x", "CuPy", "cupy-xarray", "cupy-rocm-5-0", None]
    monkeypatch.setattr("importlib.metadata.distributions", lambda: map(Distribution, names))
    assert list(doctor.cupy_wheels()) == ["cupy", "cupy-cuda12x", "cupy-rocm-5-0"]


# -- what may go wrong ---------------------------------------------------------------------------------------


def test_a_machine_where_xpnet_does_not_train_is_not_usable(machine, report):
    machine(trains={"error": "ImportError: libopenblas is missing"})
    code, out = report()
    assert code == 1
    assert out.splitlines()[-1] == "xpnet does not work here: ImportError: libopenblas is missing"


def test_what_is_missing_is_told_with_its_install_line(machine, report, monkeypatch):
    there = doctor.version_of
    gone = {"matplotlib", "safetensors"}
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name in gone else there(name))
    machine()
    _, out = report()
    assert "-> pip install 'xpnet[plot]'" in _line(out, "matplotlib")
    assert "-> pip install safetensors" in _line(out, "safetensors")


CHECKS = (
    "check_python", "check_packages", "check_blas", "check_threads", "read_driver", "check_driver", "try_gpu",
    "check_cupy", "check_optional", "check_data",
)  # fmt: skip


@pytest.mark.parametrize("broken", CHECKS)
def test_no_check_that_fails_hides_the_others(machine, report, monkeypatch, broken):
    def fail(*_):
        raise OSError("as broken as can be")

    machine()
    _, whole = report()
    monkeypatch.setattr(doctor, broken, fail)
    code, out = report()
    assert code == 0 and out.splitlines()[-1] == whole.splitlines()[-1]
    for title in ("xpnet", "CPU", "GPU", "optional", "data sets"):
        assert title in out.splitlines()
    if broken.startswith("check"):
        assert "the check failed: OSError: as broken as can be" in out
        lost = set(whole.splitlines()) - set(out.splitlines())
        assert len(lost) < len(whole.splitlines()) / 2


def test_a_verdict_that_fails_counts_as_not_usable(machine, report, monkeypatch):
    def fail(*_):
        raise OSError("no processes")

    machine()
    monkeypatch.setattr(doctor, "judge", fail)
    code, out = report()
    assert code == 1 and out.splitlines()[-1] == "xpnet could not be judged"


def test_code_that_crashes_hangs_or_babbles_is_an_error_with_a_reason():
    assert doctor.run_python("print('noise'); print('{\"a\": 1}')") == {"a": 1}
    assert doctor.run_python("raise ValueError('no luck')")["error"] == "ValueError: no luck"
    assert doctor.run_python("print('[1]')")["error"] == "no message"
    assert "no answer within" in doctor.run_python("import time; time.sleep(30)", 0.2)["error"]
    if sys.platform != "win32":
        crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
        assert "signal 11" in doctor.run_python(crash)["error"]


def test_programs_that_cannot_be_run_are_no_exception(monkeypatch):
    assert doctor.run_command(["a-program-that-does-not-exist"], 5) == (-1, "", "not found")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(subprocess, "run", denied)
    assert doctor.run_command(["anything"], 5)[0] == -1


def test_the_code_that_asks_the_driver_runs_here():
    """With or without a driver it answers in JSON."""
    found = doctor.run_python(doctor.ASK_DRIVER)
    assert "missing" in found or "cuda" in found, found


# -- data sets -----------------------------------------------------------------------------------------------


def test_data_sets_are_found_where_they_are(machine, report, monkeypatch, tmp_path):
    from xpnet.datasets import cifar10, fashion_mnist, mnist

    for folder, names in (
        (tmp_path / "data" / "mnist", [name.removesuffix(".gz") for name in mnist.SOURCE.files]),
        (tmp_path / "cache" / "fashion_mnist", list(fashion_mnist.SOURCE.files)),
        (tmp_path / "data" / "cifar10" / cifar10.FOLDER, [*cifar10.TRAIN, cifar10.TEST]),
    ):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "data"))
    machine()
    _, out = report()
    assert _line(out, "mnist").endswith(f"in {tmp_path / 'data' / 'mnist'}")
    assert _line(out, "fashion-mnist").endswith(f"in {tmp_path / 'cache' / 'fashion_mnist'}")
    assert _line(out, "cifar10").endswith(f"in {tmp_path / 'data' / 'cifar10' / cifar10.FOLDER}")
    assert _line(out, "cache").endswith(str(tmp_path / "cache"))


def test_data_sets_that_are_not_there_are_told_how_to_come_by(machine, report, monkeypatch, tmp_path):
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "nowhere"))
    machine()
    _, out = report()
    assert "which does not exist" in _line(out, "XPNET_DATA")
    for name in ("mnist", "fashion-mnist", "cifar10"):
        assert f"`xpnet train {name}` downloads it" in _line(out, name)
