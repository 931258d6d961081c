"""What a notebook shows of models, histories and learning-rate tests: right numbers, nothing but HTML."""

import re
import subprocess
import sys

import html_page
import numpy as np
import pytest
from browser import chromium  # noqa: F401 - a fixture

from xpnet import Sequential, callbacks, layers
from xpnet.callbacks import History
from xpnet.viz.notebook import chart
from xpnet.viz.notebook.markup import bytes_text, css

EVIL = '<script>alert("x")</script>&'


def shown(thing):
    return html_page.read(thing._repr_html_())


def layer_rows(page):
    """{layer's name: (output shape, parameters, multiply-adds)}, containers included."""
    found = {}
    for row in page.all("tr") + page.all("summary"):
        cells = [child for child in row.children if isinstance(child, html_page.Node)]
        names = cells[0].all("b")
        if len(names) == 1 and len(cells) == 4:
            found[names[0].text] = tuple(cell.text for cell in cells[1:])
    return found


def cnn(**more):
    return Sequential(
        [
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2DTranspose(2, 2, strides=2),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(5, trainable=False),
        ],
        input_shape=(3, 8, 8),
        device="cpu",
        seed=0,
        **more,
    )


def history(epochs, **figures):
    """A History of functions of the epoch; None where nothing was measured."""
    made = History()
    for epoch in range(epochs):
        logs = {name: figure(epoch) for name, figure in figures.items()}
        made.on_epoch_end(epoch, {name: value for name, value in logs.items() if value is not None})
    return made


# -- models --------------------------------------------------------------------------------------------------


def test_a_model_shows_shapes_parameters_and_multiply_adds():
    model = cnn(name="mine")
    page = shown(model)
    assert layer_rows(page) == {
        "conv2d": ("(N, 4, 4, 4)", "112", f"{4 * 3 * 9 * 16:,}"),  # every output looks at 3 x 9 numbers
        "batch_normalization": ("(N, 4, 4, 4)", "8", "64"),
        "conv2d_transpose": ("(N, 2, 8, 8)", "34", f"{16 * 4 * 2 * 4:,}"),  # every input goes to 2 x 4 places
        "max_pooling2d": ("(N, 2, 4, 4)", "", ""),
        "flatten": ("(N, 32)", "", ""),
        "dense": ("(N, 5)", "165", "160"),
    }
    assert page.one("tfoot").rows() == [
        ["in all", "", f"{model.count_params()}", f"{1728 + 64 + 512 + 160:,}"]
    ]
    assert "mine" in page.one("header").text and "input (3, 8, 8), channels_first" in page.one("header").text
    assert page.one("em").text == "frozen" and "165 parameters are frozen" in page.text
    assert "9 running statistics" in page.text  # means, variances and a count
    assert "Not compiled." in page.text


def test_the_bars_are_the_shares_of_the_parameters():
    model = cnn()
    bars = [float(re.search(r"width:([\d.]+)%", bar.attributes["style"])[1]) for bar in shown(model).all("i")]
    assert bars == [pytest.approx(100 * n / 319, abs=0.05) for n in (112, 8, 34, 165)]


def test_a_compiled_model_shows_how_it_is_trained_and_what_memory_that_takes():
    model = cnn()
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy", "f1"])
    text = shown(model).text
    assert "Optimizer Adam() , loss SparseCategoricalCrossentropy" in text and "metrics accuracy, f1." in text
    weights = 4 * model.count_params()
    outputs = 4 * sum(int(np.prod(layer.out_shape)) for layer in model.layers)
    assert f"weights {bytes_text(weights)}" in text
    assert f"gradients and optimizer {bytes_text(3 * weights)}" in text  # dW, and Adam's two means
    assert f"layer outputs {bytes_text(outputs)} a sample" in text
    model.compile("sgd", "mse")
    assert f"gradients {bytes_text(weights)}," in shown(model).text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1 KiB"),
        (9640, "9.41 KiB"),
        (302080, "295 KiB"),
        (2**40, "1,024 GiB"),
    ],
)
def test_sizes_of_memory_have_three_digits(size, text):
    assert bytes_text(size) == text


def test_shapes_stand_in_the_models_own_order():
    model = Sequential(
        [layers.Conv2D(4, 3), layers.Flatten()],
        input_shape=(8, 6, 3),
        data_format="channels_last",
        device="cpu",
    )
    page = shown(model)
    assert layer_rows(page)["conv2d"][0] == "(N, 6, 4, 4)"
    assert "input (8, 6, 3), channels_last" in page.text


