"""The tutorial programs whose networks end in maps, run small: what they make, measure and draw."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from xpnet import datasets, layers

pytest.importorskip("matplotlib", reason="the examples draw: pip install 'xpnet[plot]'")

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    """The example as a module, without running its main."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_picture(path):
    """A PNG in which something is drawn."""
    from matplotlib.image import imread

    assert imread(path)[..., :3].std() > 0.02, f"{path} is blank"


# -- autoencoder ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def autoencoder():
    return example("autoencoder")


def test_autoencoder_restores_digits_better_than_a_blur(autoencoder, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    errors = autoencoder.main(["--epochs", "8", "--seed", "1", "--device", "cpu", "--out", str(out)])
    assert list(errors) == ["noisy", "blurred", "restored"]
    assert errors["restored"] < 0.7 * min(errors["noisy"], errors["blurred"])
    printed = capsys.readouterr().out
    assert f"restored {errors['restored']:.4f}" in printed
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("epoch")][-1] == "8/8"
    assert_picture(out / "autoencoder.png")


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 12, 16)])
def test_autoencoder_yields_images_of_the_size_it_was_given(autoencoder, shape):
    model = autoencoder.build(shape, device="cpu")
    assert model.output_shape == shape
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Conv2D", "Conv2D", "Conv2DTranspose", "Conv2DTranspose", "Conv2D"]
    y = model.predict(np.zeros((2, *shape)))
    assert y.min() > 0 and y.max() < 1


def test_autoencoder_s_noise_and_blur(autoencoder, rng):
    images = np.full((50, 1, 8, 8), 0.5, np.float32)
    seen = autoencoder.noisy(images, 0.1, rng)
    assert seen.dtype == np.float32 and seen.std() == pytest.approx(0.1, rel=0.05)
    assert autoencoder.noisy(images, 3.0, rng).min() == 0 and autoencoder.noisy(images, 3.0, rng).max() == 1
    image = rng.random((1, 1, 5, 6))
    blurred = autoencoder.blurred(image)
    assert blurred.shape == image.shape
    assert blurred[0, 0, 2, 3] == pytest.approx(image[0, 0, 1:4, 2:5].mean())
    np.testing.assert_allclose(autoencoder.blurred(images), images)


# -- segmentation --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def segmentation():
    return example("segmentation")


def test_segmentation_s_images_hold_four_digits_each_in_its_own_cell(segmentation, rng):
    (digits, labels), _ = datasets.load_digits()
    images, classes = segmentation.make_images(digits, labels, 20, rng)
    assert images.shape == (20, 1, 24, 24) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    assert classes.shape == (20, 24, 24) and set(np.unique(classes)) <= set(range(11))
    for cell in classes.reshape(20, 2, 12, 2, 12).transpose(0, 1, 3, 2, 4).reshape(-1, 12, 12):
        inside = np.unique(cell[cell > 0])
        assert len(inside) == 1
        rows, columns = np.nonzero(cell)
        assert np.ptp(rows) < 8 and np.ptp(columns) < 8
    strong = classes > 0
    assert abs(images[:, 0][strong] - 0.5).mean() > 1.3 * abs(images[:, 0][~strong] - 0.5).mean()


def test_intersection_over_union_is_that_of_the_definition(segmentation, rng):
    classes, guesses = rng.integers(0, 11, (2, 30, 24, 24))
    for name, share in enumerate(segmentation.intersection_over_union(classes, guesses)):
        a, b = classes == name, guesses == name
        assert share == pytest.approx((a & b).sum() / (a | b).sum())
    np.testing.assert_array_equal(segmentation.intersection_over_union(classes, classes), np.ones(11))


def test_segmentation_s_net_is_a_u(segmentation):
    model = segmentation.build(10, device="cpu")
    assert model.output_shape == (11, 24, 24)
    kinds = [type(layer) for layer in model.all_layers()]
    assert kinds.count(layers.Concatenate) == kinds.count(layers.Conv2DTranspose) == 2
    sizes = [one.out_shape[1] for one in model.all_layers() if isinstance(one, layers.Conv2D)]
    assert sizes == [24, 24, 12, 12, 6, 6, 12, 12, 24, 24, 24]


def test_segmentation_runs_small_and_draws(segmentation, tmp_path, capsys):
    options = ["--images", "40", "--epochs", "1", "--seed", "2", "--device", "cpu", "--out", str(tmp_path)]
    right, shared = segmentation.main(options)
    assert f"{right:.2%}; mean intersection over union: {shared:.3f}" in capsys.readouterr().out
    assert_picture(tmp_path / "segmentation.png")


def test_segmentation_s_net_can_learn_a_few_images_by_heart(segmentation, rng):
    train, _ = datasets.load_digits()
    x, y = segmentation.make_images(*train, 12, rng)
    model = segmentation.build(250, device="cpu", widths=(16, 32))
    model.fit(x, y, batch_size=12, epochs=250, verbose=0)
    shares = segmentation.intersection_over_union(y, model.predict(x).argmax(axis=1))
    assert shares.mean() > 0.5  # all ground would be 0.08


@pytest.mark.slow
def test_segmentation_names_nine_of_ten_pixels(segmentation, tmp_path):
    right, shared = segmentation.main(["--device", "cpu", "--out", str(tmp_path)])
    assert right > 0.93 and shared > 0.6
