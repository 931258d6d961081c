"""The engine of device="cuda": recorded steps, data on the device and in pieces, memory, precision.

Every test runs the code of `CupyOps` itself: on a GPU where there is one, and everywhere on a fake CuPy that
runs the kernels as host C++, records graphs and refuses what a GPU would refuse.
"""

import collections
import copy
import gc
import logging
import threading

import numpy as np
import pytest
import strict_xp
from conftest import cuda_ops

import xpnet
from xpnet import layers as L
from xpnet.errors import DeviceMemoryError, NonFiniteError
from xpnet.ops import cupy_ops, fuse
from xpnet.ops.reference import Ops
from xpnet.training import device as device_training

N, BATCH = 40, 16  # two batches and a ragged one


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def make_ops(request):
    """A function that makes operations on CUDA: on the fake, or on the first GPU."""
    return lambda precision="float32": cuda_ops(request.param, precision)


def small_cnn():
    return [
        L.Conv2D(6, 3, padding="same", activation="relu"),
        L.BatchNormalization(),
        L.MaxPooling2D(2),
        L.Flatten(),
        L.Dense(16, activation="tanh"),
        L.Dropout(0.5),
        L.Dense(3),
    ]


def compiled(device, layers=None, optimizer=None, metrics=("accuracy",), precision="auto", shape=(1, 6, 6)):
    model = xpnet.Sequential(
        layers or small_cnn(), input_shape=shape, device=device, precision=precision, seed=5
    )
    model.compile(optimizer or xpnet.optimizers.Adam(0.01), "sparse_categorical_crossentropy", list(metrics))
    return model


def images(n=N, shape=(1, 6, 6), seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, *shape), dtype=np.float32), rng.integers(0, 3, n)


