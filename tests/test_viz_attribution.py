"""Saliency and Grad-CAM: PyTorch's gradients, on a model that stays as it was."""

import numpy as np
import pytest
import strict_xp
from cases import randomise
from conftest import cuda_ops

from xpnet import Sequential, ShapeError, viz
from xpnet import layers as L
from xpnet.errors import NotBuiltError

N, CLASSES = 5, 4
SHAPE = (3, 9, 8)


def network(ending="softmax", separate=False, **more):
    """Convolutions, normalization, a short cut, dropout, both poolings; an ending that training folds."""
    units = 1 if ending == "sigmoid" else CLASSES
    last = [L.Dense(units), L.Activation(ending)] if separate else [L.Dense(units, activation=ending)]
    layers = [
        L.Conv2D(6, 3, padding="same"),
        L.BatchNormalization(),
        L.ReLU(),
        L.MaxPooling2D(2),
        L.Residual([L.Conv2D(6, 3, padding=1, activation="silu"), L.BatchNormalization()], activation="relu"),
        L.Conv2D(5, 2, activation="tanh"),
        L.Dropout(0.5),
        L.AveragePooling2D(2),
        L.Flatten(),
        L.Dense(7, activation="tanh"),
        *last,
    ]
    first = more.get("data_format") != "channels_last"
    shape = SHAPE if first else (*SHAPE[1:], SHAPE[0])
    model = Sequential(layers, input_shape=shape, seed=1, **{"precision": "float64", "device": "cpu"} | more)
    loss = "binary_crossentropy" if ending == "sigmoid" else "sparse_categorical_crossentropy"
    model.compile("sgd", loss)
    randomise(model, np.random.default_rng(2))
    return model


def samples(model, count=N):
    return np.random.default_rng(3).normal(size=(count, *model.input_shape)).astype(model.dtype)


def level(model, x):
    """Shift the last biases so that on the mean no class is ahead."""
    p = model.predict(x)
    z = np.log(p) if p.min() > 0 else p
    name, bias = [(name, a) for name, a in model.state_dict().items() if name.endswith("bias")][-1]
    model.load_state_dict({name: bias - z.mean(axis=(0, *range(2, z.ndim)))}, strict=False)


def everything(model):
    """All that a model holds: parameters, their gradients, statistics, and the dropout's step."""
    params = model.params
    arrays = (params.values, params.grads, params.state, params.pending)
    return [model.ops.to_host(a).tobytes() for a in arrays] + [params.step]


def first(a, model):
    return a.transpose(0, 3, 1, 2) if model.data_format == "channels_last" else a


def in_torch(model, x, target, inside=None):
    """Logits' slopes by PyTorch: dS/dx, and a module's output with dS/d of it, channels first."""
    import torch

    from xpnet.interop.torch import to_torch

    net = to_torch(model)
    if type(net[-1]) in (torch.nn.Softmax, torch.nn.Sigmoid):
        net = net[:-1]
    kept = []
    if inside is not None:
        net[inside].register_forward_hook(lambda module, given, y: (y.retain_grad(), kept.append(y))[0])
    x = torch.tensor(first(x, model), requires_grad=True)
    logits = net(x)
    score = logits[:, 0] * (2 * target - 1) if logits.shape[1] == 1 else logits[torch.arange(len(x)), target]
    score.sum().backward()
    if inside is None:
        return x.grad.numpy()
    return kept[0].detach().numpy(), kept[0].grad.numpy()


ENDINGS = [("softmax", False), ("softmax", True), (None, False), ("sigmoid", False), ("sigmoid", True)]


