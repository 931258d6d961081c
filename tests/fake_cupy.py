"""A CuPy without a GPU: enough for the real CupyOps to run, with memory pools, streams and CUDA graphs.

On top of the strict fake's arrays.  Memory comes from pools that hand freed blocks out again, filled with
0xFF (NaN), between guard zones.  Kernels are compiled by host_cuda; products of matrices are `Twin`'s.

Inside a capture nothing happens that anybody could see: operations are recorded, and whatever they write is
undone when the capture ends.  A launch of the graph runs them in order, on the very memory they had: if that
has been given back in between, the graph reads NaN, or writes into what now belongs to somebody else, as on a
GPU.  What waits for the device, or copies from or to the host, raises inside a capture and spoils it.

Work is done at once, so missing waits between streams do not show.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import gc
import itertools
import operator
import threading
import weakref

import blas_twin
import device_memory
import host_cuda
import numpy as np
import strict_xp
from strict_xp import StrictArray, StrictModule, syncs

# -- errors ------------------------------------------------------------------------------------------------


class CUDARuntimeError(RuntimeError):
    NAMES = {
        1: "cudaErrorInvalidValue: invalid argument",
        2: "cudaErrorMemoryAllocation: out of memory",
        101: "cudaErrorInvalidDevice: invalid device ordinal",
        700: "cudaErrorIllegalAddress: an illegal memory access was encountered",
        900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
        901: "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture",
        905: "cudaErrorStreamCaptureIsolation: dependency created on uncaptured work in another stream",
        906: "cudaErrorStreamCaptureImplicit: operation would depend on a capturing blocking stream",
    }

    def __init__(self, status, what=""):
        self.status = status
        super().__init__(self.NAMES[status] + (f" ({what})" if what else ""))


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total, limit=0):
        self._size, self._total, self._limit = size, total, limit
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
            + (f", limit set to: {limit:,} bytes)." if limit else ").")
        )


# -- devices -----------------------------------------------------------------------------------------------


class Machine:
    """What the pretended machine has; tests may change it."""

    devices = 1
    memory = 2 << 30  # bytes, of each device
    capability = "90"


class _Thread(threading.local):
    """What CuPy keeps for each thread."""

    def __init__(self):
        self.device = 0
        self.allocator = None
        self.stream = {}  # device -> current stream
        self.capture = None


_thread = _Thread()


def _set_device(index):
    if not 0 <= index < Machine.devices:
        raise CUDARuntimeError(101)
    _thread.device = index


class Device:
    def __init__(self, device=None):
        self.id = _thread.device if device is None else int(device)
        self._before = []

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return int(self) == int(other)

    __hash__ = None

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def __enter__(self):
        before = _thread.device
        _set_device(self.id)
        self._before.append(before)
        return self

    def __exit__(self, *_):
        _set_device(self._before.pop())

    def use(self):
        _set_device(self.id)

    def synchronize(self):
        syncs.note("Device.synchronize()")

    compute_capability = property(lambda self: Machine.capability)
    mem_info = property(lambda self: _memory_info(self.id))
    attributes = property(lambda self: {"MultiProcessorCount": 4, "MaxThreadsPerBlock": 1024, "WarpSize": 32})
    pci_bus_id = property(lambda self: f"0000:{self.id:02X}:00.0")


def _memory_info(index):
    used = sum(pool.total for pool in list(_Pool.all) if pool.device == index)
    return Machine.memory - used, Machine.memory


# -- memory ------------------------------------------------------------------------------------------------


class _Block:
    """Memory of a device that a pool owns."""

    def __init__(self, size, device, stream):
        self.memory, self.raw = device_memory.guarded(size)
        self.size, self.device, self.stream = size, device, stream
        self.released = False  # given back to the device
        self.allocation = None  # of the array that has it
        self.capture = None  # during which it was handed out
        self.source = None  # the Memory it was made of, if a pool has an allocator of its own

    def poison(self):
        self.memory.fill(0xFF)

    def release(self):
        """By its pool.  Somebody else may still hold the Memory that it was made of."""
        if self.source is not None:
            self.source = None
        else:
            self.give_back()

    def give_back(self):
        self.released = True
        self.poison()
        if self.allocation is not None:
            device_memory.forget(self.allocation)


class Memory:
    """Memory of the current device, given back when nobody holds this object any more."""

    def __init__(self, size):
        self.size, self.device_id = size, _thread.device
        if _memory_info(self.device_id)[0] < 0:  # the pool that asks has counted it already
            raise CUDARuntimeError(2, "out of memory")
        self._block = _Block(size, self.device_id, None)
        self.ptr = self._block.memory.ctypes.data

    def __del__(self):
        if hasattr(self, "_block"):
            self._block.give_back()


class _Pool:
    """A pool's blocks on one device."""

    all: weakref.WeakSet = weakref.WeakSet()

    def __init__(self, device, allocator=None):
        self.device, self.allocator = device, allocator
        self.free = collections.defaultdict(list)  # (stream, size) -> blocks
        self.in_use = set()
        self.total = self.limit = 0
        _Pool.all.add(self)

    def malloc(self, size):
        rounded = -(-max(size, 1) // 512) * 512
        stream = get_current_stream()
        key = stream.ptr, rounded
        block = self.free[key].pop() if self.free[key] else self._new(rounded, stream.ptr)
        self.in_use.add(block)
        block.capture = _thread.capture
        # an array of its own, which lives as long as anything that views it
        owner = np.frombuffer(memoryview(block.memory)[: max(size, 1)], np.uint8)
        this = weakref.ref(self)
        block.allocation = device_memory.register(
            owner, owner, block.raw, block, lambda allocation: _freed(allocation.block, this())
        )
        return MemoryPointer(owner, block)

    def _new(self, size, stream):
        for last_resort in (lambda: None, self.release_free, gc.collect, self.release_free):
            last_resort()
            if not self.limit or self.total + size <= self.limit:
                break
        else:
            raise OutOfMemoryError(size, self.total, self.limit)
        self.total += size
        try:
            for last_resort in (lambda: None, self.release_free, gc.collect, self.release_free):
                last_resort()
                try:
                    memory = (self.allocator or (lambda size: MemoryPointer(Memory(size), 0)))(size).mem
                    break
                except CUDARuntimeError as error:  # an allocator's own OutOfMemoryError goes straight out
                    if error.status != 2:
                        raise
            else:
                raise OutOfMemoryError(size, self.total - size, self.limit)
        except BaseException:
            self.total -= size
            raise
        block, memory._block.source, memory._block.stream = memory._block, memory, stream
        return block

    def release_free(self, stream=None):
        for key in list(self.free):
            if stream is None or key[0] == stream.ptr:
                for block in self.free.pop(key):
                    block.release()
                    self.total -= block.size

    def __del__(self):
        # CuPy 13's does the same, even to arrays that are still in use (14's keep their memory)
        for block in (*itertools.chain(*self.free.values()), *self.in_use):
            block.release()


def _freed(block, pool):
    """An array has died."""
    if block.released:
        return
    block.poison()
    capture = _thread.capture
    if capture is not None and block.capture is capture:
        capture.append(block.poison, [block.allocation])  # in its turn when the graph runs, too
    block.allocation = block.capture = None
    if pool is not None:
        pool.in_use.discard(block)
        pool.free[block.stream, block.size].append(block)


class MemoryPointer:
    """mem: keeps the memory; here it is the array over it."""

    def __init__(self, owner, block):
        if isinstance(owner, Memory):  # as CuPy's own: (memory, offset)
            self.mem, self.ptr, self.device_id = owner, owner.ptr + block, owner.device_id
        else:
            self.mem, self.ptr, self.device_id = owner, owner.ctypes.data, block.device
        self.device = Device(self.device_id)

    def __int__(self):
        return self.ptr


class MemoryPool:
    """Memory that dies with the pool, as in CuPy 13: arrays must not outlive it."""

    def __init__(self, allocator=None):
        self._pools, self._allocator = {}, allocator

    def _pool(self):
        device = _thread.device
        if device not in self._pools:
            self._pools[device] = _Pool(device, self._allocator)
        return self._pools[device]

    def malloc(self, size):
        return self._pool().malloc(size)

    def free_all_blocks(self, stream=None):
        self._pool().release_free(stream)

    def n_free_blocks(self):
        return sum(map(len, self._pool().free.values()))

    def used_bytes(self):
        return sum(block.size for block in self._pool().in_use)

    def free_bytes(self):
        return self.total_bytes() - self.used_bytes()

    def total_bytes(self):
        return self._pool().total

    def set_limit(self, size=None, fraction=None):
        if size is not None and fraction is not None:
            raise ValueError("size and fraction cannot be specified at one time")
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError(f"memory limit fraction out of range: {fraction}")
        size = (0 if fraction is None else int(fraction * Machine.memory)) if size is None else size
        if size < 0:
            raise ValueError(f"memory limit size out of range: {size}")
        self._pool().limit = size

    def get_limit(self):
        return self._pool().limit


_default_pool = MemoryPool()
_allocator = _default_pool.malloc


def get_allocator():
    return _thread.allocator or _allocator


def set_allocator(allocator=None):
    global _allocator
    if _thread.allocator is not None:
        raise ValueError("Can't change the global allocator inside `using_allocator` context manager")
    _allocator = allocator or MemoryPool().malloc


@contextlib.contextmanager
def using_allocator(allocator=None):
    before, _thread.allocator = _thread.allocator, allocator or MemoryPool().malloc
    try:
        yield
    finally:
        _thread.allocator = before


def alloc(size):
    return get_allocator()(size)


def allocation(ptr):
    """(start, bytes) of the live array that holds address ptr, or None."""
    return device_memory.find(ptr)


class PinnedMemoryPointer(bytearray):
    """Host memory that a device reads while the host goes on."""

    def __init__(self, size):
        super().__init__(b"\xff" * size)
        self.ptr = np.frombuffer(self, np.uint8).ctypes.data if size else 0
        self.mem = self

    def size(self):
        return len(self)


class PinnedMemoryPool:
    def __init__(self, allocator=None):
        pass

    def malloc(self, size):
        return PinnedMemoryPointer(size)

    def free_all_blocks(self):
        pass

    def n_free_blocks(self):
        return 0


_default_pinned_pool = PinnedMemoryPool()
_pinned_allocator = _default_pinned_pool.malloc


def alloc_pinned_memory(size):
    return _pinned_allocator(size)


def set_pinned_memory_allocator(allocator=None):
    global _pinned_allocator
    _pinned_allocator = allocator or PinnedMemoryPointer


# -- arrays ------------------------------------------------------------------------------------------------

CUBLAS = {np.matmul, np.dot, np.vdot, np.inner, np.tensordot, np.einsum}
THRUST = {np.sort, np.argsort, np.partition, np.argpartition}  # which waits for the stream


class FakeArray(StrictArray):
    """A strict array in a pool's memory."""

    __slots__ = ()

    @classmethod
    def _do(cls, f, *args, **kwargs):
        capture = _capturing()
        inputs = list(_arrays((args, tuple(kwargs.values()))))
        allocations = [device_memory.lookup(a.ctypes.data) for a in inputs]
        for a, found in zip(inputs, allocations):
            _check_alive(a, found)
            if a.size and found.block is not None and found.block.device != _thread.device:
                raise ValueError(f"an array of device {found.block.device} used on device {_thread.device}")
        if capture is not None and (f in CUBLAS or f in THRUST):
            capture.spoil()
            raise NotImplementedError(f"{f.__name__}: calling cuBLAS or Thrust during stream capture")
        with np.errstate(all="ignore"):
            results = f(*args, **kwargs)
        roots = {id(strict_xp._root(a)) for a in inputs}
        targets = []
        placed = _placed(results, roots, targets)
        if capture is not None and f is not operator.getitem:
            allocations += [device_memory.lookup(t.ctypes.data) for t in targets if t is not None]
            capture.append(_work(f, args, kwargs, targets), allocations)
        return placed

    def get(self, *args, **kwargs):
        _check_alive(self._a, device_memory.lookup(self._a.ctypes.data))
        return super().get(*args, **kwargs)

    def _read(self, what, f):
        _check_alive(self._a, device_memory.lookup(self._a.ctypes.data))
        return super()._read(what, f)

    device = property(lambda self: Device(device_memory.lookup(self._a.ctypes.data).block.device))

    def __dlpack_device__(self):
        return 2, _thread.device

    def __dlpack__(self, **_):
        raise BufferError("the fake's memory is nobody else's")


def _placed(r, roots, targets):
    """r in device memory: itself if it views one of the roots.  targets gets what is new, or None."""
    if r is None:
        return None
    if isinstance(r, list | tuple):
        return tuple(_placed(v, roots, targets) for v in r)
    r = np.asarray(r)
    there = id(strict_xp._root(r)) in roots
    targets.append(None if there else _place(r))
    return r if there else targets[-1]


def _check_alive(a, allocation):
    if a.size and allocation is None:
        raise CUDARuntimeError(700, "an array outlived the pool that its memory came from")


def _arrays(x):
    if isinstance(x, np.ndarray):
        yield x
    elif isinstance(x, list | tuple):
        for v in x:
            yield from _arrays(v)


def _leaves(x):
    if isinstance(x, list | tuple):
        for v in x:
            yield from _leaves(v)
    elif x is not None:
        yield np.asarray(x)


def _place(r):
    """A copy of r in device memory, in r's order of memory."""
    strides = np.empty_like(r).strides
    memory = alloc(r.nbytes).mem
    new = np.ndarray(r.shape, r.dtype, memory, strides=strides)
    new[...] = r
    return new


def _aliases(x):
    """x with arrays that do not keep their allocations alive, as a graph does not."""
    if isinstance(x, np.ndarray):
        return device_memory.alias(x)
    if isinstance(x, list | tuple):
        return type(x)(map(_aliases, x))
    return x


def _work(f, args, kwargs, targets):
    args, kwargs = _aliases(args), {name: _aliases(v) for name, v in kwargs.items()}
    targets = _aliases([np.empty(0) if t is None else t for t in targets])

    def work():
        with np.errstate(all="ignore"):
            for target, r in zip(targets, _leaves(f(*args, **kwargs))):
                if target.size:
                    target[...] = r

    return work


# -- streams, events, graphs -------------------------------------------------------------------------------


class _Capture:
    """What a stream records."""

    def __init__(self, stream):
        self.stream, self.spoilt = stream, False
        self.work = []
        self.touched = {}  # allocations whose memory the work uses, and that memory, which they do not keep
        self.before = [(a, device_memory.contents(a).copy()) for a in device_memory.live()]

    def append(self, work, allocations=()):
        self.work.append(work)
        for a in allocations:
            if a is not None:
                self.touched[a] = a.raw()

    def spoil(self):
        self.spoilt = True

    def undo(self):
        """The memory as it was when the capture began; what is new since is poison."""
        live = {a.start: a for a in device_memory.live()}
        for a, bytes_ in self.before:
            if live.get(a.start) is a:
                device_memory.contents(a)[...] = bytes_
                del live[a.start]
        for a in live.values():
            device_memory.contents(a).fill(0xFF)
        self.before = []


def _capturing(stream=None):
    """The capture that work on stream (the current one) becomes part of, or None."""
    capture = _thread.capture
    if capture is None:
        return None
    if (get_current_stream() if stream is None else stream) != capture.stream:
        capture.spoil()
        raise CUDARuntimeError(906, "work on another stream inside a capture")
    return capture


def _watch(what, stream):
    capture = _thread.capture
    if capture is not None and (what != "Stream.synchronize()" or stream == capture.stream):
        capture.spoil()
        raise CUDARuntimeError(900, what)


syncs.watch = _watch


class Graph:
    """launches: how often it ran."""

    def __init__(self, capture):
        self._work, self._touched = capture.work, capture.touched
        self.launches = 0

    def __len__(self):
        return len(self._work)

    def launch(self, stream=None):
        if _thread.capture is not None:
            raise NotImplementedError("the fake has no graphs within graphs")
        for a in self._touched:
            if a.block is not None and a.block.released:
                raise CUDARuntimeError(700, "a graph uses memory that its pool has given back")
        for work in self._work:
            work()
        device_memory.check("a graph", [a for a in self._touched if a in set(device_memory.live())])
        self.launches += 1

    def upload(self, stream=None):
        pass


class Event:
    _numbers = itertools.count(1 << 20)

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.ptr = next(Event._numbers)
        self._capture = None

    def record(self, stream=None):
        capture, stream = _thread.capture, get_current_stream() if stream is None else stream
        self._capture = capture if capture is not None and stream == capture.stream else None

    def synchronize(self):
        """Not counted as a sync: it waits for what came before the event alone."""
        if self._capture is not None:
            self._capture.spoil()
            raise CUDARuntimeError(900, "Event.synchronize()")

    @property
    def done(self):
        self.synchronize()
        return True


def get_elapsed_time(start_event, end_event):
    return 1.0


class Stream:
    _numbers = itertools.count(0x1000, 16)

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.ptr = 0 if null else 2 if ptds else next(Stream._numbers)
        self.device_id = -1 if null or ptds else _thread.device
        self.is_non_blocking = non_blocking
        self._before = []

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self):
        return self.ptr

    def __repr__(self):
        return f"<Stream {self.ptr} (device {self.device_id})>"

    def use(self):
        device = _thread.device
        if self.device_id not in (-1, device):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the current"
                f" device ({device})"
            )
        _thread.stream[device] = self
        return self

    def __enter__(self):
        before = get_current_stream()
        self.use()
        self._before.append((_thread.device, before))
        return self

    def __exit__(self, *_):
        device, before = self._before.pop()
        _thread.stream[device] = before

    def synchronize(self):
        syncs.note("Stream.synchronize()", stream=self)

    done = property(lambda self: True)

    def record(self, event=None):
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event):
        capture = _thread.capture
        if capture is not None and self == capture.stream and event._capture is not capture:
            capture.spoil()
            raise CUDARuntimeError(905)
        if event._capture is not None and (capture is None or self != capture.stream):
            raise NotImplementedError("the fake captures one stream")

    def begin_capture(self, mode=None):
        if self.ptr in (0, 1, 2):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if _thread.capture is not None:
            raise CUDARuntimeError(900, "begin_capture()")
        _thread.capture = _Capture(self)

    def end_capture(self):
        capture = _thread.capture
        if capture is None or capture.stream != self:
            raise CUDARuntimeError(1, "end_capture() of a stream that is not capturing")
        _thread.capture = None
        capture.undo()
        if capture.spoilt:
            raise CUDARuntimeError(901)
        return Graph(capture)

    def is_capturing(self):
        if _thread.capture is None or _thread.capture.stream != self:
            return False
        if _thread.capture.spoilt:  # so it is in CuPy
            raise CUDARuntimeError(901, "is_capturing()")
        return True


