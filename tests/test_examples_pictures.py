"""The tutorial programs that draw, run small: their pictures are there, and their numbers are right."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need matplotlib")

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_picture(path, least_colors=20):
    """path is an image that can be read whole, of a size to look at, with something on it."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG" and min(image.size) > 200, (path, image.size)
        assert len(image.convert("RGB").getcolors(1 << 24)) >= least_colors, path


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    out = tmp_path_factory.mktemp("blobs") / "new" / "folder"
    return load("blobs_boundary").main(["--out", str(out), "--iterations", "60", "--frames", "4"]), out


def test_blobs_boundary_learns_and_leaves_its_pictures(blobs):
    from PIL import Image

    results, out = blobs
    assert results["accuracy"] > 0.6  # chance is 0.2
    assert sorted(path.name for path in out.iterdir()) == ["blobs_boundary.gif", "blobs_boundary.png"]
    assert_picture(out / "blobs_boundary.png", 1000)
    with Image.open(out / "blobs_boundary.gif") as gif:
        assert gif.n_frames == results["frames"] == 5  # before training, and four on the way
        first = np.array(gif.convert("RGB"), dtype=int)
        gif.seek(4)
        last = np.array(gif.convert("RGB"), dtype=int)
    assert np.mean(np.abs(first - last).sum(axis=2) > 60) > 0.2  # the regions formed


def test_blobs_boundary_prints_loss_and_accuracy(tmp_path, capsys):
    load("blobs_boundary").main(["--out", str(tmp_path), "--iterations", "20", "--frames", "2"])
    printed = capsys.readouterr().out
    assert re.search(r"step +20: loss \d\.\d+, accuracy \d+\.\d+%", printed)
    assert re.search(r"all 1000 points: loss \d\.\d+, accuracy \d+\.\d+%", printed)


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    out = tmp_path_factory.mktemp("explained")
    return load("cnn_explained").main(["--out", str(out), "--epochs", "3"]), out


def test_cnn_explained_leaves_a_picture_of_every_stage(explained):
    _, out = explained
    names = sorted(path.name for path in out.iterdir())
    assert [name[:3] for name in names] == [f"{i:02d}_" for i in range(1, 11)]
    for name in names:
        assert_picture(out / name)


def test_a_convolution_by_hand_is_the_layers_pixel(explained):
    results, _ = explained
    by_hand, by_layer = results["sliding"]
    assert by_hand == pytest.approx(by_layer, rel=1e-5) and by_layer > 0


def test_linear_layers_collapse_to_one_matrix_and_relu_does_not(explained):
    results, _ = explained
    assert results["dense_gap"] < 1e-4 and results["linear_gap"] < 1e-4
    assert results["relu_gap"] > 100 * results["linear_gap"]
    assert (
        results["linear_accuracy"] > 0.5 and results["moons"]["linear"] < 0.95
    )  # learned, within its limits


def test_kernels_are_learned_and_so_are_the_digits(explained):
    results, _ = explained
    assert results["kernel_change"] > 0.01
    assert results["accuracy"] > 0.5  # chance is 0.1
    assert results["pooled"]


def test_probabilities_make_a_table_that_can_be_read(explained):
    results, _ = explained
    p = results["probabilities"]
    assert p.shape == (10,) and p.sum() == pytest.approx(1, abs=1e-5)
    lines = load("cnn_explained").table(np.log(p + 1e-9), p, label=3).splitlines()
    assert len(lines) == 11 and lines[0].split() == ["digit", "score", "probability"]
    assert float(lines[1 + p.argmax()].split()[2].rstrip("%")) == pytest.approx(100 * p.max(), abs=1e-3)
    assert lines[1 + p.argmax()].count("<- answer") == 1 and lines[4].endswith("<- truth")
