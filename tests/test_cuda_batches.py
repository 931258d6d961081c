"""The engine of device="cuda": batches as they come, gradients gathered over batches, changed samples.

As in test_cuda_engine, every test runs the code of `CupyOps` on a fake CuPy, and on a GPU where there is one.
"""

import numpy as np
import pytest
import strict_xp
from conftest import cuda_ops

import xpnet
from xpnet import layers as L
from xpnet import optimizers
from xpnet.data import Augmentation, Cutout, GaussianNoise, MixUp, RandomCrop, RandomFlip, RandomRotation
from xpnet.errors import NonFiniteError
from xpnet.ops.reference import Ops
from xpnet.params import Params, Stream
from xpnet.training import device as device_training

N, BATCH = 40, 16  # two batches and a ragged one


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def make_ops(request):
    """A function that makes operations on CUDA: on the fake, or on the first GPU."""
    return lambda precision="float32": cuda_ops(request.param, precision)


def net(device, optimizer=None, precision="auto", layers=None):
    layers = layers or [
        L.Conv2D(4, 3, padding="same", activation="relu"),
        L.BatchNormalization(),
        L.Flatten(),
        L.Dropout(0.3),
        L.Dense(3),
    ]
    model = xpnet.Sequential(layers, input_shape=(2, 6, 6), device=device, precision=precision, seed=5)
    model.compile(optimizer or optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def images(n=N, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, 2, 6, 6), dtype=np.float32), rng.integers(0, 3, n)


def cut(x, y, size=BATCH):
    return [(x[k : k + size], y[k : k + size]) for k in range(0, len(x), size)]


