"""Convolution on a GPU without im2col: strided batches of matrix products that read the feature map in place.

In a map x (H, C, W, N) the KH*C patch rows of one output row follow each other W*N elements apart, and along
each of them OW output columns of N samples are one run.  So the im2col matrix of kernel column j and output
row r, KH*C x OW*N, stands in the map (`convolution.columns_view`): it begins j*DW*N elements into image row
SH*r, with leading dimension W*N.  The matrices of all output rows are a strided batch, in which neighbours
overlap:

    y[r] = sum_j  w[j] (F, KH*C)  @  columns(j)[r] (KH*C, OW*N)

cuBLAS counts by columns: it is handed y[r]' = sum_j columns(j)[r]' w[j]', m = OW*N, n = F, k = KH*C.  A
dilated kernel has its rows further apart than that and takes one product a kernel row, k = C.

blas: a `Cublas`.  math: one of its precisions; for "bfloat16" x, w and dz are uint16 arrays, results float32.
All arrays are C-contiguous and need only .shape, .dtype and .data.ptr.  Nothing here waits for the device,
and the order of every sum follows from the shapes alone.
"""

from __future__ import annotations

from .geometry import Pair, Window

BLOCK = 16 << 20
"""Bytes of y that are finished before the next rows are begun: so adding up KW products finds them in the L2
(50 MB on an H200).
"""
PARTS = 64 << 20  # bytes of partial weight gradients at most
TILE = 128  # rows and columns of the result that a thread block of a large product computes
TILES = 528  # that keep a large card busy: four for each of an H200's 132 multiprocessors
LONG = 2048  # positions that a stripe sums at least
LEAST = 32  # products with fewer rows or columns leave most of a tile empty
ALIGNED = {"float32": 4, "tf32": 4, "bfloat16": 8, "float64": 2}  # elements in 16 bytes


def covers(window: Window, groups: int, C: int, F: int, N: int, math: str) -> bool:
    """Whether `forward` and `weight_grad` are the way to go for C channels, F filters and N samples.

    A stride along the columns would break the run of OW*N elements; and each kernel column begins N elements
    after the last, which the loads of tensor cores want to be at a multiple of 16 bytes.
    """
    wide = min(_depth(window, C), F) >= LEAST
    return groups == 1 and window.strides[1] == 1 and wide and N % ALIGNED[math] == 0


def covers_input_grad(window: Window, groups: int, C: int, F: int, N: int, math: str) -> bool:
    """Whether `input_grad` is the way to go.

    With strides, dz would have to be spread out first; and where a map was padded by more than the kernel
    reaches, dz would have to be cut, not padded.
    """
    back = adjoint(window)
    return (
        window.strides == (1, 1)
        and min(map(min, back.padding)) >= 0
        and covers(back, groups, C=F, F=C, N=N, math=math)
    )


