"""Work of two streams, or of a stream and the host, that nothing keeps in order.

The fake CuPy does all work at once, so a wait that is missing never shows in its results.  Here each stream
and the host have a clock of what they are known to come after (Lamport, 1978; Mattern, 1989): events carry
it from one to another.  Two uses of a piece of memory of which one writes, neither of them known to come
after the other, are an error; so is host memory that is filled or given away while a copy still reads it.
"""

from __future__ import annotations

import collections
import contextlib
import operator
import weakref

import device_memory
import fake_cupy
import host_cuda
import numpy as np
import pytest
from fake_cupy import Event, FakeArray, Graph, PinnedMemoryPointer, Stream, _thread, get_current_stream

from xpnet.ops.kernels import CONTROL

WRITES = {operator.setitem, np.copyto, *(f for name, f in vars(operator).items() if name[:3] == "__i")}


class Order:
    """errors: what was found.  copies: (stream, whether from pinned memory) of each copy from the host."""

    def __init__(self):
        self.clocks = collections.defaultdict(collections.Counter)
        self.uses = collections.defaultdict(dict)  # memory -> {(who, wrote): (when, what)}
        self.errors, self.copies = [], []
        self.stream = None  # that a graph runs on
        self.paused = False

    def now(self):
        return (self.stream or get_current_stream()).ptr

    def join(self, who, clock):
        self.clocks[who] |= clock

    def use(self, memory, who, wrote, what):
        """memory is read or written by what, asked of a stream by the host."""
        if memory is None:
            return
        clock, mine = self.clocks[who], self.uses[memory]
        self.join(who, self.clocks["host"])
        for (other, other_wrote), (when, before) in mine.items():
            if other != who and (wrote or other_wrote) and clock[other] < when:
                self.errors.append(f"{what} on stream {who:#x} does not wait for {before} on {other:#x}")
        clock[who] += 1
        mine[who, wrote] = clock[who], what

    def arrays(self, arrays, wrote, what):
        if _thread.capture is None and not self.paused:
            for a in arrays:
                if isinstance(a, np.ndarray) and a.size:
                    self.use(device_memory.lookup(a.ctypes.data), self.now(), wrote, what)

    def host_saw(self, memory, what):
        for (who, _), (when, copy) in self.uses[memory].items():
            if self.clocks["host"][who] < when:
                self.errors.append(f"{what} while {copy} may still read it")


@pytest.fixture
def stream_order(monkeypatch):
    """An `Order` that sees what the fake CuPy is asked for; errors fail the test."""
    order = Order()

    def hook(cls, name):
        """Make the decorated f(original, self, ...) a method of cls."""

        def decorate(f):
            original = getattr(cls, name)
            monkeypatch.setattr(cls, name, lambda self, *args, **more: f(original, self, *args, **more))

        return decorate

    @hook(Event, "record")
    def _(original, self, stream=None):
        original(self, stream)
        who = get_current_stream() if stream is None else stream
        order.join(who.ptr, order.clocks["host"])
        self.clock = order.clocks[who.ptr].copy()

    @hook(Stream, "wait_event")
    def _(original, self, event):
        original(self, event)
        order.join(self.ptr, event.clock)

    @hook(Event, "synchronize")
    def _(original, self):
        original(self)
        order.join("host", self.clock)

    @hook(Stream, "synchronize")
    def _(original, self):
        original(self)
        order.join("host", order.clocks[self.ptr])

    @hook(Graph, "launch")
    def _(original, self, stream=None):
        order.stream = stream
        original(self, stream)
        order.stream = None

    @hook(host_cuda.Function, "__call__")
    def _(original, self, grid, block, args, **more):
        for kind, a in zip(self.types, args):
            order.arrays([a], kind[0] == "*", self.name)
        if self.name.startswith("gather") and _thread.capture is None:
            control = np.frombuffer(args[0].tobytes(), CONTROL)[0]
            for name in ("x", "y", "w", "order"):
                if control[name]:
                    order.use(device_memory.lookup(int(control[name])), order.now(), False, self.name)
        original(self, grid, block, args, **more)

    @hook(FakeArray, "set")
    def _(original, self, host, stream=None):
        root = host
        while isinstance(root, np.ndarray) and root.base is not None:
            root = root.base
        root = root.obj if isinstance(root, memoryview) else root
        who = (get_current_stream() if stream is None else stream).ptr
        pinned = isinstance(root, PinnedMemoryPointer)
        order.copies.append((who, pinned))
        if pinned:
            order.host_saw(id(root), "host memory was filled again")
            if not order.uses[id(root)]:
                weakref.finalize(root, order.host_saw, id(root), "host memory was given away").atexit = False
            order.use(id(root), who, False, "a copy")
        order.use(device_memory.lookup(self.data.ptr), who, True, "a copy")
        order.paused = True
        original(self, host, stream)
        order.paused = False

    @hook(FakeArray, "get")
    def _(original, self, stream=None, *args, **more):
        order.arrays([self._a], False, "get")
        result = original(self, stream, *args, **more)
        order.join("host", order.clocks[(get_current_stream() if stream is None else stream).ptr])
        return result

    plain, place, placed = FakeArray._do.__func__, fake_cupy._place, []

    def _do(cls, f, *args, **kwargs):
        placed.clear()
        result = plain(cls, f, *args, **kwargs)
        if placed or kwargs or result is None or f in WRITES:  # else a view, which is no work
            name = getattr(f, "__name__", "work")
            order.arrays(args[:1], f in WRITES or result is None, name)
            order.arrays(args[1:], False, name)
            order.arrays(kwargs.values(), True, name)
        return result

    def _place(r):
        placed.append(place(r))
        order.arrays(placed[-1:], True, "making it")
        return placed[-1]

    monkeypatch.setattr(FakeArray, "_do", classmethod(_do))
    monkeypatch.setattr(fake_cupy, "_place", _place)
    yield order
    assert not order.errors, "\n".join(dict.fromkeys(order.errors))


@contextlib.contextmanager
def expected(order):
    """What the block does is not in order."""
    yield
    assert order.errors, "nothing was found"
    order.errors.clear()
