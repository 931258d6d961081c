"""`xpnet doctor`: what it says of installations that are whole, broken, or lack a part."""

import importlib
import json
import re
import subprocess
import sys
import types

import numpy as np
import pytest

from xpnet import cli
from xpnet.commands import doctor
from xpnet.ops import cublas, probe

H200 = "NVIDIA H200, 140 GiB, compute capability 9.0"


@pytest.fixture(autouse=True)
def no_data(monkeypatch, tmp_path):
    monkeypatch.delenv("XPNET_DATA", raising=False)
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def machine(monkeypatch):
    """A machine made up: what the driver's library, nvidia-smi, CuPy and a training step answer."""

    def make(
        *,
        library=None,
        smi=None,
        banner="",
        cupy=None,
        wheels=(),
        trains=None,
        files=(),
        stray="",
        visible=None,
    ):
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
                if smi.startswith("Failed"):
                    return 9, smi, ""
                return 0, (smi if len(words) > 1 else banner), ""
            return 0, json.dumps(answers[words[2]]) + "\n", ""

        monkeypatch.setattr(doctor, "run_command", command)
        monkeypatch.setattr(doctor, "cupy_wheels", lambda: dict(wheels))
        monkeypatch.setattr(doctor, "stray_cupy", lambda: stray)
        monkeypatch.setattr(doctor, "device_files", lambda: dict(files))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

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


def test_the_cupy_that_is_tried_answers():
    """Whatever is installed here, the process of its own ends with an answer."""
    found = doctor.run_python(doctor.TRY_GPU)
    assert (
        found["works"]
        if "error" not in found
        else re.match(r"\w+(Error|Exception|Warning): .", found["error"])
    )


# -- the trial of CuPy ---------------------------------------------------------------------------------------


@pytest.fixture
def tried(monkeypatch):
    """What the trial finds with a CuPy made up: its arrays are NumPy's, and parts of CUDA may be missing."""

    def make(*missing, version="14.2.0", headers="/cuda/include", wrong=0.0):
        def there(name):
            if name in missing:
                raise RuntimeError(f"no {name}")

        runtime = types.SimpleNamespace(
            runtimeGetVersion=lambda: 12090,
            driverGetVersion=lambda: 13000,
            memGetInfo=lambda: (3 << 30, 4 << 30),
        )
        nvrtc = types.SimpleNamespace(getVersion=lambda: there("NVRTC"))
        cupy = types.ModuleType("cupy")
        cupy.__version__, cupy.cuda = version, types.SimpleNamespace(runtime=runtime, nvrtc=nvrtc)

        def ones(*args):
            there("GPU")
            return np.ones(*args) + wrong

        cupy.ones = ones
        pathfinder = types.ModuleType("cuda.pathfinder")
        pathfinder.find_nvidia_header_directory = lambda name: headers
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
        monkeypatch.setattr(cublas, "load", lambda cupy: there("cuBLAS"))
        return probe.try_cupy()

    return make


def test_a_cupy_that_works_is_found_to_work(tried):
    found = tried()
    assert found.pop("works") is True
    assert found == {
        "missing": [], "version": "14.2.0", "runtime": 12090, "driver": 13000, "memory": (3 << 30, 4 << 30)
    }  # fmt: skip
    assert json.loads(json.dumps(found))


def test_all_parts_of_the_toolkit_that_are_missing_are_named(tried):
    for missing in (["NVRTC"], ["cuBLAS"], ["NVRTC", "cuBLAS"]):
        found = tried(*missing)
        assert found["missing"] == missing and found["works"] is False
    assert tried(headers=None)["missing"] == ["headers"]
    assert tried(headers=None, version="13.6.0")["works"] is True, "CuPy 13 looks for them elsewhere"


def test_a_sum_that_is_wrong_or_fails_is_no_working_gpu(tried):
    assert tried(wrong=1.0)["works"] is False
    found = tried("GPU", "cuBLAS")
    assert found["error"] == "RuntimeError: no GPU" and found["missing"] == ["cuBLAS"]
    assert "works" not in found


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
        cupy={"version": "14.0.1", "runtime": 12090, "works": True, "memory": [12 << 30, 140 << 30]},
        trains={"ok": True, "device": "cuda:0", "why": "a working GPU was found"},
    )
    code, out = report()
    assert code == 0
    assert _line(out, "CuPy").endswith("cupy-cuda12x 14.0.1, CUDA 12.9, works, 12 of 140 GiB free")
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
    assert "-> pip install --upgrade 'cupy-cuda12x[ctk]'" in _line(out, "CuPy")


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


