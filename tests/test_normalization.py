"""Batch normalization in blocks against the plain operation, also in recordings and over replicas."""

import numpy as np
import pytest

from xpnet import Sequential
from xpnet.layers import BatchNormalization, Conv2D, Dense, Flatten
from xpnet.ops import normalization, threads
from xpnet.ops.numpy_ops import NumpyOps
from xpnet.ops.reference import Ops
from xpnet.training import host

SHAPES = [(7, 3, 5, 4), (1, 2, 6, 3), (8, 16, 8, 2), (5, 1, 1, 9)]


@pytest.fixture(params=[1, 200, 1 << 18])
def in_blocks(request, monkeypatch):
    """Blocks of a row each, of some rows, and of a whole map."""
    monkeypatch.setattr(normalization, "LEAST", 0)
    monkeypatch.setattr(normalization, "BLOCK", request.param)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_values_are_those_of_the_plain_operation(in_blocks, shape, dtype, shift):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    x += dtype(shift)
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    given = x.copy(), dy.copy()
    tolerance = {"rtol": 1e-4, "atol": 1e-4 * (1 + shift / 10)} if dtype == np.float32 else {"rtol": 1e-9}
    found = []
    for ops in (Ops(), NumpyOps()):
        y, mean, var, n, cache = ops.batch_norm(x, weight, bias, 1e-3)
        dweight, dbias = np.full_like(weight, 7), np.full_like(bias, 7)
        dx = ops.batch_norm_backward(dy.copy(), cache, weight, dweight, dbias)
        again = ops.batch_norm(x, weight, bias, 1e-3)[-1]
        nothing = ops.batch_norm_backward(dy.copy(), again, weight, dweight.copy(), dbias.copy(), False)
        assert nothing is None and n == x.size // shape[1] and y.dtype == dx.dtype == dtype
        found.append((y, mean, var, dx, dweight, dbias))
    for a, b in zip(*found):
        np.testing.assert_allclose(b, a, **tolerance)
    assert np.array_equal(x, given[0]) and np.array_equal(dy, given[1])


@pytest.mark.parametrize("count", [1, 2])
def test_recorded_steps_are_the_layers_own_to_the_bit(in_blocks, count, monkeypatch):
    from xpnet import replay

    if count > 1 and not threads.blas_can_be_limited():
        pytest.skip("the BLAS behind NumPy obeys no thread limit")
    monkeypatch.setattr(threads, "available_cores", lambda: count)
    monkeypatch.setattr(host, "LEAST_WORK", 1)
    monkeypatch.setattr(host, "LEAST_SAMPLES", 4)
    rng = np.random.default_rng(1)
    x, y = rng.random((40, 2, 6, 6), dtype=np.float32), rng.integers(0, 3, 40)
    found = []
    for uses in (2, 1 << 30):
        monkeypatch.setattr(replay, "USES", uses)
        layers = [Conv2D(4, 3), BatchNormalization(), Conv2D(4, 3, activation="relu"), Flatten(), Dense(3)]
        model = Sequential(layers, input_shape=(2, 6, 6), seed=2, device="cpu")
        model.compile("adam", "sparse_categorical_crossentropy")
        history = model.fit(x, y, batch_size=8, epochs=3, verbose=0).history
        made = [bool(one.repeated.recordings()) for one in model.train_step().replicas(8)]
        assert made == [uses == 2] * count
        found.append((history, {name: a.tobytes() for name, a in model.state_dict().items()}))
    assert found[0] == found[1]