def test_an_unbuilt_and_an_empty_model_say_what_they_lack():
    model = Sequential([layers.Conv2D(4, 3), layers.Dense(2)], device="cpu")
    page = shown(model)
    assert layer_rows(page) == {"conv2d": ("?", "", ""), "dense": ("?", "", "")}
    assert "model.build(input_shape)" in page.text and not page.all("tfoot")
    assert "model.add(layer)" in shown(Sequential(device="cpu")).text


def test_containers_hold_their_layers_and_add_them_up():
    block = layers.Residual(
        [layers.Conv2D(4, 1), layers.BatchNormalization()], activation="relu", name="block"
    )
    model = Sequential(
        [layers.Concatenate([[layers.Conv2D(4, 3, padding="same"), block], []]), layers.Flatten()],
        input_shape=(2, 6, 6),
        device="cpu",
    )
    page = shown(model)
    outer, inner = page.all("details")
    assert "open" in outer.attributes
    assert layer_rows(page)["concatenate"] == (
        "(N, 6, 6, 6)",
        "104",
        f"{4 * 2 * 9 * 36 + 16 * 36 + 4 * 36:,}",
    )
    assert layer_rows(page)["block"] == ("(N, 4, 6, 6)", "28", f"{16 * 36 + 4 * 36:,}")
    assert set(layer_rows(inner)) == {"block", "conv2d_1", "batch_normalization"}
    assert inner.one("summary").one("code").text == "Residual(activation='relu')"
    assert [cell.text for cell in page.all("td", "branch")] == [
        "branches.0",
        "body",
        "shortcut: x as it is",
        "branches.1: x as it is",
    ]


def test_containers_of_a_large_model_are_closed_until_clicked():
    blocks = [layers.Residual([layers.Dense(4), layers.Dense(4)]) for _ in range(5)]
    page = shown(Sequential(blocks, input_shape=(4,), device="cpu"))
    assert len(page.all("details")) == 5
    assert not any("open" in one.attributes for one in page.all("details"))


def test_a_layer_of_the_users_own_is_counted_by_its_own_word():
    class Scale(layers.Layer):
        def build(self, in_shape, params):
            params.reserve(self, "factors", in_shape, "ones")
            return in_shape

    model = Sequential([Scale()], input_shape=(3,), device="cpu")
    assert layer_rows(shown(model)) == {"scale": ("(N, 3)", "3", "3")}


# -- histories -----------------------------------------------------------------------------------------------


def points_of(path):
    return [tuple(map(float, point.split())) for point in path.attributes["d"].lstrip("M").split("L")]


def panel(page, title):
    return next(one for one in page.all("figure") if one.one("figcaption").one("b").text == title)


def lines(figure):
    """The curves of a chart: the training's, then the validation's."""
    return [path for path in figure.all("path") if path.attributes.get("class") is None]


def test_a_history_shows_the_last_and_the_best_figures():
    made = history(
        5, loss=lambda e: [3.0, 2.0, 1.0, 1.5, 1.6][e], val_accuracy=lambda e: [0.1, 0.9, 0.5, 0.9, 0.6][e],
        speed=lambda e: float(e), confusion_matrix=lambda e: [[1, 2], [3, 4]],
    )  # fmt: skip
    page = shown(made)
    assert page.one("table").rows() == [
        ["figure", "last", "best", "in epoch"],
        ["loss", "1.6000", "1.0000", "3"],
        ["val_accuracy", "0.6000", "0.9000", "2"],
        ["speed", "4.0000", "", ""],  # nobody knows whether it should rise
    ]
    assert [one.one("b").text for one in page.all("figcaption")] == ["loss", "accuracy", "speed"]
    assert "5 epochs" in page.one("header").text


def test_curves_lie_where_their_figures_are():
    made = history(11, loss=lambda e: 10.0 - e, val_loss=lambda e: 5.0 if e in (3, 9) else None)
    figure = panel(shown(made), "loss")
    training, validation = lines(figure)
    x, y = zip(*points_of(training))
    np.testing.assert_allclose(np.diff(x), np.diff(x)[0], atol=0.02)
    assert (np.diff(y) > 0).all() and x[0] == chart.LEFT  # it falls: pixels count downwards
    np.testing.assert_allclose(points_of(validation), [(x[3], y[5]), (x[9], y[5])], atol=0.02)
    assert "stroke-dasharray" in validation.attributes and "stroke-dasharray" not in training.attributes
    marks = {text.text: float(text.attributes["y"]) for text in figure.all("text", text_anchor="end")}
    assert [float(mark) for mark in marks] == sorted(map(float, marks)) and len(marks) >= 3
    height = {float(mark): at - 4 for mark, at in marks.items()}
    value = 10.0 - np.arange(11)
    np.testing.assert_allclose(np.interp(value, list(height), list(height.values())), y, atol=0.05)
    assert [entry.text for entry in shown(made).one("p", "legend").all("span")] == ["training", "validation"]


