"""Devices: what is asked for, what is there, and what is said when the two differ."""

import gc
import importlib.machinery
import importlib.util
import subprocess
import sys
import types
import warnings

import fake_cupy
import numpy as np
import pytest

from xpnet import DeviceFallbackWarning, Sequential, load_model, set_memory_limit
from xpnet import device as devices
from xpnet.layers import Dense
from xpnet.ops.numpy_ops import NumpyOps

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


def test_cuda_with_a_cupy_that_cannot_be_imported_names_the_reason(broken_cupy):
    words = (
        r"CuPy is installed but no GPU works \(no NVIDIA driver was found\); `xpnet doctor` says what to do"
    )
    with pytest.warns(DeviceFallbackWarning, match=words):
        assert model_on("cuda").device == "cpu"


# -- GPUs that are made up -----------------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """A machine with a CuPy made up: for each GPU what CupyOps raises there, or None where it works."""

    def make(*errors, runtime=12090, driver=12090, count=None):
        def visible():
            if isinstance(count, Exception):
                raise count
            return len(errors)

        class Runtime:
            runtimeGetVersion = staticmethod(lambda: runtime)
            driverGetVersion = staticmethod(lambda: driver)
            getDeviceCount = staticmethod(visible)

        class FakeOps(NumpyOps):
            def __init__(self, index=0, precision="auto"):
                if errors[index] is not None:
                    raise errors[index]
                super().__init__()
                self.device, self.precision = f"cuda:{index}", precision

        cupy = types.ModuleType("cupy")
        cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
        cupy.cuda = types.SimpleNamespace(runtime=Runtime)
        engine = types.ModuleType("xpnet.ops.cupy_ops")
        engine.CupyOps = FakeOps
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setitem(sys.modules, "xpnet.ops.cupy_ops", engine)
        for name in ("XPNET_REQUIRE_CUDA", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)

    return make


def test_the_precision_reaches_the_operations_of_the_gpu(gpus):
    gpus(None)
    for device, why in (("cuda", "as asked"), ("auto", "a working GPU was found")):
        ops, reason = devices.resolve(device, "bfloat16")
        assert (ops.device, ops.precision, reason) == ("cuda:0", "bfloat16", why)
    assert devices.resolve("cuda:0")[0].precision == "auto"
    given = NumpyOps()
    given.precision = "float64"
    assert devices.resolve(given, "tf32") == (given, "as given") and given.precision == "float64"


def test_a_gpu_beyond_the_last_one_is_told_how_many_there_are(gpus, monkeypatch):
    gpus(None)
    with pytest.warns(
        DeviceFallbackWarning,
        match=r"'cuda:3' is not available: there is no cuda:3; 1 GPU is visible, cuda:0. T",
    ):
        assert devices.resolve("cuda:3")[0].device == "cpu"
    gpus(None, None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,5")
    words = (
        r"no cuda:2; 2 GPUs are visible, from cuda:0 to cuda:1 \(CUDA_VISIBLE_DEVICES=1,5\)\. XPNET_REQUIRE"
    )
    monkeypatch.setenv("XPNET_REQUIRE_CUDA", "1")
    with pytest.raises(RuntimeError, match=words):
        devices.resolve("cuda:2")
    assert devices.resolve("cuda:1")[0].device == "cuda:1"


def test_no_gpu_at_all_is_no_gpu_zero_either(gpus):
    gpus()
    ops, reason = devices.resolve("auto")
    assert ops.device == "cpu" and reason == "no GPU: there is no cuda:0; 0 GPUs are visible"


def test_auto_takes_the_first_gpu_that_works(gpus):
    full = MemoryError("Out of memory allocating 512 bytes (allocated so far: 0 bytes).")
    gpus(full, RuntimeError("cudaErrorNoKernelImageForDevice"), None, None)
    assert devices.resolve("auto")[0].device == "cuda:2"
    with pytest.warns(DeviceFallbackWarning, match="the GPU's memory is full"):
        assert devices.resolve("cuda")[0].device == "cpu", "cuda is cuda:0, and no other"
    gpus(full, RuntimeError("cudaErrorNoKernelImageForDevice"))
    assert devices.resolve("auto")[1].startswith(
        "no GPU: CuPy is installed but no GPU works (the GPU's memory"
    )


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        (0, "no NVIDIA driver was found"),
        (11040, "the NVIDIA driver is too old: it runs CUDA 11.4 at most, and CuPy is made for CUDA 12.9"),
    ],
)
def test_no_driver_and_one_too_old_are_told_apart(gpus, driver, words):
    """CUDA says of both that the driver's version is insufficient."""
    said = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
    gpus(driver=driver, count=RuntimeError(said))
    ops, reason = devices.resolve("auto")
    assert reason == f"no GPU: CuPy is installed but no GPU works ({words}); `xpnet doctor` says what to do"


