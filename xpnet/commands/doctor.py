"""`xpnet doctor`: what is installed, what works, and the exact line that installs what is missing.

Each check stands alone and may fail in any way without ending the report.  What might crash or hang, the
NVIDIA driver and CuPy, is tried in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

SUMMARY = "what is installed, what works, and what is missing"
DESCRIPTION = """\
Report on Python, NumPy and its BLAS, threads, the NVIDIA driver, CuPy, GPUs and data sets, with the exact
line that installs what is missing.  Exits with 0 if xpnet can train here, on whatever device.
"""
EXAMPLES = ""

REQUIRED = ("numpy", "safetensors", "scikit-learn", "threadpoolctl", "tqdm", "pooch")
OPTIONAL = {"matplotlib": ("pictures", "plot"), "onnx": ("exchange of models", "onnx")}
OLDEST_DRIVER = "525"  # the first Linux driver that runs CUDA 12


class Line(NamedTuple):
    """label: what was looked at.  text: what was found.  fix: what to do about it, if anything."""

    label: str
    text: str
    fix: str = ""


class Driver(NamedTuple):
    """The NVIDIA driver.  cuda: the newest CUDA it runs, (12, 4).  gpus: a line each."""

    version: str = ""
    cuda: tuple[int, int] | None = None
    gpus: tuple[str, ...] = ()
    problem: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 if xpnet is usable, else 1."""
    driver = _or(read_driver, Driver(problem="it could not be looked at"))
    gpu = _or(try_gpu, {"error": "it could not be tried"})
    print_section("xpnet", [checked("xpnet", check_python), *guarded("packages", check_packages)])
    print_section("CPU", [*guarded("BLAS", check_blas), checked("threads", check_threads)])
    print_section(
        "GPU",
        [
            *guarded("driver", lambda: check_driver(driver)),
            *guarded("CuPy", lambda: check_cupy(driver, gpu)),
        ],
    )
    print_section("optional", guarded("optional", check_optional))
    print_section("data sets", guarded("data sets", check_data))
    usable, verdict = _or(lambda: judge(gpu), (False, "xpnet could not be judged"))
    print(verdict)
    return 0 if usable else 1


# -- the report ----------------------------------------------------------------------------------------------


def print_section(title: str, lines: list[Line]) -> None:
    print(title)
    for label, text, fix in lines:
        first, *rest = text.splitlines() or [""]
        print(f"  {label:<13} {first}")
        for more in rest:
            print(f"  {'':<13} {more}")
        if fix:
            print(f"  {'':<13} -> {fix}")
    print()


def guarded(label: str, check: Callable[[], list[Line]]) -> list[Line]:
    """The lines of a check, or one that says how it failed."""
    try:
        return check()
    except Exception as error:  # whatever is wrong with this installation, the rest of the report must appear
        return [Line(label, f"the check failed: {type(error).__name__}: {error}")]


def checked(label: str, check: Callable[[], Line]) -> Line:
    return guarded(label, lambda: [check()])[0]


