"""Batch normalization's kernels, against its formulas in float64."""

import kernel_cases
import numpy as np
import pytest

from xpnet.ops.kernels import norm

gpu = kernel_cases.gpu

SHAPES = [
    (2, 1),
    (7, 31),
    (33, 7),
    (1003, 33),
    (2, 1, 1, 1),
    (3, 5, 1, 1),
    (7, 3, 31, 1),
    (8, 10, 8, 8),
    (3, 2, 31, 129),
    (1, 2, 7, 1003),
]
ROUNDING = {"float32": 2e-5, "float64": 1e-12}
EPSILON = 1e-3


def axes(a):
    return 0 if a.ndim == 2 else (0, 2, 3)


def spread(a, like):
    return a if like.ndim == 2 else a[:, None, None]


def statistics(x):
    x = x.astype(np.float64)
    mean, var = x.mean(axis=axes(x)), x.var(axis=axes(x))
    return mean, var, 1 / np.sqrt(var + EPSILON)


def close(got, want, precision, scale=1.0):
    np.testing.assert_allclose(got, want, rtol=ROUNDING[precision], atol=ROUNDING[precision] * scale)


def put(gpu, a, transposed=False):
    return gpu.to_device(np.ascontiguousarray(a.T)).T if transposed else gpu.to_device(a)


def forward(gpu, x, weight, bias, transposed=False, y_transposed=False):
    """y, mean, var, slope, on the host."""
    F, dtype, empty = x.shape[1], x.dtype, gpu.kernels.empty
    y = empty(x.shape[::-1], dtype).T if y_transposed else empty(x.shape, dtype)
    results = [y, empty(F, dtype), empty(F, dtype), empty(F, dtype)]
    x, weight, bias = put(gpu, x, transposed), gpu.to_device(weight), gpu.to_device(bias)
    norm.forward(gpu.kernels, x, weight, bias, EPSILON, *results)
    return [gpu.to_host(a) for a in results]