def weights(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def recordings(model):
    return [one for one in model.train_step()._recorded.values() if one is not None]


def never_record(monkeypatch):
    from xpnet.ops.cupy_ops import CupyRecorder

    monkeypatch.setattr(CupyRecorder, "record", lambda self, work: None)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"])
def test_replayed_steps_equal_eager_ones_to_the_bit(make_ops, optimizer, monkeypatch):
    x, y = images()
    replayed = compiled(make_ops(), optimizer=optimizer)
    first = replayed.fit(x, y, batch_size=BATCH, epochs=4, verbose=0)
    assert len(recordings(replayed)) == 2, "one for whole batches, one for the last"
    never_record(monkeypatch)
    eager = compiled(make_ops(), optimizer=optimizer)
    second = eager.fit(x, y, batch_size=BATCH, epochs=4, verbose=0)
    assert not recordings(eager)
    assert weights(replayed) == weights(eager)
    assert first.history == second.history
    assert replayed.optimizer.iterations == replayed.params.step == 12


def test_training_follows_the_cpu_s(make_ops):
    x, y = images()
    models = [compiled(device, precision="float64") for device in ("cpu", make_ops("float64"))]
    logs = [model.fit(x, y, batch_size=BATCH, epochs=4, verbose=0).history for model in models]
    np.testing.assert_allclose(logs[1]["loss"], logs[0]["loss"], rtol=1e-9)
    assert logs[0]["accuracy"] == logs[1]["accuracy"]
    for name, value in models[0].state_dict().items():
        np.testing.assert_allclose(models[1].state_dict()[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


def test_figures_of_several_metrics_are_the_cpu_s(make_ops):
    """Each has as many sums as it needs, side by side with the others' on the device."""
    x, y = images()
    metrics, logs = ("f1", "confusion_matrix", "accuracy", "top_2_accuracy"), []
    for device in ("cpu", make_ops("float64")):
        model = compiled(device, [L.Flatten(), L.Dense(3)], metrics=metrics, precision="float64")
        logs.append(model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0).history)
    assert set(logs[0]) == {"loss", *metrics}
    for name, values in logs[0].items():
        np.testing.assert_allclose(logs[1][name], values, rtol=1e-9, err_msg=name)


def test_the_loss_of_an_epoch_whose_batches_are_summed_is_the_cpu_s(make_ops):
    """The sums of the batches over the weight of all, not weighted once more."""
    x, y = images()
    for reduction in ("sum", "mean"):
        logs = []
        for device in ("cpu", make_ops("float64")):
            model = compiled(device, [L.Flatten(), L.Dense(3)], precision="float64")
            model.compile("sgd", xpnet.losses.SparseCategoricalCrossentropy(True, reduction=reduction))
            history = model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0).history
            logs.append((*history["loss"], model.train_on_batch(x, y)))
        np.testing.assert_allclose(logs[1], logs[0], rtol=1e-9, err_msg=reduction)


def test_samples_of_another_type_or_order_are_not_read_by_an_old_recording(make_ops):
    """Which has the type and strides of the samples it was made for in its kernels."""
    x, y = images(2 * BATCH, (2, 6, 6))
    whole = (x * 255).astype(np.uint8)
    kinds = [whole.astype(np.float32), whole, whole.astype(np.float64), whole.transpose(0, 1, 3, 2)]
    weight = np.linspace(0.5, 1, len(x))
    models = [
        compiled(device, [L.Flatten(), L.Dense(3)], "sgd", precision="float64", shape=(2, 6, 6))
        for device in ("cpu", make_ops("float64"))
    ]
    for samples in (*kinds, *kinds):
        for given in (None, weight):
            losses = [
                model.fit(samples, y, batch_size=BATCH, sample_weight=given, verbose=0).history["loss"]
                for model in models
            ]
            np.testing.assert_allclose(losses[1], losses[0], rtol=1e-7)


def test_replays_draw_fresh_dropout_masks(make_ops):
    """Without learning, only the masks can make the loss of one batch vary from replay to replay."""
    model = compiled(make_ops(), [L.Flatten(), L.Dropout(0.5), L.Dense(3)], xpnet.optimizers.SGD(0.0))
    x, y = images(BATCH)
    losses = [model.train_on_batch(x, y)[0] for _ in range(6)]
    assert len(recordings(model)) == 1
    assert len(set(losses)) == 6
    cpu = compiled("cpu", [L.Flatten(), L.Dropout(0.5), L.Dense(3)], xpnet.optimizers.SGD(0.0))
    np.testing.assert_allclose(losses, [cpu.train_on_batch(x, y)[0] for _ in range(6)], rtol=1e-5)


def test_a_model_that_moved_draws_the_masks_of_the_step_it_has_come_to(make_ops):
    """Before it has made a step there, too: the device is told what number the host counts."""
    x, y = images(BATCH)
    models = [compiled("cpu", [L.Flatten(), L.Dropout(0.5), L.Dense(3)], precision="float64") for _ in "ab"]
    for model in models:
        model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    models[1].to(make_ops("float64"))
    np.testing.assert_allclose(models[1].forward(x, train=True)[0], models[0].forward(x, train=True)[0])
    outputs = models[1].layer_outputs(x, train=True)
    for name, want in models[0].layer_outputs(x, train=True).items():
        assert isinstance(outputs[name], np.ndarray), name
        np.testing.assert_allclose(outputs[name], want, rtol=1e-9, err_msg=name)
    gradients = models[1].gradients(x, y)
    for name, want in models[0].gradients(x, y).items():
        np.testing.assert_allclose(gradients[name], want, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_schedule_s_rate_reaches_replayed_steps(make_ops):
    x, y = images()
    models = []
    for device in ("cpu", make_ops("float64")):
        optimizer = xpnet.optimizers.SGD(xpnet.schedules.ExponentialDecay(0.5, 1, 0.5))
        models.append(compiled(device, optimizer=optimizer, precision="float64"))
        models[-1].fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    for name, value in models[0].state_dict().items():
        np.testing.assert_allclose(models[1].state_dict()[name], value, rtol=1e-7, atol=1e-10, err_msg=name)


def test_a_step_asks_for_nothing_from_the_host(make_ops):
    model = compiled(make_ops())
    if isinstance(model.ops.xp, type(np)) and model.ops.xp.__name__ == "cupy":
        pytest.skip("only the fake can count")
    x, y = images(2 * BATCH)
    data = model._data(x, y, np.ones(len(x)))
    with model.ops.running():
        epoch = model.train_step().epoch(data, np.arange(len(x)).repeat(3), BATCH)
        epoch.step(0)
        with strict_xp.no_syncs():
            for batch in range(1, 6):
                epoch.step(batch)
        epoch.finish()
    assert epoch.logs()["loss"] > 0


def test_steps_that_are_asked_for_from_another_stream_are_recorded_too(make_ops):
    """As a training loop of one's own asks for them."""
    model = compiled(make_ops())
    x, y = images(BATCH)
    epoch = model.train_step().epoch(model._data(x, y), np.tile(np.arange(BATCH), 4), BATCH)
    for batch in range(4):
        epoch.step(batch)
    epoch.finish()
    assert len(recordings(model)) == 1
    other = compiled(make_ops())
    for _ in range(4):
        other.train_on_batch(x, y)
    assert weights(model) == weights(other)


def test_a_step_can_be_recorded_by_another_thread_than_ran_the_first(make_ops):
    """Each thread has a handle of cuBLAS, whose workspace no capture can make."""
    model = compiled(make_ops())
    if not hasattr(model.ops.blas, "calls"):
        pytest.skip("asks the twin of cuBLAS")
    blas, ready, plain = model.ops.blas, threading.local(), model.ops.blas.gemm_batched

    def use(stream=None):
        assert not model.ops.stream.is_capturing() or hasattr(ready, "handle")
        ready.handle = True

    def gemm_batched(*args, **more):
        blas.use()
        plain(*args, **more)

    blas.use, blas.gemm_batched = use, gemm_batched
    x, y = images(4 * BATCH)
    epoch = model.train_step().epoch(model._data(x, y), np.arange(len(x)), BATCH)
    for batch in range(4):
        thread = threading.Thread(target=epoch.step, args=(batch,))
        thread.start()
        thread.join()
    epoch.finish()
    assert len(recordings(model)) == 1


class Mirror(L.Layer):
    """A layer of one's own that hands views on, on a GPU: the image upside down."""

    def forward(self, x, *, train):
        return (x[::-1] if Mirror.views else x[::-1].copy()), None

    def backward(self, dy, cache):
        return self.forward(dy, train=True)[0]


def test_views_are_taken_for_what_they_show(make_ops):
    """Kernels go by addresses, so what does not lie as they expect is copied first."""
    x, y = images(N, (2, 6, 6))
    aligned = [Mirror(), L.Conv2D(32, 3, padding="same"), Mirror(), L.Conv2D(32, 1), Mirror()]
    bodies = [
        [Mirror(), L.Conv2D(3, 3, padding="same", activation="relu"), Mirror(), L.Conv2D(4, 2), Mirror()],
        [*aligned, L.Conv2D(32, 3), Mirror()],
        [Mirror(), L.MaxPooling2D(2), Mirror(), L.AveragePooling2D(2), Mirror()],
        [
            Mirror(),
            L.BatchNormalization(),
            Mirror(),
            L.Dropout(0.5),
            Mirror(),
            L.Activation("tanh"),
            Mirror(),
        ],
        [Mirror(), L.GlobalMaxPooling2D()],
    ]
    for body in bodies:
        losses = []
        for device in ("cpu", make_ops("float64")):
            Mirror.views = device != "cpu"
            layers = [*copy.deepcopy(body), L.Flatten(), L.Dense(3)]
            model = compiled(device, layers, precision="float64", shape=(2, 6, 6))
            losses.append(model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0).history["loss"])
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9, err_msg=str(body))


