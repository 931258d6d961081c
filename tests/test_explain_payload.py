"""What of a model gets into an explain page: bits, rounded and stored layers, and what breaks nothing."""

import base64
import gzip
import json
import re

import explain_pages
import numpy as np
import pytest
from browser import chromium  # noqa: F401 - a fixture
from cases import assert_close, randomise

import xpnet
from xpnet import activations, viz
from xpnet import layers as L
from xpnet.viz.explain import assemble, plan, tensors
from xpnet.viz.explain.payload import collect

TOLERANCE = 1e-4


def compiled(layers, shape, loss="sparse_categorical_crossentropy", **more):
    model = xpnet.Sequential(layers, input_shape=shape, device="cpu", seed=0, **more)
    randomise(model, np.random.default_rng(0))
    model.compile("sgd", loss)
    return model


def samples(model, count=3, classes=10):
    rng = np.random.default_rng(1)
    return rng.random((count, *model.input_shape)).astype(np.float32), rng.integers(0, classes, count)


def page_of(model, room, count=3, x=None, index=0):
    """What the engine is to find for one of the samples, or for another x."""
    xs, ys = samples(model, count)
    subject = explain_pages.subject(
        model, [explain_pages.sample(model, *pair, int(pair[1])) for pair in zip(xs, ys)]
    )
    return explain_pages.numbers(subject, room, x, index)


def status(found):
    return {layer["name"]: layer["status"] for layer in found["layers"]}


# -- bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "error"),
    [("float32", 0), ("float24", 2**-16), ("int16", 2**-15), ("int12", 2**-11), ("int8", 2**-7)],
)
def test_forms_are_as_exact_as_they_say(form, error):
    a = np.random.default_rng(0).standard_normal((5, 3, 7)).astype(np.float32)
    a[2] = 0
    a[3, 0, 0] = 1e-30
    got = tensors.decode(a, form)
    assert got.dtype == np.float32
    largest = np.abs(a).max(axis=(1, 2), keepdims=True)
    assert (np.abs(got - a) <= error * (largest if form.startswith("int") else np.abs(a))).all()
    assert (got == a).all() == (form == "float32")


def test_the_engine_reads_what_was_written(tmp_path):
    """Every form, through the weights of layers whose outputs show them: x = 1 yields each weight."""
    rng = np.random.default_rng(0)
    model = compiled([L.Dense(7, use_bias=False)], (1,), "mse")
    weights = rng.standard_normal((7, 1)).astype(np.float32)
    weights[0], weights[1] = 3.4e38, -1e-42
    model.load_state_dict({"0.weight": weights})
    manifest, _ = collect(explain_pages.subject(model), 10_000)
    pages = []
    for form in (*tensors.FLOATS, *tensors.ROUNDED):
        kept = tensors.Tensors()
        kept.add(np.ones(3))  # so that something lies before it
        manifest["layers"][0]["params"][0]["tensor"] = kept.add(weights, form)
        data = assemble.page_data(manifest | {"tensors": kept.entries}, kept.packed())
        pages.append({**data, "x": [1.0], "sample": None})
    for form, found in zip((*tensors.FLOATS, *tensors.ROUNDED), explain_pages.in_node(pages, tmp_path)):
        got = explain_pages.array(found["infer"]["answer"])
        np.testing.assert_allclose(got, tensors.decode(weights, form)[:, 0], rtol=1e-6, err_msg=form)


def test_numbers_that_are_none_survive():
    a = np.array([[np.nan, np.inf], [-np.inf, 3.4028235e38]], np.float32)
    for form in tensors.FLOATS:
        np.testing.assert_array_equal(np.isnan(tensors.decode(a, form)), np.isnan(a))
        np.testing.assert_array_equal(tensors.decode(a, form)[[0, 1], [1, 0]], [np.inf, -np.inf])


def test_the_same_model_makes_the_same_bytes():
    model = compiled([L.Flatten(), L.Dense(10)], (1, 4, 4))
    first, second = (collect(explain_pages.subject(model), 100_000) for _ in range(2))
    assert first == second


