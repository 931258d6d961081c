"""The report of a trained model: right figures, in a file that is whole, safe, small and legible."""

import json
import re
import sys

import html_page
import numpy as np
import pytest
from browser import chromium  # noqa: F401 - a fixture
from sklearn import metrics as oracle

import xpnet
from xpnet import Sequential, layers, viz
from xpnet.viz.report import findings, page

pytest.importorskip("matplotlib", reason="reports need matplotlib")
pytest.importorskip("jinja2", reason="reports need Jinja2")

EVIL = '</title></style><script>alert("x")</script>&'
MOST = 1_500_000  # bytes of any report


@pytest.fixture(scope="module")
def digits():
    """A CNN after a few epochs, its history, and the test samples."""
    (x, y), test = xpnet.datasets.load_digits()
    model = Sequential(
        [
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10),
        ],
        input_shape=(1, 8, 8),
        device="cpu",
        seed=0,
        name="digits-net",
    )
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, y, epochs=4, validation_data=test, verbose=0)
    return model, *test


@pytest.fixture(scope="module")
def written(digits, tmp_path_factory):
    """The path of the digits' report, written once."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert viz.report(
        digits[0], path, *digits[1:], data="digits, 1,347 for training", seconds=1.25,
        command="xpnet train digits", settings={"batch size": 32},
        next_steps=[("xpnet predict run", "Predict")],
    ) == path  # fmt: skip
    return path


@pytest.fixture(scope="module")
def report(written):
    return html_page.read(written.read_text(encoding="utf-8"))


def made(tmp_path, model, x, y, **more):
    path = viz.report(model, tmp_path / "report.html", x, y, **more)
    assert path.stat().st_size < MOST
    return html_page.read(path.read_text(encoding="utf-8"))


def vectors(K, loss, *, D=2, activation=None, n=60, seed=0, epochs=3, y=None):
    """A small trained model on vectors; (model, x, y)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D)).astype(np.float32)
    if y is None:
        y = (np.abs(x).sum(axis=1) * 2).astype(int) % max(K, 2)
    model = Sequential(
        [layers.Dense(8, activation="tanh"), layers.Dense(K, activation=activation)],
        input_shape=(D,), device="cpu", seed=0,
    )  # fmt: skip
    model.compile("adam", loss)
    if epochs:
        model.fit(x, y, epochs=epochs, verbose=0)
    return model, x, y


# -- a classifier of images ----------------------------------------------------------------------------------


def test_the_headline_is_the_accuracy_with_its_interval(digits, report):
    from scipy.stats import binomtest

    model, x, y = digits
    right = int((model.predict(x).argmax(axis=1) == y).sum())
    text = report.one("p", "headline").text
    assert f"{100 * right / len(y):.2f}%" in text and f"{right} of {len(y)}." in text
    low, high = binomtest(right, len(y)).proportion_ci(method="wilson")
    note = report.one("p", "note").text
    assert f"{100 * low:.1f}% to {100 * high:.1f}%" in note
    assert f"would get {100 * np.bincount(y).max() / len(y):.1f}%" in note
    facts = {one.one("dt").text: one.one("dd").text for one in report.one("dl", "facts").all("div")}
    assert facts == {
        "data": "digits, 1,347 for training",
        "model": f"{model.count_params():,} parameters in 5 layers",
        "training": "1.2 s, 4 epochs",
        "device": f"cpu, {model.precision_meaning}",
    }


