"""`xpnet doctor`: what is installed, what works, and the exact line that installs what is missing.

Each check stands alone and may fail in any way without ending the report.  What might crash or hang, the
NVIDIA driver and CuPy, is tried in a process of its own.
"""

from __future__ import annotations

import argparse
import glob
import importlib.metadata
import importlib.util
import json
import operator
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
OPTIONAL = {
    "matplotlib": ("pictures", "plot"),
    "jinja2": ("the report of a run", "plot"),
    "onnx": ("exchange of models", "onnx"),
}
OLDEST_DRIVER = "525"  # the first Linux driver that runs CUDA 12
OLDEST_CUPY = 13
OLDEST_GPU = {12: (5, 0), 13: (7, 5)}  # the least compute capability that a CUDA compiles for


class Line(NamedTuple):
    """label: what was looked at.  text: what was found.  fix: what to do about it, if anything."""

    label: str
    text: str
    fix: str = ""


class Driver(NamedTuple):
    """The NVIDIA driver.  cuda: the newest CUDA it runs, (12, 4).  gpus: a line for each that CUDA shows.

    installed: how many GPUs there are, shown or not, where nvidia-smi tells.  problem, fix: what is wrong.
    """

    version: str = ""
    cuda: tuple[int, int] | None = None
    gpus: tuple[str, ...] = ()
    installed: int = 0
    problem: str = ""
    fix: str = ""


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
    found["code"], found["error"] = code, (text.value or b"").decode() or f"cuInit answered {code}"
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

TRY_GPU = """
import json, warnings
warnings.simplefilter("ignore")
from xpnet.ops.probe import try_cupy
print(json.dumps(try_cupy()))
"""

