"""Pictures beyond their border, and pictures seen at other places than their pixels'.

N batch, C channels, H W height and width; arrays (N, C, H, W) of any memory order.
"""

from __future__ import annotations

import numpy as np

FILL_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


def extended(xp, a, rows: int, columns: int, mode: str, value=0):
    """a with so many rows above and below it and columns at its sides, a new array: numpy.pad.

    mode "constant" k k|a b c d|k k with k = value, "edge" a a|a b c d|d d, "reflect" c b|a b c d|c b,
    "symmetric" b a|a b c d|d c, "wrap" c d|a b c d|a b.
    """
    N, C, H, W = a.shape
    if mode != "constant":
        across = a.take(_folded(xp, W, columns, mode), axis=3)
        return across.take(_folded(xp, H, rows, mode), axis=2)
    out = xp.full_like(a, value, shape=(N, C, H + 2 * rows, W + 2 * columns))
    out[:, :, rows : rows + H, columns : columns + W] = a
    return out


def _folded(xp, n: int, beyond: int, mode: str):
    """The places 0 .. n - 1 at which the places -beyond .. n - 1 + beyond are looked up."""
    i = xp.arange(-beyond, n + beyond)
    if mode == "edge":
        return xp.clip(i, 0, n - 1)
    if mode == "wrap":
        return i % n
    if mode == "symmetric":
        i = i % (2 * n)
        return xp.minimum(i, 2 * n - 1 - i)
    period = max(2 * n - 2, 1)  # a single one is its own reflection
    i = i % period
    return xp.minimum(i, period - i) if n > 1 else i


def sampled(xp, a, rows, columns, nearest: bool):
    """(N, C, OH, OW): a at the places rows, columns (N, OH, OW), in pixels from the first, at least 0.

    Between pixels: the nearest one, or bilinear, the mean of the four around by their nearness, for which
    rows are below H - 1 and columns below W - 1.  Pictures have less than 2^24 pixels, which float32 counts.
    """
    N, C, H, W = a.shape
    flat = xp.ascontiguousarray(a.transpose(1, 0, 2, 3)).reshape(C, N * H * W)
    if nearest:
        rows, columns = rows + 0.5, columns + 0.5
    i, j = xp.floor(rows), xp.floor(columns)
    at = (i * W + j).astype(np.int64)
    at += xp.arange(N).reshape(N, 1, 1) * (H * W)
    if nearest:
        return flat.take(at, axis=1).transpose(1, 0, 2, 3)
    down, right = ((exact - whole).astype(a.dtype, copy=False) for exact, whole in ((rows, i), (columns, j)))

    def between(at):
        return _between(flat.take(at, axis=1), flat.take(at + 1, axis=1), right)

    return _between(between(at), between(at + W), down).transpose(1, 0, 2, 3)


def _between(a, b, share):
    """a (1 - share) + b share, in a's memory; b's is used up."""
    b -= a
    b *= share
    a += b
    return a