def test_class_figures_and_confusions_are_scikit_learns(digits, report):
    model, x, y = digits
    answer = model.predict(x).argmax(axis=1)
    figures = list(zip(*oracle.precision_recall_fscore_support(y, answer)))
    rows = report.one("section", id="classes").one("table").rows()
    assert rows[1:-1] == [
        [str(k), *(f"{100 * share:.1f}%" for share in row[:3]), f"{row[3]}"] for k, row in enumerate(figures)
    ]
    macro = oracle.precision_recall_fscore_support(y, answer, average="macro")
    assert rows[-1] == ["mean", *(f"{100 * share:.1f}%" for share in macro[:3]), "450"]
    confusions = report.one("section", id="confusions")
    counts = [[int(cell) for cell in row[1:]] for row in confusions.one("table", "matrix").rows()[1:]]
    matrix = oracle.confusion_matrix(y, answer)
    assert counts == matrix.tolist()
    first = confusions.all("table")[1].rows()[1]
    np.fill_diagonal(matrix, 0)
    assert int(first[2]) == matrix.max() == matrix[int(first[0]), int(first[1])]
    assert first[3] == f"{100 * matrix.max() / np.bincount(y)[int(first[0])]:.1f}%"


def test_mistakes_are_the_surest_ones_and_are_pictured(digits, report):
    model, x, y = digits
    z = model.predict(x).astype(float)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    wrong = np.flatnonzero(p.argmax(axis=1) != y)
    expected = wrong[np.argsort(-p[wrong].max(axis=1))][: page.MISTAKES]
    section = report.one("section", id="mistakes")
    cards = [one for one in section.all("li") if one.all("img")]
    assert [
        int(card.one("span", "quiet").text.removeprefix("sample ")) for card in cards
    ] == expected.tolist()
    assert section.all("p")[0].text.startswith(f"{len(wrong)} of {len(y)} test samples are taken for another")
    for card, i in zip(cards, expected):
        assert [one.text for one in card.all("p")[0].all("b")] == [str(y[i]), str(p[i].argmax())]
        np.testing.assert_array_equal(html_page.pixels(card.one("img")), (x[i, 0] * 255).round())
        likely = [(one.one("span").text, one.one("b").text) for one in card.one("ul", "likely").all("li")]
        order = np.argsort(-p[i])[:3]
        assert likely == [(str(k), page.percent(p[i, k])) for k in order]


def test_one_sample_of_each_class_is_predicted(digits, report):
    section = report.one("section", id="predictions")
    marks = [card.all("p")[0].text.split()[1].rstrip(",") for card in section.all("li") if card.all("img")]
    assert marks == [str(k) for k in range(10)]
    assert all("✗" in one.text and "taken for" in one.text for one in section.all("li", "wrong"))


def test_samples_are_looked_at_with_saliency_and_grad_cam(digits, report):
    model, x, y = digits
    cards = report.one("section", id="attention").all("li")
    assert len(cards) == page.LOOKED_AT and all(len(card.all("img")) == 3 for card in cards)
    found = findings.classes(model, x, y, None)
    worst = int(found.wrong[0])
    slopes = np.abs(viz.saliency(model, x[worst : worst + 1], found.answer[worst : worst + 1]))[0, 0]
    drawn = html_page.pixels(cards[0].all("img")[1]).astype(int).sum(axis=2)
    assert np.unravel_index(drawn.argmax(), drawn.shape) == np.unravel_index(slopes.argmax(), slopes.shape)


def test_kernels_and_feature_maps_are_those_of_the_model(digits, report):
    model, x, y = digits
    pictures = report.one("section", id="weights").all("img")
    w = model.state_dict()["0.weight"]
    assert len(pictures) == len(w)
    limit = np.abs(w).max()
    for picture, kernel in zip(pictures, w[:, 0]):
        drawn = html_page.pixels(picture).astype(int)
        red, blue = kernel > 0.3 * limit, kernel < -0.3 * limit
        assert (drawn[red, 0] > drawn[red, 2]).all() and (drawn[blue, 2] > drawn[blue, 0]).all()
    shown = int((y == 0).argmax())
    outputs = model.layer_outputs(x[shown : shown + 1])
    blocks = report.one("section", id="layers").all("div", "layer")
    assert [block.one("h3").text.split()[0] for block in blocks] == list(outputs)
    by_name = dict(zip(outputs, blocks))
    assert [len(block.all("img")) for block in blocks] == [8, 8, 1, 0, 1]
    assert "passes on what it got" in by_name["dropout"].text
    maps = outputs["conv2d"][0]
    assert f"8 × 8 × 8, {maps.min():.3g} to {maps.max():.3g}" in by_name["conv2d"].text
    best = np.unravel_index(maps.argmax(), maps.shape)
    drawn = [html_page.pixels(one).astype(int).sum(axis=2) for one in by_name["conv2d"].all("img")]
    assert np.unravel_index(np.argmax(drawn), maps.shape) == best
    assert html_page.pixels(by_name["dense"].one("img")).shape[:2] == (1, 10)