TRAIN_A_LITTLE = """
import json, warnings
import numpy as np
warnings.simplefilter("ignore")
from xpnet import Sequential, layers
model = Sequential([layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)], input_shape=(1, 6, 6), seed=0)
model.compile("sgd", "sparse_categorical_crossentropy")
for _ in range(3):  # a GPU records the step at the second, and repeats it from the third on
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
    status, out, _ = run_command(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"], 20)
    rows = [[v.strip() for v in line.split(",")] for line in out.splitlines()] if status == 0 else []
    rows = [row for row in rows if len(row) == 3]
    cuda = divmod(asked["cuda"] // 10, 100) if isinstance(asked.get("cuda"), int) and asked["cuda"] else None
    if rows and cuda is None:
        banner = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", run_command(["nvidia-smi"], 20)[1])
        cuda = (int(banner[1]), int(banner[2])) if banner else None
    gpus = tuple(asked.get("gpus") or ())
    if "gpus" not in asked:
        gpus = tuple(
            f"{name}, {int(memory) / 1024:.0f} GiB" if memory.isdigit() else name for _, name, memory in rows
        )
    complaint = out.strip().splitlines()[0] if status > 0 and out.strip() else ""  # nvidia-smi's, if it fails
    problem, fix = diagnose_driver(asked, len(rows), complaint)
    return Driver(rows[0][0] if rows else "", cuda, gpus, len(rows), problem, fix)


CODES = {  # of cuInit
    802: "start NVIDIA's fabric manager (sudo systemctl start nvidia-fabricmanager)",
    803: "restart: the driver was updated while the old one ran",
    804: "take a GPU or a CUDA for which forward compatibility exists, or update the driver",
    999: "restart, or load the driver's module anew (sudo nvidia-modprobe -u)",
}
CONTAINER = "in a container: start it with access to the GPU (docker run --gpus all)"


def diagnose_driver(asked: dict[str, Any], installed: int, complaint: str) -> tuple[str, str]:
    """(what is wrong with the driver, what to do); ("", "") where it shows a GPU.

    asked: what ASK_DRIVER printed.  installed: how many GPUs nvidia-smi lists.  complaint: or what it said.
    """
    if asked.get("gpus"):
        return "", ""
    if "missing" in asked and installed:
        return f"nvidia-smi answers, but its library does not load: {asked['missing']}", CONTAINER
    files = device_files()
    if "missing" in asked and files:
        return (
            f"there is a GPU ({next(iter(files))}), but the driver's library is not: {asked['missing']}",
            f"{CONTAINER}; else install the whole driver (nvidia.com/drivers)",
        )
    if "missing" in asked:
        return (
            complaint or "not found: neither the driver's library (libcuda) nor nvidia-smi answers",
            "only if there is an NVIDIA GPU: install its driver (nvidia.com/drivers)",
        )
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    denied = {name: group for name, group in files.items() if group}
    if denied:
        group = next(iter(denied.values()))
        return (
            f"{', '.join(denied)} may not be opened",
            f"join the group {group} (sudo usermod -aG {group} $USER) and log in again",
        )
    if shown is not None and (installed or files):
        numbers = "0" if installed < 2 else f"numbers from 0 to {installed - 1}"
        return f"CUDA_VISIBLE_DEVICES={shown!r} shows no GPU", f"unset it, or set it to {numbers}"
    needed = sys.platform == "linux" and not os.path.exists("/dev/dxg")  # which WSL has instead
    if needed and not files and ("error" not in asked or asked.get("code") == 100):  # CUDA_ERROR_NO_DEVICE
        return (
            f"it is installed, but there is no /dev/nvidia0 ({asked.get('error') or 'no GPU found'})",
            f"{CONTAINER}; else load the driver's module (sudo nvidia-modprobe -u), or restart",
        )
    otherwise = "see whether nvidia-smi lists the GPU; after an update of the driver, restart"
    words = f"it does not work: {asked['error']}" if "error" in asked else "it runs, but shows no GPU"
    return words + (f" ({complaint})" if complaint else ""), CODES.get(asked.get("code", 0), otherwise)


def device_files() -> dict[str, str]:
    """The files by which Linux gives access to GPUs: "", or the group that may open one that we may not."""
    found = {}
    for name in sorted(glob.glob("/dev/nvidia[0-9]*")) + glob.glob("/dev/nvidiactl"):
        found[name] = "" if os.access(name, os.R_OK | os.W_OK) else _group(name)
    return found if any(name != "/dev/nvidiactl" for name in found) else {}


def _group(name: str) -> str:
    try:
        import grp

        return grp.getgrgid(os.stat(name).st_gid).gr_name
    except (ImportError, KeyError, OSError):
        return "video"


def capabilities(driver: Driver) -> list[tuple[int, int]]:
    """The compute capability of each GPU whose line tells it."""
    found = [re.search(r"compute capability (\d+)\.(\d+)", gpu) for gpu in driver.gpus]
    return [(int(match[1]), int(match[2])) for match in found if match]


def extra_for(driver: Driver) -> str | None:
    """The extra of xpnet that this driver and its GPUs can run; None where there is no driver, or one that is
    too old.

    A driver runs programs of its own CUDA and of every older one.
    """
    if driver.cuda is None or driver.cuda[0] < 12:
        return None
    old = any(capability < OLDEST_GPU[13] for capability in capabilities(driver))
    return "cuda13" if driver.cuda[0] >= 13 and not old else "cuda12"


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
    fix = driver.fix
    if driver.cuda is not None and driver.cuda[0] < 12:
        fix = f"too old for CuPy's CUDA 12: install driver {OLDEST_DRIVER} or later (nvidia.com/drivers)"
    lines = [Line("driver", text or "unknown", fix)]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver.gpus and len(driver.gpus) < driver.installed and shown is not None:
        few = f"CUDA_VISIBLE_DEVICES={shown!r} shows {len(driver.gpus)} of {driver.installed} GPUs"
        lines.append(Line("visible", few))
    for index, gpu in enumerate(driver.gpus):
        (capability,) = capabilities(driver._replace(gpus=(gpu,))) or [(8, 0)]
        fix = ""
        if capability < OLDEST_GPU[12]:
            gpu, fix = f"{gpu}, too old for CUDA 12", "train on the CPU, or on another GPU"
        elif capability < (8, 0):
            gpu += "\nfor float32 and float64; tf32 and bfloat16 begin with compute capability 8.0"
        lines.append(Line(f"cuda:{index}", gpu, fix))
    return lines


def cupy_wheels() -> dict[str, str]:
    """{name: version} of every installed distribution that provides CuPy."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if re.fullmatch(r"cupy(-cuda\d+x?|-rocm.*)?", name):
            found[name] = distribution.version
    return dict(sorted(found.items()))


def stray_cupy() -> str:
    """Where Python finds a `cupy` that nobody installed: the rest of an old one, or a file of that name."""
    spec = importlib.util.find_spec("cupy")
    return "" if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), "unknown")


def try_gpu() -> dict[str, Any]:
    """What `ops.probe.try_cupy` finds, in a process of its own; {} where CuPy is not installed."""
    return run_python(TRY_GPU, 120) if cupy_wheels() else {}


