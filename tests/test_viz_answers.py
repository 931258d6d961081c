"""Mistakes, confusions and the walk through the layers: what a model answers is what is drawn."""

import numpy as np
import pytest

from xpnet import Sequential, ShapeError, viz
from xpnet import layers as L
from xpnet.errors import NotBuiltError

pytest.importorskip("matplotlib", reason="pictures need matplotlib")

RNG = np.random.default_rng(0)
P = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.8, 0.1, 0.1], [0.05, 0.95, 0.0]])
IMAGES = RNG.random((5, 1, 4, 4))


def classifier(ending="softmax", units=3, **more):
    made = Sequential(
        [
            L.Conv2D(6, 3, activation="relu"),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dense(units, activation=ending),
        ],
        **{"input_shape": (1, 8, 8), "seed": 0} | more,
    )
    made.compile("sgd", "binary_crossentropy" if units == 1 else "sparse_categorical_crossentropy")
    return made


# -- mistakes ------------------------------------------------------------------------------------------------


def test_the_most_confident_mistake_comes_first():
    y = np.array([1, 1, 1, 2, 0])  # samples 0, 2, 3 and 4 are wrong, 0.9, 0.6, 0.8 and 0.95 sure
    axes = viz.plot_mistakes(P, IMAGES, y, labels=["cat", "dog", "elephant in the living room"], count=3)
    assert [ax.get_title().split("\n") for ax in axes] == [
        ["cat", "taken for dog", "95.0% sure"],
        ["dog", "taken for cat", "90.0% sure"],
        ["elephant in the l…", "taken for cat", "80.0% sure"],
    ]
    for ax, i in zip(axes, (4, 0, 3)):
        np.testing.assert_array_equal(ax.images[0].get_array(), IMAGES[i, 0])
    assert axes[0].figure.get_suptitle() == "4 of 5 are wrong; the worst 3"
    one_hot = viz.plot_mistakes(P, IMAGES, np.eye(3)[y])
    assert len(one_hot) == 4 and one_hot[0].figure.get_suptitle() == "4 of 5 are wrong"


def test_where_nothing_is_wrong_the_picture_says_so(tmp_path):
    axes = viz.plot_mistakes(P, IMAGES, P.argmax(axis=1))
    assert axes.shape == (1,) and "all 5 are right" in axes[0].texts[0].get_text()
    assert viz.save(axes, tmp_path / "none.png").stat().st_size > 0


@pytest.mark.parametrize("ending", ["softmax", None, "log"])
def test_mistakes_of_a_model_are_those_of_its_predictions(ending):
    from xpnet.activations import LogSoftmax

    model = classifier(LogSoftmax() if ending == "log" else ending)
    x = RNG.normal(size=(30, 1, 8, 8)).astype(np.float32)
    z = model.predict(x).astype(float)
    p = z if ending == "softmax" else np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (p.argmax(axis=1) + 1) % 3
    axes = viz.plot_mistakes(model, x, y, count=30)
    sure = [float(ax.get_title().split("\n")[2].split("%")[0]) for ax in axes]
    np.testing.assert_allclose(sure, sorted(100 * p.max(axis=1), reverse=True), atol=0.0501)


def test_one_output_tells_two_classes_apart():
    model = classifier("sigmoid", 1)
    x = RNG.normal(size=(30, 1, 8, 8)).astype(np.float32)
    p = model.predict(x)[:, 0]
    y = (p <= 0.5).astype(int)  # all wrong
    axes = viz.plot_mistakes(model, x, y, count=30)
    worst = np.abs(p - 0.5).argmax()
    assert axes[0].get_title() == (
        f"{y[worst]}\ntaken for {1 - y[worst]}\n{max(p[worst], 1 - p[worst]):.1%} sure"
    )
    logits = classifier(None, 1)
    logits.set_weights(model.get_weights())
    assert viz.plot_mistakes(logits, x, y)[0].get_title() == axes[0].get_title()


def test_classifiers_of_scikit_learn_and_their_own_labels_are_taken():
    from sklearn.linear_model import LogisticRegression

    x, y = RNG.random((60, 16)), np.array(["ant", "bee"])[np.arange(60) % 2]
    net = LogisticRegression().fit(x, y)
    axes = viz.plot_mistakes(net, x, y)
    wrong = np.flatnonzero(net.predict(x) != y)
    assert len(wrong) > 0 and len(axes) == min(len(wrong), 16)
    i = wrong[net.predict_proba(x)[wrong].max(axis=1).argmax()]
    assert axes[0].get_title().startswith(f"{y[i]}\ntaken for")
    np.testing.assert_array_equal(axes[0].images[0].get_array(), x[i].reshape(4, 4))  # vectors become squares
    counts = viz.plot_confusion_matrix(net, x, y).images[0].get_array()
    assert counts[0, 1] == pytest.approx(np.mean(net.predict(x)[y == "ant"] == "bee"))