# -- what does not fit ---------------------------------------------------------------------------------------


def wide():
    return compiled(
        [
            L.Conv2D(6, 3, activation="relu"),
            L.MaxPooling2D(2),
            L.Dropout(0.25),
            L.Flatten(),
            L.Dense(300, activation="relu"),
            L.Dropout(0.5),
            L.Dense(10),
        ],
        (1, 14, 14),
    )


@pytest.fixture(scope="module")
def tight(tmp_path_factory):
    """A model in less and less room: (room, the sample's page, a drawn picture's)."""
    model = wide()
    drawn = np.random.default_rng(2).random((1, 14, 14)).astype(np.float32)
    rooms = {"live": 600_000, "rounded": 200_000, "stored": 60_000}
    pages = [page_of(model, room, x=x, index=1) for room in rooms.values() for x in (None, drawn)]
    for page, room in zip(pages[::2], rooms.values()):
        assert len(page["manifest"]) + len(page["tensors"]) <= room
    found = explain_pages.in_node(pages, tmp_path_factory.mktemp("node"))
    return model, drawn, dict(zip(rooms, zip(found[::2], found[1::2])))


@pytest.mark.parametrize("kind", ["live", "rounded", "stored"])
def test_samples_are_exact_in_any_room(tight, kind):
    model, _, found = tight
    xs, ys = samples(model)
    sample, _ = found[kind]
    assert status(sample)["dense"] == kind
    wanted = model.layer_outputs(xs[1:2])
    for layer, output in zip(sample["layers"], sample["infer"]["outputs"]):
        assert_close(explain_pages.array(output), wanted[layer["name"]][0], TOLERANCE, layer["name"])
    gradients = model.gradients(xs[1:2], ys[1:2])
    assert sample["train"]["exact"] and sample["infer"]["exact"]
    for layer, params in zip(sample["layers"], sample["train"]["dParams"]):
        for p in params:
            name = f"{layer['key']}.{p['name']}"
            assert_close(explain_pages.array(p), gradients.pop(name), TOLERANCE, name)
    assert not gradients


def test_drawn_pictures_run_as_far_as_the_weights_go(tight):
    model, drawn, found = tight
    answer = model.predict(drawn[None])[0]
    rounded, stored = found["rounded"][1], found["stored"][1]
    assert not rounded["infer"]["exact"] and rounded["infer"]["stopped"] is None
    off = np.abs(explain_pages.array(rounded["infer"]["answer"]) - answer).max() / np.abs(answer).max()
    assert 1e-6 < off < 0.02
    dense = [layer["name"] for layer in stored["layers"]].index("dense")
    assert stored["infer"]["stopped"] == dense and stored["infer"]["answer"] is None
    assert stored["infer"]["outputs"][dense - 1] is not None
    assert stored["infer"]["outputs"][dense] is None
    assert stored["infer"]["step"] is None  # no step without the weights
    assert found["live"][1]["infer"]["exact"]


def test_reasons_are_told_in_both_languages(tight):
    _, _, found = tight
    for kind in ("rounded", "stored"):
        (reason,) = [layer["reason"] for layer in found[kind][0]["layers"] if layer["name"] == "dense"]
        count = f"{6 * 6 * 6 * 300:,}"
        assert count in reason["en"] and count in reason["ja"]
        assert reason["en"] != reason["ja"]


def test_a_step_from_rounded_weights_compares_like_with_like(tight):
    _, _, found = tight
    exact, rounded = (found[kind][0]["train"]["step"] for kind in ("live", "rounded"))
    assert rounded["after"] < rounded["before"]
    assert rounded["before"] - rounded["after"] == pytest.approx(exact["before"] - exact["after"], rel=0.05)


