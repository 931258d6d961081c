"""The explain page in a browser: what one sees, clicks, draws and types, its numbers against the model's."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import chromium  # noqa: F401 - a fixture

import xpnet
from xpnet import viz
from xpnet.layers import (
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    GroupNormalization,
    Layer,
    LayerNormalization,
    MaxPooling2D,
    Residual,
)

SOURCE = Path(viz.__file__).parent / "explain"
TOLERANCE = 1e-4
WIDTHS = (360, 768, 1280, 1920)
JAPANESE = re.compile("[ぁ-んァ-ヶ一-龠]")


@pytest.fixture(scope="module")
def digits():
    """A CNN trained this minute, ten test images and their labels."""
    (x, y), (xt, yt) = xpnet.datasets.load_digits()
    layers = [
        Conv2D(6, 3, padding="same", activation="relu"),
        MaxPooling2D(2),
        Conv2D(8, 3, activation="relu"),
        Flatten(),
        Dense(24, activation="relu"),
        Dropout(0.25),
        Dense(10, activation="softmax"),
    ]
    model = xpnet.Sequential(layers, input_shape=(1, 8, 8), device="cpu", seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=32, epochs=3, verbose=0)
    return model, xt[:10], yt[:10]


@pytest.fixture(scope="module")
def written(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("explain") / "digits.html"
    model, x, y = digits
    return viz.explain(model, path, x, y, title="Digits")


@pytest.fixture
def visit(chromium):  # noqa: F811
    """visit(path, hash="", sample=0, **context): the page, open at a sample (None: where it begins itself).

    In the end nothing was complained of or fetched.
    """
    contexts, complaints = [], []

    def open_page(path, hash="", width=1280, height=900, sample=0, **context):
        context = {"color_scheme": "light", "locale": "en-GB", "reduced_motion": "reduce"} | context
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, **context))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        own = (path.as_uri(), "data:,")
        page.on("request", lambda asked: asked.url.startswith(own) or complaints.append(asked.url))
        at = "" if sample is None else f"&sample={sample}"
        page.goto(f"{path.as_uri()}#{hash}{at}")
        page.wait_for_selector("#detail .detail-head", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def settle(page):
    """Wait until what was changed is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def click(page, selector):
    page.click(selector)
    settle(page)


def numbers(page, selector):
    """The full numbers behind what is shown, in the order of the page."""
    found = page.eval_on_selector_all(
        f"{selector}[data-value], {selector} [data-value]", "all => all.map((one) => one.dataset.value)"
    )
    return np.array([float(value) for value in found])


def point_at(target, fx, fy, press=True):
    """Click, or move to, a share of the width and height of an element."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    at = {"x": fx * box["width"], "y": fy * box["height"]}
    target.click(position=at) if press else target.hover(position=at)
    settle(target.page)


def number(page, name):
    return float(page.get_attribute(f'#detail [data-name="{name}"]', "data-value"))


def probabilities(page):
    return numbers(page, "#probabilities .number")


def place(page):
    """What is looked at: [map, row, column] or [unit]."""
    return page.eval_on_selector_all(".stepper input", "all => all.map((one) => Number(one.value))")


def look_at(page, *index):
    """Type the element's numbers."""
    for box, value in zip(page.query_selector_all(".stepper input"), index):
        box.fill(str(value))
        box.press("Enter")
        settle(page)
    assert place(page) == list(index)


def canvas(layer):
    return f'#network [data-layer="{layer}"] canvas'


def outputs(model, x):
    return [values[0] for values in model.layer_outputs(x[None]).values()]


def picture(page):
    """The input as the page has it: the numbers of the picture's panel."""
    click(page, canvas(-1))
    return numbers(page, '[data-name="around"]').reshape(8, 8)


