"""Conversion to and from bfloat16, which NumPy and CuPy lack: its bits travel as uint16."""

from __future__ import annotations

import numpy as np

from .layout import aligned

THREADS = 256


def to_bfloat16(gpu, x, out) -> None:
    """x rounded to the nearest, ties to even -> out (uint16), both contiguous in one order; NaN stays NaN."""
    if x.size:
        args = (x, out, np.int64(x.size), int(aligned(x, out)))
        gpu.launch("cast", "to_bfloat16", (-(-x.size // (4 * THREADS)),), (THREADS,), args, T=x.dtype.name)


def from_bfloat16(gpu, x, out) -> None:
    """x (uint16), bits of bfloat16 -> out, exactly."""
    if x.size:
        args = (x, out, np.int64(x.size))
        gpu.launch(
            "cast", "from_bfloat16", (-(-x.size // (4 * THREADS)),), (THREADS,), args, T=out.dtype.name
        )