def _or(work: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return work()
    except Exception:
        return otherwise


# -- Python and packages -------------------------------------------------------------------------------------


def version_of(package: str) -> str | None:
    """The installed version; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_python() -> Line:
    from .. import __version__

    where = f"{platform.system()} {platform.machine()}"
    return Line(
        "xpnet",
        f"{__version__}, on Python {platform.python_version()}, {where}\n{sys.executable or 'unknown'}",
    )


def check_packages() -> list[Line]:
    """NumPy's version, and the other packages that xpnet cannot do without."""
    lines = []
    for name in REQUIRED:
        version = version_of(name)
        if version is None:
            lines.append(Line(name, "not installed, and needed", f"pip install {name}"))
        else:
            lines.append(Line(name, version))
    return lines


def check_optional() -> list[Line]:
    lines = []
    for name, (use, extra) in OPTIONAL.items():
        version = version_of(name)
        if version is None:
            lines.append(Line(name, f"not installed ({use})", f"pip install 'xpnet[{extra}]'"))
        else:
            lines.append(Line(name, f"{version} ({use})"))
    return lines


# -- CPU -----------------------------------------------------------------------------------------------------


def check_blas() -> list[Line]:
    """The BLAS behind NumPy, which decides how fast a CPU trains."""
    import numpy  # noqa: F401 - threadpoolctl sees only libraries that are loaded

    from ..ops.threads import blas_info

    found = blas_info()
    if not found:
        text = "unknown to threadpoolctl (Accelerate, say): its own threads do the work, xpnet adds none"
        return [Line("BLAS", text)]
    lines = []
    for library in found:
        text = f"{library.get('internal_api', 'unknown')} {library.get('version') or ''}".rstrip()
        if library.get("architecture"):
            text += f" for {library['architecture']}"
            if os.environ.get("OPENBLAS_CORETYPE"):
                text += " (set by OPENBLAS_CORETYPE: without it, it may choose faster kernels)"
        lines.append(Line("BLAS", f"{text}, {library.get('num_threads', '?')} threads"))
    return lines


def check_threads() -> Line:
    from ..ops.threads import available_cores, num_threads

    usable, cores = available_cores(), os.cpu_count() or 1
    text = f"{num_threads()}, on {usable} of {cores} cores"
    limits = [f"{name}={os.environ[name]}" for name in THREAD_LIMITS if os.environ.get(name)]
    return Line("threads", text + (f" (BLAS limited by {', '.join(limits)})" if limits else ""))


THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


# -- GPU -----------------------------------------------------------------------------------------------------

# Asks the driver's own library, without CUDA or CuPy installed.  76 and 75 are cuda.h's numbers for the
# compute capability; cuDriverGetVersion answers 1000 * major + 10 * minor.
ASK_DRIVER = """
import ctypes, json, sys
name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
try:
    cuda = ctypes.CDLL(name)
except OSError as error:
    print(json.dumps({"missing": str(error)}))
    sys.exit()
number = ctypes.c_int()
found = {"gpus": []}
if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
    found["cuda"] = number.value
code = cuda.cuInit(0)
if code:
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    found["error"] = (text.value or b"").decode() or f"cuInit answered {code}"
elif cuda.cuDeviceGetCount(ctypes.byref(number)) == 0:
    for index in range(number.value):
        device, memory = ctypes.c_int(), ctypes.c_size_t()
        title, major, minor = ctypes.create_string_buffer(200), ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(title, 200, device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
        found["gpus"].append(f"{title.value.decode()}, {memory.value / 2**30:.0f} GiB, "
                             f"compute capability {major.value}.{minor.value}")
print(json.dumps(found))
"""

# CuPy compiles this sum, so that a missing NVRTC or missing headers show too; then xpnet's own choice.
TRY_GPU = """
import json, warnings
warnings.simplefilter("ignore")
found = {}
try:
    import cupy
    found["version"] = cupy.__version__
    found["runtime"] = cupy.cuda.runtime.runtimeGetVersion()
    a = cupy.ones(1000, "float32")
    found["works"] = float((a * 2 + 1).sum()) == 3000.0
except Exception as error:
    found["error"] = type(error).__name__ + ": " + (" ".join(str(error).split()) or "no message")
print(json.dumps(found))
"""

TRAIN_A_LITTLE = """
import json, warnings
import numpy as np
warnings.simplefilter("ignore")
from xpnet import Sequential, layers
model = Sequential([layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)], input_shape=(1, 6, 6), seed=0)
model.compile("sgd", "sparse_categorical_crossentropy")
loss = model.train_on_batch(np.ones((4, 1, 6, 6), np.float32), np.array([0, 1, 0, 1]))
print(json.dumps({"device": model.device, "why": model.device_reason, "ok": bool(np.isfinite(loss))}))
"""


def run_command(command: list[str], seconds: float) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a program; code -1 where it could not be run or took too long."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        return -1, "", "not found"
    except subprocess.TimeoutExpired:
        return -1, "", f"no answer within {seconds:.0f} seconds"
    except OSError as error:
        return -1, "", str(error)
    return done.returncode, done.stdout, done.stderr


def run_python(code: str, seconds: float = 60) -> dict[str, Any]:
    """What the code prints last, as JSON, from a Python of its own; {"error": ...} where that went wrong."""
    status, out, err = run_command([sys.executable, "-c", code], seconds)
    try:
        found = json.loads(out.strip().splitlines()[-1])
        if isinstance(found, dict):
            return found
    except (IndexError, ValueError):
        pass
    last = (err.strip().splitlines() or ["no message"])[-1]
    return {"error": f"it crashed with signal {-status}" if status < -1 else last}


def read_driver() -> Driver:
    """What the driver's library says, and nvidia-smi for the rest."""
    asked = run_python(ASK_DRIVER)
    fields = "driver_version,name,memory.total"
    status, out, err = run_command(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"], 20
    )
    rows = [[v.strip() for v in line.split(",")] for line in out.splitlines()] if status == 0 else []
    rows = [row for row in rows if len(row) == 3]
    cuda = divmod(asked["cuda"] // 10, 100) if isinstance(asked.get("cuda"), int) else None
    if rows and cuda is None:
        banner = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", run_command(["nvidia-smi"], 20)[1])
        cuda = (int(banner[1]), int(banner[2])) if banner else None
    gpus = tuple(asked.get("gpus") or ()) or tuple(
        f"{name}, {int(memory) / 1024:.0f} GiB" if memory.isdigit() else name for _, name, memory in rows
    )
    problem = ""
    if "missing" in asked and not rows:
        problem = "not found: neither the driver's library (libcuda) nor nvidia-smi answers"
    elif "error" in asked:
        problem = f"it does not work: {asked['error']}"
    elif "missing" in asked:
        problem = f"nvidia-smi answers, but its library does not load: {asked['missing']}"
    elif not gpus:
        problem = "it runs, but shows no GPU" + (
            " (CUDA_VISIBLE_DEVICES hides them?)" if "CUDA_VISIBLE_DEVICES" in os.environ else ""
        )
    return Driver(rows[0][0] if rows else "", cuda, gpus, problem)


def extra_for(driver: Driver) -> str | None:
    """The extra of xpnet that this driver can run; None where there is no driver, or one that is too old.

    A driver runs programs of its own CUDA and of every older one.
    """
    if driver.cuda is None or driver.cuda[0] < 12:
        return None
    return "cuda13" if driver.cuda[0] >= 13 else "cuda12"


def check_driver(driver: Driver) -> list[Line]:
    text = ", ".join(
        part
        for part in (
            driver.version and f"NVIDIA {driver.version}",
            driver.cuda and f"runs CUDA up to {driver.cuda[0]}.{driver.cuda[1]}",
            driver.problem,
        )
        if part
    )
    fix = ""
    if driver.cuda is not None and driver.cuda[0] < 12:
        fix = f"too old for CuPy's CUDA 12: install driver {OLDEST_DRIVER} or later (nvidia.com/drivers)"
    elif driver.problem and driver.cuda is None:
        fix = "only if there is an NVIDIA GPU: install its driver (nvidia.com/drivers)"
    elif driver.problem and not driver.gpus:
        fix = "see whether nvidia-smi lists the GPU; after an update of the driver, restart"
    lines = [Line("driver", text or "unknown", fix)]
    lines += [Line(f"cuda:{index}", gpu) for index, gpu in enumerate(driver.gpus)]
    return lines


def cupy_wheels() -> dict[str, str]:
    """{name: version} of every installed distribution that provides CuPy."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if re.fullmatch(r"cupy(-cuda\d+x?|-rocm.*)?", name):
            found[name] = distribution.version
    return dict(sorted(found.items()))


def try_gpu() -> dict[str, Any]:
    """What CuPy says of itself: {"version", "runtime", "works"}, or "error"; {} where it is not installed."""
    return run_python(TRY_GPU, 120) if cupy_wheels() else {}


def check_cupy(driver: Driver, tried: dict[str, Any]) -> list[Line]:
    """CuPy's wheel, whether it suits the driver, and whether a sum on the GPU comes out right."""
    wheels, extra = cupy_wheels(), extra_for(driver)
    right = f"pip install 'xpnet[{extra}]'" if extra else ""
    if not wheels:
        if extra:
            return [Line("CuPy", "not installed: training uses the CPU", right)]
        return [Line("CuPy", "not installed; it would need an NVIDIA GPU with a working driver")]
    shown = ", ".join(f"{name} {version}" for name, version in wheels.items())
    remove = f"pip uninstall {' '.join(wheels)}"
    if len(wheels) > 1:
        return [Line("CuPy", f"{shown}: only one may be installed", f"{remove} && {right}".rstrip(" &"))]
    if tried.get("works"):
        runtime = tried.get("runtime")
        cuda = f", CUDA {runtime // 1000}.{runtime % 1000 // 10}" if isinstance(runtime, int) else ""
        return [Line("CuPy", f"{shown}{cuda}, works")]
    problem = tried.get("error") or "a sum on the GPU came out wrong"
    wheel = re.search(r"-cuda(\d+)x", next(iter(wheels)))
    fix = ""
    if wheel and driver.cuda is not None and int(wheel[1]) > driver.cuda[0]:
        problem = (
            f"made for CUDA {wheel[1]}, the driver runs {driver.cuda[0]}.{driver.cuda[1]} at most ({problem})"
        )
        fix = f"{remove} && {right}" if right else ""
    elif wheel and extra and int(wheel[1]) >= 12:
        # the wheel suits the driver: what is missing then is a part of the CUDA toolkit, which [ctk] brings
        fix = f"pip install --upgrade 'xpnet[cuda{wheel[1]}]'"
    elif right:
        fix = f"{remove} && {right}"
    return [Line("CuPy", f"{shown}, does not work: {problem}", fix)]


# -- data sets -----------------------------------------------------------------------------------------------


def check_data() -> list[Line]:
    """Where data sets are looked for, and which are there."""
    from ..datasets import cifar10, fashion_mnist, files, mnist

    root = files.data_root()
    if root is None:
        lines = [Line("XPNET_DATA", "not set; it may name a folder with data sets of your own")]
    else:
        lines = [Line("XPNET_DATA", str(root) if root.is_dir() else f"{root}, which does not exist")]
    lines.append(Line("cache", str(files.cache_folder(mnist.SOURCE).parent)))
    lines.append(Line("digits, blobs", "always there"))
    for name, source in (
        ("mnist", mnist.SOURCE),
        ("fashion-mnist", fashion_mnist.SOURCE),
        ("cifar10", cifar10.SOURCE),
    ):
        lines.append(checked(name, lambda name=name, source=source: Line(name, _where(name, source))))  # type: ignore[misc]
    return lines


def _where(name: str, source) -> str:
    from ..datasets import cifar10, files

    for folder in (*files.data_folders(source), files.cache_folder(source)):
        if all(any(files.variants(folder, file)) for file in source.files):
            return f"in {folder}"
        for inner in (folder, folder / cifar10.FOLDER) if name == "cifar10" else ():
            if all((inner / file).is_file() for file in (*cifar10.TRAIN, cifar10.TEST)):
                return f"in {inner}"
    return f"not here yet: `xpnet train {name}` downloads it into the cache"


# -- the verdict ---------------------------------------------------------------------------------------------


def judge(gpu: dict[str, Any]) -> tuple[bool, str]:
    """Whether xpnet trains here, by training, and on what."""
    tried = run_python(TRAIN_A_LITTLE, 120)
    if not tried.get("ok"):
        return (
            False,
            f"xpnet does not work here: {tried.get('error') or 'a training step gave no finite loss'}",
        )
    device = str(tried.get("device"))
    if device == "cpu":
        return True, "xpnet works: it trains on the CPU" + (
            "" if not gpu.get("works") else f", although CuPy works ({tried.get('why')})"
        )
    return True, f"xpnet works: it trains on {device}"