def test_a_first_layer_that_is_rounded(tmp_path):
    """Its results are stored before the activation, down to dL/dx of the picture; its deviation is told."""
    layers = [L.Flatten(), L.Dense(100, activation="tanh"), L.Dense(10, activation="softmax")]
    model = compiled(layers, (1, 14, 14))
    xs, ys = samples(model)
    (found,) = explain_pages.in_node([page_of(model, 45_000, index=2)], tmp_path)
    assert status(found)["dense"] == "rounded"
    wanted = model.layer_outputs(xs[2:])
    for layer, output in zip(found["layers"], found["infer"]["outputs"]):
        assert_close(explain_pages.array(output), wanted[layer["name"]][0], TOLERANCE, layer["name"])
    logits = compiled([L.Flatten(), L.Dense(100, activation="tanh"), L.Dense(10)], (1, 14, 14))
    logits.load_state_dict(model.state_dict())
    z, caches = logits.forward(xs[2:], train=True)
    p = np.exp(z) / np.exp(z).sum()
    dx = logits.backward(p - np.eye(10, dtype=np.float32)[ys[2:]], caches)[0]
    assert_close(explain_pages.array(found["train"]["dPicture"]), dx, TOLERANCE, "dL/dx")
    (reason,) = [layer["reason"]["en"] for layer in found["layers"] if layer["name"] == "dense"]
    form = "int" + re.search(r"in (\d+) bits", reason)[1]
    weight, rows = model.state_dict()["1.weight"], xs.reshape(3, -1)
    exact = rows @ weight.T + model.state_dict()["1.bias"]
    off = np.abs(rows @ (tensors.decode(weight, form) - weight).T).max(axis=1) / np.abs(exact).max(axis=1)
    assert f"at most {off.max():.1g} of the largest" in reason


def test_weights_that_are_nan_are_not_rounded(tmp_path):
    model = wide()
    state = model.state_dict()
    state["5.weight"][3, 4] = np.nan
    model.load_state_dict(state)
    (found,) = explain_pages.in_node([page_of(model, 200_000)], tmp_path)
    assert status(found)["dense"] == "stored"
    dense = [layer["name"] for layer in found["layers"]].index("dense")
    xs, _ = samples(model)
    wanted = model.layer_outputs(xs[:1])["dense"][0]
    assert np.isnan(wanted).sum() == 1
    np.testing.assert_array_equal(
        np.isnan(explain_pages.array(found["infer"]["outputs"][dense])), np.isnan(wanted)
    )


class Doubled(L.Layer):
    """A user's own layer."""

    def forward(self, x, *, train):
        return x * 2, None

    def backward(self, dy, cache):
        return dy * 2


class Squared(activations.ActivationFunction):
    """A user's own activation."""

    keeps_input = True

    def forward(self, ops, z, out):
        out[...] = z * z
        return z

    def backward(self, ops, dy, z):
        dy *= 2 * z
        return dy


class MyConv(L.Conv2D):
    """A class made from one of xpnet's, which may compute anything."""


@pytest.mark.parametrize(
    ("make", "own"),
    [
        (lambda: [L.Conv2D(3, 3), Doubled(), L.Flatten(), L.Dense(10)], "doubled"),
        (lambda: [Doubled(), L.Conv2D(3, 3), L.Flatten(), L.Dense(10)], "doubled"),
        (lambda: [L.Flatten(), L.Dense(4, activation=Squared()), L.Dense(10)], "dense"),
        (lambda: [L.Flatten(), L.Dense(4), L.Activation(Squared()), L.Dense(10)], "activation"),
        (lambda: [MyConv(3, 3), L.Flatten(), L.Dense(10)], "my_conv"),
        (lambda: [L.Residual([L.Conv2D(1, 3, padding=1), Doubled()]), L.Flatten(), L.Dense(10)], "doubled"),
    ],
)
def test_classes_of_the_users_own_are_shown_for_the_samples(make, own, tmp_path):
    model = compiled(make(), (1, 5, 5))
    xs, ys = samples(model)
    found, drawn = explain_pages.in_node(
        [page_of(model, 100_000), page_of(model, 100_000, x=xs[0])], tmp_path
    )
    assert [name for name, value in status(found).items() if value == "stored"] == [own]
    names = [layer["name"] for layer in found["layers"]]
    assert type(model.get_layer(own)).__name__ in found["layers"][names.index(own)]["reason"]["en"]
    assert_close(explain_pages.array(found["infer"]["answer"]), model.predict(xs[:1])[0], TOLERANCE)
    gradients = model.gradients(xs[:1], ys[:1])
    for layer, params in zip(found["layers"], found["train"]["dParams"]):
        for p in params:
            name = f"{layer['key']}.{p['name']}"
            assert_close(explain_pages.array(p), gradients.pop(name), TOLERANCE, name)
    assert all(name.startswith(found["layers"][names.index(own)]["key"]) for name in gradients)
    assert drawn["infer"]["stopped"] == names.index(own) and drawn["infer"]["answer"] is None


