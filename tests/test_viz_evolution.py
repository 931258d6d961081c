"""WeightHistory keeps the weights of stated moments within stated memory; the pictures show them in order."""

import copy

import numpy as np
import pytest
import strict_xp
from conftest import cuda_ops

from xpnet import Sequential, viz
from xpnet import layers as L
from xpnet.callbacks import LambdaCallback, WeightHistory
from xpnet.errors import NonFiniteError

X, Y = np.random.default_rng(0).random((40, 1, 6, 6), dtype=np.float32), np.arange(40) % 3


def model(**more):
    made = Sequential(
        [
            L.Conv2D(4, 3, activation="relu"),
            L.Residual([L.Conv2D(4, 3, padding=1, name="inner"), L.BatchNormalization()]),
            L.Flatten(),
            L.Dense(3),
        ],
        input_shape=(1, 6, 6), seed=0, **more,
    )  # fmt: skip
    made.compile("adam", "sparse_categorical_crossentropy")
    return made


def fitted(history, epochs=3, net=None, **more):
    net = net or model()
    net.fit(X, Y, epochs=epochs, batch_size=10, verbose=0, callbacks=[history], **more)
    return net


@pytest.mark.parametrize("where", ["cpu", "strict", "host"])
def test_the_copies_are_the_weights_of_their_moments(where):
    ops = {"cpu": lambda: "cpu", "strict": strict_xp.strict_ops, "host": lambda: cuda_ops("host")}[where]()
    net, seen = model(device=ops), []
    before = net.state_dict()
    watching = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(net.state_dict()))
    history = WeightHistory()
    net.fit(X, Y, epochs=3, batch_size=10, verbose=0, callbacks=[watching, history])
    assert history.moments == ["before training", "epoch 1", "epoch 2", "epoch 3"]
    assert history.steps == [0, 4, 8, 12] and len(history) == 4
    learned = [name for name in before if "running" not in name and "tracked" not in name]
    assert list(history.weights) == learned and "2.body.0.weight" in learned
    for name, kept in history.weights.items():
        assert kept.shape == (4, *before[name].shape)
        for moment, state in zip(kept, [before, *seen]):
            np.testing.assert_array_equal(moment, state[name])
    assert np.abs(np.diff(history.weights["0.weight"], axis=0)).max() > 0


@pytest.mark.parametrize("chosen", ["residual", 1, -3])
def test_a_layer_is_named_placed_or_given(chosen):
    history = WeightHistory(layer=chosen)
    fitted(history, 1)
    names = ["2.body.0.weight", "2.body.0.bias", "2.body.1.weight", "2.body.1.bias"]
    assert list(history.weights) == names
    assert history.layers["2.body.0.weight"] == "inner"
    net = model()
    history = WeightHistory(layer=net.layers[0])
    fitted(history, 1, net)
    assert list(history.weights) == ["0.weight", "0.bias"]
    assert "2 moments of 0.weight, 0.bias" in repr(history)


def test_batches_are_counted_through_the_epochs_and_the_end_is_always_there():
    history = WeightHistory(save_freq=5)
    net = fitted(history)  # three epochs of four batches
    assert history.moments == ["before training", "batch 5", "batch 10", "after training"]
    assert history.steps == [0, 5, 10, 12]
    np.testing.assert_array_equal(history.weights["0.weight"][-1], net.state_dict()["0.weight"])


@pytest.mark.parametrize("limit", [2, 3, 4, 7])
def test_there_are_never_more_copies_than_the_limit_and_they_stay_evenly_spaced(limit):
    history, most = WeightHistory(save_freq=1, limit=limit), []
    net = model()
    counting = LambdaCallback(on_train_batch_end=lambda batch, logs: most.append(len(history)))
    net.fit(X, Y, epochs=6, batch_size=10, verbose=0, callbacks=[history, counting])
    assert max([*most, len(history)]) <= limit
    assert history.steps[0] == 0 and history.steps[-1] == 24
    assert len(set(np.diff(history.steps[:-1]))) <= 1
    assert len(history.moments) == len(history.steps) == len(history.weights["0.bias"])
    np.testing.assert_array_equal(history.weights["0.weight"][-1], net.state_dict()["0.weight"])


def test_a_fit_begins_anew_and_a_copy_lives_on():
    history = WeightHistory("conv2d")
    net = fitted(history, 2)
    first = copy.deepcopy(history)
    fitted(history, 3, net, initial_epoch=2)
    assert (first.moments[-1], history.moments) == ("epoch 2", ["before training", "epoch 3"])
    np.testing.assert_array_equal(first.weights["0.weight"][-1], history.weights["0.weight"][0])


