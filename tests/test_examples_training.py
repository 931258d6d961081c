"""The tutorial programs that train: each runs small, and at its own size reaches what it promises."""

import gzip
import importlib.util
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from xpnet import datasets, numerical_gradient
from xpnet.layers import Dropout

pytest.importorskip("matplotlib", reason="the examples draw: pip install 'xpnet[plot]'")

EXAMPLES = Path(__file__).parents[1] / "examples"
MNIST = Path(os.environ.get("XPNET_DATA") or "nowhere").expanduser() / "mnist"
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST in the folder that XPNET_DATA names")


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


# -- digits_cnn ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_cnn():
    return example("digits_cnn")


def test_digits_cnn_is_the_tutorials_net(digits_cnn):
    model = digits_cnn.build()
    shapes = [
        (10, 1, 3, 3), (10,), (10, 10, 3, 3), (10,), (200, 160), (200,), (200, 200), (200,), (10, 200), (10,),
    ]  # fmt: skip
    state = model.state_dict()
    assert [a.shape for a in state.values()] == shapes
    assert [layer.out_shape for layer in model.layers[:3]] == [(10, 8, 8), (10, 8, 8), (10, 4, 4)]
    assert [(d.rate, d.scaling) for d in model.layers if isinstance(d, Dropout)] == [(0.5, "inference")] * 2
    for name, a in state.items():
        assert 0.03 < a.std() < 0.2, f"{name} is not drawn from normal * 0.1"
    assert model.loss.reduction == "sum"
    opt = model.optimizer
    assert (opt.learning_rate, opt.initial_accumulator_value, opt.epsilon) == (0.01, 1e-8, 0)


def test_digits_cnn_small_leaves_out_the_second_convolution_and_dropout(digits_cnn):
    kinds = [type(layer).__name__ for layer in digits_cnn.build(small=True).layers]
    assert kinds == ["Conv2D", "MaxPooling2D", "Flatten", "Dense", "Dense", "Dense"]


