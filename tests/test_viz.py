"""Pictures: what is drawn is what was given, files are whole, and nothing needs a display or stays open."""

import subprocess
import sys

import numpy as np
import pytest

from xpnet import Sequential, layers, metrics, viz
from xpnet.callbacks import History
from xpnet.viz.grids import ENLARGED

pytest.importorskip("matplotlib", reason="pictures need matplotlib")


def sure_of_class_by_sign_of_x(points):
    """Two classes, divided at x = 0: probabilities (N, 2)."""
    p = 1 / (1 + np.exp(-5 * points[:, 0]))
    return np.stack([1 - p, p], axis=1)


def pixels(axes):
    """The picture of axes as the file will have it, (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(axes.figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def texts_of(figure):
    """The bounding boxes of all visible, non-empty texts of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    unseen = set()  # matplotlib keeps ticks beyond the ends of an axis and does not draw them
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                unseen |= {tick.label1, tick.label2}
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in unseen]
    return [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in shown]


def assert_every_text_is_legible(figure):
    found = texts_of(figure)
    for text, box in found:
        assert figure.bbox.contains(box.x0, box.y0) and figure.bbox.contains(box.x1, box.y1), (
            f"{text!r} is cut"
        )
    for i, (a, box) in enumerate(found):
        for b, other in found[i + 1 :]:
            assert not box.shrunk(0.98, 0.98).overlaps(other), f"{a!r} overlaps {b!r}"


def loaded_after(code):
    """Which modules a fresh interpreter has loaded after code."""
    script = f"import sys\n{code}\nprint(*sorted(m for m in sys.modules if m.startswith('matplotlib')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_viz_loads_no_matplotlib_and_drawing_loads_no_pyplot(tmp_path):
    assert loaded_after("from xpnet import viz") == []
    drawn = loaded_after(
        "from xpnet import viz\n"
        f"viz.save(viz.plot_history({{'loss': [2, 1]}}), {str(tmp_path / 'a.png')!r})\n"
        f"viz.animate_decision_regions([[[[1, 0]] * 3] * 3], {str(tmp_path / 'a.gif')!r})"
    )
    assert "matplotlib.figure" in drawn and "matplotlib.pyplot" not in drawn


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'xpnet\[plot\]'"):
        viz.plot_history({"loss": [1.0]})
    with pytest.raises(ImportError, match=r"pip install 'xpnet\[plot\]'"):
        viz.figure()


def test_the_house_style_colours_whatever_is_drawn_in_it():
    from xpnet.viz.style import PALETTE

    with viz.style():
        ax = viz.figure().add_subplot()
        lines = [ax.plot([0, 1])[0] for _ in range(3)]
    assert [line.get_color() for line in lines] == list(PALETTE[:3])


def test_the_users_matplotlib_settings_are_left_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    viz.plot_confusion_matrix([[1]])
    assert dict(matplotlib.rcParams) == before


# -- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, magic", [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.svg", b"<?xml")])
def test_save_writes_the_format_of_the_ending_from_axes_arrays_and_figures(tmp_path, name, magic):
    axes = viz.plot_images(np.eye(4)[None])
    for drawn in (axes, axes[0], axes[0].figure):
        path = viz.save(drawn, tmp_path / name)
        assert path.read_bytes().startswith(magic)


