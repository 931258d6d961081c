"""Where a test of kernels runs: on the CPU in both thread orders, and on a GPU where there is one."""

from __future__ import annotations

from typing import Any, NamedTuple

import device_memory
import host_cuda
import numpy as np
import pytest


class Gpu(NamedTuple):
    kernels: Any  # xpnet's Kernels
    to_device: Any  # NumPy array -> device array, between guard zones on the CPU
    to_host: Any


@pytest.fixture(params=["host", "host-reversed", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request, monkeypatch):
    """(kernels, to_device, to_host).  A write outside of an array fails the test, on the CPU."""
    if request.param == "cuda":
        yield _cuda()
        return
    if not host_cuda.available():
        pytest.skip("no g++ to run kernels on the CPU with")
    monkeypatch.setattr(host_cuda, "reverse", request.param == "host-reversed")
    kernels = host_cuda.kernels()
    yield Gpu(kernels, device_memory.copy, np.array)
    device_memory.check("a kernel")
    assert not kernels.counters.any(), "a kernel left its counters other than zero"


def _cuda():
    from xpnet.device import NoDevice, _cuda
    from xpnet.ops.kernels import Kernels

    try:
        ops = _cuda(0)
    except NoDevice as reason:
        pytest.skip(f"no GPU: {reason}")
    cupy = ops.xp
    return Gpu(Kernels(cupy), cupy.asarray, cupy.asnumpy)