def weights(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def recordings(model):
    return [one for one in model.train_step()._recorded.values() if one is not None]


def never_record(monkeypatch):
    from xpnet.ops.cupy_ops import CupyRecorder

    monkeypatch.setattr(CupyRecorder, "record", lambda self, work: None)


def assert_close(a, b):
    for name, value in a.state_dict().items():
        np.testing.assert_allclose(b.state_dict()[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


# -- batches as they come ------------------------------------------------------------------------------------


def test_batches_train_as_the_arrays_they_are_cut_from(make_ops):
    x, y = images()
    whole, parts = net(make_ops()), net(make_ops())
    a = whole.fit(x, y, batch_size=BATCH, epochs=4, shuffle=False, verbose=0)
    b = parts.fit(cut(x, y), epochs=4, verbose=0)
    assert weights(whole) == weights(parts) and a.history == b.history
    assert len(recordings(parts)) == 2


def test_batches_of_growing_sizes_other_types_and_weights_come_one_after_another(make_ops):
    x, y = images(64)
    raw = (x * 255).astype(np.uint8)
    w = np.linspace(0.5, 2, 64)
    batches = [
        (x[:4], y[:4]),
        (x[4:20], y[4:20]),
        (raw[20:30], y[20:30]),
        (x[30:40], y[30:40], w[30:40]),
        (x[40:], y[40:].astype(np.int8)),
    ]
    models = [net(device, precision="float64") for device in ("cpu", make_ops("float64"))]
    logs = [model.fit(batches, epochs=3, verbose=0).history for model in models]
    np.testing.assert_allclose(logs[1]["loss"], logs[0]["loss"], rtol=1e-9)
    assert_close(*models)


def test_batches_that_lie_on_the_device_stay_there(make_ops, monkeypatch):
    x, y = images()
    ops, plain = make_ops(), device_training.as_array

    def of_the_host(a, what):
        assert isinstance(a, np.ndarray) and not ops.owns(a)
        return plain(a, what)

    monkeypatch.setattr(device_training, "as_array", of_the_host)
    whole, parts = net(make_ops()), net(ops)
    whole.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0)
    with ops.running():
        there = [(ops.asarray(a), b) for a, b in cut(x, y)]
    parts.fit(there, epochs=2, verbose=0)
    assert weights(whole) == weights(parts)


def test_a_step_on_a_batch_that_came_asks_for_nothing_from_the_device(make_ops):
    model = net(make_ops())
    if model.ops.xp.__name__ == "cupy":
        pytest.skip("only the fake can count")
    x, y = images(6 * BATCH)
    batches = (model._data(*one) for one in cut(x, y))
    with model.ops.running():
        epoch = model.train_step().stream(batches)
        assert epoch.more(0)  # makes room
        epoch.step(0)
        for batch in range(1, 6):
            assert epoch.more(batch)  # copies it there, as the device goes on
            with strict_xp.no_syncs():
                epoch.step(batch)
        assert not epoch.more(6)
        epoch.finish()
    assert epoch.logs()["loss"] > 0


@pytest.mark.parametrize("kept", [2, 64])
def test_a_batch_that_is_not_finite_is_named_though_steps_do_not_wait(make_ops, kept, monkeypatch):
    monkeypatch.setattr(device_training, "KEPT", kept)
    x, y = images(6 * BATCH)
    batches, calls = cut(x, y), []
    batches[2] = (np.full_like(x[:BATCH], 3e38), y[:BATCH])

    def source():
        for batch in batches:
            calls.append(1)
            yield batch

    model, plain = (net(make_ops(), layers=[L.Flatten(), L.Dense(3)]) for _ in range(2))
    with pytest.raises(NonFiniteError, match=r"epoch 1, batch 3.*layer 1"):
        model.fit(source(), verbose=0)
    plain.fit(batches[:2], verbose=0)
    assert weights(model) == weights(plain)
    assert model.optimizer.iterations == model.params.step == 2
    assert len(calls) == (5 if kept == 2 else 6), "two batches at a time are looked back at"
    model.fit(batches[:2], verbose=0)
    assert model.optimizer.iterations == 4


def test_an_error_of_the_data_s_leaves_the_last_step(make_ops):
    x, y = images()

    def breaking():
        yield from cut(x, y)[:2]
        raise OSError("gone")

    model, plain = net(make_ops()), net(make_ops())
    with pytest.raises(OSError, match="gone"):
        model.fit(breaking(), verbose=0)
    plain.fit(cut(x, y)[:2], verbose=0)
    assert weights(model) == weights(plain)
    for one in (model, plain):
        one.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
    assert weights(model) != weights(plain), "another epoch's order"
    assert model.optimizer.iterations == 5


@pytest.mark.parametrize("resident", [0.0, 0.5])
def test_part_of_the_samples_trains_where_all_of_them_lie_or_in_pieces(make_ops, resident, monkeypatch):
    monkeypatch.setattr(device_training, "RESIDENT", resident)
    x, y = images()
    models = [net(device, precision="float64") for device in ("cpu", make_ops("float64"))]
    logs = [m.fit(x, y, batch_size=BATCH, epochs=2, validation_split=0.2, verbose=0).history for m in models]
    for name, values in logs[0].items():
        np.testing.assert_allclose(logs[1][name], values, rtol=1e-9, err_msg=name)
    assert_close(*models)


# -- gradients gathered over batches -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2),
        lambda: optimizers.Adam(0.01, global_clipnorm=0.5, gradient_accumulation_steps=3),
        lambda: optimizers.RMSprop(0.01, clipvalue=0.01, gradient_accumulation_steps=2),
        lambda: optimizers.AdamW(
            xpnet.schedules.ExponentialDecay(0.1, 1, 0.5), clipnorm=0.1, gradient_accumulation_steps=2
        ),
    ],
    ids=["sgd", "adam", "rmsprop", "adamw"],
)
def test_gathering_follows_the_cpu_s(make_ops, make):
    x, y = images()
    models = [net(device, make(), "float64") for device in ("cpu", make_ops("float64"))]
    logs = [model.fit(x, y, batch_size=BATCH, epochs=5, verbose=0).history for model in models]
    np.testing.assert_allclose(logs[1]["loss"], logs[0]["loss"], rtol=1e-9)
    assert_close(*models)
    done = [(m.optimizer.iterations, m.optimizer.gathered, m.params.step) for m in models]
    assert done[0] == done[1] and done[0][2] == 15
    assert recordings(models[1])


def test_replayed_gathering_equals_eager_to_the_bit_and_goes_on_after_saving(make_ops, monkeypatch, tmp_path):
    x, y = images()
    make = lambda: net(make_ops(), optimizers.Adam(0.01, gradient_accumulation_steps=2))  # noqa: E731
    replayed = make()
    replayed.fit(x, y, batch_size=BATCH, epochs=5, verbose=0)
    assert len(recordings(replayed)) == 4, "whole and ragged batches, of the two that make an update"
    replayed.save(tmp_path / "waiting.safetensors", training=True)
    never_record(monkeypatch)
    eager = make()
    eager.fit(x, y, batch_size=BATCH, epochs=5, verbose=0)
    assert weights(replayed) == weights(eager) and eager.optimizer.gathered == 1
    again = xpnet.load_model(tmp_path / "waiting.safetensors", device=make_ops())
    for one in (again, eager):
        one.train_on_batch(x[:BATCH], y[:BATCH])
    assert weights(again) == weights(eager) and again.optimizer.gathered == 0


