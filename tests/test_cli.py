"""The command line: what a newcomer types, what is written, and how errors end."""

import csv
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import html_page
import numpy as np
import pytest
import safetensors.numpy

import xpnet
from xpnet import cli
from xpnet.commands import card, predict, samples, train

HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
HAS_JINJA = importlib.util.find_spec("jinja2") is not None
HAS_PILLOW = importlib.util.find_spec("PIL") is not None
needs_pillow = pytest.mark.skipif(not HAS_PILLOW, reason="Pillow is not installed")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Each test in a folder of its own, with no data sets of the machine's and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "cache"))
    for name in ("XPNET_DATA", "XPNET_REQUIRE_CUDA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def xp(capsys):
    """Run a command: (exit code, stdout, stderr)."""

    def run(*argv):
        capsys.readouterr()
        code = cli.main([str(word) for word in argv])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """The folder of a default run on the digits, trained once."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    assert cli.main(["train", "--quiet", "--device", "cpu", "--epochs", "15", "--out", str(folder)]) == 0
    return folder


def _blobs(*more):
    return ["train", "blobs", "--device", "cpu", "--epochs", 2, *more]


def _one_line(err):
    assert err.startswith("xpnet: error: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


# -- train ---------------------------------------------------------------------------------------------------


def test_train_without_arguments_tells_a_newcomer_everything(xp, tmp_path):
    code, out, err = xp("train")
    assert code == 0
    assert "data: digits, 1,347 training and 450 test samples of 1x8x8, 10 classes" in out
    assert "model: cnn, 75,420 parameters" in out
    assert "device: c" in out and "float32" in out
    assert "epoch 40/40 100%|" in err  # one bar for the whole run
    accuracy = float(out.split("test accuracy: ")[1].split("%")[0])
    assert accuracy >= 98.0
    folder = tmp_path / "runs" / "digits-cnn"
    expected = {"model.safetensors", "history.json", "samples.npz"}
    expected |= {"history.png"} if HAS_MATPLOTLIB else set()
    expected |= {"report.html"} if HAS_MATPLOTLIB and HAS_JINJA else set()
    assert {path.name for path in folder.iterdir()} == expected
    for name in expected:
        assert f"wrote {os.path.join('runs', 'digits-cnn', name)}\n" in out
    # the next commands to try work as they stand
    explain, predict = out.splitlines()[-2:]
    assert explain == f"next: xpnet explain {os.path.join('runs', 'digits-cnn')}"
    code, _, err = xp(*explain.removeprefix("next: xpnet ").split())
    assert code == 0, err
    assert predict.startswith("next: xpnet predict ")
    code, out, _ = xp(*predict.removeprefix("next: xpnet ").split())
    assert code == 0 and "of 10 agree with the labels" in out


def test_the_saved_model_is_the_trained_one(digits_run):
    (_, _), (xt, yt) = xpnet.datasets.load_digits()
    model = xpnet.load_model(digits_run / "model.safetensors", device="cpu")
    told = json.loads((digits_run / "history.json").read_text())
    accuracy = (model.predict(xt).argmax(axis=1) == yt).mean()
    assert accuracy == pytest.approx(told["history"]["val_accuracy"][-1])
    assert accuracy > 0.97
    assert model.name == "digits-cnn"


def test_history_json_holds_the_run(digits_run):
    told = json.loads((digits_run / "history.json").read_text())
    assert told["epoch"] == list(range(1, 16))
    assert set(told["history"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 15 for values in told["history"].values())
    settings = told["settings"]
    assert (settings["data"], settings["model"], settings["device"]) == ("digits", "cnn", "cpu")
    assert settings["batch_size"] == 32 and settings["seed"] == 0 and "Adam" in settings["optimizer"]


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="matplotlib is not installed")
def test_the_picture_is_a_png(digits_run):
    assert (digits_run / "history.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_without_matplotlib_the_install_line_is_told(xp, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "matplotlib" else find(n, *a))
    code, out, _ = xp(*_blobs("--out", "run"))
    assert code == 0 and "pip install 'xpnet[plot]'" in out
    assert not os.path.exists("run/history.png") and os.path.exists("run/model.safetensors")
    assert out.count("no report.html") == 1 and not os.path.exists("run/report.html")


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="matplotlib is not installed")
def test_without_jinja2_there_are_curves_and_one_line_for_the_report(xp, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "jinja2" else find(n, *a))
    code, out, err = xp(*_blobs("--quiet", "--out", "run"))
    assert code == 0 and err == ""
    assert out.count("no report.html") == 1 and "pip install 'xpnet[plot]'" in out
    assert os.path.exists("run/history.png") and not os.path.exists("run/report.html")


@pytest.mark.skipif(not (HAS_MATPLOTLIB and HAS_JINJA), reason="the plot extra is not installed")
def test_the_report_tells_of_the_run_and_its_command_makes_the_same_model(xp):
    options = ("--optimizer", "sgd", "--lr", 0.03, "--batch-size", 50, "--seed", 3)
    assert xp(*_blobs("--out", "a run", *options))[0] == 0
    page = html_page.read(Path("a run/report.html").read_text(encoding="utf-8"))
    told = json.loads(Path("a run/history.json").read_text())
    assert f"{100 * told['history']['val_accuracy'][-1]:.2f}%" in page.one("p", "headline").text
    assert page.one("h1").text == "blobs-mlp" and "800 training and 200 test samples" in page.text
    again, predict_, *others = (shlex.split(one.text) for one in page.one("dl", "steps").all("code"))
    assert again[0] == predict_[0] == "xpnet" and [other[1] for other in others] == ["explain", "export"]
    assert xp(*again[1:], "--out", "b")[0] == 0
    a, b = (xpnet.load_model(f"{n}/model.safetensors", device="cpu").state_dict() for n in ("a run", "b"))
    assert a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
    assert "agree with the labels" in xp(*predict_[1:])[1]


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="matplotlib is not installed")
def test_a_picture_that_fails_takes_nothing_else_with_it(xp, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("xpnet.viz.plot_history", broken)
    code, out, err = xp(*_blobs("--out", "run"))
    assert code == 0 and "next: " in out
    assert "xpnet: warning: no history.png: RuntimeError: no fonts" in err
    assert os.path.exists("run/report.html") == HAS_JINJA


@pytest.mark.skipif(not (HAS_MATPLOTLIB and HAS_JINJA), reason="the plot extra is not installed")
def test_a_report_that_fails_says_why_and_takes_nothing_else_with_it(xp, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr("xpnet.viz.report", broken)
    code, out, err = xp(*_blobs("--out", "run"))
    assert code == 0 and "next: " in out and os.path.exists("run/model.safetensors")
    assert "xpnet: warning: no report.html: RuntimeError: no ink" in err and "Traceback" not in err
    assert os.path.exists("run/history.png") and not os.path.exists("run/report.html")
    assert "Traceback" in xp("--debug", *_blobs("--out", "run", "--overwrite"))[2]


def test_one_seed_gives_one_model_and_another_seed_another(xp):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert xp(*_blobs("--out", name, "--seed", seed))[0] == 0
    a, b, c = (xpnet.load_model(f"{n}/model.safetensors", device="cpu").state_dict() for n in "abc")
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert any(not np.array_equal(a[key], c[key]) for key in a)


def test_options_reach_the_training(xp):
    assert xp(*_blobs("--optimizer", "momentum", "--lr", 0.05, "--batch-size", 100, "--out", "run"))[0] == 0
    model = xpnet.load_model("run/model.safetensors", device="cpu")
    assert model.optimizer.momentum == 0.9
    assert model.optimizer.rate() == 0.05
    assert model.optimizer.learning_rate.decay_steps == 2 * 8  # 800 samples in batches of 100, twice
    assert json.loads(Path("run/history.json").read_text())["settings"]["batch_size"] == 100


def test_the_default_rate_is_twice_the_optimizers(xp):
    assert xp(*_blobs("--optimizer", "sgd", "--out", "run"))[0] == 0
    assert xpnet.load_model("run/model.safetensors", device="cpu").optimizer.rate() == pytest.approx(0.02)


def test_quiet_tells_the_accuracy_and_the_files_alone(xp):
    code, out, err = xp(*_blobs("--quiet", "--out", "run"))
    assert code == 0 and err == ""
    first, *rest = out.splitlines()
    assert first.startswith("test accuracy: ")
    assert rest and all(line.startswith(("wrote ", "no history.png", "no report.html")) for line in rest)


def test_few_epochs_have_a_bar_each(xp):
    _, _, err = xp(*_blobs("--out", "run"))
    assert "epoch 1/2 100%|" in err and "epoch 2/2 100%|" in err


def test_default_epochs_are_more_for_fewer_samples():
    assert train.default_epochs(1347) == 40
    assert train.default_epochs(60_000) == 5
    assert train.default_epochs(10) == 60
    assert (train.default_batch(1347), train.default_batch(60_000)) == (32, 128)


def test_a_second_run_goes_to_another_folder(xp):
    assert xp(*_blobs())[0] == 0
    before = Path("runs/blobs-mlp/model.safetensors").read_bytes()
    code, out, _ = xp(*_blobs("--seed", 5))
    assert code == 0 and f"wrote {os.path.join('runs', 'blobs-mlp-2', 'model.safetensors')}" in out
    assert Path("runs/blobs-mlp/model.safetensors").read_bytes() == before


def test_an_earlier_run_is_overwritten_only_when_told(xp):
    assert xp(*_blobs("--out", "run"))[0] == 0
    before = Path("run/model.safetensors").read_bytes()
    code, _, err = xp(*_blobs("--out", "run", "--seed", 5))
    assert code == 2
    assert "run holds an earlier run" in _one_line(err) and "--overwrite" in err
    assert Path("run/model.safetensors").read_bytes() == before
    assert xp(*_blobs("--out", "run", "--seed", 5, "--overwrite"))[0] == 0
    assert Path("run/model.safetensors").read_bytes() != before


def test_an_out_that_is_a_file_is_refused_before_training(xp, monkeypatch):
    monkeypatch.setattr(train, "load", lambda *_: pytest.fail("the data were loaded all the same"))
    Path("taken").touch()
    code, _, err = xp(*_blobs("--out", "taken"))
    assert code == 2 and "taken is a file" in _one_line(err)


@pytest.mark.parametrize("first", [True, False], ids=["the model's write", "the card's write"])
def test_a_failed_write_leaves_the_old_model_whole(xp, monkeypatch, first):
    assert xp(*_blobs("--out", "run"))[0] == 0
    before = Path("run/model.safetensors").read_bytes()

    def half(tensors, path, metadata):
        if not first and card.KEY not in metadata:
            return write(tensors, path, metadata)
        Path(path).write_bytes(b"half a fi")
        raise OSError(28, "No space left on device", str(path))

    write = safetensors.numpy.save_file
    monkeypatch.setattr("safetensors.numpy.save_file", half)
    code, _, err = xp(*_blobs("--out", "run", "--overwrite"))
    assert code == 2 and "No space left" in err
    assert Path("run/model.safetensors").read_bytes() == before
    assert not [name for name in os.listdir("run") if name.startswith(".")]


def test_an_interrupt_ends_with_130_and_leaves_no_empty_folder(xp, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", interrupted)
    code, _, err = xp(*_blobs())
    assert code == 130 and err == "\nxpnet: interrupted\n"
    assert not os.path.exists("runs/blobs-mlp")


def test_a_loss_that_turns_nan_is_told_in_one_line(xp):
    x = np.full((64, 3), 1e30, np.float32)
    x[::2] *= -1
    np.savez("huge.npz", x=x, y=np.arange(64) % 2)
    code, _, err = xp("train", "huge.npz", "--epochs", 2, "--optimizer", "sgd", "--lr", 1e9, "--quiet")
    assert code == 2
    assert "epoch 1" in err and "Traceback" not in err
    assert not os.path.exists("runs/huge-mlp")


# -- data of one's own ---------------------------------------------------------------------------------------


def _images(n=60, shape=(8, 8), classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.integers(0, 60, (n, *shape), dtype=np.uint8)
    for i, label in enumerate(y):
        x[i, label] += 180  # the class is the bright row
    return x, y


def test_an_npz_of_ones_own_is_trained_on_and_predicted(xp):
    x, y = _images()
    np.savez("my.npz", x=x, y=y)
    code, out, _ = xp("train", "my.npz", "--epochs", 30, "--device", "cpu")
    assert code == 0 and "data: my, 48 training and 12 test samples of 1x8x8, 3 classes" in out
    assert os.path.exists("runs/my-cnn/model.safetensors")
    np.save("new.npy", x[:3])  # bytes, as they were trained on
    code, out, _ = xp("predict", "runs/my-cnn", "new.npy")
    assert code == 0 and "divided by 255" in out
    rows = [line.split() for line in out.splitlines() if line.strip()[0].isdigit()]
    assert [row[1] for row in rows] == ["0", "1", "2"]


def test_vectors_get_an_mlp_and_a_cnn_for_them_is_refused(xp):
    rng = np.random.default_rng(0)
    np.savez("v.npz", x=rng.normal(size=(50, 5)), y=np.arange(50) % 2)
    code, out, _ = xp("train", "v.npz", "--epochs", 1)
    assert code == 0 and "model: mlp" in out
    code, _, err = xp("train", "v.npz", "--model", "cnn")
    assert code == 2 and "cnn needs images" in _one_line(err) and "'mlp'" in err


def test_channels_last_images_are_turned(xp):
    x, y = _images()
    np.savez("rgb.npz", x=np.repeat(x[..., None], 3, axis=-1), y=y)
    code, _, err = xp("train", "rgb.npz", "--epochs", 1)
    assert code == 2 and "channels_last" in _one_line(err)
    code, out, _ = xp("train", "rgb.npz", "--epochs", 1, "--data-format", "channels_last")
    assert code == 0 and "samples of 3x8x8" in out
    code, _, err = xp("train", "digits", "--data-format", "channels_last")
    assert code == 2 and "FILE.npz" in _one_line(err)


def test_one_hot_labels_are_classes_too(xp):
    x, y = _images()
    np.savez("hot.npz", x=x, y=np.eye(3, dtype=int)[y])
    code, out, _ = xp("train", "hot.npz", "--epochs", 1)
    assert code == 0 and "3 classes" in out


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.linspace(0, 1, 20), "no classes"),
        (np.arange(20) % 2 * 1000, "np.unique"),
        (np.arange(20) % 2 - 1, "np.unique"),
        (np.zeros(20, int), "two classes"),
        (np.ones((20, 3), int), "no classes"),
        (np.where(np.arange(20) == 3, np.nan, 1.0), "no classes"),
    ],
)
def test_labels_that_are_no_classes_are_refused(xp, y, words):
    np.savez("bad.npz", x=np.ones((20, 2)), y=y)
    code, _, err = xp("train", "bad.npz")
    assert code == 2 and words in _one_line(err) and "bad.npz" in err
    assert not os.path.exists("runs")


# -- predict -------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_of_the_models_logits(xp, digits_run):
    (_, _), (xt, _) = xpnet.datasets.load_digits()
    np.save("x.npy", xt[:30])
    assert xp("predict", digits_run / "model.safetensors", "x.npy", "--out", "p.npy")[0] == 0
    z = xpnet.load_model(digits_run / "model.safetensors", device="cpu").predict(xt[:30]).astype(float)
    expected = np.exp(z - z.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    p = np.load("p.npy")
    np.testing.assert_allclose(p, expected, atol=1e-6)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)


def test_the_table_shows_the_three_most_probable(xp, digits_run):
    code, out, _ = xp("predict", digits_run, digits_run / "samples.npz")
    assert code == 0 and "model: digits-cnn on" in out and "trained on digits" in out
    header = out.splitlines()[2].split()
    assert header == ["sample", "label", "class", "probability", "second", "third"]
    row = out.splitlines()[3].split()
    assert len(row) == 8 and row[0] == "0"
    shares = [float(cell.rstrip("%")) for cell in row[3::2]]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 100.1
    assert "10 of 10 agree with the labels in the file (100.00%)" in out


def test_csv_holds_every_sample_with_its_class(xp, digits_run):
    (_, _), (xt, _) = xpnet.datasets.load_digits()
    np.save("x.npy", xt[:25])
    code, out, _ = xp("predict", digits_run, "x.npy", "--out", "p.csv")
    assert code == 0 and "... and 5 more samples" in out and "wrote p.csv" in out
    with open("p.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["sample", "class", *(f"p({k})" for k in range(10))]
    assert len(rows) == 26
    for row in rows[1:]:
        assert int(row[1]) == int(np.argmax([float(v) for v in row[2:]]))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda x: (x * 16).astype(np.uint8), "divided by 16"),
        (lambda x: x * 16, "divided by 16"),  # as scikit-learn hands the digits out
        (lambda x: (x * 255).round().astype(np.int64), "divided by 255"),
        (lambda x: x[:, 0] * 16, "divided by 16"),
        (lambda x: (x * 16).reshape(len(x), -1), "are read as (N, 1, 8, 8)"),
        (lambda x: x.transpose(0, 2, 3, 1), "channels last"),
        (lambda x: x.astype(np.float64), None),
    ],
)
def test_samples_in_any_usual_form_become_the_models_input(xp, digits_run, change, note):
    (_, _), (xt, _) = xpnet.datasets.load_digits()
    np.save("x.npy", change(xt[:20]))
    notes = []
    known = card.read(digits_run / "model.safetensors")
    x, labels = samples.read(Path("x.npy"), (1, 8, 8), False, known, False, notes.append)
    assert labels is None and x.dtype == np.float32
    np.testing.assert_allclose(x, xt[:20], atol=0.003)  # of a byte's rounding
    code, out, _ = xp("predict", digits_run, "x.npy")
    assert code == 0 and [f"note: {text}" for text in notes] == [
        line for line in out.splitlines() if line.startswith("note: ")
    ]
    assert (note in out) if note else (not notes)


def test_a_single_sample_needs_no_batch_axis(xp, digits_run):
    (_, _), (xt, _) = xpnet.datasets.load_digits()
    for name, one in (("chw", xt[0]), ("hw", xt[0, 0]), ("row", xt[0].reshape(-1))):
        np.save(f"{name}.npy", one)
        assert xp("predict", digits_run, f"{name}.npy", "--out", f"{name}_p.npy")[0] == 0
        assert np.load(f"{name}_p.npy").shape == (1, 10)
        np.testing.assert_array_equal(np.load(f"{name}_p.npy"), np.load("chw_p.npy"))


def test_values_unlike_those_trained_on_are_told(xp, digits_run):
    np.save("x.npy", np.full((1, 1, 8, 8), -3.0, np.float32))
    code, out, _ = xp("predict", digits_run, "x.npy")
    assert code == 0 and "unlike those trained on, 0 to 1" in out


def _picture(digits_run, **how):
    """The first test digit as a PNG; (its label, the model's own probabilities)."""
    from PIL import Image

    (_, _), (xt, _) = xpnet.datasets.load_digits()
    pixels = (xt[0, 0] * 255).round().astype(np.uint8)
    image = Image.fromarray(255 - pixels if how.get("negative") else pixels)
    if "mode" in how:
        image = image.convert(how["mode"])
    if "scale" in how:
        image = image.resize((8 * how["scale"],) * 2, Image.Resampling.NEAREST)
    image.save("digit.png")
    model = xpnet.load_model(digits_run / "model.safetensors", device="cpu")
    return predict.probabilities(model, model.predict((pixels / np.float32(255))[None, None]))


@needs_pillow
@pytest.mark.parametrize(
    ("how", "note"),
    [
        ({}, None),
        ({"mode": "RGB"}, "colours are turned into grey"),
        ({"scale": 4}, "resized from 32x32 to 8x8"),
    ],
)
def test_a_picture_becomes_the_models_input(xp, digits_run, how, note):
    expected = _picture(digits_run, **how)
    code, out, _ = xp("predict", digits_run, "digit.png", "--out", "p.npy")
    assert code == 0
    assert (f"note: {note}" in out) if note else ("note:" not in out)
    np.testing.assert_allclose(np.load("p.npy"), expected, atol=1e-5 if "scale" not in how else 0.1)


@needs_pillow
def test_dark_ink_on_paper_is_noticed_and_inverted(xp, digits_run):
    expected = _picture(digits_run, negative=True)
    code, out, _ = xp("predict", digits_run, "digit.png")
    assert code == 0 and "try --invert" in out
    code, out, _ = xp("predict", digits_run, "digit.png", "--invert", "--out", "p.npy")
    assert code == 0 and "--invert" not in out
    np.testing.assert_allclose(np.load("p.npy"), expected, atol=1e-5)


@needs_pillow
def test_pictures_of_16_bits_and_with_transparency_are_read():
    from PIL import Image

    notes = []
    Image.fromarray(np.full((4, 4), 32_896, np.uint16)).save("deep.png")
    x, _ = samples.read(Path("deep.png"), (1, 4, 4), False, None, False, notes.append)
    np.testing.assert_allclose(x, 128 / 255, atol=0.003)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save("clear.png")
    x, _ = samples.read(Path("clear.png"), (4, 4, 3), True, None, False, notes.append)
    assert x.shape == (1, 4, 4, 3) and (x == 1).all()
    assert "transparent parts are taken as white" in notes


@needs_pillow
def test_colours_keep_their_order():
    from PIL import Image

    Image.new("RGB", (5, 3), (255, 128, 0)).save("c.png")
    x, _ = samples.read(Path("c.png"), (3, 3, 5), False, None, False, print)
    np.testing.assert_allclose(x[0, :, 0, 0], [1, 128 / 255, 0], atol=1e-6)


def test_without_pillow_the_install_line_is_told(xp, digits_run, monkeypatch):
    Path("photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    code, _, err = xp("predict", digits_run, "photo.png")
    assert code == 2 and "pip install pillow" in _one_line(err)


def test_class_names_come_from_the_model_file(xp):
    model = xpnet.Sequential([xpnet.layers.Dense(2)], input_shape=(3,), device="cpu", seed=0, name="pets")
    model.compile("adam", "sparse_categorical_crossentropy")
    card.save(model, card.Card("pets", ("cat", "dog"), None, -1.0, 1.0, 0.0), Path("m.safetensors"))
    np.save("x.npy", np.ones((2, 3), np.float32))
    code, out, _ = xp("predict", "m.safetensors", "x.npy")
    assert code == 0 and "cat" in out and "dog" in out
    assert np.array_equal(
        xpnet.load_model("m.safetensors", device="cpu").state_dict()["0.weight"],
        model.state_dict()["0.weight"],
    )


@pytest.mark.parametrize(
    ("last", "loss", "units", "classes"),
    [
        ("softmax", "sparse_categorical_crossentropy", 3, 3),
        (None, "sparse_categorical_crossentropy", 3, 3),
        ("sigmoid", "binary_crossentropy", 1, 2),
        (None, "binary_crossentropy", 1, 2),
        (None, None, 3, 3),
        ("softmax", None, 3, 3),
    ],
)
def test_models_saved_in_python_are_read_too(xp, last, loss, units, classes):
    dense = xpnet.layers.Dense(units, activation=last)
    model = xpnet.Sequential([dense], input_shape=(4,), device="cpu", seed=0)
    if loss:
        model.compile("adam", loss)
    model.save("m.safetensors")
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.save("x.npy", x)
    code, _, _ = xp("predict", "m.safetensors", "x.npy", "--out", "p.npy")
    p, y = np.load("p.npy"), model.predict(x)
    assert code == 0 and p.shape == (5, classes)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    if last is None:
        y = 1 / (1 + np.exp(-y)) if units == 1 else np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p[:, -y.shape[1] :], y, atol=1e-6)


def test_a_regression_prints_its_numbers(xp):
    model = xpnet.Sequential([xpnet.layers.Dense(1)], input_shape=(4,), device="cpu", seed=0)
    model.compile("adam", "mse")
    model.save("m.safetensors")
    np.save("x.npy", np.ones((2, 4), np.float32))
    code, out, _ = xp("predict", "m.safetensors", "x.npy", "--out", "y.csv")
    assert code == 0 and "output 0" in out and "probability" not in out
    assert f"{model.predict(np.ones((1, 4), np.float32))[0, 0]:.6g}" in out
    assert Path("y.csv").read_text().splitlines()[0] == "sample,output 0"


def test_predictions_are_not_overwritten_silently(xp, digits_run):
    Path("p.csv").write_text("mine")
    code, _, err = xp("predict", digits_run, digits_run / "samples.npz", "--out", "p.csv")
    assert code == 2 and "exists already" in _one_line(err) and "--overwrite" in err
    assert Path("p.csv").read_text() == "mine"
    assert xp("predict", digits_run, digits_run / "samples.npz", "--out", "p.csv", "--overwrite")[0] == 0
    assert Path("p.csv").read_text().startswith("sample,class")


def test_bad_files_to_predict_are_each_told_in_one_line(xp, digits_run):
    np.save("words.npy", np.array(["a", "b"]))
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save("shape.npy", np.ones((2, 1, 9, 9), np.float32))
    np.save("nan.npy", np.full((1, 1, 8, 8), np.nan, np.float32))
    np.save("none.npy", np.ones((0, 1, 8, 8), np.float32))
    np.savez("two.npz", a=np.ones(3), b=np.ones(3))
    Path("text.npy").write_text("no array at all")
    Path("text.xyz").write_text("no picture at all")
    Path("cut.npy").write_bytes(Path("shape.npy").read_bytes()[:200])
    os.mkdir("folder")
    for name, words in {
        "words.npy": "real numbers",
        "objects.npy": "unpickled",
        "shape.npy": "(N, 1, 8, 8)",
        "nan.npy": "NaN",
        "none.npy": "empty",
        "two.npz": "a, b",
        "text.npy": "no .npy file",
        "text.xyz": "neither" if HAS_PILLOW else "Pillow",
        "cut.npy": "cannot be read",
        "folder": "is a folder",
        "missing.npy": "no file missing.npy",
    }.items():
        code, _, err = xp("predict", digits_run, name, "--out", "p.npy")
        assert code == 2 and words in _one_line(err), (name, err)
        assert not os.path.exists("p.npy")


def test_bad_model_files_are_told_in_one_line(xp, digits_run):
    whole = (digits_run / "model.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    Path("text.safetensors").write_text("hello")
    os.mkdir("empty")
    for name, words in {
        "cut.safetensors": "cut.safetensors",
        "text.safetensors": "text.safetensors",
        "missing.safetensors": "no model file missing.safetensors",
        "empty": "no model file",
    }.items():
        code, _, err = xp("predict", name, digits_run / "samples.npz")
        assert code == 2 and words in _one_line(err), (name, err)


def test_a_strange_card_is_as_none(tmp_path):
    from safetensors.numpy import save_file

    for text in ("{", "[]", "{}", json.dumps({"data": "d", "classes": 3, "full": None})):
        save_file({"a": np.ones(1, np.float32)}, tmp_path / "m.safetensors", {card.KEY: text})
        assert card.read(tmp_path / "m.safetensors") is None


# -- the command line itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "digts"], "Did you mean 'digits'"),
        (["train", "fashion_mnist"], "Did you mean 'fashion-mnist'"),
        (["train", "nothere.npz"], "nothere.npz does not exist"),
        (["train", "--model", "lenett"], "Did you mean 'lenet'"),
        (["train", "--optimizer", "adm"], "Did you mean 'adam'"),
        (["train", "--device", "gpu"], "unknown device"),
        (["train", "--epochs", "0"], "epochs must be a whole number of at least 1"),
        (["train", "--epochs", "1.5"], "Received: '1.5'"),
        (["train", "--batch-size", "-3"], "batch-size must be"),
        (["train", "--lr", "0"], "above 0"),
        (["train", "--lr", "nan"], "above 0"),
        (["train", "--seed", "x"], "seed must be"),
        (["train", "--model", "lenet"], "12x12"),
        (["train", "--epoch", "3"], "--epoch"),
        (["predict"], "MODEL"),
        (["predict", "m.safetensors", "x.npy", "--out", "p.txt"], ".npy or .csv"),
    ],
)
def test_wrong_command_lines_end_in_one_line_with_the_fix(xp, argv, words):
    code, out, err = xp(*argv)
    assert code == 2 and words in _one_line(err)
    assert not os.path.exists("runs")


def test_a_data_set_without_network_tells_what_to_do(xp, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("pooch.retrieve", offline)
    code, _, err = xp("train", "mnist")
    assert code == 2
    assert err.startswith("xpnet: error: MNIST was not found and could not be downloaded.\n")
    assert "What to do: download" in err and "Traceback" not in err


def test_debug_shows_the_traceback(xp):
    for argv in (["--debug", "train", "digts"], ["train", "digts", "--debug"]):
        code, _, err = xp(*argv)
        assert code == 2 and "Traceback" in err
        assert err.splitlines()[-1].startswith("xpnet: error: unknown data set")


def test_a_fault_of_our_own_is_told_as_such(xp, monkeypatch):
    def broken(*_):
        raise KeyError("slot")

    monkeypatch.setattr(train, "load", broken)
    code, _, err = xp("train")
    assert code == 1 and "unexpected KeyError" in _one_line(err) and "--debug" in err


def test_a_missing_gpu_is_a_warning_for_users(xp, monkeypatch):
    from xpnet import device

    def none(index, precision):
        raise device.NoDevice("CuPy is not installed; pip install 'xpnet[cuda12]'")

    monkeypatch.setattr(device, "_cuda", none)
    code, out, err = xp("train", "blobs", "--epochs", 1, "--device", "cuda", "--quiet", "--out", "run")
    assert code == 0
    assert err.startswith("xpnet: warning: device='cuda' is not available") and ".py" not in err
    assert "pip install 'xpnet[cuda12]'" in err
    monkeypatch.setenv("XPNET_REQUIRE_CUDA", "1")
    code, _, err = xp("train", "blobs", "--device", "cuda")
    assert code == 2 and "XPNET_REQUIRE_CUDA" in _one_line(err)


def test_help_version_and_no_command(xp):
    assert xp("--version") == (0, f"xpnet {xpnet.__version__}\n", "")
    for argv, words in (
        ([], "xpnet train mnist"),
        (["--help"], "predict"),
        (["train", "--help"], "--data-format"),
        (["train", "--help"], "xpnet train mnist --model lenet"),
        (["predict", "--help"], "--invert"),
        (["doctor", "--help"], "CuPy"),
    ):
        code, out, err = xp(*argv)
        assert code == 0 and words in out and err == ""


def test_the_help_loads_nothing_heavy():
    code = (
        "import sys; from xpnet.cli import main; main(['--help']); "
        "heavy = {'numpy', 'tqdm', 'sklearn', 'matplotlib', 'cupy', 'pooch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_python_m_xpnet_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "xpnet", "train", "nope"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("xpnet: error: unknown data set")


@pytest.mark.skipif(os.name == "nt", reason="pipes break in another way on Windows")
def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m xpnet train --help | true",
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
