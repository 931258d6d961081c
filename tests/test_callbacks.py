"""Callbacks that watch and steer training, beside Keras's own in the same situation."""

import copy
import inspect
import os
import pickle
import types
import warnings

import numpy as np
import pytest
import strict_xp

from xpnet import NonFiniteError, Sequential, callbacks, metrics, optimizers, schedules
from xpnet.layers import BatchNormalization, Dense

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras, of PyTorch's arrays
BASES = ("LearningRateScheduler", "EarlyStopping", "ReduceLROnPlateau", "ModelCheckpoint", "CSVLogger")


@pytest.fixture(scope="session")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras", reason="beside Keras's own callbacks: pip install keras torch")


def data(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return (rng.standard_normal((n, 5)) + 2 * np.eye(3, 5)[y]).astype(np.float32), y


def mlp(optimizer="adam", device="cpu", seed=1):
    model = Sequential(
        [Dense(8, activation="tanh"), BatchNormalization(), Dense(3)],
        input_shape=(5,), seed=seed, device=device,
    )  # fmt: skip
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


# -- one figure after another, through Keras's callback and through ours -------------------------------------


class Script:
    """A model without layers: epoch e leaves the weight e, and its figures are given."""

    def __init__(self, rate=1.0):
        self.weight, self.stop_training, self.rates = None, False, []
        self.optimizer = types.SimpleNamespace(learning_rate=rate)
        self.metrics = [("accuracy", metrics.Accuracy())]

    def get_weights(self):
        return self.weight

    def set_weights(self, weight):
        self.weight = weight

    def state_dict(self):
        return {"w": self.weight}

    def load_state_dict(self, state):
        self.weight = state["w"]

    def fit(self, callback, figures, initial_epoch=0):
        self.stop_training, seen = False, []
        callback.set_model(self)
        callback.set_params({"epochs": len(figures), "validation": True})
        callback.on_train_begin({})
        for epoch, logs in enumerate(figures, initial_epoch):
            callback.on_epoch_begin(epoch, {})
            self.weight, logs = epoch, dict(logs)
            callback.on_epoch_end(epoch, logs)
            seen.append((epoch, logs, float(self.optimizer.learning_rate)))
            if self.stop_training:
                break
        callback.on_train_end({})
        return seen


class KerasScript(Script):
    @property
    def metrics(self):
        class Accuracy:
            name, _direction = "accuracy", "up"

        from keras.src.trainers.compile_utils import MetricsList

        return [MetricsList([Accuracy()], "m")]

    @metrics.setter
    def metrics(self, value):
        """Ours are of no use to Keras."""


def scripts(count, length=14):
    """Sequences of figures that rise, fall, stand still and lie close, in numbers that float32 holds."""
    rng = np.random.default_rng(7)
    for _ in range(count):
        steps = rng.integers(-4, 5, (2, length)) * rng.integers(0, 2, (2, length))
        loss, accuracy = (64 + np.cumsum(steps, axis=1)) / 64
        yield [{"val_loss": float(a), "accuracy": float(b)} for a, b in zip(loss, accuracy)]


EARLY = [
    {},
    {"patience": 1},
    {"patience": 3, "restore_best_weights": True},
    {"patience": 30, "restore_best_weights": True},
    {"patience": 2, "min_delta": 2 / 64, "restore_best_weights": True},
    {"patience": 2, "min_delta": -2 / 64},
    {"patience": 2, "baseline": 60 / 64, "restore_best_weights": True},
    {"patience": 2, "start_from_epoch": 4, "restore_best_weights": True},
    {"patience": 2, "monitor": "accuracy", "restore_best_weights": True},
    {"patience": 2, "monitor": "val_loss", "mode": "max", "restore_best_weights": True},
    {"patience": 2, "monitor": "accuracy", "mode": "min", "baseline": 1.0, "restore_best_weights": True},
]


@pytest.mark.parametrize("arguments", EARLY, ids=str)
def test_early_stopping_stops_and_restores_where_keras_does(keras, arguments):
    ends = set()
    for figures in scripts(40):
        ours, theirs = Script(), KerasScript()
        mine, other = callbacks.EarlyStopping(**arguments), keras.callbacks.EarlyStopping(**arguments)
        ends.add(len(ours.fit(mine, figures)))
        assert ours.fit(mine, figures) == theirs.fit(other, figures)
        assert ours.weight == theirs.weight
        assert (mine.stopped_epoch, mine.best_epoch, mine.wait) == (
            other.stopped_epoch, other.best_epoch, other.wait,
        )  # fmt: skip
        assert mine.best == other.best
    assert len(ends) > 1 or arguments.get("patience") == 30


PLATEAU = [
    {"patience": 0},
    {"patience": 1, "factor": 0.5},
    {"patience": 2, "factor": 0.5, "min_delta": 3 / 64},
    {"patience": 1, "factor": 0.5, "cooldown": 2},
    {"patience": 1, "factor": 0.5, "min_lr": 0.3},
    {"patience": 1, "factor": 0.25, "monitor": "accuracy"},
    {"patience": 1, "factor": 0.0, "mode": "max"},
    {},
]


@pytest.mark.parametrize("arguments", PLATEAU, ids=str)
def test_reduce_lr_on_plateau_sets_the_rates_that_keras_sets(keras, arguments):
    rates = set()
    for figures in scripts(40):
        ours, theirs = Script(), KerasScript()
        mine = callbacks.ReduceLROnPlateau(**arguments)
        other = keras.callbacks.ReduceLROnPlateau(**arguments)
        received = ours.fit(mine, figures) + ours.fit(mine, [{"val_loss": 99.0, "accuracy": 0.0}] * 4)
        wanted = theirs.fit(other, figures) + theirs.fit(other, [{"val_loss": 99.0, "accuracy": 0.0}] * 4)
        for (_, logs, rate), (_, expected, their) in zip(received, wanted, strict=True):
            assert rate == pytest.approx(their, rel=1e-6)
            assert logs == pytest.approx(expected, rel=1e-6) and "learning_rate" in logs
            rates.add(rate)
        assert (mine.wait, mine.cooldown_counter) == (other.wait, other.cooldown_counter)
    assert len(rates) > 1 or not arguments


@pytest.mark.parametrize(
    "schedule",
    [
        lambda epoch, lr: lr * 0.5 if epoch > 1 else lr,
        lambda epoch: 1.0 / (epoch + 1),
        schedules.ExponentialDecay(0.5, 2, 0.5),
    ],
)
def test_the_scheduler_sets_and_logs_the_rates_that_keras_sets(keras, schedule):
    figures = [{"loss": 1.0}] * 5
    ours = Script().fit(callbacks.LearningRateScheduler(schedule), figures)
    theirs = KerasScript().fit(keras.callbacks.LearningRateScheduler(schedule), figures)
    assert [rate for *_, rate in ours] == pytest.approx([rate for *_, rate in theirs])
    assert [logs["learning_rate"] for _, logs, _ in ours] == [rate for *_, rate in ours]


@pytest.mark.parametrize("name", BASES)
def test_arguments_and_defaults_are_those_of_keras(keras, name):
    expected = inspect.signature(getattr(keras.callbacks, name)).parameters
    received = inspect.signature(getattr(callbacks, name)).parameters
    known = {n: p.default for n, p in expected.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert {n: received[n].default for n in known} == known
    assert list(received)[: len(known)] == list(known)


def test_every_hook_of_keras_is_there_so_that_subclasses_move_over(keras):
    hooks = {name for name in dir(keras.callbacks.Callback) if name.startswith("on_")}
    assert len(hooks) > 12 and not hooks - set(dir(callbacks.Callback))


# -- whole networks, beside Keras ----------------------------------------------------------------------------


def twins(keras, make_ours, make_theirs, units=8):
    """The same network in both, with the same weights, compiled."""
    ours = Sequential(
        [Dense(units, activation="tanh"), Dense(3)], input_shape=(5,), seed=1, precision="float32"
    )
    ours.compile(make_ours(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    theirs = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(units, activation="tanh"), keras.layers.Dense(3)]
    )
    theirs.set_weights([a.T for a in ours.state_dict().values()])
    theirs.compile(
        make_theirs(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return ours, theirs


def fitted(model, callback_list, epochs=12):
    x, y = data(60)
    xv, yv = data(40, seed=5)
    return model.fit(
        x, y, batch_size=20, epochs=epochs, shuffle=False, verbose=0, callbacks=callback_list,
        validation_data=(xv, yv),
    )  # fmt: skip


def test_a_run_with_three_callbacks_goes_as_in_keras(keras, tmp_path):
    ours, theirs = twins(keras, lambda: optimizers.SGD(6.0), lambda: keras.optimizers.SGD(6.0))

    def listeners(module, name):
        return [
            module.ReduceLROnPlateau(patience=1, factor=0.3, min_delta=0.01),
            module.EarlyStopping(patience=4, restore_best_weights=True),
            module.CSVLogger(tmp_path / name),
        ]

    mine, other = listeners(callbacks, "ours.csv"), listeners(keras.callbacks, "theirs.csv")
    a, b = fitted(ours, mine, 20), fitted(theirs, other, 20)
    assert set(a.history) == set(b.history) and len(a.epoch) == len(b.epoch)
    for name in a.history:
        assert a.history[name] == pytest.approx(b.history[name], rel=2e-3, abs=2e-4), name
    assert len(set(a.history["learning_rate"])) > 2, "no plateau was met"
    for mine_one, other_one in zip(ours.state_dict().values(), theirs.get_weights()):
        assert np.allclose(mine_one.T, other_one, atol=2e-3)
    rows, expected = ((tmp_path / n).read_text().splitlines() for n in ("ours.csv", "theirs.csv"))
    assert rows[0] == expected[0] and len(rows) == len(expected) == len(a.epoch) + 1


# -- in training ---------------------------------------------------------------------------------------------


class Figure(callbacks.Callback):
    """Writes figures of its own into the logs."""

    def __init__(self, **figures):
        self.figures = figures

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: values[epoch] for name, values in self.figures.items()})


class Weights(callbacks.Callback):
    """Remembers the weights at each epoch's end."""

    def __init__(self):
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.model.state_dict())


@pytest.mark.parametrize("where", ["cpu", "strict"])
@pytest.mark.parametrize(("patience", "epochs"), [(2, 4), (9, 5)])
def test_the_best_weights_come_back_to_the_bit_also_when_nothing_stops(where, patience, epochs):
    model = mlp(device=strict_xp.strict_ops() if where == "strict" else where)
    weights, values = Weights(), [3.0, 1.0, 2.0, 2.0, 2.0]
    stop = callbacks.EarlyStopping("own", patience=patience, mode="min", restore_best_weights=True)
    history = model.fit(*data(), epochs=5, verbose=0, callbacks=[Figure(own=values), weights, stop])
    assert len(history.epoch) == epochs and stop.best_epoch == 1
    assert same(model.state_dict(), weights.seen[1])
    assert not same(weights.seen[1], weights.seen[-1])


def test_restoring_takes_running_statistics_along_but_leaves_the_optimizer():
    model, weights = mlp(), Weights()
    stop = callbacks.EarlyStopping("own", mode="min", patience=9, restore_best_weights=True)
    model.fit(*data(), epochs=3, verbose=0, callbacks=[Figure(own=[1, 2, 3]), weights, stop])
    assert model.state_dict()["2.num_batches_tracked"] == 2
    assert model.optimizer.iterations == 6


def test_a_nan_is_never_the_best():
    model, weights = mlp(), Weights()
    values = [float("nan"), 2.0, float("nan"), 1.0]
    stop = callbacks.EarlyStopping("own", mode="min", patience=3, restore_best_weights=True)
    model.fit(*data(), epochs=4, verbose=0, callbacks=[Figure(own=values), weights, stop])
    assert stop.best == 1.0 and same(model.state_dict(), weights.seen[3])


def test_where_nothing_gets_better_the_first_epoch_is_the_best_but_never_the_last():
    model, weights = mlp(), Weights()
    stop = callbacks.EarlyStopping("own", mode="min", restore_best_weights=True)
    nothing = Figure(own=[float("nan")] * 4)
    history = model.fit(*data(), epochs=4, verbose=0, callbacks=[nothing, weights, stop])
    assert len(history.epoch) == 2 and stop.stopped_epoch == 1
    assert same(model.state_dict(), weights.seen[0])


@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_a_rate_set_between_epochs_is_that_of_the_steps(where):
    """As with optimizers that had these rates from the beginning."""
    x, y = data(64)
    device = strict_xp.strict_ops() if where == "strict" else where
    model, by_hand = (mlp(optimizers.SGD(0.1), device) for _ in range(2))
    model.fit(
        x, y, batch_size=16, epochs=3, verbose=0, shuffle=False,
        callbacks=[callbacks.LearningRateScheduler(lambda epoch: [0.1, 0.5, 0.0][epoch])],
    )  # fmt: skip
    for rate in (0.1, 0.5):
        by_hand.optimizer.learning_rate = rate
        by_hand.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    learned = {n: a for n, a in model.state_dict().items() if "running" not in n and "tracked" not in n}
    assert all(np.array_equal(a, by_hand.state_dict()[n]) for n, a in learned.items())


def test_a_rate_that_changes_does_not_record_the_devices_step_anew():
    model = mlp(optimizers.SGD(0.1), strict_xp.strict_ops())
    cleared = []

    class Count(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            step = self.model.train_step()
            cleared.append((step._settings, dict(step._recorded)))

        on_epoch_end = on_epoch_begin

        def on_train_batch_end(self, batch, logs=None):
            self.on_epoch_begin(0)

    schedule = callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    model.fit(*data(64), batch_size=16, epochs=3, verbose=0, callbacks=[schedule, Count()])
    assert len({tuple(settings) for settings, _ in cleared}) == 1
    assert all(recorded for _, recorded in cleared[1:])


def test_validation_that_is_not_of_every_epoch_leaves_the_others_out():
    stop = callbacks.EarlyStopping(patience=1)
    plateau = callbacks.ReduceLROnPlateau(patience=1)
    x, y = data()
    history = mlp(optimizers.SGD(0.0)).fit(
        x, y, epochs=9, verbose=0, validation_data=(x, y), validation_freq=2, callbacks=[stop, plateau]
    )
    assert len(history.epoch) == 4 and stop.stopped_epoch == 3


# -- NaN, errors, hooks --------------------------------------------------------------------------------------


def diverging():
    model = mlp(optimizers.SGD(0.1))
    spoil = callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: batch == 2 and model.layers[0].weight.fill(np.inf)
    )
    return model, spoil


def test_terminate_on_nan_ends_training_well(capsys):
    model, spoil = diverging()
    weights = Weights()
    history = model.fit(
        *data(64), batch_size=16, epochs=4, verbose=0, callbacks=[spoil, weights, callbacks.TerminateOnNaN()]
    )
    assert history.epoch == [] and "epoch 1, batch 3" in capsys.readouterr().out
    model, spoil = diverging()
    with pytest.raises(NonFiniteError):
        model.fit(
            *data(64), epochs=2, verbose=0, batch_size=16, callbacks=[spoil, callbacks.TerminateOnNaN(True)]
        )


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end", "on_test_begin", "on_epoch_begin"])
def test_an_error_in_a_callback_leaves_the_weights_of_the_last_step(hook):
    x, y = data(64)
    model, plain = mlp(), mlp()
    plain.fit(x, y, batch_size=16, epochs=2, verbose=0)

    def fail(number, logs=None):
        if model.optimizer.iterations == 8:
            raise RuntimeError("of a callback")

    failing = callbacks.LambdaCallback(**{hook: (lambda logs: fail(0)) if hook == "on_test_begin" else fail})
    stop = callbacks.EarlyStopping("own", mode="min", restore_best_weights=True, patience=9)
    with pytest.raises(RuntimeError, match="of a callback"):
        model.fit(
            x, y, batch_size=16, epochs=3, verbose=0, validation_data=(x, y),
            callbacks=[Figure(own=[1, 2, 3]), stop, failing],
        )  # fmt: skip
    assert stop.best_epoch == 0 and same(model.state_dict(), plain.state_dict())


def test_a_listener_hears_of_an_error_and_of_an_end_once():
    heard = []

    class Ear(callbacks.Callback):
        def on_train_end(self, logs=None):
            heard.append("end")

        def on_train_error(self, error, logs=None):
            heard.append(str(error))

    def stop(epoch, logs):
        raise KeyboardInterrupt("ctrl-c")

    x, y = data()
    with pytest.raises(KeyboardInterrupt):
        mlp().fit(x, y, verbose=0, callbacks=[Ear(), callbacks.LambdaCallback(on_epoch_end=stop)])
    mlp().fit(x, y, verbose=0, callbacks=[Ear()])
    assert heard == ["ctrl-c", "end"]


def test_lambda_callback_and_functions_set_on_an_object_are_called_at_every_hook():
    calls = []
    points = ("train", "test", "epoch", "train_batch")
    hooks = [f"on_{point}_{end}" for point in points for end in ("begin", "end")]
    noted = {name: (lambda *args, name=name: calls.append(name)) for name in hooks}
    on_object = callbacks.Callback()
    on_object.on_train_batch_end = lambda batch, logs: calls.append("on the object")
    x, y = data()
    mlp().fit(
        x, y, verbose=0, validation_data=(x, y), callbacks=[callbacks.LambdaCallback(**noted), on_object]
    )
    assert calls == [
        "on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on the object",
        "on_train_batch_begin", "on_train_batch_end", "on the object", "on_test_begin", "on_test_end",
        "on_epoch_end", "on_train_end",
    ]  # fmt: skip


def test_keras_older_batch_hooks_are_called_too():
    calls = []

    class Old(callbacks.Callback):
        def __init__(self):
            super().__init__()

        def on_batch_begin(self, batch, logs=None):
            calls.append(("begin", batch))

        def on_batch_end(self, batch, logs=None):
            calls.append(("end", batch, logs["loss"] > 0))

    mlp().fit(*data(), verbose=0, callbacks=[Old()])
    assert calls == [("begin", 0), ("end", 0, True), ("begin", 1), ("end", 1, True)]


def test_the_logs_of_a_test_are_the_validations_own():
    seen = []
    x, y = data()
    history = mlp().fit(
        x, y, verbose=0, validation_data=(x, y),
        callbacks=[callbacks.LambdaCallback(on_test_end=lambda logs: seen.append(dict(logs)))],
    )  # fmt: skip
    assert seen == [{name: history.history[f"val_{name}"][0] for name in ("loss", "accuracy")}]


def test_params_tell_of_the_run():
    seen = {}
    x, y = data()
    listener = callbacks.LambdaCallback(on_train_begin=lambda logs: seen.update(listener.params))
    mlp().fit(x, y, epochs=4, initial_epoch=2, batch_size=25, verbose=0, callbacks=[listener])
    assert seen.pop("callbacks") == [listener]
    assert seen == {"epochs": 4, "initial_epoch": 2, "steps": 3, "verbose": 0, "validation": False}


def test_callbacks_are_copied_and_pickled_without_their_model():
    x, y = data()
    used = [callbacks.EarlyStopping(), callbacks.ReduceLROnPlateau(), callbacks.WeightAverage()]
    mlp().fit(x, y, epochs=2, verbose=0, validation_data=(x, y), callbacks=used)
    for one in used:
        for twin in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            assert not hasattr(twin, "model")
            assert getattr(twin, "best", None) == getattr(one, "best", None)
            mlp().fit(x, y, verbose=0, validation_data=(x, y), callbacks=[twin])


def test_the_bar_of_batches_without_a_number_counts_them_and_then_knows(capfd):
    x, y = data(60)
    batches = type("Batches", (), {"__iter__": lambda self: iter([(x[:30], y[:30]), (x[30:], y[30:])])})
    mlp().fit(batches(), epochs=2)
    shown = capfd.readouterr().err
    assert "epoch 1/2 2 batches [" in shown and "epoch 1/2 100%" not in shown
    assert "epoch 2/2 100%" in shown and "2/2 [" in shown


# -- what does not fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda **more: callbacks.EarlyStopping(**more),
        lambda **more: callbacks.ReduceLROnPlateau(**more),
        lambda **more: callbacks.ModelCheckpoint("never.safetensors", save_best_only=True, **more),
    ],
)
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"monitor": "val_acuracy"}, "rise or fall.*'val_acuracy'.*loss, accuracy"),
        ({"monitor": "val_acuracy", "mode": "max"}, "not there.*'val_acuracy'.*loss, accuracy"),
        ({"monitor": "confusion_matrix"}, "rise or fall"),
        ({"monitor": "confusion_matrix", "mode": "max"}, "one number"),
        ({}, "'val_loss'.*got no validation_data"),
    ],
)
def test_a_figure_that_cannot_be_watched_is_an_error_that_names_those_there_are(make, more, message):
    model = mlp()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy", "confusion_matrix"])
    with pytest.raises(ValueError, match=message):
        model.fit(*data(), epochs=3, verbose=0, callbacks=[make(**more)])
    assert model.epochs_trained <= 1


