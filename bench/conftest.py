"""Devices for the benchmarks: the same bodies run on the CPU and, where there is one, on a GPU."""

from __future__ import annotations

import pytest

from xpnet import device
from xpnet.ops.threads import blas_threads


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def ops(request):
    """The operations of a device; "cuda" is skipped where no GPU works."""
    if request.param == "cpu":
        return device.resolve("cpu")[0]
    found, why = device.resolve("auto")
    if found.device == "cpu":
        pytest.skip(why)
    return found


@pytest.fixture
def timed(ops, benchmark):
    """Benchmark a function, waiting for the device at the end of every call; its temporaries' memory is warm.

    BLAS has one thread, as it has in a replica of a training step, unless a benchmark holds it at more.
    """

    def run(function, *args):
        def call():
            result = function(*args)
            ops.synchronize()
            return result

        with blas_threads(1):
            call()
            return benchmark(call)

    return run
