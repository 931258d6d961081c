"""A net of the layers that autoencoders and segmentation need, under what repeats steps: the GPU's graphs and
the CPU's recordings.
"""

import numpy as np
import pytest
from conftest import cuda_ops

import xpnet
from xpnet import layers as L
from xpnet import replay
from xpnet.ops import threads
from xpnet.training import host

N, BATCH = 40, 16  # two batches and a ragged one
SHAPE = (2, 8, 8)


def segmenting():
    """Down and up again, with a short cut beside, to three classes a pixel."""
    below = [
        L.Conv2D(8, 3, 2, "same", activation="relu"),
        L.SpatialDropout2D(0.25),
        L.Residual([L.Conv2D(8, 3, padding=1), L.GroupNormalization(2)], activation="relu"),
        L.Conv2DTranspose(4, 3, 2, "same", activation="silu"),
    ]
    coarse = [L.AvgPool2D(4), L.LeakyReLU(0.1), L.UpSampling2D(4, "bilinear")]
    return [
        L.Normalization(mean=[0.4, 0.6], variance=[0.1, 0.2]),
        L.Conv2D(6, 3, padding="same"),
        L.GroupNormalization(3),
        L.ReLU(),
        L.Concatenate([[], below, coarse]),
        L.MaxPool2D(2),
        L.UpSampling2D(2),
        L.Conv2D(3, 1),
        L.Rescaling(0.5),
    ]


def compiled(device, precision="float32", layers=segmenting):
    model = xpnet.Sequential(layers(), input_shape=SHAPE, device=device, precision=precision, seed=5)
    model.compile(xpnet.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def samples():
    rng = np.random.default_rng(0)
    return rng.random((N, *SHAPE), dtype=np.float32), rng.integers(0, 3, (N, *SHAPE[1:]))


def trained(model, epochs=4):
    x, y = samples()
    history = model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return history.history["loss"]


def assert_same_weights(a, b, rtol=0.0):
    expected = b.state_dict()
    for name, value in a.state_dict().items():
        np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=rtol, err_msg=name)


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def make_cuda(request):
    return lambda precision="float32": cuda_ops(request.param, precision)


def test_steps_of_a_graph_equal_eager_ones_to_the_bit(make_cuda, monkeypatch):
    replayed = compiled(make_cuda())
    first = trained(replayed)
    recorded = [one for one in replayed.train_step()._recorded.values() if one is not None]
    assert len(recorded) == 2, "one for whole batches, one for the last"
    from xpnet.ops.cupy_ops import CupyRecorder

    monkeypatch.setattr(CupyRecorder, "record", lambda self, work: None)
    eager = compiled(make_cuda())
    assert trained(eager) == first
    assert_same_weights(replayed, eager)


def test_a_gpu_follows_the_cpu(make_cuda):
    """In float64, where only another formula or another mask could tell them apart."""
    cpu, cuda = compiled("cpu", "float64"), compiled(make_cuda("float64"), "float64")
    assert trained(cuda) == pytest.approx(trained(cpu), rel=1e-9)
    assert_same_weights(cuda, cpu, 1e-7)
    x, _ = samples()
    np.testing.assert_allclose(cuda.predict(x), cpu.predict(x), atol=1e-7)


@pytest.fixture
def one_thread():
    xpnet.set_num_threads(1)
    yield
    xpnet.set_num_threads(None)


def test_the_cpu_s_recordings_equal_the_layers_to_the_bit(one_thread, monkeypatch):
    """Training and predictions, also after the weights have moved."""
    x, _ = samples()
    monkeypatch.setattr(replay, "USES", 2)
    recorded = compiled("cpu")
    losses = trained(recorded)
    (replica,) = recorded.train_step().replicas(BATCH)
    assert replica.repeated.recordings()
    for _ in range(5):
        y = recorded.predict(x)
    assert recorded._inference._repeated.recordings()
    monkeypatch.setattr(replay, "USES", 1 << 30)
    eager = compiled("cpu")
    assert trained(eager) == losses
    assert_same_weights(recorded, eager)
    np.testing.assert_array_equal(eager.predict(x), y)


def test_replicas_train_as_one(monkeypatch):
    if not threads.blas_can_be_limited():
        pytest.skip("the BLAS behind NumPy obeys no thread limit")
    monkeypatch.setattr(host, "LEAST_WORK", 1)
    monkeypatch.setattr(host, "LEAST_SAMPLES", 4)
    models = []
    for count in (1, 3):
        monkeypatch.setattr(threads, "_chosen", count)
        models.append(compiled("cpu", "float64"))
        trained(models[-1])
        assert len(models[-1].train_step().replicas(BATCH)) == count
    assert_same_weights(*models, 1e-9)


def test_it_learns(one_thread):
    """Which of three shades a pixel has, from an image of patches."""
    y = samples()[1][:, :2, :2].repeat(4, axis=1).repeat(4, axis=2)
    x = np.stack([y / 2, 1 - y / 2], axis=1).astype(np.float32)
    model = compiled("cpu")
    model.fit(x, y, batch_size=8, epochs=30, verbose=0)
    assert (model.predict(x).argmax(axis=1) == y).mean() > 0.9  # a third is chance
