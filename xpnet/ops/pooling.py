"""Pooling on the CPU: a window's maximum is one over columns and then one over rows."""

from __future__ import annotations

import numpy as np

from .convolution import row_block, rows_under
from .geometry import Window
from .reference import Ops


class HostPooling(Ops):
    """Pooling of NumPy arrays."""

    def max_pool(self, x, window: Window):
        OH, OW = window.positions(x)
        y = self.empty((OH, x.shape[1], OW, x.shape[3]), x.dtype)
        step = row_block(x)
        for r in range(0, OH, step):
            rows = y[r : r + step]
            wide = self._max_columns(rows_under(x, r, len(rows), window), window, OW)
            _maximum([wide[window.rows(i, len(rows))] for i in range(window.kernel[0])], rows)
        return y

    def _max_columns(self, x, window: Window, OW: int):
        wide = self.empty((x.shape[0], x.shape[1], OW, x.shape[3]), x.dtype)
        _maximum([x[:, :, window.columns(j, OW)] for j in range(window.kernel[1])], wide)
        return wide

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
            wide = self._max_columns(xr, window, OW)
            dwide = self.empty(wide.shape, wide.dtype)
            if not tiled:
                dwide[...] = 0
            rows = [window.rows(i, len(yr)) for i in range(KH)]
            _share(dyr, yr, [wide[s] for s in rows], [dwide[s] for s in rows], add=not tiled)
            columns = [window.columns(j, OW) for j in range(KW)]
            _share(
                dwide, wide, [xr[:, :, s] for s in columns], [dxr[:, :, s] for s in columns], add=not tiled
            )
        return dx


def _maximum(views, out) -> None:
    if len(views) == 1:
        out[...] = views[0]
        return
    np.maximum(views[0], views[1], out=out)
    for view in views[2:]:
        np.maximum(out, view, out=out)


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
