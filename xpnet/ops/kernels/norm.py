"""Batch normalization in training, as layers/norm.py: two launches forward, one for the running statistics,
two backward.

x, y, dy (N, F) or (H, F, W, N); all else (F,).
"""

from __future__ import annotations

import numpy as np

from . import _text
from .sums import THREADS, Walk, reduction, strides


def _launch(gpu, entry: str, w: Walk, args, dtype) -> None:
    gpu.launch("norm", entry, w.grid, (THREADS, 1, 1), args, _text("reduce.cuh"), T=str(dtype))


def forward(gpu, x, weight, bias, epsilon: float, y, mean, var, slope) -> None:
    """mean, var (biased) and slope = 1 / sqrt(var + epsilon) of x, and y = (x - mean) slope weight + bias."""
    w, partials, counters = reduction(gpu, x, 24)
    args = x, *w.args, np.float64(epsilon), partials, counters, mean, var, slope
    _launch(gpu, "norm_statistics", w, args, x.dtype)
    _launch(gpu, "norm_apply", w, (x, *w.args, y, *strides(y, x), mean, slope, weight, bias), x.dtype)


def running_statistics(gpu, mean, var, n: int, momentum: float, running, out) -> None:
    """out = momentum running + (1 - momentum) batch, each a (mean, var, number of batches); of the batch mean
    and the biased var of n elements are given.
    """
    args = mean, var, mean.size, np.float64(momentum), np.float64(n / (n - 1)), *running, *out
    grid = (-(-mean.size // THREADS), 1, 1)
    gpu.launch(
        "norm", "running_statistics", grid, (THREADS, 1, 1), args, _text("reduce.cuh"), T=str(mean.dtype)
    )


def backward(gpu, dy, x, mean, slope, weight, dweight, dbias, dx) -> None:
    """dweight, dbias and dx, of forward's x, mean and slope.

    dx lies as dy does in memory, and may be dy itself; None where it is not needed.
    """
    w, partials, counters = reduction(gpu, dy, 16)
    steps = strides(x, dy)
    args = dy, *w.args, x, *steps, mean, slope, partials, counters, dweight, dbias
    _launch(gpu, "norm_slopes", w, args, dy.dtype)
    if dx is None:
        return
    if strides(dx, dy) != w.strides:
        raise ValueError(f"dx must lie as dy does. Received: strides {dx.strides} and {dy.strides}")
    args = dy, *w.args, x, *steps, mean, slope, weight, dweight, dbias, dx
    _launch(gpu, "norm_input_grad", w, args, dy.dtype)
