"""The learning-rate finder: what it measures, what it suggests, and that it leaves nothing behind."""

import numpy as np
import pytest
import strict_xp

from xpnet import NonFiniteError, Sequential, callbacks, optimizers, schedules
from xpnet.callbacks import RateCurve, find_learning_rate
from xpnet.layers import BatchNormalization, Dense, Dropout

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 96)
X = (RNG.standard_normal((96, 5)) + 2 * np.eye(3, 5)[Y]).astype(np.float32)


def mlp(optimizer=None, where="cpu", loss="sparse_categorical_crossentropy"):
    stack = [Dense(8, activation="relu"), BatchNormalization(), Dropout(0.2), Dense(3)]
    device = strict_xp.strict_ops() if where == "strict" else where
    model = Sequential(stack, input_shape=(5,), seed=1, device=device)
    model.compile(optimizers.Adam(0.01) if optimizer is None else optimizer, loss, metrics=["accuracy"])
    return model


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def everything(model):
    """All that training depends on."""
    saved = model._snapshot()
    rest = {key: saved[key] for key in ("iterations", "step", "epochs_trained")}
    rest |= {"rate": model.optimizer.learning_rate, "stop": model.stop_training, "history": model.history}
    return {**saved["weights"], **saved["optimizer"]}, rest


MAKERS = {
    "adam": lambda: optimizers.Adam(0.01),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "gathered": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "adagrad": lambda: optimizers.Adagrad(0.1),
}


@pytest.mark.parametrize("where", ["cpu", "strict"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_model_is_afterwards_what_it_was_and_trains_on_to_the_bit(where, make):
    plain, tried = mlp(make(), where), mlp(make(), where)
    for model in (plain, tried):
        model.fit(X, Y, batch_size=20, epochs=2, verbose=0)
    before = everything(tried)
    curve = find_learning_rate(tried, X, Y, batch_size=16, steps=30, end=1.0)
    assert len(curve.rates) == 30
    after = everything(tried)
    assert same(before[0], after[0]) and before[1] == after[1]
    for model in (plain, tried):
        model.fit(X, Y, batch_size=20, epochs=2, verbose=0)
    assert same(plain.state_dict(), tried.state_dict())


@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_each_batch_is_trained_on_at_its_rate(where):
    """As by hand: the rates are spaced evenly in their logarithm, the losses are those before each step."""
    model, by_hand = mlp(optimizers.SGD(0.1), where), mlp(optimizers.SGD(0.1), where)
    curve = find_learning_rate(model, X, Y, start=1e-3, end=0.5, steps=15, batch_size=20, shuffle=False)
    assert curve.rates == pytest.approx(1e-3 * 500 ** (np.arange(15) / 14))
    losses, mean = [], 0.0
    for step, rate in enumerate(curve.rates):
        by_hand.optimizer.learning_rate = float(rate)
        batch = slice(step % 5 * 20, (step % 5 + 1) * 20)  # four of 20 samples and one of 16
        losses.append(by_hand.train_on_batch(X[batch], Y[batch])[0])
    assert curve.losses == pytest.approx(losses, rel=1e-4)
    for t, loss in enumerate(losses, 1):
        mean = 0.9 * mean + 0.1 * loss
        assert curve.smoothed[t - 1] == pytest.approx(mean / (1 - 0.9**t), rel=1e-4)


def test_weighted_samples_count_as_they_do_in_training():
    w = np.random.default_rng(5).random(96) + 0.1
    model, by_hand = mlp(optimizers.SGD(0.0)), mlp(optimizers.SGD(0.0))
    curve = find_learning_rate(model, X, Y, steps=10, batch_size=10, shuffle=False, sample_weight=w)
    first = by_hand.train_on_batch(X[:10], Y[:10], sample_weight=w[:10])[0]
    assert curve.losses[0] == pytest.approx(first, rel=1e-5)
    second = by_hand.train_on_batch(X[10:20], Y[10:20], sample_weight=w[10:20])[0]
    assert curve.losses[1] == pytest.approx(second, rel=1e-2)


@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_it_ends_where_the_loss_diverges(where):
    model = mlp(optimizers.SGD(0.1), where, "mse")
    before = everything(model)
    curve = find_learning_rate(model, X, np.eye(3)[Y], start=1e-9, end=1e30, steps=400, batch_size=16)
    after = everything(model)
    assert 10 <= len(curve.rates) < 400 and np.isfinite(curve.losses).all()
    assert curve.smoothed[-1] > 4 * curve.smoothed.min() > curve.smoothed[-2]
    assert same(before[0], after[0]) and before[1] == after[1]


@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_it_ends_where_a_loss_is_not_finite(where):
    batches = [(X[:16], Y[:16])] * 14 + [(np.full((16, 5), 3e38, np.float32), Y[:16])] * 9
    model = mlp(optimizers.SGD(0.1), where)
    before = everything(model)
    curve = find_learning_rate(model, iter(batches), end=1e-3, steps=20)
    after = everything(model)
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed) == 14
    assert same(before[0], after[0]) and before[1] == after[1]


def test_a_model_that_fails_at_once_says_so_and_stays_as_it_was():
    model = mlp()
    model.params.values[3] = np.inf
    before = everything(model)
    with pytest.raises(NonFiniteError):
        find_learning_rate(model, X, Y)
    after = everything(model)
    assert same(before[0], after[0]) and before[1] == after[1]


def test_an_interrupt_leaves_the_model_as_it_was(monkeypatch):
    model = mlp()
    before = everything(model)
    step = type(model.train_step().epoch(model._data(X, Y), np.arange(96), 32)).step

    def interrupted(self, batch):
        if model.optimizer.iterations == 7:
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr("xpnet.training.host.HostEpoch.step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_learning_rate(model, X, Y)
    after = everything(model)
    assert same(before[0], after[0]) and before[1] == after[1]


def test_a_model_that_is_not_built_yet_gets_its_first_weights():
    lazy = Sequential([Dense(8, activation="relu"), Dense(3)], seed=1, device="cpu")
    lazy.compile("adam", "sparse_categorical_crossentropy")
    known = Sequential([Dense(8, activation="relu"), Dense(3)], input_shape=(5,), seed=1, device="cpu")
    find_learning_rate(lazy, X, Y, steps=10)
    assert same(lazy.state_dict(), known.state_dict())


def test_batches_from_an_iterable_and_from_a_generator_are_tried_too():
    batches = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 96, 16)]
    whole = find_learning_rate(mlp(), X, Y, batch_size=16, steps=20, shuffle=False)
    listed = find_learning_rate(
        mlp(), type("Loader", (), {"__iter__": lambda self: iter(batches)})(), steps=20
    )
    once = find_learning_rate(mlp(), (b for _ in range(9) for b in batches), steps=20)
    for other in (listed, once):
        assert other.losses == pytest.approx(whole.losses, rel=1e-5)