def test_a_batch_that_is_not_finite_leaves_what_was_gathered(make_ops):
    x, y = images()
    bad = np.random.default_rng(0).uniform(-3e38, 3e38, x[:BATCH].shape).astype(np.float32)
    model, plain = (
        net(
            make_ops(),
            optimizers.SGD(0.1, gradient_accumulation_steps=3),
            layers=[L.Conv2D(4, 3), L.BatchNormalization(), L.Conv2D(2, 3), L.Flatten(), L.Dense(3)],
        )
        for _ in range(2)
    )
    for step in range(4):
        for one in (model, plain):
            one.train_on_batch(x[:BATCH], y[:BATCH])
        with pytest.raises(NonFiniteError):
            model.train_on_batch(bad, y[:BATCH])
        done = [(m.optimizer.iterations, m.optimizer.gathered, m.params.step) for m in (model, plain)]
        assert done[0] == done[1] == ((step + 1) // 3, (step + 1) % 3, step + 1)
    assert weights(model) == weights(plain)


# -- changed samples -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    "augment",
    [
        [RandomCrop(2), RandomFlip("horizontal"), Cutout(2)],
        [RandomRotation(30), MixUp(0.4)],
    ],
    ids=["crop-flip-cutout", "rotate-mixup"],
)
def test_the_same_changes_are_made_as_on_the_cpu(make_ops, augment, data_format):
    x, y = images()
    if data_format == "channels_last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    logs, models = [], []
    for device in ("cpu", make_ops("float64")):
        layers = [L.Conv2D(4, 3), L.Flatten(), L.Dense(3)]
        model = xpnet.Sequential(
            layers, input_shape=x.shape[1:], device=device, precision="float64", seed=5,
            data_format=data_format,
        )  # fmt: skip
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
        logs.append(model.fit(x, y, batch_size=BATCH, epochs=3, augment=augment, verbose=0).history)
        models.append(model)
    np.testing.assert_allclose(logs[1]["loss"], logs[0]["loss"], rtol=1e-5)
    for name, value in models[0].state_dict().items():
        np.testing.assert_allclose(models[1].state_dict()[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_changes_are_recorded_with_the_step_and_are_others_each_time(make_ops, monkeypatch):
    x, y = images()
    augment = [RandomCrop(2), RandomFlip(), MixUp(0.4)]
    replayed = net(make_ops())
    a = replayed.fit(x, y, batch_size=BATCH, epochs=4, augment=augment, verbose=0)
    assert replayed.train_step() is not None
    never_record(monkeypatch)
    eager, plain = net(make_ops()), net(make_ops())
    b = eager.fit(x, y, batch_size=BATCH, epochs=4, augment=augment, verbose=0)
    plain.fit(x, y, batch_size=BATCH, epochs=4, verbose=0)
    assert weights(replayed) == weights(eager) != weights(plain)
    assert a.history == b.history


def test_a_step_with_changes_asks_for_nothing_from_the_device(make_ops):
    model = net(make_ops())
    if model.ops.xp.__name__ == "cupy":
        pytest.skip("only the fake can count")
    x, y = images(2 * BATCH)
    model.augmentation = (RandomCrop(2), RandomFlip(), RandomRotation(20), Cutout(2), MixUp(0.4))
    with model.ops.running():
        step = model.train_step()
        epoch = step.epoch(model._data(x, y), np.arange(len(x)).repeat(3), BATCH)
        epoch.step(0)
        with strict_xp.no_syncs():
            for batch in range(1, 6):
                epoch.step(batch)
        epoch.finish()
    assert [one for one in step._recorded.values() if one is not None], "the step with changes was recorded"


def test_a_change_of_the_changes_is_recorded_anew(make_ops, monkeypatch):
    x, y = images(2 * BATCH)

    def fitted():
        model, noise = net(make_ops()), GaussianNoise(0.5)
        model.fit(x, y, batch_size=BATCH, epochs=2, augment=noise, verbose=0)
        noise.stddev = 0.0
        model.fit(x, y, batch_size=BATCH, epochs=2, augment=noise, verbose=0)
        return model

    replayed = fitted()
    never_record(monkeypatch)
    assert weights(replayed) == weights(fitted())


class Burst(Augmentation):
    def __call__(self, ops, x, y, draw):
        return x * 1.5e38, y


def test_an_error_is_told_of_the_changed_samples(make_ops):
    model = net(make_ops(), layers=[L.Flatten(), L.Dense(3)])
    x, y = images()
    with pytest.raises(NonFiniteError, match=r"epoch 1, batch 1: the loss is (nan|inf).*layer 1"):
        model.fit(x + 1, y, batch_size=BATCH, augment=Burst(), verbose=0)


def test_numbers_are_those_of_the_cpu_at_every_step(make_ops):
    ops = make_ops()
    there, here = Params(3, ops, np.float32), Params(3, Ops(), np.float32)
    for step in (0, 7, 2):
        there.step = here.step = step
        with ops.running():
            found = ops.to_host(ops.uniform(Stream(there, 1 << 32), (5, 7)))
        np.testing.assert_array_equal(found, Ops().uniform(Stream(here, 1 << 32), (5, 7)))
