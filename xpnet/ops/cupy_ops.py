"""NVIDIA GPUs: CuPy's arrays, own kernels, and cuBLAS called so that a CUDA graph can record it.

CuPy 14 has no cuDNN, and none of its own cuBLAS calls can be recorded; so products of matrices go through
`cublas.py`, convolutions through `zero_copy.py` (as products of matrices on the map in place) or through the
kernel of `kernels/conv.cu` where they are small or not aligned, and what lies between through a dozen
kernels. Activations and optimizers keep their plain formulas: `fuse.py` turns each into the body of a kernel.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import logging
import threading
import weakref
from typing import Any

import numpy as np

from ..activations import Linear
from . import fuse, zero_copy
from .geometry import Window
from .kernels import CONTROL, Kernels, cast, conv, dropout, layout, loss, norm, pool, sums, update
from .reference import Control, Ops, Recorder

log = logging.getLogger("xpnet")

MATH = {  # what convolutions and dense layers multiply in
    "auto": ("tf32", "float32"),  # as PyTorch does
    "float32": ("float32", "float32"),
    "tf32": ("tf32", "tf32"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "float64": ("float64", "float64"),
}


class CupyOps(Ops):
    """Operations on CuPy arrays of GPU number index.  Raises whatever CuPy raises where that GPU does not
    work.

    All work of a model goes to one stream of its own, so that it runs in the order in which it was asked for.
    """

    name = "cupy"
    inference_block = 1024

    def __init__(self, index: int = 0, precision: str = "auto", cupy: Any = None, blas: Any = None):
        cupy = cupy or importlib.import_module("cupy")
        self.index = index
        with cupy.cuda.Device(index) as device:
            if float(cupy.ones(2).sum()) != 2.0:  # the first array is where a missing driver or library shows
                raise RuntimeError("the first sum on the GPU was wrong")
            super().__init__(cupy, f"cuda:{index}")
            modern = int(device.compute_capability) >= 80
            self.precisions = tuple(MATH)[1:] if modern else ("float32", "float64")
            if precision not in self.precisions:
                precision = "auto" if modern else "float32"
            self.precision = precision
            self.conv_math, self.dense_math = MATH[precision]
            self.gpu = Kernels(cupy)
            self._tables: dict[tuple, Any] = {}  # small arrays that are kept
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.gate, self.inside = threading.RLock(), 0  # threads that use the stream
            self._copying: Any = None  # a stream for copies that run beside the work
            if blas is None:
                from .cublas import shared

                blas = shared(cupy, index)
                blas.use(self.stream)  # here, so that a missing cuBLAS is a reason for the CPU instead
                weakref.finalize(self, blas.forget, self.stream.ptr).atexit = False
            self.blas = blas
        self.out_of_memory = (cupy.cuda.memory.OutOfMemoryError,)

    def meaning(self, dtype):
        if np.dtype(dtype) == np.float64:
            return "float64"
        if self.conv_math == self.dense_math:
            return (
                self.conv_math if self.conv_math == "float32" else f"{self.conv_math} products, float32 sums"
            )
        return f"convolutions {self.conv_math}, dense {self.dense_math}"

    @contextlib.contextmanager
    def running(self):
        current = self.xp.cuda.get_current_stream(self.index)
        if current.ptr == self.stream.ptr and self.xp.cuda.Device().id == self.index:
            yield
            return
        with self.gate:  # shut while another thread records on the stream
            self.inside += 1
        try:
            with self.xp.cuda.Device(self.index), self.stream:
                self.stream.wait_event(current.record())
                try:
                    yield
                finally:
                    current.wait_event(self.stream.record())
        finally:
            with self.gate:
                self.inside -= 1

    # -- arrays ----------------------------------------------------------------------------------------------

    def owns(self, a):
        return isinstance(a, self.xp.ndarray) and a.device.id == self.index

    def to_host(self, a):
        return self.xp.asnumpy(a)

    def synchronize(self):
        self.stream.synchronize()

    def flat(self, count, dtype):
        with self._lasting():
            return self.xp.zeros(max(count, 1), dtype)[:count]

    def _lasting(self):
        """A context in which memory comes from CuPy's own pool, not from that of a model's steps, which goes
        with them.
        """
        return self.xp.cuda.using_allocator(self.xp.get_default_memory_pool().malloc)

    def pack(self, x, dtype):
        N, C, H, W = x.shape
        out = self.empty((H, C, W, N), dtype)
        layout.pack(self.gpu, x if x.dtype != np.float16 else x.astype(np.float32), out)
        return out

    def unpack(self, x):
        H, C, W, N = x.shape
        out = self.empty((N, C, H, W), x.dtype)
        layout.unpack(self.gpu, self._whole(x), out)
        return out

    def pad(self, x, padding, value=0.0):
        (top, bottom), (left, right) = padding
        if not (top or bottom or left or right):
            return x
        H, C, W, N = x.shape
        out = self.empty((top + H + bottom, C, left + W + right, N), x.dtype)
        layout.pad(self.gpu, self._whole(x), out, padding, value)
        return out

    def ones(self, n, dtype):
        key = "ones", n, np.dtype(dtype)
        if key not in self._tables:
            if len(self._tables) > 64:
                return super().ones(n, dtype)
            with self._lasting():
                self._tables[key] = super().ones(n, dtype)
        return self._tables[key]

    def _whole(self, a):
        """a, C-contiguous, as kernels want it."""
        return a if a.flags.c_contiguous else self.xp.ascontiguousarray(a)

    def _either(self, a):
        """a vector (N, D) in either order of memory, or a whole map."""
        return a if a.flags.c_contiguous or (a.ndim == 2 and a.flags.f_contiguous) else self._whole(a)

    # -- products --------------------------------------------------------------------------------------------

    def _math(self, wanted: str, dtype) -> str:
        return "float64" if dtype == np.float64 else wanted

    def _operand(self, a, math: str):
        """a in the type that math multiplies; bfloat16 as its bits."""
        if math != "bfloat16":
            return a
        a = self._either(a)
        out = self.xp.empty_like(a, dtype=np.uint16)
        cast.to_bfloat16(self.gpu, a, out)
        return out

    def matmul(self, a, b, out=None):
        out = self.empty((a.shape[0], b.shape[1]), a.dtype) if out is None else out
        math = self._math(self.dense_math, a.dtype)
        self.blas.matmul(self._operand(a, math), self._operand(b, math), out, math)
        return out

    def conv2d(self, x, w, window: Window, groups: int = 1, bias=None, function=None):
        x, window = self.bordered(x, w, window, groups)
        KW, F, KH, C = w.shape
        OH, OW = window.positions(x)
        x, y = self._whole(x), self.empty((OH, F, OW, x.shape[3]), x.dtype)
        code = "" if function is None else _activate(function)
        math = self._math(self.conv_math, x.dtype)
        if zero_copy.covers(window, groups, C, F, x.shape[3], math):
            x, w = self._operand(x, math), self._operand(w, math)

            def finish(rows):
                if bias is not None or code:
                    sums.finish(self.gpu, rows, bias, code or "")

            zero_copy.forward(self.blas, math, x, w, y, window, finish=finish)
        else:
            conv.forward(self.gpu, x, w, bias, y, window, groups, code or "")
        if code is None:
            function.forward(self, y, y)
        return y

    def conv2d_weight_grad(self, x, dz, dw, window: Window, groups: int = 1):
        x, window = self.bordered(x, dw, window, groups)
        KW, F, KH, C = dw.shape
        math = self._math(self.conv_math, x.dtype)
        x, dz = self._whole(x), self._whole(dz)
        if zero_copy.covers(window, groups, C, F, x.shape[3], math):
            x, dz = self._operand(x, math), self._operand(dz, math)
            zero_copy.weight_grad(self.blas, math, x, dz, dw, window, self.empty, self._sum_parts)
        else:
            conv.weight_grad(self.gpu, x, dz, dw, window, groups)

    def conv2d_input_grad(self, dz, w, shape, window: Window, groups: int = 1):
        KW, F, KH, C = w.shape
        dz, dx = self._whole(dz), self.empty(shape, dz.dtype)
        math = self._math(self.conv_math, dz.dtype)
        if zero_copy.covers_input_grad(window, groups, C, F, shape[3], math):
            dz, w = self._operand(dz, math), self._operand(w, math)
            zero_copy.input_grad(self.blas, math, dz, w, dx, window, self.empty, self.pad)
        else:
            conv.input_grad(self.gpu, dz, w, dx, window, groups)
        return dx

    def _sum_parts(self, parts, out):
        conv.sum_parts(self.gpu, parts, out)

    # -- pooling ---------------------------------------------------------------------------------------------

    def max_pool(self, x, window: Window):
        y = self._pooled(x, window)
        pool.max_forward(self.gpu, self._whole(x), y, window)
        return y

    def max_pool_backward(self, dy, x, y, window: Window):
        dx = self.empty(x.shape, x.dtype)
        pool.max_backward(self.gpu, self._whole(dy), self._whole(x), self._whole(y), dx, window)
        return dx

    def sum_pool(self, x, window: Window):
        y = self._pooled(x, window)
        pool.sum_forward(self.gpu, self._whole(x), y, window)
        return y

    def sum_pool_backward(self, dy, shape, window: Window):
        dx = self.empty(shape, dy.dtype)
        pool.sum_backward(self.gpu, self._whole(dy), dx, window)
        return dx

    def _pooled(self, x, window: Window):
        OH, OW = window.positions(x)
        return self.empty((OH, x.shape[1], OW, x.shape[3]), x.dtype)

    # -- sums, masks, functions ------------------------------------------------------------------------------

    def feature_sum(self, a, out=None):
        out = self.empty((a.shape[1],), a.dtype) if out is None else out
        sums.feature_sum(self.gpu, self._either(a), out)
        return out

    def finish(self, z, bias, function):
        code = _activate(function)
        if code is not None and self._either(z) is z:
            y = self.like(z) if function.keeps_input else z
            if code or bias is not None:
                sums.finish(self.gpu, z, bias, code, out=y)
            return y, z
        if bias is not None:
            sums.finish(self.gpu, z, bias, "")
        if not function.keeps_input:
            return function(self, z)
        return self.activate(z, function)

    def finish_backward(self, dy, kept, function, dbias=None):
        code = _slope(function)
        if code is None or self._either(dy) is not dy:
            return super().finish_backward(dy, kept, function, dbias)
        if code or dbias is not None:
            sums.finish_backward(self.gpu, dy, kept if code else None, dbias, code)
        return dy

    def activate(self, x, function):
        code = _activate(function)
        if code is None:
            return super().activate(x, function)
        x = self._either(x)
        y = self.like(x)
        sums.finish(self.gpu, x, None, code, out=y)
        return y, (x if function.keeps_input else y)

    def random_bits(self, key, layer, step, shape):
        out, control = self.empty(shape, np.uint16), CupyControl(self)
        control.set(step=step)
        dropout.bits(self.gpu, out, control.memory, key, layer)
        return out

    def stream_bits(self, stream, shape):
        stream.control.set(step=stream.step)
        out = self.empty(shape, np.uint16)
        dropout.bits(self.gpu, out, stream.control.memory, stream.seed, stream.number)
        return out

    def dropout(self, x, stream, threshold, scale):
        stream.control.set(step=stream.step)
        x = self._either(x)
        y, mask = self.like(x), self.like(x)
        where = stream.control.memory, stream.seed, stream.number
        dropout.forward(self.gpu, x, y, mask, *where, threshold, scale)
        return y, mask

    def batch_norm(self, x, weight, bias, epsilon):
        x, n = self._either(x), self.elements_a_feature(x)
        y = self.like(x)
        mean, var, slope = (self.empty(weight.shape, x.dtype) for _ in range(3))
        norm.forward(self.gpu, x, weight, bias, epsilon, y, mean, var, slope)
        return y, mean, var, n, (x, mean, slope)

    def batch_norm_backward(self, dy, cache, weight, dweight, dbias, needs_dx=True):
        x, mean, slope = cache
        dy = self._either(dy)
        norm.backward(self.gpu, dy, x, mean, slope, weight, dweight, dbias, dy if needs_dx else None)
        return dy if needs_dx else None

    def running_statistics(self, mean, var, n, momentum, running, out):
        norm.running_statistics(self.gpu, mean, var, n, momentum, running, out)

    def crossentropy(self, p, y, w, divisor, smoothing, mean):
        value, dp = self.empty((), p.dtype), self.empty(p.shape, p.dtype)
        y = y if y.ndim == 1 else y.astype(p.dtype, copy=False)
        loss.crossentropy(self.gpu, self._whole(p), self._whole(y), w, divisor, smoothing, mean, value, dp)
        return value, dp

    def count_right(self, p, y, w):
        out = self.empty((2,), np.float64)
        loss.count_right(self.gpu, self._whole(p), self._whole(y), w, out)
        return out

    # -- a training step -------------------------------------------------------------------------------------

    def control(self):
        with self.running():
            return CupyControl(self)

    def gather(self, control, n, dtype, channels_last):
        x, memory = control.x, control.memory
        if x.ndim == 4:
            order = (0, 3, 1, 2) if channels_last else (0, 1, 2, 3)
            strides = tuple(x.strides[axis] // x.dtype.itemsize for axis in order)
            _, C, H, W = (x.shape[axis] for axis in order)
            h = self.empty((H, C, W, n), dtype)
            layout.gather_map(self.gpu, memory, x.dtype, strides, h)
        else:
            h = self.empty((n, *x.shape[1:]), dtype)
            layout.gather_rows(self.gpu, memory, "x", x.dtype, h)
        rows: list[Any] = []
        for which, a in (("y", control.y), ("w", control.w)):
            rows.append(None if a is None else self.empty((n, *a.shape[1:]), a.dtype))
            if a is not None:
                layout.gather_rows(self.gpu, memory, which, a.dtype, rows[-1])
        return h, *rows

    def judge(self, control, grads, ranges, loss, clipvalue, n):
        update.judge(self.gpu, control.memory, grads, ranges, loss, clipvalue, n)

    def optimizer_step(self, control, optimizer, values, grads, state, ranges):
        code, reason = _trace(fuse.update, optimizer)
        if code is None:
            if self.stream.is_capturing():  # its numbers would be frozen
                raise fuse.NotTraceable(f"{type(optimizer).__name__}.update: {reason}")
            super().optimizer_step(control, optimizer, values, grads, state, ranges)
            return
        for start, stop in ranges:
            update.step(self.gpu, control.memory, code, [values, grads, *state], start, stop)

    def take_over(self, control, state, pending):
        update.take_over(self.gpu, control.memory, state, pending)

    def limit_norms(self, grads, slots, limit):
        key = tuple((slot.start, slot.size) for slot in slots)
        if key not in self._tables:
            with self._lasting():
                columns = (np.array(column, np.int64) for column in zip(*key))
                self._tables[key] = tuple(self.xp.asarray(column) for column in columns)
        starts, sizes = self._tables[key]
        update.clip_slots(self.gpu, grads, starts, sizes, limit)

    def accumulate(self, total, values, factor=1.0):
        update.accumulate(self.gpu, total, values, factor)

    def recorder(self):
        return CupyRecorder(self)

    # -- memory ----------------------------------------------------------------------------------------------

    def free_memory(self):
        with self.xp.cuda.Device(self.index) as device:
            held = self.xp.get_default_memory_pool()
            free = device.mem_info[0] + held.free_bytes()
            limit = held.get_limit()
            return min(free, limit - held.used_bytes()) if limit else free

    def release_memory(self):
        self.xp.get_default_memory_pool().free_all_blocks()

    def staging(self, shape, dtype):
        dtype, count = np.dtype(dtype), int(np.prod(shape))
        pinned = self.xp.cuda.alloc_pinned_memory(max(1, count * dtype.itemsize))
        return np.frombuffer(pinned, dtype, count).reshape(shape)

    def upload(self, staged, out, behind=None):
        if self._copying is None:
            self._copying = self.xp.cuda.Stream(non_blocking=True)
        if behind is not None:
            self._copying.wait_event(behind)
        out.set(staged, stream=self._copying)
        return self._copying.record()

    def mark(self):
        return self.stream.record()

    def after(self, event):
        if event is not None:
            self.stream.wait_event(event)

    def wait(self, event):
        if event is not None:
            event.synchronize()

    def shortage(self, error):
        asked, held, limit = (getattr(error, name, 0) for name in ("_size", "_total", "_limit"))
        if not asked:
            return super().shortage(error)
        with self.xp.cuda.Device(self.index) as device:
            free, total = device.mem_info
        return f"It asked for {_size(asked)} more, with {_size(held)} in use" + (
            f" of a limit of {_size(limit)}" if limit else f" and {_size(free)} free of {_size(total)}"
        )


class CupyControl(Control):
    """The struct Control of kernels/common.cuh in the GPU's memory, and what the host knows of it."""

    def __init__(self, ops: CupyOps):
        self.ops: Any = ops
        self.memory = ops.xp.zeros(CONTROL.itemsize, np.uint8)
        self.step = self.iterations = self.cursor = 0
        self.rate = 0.0
        self.x = self.y = self.w = self.order = None
        update.write_control(ops.gpu, self.memory, good=1)

    def set(self, **fields):
        changed = {}
        for name, value in fields.items():
            known = getattr(self, name)
            if known is not value and (name in ("x", "y", "w", "order") or known != value):
                setattr(self, name, value)
                changed[name] = value
        if changed:
            with self.ops.running():
                update.write_control(self.ops.gpu, self.memory, **changed)

    def read(self):
        with self.ops.running():
            skipped = int(update.read_control(self.ops.gpu, self.memory)["skipped"])
            self.step, self.iterations = self.step - skipped, self.iterations - skipped
            self.say(good=1, skipped=0)
        return skipped

    def say(self, **more):
        now = {"step": self.step, "iterations": self.iterations, "cursor": self.cursor}
        with self.ops.running():
            update.write_control(self.ops.gpu, self.memory, **now, **more)

    # for optimizers that cannot be traced, whose plain formula runs call by call

    def _field(self, name: str):
        dtype, start = dict(CONTROL.fields or {})[name][:2]
        return self.memory[start : start + dtype.itemsize].view(dtype)[0]

    ok = property(lambda self: self._field("ok") != 0)
    norm = property(lambda self: self._field("norm"))


