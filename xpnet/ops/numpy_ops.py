"""The CPU: where NumPy can be had faster than the plain operation, and how.

Each override is one of four ideas.  Convolution reads the feature map in place (`columns_view`) instead of
copying its patches.  Work is done in row blocks that stay in a core's L2 cache.  Large temporaries come from
a pool.  Sums over long runs go to BLAS.
"""

from __future__ import annotations

import threading

import numpy as np

from .geometry import Window
from .memory import SMALL, aligned_zeros, pool
from .reference import Ops, philox_bits

CACHE = 1 << 19  # bytes of a block that should stay in a core's L2 cache between two passes over it
UPDATE_BLOCK = 1 << 14  # elements of the flat buffers an optimizer touches at once: five arrays of 64 KiB
THIN = 16  # below this many rows (KH*C) a matmul on views is slower than one on copied patches


class NumpyOps(Ops):
    """Operations on NumPy arrays, one replica."""

    name = "numpy"
    in_host_memory = True

    def __init__(self):
        super().__init__(np, "cpu")

    def asarray(self, a, dtype=None):
        return np.asarray(a, dtype=dtype)

    def to_host(self, a):
        return np.asarray(a)

    def empty(self, shape, dtype):
        return pool.empty(shape, dtype)

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

    # -- convolution -----------------------------------------------------------------------------------------------

    def conv2d(self, x, w, window: Window, groups: int = 1, finish=None):
        KW, F, KH, C = w.shape
        OH, OW = window.unpadded.out_size(x.shape[0], x.shape[2])
        y = self.empty((OH, F, OW, x.shape[3]), x.dtype)
        step = self._row_block(y)
        direct = self._direct(w, window, groups)
        if direct:
            views = [columns_view(x, j, KH, OH, OW) for j in range(KW)]
            part = self.empty((min(step, OH), F, views[0].shape[2]), x.dtype)
        else:
            matrix = self.weight_matrix(w, groups)
        for r in range(0, OH, step):
            rows = y[r : r + step]
            if direct:
                out = rows.reshape(len(rows), F, -1)
                np.matmul(w[0].reshape(F, -1), views[0][r : r + step], out=out)
                for j in range(1, KW):
                    out += np.matmul(w[j].reshape(F, -1), views[j][r : r + step], out=part[: len(rows)])
            else:
                cols = self.im2col(_rows_under(x, r, len(rows), window), window, groups)
                np.matmul(matrix, cols, out=rows.reshape(len(rows), groups, F // groups, -1))
            if finish is not None:
                finish(rows)
        return y

    def conv2d_weight_grad(self, x, dz, dw, window: Window, groups: int = 1):
        OH, F, OW, N = dz.shape
        KW, _, KH, C = dw.shape
        if self._direct(dw, window, groups):
            d = dz.reshape(OH, F, OW * N)
            for j in range(KW):
                d_rows = np.matmul(d, columns_view(x, j, KH, OH, OW).transpose(0, 2, 1))
                d_rows.sum(axis=0, out=dw[j].reshape(F, KH * C))
            return
        total = None
        step = self._row_block(dz)
        for r in range(0, OH, step):
            rows = dz[r : r + step]
            cols = self.im2col(_rows_under(x, r, len(rows), window), window, groups)
            d = rows.reshape(len(rows), groups, F // groups, OW * N)
            d = np.matmul(d, cols.swapaxes(2, 3)).sum(axis=0)
            total = d if total is None else total + d
        dw[...] = total.reshape(groups, F // groups, KW, KH, C).transpose(2, 0, 1, 3, 4).reshape(dw.shape)

    def conv2d_input_grad(self, dz, w, shape, window: Window, groups: int = 1):
        OH, F, OW, N = dz.shape
        KW, _, KH, C = w.shape
        H, _, W, _ = shape
        (top, _), (left, _) = window.padding
        above, before = KH - 1 - top, KW - 1 - left
        if self._unit(window, groups) and above >= 0 and before >= 0 and OH + top - KH + 1 <= H:
            # the same convolution, of dz in a border of zeros with the kernel turned round and its channels swapped
            border = ((above, H + KH - 1 - OH - above), (before, W + KW - 1 - OW - before))
            if min(map(min, border)) >= 0:
                turned = np.ascontiguousarray(w[::-1, :, ::-1].transpose(0, 3, 2, 1))
                return self.conv2d(self.pad(dz, border), turned, Window((KH, KW)))
        (top, bottom), (left, right) = window.padding
        matrix = self.weight_matrix(w, groups).swapaxes(1, 2)
        dx = self.empty((top + H + bottom, C * groups, left + W + right, N), dz.dtype)
        dx[...] = 0
        step = self._row_block(dz)
        for r in range(0, OH, step):
            rows = dz[r : r + step]
            cols = np.matmul(matrix, rows.reshape(len(rows), groups, F // groups, OW * N))
            self.col2im(cols, _rows_under(dx, r, len(rows), window), window)
        if not window.padded:
            return dx
        inner = dx[top : top + H, :, left : left + W]
        out = self.empty(inner.shape, dx.dtype)
        out[...] = inner
        return out

    @staticmethod
    def _unit(window: Window, groups: int) -> bool:
        return groups == 1 and window.strides == (1, 1) and window.dilation == (1, 1)

    def _direct(self, w, window: Window, groups: int) -> bool:
        """Whether the map is read in place: unit steps, and columns long enough for a matmul."""
        return self._unit(window, groups) and w.shape[2] * w.shape[3] >= THIN

    @staticmethod
    def _row_block(y) -> int:
        """Rows of y (OH, F, OW, N) that make a block for the cache."""
        return max(1, CACHE // max(1, y[0].nbytes))

    # -- pooling: a window is a row of columns, so its maximum is one over columns and then one over rows -------------

    def max_pool(self, x, window: Window):
        OH, OW = window.unpadded.out_size(x.shape[0], x.shape[2])
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
        dx[...] = 0
        apart = SH >= KH
        step = self._row_block(x) if apart else OH  # overlapping rows are summed first, in one block
        for r in range(0, OH, step):
            dyr, yr = dy[r : r + step], y[r : r + step]
            xr, dxr = _rows_under(x, r, len(yr), window), _rows_under(dx, r, len(yr), window)
            wide = self._max_columns(xr, window, OW)
            dwide = self.empty(wide.shape, wide.dtype)
            dwide[...] = 0
            rows = [window.rows(i, len(yr)) for i in range(KH)]
            _share(dyr, yr, [wide[s] for s in rows], [dwide[s] for s in rows])
            columns = [window.columns(j, OW) for j in range(KW)]
            _share(dwide, wide, [xr[:, :, s] for s in columns], [dxr[:, :, s] for s in columns])
        return dx

    # -- sums, functions, the optimizer's side ---------------------------------------------------------------------

    def feature_sum(self, a, out=None):
        if a.ndim == 2:
            return np.matmul(np.ones(len(a), a.dtype), a, out=out)
        H, C, W, N = a.shape
        runs = a.reshape(H * C, W * N) @ np.ones(W * N, a.dtype)
        return runs.reshape(H, C).sum(axis=0, out=out)

    def random_bits(self, key, layer, step, shape):
        return philox_bits(key, layer, step, 0, int(np.prod(shape))).reshape(shape)

    def erf(self, x):
        from scipy.special import erf  # comes with scikit-learn; loaded when a GELU first runs

        return erf(x)

    def guarded(self, ok, arrays, change):
        if ok:
            change()

    def blocks(self, start, stop):
        return [slice(a, min(a + UPDATE_BLOCK, stop)) for a in range(start, stop, UPDATE_BLOCK)]

    def squared_norm(self, g):
        return float(np.dot(g, g))

    def flat(self, count: int, dtype):
        return aligned_zeros(count, dtype)

    def replicas(self, shares: list[slice]) -> list[ReplicaOps]:
        """One set of operations for each share of a batch, which add up what must be summed over all of it."""
        meeting = _Meeting(len(shares))
        return [ReplicaOps(rank, shares, meeting) for rank in range(len(shares))]


def columns_view(x, j: int, KH: int, OH: int, OW: int):
    """The im2col matrices of kernel column j, without a copy: x (H, C, W, N) -> view (OH, KH*C, OW*N).

    In (H, C, W, N) the patch rows of one output row, KH image rows of C channels, follow each other at one
    stride, W*N; and along a row OW output columns of N samples are one run.  So the matrix of output row r is
    a window on the memory itself, and that of row r+1 begins one image row later: neighbouring matrices
    overlap.  A matmul reads them as they stand, and KW of them, one a kernel column, make the convolution:

        y[r] = sum_j  w[j] (F, KH*C)  @  columns_view(x, j)[r] (KH*C, OW*N)
    """
    H, C, W, N = x.shape
    row, channel, column, _ = x.strides
    return np.ndarray((OH, KH * C, OW * N), x.dtype, x, j * column, (row, channel, x.itemsize))


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


def _share(dy, y, views, dviews) -> None:
    """Give dy to the first of the views that equals y: what one takes is no longer there for the next.  dviews are summed into."""
    left = dy
    for k, (view, dview) in enumerate(zip(views, dviews)):
        if k == len(views) - 1:
            dview += left
        else:
            taken = left * (view == y)
            dview += taken
            left = left - taken


class _Meeting:
    """Where the replicas of a step add up small arrays: each lays its part down, all wait, each sums in one order."""

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
            return philox_bits(key, layer, step, self.share.start * shape[1], int(np.prod(shape))).reshape(
                shape
            )
        whole = shape[:-1] + (self.whole,)
        return super().random_bits(key, layer, step, whole)[..., self.share]
