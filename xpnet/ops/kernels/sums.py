"""Sums over everything but the features, and bias and activation with their gradients.

Vectors (N, D) may lie transposed in memory, as a matrix product leaves them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from . import _text

THREADS = 256  # of a block; reduce.cuh has the same
FILL = 1056  # blocks of 256 that 132 multiprocessors hold at once
LEAST = 1024  # elements for which a further block is worth while: four a thread, which load together

IDENTITY = "__device__ inline T activate(T z) { return z; }"
UNCHANGED = "__device__ inline T slope(T dy, T kept) { return dy; }"


class Walk(NamedTuple):
    """How blocks share out an array by features: A F B lanes and the strides are those of reduce.cuh."""

    grid: tuple[int, int, int]
    shape: tuple[int, int, int, int]
    strides: tuple[np.int64, np.int64, np.int64]
    workspace: int  # partial results in all

    @property
    def args(self):
        return *self.shape, *self.strides


def walk(a) -> Walk:
    """Of vectors (N, D) of any strides, or C-contiguous maps (H, C, W, N).  Their layout alone decides."""
    if a.ndim == 2:
        N, F = a.shape
        A, B = (1, N) if _transposed(a) else (N, 1)
    else:
        A, F, W, N = a.shape
        B = W * N
    columns = B == 1
    lanes = _power_of_two(min(F, 32) if columns else min(B, THREADS))
    tiles = max(1, -(-F // lanes) if columns else F)
    rows = -(-A * lanes // THREADS)  # for a block alone
    wanted = max(1, min(-(-FILL // tiles), A * B * (min(F, lanes) if columns else 1) // LEAST))
    parts = -(-rows // -(-rows // wanted)) if rows else 1  # evenly
    across = max(1, min(round(wanted / parts), -(-B // lanes)))
    keep = lanes if columns else 1
    return Walk((tiles, parts, across), (A, F, B, lanes), strides(a, a), tiles * parts * across * keep)


def strides(a, walked) -> tuple[np.int64, np.int64, np.int64]:
    """In elements, along the A, F and B of an array of the same shape."""
    if a.shape != walked.shape:
        raise ValueError(f"arrays of one shape are needed. Received: {a.shape} and {walked.shape}")
    steps = [np.int64(s // a.itemsize if n > 1 else 0) for n, s in zip(a.shape, a.strides)]
    if a.ndim == 2:
        n, d = steps
        return (np.int64(0), d, n) if _transposed(walked) else (n, d, np.int64(0))
    if not a.flags.c_contiguous:
        raise ValueError(f"maps must be C-contiguous. Received: shape {a.shape}, strides {a.strides}")
    H, C, W, N = a.shape
    return np.int64(C * W * N), np.int64(W * N), np.int64(1)


def _transposed(a) -> bool:
    """Whether the samples of vectors (N, D) lie next to each other."""
    return a.strides[0] == a.itemsize and len(a) > 1


def _power_of_two(n: int) -> int:
    """The least that is no less than n."""
    return 1 << max(n - 1, 0).bit_length()


def reduction(gpu, a, bytes_of_one: int = 8):
    """(walk of a, workspace, counters): what a kernel that sums by features needs."""
    w = walk(a)
    if w.grid[1] * w.grid[2] == 1:
        return w, None, None
    return w, gpu.empty(w.workspace * bytes_of_one // 8, np.float64), gpu.counters


@functools.cache
def _code(activate: str, slope: str) -> str:
    return f"{_text('reduce.cuh')}\n{activate or IDENTITY}\n{slope or UNCHANGED}"


def _launch(gpu, entry: str, w: Walk, args: tuple[Any, ...], dtype, activate: str = "", slope: str = ""):
    gpu.launch("sums", entry, w.grid, (THREADS, 1, 1), args, _code(activate, slope), T=str(dtype))


def feature_sum(gpu, a, out) -> None:
    """out (F,) = the sum of a (N, F) over the batch, or of a (H, F, W, N) over all but channels."""
    w, partials, counters = reduction(gpu, a)
    _launch(gpu, "feature_sum", w, (a, *w.args, partials, counters, out), a.dtype)


def finish(gpu, z, bias, activate: str, out=None) -> None:
    """z = activate(z + bias) in place; or into out, of z's shape, and z becomes z + bias.

    bias (F,) or None; activate: source of `__device__ inline T activate(T z)`, "" for none.
    """
    if not z.size:
        return
    w, out = walk(z), z if out is None else out
    _launch(gpu, "finish", w, (z, *w.args, out, *strides(out, z), bias), z.dtype, activate)


def finish_backward(gpu, dy, kept, dbias, slope: str) -> None:
    """dy = slope(dy, kept) in place, and dbias (F,) = its feature_sum.

    kept: of dy's shape, or None; dbias may be None.  slope: source of `__device__ inline T slope(T dy, T
    kept)`, "" for 1.
    """
    w, partials, counters = reduction(gpu, dy)
    steps = (np.int64(0),) * 3 if kept is None else strides(kept, dy)
    args = dy, *w.args, kept, *steps, partials, counters, dbias
    _launch(gpu, "finish_backward", w, args, dy.dtype, slope=slope)