def test_the_run_its_settings_and_its_history_are_told(digits, report):
    model, *_ = digits
    settings = dict(report.one("table", "settings").rows())
    assert settings["batch size"] == "32" and "Adam" in settings["optimizer"]
    assert settings["device"].startswith("cpu") and xpnet.__version__ in settings["versions"]
    steps = report.one("dl", "steps")
    assert [one.text for one in steps.all("code")] == ["xpnet train digits", "xpnet predict run"]
    table = report.one("section", id="settings").one("details").one("table").rows()
    assert table[0] == ["epoch", *model.history.history]
    assert [row[0] for row in table[1:]] == ["1", "2", "3", "4"]
    assert table[4][1] == f"{model.history.history['loss'][3]:.4f}"
    assert len(report.one("section", id="curves").all("svg", role="img")) == 2
    assert "Conv2D(8, 3" in report.one("section", id="network").text


def test_all_samples_are_predicted_once_and_the_model_stays_as_it_was(digits, tmp_path, monkeypatch):
    model, x, y = digits
    before, steps = model.state_dict(), model.optimizer.iterations
    gradients, calls = model.gradients(x[:8], y[:8]), []
    predict = type(model).predict
    monkeypatch.setattr(
        type(model), "predict", lambda self, x, *a, **k: calls.append(len(x)) or predict(self, x, *a, **k)
    )
    made(tmp_path, model, x, y)
    assert calls.count(len(x)) == 1
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    for name, value in model.gradients(x[:8], y[:8]).items():
        np.testing.assert_array_equal(value, gradients[name])
    assert model.optimizer.iterations == steps


# -- the file ------------------------------------------------------------------------------------------------


def test_the_page_needs_no_network_and_no_script(written, report):
    text = written.read_text(encoding="utf-8")
    assert not report.all("script") and not report.all("link")
    assert all(one.attributes["src"].startswith("data:image/") for one in report.all("img"))
    assert "url(" not in text and "@import" not in text
    policy = next(one for one in report.all("meta") if one.attributes.get("http-equiv"))
    assert policy.attributes["content"].startswith("default-src 'none'")
    assert all(one.attributes["alt"] for one in report.all("img"))
    assert written.stat().st_size < 150_000


def test_names_cannot_break_out_of_the_page(tmp_path):
    model, x, y = vectors(3, "sparse_categorical_crossentropy")
    model.layers[0].label = model.name = EVIL
    page_ = made(
        tmp_path, model, x, y, labels=[EVIL, "b", "c"], title=EVIL, data=EVIL, command=EVIL,
        settings={EVIL: EVIL}, next_steps=[(EVIL, EVIL)], history={EVIL: [1.0], "loss": [2.0]},
    )  # fmt: skip
    assert not page_.all("script") and page_.one("h1").text == EVIL
    assert page_.text.count(EVIL) > 8


def test_text_that_no_encoding_holds_is_written_all_the_same(tmp_path):
    model, x, y = vectors(2, "sparse_categorical_crossentropy")
    assert made(tmp_path, model, x, y, title="a\udce9b 日本").one("h1").text == "a?b 日本"


