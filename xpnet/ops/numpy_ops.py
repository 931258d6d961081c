"""The CPU: where NumPy can be had faster than the plain operation, and how.

Each override is one of four ideas.  Convolution reads the feature map in place (`columns_view`) instead of
copying its patches.  Work is done in row blocks that stay in a core's L2 cache.  Large temporaries come from
a pool.  Sums over long runs go to BLAS.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache

import numpy as np

from .geometry import Window
from .memory import SMALL, aligned_zeros, pool
from .reference import Ops, philox_bits

CACHE = 1 << 19  # bytes of a block that should stay in a core's L2 cache between two passes over it
UPDATE_BLOCK = 1 << 16  # elements of the flat buffers an optimizer touches at once: five arrays of 256 KiB
LONG = 64  # from this many rows (KH*C) on, a matmul on the map in place beats one on shifted copies


class NumpyOps(Ops):
    """Operations on NumPy arrays, one replica."""

    name = "numpy"
    in_host_memory = True

    def __init__(self):
        super().__init__(np, "cpu")

    empty = staticmethod(pool.empty)

    def asarray(self, a, dtype=None):
        return np.asarray(a, dtype=dtype)

    def to_host(self, a):
        return np.asarray(a)

    def like(self, a):
        if a.nbytes < SMALL or not (a.flags.c_contiguous or a.flags.f_contiguous):
            return np.empty_like(a)
        return pool.empty(a.shape, a.dtype) if a.flags.c_contiguous else pool.empty(a.shape[::-1], a.dtype).T

    def unpack(self, x):
        out = np.empty(
            x.shape[3:] + x.shape[1:2] + x.shape[:1] + x.shape[2:3], x.dtype
        )  # the user's: not of the pool
        out[...] = x.transpose(3, 1, 0, 2)
        return out

    def pad(self, x, padding, value=0.0):
        (top, bottom), (left, right) = padding
        if value or x.nbytes >= SMALL or not (top or bottom or left or right):
            return super().pad(x, padding, value)
        H, C, W, N = x.shape
        out = np.zeros((top + H + bottom, C, left + W + right, N), x.dtype)  # two calls for five
        out[top : top + H, :, left : left + W] = x
        return out

    # -- convolution: reads the map in place, or with its kernel columns side by side ------------------------

    def conv2d(self, x, w, window: Window, groups: int = 1, bias=None, function=None):
        KW, F, KH, C = w.shape
        OH, OW = window.positions(x)
        y = self.empty((OH, F, OW, x.shape[3]), x.dtype)
        step = min(self._row_block(y), OH)
        route = self._route(w, window, groups)
        if route == "in place":
            matrices = [w[j].reshape(F, -1) for j in range(KW)]
            views = [columns_view(x, j, KH, OH, OW, window.strides[0]) for j in range(KW)]
            part = self.empty((step, F, views[0].shape[2]), x.dtype)
        elif route == "side by side":
            matrices = [_beside(w)]
            views = [rows_view(self.columns_beside(x, window, OW), KH, OH, window.strides[0])]
        else:
            matrices = [self.weight_matrix(w, groups)]
        for r in range(0, OH, step):
            rows = y[r : r + step]
            if route == "copied":
                cols = self.im2col(_rows_under(x, r, len(rows), window), window, groups)
                np.matmul(matrices[0], cols, out=rows.reshape(len(rows), groups, F // groups, -1))
            else:
                out = rows.reshape(len(rows), F, -1)
                np.matmul(matrices[0], views[0][r : r + step], out=out)
                for matrix, view in zip(matrices[1:], views[1:]):
                    out += np.matmul(matrix, view[r : r + step], out=part[: len(rows)])
            self._finish_rows(rows, bias, function)  # while they lie in the cache
        return y

    def conv2d_weight_grad(self, x, dz, dw, window: Window, groups: int = 1):
        OH, F, OW, N = dz.shape
        KW, _, KH, C = dw.shape
        route = self._route(dw, window, groups)
        if route == "in place":
            for j in range(KW):
                d = self._row_products(dz, columns_view(x, j, KH, OH, OW, window.strides[0]))
                dw[j] = d.reshape(F, KH, C)
            return
        if route == "side by side":
            view = rows_view(self.columns_beside(x, window, OW), KH, OH, window.strides[0])
            dw[...] = self._row_products(dz, view).reshape(F, KH, KW, C).transpose(2, 0, 1, 3)
            return
        total = np.zeros((groups, F // groups, KW * KH * C), dz.dtype)
        step = self._row_block(dz)
        for r in range(0, OH, step):
            rows = dz[r : r + step]
            cols = self.im2col(_rows_under(x, r, len(rows), window), window, groups)
            d = rows.reshape(len(rows), groups, F // groups, OW * N)
            total += np.matmul(d, cols.swapaxes(2, 3)).sum(axis=0)
        dw[...] = total.reshape(groups, F // groups, KW, KH, C).transpose(2, 0, 1, 3, 4).reshape(dw.shape)

    def conv2d_input_grad(self, dz, w, shape, window: Window, groups: int = 1):
        if groups > 1 or window.dilation[0] > 1:
            return super().conv2d_input_grad(dz, w, shape, window, groups)
        OH, F, OW, N = dz.shape
        KW, _, KH, C = w.shape
        H, _, W, _ = shape
        (top, bottom), (left, right) = window.padding
        if dz.nbytes < SMALL and window.strides == window.dilation == (1, 1):
            # small: fewer calls by the same convolution of dz in a border of zeros, with the kernel turned
            border = ((KH - 1 - top, KH - 1 - bottom), (KW - 1 - left, KW - 1 - right))
            if min(map(min, border)) >= 0:
                turned = np.ascontiguousarray(w[::-1, :, ::-1].transpose(0, 3, 2, 1))
                return self.conv2d(self.pad(dz, border), turned, Window((KH, KW)))
        # the adjoint of reading with the columns side by side: patches are added row by row, then folded
        # column by column
        beside = self.empty((top + H + bottom, KW * C, OW * N), dz.dtype)
        beside[...] = 0
        back, SH = np.ascontiguousarray(_beside(w).T), window.strides[0]
        step = max(1, CACHE // (back.shape[0] * dz[0, 0].nbytes))
        for r in range(0, OH, step):
            rows = dz[r : r + step].reshape(-1, F, OW * N)
            patches = self.empty((len(rows), KH, KW * C, OW * N), dz.dtype)
            np.matmul(back, rows, out=patches.reshape(len(rows), -1, OW * N))
            for i in range(KH):
                start = r * SH + i
                beside[start : start + (len(rows) - 1) * SH + 1 : SH] += patches[:, i]
        beside = beside.reshape(-1, KW, C, OW, N)[top : top + H]
        dx = self.empty(shape, dz.dtype)
        dx[...] = 0
        for j in range(KW):
            shift, SW = j * window.dilation[1] - left, window.strides[1]
            first, last = max(0, -(shift // SW)), min(OW, -((shift - W) // SW))  # those that meet the map
            if first < last:
                dx[:, :, shift + first * SW : shift + (last - 1) * SW + 1 : SW] += beside[:, j, :, first:last]
        return dx

    def columns_beside(self, x, window: Window, OW: int):
        """x (H, C, W, N) once for each kernel column, shifted, side by side: (H, KW*C, OW*N).

        KW times the map where im2col copies KH*KW times; the patches of an output row are one window on it.
        """
        H, C, _, N = x.shape
        KW, DW, SW = window.kernel[1], window.dilation[1], window.strides[1]
        row, channel, column, sample = x.strides
        strides = (row, DW * column, channel, SW * column, sample)
        out = self.empty((H, KW, C, OW, N), x.dtype)
        out[...] = np.ndarray(out.shape, x.dtype, x, 0, strides)
        return out.reshape(H, KW * C, OW * N)

    def _row_products(self, dz, view):
        """Sum over output rows of dz[r] (F, OW*N) @ view[r]' (OW*N, K): a weight gradient (F, K)."""
        OH, F, OW, N = dz.shape
        products = self.empty((OH, F, view.shape[1]), dz.dtype)
        return np.matmul(dz.reshape(OH, F, OW * N), view.transpose(0, 2, 1), out=products).sum(axis=0)

    @staticmethod
    def _route(w, window: Window, groups: int) -> str:
        """How a map is read: "in place", its kernel columns "side by side", or its patches "copied"."""
        if groups > 1 or window.dilation[0] > 1:
            return "copied"
        long = w.shape[2] * w.shape[3] >= LONG and window.strides[1] == window.dilation[1] == 1
        return "in place" if long else "side by side"

    @staticmethod
    def _row_block(y) -> int:
        """Rows of y (OH, F, OW, N) that make a block for the cache."""
        return max(1, CACHE // max(1, y[0].nbytes))

    # -- pooling: a window is a row of columns, so its maximum is one over columns and then one over rows ----

    def max_pool(self, x, window: Window):
        OH, OW = window.positions(x)
        y = self.empty((OH, x.shape[1], OW, x.shape[3]), x.dtype)
        step = self._row_block(x)
        for r in range(0, OH, step):
            rows = y[r : r + step]
            wide = self._max_columns(_rows_under(x, r, len(rows), window), window, OW)
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
        step = self._row_block(x) if apart else OH
        for r in range(0, OH, step):
            dyr, yr = dy[r : r + step], y[r : r + step]
            xr, dxr = _rows_under(x, r, len(yr), window), _rows_under(dx, r, len(yr), window)
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

    # -- sums, functions, the optimizer's side ---------------------------------------------------------------

    def feature_sum(self, a, out=None):
        if a.ndim == 2:
            return np.matmul(_filled(1, len(a), a.dtype), a, out=out)
        H, C, W, N = a.shape
        runs = a.reshape(H * C, W * N) @ _filled(1, W * N, a.dtype)
        return runs.reshape(H, C).sum(axis=0, out=out)

    def random_bits(self, key, layer, step, shape):
        return philox_bits(key, layer, step, 0, math.prod(shape)).reshape(shape)

    def relu(self, z, out):
        # a row of zeros: np.maximum takes three times as long with a scalar (measured with NumPy 2.4)
        zeros = _filled(0, math.prod(z.shape[z.ndim // 2 :]), z.dtype)
        return np.maximum(z, zeros.reshape(z.shape[z.ndim // 2 :]), out=out)

    def erf(self, x):
        from scipy.special import erf  # comes with scikit-learn; loaded when a GELU first runs

        return erf(x)

    def blocks(self, start, stop):
        return [slice(a, min(a + UPDATE_BLOCK, stop)) for a in range(start, stop, UPDATE_BLOCK)]

    def squared_norm(self, g):
        return float(np.dot(g, g))

    def flat(self, count: int, dtype):
        return aligned_zeros(count, dtype)

    def replicas(self, shares: list[slice]) -> list[ReplicaOps]:
        """Operations for each share of a batch, which add up what must be summed over all of it."""
        meeting = _Meeting(len(shares))
        return [ReplicaOps(rank, shares, meeting) for rank in range(len(shares))]


def columns_view(x, j: int, KH: int, OH: int, OW: int, SH: int = 1):
    """The im2col matrices of kernel column j, without a copy: x (H, C, W, N) -> view (OH, KH*C, OW*N).

    In (H, C, W, N) the patch rows of one output row, KH image rows of C channels, follow each other at one
    stride, W*N; and along a row OW output columns of N samples are one run.  So the matrix of output row r is
    a window on the memory itself, and that of row r+1 begins SH image rows later: neighbouring matrices
    overlap.  A matmul reads them as they stand, and KW of them, one a kernel column, make the convolution:

        y[r] = sum_j  w[j] (F, KH*C)  @  columns_view(x, j)[r] (KH*C, OW*N)
    """
    H, C, W, N = x.shape
    row, channel, column, _ = x.strides
    return np.ndarray((OH, KH * C, OW * N), x.dtype, x, j * column, (SH * row, channel, x.itemsize))


def rows_view(beside, KH: int, OH: int, SH: int):
    """The im2col matrices of all kernel columns, on `columns_beside` (H, K, M): view (OH, KH*K, M)."""
    H, K, M = beside.shape
    row, line, item = beside.strides
    return np.ndarray((OH, KH * K, M), beside.dtype, beside, 0, (SH * row, line, item))


def _beside(w):
    """w (KW, F, KH, C) -> (F, KH*KW*C): a row a filter, in the order of `rows_view`."""
    return w.transpose(1, 2, 0, 3).reshape(w.shape[1], -1)


def _rows_under(x, r: int, count: int, window: Window):
    """The image rows under output rows r .. r+count."""
    start = r * window.strides[0]
    return x[start : start + (count - 1) * window.strides[0] + window.extent[0]]


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


@lru_cache(256)
def _filled(value: int, count: int, dtype):
    """A vector of one value, kept: nobody writes it."""
    made = np.full(count, value, dtype)
    made.flags.writeable = False
    return made


class _Meeting:
    """Where the replicas of a step add up small arrays: each lays its part down, all wait, each sums in one
    order.
    """

    def __init__(self, count: int):
        self.barrier = threading.Barrier(count)
        self.parts: list = [None] * count

    def sum(self, rank: int, part):
        self.parts[rank] = part
        self.barrier.wait()
        total = self.parts[0].copy()
        for other in self.parts[1:]:
            total += other
        self.barrier.wait()  # nobody lays down the next part before everybody has read this one
        return total


class ReplicaOps(NumpyOps):
    """The operations of one replica of a training step: its samples are one share of the batch."""

    def __init__(self, rank: int, shares: list[slice], meeting: _Meeting):
        super().__init__()
        self.rank, self.share, self.whole, self._meeting = rank, shares[rank], shares[-1].stop, meeting

    def batch_sum(self, a):
        return self._meeting.sum(self.rank, a)

    def batch_size(self, n):
        return self.whole

    @property
    def leads(self):
        return self.rank == 0

    def abort(self) -> None:
        """Wake the others with an error: this replica will not come."""
        self._meeting.barrier.abort()

    def random_bits(self, key, layer, step, shape):
        if len(shape) == 2:  # the samples of a share follow each other
            return philox_bits(key, layer, step, self.share.start * shape[1], math.prod(shape)).reshape(shape)
        whole = shape[:-1] + (self.whole,)
        return super().random_bits(key, layer, step, whole)[..., self.share]
