"""Feature maps from conventional arrays and back, their borders, and batches gathered on the device."""

from __future__ import annotations

import numpy as np

THREADS = 256
TILE = 1024
LARGE = 1 << 31  # from so many elements on, 32 bits no longer number them (a block's surplus included)


def pack(gpu, x, out) -> None:
    """x (N, C, H, W) of any strides -> out (H, C, W, N) in out's type."""
    strides = tuple(stride // x.itemsize for stride in x.strides)
    _transpose(gpu, "pack", x, out, out.shape, strides, S=x.dtype.name, T=out.dtype.name)


def unpack(gpu, x, out) -> None:
    """x (H, C, W, N) -> out (N, C, H, W)."""
    strides = tuple(stride // out.itemsize for stride in out.strides)
    _transpose(gpu, "unpack", x, out, x.shape, strides, S=x.dtype.name, T=out.dtype.name)


def gather_map(gpu, control, dtype, strides, out) -> None:
    """The samples order[cursor], order[cursor + 1] ... of control's x -> out (H, C, W, N).

    x: (samples, C, H, W) of dtype, with strides in elements.
    """
    _transpose(gpu, "gather_map", control, out, out.shape, strides, S=np.dtype(dtype).name, T=out.dtype.name)


def _transpose(gpu, entry, source, out, shape, strides, **types) -> None:
    """shape: (H, C, W, N) of the map; strides: of (N, C, H, W) in the conventional array, in elements."""
    if not out.size:
        return
    H, C, W, N = shape
    sn, sc, sh, sw = strides
    # axes from the longest stride to the shortest, so that neighbouring positions are neighbours in memory
    axes = sorted(((C, sc, W * N), (H, sh, C * W * N), (W, sw, N)), key=lambda axis: -abs(axis[1]))
    sizes, of_sample, of_map = zip(*axes)
    bits = min(max((N - 1).bit_length(), 2), 5)  # 4 to 32 samples a tile
    tiles = -(-(H * C * W) // (TILE >> bits)) * -(-N // (1 << bits))
    sizes_of = (np.int64(N), np.uint32(H * C * W), bits, np.int64(sn), *map(np.uint32, sizes[1:]))
    args = (source, out, *sizes_of, *map(np.int64, of_sample + of_map))
    gpu.launch("layout", entry, (tiles,), (THREADS,), args, I="uint32", **types)


def pad(gpu, x, out, padding, value=0.0) -> None:
    """x (H, C, W, N) with ((top, bottom), (left, right)) rows and columns of value around it -> out."""
    if not out.size:
        return
    H, C, W, N = x.shape
    (top, _), (left, _) = padding
    T = out.dtype.name
    by = 4 if N % 4 == 0 and aligned(x, out) else 1
    entry = "pad_by_four" if by == 4 else "pad"
    run, padded = W * N // by, out.shape[2] * N // by
    numbers = (out.size // by, H, C, run, padded, top, left * N // by)
    _launch_flat(gpu, entry, (x, out), numbers, (out.dtype.type(value),), S=T, T=T)


def gather_rows(gpu, control, which, dtype, out) -> None:
    """Rows order[cursor], order[cursor + 1] ... of control's x, y or w (which), of dtype -> out (N, ...).

    The array is contiguous, with rows of as many elements as out's, in any shape.
    """
    if not out.size:
        return
    arrays = (control, "xyw".index(which), out)
    numbers = (out.size, out.size // len(out))
    _launch_flat(gpu, "gather_rows", arrays, numbers, (), S=np.dtype(dtype).name, T=out.dtype.name)


def _launch_flat(gpu, entry, arrays, numbers, rest, **types) -> None:
    """A thread for four of numbers[0] elements; in 32 bits, whose division is far cheaper, where they do."""
    size = numbers[0]
    I = np.dtype(np.uint32 if size < LARGE else np.uint64)
    args = (*arrays, *map(I.type, numbers), *rest)
    gpu.launch("layout", entry, (-(-size // TILE),), (THREADS,), args, I=I.name, **types)


def aligned(*arrays) -> bool:
    """Whether all begin at multiples of 16 bytes, as CuPy allocates them: four elements can go at once."""
    return not any((a.data.ptr if hasattr(a.data, "ptr") else a.ctypes.data) % 16 for a in arrays)