@pytest.mark.torch
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("ending, separate", ENDINGS)
def test_gradients_are_those_of_pytorch(ending, separate, data_format):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = network(ending, separate, data_format=data_format)
    x = samples(model)
    target = torch.tensor([0, 1, 1, 0, 1])
    slope = viz.saliency(model, x, target.numpy())
    assert slope.shape == x.shape and slope.dtype == x.dtype
    np.testing.assert_allclose(first(slope, model), in_torch(model, x, target), rtol=1e-9, atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("ending", ["softmax", None, "sigmoid"])
@pytest.mark.parametrize("layer, inside", [(None, 7), ("conv2d", 0), (2, 2), ("residual", 5), (7, 9)])
def test_grad_cam_is_that_of_pytorchs_gradients(ending, layer, inside, data_format):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = network(ending, data_format=data_format)
    x = samples(model, 12)
    target = torch.arange(12) % 2
    maps, slopes = in_torch(model, x, target, inside)
    expected = np.maximum((slopes.mean((2, 3), keepdims=True) * maps).sum(axis=1), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(viz.grad_cam(model, x, target.numpy(), layer), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ending, separate", ENDINGS)
def test_the_slope_is_the_logits_own_by_central_differences(ending, separate):
    """Without PyTorch, too."""
    model = network(ending, separate)
    x, v = samples(model, 2), np.random.default_rng(4).normal(size=(2, *SHAPE))
    logits = []
    for sign in (1, -1):
        p = model.layer_outputs(x + sign * 1e-6 * v)[model.layers[-1].label]
        z = np.log(p) if ending == "softmax" else np.log(p / (1 - p)) if ending == "sigmoid" else p
        logits.append(z[:, 0] if ending == "sigmoid" else z[:, 1] - z[:, 2])  # softmax tells differences only
    numerical = (logits[0] - logits[1]) / 2e-6
    slope = viz.saliency(model, x, 1) - (0 if ending == "sigmoid" else viz.saliency(model, x, 2))
    np.testing.assert_allclose((slope * v).sum(axis=(1, 2, 3)), numerical, rtol=1e-5)


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", None])
def test_the_predicted_class_is_the_default(ending):
    model = network(ending)
    x = samples(model, 20)
    if ending != "sigmoid":
        level(model, x)
    p = model.predict(x)
    predicted = (p[:, 0] > 0.5).astype(int) if ending == "sigmoid" else p.argmax(axis=1)
    assert len(set(predicted)) > 1
    np.testing.assert_array_equal(viz.saliency(model, x), viz.saliency(model, x, predicted))
    np.testing.assert_array_equal(viz.grad_cam(model, x), viz.grad_cam(model, x, predicted))
    other = (predicted + 1) % 2
    assert np.abs(viz.saliency(model, x) - viz.saliency(model, x, other)).max() > 1e-6


def test_no_and_yes_are_opposites_and_one_plain_output_is_itself():
    model = network("sigmoid")
    x = samples(model)
    np.testing.assert_allclose(viz.saliency(model, x, 0), -viz.saliency(model, x, 1))
    plain = Sequential([L.Dense(1, use_bias=False)], input_shape=(3,), seed=0)
    plain.compile("sgd", "mse")
    x = np.ones((2, 3), np.float32) * [[1], [-1]]
    np.testing.assert_allclose(viz.saliency(plain, x), np.repeat(plain.state_dict()["0.weight"], 2, axis=0))


@pytest.mark.parametrize("where", ["cpu", "strict", "host"])
def test_the_model_stays_as_it_was(where):
    ops = {"cpu": lambda: "cpu", "strict": strict_xp.strict_ops, "host": lambda: cuda_ops("host")}[where]()
    model = network(device=ops, precision="float32")
    x = samples(model, 8)
    model.fit(x, np.arange(8) % CLASSES, epochs=1, verbose=0)
    before = everything(model)
    seen = [viz.saliency(model, x, method="smoothgrad", samples=2), viz.grad_cam(model, x)]
    assert everything(model) == before
    reference = network(device="cpu", precision="float32")
    reference.load_state_dict(model.state_dict())
    np.testing.assert_allclose(seen[1], viz.grad_cam(reference, x), rtol=1e-3, atol=1e-5)
    again = network(device="cpu", precision="float32")
    again.fit(x, np.arange(8) % CLASSES, epochs=1, verbose=0)
    viz.grad_cam(again, x)
    untouched = network(device="cpu", precision="float32")
    for one in (again, untouched):
        one.fit(x, np.arange(8) % CLASSES, epochs=2 - (one is again), verbose=0)
    assert everything(again) == everything(untouched)  # its dropout masks too


def test_integrated_gradients_add_up_to_the_difference_of_the_scores():
    smooth = [L.Conv2D(4, 3, activation="tanh"), L.AveragePooling2D(2), L.Flatten(), L.Dense(CLASSES)]
    model = Sequential(smooth, input_shape=SHAPE, seed=0, precision="float64")
    x, target = samples(model), np.array([0, 1, 2, 3, 0])
    for baseline in (0.0, 0.3 * np.ones(SHAPE)):
        found = viz.saliency(model, x, target, "integrated_gradients", steps=200, baseline=baseline)
        start = np.broadcast_to(np.asarray(baseline, float), x.shape)
        gain = (model.predict(x) - model.predict(start))[np.arange(N), target]
        np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), gain, rtol=1e-5, atol=1e-5)


def test_the_other_methods_are_their_formulas():
    model = network()
    x, target = samples(model), 2
    slope = viz.saliency(model, x, target)
    np.testing.assert_allclose(viz.saliency(model, x, target, "input_x_gradient"), x * slope)
    np.testing.assert_allclose(viz.saliency(model, x, target, "smoothgrad", noise=0), slope, rtol=1e-9)
    rng, spread = np.random.default_rng(7), 0.1 * np.ptp(x, axis=(1, 2, 3), keepdims=True)
    by_hand = np.mean(
        [viz.saliency(model, x + spread * rng.standard_normal(x.shape), target) for _ in range(3)], axis=0
    )
    smooth = viz.saliency(model, x, target, "smoothgrad", samples=3, noise=0.1, seed=7)
    np.testing.assert_allclose(smooth, by_hand, rtol=1e-9)


def test_an_activation_counts_to_the_last_convolution_fused_or_not():
    fused = Sequential(
        [L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(2), L.Flatten(), L.Dense(3)],
        input_shape=(1, 8, 8), seed=0, precision="float64",
    )  # fmt: skip
    apart = Sequential(
        [L.Conv2D(4, 3), L.ReLU(), L.MaxPooling2D(2), L.Flatten(), L.Dense(3)],
        input_shape=(1, 8, 8), seed=0, precision="float64",
    )  # fmt: skip
    apart.set_weights(fused.get_weights())
    x = samples(fused)
    np.testing.assert_allclose(viz.grad_cam(fused, x), viz.grad_cam(apart, x))
    assert not np.allclose(viz.grad_cam(fused, x), viz.grad_cam(apart, x, layer="conv2d"))


def test_many_samples_are_worked_in_blocks_that_agree_with_one_by_one():
    model = network()
    x, target = samples(model, 130), np.arange(130) // 33
    level(model, x)
    slopes, maps = viz.saliency(model, x, target), viz.grad_cam(model, x, target)
    for i in (0, 63, 64, 97, 129):
        np.testing.assert_allclose(slopes[i], viz.saliency(model, x[i : i + 1], target[i])[0], rtol=1e-9)
        np.testing.assert_allclose(maps[i], viz.grad_cam(model, x[i : i + 1], target[i])[0], rtol=1e-9)
    np.testing.assert_allclose(viz.saliency(model, x)[97], viz.saliency(model, x[97:98])[0], rtol=1e-9)


def test_images_without_a_channel_axis_and_vectors_keep_their_shape():
    grey = Sequential([L.Conv2D(2, 3), L.Flatten(), L.Dense(3)], input_shape=(6, 6), seed=0)
    flat = Sequential([L.Dense(4, activation="relu"), L.Dense(3)], input_shape=(16,), seed=0)
    for model in (grey, flat):
        x = samples(model)
        assert viz.saliency(model, x).shape == x.shape
        assert viz.saliency(model, x, method="integrated_gradients", steps=2).shape == x.shape


def test_scores_of_a_model_that_yields_maps_are_added_up():
    model = Sequential(
        [L.Conv2D(4, 3, padding="same", activation="relu"), L.Conv2D(3, 1, activation="softmax")],
        input_shape=(1, 6, 6), seed=0, precision="float64",
    )  # fmt: skip
    x, v = samples(model, 1), np.random.default_rng(0).normal(size=(1, 1, 6, 6))
    logits = Sequential(
        [L.Conv2D(4, 3, padding="same", activation="relu"), L.Conv2D(3, 1)],
        input_shape=(1, 6, 6), precision="float64",
    )  # fmt: skip
    logits.set_weights(model.get_weights())
    high, low = (logits.predict(x + s * 1e-6 * v)[:, 2].sum() for s in (1, -1))
    assert (viz.saliency(model, x, 2) * v).sum() == pytest.approx((high - low) / 2e-6, rel=1e-5)
    assert viz.grad_cam(model, x, layer=0).shape == (1, 6, 6)
    x = np.concatenate(
        [samples(model, 9), np.pad(samples(model, 9)[:, :, :1, :1] * 30, [(0, 0)] * 2 + [(2, 3)] * 2)]
    )
    level(logits, x)
    model.set_weights(logits.get_weights())
    total = logits.predict(x).sum(axis=(2, 3)).argmax(axis=1)
    assert (total != logits.predict(x).max(axis=(2, 3)).argmax(axis=1)).any() and len(set(total)) > 1
    np.testing.assert_array_equal(viz.saliency(model, x), viz.saliency(model, x, total))


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, words",
    [
        ({"target": 4}, "Received: 4. Expected: 0 to 3"),
        ({"target": [0, 1, 2, 3, -1]}, "Received: -1. Expected: 0 to 3"),
        ({"target": [0, 1]}, "one for each sample"),
        ({"target": 1.0}, "whole number"),
        ({"method": "gradients"}, "Did you mean 'gradient'"),
        ({"method": "integrated_gradients", "steps": 0}, "steps must be"),
        ({"method": "integrated_gradients", "baseline": np.zeros(5)}, "baseline does not fit"),
        ({"method": "smoothgrad", "noise": -1}, "noise must be"),
    ],
)
def test_unusable_wishes_are_refused(more, words):
    model = network()
    with pytest.raises(ValueError, match=words):
        viz.saliency(model, samples(model), **more)