NO_DEVICE = {"cuda": 12040, "gpus": [], "code": 100, "error": "no CUDA-capable device is detected"}
TWO_GPUS = "550.54, NVIDIA A100, 81920\n550.54, NVIDIA A100, 81920\n"


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_an_environment_that_hides_the_gpus_is_told_with_what_to_set(machine, report, visible):
    machine(library=NO_DEVICE, smi=TWO_GPUS, visible=visible, files={"/dev/nvidia0": "", "/dev/nvidia1": ""})
    _, out = report()
    line = _line(out, "driver")
    assert (
        f"CUDA_VISIBLE_DEVICES='{visible}' shows no GPU" in line
        and "unset it, or set it to numbers from 0 to 1" in line
    )
    assert "  cuda:0" not in out, "a GPU that nobody can use has no number"


def test_an_environment_that_hides_some_gpus_is_told(machine, report):
    """CUDA stops reading at the first number that is wrong."""
    machine(library={"cuda": 12040, "gpus": [H200]}, smi=TWO_GPUS, visible="0,9,1")
    assert "CUDA_VISIBLE_DEVICES='0,9,1' shows 1 of 2 GPUs" in _line(report()[1], "visible")
    machine(library={"cuda": 12040, "gpus": [H200, H200]}, smi=TWO_GPUS, visible="0,1")
    assert "  visible" not in report()[1]


def test_gpus_that_may_not_be_opened_are_told_with_the_group_to_join(machine, report):
    machine(library=NO_DEVICE, files={"/dev/nvidia0": "video", "/dev/nvidiactl": ""})
    line = _line(report()[1], "driver")
    assert (
        "/dev/nvidia0 may not be opened" in line and "-> join the group video (sudo usermod -aG video" in line
    )


