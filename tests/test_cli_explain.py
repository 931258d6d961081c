"""`xpnet explain`: what it takes, what it writes and tells, and how errors end."""

import json

import numpy as np
import pytest
from browser import chromium  # noqa: F401 - a fixture

import xpnet
from xpnet import cli
from xpnet import layers as L
from xpnet.commands import card

CARD = card.Card("pets", ("cat", "dog", "bird"), 255, 0.0, 1.0, 0.5)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def xp(capsys):
    """Run `xpnet explain`: (exit code, stdout, stderr)."""

    def run(*argv):
        capsys.readouterr()
        code = cli.main(["explain", *map(str, argv)])
        return code, *capsys.readouterr()

    return run


def save(path, *last, loss="sparse_categorical_crossentropy", about=CARD, shape=(1, 6, 7), **more):
    path.parent.mkdir(exist_ok=True)
    layers = [L.Conv2D(2, 3, activation="relu"), *(last or (L.Flatten(), L.Dense(3)))]
    model = xpnet.Sequential(layers, input_shape=shape, device="cpu", seed=0, name="pets-cnn", **more)
    if loss is not None:
        model.compile("adam", loss)
    if about is None:
        model.save(path)
    else:
        card.save(model, about, path)
    return model


@pytest.fixture
def run(own_folder):
    """A folder as `xpnet train` leaves it, and its model."""
    model = save(own_folder / "run" / "model.safetensors")
    rng = np.random.default_rng(0)
    x = rng.random((4, *model.input_shape)).astype(np.float32)
    np.savez(own_folder / "run" / "samples.npz", x=x, y=np.array([0, 2, 1, 1]))
    return own_folder / "run", model


def manifest(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text.partition('id="manifest">')[2].partition("</script>")[0])


def test_a_run_is_explained_with_its_samples(xp, run):
    folder, _ = run
    code, out, err = xp(folder)
    assert (code, err) == (0, "")
    page = manifest(folder / "model.html")
    assert page["title"] == "pets-cnn" and page["classes"] == ["cat", "dog", "bird"]
    assert [sample["label"] for sample in page["samples"]] == [0, 2, 1, 1]
    assert (page["input"]["low"], page["input"]["high"]) == (0.0, 1.0)
    assert "model: pets-cnn, trained on pets" in out and "4 samples" in out and "note" not in out
    assert (folder / "model.html").stat().st_size < 3_000_000


def test_pictures_become_samples(xp, run, own_folder):
    image = pytest.importorskip("PIL.Image")
    folder, _ = run
    pixels = np.random.default_rng(1).integers(0, 256, (12, 14), np.uint8)
    image.fromarray(pixels).save(own_folder / "a cat.png")
    np.save(own_folder / "two.npy", np.zeros((2, 1, 6, 7), np.float32))
    argv = (folder, "a cat.png", "two.npy", "--labels", "cat, 2,dog", "--out", "p.html", "--lang", "ja")
    code, _, err = xp(*argv)
    assert code == 2 and "Received: 14x12. Expected: 7x6 (width x height); --resize scales it" in err
    assert not (own_folder / "p.html").exists()
    code, out, _ = xp(*argv, "--resize")
    assert code == 0
    assert "note: a cat.png: resized from 14x12 to 7x6" in out
    page = manifest(own_folder / "p.html")
    assert [s["name"] for s in page["samples"]] == ["a cat.png", "two.npy 0", "two.npy 1"]
    assert [s["label"] for s in page["samples"]] == [0, 2, 1]
    assert page["language"] == "ja"


def test_samples_without_labels_are_shown_too(xp, run, own_folder):
    folder, _ = run
    np.save(own_folder / "x.npy", np.zeros((2, 1, 6, 7), np.float32))
    assert xp(folder, "x.npy")[0] == 0
    assert [s["label"] for s in manifest(folder / "model.html")["samples"]] == [None, None]