def test_maps_too_large_are_left_out_and_the_rest_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "LARGEST_MAP", 500)
    layers = [L.Conv2D(8, 3), L.Activation("relu"), L.MaxPooling2D(4), L.Flatten(), L.Dense(10)]
    model = compiled(layers, (1, 14, 14))
    (found,) = explain_pages.in_node([page_of(model, 100_000)], tmp_path)
    assert list(status(found).values()) == ["unsupported", "unsupported", "stored", "live", "live"]
    assert "1,152" in found["layers"][0]["reason"]["en"]
    assert found["infer"]["outputs"][0] is None
    xs, _ = samples(model)
    assert_close(explain_pages.array(found["infer"]["answer"]), model.predict(xs[:1])[0], TOLERANCE)
    assert found["train"]["dPicture"] is None and found["train"]["dParams"][0] == []


def test_layers_with_too_much_work_are_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "LARGEST_WORK", 10_000)
    model = compiled([L.Conv2D(8, 3), L.Flatten(), L.Dense(10)], (1, 14, 14))
    (found,) = explain_pages.in_node([page_of(model, 200_000)], tmp_path)
    assert status(found)["conv2d"] == "stored" and "multiplications" in found["layers"][0]["reason"]["en"]
    xs, _ = samples(model)
    assert_close(explain_pages.array(found["infer"]["answer"]), model.predict(xs[:1])[0], TOLERANCE)


def test_a_model_larger_than_any_page_says_so():
    model = compiled([L.Dense(5, activation="relu") for _ in range(40)] + [L.Dense(10)], (5,))
    with pytest.raises(ValueError, match=r"41 layers.*Expected: at most 2,000"):
        collect(explain_pages.subject(model), 2_000)


def test_samples_are_dropped_before_a_page_grows_too_large():
    model = compiled([Doubled(), L.Flatten(), L.Dense(10)], (1, 20, 20))
    pages = {room: json.loads(page_of(model, room, count=8)["manifest"]) for room in (120_000, 60_000)}
    counts = {room: len(page["samples"]) for room, page in pages.items()}
    assert counts[120_000] == 8 and 1 <= counts[60_000] < 8


def test_batch_normalization_of_vectors_is_told(tmp_path):
    model = compiled([L.Dense(6), L.BatchNormalization(), L.Dropout(0.5), L.Dense(10)], (4,))
    page = page_of(model, 100_000)
    trainable = json.loads(page["manifest"])["trainable"]
    assert not trainable["ok"] and "batch_normalization" in trainable["reason"]["en"]
    (found,) = explain_pages.in_node([page], tmp_path)
    masked = explain_pages.array(found["train"]["outputs"][2])
    plain = explain_pages.array(found["train"]["outputs"][1])
    xs, _ = samples(model)
    assert_close(plain, model.layer_outputs(xs[:1])["batch_normalization"][0], TOLERANCE)
    assert ((masked == 0) | np.isclose(masked, 2 * plain)).all() and (masked == 0).any()