Stream.null, Stream.ptds = Stream(null=True), Stream(ptds=True)


def get_current_stream(device_id=-1):
    return _thread.stream.get(_thread.device if device_id == -1 else device_id, Stream.null)


# -- kernels and products ----------------------------------------------------------------------------------


class RawModule:
    def __init__(self, *, code=None, path=None, options=(), backend="nvrtc", translate_cucomplex=False,
                 enable_cooperative_groups=False, name_expressions=None, jitify=False):  # fmt: skip
        self._module = host_cuda.Module(code)

    def compile(self, log_stream=None):
        pass

    def get_function(self, name):
        return RawFunction(self._module.get_function(name))


class RawFunction:
    def __init__(self, function):
        self._function, self.name = function, function.name

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        capture = _capturing(stream)
        allocations = []
        for a in args:
            if isinstance(a, np.ndarray):
                raise TypeError(f"Unsupported type {type(a)}")
            if isinstance(a, StrictArray):
                allocations.append(device_memory.lookup(a._a.ctypes.data))
                _check_alive(a._a, allocations[-1])
        raw = [_aliases(a._a) if isinstance(a, StrictArray) else a for a in args]

        def work():
            self._function(grid, block, raw, shared_mem=shared_mem)
            device_memory.check(self.name, filter(None, allocations))

        work()
        if capture is not None:
            capture.append(work, allocations)


