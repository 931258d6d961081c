"""Matrix products of float32, tf32, bfloat16 and float64 by NVIDIA's cuBLAS, through ctypes.

CuPy's own calls of cuBLAS cannot be captured in a CUDA graph, copy transposed operands in batches and know no
tf32; these here can, do not, and do.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from typing import Any, NamedTuple

INT_MAX = 2**31 - 1
_NUMBERS = {kind: {beta: kind(beta) for beta in (0, 1)} for kind in (ctypes.c_float, ctypes.c_double)}
SCALARS = {
    "f": {beta: ctypes.addressof(number) for beta, number in _NUMBERS[ctypes.c_float].items()},
    "d": {beta: ctypes.addressof(number) for beta, number in _NUMBERS[ctypes.c_double].items()},
}
"""What cuBLAS is given for alpha and beta: addresses of numbers that live for ever."""


class Math(NamedTuple):
    """How products are taken.  operand and out: the NumPy types of A, B and of C."""

    operand: str
    out: str
    operand_type: int  # cudaDataType
    out_type: int
    compute: int  # cublasComputeType_t
    pedantic: int  # the same, bound to its very precision
    scalar: str  # of alpha and beta


MATHS = {
    "float32": Math("float32", "float32", 0, 0, 68, 69, "f"),  # COMPUTE_32F: no tf32
    "tf32": Math("float32", "float32", 0, 0, 77, 77, "f"),  # COMPUTE_32F_FAST_TF32: 10 bits of mantissa
    "bfloat16": Math("uint16", "float32", 14, 0, 68, 68, "f"),  # the upper halves of float32; sums in float32
    "float64": Math("float64", "float64", 1, 1, 70, 71, "d"),
}

OVERRIDES = ("NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULATE_SINGLE_PRECISION", "CUBLAS_EMULATE_DOUBLE_PRECISION")
"""Environment variables by which someone may have cuBLAS compute float32 or float64 in something else.

Then float32 and float64 are asked for in the pedantic compute types, which forbid that.  Otherwise the plain
ones serve: under CUBLAS_DEFAULT_MATH they never fall below the precision asked for, and they may be faster.
"""

WORKSPACES = {9: 32 << 20, 10: 32 << 20, 12: 12 << 20}
"""Bytes of workspace by major compute capability, 4 MiB for others: NVIDIA's defaults."""