def test_channels_last_images_are_shown_upright():
    model = classifier(data_format="channels_last", input_shape=(8, 8, 3))
    x = RNG.random((6, 8, 8, 3)).astype(np.float32)
    y = (model.predict(x).argmax(axis=1) + 1) % 3
    axes = viz.plot_mistakes(model, x, y)
    shown = [np.asarray(ax.images[0].get_array()) for ax in axes]
    assert sorted(a.tobytes() for a in shown) == sorted(a.tobytes() for a in x)


@pytest.mark.parametrize(
    "given, words",
    [
        ((P, IMAGES, [0, 1, 2, 3, 0]), "does not know. Received: .*3.* in sample 3"),
        ((P, IMAGES, [0, 1]), "Received: 5 in x, 2 in y"),
        ((P[:3], IMAGES, [0, 1, 2]), "Received: 3 in the probabilities, 5 in x"),
        ((P, RNG.random((5, 4, 4, 4)), [0, 1, 2, 0, 0]), "images must be"),
        ((P, IMAGES, np.zeros((5, 2))), "a class a sample"),
        ((P[..., None], IMAGES, [0] * 5), "each sample needs its probabilities"),
        ((P, IMAGES, [1] * 5, ["a", "b"]), "2 labels for 3 classes"),
        ((P, IMAGES, [1] * 5, None, 0), "count must be"),
    ],
)
def test_what_does_not_fit_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        viz.plot_mistakes(*given)


def test_a_model_that_tells_no_classes_apart_is_refused():
    model = Sequential([L.Flatten(), L.Dense(1)], input_shape=(1, 4, 4), seed=0)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="tells no classes apart"):
        viz.plot_mistakes(model, IMAGES, np.zeros(5, int))
    maps = Sequential([L.Conv2D(3, 1, activation="softmax")], input_shape=(1, 4, 4), seed=0)
    with pytest.raises(ShapeError, match=r"Received: shape \(5, 3, 4, 4\)"):
        viz.plot_confusion_matrix(maps, IMAGES, np.zeros(5, int))


# -- confusion matrix ----------------------------------------------------------------------------------------


def drawn(ax):
    """The counts that are written, as a matrix."""
    found = {(round(t.get_position()[1]), round(t.get_position()[0])): float(t.get_text()) for t in ax.texts}
    K = max(i for i, _ in found) + 1
    return np.array([[found[i, j] for j in range(K)] for i in range(K)])


def names(ax):
    return [t.get_text() for t in ax.get_yticklabels()]


def test_true_and_predicted_classes_are_counted_as_scikit_learn_does():
    from sklearn.metrics import confusion_matrix

    y, p = RNG.integers(0, 4, 50), RNG.integers(0, 4, 50)
    expected = confusion_matrix(y, p)
    np.testing.assert_array_equal(drawn(viz.plot_confusion_matrix(y, p)), expected)
    words = np.array(["d", "a", "c", "b"])
    ax = viz.plot_confusion_matrix(list(words[y]), words[p])
    np.testing.assert_array_equal(drawn(ax), confusion_matrix(words[y], words[p]))
    assert names(ax) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(drawn(viz.plot_confusion_matrix(y, np.eye(4)[p])), expected)
    gap = viz.plot_confusion_matrix([7, 7, 2], [2, 7, 2])
    assert names(gap) == ["2", "7"] and drawn(gap).tolist() == [[1, 0], [1, 1]]


def test_classes_that_were_not_met_stand_there_where_they_are_named():
    ax = viz.plot_confusion_matrix([0, 2], [2, 2], labels=["ant", "bee", "cow"])
    assert drawn(ax).tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert names(ax) == ["ant", "bee", "cow"] and "50.00%" in ax.get_title()


@pytest.mark.parametrize("ending, units", [("softmax", 3), (None, 3), ("sigmoid", 1), (None, 1)])
def test_a_model_and_samples_give_the_counts_of_its_predictions(ending, units):
    from sklearn.metrics import confusion_matrix

    model = classifier(ending, units)
    x = RNG.normal(size=(40, 1, 8, 8)).astype(np.float32)
    z = model.predict(x)
    answers = (z[:, 0] > (0.5 if ending else 0)).astype(int) if units == 1 else z.argmax(axis=1)
    y = RNG.integers(0, max(units, 2), 40)
    ax = viz.plot_confusion_matrix(model, x, y)
    np.testing.assert_array_equal(drawn(ax), confusion_matrix(y, answers, labels=range(max(units, 2))))


