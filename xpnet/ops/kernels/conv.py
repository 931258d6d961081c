"""Launches conv.cu: convolutions of any size without a column buffer.

Tiles are functions of shapes alone, so results repeat to the bit.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from ..geometry import Window

THREADS = 128  # of a block, as far as its tile has work for them
BLOCKS = 264  # two for each multiprocessor of an H200; what would give fewer gets smaller tiles
DEPTH = 65535  # of a grid at most, by CUDA; groups and phases beyond it take a further launch
LARGEST = 1 << 30  # elements of an array up to which offsets are computed as int


class Tile(NamedTuple):
    """A block computes rows x columns of the result, by threads of tr x tc elements in so many slices."""

    rows: int
    columns: int
    chunk: int
    tr: int
    tc: int
    slices: int

    @property
    def threads(self) -> int:
        return self.rows // self.tr * (self.columns // self.tc) * self.slices

    def grid(self, rows: int, columns: int, depth: int) -> tuple[int, int, int]:
        return -(-columns // self.columns), -(-rows // self.rows), depth


def forward(gpu, x, w, bias, y, window: Window, groups: int = 1, activate: str = "") -> None:
    """y (OH, F, OW, N) = activate(x * w + bias): x (H, C, W, N) is padded already, w (KW, F, KH, C/G), bias
    (F,) or None.

    activate: C source of `__device__ inline T activate(T z)`; "" for none.
    """
    F, columns = y.shape[1], y.size // y.shape[1]
    tile = map_tile(F // groups, columns, groups, y.dtype.itemsize)
    activate = activate or "__device__ inline T activate(T z) { return z; }"
    _convolve(gpu, "FORWARD", tile, x, w, bias, y, y.shape, columns, window, groups, code=activate)


def input_grad(gpu, dz, w, dx, window: Window, groups: int = 1) -> None:
    """dx (H, C, W, N), of the map before its padding, from dz (OH, F, OW, N) and w (KW, F, KH, C/G)."""
    H, C, W, N = dx.shape
    SH, SW = window.strides
    columns = -(-H // SH) * -(-W // SW) * N  # of the largest phase
    tile = map_tile(C // groups, columns, groups * SH * SW, dx.dtype.itemsize)
    _convolve(gpu, "INPUT_GRAD", tile, dz, w, None, dx, dx.shape, columns, window, groups, parts=SH * SW)


def weight_grad(gpu, x, dz, dw, window: Window, groups: int = 1) -> None:
    """dw (KW, F, KH, C/G) from x (H, C, W, N), padded already, and dz (OH, F, OW, N)."""
    KW, F, KH, C = dw.shape
    columns, positions = KW * KH * C, dz.size // F
    tile = weight_tile(F // groups, columns, dw.dtype.itemsize)
    tiles, chunks = prod(tile.grid(F // groups, columns, groups)), -(-positions // tile.chunk)
    span = max(2, -(-chunks * tiles // (2 * BLOCKS))) * tile.chunk
    parts = max(1, -(-positions // span))
    out = dw if parts == 1 else gpu.empty((parts, *dw.shape), dw.dtype)
    _convolve(gpu, "WEIGHT_GRAD", tile, x, dz, None, out, dz.shape, columns, window, groups, parts, span)
    if parts > 1:
        sum_parts(gpu, out, dw)


def sum_parts(gpu, parts, out) -> None:
    """out = the sum of parts (P, *out.shape) over P, in a fixed order."""
    slices = 1  # threads an element, up to those that leave eight elements side by side
    while slices < 32 and 2 * slices <= len(parts) and -(-out.size * slices // 256) < BLOCKS:
        slices *= 2
    args = (parts, out, np.int64(out.size), len(parts), slices)
    grid = (-(-out.size // (256 // slices)),)
    gpu.launch("conv_parts", "sum_parts", grid, (256,), args, T=out.dtype.name)


def map_tile(rows: int, columns: int, depth: int, itemsize: int) -> Tile:
    """For a map with so many rows (filters or channels of a group), columns (positions) and groups."""
    tile_rows = min(_power_of_two(rows), 64)
    tr, tc = min(tile_rows, 8), 4
    tile_columns = min(THREADS * tr * tc // tile_rows, 1024 // itemsize)
    if tile_rows == 64 and itemsize == 4 and -(-rows // 64) * (columns // 128) * depth >= BLOCKS:
        tile_columns, tc = 128, 8
    blocks = -(-rows // tile_rows) * depth
    while tile_columns > 32 and -(-columns // tile_columns) * blocks < BLOCKS:
        tile_columns //= 2
    slices = max(1, min(THREADS // (tile_rows // tr * (tile_columns // tc)), 8))
    return Tile(tile_rows, tile_columns, max(16, 4 * slices), tr, tc, slices)


def weight_tile(rows: int, columns: int, itemsize: int) -> Tile:
    """For a weight gradient with so many rows (filters) and columns (taps) in a group."""
    tile_rows, tile_columns = min(_power_of_two(rows), 64), max(16, min(_power_of_two(columns), 64))
    chunk = 128 // itemsize  # k, and so what is loaded side by side
    tr, tc, most = min(tile_rows, 8), 4, chunk // 4
    while tile_rows // tr * (tile_columns // tc) * most < THREADS and tr * tc > 1:
        tr, tc = (tr // 2, tc) if tr >= tc else (tr, tc // 2)
    threads = tile_rows // tr * (tile_columns // tc)
    return Tile(tile_rows, tile_columns, chunk, tr, tc, max(1, min(THREADS // threads, most)))


def layout_macros(N: int, window: Window, *arrays) -> tuple[int, str]:
    """VECTOR, and the macros VECTOR, INDEX and those of the window, for maps of N samples.

    VECTOR: elements along N that are loaded at once, 16 bytes of them where every one begins at a multiple
    of 16 bytes.
    """
    arrays = tuple(a for a in arrays if a is not None)
    vector = 16 // arrays[0].dtype.itemsize
    if N % vector or any(_address(a) % 16 for a in arrays):
        vector = 1
    large = max(a.size for a in arrays) > LARGEST
    values = {"VECTOR": vector, "INDEX": "i64" if large else "int"}
    for name, (vertical, across) in zip("KSD", window[:3]):
        values |= {f"{name}H": vertical, f"{name}W": across}
    return vector, _macros(values)


def _macros(values) -> str:
    return "".join(f"#define {name} {value}\n" for name, value in values.items())


def _convolve(
    gpu, map_, tile, gathered, a, bias, out, other, columns, window, groups, parts=1, span=0, code=""
):
    """other: the shape of the map that is not gathered from."""
    if not columns:
        return
    (top, _), (left, _) = window.padding
    names = {name.upper(): value for name, value in tile._asdict().items()}
    _, layout = layout_macros(gathered.shape[3], window, gathered, a, out)
    code = f"{code}\n{_macros({'MAP': map_, **names})}{layout}"
    (GH, GC, GW, N), (MH, MC, MW, _) = gathered.shape, other
    channels, rows = GC // groups, MC // groups
    args = (gathered, a, bias, out, N, GH, GW, MH, MW, groups, channels, rows, top, left, np.int64(span))
    for first in range(0, groups * parts, DEPTH):
        grid = tile.grid(rows, columns, min(DEPTH, groups * parts - first))
        gpu.launch("conv", "convolve", grid, (tile.threads,), (*args, first), code, T=out.dtype.name)


def _power_of_two(n: int) -> int:
    """The smallest that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def _address(a) -> int:
    return a.data.ptr if hasattr(a.data, "ptr") else a.ctypes.data
