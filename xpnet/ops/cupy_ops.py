"""NVIDIA GPUs: the plain operations over CuPy."""

from __future__ import annotations

from .reference import Ops


class CupyOps(Ops):
    """Operations on CuPy arrays of one GPU.  Raises whatever CuPy raises where that GPU does not work."""

    name = "cupy"

    def __init__(self, index: int = 0):
        import cupy

        self.index = index
        cupy.cuda.Device(index).use()
        if float(cupy.ones(2).sum()) != 2.0:  # the first array is where a missing driver or library shows
            raise RuntimeError("the first sum on the GPU was wrong")
        super().__init__(cupy, f"cuda:{index}")

    def to_host(self, a):
        return self.xp.asnumpy(a)

    def synchronize(self):
        self.xp.cuda.get_current_stream().synchronize()

    def erf(self, x):
        from cupyx.scipy.special import erf

        return erf(x)

    def flat(self, count, dtype):
        return self.xp.zeros(max(count, 1), dtype)[:count]