def test_a_single_epoch_is_a_dot_and_few_have_dots_with_their_numbers():
    one = panel(shown(history(1, loss=lambda e: 0.25)), "loss")
    assert not lines(one) and one.one("circle").one("title").text == "training, epoch 1: 0.25"
    assert [text.text for text in one.all("text", text_anchor="middle")] == ["1", "epoch"]
    assert len(panel(shown(history(20, loss=float)), "loss").all("circle")) == 20
    assert not panel(shown(history(21, loss=float)), "loss").all("circle")


def test_numbers_that_are_none_leave_a_gap():
    made = history(9, loss=lambda e: np.nan if e == 4 else np.inf if e == 5 else float(e))
    figure = panel(shown(made), "loss")
    assert [len(points_of(path)) for path in lines(figure)] == [4, 3]
    nothing = panel(shown(history(3, loss=lambda e: np.nan)), "loss")
    assert "no finite value" in nothing.text and not lines(nothing)
    assert shown(history(3, loss=lambda e: np.nan)).one("table").rows()[1] == ["loss", "nan", "", ""]


def test_hundreds_of_epochs_stay_small_and_keep_their_peaks():
    spike = 777
    made = history(3000, loss=lambda e: 9.0 if e == spike else 1.0 + 0.1 * (e % 2))
    html = made._repr_html_()
    assert len(html) < 25_000
    figure = panel(html_page.read(html), "loss")
    x, y = zip(*points_of(lines(figure)[0]))
    width = chart.WIDTH - chart.LEFT - chart.RIGHT
    assert x[int(np.argmin(y))] == pytest.approx(chart.LEFT + width * spike / 2999, abs=0.05)


def test_figures_over_many_decades_get_a_logarithmic_axis():
    figure = panel(shown(history(7, loss=lambda e: 10.0**-e)), "loss")
    assert "(logarithmic)" in figure.one("figcaption").text
    _, y = zip(*points_of(lines(figure)[0]))
    np.testing.assert_allclose(np.diff(y), np.diff(y)[0], atol=0.02)  # a straight line
    assert {"1", "0.01", "0.0001", "1e-06"} <= {text.text for text in figure.all("text", text_anchor="end")}
    assert "logarithmic" not in panel(shown(history(7, loss=lambda e: e - 3.0)), "loss").text


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0, 1e-12, 1e12, -1e12, 1e200])
def test_a_constant_figure_has_an_axis_too(value):
    figure = panel(shown(history(3, loss=lambda e: value)), "loss")
    ((_, y), *_) = points_of(lines(figure)[0])
    assert chart.TOP <= y <= chart.HEIGHT - chart.BOTTOM
    marks = [text.text for text in figure.all("text", text_anchor="end")]
    assert len(marks) == len(set(marks)) >= 2


def test_an_empty_history_says_so():
    assert "Nothing has been measured." in shown(History()).text