def test_the_data_set_the_model_was_trained_on_serves(xp, own_folder):
    about = card.Card("digits", tuple("0123456789"), 16, 0.0, 1.0, 0.3)
    save(own_folder / "m.safetensors", L.Flatten(), L.Dense(10), about=about, shape=(1, 8, 8))
    code, out, _ = xp("m.safetensors")
    assert code == 0 and "the first 10 test images of digits" in out
    page = manifest(own_folder / "m.html")
    _, (_, yt) = xpnet.datasets.load_digits()
    assert [s["label"] for s in page["samples"]] == yt[:10].tolist()
    assert page["input"]["style"] == "digits8" and page["input"]["drawable"]


def test_a_data_set_in_the_models_order(xp, own_folder):
    about = card.Card("digits", tuple("0123456789"), 16, 0.0, 1.0, 0.3)
    layers = (L.Flatten(), L.Dense(10))
    save(own_folder / "m.safetensors", *layers, about=about, shape=(8, 8, 1), data_format="channels_last")
    assert xp("m.safetensors")[0] == 0
    assert len(manifest(own_folder / "m.html")["samples"]) == 10


def test_a_data_set_that_would_be_downloaded_is_left_alone(xp, own_folder, monkeypatch):
    monkeypatch.delenv("XPNET_DATA", raising=False)
    monkeypatch.setenv("XPNET_CACHE", str(own_folder / "cache"))
    about = card.Card("mnist", tuple("0123456789"), 255, 0.0, 1.0, 0.1)
    save(own_folder / "m.safetensors", L.Flatten(), L.Dense(10), about=about, shape=(1, 28, 28))
    code, out, _ = xp("m.safetensors")
    assert code == 0 and "no samples" in out
    assert manifest(own_folder / "m.html")["samples"] == []


def test_a_model_that_is_no_picture_classifier(xp, own_folder):
    model = xpnet.Sequential([L.Dense(3), L.Dense(1)], input_shape=(4,), device="cpu", seed=0)
    model.compile("sgd", "mse")
    model.save(own_folder / "m.safetensors")
    np.savez(own_folder / "x.npz", x=np.ones((3, 4), np.float32), y=np.array([1, 2, 3]))
    assert xp("m.safetensors", "x.npz")[0] == 0
    page = manifest(own_folder / "m.html")
    assert page["loss"]["kind"] == "mse" and page["classes"] == ["0"]
    code, _, err = xp("m.safetensors", "x.npz", "--labels", "1,2,3", "--overwrite")
    assert code == 2 and "no classifier" in err


def test_an_auto_encoder_is_to_yield_its_input(xp, own_folder):
    save(own_folder / "m.safetensors", L.Conv2DTranspose(1, 3), loss="mse", about=None)
    np.save(own_folder / "x.npy", np.ones((2, 1, 6, 7), np.float32))
    assert xp("m.safetensors", "x.npy")[0] == 0
    page = manifest(own_folder / "m.html")
    for sample in page["samples"]:
        target = page["tensors"][sample["target"]["tensor"]]
        assert target["shape"] == [1, 6, 7]


@pytest.mark.parametrize("loss", ["binary_crossentropy", "categorical_crossentropy"])
def test_labels_become_what_the_loss_takes(xp, own_folder, loss):
    save(own_folder / "m.safetensors", loss=loss)
    np.savez(own_folder / "x.npz", x=np.ones((3, 1, 6, 7), np.float32), y=np.array([2, 0, 1]))
    assert xp("m.safetensors", "x.npz")[0] == 0
    assert [s["label"] for s in manifest(own_folder / "m.html")["samples"]] == [2, 0, 1]


def test_yes_or_no(xp, own_folder):
    about = card.Card("pets", ("cat", "dog"), 255, 0.0, 1.0, 0.5)
    save(own_folder / "m.safetensors", L.Flatten(), L.Dense(1), loss="binary_crossentropy", about=about)
    np.savez(own_folder / "x.npz", x=np.ones((2, 1, 6, 7), np.float32), y=np.array([1, 0]))
    assert xp("m.safetensors", "x.npz")[0] == 0
    page = manifest(own_folder / "m.html")
    assert page["classes"] == ["cat", "dog"] and [s["label"] for s in page["samples"]] == [1, 0]