def check_cupy(driver: Driver, tried: dict[str, Any]) -> list[Line]:
    """CuPy's wheel, whether it suits the driver, and whether a sum on the GPU comes out right."""
    from ..device import dotted

    wheels, extra = cupy_wheels(), extra_for(driver)
    right = f"pip install 'xpnet[{extra}]'" if extra else ""
    if not wheels:
        stray = stray_cupy()
        if stray:
            return [Line("CuPy", f"not installed, but there is a {stray}", "rename it, or take it away")]
        if extra:
            return [Line("CuPy", "not installed: training uses the CPU", right)]
        return [Line("CuPy", "not installed; it would need an NVIDIA GPU with a working driver")]
    shown = ", ".join(f"{name} {version}" for name, version in wheels.items())
    replace = f"pip uninstall {' '.join(wheels)}" + (f" && {right}" if right else "")
    if len(wheels) > 1:
        return [Line("CuPy", f"{shown}: only one may be installed", replace)]
    (name, version), *_ = wheels.items()
    made_for = re.search(r"-cuda(\d+)x", name)
    cuda = int(made_for[1]) if made_for else 0
    if tried.get("works"):
        runtime, memory = tried.get("runtime"), tried.get("memory")
        text = f"{shown}, CUDA {dotted(runtime)}" if isinstance(runtime, int) else shown
        text += ", works"
        if memory:
            text += f", {memory[0] / 2**30:.3g} of {memory[1] / 2**30:.3g} GiB free"
        return [Line("CuPy", text)]
    problem, fix = diagnose_cupy(driver, tried, name, version, cuda, replace)
    return [Line("CuPy", f"{shown}, does not work: {problem}", fix)]


def diagnose_cupy(
    driver: Driver, tried: dict[str, Any], name: str, version: str, cuda: int, replace: str
) -> tuple[str, str]:
    """(what is wrong with CuPy, what to do).

    name, version, cuda: of its wheel.  replace: the line that takes another wheel instead.
    """
    from ..device import explain

    said = tried.get("error") or ""
    words = f" ({said})" if said else ""
    major = re.match(r"\d+", version)
    if major and int(major[0]) < OLDEST_CUPY:
        return f"xpnet needs CuPy {OLDEST_CUPY} or later{words}", replace
    if 0 < cuda < 12:
        return f"made for CUDA {cuda}, xpnet needs 12 or 13{words}", replace
    if driver.cuda is not None and cuda > driver.cuda[0]:
        newest = f"{driver.cuda[0]}.{driver.cuda[1]}"
        return f"made for CUDA {cuda}, the driver runs {newest} at most{words}", replace
    if cuda in OLDEST_GPU and any(gpu < OLDEST_GPU[cuda] for gpu in capabilities(driver)):
        return f"made for CUDA {cuda}, which does not know so old a GPU{words}", replace
    if unsuited := unsuited_numpy(name):
        return f"{unsuited}{words}", f"pip install --upgrade {name} numpy"
    reason = explain(said, tried.get("runtime") or 0, tried.get("driver") or 0)
    problem = reason.text if said else "a sum on the GPU came out wrong"
    fix = mend(reason.kind, name, driver, replace)
    if tried.get("missing"):
        parts = f"of the CUDA toolkit is missing: {', '.join(tried['missing'])}"
        toolkit = mend("toolkit", name, driver, replace)
        if not said or reason.kind == "toolkit":
            return parts, toolkit
        return f"{problem}\n{parts}", f"{fix}; then {toolkit}"
    return problem, fix


def mend(kind: str, name: str, driver: Driver, replace: str) -> str:
    """What to do about a failure of CuPy of this kind (of device.CAUSES)."""
    elsewhere = "(nvidia-smi lists them), or take another GPU, device='cuda:1'"
    if kind in ("driver", "hidden", "permission", "not ready", "restart"):
        return (
            "first the driver, above" if driver.fix else "restart, and see whether nvidia-smi lists the GPU"
        )
    return {
        "busy": f"end the program that holds it {elsewhere}",
        "memory": f"end other programs on the GPU {elsewhere}",
        "limit": "unset CUPY_GPU_MEMORY_LIMIT, or raise it",
        "old GPU": f"pip install --upgrade '{name}[ctk]'",
        "toolkit": f"pip install --upgrade '{name}[ctk]'",
        "NumPy": f"pip install --upgrade {name} numpy",
    }.get(kind, replace)


def unsuited_numpy(name: str) -> str:
    """What the distribution asks of NumPy's version, where the one installed does not fulfil it; else ""."""
    version = version_of("numpy") or ""
    try:
        asked = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    for line in asked:
        bounds = re.fullmatch(r"numpy\b([^;]*)", line)
        for sign, bound in re.findall(r"(<=?|>=?)\s*([\d.]+)", bounds[1] if bounds else ""):
            if not COMPARE[sign](_numbers(version), _numbers(bound)):
                return f"it needs numpy{sign}{bound}, and numpy {version} is installed"
    return ""


COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def _numbers(version: str) -> list[int]:
    """[2, 6, 0] of "2.6", "2.6.0" and "2.6.0rc1"."""
    return ([int(n) for n in re.findall(r"\d+", version)] + [0, 0, 0])[:3]


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
            f", although CuPy works ({tried.get('why')})" if gpu.get("works") else ""
        )
    return True, f"xpnet works: it trains on {device}"