@pytest.mark.parametrize(
    "of, words",
    [
        (([[1, 2], [3, 4]], ["a", "b"]), "names of classes go to labels="),
        (([0, 1], [0.2, 0.9]), r"p > 0\.5 makes them"),
        (([0, 1, 1], [0, 1]), "3 classes, 2 answers"),
        (([], []), "at least one"),
        (([[1, -2], [3, 4]],), "finite and not negative"),
        (([[1, np.nan], [3, 4]],), "finite and not negative"),
        ((P, IMAGES, [0, 1, 2, 3, 0]), "does not know"),
    ],
)
def test_what_cannot_be_counted_is_refused(of, words):
    with pytest.raises(ValueError, match=words):
        viz.plot_confusion_matrix(*of)


def test_too_many_things_to_count_are_refused():
    with pytest.raises(TypeError, match="Received: 4 of them; labels and ax go by name"):
        viz.plot_confusion_matrix([0], [0], [0], ["a"])


def test_many_classes_are_named_as_long_as_there_is_room():
    forty = viz.plot_confusion_matrix(np.eye(40), labels=[f"class number {k}" for k in range(40)])
    assert names(forty)[7] == "class number 7" and not forty.texts
    hundred = viz.plot_confusion_matrix(np.eye(100))
    assert len(hundred.get_yticks()) < 20


# -- feature maps and the walk through the layers ------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_feature_maps_come_straight_from_model_and_image(data_format):
    shape = (1, 8, 8) if data_format == "channels_first" else (8, 8, 1)
    model = classifier(data_format=data_format, input_shape=shape)
    x = RNG.random(shape).astype(np.float32)
    for layer, label in ((None, "conv2d"), ("max_pooling2d", "max_pooling2d"), (1, "max_pooling2d")):
        maps = model.layer_outputs(x[None])[label][0]
        maps = maps if data_format == "channels_first" else maps.transpose(2, 0, 1)
        for given in (x, x[None]):
            axes = viz.plot_feature_maps(model, x=given, layer=layer)
            assert len(axes) == 6 and label in axes[0].figure.get_suptitle()
            np.testing.assert_array_equal(axes[4].images[0].get_array(), maps[4])
    by_itself = viz.plot_feature_maps(model, x=x, layer=model.layers[1])
    assert "max_pooling2d: 6 x 3 x 3" in by_itself[0].figure.get_suptitle()


def test_feature_maps_of_nothing_are_refused():
    model = classifier()
    x = np.ones((2, 1, 8, 8), np.float32)
    with pytest.raises(TypeError, match="needs the sample"):
        viz.plot_feature_maps(model)
    with pytest.raises(ShapeError, match=r"one sample can be shown at a time. Received: 2"):
        viz.plot_feature_maps(model, x=x)
    with pytest.raises(ShapeError, match=r"Received: \(1, 1, 9, 9\)"):
        viz.plot_feature_maps(model, x=np.ones((1, 1, 9, 9)))
    with pytest.raises(ShapeError, match="yields no maps"):
        viz.plot_feature_maps(model, x=x[0], layer="dense")
    with pytest.raises(TypeError, match="x and layer go with a model"):
        viz.plot_feature_maps(np.ones((2, 4, 4)), x=x[0])
    with pytest.raises(NotBuiltError):
        viz.plot_feature_maps(Sequential([L.Conv2D(2, 3)]), x=x[0])


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_the_walk_shows_every_layers_output(data_format):
    from xpnet.viz.grids import ENLARGED

    shape = (3, 8, 8) if data_format == "channels_first" else (8, 8, 3)
    model = classifier(data_format=data_format, input_shape=shape)
    x = RNG.random(shape).astype(np.float32)
    axes = viz.plot_layers(model, x, labels=["ant", "bee", "cow"], maps=4)
    assert len(axes) == 5
    outputs = model.layer_outputs(x[None])
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles[0].startswith("x   3 x 8 x 8")
    assert titles[1].startswith("conv2d   6 x 6 x 6, 4 of them shown, from 0 to")
    maps = outputs["max_pooling2d"][0]
    maps = maps if data_format == "channels_first" else maps.transpose(2, 0, 1)
    shown = np.ma.filled(axes[2].images[0].get_array(), np.nan)
    width = maps.shape[2] * ENLARGED + 1
    np.testing.assert_array_equal(shown[::ENLARGED, 3 * width :: ENLARGED], maps[3])
    np.testing.assert_array_equal(axes[3].images[0].get_array()[0], outputs["flatten"][0])
    np.testing.assert_allclose([bar.get_height() for bar in axes[4].patches], outputs["dense"][0])
    assert [t.get_text() for t in axes[4].get_xticklabels()] == ["ant", "bee", "cow"]


