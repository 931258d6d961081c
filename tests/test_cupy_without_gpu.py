"""Where CuPy is installed and no GPU works: xpnet says so and trains on the CPU.

The real CuPy imports without a driver, and fails at its first array.
"""

import re
import subprocess
import sys

import numpy as np
import pytest

from xpnet import DeviceFallbackWarning, Sequential
from xpnet import device as devices
from xpnet.layers import Dense

try:
    import cupy
except Exception as error:  # whatever is wrong with it, `xpnet doctor` tells
    pytest.skip(f"no CuPy to try: {error}", allow_module_level=True)
try:
    devices._cuda(0)
except devices.NoDevice as reason:
    WHY = str(reason)
else:
    pytest.skip("a GPU works here", allow_module_level=True)

FAILS = re.escape(WHY)


@pytest.fixture(autouse=True)
def fallback_allowed(monkeypatch):
    monkeypatch.delenv("XPNET_REQUIRE_CUDA", raising=False)


def model_on(device):
    return Sequential([Dense(3)], input_shape=(5,), seed=0, device=device)


def run(code, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )


def test_cupy_itself_fails_at_its_first_array():
    """Else this file tests nothing."""
    with pytest.raises(Exception, match=r"cudaError|driver"):
        cupy.ones(2)


def test_the_reason_is_a_sentence_and_not_cudas_words():
    assert re.search(
        r"no GPU works \((no NVIDIA driver|the NVIDIA driver is too old|the driver shows no)", WHY
    )
    assert "cudaError" not in WHY and len(WHY) < 200


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_warns_with_the_reason_and_trains_on_the_cpu(device):
    with pytest.warns(DeviceFallbackWarning, match=f"{FAILS}. Training on the CPU instead") as caught:
        model = model_on(device)
    assert len(caught) == 1 and caught[0].filename == __file__
    model.compile("sgd", "mse")
    x = np.ones((4, 5), np.float32)
    assert np.isfinite(model.train_on_batch(x, np.ones((4, 3), np.float32)))
    assert model.device == "cpu" and isinstance(model.predict(x), np.ndarray)


def test_auto_trains_on_the_cpu_without_a_warning_and_says_why(capsys):
    model = model_on("auto")
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 5)), np.ones((4, 3)), verbose=2)
    assert f"training on cpu (no GPU: {WHY})" in capsys.readouterr().out


def test_require_cuda_makes_it_an_error(monkeypatch):
    monkeypatch.setenv("XPNET_REQUIRE_CUDA", "1")
    with pytest.raises(RuntimeError, match=f"{FAILS}. XPNET_REQUIRE_CUDA=1 forbids the CPU instead"):
        model_on("cuda")


def test_the_library_leaves_cupy_alone_until_a_gpu_is_asked_for():
    done = run(
        "import sys, xpnet; assert 'cupy' not in sys.modules; import xpnet.ops.cupy_ops", "-W", "error"
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_a_failed_start_leaves_nothing_behind():
    """CuPy's streams complain when they are destroyed, if they could not be made."""
    done = run("import xpnet, gc; xpnet.Sequential([xpnet.layers.Dense(2)], device='auto'); gc.collect()")
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_the_doctor_names_the_problem_and_the_remedy():
    done = subprocess.run(
        [sys.executable, "-m", "xpnet", "doctor"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0 and not done.stderr
    gpu = done.stdout.split("\nGPU\n")[1].split("\n\n")[0]
    problem, remedy = gpu.split("  CuPy  ")[1].split("-> ")
    assert f"{cupy.__version__}, does not work: " in problem
    assert re.search("no NVIDIA driver|driver is too old|the driver shows no GPU|the driver runs", problem)
    assert "first the driver, above" in remedy or "pip uninstall" in remedy
    driver = gpu.split("  CuPy  ")[0]
    assert (
        re.search("not found|does not|shows no|no /dev|but the driver|runs CUDA up to", driver)
        and "->" in driver
    )
    assert done.stdout.splitlines()[-1].startswith("xpnet works: it trains on the CPU")
