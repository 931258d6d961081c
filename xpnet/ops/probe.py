"""Whether CuPy works here.  A trial may crash, so `xpnet doctor` makes it in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import cublas


def try_cupy() -> dict[str, Any]:
    """What of the CUDA toolkit is there; then a sum, which CuPy compiles.

    missing: parts that are not there.  version: CuPy's.  runtime, driver: as `device.explain` takes them.
    works: whether nothing is missing and the sum is right.  memory: bytes, free and in all.  error: what CuPy
    raised, after which the rest is not looked at.
    """
    found: dict[str, Any] = {"missing": []}

    def part(name: str, load: Callable[[], Any]) -> None:
        try:
            load()
        except Exception:
            found["missing"].append(name)

    try:
        import cupy

        found["version"] = cupy.__version__
        cuda = cupy.cuda.runtime
        found["runtime"], found["driver"] = cuda.runtimeGetVersion(), cuda.driverGetVersion()
        part("NVRTC", lambda: cupy.cuda.nvrtc.getVersion())
        part("cuBLAS", lambda: cublas.load(cupy))
        if int(cupy.__version__.split(".")[0]) >= 14:  # earlier ones look elsewhere, and say so
            part("headers", _headers)
        a = cupy.ones(1000, "float32")
        found["works"] = float((a * 2 + 1).sum()) == 3000.0 and not found["missing"]
        found["memory"] = cuda.memGetInfo()
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    return found


def _headers() -> None:
    from cuda.pathfinder import find_nvidia_header_directory

    if not find_nvidia_header_directory("cudart"):
        raise FileNotFoundError("CUDA's headers")