def test_a_model_without_a_loss_gets_the_usual_one():
    for layers, shape, kind in (
        ([L.Flatten(), L.Dense(3)], (1, 4, 4), "softmax-cross-entropy"),
        ([L.Flatten(), L.Dense(1)], (1, 4, 4), "binary-cross-entropy"),
        ([L.Conv2D(1, 3)], (1, 4, 4), "mse"),
    ):
        model = xpnet.Sequential(layers, input_shape=shape, device="cpu", seed=0)
        loss = json.loads(explain_pages.numbers(explain_pages.subject(model))["manifest"])["loss"]
        assert loss["kind"] == kind and "no loss" in loss["why"]["en"]


def test_the_model_stays_as_it_was():
    model = wide()
    xs, ys = samples(model)
    model.fit(xs, ys, epochs=2, verbose=0)
    before = model.state_dict(), model.params.step, model.gradients(xs, ys)
    page_of(model, 60_000)
    after = model.state_dict(), model.params.step, model.gradients(xs, ys)
    assert before[1] == after[1]
    for one, two in ((before[0], after[0]), (before[2], after[2])):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)


# -- the file ------------------------------------------------------------------------------------------------

EVIL = [
    "</script><script>window.evil=1</script>",
    "<!--",
    "&amp;<b>\"'",
    "数字 ゼロ",
    "\u2028\U0001f600",
    "",
]


def digits(last=6):
    return compiled([L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(last)], (1, 8, 8), name=EVIL[0])


def opened(path, chromium, wait="#answer"):  # noqa: F811
    """A tab that shows the page, its errors and what it asked the network for."""
    tab = chromium.new_page()
    tab.errors, tab.asked = [], []
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.on("console", lambda message: message.type == "error" and tab.errors.append(message.text))
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_selector(wait)
    tab.wait_for_timeout(300)
    return tab


def test_nothing_breaks_out_of_the_page_or_loads_anything(tmp_path, chromium):  # noqa: F811
    model = digits()
    xs, ys = samples(model, classes=6)
    path = viz.explain(
        model, tmp_path / "p.html", xs, ys, classes=EVIL, names=[*EVIL[:2], "caf\udce9.png"], language="ja"
    )
    tab = opened(path, chromium)
    assert not tab.errors
    assert tab.evaluate("window.evil") is None
    assert [url for url in tab.asked if not url.startswith("data:")] == [path.as_uri()]
    assert tab.title() == EVIL[0]
    assert tab.evaluate("document.documentElement.lang") == "ja"
    assert tab.evaluate("JSON.parse(document.getElementById('manifest').textContent).classes") == EVIL
    tab.close()


def test_weights_that_are_nan_make_a_page_too(tmp_path, chromium):  # noqa: F811
    model = digits()
    state = model.state_dict()
    state["0.weight"][0, 0, 0, 0] = np.nan
    state["3.weight"][0] = np.inf
    model.load_state_dict(state)
    xs, ys = samples(model, classes=6)
    tab = opened(viz.explain(model, tmp_path / "p.html", xs, ys), chromium)
    assert not tab.errors
    tab.close()


def test_the_page_has_no_address_but_its_own():
    text = assemble.bundle(assemble.ENTRY) + assemble.part("page.css") + assemble.part("page.html")
    addresses = set(re.findall(r"https?://[\w./-]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, which nothing loads


def test_the_bundle_is_whole():
    """Every module once, after those it imports, with names that do not meet."""
    text = assemble.bundle(assemble.ENTRY)
    assert not re.search(r"^\s*(import|export)\b", text, re.M)
    names = re.findall(r"^(?:async )?(?:function\*?|const|let|class) (\w+)", text, re.M)
    twice = {name for name in names if names.count(name) > 1}
    assert not twice
    assert "</script" not in text.lower() and "<!--" not in text
    modules = re.findall(r"^// ---- (\S+)$", text, re.M)
    assert modules[-1] == assemble.ENTRY and len(set(modules)) == len(modules)
    folders = (explain_pages.ENGINE, explain_pages.ENGINE.parent / "page")
    there = {f"{folder.name}/{file.name}" for folder in folders for file in folder.iterdir()}
    assert {name for name in there if name.endswith(".js")} == set(modules)


def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    model = digits()
    path = tmp_path / "p.html"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"exists already.*overwrite=True"):
        viz.explain(model, path, overwrite=False)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        viz.explain(model, path)
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]


