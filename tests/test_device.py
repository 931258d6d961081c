"""Devices: what is asked for, what is there, and what is said when the two differ."""

import importlib.util
import subprocess
import sys
import warnings

import numpy as np
import pytest

from xpnet import DeviceFallbackWarning, Sequential, load_model
from xpnet import device as devices
from xpnet.layers import Dense

INSTALL = r"pip install 'xpnet\[cuda12\]' \(or 'xpnet\[cuda13\]', as the driver allows\)"


@pytest.fixture
def no_cupy(monkeypatch):
    """A machine without CuPy."""
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "cupy" else original(name, *a)
    )
    monkeypatch.delenv("XPNET_REQUIRE_CUDA", raising=False)


@pytest.fixture
def broken_cupy(monkeypatch, tmp_path):
    """A machine with CuPy whose driver does not work."""
    package = tmp_path / "cupy"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise ImportError('libcuda.so.1: cannot\\nopen shared object file')"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "cupy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("XPNET_REQUIRE_CUDA", raising=False)


def model_on(device, **kwargs):
    return Sequential([Dense(3)], input_shape=(5,), seed=0, device=device, **kwargs)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "CUDA"])
def test_cuda_without_cupy_warns_with_the_reason_and_the_install_line_and_runs_on_the_cpu(no_cupy, device):
    with pytest.warns(
        DeviceFallbackWarning,
        match=f"device='{device}' is not available: CuPy is not installed; {INSTALL}. Training on the CPU",
    ) as caught:
        model = model_on(device)
    assert model.device == "cpu" and len(caught) == 1
    assert np.array_equal(model.predict(np.ones((2, 5))), model_on("cpu").predict(np.ones((2, 5))))


def test_the_warning_points_at_the_users_line(no_cupy):
    with pytest.warns(DeviceFallbackWarning) as caught:
        Sequential([Dense(3)], device="cuda")
    assert caught[0].filename == __file__
    with pytest.warns(DeviceFallbackWarning) as caught:
        model_on("cpu").to("cuda")
    assert caught[0].filename == __file__


def test_cuda_with_a_broken_driver_names_what_cupy_said(broken_cupy):
    words = (
        r"CuPy is installed but no GPU works \(libcuda.so.1: cannot open shared object file\); `xpnet doctor`"
    )
    with pytest.warns(DeviceFallbackWarning, match=words):
        assert model_on("cuda").device == "cpu"


def test_require_cuda_makes_it_an_error(no_cupy, monkeypatch):
    monkeypatch.setenv("XPNET_REQUIRE_CUDA", "1")
    with pytest.raises(RuntimeError, match=f"{INSTALL}. XPNET_REQUIRE_CUDA=1 forbids the CPU instead"):
        model_on("cuda")
    assert model_on("cpu").device == "cpu"
    monkeypatch.setenv("XPNET_REQUIRE_CUDA", "0")
    with pytest.warns(DeviceFallbackWarning):
        model_on("cuda")


def test_auto_takes_the_cpu_silently_and_tells_why_when_training(no_cupy, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = model_on("auto")
    assert model.device == "cpu"
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 5)), np.ones((4, 3)), verbose=2)
    assert "training on cpu (no GPU: CuPy is not installed; pip install" in capsys.readouterr().out


def test_auto_is_the_default(no_cupy):
    assert Sequential([Dense(3)]).device == "cpu"


@pytest.mark.parametrize(
    ("device", "suggestion"), [("cudda", "cuda"), ("cuda1", "cuda"), ("cpuu", "cpu"), ("atuo", "auto")]
)
def test_an_unknown_device_comes_with_a_suggestion(device, suggestion):
    words = (
        f"unknown device. Received: '{device}'. Did you mean '{suggestion}.*Expected one of: auto, cpu, cuda"
    )
    with pytest.raises(ValueError, match=words):
        model_on(device)


@pytest.mark.parametrize("device", [None, 0, "cuda:", "cuda:x", "cuda:-1", ""])
def test_things_that_are_no_device(device):
    with pytest.raises(ValueError, match=r"unknown device. Received: "):
        model_on(device)


def test_a_move_to_an_unknown_device_leaves_the_model_where_it_was():
    model = model_on("cpu")
    with pytest.raises(ValueError, match="unknown device"):
        model.to("moon")
    assert model.device == "cpu" and model.predict(np.ones((1, 5))).shape == (1, 3)


def test_loading_onto_a_gpu_that_is_not_there_falls_back_too(no_cupy, tmp_path):
    model_on("cpu").save(tmp_path / "m.safetensors")
    with pytest.warns(DeviceFallbackWarning, match="CuPy is not installed"):
        assert load_model(tmp_path / "m.safetensors", device="cuda").device == "cpu"


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_precisions_of_the_gpu_warn_on_the_cpu_and_compute_in_float32(precision):
    with pytest.warns(
        DeviceFallbackWarning, match=f"precision='{precision}' is not available on cpu; computing in float32"
    ):
        model = model_on("cpu", precision=precision)
    assert model.dtype == np.float32 and model.predict(np.ones((1, 5))).dtype == np.float32
    assert np.array_equal(model.predict(np.ones((1, 5))), model_on("cpu").predict(np.ones((1, 5))))
    lines = []
    model.summary(print_fn=lines.append)
    assert "float32" in lines[0], "the precision in force must be shown"


@pytest.mark.parametrize("precision", ["auto", "float32", "float64"])
def test_precisions_of_the_cpu_are_silent(precision):
    assert model_on("cpu", precision=precision).dtype == ("float64" if precision == "float64" else "float32")


def test_asking_for_a_device_imports_no_cupy_on_the_cpu():
    code = (
        "import sys, numpy as np; from xpnet import Sequential; from xpnet.layers import Dense;"
        "Sequential([Dense(2)], device='cpu').predict(np.ones((1, 3))); assert 'cupy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_a_gpu_gives_the_predictions_of_the_cpu():
    try:
        devices._cuda(0)
    except devices.NoDevice as reason:
        pytest.skip(f"no GPU: {reason}")
    x = np.random.default_rng(0).standard_normal((6, 5))
    model = model_on("cuda")
    assert model.device == "cuda:0"
    assert np.allclose(model.predict(x), model_on("cpu").predict(x), atol=1e-4)
    assert type(model.predict(x)) is np.ndarray
    assert model.to("cpu").device == "cpu"