class Twin(blas_twin.BlasTwin):
    """The NumPy twin of Cublas; inside a capture its products become part of the graph."""

    def gemm_batched(self, math, ta, tb, m, n, k, a, lda, sa, b, ldb, sb, beta, c, ldc, sc, batch):
        allocations = [found for p in (a, b, c) if (found := device_memory.lookup(p)) is not None]

        def work():
            with device_memory.resolving(allocations):
                super(Twin, self).gemm_batched(
                    math, ta, tb, m, n, k, a, lda, sa, b, ldb, sb, beta, c, ldc, sc, batch
                )

        capture = _capturing()
        work()
        if capture is not None:
            capture.append(work, allocations)


# -- the module --------------------------------------------------------------------------------------------


def _memcpy(dst, src, size, kind, stream=None):
    syncs.note("memcpy", to_device=kind == 1, to_host=kind == 2, stream=stream)
    ctypes.memmove(dst, src, size)


def _properties(device):
    major, minor = int(Machine.capability[:-1]), int(Machine.capability[-1])
    return {
        "name": b"pretended GPU", "major": major, "minor": minor, "totalGlobalMem": Machine.memory,
        "multiProcessorCount": 4, "sharedMemPerBlock": 49152, "maxThreadsPerBlock": 1024, "warpSize": 32,
        "l2CacheSize": 1 << 20, "pciBusID": device, "clockRate": 1_000_000, "memoryClockRate": 1_000_000,
    }  # fmt: skip


