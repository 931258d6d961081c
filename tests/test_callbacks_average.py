"""WeightAverage: which numbers the average holds, when the model holds it, and what that leaves as it was."""

import os
import warnings

import numpy as np
import pytest
import strict_xp

from xpnet import NonFiniteError, Sequential, callbacks, load_model, optimizers
from xpnet.layers import BatchNormalization, Conv2D, Dense, Flatten

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
X = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 64)


def mlp(optimizer=None, device="cpu", precision="float32", stack=None):
    model = Sequential(
        stack or [Dense(8, activation="tanh"), BatchNormalization(), Dense(3)],
        input_shape=(5,), seed=1, device=device, precision=precision,
    )  # fmt: skip
    optimizer = optimizers.SGD(0.3) if optimizer is None else optimizer
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(model, *listeners, epochs=3, **more):
    more = {"validation_data": (X, Y)} | more
    return model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=listeners, **more)


def learned(model):
    """The parameters, without running statistics, in float64."""
    state = model.state_dict()
    return {n: a.astype(np.float64) for n, a in state.items() if "running" not in n and "tracked" not in n}


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


class Steps(callbacks.Callback):
    """The parameters after each update, and at each epoch's end."""

    def __init__(self):
        self.steps, self.ends = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(learned(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.model.state_dict())


def averaged(steps, decay, warm_up):
    """The average by its definition."""
    a = steps[0]
    for t, w in enumerate(steps[1:], 1):
        d = min(decay, (1 + t) / (10 + t)) if warm_up else decay
        a = {n: d * a[n] + (1 - d) * w[n] for n in w}
    return a


WHERE = ["cpu", "strict", "cuda-host"]


def device(where):
    if where == "strict":
        return strict_xp.strict_ops()
    if where == "cuda-host":
        from conftest import cuda_ops

        return cuda_ops("host")
    return where


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("warm_up", [True, False])
def test_the_average_is_that_of_the_definition(where, warm_up):
    model, steps = mlp(device=device(where)), Steps()
    fit(model, steps, callbacks.WeightAverage(0.8, warm_up=warm_up))
    expected = averaged(steps.steps, 0.8, warm_up)
    for name, a in learned(model).items():
        assert np.abs(a - expected[name]).max() < 1e-6
        assert np.abs(a - steps.steps[-1][name]).max() > 1e-3


def test_parameters_of_several_blocks_are_averaged_throughout(monkeypatch):
    monkeypatch.setattr("xpnet.ops.numpy_ops.UPDATE_BLOCK", 16)
    model, steps = mlp(), Steps()
    fit(model, steps, callbacks.WeightAverage(0.8))
    expected = averaged(steps.steps, 0.8, True)
    assert all(np.abs(a - expected[n]).max() < 1e-6 for n, a in learned(model).items())


@pytest.mark.parametrize("where", WHERE)
def test_averaging_changes_nothing_of_training(where):
    plain, other = mlp(optimizers.Adam(0.01), device(where)), mlp(optimizers.Adam(0.01), device(where))
    a, b = Steps(), Steps()
    fit(plain, a)
    fit(other, b, callbacks.WeightAverage(0.9, keep_average=False))
    assert all(map(same, a.steps, b.steps)) and same(plain.state_dict(), other.state_dict())
    assert other.optimizer.iterations == 12


def test_a_step_with_an_average_does_not_wait_for_the_device():
    ops = strict_xp.strict_ops()
    model = mlp(device=ops)
    counts = {}
    for listeners in ([], [callbacks.WeightAverage(0.9)]):
        strict_xp.syncs.reset()
        fit(model, *listeners, validation_data=None, shuffle=False)
        counts[len(listeners)] = strict_xp.syncs.count
    assert counts[1] == counts[0]


def test_the_gaps_between_parameters_stay_zero():
    model = mlp()
    fit(model, callbacks.WeightAverage(0.5))
    free = np.ones(len(model.params.values), bool)
    for slot in model.params.slots:
        free[slot.start : slot.start + slot.size] = False
    assert free.any() and not model.params.values[free].any()


@pytest.mark.parametrize("order", ["first", "last"])
def test_what_is_validated_is_the_average_and_what_is_written_and_kept_too(tmp_path, order):
    model = mlp(optimizers.SGD(1.0))
    average = callbacks.WeightAverage(0.9)
    write = callbacks.ModelCheckpoint(tmp_path / "{epoch}.safetensors")
    stop = callbacks.EarlyStopping(patience=9, restore_best_weights=True)
    steps = Steps()
    others = [steps, write, stop]
    history = fit(model, *([average, *others] if order == "first" else [*others, average]), epochs=4)
    for number, loss in enumerate(history.history["val_loss"], 1):
        written = load_model(tmp_path / f"{number}.safetensors", device="cpu")
        assert written.evaluate(X, Y)[0] == pytest.approx(loss, abs=1e-6)
    best = load_model(tmp_path / f"{stop.best_epoch + 1}.safetensors", device="cpu")
    assert same(best.state_dict(), model.state_dict())
    expected = averaged(steps.steps[:4], 0.9, True)
    assert all(np.abs(steps.ends[0][n] - a).max() < 1e-6 for n, a in expected.items())


def test_without_validation_those_after_it_see_the_average():
    model, before, after = mlp(), Steps(), Steps()
    fit(model, before, callbacks.WeightAverage(0.9), after, validation_data=None)
    assert same(learned(model), {n: after.ends[-1][n] for n in learned(model)})
    assert all(np.array_equal(before.ends[0][n], a.astype(np.float32)) for n, a in before.steps[3].items())
    assert not same(before.ends[0], after.ends[0])


def test_at_the_end_the_model_holds_the_average_or_the_weights():
    steps, ends = Steps(), []
    for keep in (True, False):
        model = mlp()
        fit(model, steps, callbacks.WeightAverage(0.9, keep_average=keep), epochs=2)
        ends.append(learned(model))
    assert same(ends[1], steps.steps[-1]) and not same(ends[0], ends[1])


def test_gathered_gradients_count_once_an_update():
    model, steps = mlp(optimizers.SGD(0.3, gradient_accumulation_steps=2)), Steps()
    fit(model, steps, callbacks.WeightAverage(0.8, warm_up=False), epochs=2)
    expected = averaged(steps.steps[1::2], 0.8, False)
    assert all(np.abs(a - expected[n]).max() < 1e-6 for n, a in learned(model).items())


def test_epochs_before_the_start_do_not_count():
    model, steps = mlp(), Steps()
    average = callbacks.WeightAverage(0.8, warm_up=False, start_from_epoch=2)
    fit(model, steps, average, epochs=4)
    expected = averaged(steps.steps[8:], 0.8, False)
    assert all(np.abs(a - expected[n]).max() < 1e-6 for n, a in learned(model).items())
    raw = {n: a for n, a in steps.ends[1].items() if n in expected}
    assert same(raw, {n: a.astype(np.float32) for n, a in steps.steps[7].items()})


def test_a_start_that_never_comes_leaves_the_weights():
    model, steps = mlp(), Steps()
    fit(model, steps, callbacks.WeightAverage(start_from_epoch=99), epochs=2)
    assert same(learned(model), steps.steps[-1])


def test_running_statistics_are_those_of_training():
    plain, other = mlp(), mlp()
    fit(plain)
    fit(other, callbacks.WeightAverage(0.9))
    for name in ("2.running_mean", "2.running_var", "2.num_batches_tracked"):
        assert np.array_equal(plain.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_after_an_error_the_model_holds_the_weights_of_its_last_step(where):
    model, plain = (mlp(device=device(where)) for _ in range(2))
    fit(plain, epochs=1)

    def fail(epoch, logs):
        raise RuntimeError("late")

    with pytest.raises(RuntimeError, match="late"):
        fit(model, callbacks.WeightAverage(0.5), callbacks.LambdaCallback(on_epoch_end=fail))
    assert same(model.state_dict(), plain.state_dict())
    spoil = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: model.params.values.fill(np.nan))
    model = mlp(device=device(where))
    with pytest.raises(NonFiniteError):
        fit(model, callbacks.WeightAverage(0.5), spoil)


def test_the_average_of_a_convolution_goes_by_its_name():
    """Weights lie in memory in another order than in files."""
    stack = [Conv2D(4, 3), Flatten(), Dense(3)]
    model = Sequential(stack, input_shape=(1, 6, 6), seed=1, device="cpu")
    model.compile("adam", "sparse_categorical_crossentropy")
    seen, average = [], callbacks.WeightAverage(0.9)

    def note(epoch, logs):
        seen.append((average.average, learned(model)))

    note_last = callbacks.LambdaCallback(on_epoch_end=note)
    rng = np.random.default_rng(0)
    model.fit(rng.random((32, 1, 6, 6)), rng.integers(0, 3, 32), 8, verbose=0, callbacks=[average, note_last])
    assert [a.shape for a in seen[0][0].values()] == [(4, 1, 3, 3), (4,), (3, 64), (3,)]
    assert same({n: a.astype(np.float64) for n, a in seen[0][0].items()}, seen[0][1])


def test_a_checkpoint_to_go_on_from_holds_the_weights_in_training(tmp_path):
    model, steps = mlp(optimizers.Adam(0.01)), Steps()
    write = callbacks.ModelCheckpoint(tmp_path / "{epoch}.safetensors", training=True)
    fit(model, callbacks.WeightAverage(0.9), steps, write, epochs=2)
    written = load_model(tmp_path / "1.safetensors", device="cpu")
    assert same(learned(written), steps.steps[3]) and written.optimizer.iterations == 4
    assert not same(steps.ends[0], written.state_dict()), "the model held the average meanwhile"


def test_the_average_beats_the_weights_of_a_noisy_run():
    """What it is for: steps too large, whose noise it takes out."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 600)
    x = (rng.standard_normal((600, 5)) + 1.5 * np.eye(3, 5)[y]).astype(np.float32)
    losses = {}
    for name, listeners in (("weights", []), ("average", [callbacks.WeightAverage(0.98)])):
        model = mlp(optimizers.SGD(1.0), stack=[Dense(3)])
        history = model.fit(
            x, y, batch_size=4, epochs=6, verbose=0, callbacks=listeners, validation_data=(x, y)
        )
        losses[name] = np.mean(history.history["val_loss"][2:])
    assert losses["average"] < 0.8 * losses["weights"]


def test_moving_the_model_meanwhile_is_an_error():
    model = mlp()
    move = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch == 1 and model.to("cpu"))
    with pytest.raises(RuntimeError, match=r"moved or rebuilt.*Expected: that before fit"):
        fit(model, move, callbacks.WeightAverage(0.9))


def test_two_averages_of_a_model_are_refused():
    model, average = mlp(), callbacks.WeightAverage()
    for second in (average, callbacks.WeightAverage(0.5)):
        with pytest.raises(ValueError, match="hold one average"):
            fit(model, average, second)
    assert model.optimizer.iterations == 0


@pytest.mark.parametrize("decay", [1.0, -0.1, 2])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=f"decay.*Received: {decay}"):
        callbacks.WeightAverage(decay)


def test_a_callback_can_be_used_for_another_fit():
    model, average, steps = mlp(), callbacks.WeightAverage(0.8, warm_up=False), Steps()
    fit(model, average, epochs=2)
    fit(model, average, steps, epochs=2)
    expected = averaged(steps.steps, 0.8, False)
    assert all(np.abs(a - expected[n]).max() < 1e-6 for n, a in learned(model).items())


def test_the_average_is_that_of_keras():
    """Keras's optimizer keeps it, with use_ema=True; SwapEMAWeights hands it to the model."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = pytest.importorskip("keras", reason="beside Keras's own: pip install keras torch")
    ours = mlp(optimizers.SGD(0.3, momentum=0.9), stack=[Dense(8, activation="tanh"), Dense(3)])
    theirs = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)]
    )
    theirs.set_weights([a.T for a in ours.state_dict().values()])
    theirs.compile(
        keras.optimizers.SGD(0.3, momentum=0.9, use_ema=True, ema_momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    more = {"batch_size": 16, "epochs": 3, "shuffle": False, "verbose": 0, "validation_data": (X, Y)}
    a = ours.fit(X, Y, callbacks=[callbacks.WeightAverage(0.9, warm_up=False)], **more)
    b = theirs.fit(X, Y, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)], **more)
    assert a.history["val_loss"] == pytest.approx(b.history["val_loss"], abs=1e-5)
    assert a.history["loss"] == pytest.approx(b.history["loss"], abs=1e-5)
    for mine, other in zip(ours.state_dict().values(), theirs.get_weights()):
        assert np.allclose(mine.T, other, atol=1e-5)