def test_digits_are_split_as_the_tutorial_does_and_standardised_by_the_training_part_alone(digits_cnn):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x, xt, y, yt = train_test_split(digits.data, digits.target, random_state=0)
    (a, b), (at, bt) = digits_cnn.load()
    assert a.shape == (1347, 1, 8, 8) and at.shape == (450, 1, 8, 8)
    np.testing.assert_array_equal(b, y), np.testing.assert_array_equal(bt, yt)
    mean, deviation = x.mean(axis=0), np.where(x.std(axis=0) == 0, 1, x.std(axis=0))
    np.testing.assert_allclose(a.reshape(-1, 64), (x - mean) / deviation, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(at.reshape(-1, 64), (xt - mean) / deviation, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [[], ["--small"]], ids=["full", "small"])
def test_digits_cnn_learns_logs_both_errors_and_draws(digits_cnn, tmp_path, capsys, options):
    out = tmp_path / "new" / "folder"
    train, test = digits_cnn.main([*options, "--epochs", "2", "--seed", "3", "--out", str(out)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert all("train error" in line and "test error" in line for line in lines)
    assert train > 0.85 and test > 0.85  # guessing is right 10 times of 100
    assert_picture(out / ("digits_cnn_small.png" if options else "digits_cnn.png"))


def test_digits_cnn_logs_every_ten_epochs(digits_cnn, capsys):
    train, test = digits_cnn.load()
    (x, y), errors = train, digits_cnn.ErrorLog(train, test)
    digits_cnn.build().fit(x[:8], y[:8], batch_size=8, epochs=21, callbacks=[errors], verbose=0)
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "1/21", "10/21", "20/21", "21/21",
    ]  # fmt: skip
    assert len(errors.train_errors) == len(errors.test_errors) == 21


@pytest.mark.slow
def test_digits_cnn_reads_98_of_100_after_fifty_epochs(digits_cnn, tmp_path):
    train, test = digits_cnn.main(["--out", str(tmp_path)])
    assert train > 0.995 and test > 0.975  # by seed 97.6% to 99.1%, as with PyTorch


# -- two_layer_net -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_layer_net():
    return example("two_layer_net")


@pytest.fixture
def net(two_layer_net):
    return two_layer_net.TwoLayerNet(weight_init_std=1)


def test_two_layer_net_computes_the_textbooks_formula(net, rng):
    x, p = rng.standard_normal((6, 2)), {name: a.copy() for name, a in net.params.items()}
    assert {name: a.shape for name, a in p.items()} == {"W1": (2, 3), "b1": (3,), "W2": (3, 2), "b2": (2,)}
    z = 1 / (1 + np.exp(-(x @ p["W1"] + p["b1"]))) @ p["W2"] + p["b2"]
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-12)


def test_two_layer_net_starts_from_small_weights(two_layer_net):
    params = two_layer_net.TwoLayerNet().params
    assert 0.002 < params["W1"].std() < 0.03 and 0.002 < params["W2"].std() < 0.03
    assert not params["b1"].any() and not params["b2"].any()


def test_writing_to_params_changes_the_network(net, rng):
    x = rng.standard_normal((4, 2))
    net.params["W2"][...] = 0
    net.params["b2"][...] = (0, np.log(3))
    np.testing.assert_allclose(net.predict(x), [[0.25, 0.75]] * 4, rtol=1e-12)
    net.params["b2"] -= (0, np.log(3))
    np.testing.assert_allclose(net.predict(x), 0.5, rtol=1e-12)


def test_two_layer_net_takes_indices_and_one_hot_labels_alike(net, rng):
    x, t = rng.standard_normal((8, 2)), np.array([0, 1, 1, 0, 1, 0, 0, 1])
    one_hot = np.eye(2)[t]
    p = net.predict(x)
    assert net.loss(x, t) == net.loss(x, one_hot) == pytest.approx(-np.log(p[np.arange(8), t]).mean())
    assert net.accuracy(x, t) == net.accuracy(x, one_hot) == (p.argmax(axis=1) == t).mean()
    for name, slope in net.gradient(x, one_hot).items():
        np.testing.assert_array_equal(slope, net.gradient(x, t)[name])


def test_backpropagation_finds_what_the_numerical_gradient_measures(net, rng):
    x, t = rng.standard_normal((10, 2)), rng.integers(0, 2, 10)
    before = {name: a.copy() for name, a in net.params.items()}
    measured, derived = net.numerical_gradient(x, t), net.gradient(x, t)
    assert list(measured) == list(derived) == ["W1", "b1", "W2", "b2"]
    for name in measured:
        assert np.abs(measured[name]).max() > 1e-4
        np.testing.assert_allclose(derived[name], measured[name], atol=1e-8)
        np.testing.assert_array_equal(net.params[name], before[name])


def test_the_losses_logged_are_those_before_each_step(two_layer_net, rng, capsys):
    x, t = rng.standard_normal((1, 2)), np.array([1])  # one sample: every batch is the same
    net, twin = two_layer_net.TwoLayerNet(weight_init_std=1), two_layer_net.TwoLayerNet(weight_init_std=1)
    losses = two_layer_net.train(net, net.gradient, x, t, iterations=2, learning_rate=0.5)
    assert losses[0] == pytest.approx(twin.loss(x, t))
    slopes = {name: numerical_gradient(lambda _: twin.loss(x, t), p) for name, p in twin.params.items()}
    for name, p in twin.params.items():
        p -= 0.5 * slopes[name]
    assert losses[1] == pytest.approx(twin.loss(x, t), rel=1e-6)
    assert losses[1] < losses[0]
    assert capsys.readouterr().out.count("step") == 2


def test_two_layer_net_runs_small_by_both_gradients(two_layer_net, tmp_path, capsys):
    quick = two_layer_net.main(["--iterations", "30", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    slow = two_layer_net.main(["--iterations", "30", "--numerical", "--out", str(tmp_path)])
    np.testing.assert_allclose(slow["learned"], quick["learned"], rtol=1e-6)
    assert quick["difference"] < 1e-8 and quick["ratio"] > 0
    assert "largest difference" in printed and "times faster" in printed and "accuracy" in printed
    assert_picture(tmp_path / "two_layer_net.png")


@pytest.mark.slow
def test_random_labels_teach_nothing_and_others_do(two_layer_net, tmp_path):
    result = two_layer_net.main(["--out", str(tmp_path)])
    assert len(result["random"]) == len(result["learned"]) == 10_000
    assert abs(np.mean(result["random"][-1000:]) - np.log(2)) < 0.02
    assert np.mean(result["learned"][-1000:]) < 0.15


# -- mnist ---------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch):
    """The four files of MNIST with ten classes of noise, each with a bright block of its own place."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 400), ("t10k", 100)):
        labels = rng.permutation(np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (n, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels):
            top, left = 2 + 14 * (label // 5), 1 + 5 * (label % 5)
            image[top : top + 8, left : left + 5] += 180
        for kind, a in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{a.ndim}I", 0, 8, a.ndim, *a.shape)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + a.tobytes()))
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def mnist_mlp():
    return example("mnist_mlp")


@pytest.fixture(scope="module")
def mnist_cnn():
    return example("mnist_cnn")


def test_mnist_mlp_is_the_tutorials_net(mnist_mlp):
    model = mnist_mlp.build()
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Dense", "Activation"] * 4
    weights = [a.shape for name, a in model.state_dict().items() if name.endswith("weight")]
    assert weights == [(500, 784), (250, 500), (100, 250), (10, 100)]
    assert (model.optimizer.learning_rate, model.loss.name) == (0.001, "categorical_crossentropy")


def test_mnist_mlp_reads_pixels_as_stored_and_one_hot_labels(mnist_mlp, fake_mnist):
    (x, y), (xt, yt) = mnist_mlp.load()
    (raw, labels), _ = datasets.mnist.load_data()
    assert x.dtype == xt.dtype == np.float32 and x.max() > 200
    np.testing.assert_array_equal(x, raw.reshape(400, 784))
    np.testing.assert_array_equal(y, np.eye(10)[labels])
    assert yt.shape == (100, 10)


def test_mnist_mlp_runs_small_on_both_kinds_of_pixels_and_by_every_optimizer(
    mnist_mlp, fake_mnist, tmp_path, capsys
):
    options = ["--epochs", "4", "--optimizer-epochs", "2", "--batch-size", "40", "--out", str(tmp_path)]
    accuracies = mnist_mlp.main(options)
    printed = capsys.readouterr().out
    assert [name.split(",")[0] for name in accuracies] == ["unscaled", "scaled"]
    assert min(accuracies.values()) > 0.8
    for name in ("SGD", "momentum", "AdaGrad", "RMSProp", "Adam"):
        assert f"  {name} " in printed
    assert printed.count("test loss") == 7
    assert_picture(tmp_path / "mnist_mlp.png")
    assert_picture(tmp_path / "mnist_mlp_optimizers.png")


def test_mnist_cnn_is_the_workload(mnist_cnn):
    model = mnist_cnn.build()
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "Conv2D", "Conv2D", "MaxPooling2D", "Dropout", "Flatten", "Dense", "Dropout", "Dense",
    ]  # fmt: skip
    weights = [a.shape for name, a in model.state_dict().items() if name.endswith("weight")]
    assert weights == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 9216), (10, 128)]
    assert [d.rate for d in model.layers if isinstance(d, Dropout)] == [0.25, 0.5]
    assert model.loss.from_logits is None  # a name takes the logits that the last layer yields


def test_mnist_cnn_runs_small_saves_its_model_and_draws(mnist_cnn, fake_mnist, tmp_path):
    from xpnet import load_model

    options = ["--epochs", "2", "--batch-size", "20", "--out", str(tmp_path)]
    accuracy = mnist_cnn.main(options)
    assert accuracy > 0.8
    assert_picture(tmp_path / "mnist_cnn.png")
    _, (xt, yt) = datasets.load_mnist()
    guesses = load_model(tmp_path / "mnist_cnn.safetensors").predict(xt).argmax(axis=1)
    assert (guesses == yt).mean() == pytest.approx(accuracy)


def test_mnist_cnn_draws_only_what_it_was_wrong_about(mnist_cnn, tmp_path, rng):
    images, labels = rng.random((5, 1, 28, 28)), np.arange(5)
    assert not mnist_cnn.draw_mistakes(images, labels, labels, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    assert mnist_cnn.draw_mistakes(images, labels, labels[::-1], tmp_path / "some.png")
    assert_picture(tmp_path / "some.png")


@needs_mnist
@pytest.mark.data
def test_mnist_mlp_learns_real_digits_from_a_few(mnist_mlp):
    (x, y), (xt, yt) = mnist_mlp.load()
    model = mnist_mlp.build()
    model.fit(x[:6000] / 255, y[:6000], batch_size=200, epochs=3, verbose=0)
    assert model.evaluate(xt / 255, yt)[1] > 0.9


@needs_mnist
@pytest.mark.data
def test_mnist_cnn_learns_real_digits_from_a_few(mnist_cnn):
    (x, y), (xt, yt) = datasets.load_mnist()
    model = mnist_cnn.build()
    model.fit(x[:2000], y[:2000], batch_size=64, epochs=1, verbose=0)
    assert model.evaluate(xt[:1000], yt[:1000])[1] > 0.75


@needs_mnist
@pytest.mark.data
@pytest.mark.slow
def test_mnist_mlp_reaches_the_tutorials_accuracy(mnist_mlp, tmp_path):
    unscaled, scaled = mnist_mlp.main(["--optimizer-epochs", "0", "--out", str(tmp_path)]).values()
    assert scaled >= 0.978 and unscaled >= 0.945