class CupyRecorder(Recorder):
    """Records steps as CUDA graphs.

    The temporaries of a model's steps come from a pool of their own, so that nobody else is ever handed the
    memory that a graph uses: its addresses are part of it.  Recordings share it, since one runs at a time and
    none leaves anything in it for the next.
    """

    def __init__(self, ops: CupyOps):
        self.ops, self.cuda = ops, ops.xp.cuda
        self.refused: str | None = None  # why steps run call by call
        self._new_pool()

    def _new_pool(self) -> None:
        self.pool = self.cuda.MemoryPool(functools.partial(_allocate, self.ops.xp, weakref.ref(self)))
        with self.cuda.Device(self.ops.index):
            self.pool.set_limit(size=0)  # which CUPY_GPU_MEMORY_LIMIT sets; _allocate has an eye on it
        # CuPy 14 never gives back what a pool holds as it dies
        self._give_back = weakref.finalize(self, _give_back, self.cuda, self.ops.index, self.pool)
        self._give_back.atexit = False

    def run(self, work):
        with self.ops.running(), self.cuda.using_allocator(self.pool.malloc):
            work()

    def record(self, work):
        if self.refused is not None:
            return None
        stream = self.ops.stream
        try:
            with self.ops.running(), self.ops.gate, self.cuda.using_allocator(self.pool.malloc):
                if self.ops.inside > 1:  # what another thread asks for would be recorded too: another time
                    return None
                self.ops.blas.use(stream)
                stream.begin_capture()
                try:
                    work()
                except BaseException:
                    with contextlib.suppress(Exception):  # what was recorded so far is of no use
                        stream.end_capture()
                    raise
                return Recording(stream.end_capture(), self)
        except self.ops.out_of_memory:
            raise
        except Exception as error:
            self.refused = f"{type(error).__name__}: {error}"
            log.warning("the training step cannot be recorded and runs call by call: %s", self.refused)
            return None

    def release(self):
        self._give_back()
        self._new_pool()
        self.ops.release_memory()


