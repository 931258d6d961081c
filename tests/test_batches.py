"""Training on batches as they come, on memory maps, with gathered gradients, on changed samples."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import xpnet
from xpnet import NonFiniteError, Sequential, ShapeError, callbacks, losses, optimizers
from xpnet.data import Augmentation, MixUp, RandomCrop, RandomFlip
from xpnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten
from xpnet.ops import threads


def data(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return (rng.standard_normal((n, 5)) + 3 * np.eye(3, 5)[y]).astype(np.float32), y


def net(optimizer="adam", seed=1, **more):
    layers = [Dense(8, activation="relu"), BatchNormalization(), Dropout(0.3), Dense(3)]
    model = Sequential(layers, input_shape=(5,), seed=seed, device="cpu", **more)
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
    return model


def state(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def cut(x, y, size=10):
    return [(x[k : k + size], y[k : k + size]) for k in range(0, len(x), size)]


class Indexed:
    """As Keras's PyDataset: batches by number."""

    def __init__(self, batches):
        self.batches, self.ends = batches, 0

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, k):
        return self.batches[k]  # and for ever, had it no length: nothing raises IndexError in a PyDataset

    def on_epoch_end(self):
        self.ends += 1


class Anew:
    """An iterable without a length."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize("kind", [list, tuple, Anew], ids=["list", "tuple", "iterable"])
def test_batches_train_as_the_arrays_they_are_cut_from(kind):
    x, y = data(55)
    whole, parts = net(), net()
    first = whole.fit(x, y, batch_size=10, epochs=3, shuffle=False, verbose=0)
    second = parts.fit(kind(cut(x, y)), epochs=3, verbose=0)
    assert state(whole) == state(parts) and first.history == second.history
    assert parts.epochs_trained == 3 and parts.optimizer.iterations == 18


def test_a_data_loader_is_gone_through_anew_each_epoch():
    torch = pytest.importorskip("torch")
    x, y = data(55)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(dataset, batch_size=10)
    whole, parts = net(), net()
    whole.fit(x, y, batch_size=10, epochs=2, shuffle=False, verbose=0)
    history = parts.fit(loader, epochs=2, validation_data=loader, verbose=0)
    assert state(whole) == state(parts)
    assert history.history["val_loss"][-1] == pytest.approx(whole.evaluate(x, y)[0], rel=1e-5)
    np.testing.assert_array_equal(
        parts.predict(loader), np.concatenate([parts.predict(b[0]) for b in loader])
    )
    with pytest.raises(TypeError, match=r"single sample.*y=.*DataLoader\(dataset, batch_size=32\)"):
        parts.fit(dataset, verbose=0)


def test_what_is_indexed_is_taken_in_an_order_of_the_seed_s_and_told_of_an_epoch_s_end():
    x, y = data(60)
    seen = []

    class Spy(Indexed):
        def __getitem__(self, k):
            seen.append(k)
            return super().__getitem__(k)

    source = Spy(cut(x, y))
    net().fit(source, epochs=2, verbose=0)
    first, second = seen[:6], seen[6:]
    assert sorted(first) == sorted(second) == list(range(6)) and first != second
    assert source.ends == 2
    seen.clear()
    net().fit(source, epochs=2, verbose=0)
    assert seen == first + second


def test_steps_per_epoch_goes_on_where_the_epoch_before_ended():
    x, y = data(60)
    taken = []

    def endless():
        while True:
            for number, batch in enumerate(cut(x, y)):
                taken.append(number)
                yield batch

    history = net().fit(endless(), epochs=3, steps_per_epoch=4, verbose=0)
    assert taken == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5] and len(history.epoch) == 3
    model = net()
    model.fit(Anew(cut(x, y)), epochs=3, steps_per_epoch=4, verbose=0)  # starts anew in the second epoch
    assert model.optimizer.iterations == 12
    parts = net()
    parts.fit(x, y, batch_size=10, epochs=2, steps_per_epoch=4, verbose=0)
    assert parts.optimizer.iterations == 8
    with pytest.raises(ValueError, match=r"steps_per_epoch=7. Expected: at most 6 of 10 from 60 samples"):
        parts.fit(x, y, batch_size=10, steps_per_epoch=7, verbose=0)


def test_data_that_end_early_end_the_training_after_the_last_whole_step():
    x, y = data(60)
    batches = cut(x, y)
    model, plain = net(), net()
    with pytest.warns(UserWarning, match=r"ended early. Received: 2 batches. Expected: 4 an epoch"):
        history = model.fit(iter(batches), epochs=5, steps_per_epoch=4, verbose=0)
    plain.fit(batches, epochs=1, verbose=0)
    assert state(model) == state(plain)
    assert len(history.epoch) == 2 and model.optimizer.iterations == 6
    with pytest.raises(ValueError, match=r"can be gone through once. Received: a generator for 2 epochs"):
        model.fit((b for b in batches), epochs=2, verbose=0)
    with pytest.raises(ValueError, match=r"data are empty. Received: a list_iterator without a batch"):
        model.fit(iter([]), verbose=0)
    assert state(model) == state(plain)


def test_an_error_of_the_data_s_comes_through_with_the_weights_of_the_last_step():
    x, y = data(60)

    def breaking():
        yield from cut(x[:30], y[:30])
        raise OSError("the disk is gone")

    model, plain = net(), net()
    with pytest.raises(OSError, match="the disk is gone") as error:
        model.fit(breaking(), verbose=0)
    plain.fit(cut(x[:30], y[:30]), verbose=0)
    assert state(model) == state(plain)
    assert error.value.__notes__ == ["from the data of epoch 1, batch 4, which changed nothing"]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((np.zeros((4, 6), np.float32), np.zeros(4, int)), r"epoch 2, batch 2: x does not fit the model"),
        ((np.zeros((4, 5), np.float32), np.zeros(3, int)), r"4 in epoch 2, batch 2: x, 3 in epoch 2, batch"),
        ((np.full((4, 5), np.nan, np.float32), np.zeros(4, int)), "epoch 2, batch 2: x must be finite"),
        ((np.zeros((4, 5), np.float32), np.full(4, 7)), "a class index is out of range"),
    ],
)
def test_a_batch_that_does_not_fit_is_named_and_changes_nothing(batch, words):
    x, y = data(30)
    good = cut(x, y)
    model, plain = net(), net()
    passes = iter([good, [good[0], batch]])

    class Source:
        def __iter__(self):
            return iter(next(passes))

    with pytest.raises(ValueError, match=words):
        model.fit(Source(), epochs=2, verbose=0)
    plain.fit([*good, good[0]], verbose=0)
    assert state(model) == state(plain)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "words"),
    [
        ((iter([3]),), {}, TypeError, r"batch 1 must be \(x, y\) or .* Received: int"),
        ((iter([(1, 2, 3, 4)]),), {}, TypeError, "Received: tuple of 4"),
        (
            (iter([]), np.zeros(3)),
            {},
            ValueError,
            "batches bring their targets. Received: list_it.* and y",
        ),
        ((iter([]),), {"batch_size": 8}, ValueError, "batch_size needs arrays.* Received: batch_size=8"),
        ((iter([]),), {"validation_split": 0.1}, ValueError, "validation_split needs arrays"),
        ((iter([]),), {"sample_weight": [1]}, ValueError, "sample_weight needs arrays"),
        ((iter([]),), {"class_weight": "balanced"}, ValueError, "class_weight must be a dict where"),
        ((iter([]),), {"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be a whole number"),
        ((np.zeros((4, 5)),), {}, ValueError, r"fit needs targets. Received: y=None"),
    ],
)
def test_arguments_that_do_not_go_with_batches_are_refused(args, kwargs, error, words):
    with pytest.raises(error, match=words):
        net().fit(*args, verbose=0, **kwargs)


def test_weights_come_with_batches_and_a_dict_weighs_classes():
    x, y = data(60)
    w = np.random.default_rng(1).random(60)
    batches = [(a, b, w[k * 10 : k * 10 + 10]) for k, (a, b) in enumerate(cut(x, y))]
    whole, parts = net(), net()
    weight = {0: 2.0, 2: 0.5}
    a = whole.fit(
        x, y, batch_size=10, epochs=2, shuffle=False, sample_weight=w, class_weight=weight, verbose=0
    )
    b = parts.fit(batches, epochs=2, class_weight=weight, verbose=0)
    assert state(whole) == state(parts) and a.history == b.history


def test_an_unbuilt_model_is_built_for_the_first_batch_which_is_trained_on_too():
    x, y = data(60)
    built, unbuilt = net(), Sequential(net().layers[:0], seed=1, device="cpu")
    for layer in net().layers:
        unbuilt.add(type(layer)(**layer.get_config()))
    unbuilt.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    built.fit(cut(x, y), verbose=0)
    unbuilt.fit(iter(cut(x, y)), verbose=0)
    assert state(built) == state(unbuilt)


def test_evaluate_and_predict_take_batches():
    x, y = data(55)
    model = net()
    model.fit(x, y, verbose=0)
    assert model.evaluate(cut(x, y)) == pytest.approx(model.evaluate(x, y), rel=1e-6)
    some = model.evaluate(iter(cut(x, y)), steps=2)
    assert some == pytest.approx(model.evaluate(x[:20], y[:20]), rel=1e-6)
    np.testing.assert_allclose(model.predict(a for a, _ in cut(x, y)), model.predict(x), rtol=1e-5)
    assert model.predict(iter(cut(x, y)), steps=2).shape == (20, 3)
    with pytest.raises(ValueError, match="without a batch"):
        model.predict(iter([]))
    with (
        pytest.warns(UserWarning, match="validation data ended early"),
        pytest.raises(ValueError, match="empty"),
    ):
        model.evaluate(iter([]))


def test_evaluate_tells_callbacks():
    x, y = data()
    model, told = net(), []

    class Told(callbacks.Callback):
        def on_test_begin(self, logs=None):
            told.append(self.model)

        def on_test_end(self, logs=None):
            told.append(logs)

    loss, accuracy = model.evaluate(x, y, callbacks=Told())
    assert told == [model, {"loss": loss, "accuracy": accuracy}]
    with pytest.raises(TypeError, match="callbacks must be objects of a subclass"):
        model.evaluate(x, y, callbacks=[print])


def test_a_trained_model_goes_from_memory_at_once():
    x, y = data()
    model = net()
    model.fit(x, y, verbose=0, callbacks=callbacks.EarlyStopping("loss"))
    gone = weakref.ref(model)
    gc.collect()
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_validation_runs_on_some_batches_and_after_some_epochs():
    x, y = data(60)
    model = net()
    history = model.fit(
        x, y, epochs=4, validation_data=Anew(cut(x, y)), validation_steps=3, validation_freq=2, verbose=0
    ).history
    assert len(history["loss"]) == 4 and len(history["val_loss"]) == 2
    found = net().fit(x, y, epochs=4, validation_data=(x, y), validation_freq=[1, 4], verbose=0)
    assert len(found.history["val_loss"]) == 2
    assert found.measured["val_loss"] == [0, 3] and found.measured["loss"] == found.epoch == [0, 1, 2, 3]
    model = net()
    model.fit(x, y, epochs=1, verbose=0)
    expected = model.evaluate(x[:20], y[:20])
    model = net()
    found = model.fit(
        x, y, validation_data=(x, y), validation_batch_size=10, validation_steps=2, verbose=0
    ).history
    assert [found["val_loss"][0], found["val_accuracy"][0]] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"validation data can be gone through once.*validation_steps="):
        model.fit(x, y, epochs=2, validation_data=iter(cut(x, y)), verbose=0)


def test_the_bar_counts_batches_of_unknown_number(capsys):
    x, y = data(30)
    net().fit(Anew(cut(x, y)), epochs=2, verbose=1)
    net().fit(Anew(cut(x, y)), epochs=2, verbose=2)
    out, err = capsys.readouterr()
    assert "epoch 2/2" in err and "epoch 2/2" in out


def test_a_callback_ends_an_epoch_of_batches():
    x, y = data(60)

    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert np.isfinite(logs["loss"])
            self.model.stop_training = batch == 2

    model = net()
    model.fit(cut(x, y), epochs=3, verbose=0, callbacks=Stop())
    assert model.optimizer.iterations == 3


def test_a_loss_that_is_not_finite_names_the_batch_of_the_stream():
    x, y = data(60)
    batches = cut(x, y)
    batches[3] = (np.full((10, 5), 1e38, np.float32), y[:10])
    model = Sequential([Dense(4), Dense(3)], input_shape=(5,), seed=0, device="cpu")
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(NonFiniteError, match="epoch 1, batch 4"):
        model.fit(batches, verbose=0)
    assert model.optimizer.iterations == 3


# -- memory maps ---------------------------------------------------------------------------------------------


def test_a_memory_map_is_never_in_memory_as_a_whole(tmp_path):
    n, size = 4096, 8192
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (n, size))  # 32 MiB, or 128 as float32
    x[:, :8] = np.random.default_rng(0).integers(0, 255, (n, 8))
    x.flush()
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    y = (x[:, 0] > 127).astype(int)
    model = Sequential([Dense(2)], input_shape=(size,), seed=0, device="cpu")
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x[:64], y[:64], validation_split=0.2, verbose=0)  # what is imported counts, too
    tracemalloc.start()
    model.fit(x, y, batch_size=64, epochs=1, validation_split=0.25, verbose=0)
    model.evaluate(x, y)
    model.predict(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


def test_a_memory_map_trains_as_the_array_in_it(tmp_path):
    x, y = data(60)
    np.save(tmp_path / "x.npy", x)
    first, second = net(), net()
    first.fit(x, y, epochs=2, validation_split=0.2, verbose=0)
    second.fit(np.load(tmp_path / "x.npy", mmap_mode="r"), y, epochs=2, validation_split=0.2, verbose=0)
    assert state(first) == state(second)


# -- gradients gathered over batches -------------------------------------------------------------------------


def plain_net(optimizer, loss="sparse_categorical_crossentropy"):
    layers = [Dense(8, activation="tanh"), Dense(3)]
    model = Sequential(layers, input_shape=(5,), seed=1, device="cpu", precision="float64")
    model.compile(optimizer, loss)
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: optimizers.SGD(0.1, momentum=0.9, **k),
        lambda **k: optimizers.Adam(0.05, **k),
        lambda **k: optimizers.AdamW(0.05, global_clipnorm=0.1, **k),
        lambda **k: optimizers.RMSprop(0.05, clipvalue=0.01, **k),
        lambda **k: optimizers.Adagrad(0.05, clipnorm=0.05, **k),
        lambda **k: optimizers.Adam(xpnet.schedules.ExponentialDecay(0.1, 1, 0.5), **k),
    ],
    ids=["sgd", "adam", "adamw-norm", "rmsprop-value", "adagrad-norm", "schedule"],
)
def test_gathered_gradients_update_as_one_large_batch(make):
    x, y = data(60)
    x = x.astype(np.float64)
    large, small = plain_net(make()), plain_net(make(gradient_accumulation_steps=3))
    large.fit(x, y, batch_size=30, epochs=3, shuffle=False, verbose=0)
    small.fit(x, y, batch_size=10, epochs=3, shuffle=False, verbose=0)
    assert small.optimizer.iterations == large.optimizer.iterations == 6
    for name, value in large.state_dict().items():
        np.testing.assert_allclose(small.state_dict()[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_weights_wait_for_the_last_batch_and_the_wait_goes_on_across_epochs_and_files(tmp_path):
    x, y = data(50)
    make = lambda: plain_net(optimizers.Adam(0.05, gradient_accumulation_steps=4))  # noqa: E731
    model, start = make(), state(make())
    for k in range(3):
        model.train_on_batch(x[k * 10 : k * 10 + 10], y[k * 10 : k * 10 + 10])
        assert state(model) == start and model.optimizer.gathered == k + 1
    path = tmp_path / "waiting.safetensors"
    model.save(path, training=True)
    again = xpnet.load_model(path, device="cpu")
    for one in (model, again):
        one.train_on_batch(x[30:40], y[30:40])
        assert state(one) != start and (one.optimizer.iterations, one.optimizer.gathered) == (1, 0)
    assert state(again) == state(model)
    model = make()
    model.fit(x, y, batch_size=10, epochs=1, shuffle=False, verbose=0)  # five batches
    assert (model.optimizer.iterations, model.optimizer.gathered) == (1, 1)


def test_a_batch_that_is_not_finite_leaves_what_was_gathered():
    x, y = data(30)
    bad = np.full((10, 5), 1e300)

    def linear():
        model = Sequential([Dense(3)], input_shape=(5,), seed=1, device="cpu", precision="float64")
        model.compile(optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
        return model

    y = np.eye(3)[y]
    model, plain = linear(), linear()
    for one in (model, plain):
        one.train_on_batch(x[:10], y[:10])
    with pytest.raises(NonFiniteError):
        model.train_on_batch(bad, y[:10])
    for one in (model, plain):
        one.train_on_batch(x[10:20], y[10:20])
    assert state(model) == state(plain) and model.optimizer.iterations == 1


def test_steps_of_accumulation_are_checked_and_described():
    for steps in (0, 1.5, True, "2"):
        with pytest.raises(ValueError, match="gradient_accumulation_steps must be a whole number"):
            optimizers.Adam(gradient_accumulation_steps=steps)
    assert "gradient_accumulation_steps=4" in repr(optimizers.SGD(gradient_accumulation_steps=4))


# -- changed samples -----------------------------------------------------------------------------------------


def pictures(n=48, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, 2, 6, 6), dtype=np.float32), rng.integers(0, 3, n)


def cnn(seed=3, data_format="channels_first", loss="sparse_categorical_crossentropy", metrics=("accuracy",)):
    layers = [Conv2D(4, 3, activation="relu"), Flatten(), Dense(3)]
    shape = (2, 6, 6) if data_format == "channels_first" else (6, 6, 2)
    model = Sequential(layers, input_shape=shape, seed=seed, device="cpu", data_format=data_format)
    model.compile("adam", loss, list(metrics))
    return model


class Kept(Augmentation):
    """Changes nothing, and keeps what passes and the numbers it draws."""

    def __init__(self):
        self.seen, self.numbers = [], []

    def get_config(self):
        return {}

    def __call__(self, ops, x, y, draw):
        self.seen.append((x.copy(), y.copy()))
        self.numbers.append((draw(3), draw(2, 2)))
        return x, y


def test_samples_pass_whole_batches_channels_first_in_float():
    x, y = pictures(20)
    raw = (x * 255).astype(np.uint8)
    for data_format in ("channels_first", "channels_last"):
        kept = Kept()
        images = raw if data_format == "channels_first" else raw.transpose(0, 2, 3, 1)
        cnn(data_format=data_format).fit(images, y, batch_size=10, shuffle=False, augment=[kept], verbose=0)
        assert [a.shape for a, _ in kept.seen] == [(10, 2, 6, 6)] * 2
        assert kept.seen[0][0].dtype == np.float32
        np.testing.assert_array_equal(np.concatenate([a for a, _ in kept.seen]), raw)
        np.testing.assert_array_equal(np.concatenate([b for _, b in kept.seen]), y)


def test_numbers_are_new_at_each_draw_and_step_and_follow_from_the_seed():
    x, y = pictures(20)
    runs = []
    for seed in (3, 3, 4):
        kept = Kept()
        cnn(seed).fit(x, y, batch_size=10, epochs=2, augment=kept, verbose=0)
        runs.append(np.concatenate([np.concatenate([a, b.ravel()]) for a, b in kept.numbers]))
    assert runs[0].shape == (28,) and runs[0].dtype == np.float32
    assert np.array_equal(runs[0], runs[1]) and not np.isin(runs[0], runs[2]).any()
    assert len(np.unique(runs[0])) == 28 and (runs[0] >= 0).all() and (runs[0] < 1).all()


def test_uniform_numbers_are_uniform():
    from xpnet.ops.reference import Ops
    from xpnet.params import Params, Stream

    drawn = Ops().uniform(Stream(Params(0, Ops(), np.float32), 1 << 32), (100, 1000))
    assert drawn.shape == (100, 1000)
    assert len(np.unique((drawn * (1 << 24)).astype(int) % 256)) == 256, "down to the last of 24 bits"
    counts = np.histogram(drawn, 64, (0, 1))[0]
    assert ((counts - 1562.5) ** 2 / 1562.5).sum() < 110  # chi-squared, 63 degrees of freedom
    assert abs(np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]) < 0.01


def test_the_number_of_threads_does_not_change_the_samples():
    x, y = pictures(48)
    seen = []
    before = threads.num_threads()
    try:
        for count in (1, 2):
            xpnet.set_num_threads(count)
            kept = Kept()
            cnn().fit(x, y, batch_size=24, augment=[RandomCrop(2), MixUp(1.0), kept], verbose=0)
            seen.append(kept.seen)
    finally:
        xpnet.set_num_threads(before)
    for (a, b), (c, d) in zip(*seen):
        assert np.array_equal(a, c) and np.array_equal(b, d)


def test_changes_are_made_in_training_alone_and_the_user_s_samples_stay():
    x, y = pictures(20)
    before = x.copy()
    kept = Kept()
    model = cnn()
    model.fit(x, y, batch_size=10, validation_data=(x, y), augment=[RandomFlip(), kept], verbose=0)
    assert len(kept.seen) == 2 and np.array_equal(x, before)
    model.evaluate(x, y), model.predict(x), model.train_on_batch(x, y), model.gradients(x, y)
    assert len(kept.seen) == 2
    plain = cnn()
    plain.fit(x, y, batch_size=10, verbose=0)
    assert state(plain) != state(model)


def test_mixed_classes_train_with_either_loss():
    x, y = pictures(48)
    rows = xpnet.utils.to_categorical(y, 3)
    sparse, dense = cnn(), cnn(loss=losses.CategoricalCrossentropy(from_logits=True))
    a = sparse.fit(x, y, batch_size=16, epochs=2, augment=MixUp(0.5), verbose=0)
    b = dense.fit(x, rows, batch_size=16, epochs=2, augment=MixUp(0.5), verbose=0)
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-5)
    assert a.history["accuracy"] == b.history["accuracy"]
    smooth = cnn(loss=losses.SparseCategoricalCrossentropy(from_logits=True, label_smoothing=0.1))
    c = smooth.fit(x, y, batch_size=16, epochs=2, augment=MixUp(0.5), verbose=0)
    assert c.history["loss"] != a.history["loss"]


def test_changed_samples_come_from_batches_too_and_are_what_an_error_is_told_of():
    x, y = pictures(30)
    kept = Kept()
    cnn().fit(cut(x, y), augment=[kept], verbose=0)
    np.testing.assert_array_equal(np.concatenate([a for a, _ in kept.seen]), x)

    class Burst(Augmentation):
        def __call__(self, ops, x, y, draw):
            return x * 1e38, y

    with pytest.raises(NonFiniteError, match="epoch 1, batch 1"):
        cnn().fit(x, y, augment=[Burst()], verbose=0)


@pytest.mark.parametrize(
    ("augment", "error", "words"),
    [
        ([RandomFlip], TypeError, "Received: RandomFlip, a class"),
        (["flip"], TypeError, "augment must be a list of augmentations. Received: 'flip'"),
        ([RandomCrop(40)], ShapeError, "RandomCrop: padding"),
    ],
)
def test_changes_that_do_not_suit_are_refused_before_the_first_step(augment, error, words):
    x, y = pictures(20)
    model = cnn()
    before = state(model)
    with pytest.raises(error, match=words):
        model.fit(x, y, augment=augment, verbose=0)
    assert state(model) == before and model.augmentation == ()