def test_channels_last(xp, own_folder):
    model = save(own_folder / "m.safetensors", shape=(6, 7, 3), data_format="channels_last")
    np.save(own_folder / "x.npy", np.random.default_rng(0).random((2, 6, 7, 3)).astype(np.float32))
    assert xp("m.safetensors", "x.npy")[0] == 0
    page = manifest(own_folder / "m.html")
    assert page["input"]["shape"] == [3, 6, 7] and page["input"]["dataFormat"] == model.data_format
    assert page["tensors"][page["samples"][0]["x"]]["shape"] == [3, 6, 7]


def test_labels_in_the_file_that_are_no_classes_are_left_out(xp, run, own_folder):
    folder, _ = run
    np.savez(own_folder / "x.npz", x=np.ones((2, 1, 6, 7), np.float32), y=np.array([0, 7]))
    code, out, _ = xp(folder, "x.npz")
    assert code == 0 and "note: the labels are left out: they are no classes from 0 to 2" in out
    assert [s["label"] for s in manifest(folder / "model.html")["samples"]] == [None, None]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "nowhere"),
        (["run", "nowhere.png"], "there is no file nowhere.png"),
        (["run", "."], "is a folder"),
        (["run", "wrong.npy"], "Received: (2, 1, 9, 9). Expected: (N, 1, 6, 7)"),
        (["run", "text.npy"], "is no .npy file"),
        (["run", "--labels", "cat"], "Received: 1 labels, 4 samples"),
        (
            ["run", "--labels", "cat,dog,fish,cat"],
            "unknown label. Received: 'fish'. Expected one of: bird, cat, dog",
        ),
        (["run", "--labels", "cat,dog,3,cat"], "unknown label. Received: '3'"),
        (["run", "--out", "p.pdf"], "--out must end in .html. Received: p.pdf"),
        (["run", "--out", "nowhere/p.html"], "there is no folder nowhere"),
        (["run", "--out", "run"], "--out must end in .html"),
        (["run", "--lang", "fr"], "--lang"),
    ],
)
def test_errors_tell_what_to_do(xp, run, own_folder, argv, message):
    np.save(own_folder / "wrong.npy", np.zeros((2, 1, 9, 9), np.float32))
    (own_folder / "text.npy").write_text("no numbers")
    code, _, err = xp(*argv)
    assert code == 2 and message in err and "Traceback" not in err
    assert not list(own_folder.rglob("*.html"))


def test_a_page_is_not_replaced_unasked(xp, run):
    folder, _ = run
    (folder / "model.html").write_text("mine")
    code, _, err = xp(folder)
    assert code == 2 and "exists already" in err and "--overwrite" in err
    assert (folder / "model.html").read_text() == "mine"
    assert xp(folder, "--overwrite")[0] == 0
    assert manifest(folder / "model.html")["title"] == "pets-cnn"


def test_open_shows_the_page(xp, run, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    assert xp(run[0])[0] == 0 and shown == []
    assert xp(run[0], "--open", "--overwrite")[0] == 0
    assert shown == [(run[0] / "model.html").resolve().as_uri()]


def test_help_tells_of_it(xp, capsys):
    code, out, _ = xp("--help")
    assert code == 0 and "--labels" in out and "xpnet explain runs/digits-cnn" in out
    cli.main(["--help"])
    assert "explain" in capsys.readouterr().out


def test_a_model_trained_that_minute_agrees_in_the_browser(xp, own_folder, chromium, capsys):  # noqa: F811
    """The whole way: train, explain, open, and read the answer off the page's own network."""
    assert cli.main(["train", "digits", "--epochs", "1", "--out", "run", "--quiet", "--device", "cpu"]) == 0
    assert xp("run")[0] == 0
    model = xpnet.load_model("run/model.safetensors", device="cpu")
    with np.load("run/samples.npz") as stored:
        x, y = stored["x"], stored["y"]
    tab = chromium.new_page()
    errors = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((own_folder / "run" / "model.html").as_uri() + "#sample=0")
    tab.wait_for_function("document.querySelector('#answer').textContent.trim() !== ''")
    assert not errors
    shown = tab.evaluate("document.querySelector('#answer').innerText")
    tab.close()
    z = model.predict(x[:1])[0].astype(np.float64)
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    assert f"{p.max():.4f}" in shown and str(int(p.argmax())) in shown, (p, shown, y[0])
