"""Convolution on the CPU: how the patches of a feature map come to a matmul, and which way is the fastest."""

from __future__ import annotations

import numpy as np

from .geometry import Window
from .memory import SMALL
from .reference import Ops

CACHE = 1 << 19  # bytes of a block that should stay in a core's L2 cache between two passes over it
LONG = 64  # from this many rows (KH*C) on, a matmul on the map in place beats one on shifted copies


class HostConvolution(Ops):
    """Convolution of NumPy arrays."""

    def conv2d(self, x, w, window: Window, groups: int = 1, bias=None, function=None):
        KW, F, KH, C = w.shape
        OH, OW = window.positions(x)
        y = self.empty((OH, F, OW, x.shape[3]), x.dtype)
        step = min(row_block(y), OH)
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
                cols = self.im2col(rows_under(x, r, len(rows), window), window, groups)
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
        step = row_block(dz)
        for r in range(0, OH, step):
            rows = dz[r : r + step]
            cols = self.im2col(rows_under(x, r, len(rows), window), window, groups)
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


def rows_under(x, r: int, count: int, window: Window):
    """The image rows under output rows r .. r+count."""
    start = r * window.strides[0]
    return x[start : start + (count - 1) * window.strides[0] + window.extent[0]]


def row_block(y) -> int:
    """Rows of y (OH, F, OW, N) that make a block for the cache."""
    return max(1, CACHE // max(1, y[0].nbytes))