def forward(blas, math: str, x, w, y, window: Window, rows: int | None = None, finish=None) -> None:
    """Cross-correlation of x (H, C, W, N), padded, with w (KW, F, KH, C) into y (OH, F, OW, N).

    rows: output rows to a block.  finish(block), if given, is called for each finished block, a view (rows,
    F, OW, N) of y, while it lies in the L2.
    """
    _, C, W, N = x.shape
    KW, F, KH, _ = w.shape
    OH, _, OW, _ = y.shape
    if not y.size:
        return
    if rows is None:
        blocks = -(-OH * F * OW * N * y.dtype.itemsize // BLOCK)
        rows = -(-OH // blocks)
    m, image, out = OW * N, window.strides[0] * C * W * N, F * OW * N
    for r in range(0, OH, rows):
        batch = min(rows, OH - r)
        for count, (i, j, k) in enumerate(_products(window, C)):
            blas.gemm_batched(
                math, False, False, m, F, k,
                _at(x, r * image + _offset(window, i, j, C, W, N)), W * N, image,
                _at(w, (j * F * KH + i) * C), KH * C, 0,
                int(count > 0), _at(y, r * out), m, out, batch,
            )  # fmt: skip
        if finish is not None:
            finish(y[r : r + batch])


def weight_grad(blas, math: str, x, dz, dw, window: Window, empty, reduce) -> None:
    """dL/dw into dw (KW, F, KH, C), from x (H, C, W, N), padded, and dz (OH, F, OW, N).

    empty(shape, dtype): uninitialised memory.  reduce(parts, dw): parts (P, KW, F, KH, C) summed over P into
    dw, in a fixed order.

    The result is small and its sums, over OH*OW*N, are long: they are split into parts, each a product of its
    own, to fill the card.
    """
    _, C, W, N = x.shape
    KW, F, KH, _ = dw.shape
    OH, _, OW, _ = dz.shape
    if not dz.size:
        dw[...] = 0
        return
    P, columns = split(window, C, F, OH, OW, N, dw.dtype.itemsize)
    column, part, image, out = F * KH * C, KW * F * KH * C, window.strides[0] * C * W * N, F * OW * N
    parts = dw if P == 1 else empty((P, *dw.shape), dw.dtype)

    def add(row, start, width, stride_x, stride_z, first, batch):
        """To parts first .. first+batch: products over `width` output columns from (row, start) on."""
        at = row * image + start * N
        for i, j, k in _products(window, C):
            blas.gemm_batched(
                math, True, False, k, F, width * N,
                _at(x, at + _offset(window, i, j, C, W, N)), W * N, stride_x,
                _at(dz, row * out + start * N), OW * N, stride_z,
                int(row > 0), _at(parts, first * part + j * column + i * C), KH * C, part, batch,
            )  # fmt: skip

    if columns == OW:  # a part is every P-th row
        for row in range(0, OH, P):
            add(row, 0, OW, image, out, 0, min(P, OH - row))
    else:  # a part is a stripe of columns
        whole, rest = divmod(OW, columns)
        for row in range(OH):
            add(row, 0, columns, columns * N, columns * N, 0, whole)
            if rest:
                add(row, whole * columns, rest, 0, 0, whole, 1)
    if parts is not dw:
        reduce(parts, dw)


def split(window: Window, C: int, F: int, OH: int, OW: int, N: int, itemsize: int) -> Pair:
    """How a weight gradient's sum over OH*OW*N is split: (parts, output columns to a part).

    By rows, which takes one call for them all.  By stripes of columns, which takes a call for each row, where
    that gives many more parts: few, long rows, as in sequences.  As many as fill the card, within PARTS
    bytes; from the shapes alone, so that the bits of a sum do not depend on the card.
    """
    KH, KW = window.kernel
    tiles = -(-_depth(window, C) // TILE) * -(-F // TILE)
    wanted = max(1, min(-(-TILES // tiles), PARTS // (KW * F * KH * C * itemsize)))
    stripes = min(OW, wanted, OW * N // LONG)
    if stripes < 4 * min(OH, wanted):
        passes = -(-OH // wanted)
        return -(-OH // passes), OW
    columns = -(-OW // stripes)
    return -(-OW // columns), columns


def adjoint(window: Window) -> Window:
    """The window of the convolution that carries dz back to x: over dz in its padding, with w `turn`ed."""
    (EH, EW), ((top, bottom), (left, right)) = window.extent, window.padding
    border = (EH - 1 - top, EH - 1 - bottom), (EW - 1 - left, EW - 1 - right)
    return Window(window.kernel, (1, 1), window.dilation, border)


def turn(w, out) -> None:
    """w (KW, F, KH, C), rotated by half a turn and with its ends exchanged, into out (KW, C, KH, F)."""
    out[...] = w[::-1, :, ::-1].transpose(0, 3, 2, 1)


def input_grad(blas, math: str, dz, w, dx, window: Window, empty, pad) -> None:
    """dL/dx into dx (H, C, W, N), before its padding by window.padding; every element is written.

    dz (OH, F, OW, N), w (KW, F, KH, C).  empty(shape, dtype): uninitialised memory; pad: as `Ops.pad`.  Not
    for windows that `covers_input_grad` refuses.

    The adjoint of a convolution is one over dz in a border of zeros: it takes a copy of dz, but no col2im.
    """
    KW, F, KH, C = w.shape
    back = adjoint(window)
    turned = empty((KW, C, KH, F), w.dtype)
    turn(w, turned)
    forward(blas, math, pad(dz, back.padding), turned, dx, back)


def _depth(window: Window, C: int) -> int:
    """Patch rows that one product takes in: those of all kernel rows, or of one where they are dilated."""
    return C if window.dilation[0] > 1 else window.kernel[0] * C


def _products(window: Window, C: int):
    """(kernel row, kernel column, patch rows) of each product that makes up a convolution."""
    KH, KW = window.kernel
    k = _depth(window, C)
    return [(i, j, k) for j in range(KW) for i in range(KH * C // k)]


def _offset(window: Window, i: int, j: int, C: int, W: int, N: int) -> int:
    """Elements of x before the element under kernel row i and column j of the first window."""
    return (i * window.dilation[0] * C * W + j * window.dilation[1]) * N


def _at(a, offset: int) -> int:
    """Address of an element."""
    return a.data.ptr + offset * a.dtype.itemsize
