"""Launches pool.cu: largest element and sum under windows.  Maps x (H, C, W, N) are padded already.

y is (OH, C, OW, N).
"""

from __future__ import annotations

import numpy as np

from ..geometry import Window
from .conv import layout_macros

THREADS = 256


def max_forward(gpu, x, y, window: Window) -> None:
    """y = the largest element under each window, NaN if there is one."""
    _launch(gpu, "max_forward", (x, y), x.shape, y.shape, y.size, window)


def max_backward(gpu, dy, x, y, dx, window: Window) -> None:
    """dx (like x, padded) = dy at the first largest element of each window, row-major."""
    H, C, W, N = x.shape
    # One window along an axis may as well have the whole axis to itself.
    SH, SW = window.strides
    strides = (H if y.shape[0] == 1 else SH, W if y.shape[2] == 1 else SW)
    if any(extent > stride for extent, stride in zip(window.extent, strides)):
        entry, count = "max_backward", dx.size
    else:
        entry, window = "max_backward_apart", window._replace(strides=strides)
        count = -(-H // strides[0]) * C * -(-W // strides[1]) * N
    _launch(gpu, entry, (dy, x, y, dx), x.shape, y.shape, count, window)


def sum_forward(gpu, x, y, window: Window) -> None:
    """y = the sum under each window."""
    _launch(gpu, "sum_forward", (x, y), x.shape, y.shape, y.size, window)


def sum_backward(gpu, dy, dx, window: Window) -> None:
    """dx (of x's shape, padded) = the sum of dy of the windows over each element."""
    _launch(gpu, "sum_backward", (dy, dx), dx.shape, dy.shape, dx.size, window)


def _launch(gpu, entry, arrays, shape, out_shape, count, window):
    """count: elements of the map that the threads share, `vector` for each of them."""
    (H, C, W, N), (OH, _, OW, _) = shape, out_shape
    vector, code = layout_macros(N, window, *arrays)
    if count:
        args = (*arrays, np.int64(count), C, H, W, OH, OW, N)
        grid = (-(-count // (THREADS * vector)),)
        gpu.launch("pool", entry, grid, (THREADS,), args, code, T=arrays[0].dtype.name)
