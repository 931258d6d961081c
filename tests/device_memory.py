"""Pretended device memory: NumPy arrays between guard zones, findable by address.

Guards are filled with 0xFF, NaN to any float type, so reading them shows in a result, and `check` finds who
wrote there.  What nobody keeps alive any more is not found, which is how a stale pointer shows.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

GUARD = 1024  # bytes on either side of every allocation
ALIGNMENT = 512  # as CuPy's pool has it


class OutOfBounds(AssertionError):
    """Something outside of an allocation was addressed."""


@dataclass(eq=False)
class Allocation:
    start: int
    nbytes: int
    raw: weakref.ref  # the array with the guards around it, or what was registered
    block: Any = None  # whatever the pool that it comes from wants to remember


_starts: list[int] = []  # of the live allocations, in order
_live: dict[int, Allocation] = {}
_resolved: list[Allocation] = []  # looked at before those


def guarded(nbytes: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 memory filled with 0xFF, aligned, and the array that has the guards around it."""
    raw = np.full(nbytes + 2 * GUARD + ALIGNMENT, 0xFF, np.uint8)
    offset = GUARD + -(raw.ctypes.data + GUARD) % ALIGNMENT
    return raw[offset : offset + nbytes], raw


def allocate(nbytes: int) -> np.ndarray:
    """Guarded memory that is findable as long as a view of it lives."""
    memory, raw = guarded(nbytes)
    register(memory, raw)
    return memory


def register(memory: np.ndarray, owner=None, raw=None, block=None, on_death=None) -> Allocation:
    """Make the bytes of memory (contiguous) findable as long as owner (memory's root, if not given) lives."""
    if owner is None:
        owner = memory
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
    raw = owner if raw is None else raw
    allocation = Allocation(memory.ctypes.data, memory.nbytes, weakref.ref(raw), block)
    _live[allocation.start] = allocation
    bisect.insort(_starts, allocation.start)
    weakref.finalize(owner, _die, allocation, on_death).atexit = False
    return allocation


def _die(allocation, on_death):
    forget(allocation)
    if on_death is not None:
        on_death(allocation)


def forget(allocation: Allocation) -> None:
    """From now on its addresses lead nowhere."""
    if _live.get(allocation.start) is allocation:
        del _live[allocation.start]
        _starts.pop(bisect.bisect_left(_starts, allocation.start))


def empty(shape, dtype=float, order="C") -> np.ndarray:
    """Uninitialised, that is poisoned (0xFF), guarded memory as an array."""
    shape = tuple(shape) if np.iterable(shape) else (int(shape),)
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {dtype}: device arrays have none such; view it as uint8 first")
    memory = allocate(math.prod(shape) * dtype.itemsize)
    if dtype.kind == "b":
        memory.fill(1)
    return np.ndarray(shape, dtype, memory, order=order)


def copy(host: np.ndarray) -> np.ndarray:
    """host in guarded memory; Fortran order is kept, any other becomes C order, as in cupy.asarray."""
    host = np.asarray(host)
    order = "F" if host.flags.f_contiguous and not host.flags.c_contiguous else "C"
    device = empty(host.shape, host.dtype, order)
    device[...] = host
    return device


def lookup(ptr: int) -> Allocation | None:
    """The live allocation that holds address ptr (its end included)."""
    for allocation in _resolved:
        if allocation.start <= ptr <= allocation.start + allocation.nbytes:
            return allocation
    i = bisect.bisect_right(_starts, ptr) - 1
    if i < 0:
        return None
    allocation = _live[_starts[i]]
    return allocation if ptr <= allocation.start + allocation.nbytes else None


@contextlib.contextmanager
def resolving(allocations):
    """Addresses lead to these, though they may be dead: a graph uses what was live when it was recorded."""
    _resolved[:] = allocations
    try:
        yield
    finally:
        _resolved.clear()


def find(ptr: int) -> tuple[int, int] | None:
    """(start, bytes) of the live allocation that holds address ptr, or None."""
    allocation = lookup(ptr)
    return None if allocation is None else (allocation.start, allocation.nbytes)


def live() -> list[Allocation]:
    return list(_live.values())


def alias(a: np.ndarray) -> np.ndarray:
    """a as a view that does not keep its allocation alive, only the memory itself."""
    allocation = lookup(a.ctypes.data)
    raw = None if allocation is None else allocation.raw()
    if raw is None or not a.size:
        return a
    return np.ndarray(a.shape, a.dtype, raw, a.ctypes.data - raw.ctypes.data, a.strides)


def contents(allocation: Allocation) -> np.ndarray:
    """The bytes of an allocation, as an alias."""
    raw = allocation.raw()
    offset = allocation.start - raw.ctypes.data
    return raw[offset : offset + allocation.nbytes]


def check(what: str = "", allocations=None) -> None:
    """Raise OutOfBounds if a guard of an allocation (any live one, unless some are given) was overwritten."""
    for allocation in live() if allocations is None else allocations:
        start, nbytes, raw = allocation.start, allocation.nbytes, allocation.raw()
        if raw is None or raw.nbytes < nbytes + 2 * GUARD:
            continue
        offset = start - raw.ctypes.data
        for guard, side in ((raw[offset - GUARD : offset], "before"), (raw[offset + nbytes :], "after")):
            if guard.min() < 0xFF:
                at = np.flatnonzero(guard != 0xFF)
                distance = len(guard) - at[0] if side == "before" else at[0]
                guard.fill(0xFF)
                raise OutOfBounds(
                    f"{what} wrote {distance} bytes {side} the {'start' if side == 'before' else 'end'} of an"
                    f" array of {nbytes} bytes"
                )