def test_interrupted_and_resumed_training_is_the_same_training(make_ops, tmp_path):
    x, y = images()
    whole = compiled(make_ops())
    whole.fit(x, y, batch_size=BATCH, epochs=4, verbose=0)
    part = compiled(make_ops())
    part.fit(x, y, batch_size=BATCH, epochs=2, verbose=0)
    part.save(tmp_path / "part.safetensors", training=True)
    resumed = xpnet.load_model(tmp_path / "part.safetensors", device=make_ops())
    resumed.fit(x, y, batch_size=BATCH, epochs=4, initial_epoch=2, verbose=0)
    assert weights(resumed) == weights(whole)


def test_a_model_moves_there_and_back_in_mid_training(make_ops):
    x, y = images()
    still = compiled("cpu", precision="float64")
    moving = compiled("cpu", precision="float64")
    for device in (make_ops("float64"), "cpu", make_ops("float64")):
        still.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        moving.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        moving.to(device)
    still.fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    moving.fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    assert moving.device.startswith("cuda")
    for name, value in still.state_dict().items():
        np.testing.assert_allclose(moving.state_dict()[name], value, rtol=1e-6, atol=1e-9, err_msg=name)
    assert moving.optimizer.iterations == still.optimizer.iterations


def test_copies_train_on_their_own(make_ops):
    x, y = images()
    model = compiled(make_ops())
    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0)
    before = weights(model)
    if model.device_reason == "as given":
        pytest.skip("a model that was given an Ops object is not copied")
    twin = copy.deepcopy(model)
    twin.fit(x, y, batch_size=BATCH, epochs=2, verbose=0)
    assert weights(model) == before != weights(twin)


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the fake: names of kernels, and of functions on arrays but those that find memory."""
    import fake_cupy

    names, launch, do = [], fake_cupy.RawFunction.__call__, fake_cupy.FakeArray._do.__func__

    def launched(self, *args, **more):
        names.append(self.name)
        return launch(self, *args, **more)

    def done(cls, f, *args, **more):
        if "empty" not in f.__name__:
            names.append(f.__name__)
        return do(cls, f, *args, **more)

    monkeypatch.setattr(fake_cupy.RawFunction, "__call__", launched)
    monkeypatch.setattr(fake_cupy.FakeArray, "_do", classmethod(done))
    return names


@pytest.mark.parametrize("shape", [(5, 7), (3, 7, 2, 4)], ids=str)
@pytest.mark.parametrize("name", ["relu", "softplus", "gelu", "silu"])
def test_bias_and_activation_are_one_kernel_and_no_pass_more(asked, name, shape, rng):
    """Also where the slope needs the input, which is kept, and in a layer of its own, which keeps x."""
    ops, plain, function = cuda_ops("host", "float64"), Ops(), xpnet.activations.get(name)
    z, bias = rng.normal(size=shape), rng.normal(size=7)
    with ops.running():
        x, z_there, bias_there = map(ops.asarray, (z, z, bias))
        asked.clear()
        activated = ops.activate(x, function)
        finished = ops.finish(z_there, bias_there, function)
        assert asked == ["finish"] * 2
    np.testing.assert_array_equal(ops.to_host(x), z)
    for got, want in [
        (activated, plain.activate(z, function)),
        (finished, plain.finish(z.copy(), bias, function)),
    ]:
        for ours, theirs in zip(got, want):
            np.testing.assert_allclose(ops.to_host(ours), theirs, rtol=1e-12, atol=1e-15)


def test_running_statistics_are_one_small_kernel(asked):
    model = compiled(cuda_ops("host"), [L.Flatten(), L.BatchNormalization(), L.Dense(3)])
    with model.ops.running():
        h = model.ops.asarray(images()[0].reshape(N, -1))
        asked.clear()
        model.layers[1].forward(h, train=True)
    assert asked == ["norm_statistics", "norm_apply", "running_statistics"]


# -- data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["images", "uint8", "channels_last", "vectors", "weights", "float16"])
def test_data_too_large_for_the_device_come_in_pieces(make_ops, kind, monkeypatch):
    """The same bits as with all samples on the device, whatever their type and order."""
    shape, x, y = (1, 6, 6), *images()
    layers, more, given = small_cnn, {}, {}
    if kind == "uint8":
        x = (x * 255).astype(np.uint8)
    elif kind == "float16":
        x = x.astype(np.float16)
    elif kind == "channels_last":
        x, shape, more = x.transpose(0, 2, 3, 1), (6, 6, 1), {"data_format": "channels_last"}
    elif kind == "vectors":
        x, shape = x.reshape(N, -1), (36,)
        layers = lambda: [L.Dense(8, activation="relu"), L.Dropout(0.2), L.Dense(3)]  # noqa: E731
    elif kind == "weights":
        given = {"sample_weight": np.linspace(0, 2, N)}
    results = []
    for resident in (1.0, 0.0):
        monkeypatch.setattr(device_training, "RESIDENT", resident)
        monkeypatch.setattr(device_training, "PIECE", 2 * BATCH * x[:1].nbytes + 600)
        model = xpnet.Sequential(layers(), input_shape=shape, device=make_ops(), seed=5, **more)
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
        history = model.fit(x, y, batch_size=BATCH // 2, epochs=3, verbose=0, **given).history
        results.append((weights(model), history))
    assert results[0] == results[1]


def test_arrays_of_the_device_are_taken_and_given(make_ops):
    ops = make_ops()
    model = compiled(ops)
    x, y = images()
    there = ops.asarray(x)
    p = model.predict(there)
    assert ops.owns(p)
    np.testing.assert_array_equal(ops.to_host(p), model.predict(x))
    model.fit(there, y, batch_size=BATCH, epochs=1, verbose=0)
    fresh = compiled(make_ops())
    fresh.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
    assert weights(model) == weights(fresh)


def test_samples_do_not_stay_on_the_device_after_training(make_ops):
    model = compiled(make_ops())
    model.fit(*images(), batch_size=BATCH, verbose=0)
    control = model.params.control
    assert control.x is control.y is control.order is None


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_images_that_are_not_square_keep_their_rows_and_columns(make_ops, data_format):
    """Gathered on the device, in either order of channels: the CPU's training, sample by sample."""
    x, y = images(N, (2, 4, 7))
    shape, losses = (2, 4, 7), []
    if data_format == "channels_last":
        x, shape = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), (4, 7, 2)
    for device in ("cpu", make_ops("float64")):
        model = xpnet.Sequential(
            [L.Conv2D(3, (1, 3), activation="tanh"), L.Flatten(), L.Dense(3)],
            input_shape=shape,
            device=device,
            precision="float64",
            data_format=data_format,
            seed=5,
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        losses.append(model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)


# -- what goes wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_step_that_is_not_finite_is_skipped_and_named(make_ops, epochs):
    """At first call by call, after two epochs replayed; the weights stay those of the step before."""

    def model():
        made = compiled(make_ops(), [L.Flatten(), L.Dense(8), L.Dense(3)], metrics=())
        made.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
        return made

    x, y = images()
    poisoned, healthy = model(), model()
    order = healthy.shuffled(N)
    bad = x.copy()
    bad[order[BATCH + 3]] = 3e38  # finite, but products with it are not
    healthy.train_on_batch(x[order[:BATCH]], y[order[:BATCH]])
    with pytest.raises(NonFiniteError, match=f"epoch {epochs + 1}, batch 2: .*layer 1 'dense'"):
        poisoned.fit(bad, y, batch_size=BATCH, initial_epoch=epochs, epochs=epochs + 1, verbose=0)
    assert epochs == 0 or recordings(poisoned)
    assert weights(poisoned) == weights(healthy)
    assert poisoned.optimizer.iterations == poisoned.params.step == healthy.params.step
    assert poisoned.fit(x, y, verbose=0).history["loss"][0] > 0, "training goes on"


@pytest.mark.parametrize("poison", [False, True])
def test_training_goes_on_after_an_epoch_that_was_broken_off(make_ops, poison):
    """By an error in a callback: the steps that were made count, and what was not finite is forgotten."""
    x, y = images()
    bad = x.copy()
    model = compiled(make_ops(), [L.Flatten(), L.Dense(8), L.Dense(3)], metrics=())
    if poison:
        bad[model.shuffled(N)[:BATCH]] = 3e38

    class BreakOff(xpnet.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(bad, y, batch_size=BATCH, callbacks=BreakOff(), verbose=0)
    made = 0 if poison else 2
    assert model.optimizer.iterations == model.params.step == made
    assert model.params.control.x is None
    before = weights(model)
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
    assert weights(model) != before
    assert model.optimizer.iterations == made + 3


def test_a_callback_may_train_on_a_batch_of_its_own(make_ops):
    x, y = images()
    models = [compiled(device, precision="float64") for device in ("cpu", make_ops("float64"))]
    histories = []
    for model in models:

        class OneMore(xpnet.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                self.model.train_on_batch(x[:5], y[:5])

        histories.append(model.fit(x, y, batch_size=BATCH, epochs=3, callbacks=OneMore(), verbose=0).history)
    np.testing.assert_allclose(histories[1]["loss"], histories[0]["loss"], rtol=1e-7)
    for name, value in models[0].state_dict().items():
        np.testing.assert_allclose(models[1].state_dict()[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


def test_settings_of_the_optimizer_that_change_reach_recorded_steps(make_ops):
    x, y = images()
    models = []
    for device in ("cpu", make_ops("float64")):
        models.append(
            compiled(device, optimizer=xpnet.optimizers.SGD(0.1, momentum=0.5), precision="float64")
        )
        models[-1].fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
        models[-1].optimizer.momentum, models[-1].optimizer.weight_decay = 0.99, 0.5
        models[-1].optimizer.learning_rate = 0.01
        models[-1].fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    for name, value in models[0].state_dict().items():
        np.testing.assert_allclose(models[1].state_dict()[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


class Coefficients(xpnet.activations.ActivationFunction):
    """A user's activation, with numbers in a list."""

    def __init__(self):
        self.c = [1.0, 0.5]

    def forward(self, ops, z, out):
        out[...] = self.c[0] * z + self.c[1] * ops.xp.tanh(z)
        return z

    keeps_input = True

    def backward(self, ops, dy, z):
        t = ops.xp.tanh(z)
        dy *= self.c[0] + self.c[1] * (1 - t * t)
        return dy


@pytest.mark.parametrize("what", ["loss", "activation", "a user's activation"])
def test_settings_of_formulas_that_change_reach_recorded_steps(make_ops, what):
    x, y = images()
    models = []
    for device in ("cpu", make_ops("float64")):
        function = xpnet.activations.ELU() if what == "activation" else Coefficients()
        layers = [L.Flatten(), L.Dense(4, activation=function), L.Dense(3)]
        model = xpnet.Sequential(layers, input_shape=(1, 6, 6), device=device, precision="float64", seed=2)
        model.compile("sgd", xpnet.losses.Huber(1.0))

        class Anneal(xpnet.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if what == "loss":
                    self.model.loss.delta = 0.1 * (epoch + 1)
                elif what == "activation":
                    self.model.layers[1].activation.alpha = 0.1 * (epoch + 1)
                else:
                    self.model.layers[1].activation.c[1] = 0.1 * (epoch + 1)

        target = np.eye(3)[y] * 3
        model.fit(x, target, batch_size=BATCH, epochs=20, callbacks=Anneal(), verbose=0)
        model.fit(x, target, batch_size=BATCH, epochs=3, verbose=0)
        models.append(model)
    for name, value in models[0].state_dict().items():
        np.testing.assert_allclose(models[1].state_dict()[name], value, rtol=1e-7, atol=1e-10, err_msg=name)
    assert recordings(models[1]), "steps are recorded again once the settings stay"


def test_nothing_is_recorded_while_another_thread_uses_the_model(make_ops):
    x, y = images(BATCH)
    model = compiled(make_ops())
    ops, inside, leave = model.ops, threading.Event(), threading.Event()

    def other():
        with ops.running():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(60)
    for _ in range(3):
        model.train_on_batch(x, y)
    assert not recordings(model)
    leave.set()
    thread.join()
    model.train_on_batch(x, y)
    assert recordings(model)


def test_memory_of_a_model_goes_with_it(make_ops):
    ops = make_ops()
    pool = ops.xp.get_default_memory_pool()
    gc.collect()
    before = pool.used_bytes()
    model = compiled(ops)
    model.fit(*images(), batch_size=BATCH, epochs=3, verbose=0)
    steps = model.train_step().recorder.pool
    assert pool.used_bytes() > before
    assert steps.total_bytes() > 0
    del model
    gc.collect()
    assert steps.total_bytes() == 0
    assert pool.used_bytes() - before <= 1 << 16, "small tables of the operations, which the test still holds"


class HostMinded(L.Layer):
    """A layer that looks at its input on the host, which no graph can record."""

    def forward(self, x, *, train):
        assert float(x.sum()) == float(x.sum())
        return x, None

    def backward(self, dy, cache):
        return dy


def test_what_cannot_be_recorded_runs_call_by_call_and_says_so_once(make_ops, caplog):
    x, y = images()
    model = compiled(make_ops(), [L.Flatten(), HostMinded(), L.Dense(3)])
    with caplog.at_level(logging.WARNING, "xpnet"):
        model.fit(x, y, batch_size=BATCH, epochs=4, verbose=0)
    assert len(caplog.records) == 1
    assert "cannot be recorded and runs call by call" in caplog.text
    assert not recordings(model)
    plain = compiled(make_ops(), [L.Flatten(), L.Dense(3)])
    plain.fit(x, y, batch_size=BATCH, epochs=4, verbose=0)
    assert list(weights(plain).values()) == list(weights(model).values())


class Sorted(xpnet.optimizers.Optimizer):
    """An update that is not element-wise."""

    def update(self, xp, p, g, state, lr, t):
        p -= lr * g * (1 + 0 * xp.sort(g))


def test_an_optimizer_that_cannot_be_traced_still_trains(make_ops, caplog):
    x, y = images()
    model = compiled(make_ops("float64"), optimizer=Sorted(0.1), precision="float64")
    with caplog.at_level(logging.WARNING, "xpnet"):
        model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    assert "Sorted.update" in caplog.text
    cpu = compiled("cpu", optimizer=xpnet.optimizers.SGD(0.1), precision="float64")
    cpu.fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    for name, value in cpu.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], value, rtol=1e-7, atol=1e-10, err_msg=name)


def test_the_update_is_traced_once_for_each_setting(make_ops, monkeypatch):
    """And not once more for another rate or another step, which it is given; why not is told each time."""
    never_record(monkeypatch)
    traced, plain = [], fuse.update
    monkeypatch.setattr(
        fuse, "update", lambda optimizer: (traced.append(optimizer.momentum), plain(optimizer))[1]
    )
    model = compiled(make_ops(), [L.Flatten(), L.Dense(3)], xpnet.optimizers.SGD(0.1, momentum=0.5))
    x, y = images(BATCH)
    for rate, momentum in [(0.1, 0.5), (0.01, 0.5), (0.01, 0.9), (0.1, 0.5)]:
        model.optimizer.learning_rate, model.optimizer.momentum = rate, momentum
        for _ in range(2):
            model.train_on_batch(x, y)
    assert traced == [0.5, 0.9]
    for _ in range(2):
        code, reason = cupy_ops._trace(fuse.activate, xpnet.activations.Softmax())
        assert code is None and ".max is not known" in reason


def test_an_optimizer_that_cannot_be_traced_heeds_the_norm_and_skips_what_is_not_finite(make_ops):
    """It reads both from the device's own record of the step."""
    x, y = images()
    models = []
    for device, kind in (("cpu", xpnet.optimizers.SGD), (make_ops("float64"), Sorted)):
        layers = [L.Flatten(), L.Dense(8), L.Dense(3)]
        optimizer = kind(0.1, global_clipnorm=0.05)
        models.append(compiled(device, layers, optimizer, metrics=(), precision="float64"))
        models[-1].fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    expected, model = models
    for name, value in expected.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], value, rtol=1e-7, atol=1e-10, err_msg=name)
    before = weights(model)
    bad = x[:BATCH].astype(np.float64)
    bad[3] = 1e308
    with pytest.raises(NonFiniteError):
        model.train_on_batch(bad, y[:BATCH])
    assert weights(model) == before


def test_a_batch_whose_weights_are_all_zero_moves_nothing(make_ops):
    """Its mean is that of nothing, 0, for every loss."""
    x, y = images()
    w = np.where(np.arange(N) < BATCH, 0.0, 1.0)
    for loss in ("mse", "sparse_categorical_crossentropy"):
        results = []
        for device in ("cpu", make_ops("float64")):
            model = compiled(device, [L.Flatten(), L.Dense(3)], "sgd", (), "float64")
            model.compile("sgd", loss)
            given = np.eye(3)[y] if loss == "mse" else y
            history = model.fit(
                x, given, batch_size=BATCH, epochs=3, sample_weight=w, shuffle=False, verbose=0
            ).history
            results.append((history["loss"], *model.state_dict().values()))
        for ours, cpu_s in zip(results[1], results[0]):
            np.testing.assert_allclose(ours, cpu_s, rtol=1e-9, err_msg=loss)


def test_a_replayed_step_launches_its_graph_and_nothing_else(make_ops, monkeypatch):
    """The host only says "again": what the device counts for itself is not written to it once more."""
    import fake_cupy

    model = compiled(make_ops())
    if model.ops.xp is not fake_cupy.cupy:
        pytest.skip("only the fake can count")
    x, y = images(6 * BATCH)
    launched = []
    plain = fake_cupy.RawFunction.__call__
    monkeypatch.setattr(
        fake_cupy.RawFunction,
        "__call__",
        lambda self, *args, **more: (launched.append(self.name), plain(self, *args, **more))[1],
    )
    epoch = model.train_step().epoch(model._data(x, y), np.arange(len(x)), BATCH)
    for batch in range(6):
        launched.clear()
        epoch.step(batch)
        assert batch < 2 or not launched
    (recording,) = recordings(model)
    assert recording.graph.launches == 5
    epoch.finish()


def test_figures_add_up_again_after_memory_ran_out(make_ops):
    """They outlive the memory of the steps, which goes as that of a batch is sought that fits."""
    ops, shape = make_ops(), (1, 32, 32)
    pool = ops.xp.get_default_memory_pool()
    x, y = images(256, shape)

    def model(ops):
        made = compiled(ops, [L.Conv2D(8, 3, padding="same"), L.Flatten(), L.Dense(3)], shape=shape)
        made.fit(x[:64], y[:64], batch_size=16, epochs=2, verbose=0)
        return made

    def more(model):
        history = model.fit(x[:64], y[:64], batch_size=16, epochs=4, initial_epoch=2, verbose=0)
        return history.history, weights(model)

    want = more(model(make_ops()))
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + (4 << 20))
    try:
        short = model(ops)
        with pytest.raises(DeviceMemoryError):
            short.fit(x, y, batch_size=256, epochs=3, initial_epoch=2, verbose=0)
        assert more(short) == want
    finally:
        pool.set_limit(size=0)


def test_what_was_recorded_gives_its_memory_back_to_the_batch_that_is_sought(make_ops, monkeypatch):
    """A model that has trained finds no smaller a batch than one that has not."""
    import fake_cupy

    shape = (1, 32, 32)
    x, y = images(256, shape)
    found = []
    for epochs in (0, 2):
        gc.collect()
        ops = make_ops()
        if ops.xp is not fake_cupy.cupy:
            pytest.skip("only the fake's card has the size of one's choice")
        pool = ops.xp.get_default_memory_pool()
        pool.free_all_blocks()
        model = compiled(ops, [L.Conv2D(8, 3, padding="same"), L.Flatten(), L.Dense(3)], shape=shape)
        with monkeypatch.context() as patch:
            used = fake_cupy.Machine.memory - ops.xp.cuda.Device(0).mem_info[0]
            patch.setattr(fake_cupy.Machine, "memory", used + (8 << 20))
            model.fit(x[:64], y[:64], batch_size=32, epochs=epochs, verbose=0)
            with pytest.raises(DeviceMemoryError) as error:
                model.fit(x, y, batch_size=256, epochs=epochs + 1, initial_epoch=epochs, verbose=0)
        found.append(int(str(error.value).split("batch_size of ")[1].split()[0]))
        del model, ops
    assert found[1] >= found[0] > 0


def test_a_recording_needs_no_memory_but_what_the_first_step_found(make_ops):
    """Both have the private pool, which nobody else takes memory from."""
    model = compiled(make_ops())
    x, y = images(4 * BATCH)
    step = model.train_step()
    epoch = step.epoch(model._data(x, y), np.arange(len(x)), BATCH)
    epoch.step(0)
    found = step.recorder.pool.total_bytes()
    epoch.step(1)
    epoch.step(2)
    epoch.finish()
    assert recordings(model)
    assert step.recorder.pool.total_bytes() == found > 0


def test_out_of_memory_names_the_layer_and_a_batch_that_fits(make_ops):
    ops = make_ops()
    pool = ops.xp.get_default_memory_pool()
    model = compiled(
        ops, [L.Conv2D(8, 3, padding="same", name="wide"), L.Flatten(), L.Dense(3)], shape=(1, 32, 32)
    )
    x, y = images(256, (1, 32, 32))
    before = weights(model)
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + (4 << 20))
    try:
        with pytest.raises(DeviceMemoryError, match=r"layer 0 'wide'.*batch of 256.*asked for .*iB") as error:
            model.fit(x, y, batch_size=256, epochs=1, verbose=0)
        fits = int(str(error.value).split("batch_size of ")[1].split()[0])
        assert 1 <= fits <= 128
        assert weights(model) == before
        model.fit(x[:64], y[:64], batch_size=fits, epochs=1, verbose=0)
    finally:
        pool.set_limit(size=0)


def test_recordings_survive_or_go_whole_where_memory_runs_short(make_ops):
    """CuPy makes room in a pool by giving back its free blocks, in which the recordings work."""
    x, y = images(256, (1, 16, 16))
    layers = [L.Conv2D(8, 3, padding="same", activation="relu"), L.Flatten(), L.Dense(3)]

    def fit(model, size):
        model.fit(x, y, batch_size=size, epochs=1, verbose=0)

    ended = set()
    for room in (0, 256 << 10, 1 << 20, 2 << 20, 8 << 20):
        ops = make_ops()
        pool = ops.xp.get_default_memory_pool()
        free = compiled(make_ops(), copy.deepcopy(layers), shape=(1, 16, 16))
        short = compiled(ops, copy.deepcopy(layers), shape=(1, 16, 16))
        for model in (free, short):
            fit(model, 32)
        assert recordings(short)
        held = short.train_step().recorder.pool.total_bytes()
        pool.free_all_blocks()
        pool.set_limit(size=pool.total_bytes() + held + room)
        try:
            fit(short, 128)
            fit(free, 128)
            ended.add("made room")
        except DeviceMemoryError as error:
            advised = str(error).split("batch_size of ")
            if len(advised) > 1:
                short.fit(x, y, batch_size=int(advised[1].split()[0]), epochs=2, verbose=0)
                free.fit(x, y, batch_size=int(advised[1].split()[0]), epochs=2, verbose=0)
            ended.add("out of memory")
        finally:
            pool.set_limit(size=0)
        for model in (free, short):
            fit(model, 32)
        assert weights(free) == weights(short)
    assert ended == {"made room", "out of memory"}


def test_inference_takes_smaller_blocks_where_memory_is_short(make_ops):
    ops = make_ops()
    pool = ops.xp.get_default_memory_pool()
    model = compiled(ops, [L.Conv2D(8, 3, padding="same"), L.Flatten(), L.Dense(3)], shape=(1, 32, 32))
    x, y = images(300, (1, 32, 32))
    want, loss = model.predict(x), model.evaluate(x, y)
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + (2 << 20))
    try:
        np.testing.assert_allclose(model.predict(x), want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(model.evaluate(x, y), loss, rtol=1e-5)
        pool.free_all_blocks()
        pool.set_limit(size=pool.used_bytes() + (16 << 10))  # for an image and not for what is made of it
        with pytest.raises(DeviceMemoryError, match=r"^layer 0 'conv2d': out of memory on cuda:0"):
            model.predict(x)
    finally:
        pool.set_limit(size=0)


def test_out_of_memory_says_what_was_asked_for_by_which_layer_and_what_to_do_wherever_it_comes(make_ops):
    """And whoever keeps the error keeps none of the arrays that were there."""
    ops = make_ops()
    pool = ops.xp.get_default_memory_pool()
    body = [L.Dense(4096, name="inner"), L.Dense(256)]
    model = compiled(ops, [L.Flatten(), L.Residual(body), L.Dense(3)], shape=(1, 16, 16))
    x, y = images(1000, (1, 16, 16))
    want = model.forward(x[:1])[0]
    gc.collect()
    pool.free_all_blocks()
    used = pool.used_bytes()
    pool.set_limit(size=used + (8 << 20))  # for the images and not for what is made of them
    advice = r"It asked for .*iB more.*of a limit of .*fewer samples.*set_memory_limit"
    try:
        for work, where in [
            (lambda: model.forward(x), r"layer 1 'residual' > body 0 'inner'"),
            (lambda: model.gradients(x, y), r"layer 1 'residual' > body 0 'inner'"),
            (lambda: compiled(ops, [L.Flatten(), L.Dense(16384)], shape=(1, 16, 16)), "the model"),
        ]:
            with pytest.raises(
                DeviceMemoryError, match=f"^{where}: out of memory on cuda:0. {advice}"
            ) as error:
                work()
            gc.collect()
            assert pool.used_bytes() <= used + (1 << 16)
            assert isinstance(error.value.__cause__, ops.out_of_memory)
        np.testing.assert_array_equal(model.forward(x[:1])[0], want)
    finally:
        pool.set_limit(size=0)


# -- precision -----------------------------------------------------------------------------------------------


def test_precision_is_said_as_what_it_means(make_ops):
    said = {
        name: compiled(make_ops(name), precision=name).precision_meaning
        for name in ("auto", "float32", "tf32", "bfloat16", "float64")
    }
    assert said == {
        "auto": "convolutions tf32, dense float32",
        "float32": "float32",
        "tf32": "tf32 products, float32 sums",
        "bfloat16": "bfloat16 products, float32 sums",
        "float64": "float64",
    }


def test_convolutions_and_dense_layers_multiply_in_what_the_precision_says(make_ops):
    """By "auto" the ones in tf32 and the others in float32, forward and backward."""
    conv_layers = [L.Conv2D(32, 3, padding="same"), L.Conv2D(32, 3)]
    x, y = images(16, (16, 6, 6))
    for precision, conv, dense in [
        ("auto", "tf32", "float32"),
        ("float32", "float32", "float32"),
        ("tf32", "tf32", "tf32"),
        ("bfloat16", "bfloat16", "bfloat16"),
    ]:
        used = []
        for layers, shape in ((conv_layers, (16, 6, 6)), ([], (576,))):
            ops = make_ops(precision)
            if not hasattr(ops.blas, "calls"):
                pytest.skip("listens to the twin of cuBLAS")
            model = compiled(
                ops, [*copy.deepcopy(layers), L.Flatten(), L.Dense(3)], precision=precision, shape=shape
            )
            asked, plain = [], ops.blas.gemm_batched
            ops.blas.gemm_batched = lambda math, *args, a=asked, f=plain, **more: (
                a.append(math),
                f(math, *args, **more),
            )
            model.gradients(x.reshape(16, *shape), y)
            used.append(collections.Counter(asked))
        assert used[1] == {dense: 2}, "y and dw; nothing asks for dx"
        assert set(used[0] - collections.Counter({dense: 3})) == {conv}


@pytest.mark.parametrize("precision, most", [("float32", 2e-5), ("tf32", 5e-3), ("bfloat16", 5e-2)])
def test_gradients_are_as_exact_as_the_precision(make_ops, precision, most):
    """Aligned sizes, so that convolutions take the route of matrix products."""

    def layers():
        return [
            L.Conv2D(32, 3, padding="same", activation="tanh"),  # a relu would turn rounding into jumps
            L.Conv2D(32, 3, activation="tanh"),
            L.Flatten(),
            L.Dense(3),
        ]

    x, y = images(16, (16, 6, 6))
    exact = compiled("cpu", layers(), precision="float64", shape=(16, 6, 6)).gradients(x, y)
    ours = compiled(make_ops(precision), layers(), precision=precision, shape=(16, 6, 6)).gradients(x, y)
    for name, want in exact.items():
        error = np.abs(ours[name] - want).max() / np.abs(want).max()
        assert error < most, name
        assert ours[name].dtype == np.float32


# -- cards ---------------------------------------------------------------------------------------------------


@pytest.fixture
def card(monkeypatch):
    """The pretended machine, to be changed, and a function that makes operations on one of its cards."""
    import fake_cupy

    from xpnet.ops.cupy_ops import CupyOps

    cuda_ops("host")  # or skip
    for name in ("devices", "capability"):
        monkeypatch.setattr(fake_cupy.Machine, name, getattr(fake_cupy.Machine, name))
    return fake_cupy.Machine, lambda index=0, precision="auto", cupy=fake_cupy.cupy: CupyOps(
        index, precision, cupy, fake_cupy.Twin()
    )


def test_a_card_without_tensor_cores_for_it_says_so_and_computes_in_float32(card):
    machine, make = card
    machine.capability = "75"
    for precision in ("auto", "float32", "tf32", "bfloat16"):
        ops = make(precision=precision)
        assert (ops.conv_math, ops.dense_math) == ("float32", "float32")
        if precision in ("tf32", "bfloat16"):
            with pytest.warns(xpnet.DeviceFallbackWarning, match=f"'{precision}' is not available on cuda:0"):
                compiled(ops, precision=precision)
    machine.capability = "120"
    assert (make().conv_math, make(precision="bfloat16").dense_math) == ("tf32", "bfloat16")


def test_a_card_that_cannot_add_is_no_card(card):
    """Its first sum is tried before a model is put on it."""
    _, make = card

    class Broken:
        def __getattr__(self, name):
            return getattr(real, name)

        def ones(self, *args):
            return real.zeros(*args)

    real = make().xp
    with pytest.raises(RuntimeError, match="the first sum on the GPU was wrong"):
        make(cupy=Broken())
