"""The CPU: where NumPy can be had faster than the plain operation, and how.

Convolution, pooling and normalization have files of their own.  Here: large temporaries come from a pool,
sums over long runs go to BLAS, an optimizer walks in pieces that stay in a core's cache.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache

import numpy as np

from . import record
from .convolution import HostConvolution
from .memory import SMALL, aligned_zeros, now, pool
from .normalization import HostNormalization
from .pooling import HostPooling
from .reference import philox_bits

FEW = range(8, 64 + 1)  # rows of a matrix; it is few with a matrix of at least as many columns
UPDATE_BLOCK = 1 << 16  # elements of the flat buffers an optimizer touches at once: five arrays of 256 KiB


class NumpyOps(HostConvolution, HostPooling, HostNormalization):
    """Operations on NumPy arrays, one replica."""

    name = "numpy"
    in_host_memory = True
    pools_first = True  # they are passes of their own: lenet's step in 0.9 of the time

    def __init__(self):
        super().__init__(np, "cpu")

    empty = staticmethod(pool.empty)

    def asarray(self, a, dtype=None):
        return np.asarray(a, dtype=dtype)

    def to_host(self, a):
        return np.asarray(a)

    def like(self, a):
        if a.nbytes < SMALL or not (a.flags.c_contiguous or a.flags.f_contiguous):
            return np.empty_like(a)
        return pool.empty(a.shape, a.dtype) if a.flags.c_contiguous else pool.empty(a.shape[::-1], a.dtype).T

    def matmul(self, a, b, out=None):
        if out is None and len(a) in FEW and b.shape[1] >= FEW[-1] and b.flags.f_contiguous:
            # a few rows by a transposed matrix: BLAS is half again as fast the other way round
            turned = super().matmul(b.T, a.T)
            out = self.empty((a.shape[0], b.shape[1]), a.dtype)
            out[...] = turned.T
            return out
        return super().matmul(a, b, out)

    def unpack(self, x):
        H, C, W, N = x.shape
        out = record.empty((N, C, H, W), x.dtype)  # the user's: not of the pool
        out[...] = x.transpose(3, 1, 0, 2)
        return out

    def pad(self, x, padding, value=0.0):
        (top, bottom), (left, right) = padding
        if value or x.nbytes >= SMALL or not (top or bottom or left or right):
            return super().pad(x, padding, value)
        H, C, W, N = x.shape
        out = record.zeros((top + H + bottom, C, left + W + right, N), x.dtype)  # two calls for five
        out[top : top + H, :, left : left + W] = x
        return out

    # -- sums, functions, the optimizer's side ---------------------------------------------------------------

    def feature_sum(self, a, out=None):
        if a.ndim == 2:
            return np.matmul(_filled(1, len(a), a.dtype), a, out=out)
        H, C, W, N = a.shape
        runs = a.reshape(H * C, W * N) @ _filled(1, W * N, a.dtype)
        return runs.reshape(H, C).sum(axis=0, out=out)

    def random_bits(self, key, layer, step, shape):
        return philox_bits(key, layer, step, 0, math.prod(shape)).reshape(shape)

    def relu(self, z, out):
        # a row of zeros: np.maximum takes three times as long with a scalar (measured with NumPy 2.4)
        zeros = _filled(0, math.prod(z.shape[z.ndim // 2 :]), z.dtype)
        return np.maximum(z, zeros.reshape(z.shape[z.ndim // 2 :]), out=out)

    def erf(self, x):
        from scipy.special import erf  # comes with scikit-learn; loaded when a GELU first runs

        return erf(x)

    def blocks(self, start, stop, size=UPDATE_BLOCK):
        return [slice(a, min(a + size, stop)) for a in range(start, stop, size)]

    def crops(self, a, top, left, H, W):
        """From a strided view of all windows, whole rows at once: 128x1x28x28 in 0.1 ms, not 0.4."""
        N, C, rows, columns = a.shape
        shape = (rows - H + 1, columns - W + 1, N, C, H, W)
        every = np.lib.stride_tricks.as_strided(a, shape, (*a.strides[2:], *a.strides))
        return every[top, left, np.arange(N)]

    def squared_norm(self, g):
        return float(np.dot(g, g))

    def flat(self, count: int, dtype):
        return aligned_zeros(count, dtype)

    def replicas(self, shares: list[slice]) -> list[ReplicaOps]:
        """Operations for each share of a batch, which add up what must be summed over all of it."""
        meeting = _Meeting(len(shares))
        return [ReplicaOps(rank, shares, meeting) for rank in range(len(shares))]


@lru_cache(256)
def _filled(value: int, count: int, dtype):
    """A vector of one value, kept: nobody writes it."""
    made = np.full(count, value, dtype)
    made.flags.writeable = False
    return made


class _Meeting:
    """Where the replicas of a step add up small arrays: each lays its part down, all wait, each sums in one
    order.

    There are two places for parts, which take turns: who lays down the next part knows that all have come to
    read this one, and who comes for the one after that, that all have read it.
    """

    def __init__(self, count: int):
        self.barrier = threading.Barrier(count)
        self.places: tuple[list, list] = [None] * count, [None] * count
        self.times = [0] * count  # that each replica has been here

    def sum(self, rank: int, part):
        if now.alone:  # a recording is made or tried; it will meet the others when it is repeated
            return part.copy()
        parts = self.places[self.times[rank] % 2]
        self.times[rank] += 1
        parts[rank] = part.copy()  # whose memory may be another's before everybody has read it
        self.barrier.wait()
        total = parts[0].copy()
        for other in parts[1:]:
            total += other
        return total


class ReplicaOps(NumpyOps):
    """The operations of one replica of a training step: its samples are one share of the batch."""

    def __init__(self, rank: int, shares: list[slice], meeting: _Meeting):
        super().__init__()
        self.rank, self.share, self.whole, self._meeting = rank, shares[rank], shares[-1].stop, meeting

    def batch_sum(self, a):
        return record.again(self._meeting.sum, self.rank, a)

    def batch_size(self, n):
        return self.whole

    @property
    def leads(self):
        return self.rank == 0

    def abort(self) -> None:
        """Wake the others with an error: this replica will not come."""
        self._meeting.barrier.abort()

    def random_bits(self, key, layer, step, shape):
        if len(shape) == 2:  # the samples of a share follow each other
            return philox_bits(key, layer, step, self.share.start * shape[1], math.prod(shape)).reshape(shape)
        whole = shape[:-1] + (self.whole,)
        return super().random_bits(key, layer, step, whole)[..., self.share]
