"""Single operations at the sizes the workloads meet them."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.ops.geometry import Window

# (H and W, C, F, kernel, N): the convolutions of lenet, mnist-cnn and cifar-vgg, borders included
CONVOLUTIONS = [
    (32, 1, 6, 5, 64),
    (14, 6, 16, 5, 64),
    (28, 1, 32, 3, 64),
    (26, 32, 64, 3, 64),
    (18, 128, 128, 3, 32),
]


def _maps(ops, H, C, F, K, N):
    rng = np.random.default_rng(0)
    OH = H - K + 1
    shapes = ((H, C, H, N), (K, F, K, C), (OH, F, OH, N))
    return [ops.asarray(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes]


@pytest.mark.parametrize("size", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("part", ["forward", "weight_grad", "input_grad"])
def test_conv2d(timed, ops, size, part):
    x, w, dz = _maps(ops, *size)
    window, dw = Window((size[3], size[3])), ops.xp.empty_like(w)
    calls = {
        "forward": lambda: ops.conv2d(x, w, window),
        "weight_grad": lambda: ops.conv2d_weight_grad(x, dz, dw, window),
        "input_grad": lambda: ops.conv2d_input_grad(dz, w, x.shape, window),
    }
    timed(calls[part])


@pytest.mark.parametrize("part", ["forward", "forward, training", "backward"])
def test_max_pool(timed, ops, part):
    x = ops.asarray(np.random.default_rng(0).standard_normal((24, 64, 24, 64), dtype=np.float32))
    window = Window((2, 2), (2, 2))
    y, kept = ops.max_pool_train(x, window)
    dy = ops.xp.ones_like(y)
    calls = {
        "forward": lambda: ops.max_pool(x, window),
        "forward, training": lambda: ops.max_pool_train(x, window),
        "backward": lambda: ops.max_pool_train_backward(dy, kept, window),
    }
    timed(calls[part])


def test_pack_images(timed, ops):
    x = ops.asarray(np.random.default_rng(0).random((128, 3, 32, 32), dtype=np.float32))
    timed(ops.pack, x, np.float32)


def test_dropout_bits(timed, ops):
    timed(ops.random_bits, 0, 1, 2, (12, 64, 12, 128))


@pytest.mark.parametrize("shape", [(64, 500), (24, 64, 24, 64)], ids=str)
def test_feature_sum(timed, ops, shape):
    timed(ops.feature_sum, ops.asarray(np.ones(shape, np.float32)))


def test_matmul(timed, ops):
    """The matmul rate of the machine, which the others can be held against: 2 * 1024^3 operations."""
    a = ops.asarray(np.random.default_rng(0).random((1024, 1024), dtype=np.float32))
    timed(ops.xp.matmul, a, a)
