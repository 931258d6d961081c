"""compile, fit, evaluate, train_on_batch: what training does, and what it tells of itself."""

import threading

import numpy as np
import pytest

from xpnet import NonFiniteError, NotCompiledError, Sequential, callbacks, losses, metrics, optimizers
from xpnet.layers import Activation, BatchNormalization, Conv2D, Dense, Dropout, Flatten, Layer, Residual
from xpnet.training import host as training_step
from xpnet.training import inputs


def data(n=60, seed=0, classes=3):
    """Three clouds of points: easily learned."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return (rng.standard_normal((n, 5)) + 3 * np.eye(classes, 5)[y]).astype(np.float32), y


def mlp(seed=1, optimizer="adam", loss="sparse_categorical_crossentropy", metric=("accuracy",), stack=None):
    model = Sequential(stack or [Dense(8, activation="relu"), Dense(3)], input_shape=(5,), seed=seed)
    model.compile(optimizer, loss, metrics=metric)
    return model


def norm_and_dropout():
    return [Dense(8, activation="relu"), BatchNormalization(), Dropout(0.3), Dense(3)]


def weights(model):
    return model.state_dict()


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a) and list(a) == list(b)


def close(a, b, atol=1e-5):
    return all(np.allclose(a[name], b[name], atol=atol) for name in a) and list(a) == list(b)


class Recorder(callbacks.Callback):
    """Writes down every hook with its number."""

    def __init__(self):
        self.calls, self.logs = [], []

    def on_train_begin(self, logs=None):
        self.calls.append("train_begin")

    def on_train_end(self, logs=None):
        self.calls.append("train_end")
        self.logs.append(dict(logs.items()))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"epoch_begin {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"epoch_end {epoch}")
        self.logs.append(dict(logs.items()))

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(f"batch_begin {batch}")

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(f"batch_end {batch}")
        self.logs.append(dict(logs.items()))


# -- modes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "steps"), [(1, 60), (16, 4), (32, 2), ("full", 1), (-1, 1), (1000, 1), (None, 2)]
)
def test_online_mini_batch_and_full_batch_take_so_many_steps_and_learn(batch_size, steps):
    x, y = data()
    model, seen = mlp(optimizer=optimizers.Adam(0.01)), Recorder()
    history = model.fit(x, y, batch_size=batch_size, epochs=3, verbose=0, callbacks=[seen])
    assert sum(c.startswith("batch_end") for c in seen.calls) == 3 * steps
    assert model.optimizer.iterations == 3 * steps == model.params.step
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_fit_takes_the_steps_of_train_on_batch():
    x, y = data()
    fitted, by_hand = mlp(stack=norm_and_dropout()), mlp(stack=norm_and_dropout())
    fitted.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for _ in range(2):
        for start in range(0, 60, 16):
            by_hand.train_on_batch(x[start : start + 16], y[start : start + 16])
    assert same(weights(fitted), weights(by_hand))


def test_the_loss_of_an_epoch_is_the_mean_over_samples_not_over_batches():
    x, y = data()
    model = mlp(optimizer=optimizers.SGD(0.0))
    history = model.fit(x, y, batch_size=50, verbose=0)  # a batch of 50 and one of 10
    assert history.history["loss"][0] == pytest.approx(model.evaluate(x, y)[0], rel=1e-5)
    assert history.history["accuracy"][0] == pytest.approx(model.evaluate(x, y)[1])


def test_training_learns_clouds_that_a_line_can_part():
    x, y = data(150)
    model = mlp(optimizer=optimizers.Adam(0.02))
    model.fit(x, y, batch_size=16, epochs=15, verbose=0)
    assert model.evaluate(x, y)[1] > 0.9


# -- shuffling -----------------------------------------------------------------------------------------------


def test_shuffling_follows_the_seed_and_changes_with_the_epoch():
    a, b, c = (mlp(seed=s) for s in (1, 1, 2))
    assert np.array_equal(a.shuffled(50), b.shuffled(50)) and not np.array_equal(
        a.shuffled(50), c.shuffled(50)
    )
    assert sorted(a.shuffled(50)) == list(range(50))
    first = a.shuffled(50)
    a.fit(*data(), verbose=0)
    assert not np.array_equal(a.shuffled(50), first)


def test_fit_shuffles_unless_told_not_to():
    x, y = data()
    shuffled, again, ordered = mlp(), mlp(), mlp()
    shuffled.fit(x, y, batch_size=8, verbose=0)
    again.fit(x, y, batch_size=8, verbose=0)
    ordered.fit(x, y, batch_size=8, verbose=0, shuffle=False)
    assert same(weights(shuffled), weights(again)) and not same(weights(shuffled), weights(ordered))


def test_two_fits_of_one_epoch_are_one_fit_of_two():
    x, y = data()
    twice, once = mlp(stack=norm_and_dropout()), mlp(stack=norm_and_dropout())
    for epoch in range(2):
        twice.fit(x, y, batch_size=8, epochs=epoch + 1, initial_epoch=epoch, verbose=0)
    once.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert same(weights(twice), weights(once))


# -- validation ----------------------------------------------------------------------------------------------


def test_validation_data_is_evaluated_after_every_epoch():
    x, y = data()
    xv, yv = data(20, seed=5)
    model = mlp()
    history = model.fit(x, y, epochs=2, validation_data=(xv, yv), verbose=0).history
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(len(values) == 2 for values in history.values())
    assert [history["val_loss"][-1], history["val_accuracy"][-1]] == pytest.approx(model.evaluate(xv, yv))
    weighted = np.arange(20.0)
    history = model.fit(x, y, epochs=1, validation_data=[xv, yv, weighted], verbose=0).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(xv, yv, sample_weight=weighted)[0])


def test_validation_changes_nothing_in_training():
    x, y = data()
    with_it, without = mlp(stack=norm_and_dropout()), mlp(stack=norm_and_dropout())
    with_it.fit(x, y, epochs=2, validation_data=data(20, seed=5), verbose=0)
    without.fit(x, y, epochs=2, verbose=0)
    assert same(weights(with_it), weights(without))


def held_out(model, x, y, **kwargs):
    """The labels that fit trained on and those it held out."""
    found = {}
    original = inputs.split

    def spy(*args):
        found["parts"] = original(*args)
        return found["parts"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "split", spy)
        model.fit(x, y, verbose=0, **kwargs)
    return tuple(part.take(slice(None))[1] for part in found["parts"])


@pytest.mark.parametrize("one_hot", [False, True])
def test_validation_split_holds_out_the_classes_in_proportion(one_hot):
    x, _ = data(100)
    y = np.repeat([0, 1, 2], [70, 20, 10])  # sorted, as data sets often are
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    targets = np.eye(3)[y] if one_hot else y
    train, held = held_out(mlp(loss=loss), x, targets, validation_split=0.2)
    if one_hot:
        train, held = train.argmax(axis=1), held.argmax(axis=1)
    assert np.bincount(held).tolist() == [14, 4, 2] and np.bincount(train).tolist() == [56, 16, 8]


def test_validation_split_is_the_same_for_the_same_seed_and_disjoint():
    x, y = data(50)
    x[:, 0] = np.arange(50)
    model = mlp()
    first = inputs.split(model, model._data(x, y), 0.3, None)
    again = inputs.split(model, model._data(x, y), 0.3, None)
    other = mlp(seed=9)
    other = inputs.split(other, other._data(x, y), 0.3, None)
    (train, held), (_, held_again), (_, held_other) = (
        [part.take(slice(None))[0] for part in parts] for parts in (first, again, other)
    )
    assert [len(part) for part in first] == [35, 15]
    assert np.array_equal(held, held_again) and not np.array_equal(held, held_other)
    assert sorted([*train[:, 0], *held[:, 0]]) == list(range(50))


def test_validation_split_takes_the_weights_along():
    x, y = data(20)
    weight = np.arange(20.0) + 1
    x[:, 0] = weight
    model = mlp()
    for part in inputs.split(model, model._data(x, y, weight), 0.25, None):
        kept, _, w = part.take(np.arange(len(part)))
        assert np.array_equal(w, kept[:, 0]) and part.weight(slice(1, 3)) == w[1:3].sum()


def test_validation_split_without_classes_splits_plainly():
    x, _ = data(30)
    model = mlp(loss="mse", metric=())
    history = model.fit(x, x[:, :3], validation_split=0.3, verbose=0).history
    assert list(history) == ["loss", "val_loss"]
    with pytest.raises(ValueError, match="stratify=True needs targets that are classes"):
        model.fit(x, x[:, :3], validation_split=0.3, stratify=True, verbose=0)


def test_a_class_with_too_few_samples_is_named_when_stratifying_was_asked_for():
    x, y = data(30)
    y[:], y[0] = 1, 0
    mlp().fit(x, y, validation_split=0.3, verbose=0)
    with pytest.raises(ValueError, match=r"too few samples.*2 classes, the smallest of 1 samples"):
        mlp().fit(x, y, validation_split=0.3, stratify=True, verbose=0)


def test_small_splits_never_fail_for_want_of_proportion():
    for n in range(4, 14):
        x, y = data(n, classes=2)
        y = np.arange(n) % 2
        for share in (0.1, 0.25, 0.4, 0.6):
            mlp().fit(x, y, validation_split=share, verbose=0)


# -- weights -------------------------------------------------------------------------------------------------


def test_a_sample_weight_of_two_equals_the_sample_twice():
    x, y = data(12)
    weight = np.array([1, 2, 3] * 4)
    repeat = np.repeat(np.arange(12), weight)
    weighted, repeated = (mlp(optimizer=optimizers.SGD(0.1)) for _ in range(2))
    for _ in range(3):
        a = weighted.train_on_batch(x, y, sample_weight=weight)
        b = repeated.train_on_batch(x[repeat], y[repeat])
        assert a == pytest.approx(b, rel=1e-5)
    assert close(weights(weighted), weights(repeated))
    assert weighted.evaluate(x, y, sample_weight=weight) == pytest.approx(
        repeated.evaluate(x[repeat], y[repeat]), rel=1e-5
    )


def test_class_weight_equals_the_sample_weights_it_stands_for():
    x, y = data(24)
    table = {0: 1.0, 1: 3.0, 2: 0.5}
    models = [mlp() for _ in range(4)]
    models[0].fit(x, y, class_weight=table, epochs=2, batch_size=8, verbose=0)
    models[1].fit(x, y, sample_weight=[table[k] for k in y], epochs=2, batch_size=8, verbose=0)
    assert same(weights(models[0]), weights(models[1]))
    models[2].fit(x, y, class_weight={1: 3.0}, sample_weight=np.arange(24.0), verbose=0)
    models[3].fit(x, y, sample_weight=np.arange(24.0) * np.where(y == 1, 3.0, 1.0), verbose=0)
    assert same(weights(models[2]), weights(models[3]))


def test_class_weight_works_for_one_hot_targets_and_ignores_classes_that_are_absent():
    x, y = data(24)
    plain = mlp()
    one_hot = mlp(loss="categorical_crossentropy")
    plain.fit(x, y, class_weight={1: 3.0, 7: 2.0}, verbose=0)
    one_hot.fit(x, np.eye(3)[y], class_weight={1: 3.0}, verbose=0)
    assert close(weights(plain), weights(one_hot))
    empty, none = mlp(), mlp()
    empty.fit(x, y, class_weight={}, verbose=0)
    none.fit(x, y, verbose=0)
    assert close(weights(empty), weights(none))


def test_balanced_class_weight_is_scikit_learns():
    from sklearn.utils.class_weight import compute_sample_weight

    x, _ = data(24)
    y = np.repeat([0, 1, 2], [14, 7, 3])
    balanced, by_hand = mlp(), mlp()
    balanced.fit(x, y, class_weight="balanced", verbose=0)
    by_hand.fit(x, y, sample_weight=compute_sample_weight("balanced", y), verbose=0)
    assert same(weights(balanced), weights(by_hand))


def test_samples_of_weight_zero_do_not_count():
    x, y = data(20)
    weight = np.ones(20)
    weight[10:] = 0
    weighted, without = (mlp(optimizer=optimizers.SGD(0.1)) for _ in range(2))
    weighted.train_on_batch(x, y, sample_weight=weight)
    without.train_on_batch(x[:10], y[:10])
    assert close(weights(weighted), weights(without))
    assert weighted.evaluate(x, y, sample_weight=weight, batch_size=5) == pytest.approx(
        weighted.evaluate(x[:10], y[:10]), rel=1e-5
    )


def test_a_whole_batch_of_weight_zero_changes_neither_weights_nor_figures():
    x, y = data(20)
    weight = np.ones(20)
    weight[10:] = 0
    model = mlp(optimizer=optimizers.SGD(0.1))
    before = weights(model)
    history = model.fit(x, y, sample_weight=weight, batch_size=10, shuffle=False, verbose=0).history
    reference = mlp(optimizer=optimizers.SGD(0.1))
    expected = reference.fit(x[:10], y[:10], batch_size=10, shuffle=False, verbose=0).history
    assert not same(before, weights(model)) and close(weights(model), weights(reference))
    assert history["loss"] == pytest.approx(expected["loss"])


# -- compile, metrics, evaluate ------------------------------------------------------------------------------


def test_training_without_compile_says_what_to_call():
    model = Sequential([Dense(3)], input_shape=(5,))
    x, y = data()
    for call in (model.fit, model.evaluate, model.train_on_batch, model.gradients):
        with pytest.raises(NotCompiledError, match=r"call model.compile\(optimizer=..., loss=...\) first"):
            call(x, y)
    assert model.predict(x).shape == (60, 3)


def test_a_string_loss_takes_logits_or_folds_the_last_activation():
    x, y = data()
    plain = mlp(stack=[Dense(3)])
    fused = mlp(stack=[Dense(3, activation="softmax")])
    separate = mlp(stack=[Dense(3), Activation("softmax")])
    for model in (plain, fused, separate):
        model.fit(x, y, epochs=2, verbose=0)
    assert close(weights(plain), weights(fused)) and close(weights(plain), weights(separate))
    p = fused.predict(x)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-6) and not np.allclose(plain.predict(x).sum(axis=1), 1)
    assert fused.evaluate(x, y) == pytest.approx(plain.evaluate(x, y), rel=1e-5)
    assert fused.evaluate(x, y)[0] == pytest.approx(-np.log(p[np.arange(60), y]).mean(), rel=1e-4)


def test_from_logits_overrides():
    x, y = data()
    probabilities = mlp(
        loss=losses.SparseCategoricalCrossentropy(from_logits=False), stack=[Dense(3, activation="softmax")]
    )
    folded = mlp(stack=[Dense(3, activation="softmax")])
    assert probabilities.evaluate(x, y) == pytest.approx(folded.evaluate(x, y), rel=1e-5)
    logits = mlp(loss=losses.SparseCategoricalCrossentropy(from_logits=True), stack=[Dense(3)])
    assert logits.evaluate(x, y) == pytest.approx(folded.evaluate(x, y), rel=1e-5)


def test_binary_crossentropy_by_name_takes_a_softmaxs_outputs_for_the_probabilities_they_are():
    x, y = data()
    model = mlp(stack=[Dense(3, activation="softmax")], loss="binary_crossentropy")
    t, p = np.eye(3)[y], model.predict(x)
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    right = ((p > 0.5) == (t > 0.5)).mean()
    assert model.evaluate(x, t) == pytest.approx([expected, right], rel=1e-4)
    assert model.train_on_batch(x, t) == pytest.approx([expected, right], rel=1e-4)


def test_folded_softmax_is_stable_where_probabilities_would_be_zero():
    model = mlp(stack=[Dense(3, activation="softmax")])
    x, y = data(6)
    model.load_state_dict({"0.weight": np.eye(3, 5) * 1000, "0.bias": np.zeros(3)})
    loss = model.train_on_batch(x, y)[0]
    assert np.isfinite(loss)
    assert loss == pytest.approx(np.mean(1000 * (x[:, :3].max(axis=1) - x[np.arange(6), y])), rel=1e-4)


@pytest.mark.parametrize("stack", [[Dense(1)], [Dense(1, activation="sigmoid")]], ids=["logits", "sigmoid"])
def test_yes_or_no_metrics_read_probabilities_where_the_model_yields_logits(stack):
    model = Sequential(stack, input_shape=(1,))
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy", "precision", "recall"])
    model.load_state_dict({"0.weight": np.ones((1, 1)), "0.bias": np.zeros(1)})
    x, y = np.array([[0.2], [0.3], [-0.2], [-4.0]]), np.array([1, 1, 0, 0])
    assert model.evaluate(x, y)[1:] == [1, 1, 1]
    assert model.train_on_batch(x, y)[1:] == [1, 1, 1]


def test_metrics_go_by_the_word_that_was_given_and_their_objects_by_their_name():
    x, y = data()
    model = mlp(metric=["acc", metrics.TopKCategoricalAccuracy(2), "confusion_matrix"])
    logs = model.evaluate(x, y, return_dict=True)
    assert list(logs) == ["loss", "acc", "top_2_accuracy", "confusion_matrix"]
    assert np.sum(logs["confusion_matrix"]) == 60
    assert np.trace(logs["confusion_matrix"]) == pytest.approx(60 * logs["acc"])
    assert isinstance(model.fit(x, y, verbose=0).history["confusion_matrix"][0], list)
    with pytest.raises(ValueError, match="different names"):
        model.compile("adam", "mse", metrics=["acc", "acc"])


def test_evaluate_yields_a_number_a_list_or_a_dict():
    x, y = data()
    assert isinstance(mlp(metric=()).evaluate(x, y), float)
    both = mlp().evaluate(x, y)
    assert isinstance(both, list) and all(isinstance(v, float) for v in both)
    assert mlp().evaluate(x, y, return_dict=True) == dict(zip(["loss", "accuracy"], both))


@pytest.mark.parametrize("batch_size", [1, 7, 60, None])
def test_evaluate_does_not_depend_on_its_batch_size(batch_size):
    x, y = data()
    model = mlp(metric=["accuracy", "f1", "precision", "recall"])
    assert model.evaluate(x, y, batch_size) == pytest.approx(model.evaluate(x, y, 13), rel=1e-5)


def test_train_on_batch_tells_the_loss_before_the_step_as_floats():
    x, y = data()
    model = mlp()
    expected = model.evaluate(x, y)
    got = model.train_on_batch(x, y)
    assert got == pytest.approx(expected, rel=1e-5) and all(type(v) is float for v in got)
    assert type(mlp(metric=()).train_on_batch(x, y)) is float
    assert list(model.train_on_batch(x, y, return_dict=True)) == ["loss", "accuracy"]
    assert model.optimizer.iterations == 2


def test_reduction_sum_adds_up_the_gradient_and_reports_the_mean():
    x, y = data(10)
    mean, total = (
        mlp(loss=losses.SparseCategoricalCrossentropy(from_logits=True, reduction=r)) for r in ("mean", "sum")
    )
    a, b = mean.gradients(x, y), total.gradients(x, y)
    assert all(np.allclose(10 * a[k], b[k], atol=1e-4) for k in a)
    assert mean.evaluate(x, y) == pytest.approx(total.evaluate(x, y))


def test_compile_again_starts_the_optimizer_afresh_and_keeps_the_weights():
    x, y = data()
    model = mlp()
    model.fit(x, y, verbose=0)
    before = weights(model)
    model.compile("adam", "sparse_categorical_crossentropy")
    assert same(before, weights(model)) and model.optimizer.iterations == 0
    assert not any(flat.any() for flat in model.optimizer_state.values())


def test_changing_the_learning_rate_between_steps_takes_effect():
    x, y = data()
    model = mlp(optimizer=optimizers.SGD(0.1))
    model.fit(x, y, verbose=0)
    model.optimizer.learning_rate = 0.0
    before = weights(model)
    model.fit(x, y, verbose=0)
    assert same(before, weights(model))


# -- history, output, callbacks ------------------------------------------------------------------------------


def test_fit_returns_the_history_and_leaves_it_on_the_model():
    x, y = data()
    model = mlp()
    history = model.fit(x, y, epochs=5, initial_epoch=2, verbose=0)
    assert model.history is history and history.epoch == [2, 3, 4]
    assert {k: len(v) for k, v in history.history.items()} == {"loss": 3, "accuracy": 3}
    assert all(type(v) is float for values in history.history.values() for v in values)
    assert "3 epochs" in repr(history)


def test_no_epochs_are_no_training():
    x, y = data()
    model = mlp()
    before = weights(model)
    assert model.fit(x, y, epochs=0, verbose=0).history == {} and same(before, weights(model))


def test_verbose_0_is_silent(capfd):
    mlp().fit(*data(), verbose=0)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_verbose_1_shows_a_bar_an_epoch_with_the_figures_and_the_device(capfd):
    mlp().fit(*data(), epochs=2, verbose=1, validation_data=data(10, seed=3))
    captured = capfd.readouterr()
    assert "training on cpu" in captured.out and "float32" in captured.out
    text = captured.err
    assert "epoch 1/2" in text and "epoch 2/2" in text and "100%" in text and "2/2 [" in text
    assert "val_accuracy=" in text.split("epoch 2/2")[-1]


def test_verbose_2_prints_a_line_an_epoch(capfd):
    mlp().fit(*data(), epochs=3, verbose=2)
    captured = capfd.readouterr()
    lines = [line for line in captured.out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 3 and captured.err == ""
    assert lines[0].startswith("epoch 1/3 - ") and "loss=" in lines[0] and "accuracy=" in lines[0]


def test_callbacks_hear_of_everything_in_keras_order():
    x, y = data(20)
    seen = Recorder()
    mlp().fit(x, y, batch_size=10, epochs=2, verbose=0, callbacks=seen)
    epoch = ["batch_begin 0", "batch_end 0", "batch_begin 1", "batch_end 1"]
    assert seen.calls == [
        "train_begin",
        *["epoch_begin 0", *epoch, "epoch_end 0"],
        *["epoch_begin 1", *epoch, "epoch_end 1"],
        "train_end",
    ]
    assert all(list(logs) == ["loss", "accuracy"] for logs in seen.logs)
    assert seen.params.pop("callbacks") == [seen]
    assert seen.params == {
        "epochs": 2, "initial_epoch": 0, "steps": 2, "verbose": 0, "validation": False
    }  # fmt: skip
    assert isinstance(seen.model, Sequential)


def test_the_figures_of_a_batch_hook_are_those_of_the_epoch_so_far():
    x, y = data(20)
    seen = Recorder()
    model = mlp()
    model.fit(x, y, batch_size=10, verbose=0, callbacks=[seen])
    first, second, epoch, end = seen.logs
    assert second == epoch == end and first != second


def test_stop_training_stops_after_the_epoch_or_the_batch():
    x, y = data()

    class Stop(Recorder):
        def __init__(self, at):
            super().__init__()
            self.at = at

        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            self.model.stop_training |= self.calls[-1] == self.at

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            self.model.stop_training |= self.calls[-1] == self.at

    model = mlp()
    assert model.fit(x, y, epochs=9, verbose=0, callbacks=[Stop("epoch_end 1")]).epoch == [0, 1]
    assert model.fit(x, y, epochs=2, verbose=0).epoch == [0, 1], "the wish to stop outlived its fit"
    stop = Stop("batch_end 2")
    assert model.fit(x, y, batch_size=10, epochs=9, verbose=0, callbacks=[stop]).epoch == [0]
    assert stop.calls[-3:] == ["batch_end 2", "epoch_end 0", "train_end"]


def test_train_end_is_heard_even_when_training_fails():
    class Fail(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyError("mine")

    seen = Recorder()
    with pytest.raises(KeyError, match="mine"):
        mlp().fit(*data(), verbose=0, callbacks=[seen, Fail()])
    assert seen.calls[-1] == "train_end"


def test_a_callback_may_freeze_a_layer_between_epochs():
    x, y = data()

    class Freeze(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[0].trainable = False
            self.kept = self.kept if epoch else self.model.state_dict()["0.weight"]

    freeze, model = Freeze(), mlp()
    model.fit(x, y, epochs=3, verbose=0, callbacks=[freeze])
    assert np.array_equal(freeze.kept, model.state_dict()["0.weight"])


@pytest.mark.parametrize("wrong", ["early_stopping", object(), Recorder], ids=["name", "object", "class"])
def test_what_is_no_callback_is_refused_before_training(wrong):
    model = mlp()
    with pytest.raises(
        TypeError, match=r"callbacks must be objects of a subclass of xpnet.callbacks.Callback"
    ):
        model.fit(*data(), callbacks=[wrong], verbose=0)
    assert model.optimizer.iterations == 0


# -- a loss that is not finite -------------------------------------------------------------------------------


class Poison(Layer):
    """The identity, until the chosen call in training, in which it yields NaN."""

    counter = [0]

    def __init__(self, at=0, **layer):
        super().__init__(**layer)
        self.at = at

    def forward(self, x, *, train):
        if train:
            self.counter[0] += 1
            if self.counter[0] > self.at:
                return x * np.float32(np.nan), None
        return x, None

    def backward(self, dy, cache):
        return dy


def poisoned(at, place):
    """A network whose layer at `place` yields NaN from training step at (counted from 0) on."""
    Poison.counter = [0]
    stack = [Dense(8, activation="relu"), BatchNormalization(), Dense(8, name="middle"), Dense(3)]
    stack.insert(place, Poison(at))
    return mlp(stack=stack)


@pytest.mark.parametrize("place", range(5))
def test_a_nan_stops_training_with_epoch_batch_and_the_first_layer_that_yields_it(place):
    x, y = data(40)
    model = poisoned(at=6, place=place)
    good = {}

    class Keep(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            good.clear()
            good.update(model._snapshot()["weights"], **model._snapshot()["optimizer"])

    with pytest.raises(
        NonFiniteError, match=rf"epoch 2, batch 3: the loss is nan.*layer {place} 'poison'"
    ) as error:
        model.fit(x, y, batch_size=10, epochs=5, verbose=0, callbacks=[Keep()])
    assert (error.value.epoch, error.value.batch) == (2, 3) and error.value.layer == f"layer {place} 'poison'"
    after = dict(model._snapshot()["weights"], **model._snapshot()["optimizer"])
    assert same(good, after), "weights, running statistics or optimizer state are not the last good ones"
    assert model.optimizer.iterations == model.params.step == 6
    assert all(np.isfinite(v).all() for v in after.values()) and np.isfinite(model.predict(x)).all()


def test_after_a_nan_training_can_go_on_from_the_last_good_weights():
    x, y = data(40)
    model = poisoned(at=2, place=3)
    with pytest.raises(NonFiniteError):
        model.fit(x, y, batch_size=10, verbose=0)
    Poison.counter = [-1000]
    model.layers[1].trainable = False  # what the failed batch proposed for it must not be taken over now
    statistics = model.state_dict()["2.running_mean"]
    assert np.isfinite(model.train_on_batch(x, y)[0])
    assert np.array_equal(model.state_dict()["2.running_mean"], statistics) and np.isfinite(statistics).all()


def test_overflow_inside_a_layer_names_that_layer():
    x, y = data(10)
    model = mlp(stack=[Dense(8), Dense(8, name="wide"), Dense(8), Dense(3)])
    state = model.state_dict()
    state["1.weight"][...] = 3e38
    model.load_state_dict(state)
    with pytest.raises(NonFiniteError, match=r"epoch 1, batch 1: .* is layer 1 'wide'") as error:
        model.fit(x, y, verbose=0)
    assert error.value.layer == "layer 1 'wide'"
    with pytest.raises(NonFiniteError, match=r"^the loss is .* layer 1 'wide'") as error:
        model.train_on_batch(x, y)
    assert error.value.epoch is None and error.value.batch is None
    assert same(state, model.state_dict())


def test_a_layer_inside_a_container_is_blamed_by_the_container_that_stands_in_the_model():
    Poison.counter = [0]
    model = mlp(stack=[Dense(8), Residual([Dense(8), Poison(0)]), Dense(3)])
    with pytest.raises(NonFiniteError, match="layer 1 'residual'"):
        model.fit(*data(), verbose=0)


def test_a_gradient_that_is_not_finite_names_the_layer_whose_backward_made_it():
    class BadSlope(Layer):
        def forward(self, x, *, train):
            return x, None

        def backward(self, dy, cache):
            return dy * np.float32(np.inf)

    model = mlp(stack=[Dense(8), BadSlope(), Dense(3)])
    before = weights(model)
    with pytest.raises(NonFiniteError, match=r"the gradient is not finite.*layer 1 'bad_slope'"):
        model.fit(*data(), verbose=0)
    assert same(before, weights(model))


def test_the_layer_is_named_when_replicas_share_the_batch(monkeypatch):
    monkeypatch.setattr(training_step, "LEAST_WORK", 1)
    model = mlp(stack=[Dense(8, name="first"), BatchNormalization(), Dense(8, name="second"), Dense(3)])
    state = model.state_dict()
    state["2.weight"][...] = 3e38
    model.load_state_dict(state)
    with pytest.raises(NonFiniteError, match=r"epoch 1, batch 1.*layer 2 'second'"):
        model.fit(*data(64), batch_size=64, verbose=0)
    assert same(state, model.state_dict())


def test_a_learning_rate_that_explodes_leaves_finite_weights():
    x, y = data()
    model = mlp(optimizer=optimizers.SGD(1e12), loss="mse", metric=())
    with pytest.raises(NonFiniteError, match="smaller learning_rate"):
        model.fit(x, np.eye(3)[y], epochs=50, verbose=0)
    assert all(np.isfinite(v).all() for v in weights(model).values())


def test_a_finite_gradient_whose_square_overflows_is_no_error():
    loss = losses.SumSquaredError(reduction="sum")
    model = mlp(optimizer=optimizers.SGD(1e-21), loss=loss, metric=())
    x, _ = data()
    before = weights(model)
    model.train_on_batch(x, np.full((60, 3), 1e18))
    assert model.optimizer.iterations == 1 and not same(before, weights(model))


def test_global_clipnorm_limits_the_step():
    x, y = data()
    free, limited = (
        mlp(optimizer=optimizers.SGD(1.0)),
        mlp(optimizer=optimizers.SGD(1.0, global_clipnorm=1e-3)),
    )
    start = weights(limited)
    free.train_on_batch(x, y)
    limited.train_on_batch(x, y)
    moved = np.sqrt(sum(((v - start[k]) ** 2).sum() for k, v in weights(limited).items()))
    assert moved == pytest.approx(1e-3, rel=1e-3)
    assert not same(weights(free), weights(limited))


# -- numpy's own warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [False, True])
def test_numpys_floating_point_errors_never_reach_the_user(monkeypatch, replicas):
    """pytest turns a RuntimeWarning into an error; np.errstate("raise") is what a debugging user sets."""
    if replicas:
        monkeypatch.setattr(training_step, "LEAST_WORK", 1)
    x, y = data(64)
    model = mlp(stack=[Dense(8, activation="sigmoid"), BatchNormalization(), Dense(3, activation="softmax")])
    state = model.state_dict()
    state["3.weight"][...] *= 1e30
    state["0.weight"][...] *= 1e20
    model.load_state_dict(state)
    with np.errstate(all="raise"):
        model.predict(x), model.evaluate(x, y), model.gradients(x, y)
        out, caches = model.forward(x, train=True)
        model.backward(out, caches)
        state["3.weight"][...] = 3e38
        model.load_state_dict(state)
        with pytest.raises(NonFiniteError):
            model.fit(x, y, batch_size=64, verbose=0)
        model.predict(x), model.evaluate(x, y), model.gradients(x, y)
        steep = Sequential([Dense(3)], input_shape=(5,))
        steep.load_state_dict({"0.weight": np.full((3, 5), 3e38), "0.bias": np.zeros(3)})
        out, caches = steep.forward(0 * x, train=True)
        steep.backward(out + 1e30, caches)


def test_images_train_too():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 32)
    x = rng.standard_normal((32, 1, 6, 6)).astype(np.float32)
    x[y == 1, :, 2:4, 2:4] += 3
    model = Sequential([Conv2D(4, 3, activation="relu"), Flatten(), Dense(2)], seed=0)
    model.compile(optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics="accuracy")
    assert model.fit(x, y, epochs=15, batch_size=8, verbose=0).history["accuracy"][-1] > 0.9


def test_fit_in_a_thread_that_is_not_the_main_one():
    model, answers = mlp(), []
    worker = threading.Thread(target=lambda: answers.append(model.fit(*data(), verbose=0)))
    worker.start()
    worker.join(30)
    assert len(answers) == 1


@pytest.mark.parametrize("where", ["strict", "cpu"])
def test_a_bad_batch_on_a_device_stops_all_later_updates_of_its_epoch(where):
    """Where nothing is read back in a step, the weights are still those from before the bad batch."""
    import strict_xp

    ops = strict_xp.strict_ops() if where == "strict" else where
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)).astype(np.float32), np.arange(40) % 2
    x[20:24] = 3e38  # finite, but the first layer's output is not

    def run(samples):
        model = Sequential([Dense(4, activation="relu"), Dense(2)], input_shape=(3,), device=ops, seed=0)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model, lambda: model.fit(
            x[:samples], y[:samples], batch_size=4, shuffle=False, epochs=1, verbose=0
        )

    model, fit = run(40)
    with pytest.raises(NonFiniteError, match=r"epoch 1, batch 6: .*layer 0 'dense'"):
        fit()
    clean, fit = run(20)
    fit()
    for name, value in clean.state_dict().items():
        assert (model.state_dict()[name] == value).all(), name
    assert model.optimizer.iterations == clean.optimizer.iterations == 5
    assert model.params.step == 5
    model.train_on_batch(x[:4], y[:4])  # and training can go on
    assert model.optimizer.iterations == 6


def test_a_callback_must_not_rebuild_the_model_within_an_epoch():
    x, y = data(40)
    model = Sequential([Dense(3)], input_shape=x.shape[1:], device="cpu", seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")

    class Move(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.to("cpu")

    with pytest.raises(RuntimeError, match=r"moved or rebuilt the model.*Expected: that in on_epoch_begin"):
        model.fit(x, y, batch_size=10, callbacks=Move(), verbose=0)