def _fill(name, members):
    module = StrictModule(name)
    for key, value in members.items():
        setattr(module, key, value)
    return module


def _build():
    cupy = strict_xp._module(FakeArray)
    runtime = _fill("runtime", {
        "CUDARuntimeError": CUDARuntimeError,
        "memcpyHostToDevice": 1, "memcpyDeviceToHost": 2, "memcpyDeviceToDevice": 3,
        "streamCaptureModeGlobal": 0, "streamCaptureModeThreadLocal": 1, "streamCaptureModeRelaxed": 2,
        "getDeviceCount": lambda: Machine.devices, "getDevice": lambda: _thread.device,
        "setDevice": _set_device, "getDeviceProperties": _properties,
        "runtimeGetVersion": lambda: 13000, "driverGetVersion": lambda: 13000,
        "memGetInfo": lambda: _memory_info(_thread.device),
        "deviceSynchronize": lambda: syncs.note("deviceSynchronize()"),
        "memcpyAsync": _memcpy, "is_hip": False,
    })  # fmt: skip
    memory = _fill("memory", {
        "OutOfMemoryError": OutOfMemoryError, "MemoryPool": MemoryPool, "MemoryPointer": MemoryPointer,
        "alloc": alloc, "set_allocator": set_allocator, "get_allocator": get_allocator,
    })  # fmt: skip
    cupy.cuda = _fill("cuda", {
        "runtime": runtime, "memory": memory, "graph": _fill("graph", {"Graph": Graph}), "Graph": Graph,
        "stream": _fill("stream", {"Stream": Stream, "get_current_stream": get_current_stream}),
        "Memory": Memory,
        "Device": Device, "Stream": Stream, "Event": Event, "MemoryPool": MemoryPool, "alloc": alloc,
        "MemoryPointer": MemoryPointer, "set_allocator": set_allocator, "get_allocator": get_allocator,
        "using_allocator": using_allocator, "get_current_stream": get_current_stream,
        "get_elapsed_time": get_elapsed_time, "alloc_pinned_memory": alloc_pinned_memory,
        "PinnedMemoryPool": PinnedMemoryPool, "PinnedMemoryPointer": PinnedMemoryPointer,
        "set_pinned_memory_allocator": set_pinned_memory_allocator, "is_available": lambda: True,
        "get_device_id": lambda: _thread.device,
    })  # fmt: skip
    cupy.__version__ = "14.2.0"
    cupy.RawModule = RawModule
    cupy.get_default_memory_pool = lambda: _default_pool
    cupy.get_default_pinned_memory_pool = lambda: _default_pinned_pool
    cupy.from_dlpack = _from_dlpack
    cupy.get_array_module = lambda *a: cupy if any(isinstance(v, StrictArray) for v in a) else np
    return cupy


def _from_dlpack(a):
    if not isinstance(a, FakeArray):
        raise BufferError(f"from_dlpack takes the memory of a device. Received: {type(a)}")
    return FakeArray(a._a.view())


cupy = _build()