class CublasError(RuntimeError):
    """A call of cuBLAS failed.  status: cublasStatus_t."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Cublas:
    """cuBLAS on one device, for any number of threads and streams.

    device: its number; by default the current one.  It must be current in every call, as for CuPy.

    Calls go to CuPy's current stream, where its own kernels go.  A handle carries the stream it is set to, so
    each thread has one to itself (NVIDIA advises that too); what a thread leaves as it ends goes to the next.
    A workspace belongs to a stream: work on one stream is in order and can share it, work on two cannot.
    Handles and workspaces live as long as this object, since graphs keep their addresses, and to destroy a
    handle is to wait for the device.

    Before a capture, call `use` on its stream: a workspace cannot be allocated inside.  A graph uses the
    workspace of the stream it was captured on, whichever it is launched on, so let it not run beside other
    work on that stream.
    """

    def __init__(self, cupy: Any, device: int | None = None):
        self.cupy, self.device = cupy, cupy.cuda.Device(device).id
        self._lock = threading.RLock()  # `forget` may come by way of the garbage collector
        self._thread = threading.local()
        self._handles: list[_Handle] = []
        self._free: list[_Handle] = []
        self._workspaces: dict[tuple[int, int], Any] = {}
        self._lib: Any = None
        self._pedantic = any(os.environ.get(name, "0") not in ("", "0") for name in OVERRIDES)

    # -- column-major, over addresses: as cuBLAS has them ----------------------------------------------------

    def gemm(self, math, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc) -> None:
        """C = op(A) op(B) + beta C.  C (m, n), op(A) (m, k), op(B) (k, n), all column-major.

        a, b, c: addresses; ta, tb: whether the matrix is stored transposed; lda, ldb, ldc: elements between
        columns; beta: 0 (C is not read) or 1.
        """
        handle = self.use()
        _check(m, n, k, lda, ldb, ldc)
        kind = MATHS[math]
        scalars, compute = SCALARS[kind.scalar], kind.pedantic if self._pedantic else kind.compute
        status = self._lib.cublasGemmEx(
            handle, ta, tb, m, n, k, scalars[1], a, kind.operand_type, lda, b, kind.operand_type, ldb,
            scalars[beta], c, kind.out_type, ldc, compute, -1,
        )  # fmt: skip
        if status:
            self._fail("cublasGemmEx", status, math, ta, tb, m, n, k, lda, ldb, ldc)

    def gemm_batched(
        self, math, ta, tb, m, n, k, a, lda, stride_a, b, ldb, stride_b, beta, c, ldc, stride_c, batch
    ) -> None:
        """`gemm` for `batch` triples of matrices, each so many elements (strides) after the last."""
        handle = self.use()
        _check(m, n, k, lda, ldb, ldc, batch)
        kind = MATHS[math]
        scalars, compute = SCALARS[kind.scalar], kind.pedantic if self._pedantic else kind.compute
        status = self._lib.cublasGemmStridedBatchedEx(
            handle, ta, tb, m, n, k, scalars[1], a, kind.operand_type, lda, stride_a, b, kind.operand_type,
            ldb, stride_b, scalars[beta], c, kind.out_type, ldc, stride_c, batch, compute, -1,
        )  # fmt: skip
        if status:
            strides = stride_a, stride_b, stride_c, batch
            self._fail("cublasGemmStridedBatchedEx", status, math, ta, tb, m, n, k, lda, ldb, ldc, *strides)

    # -- row-major, over arrays ------------------------------------------------------------------------------

    def matmul(self, a, b, out, math: str):
        """a (M, K) @ b (K, N) into out (M, N), which is returned; out must not overlap a or b.

        Each lies row by row or column by column (a transposed view), in rows or columns that may be parts of
        longer ones; ValueError otherwise.
        """
        (M, K), (L, N), kind = a.shape, b.shape, MATHS[math]
        if K != L or out.shape != (M, N):
            raise ValueError(f"matmul: shapes do not fit. Received: {a.shape} @ {b.shape} -> {out.shape}")
        dtypes = a.dtype, b.dtype, out.dtype
        if dtypes != (kind.operand, kind.operand, kind.out):
            raise ValueError(
                f"matmul in {math} takes {kind.operand} into {kind.out}. "
                f"Received: {', '.join(map(str, dtypes))}"
            )
        if not M or not N:
            return out
        if not K:
            out[...] = 0
            return out
        # A row-major matrix is its transpose in column-major order: out' = b' a'
        (a_turned, lda), (b_turned, ldb), (turned, ldc) = (
            _layout(array, name) for array, name in ((a, "a"), (b, "b"), (out, "out"))
        )
        # the arrays keep their names, which keep their memory until the call is made
        pa, pb, pc = a.data.ptr, b.data.ptr, out.data.ptr
        if turned:
            self.gemm(math, not b_turned, not a_turned, N, M, K, pb, ldb, pa, lda, 0, pc, ldc)
        else:
            self.gemm(math, a_turned, b_turned, M, N, K, pa, lda, pb, ldb, 0, pc, ldc)
        return out

    # -- handles and streams ---------------------------------------------------------------------------------

    def use(self, stream=None) -> int:
        """Set this thread's handle to stream (CuPy's current one), and to its workspace; -> the handle."""
        if stream is None:
            stream = self.cupy.cuda.get_current_stream()
        try:
            handle = self._thread.lease.handle
        except AttributeError:
            handle = self._lease()
        if handle.stream != stream.ptr:
            handle.stream = None  # what it is if one of the two calls fails
            memory, size = self._workspace(stream.ptr)
            self._ok("cublasSetStream", self._lib.cublasSetStream_v2(handle.value, stream.ptr))
            # after the stream, which resets the workspace
            self._ok("cublasSetWorkspace", self._lib.cublasSetWorkspace_v2(handle.value, memory.ptr, size))
            handle.stream = stream.ptr
        return handle.value

    @property
    def version(self) -> tuple[int, int, int]:
        """Of the library that was loaded."""
        library = self._library()
        return _property(library, 0), _property(library, 1), _property(library, 2)

    def forget(self, stream: int) -> None:
        """The stream is gone: its workspace is free, and another stream may get its address."""
        with self._lock:
            for handle in self._handles:
                if handle.stream == stream:
                    handle.stream = None
            self._workspaces.pop((stream, 0), None)

    def close(self) -> None:
        """Destroy the handles and free the workspaces; waits for the device.  No thread may be in a call."""
        with self._lock:
            for handle in self._handles:
                self._ok("cublasDestroy", self._lib.cublasDestroy_v2(handle.value))
            self._handles, self._free, self._thread = [], [], threading.local()
            self._workspaces = {}

    def _library(self):
        if self._lib is None:
            self._lib = load(self.cupy)
        return self._lib

    def _lease(self) -> _Handle:
        """A handle for this thread until it ends."""
        with self._lock:
            free = self._free
            handle = free.pop() if free else self._create()
        handle.stream = None  # stream 2 means another one to each thread
        self._thread.lease = _Lease(handle, free)
        return handle

    def _create(self) -> _Handle:
        lib, value = self._library(), ctypes.c_void_p()
        with self.cupy.cuda.Device(self.device):
            self._ok("cublasCreate", lib.cublasCreate_v2(ctypes.byref(value)))
        handle = _Handle(value.value)
        self._handles.append(handle)
        self._ok("cublasSetMathMode", lib.cublasSetMathMode(handle.value, 0))  # CUBLAS_DEFAULT_MATH
        return handle

    def _workspace(self, stream: int) -> tuple[Any, int]:
        device = self.cupy.cuda.Device(self.device)
        # address 2 is each thread's own default stream
        key = stream, threading.get_ident() if stream == 2 else 0
        size = WORKSPACES.get(int(device.compute_capability[:-1]), 4 << 20)
        with self._lock:
            if key not in self._workspaces:
                with device:  # outside of CuPy's pools: a private one may be that of a graph
                    self._workspaces[key] = self.cupy.cuda.Memory(size)
            return self._workspaces[key], size

    def _ok(self, function: str, status: int) -> None:
        if status:
            raise CublasError(f"{function} failed: {self._name(status)}", status)

    def _fail(self, function, status, math, ta, tb, m, n, k, lda, ldb, ldc, *batch) -> None:
        stored = f"{'NT'[bool(ta)]}{'NT'[bool(tb)]}"
        strides = " stride_a={} stride_b={} stride_c={} batch={}".format(*batch) if batch else ""
        raise CublasError(
            f"{function} failed: {self._name(status)}. Received: {math} {stored} m={m} n={n} k={k} lda={lda} "
            f"ldb={ldb} ldc={ldc}{strides}",
            status,
        )

    def _name(self, status: int) -> str:
        return f"{self._lib.cublasGetStatusName(status).decode()} ({status})"


class _Handle:
    """cublasHandle_t, and the stream it is set to."""

    def __init__(self, value):
        self.value, self.stream = value, None


class _Lease:
    """A thread's hold on a handle: as the thread ends, this dies, and the handle is free again."""

    def __init__(self, handle: _Handle, free: list):
        self.handle, self.free = handle, free

    def __del__(self):
        self.free.append(self.handle)


