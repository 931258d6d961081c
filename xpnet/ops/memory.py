"""Host memory that is used again instead of being mapped and faulted in anew at every step.

A fresh large array costs the kernel one page fault for each 4 KiB the first time it is written, which takes
as long as the arithmetic on it.  A room hands out places in memory of its own, always the first that is large
enough; a place comes back by itself when the last array that views it is gone, so layers allocate temporaries
as if they were free.
"""

from __future__ import annotations

import bisect
import math
import mmap
import os
import threading
from collections import deque
from typing import Any

import numpy as np

SMALL = 1 << 16  # below this malloc serves from memory that is already mapped
KEEP = 1 << 30  # bytes of unused memory that are kept, at most
CHUNK = 1 << 20  # bytes by which a room grows, at least
LINE = 64  # bytes of a cache line


class _Now(threading.local):
    """How this thread works for the moment.

    tape: `record.Tape`, on which its work is noted.  room: where its temporaries go, instead of the pool.
    alone: it tries something out, and no other thread will come to meet it.
    """

    tape: Any = None
    room: Room | None = None
    alone = False


now = _Now()


class _Chunk(np.ndarray):
    """Memory of a room.  A type of its own: NumPy skips over a base of the array's own type, and with it the
    place.
    """


class _Place(np.ndarray):
    """The memory of one array in a room; when the last view of it goes, it is free."""

    room: Room | None = None
    span: tuple[int, int, int]

    def __del__(self):
        if self.room is not None:
            self.room._back.append(self.span)


class Room:
    """Memory for arrays.  Thread-safe."""

    def __init__(self, keep: int = KEEP):
        self.keep = keep
        self._chunks: list[Any] = []  # None where one was given back
        self._free: list[list[tuple[int, int]]] = []  # of each chunk, starts and stops of what is free
        self._unused = 0
        self._back: deque[tuple[int, int, int]] = deque()  # places that have come back since the last look
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(chunk.nbytes for chunk in self._chunks if chunk is not None)

    @property
    def unused(self) -> int:
        """Bytes that no array takes."""
        with self._lock:
            self._collect()
            return self._unused

    def empty(self, shape, dtype, strides=None) -> np.ndarray:
        """An uninitialised array, aligned to a cache line; C-contiguous unless strides say otherwise."""
        size = _lines(math.prod(shape) * np.dtype(dtype).itemsize)
        if not size:
            return np.empty(shape, dtype)
        with self._lock:
            self._collect()
            number, start = self._take(size)
            place = self._chunks[number][start : start + size].view(_Place)
        place.span, place.room = (number, start, start + size), self
        return np.ndarray(shape, dtype, place, 0, strides)

    def bare(self, a: np.ndarray) -> np.ndarray:
        """a, if it lies here, as an array that does not keep its place from others; else a itself."""
        if not a.size:
            return np.empty(a.shape, a.dtype)
        where = address(a)
        for chunk in self._chunks:
            if chunk is not None and 0 <= (offset := where - address(chunk)) < chunk.nbytes:
                return np.ndarray(a.shape, a.dtype, chunk, offset, a.strides)
        return a

    def clear(self) -> None:
        """Give all memory that holds no array back to the system."""
        with self._lock:
            self._collect()
            self._drop(0)

    def _collect(self) -> None:
        """Join the places that have come back with what is free beside them."""
        while self._back:
            number, start, stop = self._back.popleft()
            self._unused += stop - start
            spans = self._free[number]
            k = bisect.bisect(spans, (start, stop))
            if k < len(spans) and spans[k][0] == stop:
                stop = spans.pop(k)[1]
            if k and spans[k - 1][1] == start:
                k -= 1
                start = spans.pop(k)[0]
            spans.insert(k, (start, stop))
        if self._unused > self.keep:
            self._drop(self.keep)

    def _drop(self, most: int) -> None:
        """Let go of whole chunks until no more than so many bytes are unused."""
        for number, chunk in enumerate(self._chunks):
            if self._unused > most and chunk is not None and self._free[number] == [(0, chunk.nbytes)]:
                self._unused -= chunk.nbytes
                self._chunks[number], self._free[number] = None, []

    def _take(self, size: int) -> tuple[int, int]:
        """The chunk and the start of a place of so many bytes."""
        self._unused -= size
        for number, spans in enumerate(self._free):
            for k, (start, stop) in enumerate(spans):
                if stop - start >= size:
                    spans[k : k + 1] = [(start + size, stop)] if stop - start > size else []
                    return number, start
        grown = max(size, CHUNK, self.size // 2)
        memory = np.frombuffer(mmap.mmap(-1, grown), np.uint8)  # goes back as soon as it is let go
        self._chunks.append(memory.view(_Chunk))
        self._free.append([(size, grown)] if grown > size else [])
        self._unused += grown
        return len(self._chunks) - 1, 0


class Pool(Room):
    """The room of all that has none of its own; small arrays come from malloc."""

    def empty(self, shape, dtype, strides=None) -> np.ndarray:
        if now.tape is not None:
            return now.tape.empty(shape, dtype)
        if now.room is not None:
            return now.room.empty(shape, dtype)
        if math.prod(shape) * np.dtype(dtype).itemsize < SMALL:
            return np.empty(shape, dtype)
        return super().empty(shape, dtype)


pool = Pool()
if hasattr(os, "register_at_fork"):  # a child must not wait for a thread that it does not have
    os.register_at_fork(after_in_child=lambda: setattr(pool, "_lock", threading.Lock()))


def address(a: np.ndarray) -> int:
    """Where a's first element lies."""
    return a.__array_interface__["data"][0]


def _lines(size: int) -> int:
    """size in whole cache lines."""
    return -(-size // LINE) * LINE


def aligned_zeros(count: int, dtype) -> np.ndarray:
    """A flat array of zeros that starts on a cache line: the parameter buffers."""
    size = max(count, 1) * np.dtype(dtype).itemsize
    raw = np.zeros(size + LINE, np.uint8)
    start = -address(raw) % LINE
    return raw[start : start + size].view(dtype)[:count]


def strided(x: np.ndarray, shape, strides, offset: int = 0, dtype=None) -> np.ndarray:
    """A view on the memory of x, of x's own kind: element 0 lies offset bytes behind that of x."""
    view = np.ndarray(shape, dtype or x.dtype, x, offset, strides)
    return view if type(x) is np.ndarray else view.view(type(x))
