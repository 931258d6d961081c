"""Convolution on the CPU: how the patches of a feature map come to a matmul, and which way is the fastest."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from . import winograd
from .geometry import Window
from .memory import LINE, SMALL, strided
from .reference import Ops

CACHE = 1 << 19  # bytes of a block that should stay in a core's L2 cache between two passes over it
UNPACKED = 10**6  # multiply-adds up to which OpenBLAS (on AVX-512) takes matrices as they lie in memory
LEAST_COLUMNS = 64  # of a piece of a matmul
LONG, LONGER = 24, 64  # rows (KH*C) from which on a matmul on the map in place beats one on shifted copies:
LARGE = 1 << 17  # on maps of so many bytes, and on smaller ones, where the number of calls counts
PAGE = 4096  # bytes from one place of a cache set to the next
RUN = 16  # output columns times samples from which a strided kernel is worth taking apart
COPY = 50  # multiply-adds in the time of copying an element from place to place
GAIN = 0.9  # of the plain cost; tiles are taken where theirs is estimated to be less


class HostConvolution(Ops):
    """Convolution of NumPy arrays."""

    def bordered(self, x, w, window: Window, groups: int = 1):
        OH, OW = window.out_size(x.shape[0], x.shape[2])
        if tile(w.shape, (OH, w.shape[1], OW, x.shape[3]), window, groups):
            return x, window  # tiles may reach beyond the map
        return super().bordered(x, w, window, groups)

    def conv2d(self, x, w, window: Window, groups: int = 1, bias=None, function=None):
        if x.nbytes < SMALL and _pointwise(window, groups):
            y = self._matmul_of_rows(w[0, :, 0], x)
            self._finish_rows(y, bias, function)
            return y
        x, window = _seen(*self.bordered(x, w, window, groups))
        KW, F, KH, C = w.shape
        OH, OW = window.out_size(x.shape[0], x.shape[2])
        y = self.empty((OH, F, OW, x.shape[3]), x.dtype)
        if _depthwise(w, groups) and y.nbytes >= SMALL:
            self._shifted_products(x, w, y, window)
            self._finish_rows(y, bias, function)
            return y
        if m := tile(w.shape, y.shape, window, groups):
            origin = -window.padding[0][0], -window.padding[1][0]
            winograd.convolve(m, x, w, y, origin, lambda rows: self._finish_rows(rows, bias, function))
            return y
        step = min(row_block(y), OH)
        route = self._route(x, w, window, groups)
        if route == "in place":
            matrices = [w[j].reshape(F, -1) for j in range(KW)]
            views = [columns_view(x, j, KH, OH, OW, window.strides[0]) for j in range(KW)]
            part = self.empty((step, F, views[0].shape[2]), x.dtype)
        elif route == "side by side":
            matrices = [_beside(w)]
            views = [
                rows_view(self.columns_beside(x, window, OW), KH, OH, window.strides[0], OW * x.shape[3])
            ]
        else:
            matrices = [self.weight_matrix(w, groups)]
        for r in range(0, OH, step):
            rows = y[r : r + step]
            if route == "copied":
                cols = self.im2col(rows_under(x, r, len(rows), window), window, groups)
                np.matmul(matrices[0], cols, out=rows.reshape(len(rows), groups, F // groups, -1))
            else:
                out = rows.reshape(len(rows), F, -1)
                _multiply(matrices[0], views[0][r : r + step], out)
                for matrix, view in zip(matrices[1:], views[1:]):
                    out += _multiply(matrix, view[r : r + step], part[: len(rows)])
            self._finish_rows(rows, bias, function)  # while they lie in the cache
        return y

    def conv2d_weight_grad(self, x, dz, dw, window: Window, groups: int = 1):
        x, window = _seen(*self.bordered(x, dw, window, groups))
        OH, F, OW, N = dz.shape
        KW, _, KH, C = dw.shape
        if _depthwise(dw, groups) and dz.nbytes >= SMALL:
            product = self.empty(dz.shape, dz.dtype)
            for i, j in np.ndindex(KH, KW):
                np.multiply(x[window.rows(i, OH), :, window.columns(j, OW)], dz, out=product)
                dw[j, :, i, 0] = self.feature_sum(product)
            return
        if m := tile(dw.shape, dz.shape, window, groups):
            winograd.weight_gradient(m, x, dz, dw, (-window.padding[0][0], -window.padding[1][0]))
            return
        route = self._route(x, dw, window, groups)
        if route == "in place":
            for j in range(KW):
                d = self._row_products(dz, columns_view(x, j, KH, OH, OW, window.strides[0]))
                dw[j] = d.reshape(F, KH, C)
            return
        if route == "side by side":
            view = rows_view(self.columns_beside(x, window, OW), KH, OH, window.strides[0], OW * N)
            dw[...] = self._row_products(dz, view).reshape(F, KH, KW, C).transpose(2, 0, 1, 3)
            return
        total: Any = 0
        step = row_block(dz)
        for r in range(0, OH, step):
            rows = dz[r : r + step]
            cols = self.im2col(rows_under(x, r, len(rows), window), window, groups)
            d = rows.reshape(len(rows), groups, F // groups, OW * N)
            total = total + np.matmul(d, cols.swapaxes(2, 3)).sum(axis=0)
        dw[...] = total.reshape(groups, F // groups, KW, KH, C).transpose(2, 0, 1, 3, 4).reshape(dw.shape)

    def conv2d_input_grad(self, dz, w, shape, window: Window, groups: int = 1):
        if _pointwise(window, groups):
            return self._matmul_of_rows(w[0, :, 0].T, dz)
        OH, F, OW, N = dz.shape
        KW, _, KH, C = w.shape
        H, _, W, _ = shape
        (top, bottom), (left, right) = window.padding
        if _depthwise(w, groups):
            dx = self.empty((top + H + bottom, groups, left + W + right, N), dz.dtype)
            dx[...] = 0
            for i, j in np.ndindex(KH, KW):
                dx[window.rows(i, OH), :, window.columns(j, OW)] += dz * w[j, :, i, :, None]
            return dx[top : top + H, :, left : left + W].copy() if window.padded else dx
        if window.strides != (1, 1) and window.dilation == (1, 1) and OW * N >= RUN:
            return self._input_grad_by_phases(dz, w, shape, window, groups)
        if groups > 1 or window.dilation[0] > 1 or window.strides != (1, 1):
            return super().conv2d_input_grad(dz, w, shape, window, groups)
        if m := tile((KW, C, KH, F), shape, window, groups):
            dx = self.empty(shape, dz.dtype)
            winograd.convolve(m, dz, w, dx, origin=(top - 2, left - 2), turned=True)
            return dx
        if dz.nbytes < SMALL and window.dilation == (1, 1):
            # small: fewer calls by the same convolution of dz in a border of zeros, with the kernel turned
            border = ((KH - 1 - top, KH - 1 - bottom), (KW - 1 - left, KW - 1 - right))
            if min(map(min, border)) >= 0:
                turned = w[::-1, :, ::-1].transpose(0, 3, 2, 1).copy()
                return self.conv2d(self.pad(dz, border), turned, Window((KH, KW)))
        dx = self.empty(shape, dz.dtype)
        if max(top, bottom) < KH and KH * KW * C >= F:
            turned = w[:, :, ::-1].transpose(0, 3, 2, 1).reshape(KW * C, KH * F)
            step = max(1, 2 * CACHE // (KW * C * dz[0, 0].nbytes))
            for r in range(0, H, step):
                rows = dx[r : r + step]
                self._put_back(self._rows_back(dz, turned, r + top - KH + 1, len(rows), KH), rows, KW, window)
            return dx
        beside = self._rows_of_patches(dz, w, H, window)
        self._put_back(beside, dx, KW, window)
        return dx

    def _input_grad_by_phases(self, dz, w, shape, window: Window, groups: int):
        """With strides: the rows whose place in the padded map leaves one rest, divided by the stride, meet
        the kernel's rows of that rest alone, and so with columns.  Each such part of the map is that of a
        small kernel without strides, and no patch is added to another: 1.3 to 2 times as fast.
        """
        (OH, _, OW, N), (H, C, W, _) = dz.shape, shape
        (SH, SW), ((top, _), (left, _)) = window.strides, window.padding
        rows = list(_phases(H, OH, window.kernel[0], SH, top))
        columns = list(_phases(W, OW, window.kernel[1], SW, left))
        dx = self.empty(shape, dz.dtype)
        if sum(count for _, _, count, _ in rows) < H or sum(count for _, _, count, _ in columns) < W:
            dx[...] = 0  # where no window stands
        for i, r, height, above in rows:
            for j, c, width, beside in columns:
                part = w[j::SW, :, i::SH].copy()
                small = Window((part.shape[2], part.shape[0]), padding=(above, beside))
                dpart = self.conv2d_input_grad(dz, part, (height, C, width, N), small, groups)
                dx[r::SH, :, c::SW][:height, :, :width] = dpart
        return dx

    def _matmul_of_rows(self, matrix, x):
        """matrix (F, C) @ every pixel of x (H, C, W, N) -> (H, F, W, N)."""
        H, C, W, N = x.shape
        y = self.empty((H, len(matrix), W, N), x.dtype)
        _multiply(matrix, x.reshape(H, C, W * N), y.reshape(H, len(matrix), W * N))
        return y

    def _rows_back(self, dz, turned, first: int, count: int, KH: int):
        """What each kernel column gives back to `count` image rows, side by side: (count, KW*C, OW*N).

        An image row gets from KH rows of dz, the first of them from row `first` on, that lie one under the
        other: a view, where zeros stand for rows that are not there.
        """
        OH, F, OW, N = dz.shape
        last = first + count + KH - 1
        rows = dz[max(first, 0) : min(last, OH)]
        if first < 0 or last > OH:
            rows = self.pad(rows, ((max(-first, 0), max(last - OH, 0)), (0, 0)))
        beside = self.empty((count, turned.shape[0], OW * N), dz.dtype)
        return _multiply(turned, rows_view(rows.reshape(len(rows), F, OW * N), KH, count, 1, OW * N), beside)

    def _rows_of_patches(self, dz, w, H: int, window: Window):
        """The same for any border: patches are added row by row, the adjoint of `rows_view`."""
        OH, F, OW, N = dz.shape
        KW, _, KH, C = w.shape
        (top, bottom), _ = window.padding
        beside = self.empty((top + H + bottom, KW * C, OW * N), dz.dtype)
        beside[...] = 0
        back = _beside(w).T.copy()
        step = max(1, CACHE // (back.shape[0] * dz[0, 0].nbytes))
        for r in range(0, OH, step):
            rows = dz[r : r + step].reshape(-1, F, OW * N)
            patches = self.empty((len(rows), KH, KW * C, OW * N), dz.dtype)
            np.matmul(back, rows, out=patches.reshape(len(rows), -1, OW * N))
            for i in range(KH):
                beside[r + i : r + i + len(rows)] += patches[:, i]
        return beside[top : top + H]

    @staticmethod
    def _put_back(beside, dx, KW: int, window: Window) -> None:
        """dx (H, C, W, N): the kernel columns of beside (H, KW*C, OW*N), each added where it was read."""
        H, C, W, N = dx.shape
        beside = beside.reshape(H, KW, C, -1, N)
        OW, (left, _) = beside.shape[3], window.padding[1]
        shifts = [j * window.dilation[1] - left for j in range(KW)]
        spans = [(max(0, -shift), min(OW, W - shift)) for shift in shifts]  # output columns within the map
        whole = [j for j in range(KW) if spans[j] == (0, W)]  # where all of the map is met
        if whole:
            dx[...] = beside[:, whole[0], :, :W]
        else:
            dx[...] = 0
        for j in range(KW):
            (first, last), shift = spans[j], shifts[j]
            if first < last and j not in whole[:1]:
                dx[:, :, shift + first : shift + last] += beside[:, j, :, first:last]

    def _shifted_products(self, x, w, y, window: Window):
        """y of a depthwise convolution: the map, once for each kernel element, shifted and multiplied."""
        (KH, KW), OW = window.kernel, y.shape[2]
        step = row_block(y)
        for r in range(0, len(y), step):
            rows = y[r : r + step]
            under, product = rows_under(x, r, len(rows), window), self.empty(rows.shape, y.dtype)
            for i, j in np.ndindex(KH, KW):
                seen = under[window.rows(i, len(rows)), :, window.columns(j, OW)]
                np.multiply(seen, w[j, :, i, :, None], out=product if i or j else rows)
                if i or j:
                    rows += product

    def columns_beside(self, x, window: Window, OW: int):
        """x (H, C, W, N) once for each kernel column, shifted, side by side: (H, KW*C, OW*N or more).

        KW times the map where im2col copies KH*KW times; the patches of an output row are one window on it.
        Its lines have a tail where they would begin whole pages apart: they would share one set of the cache.
        """
        H, C, _, N = x.shape
        KW, DW, SW = window.kernel[1], window.dilation[1], window.strides[1]
        row, channel, column, sample = x.strides
        tail = LINE // x.itemsize if OW * N * x.itemsize % PAGE == 0 else 0
        out = self.empty((H, KW * C, OW * N + tail), x.dtype)
        image, line, item = out.strides
        places = strided(out, (H, KW, C, OW, N), (image, C * line, line, N * item, item))
        places[...] = strided(x, places.shape, (row, DW * column, channel, SW * column, sample))
        return out

    def _row_products(self, dz, view):
        """Sum over output rows of dz[r] (F, OW*N) @ view[r]' (OW*N, K): a weight gradient (F, K)."""
        OH, F, OW, N = dz.shape
        K, dz = view.shape[1], dz.reshape(OH, F, OW * N)
        if F * K > 2 * (F + K) * OW * N:
            # short rows of a wide layer: one product of long rows, copied together, is less work
            rows = (a.transpose(1, 0, 2).copy().reshape(a.shape[1], -1) for a in (dz, view))
            return self.matmul(next(rows), next(rows).T)
        turned = K > F and dz.nbytes >= SMALL
        a, b = (view, dz) if turned else (dz, view)  # BLAS likes the longer matrix in front
        products = self.empty((OH, a.shape[1], b.shape[1]), dz.dtype)
        total = np.matmul(a, b.transpose(0, 2, 1), out=products).sum(axis=0)
        return total.T if turned else total

    @staticmethod
    def _route(x, w, window: Window, groups: int) -> str:
        """How a map is read: "in place", its kernel columns "side by side", or its patches "copied"."""
        if groups > 1 or window.dilation[0] > 1:
            return "copied"
        KW, _, KH, C = w.shape
        long = KW == 1 or (LONG if x.nbytes >= LARGE else LONGER) <= KH * C
        return "in place" if long and window.strides[1] == window.dilation[1] == 1 else "side by side"


