"""Dropout's kernels: the bits of numpy.random.Philox, and what is made of them."""

import kernel_cases
import numpy as np
import pytest

from xpnet.ops.kernels import CONTROL, dropout
from xpnet.ops.reference import philox_bits

gpu = kernel_cases.gpu

STREAMS = [
    (0, 0, 0),
    (1, 0, 1),
    (2**64 - 1, 3, 5),
    (2**63 + 12345, 2**20, 2**32 - 1),
    (0x0123456789ABCDEF, 7, 2**32 + 3),
    (42, 1, 2**63 + 1),
]
"""key, layer, step"""
SIZES = [1, 3, 4, 15, 16, 17, 2047, 2048, 2049, 5003]


def control_at(gpu, step):
    control = np.zeros((), CONTROL)
    control["step"] = step
    return gpu.to_device(np.frombuffer(control.tobytes(), np.uint8))


def drawn(gpu, key, layer, step, size):
    out = gpu.kernels.empty(size, np.uint16)
    dropout.bits(gpu.kernels, out, control_at(gpu, step), key, layer)
    return gpu.to_host(out)


@pytest.mark.parametrize("key, layer, step", STREAMS)
def test_bits_equal_numpys_philox(gpu, key, layer, step):
    np.testing.assert_array_equal(drawn(gpu, key, layer, step, 5003), philox_bits(key, layer, step, 0, 5003))


@pytest.mark.parametrize("size", SIZES)
def test_bits_of_every_size(gpu, size):
    np.testing.assert_array_equal(drawn(gpu, 9, 2, 4, size), philox_bits(9, 2, 4, 0, size))


def test_bits_of_memory_that_is_not_aligned(gpu):
    out = gpu.kernels.empty(102, np.uint16)
    dropout.bits(gpu.kernels, out[1:], control_at(gpu, 8), 5, 6)
    np.testing.assert_array_equal(gpu.to_host(out)[1:], philox_bits(5, 6, 8, 0, 101))


def expected(x, key, layer, step, threshold, scale):
    bits = philox_bits(key, layer, step, 0, x.size).reshape(x.shape)
    mask = (bits >= threshold) * x.dtype.type(scale)
    with np.errstate(invalid="ignore"):
        return x * mask, mask


def check(gpu, x, key=3, layer=1, step=2**33, threshold=20000, scale=1.5):
    given = gpu.to_device(x)
    y, mask = (gpu.to_device(np.full_like(x, np.nan)) for _ in range(2))
    dropout.forward(gpu.kernels, given, y, mask, control_at(gpu, step), key, layer, threshold, scale)
    want_y, want_mask = expected(x, key, layer, step, threshold, scale)
    np.testing.assert_array_equal(gpu.to_host(mask), want_mask)
    np.testing.assert_array_equal(gpu.to_host(y), want_y)


@pytest.mark.parametrize("size", SIZES)
def test_forward_of_every_size(gpu, rng, size, precision):
    check(gpu, rng.normal(size=size).astype(precision).reshape(1, size))


@pytest.mark.parametrize("shape", [(5, 3, 4, 7), (2, 6, 2, 64), (1, 1, 1, 1)])
def test_forward_of_maps(gpu, rng, shape, precision):
    check(gpu, rng.normal(size=shape).astype(precision))


@pytest.mark.parametrize("threshold", [0, 1, 32768, 65535])
def test_thresholds_at_both_ends(gpu, rng, threshold):
    check(
        gpu, rng.normal(size=(40, 100)).astype("f4"), threshold=threshold, scale=65536 / (65536 - threshold)
    )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("size", [3, 16, 50])
def test_bits_that_are_the_threshold_are_kept(gpu, size, order):
    """Element by element, so that those of whole fours and those behind the last four are among them."""
    x = np.asarray(np.ones((2, size), np.float32), order=order)
    for bits in philox_bits(3, 1, 2**33, 0, 2 * size).tolist():
        check(gpu, x, threshold=bits)


@pytest.mark.parametrize("shape", [(7, 48), (64, 10), (1, 33), (33, 1), (130, 17)])
def test_vectors_with_transposed_memory_have_the_mask_of_their_elements(gpu, rng, shape, precision):
    check(gpu, np.asfortranarray(rng.normal(size=shape).astype(precision)))


def test_a_dropped_nan_stays_visible(gpu):
    """As x * mask has it, so that a step that went wrong is found."""
    check(gpu, np.array([[np.nan, np.inf, 1.0] * 20], np.float32), threshold=60000)


def test_forward_on_memory_that_is_not_aligned(gpu, rng):
    x = rng.normal(size=101).astype("f4")
    y, mask = gpu.kernels.empty(101, "f4"), gpu.kernels.empty(101, "f4")
    dropout.forward(gpu.kernels, gpu.to_device(x)[1:], y[1:], mask[1:], control_at(gpu, 7), 1, 2, 30000, 2.0)
    want_y, want_mask = expected(x[1:], 1, 2, 7, 30000, 2.0)
    np.testing.assert_array_equal(gpu.to_host(mask)[1:], want_mask)
    np.testing.assert_array_equal(gpu.to_host(y)[1:], want_y)


@pytest.mark.parametrize("which", range(3))
def test_one_array_that_is_not_aligned_is_enough(gpu, rng, which):
    x = rng.normal(size=100).astype("f4")
    given, y, mask = (
        gpu.to_device(np.full(101, np.nan, "f4"))[1:]
        if k == which
        else gpu.to_device(np.full(100, np.nan, "f4"))
        for k in range(3)
    )
    given[...] = gpu.to_device(x)
    dropout.forward(gpu.kernels, given, y, mask, control_at(gpu, 7), 1, 2, 30000, 2.0)
    want_y, want_mask = expected(x, 1, 2, 7, 30000, 2.0)
    np.testing.assert_array_equal(gpu.to_host(mask), want_mask)
    np.testing.assert_array_equal(gpu.to_host(y), want_y)


def test_the_mask_follows_the_devices_step(gpu):
    """The step is read by the kernel, so that a recorded launch draws new masks."""
    control, out = control_at(gpu, 0), gpu.kernels.empty(64, np.uint16)
    for step in (1, 2**40):
        control[:8] = gpu.to_device(np.frombuffer(np.uint64(step).tobytes(), np.uint8))
        dropout.bits(gpu.kernels, out, control, 11, 4)
        np.testing.assert_array_equal(gpu.to_host(out), philox_bits(11, 4, step, 0, 64))