SAID = {
    "CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: cannot": "is missing: libnvrtc.so.12",
    'Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file': "toolkit is missing: libnvrtc.so.13",
    'Failure finding "libcublasLt.so.13 or libcublasLt.so.12": No such file': "missing: libcublasLt.so.13",
    "cuBLAS for CUDA 12 could not be loaded; pip install": "a part of the CUDA toolkit is missing",
    "Failed to find CUDA headers. Please install CUDA toolkit headers (e.g.": "toolkit is missing: headers",
    "Failed to auto-detect CUDA root directory. Please specify": "a part of the CUDA toolkit is missing",
    "nvrtc: error: invalid value for --gpu-architecture (-arch)": "too old, or too new",
    "cudaErrorNoDevice: no CUDA-capable device is detected": "the driver shows no GPU",
    "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy": "taken by another process",
    "cudaErrorMemoryAllocation: out of memory": "the GPU's memory is full",
    "Out of memory allocating 512 bytes (allocated so far: 0 bytes, limit set to: 1 bytes)": "the memory",
    "numpy.core.multiarray failed to import": "CuPy and NumPy do not go together",
    "numpy.dtype size changed, may indicate binary incompatibility": "CuPy and NumPy do not go together",
    "cudaErrorInitializationError: initialization error": "a process forked from one",
    "cudaErrorSystemNotReady: system not yet initialized": "the machine's GPUs are not ready",
    "cudaErrorSystemDriverMismatch: system has unsupported display driver": "parts of the driver",
    "cudaErrorOperatingSystem: OS call failed or operation not supported on this OS": "may not be opened",
    "module 'cupy' has no attribute 'cuda'": "not CuPy",
    "= Failed to import CuPy. CUDA headers? Original error: ImportError: no luck =": "ImportError: no luck",
    "something that nobody\nknows": "something that nobody knows",
}  # fmt: skip
"""What CuPy 13 and 14 say, and what it means."""


@pytest.mark.parametrize("said", SAID)
def test_what_cupy_says_is_told_as_what_it_means(said, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    text = devices.explain(said, 12090, 12090).text
    assert SAID[said] in text and len(text) < 100


def test_an_error_without_words_is_named():
    assert devices.explain(KeyError()).text == "KeyError"


def test_a_hidden_gpu_is_told_with_what_hides_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES='' in the environment" in devices.explain("cudaErrorNoDevice").text


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


@pytest.mark.parametrize("device", [None, 0, "cuda:", "cuda:x", "cuda:-1", "cuda:²", ""])
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


@pytest.fixture
def cards(monkeypatch):
    """The fake CuPy as the one that is installed, on a machine with two GPUs."""
    cupy = fake_cupy.cupy
    monkeypatch.setattr(cupy, "__spec__", importlib.machinery.ModuleSpec("cupy", None))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(fake_cupy.Machine, "devices", 2)
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    yield cupy
    for index in range(2):
        with cupy.cuda.Device(index):
            cupy.get_default_memory_pool().set_limit(size=0)


def limit_of(cupy, index):
    with cupy.cuda.Device(index):
        return cupy.get_default_memory_pool().get_limit()


@pytest.mark.parametrize(
    "limit, size", [("4GB", 4 * 10**9), ("512MiB", 512 << 20), ("1.5 GiB", 3 << 29), (1000, 1000), (None, 0)]
)
def test_a_memory_limit_is_read_as_people_write_it(limit, size, cards):
    set_memory_limit(limit, "cuda:1")
    assert [limit_of(cards, index) for index in (0, 1)] == [0, size], "of its own card alone"


def test_a_memory_limit_that_is_used_up_can_be_raised(cards):
    pool = cards.get_default_memory_pool()
    held = cards.zeros(1 << 16, np.uint8)
    set_memory_limit(pool.total_bytes())
    with pytest.raises(devices.NoDevice, match="the memory limit is used up"):
        devices._cuda(0)
    set_memory_limit(pool.total_bytes() + (2 << 20))
    assert cards.ones(1 << 18, np.float32).sum() == 1 << 18 and not held.any()
    set_memory_limit(None)
    assert limit_of(cards, 0) == 0


@pytest.mark.parametrize("limit", ["", "much", "4 parsecs", -1, 0, True, "0GB"])
def test_a_memory_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match=r"limit must be a number of bytes.*Received: "):
        set_memory_limit(limit)


@pytest.mark.parametrize("device", ["cpu", "auto", "banana", "cuda:"])
def test_a_memory_limit_is_that_of_a_gpu(device):
    with pytest.raises(ValueError, match=f"unknown device '{device}'|device.*{device}"):
        set_memory_limit("1GB", device)


def test_a_memory_limit_without_a_gpu_says_why(cards, broken_cupy):
    with pytest.raises(RuntimeError, match="no memory limit can be set: CuPy is installed but no GPU works"):
        set_memory_limit("1GB")


def test_a_memory_limit_of_a_gpu_that_is_not_there_says_why(cards):
    with pytest.raises(RuntimeError, match="can be set: there is no cuda:2; 2 GPUs are visible, from cuda:0"):
        set_memory_limit("1GB", "cuda:2")