def _pointwise(window: Window, groups: int) -> bool:
    """Whether a 1x1 kernel meets every pixel as it is."""
    return window.kernel == (1, 1) and window.strides == (1, 1) and groups == 1 and not window.padded


def _depthwise(w, groups: int) -> bool:
    """Whether each filter sees one channel, its own."""
    return groups > 1 and w.shape[1] == groups and w.shape[3] == 1


def _seen(x, window: Window):
    """x and the window, without the rows and columns that a 1x1 kernel steps over; x as one block of
    memory, in any case.
    """
    if window.kernel == (1, 1) and window.strides != (1, 1):
        x, window = x[:: window.strides[0], :, :: window.strides[1]], Window((1, 1))
    return (x if x.flags.c_contiguous else x.copy()), window


def _phases(size: int, out: int, kernel: int, stride: int, before: int):
    """The parts of a line of `size` elements, in a border of `before`, that `out` windows meet: (first
    kernel element, first element of the line, how many, (cut off before them, behind them)); they and the
    kernel's elements are `stride` apart.
    """
    for first in range(min(stride, kernel)):
        start = (first - before) % stride
        cut = (start + before) // stride  # of the part's whole line
        whole = out - 1 + len(range(first, kernel, stride))
        count = min(len(range(start, size, stride)), whole - cut)
        if count > 0:
            yield first, start, count, (cut, whole - cut - count)


