"""Convolution with 3x3 kernels by fewer multiplications: Winograd's minimal filtering.

An m x m tile of the output takes 9 m^2 multiplications for each channel and filter where patches are summed,
and t^2 = (m + 2)^2 by

    Y = A' [ (G w G') * (B' d B) ] A        d: the t x t inputs under the tile;  *: element by element

which is 2.25 times fewer for m = 2 and 4 times fewer for m = 4.  Summed over channels the product is t^2
matmuls (F, C) @ (C, tiles).  Lavin & Gray, 2015, "Fast Algorithms for Convolutional Neural Networks", eq. 8
to 12.  The gradients are the adjoint,

    dw = G' [ (A dY A') (B' d B)' ] G ,     and dx is the convolution of dz with the kernel turned.

Here a transform is itself one matmul: B' d B of a flattened tile is (B' x B') d, with the Kronecker product,
and BLAS multiplies by that t^2 x t^2 matrix in less time than NumPy adds t^2 arrays.  So a block of tiles
takes five calls: gather, transform, multiply, transform, scatter.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .memory import pool, strided

BLOCK = 1 << 23  # bytes of transformed tiles and their products that are worked on together
LEAST = 128  # columns of a block at least, and
MOST = 384  # at most: enough for a matmul, few enough calls, and small enough for a cache


class Form(NamedTuple):
    """F(m x m, 3 x 3): the transforms as matrices for flattened tiles, t = m + 2."""

    m: int
    kernel: np.ndarray  # G x G: (t*t, 9)
    input: np.ndarray  # B' x B': (t*t, t*t)
    output: np.ndarray  # A' x A': (m*m, t*t)


@lru_cache
def form(m: int, dtype) -> Form:
    """F(2x2, 3x3) or F(4x4, 3x3): Lavin & Gray, 4.1 and 4.3, by the points 0, 1, -1, (2, -2,) infinity."""
    if m == 2:
        g = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2
        b = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
        a = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
    else:
        g = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
        b = np.array(
            [
                [4, 0, -5, 0, 1, 0],
                [0, -4, -4, 1, 1, 0],
                [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0],
                [0, 2, -1, -2, 1, 0],
                [0, 4, 0, -5, 0, 1],
            ]
        )
        a = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
    return Form(m, *(np.kron(one, one).astype(dtype) for one in (g, b, a)))


def convolve(m: int, x, w, y, origin=(0, 0), finish=None, turned: bool = False) -> None:
    """y (OH, F, OW, N) = x (H, C, W, N) convolved with w (3, F, 3, C), its columns first.

    origin: row and column of x under the first output's kernel; beyond x, on every side, there are zeros.
    finish: called with output rows as soon as they are whole.  turned: w is turned about, and its filters are
    the channels of x: so the input gradient is made of dz.
    """
    f, (_, F, OW, _), C = form(m, x.dtype), y.shape, x.shape[1]
    kernel = f.kernel[:, ::-1] if turned else f.kernel
    U = pool.empty((len(f.input), *w.shape[1::2]), x.dtype)
    np.matmul(kernel, w.transpose(2, 0, 1, 3).reshape(9, -1), out=U.reshape(len(U), -1))
    U = U.transpose(0, 2, 1) if turned else U
    for tiles in blocks(m, y.shape, C):
        V = _transformed(f.input, x, tiles, m + 2, origin)
        M = pool.empty((F, len(U), tiles.columns), x.dtype)
        np.matmul(U, V.transpose(1, 0, 2), out=M.transpose(1, 0, 2))
        Y = np.matmul(f.output, M, out=pool.empty((F, m * m, tiles.columns), x.dtype))
        _scatter(Y, y, tiles)
        if finish is not None and tiles.right >= OW:
            finish(y[tiles.top : tiles.bottom])


def weight_gradient(m: int, x, dz, dw, origin=(0, 0)) -> None:
    """dL/dw into dw (3, F, 3, C), from dz (OH, F, OW, N), where y was made of x by `convolve`."""
    f, F, C = form(m, x.dtype), dz.shape[1], x.shape[1]
    total: Any = None
    for tiles in blocks(m, dz.shape, C):
        V = _transformed(f.input, x, tiles, m + 2, origin)
        Q = _transformed(f.output.T, dz, tiles, m, (0, 0))
        part = pool.empty((len(f.input), F, C), x.dtype)
        np.matmul(Q.transpose(1, 0, 2), V.transpose(1, 2, 0), out=part)
        total = part if total is None else np.add(total, part, out=total)
    dw[...] = (f.kernel.T @ total.reshape(len(f.input), -1)).reshape(3, 3, F, C).transpose(1, 2, 0, 3)


class Tiles(NamedTuple):
    """rows x cols output tiles of m x m for N samples, the first with its corner at (top, left)."""

    m: int
    top: int
    left: int
    rows: int
    cols: int
    N: int

    @property
    def columns(self) -> int:
        return self.rows * self.cols * self.N

    @property
    def bottom(self) -> int:
        return self.top + self.m * self.rows

    @property
    def right(self) -> int:
        return self.left + self.m * self.cols


def blocks(m: int, shape, C: int):
    """The output of this shape (OH, F, OW, N) in blocks of whole rows of tiles, or of parts of one."""
    OH, F, OW, N = shape
    TH, TW = -(-OH // m), -(-OW // m)
    columns = min(max(BLOCK // (4 * (m + 2) ** 2 * (C + F)), LEAST), MOST)
    cols = _even(TW, max(1, columns // N))
    rows = _even(TH, max(1, columns // (N * TW)))
    for r in range(0, TH, rows):
        for c in range(0, TW, cols):
            yield Tiles(m, r * m, c * m, min(rows, TH - r), min(cols, TW - c), N)


def _even(count: int, most: int) -> int:
    """The size of parts of count, of at most `most` each, that differ least."""
    return -(-count // -(-count // most))


def _transformed(matrix, x, tiles: Tiles, t: int, origin):
    """matrix @ the t x t pieces of x (H, C, W, N) under tiles: (C, len(matrix), columns).

    origin: where in x the piece of the tile at (0, 0) begins.
    """
    H, C, W, N = x.shape
    row, col = tiles.top + origin[0], tiles.left + origin[1]
    high, wide = tiles.m * (tiles.rows - 1) + t, tiles.m * (tiles.cols - 1) + t
    if row < 0 or col < 0 or row + high > H or col + wide > W:
        part = pool.empty((high, C, wide, N), x.dtype)
        top, bottom = max(0, -row), max(0, min(high, H - row))
        left, right = max(0, -col), max(0, min(wide, W - col))
        part[:top], part[bottom:] = 0, 0
        part[top:bottom, :, :left], part[top:bottom, :, right:] = 0, 0
        part[top:bottom, :, left:right] = x[row + top : row + bottom, :, col + left : col + right]
        x, row, col = part, 0, 0
    D = pool.empty((C, t * t, tiles.columns), x.dtype)
    _pieces(D, t, tiles)[...] = _windows(x, t, tiles, row, col)
    return np.matmul(matrix, D, out=pool.empty((C, len(matrix), tiles.columns), x.dtype))


def _scatter(Y, y, tiles: Tiles) -> None:
    """Output tiles Y (F, m*m, columns) to their places in y (OH, F, OW, N); what lies beyond y is dropped."""
    OH, F, OW, N = y.shape
    m = tiles.m
    if tiles.bottom <= OH and tiles.right <= OW:
        _windows(y, m, tiles, tiles.top, tiles.left)[...] = _pieces(Y, m, tiles)
        return
    part = pool.empty((m * tiles.rows, F, m * tiles.cols, N), y.dtype)
    _windows(part, m, tiles, 0, 0)[...] = _pieces(Y, m, tiles)
    rows = y[tiles.top : tiles.bottom, :, tiles.left : tiles.right]
    rows[...] = part[: rows.shape[0], :, : rows.shape[2]]


def _windows(x, t: int, tiles: Tiles, row: int, col: int):
    """The t x t pieces of x (H, C, W, N) under tiles, the first at (row, col), without a copy:
    (C, t, t, rows, cols).

    An element is a run of N samples, which NumPy then moves as one.
    """
    h, c, w, _ = x.strides
    shape, strides = (x.shape[1], t, t, tiles.rows, tiles.cols), (c, h, w, tiles.m * h, tiles.m * w)
    return strided(x, shape, strides, row * h + col * w, _run(x))


def _pieces(D, t: int, tiles: Tiles):
    """D (C, t*t, columns) as `_windows` has it."""
    return D.view(np.dtype((np.void, tiles.N * D.itemsize))).reshape(-1, t, t, tiles.rows, tiles.cols)


def _run(x):
    return np.dtype((np.void, x.shape[3] * x.itemsize))