def drag(page, points):
    box = page.locator("#board").bounding_box()
    at = [(box["x"] + fx * box["width"], box["y"] + fy * box["height"]) for fx, fy in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()
    settle(page)


ONE = [(0.5, 0.05), (0.5, 0.95)]
SEVEN = [(0.15, 0.1), (0.85, 0.1), (0.4, 0.95)]


# -- forward -------------------------------------------------------------------------------------------------


def test_the_answer_is_that_of_predict(visit, written, digits):
    model, x, labels = digits
    page = visit(written)
    for i, p in enumerate(model.predict(x)):
        click(page, f".thumb >> nth={i}")
        assert np.abs(probabilities(page) - p).max() < TOLERANCE
        shown = [float(text.lstrip("<")) for text in page.locator("#probabilities .number").all_inner_texts()]
        assert np.abs(shown - p).max() < 2 * TOLERANCE  # as read: four decimals
        assert page.locator("#probabilities .best .name").inner_text() == str(p.argmax())
        assert page.input_value("#target") == str(labels[i])
        assert numbers(page, ".loss")[0] == pytest.approx(-np.log(p[labels[i]]), rel=1e-3, abs=1e-5)


def test_a_clicked_pixel_is_patch_times_kernel(visit, written, digits):
    model, x, _ = digits
    page, weights, made = visit(written), model.state_dict(), outputs(model, x[0])
    names = [name for name in weights if weights[name].ndim == 4]
    for layer, source, pad, name in ((0, x[0], 1, names[0]), (2, made[1], 0, names[1])):
        for fx, fy in ((0.31, 0.27), (0.8, 0.9), (0.55, 0.5)):
            point_at(page.locator(canvas(layer)), fx, fy)
            f, row, column = place(page)
            padded = np.pad(source, ((0, 0), (pad, pad), (pad, pad)))
            patch, kernel = padded[:, row : row + 3, column : column + 3], weights[name][f]
            c = 0 if len(patch) == 1 else int(page.inner_text('.chips [aria-pressed="true"] small'))
            assert np.allclose(numbers(page, '[data-name="patch"]'), patch[c].ravel(), atol=TOLERANCE)
            assert np.allclose(numbers(page, '[data-name="kernel"]'), kernel[c].ravel(), atol=1e-6)
            products = numbers(page, '[data-name="products"]')
            assert np.allclose(products, (patch * kernel)[c].ravel(), atol=TOLERANCE)
            parts = [number(page, "channel-sum"), number(page, "bias")]
            parts += [number(page, "others")] if len(patch) > 1 else []
            assert sum(parts) == pytest.approx(number(page, "sum"), abs=1e-6)
            assert number(page, "activated") == pytest.approx(made[layer][f, row, column], abs=TOLERANCE)
            assert number(page, "activated") == max(0, number(page, "sum"))


def test_another_channel_is_written_out_where_it_is_chosen(visit, written, digits):
    model, x, _ = digits
    page = visit(written, "layer=2")
    kernel = next(w for w in model.state_dict().values() if w.ndim == 4 and w.shape[1] == 6)
    f = place(page)[0]
    for c in (1, 5):
        click(page, f".chips button >> nth={c}")
        assert np.allclose(numbers(page, '[data-name="kernel"]'), kernel[f, c].ravel(), atol=1e-6)


def test_the_matrix_view_gives_the_same_number(visit, written, digits):
    model, x, _ = digits
    page, made = visit(written, "layer=2"), outputs(model, x[0])
    for at in ((3, 1, 0), (7, 0, 1)):
        click(page, '[data-choice="sum"]')
        look_at(page, *at)
        plain = number(page, "sum")
        click(page, '[data-choice="matrix"]')
        assert number(page, "matrix-sum") == pytest.approx(plain, abs=1e-5)
        assert max(0, number(page, "matrix-sum")) == pytest.approx(made[2][at], abs=TOLERANCE)
        if page.locator("text=Show all 54").count():
            click(page, "text=Show all 54")
        products = numbers(page, '[data-name="matrix-products"] .amount')
        assert len(products) == 54  # the row and the column, 6 channels of 3 x 3
        assert products.sum() == pytest.approx(number(page, "matrix-product"), abs=1e-5)


def test_the_column_that_is_clicked_is_the_pixel(visit, written):
    page = visit(written, "layer=2")
    click(page, '[data-choice="matrix"]')
    point_at(page.locator(".falk canvas").first, 0.99, 0.5)
    assert place(page)[1:] == [1, 1]  # the last of 2 x 2 patches


def test_groups_have_matrices_of_their_own(visit, tmp_path):
    x = np.random.default_rng(0).random((1, 4, 6, 6)).astype(np.float32)
    layers = [Conv2D(4, 3, groups=2), Flatten(), Dense(3)]
    model = xpnet.Sequential(layers, input_shape=(4, 6, 6), device="cpu", seed=0)
    page = visit(viz.explain(model, tmp_path / "groups.html", x), "layer=0")
    click(page, '[data-choice="matrix"]')
    for f in range(4):
        look_at(page, f, 1, 2)
        assert number(page, "matrix-sum") == pytest.approx(outputs(model, x[0])[0][f, 1, 2], abs=TOLERANCE)


LIGHTNESS = """(one) => {  // of each pixel of a canvas, read from a copy: rows of (height, width)
  const copy = Object.assign(document.createElement("canvas"), { width: one.width, height: one.height });
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(one, 0, 0);
  const { data } = context.getImageData(0, 0, copy.width, copy.height);
  const of = (k) => 0.2126 * data[4 * k] + 0.7152 * data[4 * k + 1] + 0.0722 * data[4 * k + 2];
  const row = (y) => Array.from({ length: copy.width }, (_, x) => of(y * copy.width + x));
  return Array.from({ length: copy.height }, (_, y) => row(y));
}"""


def test_maps_are_painted_by_their_numbers(visit, written, digits):
    model, x, _ = digits
    page, networks = visit(written, "layer=1"), []
    for i in (0, 1):
        click(page, f".thumb >> nth={i}")
        painted = np.array(page.eval_on_selector(".outputs canvas", LIGHTNESS))
        inside = np.round(3 + (np.arange(4) + 0.8) * (len(painted) - 6) / 4).astype(int)  # clear of the frame
        values = outputs(model, x[i])[1][place(page)[0]]
        lightness = painted[np.ix_(inside, inside)]
        assert (
            np.corrcoef(values.ravel(), lightness.ravel())[0, 1] > 0.98
        )  # viridis rises evenly in lightness
        networks.append(page.eval_on_selector(canvas(1), LIGHTNESS))
    assert networks[0] != networks[1]


def test_pooling_keeps_the_largest_of_its_window(visit, written, digits):
    model, x, _ = digits
    page, made = visit(written, "layer=1"), outputs(model, x[0])
    look_at(page, 4, 2, 1)
    window = numbers(page, '[data-name="patch"]')
    assert np.allclose(window, made[0][4, 4:6, 2:4].ravel(), atol=TOLERANCE)
    assert number(page, "sum") == window.max()
    assert numbers(page, '[data-name="patch"] .lit')[0] == window.max()


def test_a_unit_is_inputs_times_weights(visit, written, digits):
    model, x, _ = digits
    page, made = visit(written, "layer=4"), outputs(model, x[0])
    look_at(page, 7)
    click(page, "text=Show all 32")
    weight = next(w for w in model.state_dict().values() if w.shape == (24, 32))
    expected = weight[7] * made[3]
    products = numbers(page, '[data-name="products"] .amount')
    assert np.allclose(sorted(products), sorted(expected), atol=TOLERANCE)
    assert (np.diff(np.abs(products)) <= 0).all()  # the largest first
    assert number(page, "activated") == pytest.approx(made[4][7], abs=TOLERANCE)


def test_softmax_shows_its_arithmetic(visit, written, digits):
    model, x, y = digits
    page = visit(written)
    click(page, "#answer-open")
    rows = page.locator("table.softmax tbody tr")
    z = np.array([float(minus(rows.nth(k).locator("td").nth(0).inner_text())) for k in range(10)])
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    assert np.abs(p - model.predict(x[:1])[0]).max() < 5e-3  # z as read, four digits
    read = [float(rows.nth(k).locator("td").nth(2).inner_text().lstrip("<")) for k in range(10)]
    assert np.abs(read - model.predict(x[:1])[0]).max() < 2 * TOLERANCE
    assert number(page, "loss") == pytest.approx(-np.log(model.predict(x[:1])[0, y[0]]), rel=1e-3)


def minus(text):
    """A number as the page writes it."""
    mantissa, _, exponent = text.replace("−", "-").partition("·10")
    return f"{mantissa}e{exponent.translate(str.maketrans('⁻⁰¹²³⁴⁵⁶⁷⁸⁹', '-0123456789')) or 0}"


def test_the_window_follows_the_pointer_and_the_arrow_keys(visit, written):
    page = visit(written, "layer=0")
    look_at(page, 2, 3, 3)
    view = page.locator(".arithmetic canvas").first
    point_at(view, 0.85, 0.85, press=False)
    assert place(page) == [2, 7, 7]
    view.focus()
    page.keyboard.press("ArrowLeft")
    settle(page)
    page.keyboard.press("ArrowUp")
    settle(page)
    assert place(page) == [2, 6, 6]


def test_the_window_slides_by_itself(visit, written):
    page = visit(written, "layer=0", reduced_motion="no-preference")
    look_at(page, 0, 0, 6)
    click(page, "#slide")
    page.wait_for_function(
        "() => document.querySelectorAll('.stepper input')[1].value === '1'"
    )  # the next row
    click(page, "#slide")
    stopped = place(page)
    page.wait_for_timeout(400)
    assert place(page) == stopped


def test_dropout_masks_in_the_training_pass(visit, written, digits):
    model, x, _ = digits
    page = visit(written, "layer=5")
    assert page.locator('[data-layer="5"] .pill').count() == 1  # at work it hands its numbers on
    page.check("#training")
    settle(page)
    p = model.forward(x[:1], train=True)[0][0]
    assert np.abs(probabilities(page) - p).max() < TOLERANCE
    assert np.abs(probabilities(page) - model.predict(x[:1])[0]).max() > TOLERANCE
    assert page.locator(canvas(5)).count() == 1
    told = set()
    for unit in range(24):
        look_at(page, unit)
        rows = page.locator("#detail .ledger").inner_text()
        kept = number(page, "mask")
        assert ("kept: times" in rows, "silenced: times" in rows) == (kept == 1, kept == 0)
        if kept:
            assert "1 / (1 − rate)" in rows and number(page, "scale") == pytest.approx(1 / 0.75)
        assert number(page, "sum") == pytest.approx(number(page, "x") * kept / 0.75, rel=1e-5)
        told.add(kept)
    assert told == {0, 1}


def test_it_begins_with_the_least_certain_sample(visit, written, digits):
    model, x, y = digits
    losses = [-np.log(p[label]) for p, label in zip(model.predict(x), y)]
    page = visit(written, sample=None)
    assert int(np.argmax(losses)) != 0
    pressed = page.eval_on_selector_all(".thumb", "all => all.map((one) => one.ariaPressed === 'true')")
    assert pressed == [loss == max(losses) for loss in losses]
    assert numbers(page, ".loss")[0] == pytest.approx(max(losses), rel=1e-3)


def test_layers_of_one_kind_have_their_names(visit, written):
    page = visit(written, "layer=2")
    assert page.inner_text("#detail h2 small") == "conv2d_1"
    assert page.get_attribute('[data-layer="2"] .head b', "title") == "conv2d_1"
    assert page.get_attribute(canvas(2), "aria-label").startswith("Conv2D, conv2d_1, 8 × 2 × 2. ")
    assert page.get_attribute(canvas(0), "aria-label").startswith("Conv2D, conv2d, ")


def test_places_in_maps_are_headed(visit, written):
    for at, table, head in (
        ("layer=4", "products", "input: map · row, column"),
        ("layer=6", "products", "input"),
        ("layer=1&mode=backward", "sources", "Conv2D: map · row, column"),
    ):
        page = visit(written, at)
        assert page.inner_text(f'[data-name="{table}"] th >> nth=0') == head


# -- backward ------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_model(visit, written, digits):
    model, x, y = digits
    gradients = model.gradients(x[:1], y[:1])
    scale = float(max(np.abs(g).max() for g in gradients.values()))
    kernels = [name for name in gradients if gradients[name].ndim == 4]
    page = visit(written, "mode=backward&layer=2")
    click(page, '[data-choice="weights"]')
    for f in (0, 5):
        look_at(page, f, 0, 0)
        for c in (0, 3):
            click(page, f".chips button >> nth={c}")
            found = numbers(page, '[data-name="kernel-gradient"]')
            assert np.abs(found - gradients[kernels[1]][f, c].ravel()).max() < TOLERANCE * scale
            click(page, '[data-name="kernel-gradient"] button >> nth=4')
            assert number(page, "weight-gradient") == pytest.approx(found[4], abs=TOLERANCE * scale)
        bias = gradients[kernels[1].replace("weight", "bias")][f]
        assert number(page, "bias-gradient") == pytest.approx(bias, abs=TOLERANCE * scale)


def test_a_dense_unit_s_gradients(visit, written, digits):
    model, x, y = digits
    page = visit(written, "mode=backward&layer=4")
    click(page, '[data-choice="weights"]')
    gradient = next(g for g in model.gradients(x[:1], y[:1]).values() if g.shape == (24, 32))
    unit = int(np.abs(gradient).sum(axis=1).argmax())
    look_at(page, unit)
    click(page, "text=Show all 32")
    found = numbers(page, '[data-name="weight-gradients"] .amount')
    assert np.allclose(sorted(found), sorted(gradient[unit]), atol=TOLERANCE * np.abs(gradient).max())


def test_where_a_pixel_s_gradient_came_from(visit, written):
    page = visit(written, "mode=backward&layer=1")
    for at in ((2, 1, 1), (5, 3, 2)):
        look_at(page, *at)
        more = page.locator("text=/Show all \\d+/")
        if more.count():
            more.first.click()
            settle(page)
        products = numbers(page, '[data-name="sources"] .amount')
        used = min(at[1] + 1, 4 - at[1], 2) * min(at[2] + 1, 4 - at[2], 2) * 8
        assert len(products) == used  # every place of eight kernels whose window holds the pixel
        assert products.sum() == pytest.approx(number(page, "gradient"), rel=1e-4, abs=1e-9)


def test_the_mask_stands_in_the_gradient_of_what_dropout_was_given(visit, written, digits):
    page = visit(written, "mode=backward&layer=4")
    factors = set()
    for unit in range(24):
        look_at(page, unit)
        rows = page.locator('[data-name="sources"] tbody tr')
        assert rows.count() == 1
        product = numbers(page, '[data-name="sources"] .amount')[0]
        assert product == pytest.approx(number(page, "gradient"), rel=1e-4, abs=1e-12)
        factors.add(rows.first.inner_text().split("×")[1].split()[0])
    assert factors == {"0", "1.33"}  # 1 / (1 - 0.25)


def test_the_gradient_begins_with_p_less_y(visit, written, digits):
    _, _, y = digits
    page = visit(written, "mode=backward")
    click(page, "#answer-open")
    p = probabilities(page)
    cells = page.locator("table.softmax tbody tr td:last-child")
    found = np.array([float(cells.nth(k).get_attribute("data-value")) for k in range(10)])
    assert np.abs(found - (p - np.eye(10)[y[0]])).max() < TOLERANCE


def test_another_class_gives_another_loss(visit, written, digits):
    _, _, y = digits
    page = visit(written, "mode=backward")
    other = (int(y[0]) + 1) % 10
    page.select_option("#target", str(other))
    settle(page)
    assert numbers(page, ".loss")[0] == pytest.approx(-np.log(probabilities(page)[other]), rel=1e-3)


def test_a_step_changes_the_weights_and_the_answer(visit, written, digits):
    model, x, y = digits
    page = visit(written, "mode=backward&layer=0")
    click(page, '[data-choice="step"]')
    page.fill("#rate", "-1")  # 10^-1
    settle(page)
    kernel = next(w for w in model.state_dict().values() if w.ndim == 4)[place(page)[0], 0].ravel()
    gradient = next(iter(model.gradients(x[:1], y[:1]).values()))[place(page)[0], 0].ravel()
    assert np.allclose(numbers(page, '[data-name="weight-before"]'), kernel, atol=1e-6)
    assert np.allclose(numbers(page, '[data-name="weight-change"]'), -0.1 * gradient, atol=1e-5)
    assert np.allclose(numbers(page, '[data-name="weight-after"]'), kernel - 0.1 * gradient, atol=1e-5)

    gradients = model.gradients(x[:1], y[:1])
    trained = model.state_dict()
    try:
        model.load_state_dict({name: w - 0.1 * gradients.get(name, 0) for name, w in trained.items()})
        after = model.forward(x[:1], train=True)[0][0]
        assert number(page, "loss-after") == pytest.approx(-np.log(after[y[0]]), rel=1e-3)
        click(page, "#take-step")
        assert np.abs(probabilities(page) - after).max() < TOLERANCE
        click(page, "#mode-forward")
        assert np.abs(probabilities(page) - model.predict(x[:1])[0]).max() < TOLERANCE
    finally:
        model.load_state_dict(trained)
    click(page, "#mode-backward")
    click(page, "#reset-weights")
    click(page, "#mode-forward")
    assert np.abs(probabilities(page) - model.predict(x[:1])[0]).max() < TOLERANCE


# -- drawing -------------------------------------------------------------------------------------------------


def test_drawing_changes_the_answer(visit, written, digits):
    model, _, _ = digits
    page = visit(written)
    seen = []
    for points in (ONE, SEVEN):
        click(page, "#clear")
        drag(page, points)
        assert page.locator('.thumb[aria-pressed="true"]').count() == 0
        seen.append(picture(page))
        assert np.allclose(seen[-1] * 16, np.round(seen[-1] * 16), atol=1e-4)  # counts of 4 x 4 blocks
        p = model.predict(seen[-1][None, None].astype(np.float32))[0]
        assert np.abs(probabilities(page) - p).max() < TOLERANCE
    assert np.abs(seen[0] - seen[1]).max() > 0.5
    assert seen[0][:, 3:5].min() > 0.3 and seen[0][:, :2].max() == 0  # a stroke down the middle


def test_a_drawing_outlives_a_change_of_language(visit, written):
    page = visit(written)
    click(page, "#clear")
    drag(page, ONE)
    drawn = picture(page)
    read = "() => document.querySelector('#board').toDataURL()"
    blank = page.evaluate("() => document.createElement('canvas').toDataURL()")
    inked = page.evaluate(read)
    click(page, "#language")
    assert page.get_attribute("html", "lang") == "ja"
    assert page.evaluate(read) == inked != blank
    drag(page, [(0.1, 0.5), (0.9, 0.5)])
    assert (picture(page) >= drawn - 1e-6).all() and picture(page).sum() > drawn.sum() + 1  # one more stroke
    assert JAPANESE.search(page.locator("#input").inner_text())


def test_eraser_and_painting_over_a_sample(visit, written, digits):
    _, x, _ = digits
    page = visit(written)
    assert np.allclose(picture(page), x[0, 0], atol=1e-6)
    click(page, '[data-choice="eraser"]')
    drag(page, [(0.02, 0.5), (0.98, 0.5)])
    erased = picture(page)
    assert erased[4].max() < x[0, 0, 4].max() and np.allclose(erased[:2], x[0, 0, :2], atol=1e-3)


def test_drawing_by_touch(visit, written):
    page = visit(written, width=360, height=740, has_touch=True)
    before = probabilities(page)
    click(page, "#clear")
    page.locator("#board").scroll_into_view_if_needed()
    box = page.locator("#board").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    settle(page)
    assert np.abs(probabilities(page) - before).max() > TOLERANCE


def test_a_picture_file_is_taken_and_dark_on_light_is_inverted(visit, written, digits, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow: pip install 'xpnet[plot]'")
    model, x, _ = digits
    for name, values in (("light.png", x[0, 0]), ("dark.png", 1 - x[0, 0])):
        image.fromarray(np.round(values * 255).astype(np.uint8)).save(tmp_path / name)
    page = visit(written)
    click(page, ".thumb >> nth=3")
    for name in ("light.png", "dark.png"):
        page.set_input_files("#file", tmp_path / name)
        page.wait_for_selector('.thumb[aria-pressed="true"]', state="detached")
        settle(page)
        assert np.abs(picture(page) - x[0, 0]).max() < 0.01
        assert np.abs(probabilities(page) - model.predict(x[:1])[0]).max() < 0.05
        click(page, ".thumb >> nth=3")
    (tmp_path / "no.png").write_bytes(b"no picture")
    page.set_input_files("#file", tmp_path / "no.png")
    page.wait_for_selector("text=no.png is no picture")


def test_a_drawn_mnist_digit_is_centred_by_its_mass(visit, tmp_path):
    model = xpnet.Sequential(
        [Conv2D(2, 5, strides=2), Flatten(), Dense(10)], input_shape=(1, 28, 28), device="cpu", seed=0
    )
    page = visit(viz.explain(model, tmp_path / "mnist.html"))
    drag(page, [(0.1, 0.1), (0.3, 0.1), (0.2, 0.4)])  # a small one in a corner
    x = np.zeros((28, 28))
    click(page, canvas(-1))
    for row, column in np.ndindex(28, 28):
        if row % 9 == 4 and column % 9 == 4:
            look_at(page, 0, row, column)
            near = numbers(page, '[data-name="around"]').reshape(9, 9)
            x[row - 4 : row + 5, column - 4 : column + 5] = near
    look_at(page, 0, 27, 27)
    x[19:, 19:] = numbers(page, '[data-name="around"]').reshape(9, 9)
    rows, columns = np.nonzero(x)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21)
    mass = x.sum()
    centre = (x.sum(axis=1) @ (np.arange(28) + 0.5) / mass, x.sum(axis=0) @ (np.arange(28) + 0.5) / mass)
    assert np.abs(np.subtract(centre, 14)).max() <= 0.6


# -- keyboard ------------------------------------------------------------------------------------------------


def focused(page):
    return page.evaluate(
        "() => [document.activeElement].map((one) => one.id || one.dataset.layer || one.textContent)[0]"
    )


def tab_to(page, wanted, most=120):
    for _ in range(most):
        page.keyboard.press("Tab")
        settle(page)
        if focused(page) == wanted:
            outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"the focus on {wanted} cannot be seen"
            return
    raise AssertionError(f"Tab does not reach {wanted!r}")


def test_the_whole_page_by_keyboard(visit, written, digits):
    page = visit(written)
    tab_to(page, "mode-forward")
    tab_to(page, "board")
    page.keyboard.press("Delete")
    settle(page)
    blank = probabilities(page)
    for key in ("Home", *["ArrowUp"] * 4, "Space", *["ArrowDown"] * 7, "Space"):
        page.keyboard.press(key)
    settle(page)
    assert page.locator('.thumb[aria-pressed="true"]').count() == 0
    assert "pen up" in page.inner_text("#live")
    drawn = probabilities(page)
    assert np.abs(drawn - blank).max() > TOLERANCE
    tab_to(page, "0")  # the first layer's maps
    before = place(page)
    for key in ("]", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
        settle(page)
    assert place(page)[0] == (before[0] + 1) % 6
    assert page.inner_text("#live").startswith("map {}, row {}, column {}: ".format(*place(page)))
    page.keyboard.press(">")
    settle(page)
    settle(page)
    assert focused(page) == "1" and page.inner_text("#detail h2").startswith("MaxPooling2D")
    page.keyboard.press("b")
    settle(page)
    assert page.get_attribute("#mode-backward", "aria-pressed") == "true"
    page.keyboard.press("v")
    settle(page)
    assert page.locator("#take-step").count() == 1
    page.keyboard.press("f")
    settle(page)
    assert np.array_equal(probabilities(page), drawn)
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("l")
    settle(page)
    assert page.inner_text("#mode-forward") == "順伝播"


def test_single_letters_can_be_switched_off(visit, written):
    page = visit(written)
    click(page, "#help-open")
    page.uncheck("#help input")
    click(page, "#help button")
    page.keyboard.press("b")
    settle(page)
    assert page.get_attribute("#mode-forward", "aria-pressed") == "true"


def test_letters_typed_into_a_field_stay_letters(visit, written):
    page = visit(written)
    page.focus(".stepper input")
    page.keyboard.press("b")
    settle(page)
    assert page.get_attribute("#mode-forward", "aria-pressed") == "true"


# -- words ---------------------------------------------------------------------------------------------------


def test_every_word_stands_in_both_languages_and_is_used():
    words = json.loads((SOURCE / "words.json").read_text(encoding="utf-8"))
    assert all(set(texts) == {"en", "ja"} and all(texts.values()) for texts in words.values())
    for key, texts in words.items():
        blanks = [set(re.findall(r"\{(\w+)\}", texts[language])) for language in ("en", "ja")]
        assert blanks[0] == blanks[1], key
    scripts = "".join(path.read_text(encoding="utf-8") for path in (SOURCE / "page").glob("*.js"))
    html = (SOURCE / "page.html").read_text(encoding="utf-8")
    literals = set(re.findall(r'"([a-z]+(?:\.[a-z]+)*)"', scripts)) | set(
        re.findall(r'data-\w+="([^"]+)"', html)
    )
    assert set(words) - literals == set()
    asked = set(re.findall(r'word\("([^"]+)"', scripts)) | set(
        re.findall(r'data-(?:word|label)="([^"]+)"', html)
    )
    dotted = {text for text in literals if "." in text and not text.endswith(".js")}
    assert (asked | dotted) - set(words) == set()


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page_speaks_one_language(visit, written, language):
    page = visit(written, f"lang={language}")
    seen = page.inner_text("body")
    for mode in ("#mode-backward", "#answer-open", "#tour-start"):
        click(page, mode)
        seen += page.inner_text("body")
    assert bool(JAPANESE.search(seen.replace("日本語", ""))) == (language == "ja")
    if language == "ja":
        assert (
            "Forward" not in seen
            and "Guided" not in seen
            and "loss" not in seen.lower().replace("losses", "")
        )
    assert page.get_attribute("html", "lang") == language


def test_language_and_theme_are_remembered_in_the_address(visit, written):
    page = visit(written, locale="ja-JP")
    assert page.get_attribute("html", "lang") == "ja"  # the browser's
    click(page, "#language")
    click(page, "#theme")
    assert page.inner_text("#mode-forward") == "Forward"
    assert not JAPANESE.search(page.inner_text("body").replace("日本語", ""))
    page.reload()
    page.wait_for_selector("#detail .detail-head")
    assert page.get_attribute("html", "lang") == "en"
    assert page.get_attribute("html", "data-theme") == "dark"


def test_a_page_may_be_written_in_a_language(visit, digits, tmp_path):
    model, x, y = digits
    page = visit(viz.explain(model, tmp_path / "ja.html", x, y, language="ja"))
    assert page.inner_text("#mode-forward") == "順伝播"


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_tour_tells_of_this_model(visit, written, digits, language):
    model, x, y = digits
    page = visit(written, f"lang={language}")
    click(page, "#tour-start")
    texts, count = [], int(page.inner_text("#tour .soft").split("/")[1])
    for stop in range(count):
        texts.append(page.inner_text("#tour .tour-text"))
        assert not re.search(r"undefined|NaN|–|[{}]", texts[-1]), texts[-1]
        assert page.evaluate("() => document.activeElement.closest('#tour') !== null")
        if stop == 1:  # the convolution, whose sum stands there
            at = tuple(place(page))
            total = number(page, "sum")
            assert max(0, total) == pytest.approx(outputs(model, x[0])[0][at], abs=TOLERANCE)
            assert f"{total:.4g}"[:4].replace("-", "−") in texts[-1]
        click(page, "#tour-next")
    assert len(set(texts)) == count >= 11
    assert {"en": "between 0 and 1.", "ja": "0 から 1 まで"}[language] in texts[0]
    assert any({"en": "a share of 0.25", "ja": "割合 0.25 "}[language] in text for text in texts)
    assert page.locator("#tour").is_hidden()  # the last stop's button ends it
    assert focused(page) == "tour-start"


# -- looks ---------------------------------------------------------------------------------------------------


BEYOND = """() => {
  const edge = document.querySelector("#detail").getBoundingClientRect().right + 1;
  const scrolls = (one) => one.closest(".scroll, .falk-scroll, .grid");
  const out = (one) => one.getBoundingClientRect().right > edge && !scrolls(one);
  return [...document.querySelectorAll("#detail *")].filter(out).map((one) => one.outerHTML.slice(0, 90));
}"""


@pytest.mark.parametrize("width", WIDTHS)
def test_no_width_scrolls_sideways(visit, written, width):
    for language in ("en", "ja"):
        page = visit(written, f"lang={language}&layer=0", width=width, height=800)
        walk = (
            "",
            ">>",
            "v",
            ">>",
            "b",
            "<<",
            "v",
            "v",
            "f",
            "<<<",
        )  # layer 0, 2, its matrix, 4, backward, ...
        for keys in walk:
            for key in keys:
                page.keyboard.press(key)
                settle(page)
            assert page.evaluate(BEYOND) == [], (language, keys)
            for whole in ("html", "#below"):
                assert page.eval_on_selector(whole, "one => one.scrollWidth - one.clientWidth") <= 0
        page.keyboard.press("b")
        page.locator("#answer-open").evaluate("one => one.click()")
        settle(page)
        assert page.evaluate(BEYOND) == []


def test_a_phone_s_sheet_is_as_wide_as_the_phone_at_every_layer(visit, written, digits):
    page = visit(written, "mode=backward&layer=-1", width=390, height=844)
    page.locator(canvas(0)).click()
    page.keyboard.press("<")
    for _ in range(1 + len(digits[0].layers)):
        page.keyboard.press(">")
        settle(page)
        for tab in page.locator("#detail .switch button").all():
            tab.click()
            settle(page)
            wider = page.eval_on_selector("#below", "one => one.scrollWidth - one.clientWidth")
            assert wider <= 0, (page.inner_text("#detail h2"), tab.inner_text())


def test_layers_out_of_sight_are_counted_and_the_way_there_is_shown(visit, written, digits):
    page = visit(written, width=780)
    inside = """() => {
      const strip = document.querySelector("#strip").getBoundingClientRect();
      const middle = (one) => one.x + one.width / 2;
      return [...document.querySelectorAll("#strip .column")].map((one) => {
        const x = middle(one.getBoundingClientRect());
        return x < strip.left ? "left" : x > strip.right ? "right" : "here";
      });
    }"""
    places = page.evaluate(inside)
    assert len(places) == 1 + len(digits[0].layers) and places[0] == "here" and "right" in places
    left, right = page.locator(".beyond.left button"), page.locator(".beyond.right button")
    assert not left.is_visible()
    assert right.inner_text() == f"{places.count('right')} more →"
    right.focus()
    for _ in places:
        if not right.is_visible():
            break
        page.keyboard.press("Enter")
        page.wait_for_timeout(50)
    places = page.evaluate(inside)
    assert places[-1] == "here" and not right.is_visible()
    assert left.inner_text() == f"← {places.count('left')} more"
    page = visit(written, width=2600)
    assert set(page.evaluate(inside)) == {"here"}
    assert not page.locator(".beyond").first.is_visible() and not page.locator(".beyond").last.is_visible()


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 * 255 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const skipped = ":disabled, [aria-hidden=true], .unseen, .skip, script, option";
  const paper = (one) => {
    for (; one; one = one.parentElement) {
      const color = rgb(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
      if (getComputedStyle(one).backgroundImage !== "none") return null;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.checkVisibility() || one.closest(skipped)) continue;
    const back = paper(one);
    if (!back) continue;
    const [a, b] = [light(rgb(getComputedStyle(one).color)), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${one.outerHTML.slice(0, 90)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_can_be_read_in_both_themes(visit, written, theme):
    page = visit(written, f"layer=2&theme={theme}")
    papers = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", papers))) > 384) == (theme == "light")
    for act in (
        None,
        '[data-choice="matrix"]',
        "#mode-backward",
        '[data-choice="weights"]',
        '[data-choice="step"]',
        "#answer-open",
        "#tour-start",
        "#help-open",
    ):
        if act:
            click(page, act)
        assert page.evaluate(CONTRAST) == [], act


def test_the_page_follows_the_browser_s_theme(visit, written):
    page = visit(written, color_scheme="dark")
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="light")
    settle(page)
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != dark


def test_on_a_phone_the_detail_is_a_sheet(visit, written):
    page = visit(written, width=360, height=740)
    assert not page.locator("#detail").is_visible()
    page.locator(canvas(2)).click()
    page.wait_for_selector("#detail", state="visible")
    assert page.locator('[data-name="sum"]').count() == 1
    click(page, ".close")
    page.wait_for_selector("#detail", state="hidden")
    click(page, "#tour-start")
    click(page, "#tour-next")  # not under the sheet
    assert page.inner_text("#tour .soft").startswith("2 /")


def test_everything_that_is_pressed_has_a_name(visit, written):
    page = visit(written, "mode=backward&layer=2")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, section, canvas[tabindex]')]
             .filter((one) => !one.getAttribute('aria-label') && !one.textContent.trim())
             .filter((one) => !one.labels?.length).map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert [html for html in nameless if "hidden" not in html] == []


# -- other models --------------------------------------------------------------------------------------------


def test_a_vector_model_has_sliders(visit, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)).astype(np.float32), rng.integers(0, 4, 60)
    model = xpnet.Sequential([Dense(6, activation="tanh"), Dense(4)], input_shape=(3,), device="cpu", seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=1, verbose=0)
    page = visit(viz.explain(model, tmp_path / "vector.html", x[:4], y[:4]))

    def answer(sample):
        z = model.predict(sample[None].astype(np.float32))[0]
        return np.exp(z) / np.exp(z).sum()

    assert np.abs(probabilities(page) - answer(x[0])).max() < TOLERANCE
    page.locator(".sliders input").nth(1).fill("0.5")
    settle(page)
    moved = x[0].copy()
    moved[1] = float(page.locator(".sliders input").nth(1).input_value())
    assert moved[1] != x[0, 1]
    assert np.abs(probabilities(page) - answer(moved)).max() < TOLERANCE
    click(page, "#mode-backward")
    assert page.locator(canvas(-1)).count() == 1


def test_a_model_that_ends_in_maps_answers_with_them(visit, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((3, 1, 8, 8)).astype(np.float32)
    layers = [
        Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"),
        Residual([Conv2D(4, 3, padding="same")]),
        Conv2D(1, 3, padding="same", activation="sigmoid"),
    ]
    model = xpnet.Sequential(layers, input_shape=(1, 8, 8), device="cpu", seed=0)
    model.compile("sgd", "mse")
    page = visit(viz.explain(model, tmp_path / "maps.html", x, x))
    assert page.locator("#probabilities").count() == 0 and page.locator("#answer canvas").count() == 1
    assert numbers(page, ".loss")[0] == pytest.approx(np.mean((model.predict(x[:1]) - x[:1]) ** 2), rel=1e-3)
    made = model.layer_outputs(x[:1])
    for layer, name in ((1, model.layers[1].label), (3, model.layers[2].label)):
        click(page, canvas(layer))
        at = tuple(place(page))
        shown = page.locator('#detail [data-name="activated"], #detail [data-name="sum"]').last
        assert float(shown.get_attribute("data-value")) == pytest.approx(made[name][0][at], abs=TOLERANCE)
    click(page, "#mode-backward")
    click(page, canvas(0))
    assert page.locator('[data-name="sources"] tbody tr').count() > 1
    click(page, canvas(1))
    click(page, '[data-choice="weights"]')
    look_at(page, 2, 4, 4)
    click(page, ".chips button >> nth=1")
    gradients = [g for g in model.gradients(x[:1], x[:1]).values() if g.ndim == 4]
    found = numbers(page, '[data-name="kernel-gradient"]')
    assert np.allclose(found, gradients[1][1, 2].ravel(), atol=TOLERANCE * np.abs(gradients[1]).max())
    click(page, "#tour-start")
    for _ in range(int(page.inner_text("#tour .soft").split("/")[1])):
        assert not re.search(r"undefined|NaN|[{}]", page.inner_text("#tour .tour-text"))
        click(page, "#tour-next")


class Doubled(Layer):
    """A layer that the page knows nothing of."""

    def forward(self, x, *, train):
        return 2 * x, None

    def backward(self, dy, cache):
        return 2 * dy


def test_a_layer_that_the_page_cannot_compute_says_so(visit, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((3, 1, 8, 8)).astype(np.float32), np.array([0, 1, 2])
    model = xpnet.Sequential(
        [Conv2D(3, 3), Doubled(), Flatten(), Dense(10)], input_shape=(1, 8, 8), device="cpu", seed=0
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    page = visit(viz.explain(model, tmp_path / "own.html", x, y))
    z = model.predict(x[:1])[0]
    assert np.abs(probabilities(page) - np.exp(z) / np.exp(z).sum()).max() < TOLERANCE
    click(page, canvas(1))
    assert "Doubled" in page.inner_text("#detail") and "cannot compute" in page.inner_text("#detail")
    assert page.locator('[data-layer="1"] .chip.warn').inner_text() == "stored"
    click(page, "#clear")
    drag(page, ONE)
    assert page.locator("#probabilities").count() == 0
    assert "Pick a sample" in page.inner_text("#answer .notice")
    click(page, canvas(0))
    assert page.locator('[data-name="sum"]').count() == 1  # what comes before is computed
    click(page, canvas(3))
    assert "not known" in page.inner_text("#detail")
    click(page, ".thumb >> nth=1")
    assert page.locator("#probabilities").count() == 1


@pytest.fixture(scope="module")
def rounded(tmp_path_factory):
    """A model whose larger convolution and dense layer a page keeps in fewer bits, its samples, the page."""
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 1, 6, 6)).astype(np.float32), np.array([3, 1])
    layers = [Conv2D(300, 3, activation="relu"), Conv2D(320, 3), Flatten(), Dense(750), Dense(10)]
    model = xpnet.Sequential(layers, input_shape=(1, 6, 6), device="cpu", seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model, x, y, viz.explain(model, tmp_path_factory.mktemp("rounded") / "rounded.html", x, y)


def test_what_rounding_does_to_a_stored_sum_is_a_row_of_it(visit, rounded):
    model, x, _, path = rounded
    made = outputs(model, x[0])
    for layer, first in ((1, "channel-sum"), (3, "products-sum")):
        page = visit(path, f"layer={layer}")
        assert page.locator(f'[data-layer="{layer}"] .chip.warn').inner_text() == "rounded"
        rows = [first, "bias", "rounding"] + (["others"] if layer == 1 else [])
        total = sum(number(page, row) for row in rows)
        assert total == pytest.approx(number(page, "sum"), abs=1e-5)
        scale = float(np.abs(made[layer]).max())
        assert number(page, "sum") == pytest.approx(made[layer][tuple(place(page))], abs=TOLERANCE * scale)
        assert 1e-6 < abs(number(page, "rounding")) < 0.05 * scale
    page = visit(path, "layer=1")
    exact = number(page, "sum")
    click(page, '[data-choice="matrix"]')
    parts = [number(page, name) for name in ("matrix-product", "bias", "rounding")]
    assert sum(parts) == pytest.approx(number(page, "matrix-sum"), abs=1e-6)
    assert number(page, "matrix-sum") == pytest.approx(exact, abs=1e-5)
    click(page, "#clear")  # an input of one's own: its sum is made of the rounded weights
    assert page.locator('[data-name="rounding"]').count() == 0
    assert "rounding" not in page.inner_text("#detail .ledger")


def test_gradients_through_rounded_weights_are_called_approximate(visit, rounded):
    model, x, y, path = rounded
    page = visit(path, "mode=backward&layer=2")
    unit = place(page)[0]
    exact = model.gradients(x[:1], y[:1])
    bias = exact[next(name for name in exact if exact[name].shape == (320,))]
    marked = """() => [...document.querySelectorAll('#strip .column')]
      .filter((one) => one.querySelector('.chip.about:not([hidden])'))
      .map((one) => Number(one.dataset.layer))"""
    assert page.evaluate(marked) == [] and "≈" not in page.inner_text("#detail")
    assert not page.locator('#detail [data-name="about"]').is_visible()
    assert numbers(page, "#detail .ledger")[:2].sum() == pytest.approx(number(page, "gradient"), rel=1e-4)
    assert abs(number(page, "rounding")) > 0
    click(page, canvas(1))
    total = 0.0
    for row, column in np.ndindex(2, 2):
        look_at(page, unit // 4, row, column)
        total += number(page, "gradient")
    assert total == pytest.approx(bias[unit // 4], abs=TOLERANCE * float(np.abs(bias).max()))
    page.select_option("#target", "5")
    settle(page)
    assert page.evaluate(marked) == [-1, 0, 1]
    assert "≈" in page.inner_text("#detail .value") and page.locator('[data-name="rounding"]').count() == 0
    assert page.inner_text('#detail [data-name="about"]').startswith("About: dense has rounded weights")
    click(page, canvas(3))
    assert "=" in page.inner_text("#detail .value")
    assert not page.locator('#detail [data-name="about"]').is_visible()
    click(page, '[data-choice="step"]')
    assert "rounded weights" in page.inner_text('#detail [data-name="about"]')


def test_a_layer_too_large_for_the_page_stops_the_gradient_and_says_so(visit, tmp_path):
    x, y = np.random.default_rng(0).random((2, 1, 128, 128)).astype(np.float32), np.array([0, 1])
    layers = [Conv2D(2, 3, padding="same"), Conv2D(65, 3, padding="same"), GlobalAveragePooling2D(), Dense(3)]
    model = xpnet.Sequential(layers, input_shape=(1, 128, 128), device="cpu", seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    page = visit(viz.explain(model, tmp_path / "large.html", x, y))
    z = model.predict(x[:1])[0]
    assert np.abs(probabilities(page) - np.exp(z) / np.exp(z).sum()).max() < TOLERANCE
    notice = page.inner_text("#answer .notice")
    assert "Pick a sample" not in notice and "conv2d_1" in notice and "too large" in notice
    click(page, "#mode-backward")
    click(page, canvas(0))
    why = page.inner_text('#detail [data-name="unknown"]')
    assert "ends at global_average_pooling2d" in why and "no room" in why
    click(page, "#language")
    assert JAPANESE.search(page.inner_text('#detail [data-name="unknown"]'))


def test_a_normalization_s_gradient_follows_from_its_rows(visit, tmp_path):
    x, y = np.random.default_rng(0).random((1, 1, 8, 8)).astype(np.float32), np.array([1])
    norms = [BatchNormalization(), GroupNormalization(2), Flatten(), LayerNormalization()]
    model = xpnet.Sequential([Conv2D(4, 3), *norms, Dense(10)], input_shape=(1, 8, 8), device="cpu", seed=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    path = viz.explain(model, tmp_path / "norms.html", x, y)
    for layer, at in ((0, (2, 1, 3)), (1, (1, 0, 2)), (3, (17,))):
        page = visit(path, f"mode=backward&layer={layer}")
        look_at(page, *at)
        names = ("behind", "gamma", "g", "mean-g", "xhat", "mean-gx", "slope")
        dy, gamma, g, mean, xhat, inner, slope = (number(page, name) for name in names)
        assert g == pytest.approx(gamma * dy, rel=1e-6)
        made = slope * (g - mean - xhat * inner)
        assert made == pytest.approx(number(page, "gradient"), rel=1e-3, abs=1e-6)
        assert mean and inner


def test_many_classes_and_maps_stay_usable(visit, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((2, 3, 12, 12)).astype(np.float32)
    model = xpnet.Sequential(
        [Conv2D(96, 3), MaxPooling2D(2), Flatten(), Dense(300, activation="softmax")],
        input_shape=(3, 12, 12), device="cpu", seed=0,
    )  # fmt: skip
    page = visit(viz.explain(model, tmp_path / "many.html", x, np.array([5, 299])))
    p = model.predict(x[:1])[0]
    assert np.allclose(probabilities(page), sorted(p, reverse=True)[:12], atol=TOLERANCE)
    page.locator("#answer .link", has_text="Show all 300").click()
    settle(page)
    assert len(probabilities(page)) == 300
    width = page.locator(canvas(0)).bounding_box()["width"]
    page.locator('[data-layer="0"] .link', has_text="Show all 96").click()
    settle(page)
    assert page.locator(canvas(0)).bounding_box()["width"] > width
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_names_are_text_and_never_markup(visit, digits, tmp_path):
    model, x, y = digits
    evil = '</script><img src=x onerror="document.title=1">'
    classes = [f"{evil}{k}" for k in range(10)]
    page = visit(viz.explain(model, tmp_path / "evil.html", x, y, classes=classes, title=evil))
    click(page, "#tour-start")
    for _ in range(int(page.inner_text("#tour .soft").split("/")[1])):
        click(page, "#tour-next")
    click(page, "#mode-forward")
    click(page, "#answer-open")
    assert page.locator("img").count() == 0 and page.title() == evil
    assert page.inner_text("#title") == evil
    assert evil + "0" in page.inner_text("#detail")