def test_the_history_that_fit_returns():
    model = Sequential([layers.Dense(3)], input_shape=(2,), device="cpu", seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    x, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    made = model.fit(x, y, epochs=4, validation_split=0.3, validation_freq=2, verbose=0)
    rows = {row[0]: row[1:] for row in shown(made).one("table").rows()[1:]}
    assert set(rows) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert rows["val_loss"][0] == f"{made.history['val_loss'][-1]:.4f}" and rows["val_loss"][2] in ("2", "4")


def test_a_learning_rate_test_shows_its_curve_and_suggestion():
    rates = np.geomspace(1e-6, 1.0, 40)
    losses = (np.log10(rates) + 2) ** 2 + 1.0
    losses[-1] = 1e9  # a batch that diverged
    curve = callbacks.RateCurve(rates, losses, (np.log10(rates) + 2) ** 2 + 1.0)
    page = shown(curve)
    assert f"suggested {curve.suggestion:.2g}" in page.one("header").text
    *_, smoothed = lines(page.one("figure"))
    x, y = zip(*points_of(smoothed))
    np.testing.assert_allclose(np.diff(x), np.diff(x)[0], atol=0.02)  # logarithmic
    assert max(y) - min(y) > 0.5 * (chart.HEIGHT - chart.TOP - chart.BOTTOM)  # not flattened
    (mark,) = [path for path in lines(page.one("figure")) if path.attributes["d"].count("V")]
    at = float(mark.attributes["d"].lstrip("M").split()[0])
    assert at == pytest.approx(np.interp(np.log(curve.suggestion), np.log(rates), x), abs=0.05)


# -- all of them ---------------------------------------------------------------------------------------------


def everything():
    model = cnn(name=EVIL)
    model.layers[0].name = model.layers[0].label = EVIL
    made = History()
    made.on_epoch_end(0, {EVIL: 1.0, "loss": 2.0})
    return model, made


def test_names_cannot_break_out_of_the_html():
    for thing in everything():
        page = shown(thing)
        assert not page.all("script") and EVIL in page.text


def test_the_style_reaches_nothing_but_the_card():
    rules = re.sub(r"@container[^{]*\{((?:[^{}]*\{[^}]*\})*)\s*\}", r"\1", css())
    selectors = [one.strip() for group in re.findall(r"([^{}]+)\{", rules) for one in group.split(",")]
    assert len(selectors) > 20 and all(one.startswith(".xpnet-card") for one in selectors)
    assert "http" not in css() and "@import" not in css()
    for thing in everything():
        assert "xpnet-card" in shown(thing).children[0].attributes["class"]


def test_text_takes_the_pages_own_colour_so_that_dark_pages_can_be_read():
    assert not re.findall(r"[^-]color: (?!inherit)[^;]+;", css())
    assert "fill: currentColor" in css()


def test_cards_are_small():
    for thing in everything():
        assert len(thing._repr_html_()) < 15_000


def test_no_extra_is_needed():
    code = """
import sys
for name in ("matplotlib", "jinja2", "markupsafe", "PIL"):
    sys.modules[name] = None
from xpnet import Sequential, layers
model = Sequential([layers.Dense(2)], input_shape=(3,), device="cpu")
model.compile("sgd", "mse")
history = model.fit([[1.0, 2.0, 3.0]] * 8, [[1.0, 2.0]] * 8, epochs=2, verbose=0)
assert "dense" in model._repr_html_() and "<svg" in history._repr_html_()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


HOSTS = {  # what notebooks put around an output: colours of their own on the body, and rules for tables
    "JupyterLab": """body { color: rgba(255, 255, 255, 0.87); background: #111111; }
        .out table { border: none; color: black; table-layout: fixed; margin: 0 auto; }
        .out tbody tr:nth-child(odd) { background: #eeeeee; } .out td, .out th { text-align: right; }
        .out :not(pre) > code { background: #eeeeee; color: black; padding: 1px 5px; }""",
    "VS Code": """body { color: #cccccc; background: #1e1e1e; }
        table { color: inherit; } .out thead tr { background: transparent; }""",
    "Colab": "html[theme=dark] body { color: #e3e3e3; background: #383838; }",
    "paper": "body { color: #202124; background: white; }",
}
COLOURS = """() => [...document.querySelectorAll('.xpnet-card *')].map(one => {
  const seen = getComputedStyle(one), text = [...one.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  const ink = one.namespaceURI.endsWith('svg') ? seen.fill : seen.color;
  return {tag: one.tagName, text, ink, paper: seen.backgroundColor};
})"""


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("width", [340, 900])
def test_it_can_be_read_in_light_and_dark_notebooks(chromium, host, width):  # noqa: F811
    block = layers.Residual([layers.Conv2D(2, 3, padding="same")], [layers.Conv2D(2, 1)])
    model = Sequential([block, layers.Flatten(), layers.Dense(3)], input_shape=(1, 8, 8), device="cpu")
    cards = [model, history(9, loss=lambda e: 9.0 - e, val_loss=lambda e: 8.0 - e, accuracy=float)]
    tab = chromium.new_page(viewport={"width": width, "height": 700})
    tab.set_content(
        f"<!doctype html><html theme=dark><style>{HOSTS[host]}</style><body>"
        + "".join(f"<div class=out>{one._repr_html_()}</div>" for one in cards)
    )
    ink = tab.evaluate("getComputedStyle(document.body).color")
    seen = tab.evaluate(COLOURS)
    fits = tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.close()
    assert fits and len(seen) > 100
    for one in seen:
        if one["text"] and one["tag"] not in ("STYLE", "title"):
            assert one["ink"] == ink, one
        if one["tag"] != "I":  # the bars
            assert one["paper"] == "rgba(0, 0, 0, 0)", one
