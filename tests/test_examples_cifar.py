"""The program that trains resnet9 on CIFAR-10: small, on pictures made up here; and on a few real ones."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from xpnet import datasets
from xpnet.optimizers import SGD

pytest.importorskip("matplotlib", reason="the examples draw: pip install 'xpnet[plot]'")

DATA = Path(os.environ.get("XPNET_DATA") or "nowhere").expanduser()
needs_cifar = pytest.mark.skipif(
    not any((DATA / folder).is_dir() for folder in datasets.cifar10.SOURCE.folders),
    reason="no CIFAR-10 in the folder that XPNET_DATA names",
)


@pytest.fixture(scope="module")
def cifar_resnet9():
    path = Path(__file__).parents[1] / "examples" / "cifar_resnet9.py"
    spec = importlib.util.spec_from_file_location("example_cifar_resnet9", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake_cifar(monkeypatch):
    """Pictures of ten colours, a little noisy, in the place of CIFAR-10."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (10, 3, 1, 1))

    def part(count):
        y = np.arange(count) % 10
        noise = rng.normal(0, 20, (count, 3, 32, 32))
        return np.clip(colours[y] + noise, 0, 255).astype(np.uint8), y

    split = part(200), part(50)
    monkeypatch.setattr(datasets, "load_cifar10", lambda raw: split)
    return split


SMALL = ["--width", "4", "--batch-size", "40", "--device", "cpu"]


def test_it_trains_small_tells_what_it_reached_and_draws(cifar_resnet9, fake_cifar, tmp_path, capsys):
    from matplotlib.image import imread

    accuracy = cifar_resnet9.main([*SMALL, "--epochs", "8", "--out", str(tmp_path / "new")])
    assert accuracy > 0.6  # guessing is right one time in ten
    printed = capsys.readouterr().out
    assert f"test accuracy {accuracy:.2%} of 50 images after 8 epochs" in printed and "trained in" in printed
    for name in ("cifar_resnet9.png", "cifar_resnet9_seen.png"):
        assert imread(tmp_path / "new" / name)[..., :3].std() > 0.02, f"{name} is blank"


def test_it_ends_at_its_target(cifar_resnet9, fake_cifar, tmp_path, capsys):
    options = [*SMALL, "--images", "80", "--epochs", "3", "--out", str(tmp_path)]
    cifar_resnet9.main([*options, "--target", "0.01"])
    printed = capsys.readouterr().out
    assert "50 images after 1 epochs" in printed and "1% reached after" in printed
    cifar_resnet9.main([*options, "--target", "1.01"])
    assert "101% not reached in" in capsys.readouterr().out


def test_the_rate_rises_for_a_fifth_of_the_steps_and_falls_to_nothing(cifar_resnet9):
    model = cifar_resnet9.build(100, width=4, rate=0.3)
    assert isinstance(model.optimizer, SGD) and model.optimizer.nesterov
    rates = [model.optimizer.learning_rate(step) for step in range(101)]
    assert rates[0] == 0 and max(rates) == rates[20] == 0.3 and rates[100] == pytest.approx(0, abs=1e-12)
    assert (np.diff(rates[:21]) > 0).all() and (np.diff(rates[20:]) < 0).all()
    assert model.loss.label_smoothing == 0.1


def test_the_network_takes_bytes_of_which_the_first_layer_makes_unit_scale(cifar_resnet9, fake_cifar):
    (x, _), _ = fake_cifar
    first = cifar_resnet9.build(10, width=4).layers[0]
    mean, deviation = np.array(cifar_resnet9.MEAN), np.array(cifar_resnet9.DEVIATION)
    seen = first.forward(x.astype(np.float32).transpose(2, 1, 3, 0), train=False)[0]
    expected = (x - mean[:, None, None]) / deviation[:, None, None]
    np.testing.assert_allclose(seen.transpose(3, 1, 0, 2), expected, atol=1e-4)


@needs_cifar
@pytest.mark.data
def test_it_learns_from_a_few_real_photographs(cifar_resnet9):
    split = cifar_resnet9.load(2000)
    mean = split[0][0].mean(axis=(0, 2, 3))
    assert np.allclose(mean, cifar_resnet9.MEAN, atol=4)  # of red, green and blue
    args = cifar_resnet9.arguments(["--width", "8", "--epochs", "3", "--batch-size", "64", "--device", "cpu"])
    _, figures = cifar_resnet9.train(split, args)
    assert figures["accuracy"] > 0.3 and figures["device"] == "cpu"