def test_the_walk_takes_vectors_grey_images_and_models_that_yield_maps():
    flat = Sequential([L.Dense(50), L.Dense(2)], input_shape=(5,), seed=0)
    assert len(viz.plot_layers(flat, np.ones(5))) == 3
    grey = Sequential([L.Conv2D(2, 3), L.Conv2D(3, 1)], input_shape=(6, 6), seed=0)
    assert len(viz.plot_layers(grey, np.ones((6, 6)))) == 3
    with pytest.raises(ShapeError, match="one sample"):
        viz.plot_layers(flat, np.ones((3, 5)))
    with pytest.raises(NotBuiltError):
        viz.plot_layers(Sequential([L.Dense(2)]), np.ones(5))
    with pytest.raises(ValueError, match="3 labels for 2 classes"):
        viz.plot_layers(flat, np.ones(5), labels="abc")


# -- numbers that are none -----------------------------------------------------------------------------------


def test_what_is_not_finite_is_grey_and_leaves_the_scale_of_the_rest():
    a = RNG.random((3, 4, 4))
    a[0, 1, 1], a[1, 2, 2], a[2] = np.nan, np.inf, np.nan
    for axes in (viz.plot_feature_maps(a), viz.plot_images(a)):
        assert axes[0].images[0].get_clim()[1] == pytest.approx(a[:2][np.isfinite(a[:2])].max())
        assert axes[1].images[0].get_array().mask.sum() == 1
        assert axes[2].images[0].get_array().mask.all()
    assert viz.plot_images(np.full((1, 3, 3), np.nan))[0].images[0].get_clim() == (0, 1)
    assert viz.plot_images(np.full((1, 3, 3), 0.5))[0].images[0].get_clim() == (0, 1)  # grey, not black
    assert viz.plot_feature_maps(np.zeros((1, 3, 3)))[0].images[0].get_clim() == (0, 1)
    assert viz.plot_kernels(np.full((2, 1, 3, 3), np.nan))[0].images[0].get_clim() == (-1, 1)


def test_very_many_maps_make_a_picture_no_wider_than_a_page():
    axes = viz.plot_feature_maps(np.ones((150, 2, 2)))
    assert axes[0].figure.get_figwidth() < 18 and axes[-1].get_subplotspec().rowspan.start == 11


def test_japanese_names_are_drawn_where_there_is_a_font_for_them(tmp_path):
    from matplotlib.font_manager import fontManager

    from xpnet.viz.style import EASTERN

    if not {font.name for font in fontManager.ttflist} & set(EASTERN):
        pytest.skip("matplotlib knows no Japanese font on this machine")
    ax = viz.plot_confusion_matrix([[3, 1], [0, 4]], labels=["ねこ", "いぬ"])
    assert viz.save(ax, tmp_path / "names.png").stat().st_size > 0  # a missing sign would warn


def test_names_are_no_formulas_and_stand_in_one_line(tmp_path):
    names = [r"$\no", "a$b$", "two\nlines"]
    axes = viz.plot_mistakes(P, IMAGES, [1, 2, 0, 2, 0], labels=names)
    assert axes[0].get_title() == "\\$\\no\ntaken for a\\$b\\$\n95.0% sure"
    assert axes[1].get_title().startswith("a\\$b\\$\ntaken for ")
    for drawn in (
        axes,
        viz.plot_confusion_matrix(np.eye(3), labels=names),
        viz.plot_decision_regions(lambda x: np.full((len(x), 3), 1 / 3), labels=names, resolution=5),
    ):
        viz.save(drawn, tmp_path / "a.png")  # where a formula that is none would raise


def test_what_is_no_model_is_refused():
    for draw in (viz.saliency, viz.grad_cam, viz.plot_layers, viz.plot_grad_cam):
        with pytest.raises(TypeError, match=r"model must be a Sequential. Received: str.*model_"):
            draw("model", IMAGES)
    with pytest.raises(TypeError, match="model must be a Sequential"):
        viz.loss_surface(None, IMAGES, [0])


def test_grids_without_columns_are_refused():
    with pytest.raises(ValueError, match="columns must be a whole number of at least 1"):
        viz.plot_images(IMAGES, columns=0)


def test_maps_that_are_no_numbers_say_so():
    model = classifier()
    model.layers[0].weight[...] = np.nan
    axes = viz.plot_grad_cam(model, np.ones((1, 1, 8, 8), np.float32))
    assert axes[1, 0].get_xlabel() == "not finite"
    assert viz.plot_saliency(model, np.ones((1, 1, 8, 8), np.float32))[1, 0].images[0].get_array().mask.all()


def test_classes_in_any_order_are_found_by_their_names():
    class Guess:
        classes_ = np.array(["cow", "ant", "bee"])

        def predict_proba(self, x):
            return P

    ax = viz.plot_confusion_matrix(Guess(), IMAGES, ["cow", "ant", "bee", "bee", "ant"])
    assert names(ax) == ["cow", "ant", "bee"]
    assert drawn(ax).tolist() == [[1, 0, 0], [0, 2, 0], [1, 0, 1]]
