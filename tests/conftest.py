"""Fixtures that several test files share."""

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
    try:
        return _cuda(0)
    except NoDevice as reason:
        pytest.skip(f"no GPU: {reason}")


OPS = ["reference", "numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)]


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
