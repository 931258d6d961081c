"""Host memory that is used again instead of being mapped and faulted in anew at every step.

A fresh large array costs the kernel one page fault for each 4 KiB the first time it is written, which takes
as long as the arithmetic on it.  The pool hands out blocks of a few sizes; a block comes back by itself when
the last array that views it is gone, so layers allocate temporaries as if they were free.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from .record import fresh, now

SMALL = 1 << 16  # below this malloc serves from memory that is already mapped
KEEP = 1 << 30  # bytes of unused blocks that are kept, at most


class _Block(np.ndarray):
    """Memory of the pool.  A type of its own: NumPy skips over a base of the array's own type, and with it
    the lease.
    """


class _Lease(np.ndarray):
    """A view of a block; when the last array over it goes, the block returns to its pool."""

    _pool: Pool | None = None

    def __del__(self):
        pool = self._pool
        if pool is not None:
            pool._free(self.base)  # type: ignore[arg-type]


class Pool:
    """Blocks of memory by size.  Thread-safe: each step on the shared lists is one atomic operation."""

    def __init__(self, keep: int = KEEP):
        self.keep = keep
        self.unused = 0  # bytes that wait in the lists, to within a race
        self._blocks: dict[int, list[np.ndarray]] = defaultdict(list)

    def empty(self, shape, dtype) -> np.ndarray:
        """An uninitialised C-contiguous array; a large one comes from the pool, aligned to 64 bytes."""
        if now.tape is not None:
            return now.tape.keep(fresh(shape, dtype))
        plain = np.empty(shape, dtype)  # costs nothing until it is written
        if plain.nbytes < SMALL:
            return plain
        size = _rounded(plain.nbytes)
        try:
            block = self._blocks[size].pop()
            self.unused -= size
        except IndexError:
            block = _aligned(size).view(_Block)
        lease = block.view(_Lease)
        lease._pool = self
        return np.ndarray(shape, dtype, buffer=lease)

    def clear(self) -> None:
        """Give all unused blocks back to the system."""
        self._blocks.clear()
        self.unused = 0

    def _free(self, block: np.ndarray) -> None:
        if self.unused + block.size <= self.keep:
            self.unused += block.size
            self._blocks[block.size].append(block)


def _rounded(size: int) -> int:
    """size rounded up to an eighth of its power of two, so that neighbouring batch sizes share their
    blocks.
    """
    step = 1 << max(size.bit_length() - 4, 12)
    return -(-size // step) * step


def _aligned(size: int) -> np.ndarray:
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


pool = Pool()


def aligned_zeros(count: int, dtype) -> np.ndarray:
    """A flat array of zeros that starts on a cache line: the parameter buffers."""
    out = _aligned(max(count, 1) * np.dtype(dtype).itemsize)
    out[...] = 0
    return out.view(dtype)[:count]


def strided(x: np.ndarray, shape, strides, offset: int = 0, dtype=None) -> np.ndarray:
    """A view on the memory of x, of x's own kind: element 0 lies offset bytes behind that of x."""
    view = np.ndarray(shape, dtype or x.dtype, x, offset, strides)
    return view if type(x) is np.ndarray else view.view(type(x))