def test_wrong_images_unbuilt_models_and_layers_without_maps_are_refused():
    model = network()
    x = samples(model)
    with pytest.raises(ShapeError, match=r"Received: \(3, 9, 8\).*a single sample is a batch of one"):
        viz.grad_cam(model, x[0])
    with pytest.raises(ValueError, match="must be finite"):
        viz.saliency(model, np.full_like(x, np.nan))
    with pytest.raises(NotBuiltError, match="input shape"):
        viz.grad_cam(Sequential([L.Conv2D(2, 3), L.Flatten(), L.Dense(2)]), x)
    with pytest.raises(ShapeError, match=r"'dense' yields no maps.*Expected: one of 'conv2d', "):
        viz.grad_cam(model, x, layer="dense")
    with pytest.raises(ShapeError, match="'conv2d_1' stands inside another"):
        viz.grad_cam(model, x, layer="conv2d_1")
    with pytest.raises(ValueError, match="unknown layer"):
        viz.grad_cam(model, x, layer="conv9")
    with pytest.raises(ShapeError, match="no layer of this model yields maps"):
        viz.grad_cam(Sequential([L.Dense(2)], input_shape=(3,)), np.ones((1, 3)))
    pooling = Sequential([L.MaxPooling2D(2), L.Flatten(), L.Dense(2)], input_shape=(1, 4, 4), seed=0)
    with pytest.raises(ShapeError, match="this model has none"):
        viz.grad_cam(pooling, np.ones((1, 1, 4, 4)))
    assert viz.grad_cam(pooling, np.ones((1, 1, 4, 4)), layer=0).shape == (1, 2, 2)