def _multiply(a, b, out):
    """out (R, F, M) = a (F, K) @ b (R, K, M), by pieces of M."""
    if (pieces := _pieces(a.size, b.shape[2])) > 1:
        b, cut = (c.reshape(*c.shape[:2], pieces, -1).transpose(0, 2, 1, 3) for c in (b, out))
        np.matmul(a, b, out=cut)
    else:
        np.matmul(a, b, out=out)
    return out


@lru_cache(1024)
def _pieces(size: int, columns: int) -> int:
    """In how many equal parts a matmul of a matrix of so many elements with so many columns goes fastest."""
    for count in range(1, columns // LEAST_COLUMNS + 1):
        if columns % count == 0 and size * (columns // count) <= UNPACKED:
            return count
    return 1


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
    return strided(x, (OH, KH * C, OW * N), (SH * row, channel, x.itemsize), j * column)


def rows_view(beside, KH: int, OH: int, SH: int, M: int):
    """The im2col matrices of all kernel columns, on `columns_beside` (H, K, M or more): (OH, KH*K, M)."""
    row, line, item = beside.strides
    return strided(beside, (OH, KH * beside.shape[1], M), (SH * row, line, item))


def _beside(w):
    """w (KW, F, KH, C) -> (F, KH*KW*C): a row a filter, in the order of `rows_view`."""
    return w.transpose(1, 2, 0, 3).reshape(w.shape[1], -1)


def rows_under(x, r: int, count: int, window: Window):
    """The image rows under output rows r .. r+count."""
    start = r * window.strides[0]
    return x[start : start + (count - 1) * window.strides[0] + window.extent[0]]


@lru_cache(1024)
def tile(kernel, y, window: Window, groups: int) -> int:
    """The tile of Winograd's way that costs least for a kernel (KW, F, KH, C) and y (OH, F, OW, N); 0 for
    none.
    """
    if window.kernel != (3, 3) or groups > 1 or window.strides != (1, 1) or window.dilation != (1, 1):
        return 0
    (_, F, _, C), (OH, _, OW, N) = kernel, y
    costs = {0: GAIN * 9 * C * F * OH * OW * N}
    for m in (2, 4):
        t = m + 2
        tiles = -(-OH // m) * -(-OW // m) * N
        costs[m] = tiles * (
            t**2 * C * F + C * (t**4 + COPY * t**2) + F * (t**2 * m**2 + COPY * m**2)
        ) + t**2 * C * F * (9 + COPY)
    return min(costs, key=costs.__getitem__)


def row_block(y) -> int:
    """Rows of y (OH, F, OW, N) that make a block for the cache."""
    return max(1, CACHE // max(1, y[0].nbytes))
