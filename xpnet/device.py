"""Which device a model runs on: "cpu", "cuda", "cuda:1" or "auto", and what to do where there is no GPU."""

from __future__ import annotations

import importlib.util
import os

from .errors import DeviceFallbackWarning, unknown, warn
from .ops.numpy_ops import NumpyOps
from .ops.reference import Ops

INSTALL = "pip install 'xpnet[cuda12]' (or 'xpnet[cuda13]', as the driver allows)"


def resolve(device: str | Ops, precision: str = "auto") -> tuple[Ops, str]:
    """The operations for a device, and a sentence on why this device."""
    if isinstance(device, Ops):
        return device, "as given"
    name = str(device).lower()
    if not isinstance(device, str) or not (
        name in ("auto", "cpu", "cuda") or (name[:5] == "cuda:" and name[5:].isdigit())
    ):
        raise unknown("device", device, ("auto", "cpu", "cuda", "cuda:0"))
    if name == "cpu":
        return NumpyOps(), "as asked"
    try:
        ops = _cuda(int(name[5:] or 0) if name != "auto" else 0, precision)
    except NoDevice as reason:
        if name != "auto":
            message = f"device={device!r} is not available: {reason}"
            if os.environ.get("XPNET_REQUIRE_CUDA") == "1":
                raise RuntimeError(f"{message}. XPNET_REQUIRE_CUDA=1 forbids the CPU instead") from None
            warn(f"{message}. Training on the CPU instead", DeviceFallbackWarning)
        return NumpyOps(), f"no GPU: {reason}"
    return ops, "as asked" if name != "auto" else "a working GPU was found"


class NoDevice(Exception):
    """Why there is no GPU to use; the message ends in what would help."""


def _cuda(index: int, precision: str = "auto") -> Ops:
    """Operations on GPU number index, tried out; NoDevice says what is missing."""
    if importlib.util.find_spec("cupy") is None:
        raise NoDevice(f"CuPy is not installed; {INSTALL}")
    try:
        from .ops.cupy_ops import CupyOps

        return CupyOps(index, precision)
    except Exception as error:  # CuPy and the driver fail in many ways, and each means the same here
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NoDevice(
            f"CuPy is installed but no GPU works ({reason}); `xpnet doctor` says what is missing"
        ) from error