def _check(*sizes: int) -> None:
    """ctypes would cut an int that is too large without a word."""
    if max(sizes) > INT_MAX:
        raise OverflowError(f"a matrix is too large for cuBLAS's 32-bit sizes. Received: {sizes}")


def _layout(a, name: str) -> tuple[bool, int]:
    """(whether the 2-D array lies row by row, elements between the starts of its rows or columns)"""
    (rows, columns), (row, column), item = a.shape, a.strides, a.itemsize
    if (columns == 1 or column == item) and (rows == 1 or (row >= columns * item and not row % item)):
        return True, columns if rows == 1 else row // item
    if (rows == 1 or row == item) and (columns == 1 or (column >= rows * item and not column % item)):
        return False, column // item
    raise ValueError(
        f"matmul: {name} must lie row by row or column by column. Received: shape {a.shape} with strides "
        f"{a.strides}; make it contiguous first"
    )


_shared: dict[tuple, Cublas] = {}


def shared(cupy: Any, device: int) -> Cublas:
    """One for each device of the process: a handle takes memory of the device, and is never destroyed."""
    key = Cublas, device
    return _shared.get(key) or _shared.setdefault(key, Cublas(cupy, device))


# -- the library -------------------------------------------------------------------------------------------


def load(cupy: Any):
    """The cuBLAS of CuPy's major version of CUDA, with its functions declared."""
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    soname = f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"
    tried = []
    try:
        _ = cupy.cuda.cublas  # has CuPy load its copy, which both ways below then find first
    except (ImportError, AttributeError) as error:
        tried.append(f"CuPy's own: {error}")
    for way, find in (("cuda.pathfinder", _found), (soname, lambda: soname)):
        try:
            lib = ctypes.CDLL(find())
            found = _property(lib, 0)
            if found == major:
                return _declare(lib)
            tried.append(f"{way}: version {found}, but CuPy is built for CUDA {major}")
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            tried.append(f"{way}: {error}")
    raise CublasError(
        f"cuBLAS for CUDA {major} could not be loaded; pip install nvidia-cublas"
        f"{'-cu12' if major == 12 else ''} brings it. Tried: {'; '.join(' '.join(t.split()) for t in tried)}"
    )


def _found() -> str:
    from cuda.pathfinder import load_nvidia_dynamic_lib

    return load_nvidia_dynamic_lib("cublas").abs_path


def _property(lib, which: int) -> int:
    """Part `which` (0 major, 1 minor, 2 patch) of the library's version, without a handle."""
    value = ctypes.c_int()
    if lib.cublasGetProperty(which, ctypes.byref(value)):
        raise CublasError("cublasGetProperty failed")
    return value.value


def _declare(lib):
    i, q, p = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
    matrix, strided = (p, i, i), (p, i, i, q)  # address, type, leading dimension, stride
    head = (p, i, i, i, i, i, p)  # handle, ta, tb, m, n, k, alpha
    for name, *parameters in (
        ("cublasCreate_v2", p),
        ("cublasDestroy_v2", p),
        ("cublasSetStream_v2", p, p),
        ("cublasSetWorkspace_v2", p, p, ctypes.c_size_t),
        ("cublasSetMathMode", p, i),
        ("cublasGemmEx", *head, *matrix, *matrix, p, *matrix, i, i),
        ("cublasGemmStridedBatchedEx", *head, *strided, *strided, p, *strided, i, i, i),
        ("cublasGetStatusName", i),
    ):
        function = getattr(lib, name)
        function.argtypes, function.restype = parameters, i
    lib.cublasGetStatusName.restype = ctypes.c_char_p
    return lib