def numbers(rng, shape, precision):
    x = rng.normal(rng.normal(size=shape[1])[None, :, *[None] * (len(shape) - 2)], 2.0, shape)
    return x.astype(precision), *(rng.normal(size=shape[1]).astype(precision) for _ in range(2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(shape, precision, gpu, rng):
    x, weight, bias = numbers(rng, shape, precision)
    y, mean, var, slope = forward(gpu, x, weight, bias)
    for got, want in zip((mean, var, slope), statistics(x)):
        assert got.dtype == precision
        close(got, want, precision)
    m, _, s = statistics(x)
    close(y, (x - spread(m, x)) * spread(s * weight, x) + spread(bias, x), precision, 10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("into", ["dy", "new", "nowhere"])
def test_backward(shape, into, precision, gpu, rng):
    """By the formula of layers/norm.py; the statistics are given, and need not be x's."""
    x, weight, mean = numbers(rng, shape, precision)
    dy, slope = rng.normal(0.5, size=shape).astype(precision), rng.uniform(0.5, 2, shape[1]).astype(precision)
    device = gpu.to_device(dy)
    dx = {"dy": device, "new": gpu.kernels.empty(shape, precision), "nowhere": None}[into]
    dweight, dbias = (gpu.kernels.empty(shape[1], precision) for _ in range(2))
    norm.backward(gpu.kernels, device, *map(gpu.to_device, (x, mean, slope, weight)), dweight, dbias, dx)

    xhat = (x.astype(np.float64) - spread(mean, x)) * spread(slope, x)
    n, want = x.size // shape[1], [(dy * xhat).sum(axis=axes(x)), dy.sum(axis=axes(x), dtype=np.float64)]
    close(gpu.to_host(dweight), want[0], precision, np.sqrt(n))
    close(gpu.to_host(dbias), want[1], precision, np.sqrt(n))
    if dx is not None:
        inner = dy - spread(want[1] / n, x) - xhat * spread(want[0] / n, x)
        close(gpu.to_host(dx), inner * spread(weight * slope, x), precision, 10)
    if into != "dy":
        np.testing.assert_array_equal(gpu.to_host(device), dy)


def test_backward_is_the_derivative_of_forward(gpu, rng):
    x, weight, bias = numbers(rng, (5, 3, 4, 6), "float64")
    dy, step = rng.normal(size=x.shape), 1e-6
    _, mean, _, slope = forward(gpu, x, weight, bias)
    dx = gpu.to_device(dy)
    dweight, dbias = (gpu.kernels.empty(3, "float64") for _ in range(2))
    norm.backward(gpu.kernels, dx, *map(gpu.to_device, (x, mean, slope, weight)), dweight, dbias, dx)
    for k, got in enumerate((dx, dweight, dbias)):
        direction = rng.normal(size=got.shape)
        moved = [
            forward(
                gpu, *(a + sign * step * direction if i == k else a for i, a in enumerate((x, weight, bias)))
            )[0]
            for sign in (1, -1)
        ]
        slope_there = ((moved[0] - moved[1]) * dy).sum() / (2 * step)
        assert slope_there == pytest.approx((gpu.to_host(got) * direction).sum(), rel=1e-7)


@pytest.mark.parametrize("given", [(False, True), (True, False), (True, True)])
def test_vectors_may_lie_transposed(given, precision, gpu, rng):
    """Each array in its own way."""
    x, weight, bias = numbers(rng, (301, 40), precision)
    dy = rng.normal(size=x.shape).astype(precision)
    straight, results = None, [gpu.kernels.empty(40, precision) for _ in range(2)]
    for first, second in [(False, False), given]:
        found = forward(gpu, x, weight, bias, first, second)
        device = put(gpu, dy, second)
        mean, slope = gpu.to_device(found[1]), gpu.to_device(found[3])
        norm.backward(
            gpu.kernels, device, put(gpu, x, first), mean, slope, gpu.to_device(weight), *results, device
        )
        found += [gpu.to_host(a) for a in (device, *results)]
        if straight is None:
            straight = found
    for got, want in zip(found, straight):
        close(got, want, precision, 20)


def test_dx_of_another_layout_than_dy_is_refused(gpu):
    a, f = gpu.to_device(np.ones((6, 4), np.float32)), gpu.to_device(np.ones(4, np.float32))
    with pytest.raises(ValueError, match="dx must lie as dy does"):
        norm.backward(gpu.kernels, a, a, f, f, f, f, f, gpu.to_device(np.ones((4, 6), np.float32)).T)


@pytest.mark.parametrize("shape", [(4099, 3), (16, 3, 17, 128)], ids=str)
@pytest.mark.parametrize("first", ["like the others", "0"])
def test_a_large_mean_costs_no_digits(shape, first, gpu, rng):
    """Mean 1000, deviation 1, in float32; also where every row or map begins with an outlier, a border of
    zeros.
    """
    x = rng.normal(1000, 1, shape).astype(np.float32)
    if first == "0":
        x[0] = 0
    F, dtype = shape[1], np.float32
    y, mean, var, slope = forward(gpu, x, np.ones(F, dtype), np.zeros(F, dtype))
    want = statistics(x)
    np.testing.assert_allclose(mean, want[0], rtol=1e-7)
    np.testing.assert_allclose(var, want[1], rtol=1e-5)
    np.testing.assert_allclose(slope, want[2], rtol=1e-5)
    np.testing.assert_allclose(y, (x - spread(want[0], x)) * spread(want[2], x), atol=1e-4)


def test_a_constant_has_no_variance(precision, gpu):
    x = np.full((67, 3, 2, 33), 1234.5678, precision)
    y, mean, var, slope = forward(gpu, x, np.ones(3, precision), np.full(3, 0.25, precision))
    assert (mean == x[0, 0, 0, 0]).all() and not var.any() and (y == 0.25).all()
    close(slope, EPSILON**-0.5, precision)


@pytest.mark.parametrize("F", [1, 33, 256, 600])
@pytest.mark.parametrize("momentum", [0.9, 0.0, 1.0])
def test_running_statistics_follow_those_of_the_batch(F, momentum, precision, gpu, rng):
    mean, var, old_mean, old_var = rng.uniform(1, 2, (4, F)).astype(precision)
    running = [gpu.to_device(a) for a in (old_mean, old_var, np.array(41, precision))]
    out = [gpu.to_device(np.full(a.shape, np.nan, precision)) for a in running]
    norm.running_statistics(gpu.kernels, gpu.to_device(mean), gpu.to_device(var), 5, momentum, running, out)
    got_mean, got_var, batches = map(gpu.to_host, out)
    close(got_mean, momentum * old_mean + (1 - momentum) * mean, precision)
    close(got_var, momentum * old_var + (1 - momentum) * var * 5 / 4, precision)
    assert batches == 42
    for a, before in zip(running, (old_mean, old_var, 41)):
        np.testing.assert_array_equal(gpu.to_host(a), before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_shows_in_its_own_channel(value, gpu, rng):
    """And not in others: the optimizer step looks for it."""
    x = rng.normal(size=(9, 3, 31, 17)).astype(np.float32)
    x[4, 1, 5, 3] = value
    y, mean, var, _ = forward(gpu, x, np.ones(3, np.float32), np.zeros(3, np.float32))
    assert np.isnan(y[:, 1]).any() and np.isnan(var[1]) and not np.isfinite(mean[1])
    assert np.isfinite(y[:, ::2]).all() and np.isfinite(var[::2]).all()


def test_bits_repeat(gpu, rng):
    x, weight, bias = numbers(rng, (9, 2, 50, 33), "float32")
    first, second = (forward(gpu, x, weight, bias) for _ in range(2))
    for a, b in zip(first, second):
        assert a.tobytes() == b.tobytes()