def test_a_container_without_access_to_the_gpu_is_told_how_to_start_it(machine, report, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    machine(library=NO_DEVICE)
    line = _line(report()[1], "driver")
    assert (
        "no /dev/nvidia0" in line and "-> in a container: start it with access to the GPU (docker run" in line
    )
    machine(files={"/dev/nvidia3": ""})
    line = _line(report()[1], "driver")
    assert "there is a GPU (/dev/nvidia3), but the driver's library is not" in line and "docker run" in line


@pytest.mark.parametrize(
    ("code", "words"), [(802, "fabricmanager"), (803, "restart"), (999, "nvidia-modprobe")]
)
def test_what_cuda_answers_at_its_start_has_its_remedy(machine, report, code, words):
    machine(library={"cuda": 12040, "gpus": [], "code": code, "error": "its words"}, smi=TWO_GPUS)
    line = _line(report()[1], "driver")
    assert "it does not work: its words" in line and words in line.split("->")[1]


def test_what_nvidia_smi_complains_of_is_told(machine, report):
    machine(smi="Failed to initialize NVML: Driver/library version mismatch\nand more")
    assert "NVML: Driver/library version mismatch" in _line(report()[1], "driver")


def test_files_of_gpus_that_may_be_opened_carry_no_group(monkeypatch):
    files = {"/dev/nvidia[0-9]*": ["/dev/nvidia1", "/dev/nvidia0"], "/dev/nvidiactl": ["/dev/nvidiactl"]}
    monkeypatch.setattr(doctor.glob, "glob", lambda pattern: files[pattern])
    monkeypatch.setattr(doctor.os, "access", lambda name, mode: name != "/dev/nvidia1")
    monkeypatch.setattr(doctor, "_group", lambda name: "render")
    assert doctor.device_files() == {"/dev/nvidia0": "", "/dev/nvidia1": "render", "/dev/nvidiactl": ""}
    files["/dev/nvidia[0-9]*"] = []
    assert doctor.device_files() == {}


@pytest.mark.parametrize(
    ("capability", "extra", "words"),
    [
        ("3.5", "cuda12", "too old for CUDA 12"),
        ("7.0", "cuda12", "tf32 and bfloat16 begin with compute capability 8.0"),
        ("7.5", "cuda13", "tf32 and bfloat16 begin with compute capability 8.0"),
        ("8.0", "cuda13", ""),
        ("12.0", "cuda13", ""),
    ],
)
def test_the_age_of_the_gpu_decides_what_it_can_run(machine, report, capability, extra, words):
    gpu = f"NVIDIA, 16 GiB, compute capability {capability}"
    machine(library={"cuda": 13000, "gpus": [gpu]})
    _, out = report()
    assert f"xpnet[{extra}]" in _line(out, "CuPy")
    assert words in _line(out, "cuda:0") and (words or _line(out, "cuda:0").endswith(capability))


def test_a_wheel_that_no_longer_knows_the_gpu_is_to_be_replaced(machine, report):
    machine(
        library={"cuda": 13000, "gpus": ["NVIDIA V100, 16 GiB, compute capability 7.0"]},
        wheels={"cupy-cuda13x": "14.2.0"},
        cupy={"error": "CompileException: nvrtc: error: invalid value for --gpu-architecture (-arch)"},
    )
    line = _line(report()[1], "CuPy")
    assert "made for CUDA 13, which does not know so old a GPU" in line
    assert "-> pip uninstall cupy-cuda13x && pip install 'xpnet[cuda12]'" in line


@pytest.mark.parametrize(
    ("wheel", "version", "words"),
    [
        ("cupy-cuda12x", "12.3.0", "xpnet needs CuPy 13 or later"),
        ("cupy-cuda11x", "13.6.0", "made for CUDA 11, xpnet needs 12 or 13"),
    ],
)
def test_a_wheel_too_old_for_xpnet_is_to_be_replaced(machine, report, wheel, version, words):
    machine(library={"cuda": 12040, "gpus": [H200]}, wheels={wheel: version})
    line = _line(report()[1], "CuPy")
    assert words in line and f"-> pip uninstall {wheel} && pip install 'xpnet[cuda12]'" in line


@pytest.mark.parametrize(
    ("error", "words", "fix"),
    [
        (
            "OutOfMemoryError: Out of memory allocating 512 bytes (so far: 0 bytes).",
            "memory is full",
            "end other",
        ),
        (
            "OutOfMemoryError: Out of memory allocating 1 bytes (limit set to: 1 bytes).",
            "limit",
            "CUPY_GPU_MEMORY",
        ),
        ("CUDARuntimeError: cudaErrorDevicesUnavailable", "taken by another process", "device='cuda:1'"),
        (
            "RuntimeError: Failed to find CUDA headers.",
            "toolkit",
            "pip install --upgrade 'cupy-cuda12x[ctk]'",
        ),
        (
            "ImportError: numpy.core.multiarray failed to import",
            "NumPy",
            "pip install --upgrade cupy-cuda12x numpy",
        ),
        (
            "CUDARuntimeError: cudaErrorNoKernelImageForDevice",
            "too new",
            "pip install --upgrade 'cupy-cuda12x[ctk]'",
        ),
        (
            "RuntimeError: nobody knows",
            "nobody knows",
            "pip uninstall cupy-cuda12x && pip install 'xpnet[cuda12]'",
        ),
    ],
)
def test_each_failure_of_cupy_has_its_remedy(machine, report, error, words, fix):
    machine(library={"cuda": 12040, "gpus": [H200]}, wheels={"cupy-cuda12x": "14.2.0"}, cupy={"error": error})
    problem, remedy = _line(report()[1], "CuPy").split("-> ")
    assert words in problem and fix in remedy


def test_all_that_is_missing_of_the_toolkit_is_told_at_once(machine, report):
    wheels, fix = {"cupy-cuda12x": "14.2.0"}, "pip install --upgrade 'cupy-cuda12x[ctk]'"
    machine(
        library={"cuda": 12040, "gpus": [H200]}, wheels=wheels, cupy={"missing": ["cuBLAS"], "works": False}
    )
    line = _line(report()[1], "CuPy")
    assert "of the CUDA toolkit is missing: cuBLAS" in line and line.endswith(f"-> {fix}")
    failed = "CUDARuntimeError: cudaErrorInsufficientDriver"
    machine(wheels=wheels, cupy={"missing": ["NVRTC", "cuBLAS"], "error": failed, "driver": 0})
    line = _line(report()[1], "CuPy")
    assert "no NVIDIA driver was found" in line and "missing: NVRTC, cuBLAS" in line
    assert line.endswith(f"-> first the driver, above; then {fix}")


@pytest.mark.parametrize(
    ("asked", "version", "words"),
    [
        ("numpy<2.6,>=2.0", "2.6.0", "it needs numpy<2.6, and numpy 2.6.0 is installed"),
        ("numpy (>=2.0,<2.6)", "1.26.4", "it needs numpy>=2.0, and numpy 1.26.4 is installed"),
        ("numpy<2.6,>=2.0", "2.5.9", ""),
        ("numpy<2.6,>=2.0", "2.0.0", ""),
        ("numpy<1; extra == 'old'", "2.0.0", ""),
        ("numpydoc<1", "2.0.0", ""),
    ],
)
def test_a_numpy_that_cupy_is_not_made_for_is_told(machine, report, monkeypatch, asked, version, words):
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["fastrlock>=0.5", asked])
    there = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: version if name == "numpy" else there(name))
    machine(library={"cuda": 12040, "gpus": [H200]}, wheels={"cupy-cuda12x": "14.2.0"})
    line = _line(report()[1], "CuPy")
    assert (
        (words in line and "-> pip install --upgrade cupy-cuda12x numpy" in line)
        if words
        else "numpy" not in line
    )


def test_something_else_by_the_name_of_cupy_is_told(machine, report, monkeypatch, tmp_path):
    machine(stray="/home/me/cupy.py")
    assert "not installed, but there is a /home/me/cupy.py" in _line(report()[1], "CuPy")
    (tmp_path / "cupy").mkdir()
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "cupy", raising=False)  # which would be found first
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    assert doctor.stray_cupy() == str(tmp_path / "cupy")


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
