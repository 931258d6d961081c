"""Fixtures that several test files share."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import strict_xp

from xpnet.device import NoDevice, _cuda
from xpnet.ops.numpy_ops import NumpyOps
from xpnet.ops.reference import Ops


def _make_ops(name):
    if name == "reference":
        return Ops(np)
    if name == "numpy":
        return NumpyOps()
    if name == "strict":
        return strict_xp.strict_ops()
    return cuda_ops("host" if name == "cuda-host" else "gpu")


def cuda_ops(where, precision="float32"):
    """CupyOps on the fake CuPy ("host"), or on the first GPU ("gpu"); skips where that cannot be."""
    if where == "host":
        import fake_cupy
        import host_cuda

        from xpnet.ops.cupy_ops import CupyOps

        if not host_cuda.available():
            pytest.skip("no g++: the kernels cannot be compiled for the host")
        return CupyOps(0, precision, fake_cupy.cupy, fake_cupy.Twin())
    try:
        return _cuda(0, precision)
    except NoDevice as reason:
        pytest.skip(f"no GPU: {reason}")


OPS = ["reference", "numpy", "strict", "cuda-host", pytest.param("cupy", marks=pytest.mark.gpu)]


@pytest.fixture(params=OPS)
def ops(request):
    """Every set of operations in turn: the plain ones, the CPU's, the strict fake of CuPy, and CuPy."""
    return _make_ops(request.param)


@pytest.fixture(params=[name for name in OPS if name != "numpy"])
def other_ops(request):
    """Every set of operations but the CPU's, to compare with it."""
    return _make_ops(request.param)


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    return request.param


@pytest.fixture
def rng(request):
    """Random numbers that are a test's own and the same on every run."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
