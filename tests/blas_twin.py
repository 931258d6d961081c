"""The NumPy twin of Cublas: the same calls on addresses of NumPy arrays; out of bounds is an error."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import device_memory
import numpy as np
import pytest
from strict_xp import StrictArray

from xpnet.ops.cublas import MATHS, Cublas


class BadCall(AssertionError):
    """A call that cuBLAS would refuse, or by which it would read or write what it should not."""


class BlasTwin(Cublas):
    """Takes Cublas's place.  calls: how many products it was asked for; a batch is one."""

    def __init__(self, cupy=None, device=None):
        self.calls = 0

    def use(self, stream=None):
        return 0

    def close(self):
        pass

    def forget(self, stream):
        pass

    def gemm(self, math, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc):
        self.gemm_batched(math, ta, tb, m, n, k, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1)

    def gemm_batched(
        self, math, ta, tb, m, n, k, a, lda, stride_a, b, ldb, stride_b, beta, c, ldc, stride_c, batch
    ):
        self.calls += 1
        kind = MATHS[math]
        if beta not in (0, 1):
            raise BadCall(f"beta is 0 or 1. Received: {beta}")
        A = _matrices("A", kind.operand, a, *((k, m) if ta else (m, k)), lda, stride_a, batch)
        B = _matrices("B", kind.operand, b, *((n, k) if tb else (k, n)), ldb, stride_b, batch)
        C = _matrices("C", kind.out, c, m, n, ldc, stride_c, batch)
        _check_written(C, A, B)
        A, B = (numbers(matrices, math) for matrices in (A, B))
        with np.errstate(all="ignore"):  # a GPU raises no floating-point warnings
            product = np.matmul(A.swapaxes(1, 2) if ta else A, B.swapaxes(1, 2) if tb else B)
            C[...] = product if beta == 0 else C + product


def _matrices(name, dtype, address, rows, columns, ld, stride, batch):
    """The column-major matrices at an address: a view (batch, rows, columns) of the allocation it lies in."""
    dtype = np.dtype(dtype)
    received = f"{name} of {rows} x {columns}, ld {ld}, stride {stride}, batch {batch}"
    sizes = (address, rows, columns, ld, stride, batch)
    if not all(isinstance(size, int) for size in sizes):
        raise BadCall(f"{received}: whole numbers are wanted, not {[type(size).__name__ for size in sizes]}")
    if min(rows, columns, batch) < 1:
        raise BadCall(f"{received}: there is nothing to do")
    if ld < rows:
        raise BadCall(f"{received}: CUBLAS_STATUS_INVALID_VALUE, columns would overlap")
    if address % dtype.itemsize:
        raise BadCall(f"{received}: its address is no multiple of {dtype.itemsize}")
    found = device_memory.find(address)
    if found is None:
        raise BadCall(f"{received}: address {address:#x} lies in no live allocation")
    start, nbytes = found
    first = address + min(0, stride * (batch - 1)) * dtype.itemsize
    last = address + (max(0, stride * (batch - 1)) + (columns - 1) * ld + rows) * dtype.itemsize
    if first < start or last > start + nbytes:
        raise BadCall(
            f"{received}: it reaches {max(start - first, last - start - nbytes)} bytes out of its array"
        )
    memory = (ctypes.c_char * nbytes).from_address(start)
    strides = (stride * dtype.itemsize, dtype.itemsize, ld * dtype.itemsize)
    return np.ndarray((batch, rows, columns), dtype, memory, address - start, strides)


def _check_written(C, *operands):
    addresses = np.zeros(1, np.int64)
    for count, stride in zip(C.shape, C.strides):
        addresses = (addresses[:, None] + np.arange(count) * stride).ravel()
    if np.unique(addresses).size < addresses.size:
        raise BadCall(f"matrices of C overlap: {C.shape} with strides {C.strides}")
    if any(np.shares_memory(C, operand) for operand in operands):
        raise BadCall("C overlaps an operand")


def numbers(a, math):
    """What a product in `math` makes of an operand: bfloat16 from its bits, tf32 with 10 bits of mantissa."""
    if math == "bfloat16":
        return (a.astype(np.uint32) << 16).view(np.float32)
    if math == "tf32":
        return ((np.ascontiguousarray(a).view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)
    return a


def bits(a):
    """float32 -> its bfloat16 bits, to nearest even; for numbers that are finite."""
    u = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)


@pytest.fixture(params=["twin", pytest.param("cublas", marks=pytest.mark.gpu)])
def blas(request):
    """Cublas or its twin (calls), and how arrays get to it and back."""
    if request.param == "twin":
        yield SimpleNamespace(
            calls=BlasTwin(),
            to_device=lambda a: StrictArray(device_memory.copy(a)),
            to_host=lambda a: a._a,
            empty=lambda shape, dtype: StrictArray(device_memory.empty(shape, dtype)),
        )
        device_memory.check("cuBLAS's twin")
        return
    from xpnet.device import NoDevice, _cuda

    try:
        cupy = _cuda(0).xp
    except NoDevice as reason:
        pytest.skip(f"no GPU: {reason}")
    calls = Cublas(cupy)
    yield SimpleNamespace(calls=calls, to_device=cupy.asarray, to_host=cupy.asnumpy, empty=cupy.empty)
    calls.close()