@pytest.mark.parametrize(
    "callback", [callbacks.ReduceLROnPlateau("loss"), callbacks.LearningRateScheduler(lambda epoch: 0.1)]
)
def test_a_callback_and_a_schedule_cannot_both_set_the_rate(callback):
    model = mlp(optimizers.SGD(schedules.CosineDecay(0.1, 10)))
    with pytest.raises(TypeError, match=r"from a schedule.*CosineDecay.*SGD\(learning_rate=0.001\)"):
        model.fit(*data(), verbose=0, callbacks=[callback])
    assert model.optimizer.iterations == 0


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf"), "a half", None, True])
def test_a_schedule_that_yields_no_rate_is_told_so(rate):
    with pytest.raises(ValueError, match=f"rate for epoch 0.*Received: {rate!r}"):
        mlp().fit(*data(), verbose=0, callbacks=[callbacks.LearningRateScheduler(lambda epoch: rate)])


def test_an_error_inside_a_schedule_comes_through():
    def schedule(epoch, lr):
        return len(lr)

    with pytest.raises(TypeError, match="no len"):
        mlp().fit(*data(), verbose=0, callbacks=[callbacks.LearningRateScheduler(schedule)])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: callbacks.EarlyStopping(mode="up"), ValueError, "unknown mode.*'up'"),
        (lambda: callbacks.ReduceLROnPlateau(factor=1.0), ValueError, "factor.*1.0"),
        (lambda: callbacks.ReduceLROnPlateau(factor=-0.1), ValueError, "factor.*-0.1"),
        (lambda: callbacks.ReduceLROnPlateau(min_lr=-1), ValueError, "min_lr.*at least 0.*-1"),
        (lambda: callbacks.ReduceLROnPlateau(cooldown=None), ValueError, "cooldown.*None"),
        (lambda: callbacks.EarlyStopping(patience="3"), ValueError, "patience must be a number.*'3'"),
        (lambda: callbacks.EarlyStopping(patience=-1), ValueError, "patience.*at least 0"),
        (lambda: callbacks.EarlyStopping(min_delta=None), ValueError, "min_delta.*None"),
        (lambda: callbacks.EarlyStopping(start_from_epoch=True), ValueError, "start_from_epoch.*True"),
        (lambda: callbacks.CSVLogger("log", separator="::"), ValueError, "one character.*'::'"),
        (lambda: callbacks.LearningRateScheduler(0.1), TypeError, "function of the epoch.*0.1"),
        (lambda: callbacks.LambdaCallback(on_epoch_ends=print), ValueError, "Did you mean 'on_epoch_end'"),
    ],
)
def test_constructors_refuse_what_they_cannot_use(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_what_is_said_names_the_epoch(capsys):
    x, y = data()
    model = mlp(optimizers.SGD(0.4))
    watchers = [
        callbacks.LearningRateScheduler(lambda epoch, lr: lr, verbose=1),
        callbacks.ReduceLROnPlateau("own", mode="min", patience=1, factor=0.5, verbose=1),
        callbacks.EarlyStopping("own", mode="min", patience=2, restore_best_weights=True, verbose=1),
    ]
    model.fit(x, y, epochs=5, verbose=0, callbacks=[Figure(own=[1, 0, 2, 2, 2]), *watchers])
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Epoch 1: LearningRateScheduler setting learning rate to 0.4.",
        "Epoch 2: LearningRateScheduler setting learning rate to 0.4.",
        "Epoch 3: LearningRateScheduler setting learning rate to 0.4.",
        "Epoch 3: ReduceLROnPlateau reducing learning rate to 0.2.",
        "Epoch 4: LearningRateScheduler setting learning rate to 0.2.",
        "Epoch 4: ReduceLROnPlateau reducing learning rate to 0.1.",
        "Epoch 4: early stopping",
        "Restoring model weights from the end of the best epoch: 2.",
    ]