def test_targets_that_are_maps_are_given_in_the_models_order(tmp_path):
    model = compiled([L.Conv2D(3, 3)], (6, 5, 2), "mse", data_format="channels_last")
    x, y = np.ones((2, 6, 5, 2), np.float32), np.arange(72, dtype=np.float32).reshape(2, 4, 3, 3)
    text = viz.explain(model, tmp_path / "p.html", x, y).read_text(encoding="utf-8")
    manifest = json.loads(text.partition('id="manifest">')[2].partition("</script>")[0])
    raw = gzip.decompress(base64.b64decode(text.partition('id="tensors">')[2].partition("<")[0]))
    entry = manifest["tensors"][manifest["samples"][1]["target"]["tensor"]]
    assert entry["shape"] == [3, 4, 3]
    planes = np.frombuffer(raw, np.uint8)[entry["start"] :][: 4 * 36].reshape(4, 36)
    received = np.ascontiguousarray(planes.T).view(">f4").reshape(3, 4, 3)
    np.testing.assert_array_equal(received, y[1].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "p.pdf"}, r"Received: .*p\.pdf.*ends in \.html"),
        ({"path": "nowhere/p.html"}, "no folder"),
        ({"x": np.full((2, 1, 8, 8), "a")}, "must be numbers"),
        ({"x": np.full((2, 1, 8, 8), np.nan)}, "NaN"),
        ({"x": np.zeros((2, 1, 9, 9))}, r"Received: \(2, 1, 9, 9\). Expected: \(N, 1, 8, 8\)"),
        ({"x": np.zeros((0, 1, 8, 8))}, r"Received: \(0, 1, 8, 8\)"),
        ({"x": np.zeros((2, 1, 8, 8)), "y": [1]}, "2 in x, 1 in y"),
        ({"x": np.zeros((2, 1, 8, 8)), "y": [1, 6]}, "out of range"),
        ({"classes": ["a"]}, "Received: 1 names. Expected: 6"),
        ({"language": "fr"}, "'en', 'ja' or None. Received: 'fr'"),
        ({"style": "cifar"}, "'mnist', 'digits8' or None. Received: 'cifar'"),
        ({"value_range": (1, 0)}, r"Received: \(1, 0\)"),
        ({"names": ["a"], "x": np.zeros((2, 1, 8, 8))}, "Received: 1 names. Expected: 2"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message):
        viz.explain(digits(), **{"path": "p.html", **given})
    assert not list(tmp_path.iterdir())


def test_an_unbuilt_model_is_refused(tmp_path):
    with pytest.raises(xpnet.errors.NotBuiltError, match="input shape"):
        viz.explain(xpnet.Sequential([L.Dense(2)]), tmp_path / "p.html")


def test_the_tensors_are_plain_gzip(tmp_path):
    model = digits()
    xs, ys = samples(model, classes=6)
    text = viz.explain(model, tmp_path / "p.html", xs, ys).read_text(encoding="utf-8")
    inside = text.partition('id="tensors">')[2].partition("<")[0]
    manifest = json.loads(text.partition('id="manifest">')[2].partition("</script>")[0])
    raw = gzip.decompress(base64.b64decode(inside))
    entry = manifest["tensors"][manifest["layers"][0]["params"][0]["tensor"]]
    planes = np.frombuffer(raw, np.uint8)[entry["start"] :][: 4 * 27].reshape(4, 27)
    weight = np.ascontiguousarray(planes.T).view(">f4").reshape(entry["shape"])
    np.testing.assert_array_equal(weight, model.state_dict()["0.weight"])
