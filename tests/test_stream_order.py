"""What runs beside something else waits for it where it must: on the fake, with clocks for its streams."""

import gc

import numpy as np
import pytest
from conftest import cuda_ops
from stream_order import expected, stream_order  # noqa: F401 - a fixture

import xpnet
from xpnet import layers as L
from xpnet.training import device as device_training

# ruff: noqa: F811 - a fixture's name is an argument's

N, BATCH = 48, 4


def in_pieces(monkeypatch):
    """A model, and samples that come to it in pieces of two batches."""
    rng = np.random.default_rng(0)
    x, y = rng.random((N, 1, 6, 6), dtype=np.float32), rng.integers(0, 3, N)
    monkeypatch.setattr(device_training, "RESIDENT", 0.0)
    monkeypatch.setattr(device_training, "PIECE", 2 * BATCH * (x[0].nbytes + 8 + 4))
    layers = [L.Conv2D(4, 3, activation="relu"), L.BatchNormalization(), L.Flatten(), L.Dense(3)]
    model = xpnet.Sequential(layers, input_shape=(1, 6, 6), device=cuda_ops("host"), seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model, (x, y, np.linspace(0.5, 1, N))


def fit(model, samples, *callbacks):
    x, y, w = samples
    model.fit(x, y, batch_size=BATCH, epochs=3, sample_weight=w, callbacks=list(callbacks), verbose=0)


def recordings(model):
    return [one for one in model.train_step()._recorded.values() if one is not None]


def test_pieces_are_copied_beside_the_steps_and_in_order(stream_order, monkeypatch):
    """No step reads a piece before it has come, no piece comes before the steps on its place are done, and
    the host's memory is filled again only once it was copied.
    """
    model, samples = in_pieces(monkeypatch)
    fit(model, samples)
    assert recordings(model)
    assert len(stream_order.copies) == 3 * (N // BATCH // 2) * 3, "x, y and w of each piece"
    assert {pinned for _, pinned in stream_order.copies} == {True}
    assert model.ops.stream.ptr not in {stream for stream, _ in stream_order.copies}, "beside the steps"


def test_batches_are_copied_beside_the_steps_and_in_order(stream_order, monkeypatch):
    """Also where one is larger than all before it, and its place is found anew; some lie there already."""
    model, (x, y, w) = in_pieces(monkeypatch)
    edges = [0, 3, 9, 15, 21, 23, 35, 41, 48]
    batches = [(x[a:b], y[a:b], w[a:b]) for a, b in zip(edges, edges[1:])]
    model.fit(batches, epochs=4, verbose=0)
    assert recordings(model)
    assert len(stream_order.copies) == 4 * 8 * 3, "x, y and w of each batch"
    assert {pinned for _, pinned in stream_order.copies} == {True}
    assert model.ops.stream.ptr not in {stream for stream, _ in stream_order.copies}, "beside the steps"
    with model.ops.running():
        there = [(model.ops.asarray(x[a:b]), y[a:b], w[a:b]) for a, b in zip(edges, edges[1:])]
    model.fit(there, epochs=2, verbose=0)


def test_batches_that_are_broken_off_give_no_memory_away_that_is_being_copied(stream_order, monkeypatch):
    model, (x, y, _) = in_pieces(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        model.fit([(x[k : k + 4], y[k : k + 4]) for k in range(0, N, 4)], callbacks=Interrupt(), verbose=0)
    gc.collect()
    assert stream_order.copies


class Interrupt(xpnet.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            raise KeyboardInterrupt


def test_training_that_is_interrupted_gives_no_memory_away_that_is_being_copied(stream_order, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        fit(*in_pieces(monkeypatch), Interrupt())
    gc.collect()
    assert stream_order.copies


@pytest.mark.parametrize("resident", [0.0, 1.0])
def test_steps_that_are_asked_for_from_another_stream_are_in_order(stream_order, monkeypatch, resident):
    """As a training loop of one's own asks for them: recordings run on the model's stream all the same."""
    model, samples = in_pieces(monkeypatch)
    monkeypatch.setattr(device_training, "RESIDENT", resident)
    with model.ops.xp.cuda.Stream(non_blocking=True):
        for _ in range(2):
            epoch = model.train_step().epoch(model._data(*samples), np.arange(N), BATCH)
            for batch in range(N // BATCH):
                epoch.step(batch)
            assert epoch.logs()["loss"] > 0
            epoch.finish()
    assert recordings(model)


def test_work_for_arrays_of_another_stream_waits_for_it_and_it_for_the_work(stream_order):
    ops = cuda_ops("host")
    model = xpnet.Sequential([L.Dense(3)], input_shape=(5,), device=ops, seed=0)
    cupy, host = ops.xp, np.random.default_rng(0).random((7, 5), dtype=np.float32)
    with cupy.cuda.Stream(non_blocking=True):
        x = cupy.asarray(host)
        x *= 2
        p = model.predict(x)
        p += 1
        x[...] = 0  # which predict may no longer read
        after = p.get()
    np.testing.assert_allclose(after, model.predict(2 * host) + 1, rtol=1e-6)


def test_what_is_not_in_order_is_found(stream_order):
    cupy = cuda_ops("host").xp
    one, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with one:
        a = cupy.zeros(3)
        event = one.record()
        a += 1
    with expected(stream_order), other:
        other.wait_event(event)  # too early a one
        a *= 2
    with other:
        other.wait_event(one.record())
        b = a * 2
    with expected(stream_order), one:
        a[...] = b
