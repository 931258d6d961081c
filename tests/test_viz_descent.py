"""Optimizers' paths are xpnet's own updates, and the loss on a plane is the model's."""

import copy
import math

import numpy as np
import pytest

from xpnet import Sequential, ShapeError, losses, optimizers, schedules, viz
from xpnet import layers as L
from xpnet.callbacks import WeightHistory
from xpnet.errors import NotBuiltError, NotCompiledError
from xpnet.viz.descent import SURFACES


def bowl(x, y):
    return x**2 / 20 + y**2


def slope_of_bowl(x, y):
    return x / 10, 2 * y


# -- paths ---------------------------------------------------------------------------------------------------


def test_plain_descent_is_the_formula():
    path = viz.optimizer_path("ravine", optimizers.SGD(0.4), steps=25)
    expected = [np.array([-7.0, 2.0])]
    for _ in range(25):
        expected.append(expected[-1] - 0.4 * np.array(slope_of_bowl(*expected[-1])))
    np.testing.assert_allclose(path, expected, atol=1e-9)


OPTIMIZERS = [
    optimizers.SGD(0.1, momentum=0.9),
    optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipvalue=0.5),
    optimizers.Adagrad(1.5),
    optimizers.RMSprop(0.1, centered=True, momentum=0.5),
    optimizers.Adam(0.3, global_clipnorm=0.2),
    optimizers.AdamW(0.3, weight_decay=0.1),
    optimizers.SGD(0.2, clipnorm=0.3),
    optimizers.SGD(schedules.ExponentialDecay(0.5, 5, 0.5)),
    optimizers.SGD(0.3, gradient_accumulation_steps=2),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_a_path_is_what_fit_would_walk(optimizer):
    """A dense layer without a bias on two samples, whose squared errors are the bowl."""
    x = np.diag([1 / math.sqrt(20), 1.0])
    net = Sequential([L.Dense(1, use_bias=False)], input_shape=(2,), precision="float64", device="cpu")
    net.load_state_dict({"0.weight": np.array([[-7.0, 2.0]])})
    net.compile(copy.copy(optimizer), losses.SumSquaredError(reduction="sum"))
    walked = [net.state_dict()["0.weight"][0]]
    for _ in range(20):
        net.train_on_batch(x, np.zeros((2, 1)))
        walked.append(net.state_dict()["0.weight"][0])
    path = viz.optimizer_path(bowl, optimizer, (-7, 2), 20, slope_of_bowl)
    np.testing.assert_allclose(path, walked, rtol=1e-9, atol=1e-12)
    assert optimizer.iterations == 0 and optimizer.owner is None  # it was a copy that ran


def test_numerical_slopes_lead_the_same_way():
    adam = optimizers.Adam(0.3)
    by_hand = viz.optimizer_path(bowl, adam, (-7, 2), 50, slope_of_bowl)
    np.testing.assert_allclose(viz.optimizer_path(bowl, adam, (-7, 2), 50), by_hand, atol=1e-6)


@pytest.mark.parametrize("name", SURFACES)
def test_surfaces_know_their_lowest_point_and_a_start_in_view(name):
    from xpnet import numerical_gradient

    surface = SURFACES[name]
    x0, x1, y0, y1 = surface.extent
    assert x0 < surface.start[0] < x1 and y0 < surface.start[1] < y1
    if surface.minimum is not None:
        assert surface.f(*surface.minimum) == 0
        slope = numerical_gradient(lambda p: surface.f(*p), np.array(surface.minimum, float))
        np.testing.assert_allclose(slope, 0, atol=1e-5)
    assert viz.optimizer_path(name.upper(), "adam", steps=3).shape == (4, 2)


def test_a_path_that_leaves_the_numbers_ends_there():
    path = viz.optimizer_path("rosenbrock", optimizers.SGD(1.0), steps=200)
    assert 1 < len(path) < 201 and np.isfinite(path).all()