def test_what_was_kept_outlives_a_failed_training():
    net, history = model(), WeightHistory(save_freq=1)

    def poison(batch, logs):
        if batch == 2:
            net.layers[-1].weight[...] = np.nan

    with pytest.raises(NonFiniteError):
        net.fit(
            X, Y, batch_size=10, verbose=0, callbacks=[LambdaCallback(on_train_batch_end=poison), history]
        )
    assert history.steps[:3] == [0, 1, 2] and np.isfinite(history.weights["0.weight"][:3]).all()


@pytest.mark.parametrize(
    "made, words",
    [
        (lambda: WeightHistory(save_freq="batch"), "save_freq must be 'epoch' or a number"),
        (lambda: WeightHistory(save_freq=0), "save_freq must be a whole number"),
        (lambda: WeightHistory(limit=1), "limit must be a whole number of at least 2"),
        (lambda: fitted(WeightHistory("flatten")), "has no parameters.*Expected: one of 'conv2d', 'inner'"),
        (lambda: fitted(WeightHistory("conv9")), "unknown layer"),
        (lambda: fitted(WeightHistory(L.Conv2D(2, 3))), "not this model's"),
    ],
)
def test_unusable_wishes_are_refused(made, words):
    with pytest.raises(ValueError, match=words):
        made()


# -- pictures ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def history():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    made = WeightHistory()
    fitted(made, 9)
    return made


def shown(ax):
    from xpnet.viz.grids import ENLARGED

    return np.ma.filled(ax.images[0].get_array(), np.nan)[::ENLARGED, ::ENLARGED]


def test_the_rows_are_moments_and_the_columns_kernels_on_one_scale(history):
    axes = viz.plot_kernel_evolution(history, moments=4, kernels=3)
    assert axes.shape == (4, 3)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["before training", "epoch 3", "epoch 6", "epoch 9"]
    assert [ax.get_title() for ax in axes[0]] == ["kernel 0", "kernel 1", "kernel 2"]
    w = history.weights["0.weight"]
    for row, t in enumerate((0, 3, 6, 9)):
        np.testing.assert_allclose(shown(axes[row, 2]), w[t, 2, 0])
    limits = {ax.images[0].get_clim() for ax in axes.flat}
    assert limits == {(-np.abs(w[[0, 3, 6, 9], :3]).max(), np.abs(w[[0, 3, 6, 9], :3]).max())}
    inner = viz.plot_kernel_evolution(history, layer="inner", kernels=2)
    np.testing.assert_allclose(shown(inner[-1, 1])[:3, :3], history.weights["2.body.0.weight"][-1, 1, 0])
    assert viz.plot_kernel_evolution(history, "2.body.0.weight").shape == (6, 4)


def test_the_animation_has_a_frame_a_moment(history, tmp_path):
    from PIL import Image

    path = viz.animate_kernels(history, tmp_path / "k.gif", fps=5)
    with Image.open(path) as gif:
        assert gif.n_frames == len(history)
        gif.seek(0)
        first = np.array(gif.convert("RGB"), int)
        gif.seek(9)
        assert np.abs(np.array(gif.convert("RGB"), int) - first).max() > 60
    with pytest.raises(ValueError, match=r"ends in \.gif"):
        viz.animate_kernels(history, tmp_path / "k.mp4")
    with pytest.raises(ValueError, match="fps must be"):
        viz.animate_kernels(history, tmp_path / "l.gif", fps=0)
    assert list(tmp_path.iterdir()) == [path]


def test_each_frame_shows_the_kernels_of_its_moment(history, monkeypatch):
    seen = []

    def each(fig, draw, frames, path, fps):
        for moment in frames:
            draw(moment)
            seen.append(([shown(ax) for ax in fig.axes[:4]], fig.get_suptitle()))

    monkeypatch.setattr("xpnet.viz.evolution.animate", each)
    viz.animate_kernels(history, "k.gif")
    assert len(seen) == len(history)
    for kernels, title, moment, w in zip(*zip(*seen), history.moments, history.weights["0.weight"]):
        assert title == f"Kernels of conv2d, {moment}"
        np.testing.assert_allclose(kernels, w[:, 0])


def test_histories_without_kernels_are_refused(history):
    with pytest.raises(TypeError, match=r"must be a callbacks.WeightHistory"):
        viz.plot_kernel_evolution({"loss": [1]})
    with pytest.raises(ValueError, match=r"no kernels to show.*nothing yet"):
        viz.plot_kernel_evolution(WeightHistory())
    with pytest.raises(ValueError, match=r"unknown layer with kernels.*Expected one of: conv2d, inner"):
        viz.plot_kernel_evolution(history, layer="dense")