def test_a_failed_save_leaves_the_old_file_and_no_fragment(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("old")
    figure = viz.figure()

    def half(self, target):
        target.write_bytes(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(type(figure), "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        viz.save(figure, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_failed_animation_leaves_no_file(tmp_path):
    right, wrong = np.full((5, 5, 2), 0.5), np.full((5, 5, 0), 0.5)
    with pytest.raises(ValueError):
        viz.animate_decision_regions([right, wrong], tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []


def test_unusable_paths_are_refused(tmp_path):
    figure = viz.figure()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        viz.save(figure, tmp_path / "missing" / "a.png")
    with pytest.raises(ValueError, match="ends in its format"):
        viz.save(figure, tmp_path / "a")
    with pytest.raises(ValueError, match=r"ends in \.gif"):
        viz.animate_decision_regions([np.full((5, 5, 2), 0.5)], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


# -- training curves -----------------------------------------------------------------------------------------


def trained():
    model = Sequential([layers.Dense(3)], input_shape=(2,), seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy", "confusion_matrix"])
    x, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    return model.fit(x, y, epochs=4, validation_split=0.3, verbose=0)


def test_history_shows_loss_and_metrics_with_their_validation():
    history = trained()
    for ax in (viz.plot_history(history), history.plot(), viz.plot_history(history.history)):
        right = ax.figure.axes[1]
        curves = {line.get_label(): line for line in [*ax.lines, *right.lines]}
        assert set(curves) == {
            "loss, training",
            "loss, validation",
            "accuracy, training",
            "accuracy, validation",
        }
        for label, key in (("loss, training", "loss"), ("accuracy, validation", "val_accuracy")):
            np.testing.assert_array_equal(curves[label].get_xdata(), [1, 2, 3, 4])
            np.testing.assert_array_equal(curves[label].get_ydata(), history.history[key])
        assert [line.get_label().split(",")[0] for line in right.lines] == ["accuracy", "accuracy"]
        assert (ax.get_ylabel(), right.get_ylabel()) == ("loss", "accuracy")
        assert [t.get_text() for t in ax.get_legend().get_texts()] == list(curves)
        assert_every_text_is_legible(ax.figure)


def test_a_single_epoch_is_visible():
    one = viz.plot_history({"loss": [0.5]})
    assert one.lines[0].get_marker() == "o"
    none = viz.plot_history({"loss": [0.5]}, ax=viz.figure().add_subplot())
    none.lines[0].remove()
    assert not np.array_equal(pixels(one), pixels(none))


def test_a_resumed_run_keeps_its_epoch_numbers():
    model = Sequential([layers.Dense(1)], input_shape=(2,), seed=0)
    model.compile("sgd", "mse")
    history = model.fit(np.ones((8, 2)), np.ones(8), epochs=5, initial_epoch=3, verbose=0)
    np.testing.assert_array_equal(viz.plot_history(history).lines[0].get_xdata(), [4, 5])


def test_history_without_curves_is_refused():
    with pytest.raises(ValueError, match="nothing to plot"):
        viz.plot_history({})
    with pytest.raises(TypeError, match="Received: list"):
        viz.plot_history([1, 2])


# -- decision regions ----------------------------------------------------------------------------------------


def test_all_points_of_the_plane_are_predicted_in_one_call_in_their_places():
    calls = []

    def predict(points):
        calls.append(points)
        return sure_of_class_by_sign_of_x(points)

    p = viz.decision_regions(predict, (-15, 15), 100)
    assert p.shape == (100, 100, 2) and len(calls) == 1 and calls[0].shape == (10000, 2)
    np.testing.assert_allclose(
        calls[0].reshape(100, 100, 2)[7, 93], [-15 + 93 * 30 / 99, -15 + 7 * 30 / 99], 1e-5
    )


def test_regions_have_the_colour_of_the_class_and_the_opacity_of_its_confidence():
    from matplotlib.colors import to_rgba

    from xpnet.viz.style import PALETTE

    ax = viz.plot_decision_regions(sure_of_class_by_sign_of_x, (-1, 1, -3, 3), resolution=21)
    image = ax.images[0]
    a = image.get_array()
    np.testing.assert_allclose(a[0, 0, :3], to_rgba(PALETTE[0])[:3])
    np.testing.assert_allclose(a[0, -1, :3], to_rgba(PALETTE[1])[:3])
    assert a[5, 10, 3] < 1e-6 < 0.1 < a[5, 11, 3] < a[5, 12, 3] < a[5, 20, 3]  # chance in the middle
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (-3, 3))
    left, right, bottom, top = image.get_extent()
    assert (right - left) / 21 == pytest.approx(2 / 20) and (left + right, bottom + top) == (0, 0)
    assert image.origin == "lower"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["class 0", "class 1"]


def test_one_output_is_the_probability_of_the_second_class():
    one = viz.decision_regions(lambda x: sure_of_class_by_sign_of_x(x)[:, 1:], resolution=9)
    flat = viz.decision_regions(lambda x: sure_of_class_by_sign_of_x(x)[:, 1], resolution=9)
    two = viz.decision_regions(sure_of_class_by_sign_of_x, resolution=9)
    np.testing.assert_allclose(one, two, atol=1e-7)
    np.testing.assert_allclose(flat, two, atol=1e-7)


@pytest.mark.parametrize(
    "predict, words",
    [
        (lambda x: 5 * x, "rows that sum to 1"),
        (lambda x: np.full((len(x), 2), np.nan), "must return probabilities"),
        (lambda x: x[:3], "10000 points"),
        (lambda x: 1.0, r"Received: shape \(\)"),
    ],
)
def test_what_is_no_probability_is_refused(predict, words):
    with pytest.raises(ValueError, match=words):
        viz.plot_decision_regions(predict)


def test_a_model_instead_of_its_predict_is_refused():
    with pytest.raises(TypeError, match=r"model\.predict"):
        viz.plot_decision_regions(Sequential([layers.Dense(2)], input_shape=(2,)))
    with pytest.raises(ValueError, match="extent must be"):
        viz.plot_decision_regions(sure_of_class_by_sign_of_x, (3, -3))


def test_points_of_each_class_have_a_mark_and_a_legend():
    x, y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])
    ax = viz.plot_points(x, y, labels=["a", "b", "c"])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "c"]
    np.testing.assert_array_equal(ax.collections[1].get_offsets(), x[y == 1])
    with pytest.raises(ValueError, match=r"Received: \(6, 2\) and \(5,\)"):
        viz.plot_points(x, y[:5])


def test_the_animation_has_the_frames_in_order_and_rests_on_the_last(tmp_path):
    from PIL import Image

    def plane(p):
        return np.broadcast_to([p, 1 - p], (6, 6, 2))

    x, y = np.array([[0.0, 0.0], [5.0, 5.0]]), np.array([0, 1])
    path = viz.animate_decision_regions(
        [plane(1.0), plane(0.75), plane(0.0)], tmp_path / "a.gif", (-9, 9), points=(x, y), fps=10
    )
    with Image.open(path) as gif:
        assert gif.format == "GIF" and gif.n_frames == 3 and gif.info.get("loop") == 0
        colors, durations = [], []
        for i in range(3):
            gif.seek(i)
            durations.append(gif.info["duration"])
            colors.append(np.array(gif.convert("RGB").getpixel((120, 300)), dtype=int))
    assert durations[:2] == [100, 100] and durations[2] > 2000
    first, fainter, other = colors
    assert first[2] > first[0] and other[0] > other[2]  # blue for class 0, red for class 1
    assert fainter.sum() > first.sum()


def test_animation_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="needs frames"):
        viz.animate_decision_regions([], tmp_path / "a.gif")
    for frame, got in (
        (print, "<built-in function print>"),
        (np.ones((4, 4)), r"an array of shape \(4, 4\)"),
    ):
        with pytest.raises(ValueError, match=f"what decision_regions returned. Received: {got}"):
            viz.animate_decision_regions([frame], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="2 titles, 1 frames"):
        viz.animate_decision_regions([np.full((5, 5, 2), 0.5)], tmp_path / "a.gif", titles=["a", "b"])


# -- images, kernels, feature maps ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 1, 4, 3), (5, 3, 4, 6)])
def test_images_are_shown_as_they_are(shape):
    images = np.random.default_rng(0).random(shape)
    axes = viz.plot_images(images, titles="abcde", columns=3)
    assert axes.shape == (5,) and [ax.get_title() for ax in axes] == list("abcde")
    expected = images[2].transpose(1, 2, 0) if shape[1] == 3 else images[2].reshape(4, 3)
    np.testing.assert_allclose(axes[2].images[0].get_array(), expected)
    assert axes[3].get_subplotspec().rowspan.start == 1  # three in a row
    assert len({ax.images[0].get_clim() for ax in axes}) == 1  # one scale: brightness can be compared


def test_colour_images_beyond_one_are_scaled_not_clipped(recwarn):
    axes = viz.plot_images(np.linspace(-1, 3, 12).reshape(1, 3, 2, 2))
    a = axes[0].images[0].get_array()
    assert a.min() == 0 and a.max() == 1 and len(np.unique(a)) == 12
    pixels(axes[0])
    assert not recwarn


@pytest.mark.parametrize("shape", [(4, 4), (2, 5, 4, 4), (0, 4, 4)])
def test_arrays_that_are_no_images_are_refused(shape):
    with pytest.raises(ValueError, match="images must be"):
        viz.plot_images(np.zeros(shape))


def test_wrong_number_of_titles_is_refused():
    with pytest.raises(ValueError, match="1 titles for 2 images"):
        viz.plot_images(np.zeros((2, 3, 3)), titles=["a"])


def test_kernels_of_a_layer_are_those_of_the_state_dict():
    model = Sequential([layers.Conv2D(2, (3, 2)), layers.Conv2D(4, 3)], input_shape=(3, 9, 9), seed=0)
    for layer, name in zip(model.layers, ("0.weight", "1.weight")):
        weights = model.state_dict()[name]
        for axes in (viz.plot_kernels(layer), viz.plot_kernels(weights)):
            assert len(axes) == len(weights)
            tiles = np.ma.filled(axes[1].images[0].get_array(), np.nan)
            KH, KW = weights.shape[2:]
            H, W = KH * ENLARGED, KW * ENLARGED
            np.testing.assert_allclose(tiles[:H:ENLARGED, :W:ENLARGED], weights[1, 0])
            np.testing.assert_allclose(tiles[:H:ENLARGED, W + 1 : 2 * W + 1 : ENLARGED], weights[1, 1])
            assert np.isnan(tiles[:, W]).all()  # a gap between them
            low, high = axes[0].images[0].get_clim()
            assert -low == high == pytest.approx(np.abs(weights).max())  # white is zero


def test_layers_without_kernels_are_refused():
    model = Sequential([layers.Flatten(), layers.Dense(2)], input_shape=(1, 3, 3))
    with pytest.raises(ValueError, match="no weights to show"):
        viz.plot_kernels(model.layers[0])
    with pytest.raises(ValueError, match=r"must be \(F, C, KH, KW\). Received: \(2, 9\)"):
        viz.plot_kernels(model.layers[1])
    with pytest.raises(ValueError, match="no weights to show"):
        viz.plot_kernels(layers.Conv2D(3, 3))


def test_feature_maps_have_one_scale_that_shows_the_sign():
    maps = np.random.default_rng(0).normal(size=(6, 4, 4))
    axes = viz.plot_feature_maps(maps[None])
    np.testing.assert_allclose(axes[4].images[0].get_array(), maps[4])
    limit = np.abs(maps).max()
    assert axes[0].images[0].get_clim() == (-limit, limit)
    assert viz.plot_feature_maps(np.abs(maps))[0].images[0].get_clim() == (0, limit)
    with pytest.raises(ValueError, match="of one sample"):
        viz.plot_feature_maps(np.zeros((2, 3, 4, 4)))


def test_grids_go_into_a_part_of_a_figure(tmp_path):
    figure = viz.figure(8, 4)
    upper, lower = figure.subfigures(2, 1)
    images = viz.plot_images(np.random.default_rng(0).random((3, 4, 4)), fig=upper)
    viz.plot_kernels(np.ones((3, 1, 3, 3)), fig=lower)
    assert len(figure.axes) == 7 and images[0].figure is upper
    assert_every_text_is_legible(figure)
    viz.save(images, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]


# -- confusion matrix ----------------------------------------------------------------------------------------


def test_confusion_matrix_shows_counts_where_the_metric_put_them():
    y, p = np.array([0, 0, 0, 1, 2, 2]), np.eye(3)[[0, 0, 1, 1, 2, 0]]
    ax = viz.plot_confusion_matrix(metrics.ConfusionMatrix()(y, p), labels=["cat", "dog", "elephant"])
    shown = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in ax.texts}
    assert shown[0, 0] == "2" and shown[0, 1] == "1" and shown[2, 0] == "1" and shown[1, 2] == "0"
    np.testing.assert_allclose(ax.images[0].get_array()[0], [2 / 3, 1 / 3, 0])  # shades are shares of the row
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert "66.67%" in ax.get_title()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["cat", "dog", "elephant"]


def test_confusion_matrix_of_absent_classes_and_of_many():
    pixels(viz.plot_confusion_matrix(np.zeros((2, 2))))
    assert not viz.plot_confusion_matrix(np.eye(50)).texts
    assert_every_text_is_legible(viz.plot_confusion_matrix(1000 * np.eye(10)).figure)


def test_matrices_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"Received: shape \(2, 3\)"):
        viz.plot_confusion_matrix(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="1 labels for 2 classes"):
        viz.plot_confusion_matrix(np.eye(2), labels=["a"])


def test_curves_that_were_measured_now_and_then_stand_at_their_epochs():
    history = History()
    for epoch in range(4):
        history.on_epoch_end(epoch, {"loss": 4.0 - epoch} | ({"val_loss": 5.0} if epoch in (1, 3) else {}))
    lines = viz.plot_history(history).get_lines()
    assert [list(line.get_xdata()) for line in lines] == [[1, 2, 3, 4], [2, 4]]
