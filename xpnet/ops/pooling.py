"""Pooling on the CPU: first over a window's rows, in long runs of memory, and then over its columns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .convolution import row_block, rows_under
from .geometry import Window
from .reference import Ops

HALVING = ((2, 2), (2, 2))  # kernel and strides of the windows that nearly every network pools by


class Winners(NamedTuple):
    """Where in 2x2 windows side by side the first of the largest elements lies, in three bytes a window.

    upper (OH, C, 2*OW, N): whether the upper of two elements is the larger one, or as large.  left (OH, C,
    OW, N): whether the left column has the window's maximum.  shape: the map's.
    """

    upper: Any
    left: Any
    shape: tuple[int, ...]


class HostPooling(Ops):
    """Pooling of NumPy arrays."""

    def max_pool(self, x, window: Window):
        return self._fold(np.maximum, x, window)

    def max_pool_train(self, x, window: Window):
        if window[:2] != HALVING or window.dilation != (1, 1):
            return super().max_pool_train(x, window)
        (OH, OW), (_, C, _, N) = window.positions(x), x.shape
        y = self.empty((OH, C, OW, N), x.dtype)
        upper, left = self.empty((OH, C, 2 * OW, N), bool), self.empty(y.shape, bool)
        step = min(row_block(x), OH)
        tall, pair = self.empty((step, C, 2 * OW, N), x.dtype), self.empty((2, step, C, OW, N), x.dtype)
        for r in range(0, OH, step):
            rows, up, here = y[r : r + step], upper[r : r + step], left[r : r + step]
            top, bottom = _row_pairs(x, r, up)
            np.greater_equal(top, bottom, out=up)
            larger = np.maximum(top, bottom, out=tall[: len(rows)])
            pair[:, : len(rows)] = _columns(larger)
            a, b = pair[0, : len(rows)], pair[1, : len(rows)]
            np.maximum(a, b, out=rows)
            # of two equal columns the left one counts, unless its maximum is below and the other's above
            np.greater_equal(up[:, :, 0::2], up[:, :, 1::2], out=here)
            here &= a >= b
            here |= a > b
        return y, Winners(upper, left, x.shape)

    def max_pool_train_backward(self, dy, kept, window: Window):
        if not isinstance(kept, Winners):
            return super().max_pool_train_backward(dy, kept, window)
        upper, left, shape = kept
        dx = self.empty(shape, dy.dtype)
        OH, C, OW, N = dy.shape
        _clear_rest(dx, 2 * OH, 2 * OW)
        step = min(row_block(dx), OH)
        tall, pair = self.empty((step, C, 2 * OW, N), dy.dtype), self.empty((2, step, C, OW, N), dy.dtype)
        for r in range(0, OH, step):
            rows, up = dy[r : r + step], upper[r : r + step]
            part, d = pair[:, : len(rows)], tall[: len(rows)]
            _split(rows, left[r : r + step], part[0], part[1])
            _columns(d)[...] = part
            _split(d, up, *_row_pairs(dx, r, up))
        return dx

    def max_pool_backward(self, dy, x, y, window: Window):
        (KH, KW), (SH, SW) = window.kernel, window.strides
        OH, _, OW, _ = y.shape
        dx = self.empty(x.shape, x.dtype)
        apart = SH >= KH  # windows that share no row can go block by block
        # tiled: every element lies in one window, and is written once
        tiled = (SH, SW) == (KH, KW) and x.shape[0] == OH * KH and x.shape[2] == OW * KW
        if not tiled:
            dx[...] = 0
        step = row_block(x) if apart else OH
        for r in range(0, OH, step):
            dyr, yr = dy[r : r + step], y[r : r + step]
            xr, dxr = rows_under(x, r, len(yr), window), rows_under(dx, r, len(yr), window)
            columns = [window.columns(j, OW) for j in range(KW)]
            wide, dwide = (self.empty((*xr.shape[:2], OW, xr.shape[3]), x.dtype) for _ in range(2))
            _over(np.maximum, [xr[:, :, s] for s in columns], wide)
            if not tiled:
                dwide[...] = 0
            rows = [window.rows(i, len(yr)) for i in range(KH)]
            _share(dyr, yr, [wide[s] for s in rows], [dwide[s] for s in rows], add=not tiled)
            _share(
                dwide, wide, [xr[:, :, s] for s in columns], [dxr[:, :, s] for s in columns], add=not tiled
            )
        return dx

    def sum_pool(self, x, window: Window):
        return self._fold(np.add, x, window)

    def sum_pool_backward(self, dy, shape, window: Window):
        (KH, KW), strides = window.kernel, window.strides
        if strides != (KH, KW) or window.dilation != (1, 1):
            return super().sum_pool_backward(dy, shape, window)
        OH, C, OW, N = dy.shape
        dx = self.empty(shape, dy.dtype)
        _clear_rest(dx, KH * OH, KW * OW)
        tiles = dx[: KH * OH, :, : KW * OW]
        for i in range(KH):
            for j in range(KW):
                tiles[i::KH, :, j::KW] = dy
        return dx

    def _fold(self, ufunc, x, window: Window):
        """ufunc over the elements under each window: x (H, C, W, N) -> (OH, C, OW, N)."""
        (OH, OW), (_, C, W, N) = window.positions(x), x.shape
        y = self.empty((OH, C, OW, N), x.dtype)
        step = row_block(x)
        for r in range(0, OH, step):
            rows = y[r : r + step]
            under = rows_under(x, r, len(rows), window)
            tall = self.empty((len(rows), C, W, N), x.dtype)
            _over(ufunc, [under[window.rows(i, len(rows))] for i in range(window.kernel[0])], tall)
            _over(ufunc, [tall[:, :, window.columns(j, OW)] for j in range(window.kernel[1])], rows)
        return y


def _over(ufunc, views, out) -> None:
    """ufunc of all the views, in order, into out; a copy where there is one."""
    if len(views) == 1:
        out[...] = views[0]
        return
    ufunc(views[0], views[1], out=out)
    for view in views[2:]:
        ufunc(out, view, out=out)


def _row_pairs(x, r: int, up):
    """The upper and the lower rows of the windows of output rows r on, as long as up (rows, C, 2*OW, N)."""
    x = x[2 * r : 2 * (r + len(up)), :, : up.shape[2]]
    return x[0::2], x[1::2]


def _columns(tall):
    """tall (rows, C, 2*OW, N), contiguous, as its even and its odd columns: a view (2, rows, C, OW, N)."""
    rows, C, W, N = tall.shape
    return tall.reshape(rows, C, W // 2, 2, N).transpose(3, 0, 1, 2, 4)


def _split(d, first, a, b) -> None:
    """d to a where first is true and to b elsewhere, zeros to the other."""
    a[...] = first  # a product of mixed types converts through a buffer: 1.42 ms for 1.27 on mnist-cnn's map
    np.multiply(a, d, out=a)
    np.subtract(d, a, out=b)


def _clear_rest(dx, H: int, W: int) -> None:
    """Zeros in dx beyond H rows and W columns, which no window covers."""
    if dx.shape[0] > H:
        dx[H:] = 0
    if dx.shape[2] > W:
        dx[:, :, W:] = 0


def _share(dy, y, views, dviews, add: bool) -> None:
    """Give dy to the first of the views that equals y: what one takes is no longer there for the next.

    add: sum into dviews instead of writing them.
    """
    last = len(views) - 1
    for k, (view, dview) in enumerate(zip(views[:-1], dviews[:-1])):
        if add:
            taken = dy * (view == y)
            dview += taken
        else:
            taken = np.multiply(dy, view == y, out=dview)
        dy = np.subtract(dy, taken, out=None if add or k + 1 < last else dviews[last])
    if add:
        dviews[last][...] += dy
    elif dy is not dviews[last]:
        dviews[last][...] = dy
