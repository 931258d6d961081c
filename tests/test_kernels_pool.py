"""pool.cu gives the reference's values to the bit, ties, NaN, gaps and overlaps of windows included."""

import numpy as np
import pytest
from kernel_cases import gpu

from xpnet.ops.geometry import Window
from xpnet.ops.kernels import conv, pool
from xpnet.ops.reference import Ops

__all__ = ["gpu"]  # a fixture
REFERENCE = Ops(np)

# (H, C, W, N) of the padded map, window
CASES = {
    "2x2": ((6, 3, 8, 4), Window((2, 2), (2, 2))),
    "2x2, batch of one": ((6, 3, 4, 1), Window((2, 2), (2, 2))),
    "2x2 with odd edges": ((7, 2, 5, 7), Window((2, 2), (2, 2))),
    "overlap": ((7, 2, 9, 8), Window((3, 3), (2, 2))),
    "overlap of rows": ((7, 2, 8, 3), Window((3, 2), (1, 2))),
    "overlap of columns": ((6, 2, 8, 4), Window((1, 3), (2, 2))),
    "stride 1": ((5, 2, 6, 6), Window((3, 4))),
    "gaps": ((9, 2, 12, 4), Window((2, 1), (4, 3))),
    "dilation": ((9, 2, 8, 4), Window((3, 2), (1, 2), (2, 3))),
    "dilation with gaps": ((13, 2, 9, 4), Window((3, 2), (5, 4), (2, 3))),
    "interleaved": ((8, 2, 6, 4), Window((2, 2), (1, 1), (3, 4))),
    "whole map": ((5, 3, 4, 4), Window((5, 4))),
    "whole rows": ((5, 3, 6, 5), Window((4, 2), (2, 2))),
    "one element": ((1, 1, 1, 1), Window((1, 1))),
    "several blocks": ((8, 9, 10, 16), Window((2, 2), (2, 2))),
}
every_case = pytest.mark.parametrize("name", CASES)
both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])


def maps(name, dtype, ties=True):
    """x with ties, NaN and infinities (or none of them), y of the reference, dy, the window."""
    shape, window = CASES[name]
    rng = np.random.default_rng(5)
    x = rng.integers(-2, 2, shape).astype(dtype) if ties else rng.normal(size=shape).astype(dtype)
    if ties:
        x[rng.random(shape) < 0.05] = np.nan
        x[rng.random(shape) < 0.3] = -np.inf
    y = REFERENCE.max_pool(x, window)
    return x, y, rng.normal(size=y.shape).astype(dtype), window


def run(gpu, function, shape, *arrays_and_window):
    """What function writes to an array of shape behind the arrays."""
    *arrays, window = arrays_and_window
    out = gpu.to_device(np.full(shape, np.nan, arrays[0].dtype))
    function(gpu.kernels, *map(gpu.to_device, arrays), out, window)
    return gpu.to_host(out)


@both_types
@every_case
def test_max_pool_is_the_reference(gpu, name, dtype):
    x, y, _, window = maps(name, dtype)
    np.testing.assert_array_equal(run(gpu, pool.max_forward, y.shape, x, window), y)


@both_types
@every_case
def test_max_pool_gradient_goes_to_the_first_largest_and_from_nan_nowhere(gpu, name, dtype):
    x, y, dy, window = maps(name, dtype)
    want = REFERENCE.max_pool_backward(dy, x, y, window)
    np.testing.assert_array_equal(run(gpu, pool.max_backward, x.shape, dy, x, y, window), want)


@both_types
@every_case
def test_sum_pool_is_the_reference(gpu, name, dtype):
    x, y, _, window = maps(name, dtype, ties=False)
    want = REFERENCE.sum_pool(x, window)
    np.testing.assert_array_equal(run(gpu, pool.sum_forward, y.shape, x, window), want)


@both_types
@every_case
def test_sum_pool_gradient_is_the_reference(gpu, name, dtype):
    x, _, dy, window = maps(name, dtype, ties=False)
    want = REFERENCE.sum_pool_backward(dy, x.shape, window)
    np.testing.assert_array_equal(run(gpu, pool.sum_backward, x.shape, dy, window), want)


def test_windows_apart_and_overlapping_windows_agree(gpu, monkeypatch):
    x, y, dy, window = maps("dilation with gaps", "float32")
    entries = []
    launch = gpu.kernels.launch
    monkeypatch.setattr(
        gpu.kernels,
        "launch",
        lambda file, entry, *rest, **types: (entries.append(entry), launch(file, entry, *rest, **types)),
    )
    apart = run(gpu, pool.max_backward, x.shape, dy, x, y, window)
    monkeypatch.setattr(Window, "extent", (99, 99))
    gathered = run(gpu, pool.max_backward, x.shape, dy, x, y, window)
    assert entries == ["max_backward_apart", "max_backward"]
    np.testing.assert_array_equal(gathered, apart)


@pytest.mark.parametrize("name", ["overlap", "2x2 with odd edges"])
def test_maps_beyond_the_range_of_int_are_pooled_alike(gpu, name, monkeypatch):
    x, y, dy, window = maps(name, "float32")
    monkeypatch.setattr(conv, "LARGEST", 0)  # all offsets are 64 bits wide
    np.testing.assert_array_equal(run(gpu, pool.max_forward, y.shape, x, window), y)
    want = REFERENCE.max_pool_backward(dy, x, y, window)
    np.testing.assert_array_equal(run(gpu, pool.max_backward, x.shape, dy, x, y, window), want)
    want = REFERENCE.sum_pool_backward(dy, x.shape, window)
    np.testing.assert_array_equal(run(gpu, pool.sum_backward, x.shape, dy, window), want)


def test_a_map_that_begins_between_runs_is_pooled_alike(gpu):
    """Loads of 16 bytes need such an address: the map of every other address goes element by element."""
    x, y, dy, window = maps("2x2", "float32")
    shifted = gpu.to_device(np.append(np.float32(0), x))[1:].reshape(x.shape)
    out = gpu.to_device(np.zeros_like(y))
    pool.max_forward(gpu.kernels, shifted, out, window)
    np.testing.assert_array_equal(gpu.to_host(out), y)
