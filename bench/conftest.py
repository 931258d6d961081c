"""Devices for the benchmarks: the same bodies run on the CPU and, where there is one, on a GPU."""

from __future__ import annotations

import pytest

from xpnet import device
from xpnet.ops.threads import blas_threads


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def ops(request):
    """The operations of a device; "cuda" is skipped where no GPU works."""
    found, why = device.resolve("auto" if request.param == "cuda" else "cpu")
    if not found.device.startswith(request.param):
        pytest.skip(why)
    return found


@pytest.fixture
def timed(ops, benchmark):
    """Benchmark a function, waiting for the device at the end of every call.

    It has run four times before: memory is warm, kernels are compiled, and a training step's CUDA graph,
    captured at the third step, has been replayed.  BLAS has one thread, as it has in a replica of a training
    step, unless a benchmark holds it at more.
    """

    def run(function, *args):
        def call():
            result = function(*args)
            ops.synchronize()
            return result

        with blas_threads(1):
            for _ in range(4):
                call()
            return benchmark(call)

    return run