def test_the_picture_has_the_paths_their_ends_and_the_loss_there():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    chosen = {"slow": optimizers.SGD(0.05), "wild": optimizers.SGD(3.0), "Adam": "adam"}
    ax = viz.plot_optimizer_paths("ravine", chosen, steps=600)
    slow = viz.optimizer_path("ravine", chosen["slow"], steps=600)
    lines = [line for line in ax.lines if len(line.get_xdata()) > 1]
    np.testing.assert_array_equal(lines[0].get_xydata(), slow)
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts[:3] == ["start", "minimum", f"slow: {bowl(*slow[-1]):.3g}"]
    assert texts[3].startswith("wild: diverged after ") and texts[4].startswith("Adam: ")
    assert (ax.get_xlim(), ax.get_ylim()) == ((-8, 3), (-3, 3))
    assert "600 steps" in ax.get_title()
    named = viz.plot_optimizer_paths("saddle", ["sgd", optimizers.SGD(0.05, momentum=0.9)], steps=3)
    texts = [t.get_text().split(":")[0] for t in named.get_legend().get_texts()]
    assert texts == ["start", "sgd", "SGD(0.05, momentum=0.9)"]


def test_a_function_of_ones_own_need_not_take_arrays_and_is_seen_whole():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    ax = viz.plot_optimizer_paths(
        lambda x, y: math.cosh(x) + math.cosh(y), optimizers.SGD(0.1), (2, -1), steps=50, resolution=20
    )
    path = viz.optimizer_path(lambda x, y: math.cosh(x) + math.cosh(y), optimizers.SGD(0.1), (2, -1), 50)
    for (low, high), values in zip((ax.get_xlim(), ax.get_ylim()), path.T):
        assert low < values.min() and values.max() < high
    assert viz.plot_optimizer_paths(lambda x, y: 3.0, "adam", (0, 0), 2, resolution=5).lines
    everywhere = viz.plot_optimizer_paths(
        lambda x, y: np.log(x) ** 2 + y**2, "adam", (1, 1), 2, extent=(-1, 2), resolution=9
    )
    assert everywhere.collections  # though there is no loss left of 0