def _allocate(xp, recorder, size: int):
    """Memory of the device for a recorder's pool, within the limit that all pools share.

    OutOfMemoryError where there is none: at CUDA's own error CuPy would make room by giving back the pool's
    free blocks, which are those that the graphs work in.
    """
    cuda, others = xp.cuda, xp.get_default_memory_pool()
    held, limit = recorder().pool.total_bytes() - size, others.get_limit()
    for attempt in range(2):
        if not limit or others.total_bytes() + held + size <= limit:
            try:
                return cuda.MemoryPointer(cuda.Memory(size), 0)
            except cuda.runtime.CUDARuntimeError as error:
                if error.status != 2:  # cudaErrorMemoryAllocation
                    raise
        if not attempt:
            gc.collect()
            others.free_all_blocks()
    raise cuda.memory.OutOfMemoryError(size, held, limit)


def _give_back(cuda, index: int, pool) -> None:
    with cuda.Device(index):
        pool.free_all_blocks()


class Recording:
    """A CUDA graph of one step, with the memory it works in."""

    def __init__(self, graph, recorder: CupyRecorder):
        self.graph, self.pool, self.stream = graph, recorder.pool, recorder.ops.stream

    def launch(self) -> None:
        self.graph.launch(self.stream)


_traces: dict[tuple, tuple[str | None, str]] = {}


def _activate(function) -> str | None:
    """The activation as a function of a kernel; "" for the identity, None where it is not element-wise."""
    return "" if isinstance(function, Linear) else _trace(fuse.activate, function)[0]


def _slope(function) -> str | None:
    return "" if isinstance(function, Linear) else _trace(fuse.slope, function)[0]


def _trace(trace, formula) -> tuple[str | None, str]:
    """(trace(formula), ""), or (None, why not): made once for each class and its settings."""
    settings = sorted((name, value) for name, value in vars(formula).items() if name not in fuse.GIVEN)
    key = trace, type(formula), repr(settings)
    if key not in _traces:
        try:
            _traces[key] = trace(formula), ""
        except fuse.NotTraceable as reason:
            _traces[key] = None, str(reason)
    return _traces[key]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