# -- pictures ------------------------------------------------------------------------------------------------


def test_the_pictures_hold_the_images_and_the_maps():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from xpnet.viz import heatmaps

    model = network(precision="float32")
    x = np.abs(samples(model))
    x /= x.max()
    names = [f"class {k} with a rather long name" for k in range(CLASSES)]
    axes = viz.plot_grad_cam(model, x, target=1, labels=names)
    assert axes.shape == (2, N)
    heat = viz.grad_cam(model, x, 1)
    for i, (above, below) in enumerate(axes.T):
        np.testing.assert_allclose(above.images[0].get_array(), x[i].transpose(1, 2, 0), rtol=1e-6)
        if heat[i].max() > 0:
            np.testing.assert_array_equal(below.images[1].get_array(), heat[i])
            assert below.images[1].get_extent() == [-0.5, 7.5, 8.5, -0.5]  # over the whole image
        else:
            assert "nothing" in below.get_xlabel()
    p = model.predict(x)
    assert axes[0, 2].get_title() == f"class 1 with a ra…\n{p[2, 1]:.1%}"
    slopes = viz.plot_saliency(model, x, target=1)
    expected = np.abs(viz.saliency(model, x, 1)[2]).max(axis=0)
    np.testing.assert_allclose(slopes[1, 2].images[0].get_array(), expected)
    signed = viz.plot_saliency(model, x, target=1, method="integrated_gradients", steps=3)
    low, high = signed[1, 0].images[0].get_clim()
    assert -low == high > 0
    with pytest.raises(ShapeError, match="at most 16"):
        viz.plot_grad_cam(model, np.repeat(x, 4, axis=0))
    with pytest.raises(ValueError, match="2 labels for 4 classes"):
        viz.plot_saliency(model, x, labels=["a", "b"])
    assert heatmaps.MOST == 16


def test_a_map_on_which_nothing_speaks_for_the_class_says_so():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    model = Sequential(
        [L.Conv2D(2, 3, activation="relu"), L.Flatten(), L.Dense(2)], input_shape=(1, 5, 5), seed=0
    )
    state = model.state_dict()
    model.load_state_dict({name: np.zeros_like(a) for name, a in state.items()})
    axes = viz.plot_grad_cam(model, np.ones((1, 1, 5, 5)))
    assert "nothing" in axes[1, 0].get_xlabel() and len(axes[1, 0].images) == 1


def test_grey_images_vectors_and_models_of_maps_have_pictures_too():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    grey = Sequential([L.Conv2D(2, 3), L.Flatten(), L.Dense(3)], input_shape=(6, 6), seed=0)
    flat = Sequential([L.Dense(4, activation="relu"), L.Dense(3)], input_shape=(16,), seed=0)
    for model in (grey, flat):
        axes = viz.plot_saliency(model, samples(model))
        assert axes.shape == (2, N) and axes[1, 0].images[0].get_array().ndim == 2
    maps = Sequential([L.Conv2D(3, 3, padding="same", activation="softmax")], input_shape=(1, 6, 6), seed=0)
    assert viz.plot_grad_cam(maps, samples(maps), target=2, layer=0)[0, 0].get_title() == "2"