# -- what is suggested ---------------------------------------------------------------------------------------


def bowl():
    """A loss that falls from 2 at 1e-4 to 1 at 1e-1, fastest at 1e-2, and diverges."""
    rates = np.geomspace(1e-6, 10, 141)
    at = np.log10(rates)
    smoothed = 2 - 1 / (1 + np.exp(-6 * (at + 2))) + np.where(at > -1, (at + 1) ** 2, 0)
    return RateCurve(rates, smoothed + np.random.default_rng(0).normal(0, 0.05, 141), smoothed)


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss():
    curve = bowl()
    assert curve.lowest == pytest.approx(0.1, rel=0.15) and curve.suggestion == curve.lowest / 10
    assert curve.steepest == pytest.approx(0.01, rel=0.15)
    assert "suggestion=0.01" in repr(curve) and "141 batches" in repr(curve)


def test_the_first_few_batches_whose_mean_has_not_settled_are_not_the_steepest():
    curve = bowl()
    unsettled = np.concatenate([[5.0, 4.0], curve.smoothed[2:]])
    assert RateCurve(curve.rates, curve.losses, unsettled).steepest == curve.steepest


def test_a_loss_that_only_grows_suggests_less_than_the_first_rate():
    curve = RateCurve(np.geomspace(0.1, 10, 20), np.arange(1.0, 21), np.arange(1.0, 21))
    assert (curve.lowest, curve.suggestion, curve.steepest) == (0.1, pytest.approx(0.01), 0.1)


def test_training_at_the_suggested_rate_beats_rates_far_from_it():
    rate = find_learning_rate(mlp(), X, Y).suggestion
    losses = []
    for factor in (0.01, 1, 100):
        model = mlp(optimizers.Adam(rate * factor))
        losses.append(model.fit(X, Y, epochs=5, verbose=0).history["loss"][-1])
    assert losses[1] < min(losses[0], losses[2])


def test_the_plot_shows_the_curves_and_the_suggestion():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from test_viz import assert_every_text_is_legible, pixels

    curve = bowl()
    ax = curve.plot()
    raw, smoothed, line = ax.get_lines()
    assert np.array_equal(raw.get_xdata(), curve.rates) and np.array_equal(raw.get_ydata(), curve.losses)
    assert np.array_equal(smoothed.get_ydata(), curve.smoothed)
    assert list(line.get_xdata()) == [curve.suggestion] * 2
    assert ax.get_xscale() == "log" and ax.get_ylim()[1] < curve.smoothed.max()
    assert_every_text_is_legible(ax.figure)
    assert pixels(ax).std() > 5
    assert curve.plot(ax=ax) is ax


# -- what does not fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"start": 0}, ValueError, "0 < start < end. Received: start=0"),
        ({"start": 1, "end": 0.1}, ValueError, "start=1, end=0.1"),
        ({"end": np.inf}, ValueError, "end=inf"),
        ({"steps": 5}, ValueError, "at least 10. Received: 5"),
        ({"steps": 50.0}, ValueError, "Received: 50.0"),
        ({"epochs": 3}, TypeError, "epochs"),
    ],
)
def test_arguments_that_make_no_range_are_refused(more, error, message):
    with pytest.raises(error, match=message):
        find_learning_rate(mlp(), X, Y, **more)


def test_too_large_a_start_and_too_little_data_are_told_apart():
    with pytest.raises(ValueError, match=r"grown to 4 times.*smaller rate than start=1000"):
        find_learning_rate(mlp(optimizers.SGD(0.1), loss="mse"), X, np.eye(3)[Y], start=1e3, end=1e9)
    with pytest.raises(ValueError, match=r"too few batches.*data of 3"):
        find_learning_rate(mlp(), ((X, Y) for _ in range(3)))


def test_an_optimizer_with_a_schedule_is_refused():
    model = mlp(optimizers.SGD(schedules.CosineDecay(0.1, 10)))
    with pytest.raises(TypeError, match="takes from a schedule"):
        find_learning_rate(model, X, Y)
    assert isinstance(model.optimizer.learning_rate, schedules.CosineDecay)


def test_the_finder_is_public():
    assert callbacks.find_learning_rate is find_learning_rate