def test_the_animation_begins_at_the_start_and_ends_with_the_whole_paths(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from PIL import Image

    path = viz.animate_optimizer_paths(
        "ravine", [optimizers.SGD(0.9), "adam"], tmp_path / "p.gif", steps=8, resolution=10
    )
    with Image.open(path) as gif:
        assert gif.n_frames == 9
        gif.seek(0)
        first = np.array(gif.convert("RGB"), int)
        gif.seek(8)
        assert (np.abs(np.array(gif.convert("RGB"), int) - first).sum(axis=2) > 60).mean() > 0.002
    monkeypatch.setattr("xpnet.viz.descent.FRAMES", 5)
    long = viz.animate_optimizer_paths("ravine", "adam", tmp_path / "l.gif", steps=500, resolution=5)
    with Image.open(long) as gif:
        assert gif.n_frames == 5


def test_each_frame_shows_the_paths_up_to_its_step(monkeypatch):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    seen = []

    def each(fig, draw, frames, path, fps):
        for step in frames:
            draw(step)
            line, end = fig.axes[0].lines[:2]
            seen.append((line.get_xydata().copy(), end.get_xydata().copy(), fig.axes[0].get_title()))

    monkeypatch.setattr("xpnet.viz.descent.animate", each)
    viz.animate_optimizer_paths("ravine", optimizers.SGD(0.9), "p.gif", steps=5, resolution=5)
    path = viz.optimizer_path("ravine", optimizers.SGD(0.9), steps=5)
    assert [title for _, _, title in seen] == [f"Step {step}" for step in range(6)]
    for step, (line, end, _) in enumerate(seen):
        np.testing.assert_array_equal(line, path[: step + 1])
        np.testing.assert_array_equal(end, path[step : step + 1])


@pytest.mark.parametrize(
    "given, kind, words",
    [
        (("beele", "sgd"), ValueError, "Did you mean 'beale'"),
        ((3.0, "sgd"), TypeError, "surface must be a function of two numbers"),
        ((bowl, "sgd"), ValueError, "needs a start"),
        ((bowl, "sgd", (1, 2, 3)), ValueError, "two finite numbers"),
        ((bowl, "sgd", (1, np.nan)), ValueError, "two finite numbers"),
        ((lambda x, y: np.inf, "sgd", (1, 1)), ValueError, "at the start is not finite"),
        ((lambda x, y: (x, y), "sgd", (1, 1)), ValueError, r"one number.*shape \(2,\)"),
        ((bowl, "sgdd", (1, 1)), ValueError, "unknown optimizer"),
        ((bowl, "sgd", (1, 1), 0), ValueError, "steps must be"),
        ((bowl, "sgd", (1, 1), 3, lambda x, y: 1.0), ValueError, "df/dx and df/dy"),
    ],
)
def test_unusable_surfaces_and_starts_are_refused(given, kind, words):
    with pytest.raises(kind, match=words):
        viz.optimizer_path(*given)


def test_unusable_views_are_refused():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    with pytest.raises(ValueError, match="no optimizer to follow"):
        viz.plot_optimizer_paths("beale", [])
    with pytest.raises(ValueError, match="extent must be"):
        viz.plot_optimizer_paths("beale", "sgd", extent=(1, 0))
    with pytest.raises(ValueError, match="resolution must be"):
        viz.plot_optimizer_paths("beale", "sgd", resolution=1)


# -- the loss of a model -------------------------------------------------------------------------------------

X, Y = np.random.default_rng(0).random((30, 1, 6, 6), dtype=np.float32), np.arange(30) % 3


def network(**more):
    made = Sequential(
        [L.Conv2D(4, 3, activation="relu"), L.BatchNormalization(), L.Flatten(), L.Dense(3)],
        **{"input_shape": (1, 6, 6), "seed": 0, "device": "cpu"} | more,
    )
    made.compile(optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    return made


def test_the_middle_is_the_models_loss_and_the_model_stays():
    net = network()
    net.fit(X, Y, epochs=2, verbose=0)
    before = {name: a.tobytes() for name, a in net.state_dict().items()}
    surface = viz.loss_surface(net, X, Y, resolution=3, span=0.5)
    assert surface.losses.shape == (3, 3) and surface.path is None
    assert surface.losses[1, 1] == pytest.approx(net.evaluate(X, Y)[0], rel=1e-6)
    assert (surface.a.tolist(), surface.b.tolist()) == ([-0.5, 0, 0.5], [-0.5, 0, 0.5])
    assert {name: a.tobytes() for name, a in net.state_dict().items()} == before
    again = viz.loss_surface(net, X, Y, resolution=3, span=0.5)
    np.testing.assert_array_equal(surface.losses, again.losses)
    other = viz.loss_surface(net, X, Y, resolution=3, span=0.5, seed=1)
    assert np.abs(other.losses - surface.losses).max() > 1e-4


def test_directions_are_as_long_as_the_filters_and_leave_vectors_alone():
    from xpnet.viz.landscape import _random

    net = Sequential(
        [L.Conv2D(4, 3), L.BatchNormalization(), L.LayerNormalization(), L.Flatten(), L.Dense(3)],
        input_shape=(1, 6, 6), seed=0,
    )  # fmt: skip
    slots = {name: slot for name, slot in net._named_slots() if slot in net.params.slots}
    weights = {name: a.astype(float) for name, a in net.state_dict().items() if name in slots}
    direction = _random(weights, slots, np.random.default_rng(0))
    for name in ("0.weight", "4.weight"):
        w, d = (a[name].reshape(len(a[name]), -1) for a in (weights, direction))
        np.testing.assert_allclose(np.linalg.norm(d, axis=1), np.linalg.norm(w, axis=1))
    assert weights["2.weight"].shape == (4, 4, 4)  # that of each pixel, and no filter
    assert not any(d.any() for name, d in direction.items() if name not in ("0.weight", "4.weight"))


def test_rows_go_along_the_second_direction_and_columns_along_the_first():
    from xpnet.viz.landscape import _random

    net = network()
    slots = {name: slot for name, slot in net._named_slots() if slot in net.params.slots}
    weights = {name: a.astype(float) for name, a in net.state_dict().items() if name in slots}
    rng = np.random.default_rng(5)
    first, second = _random(weights, slots, rng), _random(weights, slots, rng)
    surface = viz.loss_surface(net, X, Y, resolution=3, seed=5)
    moved = {name: w + first[name] - 1.0 * second[name] for name, w in weights.items()}
    net.load_state_dict(moved, strict=False)
    assert surface.losses[0, 2] == pytest.approx(net.evaluate(X, Y)[0], rel=1e-5)
    assert abs(surface.losses[2, 0] - surface.losses[0, 2]) > 1e-3


def test_frozen_layers_do_not_move():
    net = network()
    net.layers[-1].trainable = False
    whole = viz.loss_surface(network(), X, Y, resolution=3)
    part = viz.loss_surface(net, X, Y, resolution=3)
    assert np.abs(part.losses - whole.losses).max() > 1e-3
    for layer in net.layers:
        layer.trainable = False
    with pytest.raises(ValueError, match="no trainable parameters"):
        viz.loss_surface(net, X, Y)


def test_the_way_of_a_training_lies_in_its_plane():
    history, net = WeightHistory(save_freq=1), network()
    net.fit(X, Y, epochs=4, batch_size=10, verbose=0, callbacks=[history])
    surface = viz.loss_surface(net, X, Y, history, resolution=9)
    assert surface.path.shape == (13, 2)
    np.testing.assert_allclose(surface.path[-1], 0, atol=1e-6)
    for line, grid in zip(surface.path.T, (surface.a, surface.b)):
        assert grid[0] < line.min() and line.max() < grid[-1]
    flat = np.concatenate([w.reshape(13, -1) for w in history.weights.values()], axis=1).astype(float)
    far, seen = ((a - a[-1]) ** 2 for a in (flat, surface.path))
    np.testing.assert_allclose(surface.shares, seen.sum(axis=0) / far.sum(), rtol=1e-5)
    assert surface.shares[0] > surface.shares[1] > 0
    # and its end is the model's loss: the point of the grid nearest to it is about as low
    column, row = np.abs(surface.a).argmin(), np.abs(surface.b).argmin()
    assert surface.losses[row, column] == pytest.approx(net.evaluate(X, Y)[0], rel=0.2)


def test_the_pictures_of_a_surface():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    a = np.linspace(-1, 1, 5)
    losses = a[None] ** 2 + a[:, None] ** 2
    losses[0, 0] = np.inf
    flat = viz.plot_loss_surface(viz.LossSurface(a, a, losses))
    assert [t.get_text() for t in flat.get_legend().get_texts()] == ["the model"]
    way = viz.plot_loss_surface(viz.LossSurface(a, a, losses, np.array([[0.5, 0.5], [0, 0]]), (0.7, 0.2)))
    assert [t.get_text() for t in way.get_legend().get_texts()] == ["the way there", "start", "end"]
    assert way.get_xlabel() == "direction 1, 70% of the way"
    relief = viz.plot_loss_surface(viz.LossSurface(a, a, losses), projection="3d")
    assert relief.name == "3d" and relief.get_zlabel() == "loss"
    viz.plot_loss_surface(viz.LossSurface(a, a, np.ones((5, 5))))
    with pytest.raises(TypeError, match="what loss_surface returned"):
        viz.plot_loss_surface(losses)
    with pytest.raises(ValueError, match="three dimensions"):
        viz.plot_loss_surface(viz.LossSurface(a, a, losses), "3d", ax=viz.figure().add_subplot())
    with pytest.raises(ValueError, match="projection must be"):
        viz.plot_loss_surface(viz.LossSurface(a, a, losses), projection="polar")


def test_surfaces_that_cannot_be_are_refused():
    net, history = network(), WeightHistory()
    net.fit(X, Y, epochs=1, verbose=0, callbacks=[history])
    with pytest.raises(ValueError, match="at least 3 moments"):
        viz.loss_surface(net, X, Y, history)
    part = WeightHistory("dense")
    net.fit(X, Y, epochs=3, verbose=0, callbacks=[part])
    with pytest.raises(ValueError, match=r"Expected: 0\.weight, .* too, as WeightHistory\(\) without layer="):
        viz.loss_surface(net, X, Y, part)
    with pytest.raises(TypeError, match=r"must be a callbacks.WeightHistory"):
        viz.loss_surface(net, X, Y, net.history)
    with pytest.raises(ShapeError, match=r"Received: \(30, 36\)"):
        viz.loss_surface(net, X.reshape(30, 36), Y)
    for wish, words in (({"span": 0}, "span must be"), ({"resolution": 2}, "resolution must be")):
        with pytest.raises(ValueError, match=words):
            viz.loss_surface(net, X, Y, **wish)
    with pytest.raises(NotCompiledError):
        viz.loss_surface(Sequential([L.Dense(2)], input_shape=(3,)), X, Y)
    unbuilt = Sequential([L.Dense(2)])
    unbuilt.compile("sgd", "mse")
    with pytest.raises(NotBuiltError):
        viz.loss_surface(unbuilt, X, Y)