def test_a_failed_report_leaves_the_old_file_and_no_fragment(digits, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        viz.report(digits[0], path, digits[1][:20], digits[2][:20])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_large_pictures_are_stored_small(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((8, 3, 224, 224), dtype=np.float32)  # noise is what is hardest to store
    model = Sequential(
        [
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(16, 3, strides=4, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ],
        input_shape=(3, 224, 224), device="cpu", seed=0,
    )  # fmt: skip
    model.compile("sgd", "sparse_categorical_crossentropy")
    page_ = made(tmp_path, model, x, np.arange(8) % 3)
    stored = html_page.pixels(page_.one("section", id="predictions").all("img")[0])
    assert stored.shape == (144, 144, 3)
    whole = x[0].reshape(3, 144 // 9, 14, 144 // 9, 14).mean(axis=(2, 4)) * 255  # coarse blocks of both
    coarse = stored.reshape(16, 9, 16, 9, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(coarse - whole).mean() < 6


# -- other models --------------------------------------------------------------------------------------------


def test_deep_networks_show_fewer_maps_of_each_layer(tmp_path):
    net = [layers.Conv2D(16, 1, activation="relu") for _ in range(30)]
    net += [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = Sequential(net, input_shape=(3, 128, 128), device="cpu", seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).random((2, 3, 128, 128), dtype=np.float32)
    blocks = made(tmp_path, model, x, np.arange(2)).one("section", id="layers").all("div", "layer")
    assert {len(block.all("img")) for block in blocks[:30]} == {4}
    assert "12 more channels" in blocks[0].text
    assert html_page.pixels(blocks[0].all("img")[0]).shape[:2] == (56, 56)


def test_kernels_of_colours_and_of_many_channels_stand_side_by_side(tmp_path):
    for C, shape, told in ((3, (1, 3), None), (64, (4, 4), "16 of 64 channels")):
        x = np.random.default_rng(0).random((6, C, 5, 5), dtype=np.float32)
        net = [layers.Conv2D(40, 3), layers.GlobalAveragePooling2D(), layers.Dense(2)]
        model = Sequential(net, input_shape=(C, 5, 5), device="cpu", seed=0)
        model.compile("sgd", "sparse_categorical_crossentropy")
        section = made(tmp_path, model, x, np.arange(6) % 2).one("section", id="weights")
        assert "The kernels of conv2d" in section.text and "8 more are not shown" in section.text
        assert (told in section.text) if told else ("channels" not in section.text)
        drawn = html_page.pixels(section.all("img")[0])
        rows = (drawn[..., 3] == 0).all(axis=1).sum(), (drawn[..., 3] == 0).all(axis=0).sum()
        assert rows == (shape[0] - 1, shape[1] - 1)  # the lines between


@pytest.mark.parametrize("shape", [(1, 6, 5), (30,)])
def test_weights_over_whole_samples_are_laid_out_as_these(tmp_path, shape):
    x = np.random.default_rng(0).random((6, *shape), dtype=np.float32)
    model = Sequential([layers.Flatten(), layers.Dense(2)], input_shape=shape, device="cpu", seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    section = made(tmp_path, model, x, np.arange(6) % 2).one("section", id="weights")
    assert "The units' weights of dense" in section.text
    drawn = html_page.pixels(section.all("img")[1]).astype(int)
    w = model.state_dict()["1.weight"][1].reshape((6, 5) if len(shape) == 3 else (5, 6))
    assert ((drawn[..., 0] > drawn[..., 2]) == (w > 0)).mean() > 0.9


def test_points_of_a_plane_get_decision_regions(tmp_path):
    model, x, y = vectors(3, "sparse_categorical_crossentropy")
    page_ = made(tmp_path, model, x, y, labels=["left", "middle", "right"])
    drawn = html_page.pixels(page_.one("section", id="regions").one("img"))
    coloured = np.ptp(drawn[..., :3].astype(int), axis=2) > 20
    assert drawn.shape[0] > 300 and coloured.mean() > 0.1
    card = page_.one("section", id="predictions").all("li")[0]
    assert (
        card.one("span", "values").text == f"({x[(y == 0).argmax()][0]:.3g}, {x[(y == 0).argmax()][1]:.3g})"
    )
    assert not page_.all("section", id="attention") and not page_.all("section", id="weights")


@pytest.mark.parametrize(
    ("loss", "activation"),
    [("binary_crossentropy", "sigmoid"), ("binary_crossentropy", None), ("mse", "sigmoid")],
)
def test_one_output_is_two_classes(tmp_path, loss, activation):
    model, x, y = vectors(1, loss, activation=activation, D=5)
    z = model.predict(x)[:, 0]
    answer = (z > (0.5 if activation else 0.0)).astype(int)
    page_ = made(tmp_path, model, x, y, labels=["no", "yes"])
    assert f"{(answer == y).sum()} of {len(y)}." in page_.one("p", "headline").text
    rows = page_.one("section", id="confusions").one("table", "matrix").rows()
    assert [[int(n) for n in row[1:]] for row in rows[1:]] == oracle.confusion_matrix(y, answer).tolist()


@pytest.mark.parametrize("ending", ["softmax", None])
def test_one_hot_targets_and_models_without_a_loss(tmp_path, ending):
    model, x, y = vectors(3, "categorical_crossentropy", activation=ending, y=np.eye(3)[np.arange(60) % 3])
    right = (model.predict(x).argmax(axis=1) == y.argmax(axis=1)).sum()
    assert f"{right} of 60." in made(tmp_path, model, x, y).one("p", "headline").text
    model.loss = None
    assert f"{right} of 60." in made(tmp_path, model, x, y.argmax(axis=1)).one("p", "headline").text


def test_a_hundred_classes_are_a_picture_and_the_weakest_first(tmp_path):
    model, x, _ = vectors(100, "sparse_categorical_crossentropy", D=30, n=400, epochs=0)
    answer = model.predict(x).argmax(axis=1)
    y = np.where(np.arange(400) % 4, answer, (answer + 1) % 100)
    page_ = made(tmp_path, model, x, y)
    picture = html_page.pixels(page_.one("section", id="confusions").one("img"))
    matrix = oracle.confusion_matrix(y, answer, labels=range(100))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(picture[..., 3], 255 * np.sqrt(shares), atol=0.51)  # its opacity
    weakest, whole = page_.one("section", id="classes").all("table")
    f1 = [float(row[3].rstrip("%<>")) for row in weakest.rows()[1:-1]]
    assert f1 == sorted(f1) and len(f1) == page.WRITTEN and len(whole.rows()) == 102
    assert len([c for c in page_.one("section", id="predictions").all("li") if c.all("img")]) == page.SHOWN


def test_very_many_classes_get_no_matrix(tmp_path):
    K = findings.LARGEST + 1
    model, x, _ = vectors(K, "sparse_categorical_crossentropy", D=5, epochs=0)
    y = np.arange(60)
    page_ = made(tmp_path, model, x, y)
    assert f"{(model.predict(x).argmax(axis=1) == y).sum()} of 60." in page_.one("p", "headline").text
    section = page_.one("section", id="confusions")
    assert not section.all("img") and len(section.all("table")) == 1 and "Rows are" not in section.text
    assert len(page_.one("section", id="classes").one("table").rows()) == page.WRITTEN + 2


def test_classes_that_never_occur_do_not_count(tmp_path):
    model, x, _ = vectors(30, "sparse_categorical_crossentropy", D=5, epochs=0)
    y = np.arange(60) % 4
    answer = model.predict(x).argmax(axis=1)
    weakest, whole = made(tmp_path, model, x, y).one("section", id="classes").all("table")
    assert {row[0] for row in weakest.rows()[1:-1]} == {"0", "1", "2", "3"}
    macro = oracle.precision_recall_fscore_support(y, answer, average="macro", zero_division=0)
    assert whole.rows()[-1][1:4] == [page.percent(share) for share in macro[:3]] and len(whole.rows()) == 32
    absent = next(k for k in range(4, 30) if k not in answer)
    assert whole.rows()[1 + absent] == [str(absent), "", "", "", "0"]


def test_a_perfect_model_has_no_mistakes(tmp_path):
    model, x, _ = vectors(3, "sparse_categorical_crossentropy", epochs=0)
    page_ = made(tmp_path, model, x, model.predict(x).argmax(axis=1))
    assert "There are none: all 60" in page_.one("section", id="mistakes").text
    assert "100.00%" in page_.one("p", "headline").text


def test_several_labels_a_sample(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (60, 4))
    model, x, _ = vectors(4, "binary_crossentropy", activation="sigmoid", D=5, y=y)
    said = model.predict(x) > 0.5
    page_ = made(tmp_path, model, x, y, labels=list("abcd"))
    assert page_.one("p", "headline").text.startswith(f"{100 * (said == y).mean():.2f}% of the answers")
    f1 = oracle.f1_score(y, said, average=None)
    rows = page_.one("section", id="classes").one("table").rows()
    assert [row[3] for row in rows[1:-1]] == [f"{100 * share:.1f}%" for share in f1]
    assert not page_.all("section", id="confusions")


def test_a_regression_shows_its_errors(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(60, 2))
    model, x, _ = vectors(2, "mse", D=3, y=y)
    p = model.predict(x)
    page_ = made(tmp_path, model, x, y)
    assert page_.one("p", "headline").text.startswith(f"{oracle.mean_absolute_error(y, p):.4f} is")
    r2 = oracle.r2_score(y, p, multioutput="raw_values")
    note = page_.one("p", "note").text
    assert f"R² is {r2[0]:.3f}, {r2[1]:.3f}." in note
    assert f"squared error is {oracle.mean_squared_error(y, p):.4f};" in note
    section = page_.one("section", id="errors")
    worst = int((np.abs(p - y) / y.std(axis=0)).max(axis=1).argmax())
    assert section.one("table").rows()[1][0] == str(worst)
    assert len(section.one("figure").all("img")) == 2 and not page_.all("section", id="mistakes")


def test_a_regression_to_one_number_takes_flat_targets(tmp_path):
    model, x, y = vectors(1, "mse", D=3, y=np.random.default_rng(0).normal(size=60))
    error = np.abs(model.predict(x)[:, 0] - y).mean()
    assert (
        made(tmp_path, model, x, y).one("p", "headline").text.startswith(f"{error:.4f} is the mean absolute")
    )


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
def test_a_model_that_yields_maps_shows_some(tmp_path, order):
    x = np.random.default_rng(0).random((12, 2, 6, 5)).astype(np.float32)
    y = (x[:, 0] * 2.99).astype(int)
    last = order == "channels_last"
    shape = (6, 5, 2) if last else (2, 6, 5)
    net = [layers.Conv2D(4, 3, padding="same", activation="relu"), layers.Conv2D(3, 1)]
    model = Sequential(net, input_shape=shape, data_format=order, device="cpu", seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    given = x.transpose(0, 2, 3, 1) if last else x
    answer = model.predict(given).argmax(axis=-1 if last else 1)
    page_ = made(tmp_path, model, given, y)
    assert page_.one("p", "headline").text.startswith(f"{100 * (answer == y).mean():.2f}% of the pixels")
    rows = page_.one("section", id="answers").all("li")
    assert len(rows) == page.LOOKED_AT
    _, target, output = (html_page.pixels(one) for one in rows[0].all("img"))
    colours = {tuple(target[at]): y[0][at] for at in np.ndindex(6, 5)}
    assert len(colours) == 3
    assert [[colours[tuple(pixel)] for pixel in row] for row in output] == answer[0].tolist()


def test_a_model_that_makes_images_shows_them(tmp_path):
    x = np.random.default_rng(0).random((12, 1, 6, 5)).astype(np.float32)
    model = Sequential(
        [layers.Conv2D(1, 3, padding="same", activation="sigmoid")],
        input_shape=(1, 6, 5),
        device="cpu",
        seed=0,
    )
    model.compile("sgd", "mse")
    page_ = made(tmp_path, model, x, x)
    assert page_.one("p", "headline").text.startswith(f"{model.evaluate(x, x):.4f} is the loss over 12")
    _, target, output = page_.one("section", id="answers").all("li")[0].all("img")
    np.testing.assert_array_equal(html_page.pixels(target), (x[0, 0] * 255).round())
    np.testing.assert_allclose(html_page.pixels(output), model.predict(x[:1])[0, 0] * 255, atol=0.51)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (64,), (30,), (5, 8, 8)])
def test_samples_of_every_kind_are_drawn(tmp_path, shape):
    x = np.random.default_rng(0).random((20, *shape)).astype(np.float32)
    y = np.arange(20) % 3
    more = {"data_format": "channels_last"} if shape == (8, 8, 3) else {}
    model = Sequential([layers.Flatten(), layers.Dense(3)], input_shape=shape, device="cpu", seed=0, **more)
    model.compile("sgd", "sparse_categorical_crossentropy")
    picture = html_page.pixels(made(tmp_path, model, x, y).one("section", id="predictions").all("img")[0])
    if shape in ((8, 8), (8, 8, 3), (64,)):
        expected = x[0].reshape(shape if len(shape) > 1 else (8, 8))
        np.testing.assert_array_equal(picture, (expected * 255).round())
    elif shape == (5, 8, 8):
        np.testing.assert_allclose(picture, x[0].mean(axis=0) * 255, atol=0.51)
    else:
        assert picture.shape == (5, 6, 3)


def test_bytes_are_shown_as_they_are(tmp_path):
    x = np.random.default_rng(0).integers(0, 200, (20, 1, 8, 8), dtype=np.uint8)
    model = Sequential([layers.Flatten(), layers.Dense(2)], input_shape=(1, 8, 8), device="cpu", seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    page_ = made(tmp_path, model, x, np.arange(20) % 2)
    np.testing.assert_array_equal(
        html_page.pixels(page_.one("section", id="predictions").all("img")[0]), x[0, 0]
    )


def test_a_model_on_any_device(ops, tmp_path):
    net = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    model = Sequential(net, input_shape=(1, 6, 6), device=ops, seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    x = np.random.default_rng(0).random((30, 1, 6, 6)).astype(np.float32)
    right = int((model.predict(x).argmax(axis=1) == np.arange(30) % 3).sum())
    page_ = made(tmp_path, model, x, np.arange(30) % 3)
    assert f"{right} of 30." in page_.one("p", "headline").text
    assert dict(page_.one("table", "settings").rows())["device"].startswith(model.device)
    assert len(page_.one("section", id="layers").all("img")) == 1 + 4 + 1 + 1


def test_histories_measured_now_and_then_and_long_ones(tmp_path):
    model, x, y = vectors(2, "sparse_categorical_crossentropy", epochs=0)
    history = model.fit(x, y, epochs=6, validation_data=(x, y), validation_freq=3, verbose=0)
    rows = made(tmp_path, model, x, y, history=history).one("section", id="settings").one("details")
    assert [row[2] == "" for row in rows.one("table").rows()[1:]] == [True, True, False, True, True, False]
    page_ = made(tmp_path, model, x, y, history={"loss": list(range(1001))})
    details = page_.one("section", id="settings").one("details")
    epochs = [int(row[0]) for row in details.one("table").rows()[1:]]
    assert epochs[:2] == [1, 4] and epochs[-2:] == [1000, 1001] and len(epochs) <= page.ROWS + 1
    assert details.one("summary").text == "The figures of one epoch in 3"


def test_without_a_history_there_are_no_curves(tmp_path):
    model, x, y = vectors(2, "sparse_categorical_crossentropy", epochs=0)
    page_ = made(tmp_path, model, x, y)
    assert not page_.all("section", id="curves") and not page_.all("details")


# -- refusals ------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    model, x, y = vectors(3, "sparse_categorical_crossentropy")
    path = tmp_path / "a.html"
    with pytest.raises(ValueError, match=r"ends in \.html"):
        viz.report(model, tmp_path / "a.pdf", x, y)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        viz.report(model, tmp_path / "missing" / "a.html", x, y)
    with pytest.raises(TypeError, match="Received: dict"):
        viz.report({}, path, x, y)
    with pytest.raises(RuntimeError, match="trained or loaded"):
        viz.report(Sequential([layers.Dense(2)], device="cpu"), path, x, y)
    with pytest.raises(ValueError, match="60 in x, 59 in y"):
        viz.report(model, path, x, y[1:])
    with pytest.raises(ValueError, match="y holds no targets"):
        viz.report(model, path, x, [])
    with pytest.raises(ValueError, match=r"y must be numbers.*labels="):
        viz.report(model, path, x, ["cat"] * 60)
    with pytest.raises(ValueError, match="NaN or infinity, 60 in all"):
        viz.report(model, path, x, np.full(60, np.nan))
    with pytest.raises(ValueError, match="the model does not know"):
        viz.report(model, path, x, y + 7)
    with pytest.raises(ValueError, match="2 labels for 3 classes"):
        viz.report(model, path, x, y, labels=["a", "b"])
    with pytest.raises(ValueError, match=r"Expected: \(N, 2\)|x has"):
        viz.report(model, path, x[:, :1], y)
    with pytest.raises(TypeError, match="history must be what fit returned"):
        viz.report(model, path, x, y, history=[1, 2])
    with pytest.raises(TypeError, match=r"Received: \{'loss': 3\}"):
        viz.report(model, path, x, y, history={"loss": 3})
    for word, value in (("seconds", "2 s"), ("settings", ["a"]), ("next_steps", ["xpnet explain"])):
        with pytest.raises(TypeError, match=f"{word} must be"):
            viz.report(model, path, x, y, **{word: value})
    with pytest.raises(ValueError, match="y must fit the model's outputs"):
        viz.report(*vectors(2, "mse", y=np.zeros((60, 2)))[:1], path, x, np.zeros((60, 3)))
    model.layers[1].weight[...] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity for 60 of 60 samples"):
        viz.report(model, path, x, y)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named_with_its_install_line(tmp_path, monkeypatch, module):
    model, x, y = vectors(2, "sparse_categorical_crossentropy", epochs=0)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'xpnet\[plot\]'"):
        viz.report(model, tmp_path / "a.html", x, y)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.0%"), (1e-7, "<0.1%"), (0.0004, "<0.1%"), (0.0005, "0.1%"), (0.123456, "12.3%"),
     (0.9996, ">99.9%"), (0.9994, "99.9%"), (1.0, "100.0%")],
)  # fmt: skip
def test_percentages_are_never_rounded_to_all_or_nothing(share, text):
    assert page.percent(share) == text


# -- in a browser --------------------------------------------------------------------------------------------

LAYOUT = """() => ({
  wide: document.documentElement.scrollWidth,
  ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
  broken: [...document.images].filter(one => !one.naturalWidth).length,
  cut: [...document.querySelectorAll('h1, h2, p, dd')].filter(
    one => one.scrollWidth > one.clientWidth + 1).length,
})"""


def luminance(colour):
    parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_the_screen_and_can_be_read(chromium, written, width, scheme):  # noqa: F811
    tab = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked, told = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: told.append(message.text))
    tab.goto(written.as_uri())
    seen = tab.evaluate(LAYOUT)
    tab.close()
    assert seen["wide"] <= width and seen["broken"] == seen["cut"] == 0
    ink, paper = luminance(seen["ink"]), luminance(seen["paper"])
    assert (ink > paper) == (scheme == "dark")
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7  # WCAG 2.1, level AAA
    assert told == [] and all(url.startswith(("file:", "data:")) for url in asked), json.dumps(asked)[:200]


def test_it_prints_on_white_paper(chromium, written):  # noqa: F811
    tab = chromium.new_page(color_scheme="dark")
    tab.goto(written.as_uri())
    tab.emulate_media(media="print")
    assert luminance(tab.evaluate(LAYOUT)["paper"]) == 1.0
    assert tab.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    tab.close()
