"""Which device a model runs on: "cpu", "cuda", "cuda:1" or "auto", and what to do where there is no GPU."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from .errors import DeviceFallbackWarning, unknown, warn
from .ops.numpy_ops import NumpyOps
from .ops.reference import Ops

INSTALL = "pip install 'xpnet[cuda12]' (or 'xpnet[cuda13]', as the driver allows)"


def resolve(device: str | Ops, precision: str = "auto") -> tuple[Ops, str]:
    """The operations for a device, and a sentence on why this device.

    precision: what a GPU multiplies in; operations that are handed in keep their own.
    """
    if isinstance(device, Ops):
        return device, "as given"
    name = str(device).lower()
    if not isinstance(device, str) or not (
        name in ("auto", "cpu", "cuda") or (name[:5] == "cuda:" and name[5:].isdecimal())
    ):
        raise unknown("device", device, ("auto", "cpu", "cuda", "cuda:0"))
    if name == "cpu":
        return NumpyOps(), "as asked"
    try:
        if name == "auto":
            return _first_cuda(precision), "a working GPU was found"
        return _cuda(int(name[5:] or 0), precision), "as asked"
    except NoDevice as reason:
        if name != "auto":
            message = f"device={device!r} is not available: {reason}"
            if os.environ.get("XPNET_REQUIRE_CUDA") == "1":
                raise RuntimeError(f"{message}. XPNET_REQUIRE_CUDA=1 forbids the CPU instead") from None
            warn(f"{message}. Training on the CPU instead", DeviceFallbackWarning)
        return NumpyOps(), f"no GPU: {reason}"


class NoDevice(Exception):
    """Why there is no GPU to use; the message ends in what would help.  visible: how many GPUs CUDA shows."""

    def __init__(self, message: str, visible: int = 0):
        super().__init__(message)
        self.visible = visible


def _first_cuda(precision: str) -> Ops:
    """Operations on the first GPU that works: one may be full, too old or taken, and the next not."""
    try:
        return _cuda(0, precision)
    except NoDevice as reason:
        for index in range(1, reason.visible):
            with suppress(NoDevice):
                return _cuda(index, precision)
        raise


def _cuda(index: int, precision: str = "auto") -> Ops:
    """Operations on GPU number index, tried out; NoDevice says what is missing."""

    def make(cupy):
        from .ops.cupy_ops import CupyOps

        return CupyOps(index, precision)

    return _with_cupy(index, make)


def _with_cupy(index: int, work: Callable[[Any], Any]) -> Any:
    """work(cupy), where CuPy shows a GPU number index; NoDevice says what is missing, or why work failed."""
    if importlib.util.find_spec("cupy") is None:
        raise NoDevice(f"CuPy is not installed; {INSTALL}")
    runtime = driver = visible = 0
    try:
        import cupy

        cuda = cupy.cuda.runtime
        runtime, driver = cuda.runtimeGetVersion(), cuda.driverGetVersion()
        visible = cuda.getDeviceCount()
        if index < visible:
            return work(cupy)
    except Exception as error:  # CuPy and the driver fail in many ways, and each means the same here
        raise NoDevice(
            f"CuPy is installed but no GPU works ({explain(error, runtime, driver).text}); "
            "`xpnet doctor` says what to do",
            visible,
        ) from error
    limit = os.environ.get("CUDA_VISIBLE_DEVICES")
    raise NoDevice(
        f"there is no cuda:{index}; {'1 GPU is' if visible == 1 else f'{visible} GPUs are'} visible"
        + (f", from cuda:0 to cuda:{visible - 1}" if visible > 1 else ", cuda:0" if visible else "")
        + (f" (CUDA_VISIBLE_DEVICES={limit})" if limit is not None else ""),
        visible,
    )


class Reason(NamedTuple):
    """kind: one of the words of CAUSES, or "other".  text: a short sentence."""

    kind: str
    text: str


# What CuPy, CUDA and the loader say, and what it means.  In this order: the first that fits.
CAUSES = (
    ("driver", r"InsufficientDriver|UnsupportedPtx|libcuda\.so|nvcuda\.dll", "no NVIDIA driver was found"),
    ("hidden", r"cudaErrorNoDevice|no CUDA-capable device", "the driver shows no GPU"),
    ("busy", r"DevicesUnavailable", "the GPU is taken by another process, in exclusive mode"),
    ("limit", r"Out of memory.*limit set to", "the memory limit is used up"),
    ("memory", r"[Oo]ut of memory|MemoryAllocation|OUT_OF_MEMORY", "the GPU's memory is full"),
    (
        "old GPU",
        r"NoKernelImage|no kernel image|NO_BINARY_FOR_GPU|--gpu-architecture",
        "the GPU is too old, or too new, for this CuPy",
    ),
    (
        "toolkit",
        r"libnvrtc|libcublas|nvrtc64|cublas64|cuBLAS for CUDA|CUDA headers|CUDA root dir|open source file",
        "a part of the CUDA toolkit is missing",
    ),
    (
        "NumPy",
        r"multiarray|compiled (using|against) NumPy|numpy\.\w+ size changed|was removed in the NumPy|"
        r"module 'numpy' has no attribute",
        "CuPy and NumPy do not go together",
    ),
    ("fork", r"InitializationError", "CUDA does not work in a process forked from one that had used it"),
    ("not ready", r"SystemNotReady|system not yet initialized", "the machine's GPUs are not ready"),
    ("restart", r"DriverMismatch|unsupported display driver", "parts of the driver differ in their versions"),
    ("permission", r"[Pp]ermission|not permitted|ErrorOperatingSystem", "the GPU may not be opened"),
    ("not CuPy", r"module 'cupy' has no attribute", "what is found under the name cupy is not CuPy"),
)


def explain(error: Exception | str, runtime: int = 0, driver: int = 0) -> Reason:
    """What an error of CuPy means.

    runtime: the CUDA that CuPy is made for, 12090 for 12.9.  driver: the newest that the driver runs; 0 where
    there is no driver.
    """
    said = " ".join(str(error).split())
    if "Original error:" in said:  # a failed import of CuPy: a page of advice, and then what went wrong
        said = said.split("Original error:")[-1].strip(" =")
    kind, text = next(
        ((kind, text) for kind, words, text in CAUSES if re.search(words, said)),
        ("other", said or type(error).__name__),
    )
    limit = os.environ.get("CUDA_VISIBLE_DEVICES")
    if kind == "driver" and driver:
        text = (
            f"the NVIDIA driver is too old: it runs CUDA {dotted(driver)} at most, and CuPy is made for CUDA "
            f"{dotted(runtime)}"
        )
    elif kind == "hidden" and limit is not None:
        text += f", with CUDA_VISIBLE_DEVICES={limit!r} in the environment"
    elif kind == "toolkit":
        part = re.search(r"(lib)?(nvrtc|cublas)\w*(\.\w+)*|headers", said)
        text += f": {part[0]}" if part else ""
    return Reason(kind, text)


def dotted(version: int) -> str:
    """12090 -> "12.9" """
    return f"{version // 1000}.{version % 1000 // 10}"


UNITS = {"": 1, "B": 1} | {
    prefix + unit: base**power
    for power, prefix in enumerate("KMGT", 1)
    for unit, base in (("B", 1000), ("iB", 1024))
}


def set_memory_limit(limit: int | str | None, device: str = "cuda") -> None:
    """Let xpnet take at most so much of a GPU's memory, for the models made from now on.

    limit: bytes, "4GB", "512MiB", or None for no limit.  device: "cuda" (the first GPU) or "cuda:1".  It is
    the limit of CuPy's memory pool, which other users of CuPy in this process share; the environment variable
    CUPY_GPU_MEMORY_LIMIT sets it too.  Raises RuntimeError where there is no such GPU, ValueError for what is
    no size.
    """
    size, name = _bytes(limit), str(device).lower()
    if not re.fullmatch("cuda(:[0-9]+)?", name):
        raise unknown("device", device, ("cuda", "cuda:0"))
    index = int(name[5:] or 0)

    def set_limit(cupy):
        with cupy.cuda.Device(index):
            cupy.get_default_memory_pool().set_limit(size=size)

    try:
        _with_cupy(index, set_limit)
    except NoDevice as reason:
        raise RuntimeError(f"no memory limit can be set: {reason}") from None


def _bytes(limit) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?i?B?)", str(limit).strip(), re.IGNORECASE)
    unit = None
    if match:
        unit = next((size for name, size in UNITS.items() if name.lower() == match[2].lower()), None)
    if limit is None:
        return 0
    if isinstance(limit, bool) or not match or unit is None or not float(match[1]) * unit >= 1:
        raise ValueError(
            "limit must be a number of bytes, or None for no limit. Received: "
            f"{limit!r}. Expected: 4_000_000_000, '4GB' or '512MiB'"
        )
    return int(float(match[1]) * unit)
